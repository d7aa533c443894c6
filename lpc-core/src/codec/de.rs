//! Bytes to values.

use std::borrow::Cow;

use serde::de::{self, Deserialize, DeserializeSeed, IntoDeserializer, Visitor};

use super::{DecodeError, DecodeErrorKind, MAX_DEPTH, MAX_EMPTY_ELEMENTS, bytes, varint};

/// Decodes values from bytes, one after another.
///
/// ```
/// use lpc_core::codec::Decoder;
///
/// let mut decoder = Decoder::new(&[0xac, 0x02, 2, b'a', b'b']);
/// assert_eq!(decoder.next::<u32>()?, 300);
/// assert_eq!(decoder.next::<&str>()?, "ab");
/// decoder.end()?;
/// # Ok::<(), lpc_core::codec::DecodeError>(())
/// ```
#[derive(Debug)]
pub struct Decoder<'de> {
    input: Input<'de>,
}

impl<'de> Decoder<'de> {
    /// A decoder of the values in `bytes`.
    pub fn new(bytes: &'de [u8]) -> Self {
        Self { input: Input::new(bytes) }
    }

    /// Decodes the next value.
    ///
    /// # Errors
    ///
    /// When the bytes are not such a value, or ask for too much (see the [module](super)). Nothing that is decoded
    /// after an error means anything.
    #[inline]
    #[allow(clippy::should_implement_trait)] // each value may have another type
    pub fn next<T: Deserialize<'de>>(&mut self) -> Result<T, DecodeError> {
        let decoded = T::deserialize(Value { input: &mut self.input, depth: 0, owed: 0 });
        decoded.map_err(|error| error.or_at(self.input.offset()))
    }

    /// Says that no value should follow.
    ///
    /// # Errors
    ///
    /// When bytes are left.
    pub fn end(self) -> Result<(), DecodeError> {
        match self.input.left() {
            0 => Ok(()),
            1 => Err(self.input.error(DecodeErrorKind::Trailing, "1 byte is left after the last value")),
            left => {
                let message = format!("{left} bytes are left after the last value");
                Err(self.input.error(DecodeErrorKind::Trailing, message))
            }
        }
    }
}

/// The bytes, and how far they are read.
#[derive(Debug)]
pub(super) struct Input<'de> {
    bytes: &'de [u8],
    at: usize,
    /// How many more elements may take no bytes.
    empty_left: u32,
}

impl<'de> Input<'de> {
    pub(super) fn new(bytes: &'de [u8]) -> Self {
        Self { bytes, at: 0, empty_left: MAX_EMPTY_ELEMENTS }
    }

    #[inline]
    pub(super) fn offset(&self) -> usize {
        self.at
    }

    #[inline]
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        let byte = self.peek().ok_or_else(|| self.too_short(1))?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Goes past the byte that [`peek`](Self::peek) saw.
    #[inline]
    pub(super) fn skip_peeked(&mut self) {
        debug_assert!(self.at < self.bytes.len());
        self.at += 1;
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'de [u8], DecodeError> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..len).ok_or_else(|| self.too_short(len as u64))?;
        self.at += len;
        Ok(taken)
    }

    #[inline]
    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let rest = &self.bytes[self.at..];
        let taken = rest.first_chunk().ok_or_else(|| self.too_short(N as u64))?;
        self.at += N;
        Ok(*taken)
    }

    /// Reads a length, and as many bytes.
    #[inline]
    fn take_counted(&mut self) -> Result<&'de [u8], DecodeError> {
        let start = self.at;
        let len = varint::take(self)?;
        match usize::try_from(len) {
            Ok(len) if len <= self.left() => self.take(len),
            _ => Err(self.too_short(len).moved_to(start)),
        }
    }

    #[inline]
    fn take_str(&mut self) -> Result<&'de str, DecodeError> {
        let bytes = self.take_counted()?;
        std::str::from_utf8(bytes).map_err(|error| {
            let start = self.at - bytes.len();
            let wrong = start + error.valid_up_to();
            DecodeError::new(DecodeErrorKind::Malformed, wrong, "string is not UTF-8")
        })
    }

    /// Reads the count of a sequence or map. Each element takes a byte or counts as empty.
    #[inline]
    fn take_count(&mut self) -> Result<usize, DecodeError> {
        let start = self.at;
        let count = varint::take(self)?;
        let most = self.left() as u64 + u64::from(self.empty_left);
        match usize::try_from(count) {
            Ok(len) if count <= most => Ok(len),
            _ => {
                let left = self.left();
                let message = format!("count of {count} elements, but {left} bytes are left");
                Err(DecodeError::new(DecodeErrorKind::Truncated, start, message))
            }
        }
    }

    /// Counts an element that took no bytes.
    #[cold]
    fn count_empty(&mut self) -> Result<(), DecodeError> {
        let error = || {
            let message =
                format!("over {MAX_EMPTY_ELEMENTS} elements without bytes (codec::MAX_EMPTY_ELEMENTS)");
            self.error(DecodeErrorKind::TooManyEmpty, message)
        };
        self.empty_left = self.empty_left.checked_sub(1).ok_or_else(error)?;
        Ok(())
    }

    #[cold]
    fn too_short(&self, needed: u64) -> DecodeError {
        let left = self.left();
        self.error(DecodeErrorKind::Truncated, format!("{needed} bytes are needed, but {left} are left"))
    }

    #[cold]
    fn error(&self, kind: DecodeErrorKind, message: impl Into<Cow<'static, str>>) -> DecodeError {
        DecodeError::new(kind, self.at, message)
    }

    /// An error about the byte that was read last.
    #[cold]
    fn bad_tag(&self, what: &str, tag: u8) -> DecodeError {
        let message = format!("{what} of {tag} is neither 0 nor 1");
        DecodeError::new(DecodeErrorKind::Malformed, self.at - 1, message)
    }
}

