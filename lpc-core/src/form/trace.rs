//! Runs a `Deserialize` on made-up values, and writes down what it asks for.
//!
//! A value has one variant of each enum, so it takes several passes. Each decodes one value from the start, and where there is a
//! choice (a variant, `Some` or `None`, an element or none) it goes where something has not been seen yet; where nothing is left
//! to be seen, or the type at hand is already being decoded further up, it takes the way that is known to end.
//!
//! Where a type refuses a value, the next pass tries another: the innermost type that refused is the one whose numbers and
//! strings change. One that refuses them all is opaque.

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};

use super::graph::{self, Content, Key, Kind, Part, Quick, Slot, State};
use crate::codec::{LOAN, MAX_DEPTH};

/// What is tried, in this order. Any type may want its strings to be of some form; these are the usual ones.
const STRINGS: [&str; 12] = [
    "",
    "1",
    "a",
    "127.0.0.1",
    "127.0.0.1:1",
    "http://a/",
    "a@b.c",
    "1.0.0",
    "00000000-0000-0000-0000-000000000001",
    "2000-01-01",
    "01:01:01",
    "2000-01-01T01:01:01Z",
];
/// No `NonZero` is 0, and most ranges have one of these.
const NUMBERS: [u8; 5] = [1, 0, 2, 10, 100];
/// Lengths: of a UUID, an address, or a key for example.
const LENGTHS: [usize; 9] = [0, 1, 2, 4, 8, 16, 20, 32, 64];
const BYTES: [u8; 64] = [1; 64];

/// How often a type may refuse.
const TRIES: usize = STRINGS.len();
/// Values decoded in all, so that a type with too many ways through it ends.
const FUEL: usize = 1 << 21;
/// Passes in a row that find nothing.
const IDLE_PASSES: usize = 256;
/// From here on the way that ends is taken, if it is known.
const DEEP: usize = 32;
/// Elements of an array that are looked at one by one: longer ones have all alike.
const MAX_SLOTS: usize = 256;

/// The form of what `decode` decodes, called `name`; `None` if it is opaque.
pub(super) fn form(name: &'static str, decode: fn(Tracer<'_>) -> Result<(), Refused>) -> Option<String> {
    let mut trace = Trace { fuel: FUEL, ..Trace::default() };
    let root = trace.run(name, decode)?;
    graph::text(&trace.parts, &root)
}

#[derive(Default)]
struct Trace {
    parts: Vec<Part>,
    by_key: HashMap<(Key, Shape), usize>,
    /// How often each type has refused.
    refusals: HashMap<TypeId, usize>,
    pass: usize,
    fuel: usize,
    /// When something new was found last.
    found_at: usize,

    // Of this pass:
    depth: usize,
    /// Which of the values to try: all types around have a say.
    shift: usize,
    /// What the value that was decoded last is.
    content: Slot,
    blame: Blame,
}

/// Whose fault it is that a pass failed.
#[derive(Clone, Copy, Default, PartialEq)]
enum Blame {
    /// It is that of the innermost type which has other values to try.
    #[default]
    Nobody,
    /// It is that of the innermost type, and no value would help.
    Hopeless,
    /// An opaque type refused: what is around it cannot be made either.
    Opaque,
    Somebody,
}

/// What keeps apart parts that one visitor makes of several methods.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Shape {
    Newtype,
    Option,
    Seq,
    Map,
    Tuple(usize),
    Struct,
    Enum,
}

