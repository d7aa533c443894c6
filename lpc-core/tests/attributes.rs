//! The attributes of serde_derive: each type is carried in the coding that suits it, or refused, and never
//! read as something else than was written.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;

use lpc_core::codec::Coding::{self, Described, Packed};
use lpc_core::codec::{Decoder, encode_as};
use lpc_core::form::{Form, Known, Signature};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

macro_rules! form {
    ($type:ty) => {
        Signature::new().argument("it", <Known<$type>>::TYPE).result(<Known<Result<$type, String>>>::TYPE)
    };
}

/// The value as it arrives, as an argument and as a result.
fn carried<T: Serialize + DeserializeOwned + PartialEq + Debug>(form: &Form, coding: Coding, value: T) -> T {
    assert_eq!(form.unsupported(), None);
    assert_eq!(form.codings().arguments().next(), coding, "{}", form.text());
    assert_eq!(form.codings().result(), coding, "{}", form.text());
    let argument = round(coding, &value);
    assert_eq!(round(coding, &Ok::<_, String>(value)).unwrap(), argument);
    argument
}

fn round<T: Serialize + DeserializeOwned>(coding: Coding, value: &T) -> T {
    let mut bytes = Vec::new();
    encode_as(coding, value, &mut bytes).unwrap();
    let mut decoder = Decoder::new(&bytes);
    let value = decoder.next_as(coding).unwrap();
    decoder.end().unwrap();
    value
}

/// Values that arrive as they are.
macro_rules! kept {
    ($coding:ident $type:ty: $($value:expr),+ $(,)?) => {{
        let form = form!($type);
        $({
            let sent: $type = $value;
            assert_eq!(carried(&form, $coding, $value), sent);
        })+
    }};
}

