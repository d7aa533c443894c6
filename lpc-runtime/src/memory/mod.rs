//! Shared and private memory for bodies: what this side lends, and what it maps of its peer's.
//!
//! [`pool`] is the shared memory that the mapping lane writes to, [`peer`] what is mapped of the other side's, [`objects`] which
//! sealed memory and files were passed, [`quota`] what the connections of one user may have together, and [`buffer`] private bytes.

pub(crate) mod buffer;
pub(crate) mod objects;
pub(crate) mod peer;
pub(crate) mod pool;
pub(crate) mod quota;
