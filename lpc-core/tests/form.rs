//! What forms say of types, against a file: a change there means that two builds stop understanding each
//! other.
//!
//! `GOLDEN=overwrite cargo test -p lpc-core --test form` writes it anew.

#![allow(missing_docs, dead_code)]

use std::alloc::Layout;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroI64, NonZeroU8};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lpc_core::codec::{HeldSlice, Loan, Received};
use lpc_core::form::{Form, Known, Signature, Unknown as _, difference};
use serde::de::{Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::ser::{SerializeTuple as _, Serializer};
use serde::{Deserialize, Serialize};

macro_rules! of {
    ($type:ty) => {
        Signature::new().argument("it", <Known<$type>>::TYPE).result(<Known<()>>::TYPE)
    };
}

macro_rules! text {
    ($type:ty) => {{
        let form = of!($type);
        form.text().strip_prefix("(it: ").and_then(|rest| rest.strip_suffix(") -> ()")).unwrap().to_owned()
    }};
}

macro_rules! same {
    ($one:ty, $other:ty) => {
        let (one, other) = (of!($one), of!($other));
        assert_eq!(one.text(), other.text());
        assert_eq!(one.fingerprint(), other.fingerprint(), "{}", one.text());
    };
}

#[derive(Serialize, Deserialize)]
struct Unit;

#[derive(Serialize, Deserialize)]
struct Newtype(String);

#[derive(Serialize, Deserialize)]
struct Pair(u8, String);

#[derive(Serialize, Deserialize)]
struct Point {
    x: i32,
    #[serde(rename = "why")]
    y: f64,
}

#[derive(Serialize, Deserialize)]
enum Event {
    Started,
    Moved {
        from: Point,
        to: Option<Point>,
    },
    Renamed(String),
    Resized(u32, u32),
    Nested(Inner),
    #[serde(skip)]
    Local(Vec<Unit>),
}

#[derive(Serialize, Deserialize)]
enum Inner {
    A(u8),
    B(Box<Inner>),
    C,
}

#[derive(Serialize, Deserialize)]
struct Page<T> {
    items: Vec<T>,
    next: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Node {
    name: String,
    next: Option<Box<Node>>,
}

#[derive(Serialize, Deserialize)]
struct Tree(Vec<Tree>);

#[derive(Serialize, Deserialize)]
enum Expr {
    Add(Box<Expr>, Box<Expr>),
    Call { name: String, arguments: Vec<Expr> },
    Block(Vec<Statement>),
    Number(i64),
}

#[derive(Serialize, Deserialize)]
enum Statement {
    Let(String, Expr),
    If(Expr, Box<Statement>, Option<Box<Statement>>),
    Scopes(HashMap<String, Statement>),
}

/// Has no value that ends.
#[derive(Serialize, Deserialize)]
struct Endless(Box<Endless>);

/// Refuses all but one text.
struct Url(String);

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.starts_with("http://") { Ok(Self(text)) } else { Err(D::Error::custom("no address")) }
    }
}

struct Percent(u8);

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u8::deserialize(deserializer)?;
        if (50..=100).contains(&number) { Ok(Self(number)) } else { Err(D::Error::custom("too little")) }
    }
}

struct Picky;

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "open sesame" { Ok(Self) } else { Err(D::Error::custom("no")) }
    }
}

struct Panicking;

impl<'de> Deserialize<'de> for Panicking {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        panic!("it was {}", u8::deserialize(deserializer)?)
    }
}

#[derive(Serialize, Deserialize)]
struct Links {
    home: Url,
    share: Percent,
    more: Vec<Url>,
}

#[derive(Serialize, Deserialize)]
struct Odd {
    #[serde(serialize_with = "nothing")]
    any: IgnoredAny,
    number: u8,
}

#[derive(Serialize, Deserialize)]
enum Some {
    Odd(Odd),
    Picky(Picky),
    Fine(u8),
}

