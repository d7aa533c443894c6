//! The search through the values of a type: what each pass chooses, and what it found.

use std::any::TypeId;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::DeserializeSeed;

use super::check::Differs;
use super::guess::{self, Guesses};
use super::tracer::{Refused, Tracer};
use super::values::{FILLINGS, STRINGS};
use crate::codec::{Coding, MAX_DEPTH};
use crate::form::Why;
use crate::form::graph::{self, Bare, Content, Goal, Key, Kind, Part, Quick, Slot, State};

/// How many values a type may refuse.
const TRIES: usize = STRINGS.len() + 1;
/// The most values that are decoded in all, so that the search ends for types with too many combinations.
const FUEL: usize = 1 << 23;
/// The most passes in a row that find nothing new.
const IDLE_PASSES: usize = 256;
/// From this depth on, what is known to end is chosen.
const DEEP: usize = 32;
/// How many elements of an array are traced one by one. The elements of longer arrays are all alike.
pub(super) const MAX_SLOTS: usize = 256;
/// How often content is made for a position for which that fails.
const FILLS: usize = 64;

/// Decodes a made-up value of a type, and looks at how it is written.
pub(in crate::form) type Make = fn(&mut Trace) -> Result<(), Refused>;

/// The result of tracing a type.
pub(in crate::form) struct Traced {
    pub(in crate::form) parts: Vec<Part>,
    pub(in crate::form) root: Content,
    /// Whether the search ended before it had seen all of the type.
    pub(in crate::form) is_cut: bool,
    pub(in crate::form) coding: Coding,
    /// Why the type cannot be carried.
    pub(in crate::form) unsupported: Option<String>,
}

/// Traces the type of this name.
pub(in crate::form) fn trace(name: &'static str, make: Make) -> Traced {
    let (packed, root, is_cut) = Trace::of(name, make, Coding::Packed);
    let unlike = match packed.differs {
        None if is_cut || !packed.opaque.is_empty() => String::new(),
        None => match graph::unlike(&packed.parts) {
            None => {
                return Traced {
                    parts: packed.parts,
                    root,
                    is_cut,
                    coding: Coding::Packed,
                    unsupported: None,
                };
            }
            Some(unlike) => unlike,
        },
        Some(Differs::InOrder(why)) => why,
        Some(Differs::Hopelessly(why)) => {
            let (parts, coding) = (packed.parts, Coding::Described);
            return Traced { parts, root, is_cut, coding, unsupported: Some(why) };
        }
    };
    // In the other coding a type may look different: it is told that the format is human-readable.
    let (described, root, is_cut) = Trace::of(name, make, Coding::Described);
    let unsupported = match described.differs {
        Some(Differs::Hopelessly(why)) => Some(why),
        _ => described.lost.map(|lost| if unlike.is_empty() { lost } else { format!("{lost}; {unlike}") }),
    };
    Traced { parts: described.parts, root, is_cut, coding: Coding::Described, unsupported }
}

#[derive(Default)]
pub(in crate::form) struct Trace {
    pub(super) parts: Vec<Part>,
    by_key: HashMap<(Key, Shape), usize>,
    /// How often each type has refused.
    refusals: HashMap<TypeId, usize>,
    /// Why types are opaque.
    opaque: HashMap<TypeId, Why>,
    pub(super) pass: usize,
    pub(super) fuel: usize,
    /// The last pass that found something new.
    pub(super) found_at: usize,
    goal: Option<Goal>,
    /// Whether values are made up, and tried, for the described coding.
    pub(super) is_described: bool,
    /// How the type's writer differs from its reader.
    pub(super) differs: Option<Differs>,
    /// What a value loses on its way in the described coding.
    pub(super) lost: Option<String>,
    /// What is tried for types that ask what comes next.
    pub(super) guesses: HashMap<TypeId, Guesses>,
    /// Those of them for which there was more to try when the pass began.
    open: graph::Open,
    /// Positions for which content was made, in passes that succeeded.
    filled: HashMap<Edge, usize>,

