//! The codec of bodies: values to bytes, and bytes to values.
//!
//! ```
//! use lpc_core::codec::{Decoder, encode};
//!
//! let mut bytes = Vec::new();
//! encode("report.txt", &mut bytes)?;
//! encode(&vec![1_u8, 2, 3], &mut bytes)?;
//!
//! let mut decoder = Decoder::new(&bytes);
//! let name: &str = decoder.next()?; // borrowed from `bytes`
//! let body: Vec<u8> = decoder.next()?; // one copy
//! decoder.end()?;
//! assert_eq!((name, body), ("report.txt", vec![1, 2, 3]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The format is [postcard](https://postcard.jamesmunns.com/wire-format) 1.x's: nothing but the values, in
//! order. Integers over a byte are varints (signed ones zigzag first), floats are little endian, a string, a
//! sequence or a map begins with its length, an enum with the index of its variant, an `Option` with 0 or 1;
//! structs and tuples are their fields.
//!
//! # Bytes
//!
//! `[u8]`, `Vec<u8>`, `Box<[u8]>`, `Cow<[u8]>` and `[u8; N]` are written by one [`Sink::extend`] and read by
//! one copy wherever they stand, with no annotation: the codec recognises them by their types. `&[u8]`,
//! `&str` and the types of `serde_bytes` have the same form, and the borrowed ones are read without a copy.
//! An array longer than serde's own 32 goes through code of the user's or of another crate, and so is written
//! in runs of 32 bytes and read byte by byte.
//!
//! # Loans
//!
//! A value may refer to bytes that travel beside the message. If the [`Sink`] carries the loan, a [`Lent`] is
//! written as the byte 1 and the index by which the receiver claims it, a varint. Otherwise it is written
//! inline, as the byte 0, the length and the bytes. The receiver gets both as [`Received`]. This is the one
//! encoding that postcard does not have; postcard and other formats get the bytes as bytes. A loan may be
//! wherever a value can be.
//!
//! # What a message may cost
//!
//! The bytes come from a peer, so decoding is bounded by their number, whatever they contain:
//! - Values nest at most [`MAX_DEPTH`] deep, in both directions, unless [`Sink`] and [`Decoder`] set another
//!   limit. Each sequence, map, tuple, struct and enum is one level; so is a newtype or `Some` that is directly
//!   within another. A list of nodes with `next: Option<Box<Node>>` has one level a node.
//! - Each element of a sequence or map takes at least a byte, or counts against [`MAX_EMPTY_ELEMENTS`]: the
//!   number of elements without bytes (such as `()`) in all that one [`Decoder`] reads. A count that neither
//!   can cover is an error before anything is allocated.
//! - Capacity is reserved for no more elements than bytes are left, taken over all the sequences that are
//!   open. So memory is bounded by the length of the message, and the number of empty elements, times the
//!   size of an element.
//! - Bytes that the peer may still write to ([`Remote`]) are copied before they are looked at, and what was
//!   found in one copy is not looked up in another.
//! - A value that refers to a loan that did not come with the message, or to one that another value has, is
//!   an error.
//! - Each value has one encoding: a varint with needless bytes, a `bool` or `Option` tag over 1, a
//!   `char` that is not exactly one, invalid UTF-8, and bytes after the last value are errors.
//!
//! # Two codings
//!
//! All this is the [packed](Coding::Packed) coding: it is not self-describing, so the receiver must know the
//! type, and takes each value for what it expects next. That is right as long as a type's `Deserialize` asks
//! for just what its `Serialize` writes, which attributes of serde can change on one side alone.
//!
//! The [described](Coding::Described) coding says of each item what it is, and knows fields and variants by
//! their names: with tags of a byte, over the same sinks and inputs, within the same bounds. It carries what
//! JSON does (`#[serde(untagged)]`, `tag`, `flatten`, `serde_json::Value`), and besides numbers of 128 bits,
//! bytes, `Some(None)` and loans. Within types that ask what comes next serde itself buffers values, and has no
//! kind for 128 bits there, nor for paths that are not UTF-8. Both sides say that the coding is human-readable,
//! because the deserializers in which serde buffers values say so.
//!
//! [Forms](crate::form) tell which of the two an argument or a result is written in ([`encode_as`],
//! [`Decoder::next_as`]).
//!
//! # What serde types may do
//!
//! Whatever they like, as far as they can read what they write. In the packed coding a sequence must know its
//! length before its elements: `collect_seq` and `collect_map` see to that for any iterator, by collecting it
//! where it does not know, whereas `serialize_seq(None)` is an error. So is a field that is left out
//! (`skip_serializing_if`). A type of which tracing has seen that it does either is described.
//!
//! Start at [`encode`] and [`Decoder`]; [`Lend`] says how an argument `&T` crosses.

mod access;
mod bytes;
mod coding;
mod compound;
mod de;
mod depth;
mod described;
mod input;
mod lend;
mod loan;
mod remote;
mod ser;
mod sink;
mod varint;

use std::borrow::Cow;
use std::fmt;

