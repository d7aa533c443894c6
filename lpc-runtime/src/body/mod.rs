//! Bodies of calls and replies: how they are encoded on their lane, and read from it.

pub(crate) mod arrived;
pub(crate) mod outgoing;
