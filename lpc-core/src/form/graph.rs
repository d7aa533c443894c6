//! The result of tracing: the parts that types consist of.

use std::any::TypeId;
use std::collections::HashSet;

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
    /// A type that asks what comes next, by its full name.
    Any(&'static str, TypeId),
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
    /// Whether a value with content was found to be written as it is read.
    pub(super) is_written: bool,
    /// The names of a struct's fields as they are written. Among those it is read by are aliases.
    pub(super) keys: Option<Vec<&'static str>>,
    /// Of a tuple or struct.
    pub(super) bare: Bare,
    /// Whether it contains what the search is after, as it was when the pass began.
    pub(super) leads: bool,
    /// The last pass in which it was decoded for the sake of that.
    pub(super) spent: usize,
    /// The cheapest variant that was decoded as a whole, and its cost. Its content cost less, so the
    /// recursion ends.
    pub(super) quick: Option<Quick>,
}

/// Whether a value was made whose fields are all empty: `None`, 0, `false`, without elements. It is with
/// those that `skip_serializing_if` shows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bare {
    pub(super) is_done: bool,
    pub(super) tries: usize,
}

impl Bare {
    /// Whether it is still to be tried. After all fields at once each is tried alone, if need be.
    fn is_wanted(self, kind: Option<Kind>) -> bool {
        let fields = match kind {
            Some(Kind::Struct(names)) => names.len(),
            Some(Kind::Tuple(len)) => len.min(MAX_FIELDS),
            _ => 0,
        };
        fields > 0 && !self.is_done && self.tries < fields + Self::TOGETHER
    }

    /// How many tries are about all fields.
    pub(super) const TOGETHER: usize = 2;
}

/// How many elements of a tuple are tried one by one.
const MAX_FIELDS: usize = 32;

/// What a search is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// Variants that have not been seen.
    Seen,
    /// Those, and values that have not been written.
    Written,
    /// Bare values.
    Bare,
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
    /// Its name as it is written. Among those it is read by are aliases.
    pub(super) name: Option<&'static str>,
    /// As in [`Part`].
    pub(super) keys: Option<Vec<&'static str>>,
    pub(super) is_written: bool,
    pub(super) bare: Bare,
    /// Whether the reader knows no variant of this number: the name is another's alias.
    pub(super) is_missing: bool,
    pub(super) is_open: bool,
    pub(super) attempts: usize,
    pub(super) refusals: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum State {
    Unseen,
    Seen,
    Refused,
    /// Its content has no values.
    Empty,
}

impl Part {
    pub(super) fn new(kind: Kind) -> Self {
        let variant = || Variant {
            kind: None,
            slots: Vec::new(),
            state: State::Unseen,
            name: None,
            keys: None,
            is_written: false,
            bare: Bare::default(),
            is_missing: false,
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
            is_written: false,
            keys: None,
            bare: Bare::default(),
            leads: false,
            spent: 0,
            quick: None,
        }
    }
}

impl Part {
    /// Whether it is itself what the search is after.
    pub(super) fn is_wanted(&self, goal: Goal) -> bool {
        match goal {
            Goal::Seen => false,
            Goal::Written => self.is_unwritten(),
            Goal::Bare => self.bare.is_wanted(Some(self.kind)),
        }
    }

    /// Whether a value with content could be made, and none was written.
    pub(super) fn is_unwritten(&self) -> bool {
        let is_compared = !matches!(self.kind, Kind::Newtype | Kind::Enum(_));
        is_compared && self.is_done && !self.is_barren && !self.is_written
    }
}

impl Variant {
    /// Whether it is itself what the search is after.
    pub(super) fn is_wanted(&self, goal: Goal) -> bool {
        match (self.state, goal) {
            (State::Unseen, Goal::Seen | Goal::Written) => true,
            (State::Seen, Goal::Written) => !self.is_written,
            (State::Seen, Goal::Bare) => self.bare.is_wanted(self.kind),
            _ => false,
        }
    }

    /// Whether the search has found that it cannot be decoded.
    pub(super) fn is_out(&self) -> bool {
        matches!(self.state, State::Refused | State::Empty)
    }
}

/// Types that ask what comes next, for which there is more to try.
pub(super) type Open = HashSet<TypeId>;

/// Whether one of these slots leads to what the search is after.
pub(super) fn any_leads(parts: &[Part], slots: &[Slot], open: &Open) -> bool {
    slots.iter().flatten().any(|content| match content {
        Content::Part(part) => parts[*part].leads,
        Content::Any(_, id) => open.contains(id),
        _ => false,
    })
}

/// Finds the parts that lead to what the search is after.
pub(super) fn find_leads(parts: &mut [Part], goal: Option<Goal>, open: &Open) {
    let goal = goal.unwrap_or(Goal::Seen);
    for part in &mut *parts {
        part.leads = false;
    }
    loop {
        let mut has_changed = false;
        for part in (0..parts.len()).rev() {
            let Part { slots, variants, leads: false, .. } = &parts[part] else { continue };
            let variant_leads = |variant: &Variant| {
                variant.is_wanted(goal)
                    || variant.state == State::Seen && any_leads(parts, &variant.slots, open)
            };
            if parts[part].is_wanted(goal)
                || any_leads(parts, slots, open)
                || variants.iter().any(variant_leads)
            {
                parts[part].leads = true;
                has_changed = true;
            }
        }
        if !has_changed {
            return;
        }
    }
}

/// Why parts that were all written as they are read are not the same on both sides nevertheless: `None` if
/// they are.
pub(super) fn unlike(parts: &[Part]) -> Option<String> {
    parts.iter().find_map(|part| {
        if part.is_unwritten() {
            return Some(
                "a part of it that is read was written in none of the values that were made up".into(),
            );
        }
        let Kind::Enum(names) = part.kind else { return None };
        let count = part.readable();
        let mut rest = names.iter();
        for (at, variant) in part.variants[..count].iter().enumerate() {
            // No value of it is read, whatever is written.
            if variant.state == State::Empty || variant.is_out() && variant.kind.is_none() {
                rest.next();
                continue;
            }
            let name = variant.name.filter(|_| variant.is_written);
            let Some(name) = name else {
                return Some(format!("variant `{}` is read and was never written", names[at]));
            };
            // More names than variants: some are aliases.
            let is_like =
                if count == names.len() { names[at] == name } else { rest.any(|other| *other == name) };
            if !is_like {
                return Some(format!(
                    "variant `{name}` is written by another number than it is read by (`#[serde(skip)]` on a \
                     variant before it)"
                ));
            }
        }
        None
    })
}

impl Part {
    /// How many variants an enum has when it is read: fewer than names, where some have aliases.
    pub(super) fn readable(&self) -> usize {
        self.variants.iter().rposition(|variant| !variant.is_missing).map_or(0, |last| last + 1)
    }
}
