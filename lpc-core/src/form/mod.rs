//! What a method's arguments and result look like on the wire, as text and as a number.
//!
//! ```
//! use lpc_core::form::{Known, Signature, Unknown as _};
//!
//! let form = Signature::new()
//!     .argument("name", <Known<&str>>::TYPE)
//!     .argument("ages", <Known<Option<Vec<u32>>>>::TYPE)
//!     .result(<Known<Result<(), std::num::NonZeroU8>>>::TYPE);
//! assert_eq!(form.text(), "(name: str, ages: Option<[u32]>) -> enum {Ok(()), Err(u8)}");
//! ```
//!
//! Two builds whose [`Form`]s of a method are equal understand each other's calls of it. A form is found by tracing: a
//! type's `Deserialize` is run on made-up values, and what it asks for is written down. So it runs in each process that
//! serves or calls the type, before its first connection.
//!
//! # What is written
//!
//! | text | is |
//! |---|---|
//! | `u32`, `str`, `()` | a number, bool, char, string, or nothing |
//! | `[u8]`, `Map<str, u64>`, `Option<str>` | a sequence, a map, an `Option` |
//! | `(u8, str)`, `[u8; 4]` | a tuple or array; of equal elements always the second |
//! | `{x: u32, y: u32}` | a struct |
//! | `enum {Empty, Text(str), Point{x: u32}}` | an enum |
//! | `^2` | what is two pairs of brackets around, again: a recursive type |
//! | `shared [f32] of 4 bytes aligned to 4` | a loan of what has this name and layout |
//! | `opaque Url` | what cannot be traced and has this name |
//! | `!` | a variant that cannot be decoded |
//! | `…` | what is too deep, or too much, to be written |
//!
//! What is the same on the wire is written the same way: `&str`, `String` and `Cow<str>`; `Vec<u8>`, `&[u8]` and other byte
//! strings; `Box<T>`, `&T` and `T`; a newtype and what is in it; a recursive type, wherever its
//! boxes stand. The names of structs and enums are not written, so renaming a type is compatible. Those of fields, variants and
//! arguments are: swapping two of one type would go unnoticed else.
//!
//! # What cannot be traced
//!
//! A type that asks what comes next (`deserialize_any`), or refuses whatever it is given, is known by a weaker rule: by its
//! name, without modules. So is each struct, tuple, newtype and `Option` around it; a sequence, a map or an enum can be made
//! without it, and is traced. One that panics is not asked again. What is lent by a [loan](crate::codec::Received) is known by
//! its name as well, and by its size and alignment. Two builds that agree on such a name are taken to agree on the type.
//! [`Form::opaque`] tells which types cannot be traced, and why.
//!
//! A type with more ways through it than can be tried is known by those that were.

mod difference;
mod graph;
mod nodes;
mod question;
mod text;
mod trace;

use std::any::TypeId;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::Deserialize;

use self::nodes::{Head, Nodes};
use self::trace::{Refused, Tracer};
use crate::type_name::without_modules;
use crate::{Method, Service};

pub use self::difference::difference;
pub use self::question::{Answer, Question};

/// Bytes of a form's text at most. What is deep within one that would be longer is not written.
pub const MAX_LEN: usize = 64 << 10;

/// What a method's arguments and result look like on the wire.
#[derive(Clone, Debug)]
pub struct Form {
    text: String,
    fingerprint: u64,
    opaque: Box<[Opaque]>,
}

impl Form {
    /// The form in words: see the [module](self).
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The form as a number, which is never 0: a hash of all that is in it, also where the text leaves something out.
    #[must_use]
    pub const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The types that could not be traced.
    #[must_use]
    pub fn opaque(&self) -> &[Opaque] {
        &self.opaque
    }
}

/// A type that could not be traced.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opaque {
    /// Its name, without modules.
    pub name: String,
    /// What kept it from being traced.
    pub why: Why,
}

