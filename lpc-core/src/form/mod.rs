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
//! | `^2` | what is two levels around, again: a recursive type |
//! | `shared [f32]` | a loan of what has this name |
//! | `opaque Url` | what cannot be traced and has this name |
//! | `!` | a variant that cannot be decoded |
//!
//! What is the same on the wire is written the same way: `&str`, `String` and `Cow<str>`; `Vec<u8>`, `&[u8]` and other byte
//! strings; `Box<T>`, `&T` and `T`; a newtype and what is in it. The names of structs and enums are not written, so renaming a
//! type is compatible. Those of fields, variants and arguments are: swapping two of one type would go unnoticed else.
//!
//! # What cannot be traced
//!
//! A type that asks what comes next (`deserialize_any`), or refuses whatever it is given, is known by a weaker rule: by its
//! name, without modules. So is each struct, tuple, newtype and `Option` around it; a sequence, a map or an enum can be made
//! without it, and is traced. One that panics makes the whole argument or result so. What is lent by a [loan](crate::codec::Received) is known by its name
//! as well. Two builds that agree on such a name are taken to agree on the type.

mod difference;
mod graph;
mod trace;

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::marker::PhantomData;
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::Deserialize;

use self::trace::{Refused, Tracer};
use crate::{Method, Service};

pub use self::difference::difference;

/// Bytes of a form's text at most. What would be longer is opaque.
pub const MAX_LEN: usize = 64 << 10;

/// What a method's arguments and result look like on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    text: String,
}

impl Form {
    /// The form in words: see the [module](self).
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The form as a number, which is the FNV-1a hash of its text, and never 0.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let hash = self.text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        hash.max(1)
    }
}

/// A method's form in the making: its arguments in order, then its result.
#[derive(Debug)]
pub struct Signature {
    text: String,
}

impl Signature {
    /// That of a method of which nothing is known yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is nothing by default")]
    pub fn new() -> Self {
        Self { text: "(".into() }
    }

    /// The same with an argument more.
    #[must_use]
    pub fn argument(mut self, name: &str, ty: Type) -> Self {
        let comma = if self.text.len() > 1 { ", " } else { "" };
        write!(self.text, "{comma}{name}: {}", ty.form()).expect("a string takes it");
        self
    }

    /// The form of the method that returns this.
    #[must_use]
    pub fn result(mut self, ty: Type) -> Form {
        write!(self.text, ") -> {}", ty.form()).expect("a string takes it");
        Form { text: self.text }
    }
}

/// A type whose form can be found.
#[derive(Clone, Copy)]
pub struct Type {
    name: fn() -> &'static str,
    decode: fn(Tracer<'_>) -> Result<(), Refused>,
}

impl Type {
    fn form(self) -> String {
        let name = (self.name)();
        trace::form(name, self.decode).unwrap_or_else(|| opaque(name))
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
        Type { name: std::any::type_name::<T>, decode: |tracer| T::deserialize(tracer).map(drop) };
}

/// What stands in for [`Known`] where that does not hold.
pub trait Unknown {
    /// A type that is opaque.
    const TYPE: Type;
}

impl<T: ?Sized> Unknown for Known<T> {
    const TYPE: Type = Type { name: std::any::type_name::<T>, decode: |_| Err(Refused) };
}

/// The text of a type that is known by its name.
fn opaque(name: &str) -> String {
    format!("opaque {}", without_modules(name))
}

/// `Vec<url::Url>` as `Vec<Url>`.
pub(crate) fn without_modules(name: &str) -> String {
    let mut short = String::with_capacity(name.len());
    let mut word = 0;
    for char in name.chars() {
        short.push(char);
        if short.ends_with("::") {
            short.truncate(word);
        } else if !(char.is_alphanumeric() || "_:".contains(char)) {
            word = short.len();
        }
    }
    short
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
