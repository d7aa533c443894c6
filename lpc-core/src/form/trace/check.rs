//! A serializer that compares what a type's `Serialize` writes with what its `Deserialize` has read.
//!
//! The packed coding has no names in it: the reader takes each value for what it expects next. So it is for
//! types alone whose writer keeps to what the reader asks for, in all of the values that were made up.

use std::fmt::{self, Display};

use serde::ser::{self, Serialize, SerializeSeq as _};

use self::compound::{Each, Parts};
use super::search::{Place, Trace};
use crate::codec::LOAN;
use crate::form::graph::{Content, Kind, Slot, State};

mod compound;

/// How a type's writer differs from its reader.
#[derive(Clone, Debug)]
pub(in crate::form) enum Differs {
    /// In a way that names make up for.
    InOrder(String),
    /// In a way that no coding makes up for.
    Hopelessly(String),
}

impl Differs {
    pub(in crate::form) fn message(&self) -> &str {
        match self {
            Self::InOrder(message) | Self::Hopelessly(message) => message,
        }
    }
}

impl Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Differs {}

impl ser::Error for Differs {
    fn custom<T: Display>(message: T) -> Self {
        Self::InOrder(format!("a value of it cannot be serialized: {message}"))
    }
}

type Checked = Result<(), Differs>;

/// Compares `value` with what its reader asked for, which is `content`.
pub(super) fn check<T: Serialize + ?Sized>(trace: &mut Trace, content: &Slot, value: &T) -> Checked {
    let expected = Expected::of(content.as_ref());
    value.serialize(Checker { trace, expected })
}

/// What the reader asked for.
#[derive(Clone, Copy)]
enum Expected {
    /// It is not known: the reader has not been here yet, or cannot be traced.
    Anything,
    Plain(&'static str),
    Bytes,
    Loan,
    Part(usize),
}

impl Expected {
    fn of(content: Option<&Content>) -> Self {
        match content {
            None | Some(Content::Opaque(..) | Content::Any(..) | Content::Plain(super::tracer::ANY)) => {
                Self::Anything
            }
            Some(Content::Plain(name)) => Self::Plain(name),
            Some(Content::Bytes) => Self::Bytes,
            Some(Content::Loan(_)) => Self::Loan,
            Some(Content::Part(part)) => Self::Part(*part),
        }
    }
}

struct Checker<'t> {
    trace: &'t mut Trace,
    expected: Expected,
}

impl<'t> Checker<'t> {
    /// What is expected, the newtypes around it left out.
    fn within(&self) -> Expected {
        let mut expected = self.expected;
        // A newtype that only contains itself has no content.
        for _ in 0..=self.trace.parts.len() {
            match expected {
                Expected::Part(part) if self.trace.parts[part].kind == Kind::Newtype => {
                    expected = self.trace.expected(Place { part, variant: None }, 0);
                }
                _ => break,
            }
        }
        expected
    }

    fn kind(&self) -> Option<(usize, Kind)> {
        match self.within() {
            Expected::Part(part) => Some((part, self.trace.parts[part].kind)),
            _ => None,
        }
    }

    fn is_anything(&self) -> bool {
        matches!(self.within(), Expected::Anything)
    }

    fn plain(self, name: &'static str) -> Checked {
        match self.within() {
            Expected::Anything => Ok(()),
            Expected::Plain(expected) if expected == name => Ok(()),
            _ => Err(self.differs(name)),
        }
    }

    /// Nothing at all, under any name.
    fn nothing(self) -> Checked {
        match self.kind() {
            Some((part, Kind::Tuple(0) | Kind::Struct([]))) => {
                self.trace.written(part);
                Ok(())
            }
            _ => self.plain("()"),
        }
    }

    #[cold]
    fn differs(&self, written: impl Display) -> Differs {
        let read = match self.within() {
            Expected::Plain(name) => name,
            Expected::Bytes => "bytes",
            Expected::Loan => "a loan",
            Expected::Anything => "anything",
            Expected::Part(part) => match self.trace.parts[part].kind {
                Kind::Newtype => "a newtype",
                Kind::Option => "an Option",
                Kind::Seq => "a sequence",
                Kind::Map => "a map",
                Kind::Tuple(_) => "a tuple",
                Kind::Struct(_) => "a struct",
                Kind::Enum(_) => "an enum",
            },
        };
        Differs::InOrder(format!("a value is written as {written} and read as {read}"))
    }

