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

use super::Why;
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
/// No `NonZero` is 0, and most ranges have one of these: percentages, ports, years, or seconds since 1970 for example. Where one
/// does not fit its lowest bits are taken.
const NUMBERS: [i64; 12] = [1, 0, 2, 10, 100, 1_000, 2_000, 10_000, 50_000, 1_000_000, 1_700_000_000, -1];
const FRACTIONS: [f32; 8] = [1.0, 0.5, 0.0, -1.0, 10.0, 100.0, 1_000.0, 1_000_000.0];
const CHARS: [char; 6] = ['a', 'A', '0', ' ', '-', '\u{e9}'];
/// Lengths: of a UUID, an address, or a key for example.
const LENGTHS: [usize; 9] = [0, 1, 2, 4, 8, 16, 20, 32, 64];
const BYTES: [u8; 64] = [1; 64];
/// Elements of a sequence that was refused when it had one, or none.
const FILLINGS: [usize; 3] = [2, 4, 8];

/// How often a type may refuse.
const TRIES: usize = STRINGS.len();
/// Values decoded in all, so that a type with too many ways through it ends.
const FUEL: usize = 1 << 23;
/// Passes in a row that find nothing.
const IDLE_PASSES: usize = 256;
/// From here on the way that ends is taken, if it is known.
const DEEP: usize = 32;
/// Elements of an array that are looked at one by one: those of longer ones are all alike.
const MAX_SLOTS: usize = 256;

/// What a type was found to be.
pub(super) struct Traced {
    pub(super) parts: Vec<Part>,
    pub(super) root: Content,
    /// Whether there was too much of it to see it all.
    pub(super) is_cut: bool,
}

/// Traces what `decode` decodes, called `name`.
pub(super) fn trace(name: &'static str, decode: fn(Tracer<'_>) -> Result<(), Refused>) -> Traced {
    let mut trace = Trace { fuel: FUEL, ..Trace::default() };
    let (root, is_cut) = trace.run(name, decode);
    Traced { parts: trace.parts, root, is_cut }
}

#[derive(Default)]
struct Trace {
    parts: Vec<Part>,
    by_key: HashMap<(Key, Shape), usize>,
    /// How often each type has refused.
    refusals: HashMap<TypeId, usize>,
    /// Why types are opaque.
    opaque: HashMap<TypeId, Why>,
    pass: usize,
    fuel: usize,
    /// When something new was found last.
    found_at: usize,

