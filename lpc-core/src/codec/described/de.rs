//! Described bytes to values.

use std::borrow::Cow;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{self, Deserialize, DeserializeSeed, Visitor};
use serde::forward_to_deserialize_any;

use super::{
    BYTES, CHAR, END, F32, F64, FALSE, LOAN, MAP, NONE, OCTETS, OPEN_MAP, OPEN_SEQ, SEQ, SIGNED, SIGNED_128,
    SOME, STR, TRUE, UNIT, UNSIGNED, UNSIGNED_128,
};
use crate::codec::de::Around;
use crate::codec::input::Input;
use crate::codec::{DecodeError, DecodeErrorKind, bytes, loan, varint};

/// Reads one value.
#[inline(never)]
pub(in crate::codec) fn read<'de, T: Deserialize<'de>>(input: &mut Input<'de>) -> Result<T, DecodeError> {
    let around = Around::new(input.max_depth);
    let decoded = T::deserialize(Reader { input: &mut *input, around });
    decoded.map_err(|error| error.or_at(input.offset()))
}

/// Reads one item.
struct Reader<'a, 'de> {
    input: &'a mut Input<'de>,
    around: Around,
}

impl<'a, 'de> Reader<'a, 'de> {
    /// The reader of the items within the one at hand.
    fn deeper(self) -> Result<Self, DecodeError> {
        match self.around.deeper() {
            Some(around) => Ok(Self { around, ..self }),
            None => Err(self.input.too_deep()),
        }
    }

    /// The reader of what is within a newtype or a `Some`.
    fn within_thin(self) -> Result<Self, DecodeError> {
        match self.around.within_thin() {
            Some(around) => Ok(Self { around, ..self }),
            None => Err(self.input.too_deep()),
        }
    }

    fn tag(&mut self) -> Result<u8, DecodeError> {
        self.input.peek_byte()
    }

    /// Reads the tag, if it is this one.
    fn take_tag(&mut self, tag: u8) -> Result<bool, DecodeError> {
        let is_this = self.tag()? == tag;
        if is_this {
            self.input.skip(1);
        }
        Ok(is_this)
    }

    /// The same item without the `Some`s around it. For types that are no `Option` they mean nothing, as in
    /// JSON: a field may be written by `serialize_with` as an `Option`, and read as what is in it.
    fn within_some(mut self) -> Result<Self, DecodeError> {
        while self.take_tag(SOME)? {
            self = self.within_thin()?;
        }
        Ok(self)
    }

    fn malformed(&self, at: usize, message: impl Into<Cow<'static, str>>) -> DecodeError {
        DecodeError::new(DecodeErrorKind::Malformed, at, message)
    }

    /// Reads a count of items, each of which takes `least` bytes or more.
    fn count(&mut self, least: usize) -> Result<usize, DecodeError> {
        let count = varint::take(self.input)?;
        let left = self.input.left();
        match usize::try_from(count) {
            Ok(len) if len <= left / least => Ok(len),
            _ => {
                let message =
                    format!("count of {count} items is more than the rest can hold (bytes left: {left})");
                Err(DecodeError::new(DecodeErrorKind::Truncated, self.input.before_integer(count), message))
            }
        }
    }

