//! The service that the behaviours are about.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use lpc::{Context, Shared, SharedMut};
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The implementation's own error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProbeError {
    Refused { reason: String },
    Lpc(String),
}

impl From<lpc::Error> for ProbeError {
    fn from(error: lpc::Error) -> Self {
        Self::Lpc(format!("{:?}: {error}", error.kind()))
    }
}

/// The implementation's own error, with a loan in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LoanRefused {
    With { loan: Shared<[u8]> },
    Lpc(String),
}

impl From<lpc::Error> for LoanRefused {
    fn from(error: lpc::Error) -> Self {
        Self::Lpc(format!("{:?}: {error}", error.kind()))
    }
}

/// Plain data of a derived type.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Point {
    pub x: f32,
    pub y: f32,
    pub id: u64,
}

/// Plain data that private memory is not aligned for by itself.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable)]
#[repr(C, align(64))]
pub struct CacheLine {
    pub words: [u64; 8],
}

/// Loans wherever a value can stand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Nest {
    pub name: String,
    pub numbers: Shared<[u16]>,
    pub text: Shared<str>,
    pub some: Option<Shared<[u8]>>,
    pub none: Option<Shared<[u8]>>,
    pub pair: (Shared<[f64]>, u32),
    pub list: Vec<Shared<[u8]>>,
    pub array: [Shared<[u8]>; 2],
    pub egg: Egg,
    pub eggs: Vec<Egg>,
    pub map: BTreeMap<u32, Shared<[[u8; 3]]>>,
    pub boxed: Box<Shared<[Point]>>,
    pub lines: Shared<[CacheLine]>,
    pub either: Result<Shared<[u8]>, Shared<str>>,
    pub inner: Option<Box<Nest>>,
    pub last: u8,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Egg {
    Broken,
    Whole(Shared<[u8]>),
    Two(Shared<[u8]>, Shared<[u16]>),
    Named { name: String, body: Shared<[u8]> },
}

/// Arguments that borrow.
#[derive(Debug, Serialize, Deserialize)]
pub struct Borrowing<'a> {
    pub text: &'a str,
    #[serde(borrow)]
    pub cow: Cow<'a, str>,
    #[serde(borrow)]
    pub body: &'a [u8],
}

/// How a loan is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// In the connection's shared memory: by `Client::loan`, or `SharedMut::for_caller`.
    Loan,
    Zeroed,
    Vec,
    Sealed,
    /// A file.
    File,
    /// A range of a file that does not begin at a page.
    Range,
}

impl How {
    pub const ALL: [Self; 6] = [Self::Loan, Self::Zeroed, Self::Vec, Self::Sealed, Self::File, Self::Range];

    /// Bytes in a file.
    pub fn file(bytes: &[u8], before: u64) -> Shared<[u8]> {
        use std::os::unix::fs::FileExt;
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, before).unwrap();
        if before == 0 {
            return Shared::from_file(&file, ..).unwrap();
        }
        file.write_all_at(b"behind", before + bytes.len() as u64).unwrap();
        Shared::from_file(&file, before..before + bytes.len() as u64).unwrap()
    }
}

/// What an address is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    SharedMemory,
    Elsewhere,
}

impl Place {
    pub fn of<T>(at: *const T) -> Self {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let is_here = |line: &&str| {
            let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            let number = |text| usize::from_str_radix(text, 16).unwrap();
            (number(from)..number(to)).contains(&at.addr())
        };
        let line = maps.lines().find(is_here).expect("what is read is mapped");
        if line.contains("/memfd:lpc") { Self::SharedMemory } else { Self::Elsewhere }
    }
}

