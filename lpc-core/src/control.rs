//! How control messages are encoded: what the protocol itself says, that is no body of a call.
//!
//! They are plain structs, encoded by postcard. Bodies have a [codec](crate::codec) of our own: that is on
//! the path of each call, and what it reads is of types that others wrote.
//!
//! What is read here is capped where it is received. Within that, postcard takes strings only as long as
//! there are bytes, and makes room for no more elements of a sequence than there are bytes left.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Appends `message` to `bytes`.
pub(crate) fn encode(message: &impl Serialize, bytes: &mut Vec<u8>) {
    postcard::to_io(message, bytes).expect("numbers, strings and sequences of known length encode");
}

/// The message that `bytes` are, to their end.
pub(crate) fn decode<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Result<T, Malformed> {
    match decode_front(bytes)? {
        (message, []) => Ok(message),
        (_, rest) => Err(Malformed(Cause::Trailing(rest.len()))),
    }
}

/// The message that `bytes` begin with, and what follows it.
pub(crate) fn decode_front<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Result<(T, &'b [u8]), Malformed> {
    postcard::take_from_bytes(bytes).map_err(|error| Malformed(Cause::Undecodable(error)))
}

/// Bytes that are no control message of the expected kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(Cause);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Cause {
    Undecodable(postcard::Error),
    Trailing(usize),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Cause::Undecodable(error) => error.fmt(f),
            Cause::Trailing(len) => write!(f, "{len} bytes follow the message"),
        }
    }
}

impl std::error::Error for Malformed {}
