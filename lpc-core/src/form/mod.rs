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
//! Two builds understand each other's calls of a method if their [`Form`]s of it are equal. A form is found
//! by tracing: the `Deserialize` of a type is run on made-up values, and what it asks for is recorded. Each
//! value is written again, and what its `Serialize` writes is compared with that. This happens in each process
//! that serves or calls the type, before its first connection.
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
//! | `^2` | the type two pairs of brackets further out, again: a recursive type |
//! | `shared [f32] of 4 bytes aligned to 4` | a loan of a type with this name and layout |
//! | `opaque Url` | a type of this name, which cannot be traced |
//! | `described …` | an argument or result in the [described coding](crate::codec::Coding::Described) |
//! | `any Value` | a type of this name that asks what comes next (`serde_json::Value`, an untagged enum) |
//! | `any` | what is left out whatever it is (`IgnoredAny`) |
//! | `!` | a variant that cannot be decoded |
//! | `…` | a part that is too deep or too long to be written |
//!
//! Types that are the same on the wire are written the same way: `&str`, `String` and `Cow<str>`; `Vec<u8>`,
//! `&[u8]` and other byte strings; `Box<T>`, `&T` and `T`; a newtype and its content; a recursive type,
//! wherever its boxes are. The names of structs and enums are not written, so to rename a type is compatible.
//! The names of fields, variants and arguments are, because otherwise it would go unnoticed when two of the
//! same type are swapped.
//!
//! # Which coding
//!
//! An argument or result is packed if all of its type was made up, written, and found to be written as it is
//! read: the same kinds in the same order, under the same names, variants by the same numbers. It is described
//! if the two differ (`#[serde(skip)]` on a variant before others, `skip_serializing`, `skip_deserializing`,
//! `skip_serializing_if`), if it asks what comes next, or if some of it could not be made up. To see what
//! `skip_serializing_if` leaves out, a value of each struct is made whose fields are `None`, 0 and the like.
//!
//! A made-up value that does not come back as it was in the described coding either makes the method
//! [unsupported](Form::unsupported): a field under two names (`rename(serialize = …, deserialize = …)`), or one
//! of a tuple struct that is left out, of which nobody could tell which it was.
//!
//! # What cannot be traced
//!
//! A type that refuses all made-up values is opaque: it is compared by a weaker rule, its name without modules.
//! So is each struct, tuple, newtype and `Option` that contains it. A sequence, a map or an enum can be made
//! without it, and is traced. A type that panics is not tried again. The content of a
//! [loan](crate::codec::Received) is also compared by its name, and by its size and alignment. Two builds that
//! agree on such a name are assumed to agree on the type. [`Form::opaque`] tells which types cannot be traced,
//! and why.
//!
//! A type with more variants, in all combinations, than can be tried is compared by those that were.

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

use serde::{Deserialize, Serialize};

use self::nodes::{Head, Nodes};
use crate::codec::{Coding, Codings};
use crate::type_name::without_modules;
use crate::{Method, Service};

pub use self::difference::difference;
pub use self::question::{Answer, Question};

/// The most bytes of a form's text. If it would be longer, the innermost parts are left out.
pub const MAX_LEN: usize = 64 << 10;

/// What a method's arguments and result look like on the wire.
#[derive(Clone, Debug)]
pub struct Form {
    text: String,
    fingerprint: u64,
    opaque: Box<[Opaque]>,
    codings: Codings,
    unsupported: Option<String>,
}

impl Form {
    /// The form in words: see the [module](self).
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The form as a number, never 0: a hash of the whole form, including what the text leaves out.
    #[must_use]
    pub const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// How the arguments and the result are written.
    #[must_use]
    pub const fn codings(&self) -> Codings {
        self.codings
    }

