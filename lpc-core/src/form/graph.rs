//! The result of tracing: the parts that types consist of.

use std::any::TypeId;

use super::Why;

/// The content of one slot.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Plain(&'static str),
    /// A byte string.
    Bytes,
    /// A part, by its index.
    Part(usize),
    /// A loan, as its visitor describes it.
    Loan(String),
    /// A type that cannot be traced, by its full name.
    Opaque(&'static str, Why),
}

/// A position in a type: a field, an element. `None` until its content was seen.
pub(super) type Slot = Option<Content>;

/// Identifies a part. A derived visitor has the parameters of its type, and no other type has the same
/// visitor, apart from lifetimes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) visitor: TypeId,
    pub(super) name: &'static str,
    /// The names of fields or variants.
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

/// A type that contains other types.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) kind: Kind,
    pub(super) slots: Vec<Slot>,
    /// The variants of an enum.
    pub(super) variants: Vec<Variant>,
    /// How many of its values are being decoded, one within the other.
    pub(super) open: usize,
    /// Whether a value with content was decoded.
    pub(super) is_done: bool,
    /// Whether only values without content can be decoded: the content has no values, or is opaque.
    pub(super) is_barren: bool,
    /// Whether it contains variants that had not been seen when the pass began.
    pub(super) leads: bool,
    /// The last pass in which it was decoded for the sake of such a variant.
    pub(super) spent: usize,
    /// The cheapest variant that was decoded as a whole, and its cost. Its content cost less, so the
    /// recursion ends.
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
    /// `None` for a variant without content, or whose content was not asked for.
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

/// Whether one of these slots leads to a variant that has not been seen.
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