    // Of this pass:
    depth: usize,
    /// How many of the enclosing arrays are at elements that need not be traced.
    skimmed: usize,
    /// The types that are being decoded, from the outermost in.
    pub(super) around: Vec<(TypeId, &'static str)>,
    /// Which of the values to try: the sum of the refusals of all enclosing types.
    pub(super) shift: usize,
    /// How many values without parts were made.
    leaves: usize,
    pub(super) mode: Mode,
    /// What was made bare, if something was.
    stripped: Option<Place>,
    /// The position at which a value is made, and those for which content is made in this pass.
    edge: Option<Edge>,
    filling: Vec<Edge>,
    /// What was decoded last.
    pub(super) content: Slot,
    pub(super) blame: Blame,
}

/// The type that is to blame for a failed pass.
#[derive(Clone, Copy, Default, PartialEq)]
pub(super) enum Blame {
    /// The innermost type is, and there are other values to try.
    #[default]
    Innermost,
    /// The innermost type is, and no value would help.
    Hopeless,
    /// An opaque type refused, so the types around it cannot be decoded either.
    Opaque,
    /// A type has no values, so the types around it have none either.
    Empty,
    /// The blame was assigned.
    Settled,
}

/// Which values are made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Mode {
    #[default]
    Full,
    /// Options and collections are empty.
    Empty,
    /// Numbers, strings and the like are, too.
    Bare,
}

/// How to make a value without parts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Made {
    /// As 0.
    Bare,
    /// Other than those around it: the number of the value.
    Distinct(usize),
    /// From the list, at this index.
    Listed(usize),
}

impl Made {
    pub(super) fn pick<T>(
        self,
        bare: T,
        distinct: impl FnOnce(usize) -> T,
        listed: impl FnOnce(usize) -> T,
    ) -> T {
        match self {
            Self::Bare => bare,
            Self::Distinct(number) => distinct(number),
            Self::Listed(index) => listed(index),
        }
    }
}

/// A position in a part or variant.
type Edge = (Place, usize);

/// Distinguishes parts of the same visitor that were decoded by different methods.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Shape {
    Newtype,
    Option,
    Seq,
    Map,
    Tuple(usize),
    Struct,
    Enum,
}

impl Trace {
    /// Traces a type in one of the codings. Returns what the type is, and whether the search ended before it
    /// had seen all of it.
    fn of(name: &'static str, make: Make, coding: Coding) -> (Self, Content, bool) {
        let is_described = coding == Coding::Described;
        let goal = Some(if is_described { Goal::Seen } else { Goal::Written });
        let mut trace = Self { fuel: FUEL, goal, is_described, ..Self::default() };
        let (content, is_cut) = trace.run(name, make);
        (trace, content, is_cut)
    }

    fn run(&mut self, name: &'static str, make: Make) -> (Content, bool) {
        // Represents the type as a whole, which may have no id.
        let root = TypeId::of::<Tracer<'static>>();
        let mut made = None;
        loop {
            self.pass += 1;
            self.begin();
            let decoded = catch_unwind(AssertUnwindSafe(|| self.within(root, name, make)));
            match decoded {
                Ok((decoded, content)) if decoded.is_ok() || self.blame == Blame::Empty => {
                    self.succeeded();
                    while self.goal.is_some() {
                        graph::find_leads(&mut self.parts, self.goal, &graph::Open::new());
                        if matches!(content, Content::Part(part) if self.parts[part].leads) {
                            break;
                        }
                        self.next_goal();
                    }
                    let is_over = self.goal.is_none() && self.open().is_empty();
                    if is_over || self.is_settled() {
                        return (content, false);
                    }
                    made = Some(content);
                }
                Ok(_) => self.failed(),
                // A type that panics is not run again.
                Err(_) => {
                    let id = self.around.last().map_or(root, |(id, _)| *id);
                    self.give_up(id, Why::Panics);
                    self.found_at = self.pass;
                }
            }
            if let Some(why) = self.opaque.get(&root) {
                return (Content::Opaque(name, *why), false);
            }
            if self.fuel == 0 || self.pass - self.found_at > IDLE_PASSES {
                let Some(content) = made.clone() else { return (Content::Opaque(name, Why::TooMuch), false) };
                graph::find_leads(&mut self.parts, Some(Goal::Seen), &graph::Open::new());
                let is_cut = matches!(content, Content::Part(part) if self.parts[part].leads);
                self.next_goal();
                if self.goal.is_none() || is_cut || self.fuel == 0 {
                    return (content, is_cut);
                }
                self.found_at = self.pass;
            }
        }
    }