/// Types are written as what is in them.
macro_rules! written {
    ($($type:ty: |$value:ident| $written:expr;)*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let $value = self;
                Serialize::serialize(&$written, serializer)
            }
        }
    )*};
}

written! {
    Url: |url| url.0;
    Percent: |percent| percent.0;
    Picky: |_picky| "open sesame";
    Panicking: |_panicking| 0_u8;
}

fn nothing<S: Serializer>(_: &IgnoredAny, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_unit()
}

struct Lent;

impl Serialize for Lent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let loan: Arc<dyn Loan> = Arc::new(Nothing);
        lpc_core::codec::Lent(&loan).serialize(serializer)
    }
}

struct Nothing;

impl Loan for Nothing {
    fn bytes(&self) -> &[u8] {
        &[]
    }
}

impl<'de> Deserialize<'de> for Lent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Received::deserialize_as::<[f32], D>(deserializer, Layout::new::<f32>()).map(|_| Self)
    }
}

macro_rules! table {
    ($($type:ty),* $(,)?) => {
        vec![$((stringify!($type), of!($type))),*]
    };
}

fn table() -> Vec<(&'static str, Form)> {
    table![
        bool, i8, i16, i32, i64, i128, u8, u16, u32, u64, u128, f32, f64, char, (), usize,
        String, Cow<'static, str>, Box<str>, PathBuf, Vec<u8>, [u8; 32], [u8; 0], Box<[u16]>, VecDeque<char>,
        (u8, String), (u8, u8), (u8,), Option<Option<u8>>, HashMap<String, Vec<u8>>, BTreeSet<u8>,
        Duration, SystemTime, IpAddr, SocketAddr, NonZeroU8, NonZeroI64, Range<u32>, OsString, Result<u8, String>,
        Unit, Newtype, Pair, Point, Event, Inner, Page<Point>, Page<u8>, (Page<u8>, Page<Point>),
        Node, Tree, Expr, Statement, Endless, Vec<Endless>,
        Url, Percent, Links, Picky, Vec<Picky>, Option<Picky>, Panicking, (u8, Panicking), Odd, Some, Vec<Some>,
        Received, Lent, Vec<Lent>, lpc_core::Error,
    ]
}

#[test]
fn forms_and_fingerprints_are_those_of_the_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/forms.txt");
    let lines = table()
        .into_iter()
        .map(|(name, form)| format!("{name}\n    {}\n    {:016x}\n", form.text(), form.fingerprint()));
    let text = lines.collect::<String>();
    if std::env::var_os("GOLDEN").is_some_and(|value| value == "overwrite") {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    for (line, expected) in text.lines().zip(expected.lines()) {
        assert_eq!(line, expected);
    }
    assert_eq!(text, expected);
}

