//! Whatever the bytes say, decoding is bounded by their number, and the errors tell what is wrong and where.

mod remote;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::marker::PhantomData;
use std::thread;

use lpc_core::codec::{
    Coding, DEEPEST, DecodeError, DecodeErrorKind, Decoder, EncodeError, MAX_DEPTH, MAX_EMPTY_ELEMENTS, Sink,
    encode, encode_as,
};
use serde::de::{DeserializeOwned, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

fn encoded<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(value, &mut bytes).expect("the value is encodable");
    bytes
}

fn refused<T: Serialize + ?Sized>(value: &T) -> EncodeError {
    encode(value, &mut Vec::new()).expect_err("the value is not encodable")
}

fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    remote::decoded(bytes, |_, _| true)
}

/// The kind, the place and the text of the error that `bytes` are as a `T`.
fn error<T: DeserializeOwned>(bytes: &[u8]) -> (DecodeErrorKind, usize, String) {
    let error = decoded::<T>(bytes).err().expect("the bytes are not decodable");
    (error.kind(), error.offset(), error.message().to_owned())
}

/// `count` as a varint.
fn count(count: u64) -> Vec<u8> {
    encoded(&count)
}

#[test]
fn errors_say_what_and_where() {
    use DecodeErrorKind::{Custom, Malformed, Trailing, Truncated};

    assert_eq!(error::<u32>(&[]), (Truncated, 0, "bytes end within an integer".into()));
    assert_eq!(error::<u64>(&[0x80, 0x80]), (Truncated, 2, "bytes end within an integer".into()));
    assert_eq!(error::<u8>(&[]), (Truncated, 0, "bytes end within a value (needed: 1, left: 0)".into()));
    assert_eq!(
        error::<(u8, f64)>(&[1, 2]),
        (Truncated, 1, "bytes end within a value (needed: 8, left: 1)".into())
    );
    assert_eq!(error::<(u8, String)>(&[1, 9, 2]).1, 1);
    assert_eq!(error::<(u8, Vec<u8>)>(&[1, 9, 2]).0, Truncated);
    assert_eq!(error::<(u8, [u8; 4])>(&[1, 9, 2]).0, Truncated);
    assert_eq!(error::<(u8, bool)>(&[1, 2]), (Malformed, 1, "bool of 2 is neither 0 nor 1".into()));
    assert_eq!(error::<Option<u8>>(&[2, 0]), (Malformed, 0, "Option of 2 is neither 0 nor 1".into()));
    assert_eq!(error::<String>(&[3, b'a', b'b', 0xff]), (Malformed, 3, "string is not UTF-8".into()));
    assert_eq!(error::<char>(&[0]).0, Malformed);
    assert_eq!(error::<char>(&[2, b'a', b'b']).0, Malformed);
    assert_eq!(error::<char>(&[3, 0xed, 0xa0, 0x80]).0, Malformed, "a surrogate");
    assert_eq!(
        error::<(u8, u16)>(&[1, 0x80, 0x80, 0x04]),
        (Malformed, 1, "integer is too big for its type".into())
    );
    assert_eq!(error::<u64>(&[0x80, 0]), (Malformed, 0, "integer has more bytes than it needs".into()));
    assert_eq!(error::<u8>(&[1, 2]), (Trailing, 1, "1 byte is left after the last value".into()));
    let (kind, offset, message) = error::<(u8, Result<u8, u8>)>(&[1, 5, 0]);
    assert_eq!((kind, offset), (Custom, 1));
    assert!(message.contains("integer `5`, expected `Ok` or `Err`"), "{message}");
}

#[test]
fn a_message_of_the_type_itself_is_kept() {
    #[derive(Debug)]
    struct Even;
    impl<'de> Deserialize<'de> for Even {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let number = u8::deserialize(deserializer)?;
            if number.is_multiple_of(2) {
                Ok(Self)
            } else {
                Err(D::Error::custom(format!("{number} is odd")))
            }
        }
    }
    struct Shy;
    impl Serialize for Shy {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("I will not"))
        }
    }
    let error = Decoder::new(&[1, 2, 3]).next::<(u8, Even, Even)>().unwrap_err();
    assert_eq!(error.to_string(), "3 is odd, at byte 3");
    assert_eq!(refused(&[Shy]).to_string(), "I will not");
}