/// Why a type could not be traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// It has no `Deserialize`.
    #[error("it cannot be deserialized")]
    Undecodable,
    /// It calls `deserialize_any`, or another method that the codec does not support.
    #[error("it asks what comes next, which the codec does not say")]
    AsksWhatIsNext,
    /// Its `Deserialize` took none of the values that were made up for it.
    #[error("it refuses all made-up values")]
    Refuses,
    /// It has a type in it that is opaque.
    #[error("a type within it is opaque")]
    Contains,
    /// Its `Deserialize` panicked.
    #[error("it panics at a made-up value")]
    Panics,
    /// It was seen in part, or not at all: it is too large, or within itself without end.
    #[error("it is too large to be seen as a whole")]
    TooMuch,
}

/// A method's form in the making: its arguments in order, then its result.
#[derive(Debug)]
pub struct Signature {
    nodes: Nodes,
    names: Vec<String>,
    arguments: Vec<usize>,
}

impl Signature {
    /// That of a method of which nothing is known yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is nothing by default")]
    pub fn new() -> Self {
        Self { nodes: Nodes::default(), names: Vec::new(), arguments: Vec::new() }
    }

    /// The same with an argument more.
    #[must_use]
    pub fn argument(mut self, name: &str, ty: Type) -> Self {
        self.names.push(name.into());
        self.arguments.push(ty.add_to(&mut self.nodes));
        self
    }

    /// The form of the method that returns this.
    #[must_use]
    pub fn result(self, ty: Type) -> Form {
        let Self { mut nodes, names, arguments: mut children } = self;
        children.push(ty.add_to(&mut nodes));
        let method = nodes.push(Head::Method(names), children);
        let classes = nodes.classes();
        Form {
            text: text::text(&nodes, &classes, method),
            fingerprint: nodes.fingerprint(&classes, method),
            opaque: nodes.opaque.into(),
        }
    }
}

/// A type whose form can be found.
#[derive(Clone, Copy)]
pub struct Type {
    name: fn() -> &'static str,
    /// `None` for one that cannot be decoded.
    decode: Option<fn(Tracer<'_>) -> Result<(), Refused>>,
}

impl Type {
    /// Traces the type, and gives its node.
    fn add_to(self, nodes: &mut Nodes) -> usize {
        let name = (self.name)();
        let Some(decode) = self.decode else { return nodes.opaque(name, Why::Undecodable) };
        let traced = trace::trace(name, decode);
        if traced.is_cut {
            nodes.note(without_modules(name), Why::TooMuch);
        }
        nodes.add(&traced.parts, &traced.root)
    }
}

/// Gives the [`Type`] of `T`: `<Known<T>>::TYPE`, with [`Unknown`] in scope.
///
/// A `T` that cannot be decoded has one as well, which is never used: whoever decodes it gets the compiler's error, and not
/// whoever asks for its form.
#[derive(Debug)]
pub struct Known<T: ?Sized>(PhantomData<T>);

impl<T: Deserialize<'static>> Known<T> {
    /// The type.
    pub const TYPE: Type =
        Type { name: std::any::type_name::<T>, decode: Some(|tracer| T::deserialize(tracer).map(drop)) };
}

/// What stands in for [`Known`] where that does not hold.
pub trait Unknown {
    /// A type that is opaque.
    const TYPE: Type;
}

impl<T: ?Sized> Unknown for Known<T> {
    const TYPE: Type = Type { name: std::any::type_name::<T>, decode: None };
}

/// The forms of a service's methods, in the order of [`Service::METHODS`]; `None` where nothing is known of one.
///
/// They are found once in a process, by the first who asks.
pub fn of<M: Service>() -> &'static [Option<Form>] {
    type Forms = OnceLock<Box<[Option<Form>]>>;
    static SERVICES: Mutex<Option<HashMap<TypeId, &'static Forms>>> = Mutex::new(None);
    let forms = {
        let mut services = SERVICES.lock().unwrap_or_else(PoisonError::into_inner);
        // There are as many as services in the program.
        *services
            .get_or_insert_default()
            .entry(TypeId::of::<M>())
            .or_insert_with(|| Box::leak(Box::default()))
    };
    // Without the lock: this runs code of the user's.
    forms.get_or_init(|| M::METHODS.iter().map(Method::form).collect())
}

/// The number that stands for a form in a handshake: 0 where there is none.
#[must_use]
pub fn fingerprint(form: Option<&Form>) -> u64 {
    form.map_or(0, Form::fingerprint)
}