    // Of this pass:
    depth: usize,
    /// How many of the arrays around are at elements that need not be looked at.
    skimmed: usize,
    /// The types that are being decoded.
    around: Vec<TypeId>,
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
    /// A type has no values: what is around it has none either.
    Empty,
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
    /// Gives what the type is, and whether there was too much of it to see it all.
    fn run(&mut self, name: &'static str, decode: fn(Tracer<'_>) -> Result<(), Refused>) -> (Content, bool) {
        // Stands for the type as a whole, which need not be one that has an id.
        let root = TypeId::of::<Tracer<'static>>();
        let mut made = None;
        loop {
            self.pass += 1;
            self.begin();
            let decoded =
                catch_unwind(AssertUnwindSafe(|| self.within(root, name, |trace| decode(Tracer { trace }))));
            match decoded {
                Ok((decoded, content)) if decoded.is_ok() || self.blame == Blame::Empty => {
                    graph::find_leads(&mut self.parts);
                    if !matches!(content, Content::Part(part) if self.parts[part].leads) {
                        return (content, false);
                    }
                    made = Some(content);
                }
                Ok(_) => {}
                // A type that panics is not run again.
                Err(_) => {
                    let id = self.around.last().copied().unwrap_or(root);
                    self.give_up(id, Why::Panics);
                    self.found_at = self.pass;
                }
            }
            if let Some(why) = self.opaque.get(&root) {
                return (Content::Opaque(name, *why), false);
            }
            if self.fuel == 0 || self.pass - self.found_at > IDLE_PASSES {
                let is_cut = made.is_some();
                return (made.unwrap_or(Content::Opaque(name, Why::TooMuch)), is_cut);
            }
        }
    }

    fn begin(&mut self) {
        for part in &mut self.parts {
            part.open = 0;
            part.variants.iter_mut().for_each(|variant| variant.is_open = false);
        }
        graph::find_leads(&mut self.parts);
        (self.depth, self.skimmed, self.shift) = (0, 0, 0);
        self.around.clear();
        (self.content, self.blame) = (None, Blame::Nobody);
    }

    /// Decodes a value of one type, and says what it is.
    fn within<T>(
        &mut self,
        id: TypeId,
        name: &'static str,
        decode: impl FnOnce(&mut Self) -> Result<T, Refused>,
    ) -> (Result<T, Refused>, Content) {
        if let Some(why) = self.opaque.get(&id) {
            self.blame = Blame::Opaque;
            return (Err(Refused), Content::Opaque(name, *why));
        }
        let shift = self.shift;
        self.shift += self.refusals.get(&id).copied().unwrap_or_default();
        self.content = None;
        self.around.push(id);
        let decoded = decode(self);
        self.around.pop();
        self.shift = shift;
        // A type that asks for nothing is nothing on the wire.
        let content = self.content.take().unwrap_or(Content::Plain("()"));
        if decoded.is_err() {
            self.refused(id);
        }
        let content = self.opaque.get(&id).map_or(content, |why| Content::Opaque(name, *why));
        (decoded, content)
    }

    /// Settles who is to blame.
    fn refused(&mut self, id: TypeId) {
        match self.blame {
            Blame::Somebody | Blame::Empty => return,
            Blame::Nobody => {
                let refusals = self.refusals.entry(id).or_default();
                *refusals += 1;
                if *refusals >= TRIES {
                    self.give_up(id, Why::Refuses);
                }
            }
            Blame::Hopeless => self.give_up(id, Why::AsksWhatIsNext),
            Blame::Opaque => self.give_up(id, Why::Contains),
        }
        (self.blame, self.found_at) = (Blame::Somebody, self.pass);
    }

    /// Takes the type for opaque. It may be within itself, and be so for a reason of its own by now.
    fn give_up(&mut self, id: TypeId, why: Why) {
        self.opaque.entry(id).or_insert(why);
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
        let leads = part.leads && part.spent < self.pass && self.skimmed == 0;
        let is_wanted = !part.is_done || leads || self.shift % 2 == 1;
        let is_opaque = part.slots.iter().any(|slot| matches!(slot, Some(Content::Opaque(..))));
        let is_possible = part.open == 1 && !part.is_barren && !is_opaque;
        if is_wanted && is_possible {
            part.spent = self.pass;
        }
        is_wanted && is_possible
    }

    /// Says how the filling of one ended.
    fn filled(&mut self, index: usize, is_ok: bool) {
        let part = &mut self.parts[index];
        part.is_done |= is_ok;
        if !is_ok && matches!(self.blame, Blame::Empty | Blame::Opaque) {
            part.is_barren = true;
            (self.blame, self.found_at) = (Blame::Somebody, self.pass);
        }
    }

    /// How many elements to put into a sequence or map.
    fn filling(&mut self, index: usize) -> usize {
        match self.is_filled(index) {
            true if self.shift % 2 == 1 => FILLINGS[self.shift / 2 % FILLINGS.len()],
            is_filled => usize::from(is_filled),
        }
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
        let is_deep = part.open > 1 || self.depth > DEEP || self.skimmed > 0;
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
            Blame::Nobody | Blame::Hopeless | Blame::Opaque | Blame::Empty => variant.state = State::Refused,
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
        let is_skimmed = at >= MAX_SLOTS;
        let at = at.min(MAX_SLOTS - 1);
        let name = std::any::type_name::<T::Value>();
        let decode = |trace: &mut Self| seed.deserialize(Tracer { trace });
        self.skimmed += usize::from(is_skimmed);
        let (decoded, content) = self.within(typeid::of::<T::Value>(), name, decode);
        self.skimmed -= usize::from(is_skimmed);
        let is_opaque = matches!(content, Content::Opaque(..));
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
        self.whole(Content::Plain(name), visit)
    }

    /// What has no parts.
    fn whole<T>(
        self,
        content: Content,
        visit: impl FnOnce(usize) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        self.trace.burn()?;
        let shift = self.trace.shift;
        let visited = visit(shift);
        self.trace.content = Some(content);
        visited
    }

    fn bytes<T>(self, visit: impl FnOnce(&'static [u8]) -> Result<T, Refused>) -> Result<T, Refused> {
        self.whole(Content::Bytes, |shift| visit(&BYTES[..LENGTHS[shift % LENGTHS.len()]]))
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
        let visited = visitor.visit_seq(Elements::new(&mut *trace, place, len));
        trace.leave(part);
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
            self.plain(stringify!($type), |shift| visitor.$visit($values[shift % $values.len()] as $type))
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
        deserialize_char visit_char char CHARS
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
    /// How many slots they share.
    period: usize,
}

impl<'t> Elements<'t> {
    /// Each has a slot of its own.
    fn new(trace: &'t mut Trace, place: Place, len: usize) -> Self {
        Self { trace, place, next: 0, len, period: usize::MAX }
    }

    fn next<T: DeserializeSeed<'static>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        if self.next >= self.len {
            return Ok(None);
        }
        let at = self.next % self.period;
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
        visitor.visit_seq(Elements::new(self.trace, place, len))
    }

    fn struct_variant<V: Visitor<'static>>(
        mut self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let place = self.place(Kind::Struct(fields));
        visitor.visit_seq(Elements::new(self.trace, place, fields.len()))
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
        let (content, is_cut) = trace.run("fields", |tracer| <Five<Five<u8>>>::deserialize(tracer).map(drop));
        assert!(matches!(content, Content::Part(_)) && !is_cut);
        // There are ten levels with four fields each; every field made whole would be a million.
        assert!(FUEL - trace.fuel < 1000, "it took {}", FUEL - trace.fuel);
    }
}
