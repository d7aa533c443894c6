//! The parts of a value that is being decoded: elements, fields and variants.

use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};

use super::de::Value;
use super::input::Place;
use super::{DecodeError, varint};

/// The elements of a sequence or the entries of a map. Their number comes from the peer.
pub(super) struct Elements<'a, 'de> {
    pub(super) within: Value<'a, 'de>,
    pub(super) awaited: usize,
}

impl<'de> Elements<'_, 'de> {
    /// Bytes that the outstanding elements, here and further out, need at least.
    #[inline]
    fn value(&mut self) -> Value<'_, 'de> {
        let around = self.within.around.awaiting(self.awaited);
        Value { input: &mut *self.within.input, around }
    }

    /// Has a visitor take all elements.
    #[inline]
    pub(super) fn seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, DecodeError> {
        let value = visitor.visit_seq(&mut self)?;
        finish(self.awaited)?;
        Ok(value)
    }

    /// Has a visitor take all entries.
    #[inline]
    pub(super) fn map<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, DecodeError> {
        let value = visitor.visit_map(&mut self)?;
        finish(self.awaited)?;
        Ok(value)
    }

    /// Starts an element. Returns where it starts.
    #[inline]
    fn begin_one(&mut self) -> Option<Place> {
        self.awaited = self.awaited.checked_sub(1)?;
        Some(self.within.input.place())
    }

    #[inline]
    fn end_one(&mut self, start: Place) -> Result<(), DecodeError> {
        if self.within.input.is_at(start) { self.within.input.count_empty() } else { Ok(()) }
    }

    #[inline]
    fn hint(&self) -> usize {
        self.awaited.min(self.within.input.left().saturating_sub(self.within.around.owed()))
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

/// The elements of a tuple or the fields of a struct. Their number is the type's; that of a struct's fields
/// is at most so many, since serde counts each alias as one.
pub(super) struct Fields<'a, 'de> {
    pub(super) within: Value<'a, 'de>,
    pub(super) awaited: usize,
}

impl<'de> Fields<'_, 'de> {
    /// Has a visitor take all of them.
    #[inline]
    pub(super) fn seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, DecodeError> {
        let value = visitor.visit_seq(&mut self)?;
        finish(self.awaited)?;
        Ok(value)
    }
}

/// Checks that the visitor has taken all: what follows would be misread.
#[inline]
fn finish(left: usize) -> Result<(), DecodeError> {
    if left == 0 { Ok(()) } else { Err(too_many(left)) }
}

#[cold]
fn too_many(left: usize) -> DecodeError {
    de::Error::custom(format_args!("{left} more elements than the type has"))
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
        let Value { ref mut input, around } = self.within;
        seed.deserialize(Value { input, around }).map(Some)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.awaited)
    }
}

/// A variant of an enum.
pub(super) struct Variant<'a, 'de> {
    pub(super) within: Value<'a, 'de>,
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
        Fields { within: self.within, awaited: len }.seq(visitor)
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
