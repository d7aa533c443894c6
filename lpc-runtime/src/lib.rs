//! Local procedure calls: a trait whose methods run in another process on the same machine, and read at the call site
//! like calls in this one.
//!
#![cfg_attr(feature = "tokio", doc = "```")]
#![cfg_attr(not(feature = "tokio"), doc = "```ignore")]
//! use lpc::service;
//!
//! #[service]
//! pub trait Documents {
//!     /// Counts the words of `text`.
//!     async fn count_words(&self, text: &str) -> lpc::Result<u64>;
//! }
//!
//! struct Store;
//!
//! impl Documents for Store {
//!     async fn count_words(&self, text: &str) -> lpc::Result<u64> {
//!         Ok(text.split_whitespace().count() as u64)
//!     }
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> lpc::Result<()> {
//! # let directory = tempfile::tempdir()?;
//! # let port = directory.path().join("documents");
//! // In the one process:
//! let server = lpc::Server::bind(&port)?;
//! tokio::spawn(server.serve(Store));
//!
//! // In the other:
//! let documents = DocumentsClient::connect(&port).await?;
//! assert_eq!(documents.count_words("to be or not to be").await?, 6);
//! # Ok(())
//! # }
//! ```
//!
//! # Services
//!
//! [`#[service]`](macro@service) on a trait generates a client that implements it. The trait's methods take what Rust
//! methods take and return `Result<T, E>` with `E: From<lpc::Error>`; all are `fn`, or all are `async fn`. Code that
//! takes `&impl Documents` gets the object itself or a client of another process, and cannot tell which.
//!
//! # Drivers
//!
//! The async side stands at the root: [`Server`], [`Client`]. It needs the feature `tokio`, on by default. The
//! [`blocking`] side needs no async runtime, and is the faster one for callers that wait for each reply. Both speak the
//! same protocol: any client talks to any server, and each trait gets a client for either.
//!
//! # Ports
//!
//! A service is found at a [`Port`]: a name in the user's runtime directory, or an absolute path. Where the one process
//! starts the other no port is needed: see [`ClientBuilder::spawn`](config::ClientBuilder::spawn) and
//! [`blocking::serve_parent`].
//!
//! # Lanes
//!
//! A body whose encoded size is above the [`Threshold`] travels through shared memory that both sides keep mapped,
//! anything smaller through the socket. See [`ClientBuilder::threshold`](config::ClientBuilder::threshold) for where it
//! is set, and [`Stats`] for what took which lane.
//!
//! # Errors
//!
//! A call that fails on its way fails with an [`Error`]: it has a [kind](ErrorKind), a text that says what and where,
//! and the call's [`Progress`], which tells whether it may have run.
//!
//! # Panics
//!
//! A panic in an implementation is an error for its caller alone. That takes unwinding: built with `panic = "abort"`, the
//! process ends instead. So it does then where a `Deserialize` of the user's panics, be it on what a peer sends or on the
//! made-up values by which lpc finds out, at the first connection, what a method's types look like.
//!
//! # Features
//!
//! - `tokio` (default): the async side, on tokio.

#[cfg(feature = "tokio")]
mod asynchronous;
mod body;
mod child;
mod client;
pub mod config;
mod connection;
mod credentials;
mod generated;
mod handshake;
mod maintenance;
mod memory;
mod port;
mod server;
mod shared;
mod stats;
mod sys;

pub mod blocking;

pub use lpc_core::{Error, ErrorKind, Method, Progress, Result, Service, Threshold};
pub use lpc_macros::service;

#[cfg(feature = "tokio")]
pub use crate::asynchronous::{
    Client, ClientBuilder, Handle, Server, ServerBuilder, Stub, Tokio, serve_parent,
};
pub use crate::client::reconnect::{ConnectionEvent, Reconnect};
pub use crate::config::AtQuota;
pub use crate::credentials::Credentials;
pub use crate::port::Port;
pub use crate::server::context::Context;
pub use crate::shared::{Plain, Shared, SharedMut, View};
pub use crate::stats::{Lanes, Quick, Sizes, Stats, Traffic, Waits};

/// What generated code names. Not for others, and not stable.
#[doc(hidden)]
pub mod __private {
    pub use lpc_core::codec::Lend;
    pub use lpc_core::form::{Known, Unknown};

    pub use crate::generated::{
        Arguments, AsyncDispatch, ByRef, Dispatch, Dispatcher, Each, Encoder, Held, Outcome, Reply, Request,
        deadline, lend, threshold,
    };
}

/// The README's examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
