//! Bytes that travel beside a message, referred to from wherever a value can stand.

mod remote;

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use lpc_core::codec::{
    DecodeError, DecodeErrorKind, Decoder, EncodeError, Lent, Loan, Loans, MAX_DEPTH, Received, Sink, encode,
};
use remote::{Still, WINDOWS};
use serde::de::value::{BytesDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes that may be lent, as a user of the codec would write them.
#[derive(Clone, Debug)]
struct Shared(Arc<dyn Loan>);

struct Page(Vec<u8>);

impl Loan for Page {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

fn shared(text: &str) -> Shared {
    Shared(Arc::new(Page(text.into())))
}

impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        self.0.bytes() == other.0.bytes()
    }
}

impl Serialize for Shared {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Lent(&self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Shared {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Received::deserialize(deserializer)? {
            Received::Loan(loan) => Self(loan),
            Received::Bytes(bytes) => Self(Arc::new(Page(bytes))),
        })
    }
}

/// A message, and the loans that go with it.
#[derive(Default)]
struct Message {
    body: Vec<u8>,
    loans: Vec<Arc<dyn Loan>>,
    /// How many loans it takes along; the others go in line.
    room: usize,
}

impl Sink for Message {
    fn push(&mut self, byte: u8) -> Result<(), EncodeError> {
        Sink::push(&mut self.body, byte)
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        Sink::extend(&mut self.body, bytes)
    }

    fn written(&self) -> u64 {
        self.body.len() as u64
    }

    fn lend(&mut self, loan: &Arc<dyn Loan>) -> Result<Option<u32>, EncodeError> {
        let index = self.loans.len();
        if index == self.room {
            return Ok(None);
        }
        self.loans.push(Arc::clone(loan));
        Ok(Some(index as u32))
    }
}

/// The loans of a message that has arrived.
struct Came(Mutex<Vec<Option<Arc<dyn Loan>>>>);

impl Came {
    fn with(loans: impl IntoIterator<Item = Arc<dyn Loan>>) -> Self {
        Self(Mutex::new(loans.into_iter().map(Some).collect()))
    }
}

impl Loans for Came {
    fn claim(&self, index: u32) -> Option<Arc<dyn Loan>> {
        self.0.lock().expect("nothing panicked").get_mut(index as usize)?.take()
    }
}

fn message<T: Serialize + ?Sized>(value: &T, room: usize) -> Message {
    let mut message = Message { room, ..Message::default() };
    encode(value, &mut message).expect("the value is encodable");
    message
}

fn all<T: DeserializeOwned>(decoder: Decoder<'_>, loans: &Came) -> Result<T, DecodeError> {
    let mut decoder = decoder.with_loans(loans);
    let value = decoder.next()?;
    decoder.end()?;
    Ok(value)
}

