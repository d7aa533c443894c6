//! The described coding: its bytes, and that any other bytes are an error or a value.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use lpc_core::codec::Coding::Described;
use lpc_core::codec::{
    DecodeError, DecodeErrorKind, Decoder, EncodeError, Loan, Loans, MAX_DEPTH, Received, Sink, encode_as,
};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

fn bytes_of<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_as(Described, value, &mut bytes).unwrap();
    bytes
}

fn value_of<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let value = decoder.next_as(Described)?;
    decoder.end()?;
    Ok(value)
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Point {
    x: i32,
    y: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Empty,
    Circle(f32),
    Line(Point, Point),
    Text { text: String },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Any {
    Text(String),
    Shapes(Vec<Shape>),
    Nested(Box<(Any, Any)>),
    Map(BTreeMap<String, Any>),
}

#[test]
fn items_are_these_bytes() {
    assert_eq!(bytes_of(&()), [0]);
    assert_eq!(bytes_of(&(false, true)), [15, 2, 1, 2]);
    assert_eq!(bytes_of(&300_u16), [3, 0xac, 2]);
    assert_eq!(bytes_of(&-1_i64), [4, 1]);
    assert_eq!(bytes_of(&u128::from(u64::MAX)), bytes_of(&u64::MAX));
    assert_eq!(bytes_of(&'a'), [9, 97]);
    assert_eq!(bytes_of("ab"), [10, 2, 97, 98]);
    assert_eq!(bytes_of(&vec![1_u8, 2]), [12, 2, 1, 2]);
    assert_eq!(bytes_of(&[1_u8, 2]), [12, 2, 1, 2]);
    assert_eq!(bytes_of(&Some(None::<()>)), [14, 13]);
    assert_eq!(bytes_of(&Point { x: 1, y: None }), [18, 10, 1, b'x', 4, 2, 10, 1, b'y', 13, 19]);
    assert_eq!(bytes_of(&Shape::Empty), bytes_of("Empty"));
    assert_eq!(bytes_of(&Shape::Circle(0.0)), [&[17, 1][..], &bytes_of("Circle"), &[7, 0, 0, 0, 0]].concat());
}

#[test]
fn text_and_bytes_are_borrowed() {
    let bytes = bytes_of(&("text", serde_bytes::Bytes::new(b"bytes"), &b"octets"[..]));
    let (text, raw, octets): (&str, &[u8], &[u8]) = value_of(&bytes).unwrap();
    assert_eq!((text, raw, octets), ("text", &b"bytes"[..], &b"octets"[..]));
    assert!(bytes.as_ptr_range().contains(&text.as_ptr()) && bytes.as_ptr_range().contains(&octets.as_ptr()));
}

#[test]
fn more_elements_than_the_type_has_are_an_error() {
    assert!(value_of::<(u8, u8)>(&bytes_of(&(1_u16, 2_u16, 3_u16))).is_err());
    assert!(value_of::<[u8; 2]>(&bytes_of(&[1_u8, 2, 3])).is_err());
    assert!(value_of::<(u8, u8)>(&bytes_of(&[1_u8, 2, 3])).is_err());
}

#[test]
fn nesting_is_bounded_on_both_sides() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Tree(Vec<Tree>);
    let mut tree = Tree(vec![]);
    for _ in 0..MAX_DEPTH {
        tree = Tree(vec![tree]);
    }
    assert_eq!(encode_as(Described, &tree, &mut Vec::new()), Err(EncodeError::TooDeep { limit: MAX_DEPTH }));
    for tag in [14, 16] {
        let deep = vec![tag; 1 << 20];
        assert!(value_of::<Value>(&deep).unwrap_err().is_too_deep());
        assert!(value_of::<serde::de::IgnoredAny>(&deep).unwrap_err().is_too_deep());
    }
    let deep = vec![14; 1 << 20];
    assert!(value_of::<u8>(&deep).unwrap_err().is_too_deep());
}