macro_rules! refused {
    ($type:ty: $($told:literal)+) => {{
        let form = form!($type);
        let why = form.unsupported().expect("it is refused");
        $(assert!(why.contains($told), "{why}");)+
    }};
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Edit {
    Keep(String),
    #[serde(skip)]
    Cached(u64),
    Append(String),
    Delete(String),
}

#[test]
fn a_variant_behind_a_skipped_one_arrives_as_itself() {
    let _ = Edit::Cached(1);
    kept!(Described Edit: Edit::Append("notes".into()), Edit::Delete("notes".into()), Edit::Keep("x".into()));
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Last {
        One(u8),
        Two {
            x: u8,
        },
        #[serde(skip)]
        Local,
    }
    let _ = Last::Local;
    kept!(Packed Last: Last::One(1), Last::Two { x: 2 });
}

#[test]
fn what_one_side_alone_skips_is_left_out_and_nothing_else_is() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Unwritten {
        first: u8,
        #[serde(skip_serializing, default)]
        skipped: u8,
        last: u8,
        bytes: Vec<u8>,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Unread {
        first: u8,
        #[serde(skip_deserializing)]
        skipped: u8,
        last: u8,
        bytes: Vec<u8>,
    }
    let form = form!((Unwritten, Vec<u8>));
    let sent = (Unwritten { first: 1, skipped: 9, last: 2, bytes: vec![1, 5] }, vec![1, 5]);
    let expected = (Unwritten { first: 1, skipped: 0, last: 2, bytes: vec![1, 5] }, vec![1, 5]);
    assert_eq!(carried(&form, Described, sent), expected);
    let form = form!((Unread, Vec<u8>));
    let sent = (Unread { first: 1, skipped: 9, last: 2, bytes: vec![1, 5] }, vec![1, 5]);
    let expected = (Unread { first: 1, skipped: 0, last: 2, bytes: vec![1, 5] }, vec![1, 5]);
    assert_eq!(carried(&form, Described, sent), expected);

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Both {
        first: u8,
        #[serde(skip)]
        local: u8,
        last: String,
    }
    let form = form!(Both);
    let sent = Both { first: 1, local: 9, last: "x".into() };
    assert_eq!(carried(&form, Packed, sent), Both { first: 1, local: 0, last: "x".into() });

    // One on each side: as many fields, and others.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Crossed {
        #[serde(skip_serializing, default)]
        one: u8,
        #[serde(skip_deserializing)]
        other: u8,
        last: u8,
    }
    let form = form!(Crossed);
    let sent = Crossed { one: 1, other: 2, last: 3 };
    assert_eq!(carried(&form, Described, sent), Crossed { one: 0, other: 0, last: 3 });
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sparse {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    count: u32,
    last: u8,
}

#[test]
fn fields_that_are_left_out_at_times_are_seen_beforehand() {
    let full =
        || Sparse { name: "n".into(), parent: Some("p".into()), tags: vec!["t".into()], count: 3, last: 7 };
    kept!(Described Sparse: Sparse::default(), full(), Sparse { parent: None, ..full() });

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Within {
        Text {
            #[serde(default, skip_serializing_if = "String::is_empty")]
            text: String,
            port: std::num::NonZeroU16,
        },
    }
    let port = std::num::NonZeroU16::MIN;
    kept!(Described Within: Within::Text { text: String::new(), port }, Within::Text { text: "x".into(), port });

    // Where it can be told neither by name nor by place.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Unnamed(
        #[serde(default, skip_serializing_if = "Option::is_none")] Option<u8>,
        #[serde(default, skip_serializing_if = "Option::is_none")] Option<u8>,
    );
    refused!(Unnamed: "argument `it`" "`Unnamed` writes 0 fields and reads 2" "skip_serializing_if");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u64),
    Signed(i64),
    Address(IpAddr),
    Text(String),
    Flags(Vec<bool>),
    Bytes { bytes: Vec<u8> },
    Maybe { maybe: Option<Option<u8>>, letter: char },
    Nothing,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Internal {
    Empty,
    Point { x: i32, y: i32 },
    Of(Sparse),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value")]
enum Adjacent {
    Empty,
    Pair(u8, String),
    Point { x: i32 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Flat {
    id: u64,
    #[serde(flatten)]
    inner: Sparse,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[test]
fn types_that_ask_what_comes_next_are_told() {
    kept!(Described Untagged:
        Untagged::Number(u64::MAX), Untagged::Signed(-1), Untagged::Address([127, 0, 0, 1].into()),
        Untagged::Text("x".into()), Untagged::Flags(vec![true, false]), Untagged::Bytes { bytes: vec![0, 255] },
        Untagged::Maybe { maybe: Some(Some(1)), letter: 'é' }, Untagged::Maybe { maybe: Some(None), letter: 'a' },
        Untagged::Maybe { maybe: None, letter: '\0' }, Untagged::Nothing,
    );
    kept!(Described Internal:
        Internal::Empty, Internal::Point { x: -1, y: 2 }, Internal::Of(Sparse { last: 1, ..Sparse::default() }),
    );
    // Whether this needs names depends on serde; it is carried in either case.
    let form = form!(Adjacent);
    for value in [Adjacent::Empty, Adjacent::Pair(1, "x".into()), Adjacent::Point { x: -5 }] {
        let coding = form.codings().result();
        assert_eq!(round(coding, &value), value);
    }
    let rest = BTreeMap::from([("more".to_owned(), json!([1, null, {"x": -1.5}]))]);
    kept!(Described Flat:
        Flat { id: 1, inner: Sparse { name: "n".into(), ..Sparse::default() }, rest: rest.clone() },
    );
    kept!(Described Value: json!(null), json!({"a": [1, -2, 2.5, "x", true, {}], "b": {"c": null}}));
    kept!(Described (Vec<Value>, u8): (vec![json!(1)], 7), (vec![], 8));
}

#[test]
fn numbers_of_128_bits_and_bytes_are_kept_beside_what_asks() {
    type Beside = (Value, i128, u128, Vec<u8>, [u8; 4], Option<Option<()>>, (f32, f64), Vec<[u8; 1]>);
    kept!(Described Beside:
        (json!(1), i128::MIN, u128::MAX, vec![0, 255], [1, 2, 3, 4], Some(None), (0.1, -0.1), vec![[1], [2]]),
        (json!(1), -1, 1, vec![], [0; 4], Some(Some(())), (f32::MAX, f64::MIN), vec![]),
    );
}

#[test]
fn what_is_written_and_not_read_is_found_in_types_that_ask_what_comes_next() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        Empty,
        Point {
            #[serde(default, rename(serialize = "a", deserialize = "b"))]
            x: u8,
        },
    }
    refused!(Tagged: "`a`" "rename");
    refused!((Value, Vec<Tagged>): "`a`" "rename");
    refused!(BTreeMap<String, Option<Box<Tagged>>>: "`a`" "rename");
    refused!(Result<Option<(u8, Tagged)>, (Tagged, Value)>: "a`" "rename");

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Inner {
        #[serde(default, rename(serialize = "a", deserialize = "b"))]
        x: u8,
        y: Vec<String>,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Flattened {
        id: u64,
        #[serde(flatten)]
        inner: Inner,
    }
    refused!(Flattened: "`a`" "rename");

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Text(String),
        Number(u8),
        Deep { inner: Inner, to: Option<(u8, bool)> },
    }
    refused!(Untagged: "`a`" "rename");

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Renamed {
        #[serde(rename(serialize = "one", deserialize = "two"))]
        One {
            x: u8,
        },
        Other,
    }
    refused!(Renamed: "cannot be read");

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Recursive {
        Add { l: Box<Recursive>, r: Box<Recursive> },
        Negative { l: Box<Recursive>, neg: () },
        List(Vec<Recursive>),
        Number(u64),
    }
    let one = || Box::new(Recursive::Number(1));
    kept!(Described Recursive: Recursive::Add { l: one(), r: one() }, Recursive::Negative { l: one(), neg: () });

    // Something that only some of what it may be is.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    enum Event {
        Started,
        Moved { to: (f64, f64), by: Option<String> },
        Stopped(Halt),
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Halt {
        code: i32,
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        tail: Vec<Event>,
    }
    let stopped = || Event::Stopped(Halt { code: -1, tail: vec![Event::Moved { to: (0.5, 1.5), by: None }] });
    kept!(Described Event: Event::Started, stopped());
    kept!(Described Vec<Event>: vec![Event::Started, stopped()]);

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Wide {
        Id { id: u128 },
        Name(String),
    }
    refused!(Wide: "Wide" "128 bits");
}

#[test]
fn bytes_are_read_by_whatever_reads_numbers_of_their_size() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Byte(u8);

    let mut sent = Vec::new();
    encode_as(Described, &vec![1_u8, 2], &mut sent).unwrap();
    let read = Decoder::new(&sent).next_as::<Vec<Byte>>(Described).unwrap();
    assert_eq!(read, [Byte(1), Byte(2)], "their forms are the same");
    let read = Decoder::new(&sent).next_as::<Vec<Option<u8>>>(Described).unwrap();
    assert_eq!(read, [Some(1), Some(2)]);
}

#[test]
fn what_a_default_makes_anew_each_time_is_not_lost() {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    fn next() -> u64 {
        static LAST: AtomicU64 = AtomicU64::new(0);
        LAST.fetch_add(1, Relaxed)
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Entry {
        #[serde(skip_deserializing, default = "next")]
        _id: u64,
        text: String,
    }
    assert_eq!(form!(Entry).unsupported(), None);
}

#[test]
fn other_names_are_no_matter() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Renamed {
        first_name: String,
        #[serde(rename = "aka")]
        other: u8,
    }
    kept!(Packed Renamed: Renamed { first_name: "x".into(), other: 1 });
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Aliased {
        #[serde(alias = "a", alias = "zz")]
        first: u8,
        #[serde(alias = "b")]
        second: u16,
    }
    kept!(Packed Aliased: Aliased { first: 1, second: 2 });
    assert!(form!(Aliased).text().starts_with("(it: {first: u8, second: u16})"), "{}", form!(Aliased).text());
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Aliases {
        #[serde(alias = "A", alias = "ZZ")]
        First,
        #[serde(alias = "B")]
        Second(u8),
        Third,
    }
    kept!(Packed Aliases: Aliases::First, Aliases::Second(1), Aliases::Third);
    let text = form!(Aliases).text().to_owned();
    assert!(text.starts_with("(it: enum {First, Second(u8), Third})"), "{text}");
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum AliasAndSkip {
        #[serde(alias = "CC")]
        A(u8),
        #[serde(skip)]
        B,
        C(u8),
        D(u8),
    }
    let _ = AliasAndSkip::B;
    let form = form!(AliasAndSkip);
    assert_eq!(form.codings().result(), Described, "{}", form.text());
    assert_eq!(carried(&form, Described, AliasAndSkip::D(1)), AliasAndSkip::D(1));
}

#[test]
fn one_field_under_two_names_is_refused() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Missing {
        #[serde(rename(serialize = "one", deserialize = "two"))]
        field: u8,
    }
    refused!(Missing: "argument `it`" "Missing" "`two`" "`one`" "rename");
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Defaulted {
        #[serde(rename(serialize = "one", deserialize = "two"), default)]
        field: u8,
        other: u8,
    }
    refused!(Defaulted: "`one`" "rename");
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Swapped {
        #[serde(rename(serialize = "b", deserialize = "a"))]
        x: u8,
        #[serde(rename(serialize = "a", deserialize = "b"))]
        y: u8,
    }
    refused!(Swapped: "is lost");
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Variants {
        #[serde(rename(serialize = "one", deserialize = "two"))]
        A(u8),
    }
    refused!(Variants: "`one`");
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Bridged {
        #[serde(rename(serialize = "one", deserialize = "two"), alias = "one")]
        field: u8,
    }
    kept!(Packed Bridged: Bridged { field: 1 });
}

