//! Bytes that can only be copied decode as others do, and no two copies are taken for each other.
//!
//! That they give the same values and errors is also tested by `codec_format` and `codec_hostile`, which
//! decode through windows whatever they decode.

mod remote;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use lpc_core::codec::{DecodeErrorKind, Decoder, Lend, MAX_EMPTY_ELEMENTS, Received, Remote, encode};
use proptest::prelude::*;
use remote::Still;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

fn encoded<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(value, &mut bytes).expect("the value is encodable");
    bytes
}

/// Notes the ranges that it copies.
struct Counting {
    bytes: Vec<u8>,
    kept: Mutex<Vec<(usize, usize)>>,
    appended: Mutex<Vec<(usize, usize)>>,
}

impl Counting {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, kept: Mutex::default(), appended: Mutex::default() }
    }

    /// Offset and length of each copy that was kept.
    fn kept(&self) -> Vec<(usize, usize)> {
        self.kept.lock().expect("nothing panicked").clone()
    }

    fn appended(&self) -> Vec<(usize, usize)> {
        self.appended.lock().expect("nothing panicked").clone()
    }

    fn kept_bytes(&self) -> usize {
        self.kept().iter().map(|(_, len)| len).sum()
    }
}

impl Remote for Counting {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn keep(&self, offset: usize, len: usize) -> Option<&[u8]> {
        self.kept.lock().expect("nothing panicked").push((offset, len));
        Some(&self.bytes[offset..][..len])
    }

    fn append(&self, offset: usize, len: usize, into: &mut Vec<u8>) {
        self.appended.lock().expect("nothing panicked").push((offset, len));
        into.extend_from_slice(&self.bytes[offset..][..len]);
    }
}

const MEBIBYTE: usize = 1 << 20;

#[test]
fn a_long_value_that_is_owned_is_appended_once_and_not_kept() {
    fn costs_one_append<T>(value: &T)
    where
        T: Serialize + for<'de> Deserialize<'de> + PartialEq,
    {
        let source = Counting::new(encoded(&(7_u8, value, 300_u16)));
        let mut decoder = Decoder::remote(&source);
        let (first, decoded, last) = decoder.next::<(u8, T, u16)>().unwrap();
        decoder.end().unwrap();
        assert!(decoded == *value);
        assert_eq!((first, last), (7, 300));
        // Nothing is read twice: what the window had is not appended.
        let end = source.len() - 2;
        assert_eq!(source.kept(), [(0, 256), (end, 2)]);
        assert_eq!(source.appended(), [(256, end - 256)]);
    }

    costs_one_append(&vec![1_u8; MEBIBYTE]);
    costs_one_append(&vec![1_u8; MEBIBYTE].into_boxed_slice());
    costs_one_append(&Some(vec![1_u8; MEBIBYTE]));
    costs_one_append(&vec![vec![1_u8; MEBIBYTE]]);
    costs_one_append(&"ß".repeat(MEBIBYTE / 2));
    costs_one_append(&"ß".repeat(MEBIBYTE / 2).into_boxed_str());
    costs_one_append(&Cow::<str>::Owned("ß".repeat(MEBIBYTE / 2)));
    costs_one_append(&ByteBuf::from(vec![1; MEBIBYTE]));
    costs_one_append(&CString::new(vec![1; MEBIBYTE]).unwrap());
    costs_one_append(&Path::new(&"a".repeat(MEBIBYTE)).to_owned());
}

#[test]
fn a_long_value_has_no_capacity_to_spare() {
    let source = Counting::new(encoded(&vec![1_u8; MEBIBYTE + 1]));
    let vec: Vec<u8> = Decoder::remote(&source).next().unwrap();
    assert_eq!(vec.capacity(), MEBIBYTE + 1);
}

