//! A deserializer that makes up a value, and records what it is asked for.

use std::fmt;

use serde::de::{self, DeserializeSeed, IntoDeserializer, Unexpected, Visitor};

use super::guess::{self, Hint, Reader};
use super::search::{Blame, Made, Place, Shape, Trace};
use super::values::{BYTES, CHARS, FRACTIONS, LENGTHS, LETTERS, NUMBERS, STRINGS};
use crate::codec::LOAN;
use crate::form::graph::{Content, Kind};

/// What a type is that takes whatever comes.
pub(super) const ANY: &str = "any";

/// Decodes one made-up value.
pub(in crate::form) struct Tracer<'t> {
    trace: &'t mut Trace,
}

impl<'t> Tracer<'t> {
    pub(super) fn new(trace: &'t mut Trace) -> Self {
        Self { trace }
    }

    fn plain<T>(
        self,
        name: &'static str,
        visit: impl FnOnce(Made) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        self.whole(Content::Plain(name), visit)
    }

    /// A value without parts.
    fn whole<T>(
        self,
        content: Content,
        visit: impl FnOnce(Made) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        self.trace.burn()?;
        let visited = visit(self.trace.make());
        self.trace.content = Some(content);
        visited
    }

    fn bytes<T>(self, visit: impl FnOnce(&'static [u8]) -> Result<T, Refused>) -> Result<T, Refused> {
        self.whole(Content::Bytes, |made| {
            visit(&BYTES[..made.pick(0, |_| LENGTHS[0], |shift| LENGTHS[shift % LENGTHS.len()])])
        })
    }

    fn string<T>(self, visit: impl FnOnce(&'static str) -> Result<T, Refused>) -> Result<T, Refused> {
        let letter = |number: usize| &LETTERS[number % LETTERS.len()..][..1];
        self.plain("str", |made| visit(made.pick("", letter, |shift| STRINGS[shift % STRINGS.len()])))
    }

    /// A tuple or struct.
    fn fields<V: Visitor<'static>>(
        self,
        shape: Shape,
        name: &'static str,
        kind: Kind,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let Self { trace } = self;
        let part = trace.enter::<V>(shape, name, kind)?;
        let place = Place { part, variant: None };
        let bare = trace.strip(place, kind);
        let visited = visitor.visit_seq(Elements { bare, ..Elements::new(&mut *trace, place, len) });
        trace.parts[part].is_done |= visited.is_ok();
        trace.leave(part);
        visited
    }

    /// What takes a guess, or refuses it.
    fn guessed<T>(self, visit: impl FnOnce() -> Result<T, Refused>) -> Result<T, Refused> {
        self.trace.burn()?;
        let visited = visit();
        self.trace.content = self.trace.asking();
        visited
    }

    fn unsupported<T>(self) -> Result<T, Refused> {
        self.trace.blame = Blame::Hopeless;
        Err(Refused)
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ident $values:ident)*) => {$(
        fn $method<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Refused> {
            // The letter's number, from 1 on.
            let distinct = |number: usize| (number % LETTERS.len() + 1) as u8 as $type;
            let listed = |shift: usize| $values[shift % $values.len()] as $type;
            self.plain(stringify!($type), |made| visitor.$visit(made.pick(0_u8 as $type, distinct, listed)))
        }
    )*};
}