#[test]
fn a_sink_stops_the_encoding() {
    struct Full;
    impl Sink for Full {
        fn push(&mut self, _: u8) -> Result<(), EncodeError> {
            Err(EncodeError::new("no pages left"))
        }
        fn extend(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
            Err(EncodeError::TooLarge { len: bytes.len() as u64, limit: 0 })
        }
        fn written(&self) -> u64 {
            0
        }
    }
    let sink: &mut dyn Sink = &mut Full;
    assert_eq!(encode(&1_u8, sink).unwrap_err().to_string(), "no pages left");
    let error = encode(&1.5_f32, sink).unwrap_err();
    assert_eq!(error.to_string(), "encoded value of 4 bytes is over the limit of 0");
    assert!(error.is_too_large());
}

#[test]
fn huge_counts_are_refused_before_anything_is_allocated() {
    for n in [MAX_EMPTY_ELEMENTS as u64 + 1_000, 1 << 32, u64::MAX] {
        let bytes = [count(n), vec![0; 100]].concat();
        assert_eq!(error::<Vec<u64>>(&bytes).0, DecodeErrorKind::Truncated);
        assert_eq!(error::<Vec<u8>>(&bytes).0, DecodeErrorKind::Truncated);
        assert_eq!(error::<Vec<()>>(&bytes).0, DecodeErrorKind::Truncated);
        assert_eq!(error::<String>(&bytes).0, DecodeErrorKind::Truncated);
        assert_eq!(error::<serde_bytes::ByteBuf>(&bytes).0, DecodeErrorKind::Truncated);
        assert_eq!(error::<HashMap<u8, u8>>(&bytes).0, DecodeErrorKind::Truncated);
        assert_eq!(error::<BTreeMap<(), ()>>(&bytes).0, DecodeErrorKind::Truncated);
        assert_eq!(error::<HashSet<[u8; 4]>>(&bytes).0, DecodeErrorKind::Truncated);
    }
}

#[test]
fn elements_without_bytes_have_a_budget() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Empty;

    let most = MAX_EMPTY_ELEMENTS as usize;
    for len in [1, 1_000, most] {
        assert_eq!(decoded::<Vec<()>>(&encoded(&vec![(); len])).unwrap().len(), len);
        assert_eq!(decoded::<Vec<Empty>>(&encoded(&vec![Empty; len])).unwrap().len(), len);
        assert_eq!(decoded::<Vec<[u8; 0]>>(&encoded(&vec![[0_u8; 0]; len])).unwrap().len(), len);
    }
    let (kind, _, message) = error::<Vec<()>>(&count(most as u64 + 1));
    assert_eq!(kind, DecodeErrorKind::Truncated);
    assert!(message.contains("elements without bytes: 65536 at most"), "{message}");
    let refused = refused(&vec![(); most + 1]).to_string();
    assert!(refused.contains("more than 65536 elements without bytes"), "{refused}");
    let described = |len| {
        let mut bytes = Vec::new();
        encode_as(Coding::Described, &vec![(); len], &mut bytes).unwrap();
        Decoder::new(&bytes).next_as::<Vec<()>>(Coding::Described).unwrap().len()
    };
    assert_eq!(described(most + 1), most + 1, "each has a byte there");

    // It is one budget for all sequences of a message, and the bytes that are left do not stand in for it.
    let twice = [count(2), count(most as u64), count(most as u64)].concat();
    assert_eq!(error::<Vec<Vec<()>>>(&twice).0, DecodeErrorKind::Truncated);
    let mut many = count(70_000);
    many.resize(many.len() + 70_000, 1);
    assert_eq!(error::<(Vec<()>, Vec<u8>)>(&many).0, DecodeErrorKind::TooManyEmpty);
    assert_eq!(error::<Vec<Vec<()>>>(&many).0, DecodeErrorKind::TooManyEmpty);
    let mut decoder = Decoder::new(&twice[1..]);
    decoder.next::<Vec<()>>().unwrap();
    decoder.next::<Vec<()>>().unwrap_err();
}

/// A sequence that only adds up what it would have reserved, as one that trusts the hint does.
struct Hints<T>(usize, PhantomData<T>);

trait Reserved {
    fn reserved(&self) -> usize;
}

impl Reserved for u8 {
    fn reserved(&self) -> usize {
        0
    }
}

impl<T> Reserved for Hints<T> {
    fn reserved(&self) -> usize {
        self.0
    }
}