#[test]
fn a_long_loan_in_line_is_appended_once() {
    let source = Counting::new([encoded(&(1_u8, 0_u8)), encoded(&vec![7_u8; MEBIBYTE])].concat());
    let received = Decoder::remote(&source).next::<Option<Received>>().unwrap();
    assert!(matches!(received, Some(Received::Bytes(bytes)) if bytes == vec![7; MEBIBYTE]));
    assert_eq!(source.kept(), [(0, 256)]);
    assert_eq!(source.appended(), [(256, source.len() - 256)]);
}

#[test]
fn a_long_value_that_is_borrowed_is_kept_once() {
    let (text, bytes) = ("ß".repeat(MEBIBYTE), vec![1_u8; MEBIBYTE]);
    let source = Counting::new(encoded(&(&text, &bytes)));
    let mut decoder = Decoder::remote(&source);
    assert!(decoder.next::<&str>().unwrap() == text);
    assert!(decoder.next::<&[u8]>().unwrap() == bytes);
    decoder.end().unwrap();
    let second = 4 + 2 * MEBIBYTE;
    assert_eq!(source.kept(), [(0, 256), (4, 2 * MEBIBYTE), (second, 256), (second + 3, MEBIBYTE)]);
    assert_eq!(source.appended(), []);
}

#[test]
fn short_values_come_from_windows_that_grow() {
    let numbers: Vec<u32> = (0..300_000).collect();
    let source = Counting::new(encoded(&numbers));
    assert!(Decoder::remote(&source).next::<Vec<u32>>().unwrap() == numbers);
    let lens: Vec<usize> = source.kept().iter().map(|&(_, len)| len).collect();
    assert_eq!(lens[..6], [256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 64 << 10]);
    // An integer at the end of a window is read again with the next one.
    assert!(source.kept_bytes() < source.len() + lens.len() * 10);
    assert_eq!(source.appended(), []);

    let texts: Vec<String> = (0..10_000).map(|at| format!("number {at}")).collect();
    let source = Counting::new(encoded(&texts));
    assert_eq!(Decoder::remote(&source).next::<Vec<String>>().unwrap(), texts);
    assert!(source.kept().len() + source.appended().len() < 20);
}

#[test]
fn large_values_in_a_row_do_not_have_large_windows_between_them() {
    let values: Vec<Vec<u8>> = vec![vec![1; 100_000]; 50];
    let source = Counting::new(encoded(&values));
    assert_eq!(Decoder::remote(&source).next::<Vec<Vec<u8>>>().unwrap(), values);
    assert_eq!(source.appended().len(), 50);
    assert_eq!(source.kept_bytes(), 50 * 256);
}

#[test]
fn no_more_is_kept_than_twice_the_bytes() {
    for len in [1, 9, 255, 256, 257, 1_000, 5_000, 40_000, 64 << 10, 70_000] {
        let bytes = vec![1_u8; len];
        let values = vec![&bytes[..]; 1 + 500_000 / len];
        let source = Counting::new(encoded(&values));
        assert_eq!(Decoder::remote(&source).next::<Vec<&[u8]>>().unwrap(), values);
        let (kept, most) = (source.kept_bytes(), 2 * source.len());
        assert!(kept <= most, "{kept} bytes are kept of {} in pieces of {len}", source.len());
    }
}

#[test]
fn nothing_is_read_before_it_is_asked_for_or_beyond_the_end() {
    let source = Counting::new(vec![5]);
    let mut decoder = Decoder::remote(&source);
    assert!(source.kept().is_empty());
    assert_eq!(decoder.next::<u64>().unwrap(), 5);
    assert!(decoder.next::<u8>().is_err());
    assert_eq!(source.kept(), [(0, 1)]);

    let source = Counting::new(Vec::new());
    assert!(Remote::is_empty(&source));
    assert!(Decoder::remote(&source).next::<String>().is_err());
    Decoder::remote(&source).end().unwrap();
    assert!(source.kept().is_empty());
}

