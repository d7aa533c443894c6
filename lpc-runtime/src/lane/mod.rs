//! The lanes: which way a body takes, and how it gets there.
//!
//! [`outgoing`] encodes a body and chooses its lane, [`pool`] is the shared memory that the mapping lane writes to,
//! [`incoming`] takes bodies off either lane into private memory.

pub(crate) mod incoming;
pub(crate) mod outgoing;
pub(crate) mod pool;
