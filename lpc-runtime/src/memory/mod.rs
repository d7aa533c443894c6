//! Shared and private memory for bodies: what this side lends, and what it maps of its peer's.
//!
//! [`lender`] is what this side lends to one peer: blocks of [`pool`], the shared memory that the mapping
//! lane writes to, and [`objects`], sealed memory and files. [`peer`] is what is mapped of the other side's,
//! [`quota`] what the connections of one user may have together, and [`buffer`] private bytes. [`foreign`] is
//! a descriptor of the peer's before it is any of these, and [`budget`] counts how many there are.

pub(crate) mod budget;
pub(crate) mod buffer;
pub(crate) mod foreign;
pub(crate) mod lender;
pub(crate) mod objects;
pub(crate) mod peer;
pub(crate) mod pool;
pub(crate) mod quota;
