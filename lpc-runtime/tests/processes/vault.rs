//! The service of the tests about shared memory, its server as another process, and clients of both drivers.

use std::collections::BTreeMap;
use std::fs::File;
use std::hint::black_box;
use std::io::BufRead;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lpc::{ErrorKind, Shared, SharedMut, Stats};
use serde::{Deserialize, Serialize};

use crate::fault;
use crate::process::{PORT, Process, holdings, other, say, settled, text, through_shell, until, variable};
use crate::service::{DRIVERS, Driver, PATIENCE, RUNTIME};

macro_rules! vault {
    ($module:ident $($colour:ident)?, $sleep:path $(, $($wait:tt)+)?) => {
        pub mod $module {
            use lpc::Shared;

            #[lpc::service]
            pub trait Vault {
                $($colour)? fn length(&self, bytes: &[u8]) -> lpc::Result<u64>;
                /// The length, if the arguments were decoded to a vector.
                $($colour)? fn owned(&self, bytes: Vec<u8>) -> lpc::Result<u64>;
                $($colour)? fn make(&self, len: u64, fill: u8) -> lpc::Result<Vec<u8>>;
                /// The sum of all bytes.
                $($colour)? fn sum(&self, bytes: Shared<[u8]>) -> lpc::Result<u64>;
                /// The bytes of all, each page of which was read.
                $($colour)? fn all(&self, many: Vec<Shared<[u8]>>) -> lpc::Result<u64>;
                $($colour)? fn lend(&self, len: u64, fill: u8) -> lpc::Result<Shared<[u8]>>;
                /// The same in memory of the service's own: sealed, or private.
                $($colour)? fn give(&self, len: u64, fill: u8, is_sealed: bool) -> lpc::Result<Shared<[u8]>>;
                /// Looks whether text is text, and stays what it is.
                $($colour)? fn texts(
                    &self, text: &str, owned: String, many: Vec<String>, shared: Shared<str>, bytes: Shared<[u8]>,
                ) -> lpc::Result<u64>;
                /// How often it was not.
                $($colour)? fn faults(&self) -> lpc::Result<u64>;
                /// The characters of a text.
                $($colour)? fn characters(&self, text: Shared<str>) -> lpc::Result<u64>;
                /// Keeps it; says how many are kept.
                $($colour)? fn keep(&self, bytes: Shared<[u8]>) -> lpc::Result<u64>;
                /// Length and sum of each that is kept.
                $($colour)? fn kept(&self) -> lpc::Result<Vec<(u64, u64)>>;
                $($colour)? fn forget(&self) -> lpc::Result<()>;
                /// Every `step`th byte of what is kept: by dereferencing, or piece by piece.
                $($colour)? fn marks(&self, step: u64, by_piece: bool) -> lpc::Result<Vec<u8>>;
                /// Where a value is: the inode of the mapping at its address, and what that is of.
                $($colour)? fn place(&self, bytes: Shared<[u8]>) -> lpc::Result<String>;
                /// The place here, and at the service of another port to which it is passed on.
                $($colour)? fn places(&self, port: &str, bytes: Shared<[u8]>) -> lpc::Result<(String, String)>;
                /// Reads all that is in it.
                $($colour)? fn look(&self, thing: super::Thing) -> lpc::Result<super::Thing>;
                $($colour)? fn nap(&self, millis: u64) -> lpc::Result<()>;
            }

            impl Vault for super::Store {
                $($colour)? fn length(&self, bytes: &[u8]) -> lpc::Result<u64> {
                    Ok(bytes.len() as u64)
                }
                $($colour)? fn owned(&self, bytes: Vec<u8>) -> lpc::Result<u64> {
                    Ok(bytes.len() as u64)
                }
                $($colour)? fn make(&self, len: u64, fill: u8) -> lpc::Result<Vec<u8>> {
                    Ok(vec![fill; len as usize])
                }
                $($colour)? fn sum(&self, bytes: Shared<[u8]>) -> lpc::Result<u64> {
                    Ok(super::sum(&bytes))
                }
                $($colour)? fn all(&self, many: Vec<Shared<[u8]>>) -> lpc::Result<u64> {
                    super::all(&many)
                }
                $($colour)? fn lend(&self, len: u64, fill: u8) -> lpc::Result<Shared<[u8]>> {
                    Ok(super::lend(len, fill))
                }
                $($colour)? fn give(&self, len: u64, fill: u8, is_sealed: bool) -> lpc::Result<Shared<[u8]>> {
                    Ok(if is_sealed { super::sealed(len as usize, fill) } else { super::private(len as usize, fill) })
                }
                $($colour)? fn texts(
                    &self, text: &str, owned: String, many: Vec<String>, shared: Shared<str>, bytes: Shared<[u8]>,
                ) -> lpc::Result<u64> {
                    self.check(text, &owned, &many, &shared, &bytes)
                }
                $($colour)? fn faults(&self) -> lpc::Result<u64> {
                    Ok(self.faults.load(super::Relaxed))
                }
                $($colour)? fn characters(&self, text: Shared<str>) -> lpc::Result<u64> {
                    Ok(text.chars().count() as u64)
                }
                $($colour)? fn keep(&self, bytes: Shared<[u8]>) -> lpc::Result<u64> {
                    self.kept().push(bytes);
                    Ok(self.kept().len() as u64)
                }
                $($colour)? fn kept(&self) -> lpc::Result<Vec<(u64, u64)>> {
                    Ok(self.kept().iter().map(|bytes| (bytes.len() as u64, super::sum(bytes))).collect())
                }
                $($colour)? fn forget(&self) -> lpc::Result<()> {
                    self.kept().clear();
                    Ok(())
                }
                $($colour)? fn marks(&self, step: u64, by_piece: bool) -> lpc::Result<Vec<u8>> {
                    super::marks(&self.kept()[0], step, by_piece)
                }
                $($colour)? fn place(&self, bytes: Shared<[u8]>) -> lpc::Result<String> {
                    Ok(super::place(&bytes))
                }
                $($colour)? fn places(&self, port: &str, bytes: Shared<[u8]>) -> lpc::Result<(String, String)> {
                    let here = super::place(&bytes);
                    Ok((here, super::AnyVault::connect(super::Driver::Blocking, port)?.place(bytes)?))
                }
                $($colour)? fn look(&self, thing: super::Thing) -> lpc::Result<super::Thing> {
                    thing.read();
                    Ok(super::Thing::Nothing)
                }
                $($colour)? fn nap(&self, millis: u64) -> lpc::Result<()> {
                    $sleep(super::Duration::from_millis(millis)) $($($wait)+)?;
                    Ok(())
                }
            }
        }
    };
}