impl Trace {
    fn run(&mut self, name: &'static str, decode: fn(Tracer<'_>) -> Result<(), Refused>) -> Option<Content> {
        // Stands for the type as a whole, which need not be one that has an id.
        let root = TypeId::of::<Tracer<'static>>();
        loop {
            self.pass += 1;
            self.begin();
            let decoded =
                catch_unwind(AssertUnwindSafe(|| self.within(root, name, |trace| decode(Tracer { trace }))));
            let is_opaque = self.refusals.get(&root).is_some_and(|refusals| *refusals >= TRIES);
            match decoded {
                _ if is_opaque => return None,
                Ok((Ok(()), content)) => {
                    graph::find_leads(&mut self.parts);
                    if !matches!(content, Content::Part(part) if self.parts[part].leads) {
                        return Some(content);
                    }
                }
                Ok((Err(Refused), _)) => {}
                // A type that panics is not run again.
                Err(_) => return None,
            }
            if self.fuel == 0 || self.pass - self.found_at > IDLE_PASSES {
                return None;
            }
        }
    }

    fn begin(&mut self) {
        for part in &mut self.parts {
            part.open = 0;
            part.variants.iter_mut().for_each(|variant| variant.is_open = false);
        }
        graph::find_leads(&mut self.parts);
        (self.depth, self.shift) = (0, 0);
        (self.content, self.blame) = (None, Blame::Nobody);
    }

    /// Decodes a value of one type, and says what it is.
    fn within<T>(
        &mut self,
        id: TypeId,
        name: &'static str,
        decode: impl FnOnce(&mut Self) -> Result<T, Refused>,
    ) -> (Result<T, Refused>, Content) {
        let shift = self.shift;
        let refusals = self.refusals.get(&id).copied().unwrap_or_default();
        self.shift += refusals;
        self.content = None;
        let decoded = decode(self);
        self.shift = shift;
        // A type that asks for nothing is nothing on the wire.
        let content = self.content.take().unwrap_or(Content::Plain("()"));
        let refusals = if decoded.is_ok() { refusals } else { self.refused(id, refusals) };
        let content = if refusals < TRIES { content } else { Content::Opaque(name) };
        (decoded, content)
    }

    /// Settles who is to blame; gives how often this type has refused.
    fn refused(&mut self, id: TypeId, before: usize) -> usize {
        let refusals = match self.blame {
            Blame::Somebody => return self.refusals.get(&id).copied().unwrap_or_default(),
            _ if before >= TRIES => {
                self.blame = Blame::Opaque;
                return before;
            }
            Blame::Nobody => before + 1,
            Blame::Opaque | Blame::Hopeless => TRIES,
        };
        // It may be within itself, and opaque by now.
        let refusals = self.refusals.get(&id).map_or(refusals, |now| refusals.max(*now));
        self.refusals.insert(id, refusals);
        (self.blame, self.found_at) = (Blame::Somebody, self.pass);
        refusals
    }

    /// Fails for no fault of the type's: another pass takes another way.
    fn dead_end(&mut self) -> Refused {
        self.blame = Blame::Somebody;
        Refused
    }

    fn burn(&mut self) -> Result<(), Refused> {
        match self.fuel.checked_sub(1) {
            Some(fuel) => self.fuel = fuel,
            None => return Err(self.dead_end()),
        }
        Ok(())
    }

    /// Begins a value of a type that has others in it.
    fn enter<V>(&mut self, shape: Shape, name: &'static str, kind: Kind) -> Result<usize, Refused> {
        self.burn()?;
        if self.depth >= MAX_DEPTH as usize {
            return Err(self.dead_end());
        }
        let names = match kind {
            Kind::Struct(names) | Kind::Enum(names) => names,
            _ => &[],
        };
        let key = (Key { visitor: typeid::of::<V>(), name, names }, shape);
        let next = self.parts.len();
        let index = *self.by_key.entry(key).or_insert(next);
        if index == next {
            self.parts.push(Part::new(kind));
            self.found_at = self.pass;
        }
        self.parts[index].open += 1;
        self.depth += 1;
        Ok(index)
    }

    fn leave(&mut self, index: usize) {
        self.parts[index].open -= 1;
        self.depth -= 1;
        self.content = Some(Content::Part(index));
    }

    /// Whether to put something into an `Option`, a sequence or a map.
    fn is_filled(&mut self, index: usize) -> bool {
        let part = &mut self.parts[index];
        let is_wanted = !part.is_done || (part.leads && part.spent < self.pass) || self.shift % 2 == 1;
        let is_possible =
            part.open == 1 && !part.slots.iter().any(|slot| matches!(slot, Some(Content::Opaque(_))));
        if is_wanted && is_possible {
            part.spent = self.pass;
        }
        is_wanted && is_possible
    }

    /// Which variant to make of an enum.
    fn choose(&mut self, index: usize) -> Option<usize> {
        let part = &self.parts[index];
        let variants = || part.variants.iter().enumerate().filter(|(_, variant)| !variant.is_open);
        let of = |state| variants().filter(move |(_, variant)| variant.state == state);
        let unseen = of(State::Unseen).min_by_key(|(_, variant)| variant.attempts);
        let leading = of(State::Seen).filter(|(_, variant)| graph::any_leads(&self.parts, &variant.slots));
        let leading = leading.filter(|_| part.spent < self.pass).min_by_key(|(_, variant)| variant.attempts);
        let [unseen, leading] = [unseen, leading].map(|variant| variant.map(|(at, _)| at));
        let quick = part.quick.map(|quick| quick.variant);
        let is_deep = part.open > 1 || self.depth > DEEP;
        let chosen = if is_deep { quick.or(unseen) } else { unseen.or(leading).or(quick) }?;
        let part = &mut self.parts[index];
        part.spent = self.pass;
        part.variants[chosen].attempts += 1;
        Some(chosen)
    }

    /// Says how the making of a variant ended, and what fuel it took.
    fn made(&mut self, index: usize, chosen: usize, is_ok: bool, cost: usize) {
        let part = &mut self.parts[index];
        let others = part.variants.iter().filter(|variant| variant.state != State::Refused).count() > 1;
        let variant = &mut part.variants[chosen];
        if is_ok {
            if variant.state == State::Unseen {
                variant.state = State::Seen;
                self.found_at = self.pass;
            }
            if part.quick.is_none_or(|quick| cost < quick.cost) {
                part.quick = Some(Quick { variant: chosen, cost });
            }
            return;
        }
        // The last one that is left cannot be done without: its enum cannot be made, then.
        if variant.state == State::Seen || !others {
            return;
        }
        match self.blame {
            Blame::Somebody => return,
            Blame::Nobody if variant.refusals < TRIES => variant.refusals += 1,
            Blame::Nobody | Blame::Hopeless | Blame::Opaque => variant.state = State::Refused,
        }
        (self.blame, self.found_at) = (Blame::Somebody, self.pass);
    }

    fn slots(&mut self, place: Place) -> &mut Vec<Slot> {
        let part = &mut self.parts[place.part];
        match place.variant {
            Some(variant) => &mut part.variants[variant].slots,
            None => &mut part.slots,
        }
    }

    /// Decodes what an `Option` or newtype has in it: for a visitor that does not say of what type that is.
    fn whole<T>(
        &mut self,
        place: Place,
        visit: impl FnOnce(Tracer<'_>) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        self.content = None;
        let visited = visit(Tracer { trace: &mut *self });
        let content = self.content.take();
        let slots = self.slots(place);
        if slots.is_empty() {
            slots.push(content);
        }
        visited
    }

    /// Decodes what stands in a slot.
    fn slot<T: DeserializeSeed<'static>>(
        &mut self,
        place: Place,
        at: usize,
        seed: T,
    ) -> Result<T::Value, Refused> {
        let at = at.min(MAX_SLOTS - 1);
        let name = std::any::type_name::<T::Value>();
        let decode = |trace: &mut Self| seed.deserialize(Tracer { trace });
        let (decoded, content) = self.within(typeid::of::<T::Value>(), name, decode);
        let is_opaque = matches!(content, Content::Opaque(_));
        let slots = self.slots(place);
        if slots.len() <= at {
            slots.resize(at + 1, None);
        }
        if slots[at].is_none() || is_opaque {
            slots[at] = Some(content);
        }
        decoded
    }
}

