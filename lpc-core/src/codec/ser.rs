//! Values to bytes.

use std::fmt::{Display, Write as _};
use std::os::unix::ffi::OsStrExt as _;

use serde::ser::{self, Serialize, SerializeMap as _, SerializeSeq as _};

use super::compound::{Elements, Fields, Tuple};
use super::depth::Depth;
use super::loan;
use super::sink::Sink;
use super::{Coding, DEEPEST, EncodeError, bytes, described, varint};

/// Appends the encoding of `value` to `sink`.
///
/// ```
/// let mut bytes = Vec::new();
/// lpc_core::codec::encode(&("ab", 300_u32, Some(true)), &mut bytes)?;
/// assert_eq!(bytes, [2, b'a', b'b', 0xac, 0x02, 1, 1]);
/// # Ok::<(), lpc_core::codec::EncodeError>(())
/// ```
///
/// # Errors
///
/// If the sink or a `Serialize` implementation refuses, the value nests too deep, or the format has no
/// encoding for it (see the [module](super)). The sink then holds a part of the encoding, which is of no use.
#[inline]
pub fn encode<T, S>(value: &T, sink: &mut S) -> Result<(), EncodeError>
where
    T: Serialize + ?Sized,
    S: Sink + ?Sized,
{
    let depth = Depth::of(sink.max_depth());
    Encoder { sink, depth }.emit(value)
}

/// Appends the encoding of `value` in this coding.
///
/// # Errors
///
/// As [`encode`].
#[inline]
pub fn encode_as<T, S>(coding: Coding, value: &T, sink: &mut S) -> Result<(), EncodeError>
where
    T: Serialize + ?Sized,
    S: Sink,
{
    match coding {
        Coding::Packed => encode(value, sink),
        Coding::Described => described::write(value, sink),
    }
}

/// Encodes one value, within which others may nest `depth` levels deep.
pub(super) struct Encoder<'s, S: ?Sized> {
    pub(super) sink: &'s mut S,
    depth: Depth,
}

impl<'s, S: Sink + ?Sized> Encoder<'s, S> {
    /// Encodes `value`. All values whose types are known pass here, so that arrays of bytes are recognised.
    #[inline]
    pub(super) fn emit<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        if let Some(array) = bytes::as_array(value) {
            return self.deeper()?.sink.extend(array);
        }
        // Of any bytes, though serde's own implementation wants them to be UTF-8.
        if let Some(path) = bytes::as_path(value) {
            return ser::Serializer::serialize_bytes(self, path.as_os_str().as_bytes());
        }
        value.serialize(self)
    }

    /// The encoder of the values within the one at hand.
    #[inline]
    fn deeper(self) -> Result<Self, EncodeError> {
        match self.depth.within() {
            Some(depth) => Ok(Self { depth, ..self }),
            None => Err(too_deep(self.sink.max_depth())),
        }
    }

    /// The encoder of what is within a newtype or a `Some`.
    #[inline]
    fn within_thin(self) -> Result<Self, EncodeError> {
        match self.depth.within_thin() {
            Some(depth) => Ok(Self { depth, ..self }),
            None => Err(too_deep(self.sink.max_depth())),
        }
    }

    /// An encoder for one of several values on this level.
    #[inline]
    pub(super) fn again(&mut self) -> Encoder<'_, S> {
        Encoder { sink: &mut *self.sink, depth: self.depth }
    }

    /// Encodes what is within a [`Lent`](loan::Lent).
    #[inline(never)]
    fn loan<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        // A serializer in between may hide the type. Then the bytes are written inline.
        let lent = match bytes::as_token(value) {
            Some(token) => self.sink.lend(token.0)?,
            None => None,
        };
        if let Some(index) = lent {
            self.sink.push(loan::LENT)?;
            return varint::put(self.sink, index.into());
        }
        self.sink.push(loan::IN_LINE)?;
        self.emit(value)
    }

    #[inline(always)]
    fn variant(self, index: u32) -> Result<Self, EncodeError> {
        let within = self.deeper()?;
        varint::put(within.sink, index.into())?;
        Ok(within)
    }

    #[inline]
    fn elements(self, count: usize) -> Result<Elements<'s, S>, EncodeError> {
        let encoder = self.deeper()?;
        varint::put(encoder.sink, count as u64)?;
        let start = encoder.sink.written();
        Ok(Elements { encoder, announced: count, missing: count, start })
    }
}