impl<'t> de::Deserializer<'static> for Tracer<'t> {
    type Error = Refused;

    /// Like the codec's.
    fn is_human_readable(&self) -> bool {
        self.trace.is_described
    }

    numbers! {
        deserialize_i8 visit_i8 i8 NUMBERS
        deserialize_i16 visit_i16 i16 NUMBERS
        deserialize_i32 visit_i32 i32 NUMBERS
        deserialize_i64 visit_i64 i64 NUMBERS
        deserialize_i128 visit_i128 i128 NUMBERS
        deserialize_u8 visit_u8 u8 NUMBERS
        deserialize_u16 visit_u16 u16 NUMBERS
        deserialize_u32 visit_u32 u32 NUMBERS
        deserialize_u64 visit_u64 u64 NUMBERS
        deserialize_u128 visit_u128 u128 NUMBERS
        deserialize_f32 visit_f32 f32 FRACTIONS
        deserialize_f64 visit_f64 f64 FRACTIONS
    }

    fn deserialize_char<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Refused> {
        let letter = |number: usize| char::from(LETTERS.as_bytes()[number % LETTERS.len()]);
        self.plain("char", |made| {
            visitor.visit_char(made.pick('\0', letter, |shift| CHARS[shift % CHARS.len()]))
        })
    }

    fn deserialize_bool<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.plain("bool", |made| visitor.visit_bool(made.pick(false, |_| true, |shift| shift % 2 == 1)))
    }

    fn deserialize_str<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.string(|text| visitor.visit_borrowed_str(text))
    }

    fn deserialize_string<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.bytes(|bytes| visitor.visit_borrowed_bytes(bytes))
    }

    fn deserialize_byte_buf<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_unit<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.plain("()", |_| visitor.visit_unit())
    }

    fn deserialize_unit_struct<V: Visitor<'static>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_option<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Refused> {
        let Self { trace } = self;
        let part = trace.enter::<V>(Shape::Option, "", Kind::Option)?;
        let is_some = trace.is_filled(part);
        let visited = if is_some {
            trace.whole(Place { part, variant: None }, |tracer| visitor.visit_some(tracer))
        } else {
            visitor.visit_none()
        };
        if is_some {
            trace.filled(part, visited.is_ok());
        }
        trace.leave(part);
        visited
    }

    fn deserialize_newtype_struct<V: Visitor<'static>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let Self { trace } = self;
        if name == LOAN {
            let form = Expecting(&visitor).to_string();
            return Tracer { trace: &mut *trace }
                .bytes(|bytes| visitor.visit_borrowed_bytes(bytes))
                .inspect(|_| trace.content = Some(Content::Loan(form)));
        }
        let part = trace.enter::<V>(Shape::Newtype, name, Kind::Newtype)?;
        let place = Place { part, variant: None };
        let visited = trace.whole(place, |tracer| visitor.visit_newtype_struct(tracer));
        trace.leave(part);
        visited
    }

    fn deserialize_seq<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Refused> {
        let Self { trace } = self;
        let part = trace.enter::<V>(Shape::Seq, "", Kind::Seq)?;
        let len = trace.filling(part);
        let place = Place { part, variant: None };
        let visited = visitor.visit_seq(Elements { period: 1, ..Elements::new(&mut *trace, place, len) });
        if len > 0 {
            trace.filled(part, visited.is_ok());
        }
        trace.leave(part);
        visited
    }

    fn deserialize_tuple<V: Visitor<'static>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        self.fields(Shape::Tuple(len), "", Kind::Tuple(len), len, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'static>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.fields(Shape::Tuple(len), name, Kind::Tuple(len), len, visitor)
    }

    fn deserialize_map<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Refused> {
        // A struct that takes what it does not know, and may ask what that is.
        if self.trace.is_described
            && Expecting(&visitor).to_string().starts_with("struct ")
            && let Some(guess) = self.trace.guess(true)
        {
            return self.guessed(|| Reader(&guess).deserialize_any(visitor));
        }
        let Self { trace } = self;
        let part = trace.enter::<V>(Shape::Map, "", Kind::Map)?;
        let len = 2 * trace.filling(part);
        let place = Place { part, variant: None };
        let visited = visitor.visit_map(Elements { period: 2, ..Elements::new(&mut *trace, place, len) });
        if len > 0 {
            trace.filled(part, visited.is_ok());
        }
        trace.leave(part);
        visited
    }

    fn deserialize_struct<V: Visitor<'static>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.fields(Shape::Struct, name, Kind::Struct(fields), fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'static>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let Self { trace } = self;
        let part = trace.enter::<V>(Shape::Enum, name, Kind::Enum(variants))?;
        let Some(chosen) = trace.choose(part) else {
            trace.leave(part);
            let refused = trace.dead_end();
            if variants.is_empty() {
                trace.blame = Blame::Empty;
            }
            return Err(refused);
        };
        let variant = &mut trace.parts[part].variants[chosen];
        variant.is_open = true;
        let refusals = variant.refusals;
        trace.shift += refusals;
        let fuel = trace.fuel;
        let visited = visitor.visit_enum(Chosen { trace: &mut *trace, part, variant: chosen });
        trace.shift -= refusals;
        trace.parts[part].variants[chosen].is_open = false;
        trace.made(part, chosen, visited.is_ok(), fuel - trace.fuel);
        trace.leave(part);
        visited
    }

    fn deserialize_identifier<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Refused> {
        if self.trace.is_described {
            self.string(|text| visitor.visit_borrowed_str(text))
        } else {
            self.unsupported()
        }
    }

    /// Something, of the usual kinds.
    fn deserialize_any<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Refused> {
        if !self.trace.is_described {
            return self.unsupported();
        }
        if let Some(guess) = self.trace.guess(false) {
            return self.guessed(|| Reader(&guess).deserialize_any(visitor));
        }
        let letter = |number: usize| &LETTERS[number % LETTERS.len()..][..1];
        self.plain(ANY, |made| match made {
            Made::Bare => visitor.visit_none(),
            Made::Distinct(number) => visitor.visit_borrowed_str(letter(number)),
            Made::Listed(0) => visitor.visit_u64(1),
            Made::Listed(1) => visitor.visit_bool(true),
            Made::Listed(2) => visitor.visit_unit(),
            Made::Listed(3) => visitor.visit_f64(1.0),
            Made::Listed(4) => visitor.visit_i64(-1),
            Made::Listed(5) => visitor.visit_borrowed_str("1"),
            Made::Listed(_) => visitor.visit_none(),
        })
    }

    fn deserialize_ignored_any<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Refused> {
        if self.trace.is_described { self.plain(ANY, |_| visitor.visit_unit()) } else { self.unsupported() }
    }
}