/// A value with each way in which the codec takes bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Shapes {
    small: u8,
    integers: (u16, u64, u128, i16, i64, i128),
    float: (f32, f64),
    char: char,
    text: String,
    array: [u8; 7],
    long_array: [u8; 32],
    bytes: Vec<u8>,
    buffer: ByteBuf,
    map: BTreeMap<String, Option<u32>>,
    shape: Result<(), Vec<u16>>,
    bool: bool,
}

fn shapes() -> Shapes {
    Shapes {
        small: 1,
        integers: (300, u64::MAX, u128::MAX, i16::MIN, i64::MIN, i128::MIN),
        float: (1.5, -2.5),
        char: '\u{10ffff}',
        text: "größer".to_owned(),
        array: [2; 7],
        long_array: [3; 32],
        bytes: (0..40).collect(),
        buffer: ByteBuf::from(vec![4; 20]),
        map: BTreeMap::from([("key".to_owned(), Some(70_000)), ("none".to_owned(), None)]),
        shape: Err(vec![1, 500, 60_000]),
        bool: true,
    }
}

/// Decodes `bytes` as [`Shapes`] from where they are and through `windows`: the results must be the same.
fn compare(bytes: &[u8], windows: RangeInclusive<usize>) {
    let source = Still { bytes, windows: windows.clone() };
    let (mut here, mut there) = (Decoder::new(bytes), Decoder::remote(&source));
    // By the encoding, for not all numbers equal themselves.
    let one = here.next::<Shapes>().map(|shapes| encoded(&shapes));
    let other = there.next::<Shapes>().map(|shapes| encoded(&shapes));
    assert_eq!(one, other, "through {windows:?}");
    if one.is_ok() {
        assert_eq!(here.end(), there.end(), "through {windows:?}");
    }
}

#[test]
fn windows_may_end_anywhere() {
    let bytes = encoded(&shapes());
    for len in 1..=bytes.len() + 1 {
        compare(&bytes, len..=len);
        for end in 0..bytes.len() {
            compare(&bytes[..end], len..=len);
        }
        compare(&[&bytes[..], &[9]].concat(), len..=len);
    }
}

#[test]
fn each_wrong_byte_is_the_same_error_through_any_window() {
    let bytes = encoded(&shapes());
    for at in 0..bytes.len() {
        for byte in [0, 1, 2, 0x7f, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            for windows in [1..=1, 2..=16, 11..=11, 64..=64] {
                compare(&bytes, windows);
            }
        }
    }
}

#[test]
fn an_element_that_ends_where_it_began_in_another_window_is_not_empty() {
    let many = MAX_EMPTY_ELEMENTS as usize + 1_000;
    let (floats, arrays) = (encoded(&vec![1.5_f32; many]), encoded(&vec![[7_u8; 4]; many]));
    for windows in [4..=4, 8..=8] {
        let source = |bytes| Still { bytes, windows: windows.clone() };
        assert_eq!(Decoder::remote(&source(&floats)).next::<Vec<f32>>().unwrap().len(), many);
        assert_eq!(Decoder::remote(&source(&arrays)).next::<Vec<[u8; 4]>>().unwrap().len(), many);
    }
}

#[test]
fn a_body_of_many_windows_is_the_same_whole_and_cut() {
    type Row = (u64, String, f64, Vec<u8>, Option<i128>);
    let rows: Vec<Row> = (0..20_000_u64)
        .map(|n| {
            let len = (n % 50) as usize;
            (
                n * n,
                "ö".repeat(len),
                n as f64,
                vec![n as u8; len],
                (n % 3 == 0).then_some(-i128::from(n) << 64),
            )
        })
        .collect();
    let bytes = encoded(&rows);
    assert!(bytes.len() > 20 * (64 << 10));
    assert!(remote::decoded(&bytes, |one: &Vec<Row>, other| one == other).unwrap() == rows);
    for end in [1, 300, 65_000, 400_001, bytes.len() - 1] {
        remote::decoded::<Vec<Row>>(&bytes[..end], |one, other| one == other).unwrap_err();
    }
    let mut bytes = bytes;
    for at in [256, 1_280, 5_376, 21_760, 87_296, 700_000] {
        // An integer of too many bits, wherever that stands.
        bytes[at..][..20].fill(0xff);
        remote::decoded::<Vec<Row>>(&bytes, |one, other| one == other).unwrap_err();
    }
}

