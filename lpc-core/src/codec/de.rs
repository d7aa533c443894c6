//! Bytes to values.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, Visitor};

use super::access::{Elements, Fields, Variant};
use super::depth::Depth;
use super::input::Input;
use super::loan::{self, Loans};
use super::remote::Remote;
use super::{Coding, DEEPEST, DecodeError, DecodeErrorKind, bytes, described, varint};

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
pub struct Decoder<'de> {
    input: Input<'de>,
}

impl<'de> Decoder<'de> {
    /// A decoder of the values in `bytes`.
    #[inline]
    pub fn new(bytes: &'de [u8]) -> Self {
        Self { input: Input::new(bytes) }
    }

    /// A decoder of the values in bytes that can only be copied. Borrowed values are borrowed from the copies
    /// that `source` keeps; a long `Vec<u8>` or `String` is filled by one copy.
    pub fn remote(source: &'de dyn Remote) -> Self {
        Self { input: Input::remote(source) }
    }

    /// Lets the values refer to `loans`. Otherwise a value that refers to a loan is an error.
    #[must_use]
    pub fn with_loans(mut self, loans: &'de dyn Loans) -> Self {
        self.input.loans = Some(loans);
        self
    }

    /// Decodes the next value.
    ///
    /// # Errors
    ///
    /// If the bytes are not such a value, or ask for too much (see the [module](super)). What is decoded
    /// after an error is meaningless.
    #[inline]
    #[allow(clippy::should_implement_trait)] // each value may have another type
    pub fn next<T: Deserialize<'de>>(&mut self) -> Result<T, DecodeError> {
        let around = Around::new(self.input.max_depth);
        let decoded = T::deserialize(Value { input: &mut self.input, around });
        decoded.map_err(|error| error.or_at(self.input.offset()))
    }

    /// Decodes the next value, which is written in this coding.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    #[inline]
    pub fn next_as<T: Deserialize<'de>>(&mut self, coding: Coding) -> Result<T, DecodeError> {
        match coding {
            Coding::Packed => self.next(),
            Coding::Described => described::read(&mut self.input),
        }
    }

    /// Allows values to nest so deep, instead of [`MAX_DEPTH`](super::MAX_DEPTH) levels; at most [`DEEPEST`].
    #[must_use]
    #[inline]
    pub const fn with_max_depth(mut self, levels: u32) -> Self {
        self.input.max_depth = if levels < DEEPEST { levels } else { DEEPEST };
        self
    }

    /// Checks that no value follows.
    ///
    /// # Errors
    ///
    /// If bytes are left.
    #[inline]
    pub fn end(self) -> Result<(), DecodeError> {
        match self.input.left() {
            0 => Ok(()),
            left => Err(self.trailing(left)),
        }
    }

    #[cold]
    fn trailing(&self, left: usize) -> DecodeError {
        let message = match left {
            1 => "1 byte is left after the last value".to_owned(),
            _ => format!("{left} bytes are left after the last value"),
        };
        self.input.error(DecodeErrorKind::Trailing, message)
    }
}

impl fmt::Debug for Decoder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (offset, left) = (self.input.offset(), self.input.left());
        f.debug_struct("Decoder").field("offset", &offset).field("left", &left).finish_non_exhaustive()
    }
}

/// Decodes one value.
///
/// Two machine words, so that it is passed in registers.
pub(super) struct Value<'a, 'de> {
    pub(super) input: &'a mut Input<'de>,
    pub(super) around: Around,
}

/// The context of a value: how deep it is nested, and what the enclosing sequences still need.
#[derive(Clone, Copy)]
pub(super) struct Around {
    /// How much deeper values may nest in it, above [`DEPTH`](Self::DEPTH) bits, and in these how many elements
    /// the sequences around it still await.
    packed: u64,
}

impl Around {
    const DEPTH: u32 = u64::BITS - Depth::BITS;
    /// The most that one sequence counts for, so that all that nest have room in so many bits.
    const MOST_AWAITED: u64 = 1 << 40;

    #[inline]
    pub(super) const fn new(max_depth: u32) -> Self {
        Self { packed: (Depth::of(max_depth).bits() as u64) << Self::DEPTH }
    }