    /// A sequence or map: slots by turns.
    fn elements(
        self,
        kind: Kind,
        what: &str,
        period: usize,
        len: Option<usize>,
    ) -> Result<Each<'t>, Differs> {
        if len.is_none() {
            return Err(Differs::InOrder(format!("{what} does not know its length beforehand")));
        }
        let part = match (self.within(), self.kind()) {
            (Expected::Anything, _) => None,
            (Expected::Bytes, _) if kind == Kind::Seq => None,
            (_, Some((part, expected))) if expected == kind => Some(part),
            _ => return Err(self.differs(what)),
        };
        let are_bytes = matches!(self.within(), Expected::Bytes);
        Ok(Each { trace: self.trace, part, are_bytes, period, next: 0 })
    }

    /// A tuple, or a tuple struct of this name.
    fn tuple(self, name: &'static str, len: usize) -> Result<Parts<'t>, Differs> {
        let place = match (self.within(), self.kind()) {
            (Expected::Anything, _) => None,
            (_, Some((part, Kind::Tuple(read)))) if read == len => Some(Place { part, variant: None }),
            (_, Some((_, Kind::Tuple(read)))) => return Err(wrong_len(name, "", len, read)),
            (Expected::Plain("()"), _) if len == 0 => None,
            _ => return Err(self.differs("a tuple")),
        };
        Ok(Parts { trace: self.trace, place, name, variant: "", keys: Vec::new(), next: 0 })
    }

    /// A variant. `None` if it is not known what the reader makes of it.
    fn variant(&mut self, name: &str, index: u32, variant: &'static str) -> Result<Option<Place>, Differs> {
        let index = index as usize;
        match (self.within(), self.kind()) {
            (Expected::Anything, _) => Ok(None),
            (_, Some((part, Kind::Enum(names)))) => {
                if !names.contains(&variant) {
                    return Err(Differs::InOrder(format!(
                        "variant `{variant}` of `{name}` is written and not read under this name"
                    )));
                }
                let Some(of) = self.trace.parts[part].variants.get_mut(index) else {
                    return Err(misplaced(name, variant));
                };
                if of.state == State::Unseen {
                    return Ok(None);
                }
                if *of.name.get_or_insert(variant) != variant {
                    return Err(misplaced(name, variant));
                }
                Ok(Some(Place { part, variant: Some(index) }))
            }
            _ => Err(self.differs(format_args!("variant `{variant}` of `{name}`"))),
        }
    }

    fn variant_kind(&self, place: Option<Place>) -> Option<Kind> {
        let Place { part, variant } = place?;
        self.trace.parts[part].variants[variant?].kind
    }
}

#[cold]
fn misplaced(name: &str, variant: &str) -> Differs {
    Differs::InOrder(format!(
        "variant `{variant}` of `{name}` is written by another number than it is read by (`#[serde(skip)]` on a \
         variant before it)"
    ))
}

#[cold]
fn wrong_len(name: &str, variant: &str, written: usize, read: usize) -> Differs {
    let dots = if variant.is_empty() { "" } else { "::" };
    let of = if name.is_empty() { "a tuple".into() } else { format!("`{name}{dots}{variant}`") };
    Differs::Hopelessly(format!(
        "{of} writes {written} fields and reads {read}: of fields without names nobody can tell which was left \
         out; give them names, or take `#[serde(skip_serializing)]`, `skip_deserializing` and \
         `skip_serializing_if` away"
    ))
}

impl Trace {
    fn expected(&self, Place { part, variant }: Place, at: usize) -> Expected {
        let part = &self.parts[part];
        let slots = match variant {
            Some(variant) => &part.variants[variant].slots,
            None => &part.slots,
        };
        Expected::of(slots.get(at).and_then(Option::as_ref))
    }

    /// A value of the part was written as it is read.
    fn written(&mut self, part: usize) {
        if !std::mem::replace(&mut self.parts[part].is_written, true) {
            self.found_at = self.pass;
        }
    }

    fn written_in(&mut self, Place { part, variant }: Place) {
        let Some(variant) = variant else { return self.written(part) };
        if !std::mem::replace(&mut self.parts[part].variants[variant].is_written, true) {
            self.found_at = self.pass;
        }
    }
}

macro_rules! plain {
    ($($method:ident $type:ident)*) => {$(
        fn $method(self, _: $type) -> Checked {
            self.plain(stringify!($type))
        }
    )*};
}

impl<'t> ser::Serializer for Checker<'t> {
    type Ok = ();
    type Error = Differs;
    type SerializeSeq = Each<'t>;
    type SerializeTuple = Parts<'t>;
    type SerializeTupleStruct = Parts<'t>;
    type SerializeTupleVariant = Parts<'t>;
    type SerializeMap = Each<'t>;
    type SerializeStruct = Parts<'t>;
    type SerializeStructVariant = Parts<'t>;

    /// Like the coding for which it is compared.
    fn is_human_readable(&self) -> bool {
        self.trace.is_described
    }

    plain! {
        serialize_bool bool serialize_char char serialize_f32 f32 serialize_f64 f64
        serialize_i8 i8 serialize_i16 i16 serialize_i32 i32 serialize_i64 i64 serialize_i128 i128
        serialize_u8 u8 serialize_u16 u16 serialize_u32 u32 serialize_u64 u64 serialize_u128 u128
    }

    fn serialize_str(self, _: &str) -> Checked {
        self.plain("str")
    }

    fn serialize_bytes(self, _: &[u8]) -> Checked {
        match self.kind() {
            // The same on the wire.
            Some((part, Kind::Seq)) if self.trace.parts[part].slots == [Some(Content::Plain("u8"))] => {
                self.trace.written(part);
                Ok(())
            }
            _ if matches!(self.within(), Expected::Bytes | Expected::Anything) => Ok(()),
            _ => Err(self.differs("bytes")),
        }
    }

