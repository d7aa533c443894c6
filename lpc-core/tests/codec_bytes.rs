//! Bytes move in one piece wherever they stand, with no annotation.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lpc_core::codec::{Coding, DecodeError, Decoder, EncodeError, Sink, encode, encode_as};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};

/// Notes how long the pieces are that it is given.
#[derive(Default)]
struct Pieces {
    bytes: Vec<u8>,
    lens: Vec<usize>,
}

impl Sink for Pieces {
    fn push(&mut self, byte: u8) -> Result<(), EncodeError> {
        self.extend(&[byte])
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.bytes.extend_from_slice(bytes);
        self.lens.push(bytes.len());
        Ok(())
    }

    fn written(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// The pieces that `value` is encoded in; they are postcard's bytes.
fn pieces<T: Serialize + ?Sized>(value: &T) -> Vec<usize> {
    let mut pieces = Pieces::default();
    encode(value, &mut pieces).expect("the value is encodable");
    assert_eq!(pieces.bytes, postcard::to_stdvec(value).expect("the value is encodable"));
    pieces.lens
}

fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let value = decoder.next()?;
    decoder.end()?;
    Ok(value)
}

const LEN: usize = 300;
/// Of the length before that many bytes.
const PREFIX: usize = 2;

#[test]
fn a_slice_is_two_pieces_in_every_position() {
    #[derive(Serialize)]
    struct Struct<'a> {
        slice: &'a [u8],
        vec: Vec<u8>,
        boxed: Box<[u8]>,
        borrowed: Cow<'a, [u8]>,
        owned: Cow<'a, [u8]>,
    }
    #[derive(Serialize)]
    struct Newtype(Vec<u8>);
    #[derive(Serialize)]
    enum Enum {
        Newtype(Vec<u8>),
        Tuple(Vec<u8>, Vec<u8>),
        Struct { a: Vec<u8> },
    }

    let bytes = vec![7; LEN];
    let one = [PREFIX, LEN];
    let v = || bytes.clone();
    assert_eq!(pieces(&bytes[..]), one);
    assert_eq!(pieces(&bytes), one);
    assert_eq!(pieces(&&&bytes), one);
    assert_eq!(pieces(&Newtype(v())), one);
    assert_eq!(pieces(&Some(v())), [&[1], &one[..]].concat());
    assert_eq!(pieces(&Some(Some(&bytes[..]))), [&[1, 1], &one[..]].concat());
    assert_eq!(pieces(&(v(), &bytes[..])), one.repeat(2));
    assert_eq!(pieces(&[v(), v()]), one.repeat(2));
    assert_eq!(pieces(&vec![v(), v(), v()]), [&[1], &one.repeat(3)[..]].concat());
    assert_eq!(pieces(&vec![&bytes[..]]), [&[1], &one[..]].concat());
    assert_eq!(pieces(&BTreeMap::from([(v(), v())])), [&[1], &one.repeat(2)[..]].concat());
    assert_eq!(pieces(&Enum::Newtype(v())), [&[1], &one[..]].concat());
    assert_eq!(pieces(&Enum::Tuple(v(), v())), [&[1], &one.repeat(2)[..]].concat());
    assert_eq!(pieces(&Enum::Struct { a: v() }), [&[1], &one[..]].concat());
    let (borrowed, owned) = (Cow::Borrowed(&bytes[..]), Cow::Owned(v()));
    let value = Struct { slice: &bytes, vec: v(), boxed: v().into(), borrowed, owned };
    assert_eq!(pieces(&value), one.repeat(5));
}