#[test]
fn text_that_is_not_utf8_is_told_at_its_byte_however_it_is_taken() {
    for (len, wrong) in [(10, 4), (1_000, 4), (1_000, 255), (1_000, 700), (100_000, 99_999)] {
        let mut bytes = encoded(&"a".repeat(len));
        let wrong = bytes.len() - len + wrong;
        bytes[wrong] = 0xff;
        let source = Counting::new(bytes);
        let errors = [
            Decoder::remote(&source).next::<String>().unwrap_err(),
            Decoder::remote(&source).next::<&str>().unwrap_err(),
            Decoder::remote(&source).next::<Cow<'_, str>>().unwrap_err(),
        ];
        for error in errors {
            assert_eq!((error.kind(), error.offset()), (DecodeErrorKind::Malformed, wrong));
            assert_eq!(error.message(), "string is not UTF-8");
        }
    }
}

#[test]
fn arguments_are_lent_from_what_is_kept() {
    fn crosses<T: Lend + PartialEq + ?Sized>(value: &T) {
        let bytes = encoded(&value.sent());
        for windows in remote::WINDOWS {
            let source = Still { bytes: &bytes, windows };
            let held: T::Held<'_> = Decoder::remote(&source).next().unwrap();
            assert!(T::lend(&held) == value);
        }
    }
    crosses("some text of more than a few bytes, so that it is more than a small window");
    crosses(&[7_u8; 300][..]);
    crosses(&[700_u16; 300][..]);
    crosses(c"name");
    crosses(OsStr::new("name"));
    crosses(Path::new("a/path"));
}

#[test]
fn a_decoder_may_be_kept_across_an_await() {
    fn is_send(_: &impl Send) {}
    is_send(&Decoder::remote(&Counting::new(Vec::new())));
}

/// Bytes that are others whenever they are read.
struct Fickle<F> {
    len: usize,
    windows: RangeInclusive<usize>,
    reads: AtomicU64,
    /// The byte at that offset, in that read.
    byte: F,
}

impl<F: Fn(usize, u64) -> u8> Fickle<F> {
    fn read(&self, offset: usize, len: usize) -> impl Iterator<Item = u8> {
        assert!(offset + len <= self.len, "{len} bytes at {offset} of {}", self.len);
        let read = self.reads.fetch_add(1, Relaxed);
        (offset..offset + len).map(move |at| (self.byte)(at, read))
    }
}

impl<F: Fn(usize, u64) -> u8 + Sync> Remote for Fickle<F> {
    fn len(&self) -> usize {
        self.len
    }

    fn keep(&self, offset: usize, len: usize) -> Option<&[u8]> {
        // Not given back before the test ends.
        Some(Box::leak(self.read(offset, len).collect()))
    }

    fn append(&self, offset: usize, len: usize, into: &mut Vec<u8>) {
        into.extend(self.read(offset, len));
    }

    fn windows(&self) -> RangeInclusive<usize> {
        self.windows.clone()
    }
}

/// Whether `text` is what its type says. Asks for its bytes, which promise nothing.
fn is_text(text: &str) -> bool {
    std::hint::black_box(text.as_bytes()).utf8_chunks().all(|chunk| chunk.invalid().is_empty())
}

