//! Runs a `Deserialize` on made-up values, and records what it asks for.
//!
//! A value has one variant of each enum, so it takes several passes. Each pass decodes one value from the
//! start. Where there is a choice (a variant, `Some` or `None`, an element or none), it chooses what leads to
//! something that has not been seen yet. If nothing is left to be seen, or the type at hand is already being
//! decoded further out, it chooses what is known to end.
//!
//! If a type refuses a value, the next pass tries another: the numbers and strings change for the innermost
//! type that refused. A type that refuses all values is opaque.

mod search;
mod tracer;
mod values;

pub(super) use self::search::trace;
pub(super) use self::tracer::{Refused, Tracer};
