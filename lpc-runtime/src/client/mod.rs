//! What the clients of both drivers have in common.

pub(crate) mod backpressure;
pub(crate) mod methods;
pub(crate) mod reconnect;
pub(crate) mod reply;
pub(crate) mod session;
pub(crate) mod target;
pub(crate) mod time_limit;
