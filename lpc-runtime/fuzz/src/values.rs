//! Bytes are a value or an error, the same wherever they stand, and what is borrowed from changing memory
//! stays as it is.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fmt::Debug;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lpc_core::codec::{Coding, DecodeError, Decoder, Lend, Loan, Loans, Received, Remote, encode_as};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A byte that chooses the type, one that chooses how it is read, then the value's bytes.
pub fn run(data: &[u8]) {
    let [choice, reading, data @ ..] = data else { return };
    let reading = usize::from(*reading);
    match choice % 32 {
        0 => exact::<u8>(data, reading),
        1 => exact::<(u16, u32, u64, u128, usize)>(data, reading),
        2 => exact::<(i8, i16, i32, i64, i128)>(data, reading),
        3 => exact::<(bool, char, ())>(data, reading),
        4 => exact::<Vec<(f32, f64)>>(data, reading),
        5 => exact::<String>(data, reading),
        6 => exact::<Vec<String>>(data, reading),
        7 => exact::<Vec<u8>>(data, reading),
        8 => exact::<Vec<Box<[u8]>>>(data, reading),
        9 => exact::<([u8; 7], [u8; 32], [u16; 3])>(data, reading),
        10 => exact::<Option<Option<Vec<Option<u8>>>>>(data, reading),
        11 => drop(owned::<BTreeMap<String, Vec<u32>>>(data, reading)),
        12 => drop(owned::<BTreeSet<Vec<u8>>>(data, reading)),
        13 => exact::<Record>(data, reading),
        14 => exact::<Vec<Shape>>(data, reading),
        15 => exact::<Tree>(data, reading),
        16 => exact::<Vec<()>>(data, reading),
        17 => exact::<Vec<Vec<Vec<()>>>>(data, reading),
        18 => exact::<Result<Vec<u16>, String>>(data, reading),
        19 => drop(owned::<(Duration, IpAddr, NonZeroU16)>(data, reading)),
        20 => exact::<Vec<PathBuf>>(data, reading),
        21 => exact::<Vec<CString>>(data, reading),
        22 => exact::<Cow<'static, str>>(data, reading),
        23 => exact::<Vec<Cow<'static, [u8]>>>(data, reading),
        24 => exact::<(Unit, Newtype, Pair)>(data, reading),
        25 => drop(owned::<BTreeMap<Kind, Shape>>(data, reading)),
        26 => exact::<RangeInclusive<u32>>(data, reading),
        27 => exact::<Box<str>>(data, reading),
        28 => borrowed::<str>(data, reading, |text| assert!(std::str::from_utf8(text.as_bytes()).is_ok())),
        29 => borrowed::<[u8]>(data, reading, |_| {}),
        30 => borrowed::<Path>(data, reading, |_| {}),
        _ => lent(data, reading),
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    id: u64,
    name: String,
    tags: Vec<String>,
    body: Vec<u8>,
    parent: Option<Box<Record>>,
    shape: Shape,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle(f64),
    Rectangle(u32, u32),
    Text { at: (i16, i16), text: String, font: Option<Kind> },
    Group(Vec<Shape>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Kind {
    Thin,
    Fat = 7,
}

#[derive(Debug, Serialize, Deserialize)]
struct Unit;

#[derive(Debug, Serialize, Deserialize)]
struct Newtype(Vec<i64>);

#[derive(Debug, Serialize, Deserialize)]
struct Pair(u8, [u8; 4]);

/// As deep as a message can say.
#[derive(Debug, Serialize, Deserialize)]
enum Tree {
    Leaf(u8),
    Node(Box<Tree>, Box<Tree>),
    Many(Vec<Tree>),
}

fn all<'de, T: Deserialize<'de>>(decoder: Decoder<'de>) -> Result<T, DecodeError> {
    all_as(Coding::Packed, decoder)
}

fn all_as<'de, T: Deserialize<'de>>(coding: Coding, mut decoder: Decoder<'de>) -> Result<T, DecodeError> {
    let value = decoder.next_as(coding)?;
    decoder.end()?;
    Ok(value)
}

fn bytes_of<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    bytes_as(Coding::Packed, value)
}

fn bytes_as<T: Serialize + ?Sized>(coding: Coding, value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_as(coding, value, &mut bytes).expect("what was decoded encodes");
    bytes
}

/// A type each of whose values has one form.
fn exact<T: Serialize + DeserializeOwned + Debug>(data: &[u8], reading: usize) {
    if let Some(bytes) = owned::<T>(data, reading) {
        assert_eq!(bytes, data);
    }
}

/// A type that keeps nothing of the bytes. What its value encodes as, if there is one.
fn owned<T: Serialize + DeserializeOwned + Debug>(data: &[u8], reading: usize) -> Option<Vec<u8>> {
    owned_as::<T>(Coding::Packed, data, reading)
}

/// The same, in any coding.
pub(super) fn owned_as<T: Serialize + DeserializeOwned + Debug>(
    coding: Coding,
    data: &[u8],
    reading: usize,
) -> Option<Vec<u8>> {
    let memory = Memory::still(data, reading);
    let (still, remote) = (Decoder::new(data), Decoder::remote(&memory));
    let encoded = match (all_as::<T>(coding, still), all_as::<T>(coding, remote)) {
        (Ok(one), Ok(other)) => {
            let bytes = bytes_as(coding, &one);
            assert_eq!(bytes_as(coding, &other), bytes, "{one:?} and {other:?}");
            let again = all_as::<T>(coding, Decoder::new(&bytes)).expect("what was encoded decodes");
            assert_eq!(bytes_as(coding, &again), bytes);
            Some(bytes)
        }
        (one, other) => {
            assert_eq!(one.err(), other.err());
            None
        }
    };
    let memory = Memory::changing(data, reading);
    if let Ok(value) = all_as::<T>(coding, Decoder::remote(&memory)) {
        // A text that is none would be found here.
        let bytes = bytes_as(coding, &value);
        all_as::<T>(coding, Decoder::new(&bytes)).expect("what was encoded decodes");
    }
    memory.check();
    encoded
}

/// A type that is lent from the bytes.
fn borrowed<T: Lend + Debug + PartialEq + ?Sized>(data: &[u8], reading: usize, check: impl Fn(&T)) {
    let memory = Memory::still(data, reading);
    match (all::<T::Held<'_>>(Decoder::new(data)), all::<T::Held<'_>>(Decoder::remote(&memory))) {
        (Ok(one), Ok(other)) => {
            assert_eq!(T::lend(&one), T::lend(&other));
            assert_eq!(bytes_of(&T::lend(&one).sent()), data);
        }
        (one, other) => assert_eq!(one.err(), other.err()),
    }
    let memory = Memory::changing(data, reading);
    if let Ok(held) = all::<T::Held<'_>>(Decoder::remote(&memory)) {
        check(T::lend(&held));
    }
    memory.check();
}

/// Loans are claimed once each.
fn lent(data: &[u8], reading: usize) {
    let decode = |decoder: Decoder<'_>| {
        let beside = Beside::default();
        let loans: Vec<Received> = all(decoder.with_loans(&beside)).ok()?;
        let claimed = loans.iter().filter(|loan| matches!(loan, Received::Loan(_))).count();
        let left = beside.0.lock().unwrap_or_else(PoisonError::into_inner).iter().flatten().count();
        assert_eq!(claimed + left, LOANS);
        Some((loans.len(), claimed))
    };
    let memory = Memory::still(data, reading);
    assert_eq!(decode(Decoder::new(data)), decode(Decoder::remote(&memory)));
    decode(Decoder::remote(&Memory::changing(data, reading)));
}