vault!(blocking, std::thread::sleep);
vault!(asynchronous async, tokio::time::sleep, .await);

/// Of all kinds of values that a peer can spoil, one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Thing {
    Nothing,
    Text(String),
    Letter(char),
    Flag(bool),
    Maybe(Option<u8>),
    Number(u8),
    Units(Vec<()>),
    Words(Vec<String>),
    Map(BTreeMap<u8, u8>),
    Deep(Box<Thing>),
    Loan(Shared<[u8]>),
    Letters(Shared<str>),
    Loans(Vec<Shared<[u8]>>),
}

impl Thing {
    /// Looks at all that it refers to. What cannot be read, of a file for one, is nobody's fault here.
    pub fn read(&self) {
        let mut thing = self;
        while let Self::Deep(inner) = thing {
            thing = inner;
        }
        match thing {
            Self::Loan(loan) => _ = loan.load().map(sum),
            Self::Loans(loans) => _ = all(loans),
            Self::Letters(letters) => _ = letters.load().map(|letters| letters.chars().count()),
            other => _ = black_box(other),
        }
    }
}

/// Implements both.
#[derive(Default)]
pub struct Store {
    kept: Mutex<Vec<Shared<[u8]>>>,
    faults: AtomicU64,
}

impl Store {
    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Shared<[u8]>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(
        &self,
        text: &str,
        owned: &str,
        many: &[String],
        shared: &str,
        bytes: &[u8],
    ) -> lpc::Result<u64> {
        let before = bytes.to_vec();
        let texts: Vec<&str> =
            [text, owned, shared].into_iter().chain(many.iter().map(String::as_str)).collect();
        let copies: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        let are_texts = || texts.iter().all(|text| std::str::from_utf8(black_box(text.as_bytes())).is_ok());
        let are_same = || texts.iter().zip(&copies).all(|(text, copy)| black_box(text.as_bytes()) == copy);
        if !(are_texts() && are_same() && are_texts() && are_same() && black_box(bytes) == before) {
            self.faults.fetch_add(1, Relaxed);
        }
        Ok(texts.len() as u64)
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

fn all(many: &[Shared<[u8]>]) -> lpc::Result<u64> {
    let mut len = 0;
    for bytes in many {
        let bytes = bytes.load()?;
        black_box(bytes.iter().step_by(4096).map(|byte| u64::from(*byte)).sum::<u64>());
        len += bytes.len() as u64;
    }
    Ok(len)
}

fn lend(len: u64, fill: u8) -> Shared<[u8]> {
    let mut bytes = SharedMut::for_caller(len as usize);
    bytes.fill(fill);
    bytes.freeze()
}

/// Every `step`th byte.
pub fn marks(bytes: &Shared<[u8]>, step: u64, by_piece: bool) -> lpc::Result<Vec<u8>> {
    let places = (0..bytes.byte_len()).step_by(step as usize);
    if !by_piece {
        let bytes = bytes.load()?;
        return Ok(places.map(|at| bytes[at as usize]).collect());
    }
    let mut piece = vec![0; 1 << 16];
    let mut marks = Vec::new();
    for at in places {
        bytes.read_at(at, &mut piece)?;
        marks.push(piece[0]);
    }
    Ok(marks)
}

/// The inode and the path of what is mapped where these bytes are.
pub fn place(bytes: &[u8]) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let address = bytes.as_ptr().addr();
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let is_here = |from, to| (from..to).contains(&address);
        if is_here(usize::from_str_radix(from, 16).unwrap(), usize::from_str_radix(to, 16).unwrap()) {
            let mut fields = rest.split_whitespace().skip(3);
            return format!("{} {}", fields.next().unwrap_or("0"), fields.next().unwrap_or("private"));
        }
    }
    "nowhere".to_owned()
}

