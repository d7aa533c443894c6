//! Arguments `&T` cross, those that can without a copy, and serde's attributes behave.

use std::borrow::Cow;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use lpc_core::codec::{DecodeErrorKind, Decoder, Lend, encode};
use serde::{Deserialize, Serialize};

fn sent<T: Lend + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = vec![0xff]; // so that nothing is aligned by chance
    encode(&value.sent(), &mut bytes).expect("the value is encodable");
    bytes
}

fn held<'de, T: Lend + ?Sized>(bytes: &'de [u8]) -> T::Held<'de> {
    let mut decoder = Decoder::new(&bytes[1..]);
    let held = decoder.next().expect("the bytes are decodable");
    decoder.end().expect("they are all of it");
    held
}

/// Whether `part` lies within `whole`.
fn is_within(part: &[u8], whole: &[u8]) -> bool {
    let (part, whole) = (part.as_ptr_range(), whole.as_ptr_range());
    whole.start <= part.start && part.end <= whole.end
}

#[test]
fn text_and_bytes_are_lent_from_what_was_received() {
    let bytes = sent("a few words");
    let held_str = held::<str>(&bytes);
    let text: &str = Lend::lend(&held_str);
    assert_eq!(text, "a few words");
    assert!(is_within(text.as_bytes(), &bytes));

    let bytes = sent(&[1_u8, 2, 3][..]);
    let held_bytes = held::<[u8]>(&bytes);
    let lent: &[u8] = Lend::lend(&held_bytes);
    assert_eq!(lent, [1, 2, 3]);
    assert!(is_within(lent, &bytes));
}

#[test]
fn names_that_are_not_utf8_are_lent_from_what_was_received() {
    let name = OsStr::from_bytes(b"caf\xe9/menu");

    let bytes = sent(name);
    let held_name = held::<OsStr>(&bytes);
    let lent: &OsStr = Lend::lend(&held_name);
    assert_eq!(lent, name);
    assert!(is_within(lent.as_bytes(), &bytes));

    let bytes = sent(Path::new(name));
    let held_path = held::<Path>(&bytes);
    let lent: &Path = Lend::lend(&held_path);
    assert_eq!(lent, Path::new(name));
    assert!(is_within(lent.as_os_str().as_bytes(), &bytes));
}

#[test]
fn other_types_are_lent_from_a_value_decoded_for_the_call() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Point {
        x: i32,
        y: i32,
    }

    let bytes = sent(&Point { x: 1, y: -1 });
    assert_eq!(<Point as Lend>::lend(&held::<Point>(&bytes)), &Point { x: 1, y: -1 });

    let bytes = sent(&[Point { x: 1, y: 2 }, Point { x: 3, y: 4 }][..]);
    let points = held::<[Point]>(&bytes);
    assert_eq!(<[Point] as Lend>::lend(&points)[1], Point { x: 3, y: 4 });

    let bytes = sent(&[-1_i8, 2][..]);
    assert_eq!(<[i8] as Lend>::lend(&held::<[i8]>(&bytes)), [-1, 2]);

    let bytes = sent(&["a".to_owned()][..]);
    assert_eq!(<[String] as Lend>::lend(&held::<[String]>(&bytes)), ["a"]);

    let bytes = sent(c"name");
    assert_eq!(<CStr as Lend>::lend(&held::<CStr>(&bytes)), c"name");

    let bytes = sent(&vec![1_u8, 2]);
    assert_eq!(<Vec<u8> as Lend>::lend(&held::<Vec<u8>>(&bytes)), &[1, 2]);
}

#[test]
fn what_is_lent_has_the_form_of_its_owner() {
    assert_eq!(sent("ab"), sent(&"ab".to_owned()));
    assert_eq!(sent(&[1_u8, 2][..]), sent(&vec![1_u8, 2]));
    assert_eq!(sent(c"ab"), sent(&c"ab".to_owned()));
    assert_eq!(sent(Path::new("ab")), sent(&Path::new("ab").to_owned()));
}

#[test]
fn a_c_string_with_a_nul_inside_is_an_error() {
    let error = Decoder::new(&[3, b'a', 0, b'b']).next::<<CStr as Lend>::Held<'_>>().unwrap_err();
    assert_eq!(error.kind(), DecodeErrorKind::Custom);
}

#[test]
fn borrowed_fields_borrow() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Document<'a> {
        title: &'a str,
        #[serde(borrow)]
        author: Cow<'a, str>,
        body: &'a [u8],
        #[serde(borrow)]
        seal: Cow<'a, [u8]>,
        #[serde(borrow)]
        tags: Vec<&'a str>,
        #[serde(with = "serde_bytes")]
        raw: &'a [u8],
        copied: Cow<'a, [u8]>,
    }
    let document = Document {
        title: "title",
        author: "author".into(),
        body: b"body",
        seal: b"seal".into(),
        tags: vec!["one", "two"],
        raw: b"raw",
        copied: b"copied".into(),
    };
    let mut bytes = Vec::new();
    encode(&document, &mut bytes).unwrap();
    let decoded: Document<'_> = Decoder::new(&bytes).next().unwrap();
    assert_eq!(decoded, document);
    assert!(is_within(decoded.title.as_bytes(), &bytes));
    assert!(matches!(decoded.author, Cow::Borrowed(_)));
    assert!(is_within(decoded.body, &bytes));
    assert!(matches!(decoded.seal, Cow::Borrowed(_)));
    assert!(is_within(decoded.tags[1].as_bytes(), &bytes));
    assert!(is_within(decoded.raw, &bytes));
    assert!(matches!(decoded.copied, Cow::Owned(_)));
}

#[test]
fn attributes_that_need_no_names_behave() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Settings {
        #[serde(rename = "type", alias = "sort")]
        kind: u8,
        #[serde(default)]
        long_name: Option<String>,
        #[serde(skip)]
        cache: u64,
        #[serde(with = "serde_bytes")]
        body: Vec<u8>,
        port: Port,
        mode: Mode,
        #[serde(with = "text")]
        level: u32,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(transparent)]
    struct Port(u16);
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(from = "u8", into = "u8")]
    struct Mode(u8);
    impl Clone for Mode {
        fn clone(&self) -> Self {
            Self(self.0)
        }
    }
    impl From<u8> for Mode {
        fn from(mode: u8) -> Self {
            Self(mode)
        }
    }
    impl From<Mode> for u8 {
        fn from(mode: Mode) -> Self {
            mode.0
        }
    }
    mod text {
        use serde::{Deserialize, Deserializer, Serializer, de};

        pub(super) fn serialize<S: Serializer>(level: &u32, serializer: S) -> Result<S::Ok, S::Error> {
            assert!(!serializer.is_human_readable());
            serializer.collect_str(level)
        }

        pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
            assert!(!deserializer.is_human_readable());
            <&str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
        }
    }

    let settings = Settings {
        kind: 1,
        long_name: None,
        cache: 99,
        body: vec![2, 3],
        port: Port(300),
        mode: Mode(4),
        level: 55,
    };
    let mut bytes = Vec::new();
    encode(&settings, &mut bytes).unwrap();
    assert_eq!(bytes, [1, 0, 2, 2, 3, 0xac, 0x02, 4, 2, b'5', b'5']);
    let decoded: Settings = Decoder::new(&bytes).next().unwrap();
    assert_eq!(decoded, Settings { cache: 0, ..settings });
}
