//! What tracing found: the parts that types are made of.

use std::any::TypeId;

use super::Why;

/// What stands in one place.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Plain(&'static str),
    /// A byte string.
    Bytes,
    /// A part, by its index.
    Part(usize),
    /// A loan, as its visitor calls it.
    Loan(String),
    /// What cannot be traced: a type by its full name.
    Opaque(&'static str, Why),
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
    /// Whether it can only be made with nothing in it: what would be has no values, or is opaque.
    pub(super) is_barren: bool,
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
            is_barren: false,
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