#[test]
fn an_array_is_one_piece_in_every_position() {
    #[derive(Serialize)]
    struct Struct {
        array: [u8; 32],
        boxed: Box<[u8; 31]>,
        other: u8,
    }
    #[derive(Serialize)]
    struct Newtype([u8; 20]);
    #[derive(Serialize)]
    struct Tuple([u8; 20], u8);
    #[derive(Serialize)]
    enum Enum {
        Newtype([u8; 8]),
        Tuple([u8; 8], u32),
        Struct { a: [u8; 8] },
    }

    assert_eq!(pieces(&[7_u8; 2]), [2]);
    assert_eq!(pieces(&[7_u8; 32]), [32]);
    assert_eq!(pieces(&&[7_u8; 32]), [32]);
    assert_eq!(pieces(&[0_u8; 0]), []);
    assert_eq!(pieces(&Struct { array: [7; 32], boxed: Box::new([7; 31]), other: 7 }), [32, 31, 1]);
    assert_eq!(pieces(&Newtype([7; 20])), [20]);
    assert_eq!(pieces(&Tuple([7; 20], 7)), [20, 1]);
    assert_eq!(pieces(&Some([7_u8; 20])), [1, 20]);
    assert_eq!(pieces(&([7_u8; 20], 7_u8, [7_u8; 3])), [20, 1, 3]);
    assert_eq!(pieces(&Enum::Newtype([7; 8])), [1, 8]);
    assert_eq!(pieces(&Enum::Tuple([7; 8], 7)), [1, 8, 1]);
    assert_eq!(pieces(&Enum::Struct { a: [7; 8] }), [1, 8]);
    assert_eq!(pieces(&BTreeMap::from([([7_u8; 9], [7_u8; 8])])), [1, 9, 8]);
    assert_eq!(pieces(&vec![[7_u8; 16]; 50]), [1, 800], "arrays in a slice are one piece together");
    assert_eq!(pieces(&[[7_u8; 16]; 3]), [16, 16, 16]);
}

#[test]
fn bytes_in_a_tuple_are_gathered_in_order() {
    assert_eq!(pieces(&(1_u8, 2_u8, 300_u16, 3_u8, "abc", 4_u8, 5_u8)), [2, 2, 1, 1, 3, 2]);
}

/// As crates for arrays beyond serde's 32 do.
fn long_array<S: Serializer>(array: &[u8; 100], serializer: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeTuple;
    let mut tuple = serializer.serialize_tuple(array.len())?;
    array.iter().try_for_each(|byte| tuple.serialize_element(byte))?;
    tuple.end()
}

#[test]
fn an_array_too_long_for_serde_goes_in_runs_of_32() {
    #[derive(Serialize)]
    struct Long(#[serde(serialize_with = "long_array")] [u8; 100]);
    assert_eq!(pieces(&Long([7; 100])), [32, 32, 32, 4]);
}

#[test]
fn text_and_annotated_bytes_are_two_pieces() {
    let bytes = vec![7; LEN];
    assert_eq!(pieces(serde_bytes::Bytes::new(&bytes)), [PREFIX, LEN]);
    assert_eq!(pieces(&"a".repeat(LEN)), [PREFIX, LEN]);
    assert_eq!(pieces(&'ß'), [1, 2]);
    assert_eq!(pieces(&format_args!("{}{}", "a".repeat(LEN / 2), "b".repeat(LEN / 2))), [PREFIX, LEN]);
}

#[test]
fn an_integer_is_one_piece() {
    assert_eq!(pieces(&5_u64), [1]);
    assert_eq!(pieces(&u64::MAX), [10]);
    assert_eq!(pieces(&i128::MIN), [19]);
    assert_eq!(pieces(&1.5_f64), [8]);
}

#[test]
fn sixteen_mebibytes_are_decoded_by_one_exact_allocation() {
    // Serde's own visitor reserves 1 MiB and doubles from there, which would end with another capacity for an
    // odd length. That the visitor is recognised is tested in `codec::bytes`.
    let bytes: Vec<u8> = (0..(16 << 20) + 12_345).map(|at: u32| at as u8).collect();
    let mut encoded = Vec::new();
    encode(&(7_u8, &bytes), &mut encoded).unwrap();
    let (_, vec) = decoded::<(u8, Vec<u8>)>(&encoded).unwrap();
    assert_eq!(vec.capacity(), bytes.len());
    assert!(vec == bytes);
}

#[test]
fn all_owners_of_bytes_come_back() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Owners {
        boxed: Box<[u8]>,
        cow: Cow<'static, [u8]>,
        vecs: Vec<Vec<u8>>,
        maybe: Option<Vec<u8>>,
        array: [u8; 3],
        arrays: Vec<[u8; 32]>,
        boxed_array: Box<[u8; 4]>,
    }
    let value = Owners {
        boxed: vec![1, 2].into(),
        cow: Cow::Owned(vec![3]),
        vecs: vec![vec![4], vec![], vec![5, 6]],
        maybe: Some(vec![7]),
        array: [8, 9, 10],
        arrays: vec![[11; 32], [12; 32]],
        boxed_array: Box::new([13; 4]),
    };
    let mut bytes = Vec::new();
    encode(&value, &mut bytes).unwrap();
    assert_eq!(decoded::<Owners>(&bytes).unwrap(), value);
}

