//! What the servers of both drivers have in common.

pub(crate) mod admission;
pub(crate) mod callback;
pub(crate) mod context;
pub(crate) mod desk;
pub(crate) mod ends;
pub(crate) mod handshakes;
pub(crate) mod in_process;
pub(crate) mod served;
pub(crate) mod wakers;
