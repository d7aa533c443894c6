//! Local procedure calls.
#[cfg(feature = "tokio")]
mod asynchronous;
mod buffer;
mod child;
mod config;
mod greeting;
mod lane;
mod link;
mod port;
mod service;
mod serving;
mod stats;
mod sys;

pub mod blocking;

pub use lpc_core::{Error, ErrorKind, Method, Progress, Result, Service, Threshold};
pub use lpc_macros::service;

#[cfg(feature = "tokio")]
pub use crate::asynchronous::{
    Client, ClientBuilder, Handle, Server, ServerBuilder, Stub, Tokio, serve_parent,
};
pub use crate::port::Port;
pub use crate::stats::{Lanes, Stats, Traffic};

/// What generated code names. Not for others, and not stable.
#[doc(hidden)]
pub mod __private {
    pub use lpc_core::codec::Lend;

    pub use crate::service::{
        Arguments, AsyncDispatch, ByRef, Dispatch, Dispatcher, Each, Encoder, Held, Outcome, Reply, Request,
        lend, threshold,
    };
}