impl<'s, S: Sink + ?Sized> ser::Serializer for Encoder<'s, S> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = Elements<'s, S>;
    type SerializeTuple = Tuple<'s, S>;
    type SerializeTupleStruct = Fields<'s, S>;
    type SerializeTupleVariant = Fields<'s, S>;
    type SerializeMap = Elements<'s, S>;
    type SerializeStruct = Fields<'s, S>;
    type SerializeStructVariant = Fields<'s, S>;

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }

    #[inline]
    fn serialize_bool(self, value: bool) -> Result<(), EncodeError> {
        self.sink.push(value.into())
    }

    #[inline]
    fn serialize_i8(self, value: i8) -> Result<(), EncodeError> {
        self.sink.push(value as u8)
    }

    #[inline]
    fn serialize_i16(self, value: i16) -> Result<(), EncodeError> {
        self.serialize_i64(value.into())
    }

    #[inline]
    fn serialize_i32(self, value: i32) -> Result<(), EncodeError> {
        self.serialize_i64(value.into())
    }

    #[inline]
    fn serialize_i64(self, value: i64) -> Result<(), EncodeError> {
        varint::put(self.sink, varint::zigzag(value))
    }

    #[inline]
    fn serialize_i128(self, value: i128) -> Result<(), EncodeError> {
        varint::put_u128(self.sink, varint::zigzag_i128(value))
    }

    #[inline]
    fn serialize_u8(self, value: u8) -> Result<(), EncodeError> {
        self.sink.push(value)
    }

    #[inline]
    fn serialize_u16(self, value: u16) -> Result<(), EncodeError> {
        varint::put(self.sink, value.into())
    }

    #[inline]
    fn serialize_u32(self, value: u32) -> Result<(), EncodeError> {
        varint::put(self.sink, value.into())
    }

    #[inline]
    fn serialize_u64(self, value: u64) -> Result<(), EncodeError> {
        varint::put(self.sink, value)
    }

    #[inline]
    fn serialize_u128(self, value: u128) -> Result<(), EncodeError> {
        varint::put_u128(self.sink, value)
    }

    #[inline]
    fn serialize_f32(self, value: f32) -> Result<(), EncodeError> {
        self.sink.extend(&value.to_le_bytes())
    }

    #[inline]
    fn serialize_f64(self, value: f64) -> Result<(), EncodeError> {
        self.sink.extend(&value.to_le_bytes())
    }

    #[inline]
    fn serialize_char(self, value: char) -> Result<(), EncodeError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), EncodeError> {
        self.serialize_bytes(value.as_bytes())
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result<(), EncodeError> {
        varint::put(self.sink, value.len() as u64)?;
        self.sink.extend(value)
    }

    #[inline]
    fn serialize_none(self) -> Result<(), EncodeError> {
        self.sink.push(0)
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        let within = self.within_thin()?;
        within.sink.push(1)?;
        within.emit(value)
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), EncodeError> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), EncodeError> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Result<(), EncodeError> {
        self.variant(index).map(drop)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        let within = self.within_thin()?;
        if name == loan::NAME { within.loan(value) } else { within.emit(value) }
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        self.variant(index)?.emit(value)
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Elements<'s, S>, EncodeError> {
        self.elements(len.ok_or_else(unknown_seq)?)
    }

    #[inline]
    fn serialize_tuple(self, _len: usize) -> Result<Tuple<'s, S>, EncodeError> {
        Ok(Tuple { encoder: self.deeper()?, pending: [0; 32], filled: 0 })
    }

    #[inline]
    fn serialize_tuple_struct(self, name: &'static str, _: usize) -> Result<Fields<'s, S>, EncodeError> {
        Ok(Fields { encoder: self.deeper()?, of: (name, "") })
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Fields<'s, S>, EncodeError> {
        Ok(Fields { encoder: self.variant(index)?, of: (name, variant) })
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Elements<'s, S>, EncodeError> {
        self.elements(len.ok_or_else(unknown_map)?)
    }

    #[inline]
    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Fields<'s, S>, EncodeError> {
        Ok(Fields { encoder: self.deeper()?, of: (name, "") })
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Fields<'s, S>, EncodeError> {
        Ok(Fields { encoder: self.variant(index)?, of: (name, variant) })
    }

    /// Writes bytes in one piece, and accepts iterators that do not know their length.
    #[inline]
    fn collect_seq<I>(self, iter: I) -> Result<(), EncodeError>
    where
        I: IntoIterator,
        I::Item: Serialize,
    {
        let mut iter = iter.into_iter();
        if let Some(run) = bytes::as_run(&iter) {
            return self.elements(run.count)?.encoder.sink.extend(run.bytes);
        }
        let Some(count) = exact_len(&iter) else {
            return self.collect_seq(iter.collect::<Vec<_>>());
        };
        let mut elements = self.elements(count)?;
        iter.try_for_each(|item| elements.serialize_element(&item))?;
        elements.finish()
    }

    /// Accepts iterators that do not know their length.
    #[inline]
    fn collect_map<K, V, I>(self, iter: I) -> Result<(), EncodeError>
    where
        K: Serialize,
        V: Serialize,
        I: IntoIterator<Item = (K, V)>,
    {
        let mut iter = iter.into_iter();
        let Some(count) = exact_len(&iter) else {
            return self.collect_map(iter.collect::<Vec<_>>());
        };
        let mut elements = self.elements(count)?;
        iter.try_for_each(|(key, value)| elements.serialize_entry(&key, &value))?;
        elements.finish()
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        let mut text = String::new();
        write!(text, "{value}").map_err(|_| EncodeError::new("Display of a value failed"))?;
        self.serialize_str(&text)
    }
}

fn exact_len<I: Iterator>(iter: &I) -> Option<usize> {
    let (least, most) = iter.size_hint();
    (Some(least) == most).then_some(least)
}

#[cold]
fn unknown_seq() -> EncodeError {
    EncodeError::new(
        "sequence of unknown length: give `serialize_seq` its length, or use `collect_seq`, which finds it",
    )
}

#[cold]
pub(super) fn too_deep(limit: u32) -> EncodeError {
    EncodeError::TooDeep { limit: limit.min(DEEPEST) }
}

#[cold]
fn unknown_map() -> EncodeError {
    EncodeError::new(
        "map of unknown length: give `serialize_map` its length, or use `collect_map`, which finds it",
    )
}