/// Whose slots they are.
#[derive(Clone, Copy)]
struct Place {
    part: usize,
    variant: Option<usize>,
}

/// Decodes one made-up value.
pub(super) struct Tracer<'t> {
    trace: &'t mut Trace,
}

impl Tracer<'_> {
    fn plain<T>(
        self,
        name: &'static str,
        visit: impl FnOnce(usize) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        self.trace.burn()?;
        let shift = self.trace.shift;
        let visited = visit(shift);
        self.trace.content = Some(Content::Plain(name));
        visited
    }

    /// A byte string: a sequence of `u8`.
    fn bytes<T>(self, visit: impl FnOnce(&'static [u8]) -> Result<T, Refused>) -> Result<T, Refused> {
        self.plain("[u8]", |shift| visit(&BYTES[..LENGTHS[shift % LENGTHS.len()]]))
    }

    fn string<T>(self, visit: impl FnOnce(&'static str) -> Result<T, Refused>) -> Result<T, Refused> {
        self.plain("str", |shift| visit(STRINGS[shift % STRINGS.len()]))
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
        let visited = visitor.visit_seq(Elements { trace: &mut *trace, place, next: 0, len });
        trace.leave(part);
        visited
    }

    fn unsupported<T>(self) -> Result<T, Refused> {
        self.trace.blame = Blame::Hopeless;
        Err(Refused)
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ident)*) => {$(
        fn $method<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Refused> {
            self.plain(stringify!($type), |shift| visitor.$visit(NUMBERS[shift % NUMBERS.len()] as $type))
        }
    )*};
}