/// A client of either driver.
#[derive(Clone, Debug)]
pub enum AnyVault {
    Blocking(blocking::VaultClient),
    Tokio(blocking::VaultAsyncClient),
}

/// What the tests set of a client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Knobs {
    pub pool: Option<u64>,
    pub user_pool: Option<u64>,
    pub message: Option<u64>,
    /// Milliseconds of `stall_timeout`.
    pub stall: Option<u64>,
    /// Milliseconds of `keepalive`.
    pub keepalive: Option<u64>,
    /// Shared memory is kept for good.
    pub is_kept: bool,
    pub is_trusting: bool,
    /// Peers have two seconds to say who they are, and shared memory is given back soon.
    pub is_hasty: bool,
    /// It wants the quick lane.
    pub is_quick: bool,
}

impl Knobs {
    pub const QUICK: Self = Self {
        pool: None,
        user_pool: None,
        message: None,
        stall: None,
        keepalive: None,
        is_kept: false,
        is_trusting: false,
        is_hasty: false,
        is_quick: true,
    };

    fn encode(self) -> String {
        let Self { pool, user_pool, message, stall, keepalive, is_kept, is_trusting, is_hasty, is_quick } =
            self;
        let number = |value: Option<u64>| value.map_or(String::from("-"), |value| value.to_string());
        let numbers = [pool, user_pool, message, stall, keepalive].map(number).join(" ");
        format!("{numbers} {is_kept} {is_trusting} {is_hasty} {is_quick}")
    }

    fn decode(text: &str) -> Self {
        let words: Vec<_> = text.split(' ').collect();
        let [pool, user_pool, message, stall, keepalive, is_kept, is_trusting, is_hasty, is_quick] =
            words[..]
        else {
            panic!("{text}")
        };
        let number = |text: &str| text.parse().ok();
        Self {
            pool: number(pool),
            user_pool: number(user_pool),
            message: number(message),
            stall: number(stall),
            keepalive: number(keepalive),
            is_kept: is_kept == "true",
            is_trusting: is_trusting == "true",
            is_hasty: is_hasty == "true",
            is_quick: is_quick == "true",
        }
    }
}

