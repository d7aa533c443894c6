//! Bytes that a message refers to instead of containing them.

use std::alloc::Layout;
use std::any::{Any, type_name};
use std::fmt;
use std::sync::Arc;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::type_name::without_modules;

/// By which both sides know that a loan may stand here. No derived type has such a name.
pub(crate) const NAME: &str = "$lpc_core::codec::Loan";

/// Stands before bytes that are in the message.
pub(super) const IN_LINE: u8 = 0;
/// Stands before the index of a loan.
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
    /// Hands out the loan of that index, once. `None`: there is none such, or it was claimed before.
    fn claim(&self, index: u32) -> Option<Arc<dyn Loan>>;
}

/// What a type that lends its bytes serializes as.
///
/// A [`Sink`](super::Sink) that takes loans along gets it by [`Sink::lend`](super::Sink::lend). For any
/// other, and for other formats, it is its bytes. It comes back as [`Received`].
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

/// What is within [`Lent`]: bytes for everybody but the codec, which recognises it by its type.
pub(super) struct Token<'a>(pub(super) &'a Arc<dyn Loan>);

impl Serialize for Token<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0.bytes())
    }
}

/// What a type whose bytes may be lent deserializes from.
#[derive(Clone, Debug)]
pub enum Received {
    /// They came beside the message.
    Loan(Arc<dyn Loan>),
    /// They were in it.
    Bytes(Vec<u8>),
}

impl Received {
    /// Deserializes what is lent as a `T`, which [forms](crate::form) know by its name, and by the layout of each of the values that
    /// it is a sequence of.
    ///
    /// # Errors
    ///
    /// As [`Deserialize::deserialize`].
    pub fn deserialize_as<'de, T: ?Sized, D: Deserializer<'de>>(
        deserializer: D,
        each: Layout,
    ) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(NAME, InLine { of: type_name::<T>(), each })
    }
}

impl<'de> Deserialize<'de> for Received {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize_as::<[u8], D>(deserializer, Layout::new::<u8>())
    }
}

/// Takes bytes in whatever form a format has for them. The codec hands over a loan by itself.
struct InLine {
    /// The type that they are lent as.
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