mod hex {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{number:x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        u32::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}

fn as_text<S: serde::Serializer>(number: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
    number.map(|number| number.to_string()).serialize(serializer)
}

#[test]
fn attributes_that_change_both_sides_alike_are_packed() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct With<'a> {
        #[serde(with = "hex")]
        number: u32,
        #[serde(borrow)]
        text: Cow<'a, str>,
    }
    let form = Signature::new().argument("it", <Known<With<'_>>>::TYPE).result(<Known<()>>::TYPE);
    assert_eq!((form.codings().arguments().next(), form.unsupported()), (Packed, None), "{}", form.text());
    let mut bytes = Vec::new();
    encode_as(Packed, &With { number: 255, text: "x".into() }, &mut bytes).unwrap();
    let arrived = Decoder::new(&bytes).next_as::<With<'_>>(Packed).unwrap();
    assert_eq!(arrived, With { number: 255, text: "x".into() });
    assert!(matches!(arrived.text, Cow::Borrowed(_)));

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(transparent)]
    struct Transparent {
        inner: Vec<u8>,
    }
    kept!(Packed Transparent: Transparent { inner: vec![1] });
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(from = "(u8, u8)", into = "(u8, u8)")]
    struct FromInto {
        sum: u8,
        first: u8,
    }
    impl From<(u8, u8)> for FromInto {
        fn from((first, second): (u8, u8)) -> Self {
            Self { sum: first.wrapping_add(second), first }
        }
    }
    impl From<FromInto> for (u8, u8) {
        fn from(value: FromInto) -> Self {
            (value.first, value.sum.wrapping_sub(value.first))
        }
    }
    kept!(Packed FromInto: FromInto { sum: 3, first: 1 });
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(bound = "T: Serialize + DeserializeOwned")]
    struct Bound<T>(T);
    kept!(Packed Bound<u8>: Bound(1));
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Strict {
        x: u8,
    }
    impl Default for Strict {
        fn default() -> Self {
            Self { x: 5 }
        }
    }
    kept!(Packed Strict: Strict { x: 0 });
}

#[test]
fn a_writer_that_has_another_kind_than_its_reader_is_not_packed() {
    // The other field has the same type, and a value of it may have been seen there.
    #[derive(Debug, Serialize, Deserialize)]
    struct OneSided {
        plain: Option<u32>,
        #[serde(serialize_with = "as_text")]
        text: Option<u32>,
    }
    refused!(OneSided: "argument `it`" "OneSided" "cannot be read");
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Other {
        Known(u8),
        #[serde(other)]
        Unknown,
    }
    let form = form!(Other);
    let coding = form.codings().result();
    assert_eq!(round(coding, &Other::Known(1)), Other::Known(1));
    assert_eq!(round(coding, &Other::Unknown), Other::Unknown);
}