/// Sends `value`, which has `count` loans, with so many of them lent as can be, and must get it back.
fn crosses<T: Serialize + DeserializeOwned + PartialEq>(value: &T, count: usize) {
    for room in 0..=count {
        let message = message(value, room);
        assert_eq!(message.loans.len(), room, "each loan is lent that can be");
        let loans = || Came::with(message.loans.iter().cloned());
        let came = loans();
        assert!(all::<T>(Decoder::new(&message.body), &came).expect("it is whole") == *value);
        assert!(came.0.lock().expect("nothing panicked").iter().all(Option::is_none), "each loan is claimed");
        for windows in WINDOWS {
            let source = Still { bytes: &message.body, windows };
            assert!(all::<T>(Decoder::remote(&source), &loans()).expect("it is whole") == *value);
        }
        for end in 0..message.body.len() {
            all::<T>(Decoder::new(&message.body[..end]), &loans()).err().expect("it is cut short");
        }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Picture {
    name: String,
    pixels: Shared,
    mask: Option<Shared>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Wrapped(Shared);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Newtype(Shared),
    Tuple(u8, Shared),
    Struct { first: Shared, second: Shared },
}

#[test]
fn a_loan_may_stand_wherever_a_value_can() {
    let (one, two) = (shared("one"), shared("two"));
    crosses(&one, 1);
    crosses(&Some(one.clone()), 1);
    crosses(&(7_u8, one.clone(), "text".to_owned(), two.clone()), 2);
    crosses(&[one.clone(), two.clone()], 2);
    crosses(&vec![one.clone(), two.clone(), shared("")], 3);
    crosses(&BTreeMap::from([(1, one.clone()), (2, two.clone())]), 2);
    crosses(&Picture { name: "name".into(), pixels: one.clone(), mask: Some(two.clone()) }, 2);
    crosses(&Wrapped(one.clone()), 1);
    crosses(&Shape::Newtype(one.clone()), 1);
    crosses(&Shape::Tuple(7, one.clone()), 1);
    crosses(&vec![Shape::Struct { first: one.clone(), second: two.clone() }], 2);
    crosses(&Box::new(one.clone()), 1);
    crosses(&Cow::<Shared>::Owned(one.clone()), 1);
    crosses(&Ok::<Shared, String>(one.clone()), 1);
    crosses(&vec![Some((Box::new(one), BTreeMap::from([("key".to_owned(), vec![two])])))], 2);
}

#[test]
fn what_arrives_is_what_was_lent() {
    let lent = shared("lent");
    let message = message(&lent, 1);
    let loans = Came::with(message.loans);
    let received: Shared = all(Decoder::new(&message.body), &loans).unwrap();
    assert!(Arc::ptr_eq(&received.0, &lent.0));
    let page: Arc<dyn Any + Send + Sync> = received.0;
    assert_eq!(page.downcast::<Page>().ok().unwrap().0, b"lent");
}

#[test]
fn the_form_is_a_tag_and_an_index_or_bytes() {
    let value = (shared("one"), shared("two"));
    assert_eq!(message(&value, 2).body, [1, 0, 1, 1]);
    assert_eq!(message(&value, 1).body, [1, 0, 0, 3, b't', b'w', b'o']);
    assert_eq!(message(&value, 0).body, [0, 3, b'o', b'n', b'e', 0, 3, b't', b'w', b'o']);
    let many = message(&vec![shared(""); 200], 200);
    assert_eq!(many.body[many.body.len() - 3..], [1, 0xc7, 0x01]);
}

#[test]
fn a_sink_that_takes_no_loans_gets_the_bytes() {
    let mut bytes = Vec::new();
    encode(&Some(shared("one")), &mut bytes).unwrap();
    assert_eq!(bytes, [1, 0, 3, b'o', b'n', b'e']);
    let decoded = remote::decoded(&bytes, |one: &Option<Shared>, other| one == other);
    assert_eq!(decoded.unwrap(), Some(shared("one")));
    // The inner sink of a reference is asked, not the default.
    let mut message = Message { room: 1, ..Message::default() };
    let sink: &mut dyn Sink = &mut message;
    encode(&shared("one"), sink).unwrap();
    assert_eq!(message.body, [1, 0]);
}

#[test]
fn a_sink_may_refuse_a_loan() {
    struct Refusing;
    impl Sink for Refusing {
        fn push(&mut self, _: u8) -> Result<(), EncodeError> {
            Ok(())
        }
        fn extend(&mut self, _: &[u8]) -> Result<(), EncodeError> {
            Ok(())
        }
        fn written(&self) -> u64 {
            0
        }
        fn lend(&mut self, _: &Arc<dyn Loan>) -> Result<Option<u32>, EncodeError> {
            Err(EncodeError::new("too many loans"))
        }
    }
    let error = encode(&vec![shared("one")], &mut Refusing).unwrap_err();
    assert_eq!(error.to_string(), "too many loans");
}

/// The error that `body` is as a `T`, with one loan: its kind, place and text.
fn error<T: DeserializeOwned>(body: &[u8]) -> (DecodeErrorKind, usize, String) {
    let loans = Came::with([shared("one").0]);
    let error = all::<T>(Decoder::new(body), &loans).err().expect("the bytes are not decodable");
    (error.kind(), error.offset(), error.message().to_owned())
}

#[test]
fn a_reference_to_no_loan_is_an_error() {
    use DecodeErrorKind::{Malformed, Trailing, Truncated};

    let missing = |index| {
        format!("value refers to loan {index}, which did not come with the message, or was claimed before")
    };
    assert_eq!(error::<(u8, Shared)>(&[9, 1, 3]), (Malformed, 2, missing(3)));
    assert_eq!(error::<Vec<Shared>>(&[2, 1, 0, 1, 0]), (Malformed, 4, missing(0)), "claimed twice");
    let without = Decoder::new(&[1, 0]).next::<Shared>().unwrap_err();
    assert_eq!((without.kind(), without.message()), (Malformed, &*missing(0)));

    assert_eq!(error::<Shared>(&[2, 0]), (Malformed, 0, "loan of 2 is neither 0 nor 1".into()));
    assert_eq!(
        error::<Shared>(&[1, 0x80, 0x80, 0x80, 0x80, 0x10]),
        (Malformed, 1, "integer is too big for its type".into())
    );
    assert_eq!(error::<Shared>(&[]).0, Truncated);
    assert_eq!(error::<Shared>(&[1]), (Truncated, 1, "bytes end within an integer".into()));
    assert_eq!(error::<Shared>(&[0, 3, 1, 2]).0, Truncated);
    assert_eq!(error::<Shared>(&[1, 0, 0]).0, Trailing);
}

#[test]
fn a_loan_is_no_level_of_its_own() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Nest {
        Leaf(Shared),
        In(Box<Nest>),
    }
    let nest = |levels| (1..levels).fold(Nest::Leaf(shared("one")), |inner, _| Nest::In(Box::new(inner)));
    for room in [0, 1] {
        let message = message(&nest(MAX_DEPTH), room);
        let loans = Came::with(message.loans);
        assert_eq!(all::<Nest>(Decoder::new(&message.body), &loans).unwrap(), nest(MAX_DEPTH));
        let deeper = [&[1][..], &message.body].concat();
        assert!(all::<Nest>(Decoder::new(&deeper), &loans).unwrap_err().is_too_deep());
        let mut sink = Message { room, ..Message::default() };
        assert!(encode(&nest(MAX_DEPTH + 1), &mut sink).unwrap_err().is_too_deep());
        assert!(sink.loans.is_empty());
    }
}

#[test]
fn other_formats_have_the_bytes() {
    let picture = Picture { name: "name".into(), pixels: shared("one"), mask: None };
    let bytes = postcard::to_stdvec(&picture).unwrap();
    assert_eq!(bytes, [4, b'n', b'a', b'm', b'e', 3, b'o', b'n', b'e', 0]);
    assert_eq!(postcard::from_bytes::<Picture>(&bytes).unwrap(), picture);

    // Those that tell by themselves what comes.
    type Error = serde::de::value::Error;
    let bytes = BytesDeserializer::<Error>::new(b"one");
    assert_eq!(Shared::deserialize(bytes).unwrap(), shared("one"));
    let numbers = SeqDeserializer::<_, Error>::new(b"one".iter().copied());
    assert_eq!(Shared::deserialize(numbers).unwrap(), shared("one"));
    let wrong = SeqDeserializer::<_, Error>::new(["one"].into_iter());
    Shared::deserialize(wrong).unwrap_err();
}

/// What is left of a loan where another crate's serializer and deserializer stand between its type and the
/// codec, as those do that tell where an error was, or that make serializing dynamic: its name, and bytes.
#[derive(Debug, PartialEq)]
struct Hidden(Vec<u8>);

const NAME: &str = "$lpc_core::codec::Loan";

impl Serialize for Hidden {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(NAME, serde_bytes::Bytes::new(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HiddenVisitor;
        impl<'de> Visitor<'de> for HiddenVisitor {
            type Value = Hidden;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Hidden, D::Error> {
                deserializer.deserialize_byte_buf(self)
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Hidden, E> {
                Ok(Hidden(bytes.to_vec()))
            }
        }
        deserializer.deserialize_newtype_struct(NAME, HiddenVisitor)
    }
}

#[test]
fn a_loan_whose_type_is_hidden_goes_as_bytes_in_the_same_form() {
    let hidden = || Hidden(b"one".to_vec());
    let body = message(&hidden(), 1).body;
    assert_eq!(body, message(&shared("one"), 0).body, "it cannot be lent");
    let loans = Came::with([shared("one").0]);
    assert_eq!(all::<Shared>(Decoder::new(&body), &loans).unwrap(), shared("one"));
    assert_eq!(all::<Hidden>(Decoder::new(&body), &loans).unwrap(), hidden());
    assert_eq!(all::<Hidden>(Decoder::new(&[1, 0]), &loans).unwrap(), hidden(), "a loan is copied");
}

#[test]
fn what_is_printed_of_a_loan_is_its_length() {
    let loan = shared("one").0;
    assert_eq!(format!("{:?}", Lent(&loan)), "Lent(Loan(3 bytes))");
    assert_eq!(format!("{:?}", Received::Loan(loan)), "Loan(Loan(3 bytes))");
}