    #[inline]
    const fn depth(self) -> Depth {
        Depth::from_bits((self.packed >> Self::DEPTH) as u32)
    }

    #[inline]
    const fn with_depth(self, depth: Depth) -> Self {
        let awaited = self.packed % (1 << Self::DEPTH);
        Self { packed: awaited + ((depth.bits() as u64) << Self::DEPTH) }
    }

    #[inline]
    pub(super) fn deeper(self) -> Option<Self> {
        self.depth().within().map(|depth| self.with_depth(depth))
    }

    /// The context of what is within a newtype or a `Some`.
    #[inline]
    pub(super) fn within_thin(self) -> Option<Self> {
        self.depth().within_thin().map(|depth| self.with_depth(depth))
    }

    /// The context of a sequence's elements, of which so many more are outstanding.
    #[inline]
    pub(super) fn awaiting(self, elements: usize) -> Self {
        Self { packed: self.packed + (elements as u64).min(Self::MOST_AWAITED) }
    }

    /// How many bytes the value cannot have, because the outstanding elements around it need one each.
    #[inline]
    pub(super) fn owed(self) -> usize {
        (self.packed % (1 << Self::DEPTH)) as usize
    }
}

const _: () = assert!(DEEPEST as u64 * Around::MOST_AWAITED < 1 << Around::DEPTH);

impl<'a, 'de> Value<'a, 'de> {
    /// The decoder of the values within the one at hand.
    #[inline]
    fn deeper(self) -> Result<Self, DecodeError> {
        match self.around.deeper() {
            Some(around) => Ok(Self { around, ..self }),
            None => Err(self.input.too_deep()),
        }
    }

    /// The decoder of what is within a newtype or a `Some`.
    #[inline]
    fn within_thin(self) -> Result<Self, DecodeError> {
        match self.around.within_thin() {
            Some(around) => Ok(Self { around, ..self }),
            None => Err(self.input.too_deep()),
        }
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

    /// Decodes an array of bytes for a visitor that is not serde's own. It is a function of its own so that
    /// it does not slow down the usual path.
    #[cold]
    #[inline(never)]
    fn array_by_elements<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.fields(len)?.seq(visitor)
    }

    /// Decodes bytes that may be lent.
    #[inline(never)]
    fn loan<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.input.byte()? {
            loan::IN_LINE => visitor.visit_newtype_struct(self),
            loan::LENT => {
                let loan = self.input.take_loan()?;
                // A deserializer in between may hide the type. Then the bytes are copied.
                bytes::from_loan(loan).or_else(|loan| visitor.visit_bytes(loan.bytes()))
            }
            tag => Err(self.input.bad_tag("loan", tag)),
        }
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
        if bytes::is_path_visitor::<V>() {
            return self.input.take_path();
        }
        match self.input.take_str_to_own()? {
            Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
            Cow::Owned(text) => visitor.visit_string(text),
        }
    }

    #[inline]
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_borrowed_bytes(self.input.take_counted()?)
    }

    #[inline]
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.input.take_counted_to_own()? {
            Cow::Borrowed(bytes) => visitor.visit_borrowed_bytes(bytes),
            Cow::Owned(bytes) => visitor.visit_byte_buf(bytes),
        }
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.input.byte()? {
            0 => visitor.visit_none(),
            1 => visitor.visit_some(self.within_thin()?),
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
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let within = self.within_thin()?;
        if name == loan::NAME { within.loan(visitor) } else { visitor.visit_newtype_struct(within) }
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if bytes::is_vec_visitor::<V>() {
            let found = self.deeper()?.input.take_counted_to_own()?.into_owned();
            return bytes::from_vec(found).map_err(|_| de::Error::custom("visitor is not of Vec<u8>"));
        }
        self.elements()?.seq(visitor)
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, DecodeError> {
        if bytes::array_of_visitor::<V>() == Some(len) {
            let found = self.deeper()?.input.take(len)?;
            return bytes::to_array(found).ok_or_else(|| de::Error::custom("visitor is not of [u8; N]"));
        }
        if bytes::is_array::<V::Value>() {
            return self.array_by_elements(len, visitor);
        }
        self.fields(len)?.seq(visitor)
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.fields(len)?.seq(visitor)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.elements()?.map(visitor)
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
