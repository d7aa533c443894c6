//! Loans: bytes that a message refers to instead of containing them.

use std::alloc::Layout;
use std::any::{Any, type_name};
use std::fmt;
use std::sync::Arc;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::type_name::without_modules;

/// The name of the newtype that marks a possible loan, on both sides. No derived type has such a name.
pub(crate) const NAME: &str = "$lpc_core::codec::Loan";

/// The tag before bytes that are in the message.
pub(super) const IN_LINE: u8 = 0;
/// The tag before the index of a loan.
pub(super) const LENT: u8 = 1;

/// Bytes that a message may refer to instead of containing them.
pub trait Loan: Any + Send + Sync {
    /// The bytes.
    fn bytes(&self) -> &[u8];
}

impl fmt::Debug for dyn Loan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Loan({} bytes)", self.bytes().len())
    }
}

/// The loans that came with a message.
pub trait Loans: Sync {
    /// Hands out the loan of this index, once. `None` if there is no such loan, or it was claimed before.
    fn claim(&self, index: u32) -> Option<Arc<dyn Loan>>;
}

/// The form in which a type that lends its bytes serializes.
///
/// A [`Sink`](super::Sink) that carries loans gets it through [`Sink::lend`](super::Sink::lend). Any other
/// sink, and any other format, gets the bytes. The receiver gets it as [`Received`].
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use lpc_core::codec::{Decoder, EncodeError, Lent, Loan, Loans, Received, Sink, encode};
///
/// struct Text(&'static str);
///
/// impl Loan for Text {
///     fn bytes(&self) -> &[u8] {
///         self.0.as_bytes()
///     }
/// }
///
/// /// A message, and what travels beside it.
/// #[derive(Default)]
/// struct Message { body: Vec<u8>, loans: Mutex<Vec<Option<Arc<dyn Loan>>>> }
///
/// impl Sink for Message {
///     fn push(&mut self, byte: u8) -> Result<(), EncodeError> {
///         Sink::push(&mut self.body, byte)
///     }
///     fn extend(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
///         Sink::extend(&mut self.body, bytes)
///     }
///     fn written(&self) -> u64 {
///         self.body.len() as u64
///     }
///     fn lend(&mut self, loan: &Arc<dyn Loan>) -> Result<Option<u32>, EncodeError> {
///         let mut loans = self.loans.lock().unwrap();
///         loans.push(Some(Arc::clone(loan)));
///         Ok(Some(loans.len() as u32 - 1))
///     }
/// }
///
/// impl Loans for Message {
///     fn claim(&self, index: u32) -> Option<Arc<dyn Loan>> {
///         self.loans.lock().unwrap().get_mut(index as usize)?.take()
///     }
/// }
///
/// let text: Arc<dyn Loan> = Arc::new(Text("as long as you like"));
/// let mut message = Message::default();
/// encode(&Some(Lent(&text)), &mut message)?;
/// assert_eq!(message.body, [1, 1, 0]); // `Some`, a loan, the first one
///
/// let received = Decoder::new(&message.body).with_loans(&message).next()?;
/// assert!(matches!(received, Some(Received::Loan(loan)) if Arc::ptr_eq(&loan, &text)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Lent<'a>(pub &'a Arc<dyn Loan>);

impl Serialize for Lent<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(NAME, &Token(self.0))
    }
}

/// The content of [`Lent`]: bytes for any format but this codec, which recognises it by its type.
pub(super) struct Token<'a>(pub(super) &'a Arc<dyn Loan>);

impl Serialize for Token<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0.bytes())
    }
}

/// The form from which a type whose bytes may be lent deserializes.
#[derive(Clone, Debug)]
pub enum Received {
    /// The bytes came beside the message.
    Loan(Arc<dyn Loan>),
    /// The bytes were in the message.
    Bytes(Vec<u8>),
}

impl Received {
    /// Deserializes what is lent as a `T`. [Forms](crate::form) compare it by the name of `T` and the layout
    /// of its elements.
    ///
    /// # Errors
    ///
    /// Those of [`Deserialize::deserialize`].
    pub fn deserialize_as<'de, T: ?Sized, D: Deserializer<'de>>(
        deserializer: D,
        each: Layout,
    ) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(NAME, InLine { of: type_name::<T>(), each })
    }
}

/// As it was received: a loan is lent on.
impl Serialize for Received {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Loan(loan) => Lent(loan).serialize(serializer),
            Self::Bytes(bytes) => serializer.serialize_newtype_struct(NAME, &Copied(bytes)),
        }
    }
}

/// Bytes, as bytes in every format.
struct Copied<'a>(&'a [u8]);

impl Serialize for Copied<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de> Deserialize<'de> for Received {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize_as::<[u8], D>(deserializer, Layout::new::<u8>())
    }
}

/// Accepts bytes in any form that a format has for them. The codec hands over a loan by itself.
struct InLine {
    /// The type that the bytes are lent as.
    of: &'static str,
    each: Layout,
}

impl<'de> Visitor<'de> for InLine {
    type Value = Received;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shared {}", without_modules(self.of))?;
        match (self.each.size(), self.each.align()) {
            (1, _) => Ok(()),
            (size, align) => write!(f, " of {size} bytes aligned to {align}"),
        }
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Received, D::Error> {
        deserializer.deserialize_byte_buf(self)
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Received, E> {
        Ok(Received::Bytes(bytes.to_vec()))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Received, E> {
        Ok(Received::Bytes(bytes))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Received, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(seq)).map(Received::Bytes)
    }
}