impl<'t> de::Deserializer<'static> for Tracer<'t> {
    type Error = Refused;

    /// As the codec's.
    fn is_human_readable(&self) -> bool {
        false
    }

    numbers! {
        deserialize_i8 visit_i8 i8
        deserialize_i16 visit_i16 i16
        deserialize_i32 visit_i32 i32
        deserialize_i64 visit_i64 i64
        deserialize_i128 visit_i128 i128
        deserialize_u8 visit_u8 u8
        deserialize_u16 visit_u16 u16
        deserialize_u32 visit_u32 u32
        deserialize_u64 visit_u64 u64
        deserialize_u128 visit_u128 u128
        deserialize_f32 visit_f32 f32
        deserialize_f64 visit_f64 f64
        deserialize_char visit_char char
    }

    fn deserialize_bool<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.plain("bool", |shift| visitor.visit_bool(shift % 2 == 1))
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
        trace.parts[part].is_done |= is_some && visited.is_ok();
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
        let len = usize::from(trace.is_filled(part));
        let place = Place { part, variant: None };
        let visited = visitor.visit_seq(Elements { trace: &mut *trace, place, next: 0, len });
        trace.parts[part].is_done |= len > 0 && visited.is_ok();
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
        let Self { trace } = self;
        let part = trace.enter::<V>(Shape::Map, "", Kind::Map)?;
        let len = if trace.is_filled(part) { 2 } else { 0 };
        let place = Place { part, variant: None };
        let visited = visitor.visit_map(Elements { trace: &mut *trace, place, next: 0, len });
        trace.parts[part].is_done |= len > 0 && visited.is_ok();
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
            return Err(trace.dead_end());
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

    fn deserialize_identifier<V: Visitor<'static>>(self, _: V) -> Result<V::Value, Refused> {
        self.unsupported()
    }

    fn deserialize_any<V: Visitor<'static>>(self, _: V) -> Result<V::Value, Refused> {
        self.unsupported()
    }

    fn deserialize_ignored_any<V: Visitor<'static>>(self, _: V) -> Result<V::Value, Refused> {
        self.unsupported()
    }
}

/// The elements of a sequence, tuple or struct, or the keys and values of a map in turn.
struct Elements<'t> {
    trace: &'t mut Trace,
    place: Place,
    next: usize,
    len: usize,
}

impl Elements<'_> {
    fn next<T: DeserializeSeed<'static>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        if self.next >= self.len {
            return Ok(None);
        }
        let at = self.next;
        self.next += 1;
        self.trace.slot(self.place, at, seed).map(Some)
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
        Ok((seed.deserialize(index)?, self))
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
        visitor.visit_seq(Elements { trace: self.trace, place, next: 0, len })
    }

    fn struct_variant<V: Visitor<'static>>(
        mut self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let place = self.place(Kind::Struct(fields));
        visitor.visit_seq(Elements { trace: self.trace, place, next: 0, len: fields.len() })
    }
}

/// What a visitor says that it expects.
struct Expecting<'v, V>(&'v V);

impl<V: Visitor<'static>> fmt::Display for Expecting<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }
}

/// A type refused a value. Why does not matter.
#[derive(Debug)]
pub(super) struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a made-up value was refused")
    }
}

impl std::error::Error for Refused {}

impl de::Error for Refused {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only decoded")]
    enum Field<T> {
        Set(Box<T>),
        Unset,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only decoded")]
    struct Fields<T> {
        a: Field<T>,
        b: Field<T>,
        c: Field<T>,
        d: Field<T>,
    }

    #[test]
    fn enums_whose_first_variants_are_large_take_little_fuel() {
        type Five<T> = Fields<Fields<Fields<Fields<Fields<T>>>>>;
        let mut trace = Trace { fuel: FUEL, ..Trace::default() };
        let traced = trace.run("fields", |tracer| <Five<Five<u8>>>::deserialize(tracer).map(drop));
        assert!(traced.is_some());
        // There are ten levels with four fields each; every field made whole would be a million.
        assert!(FUEL - trace.fuel < 1000, "it took {}", FUEL - trace.fuel);
    }
}
