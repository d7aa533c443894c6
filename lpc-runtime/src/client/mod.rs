//! What the clients of both drivers have in common.

pub(crate) mod methods;
pub(crate) mod patience;
pub(crate) mod reconnect;
pub(crate) mod session;