    fn next_goal(&mut self) {
        self.goal = match self.goal {
            Some(Goal::Seen | Goal::Written) => Some(Goal::Bare),
            Some(Goal::Bare) | None => None,
        };
    }

    /// Whether no further value would change what is made of the type.
    fn is_settled(&self) -> bool {
        matches!(self.differs, Some(Differs::Hopelessly(_))) || self.lost.is_some()
    }

    /// A value could be made as a whole.
    fn succeeded(&mut self) {
        for guesses in self.guesses.values_mut() {
            guesses.succeeded(self.pass);
        }
        for edge in self.filling.drain(..) {
            self.filled.insert(edge, FILLS);
        }
        if let Some(place) = self.stripped {
            let bare = self.bare(place);
            // Where not all fields can be bare at once, each has its turn.
            bare.is_done = bare.tries == 0;
            bare.tries += 1;
            self.found_at = self.pass;
        }
    }

    fn failed(&mut self) {
        for edge in self.filling.drain(..) {
            *self.filled.entry(edge).or_default() += 1;
        }
        if let Some(place) = self.stripped {
            self.bare(place).tries += 1;
            self.found_at = self.pass;
        }
    }

    fn bare(&mut self, place: Place) -> &mut Bare {
        let part = &mut self.parts[place.part];
        match place.variant {
            Some(variant) => &mut part.variants[variant].bare,
            None => &mut part.bare,
        }
    }

    /// Whether the fields of a value are to be bare, and at which try: where that is what the search is after,
    /// and for one value in each pass.
    pub(super) fn strip(&mut self, place: Place, kind: Kind) -> Option<usize> {
        let part = &self.parts[place.part];
        let is_wanted = match place.variant {
            Some(variant) => part.variants[variant].is_wanted(Goal::Bare),
            None => part.is_wanted(Goal::Bare),
        };
        let has_fields = !matches!(kind, Kind::Struct([]) | Kind::Tuple(0));
        let is_now = self.goal == Some(Goal::Bare) && self.stripped.is_none() && self.skimmed == 0;
        if !(is_now && is_wanted && has_fields) {
            return None;
        }
        self.stripped = Some(place);
        Some(self.bare(place).tries)
    }

    /// Sets how the field at this position is made, and returns how the value that it is in is.
    pub(super) fn undress(&mut self, bare: Option<usize>, at: usize) -> Mode {
        let around = self.mode;
        self.mode = match bare {
            None => around,
            Some(0) => Mode::Bare,
            Some(1) => Mode::Empty,
            Some(tries) if tries - Bare::TOGETHER == at => Mode::Bare,
            Some(_) => around,
        };
        around
    }

    /// How the value at hand, which has no parts, is made.
    pub(super) fn make(&mut self) -> Made {
        self.leaves += 1;
        match (self.mode, self.shift.checked_sub(1)) {
            (Mode::Bare, _) => Made::Bare,
            (_, None) => Made::Distinct(self.leaves - 1),
            (_, Some(index)) => Made::Listed(index),
        }
    }

    fn begin(&mut self) {
        for part in &mut self.parts {
            part.open = 0;
            part.variants.iter_mut().for_each(|variant| variant.is_open = false);
        }
        self.open = self.open();
        graph::find_leads(&mut self.parts, self.goal, &self.open);
        (self.depth, self.skimmed, self.shift, self.leaves) = (0, 0, 0, 0);
        (self.mode, self.stripped, self.edge) = (Mode::Full, None, None);
        self.filling.clear();
        self.around.clear();
        (self.content, self.blame) = (None, Blame::Innermost);
    }