pub use self::coding::{ArgumentCodings, Coding, Codings};
pub use self::de::Decoder;
pub use self::lend::{HeldOsStr, HeldPath, HeldSlice, Lend, SentBytes};
pub(crate) use self::loan::NAME as LOAN;
pub use self::loan::{Lent, Loan, Loans, Received};
pub use self::remote::Remote;
pub use self::ser::{encode, encode_as};
pub use self::sink::{Sink, too_many_empty};

/// How deep values may nest, in encoding and in decoding, where nothing else is [said](Sink::max_depth).
pub const MAX_DEPTH: u32 = 128;

/// The most that such a limit can be. Each level takes a part of the thread's stack.
pub const DEEPEST: u32 = 1024;

/// How many elements that take no bytes, such as `()`, one [`Decoder`] accepts in all its sequences together.
pub const MAX_EMPTY_ELEMENTS: u32 = 1 << 16;

/// Why a value could not be encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A `Serialize` implementation or the [`Sink`] refused, or the format has no encoding for the value.
    #[error("{0}")]
    Message(Cow<'static, str>),
    /// The sink accepts no more than `limit` bytes, and the value has at least `len`.
    #[error("encoded value of {len} bytes is over the limit of {limit}")]
    TooLarge {
        /// How long the value would be, as far as it is known.
        len: u64,
        /// How long it may be.
        limit: u64,
    },
    /// The value nests deeper than its [sink](Sink::max_depth) allows.
    #[error("value is nested deeper than {limit} levels")]
    TooDeep {
        /// How many levels it may have.
        limit: u32,
    },
    /// There is no memory for what has at least so many bytes.
    #[error("no memory for {len} bytes")]
    OutOfMemory {
        /// How long it is, as far as that is known.
        len: u64,
    },
}

impl EncodeError {
    /// An error that says `message`.
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self::Message(message.into())
    }

    /// Whether a sink refused the value for its length.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::TooLarge { .. })
    }

    /// Whether the value nests deeper than its [sink](Sink::max_depth) allows.
    pub fn is_too_deep(&self) -> bool {
        matches!(self, Self::TooDeep { .. })
    }
}

impl serde::ser::Error for EncodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        let mut message = message.to_string();
        // Serde's own words, which say nothing of what to do.
        let remedy = match message.as_str() {
            "path contains invalid UTF-8 characters" => {
                "; a path that is not UTF-8 is carried as an argument `&Path`, and as a `PathBuf` by itself, in a \
                 field, an `Option` or a sequence, but not behind `serde(transparent)` or other wrappers"
            }
            "SystemTime must be later than UNIX_EPOCH" => {
                "; pass a time before 1970 as a signed number of seconds, or as the `Duration` before it"
            }
            _ => "",
        };
        message.push_str(remedy);
        Self::new(message)
    }
}

/// Why bytes are not the value that was asked for, and where.
///
/// ```
/// use lpc_core::codec::Decoder;
///
/// let error = Decoder::new(&[1, 7]).next::<(u8, bool)>().unwrap_err();
/// assert_eq!(error.offset(), 1);
/// assert_eq!(error.to_string(), "bool of 7 is neither 0 nor 1, at byte 1");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}, at byte {}", self.message(), self.offset())]
pub struct DecodeError(Box<Undecodable>);

/// It is boxed, so that the `Result` of each small value stays small.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Undecodable {
    kind: DecodeErrorKind,
    message: Cow<'static, str>,
    /// `None` until the decoder that knows it adds it: serde's `custom` does not.
    offset: Option<usize>,
}

/// What sort of thing a [`DecodeError`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The bytes end within the value, or a length or count is more than they can hold.
    Truncated,
    /// Some bytes are not an encoding of the expected type.
    Malformed,
    /// Bytes follow the last value.
    Trailing,
    /// The value nests deeper than the [`Decoder`] allows.
    TooDeep,
    /// There are more elements without bytes than [`MAX_EMPTY_ELEMENTS`].
    TooManyEmpty,
    /// The type asks for what this format cannot do.
    Unsupported,
    /// The type's `Deserialize` implementation refused.
    Custom,
    /// There is no memory for a copy of a long value.
    OutOfMemory,
}

impl DecodeError {
    fn new(kind: DecodeErrorKind, offset: usize, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Undecodable { kind, message: message.into(), offset: Some(offset) }))
    }

    /// Sets where the error is, unless that is known.
    fn or_at(mut self, offset: usize) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// Sets where the error is, whether or not that was known.
    fn moved_to(mut self, offset: usize) -> Self {
        self.0.offset = Some(offset);
        self
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The byte at which it is wrong, counted from the start of what the [`Decoder`] was given.
    pub fn offset(&self) -> usize {
        self.0.offset.unwrap_or(0)
    }

    /// What sort of error it is.
    pub fn kind(&self) -> DecodeErrorKind {
        self.0.kind
    }

    /// Whether the value nests deeper than the [`Decoder`] allows.
    pub fn is_too_deep(&self) -> bool {
        self.0.kind == DecodeErrorKind::TooDeep
    }
}

impl serde::de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        let message = Cow::Owned(message.to_string());
        Self(Box::new(Undecodable { kind: DecodeErrorKind::Custom, message, offset: None }))
    }
}