#[test]
fn what_is_the_same_on_the_wire_has_the_same_form() {
    same!(&'static str, String);
    same!(Newtype, Cow<'static, str>);
    same!(&'static [u8], Vec<u8>);
    same!(HeldSlice<'static, u8>, Vec<u8>);
    same!(HeldSlice<'static, Point>, Vec<Point>);
    same!(Box<Point>, Point);
    same!(Pair, (u8, Newtype));
    same!([u8; 2], (u8, u8));
    same!(HeldSlice<'static, Endless>, Vec<Endless>);
}

#[test]
fn a_recursive_type_is_the_same_however_it_is_boxed_and_collected() {
    #[derive(Serialize, Deserialize)]
    struct Boxed {
        next: Option<Box<Boxed>>,
        all: Vec<Boxed>,
    }
    #[derive(Serialize, Deserialize)]
    struct Inside {
        next: Box<Option<Inside>>,
        all: VecDeque<Box<Inside>>,
    }
    #[derive(Serialize, Deserialize)]
    struct Unrolled {
        next: Option<Box<Boxed>>,
        all: Vec<Inside>,
    }
    #[derive(Serialize, Deserialize)]
    struct Other {
        next: Option<Box<Other>>,
        all: Vec<Option<Other>>,
    }
    let forms = [of!(Boxed), of!(Inside), of!(Unrolled)];
    for form in &forms {
        assert_eq!(form.text(), "(it: {next: Option<^2>, all: [^2]}) -> ()");
        assert_eq!(form.fingerprint(), forms[0].fingerprint());
    }
    assert_eq!(of!(Option<Boxed>).fingerprint(), of!(Option<Box<Boxed>>).fingerprint());
    assert_ne!(of!(Other).fingerprint(), forms[0].fingerprint());
}

#[test]
fn what_differs_on_the_wire_or_in_names_has_another_form() {
    #[derive(Serialize, Deserialize)]
    struct Swapped {
        y: i32,
        x: i32,
    }
    #[derive(Serialize, Deserialize)]
    struct Straight {
        x: i32,
        y: i32,
    }
    #[derive(Serialize, Deserialize)]
    enum Forth {
        A,
        B,
    }
    #[derive(Serialize, Deserialize)]
    enum Back {
        B,
        A,
    }
    assert_ne!(of!(Swapped).fingerprint(), of!(Straight).fingerprint());
    assert_ne!(of!(Forth).fingerprint(), of!(Back).fingerprint());
    let named = |name| Signature::new().argument(name, <Known<u8>>::TYPE).result(<Known<()>>::TYPE);
    assert_ne!(named("from").fingerprint(), named("to").fingerprint());
    assert_ne!(of!(i32).fingerprint(), of!(u32).fingerprint());
}

#[test]
fn a_type_that_cannot_be_decoded_has_a_name() {
    #[derive(Serialize)]
    struct Silent;
    assert_eq!(text!(Silent), "opaque Silent");
    assert_eq!(text!(Vec<Silent>), "opaque Vec<Silent>");
}

/// Declares an enum of very many variants, each with another of several.
macro_rules! large {
    ($($variant:ident)*) => {
        #[derive(Serialize, Deserialize)]
        enum Large {
            $($variant(Event), )*
        }
    };
}

large! {
    A0 A1 A2 A3 A4 A5 A6 A7 A8 A9 B0 B1 B2 B3 B4 B5 B6 B7 B8 B9 C0 C1 C2 C3 C4 C5 C6 C7 C8 C9 D0 D1 D2 D3 D4 D5 D6 D7 D8 D9
    E0 E1 E2 E3 E4 E5 E6 E7 E8 E9 F0 F1 F2 F3 F4 F5 F6 F7 F8 F9 G0 G1 G2 G3 G4 G5 G6 G7 G8 G9 H0 H1 H2 H3 H4 H5 H6 H7 H8 H9
}

#[test]
fn an_enum_of_many_variants_is_traced_to_the_last() {
    let text = text!(Large);
    assert!(text.ends_with(&format!("H9({})}}", text!(Event))), "{text}");
}

#[test]
fn of_a_form_that_is_too_long_to_be_told_all_counts() {
    // With long names, so that a few levels are enough: the compiler writes their types out.
    #[derive(Serialize, Deserialize)]
    struct Twice<T> {
        #[serde(
            rename = "one_name_that_is_as_long_as_it_can_be_without_being_of_any_use_to_anybody_who_would_have_\
                          to_write_it_in_a_program_or_to_read_it_in_a_form_and_that_goes_on_and_on_for_ever_and_a_day"
        )]
        one: Vec<T>,
        #[serde(
            rename = "two_names_that_are_as_long_as_they_can_be_without_being_of_any_use_to_anybody_who_would_have_\
                          to_write_them_in_a_program_or_to_read_them_in_a_form_and_that_go_on_and_on_for_ever_and_a_day"
        )]
        other: Option<T>,
    }
    type Many<T> = Twice<Twice<Twice<Twice<T>>>>;
    type More<T> = Many<Many<T>>;
    let [ours, theirs] = [of!(More<u32>), of!(More<f32>)];
    assert!(ours.text().len() < 1 << 16 && ours.opaque().is_empty());
    assert_ne!(ours.fingerprint(), theirs.fingerprint());
    assert_eq!(ours.text(), theirs.text());
    assert_eq!(difference(ours.text(), theirs.text()), "it differs deeper within than can be told");
}

/// A tuple of `LEN` elements, which serde has no implementation for.
struct Long<T, const LEN: usize>(Vec<T>);

impl<'de, T: Deserialize<'de>, const LEN: usize> Deserialize<'de> for Long<T, LEN> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T, const LEN: usize>(Vec<T>);
        impl<'de, T: Deserialize<'de>, const LEN: usize> Visitor<'de> for Elements<T, LEN> {
            type Value = Long<T, LEN>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{LEN} elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Self::Value, A::Error> {
                while let Some(element) = seq.next_element()? {
                    self.0.push(element);
                }
                Ok(Long(self.0))
            }
        }
        deserializer.deserialize_tuple(LEN, Elements(Vec::new()))
    }
}

