//! Values to described bytes.

use std::fmt::{Display, Write as _};
use std::os::unix::ffi::OsStrExt as _;

use serde::ser::{self, Serialize, SerializeSeq as _};

use super::{
    BYTES, CHAR, END, F32, F64, FALSE, LOAN, MAP, NONE, OCTETS, OPEN_MAP, OPEN_SEQ, SEQ, SIGNED, SIGNED_128,
    SOME, STR, TRUE, UNIT, UNSIGNED, UNSIGNED_128,
};
use crate::codec::depth::Depth;
use crate::codec::ser::too_deep;
use crate::codec::sink::Sink;
use crate::codec::{EncodeError, bytes, compound, loan, varint};
use crate::compounds::{elements, fields};

/// Appends the described encoding of `value` to `sink`.
///
/// It is compiled once for each type, not for each type and sink: the packed coding is the one for speed.
#[inline(never)]
pub(in crate::codec) fn write<T: Serialize + ?Sized>(
    value: &T,
    sink: &mut dyn Sink,
) -> Result<(), EncodeError> {
    let depth = Depth::of(sink.max_depth());
    Writer { sink, depth }.emit(value)
}

/// Writes one item, within which others may nest `depth` levels deep.
struct Writer<'s> {
    sink: &'s mut dyn Sink,
    depth: Depth,
}

impl<'s> Writer<'s> {
    /// Writes `value`. All values whose types are known pass here, so that arrays of bytes are recognised.
    fn emit<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        if let Some(array) = bytes::as_array(value) {
            return self.deeper()?.counted(OCTETS, array);
        }
        // Of any bytes, though serde's own implementation wants them to be UTF-8.
        if let Some(path) = bytes::as_path(value)
            && path.to_str().is_none()
        {
            return self.counted(BYTES, path.as_os_str().as_bytes());
        }
        value.serialize(self)
    }

    /// The writer of the items within the one at hand.
    fn deeper(self) -> Result<Self, EncodeError> {
        match self.depth.within() {
            Some(depth) => Ok(Self { depth, ..self }),
            None => Err(too_deep(self.sink.max_depth())),
        }
    }

    /// The writer of what is within a newtype or a `Some`.
    fn within_thin(self) -> Result<Self, EncodeError> {
        match self.depth.within_thin() {
            Some(depth) => Ok(Self { depth, ..self }),
            None => Err(too_deep(self.sink.max_depth())),
        }
    }

    fn again(&mut self) -> Writer<'_> {
        Writer { sink: &mut *self.sink, depth: self.depth }
    }

    fn number(self, tag: u8, value: u64) -> Result<(), EncodeError> {
        self.sink.push(tag)?;
        varint::put(self.sink, value)
    }

    fn counted(self, tag: u8, bytes: &[u8]) -> Result<(), EncodeError> {
        self.sink.push(tag)?;
        varint::put(self.sink, bytes.len() as u64)?;
        self.sink.extend(bytes)
    }

    fn items(self, tag: u8, open: u8, count: Option<usize>) -> Result<Items<'s>, EncodeError> {
        let writer = self.deeper()?;
        match count {
            Some(count) => {
                writer.sink.push(tag)?;
                varint::put(writer.sink, count as u64)?;
            }
            None => writer.sink.push(open)?,
        }
        Ok(Items { writer, announced: count, given: 0 })
    }

    /// Begins a variant with content, which is to follow and counts as its level.
    fn variant(mut self, name: &str) -> Result<Self, EncodeError> {
        self.sink.push(MAP)?;
        self.sink.push(1)?;
        self.again().counted(STR, name.as_bytes())?;
        Ok(self)
    }

    /// Writes what is within a [`Lent`](loan::Lent).
    fn loan<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        // A serializer in between may hide the type. Then the bytes are written inline.
        let lent = match bytes::as_token(value) {
            Some(token) => self.sink.lend(token.0)?,
            None => None,
        };
        match lent {
            Some(index) => self.number(LOAN, index.into()),
            None => self.emit(value),
        }
    }
}

