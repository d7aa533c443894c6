//! The codec against postcard, as the judge of the format, and against bytes that nobody encoded.

mod remote;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::Range;
use std::time::Duration;

use lpc_core::codec::{DecodeError, Decoder, encode};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Something of each shape that serde knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Everything {
    numbers: Numbers,
    texts: Texts,
    bytes: Bytes,
    collections: Collections,
    shapes: Vec<Shape>,
    tree: Tree,
    std: Std,
    unit: (),
    unit_struct: Unit,
    newtype: Newtype,
    tuple_struct: Pair,
    tuple: (u8, u8, u16, u8, [i8; 3]),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Numbers {
    bool: bool,
    signed: (i8, i16, i32, i64, i128, isize),
    unsigned: (u8, u16, u32, u64, u128, usize),
    float: (f32, f64),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Texts {
    char: char,
    string: String,
    boxed: Box<str>,
    maybe: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Bytes {
    vec: Vec<u8>,
    boxed: Box<[u8]>,
    array: [u8; 16],
    boxed_array: Box<[u8; 9]>,
    vecs: Vec<Vec<u8>>,
    arrays: Vec<[u8; 5]>,
    nested: [[u8; 2]; 3],
    maybe: Option<Vec<u8>>,
    empty: [u8; 0],
    deque: VecDeque<u8>,
    #[serde(with = "serde_bytes")]
    annotated: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Collections {
    set: BTreeSet<i32>,
    map: BTreeMap<String, Option<u64>>,
    nested: BTreeMap<u16, Vec<(bool, f32)>>,
    units: Vec<()>,
    options: Vec<Option<Option<bool>>>,
    duration: Duration,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Unit,
    Newtype(u32),
    Array([u8; 4]),
    Tuple(i64, String),
    Struct { a: Option<u8>, b: Vec<u16> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf(i16),
    Node(Vec<Tree>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Std {
    address: IpAddr,
    range: Range<u32>,
    result: Result<u8, String>,
    non_zero: NonZeroU16,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Newtype(i32);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pair(u64, [u8; 32]);

fn numbers() -> impl Strategy<Value = Numbers> {
    // Narrowed by a shift, so that all lengths of varints occur.
    let signed = (any::<(i8, i16, i32, i64, i128, isize)>(), 0_u32..128).prop_map(|(n, by)| {
        let (i16, i32, i64) = (n.1 >> (by % 16), n.2 >> (by % 32), n.3 >> (by % 64));
        (n.0, i16, i32, i64, n.4 >> by, n.5 >> (by % 64))
    });
    let unsigned = (any::<(u8, u16, u32, u64, u128, usize)>(), 0_u32..128).prop_map(|(n, by)| {
        let (u16, u32, u64) = (n.1 >> (by % 16), n.2 >> (by % 32), n.3 >> (by % 64));
        (n.0, u16, u32, u64, n.4 >> by, n.5 >> (by % 64))
    });
    let float = (any::<f32>(), any::<f64>());
    (any::<bool>(), signed, unsigned, float).prop_map(|(bool, signed, unsigned, float)| Numbers {
        bool,
        signed,
        unsigned,
        float,
    })
}

fn texts() -> impl Strategy<Value = Texts> {
    (any::<char>(), ".*", ".*", option::of(".{0,200}")).prop_map(|(char, string, boxed, maybe)| Texts {
        char,
        string,
        boxed: boxed.into(),
        maybe,
    })
}

fn bytes() -> impl Strategy<Value = Bytes> {
    let some = || vec(any::<u8>(), 0..200);
    let arrays = (any::<[u8; 16]>(), any::<[u8; 9]>(), vec(any::<[u8; 5]>(), 0..40), any::<[[u8; 2]; 3]>());
    let vecs = (vec(some(), 0..4), option::of(some()), some());
    (some(), some(), arrays, vecs, some()).prop_map(
        |(vec, boxed, (array, boxed_array, arrays, nested), (vecs, maybe, annotated), deque)| Bytes {
            vec,
            boxed: boxed.into(),
            array,
            boxed_array: Box::new(boxed_array),
            vecs,
            arrays,
            nested,
            maybe,
            empty: [],
            deque: deque.into(),
            annotated,
        },
    )
}

fn collections() -> impl Strategy<Value = Collections> {
    let nested = btree_map(any::<u16>(), vec(any::<(bool, f32)>(), 0..5), 0..5);
    let options = vec(any::<Option<Option<bool>>>(), 0..9);
    let map = btree_map(".{0,9}", any::<Option<u64>>(), 0..9);
    let units = (0..300_usize).prop_map(|len| vec![(); len]);
    (btree_set(any::<i32>(), 0..20), map, nested, units, options, any::<Duration>()).prop_map(
        |(set, map, nested, units, options, duration)| Collections {
            set,
            map,
            nested,
            units,
            options,
            duration,
        },
    )
}

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Unit),
        any::<u32>().prop_map(Shape::Newtype),
        any::<[u8; 4]>().prop_map(Shape::Array),
        (any::<i64>(), ".{0,9}").prop_map(|(number, text)| Shape::Tuple(number, text)),
        (any::<Option<u8>>(), vec(any::<u16>(), 0..9)).prop_map(|(a, b)| Shape::Struct { a, b }),
    ]
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = any::<i16>().prop_map(Tree::Leaf);
    leaf.prop_recursive(6, 40, 5, |inner| vec(inner, 0..5).prop_map(Tree::Node))
}

fn std() -> impl Strategy<Value = Std> {
    let result = prop_oneof![any::<u8>().prop_map(Ok), ".{0,9}".prop_map(Err)];
    let non_zero = (1..=u16::MAX).prop_map(|n| NonZeroU16::new(n).expect("from 1 up"));
    (any::<IpAddr>(), any::<Range<u32>>(), result, non_zero)
        .prop_map(|(address, range, result, non_zero)| Std { address, range, result, non_zero })
}

fn everything() -> impl Strategy<Value = Everything> {
    let large = (numbers(), texts(), bytes(), collections(), vec(shape(), 0..6), tree(), std());
    let small = (any::<i32>(), any::<(u64, [u8; 32])>(), any::<(u8, u8, u16, u8, [i8; 3])>());
    (large, small).prop_map(|((numbers, texts, bytes, collections, shapes, tree, std), small)| Everything {
        numbers,
        texts,
        bytes,
        collections,
        shapes,
        tree,
        std,
        unit: (),
        unit_struct: Unit,
        newtype: Newtype(small.0),
        tuple_struct: Pair(small.1.0, small.1.1),
        tuple: small.2,
    })
}

fn encoded<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(value, &mut bytes).expect("the value is encodable");
    bytes
}

/// Compares by the encoding, for not all numbers equal themselves.
fn decoded<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    remote::decoded(bytes, |one: &T, other: &T| encoded(one) == encoded(other))
}

/// Decodes what may be anything. What is accepted must be what postcard reads, and the only form of it.
fn judge<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Result<(), TestCaseError> {
    match decoded::<T>(bytes) {
        Ok(value) => {
            prop_assert_eq!(encoded(&value), bytes);
            prop_assert_eq!(encoded(&postcard::from_bytes::<T>(bytes).expect("postcard reads it")), bytes);
        }
        Err(error) => prop_assert!(error.offset() <= bytes.len(), "{}", error),
    }
    Ok(())
}

/// Without what has many forms by its own doing: maps and sets in any order, too many nanoseconds.
type Ordered = (Numbers, Texts, Bytes, Vec<Shape>, Tree, Std, Unit, Newtype, Pair, Vec<Option<bool>>);

fn ordered() -> impl Strategy<Value = Ordered> {
    everything().prop_map(|e| {
        let options = e.collections.options.into_iter().flatten().collect();
        let (shapes, tree) = (e.shapes, e.tree);
        (e.numbers, e.texts, e.bytes, shapes, tree, e.std, Unit, e.newtype, e.tuple_struct, options)
    })
}

proptest! {
    #[test]
    fn both_directions_agree_with_postcard(value in everything()) {
        let bytes = encoded(&value);
        prop_assert_eq!(&bytes, &postcard::to_stdvec(&value).unwrap());
        prop_assert_eq!(&decoded::<Everything>(&bytes).unwrap(), &value);
        prop_assert_eq!(&postcard::from_bytes::<Everything>(&bytes).unwrap(), &value);
    }

    #[test]
    fn several_values_stand_in_a_row(first in numbers(), second in texts(), third in tree()) {
        let bytes = [encoded(&first), encoded(&second), encoded(&third)].concat();
        let mut decoder = Decoder::new(&bytes);
        prop_assert_eq!(decoder.next::<Numbers>().unwrap(), first);
        prop_assert_eq!(decoder.next::<Texts>().unwrap(), second);
        prop_assert_eq!(decoder.next::<Tree>().unwrap(), third);
        decoder.end().unwrap();
    }

    #[test]
    fn every_beginning_of_a_message_is_an_error(value in ordered(), at in any::<prop::sample::Index>()) {
        let bytes = encoded(&value);
        decoded::<Ordered>(&bytes[..at.index(bytes.len())]).unwrap_err();
    }

    #[test]
    fn random_bytes_are_read_as_postcard_does_or_refused(bytes in vec(any::<u8>(), 0..300)) {
        judge::<Ordered>(&bytes)?;
        judge::<Numbers>(&bytes)?;
        judge::<Texts>(&bytes)?;
        judge::<Bytes>(&bytes)?;
        judge::<Vec<Shape>>(&bytes)?;
        judge::<Tree>(&bytes)?;
        judge::<Std>(&bytes)?;
        judge::<Vec<(u16, i32, Option<i128>)>>(&bytes)?;
        let _ = decoded::<Collections>(&bytes);
    }

    #[test]
    fn small_random_bytes_are_read_as_postcard_does_or_refused(bytes in vec(0_u8..6, 0..60)) {
        judge::<Vec<Shape>>(&bytes)?;
        judge::<Tree>(&bytes)?;
        judge::<Vec<Vec<u8>>>(&bytes)?;
        judge::<Vec<Option<Option<(bool, char)>>>>(&bytes)?;
        let _ = decoded::<Collections>(&bytes);
    }

    #[test]
    fn mutated_messages_are_read_as_postcard_does_or_refused(
        value in ordered(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encoded(&value);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        judge::<Ordered>(&bytes)?;
    }

    #[test]
    fn mutated_maps_never_panic(
        value in collections(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = encoded(&value);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decoded::<Collections>(&bytes);
    }
}