    fn serialize_none(self) -> Checked {
        match self.kind() {
            Some((_, Kind::Option)) => Ok(()),
            _ if self.is_anything() => Ok(()),
            _ => Err(self.differs("None")),
        }
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Checked {
        let expected = match self.kind() {
            Some((part, Kind::Option)) => {
                let expected = self.trace.expected(Place { part, variant: None }, 0);
                if self.trace.parts[part].is_done {
                    self.trace.written(part);
                }
                expected
            }
            _ if self.is_anything() => Expected::Anything,
            _ => return Err(self.differs("Some")),
        };
        value.serialize(Checker { trace: self.trace, expected })
    }

    fn serialize_unit(self) -> Checked {
        self.nothing()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Checked {
        self.nothing()
    }

    fn serialize_unit_variant(mut self, name: &'static str, index: u32, variant: &'static str) -> Checked {
        let Some(place) = self.variant(name, index, variant)? else { return Ok(()) };
        match self.variant_kind(Some(place)) {
            None | Some(Kind::Tuple(0) | Kind::Struct([])) => {
                self.trace.written_in(place);
                Ok(())
            }
            Some(_) => Err(Differs::InOrder(format!(
                "variant `{variant}` of `{name}` is written without its content"
            ))),
        }
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Checked {
        if name == LOAN {
            let is_loan = matches!(self.within(), Expected::Loan | Expected::Anything);
            return if is_loan { Ok(()) } else { Err(self.differs("a loan")) };
        }
        // It takes no bytes, so it does not matter whether the other side has one.
        let expected = self.within();
        value.serialize(Checker { trace: self.trace, expected })
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Checked {
        let place = self.variant(name, index, variant)?;
        let expected = match (place, self.variant_kind(place)) {
            (None, _) => Expected::Anything,
            (Some(place), Some(Kind::Newtype)) => {
                self.trace.written_in(place);
                self.trace.expected(place, 0)
            }
            (Some(_), _) => {
                return Err(Differs::InOrder(format!(
                    "variant `{variant}` of `{name}` is written with other content than it is read with"
                )));
            }
        };
        value.serialize(Checker { trace: self.trace, expected })
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Each<'t>, Differs> {
        self.elements(Kind::Seq, "a sequence", 1, len)
    }

    fn serialize_tuple(self, len: usize) -> Result<Parts<'t>, Differs> {
        self.tuple("", len)
    }

    fn serialize_tuple_struct(self, name: &'static str, len: usize) -> Result<Parts<'t>, Differs> {
        self.tuple(name, len)
    }

    fn serialize_tuple_variant(
        mut self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Parts<'t>, Differs> {
        let place = self.variant(name, index, variant)?;
        match self.variant_kind(place) {
            _ if place.is_none() => {}
            Some(Kind::Tuple(read)) if read == len => {}
            Some(Kind::Tuple(read)) => return Err(wrong_len(name, variant, len, read)),
            _ => {
                return Err(Differs::InOrder(format!(
                    "variant `{variant}` of `{name}` is written with other content than it is read with"
                )));
            }
        }
        Ok(Parts { trace: self.trace, place, name, variant, keys: Vec::new(), next: 0 })
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Each<'t>, Differs> {
        self.elements(Kind::Map, "a map", 2, len)
    }

    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Parts<'t>, Differs> {
        let place = match (self.within(), self.kind()) {
            (Expected::Anything, _) => None,
            (_, Some((part, Kind::Struct(_)))) => Some(Place { part, variant: None }),
            (Expected::Plain("()"), _) if len == 0 => None,
            (_, Some((_, Kind::Tuple(0)))) if len == 0 => None,
            _ => return Err(self.differs(format_args!("struct `{name}`"))),
        };
        Ok(Parts { trace: self.trace, place, name, variant: "", keys: Vec::new(), next: 0 })
    }

    fn serialize_struct_variant(
        mut self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts<'t>, Differs> {
        let place = self.variant(name, index, variant)?;
        if place.is_some() && !matches!(self.variant_kind(place), Some(Kind::Struct(_))) {
            return Err(Differs::InOrder(format!(
                "variant `{variant}` of `{name}` is written with other content than it is read with"
            )));
        }
        Ok(Parts { trace: self.trace, place, name, variant, keys: Vec::new(), next: 0 })
    }

    /// Like the codec's, which finds the length of any iterator.
    fn collect_seq<I>(self, iter: I) -> Checked
    where
        I: IntoIterator,
        I::Item: Serialize,
    {
        let mut each = self.serialize_seq(Some(0))?;
        iter.into_iter().try_for_each(|item| each.serialize_element(&item))
    }

    fn collect_map<K, V, I>(self, iter: I) -> Checked
    where
        K: Serialize,
        V: Serialize,
        I: IntoIterator<Item = (K, V)>,
    {
        let mut each = self.serialize_map(Some(0))?;
        iter.into_iter().try_for_each(|(key, value)| {
            each.one(&key)?;
            each.one(&value)
        })
    }

    fn collect_str<T: Display + ?Sized>(self, _: &T) -> Checked {
        self.plain("str")
    }
}
