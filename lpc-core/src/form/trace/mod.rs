//! Runs a `Deserialize` on made-up values, and writes down what it asks for.
//!
//! A value has one variant of each enum, so it takes several passes. Each decodes one value from the start, and where there is a
//! choice (a variant, `Some` or `None`, an element or none) it goes where something has not been seen yet; where nothing is left
//! to be seen, or the type at hand is already being decoded further up, it takes the way that is known to end.
//!
//! Where a type refuses a value, the next pass tries another: the innermost type that refused is the one whose numbers and
//! strings change. One that refuses them all is opaque.

mod search;
mod tracer;
mod values;

pub(super) use self::search::trace;
pub(super) use self::tracer::{Refused, Tracer};