thread_local! {
    /// What is reserved in sequences that are open, and the most that ever was.
    static OPEN: std::cell::Cell<(usize, usize)> = const { std::cell::Cell::new((0, 0)) };
}

/// What one open sequence has reserved.
struct Open(usize);

impl Open {
    fn new(hint: usize) -> Self {
        let (open, most) = OPEN.get();
        OPEN.set((open + hint, most.max(open + hint)));
        Self(hint)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        OPEN.set((OPEN.get().0 - self.0, OPEN.get().1));
    }
}

impl<'de, T: Deserialize<'de> + Reserved> Deserialize<'de> for Hints<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Add<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + Reserved> Visitor<'de> for Add<T> {
            type Value = Hints<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Hints<T>, A::Error> {
                let hint = seq.size_hint().unwrap_or(0);
                let _open = Open::new(hint);
                let mut sum = hint;
                while let Some(element) = seq.next_element::<T>()? {
                    sum += element.reserved();
                }
                Ok(Hints(sum, PhantomData))
            }
        }
        deserializer.deserialize_seq(Add(PhantomData))
    }
}

#[test]
fn nested_sequences_together_reserve_no_more_than_the_bytes_there_are() {
    type Nested = Hints<Hints<Hints<Hints<u8>>>>;

    // Each level claims all the bytes that are left.
    let mut bytes = Vec::new();
    for level in 0..4 {
        bytes.extend_from_slice(&count(9_000 - 2 * level));
    }
    bytes.resize(9_000, 1);
    OPEN.set((0, 0));
    decoded::<Nested>(&bytes).err().unwrap();
    assert!(OPEN.get().1 <= bytes.len(), "{:?} for {}", OPEN.get(), bytes.len());

    // An honest message has its hints.
    let honest = encoded(&vec![vec![1_u8, 2, 3], vec![], vec![4; 1_000]]);
    assert_eq!(decoded::<Hints<Hints<u8>>>(&honest).unwrap().0, 3 + 3 + 1_000);
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct List {
    next: Option<Box<List>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Nest {
    Leaf,
    In(Box<Nest>),
}

#[derive(Debug, Serialize, Deserialize)]
struct Vecs(Vec<Vecs>);

#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
struct OnlyOptions(Option<Box<OnlyOptions>>);

#[derive(Debug, Serialize, Deserialize)]
struct Endless(Box<Endless>);

#[derive(Debug, Serialize, Deserialize)]
struct Maps(BTreeMap<u8, Maps>);

/// Runs `check` where little stack is left.
fn on_a_small_stack(check: fn()) {
    thread::Builder::new().stack_size(512 << 10).spawn(check).expect("a thread").join().expect("no panic");
}

#[test]
fn no_recursive_type_overflows_the_stack_on_decoding() {
    on_a_small_stack(|| {
        let ones = vec![1; 100_000];
        assert!(decoded::<List>(&ones).unwrap_err().is_too_deep());
        assert!(decoded::<Nest>(&ones).unwrap_err().is_too_deep());
        assert!(decoded::<Vecs>(&ones).unwrap_err().is_too_deep());
        assert!(decoded::<OnlyOptions>(&ones).unwrap_err().is_too_deep());
        assert!(decoded::<Maps>(&ones).unwrap_err().is_too_deep());
        assert!(decoded::<Endless>(&[]).unwrap_err().is_too_deep());
    });
}

#[test]
fn no_recursive_value_overflows_the_stack_on_encoding() {
    on_a_small_stack(|| {
        let mut list = List { next: None };
        let mut vecs = Vecs(Vec::new());
        for _ in 0..1_000 {
            list = List { next: Some(Box::new(list)) };
            vecs = Vecs(vec![vecs]);
        }
        assert!(refused(&list).is_too_deep());
        assert!(refused(&vecs).is_too_deep());
        assert!(refused(&list).to_string().contains("deeper than 128 levels"));
    });
}

fn nest(levels: u32) -> Nest {
    (1..levels).fold(Nest::Leaf, |inner, _| Nest::In(Box::new(inner)))
}

#[test]
fn the_limit_of_depth_is_the_same_both_ways() {
    let deepest = nest(MAX_DEPTH);
    assert_eq!(decoded::<Nest>(&encoded(&deepest)).unwrap(), deepest);
    assert!(refused(&nest(MAX_DEPTH + 1)).is_too_deep());
    let deeper = postcard::to_stdvec(&nest(MAX_DEPTH + 1)).unwrap();
    assert!(decoded::<Nest>(&deeper).unwrap_err().is_too_deep());
    let (kind, offset, _) = error::<Nest>(&deeper);
    assert_eq!((kind, offset), (DecodeErrorKind::TooDeep, MAX_DEPTH as usize));

    // Bytes are a level as other sequences are.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Deep {
        Vec(Vec<u8>),
        Array([u8; 4]),
        In(Box<Deep>),
    }
    let deep = |leaf, levels| (1..levels).fold(leaf, |inner, _| Deep::In(Box::new(inner)));
    for leaf in [|| Deep::Vec(vec![1, 2]), || Deep::Array([3; 4])] {
        let deepest = deep(leaf(), MAX_DEPTH - 1);
        assert_eq!(decoded::<Deep>(&encoded(&deepest)).unwrap(), deepest);
        let deeper = deep(leaf(), MAX_DEPTH);
        assert!(refused(&deeper).is_too_deep());
        assert!(decoded::<Deep>(&postcard::to_stdvec(&deeper).unwrap()).unwrap_err().is_too_deep());
    }
}

#[test]
fn a_list_has_one_level_a_node_and_the_limit_can_be_another() {
    let list = |nodes| (1..nodes).fold(List { next: None }, |list, _| List { next: Some(Box::new(list)) });
    assert_eq!(decoded::<List>(&encoded(&list(MAX_DEPTH))).unwrap(), list(MAX_DEPTH));
    assert!(refused(&list(MAX_DEPTH + 1)).is_too_deep());

    struct Deep(Vec<u8>, u32);
    impl Sink for Deep {
        fn push(&mut self, byte: u8) -> Result<(), EncodeError> {
            Sink::push(&mut self.0, byte)
        }
        fn extend(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
            Sink::extend(&mut self.0, bytes)
        }
        fn written(&self) -> u64 {
            self.0.written()
        }
        fn max_depth(&self) -> u32 {
            self.1
        }
    }
    for coding in [Coding::Packed, Coding::Described] {
        for (limit, most) in [(10, 10), (500, 500), (u32::MAX, DEEPEST)] {
            let mut sink = Deep(Vec::new(), limit);
            encode_as(coding, &list(most), &mut sink).unwrap();
            let decoder = || Decoder::new(&sink.0);
            let decoded = decoder().with_max_depth(limit).next_as::<List>(coding).unwrap();
            assert_eq!(decoded, list(most));
            let error = decoder().with_max_depth(most - 1).next_as::<List>(coding).unwrap_err();
            assert_eq!(
                error.message(),
                format!("value is nested deeper than {} levels (max_depth)", most - 1)
            );
            let error = encode_as(coding, &list(most + 1), &mut Deep(Vec::new(), limit)).unwrap_err();
            assert_eq!(error.to_string(), format!("value is nested deeper than {most} levels"));
        }
    }
}

#[test]
fn depth_does_not_add_up_over_siblings() {
    let siblings: Vec<Nest> = (0..1_000).map(|_| nest(100)).collect();
    assert_eq!(decoded::<Vec<Nest>>(&encoded(&siblings)).unwrap(), siblings);
}

#[test]
fn types_that_ask_what_comes_next_are_told_why_not() {
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u32),
    }
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        A { number: u32 },
    }
    for (kind, _, message) in [
        error::<Untagged>(&encoded(&Untagged::Number(1))),
        error::<Tagged>(&encoded(&Tagged::A { number: 1 })),
        error::<IgnoredAny>(&[1]),
    ] {
        assert_eq!(kind, DecodeErrorKind::Unsupported);
        assert!(message.contains("does not describe itself"), "{message}");
        assert!(message.contains("untagged"), "{message}");
    }
}