impl<T: Serialize, const LEN: usize> Serialize for Long<T, LEN> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(LEN)?;
        self.0.iter().try_for_each(|element| tuple.serialize_element(element))?;
        tuple.end()
    }
}

#[test]
fn an_array_is_traced_however_long_it_is() {
    assert_eq!(text!(Long<u16, 1_000_000>), "[u16; 1000000]");
    assert_eq!(text!(Long<Event, 100_000>), format!("[{}; 100000]", text!(Event)));
}

/// Declares types that refuse a value unless it meets a condition.
macro_rules! checked {
    ($($name:ident($type:ty): $condition:expr;)*) => {$(
        struct $name($type);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = <$type>::deserialize(deserializer)?;
                let is_met: fn(&$type) -> bool = $condition;
                if is_met(&value) { Ok(Self(value)) } else { Err(D::Error::custom("it is out of range")) }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0.serialize(serializer)
            }
        }
    )*};
}

checked! {
    UserPort(u16): |port| *port >= 1024;
    DynamicPort(u16): |port| *port >= 49_152;
    Year(i32): |year| (1900..=2100).contains(year);
    Timestamp(u64): |seconds| *seconds > 1_500_000_000;
    Debt(i64): |amount| *amount < 0;
    Share(f64): |share| *share > 0.0 && *share < 1.0;
    Letter(char): |letter| letter.is_ascii_uppercase();
    Polygon(Vec<Point>): |points| points.len() >= 3;
    Names(HashMap<String, u8>): |names| !names.is_empty();
}

#[test]
fn types_that_check_their_values_are_traced() {
    #[derive(Serialize, Deserialize)]
    struct Checked {
        port: UserPort,
        other: DynamicPort,
        since: Year,
        at: Timestamp,
        owes: Debt,
        share: Share,
        class: Letter,
        area: Polygon,
        names: Names,
    }
    let point = text!(Point);
    assert_eq!(
        text!(Checked),
        format!(
            "{{port: u16, other: u16, since: i32, at: u64, owes: i64, share: f64, class: char, area: [{point}], names: Map<str, u8>}}"
        )
    );
}

#[test]
fn what_has_no_values_is_traced_as_such() {
    #[derive(Serialize, Deserialize)]
    enum Never {}
    #[derive(Serialize, Deserialize)]
    struct Job {
        done: Result<u8, Never>,
        maybe: Option<Never>,
        list: Vec<Never>,
        held: Option<Holder>,
        name: String,
    }
    #[derive(Serialize, Deserialize)]
    struct Holder(u8, Never);
    assert_eq!(
        text!(Job),
        "{done: enum {Ok(u8), Err(enum {})}, maybe: Option<enum {}>, list: [enum {}], held: Option<(u8, enum {})>, name: str}"
    );
    assert_eq!(text!(Never), "enum {}");
}