/// The methods of the service, each once: for the two traits, and for all that pass calls on.
macro_rules! methods {
    ($for_all:ident) => {
        $for_all! {
            fn echo(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>>;
            fn sum(&self, numbers: &[u64], text: &str) -> lpc::Result<(u64, String)>;
            fn refuse(&self, reason: &str) -> Result<(), ProbeError>;
            fn relay(&self, text: &str) -> lpc::Result<()>;
            fn panic(&self, text: &str) -> lpc::Result<()>;
            fn make(&self, len: u64) -> lpc::Result<Vec<u8>>;
            /// Returns once `open` was called with the same key.
            fn wait(&self, key: u64) -> lpc::Result<()>;
            fn open(&self, key: u64) -> lpc::Result<()>;
            /// Returns when it is cancelled, or `open` was called with the same key.
            fn heed(&self, key: u64) -> lpc::Result<()>;
            #[lpc(deadline = "50ms")]
            fn heed_briefly(&self, key: u64) -> lpc::Result<()>;
            #[lpc(idempotent)]
            fn wait_idempotent(&self, key: u64) -> lpc::Result<()>;
            /// Milliseconds that the caller still waits, and who it is.
            fn context(&self) -> lpc::Result<(Option<u64>, Option<u32>)>;
            /// Panics when what it holds is dropped.
            fn panic_in_drop(&self, text: &str) -> lpc::Result<()>;
            fn most_at_once(&self) -> lpc::Result<u64>;
            fn nap(&self, millis: u64) -> lpc::Result<()>;
            #[lpc(threshold = "off")]
            fn echo_by_socket(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>>;
            #[lpc(threshold = "always")]
            fn echo_by_mapping(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>>;

            /// The same nest.
            fn turn(&self, nest: Nest) -> lpc::Result<Nest>;
            fn turn_by_reference(&self, nest: &Nest) -> lpc::Result<Nest>;
            fn turn_bare(&self, loan: Shared<[u16]>, text: &Shared<str>) -> lpc::Result<(Shared<[u16]>, Shared<str>)>;
            fn turn_option(&self, loan: Option<Shared<[f64]>>) -> lpc::Result<Option<Shared<[f64]>>>;
            fn turn_all(&self, loans: &[Shared<[u8]>]) -> lpc::Result<Vec<Shared<[u8]>>>;
            fn turn_words(&self, words: Vec<String>) -> lpc::Result<Vec<String>>;
            /// The loan in an error.
            fn refuse_with(&self, loan: Shared<[u8]>) -> Result<(), LoanRefused>;
            /// A loan of `len` bytes of `fill`.
            fn lend(&self, how: How, len: usize, fill: u8) -> lpc::Result<Shared<[u8]>>;
            /// The same, once `open` was called with `key`.
            fn lend_after(&self, key: u64, len: usize, fill: u8) -> lpc::Result<Shared<[u8]>>;
            fn keep(&self, loan: Shared<[u8]>) -> lpc::Result<()>;
            /// What is mapped where the arguments are.
            fn places(
                &self,
                text: &str,
                bytes: &[u8],
                borrowing: Borrowing<'_>,
                loan: &Shared<[u8]>,
                letters: Shared<str>
            ) -> lpc::Result<Vec<Place>>;
        }
    };
}
pub(crate) use methods;

macro_rules! traits {
    ($($(#[$attribute:meta])* fn $method:ident(&self $(, $argument:ident: $type:ty)*) -> $result:ty;)*) => {
        pub mod blocking {
            use super::*;

            #[lpc::service]
            pub trait Probe {
                $($(#[$attribute])* fn $method(&self $(, $argument: $type)*) -> $result;)*
            }
        }

        pub mod asynchronous {
            use super::*;

            /// The same service by name and methods: any client of one is a client of the other.
            #[lpc::service]
            pub trait Probe {
                $($(#[$attribute])* async fn $method(&self $(, $argument: $type)*) -> $result;)*
            }
        }
    };
}

methods!(traits);

/// What both implementations share.
#[derive(Default)]
pub struct Implementation {
    opened: Mutex<HashSet<u64>>,
    changed: Condvar,
    notify: tokio::sync::Notify,
    running: AtomicUsize,
    most: AtomicUsize,
    /// Calls of `nap` that began.
    pub naps: AtomicUsize,
    /// Calls of `lend_after` that began.
    pub lending: AtomicUsize,
    pub kept: Mutex<Vec<Shared<[u8]>>>,
    /// Calls of `heed` that began, and that ended because they were cancelled.
    pub heeding: AtomicUsize,
    pub cancelled: AtomicUsize,
    /// Calls of `wait_idempotent` that began.
    pub waits: AtomicUsize,
}

/// Notes that a future was dropped before its end.
struct Unfinished<'a>(&'a Implementation, bool);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.cancelled.fetch_add(1, SeqCst);
        }
    }
}

struct PanicsInDrop(String);

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::panic::panic_any(self.0.clone());
        }
    }
}

fn context() -> (Option<u64>, Option<u32>) {
    let context = Context::current();
    assert!(!context.is_cancelled());
    context.check().unwrap();
    (context.time_left().map(|left| left.as_millis() as u64), context.peer().map(|peer| peer.uid()))
}

/// Counts a call as running.
struct Running<'a>(&'a Implementation);

impl<'a> Running<'a> {
    fn new(probe: &'a Implementation) -> Self {
        let now = probe.running.fetch_add(1, SeqCst) + 1;
        probe.most.fetch_max(now, SeqCst);
        probe.naps.fetch_add(1, SeqCst);
        Self(probe)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

impl Implementation {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn open_now(&self, key: u64) {
        self.opened.lock().unwrap().insert(key);
        self.changed.notify_all();
        self.notify.notify_waiters();
    }

    fn sum_of(numbers: &[u64], text: &str) -> (u64, String) {
        (numbers.iter().fold(0, |sum, number| sum.wrapping_add(*number)), text.to_uppercase())
    }

    fn made(len: u64) -> Vec<u8> {
        (0..len).map(|at| (at % 251) as u8).collect()
    }

    fn turn(&self, nest: Nest) -> lpc::Result<Nest> {
        Ok(nest)
    }

    fn turn_by_reference(&self, nest: &Nest) -> lpc::Result<Nest> {
        Ok(nest.clone())
    }

    fn turn_bare(
        &self,
        loan: Shared<[u16]>,
        text: &Shared<str>,
    ) -> lpc::Result<(Shared<[u16]>, Shared<str>)> {
        Ok((loan, text.clone()))
    }

    fn turn_option(&self, loan: Option<Shared<[f64]>>) -> lpc::Result<Option<Shared<[f64]>>> {
        Ok(loan)
    }

    fn turn_all(&self, loans: &[Shared<[u8]>]) -> lpc::Result<Vec<Shared<[u8]>>> {
        Ok(loans.to_vec())
    }

    fn turn_words(&self, words: Vec<String>) -> lpc::Result<Vec<String>> {
        Ok(words)
    }

    fn refuse_with(&self, loan: Shared<[u8]>) -> Result<(), LoanRefused> {
        Err(LoanRefused::With { loan })
    }

    fn lend(&self, how: How, len: usize, fill: u8) -> lpc::Result<Shared<[u8]>> {
        let mut made = match how {
            How::Loan => SharedMut::for_caller(len),
            How::Zeroed => SharedMut::zeroed(len),
            How::Sealed => SharedMut::sealable(len)?,
            How::Vec => return Ok(vec![fill; len].into()),
            How::File => return Ok(How::file(&vec![fill; len], 0)),
            How::Range => return Ok(How::file(&vec![fill; len], 5000)),
        };
        made.fill(fill);
        Ok(made.freeze())
    }

    fn keep(&self, loan: Shared<[u8]>) -> lpc::Result<()> {
        self.kept.lock().unwrap().push(loan);
        Ok(())
    }

    fn places(
        &self,
        text: &str,
        bytes: &[u8],
        borrowing: Borrowing<'_>,
        loan: &Shared<[u8]>,
        letters: Shared<str>,
    ) -> lpc::Result<Vec<Place>> {
        Ok(vec![
            Place::of(text.as_ptr()),
            Place::of(bytes.as_ptr()),
            Place::of(borrowing.text.as_ptr()),
            Place::of(borrowing.cow.as_ptr()),
            Place::of(borrowing.body.as_ptr()),
            Place::of(loan.as_ptr()),
            Place::of(letters.as_ptr()),
        ])
    }

    /// Drops what was kept.
    pub fn forget_kept(&self) {
        self.kept.lock().unwrap().clear();
    }
}

/// The methods whose implementation is the same for both traits.
macro_rules! methods_of_loans {
    ($for_all:ident) => {
        $for_all! {
            fn turn(&self, nest: Nest) -> lpc::Result<Nest>;
            fn turn_by_reference(&self, nest: &Nest) -> lpc::Result<Nest>;
            fn turn_bare(&self, loan: Shared<[u16]>, text: &Shared<str>) -> lpc::Result<(Shared<[u16]>, Shared<str>)>;
            fn turn_option(&self, loan: Option<Shared<[f64]>>) -> lpc::Result<Option<Shared<[f64]>>>;
            fn turn_all(&self, loans: &[Shared<[u8]>]) -> lpc::Result<Vec<Shared<[u8]>>>;
            fn turn_words(&self, words: Vec<String>) -> lpc::Result<Vec<String>>;
            fn refuse_with(&self, loan: Shared<[u8]>) -> Result<(), LoanRefused>;
            fn lend(&self, how: How, len: usize, fill: u8) -> lpc::Result<Shared<[u8]>>;
            fn keep(&self, loan: Shared<[u8]>) -> lpc::Result<()>;
            fn places(
                &self,
                text: &str,
                bytes: &[u8],
                borrowing: Borrowing<'_>,
                loan: &Shared<[u8]>,
                letters: Shared<str>
            ) -> lpc::Result<Vec<Place>>;
        }
    };
}

macro_rules! sync {
    ($(fn $method:ident(&self $(, $argument:ident: $type:ty)*) -> $result:ty;)*) => {
        $(fn $method(&self $(, $argument: $type)*) -> $result {
            Self::$method(self $(, $argument)*)
        })*
    };
}

macro_rules! not_sync {
    ($(fn $method:ident(&self $(, $argument:ident: $type:ty)*) -> $result:ty;)*) => {
        $(async fn $method(&self $(, $argument: $type)*) -> $result {
            Self::$method(self $(, $argument)*)
        })*
    };
}

impl blocking::Probe for Implementation {
    fn echo(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>> {
        Ok(bytes.to_vec())
    }
    fn sum(&self, numbers: &[u64], text: &str) -> lpc::Result<(u64, String)> {
        Ok(Self::sum_of(numbers, text))
    }
    fn refuse(&self, reason: &str) -> Result<(), ProbeError> {
        Err(ProbeError::Refused { reason: reason.to_owned() })
    }
    fn relay(&self, text: &str) -> lpc::Result<()> {
        Err(lpc::Error::other(text))
    }
    fn panic(&self, text: &str) -> lpc::Result<()> {
        std::panic::panic_any(text.to_owned())
    }
    fn make(&self, len: u64) -> lpc::Result<Vec<u8>> {
        Ok(Self::made(len))
    }
    fn wait(&self, key: u64) -> lpc::Result<()> {
        let mut opened = self.opened.lock().unwrap();
        while !opened.contains(&key) {
            opened = self.changed.wait(opened).unwrap();
        }
        Ok(())
    }
    fn open(&self, key: u64) -> lpc::Result<()> {
        self.open_now(key);
        Ok(())
    }
    fn heed(&self, key: u64) -> lpc::Result<()> {
        self.heeding.fetch_add(1, SeqCst);
        let context = Context::current();
        while !self.opened.lock().unwrap().contains(&key) {
            if context.wait_cancelled(Duration::from_millis(20)) {
                self.cancelled.fetch_add(1, SeqCst);
                return context.check();
            }
        }
        Ok(())
    }
    fn heed_briefly(&self, key: u64) -> lpc::Result<()> {
        blocking::Probe::heed(self, key)
    }
    fn wait_idempotent(&self, key: u64) -> lpc::Result<()> {
        self.waits.fetch_add(1, SeqCst);
        blocking::Probe::wait(self, key)
    }
    fn context(&self) -> lpc::Result<(Option<u64>, Option<u32>)> {
        Ok(context())
    }
    fn panic_in_drop(&self, text: &str) -> lpc::Result<()> {
        let _held = PanicsInDrop(text.to_owned());
        Ok(())
    }
    fn most_at_once(&self) -> lpc::Result<u64> {
        Ok(self.most.load(SeqCst) as u64)
    }
    fn nap(&self, millis: u64) -> lpc::Result<()> {
        let _running = Running::new(self);
        std::thread::sleep(Duration::from_millis(millis));
        Ok(())
    }
    fn echo_by_socket(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>> {
        Ok(bytes.to_vec())
    }
    fn echo_by_mapping(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>> {
        Ok(bytes.to_vec())
    }
    fn lend_after(&self, key: u64, len: usize, fill: u8) -> lpc::Result<Shared<[u8]>> {
        self.lending.fetch_add(1, SeqCst);
        blocking::Probe::wait(self, key)?;
        self.lend(How::Loan, len, fill)
    }

    methods_of_loans!(sync);
}

impl asynchronous::Probe for Implementation {
    async fn echo(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>> {
        Ok(bytes.to_vec())
    }
    async fn sum(&self, numbers: &[u64], text: &str) -> lpc::Result<(u64, String)> {
        Ok(Self::sum_of(numbers, text))
    }
    async fn refuse(&self, reason: &str) -> Result<(), ProbeError> {
        Err(ProbeError::Refused { reason: reason.to_owned() })
    }
    async fn relay(&self, text: &str) -> lpc::Result<()> {
        Err(lpc::Error::other(text))
    }
    async fn panic(&self, text: &str) -> lpc::Result<()> {
        tokio::task::yield_now().await;
        std::panic::panic_any(text.to_owned())
    }
    async fn make(&self, len: u64) -> lpc::Result<Vec<u8>> {
        Ok(Self::made(len))
    }
    async fn wait(&self, key: u64) -> lpc::Result<()> {
        loop {
            let notified = self.notify.notified();
            if self.opened.lock().unwrap().contains(&key) {
                return Ok(());
            }
            notified.await;
        }
    }
    async fn open(&self, key: u64) -> lpc::Result<()> {
        self.open_now(key);
        Ok(())
    }
    async fn heed(&self, key: u64) -> lpc::Result<()> {
        self.heeding.fetch_add(1, SeqCst);
        let mut unfinished = Unfinished(self, false);
        asynchronous::Probe::wait(self, key).await?;
        unfinished.1 = true;
        Ok(())
    }
    async fn heed_briefly(&self, key: u64) -> lpc::Result<()> {
        asynchronous::Probe::heed(self, key).await
    }
    async fn wait_idempotent(&self, key: u64) -> lpc::Result<()> {
        self.waits.fetch_add(1, SeqCst);
        asynchronous::Probe::wait(self, key).await
    }
    async fn context(&self) -> lpc::Result<(Option<u64>, Option<u32>)> {
        tokio::task::yield_now().await;
        Ok(context())
    }
    async fn panic_in_drop(&self, text: &str) -> lpc::Result<()> {
        let _held = PanicsInDrop(text.to_owned());
        tokio::task::yield_now().await;
        Ok(())
    }
    async fn most_at_once(&self) -> lpc::Result<u64> {
        Ok(self.most.load(SeqCst) as u64)
    }
    async fn nap(&self, millis: u64) -> lpc::Result<()> {
        let _running = Running::new(self);
        tokio::time::sleep(Duration::from_millis(millis)).await;
        Ok(())
    }
    async fn echo_by_socket(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>> {
        Ok(bytes.to_vec())
    }
    async fn echo_by_mapping(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>> {
        Ok(bytes.to_vec())
    }
    async fn lend_after(&self, key: u64, len: usize, fill: u8) -> lpc::Result<Shared<[u8]>> {
        self.lending.fetch_add(1, SeqCst);
        asynchronous::Probe::wait(self, key).await?;
        self.lend(How::Loan, len, fill)
    }

    methods_of_loans!(not_sync);
}
