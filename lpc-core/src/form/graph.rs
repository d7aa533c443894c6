//! What tracing found: the parts that types are made of, and how they are written.

use std::any::TypeId;
use std::fmt::Write as _;

use super::{MAX_LEN, opaque};

/// What stands in one place.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Plain(&'static str),
    /// A part, by its index.
    Part(usize),
    /// A loan, as its visitor calls it.
    Loan(String),
    /// What cannot be traced: a type by its full name.
    Opaque(&'static str),
}

/// A place, as far as it is known.
pub(super) type Slot = Option<Content>;

/// By which a part is known again. A derived visitor has the parameters of its type, and nothing else but the type has
/// that visitor; lifetimes do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) visitor: TypeId,
    pub(super) name: &'static str,
    /// Of fields or variants.
    pub(super) names: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Newtype,
    Option,
    Seq,
    Map,
    Tuple(usize),
    Struct(&'static [&'static str]),
    Enum(&'static [&'static str]),
}

/// A type that has other types in it.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) kind: Kind,
    pub(super) slots: Vec<Slot>,
    /// Of an enum.
    pub(super) variants: Vec<Variant>,
    /// How many values of it are being made at the moment.
    pub(super) open: usize,
    /// Whether one was made, with something in it.
    pub(super) is_done: bool,
    /// Whether something within it has not been seen yet. As of the begin of the pass.
    pub(super) leads: bool,
    /// The last pass in which it was made for the sake of what it leads to.
    pub(super) spent: usize,
    /// Of the variants that were made as a whole the cheapest, and what it cost. What is in it was made for less, so it
    /// comes to an end.
    pub(super) quick: Option<Quick>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Quick {
    pub(super) variant: usize,
    /// In fuel.
    pub(super) cost: usize,
}

#[derive(Debug)]
pub(super) struct Variant {
    /// `None` for one that was not asked for its content, and where that is nothing.
    pub(super) kind: Option<Kind>,
    pub(super) slots: Vec<Slot>,
    pub(super) state: State,
    pub(super) is_open: bool,
    pub(super) attempts: usize,
    pub(super) refusals: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum State {
    Unseen,
    Seen,
    Refused,
}

impl Part {
    pub(super) fn new(kind: Kind) -> Self {
        let variant = || Variant {
            kind: None,
            slots: Vec::new(),
            state: State::Unseen,
            is_open: false,
            attempts: 0,
            refusals: 0,
        };
        let variants = if let Kind::Enum(names) = kind { names.len() } else { 0 };
        Self {
            kind,
            slots: Vec::new(),
            variants: std::iter::repeat_with(variant).take(variants).collect(),
            open: 0,
            is_done: false,
            leads: false,
            spent: 0,
            quick: None,
        }
    }
}

/// Whether one of these leads to what has not been seen.
pub(super) fn any_leads(parts: &[Part], slots: &[Slot]) -> bool {
    slots.iter().any(|slot| matches!(slot, Some(Content::Part(part)) if parts[*part].leads))
}

/// Finds the parts that lead to variants that have not been seen.
pub(super) fn find_leads(parts: &mut [Part]) {
    for part in &mut *parts {
        part.leads = false;
    }
    loop {
        let mut has_changed = false;
        for part in (0..parts.len()).rev() {
            let Part { slots, variants, leads: false, .. } = &parts[part] else { continue };
            let variant_leads = |variant: &Variant| match variant.state {
                State::Unseen => true,
                State::Seen => any_leads(parts, &variant.slots),
                State::Refused => false,
            };
            if any_leads(parts, slots) || variants.iter().any(variant_leads) {
                parts[part].leads = true;
                has_changed = true;
            }
        }
        if !has_changed {
            return;
        }
    }
}

/// The text of what stands in a place; `None` where it would be too long.
pub(super) fn text(parts: &[Part], content: &Content) -> Option<String> {
    let mut writer = Writer { parts, text: String::new(), level: 0, around: Vec::new() };
    writer.content(content).then_some(writer.text)
}

struct Writer<'p> {
    parts: &'p [Part],
    text: String,
    level: usize,
    /// The parts that are being written, and at which level each begins.
    around: Vec<(usize, usize)>,
}