/// For ever, as far as a test is concerned.
const KEPT: Duration = Duration::from_secs(3600);

/// How long a hasty process waits for who does not say who it is.
const HASTE: Duration = Duration::from_secs(2);

macro_rules! with_knobs {
    ($builder:expr, $knobs:expr) => {{
        let mut builder = $builder.handshake_timeout(PATIENCE).quick_lane($knobs.is_quick);
        if let Some(bytes) = $knobs.pool {
            builder = builder.pool_limit(bytes);
        }
        if let Some(bytes) = $knobs.message {
            builder = builder.max_message(bytes);
        }
        if let Some(millis) = $knobs.stall {
            builder = builder.stall_timeout(Duration::from_millis(millis));
        }
        if let Some(millis) = $knobs.keepalive {
            builder = builder.keepalive(Duration::from_millis(millis));
        }
        if $knobs.is_kept {
            builder = builder.pool_idle_timeout(KEPT);
        }
        if $knobs.is_hasty {
            builder = builder.handshake_timeout(HASTE).pool_idle_timeout(HASTE / 40);
        }
        if $knobs.is_trusting {
            // SAFETY: only processes of these tests connect, and those that meet such a peer keep to the
            // rules.
            builder = unsafe { builder.trust(|_| true) };
        }
        builder
    }};
}

impl AnyVault {
    pub fn connect(driver: Driver, port: &str) -> lpc::Result<Self> {
        Self::connect_with(driver, port, Knobs::default())
    }

    #[expect(unsafe_code, reason = "`trust` is unsafe to call")]
    pub fn connect_with(driver: Driver, port: &str, knobs: Knobs) -> lpc::Result<Self> {
        match driver {
            Driver::Blocking => {
                with_knobs!(blocking::VaultClient::builder(), knobs).connect(port).map(Self::Blocking)
            }
            Driver::Tokio => {
                let builder = with_knobs!(blocking::VaultAsyncClient::builder(), knobs);
                RUNTIME.block_on(builder.connect(port)).map(Self::Tokio)
            }
        }
    }

    /// A client that reconnects.
    pub fn connect_again(driver: Driver, port: &str) -> lpc::Result<Self> {
        let policy = lpc::Reconnect::default();
        match driver {
            Driver::Blocking => {
                blocking::VaultClient::builder().reconnect(policy).connect(port).map(Self::Blocking)
            }
            Driver::Tokio => {
                let builder = blocking::VaultAsyncClient::builder().reconnect(policy);
                RUNTIME.block_on(builder.connect(port)).map(Self::Tokio)
            }
        }
    }

    pub fn stats(&self) -> Stats {
        match self {
            Self::Blocking(client) => client.client().stats(),
            Self::Tokio(client) => client.client().stats(),
        }
    }

    /// A loan of bytes that are all the same.
    pub fn loan(&self, len: usize, fill: u8) -> lpc::Result<Shared<[u8]>> {
        let mut loan = match self {
            Self::Blocking(client) => client.client().loan(len),
            Self::Tokio(client) => RUNTIME.block_on(client.client().loan(len)),
        }?;
        loan.fill(fill);
        Ok(loan.freeze())
    }
}

macro_rules! forward {
    ($(fn $method:ident(&self $(, $argument:ident: $type:ty)*) -> $result:ty;)*) => {
        impl AnyVault {
            $(pub fn $method(&self $(, $argument: $type)*) -> $result {
                match self {
                    Self::Blocking(client) => blocking::Vault::$method(client $(, $argument)*),
                    Self::Tokio(client) => RUNTIME.block_on(client.$method($($argument),*)),
                }
            })*
        }
    };
}

impl AnyVault {
    /// A call that has to end without waiting for anything: not even for a lock of the runtime's, which a fork
    /// may have inherited locked.
    pub fn length_at_once(&self, bytes: &[u8]) -> lpc::Result<u64> {
        use blocking::Vault as _;
        match self {
            Self::Blocking(client) => client.length(bytes),
            Self::Tokio(client) => {
                let mut context = Context::from_waker(Waker::noop());
                match pin!(client.length(bytes)).poll(&mut context) {
                    Poll::Ready(result) => result,
                    Poll::Pending => panic!("it waits"),
                }
            }
        }
    }
}