    fn seq<V: Visitor<'de>>(self, visitor: V, count: Option<usize>) -> Result<V::Value, DecodeError> {
        let mut items = Items { within: self.deeper()?, awaited: count, is_over: false };
        let value = visitor.visit_seq(&mut items)?;
        items.finish()?;
        Ok(value)
    }

    fn map<V: Visitor<'de>>(self, visitor: V, count: Option<usize>) -> Result<V::Value, DecodeError> {
        let mut items = Items { within: self.deeper()?, awaited: count, is_over: false };
        let value = visitor.visit_map(&mut items)?;
        items.finish()?;
        Ok(value)
    }

    fn loan<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.input.peek_byte()? != LOAN {
            return visitor.visit_newtype_struct(self);
        }
        self.input.skip(1);
        let loan = self.input.take_loan()?;
        // A deserializer in between may hide the type. Then the bytes are copied.
        bytes::from_loan(loan).or_else(|loan| visitor.visit_bytes(loan.bytes()))
    }

    /// The bytes of a byte string or of a sequence of `u8`, if that is what comes next.
    fn octets(&mut self) -> Result<Option<Cow<'de, [u8]>>, DecodeError> {
        match self.tag()? {
            BYTES | OCTETS => {
                self.input.skip(1);
                self.input.take_counted_to_own().map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// For types that need no more than to be told what comes next.
macro_rules! as_it_comes {
    ($($method:ident($($argument:ty),*))*) => {$(
        fn $method<V: Visitor<'de>>(self, $(_: $argument,)* visitor: V) -> Result<V::Value, DecodeError> {
            self.within_some()?.deserialize_any(visitor)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Reader<'_, 'de> {
    type Error = DecodeError;

    fn is_human_readable(&self) -> bool {
        true
    }

    fn deserialize_any<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, DecodeError> {
        let start = self.input.offset();
        match self.input.byte()? {
            UNIT => visitor.visit_unit(),
            FALSE => visitor.visit_bool(false),
            TRUE => visitor.visit_bool(true),
            UNSIGNED => visitor.visit_u64(varint::take(self.input)?),
            SIGNED => visitor.visit_i64(varint::unzigzag(varint::take(self.input)?)),
            UNSIGNED_128 => visitor.visit_u128(varint::take_u128(self.input)?),
            SIGNED_128 => visitor.visit_i128(varint::unzigzag_i128(varint::take_u128(self.input)?)),
            F32 => visitor.visit_f32(f32::from_le_bytes(self.input.take_array()?)),
            F64 => visitor.visit_f64(f64::from_le_bytes(self.input.take_array()?)),
            CHAR => {
                let code = varint::take_up_to(self.input, u32::MAX.into())? as u32;
                let char = char::from_u32(code);
                visitor.visit_char(char.ok_or_else(|| self.malformed(start, "char is none"))?)
            }
            STR => match self.input.take_str_to_own()? {
                Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
                Cow::Owned(text) => visitor.visit_string(text),
            },
            BYTES => match self.input.take_counted_to_own()? {
                Cow::Borrowed(bytes) => visitor.visit_borrowed_bytes(bytes),
                Cow::Owned(bytes) => visitor.visit_byte_buf(bytes),
            },
            OCTETS => {
                let bytes = self.deeper()?.input.take_counted()?;
                let mut octets = Octets(bytes.iter());
                let value = visitor.visit_seq(&mut octets)?;
                if octets.0.len() > 0 { Err(too_many(octets.0.len())) } else { Ok(value) }
            }
            NONE => visitor.visit_none(),
            SOME => visitor.visit_some(self.within_thin()?),
            SEQ => {
                let count = self.count(1)?;
                self.seq(visitor, Some(count))
            }
            OPEN_SEQ => self.seq(visitor, None),
            MAP => {
                let count = self.count(2)?;
                self.map(visitor, Some(count))
            }
            OPEN_MAP => self.map(visitor, None),
            LOAN => visitor.visit_bytes(self.input.take_loan()?.bytes()),
            tag => Err(self.malformed(start, format!("tag of {tag} is none that begins an item"))),
        }
    }

    as_it_comes! {
        deserialize_bool() deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64()
        deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64()
        deserialize_f32() deserialize_f64() deserialize_char()
        deserialize_unit() deserialize_unit_struct(&'static str) deserialize_map() deserialize_identifier()
        deserialize_struct(&'static str, &'static [&'static str])
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let mut this = self.within_some()?;
        if this.take_tag(STR)? {
            return visitor.visit_borrowed_str(this.input.take_str()?);
        }
        this.deserialize_any(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let mut this = self.within_some()?;
        if bytes::is_path_visitor::<V>() && matches!(this.tag()?, STR | BYTES) {
            this.input.skip(1);
            return this.input.take_path();
        }
        this.deserialize_any(visitor)
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let mut this = self.within_some()?;
        match this.tag()? {
            SIGNED => {
                this.input.skip(1);
                visitor.visit_i128(varint::unzigzag(varint::take(this.input)?).into())
            }
            _ => this.deserialize_any(visitor),
        }
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let mut this = self.within_some()?;
        match this.tag()? {
            UNSIGNED => {
                this.input.skip(1);
                visitor.visit_u128(varint::take(this.input)?.into())
            }
            _ => this.deserialize_any(visitor),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let mut this = self.within_some()?;
        match this.tag()? {
            BYTES | OCTETS => {
                this.input.skip(1);
                visitor.visit_borrowed_bytes(this.input.take_counted()?)
            }
            _ => this.deserialize_any(visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let mut this = self.within_some()?;
        match this.octets()? {
            Some(Cow::Borrowed(bytes)) => visitor.visit_borrowed_bytes(bytes),
            Some(Cow::Owned(bytes)) => visitor.visit_byte_buf(bytes),
            None => this.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.tag()? {
            NONE | SOME | UNIT => self.deserialize_any(visitor),
            // As in JSON: what is there is there.
            _ => visitor.visit_some(self.within_thin()?),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let within = self.within_thin()?;
        if name == loan::NAME { within.loan(visitor) } else { visitor.visit_newtype_struct(within) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let mut this = self.within_some()?;
        if bytes::is_vec_visitor::<V>()
            && let Some(found) = this.octets()?
        {
            let found = found.into_owned();
            return bytes::from_vec(found).map_err(|_| de::Error::custom("visitor is not of Vec<u8>"));
        }
        this.sequence(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, DecodeError> {
        let mut this = self.within_some()?;
        if bytes::array_of_visitor::<V>() == Some(len) && this.take_tag(OCTETS)? {
            let start = this.input.offset();
            let found = this.input.take_counted()?;
            return bytes::to_array(found).ok_or_else(|| {
                let message = format!("array of {len} bytes has {}", found.len());
                this.malformed(start, message)
            });
        }
        this.sequence(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let mut this = self.within_some()?;
        let start = this.input.offset();
        match this.tag()? {
            STR => {
                this.input.skip(1);
                let name = this.input.take_str()?;
                visitor.visit_enum(BorrowedStrDeserializer::new(name))
            }
            MAP => {
                this.input.skip(1);
                if this.count(2)? != 1 {
                    return Err(this.malformed(start, "enum is a map of more or less than its variant"));
                }
                if !this.take_tag(STR)? {
                    return Err(this.malformed(start, "enum is a map of something else than its variant"));
                }
                let name = this.input.take_str()?;
                visitor.visit_enum(Variant { content: this, name, start })
            }
            _ => Err(this.malformed(start, "enum is neither the name of a variant nor a map of it")),
        }
    }
}

impl<'de> Reader<'_, 'de> {
    /// Reads what was asked for as a sequence or tuple. A byte string will do.
    fn sequence<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.take_tag(BYTES)? {
            let bytes = self.input.take_counted()?;
            let mut octets = Octets(bytes.iter());
            let value = visitor.visit_seq(&mut octets)?;
            return if octets.0.len() > 0 { Err(too_many(octets.0.len())) } else { Ok(value) };
        }
        de::Deserializer::deserialize_any(self, visitor)
    }
}

#[cold]
fn too_many(left: usize) -> DecodeError {
    de::Error::custom(format_args!("{left} more elements than the type has"))
}

/// The elements of a sequence or the entries of a map.
struct Items<'a, 'de> {
    within: Reader<'a, 'de>,
    /// How many are outstanding. `None`: all up to the end.
    awaited: Option<usize>,
    /// Whether the end was read.
    is_over: bool,
}

impl<'de> Items<'_, 'de> {
    /// Begins an element or entry, if there is another.
    fn begin_one(&mut self) -> Result<bool, DecodeError> {
        match &mut self.awaited {
            Some(0) => Ok(false),
            Some(awaited) => {
                *awaited -= 1;
                Ok(true)
            }
            None => {
                self.is_over = self.is_over || self.within.take_tag(END)?;
                Ok(!self.is_over)
            }
        }
    }

    fn item(&mut self) -> Reader<'_, 'de> {
        let around = self.within.around.awaiting(self.awaited.unwrap_or(0));
        Reader { input: &mut *self.within.input, around }
    }

    /// Checks that the visitor has taken all: what follows would be misread.
    fn finish(mut self) -> Result<(), DecodeError> {
        let awaited = self.awaited;
        match (self.begin_one()?, awaited) {
            (false, _) => Ok(()),
            (true, Some(left)) => Err(too_many(left)),
            (true, None) => Err(de::Error::custom("there are more elements than the type has")),
        }
    }

    fn hint(&self) -> Option<usize> {
        let owed = self.within.around.owed();
        self.awaited.map(|awaited| awaited.min(self.within.input.left().saturating_sub(owed)))
    }
}

impl<'de> de::SeqAccess<'de> for &mut Items<'_, 'de> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        if self.begin_one()? { seed.deserialize(self.item()).map(Some) } else { Ok(None) }
    }

    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

impl<'de> de::MapAccess<'de> for &mut Items<'_, 'de> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        if self.begin_one()? { seed.deserialize(self.item()).map(Some) } else { Ok(None) }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        seed.deserialize(self.item())
    }

    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

/// Bytes as a sequence of them.
struct Octets<'de>(std::slice::Iter<'de, u8>);

impl<'de> de::SeqAccess<'de> for &mut Octets<'de> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        let Some(octet) = self.0.next() else { return Ok(None) };
        seed.deserialize(Octet(*octet)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

/// One of them, in whatever thin wrapping its type has.
struct Octet(u8);

impl<'de> de::Deserializer<'de> for Octet {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_u8(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// A variant with content.
struct Variant<'a, 'de> {
    content: Reader<'a, 'de>,
    name: &'de str,
    start: usize,
}

impl<'de> de::EnumAccess<'de> for Variant<'_, 'de> {
    type Error = DecodeError;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), DecodeError> {
        let name: BorrowedStrDeserializer<'de, DecodeError> = BorrowedStrDeserializer::new(self.name);
        let variant = seed.deserialize(name).map_err(|error| error.or_at(self.start))?;
        Ok((variant, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, 'de> {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<(), DecodeError> {
        <()>::deserialize(self.content)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, DecodeError> {
        seed.deserialize(self.content.deeper()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, DecodeError> {
        de::Deserializer::deserialize_tuple(self.content, len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        de::Deserializer::deserialize_struct(self.content, "", fields, visitor)
    }
}