#[test]
fn serde_bytes_and_plain_bytes_are_each_other() {
    let plain = vec![vec![1_u8, 2], vec![3]];
    let mut bytes = Vec::new();
    encode(&plain, &mut bytes).unwrap();
    let annotated: Vec<serde_bytes::ByteBuf> = decoded(&bytes).unwrap();
    assert_eq!(annotated[0].as_slice(), [1, 2]);
    let mut back = Vec::new();
    encode(&annotated, &mut back).unwrap();
    assert_eq!(decoded::<Vec<Vec<u8>>>(&back).unwrap(), plain);
    assert_eq!(Decoder::new(&back).next::<Vec<&[u8]>>().unwrap(), plain);
}

/// A type with paths in all places that serde's own implementations have.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Paths {
    one: PathBuf,
    maybe: Option<PathBuf>,
    many: Vec<PathBuf>,
    boxed: Box<Path>,
    named: BTreeMap<PathBuf, (u8, PathBuf)>,
    new: Root,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Root(PathBuf);

#[test]
fn paths_need_not_be_utf_8() {
    for name in [&b"/etc/passwd"[..], b"/tmp/\xff\xfe.txt", b"", b"\xf0\x9f"] {
        let path = || PathBuf::from(OsStr::from_bytes(name));
        let paths = Paths {
            one: path(),
            maybe: Some(path()),
            many: vec![path(), path()],
            boxed: path().into(),
            named: BTreeMap::from([(path(), (7, path()))]),
            new: Root(path()),
        };
        for coding in [Coding::Packed, Coding::Described] {
            let mut bytes = Vec::new();
            encode_as(coding, &paths, &mut bytes).unwrap();
            encode_as(coding, &*path(), &mut bytes).unwrap();
            encode_as(coding, &(&path(), Cow::Borrowed(&*path())), &mut bytes).unwrap();
            let mut decoder = Decoder::new(&bytes);
            assert_eq!(decoder.next_as::<Paths>(coding).unwrap(), paths);
            assert_eq!(decoder.next_as::<PathBuf>(coding).unwrap(), path());
            let two = decoder.next_as::<(PathBuf, Cow<'_, Path>)>(coding).unwrap();
            assert_eq!(two, (path(), Cow::Owned(path())));
            decoder.end().unwrap();
        }
        // A string is none all the same.
        let mut bytes = Vec::new();
        encode(&path(), &mut bytes).unwrap();
        assert_eq!(Decoder::new(&bytes).next::<String>().is_ok(), path().to_str().is_some());
    }
}

#[test]
fn os_strings_need_not_be_utf_8() {
    let name = OsStr::from_bytes(b"a\xffb").to_owned();
    for coding in [Coding::Packed, Coding::Described] {
        let mut bytes = Vec::new();
        encode_as(coding, &vec![&name], &mut bytes).unwrap();
        assert_eq!(Decoder::new(&bytes).next_as::<Vec<OsString>>(coding).unwrap(), [&*name]);
    }
}

#[test]
fn what_serde_refuses_is_refused_with_the_way_out() {
    #[derive(Serialize)]
    #[serde(transparent)]
    struct Hidden(PathBuf);

    let refused = |error: EncodeError| error.to_string();
    let hidden = Hidden(OsStr::from_bytes(b"\xff").into());
    let hidden = refused(encode(&hidden, &mut Vec::new()).unwrap_err());
    assert!(hidden.contains("invalid UTF-8") && hidden.contains("as an argument `&Path`"), "{hidden}");
    let early = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    let early = refused(encode(&early, &mut Vec::new()).unwrap_err());
    assert!(early.contains("before 1970 as a signed number"), "{early}");
}