forward! {
    fn length(&self, bytes: &[u8]) -> lpc::Result<u64>;
    fn owned(&self, bytes: Vec<u8>) -> lpc::Result<u64>;
    fn make(&self, len: u64, fill: u8) -> lpc::Result<Vec<u8>>;
    fn sum(&self, bytes: Shared<[u8]>) -> lpc::Result<u64>;
    fn all(&self, many: Vec<Shared<[u8]>>) -> lpc::Result<u64>;
    fn lend(&self, len: u64, fill: u8) -> lpc::Result<Shared<[u8]>>;
    fn give(&self, len: u64, fill: u8, is_sealed: bool) -> lpc::Result<Shared<[u8]>>;
    fn faults(&self) -> lpc::Result<u64>;
    fn nap(&self, millis: u64) -> lpc::Result<()>;
    fn look(&self, thing: Thing) -> lpc::Result<Thing>;
    fn keep(&self, bytes: Shared<[u8]>) -> lpc::Result<u64>;
    fn kept(&self) -> lpc::Result<Vec<(u64, u64)>>;
    fn forget(&self) -> lpc::Result<()>;
    fn marks(&self, step: u64, by_piece: bool) -> lpc::Result<Vec<u8>>;
    fn place(&self, bytes: Shared<[u8]>) -> lpc::Result<String>;
    fn places(&self, port: &str, bytes: Shared<[u8]>) -> lpc::Result<(String, String)>;
}

/// Sealed memory whose bytes are all the same.
pub fn sealed(len: usize, fill: u8) -> Shared<[u8]> {
    let mut bytes = SharedMut::sealable(len).unwrap();
    bytes.fill(fill);
    bytes.freeze()
}

/// Memory of this process alone, that is copied where it is lent.
pub fn private(len: usize, fill: u8) -> Shared<[u8]> {
    Shared::from(vec![fill; len])
}

const KNOBS: &str = "LPC_TEST_KNOBS";

/// Role: serves the port until it is told to end, and does what else it is told to on standard input.
#[expect(unsafe_code, reason = "`trust` is unsafe to call")]
pub fn serve(driver: Driver) -> lpc::Result<()> {
    let knobs = Knobs::decode(&variable(KNOBS));
    let port = variable(PORT);
    match driver {
        Driver::Blocking => {
            let mut builder = with_knobs!(lpc::blocking::Server::builder(), knobs);
            if let Some(bytes) = knobs.user_pool {
                builder = builder.user_pool_limit(bytes);
            }
            let server = builder.bind(port)?;
            let handle = server.handle();
            std::thread::spawn(move || obey(|| handle.shutdown()));
            say("bound");
            server.serve::<blocking::VaultService, _>(Store::default())
        }
        Driver::Tokio => {
            let mut builder = with_knobs!(lpc::Server::builder(), knobs);
            if let Some(bytes) = knobs.user_pool {
                builder = builder.user_pool_limit(bytes);
            }
            let _guard = RUNTIME.enter();
            let server = builder.bind(port)?;
            let handle = server.handle();
            std::thread::spawn(move || obey(|| handle.shutdown()));
            say("bound");
            RUNTIME.block_on(server.serve::<asynchronous::VaultService, _>(Store::default()))
        }
    }
}

/// Takes what this process is told to take, and gives it back; and ends.
fn obey(end: impl Fn()) {
    let mut files = Vec::new();
    let mut memory = Vec::new();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("take", "descriptors") => files = all_descriptors(),
            ("spare", count) => {
                files = all_descriptors();
                files.truncate(files.len() - count.parse::<usize>().unwrap());
            }
            ("give", "descriptors") => files.clear(),
            ("leave", bytes) => memory = all_memory_but(bytes.parse().unwrap()),
            ("give", "memory") => memory.clear(),
            ("arm", "") => fault::arm(),
            ("disarm", "") => fault::disarm(),
            ("end", _) => return end(),
            _ => panic!("{line}"),
        }
        say(&line);
    }
    drop((files, memory));
}

/// Takes all descriptors that this process can have.
pub fn all_descriptors() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

