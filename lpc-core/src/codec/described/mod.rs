//! The described coding: each item of serde's data model says what it is.
//!
//! One byte, the tag, says what follows. Integers are varints, as in the packed coding; a string, a byte
//! string, a sequence or a map with a known length begins with it; otherwise it ends with [`END`]. As in JSON
//! a struct is a map of its fields' names, a variant without content is its name, and any other variant a map
//! of its name to its content; a newtype is its content. Unlike in JSON `Some(x)` is not `x` and a `char` is
//! no string; numbers of 128 bits, byte strings and loans are kept.
//!
//! | tag | then |
//! |---|---|
//! | [`UNIT`], [`FALSE`], [`TRUE`], [`NONE`] | |
//! | [`UNSIGNED`], [`SIGNED`] | a varint, zigzag for the second: integers of up to 64 bits |
//! | [`UNSIGNED_128`], [`SIGNED_128`] | the same for those that need more |
//! | [`F32`], [`F64`] | 4 or 8 bytes |
//! | [`CHAR`] | a varint |
//! | [`STR`], [`BYTES`], [`OCTETS`] | a length, and as many bytes; the last are a sequence of `u8` |
//! | [`SOME`] | an item |
//! | [`SEQ`] | a count, and as many items |
//! | [`MAP`] | a count, and twice as many items |
//! | [`OPEN_SEQ`], [`OPEN_MAP`] | items up to [`END`] |
//! | [`LOAN`] | the index of a loan |
//!
//! Both halves say that the format is human-readable, which it is not: where serde buffers a value (in
//! untagged and internally tagged enums and for `flatten`) its own deserializers say so, whatever the format
//! says, and a type that asks has to be told the same by the side that wrote it.

mod de;
mod ser;

pub(super) use self::de::read;
pub(super) use self::ser::write;

pub(super) const UNIT: u8 = 0;
pub(super) const FALSE: u8 = 1;
pub(super) const TRUE: u8 = 2;
pub(super) const UNSIGNED: u8 = 3;
pub(super) const SIGNED: u8 = 4;
pub(super) const UNSIGNED_128: u8 = 5;
pub(super) const SIGNED_128: u8 = 6;
pub(super) const F32: u8 = 7;
pub(super) const F64: u8 = 8;
pub(super) const CHAR: u8 = 9;
pub(super) const STR: u8 = 10;
pub(super) const BYTES: u8 = 11;
/// A sequence of `u8`, in one block.
pub(super) const OCTETS: u8 = 12;
pub(super) const NONE: u8 = 13;
pub(super) const SOME: u8 = 14;
pub(super) const SEQ: u8 = 15;
pub(super) const OPEN_SEQ: u8 = 16;
pub(super) const MAP: u8 = 17;
pub(super) const OPEN_MAP: u8 = 18;
/// The end of an open sequence or map.
pub(super) const END: u8 = 19;
pub(super) const LOAN: u8 = 20;