    /// Decodes a value of one type, and returns what the type is.
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
        self.around.push((id, name));
        let decoded = decode(self);
        self.around.pop();
        self.shift = shift;
        // A type that asks for nothing takes no bytes on the wire.
        let content = self.content.take().unwrap_or(Content::Plain("()"));
        if let Some(guesses) = self.guesses.get_mut(&id)
            && guesses.tried(self.pass, decoded.is_ok())
        {
            self.found_at = self.pass;
            if decoded.is_err() {
                self.blame = Blame::Settled;
            }
            if guesses.is_too_wide {
                self.lost.get_or_insert_with(|| guess::too_wide(name));
            }
        }
        if decoded.is_err() {
            self.refused(id);
        }
        let content = self.opaque.get(&id).map_or(content, |why| Content::Opaque(name, *why));
        (decoded, content)
    }

    /// Assigns the blame for a refusal.
    fn refused(&mut self, id: TypeId) {
        match self.blame {
            Blame::Settled | Blame::Empty => return,
            // It would have taken a value that is not bare.
            Blame::Innermost if self.stripped.is_some() => {}
            Blame::Innermost => {
                let refusals = self.refusals.entry(id).or_default();
                *refusals += 1;
                if *refusals >= TRIES {
                    self.give_up(id, Why::Refuses);
                }
            }
            Blame::Hopeless => self.give_up(id, Why::AsksWhatIsNext),
            Blame::Opaque => self.give_up(id, Why::Contains),
        }
        (self.blame, self.found_at) = (Blame::Settled, self.pass);
    }

    /// Marks the type as opaque. If it contains itself, it may be so already, for another reason.
    fn give_up(&mut self, id: TypeId, why: Why) {
        self.opaque.entry(id).or_insert(why);
    }

    /// Fails without blame on the type: another pass makes other choices.
    pub(super) fn dead_end(&mut self) -> Refused {
        self.blame = Blame::Settled;
        Refused
    }

    pub(super) fn burn(&mut self) -> Result<(), Refused> {
        match self.fuel.checked_sub(1) {
            Some(fuel) => self.fuel = fuel,
            None => return Err(self.dead_end()),
        }
        Ok(())
    }

    /// Begins to decode a value of a type that contains others.
    pub(super) fn enter<V>(
        &mut self,
        shape: Shape,
        name: &'static str,
        kind: Kind,
    ) -> Result<usize, Refused> {
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

    pub(super) fn leave(&mut self, index: usize) {
        self.parts[index].open -= 1;
        self.depth -= 1;
        self.content = Some(Content::Part(index));
    }

    /// Whether to decode content in an `Option`, a sequence or a map.
    pub(super) fn is_filled(&mut self, index: usize) -> bool {
        if self.mode != Mode::Full {
            return false;
        }
        // At each position once: a field may be written in another way than the others of its type.
        let edge = self.edge.filter(|edge| self.filled.get(edge).is_none_or(|fills| *fills < FILLS));
        let edge = edge.filter(|edge| self.skimmed == 0 && !self.filling.contains(edge));
        let part = &mut self.parts[index];
        let leads = part.leads && part.spent < self.pass && self.skimmed == 0;
        let is_wanted = !part.is_done || leads || edge.is_some() || self.is_odd();
        let part = &mut self.parts[index];
        let is_opaque = part.slots.iter().any(|slot| matches!(slot, Some(Content::Opaque(..))));
        let is_possible = part.open == 1 && !part.is_barren && !is_opaque;
        if is_wanted && is_possible {
            part.spent = self.pass;
            self.filling.extend(edge);
        }
        is_wanted && is_possible
    }

    /// Whether an `Option` or a collection has content for the sake of a type that refused it without.
    fn is_odd(&self) -> bool {
        self.shift % 2 == 1
    }

    /// Records whether the content could be decoded.
    pub(super) fn filled(&mut self, index: usize, is_ok: bool) {
        let part = &mut self.parts[index];
        part.is_done |= is_ok;
        if !is_ok && matches!(self.blame, Blame::Empty | Blame::Opaque) {
            part.is_barren = true;
            (self.blame, self.found_at) = (Blame::Settled, self.pass);
        }
    }

    /// How many elements to decode in a sequence or map.
    pub(super) fn filling(&mut self, index: usize) -> usize {
        match self.is_filled(index) {
            true if self.is_odd() => FILLINGS[self.shift / 2 % FILLINGS.len()],
            is_filled => usize::from(is_filled),
        }
    }

    /// Which variant of an enum to decode.
    pub(super) fn choose(&mut self, index: usize) -> Option<usize> {
        let part = &self.parts[index];
        let variants = || part.variants.iter().enumerate().filter(|(_, variant)| !variant.is_open);
        let of = |state| variants().filter(move |(_, variant)| variant.state == state);
        let unseen = of(State::Unseen).min_by_key(|(_, variant)| variant.attempts);
        let leads = |variant: &graph::Variant| {
            self.goal.is_some_and(|goal| variant.is_wanted(goal))
                || graph::any_leads(&self.parts, &variant.slots, &self.open)
        };
        let leading = of(State::Seen).filter(|(_, variant)| leads(variant));
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

    /// Records whether a variant could be decoded, and its cost in fuel.
    pub(super) fn made(&mut self, index: usize, chosen: usize, is_ok: bool, cost: usize) {
        let part = &mut self.parts[index];
        let others = part.variants.iter().filter(|variant| !variant.is_out()).count() > 1;
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
        // Without the last variant that is left, the enum cannot be decoded at all.
        if variant.state == State::Seen || !others {
            return;
        }
        match self.blame {
            Blame::Settled => return,
            Blame::Innermost if self.stripped.is_some() => {}
            Blame::Innermost if variant.refusals < TRIES => variant.refusals += 1,
            Blame::Empty => variant.state = State::Empty,
            Blame::Innermost | Blame::Hopeless | Blame::Opaque => variant.state = State::Refused,
        }
        (self.blame, self.found_at) = (Blame::Settled, self.pass);
    }

    fn slots(&mut self, place: Place) -> &mut Vec<Slot> {
        let part = &mut self.parts[place.part];
        match place.variant {
            Some(variant) => &mut part.variants[variant].slots,
            None => &mut part.slots,
        }
    }

    /// Decodes the content of an `Option` or newtype, whose visitor does not tell its type.
    pub(super) fn whole<T>(
        &mut self,
        place: Place,
        visit: impl FnOnce(Tracer<'_>) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        self.content = None;
        let edge = self.edge.replace((place, 0));
        let visited = visit(Tracer::new(&mut *self));
        self.edge = edge;
        let content = self.content.take();
        let slots = self.slots(place);
        if slots.is_empty() {
            slots.push(content);
        }
        visited
    }

    /// Decodes the content of a slot.
    pub(super) fn slot<T: DeserializeSeed<'static>>(
        &mut self,
        place: Place,
        at: usize,
        seed: T,
    ) -> Result<T::Value, Refused> {
        let is_skimmed = at >= MAX_SLOTS;
        let at = at.min(MAX_SLOTS - 1);
        let name = std::any::type_name::<T::Value>();
        let decode = |trace: &mut Self| seed.deserialize(Tracer::new(trace));
        self.skimmed += usize::from(is_skimmed);
        let edge = self.edge.replace((place, at));
        let (decoded, content) = self.within(typeid::of::<T::Value>(), name, decode);
        self.edge = edge;
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

/// The part, or the variant of an enum, that slots belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) part: usize,
    pub(super) variant: Option<usize>,
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Serialize, Deserialize)]
    enum Field<T> {
        Set(Box<T>),
        Unset,
    }

    #[derive(Serialize, Deserialize)]
    struct Fields<T> {
        a: Field<T>,
        b: Field<T>,
        c: Field<T>,
        d: Field<T>,
    }

    #[test]
    fn enums_whose_first_variants_are_large_take_little_fuel() {
        type Five<T> = Fields<Fields<Fields<Fields<Fields<T>>>>>;
        let make: Make = super::super::make::<Five<Five<u8>>>;
        let (trace, content, is_cut) = Trace::of("fields", make, Coding::Packed);
        assert!(matches!(content, Content::Part(_)) && !is_cut);
        // There are ten levels with four fields each; every field made whole would be a million.
        assert!(FUEL - trace.fuel < 1000, "it took {}", FUEL - trace.fuel);
    }
}