const LOANS: usize = 3;

struct Beside(Mutex<[Option<Arc<dyn Loan>>; LOANS]>);

impl Default for Beside {
    fn default() -> Self {
        Self(Mutex::new(std::array::from_fn(|_| Some(Arc::new(Bytes) as Arc<dyn Loan>))))
    }
}

impl Loans for Beside {
    fn claim(&self, index: u32) -> Option<Arc<dyn Loan>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index as usize)?.take()
    }
}

struct Bytes;

impl Loan for Bytes {
    fn bytes(&self) -> &[u8] {
        b"lent"
    }
}

/// Memory of a peer.
struct Memory<'a> {
    /// What it contains, by turns.
    contents: [&'a [u8]; 2],
    /// A bit for each of the first reads: which of the two it finds.
    turns: usize,
    reads: AtomicUsize,
    kept: AtomicUsize,
    windows: RangeInclusive<usize>,
}

impl<'a> Memory<'a> {
    fn still(bytes: &'a [u8], reading: usize) -> Self {
        Self::new([bytes, bytes], reading)
    }

    /// Each half of the bytes by turns.
    fn changing(bytes: &'a [u8], reading: usize) -> Self {
        let half = bytes.len() / 2;
        Self::new([&bytes[..half], &bytes[half..2 * half]], reading)
    }

    fn new(contents: [&'a [u8]; 2], reading: usize) -> Self {
        let windows = match reading % 4 {
            0 => 1..=1,
            1 => 3..=3,
            2 => 1..=37,
            _ => 256..=64 << 10,
        };
        Self { contents, turns: reading >> 2, reads: AtomicUsize::new(0), kept: AtomicUsize::new(0), windows }
    }

    fn read(&self, offset: usize, len: usize) -> &'a [u8] {
        let read = self.reads.fetch_add(1, Relaxed);
        let turn = if read < 6 { self.turns >> read & 1 } else { read & 1 };
        &self.contents[turn][offset..][..len]
    }

    /// No more is kept than the codec promises, in windows of everyday use.
    fn check(&self) {
        let (kept, len) = (self.kept.load(Relaxed), self.len());
        assert!(*self.windows.start() < 256 || kept <= 2 * len + 256, "{kept} bytes of {len}");
    }
}

impl Remote for Memory<'_> {
    fn len(&self) -> usize {
        self.contents[0].len()
    }

    fn keep(&self, offset: usize, len: usize) -> Option<&[u8]> {
        self.kept.fetch_add(len, Relaxed);
        Some(self.read(offset, len))
    }

    fn append(&self, offset: usize, len: usize, into: &mut Vec<u8>) {
        into.extend_from_slice(self.read(offset, len));
    }

    fn windows(&self) -> RangeInclusive<usize> {
        self.windows.clone()
    }
}