/// Decodes one value.
struct Value<'a, 'de> {
    input: &'a mut Input<'de>,
    /// How many values are around this one.
    depth: u32,
    /// How many elements the sequences around this one still await: bytes that this one cannot have.
    owed: u32,
}

impl<'a, 'de> Value<'a, 'de> {
    /// The decoder of the values within the one at hand.
    #[inline]
    fn deeper(self) -> Result<Self, DecodeError> {
        if self.depth >= MAX_DEPTH {
            return Err(self.too_deep());
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }

    #[cold]
    fn too_deep(&self) -> DecodeError {
        let message = format!("value is nested deeper than {MAX_DEPTH} levels (codec::MAX_DEPTH)");
        self.input.error(DecodeErrorKind::TooDeep, message)
    }

    #[inline]
    fn elements(self) -> Result<Elements<'a, 'de>, DecodeError> {
        let within = self.deeper()?;
        let awaited = within.input.take_count()?;
        Ok(Elements { within, awaited })
    }

    #[inline]
    fn fields(self, awaited: usize) -> Result<Fields<'a, 'de>, DecodeError> {
        Ok(Fields { within: self.deeper()?, awaited })
    }

    #[inline]
    fn signed(self, max: u64) -> Result<i64, DecodeError> {
        varint::take_up_to(self.input, max).map(varint::unzigzag)
    }

    #[cold]
    fn unsupported<T>(&self, what: &str) -> Result<T, DecodeError> {
        let message = format!(
            "type wants {what}, but the format does not describe itself; `#[serde(untagged)]`, \
             `#[serde(tag)]`, `#[serde(flatten)]` and types such as `serde_json::Value` need that"
        );
        Err(self.input.error(DecodeErrorKind::Unsupported, message))
    }
}

impl<'de> de::Deserializer<'de> for Value<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, DecodeError> {
        self.unsupported("to be told what comes next")
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, DecodeError> {
        self.unsupported("to skip a value of unknown type")
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, DecodeError> {
        self.unsupported("the name of a field")
    }

    #[inline]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.input.byte()? {
            0 => visitor.visit_bool(false),
            1 => visitor.visit_bool(true),
            tag => Err(self.input.bad_tag("bool", tag)),
        }
    }