/// Takes address space, until only so much of it is left.
pub fn all_memory_but(left: usize) -> Vec<Vec<u8>> {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    let mut spare = Vec::new();
    let reserve = |into: &mut Vec<Vec<u8>>, len: usize| {
        let mut bytes = Vec::new();
        let is_there = bytes.try_reserve_exact(len).is_ok();
        if is_there {
            into.push(bytes);
        }
        is_there
    };
    assert!(reserve(&mut spare, left), "there is as much to leave");
    for len in [1 << 30, 64 << 20, 1 << 20] {
        while reserve(&mut taken, len) {}
    }
    taken
}

/// A server in another process.
pub struct Vault {
    pub process: Process,
    port: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

impl Vault {
    pub fn start(driver: Driver, knobs: Knobs) -> Self {
        Self::start_limited(driver, knobs, "")
    }

    /// One for which a shell has done `limits` first.
    pub fn start_limited(driver: Driver, knobs: Knobs, limits: &str) -> Self {
        Self::start_command(other("vault", driver), knobs, limits)
    }

    /// One whose system calls fail, once it is told to arm.
    pub fn start_failing(driver: Driver, fault: &str, knobs: Knobs) -> Self {
        let mut command = other("failing_server", driver);
        command.env(fault::FAULT, fault);
        Self::start_command(command, knobs, "")
    }

    fn start_command(mut command: Command, knobs: Knobs, limits: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = directory.path().join("port");
        command.env(PORT, text(&port)).env(KNOBS, knobs.encode()).env("MALLOC_ARENA_MAX", "1");
        let mut command = through_shell(&format!(r#"{limits} exec "$0" "$@""#), &command);
        // What panics in the service is expected to, and said elsewhere.
        let process = Process::start(command.stdin(Stdio::piped()).stderr(Stdio::null()));
        assert_eq!(process.line(), "bound");
        Self { process, port, _directory: directory }
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn port(&self) -> &str {
        text(&self.port)
    }

    pub fn client(&self, driver: Driver) -> AnyVault {
        AnyVault::connect(driver, self.port()).unwrap()
    }

    /// A client that wants the quick lane.
    pub fn quick_client(&self, driver: Driver) -> AnyVault {
        AnyVault::connect_with(driver, self.port(), Knobs::QUICK).unwrap()
    }

    /// Has it take or give back something, and waits until it has.
    pub fn tell(&mut self, what: &str) {
        self.process.tell(what);
        assert_eq!(self.process.line(), what);
    }
}

/// What a server has while it serves nobody but an honest client, and how it comes back to that.
pub struct Baseline {
    pub honest: AnyVault,
    id: u32,
    descriptors: usize,
}

impl Baseline {
    pub fn of(vault: &Vault) -> Self {
        let honest = vault.client(Driver::Blocking);
        assert_eq!(honest.length(b"fine").unwrap(), 4);
        Self { honest, id: vault.id(), descriptors: settled(vault.id()) }
    }

    /// The honest client is answered, and nothing is left of others.
    #[track_caller]
    pub fn check(&self, after: &str) {
        self.answers(after);
        until(&format!("the server lets go of what it held, after {after}"), || {
            let (descriptors, mappings) = holdings(self.id);
            (descriptors <= self.descriptors && mappings == 0).then_some(())
        });
    }

    #[track_caller]
    pub fn answers(&self, after: &str) {
        let answer = self.honest.length(b"fine");
        assert_eq!(answer.as_ref().ok(), Some(&4), "after {after}: {answer:?}");
    }
}

/// A line of `/proc/PID/status` in bytes: `VmHWM`, `RssAnon`, ….
pub fn memory(id: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Memory that is a process's doing: its own, and what it shares.
pub fn in_use(id: u32) -> u64 {
    memory(id, "RssAnon") + memory(id, "RssShmem")
}

/// Clients of either driver with servers of either.
pub fn pairs() -> impl Iterator<Item = (Driver, Driver)> {
    DRIVERS.into_iter().flat_map(|client| DRIVERS.into_iter().map(move |server| (client, server)))
}

/// Whether a process of these tests ran out of something, and says so.
pub fn is_exhausted(error: &lpc::Error) -> bool {
    error.kind() == ErrorKind::ResourceExhausted
}
