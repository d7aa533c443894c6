//! The elements and fields of what is compared.

use serde::ser::{self, Serialize};

use super::{Checked, Checker, Differs, Expected, wrong_len};
use crate::compounds::{elements, fields};
use crate::form::graph::Kind;
use crate::form::trace::search::{self, Place, Trace};

/// The elements of a sequence, or the keys and values of a map.
pub(super) struct Each<'t> {
    pub(super) trace: &'t mut Trace,
    pub(super) part: Option<usize>,
    /// Whether they are read as a byte string.
    pub(super) are_bytes: bool,
    pub(super) period: usize,
    pub(super) next: usize,
}

impl Each<'_> {
    pub(super) fn one<T: Serialize + ?Sized>(&mut self, value: &T) -> Checked {
        let at = self.next % self.period;
        self.next += 1;
        let expected = match self.part {
            Some(part) => {
                let expected = self.trace.expected(Place { part, variant: None }, at);
                if self.trace.parts[part].is_done {
                    self.trace.written(part);
                }
                expected
            }
            None if self.are_bytes => Expected::Plain("u8"),
            None => Expected::Anything,
        };
        value.serialize(Checker { trace: &mut *self.trace, expected })
    }

    #[expect(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "as with what has an end to be checked"
    )]
    fn finish(self) -> Checked {
        Ok(())
    }
}

elements!(Each<'_>, Differs, one, finish: SerializeSeq::serialize_element);

impl ser::SerializeMap for Each<'_> {
    type Ok = ();
    type Error = Differs;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Checked {
        self.one(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Checked {
        self.one(value)
    }

    fn end(self) -> Checked {
        self.finish()
    }
}

/// The elements of a tuple or the fields of a struct, each with a slot of its own.
pub(super) struct Parts<'t> {
    pub(super) trace: &'t mut Trace,
    /// `None`: it is not known what is read.
    pub(super) place: Option<Place>,
    pub(super) name: &'static str,
    pub(super) variant: &'static str,
    pub(super) keys: Vec<&'static str>,
    pub(super) next: usize,
}

impl Parts<'_> {
    fn one<T: Serialize + ?Sized>(&mut self, value: &T) -> Checked {
        let at = self.next.min(search::MAX_SLOTS - 1);
        self.next += 1;
        let expected = self.place.map_or(Expected::Anything, |place| self.trace.expected(place, at));
        value.serialize(Checker { trace: &mut *self.trace, expected })
    }

    fn of(&self) -> String {
        let dots = if self.variant.is_empty() { "" } else { "::" };
        format!("`{}{dots}{}`", self.name, self.variant)
    }

    /// The names under which the fields are read, and how many fields there are: more names than fields where
    /// some have aliases.
    fn read(&self) -> Option<(&'static [&'static str], usize)> {
        let Place { part, variant } = self.place?;
        let part = &self.trace.parts[part];
        let (kind, slots) = match variant {
            Some(variant) => (part.variants[variant].kind, &part.variants[variant].slots),
            None => (Some(part.kind), &part.slots),
        };
        match kind {
            Some(Kind::Struct(names)) => Some((names, slots.len())),
            _ => None,
        }
    }

    fn field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Checked {
        if let Some((names, count)) = self.read() {
            let is_known = match count == names.len() {
                true => names.get(self.next) == Some(&key),
                false => names.contains(&key),
            };
            if !is_known {
                let of = self.of();
                return Err(Differs::InOrder(match names.contains(&key) {
                    true => format!("field `{key}` of {of} is written at another place than it is read at"),
                    false => format!(
                        "field `{key}` of {of} is written and not read under this name \
                         (`#[serde(skip_deserializing)]`, or `rename` with two names)"
                    ),
                }));
            }
        }
        self.keys.push(key);
        self.one(value)
    }

    #[cold]
    fn skipped(&self, key: &'static str) -> Checked {
        if self.place.is_none() {
            return Ok(());
        }
        let of = self.of();
        Err(Differs::InOrder(format!(
            "field `{key}` of {of} is left out of some values (`skip_serializing_if`)"
        )))
    }

    fn finish(self) -> Checked {
        let Some(place) = self.place else { return Ok(()) };
        if let Some((names, count)) = self.read() {
            let mut rest = names.iter();
            let is_in_order = self.keys.iter().all(|key| rest.any(|name| name == key));
            if self.keys.len() != count || !is_in_order {
                let missing = names.iter().find(|name| !self.keys.contains(name)).unwrap_or(&"");
                return Err(Differs::InOrder(format!(
                    "{} has other fields when it is written than when it is read, where there is `{missing}` \
                     (`#[serde(skip_serializing)]`)",
                    self.of()
                )));
            }
            let Self { trace, keys, .. } = self;
            let part = &mut trace.parts[place.part];
            let kept = match place.variant {
                Some(variant) => &mut part.variants[variant].keys,
                None => &mut part.keys,
            };
            *kept = Some(keys);
            trace.written_in(place);
            return Ok(());
        }
        let len = match place.variant {
            Some(variant) => self.trace.parts[place.part].variants[variant].kind,
            None => Some(self.trace.parts[place.part].kind),
        };
        match len {
            Some(Kind::Tuple(read)) if read != self.next => {
                Err(wrong_len(self.name, self.variant, self.next, read))
            }
            _ => {
                self.trace.written_in(place);
                Ok(())
            }
        }
    }
}

elements!(
    Parts<'_>, Differs, one, finish:
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
);

fields!(Parts<'_>, Differs, field, skipped, finish: SerializeStruct, SerializeStructVariant);
