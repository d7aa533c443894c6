//! The lanes: which way a body takes, and how it gets there.
//!
//! [`outgoing`] encodes a body and chooses its lane, [`pool`] is the shared memory that the mapping lane writes to,
//! [`incoming`] takes messages off the socket, once [`watch`] has it look or it has slept; their bodies have [`arrived`], on
//! either lane, some in what [`peer`] keeps of the other side's memory. [`objects`] knows which sealed memory and files were
//! passed, [`quota`] what the connections of one user may have together.

pub(crate) mod arrived;
pub(crate) mod incoming;
pub(crate) mod objects;
pub(crate) mod outgoing;
pub(crate) mod peer;
pub(crate) mod pool;
pub(crate) mod quick;
pub(crate) mod quota;
pub(crate) mod watch;