#[test]
fn counts_that_the_bytes_cannot_hold_are_refused_before_anything_is_allocated() {
    for tag in [10, 11, 12, 15, 17] {
        let bytes = [&[tag][..], &[0xff, 0xff, 0xff, 0xff, 0x7f], &[0; 16]].concat();
        for error in [
            value_of::<Value>(&bytes).unwrap_err(),
            value_of::<Any>(&bytes).unwrap_err(),
            value_of::<Vec<u8>>(&bytes).unwrap_err(),
        ] {
            assert!(matches!(error.kind(), DecodeErrorKind::Truncated | DecodeErrorKind::Custom), "{error}");
        }
    }
}

#[test]
fn loans_are_lent_and_copied_where_serde_buffers_them() {
    struct Lending;
    impl Loan for Lending {
        fn bytes(&self) -> &[u8] {
            b"lent"
        }
    }
    #[derive(Default)]
    struct Message(Vec<u8>);
    impl Sink for Message {
        fn push(&mut self, byte: u8) -> Result<(), EncodeError> {
            Sink::push(&mut self.0, byte)
        }
        fn extend(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
            Sink::extend(&mut self.0, bytes)
        }
        fn written(&self) -> u64 {
            self.0.len() as u64
        }
        fn lend(&mut self, _: &Arc<dyn Loan>) -> Result<Option<u32>, EncodeError> {
            Ok(Some(0))
        }
    }
    impl Loans for Message {
        fn claim(&self, index: u32) -> Option<Arc<dyn Loan>> {
            (index == 0).then(|| Arc::new(Lending) as _)
        }
    }
    #[derive(Debug, Deserialize)]
    #[serde(untagged)]
    enum Buffered {
        Loan(Received),
    }
    let loan: Arc<dyn Loan> = Arc::new(Lending);
    let mut message = Message::default();
    encode_as(Described, &lpc_core::codec::Lent(&loan), &mut message).unwrap();
    assert_eq!(message.0, [20, 0]);
    let mut decoder = Decoder::new(&message.0).with_loans(&message);
    assert!(matches!(decoder.next_as(Described).unwrap(), Received::Loan(_)));
    let mut decoder = Decoder::new(&message.0).with_loans(&message);
    let Buffered::Loan(received) = decoder.next_as(Described).unwrap();
    assert!(matches!(received, Received::Bytes(bytes) if bytes == b"lent"));
    assert!(value_of::<Received>(&message.0).is_err());
}

/// Every end and every flipped bit, for a value of many kinds of items.
#[test]
fn bytes_that_are_cut_off_or_changed_are_an_error_or_a_value() {
    fn spoilt<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
        let bytes = bytes_of(value);
        assert_eq!(&value_of::<T>(&bytes).unwrap(), value);
        for end in 0..bytes.len() {
            assert!(value_of::<T>(&bytes[..end]).is_err(), "{end} of {bytes:?}");
        }
        for bit in 0..8 * bytes.len() {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(value) = value_of::<T>(&bytes) {
                let again = bytes_of(&value);
                assert_eq!(bytes_of(&value_of::<T>(&again).unwrap()), again);
            }
        }
    }
    let point = Point { x: -70_000, y: Some(1) };
    spoilt(&(point.clone(), vec![Shape::Empty, Shape::Circle(1.5), Shape::Line(point.clone(), point)], 'ä'));
    spoilt(&(u128::MAX, i128::MIN, vec![1_u8, 2, 3], Some(Some(())), 0.5_f64));
    spoilt(&json!({"a": [1, -2, 0.5, "x", null, true], "b": {"c": []}}));
    spoilt(&Any::Nested(Box::new((
        Any::Map(BTreeMap::from([("k".into(), Any::Text("v".into()))])),
        Any::Shapes(vec![Shape::Text { text: "t".into() }]),
    ))));
}

proptest! {
    #[test]
    fn any_bytes_are_an_error_or_a_value(bytes in proptest::collection::vec(prop_oneof![0_u8..24, any::<u8>()], 0..200)) {
        let _ = value_of::<Value>(&bytes);
        let _ = value_of::<Any>(&bytes);
        let _ = value_of::<(Vec<Shape>, Point)>(&bytes);
        let _ = value_of::<Vec<Vec<u8>>>(&bytes);
    }
}