impl<'s> ser::Serializer for Writer<'s> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = Items<'s>;
    type SerializeTuple = Items<'s>;
    type SerializeTupleStruct = Items<'s>;
    type SerializeTupleVariant = Items<'s>;
    type SerializeMap = Items<'s>;
    type SerializeStruct = Fields<'s>;
    type SerializeStructVariant = Fields<'s>;

    fn is_human_readable(&self) -> bool {
        true
    }

    fn serialize_bool(self, value: bool) -> Result<(), EncodeError> {
        self.sink.push(if value { TRUE } else { FALSE })
    }

    fn serialize_i8(self, value: i8) -> Result<(), EncodeError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), EncodeError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), EncodeError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<(), EncodeError> {
        self.number(SIGNED, varint::zigzag(value))
    }

    fn serialize_i128(self, value: i128) -> Result<(), EncodeError> {
        if let Ok(value) = i64::try_from(value) {
            return self.serialize_i64(value);
        }
        self.sink.push(SIGNED_128)?;
        varint::put_u128(self.sink, varint::zigzag_i128(value))
    }

    fn serialize_u8(self, value: u8) -> Result<(), EncodeError> {
        self.serialize_u64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), EncodeError> {
        self.serialize_u64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), EncodeError> {
        self.serialize_u64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<(), EncodeError> {
        self.number(UNSIGNED, value)
    }

    fn serialize_u128(self, value: u128) -> Result<(), EncodeError> {
        if let Ok(value) = u64::try_from(value) {
            return self.serialize_u64(value);
        }
        self.sink.push(UNSIGNED_128)?;
        varint::put_u128(self.sink, value)
    }

    fn serialize_f32(self, value: f32) -> Result<(), EncodeError> {
        self.sink.push(F32)?;
        self.sink.extend(&value.to_le_bytes())
    }

    fn serialize_f64(self, value: f64) -> Result<(), EncodeError> {
        self.sink.push(F64)?;
        self.sink.extend(&value.to_le_bytes())
    }

    fn serialize_char(self, value: char) -> Result<(), EncodeError> {
        self.number(CHAR, value.into())
    }

    fn serialize_str(self, value: &str) -> Result<(), EncodeError> {
        self.counted(STR, value.as_bytes())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), EncodeError> {
        self.counted(BYTES, value)
    }

    fn serialize_none(self) -> Result<(), EncodeError> {
        self.sink.push(NONE)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        let within = self.within_thin()?;
        within.sink.push(SOME)?;
        within.emit(value)
    }

    fn serialize_unit(self) -> Result<(), EncodeError> {
        self.sink.push(UNIT)
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), EncodeError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), EncodeError> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        let within = self.within_thin()?;
        if name == loan::NAME { within.loan(value) } else { within.emit(value) }
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        self.variant(variant)?.deeper()?.emit(value)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Items<'s>, EncodeError> {
        self.items(SEQ, OPEN_SEQ, len)
    }

    fn serialize_tuple(self, len: usize) -> Result<Items<'s>, EncodeError> {
        self.items(SEQ, OPEN_SEQ, Some(len))
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Items<'s>, EncodeError> {
        self.serialize_tuple(len)
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Items<'s>, EncodeError> {
        self.variant(variant)?.serialize_tuple(len)
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Items<'s>, EncodeError> {
        self.items(MAP, OPEN_MAP, len)
    }

    /// Fields may be skipped, whatever was announced: so the end is marked.
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Fields<'s>, EncodeError> {
        self.items(MAP, OPEN_MAP, None).map(Fields)
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Fields<'s>, EncodeError> {
        self.variant(variant)?.serialize_struct(name, len)
    }

    /// Writes bytes in one piece.
    fn collect_seq<I>(self, iter: I) -> Result<(), EncodeError>
    where
        I: IntoIterator,
        I::Item: Serialize,
    {
        let mut iter = iter.into_iter();
        if let Some(octets) = bytes::as_octets(&iter) {
            return self.deeper()?.counted(OCTETS, octets);
        }
        let (least, most) = iter.size_hint();
        let mut items = self.serialize_seq((Some(least) == most).then_some(least))?;
        iter.try_for_each(|item| items.serialize_element(&item))?;
        items.finish()
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        let mut text = String::new();
        write!(text, "{value}").map_err(|_| EncodeError::new("Display of a value failed"))?;
        self.serialize_str(&text)
    }
}

/// The elements of a sequence or tuple, or the entries of a map.
struct Items<'s> {
    writer: Writer<'s>,
    /// `None`: up to the end.
    announced: Option<usize>,
    given: usize,
}

impl Items<'_> {
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.given += 1;
        match self.announced {
            Some(announced) if self.given > announced => Err(compound::too_many(announced)),
            _ => self.writer.again().emit(value),
        }
    }

    fn finish(self) -> Result<(), EncodeError> {
        match self.announced {
            None => self.writer.sink.push(END),
            Some(announced) if self.given == announced => Ok(()),
            Some(announced) => Err(compound::too_few(announced, announced - self.given)),
        }
    }
}

elements!(
    Items<'_>, EncodeError, element, finish:
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
);

impl ser::SerializeMap for Items<'_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        self.element(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.writer.again().emit(value)
    }

    fn end(self) -> Result<(), EncodeError> {
        self.finish()
    }
}

/// The fields of a struct, or of a variant with names.
struct Fields<'s>(Items<'s>);

impl Fields<'_> {
    fn field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), EncodeError> {
        self.0.writer.again().counted(STR, key.as_bytes())?;
        self.0.writer.again().emit(value)
    }

    /// Its name is not there, which its reader sees.
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "as with what says that it is missing")]
    fn skipped(&mut self, _key: &'static str) -> Result<(), EncodeError> {
        Ok(())
    }

    fn finish(self) -> Result<(), EncodeError> {
        self.0.finish()
    }
}

fields!(Fields<'_>, EncodeError, field, skipped, finish: SerializeStruct, SerializeStructVariant);