#[test]
fn text_that_changes_after_it_was_read_is_text_or_an_error() {
    let long = 5_000;
    let body = encoded(&"a".repeat(long));
    // It is text until it was read that often.
    for good_reads in 0..4 {
        for windows in remote::WINDOWS {
            let byte = |at: usize, read| if read < good_reads { body[at] } else { 0xff };
            let source =
                || Fickle { len: body.len(), windows: windows.clone(), reads: AtomicU64::new(0), byte };
            let owned = source();
            if let Ok(text) = Decoder::remote(&owned).next::<String>() {
                assert!(is_text(&text) && text.len() == long);
            }
            let borrowed = source();
            if let Ok(text) = Decoder::remote(&borrowed).next::<&str>() {
                assert!(is_text(text) && text.len() == long);
            }
        }
    }
}

/// A number that depends on all of these.
fn mixed(seed: u64, at: usize, read: u64) -> u64 {
    let mut mixed = seed ^ (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ read.rotate_left(32);
    for _ in 0..3 {
        mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
    mixed ^ (mixed >> 29)
}

#[derive(Debug, Deserialize)]
struct Texts<'a> {
    text: String,
    lent: &'a str,
    #[serde(borrow)]
    either: Cow<'a, str>,
    char: char,
    texts: Vec<String>,
    bytes: &'a [u8],
}

proptest! {
    #[test]
    fn bytes_that_change_whenever_they_are_read_never_do_harm(
        seed: u64,
        len in 0_usize..400,
        windows in prop_oneof![Just(1..=1), Just(2..=9), Just(16..=64), Just(256..=65_536)],
        change in 0_u64..100,
    ) {
        // Mostly short texts of one and two bytes a character, and now and then a byte that is any.
        let byte = |at: usize, read: u64| {
            let stable = mixed(seed, at, 0);
            let drawn = if mixed(seed, at, read) % 100 < change { mixed(seed, at, read + 1) } else { stable };
            match drawn % 8 {
                0..=5 => (drawn >> 8) as u8 % 24,
                6 => [0xc3, 0x9f][at % 2],
                _ => (drawn >> 8) as u8,
            }
        };
        let source = Fickle { len, windows, reads: AtomicU64::new(0), byte };
        for _ in 0..4 {
            if let Ok(texts) = Decoder::remote(&source).next::<Texts<'_>>() {
                prop_assert!(is_text(&texts.text) && is_text(texts.lent) && is_text(&texts.either));
                prop_assert!(texts.texts.iter().all(|text| is_text(text)));
                prop_assert!(char::from_u32(texts.char.into()).is_some());
                prop_assert!(texts.bytes.len() < len);
            }
            if let Ok(texts) = Decoder::remote(&source).next::<Vec<String>>() {
                prop_assert!(texts.iter().all(|text| is_text(text)));
            }
            if let Ok(texts) = Decoder::remote(&source).next::<Vec<&str>>() {
                prop_assert!(texts.iter().all(|text| is_text(text)));
            }
            let _ = Decoder::remote(&source).next::<Shapes>();
        }
    }
}

/// Has memory for small copies alone.
struct Starved(Vec<u8>);

impl Remote for Starved {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn keep(&self, offset: usize, len: usize) -> Option<&[u8]> {
        (len <= 64 << 10).then(|| &self.0[offset..][..len])
    }

    fn append(&self, offset: usize, len: usize, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.0[offset..][..len]);
    }
}

#[test]
fn a_copy_for_which_there_is_no_memory_is_an_error_of_its_own() {
    let mut bytes = Vec::new();
    encode(&(7_u8, "x".repeat(100_000)), &mut bytes).expect("it encodes");
    let body = Starved(bytes);
    let error = Decoder::remote(&body).next::<(u8, &str)>().expect_err("no memory");
    assert_eq!((error.kind(), error.offset()), (DecodeErrorKind::OutOfMemory, 1));
    assert_eq!(error.to_string(), "no memory for 100000 bytes, at byte 1");
    assert!(Decoder::remote(&body).next::<(u8, String)>().is_ok());
}