    /// Why the method cannot be called: the first argument, or the result, that no coding can carry.
    #[must_use]
    pub fn unsupported(&self) -> Option<&str> {
        self.unsupported.as_deref()
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
    /// Its `Deserialize` accepted none of the made-up values.
    #[error("it refuses all made-up values")]
    Refuses,
    /// It contains an opaque type.
    #[error("a type within it is opaque")]
    Contains,
    /// Its `Deserialize` panicked.
    #[error("it panics at a made-up value")]
    Panics,
    /// It was traced in part or not at all, because it is too large, or contains itself without end.
    #[error("it is too large to be seen as a whole")]
    TooMuch,
}

/// A builder of a method's form: its arguments in order, then its result.
#[derive(Debug)]
pub struct Signature {
    nodes: Nodes,
    names: Vec<String>,
    arguments: Vec<usize>,
    codings: Vec<Coding>,
    unsupported: Option<String>,
}

impl Signature {
    /// The builder of a form that has no arguments yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is nothing by default")]
    pub fn new() -> Self {
        let (nodes, names, arguments) = (Nodes::default(), Vec::new(), Vec::new());
        Self { nodes, names, arguments, codings: Vec::new(), unsupported: None }
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, name: &str, ty: Type) -> Self {
        self.names.push(name.into());
        let (node, coding) = self.add(ty, || format!("argument `{name}`"));
        self.arguments.push(node);
        self.codings.push(coding);
        if self.names.len() > Codings::MAX_ARGUMENTS {
            let most = Codings::MAX_ARGUMENTS;
            self.unsupported.get_or_insert_with(|| format!("it has more than {most} arguments"));
        }
        self
    }

    /// The form of the method with this result.
    #[must_use]
    pub fn result(mut self, ty: Type) -> Form {
        let (node, coding) = self.add(ty, || "the result".into());
        let Self { mut nodes, names, arguments: mut children, codings, unsupported } = self;
        children.push(node);
        let method = nodes.push(Head::Method(names), children);
        let classes = nodes.classes();
        Form {
            text: text::text(&nodes, &classes, method),
            fingerprint: nodes.fingerprint(&classes, method),
            opaque: nodes.opaque.into(),
            codings: Codings::new(codings, coding),
            unsupported,
        }
    }

    /// Traces the type and adds it to the nodes. Returns its node and its coding.
    fn add(&mut self, ty: Type, place: impl FnOnce() -> String) -> (usize, Coding) {
        let name = (ty.name)();
        let Some(make) = ty.make else { return (self.nodes.opaque(name, Why::Undecodable), Coding::Packed) };
        let traced = trace::trace(name, make);
        let short = without_modules(name);
        if traced.is_cut {
            self.nodes.note(short.clone(), Why::TooMuch);
        }
        if let Some(why) = traced.unsupported {
            self.unsupported.get_or_insert_with(|| format!("{} of type `{short}`: {why}", place()));
        }
        let node = self.nodes.add(&traced.parts, &traced.root);
        match traced.coding {
            Coding::Packed => (node, Coding::Packed),
            Coding::Described => (self.nodes.push(Head::Described, vec![node]), Coding::Described),
        }
    }
}

/// A type whose form can be found.
#[derive(Clone, Copy)]
pub struct Type {
    name: fn() -> &'static str,
    /// `None` for a type that cannot be written, or not be read.
    make: Option<trace::Make>,
}

/// Gives the [`Type`] of `T`: `<Known<T>>::TYPE`, with [`Unknown`] in scope.
///
/// A `T` that cannot be decoded has one as well, which is never used. So the compiler reports the code that
/// decodes it, and not the code that asks for its form.
#[derive(Debug)]
pub struct Known<T: ?Sized>(PhantomData<T>);

impl<T: Serialize + Deserialize<'static>> Known<T> {
    /// The type.
    pub const TYPE: Type = Type { name: std::any::type_name::<T>, make: Some(trace::make::<T>) };
}

/// Provides the [`Type`] where the bounds of [`Known`]'s own do not hold.
pub trait Unknown {
    /// An opaque type.
    const TYPE: Type;
}

impl<T: ?Sized> Unknown for Known<T> {
    const TYPE: Type = Type { name: std::any::type_name::<T>, make: None };
}

/// The forms of a service's methods, in the order of [`Service::METHODS`]; `None` for a method of unknown
/// form.
///
/// They are traced once in a process, by the first call.
pub fn of<M: Service>() -> &'static [Option<Form>] {
    type Forms = OnceLock<Box<[Option<Form>]>>;
    static SERVICES: Mutex<Option<HashMap<TypeId, &'static Forms>>> = Mutex::new(None);
    let forms = {
        let mut services = SERVICES.lock().unwrap_or_else(PoisonError::into_inner);
        // This leaks one for each service of the program.
        *services
            .get_or_insert_default()
            .entry(TypeId::of::<M>())
            .or_insert_with(|| Box::leak(Box::default()))
    };
    // Without the lock, because this runs the user's code.
    forms.get_or_init(|| M::METHODS.iter().map(Method::form).collect())
}

/// The number that represents a form in a handshake: 0 if there is none.
#[must_use]
pub fn fingerprint(form: Option<&Form>) -> u64 {
    form.map_or(0, Form::fingerprint)
}