impl Writer<'_> {
    /// `false` where the text is too long.
    fn content(&mut self, content: &Content) -> bool {
        match content {
            Content::Plain(name) => self.text.push_str(name),
            Content::Loan(form) => self.text.push_str(form),
            Content::Opaque(name) => self.text.push_str(&opaque(name)),
            Content::Part(part) => return self.part(*part),
        }
        self.text.len() <= MAX_LEN
    }

    fn part(&mut self, index: usize) -> bool {
        if let Some((_, level)) = self.around.iter().find(|(part, _)| *part == index) {
            return write!(self.text, "^{}", self.level - level).is_ok();
        }
        let part = &self.parts[index];
        self.around.push((index, self.level));
        // A newtype is not to be seen.
        self.level += usize::from(part.kind != Kind::Newtype);
        let fits = match part.kind {
            Kind::Newtype => self.slot(part.slots.first()),
            Kind::Option => self.within("Option<", &part.slots, ">"),
            Kind::Seq => self.within("[", &part.slots, "]"),
            Kind::Map => self.within("Map<", &part.slots, ">"),
            Kind::Tuple(len) => self.tuple(&part.slots, len),
            Kind::Struct(names) => self.fields(names, &part.slots),
            Kind::Enum(names) => self.variants(names, &part.variants),
        };
        self.level -= usize::from(part.kind != Kind::Newtype);
        self.around.pop();
        fits
    }

    /// What was never asked for is nothing that anybody could tell.
    fn slot(&mut self, slot: Option<&Slot>) -> bool {
        match slot {
            Some(Some(content)) => self.content(content),
            _ => self.content(&Content::Plain("_")),
        }
    }

    fn within(&mut self, before: &str, slots: &[Slot], after: &str) -> bool {
        self.text.push_str(before);
        let fits = if slots.is_empty() { self.slot(None) } else { self.list(slots) };
        self.text.push_str(after);
        fits
    }

    fn list(&mut self, slots: &[Slot]) -> bool {
        for (at, slot) in slots.iter().enumerate() {
            self.text.push_str(if at > 0 { ", " } else { "" });
            if !self.slot(Some(slot)) {
                return false;
            }
        }
        true
    }

    fn tuple(&mut self, slots: &[Slot], len: usize) -> bool {
        if len == 0 {
            return self.content(&Content::Plain("()"));
        }
        // A tuple of equal elements is an array: they are the same on the wire. Equal is what is written the same way.
        let before = self.text.len();
        let mut elements = Vec::new();
        for slot in slots {
            if !self.slot(Some(slot)) {
                return false;
            }
            elements.push(self.text.split_off(before));
        }
        let first = elements.first().map_or("_", String::as_str);
        if elements.iter().all(|element| element == first) {
            return write!(self.text, "[{first}; {len}]").is_ok() && self.text.len() <= MAX_LEN;
        }
        write!(self.text, "({})", elements.join(", ")).is_ok() && self.text.len() <= MAX_LEN
    }

    fn fields(&mut self, names: &[&str], slots: &[Slot]) -> bool {
        self.text.push('{');
        for (at, name) in names.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            if write!(self.text, "{comma}{name}: ").is_err() || !self.slot(slots.get(at)) {
                return false;
            }
        }
        self.text.push('}');
        self.text.len() <= MAX_LEN
    }

    fn variants(&mut self, names: &[&str], variants: &[Variant]) -> bool {
        self.text.push_str("enum {");
        for (at, (name, variant)) in names.iter().zip(variants).enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            let fits = write!(self.text, "{comma}{name}").is_ok()
                && match variant.kind {
                    None if variant.state == State::Refused => self.content(&Content::Plain("(!)")),
                    Some(Kind::Struct(names)) => self.fields(names, &variant.slots),
                    Some(_) => self.within("(", &variant.slots, ")"),
                    None => true,
                };
            if !fits || self.text.len() > MAX_LEN {
                return false;
            }
        }
        self.text.push('}');
        true
    }
}
