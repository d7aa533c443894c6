//! Runs a `Deserialize` on made-up values, and records what it asks for.
//!
//! A value has one variant of each enum, so it takes several passes. Each pass decodes one value from the
//! start. Where there is a choice (a variant, `Some` or `None`, an element or none), it chooses what leads to
//! something that has not been seen yet. If nothing is left to be seen, or the type at hand is already being
//! decoded further out, it chooses what is known to end.
//!
//! If a type refuses a value, the next pass tries another: the numbers and strings change for the innermost
//! type that refused. A type that refuses all values is opaque.
//!
//! Each value is also written, and what is written compared with what was read (`check`). So every variant,
//! every `Option` and every collection with content is to be seen in a value that is written, and so is a
//! *bare* value of each struct, whose fields are `None`, 0 and the like: it is from those that
//! `skip_serializing_if` leaves fields out.
//!
//! A type whose writer and reader differ, or that cannot be made up as a whole, is traced again as it looks in
//! the described coding, and each value goes there and back (`verify`).

mod check;
mod guess;
mod search;
mod tracer;
mod values;
mod verify;

use serde::{Deserialize, Serialize};

use self::search::Trace;
pub(super) use self::search::{Make, trace};
pub(super) use self::tracer::{Refused, Tracer};

/// Decodes a made-up value, and looks at how it is written.
pub(super) fn make<T: Serialize + Deserialize<'static>>(trace: &mut Trace) -> Result<(), Refused> {
    let value = T::deserialize(Tracer::new(&mut *trace))?;
    let content = trace.content.take();
    if trace.differs.is_none() {
        trace.differs = check::check(trace, &content, &value).err();
    }
    if trace.is_described && trace.lost.is_none() {
        trace.lost = verify::lost(&value).or_else(|| trace.unread(|| verify::written(&value)));
    }
    trace.content = content;
    Ok(())
}