#[test]
fn what_has_no_form_is_refused_with_the_way_out() {
    #[derive(Serialize)]
    struct Skipping {
        #[serde(skip_serializing_if = "Option::is_none")]
        nothing: Option<u8>,
    }
    #[derive(Serialize)]
    struct Flat {
        #[serde(flatten)]
        inner: BTreeMap<String, u8>,
    }
    struct Unknown;
    impl Serialize for Unknown {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_seq(None)?.end()
        }
    }
    struct Liar(usize, usize);
    impl Serialize for Liar {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(Some(self.0))?;
            (0..self.1).try_for_each(|at| map.serialize_entry(&at, &at))?;
            map.end()
        }
    }

    assert_eq!(encoded(&Skipping { nothing: Some(7) }), [1, 7]);
    let skipped = refused(&Skipping { nothing: None }).to_string();
    assert!(skipped.contains("`nothing`") && skipped.contains("skip_serializing_if"), "{skipped}");
    assert!(refused(&Flat { inner: BTreeMap::new() }).to_string().contains("unknown length"));
    assert!(refused(&Unknown).to_string().contains("collect_seq"));
    assert!(refused(&Liar(2, 1)).to_string().contains("announced 2 elements and gave 1"));
    assert!(refused(&Liar(2, 3)).to_string().contains("announced 2 elements and gave more"));
    assert_eq!(encoded(&Liar(1, 1)), [1, 0, 0]);
}