#[test]
fn a_form_says_what_is_opaque_and_why() {
    let told = |form: Form| {
        form.opaque().iter().map(|opaque| format!("{}: {}", opaque.name, opaque.why)).collect::<Vec<_>>()
    };
    assert!(told(of!(Event)).is_empty());
    assert_eq!(told(of!(Vec<Picky>)), ["Picky: it refuses all made-up values"]);
    assert_eq!(told(of!(Vec<Panicking>)), ["Panicking: it panics at a made-up value"]);
    assert!(told(of!(Odd)).is_empty());
    assert_eq!(text!(Odd), "described {any: any, number: u8}");
    assert_eq!(text!(Vec<Panicking>), "described [opaque Panicking]");
}

#[test]
fn loans_of_another_layout_have_another_form() {
    struct Loaned<const SIZE: usize>;
    impl<const SIZE: usize> Serialize for Loaned<SIZE> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            Lent.serialize(serializer)
        }
    }
    impl<'de, const SIZE: usize> Deserialize<'de> for Loaned<SIZE> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let each = Layout::array::<u16>(SIZE).expect("it is small");
            Received::deserialize_as::<[Point], D>(deserializer, each).map(|_| Self)
        }
    }
    assert_eq!(text!(Loaned<4>), "shared [Point] of 8 bytes aligned to 2");
    assert_ne!(of!(Loaned<4>).fingerprint(), of!(Loaned<6>).fingerprint());
}

#[test]
fn only_what_differs_is_told() {
    let cases = [
        ("(a: u8) -> ()", "(a: u16) -> ()", "argument `a` is `u8` here and `u16` there"),
        ("(a: u8) -> ()", "(b: u8) -> ()", "arguments are `a: u8` here and `b: u8` there"),
        ("() -> enum {Ok(u8)}", "() -> enum {Ok(())}", "the result `Ok.0` is `u8` here and `()` there"),
        ("() -> u8", "() -> u16", "the result is `u8` here and `u16` there"),
        (
            "(a: [{x: u8, y: Option<str>}]) -> ()",
            "(a: [{x: u8, y: Option<[u8]>}]) -> ()",
            "argument `a[].y?` is `str` here and `[u8]` there",
        ),
        ("(a: [u8; 3]) -> ()", "(a: [u8; 4]) -> ()", "argument `a` is `[u8; 3]` here and `[u8; 4]` there"),
        (
            "(a: enum {A, B{x: u8}}) -> ()",
            "(a: enum {B{x: u8}, A}) -> ()",
            "variants of argument `a` are `A, B` here and `B, A` there",
        ),
        (
            "(a: Map<str, opaque Vec<Url, u8>>) -> ()",
            "(a: Map<str, opaque Vec<Uri>>) -> ()",
            "argument `a.value` is `opaque Vec<Url, u8>` here and `opaque Vec<Uri>` there",
        ),
        (
            "(from: u8, to: str) -> ()",
            "(to: str, from: u8) -> ()",
            "arguments are `from: u8, to: str` here and `to: str, from: u8` there",
        ),
        ("() -> ()", "nonsense", "it is `() -> ()` here and `nonsense` there"),
    ];
    for (ours, theirs, told) in cases {
        assert_eq!(difference(ours, theirs), told);
    }
}

#[test]
fn what_a_peer_says_is_told_in_short_whatever_it_is() {
    let deep = format!("(a: {}) -> ()", "[".repeat(1 << 16));
    let wide = format!("(a: {}) -> ()", "[(){".repeat(1 << 14));
    for theirs in [deep.as_str(), &wide, "(", "", "(a: ) -> ", "(a: u8) -> [", "\u{1b}[2J", "(a: )]) -> >"] {
        let told = difference("(a: u8) -> ()", theirs);
        assert!(told.len() < 1000 && !told.contains('\u{1b}'), "{told}");
    }
}

/// Both sides of every difference can be read by who tells it.
#[test]
fn forms_of_all_types_are_told_apart_by_the_argument() {
    for (name, form) in table() {
        if form.text() != "(it: bool) -> ()" {
            let told = difference("(it: bool) -> ()", form.text());
            assert!(told.starts_with("argument `it` is `bool` here and `"), "{name}: {told}");
        }
    }
}