/// The elements of a sequence, tuple or struct, or the keys and values of a map in turn.
struct Elements<'t> {
    trace: &'t mut Trace,
    place: Place,
    next: usize,
    len: usize,
    /// How many slots they share.
    period: usize,
    /// Whether the elements are to be bare, and at which try.
    bare: Option<usize>,
}

impl<'t> Elements<'t> {
    /// Each has a slot of its own.
    fn new(trace: &'t mut Trace, place: Place, len: usize) -> Self {
        Self { trace, place, next: 0, len, period: usize::MAX, bare: None }
    }

    fn next<T: DeserializeSeed<'static>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        if self.next >= self.len {
            return Ok(None);
        }
        let at = self.next % self.period;
        self.next += 1;
        let around = self.trace.undress(self.bare, at);
        let decoded = self.trace.slot(self.place, at, seed);
        self.trace.mode = around;
        decoded.map(Some)
    }
}

impl de::SeqAccess<'static> for Elements<'_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'static>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Refused> {
        self.next(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.len - self.next)
    }
}

impl de::MapAccess<'static> for Elements<'_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'static>>(&mut self, seed: K) -> Result<Option<K::Value>, Refused> {
        self.next(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'static>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        self.next(seed)?.ok_or(Refused)
    }

    fn size_hint(&self) -> Option<usize> {
        Some((self.len - self.next) / 2)
    }
}

/// A variant that was chosen.
struct Chosen<'t> {
    trace: &'t mut Trace,
    part: usize,
    variant: usize,
}

impl Chosen<'_> {
    /// The variant has content of this kind.
    fn place(&mut self, kind: Kind) -> Place {
        self.trace.parts[self.part].variants[self.variant].kind = Some(kind);
        Place { part: self.part, variant: Some(self.variant) }
    }
}

impl<'t> de::EnumAccess<'static> for Chosen<'t> {
    type Error = Refused;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'static>>(self, seed: T) -> Result<(T::Value, Self), Refused> {
        let index: de::value::U32Deserializer<Refused> = (self.variant as u32).into_deserializer();
        let chosen = seed.deserialize(index);
        if chosen.is_err() {
            self.trace.parts[self.part].variants[self.variant].is_missing = true;
        }
        Ok((chosen?, self))
    }
}

impl<'t> de::VariantAccess<'static> for Chosen<'t> {
    type Error = Refused;

    fn unit_variant(self) -> Result<(), Refused> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'static>>(mut self, seed: T) -> Result<T::Value, Refused> {
        let place = self.place(Kind::Newtype);
        self.trace.slot(place, 0, seed)
    }

    fn tuple_variant<V: Visitor<'static>>(mut self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        let place = self.place(Kind::Tuple(len));
        let bare = self.trace.strip(place, Kind::Tuple(len));
        visitor.visit_seq(Elements { bare, ..Elements::new(self.trace, place, len) })
    }

    fn struct_variant<V: Visitor<'static>>(
        mut self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let place = self.place(Kind::Struct(fields));
        let bare = self.trace.strip(place, Kind::Struct(fields));
        visitor.visit_seq(Elements { bare, ..Elements::new(self.trace, place, fields.len()) })
    }
}

/// What a visitor says that it expects.
struct Expecting<'v, V>(&'v V);

impl<V: Visitor<'static>> fmt::Display for Expecting<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }
}

/// A type refused a value. The reason does not matter.
#[derive(Debug)]
pub(in crate::form) struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a made-up value was refused")
    }
}

impl std::error::Error for Refused {}

impl de::Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        guess::note(|| Hint::Other(message.to_string()));
        Self
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        if let Some(text) = guess::text_of(unexpected) {
            guess::note(|| Hint::Instead(text, expected.to_string()));
        }
        Self
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn invalid_length(len: usize, _: &dyn de::Expected) -> Self {
        guess::note(|| Hint::Length(len));
        Self
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        guess::note(|| Hint::Unknown(variant.to_owned(), expected));
        Self
    }

    fn unknown_field(_: &str, _: &'static [&'static str]) -> Self {
        Self
    }

    fn missing_field(field: &'static str) -> Self {
        guess::note(|| Hint::Missing(field));
        Self
    }
}