#[test]
fn iterators_of_unknown_length_are_collected() {
    struct Odd(u32);
    impl Serialize for Odd {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq((0..self.0).filter(|n| n % 2 == 1))
        }
    }
    struct Squares(u32);
    impl Serialize for Squares {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map((0..self.0).filter(|n| n % 2 == 1).map(|n| (n, n * n)))
        }
    }
    assert_eq!(decoded::<Vec<u32>>(&encoded(&Odd(8))).unwrap(), [1, 3, 5, 7]);
    let squares = decoded::<BTreeMap<u32, u32>>(&encoded(&Squares(6))).unwrap();
    assert_eq!(squares, BTreeMap::from([(1, 1), (3, 9), (5, 25)]));
}

/// Takes the first element, or entry, of what it is given, and leaves the others.
struct First;

/// What is asked for.
#[derive(Clone, Copy)]
enum Asks {
    Seq,
    Map,
    Tuple,
    TupleStruct,
}

impl<'de> Visitor<'de> for First {
    type Value = Self;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        seq.next_element::<u8>().map(|_| Self)
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        map.next_entry::<u8, u8>().map(|_| Self)
    }
}

impl<'de> serde::de::DeserializeSeed<'de> for Asks {
    type Value = First;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<First, D::Error> {
        let first = First;
        match self {
            Self::Seq => deserializer.deserialize_seq(first),
            Self::Map => deserializer.deserialize_map(first),
            Self::Tuple => deserializer.deserialize_tuple(2, first),
            Self::TupleStruct => deserializer.deserialize_tuple_struct("First", 2, first),
        }
    }
}

#[test]
fn what_a_visitor_leaves_is_not_read_as_the_next_value() {
    struct Seeded<const ASKS: usize>;
    const ALL: [Asks; 4] = [Asks::Seq, Asks::Map, Asks::Tuple, Asks::TupleStruct];
    impl<'de, const ASKS: usize> Deserialize<'de> for Seeded<ASKS> {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            serde::de::DeserializeSeed::deserialize(ALL[ASKS], deserializer).map(|_| Self)
        }
    }
    fn left<T: DeserializeOwned>(bytes: &[u8], what: &str) {
        let Err(error) = Decoder::new(bytes).next::<T>() else { panic!("{what} is left") };
        assert_eq!(error.kind(), DecodeErrorKind::Custom);
        assert!(error.to_string().contains("1 more elements than the type has"), "{error}");
    }
    left::<Seeded<0>>(&[2, 7, 8], "an element");
    left::<Seeded<1>>(&[2, 7, 8, 9, 10], "an entry");
    left::<Seeded<2>>(&[7, 8], "a part of a tuple");
    left::<Seeded<3>>(&[7, 8], "a part of a tuple struct");
    assert!(Decoder::new(&[1, 7]).next::<Seeded<0>>().is_ok());

    /// It takes the first part of a variant.
    enum Variant {}
    impl<'de> Deserialize<'de> for Variant {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct OfVariant;
            impl<'de> Visitor<'de> for OfVariant {
                type Value = Variant;

                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a variant")
                }

                fn visit_enum<A: serde::de::EnumAccess<'de>>(self, data: A) -> Result<Variant, A::Error> {
                    use serde::de::VariantAccess as _;
                    let (_, content) = data.variant::<u32>()?;
                    content.tuple_variant(2, First)?;
                    Err(A::Error::custom("nothing is left"))
                }
            }
            deserializer.deserialize_enum("Variant", &["Tuple"], OfVariant)
        }
    }
    left::<Variant>(&[0, 7, 8], "a part of a tuple variant");
}