    #[inline]
    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_i8(self.input.byte()? as i8)
    }

    #[inline]
    fn deserialize_i16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_i16(self.signed(u16::MAX.into())? as i16)
    }

    #[inline]
    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_i32(self.signed(u32::MAX.into())? as i32)
    }

    #[inline]
    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_i64(self.signed(u64::MAX)?)
    }

    #[inline]
    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_i128(varint::unzigzag_i128(varint::take_u128(self.input)?))
    }

    #[inline]
    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_u8(self.input.byte()?)
    }

    #[inline]
    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_u16(varint::take_up_to(self.input, u16::MAX.into())? as u16)
    }

    #[inline]
    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_u32(varint::take_up_to(self.input, u32::MAX.into())? as u32)
    }

    #[inline]
    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_u64(varint::take(self.input)?)
    }

    #[inline]
    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_u128(varint::take_u128(self.input)?)
    }

    #[inline]
    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_f32(f32::from_le_bytes(self.input.take_array()?))
    }

    #[inline]
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_f64(f64::from_le_bytes(self.input.take_array()?))
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let start = self.input.offset();
        let mut chars = self.input.take_str()?.chars();
        match (chars.next(), chars.next()) {
            (Some(char), None) => visitor.visit_char(char),
            _ => {
                let message = "char is not exactly one character";
                Err(DecodeError::new(DecodeErrorKind::Malformed, start, message))
            }
        }
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_borrowed_str(self.input.take_str()?)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    #[inline]
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_borrowed_bytes(self.input.take_counted()?)
    }

    #[inline]
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_bytes(visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.input.byte()? {
            0 => visitor.visit_none(),
            1 => visitor.visit_some(self.deeper()?),
            tag => Err(self.input.bad_tag("Option", tag)),
        }
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self.deeper()?)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if bytes::is_vec_visitor::<V>() {
            let found = self.deeper()?.input.take_counted()?;
            return bytes::to_vec(found).ok_or_else(|| de::Error::custom("visitor is not of Vec<u8>"));
        }
        visitor.visit_seq(self.elements()?)
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, DecodeError> {
        if bytes::array_of_visitor::<V>() == Some(len) {
            let found = self.deeper()?.input.take(len)?;
            return bytes::to_array(found).ok_or_else(|| de::Error::custom("visitor is not of [u8; N]"));
        }
        visitor.visit_seq(self.fields(len)?)
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_seq(self.fields(len)?)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_map(self.elements()?)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_seq(self.fields(fields.len())?)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_enum(Variant { within: self.deeper()? })
    }
}

/// The elements of a sequence or the entries of a map: their number comes from the peer.
struct Elements<'a, 'de> {
    within: Value<'a, 'de>,
    awaited: usize,
}

impl<'de> Elements<'_, 'de> {
    /// Bytes that the elements awaited here and around cannot do without are nobody else's.
    #[inline]
    fn value(&mut self) -> Value<'_, 'de> {
        let awaited = u32::try_from(self.awaited).unwrap_or(u32::MAX);
        let Value { ref mut input, depth, owed } = self.within;
        Value { input, depth, owed: owed.saturating_add(awaited) }
    }

    /// Starts an element; says where it does.
    #[inline]
    fn begin_one(&mut self) -> Option<usize> {
        self.awaited = self.awaited.checked_sub(1)?;
        Some(self.within.input.offset())
    }

    #[inline]
    fn end_one(&mut self, start: usize) -> Result<(), DecodeError> {
        if self.within.input.offset() == start { self.within.input.count_empty() } else { Ok(()) }
    }

    #[inline]
    fn hint(&self) -> usize {
        self.awaited.min(self.within.input.left().saturating_sub(self.within.owed as usize))
    }
}

impl<'de> de::SeqAccess<'de> for Elements<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        let Some(start) = self.begin_one() else { return Ok(None) };
        let element = seed.deserialize(self.value())?;
        self.end_one(start)?;
        Ok(Some(element))
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.hint())
    }
}

impl<'de> de::MapAccess<'de> for Elements<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        let Some(start) = self.begin_one() else { return Ok(None) };
        let key = seed.deserialize(self.value())?;
        self.end_one(start)?;
        Ok(Some(key))
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        seed.deserialize(self.value())
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.hint())
    }
}

/// The elements of a tuple or the fields of a struct: their number is the type's.
struct Fields<'a, 'de> {
    within: Value<'a, 'de>,
    awaited: usize,
}

impl<'de> de::SeqAccess<'de> for Fields<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        let Some(awaited) = self.awaited.checked_sub(1) else { return Ok(None) };
        self.awaited = awaited;
        let Value { ref mut input, depth, owed } = self.within;
        seed.deserialize(Value { input, depth, owed }).map(Some)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.awaited)
    }
}

/// A variant of an enum.
struct Variant<'a, 'de> {
    within: Value<'a, 'de>,
}

impl<'de> de::EnumAccess<'de> for Variant<'_, 'de> {
    type Error = DecodeError;
    type Variant = Self;

    #[inline]
    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), DecodeError> {
        let start = self.within.input.offset();
        let index = varint::take_up_to(self.within.input, u32::MAX.into())? as u32;
        let index: de::value::U32Deserializer<DecodeError> = index.into_deserializer();
        let variant = seed.deserialize(index).map_err(|error| error.or_at(start))?;
        Ok((variant, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn unit_variant(self) -> Result<(), DecodeError> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, DecodeError> {
        seed.deserialize(self.within)
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_seq(Fields { within: self.within, awaited: len })
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_seq(Fields { within: self.within, awaited: fields.len() })
    }
}
