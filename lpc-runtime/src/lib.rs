//! Local procedure calls: the methods of a trait run in another process on the same machine, and a call reads
//! like any other call.
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
//! In a program without an async runtime, the trait's methods are `fn`, and [`blocking`] has the server.
//!
//! # Services
//!
//! [`#[service]`](macro@service) on a trait generates clients for it. Code that takes `&impl Documents` gets
//! the object itself or a client of another process, and cannot tell which.
//!
//! Arguments are what Rust methods usually take: `&str`, `&[u8]`, `&[T]`, `&T`, `&Path`, `Option<&str>`,
//! tuples, `Cow`, and owned values of any type that implements serde's traits. Bytes travel in one piece
//! wherever they stand. Results are `Result<T, E>` with `E: From<lpc::Error>`, because every call may fail.
//! With `thiserror`:
//!
//! ```
//! #[derive(Debug, thiserror::Error, serde::Serialize, serde::Deserialize)]
//! pub enum StoreError {
//!     #[error("no document of this name")]
//!     NotFound,
//!     #[error(transparent)]
//!     Call(#[from] lpc::Error),
//! }
//! ```
//!
//! See [`service`](macro@service).
//!
//! # Blocking and async
//!
//! The async side, on tokio, is at the root of the crate: [`Server`], [`Client`]. It needs the feature
//! `tokio` (on by default), and a runtime with I/O and time enabled. The [`blocking`] side needs no runtime,
//! and is the faster one for callers that wait for each reply. Both speak the same protocol: any client talks
//! to any server, and each trait gets a client of either kind.
//!
//! | trait of | server | client that implements the trait | the other client |
//! |---|---|---|---|
//! | `fn` | [`blocking::Server`] | `DocumentsClient`, blocking | `DocumentsAsyncClient` |
//! | `async fn` | [`Server`] | `DocumentsClient`, async | `DocumentsBlockingClient` |
//!
//! The other client has a trait as well, `DocumentsAsync` or `DocumentsBlocking`, for code that is generic
//! over it, and for objects that stand in for it. [`in_process`] takes an implementation of either colour.
//!
//! Many threads or tasks may call through one client at the same time. Its clones share the connection.
//!
//! # Where a service is
//!
//! | | server | client |
//! |---|---|---|
//! | at a name, or an absolute path | [`bind`] | [`connect`] |
//! | in a child process of the client | [`serve_parent`](blocking::serve_parent) | [`spawn`] |
//! | in one that is started again when it has ended | [`serve_parent`](blocking::serve_parent) | [`supervise`] |
//! | at the other end of a connected pair | [`serve_stream`] | [`connect_stream`] |
//! | behind a socket opened by systemd | [`from_env`] | [`connect`] to its path |
//! | behind several of them, by name | [`ActivatedSockets`] | [`connect`] to its path |
//! | in the same process, for tests | | [`in_process`] |
//!
//! A name is a socket in the user's runtime directory, which no other user can enter. Only processes of the
//! same user are accepted, unless [`accept`](config::ServerBuilder::accept) decides otherwise by the peer's
//! [`Credentials`], and [`socket_mode`](config::ServerBuilder::socket_mode) opens a socket at an absolute
//! path to other users. See [`Port`].
//!
//! [`bind`]: blocking::ServerBuilder::bind
//! [`connect`]: blocking::ClientBuilder::connect
//! [`spawn`]: blocking::ClientBuilder::spawn
//! [`supervise`]: blocking::ClientBuilder::supervise
//! [`serve_stream`]: blocking::ServerBuilder::serve_stream
//! [`connect_stream`]: blocking::ClientBuilder::connect_stream
//! [`from_env`]: blocking::Server::from_env
//! [`in_process`]: blocking::ClientBuilder::in_process
//!
//! # Lanes and the threshold
//!
//! A body (the encoded arguments of a call, or its result) takes one of two lanes. A small one is copied
//! through the Unix socket. One whose encoded size is above the [`Threshold`] takes the *mapping lane*: it is
//! encoded straight into a block of shared memory that both processes keep mapped.
//!
//! | the threshold of | is set by |
//! |---|---|
//! | one method, in both directions | `#[lpc(threshold = "64KiB")]` |
//! | a client (arguments), a server (results) | the builder's [`threshold`] |
//! | a process | the environment variable `LPC_THRESHOLD` |
//! | all others | [`Threshold::DEFAULT`] |
//!
//! [`Stats`] tell how many bodies and bytes took which lane, and what another threshold would have changed.
//!
//! A small call takes one system call to send and one to receive on each side, and while it is the only one
//! under way, no other thread is woken for it. A large `&[u8]`, `&str`, `Vec<u8>` or `String` is copied once
//! by the sender, into shared memory, and once by the receiver, out of it. After warm-up no call creates,
//! maps or unmaps anything. [Loans](#loans) and [trust](#trust) save the copies. See [`Threshold`] and
//! [`Stats`].
//!
//! [`threshold`]: config::ClientBuilder::threshold
//!
//! # Quick lane
//!
//! Where both sides ask for it, small messages go through a ring in shared memory, without a system call:
//!
//! ```no_run
//! # use lpc::service;
//! # #[service] pub trait Echo { fn echo(&self, text: &str) -> lpc::Result<String>; }
//! let server = lpc::blocking::Server::builder().quick_lane(true).bind("echo")?;
//! let echo = EchoClient::builder().quick_lane(true).connect("echo")?;
//! # Ok::<(), lpc::Error>(())
//! ```
//!
//! It pays where calls follow each other closely and each process has a CPU of its own. On one CPU, or where
//! both sides sleep between calls, it gains little and may lose a little. If [`Stats::quick`] counts nearly
//! as many `bells` as there were calls, one side had to be woken each time. (A scheduler that has few CPUs
//! may keep putting both processes on the same one: pin them, taskset(1).) See
//! [`quick_lane`](config::ClientBuilder::quick_lane).
//!
//! # Loans
//!
//! A loan is memory that another process reads where it is: a [`SharedMut<[T]>`](SharedMut) is filled in
//! place, and frozen into a [`Shared<[T]>`](Shared), which is passed without a copy in any argument or result
//! and kept by the receiver as long as it likes. A gigabyte costs what a byte costs. See [`Shared`] and
//! [`SharedMut`].
//!
//! # Trust
//!
//! A peer can still write to shared memory that it has passed, so by default a receiver copies a body out of
//! it, once, before it looks at it. If you own both ends, one line lets borrowed arguments (`&[u8]`, `&str`)
//! and loans be read where they are; a `Vec` or `String` is a copy in any case:
//!
//! ```no_run
//! # struct Store;
//! # #[lpc::service] pub trait Documents { fn put(&self, body: &[u8]) -> lpc::Result<()>; }
//! # impl Documents for Store { fn put(&self, body: &[u8]) -> lpc::Result<()> { Ok(()) } }
//! let server = lpc::blocking::Server::builder();
//! // SAFETY: all programs of this user are ours, use lpc, and never write to files they have passed.
//! let server = unsafe { server.trust(|peer| peer.uid() == 1000) };
//! server.bind("documents")?.serve(Store)?;
//! # Ok::<(), lpc::Error>(())
//! ```
//!
//! See [`trust`](config::ServerBuilder::trust).
//!
//! # Errors
//!
//! A call that fails on its way fails with an [`Error`]. It has a [kind](ErrorKind), a text that says what
//! failed and where, and the call's [`Progress`], which tells whether the call may have run. A peer that dies
//! fails its calls at once. A value that does not decode, because its type's `Deserialize` refuses it, fails
//! its call alone. A peer that breaks the protocol, or sends nothing but what does not decode, is
//! disconnected, and the reason is logged through `tracing`; other connections go on. See [`Error`].
//!
//! # Calls within calls
//!
//! An implementation may call other services while it answers a call, also itself, directly or by way of others.
//! A call that is made within another says how deep it is nested, and waits neither for a permit nor for a place
//! among the calls that run where those are taken by the calls around it: for each depth there is one more
//! (beyond `max_calls_in_flight` and `max_concurrent_calls`). Beyond a depth of 32 a call fails at once, with
//! [`ErrorKind::ResourceExhausted`]. What belongs together is the thread or task: calls of threads and tasks that
//! an implementation starts are not nested.
//!
//! # Deadlines and cancellation
//!
//! A client has a deadline for all calls if it is built with [`deadline`](config::ClientBuilder::deadline), a
//! method has its own with `#[lpc(deadline = "30s")]`, and a caller sets one for single calls by
//! [`with_deadline`](blocking::Client::with_deadline). Deadlines travel with the call.
//!
//! When a deadline passes, a future is dropped, or the caller dies, the server cancels the call. An
//! `async fn` is dropped at its `await`, as it would be in the caller's process. A `fn` can ask its
//! [`Context`], or be told by it, which also knows the caller's credentials, the time left, and whether the server
//! shuts down. See [`Context`].
//!
//! [`close`](blocking::Client::close) ends all calls of a client, from any thread.
//!
//! # Reconnecting
//!
//! A client built with [`reconnect`](config::ClientBuilder::reconnect) survives its server: it connects
//! again, with growing pauses, and repeats those calls that were certainly not sent, or whose method is
//! marked `#[lpc(idempotent)]`. Nothing else is ever called twice. See [`Reconnect`].
//!
//! A client made by [`supervise`] does so with a program of its own, which it starts again when its process
//! has crashed or been killed: to isolate a decoder, for one. A call that fails with a child process says how
//! that has ended. [`kill_with_parent`](config::ClientBuilder::kill_with_parent) lets no child outlive this
//! process.
//!
//! # Versions
//!
//! When they connect, both sides compare what the arguments and result of each method look like, as serde
//! sees them. A method that differs fails when it is called, before anything is sent, with an error that says
//! where:
//!
//! ```text
//! Orders.place differs between client and server: argument `order.price` is `u32` here and `u64` there
//! ```
//!
//! The other methods go on working. To add, remove and reorder methods is compatible. So is renaming types,
//! except those that cannot be traced, because they ask the data what comes next (as `serde_json::Value`
//! does) or refuse all made-up values: these are compared by name. See [`ErrorKind::Incompatible`].
//!
//! # What serde's attributes do
//!
//! Almost all arguments and results are packed: fields follow each other without names, since both sides know
//! them. Types that cannot be read so are *described*, with the names of fields and variants: those that ask the
//! data what comes next (`#[serde(untagged)]`, `tag`, `flatten`, `serde_json::Value`) and those that leave
//! something out when they are written (`skip_serializing_if`, `skip` in the middle of an enum). Both sides
//! find that out before the first call, by writing and reading made-up values, and it holds for the whole
//! argument or result. A described one takes about three to eight times as long to encode and decode.
//!
//! A type that writes what it cannot read in either way, for instance a field with `skip_serializing` but no
//! `default`, is refused by `bind` and `connect`: [`ErrorKind::Unsupported`], with the method, the field, and
//! the attribute to change. What asks the data what comes next is made up by what it says as it refuses
//! something; where it insists on a text of a certain form, say, there may be variants of which no value was
//! made, and nothing is known.
//!
//! serde buffers such values, within limits of its own. Numbers of 128 bits do not pass (which is found, too), nor
//! do paths that are not UTF-8, and an enum of this sort that contains itself may take time that doubles with
//! each level ([`max_depth`](config::ServerBuilder::max_depth)).
//!
//! # Shutdown
//!
//! [`Handle::shutdown`](blocking::Handle::shutdown) makes a server accept no more calls and answer those that
//! have arrived, for [`shutdown_timeout`](config::ServerBuilder::shutdown_timeout) at most. A client that
//! reconnects loses no call by it:
//!
#![cfg_attr(feature = "tokio", doc = "```")]
#![cfg_attr(not(feature = "tokio"), doc = "```ignore")]
//! #[lpc::service]
//! pub trait Clock {
//!     async fn now(&self) -> lpc::Result<std::time::SystemTime>;
//! }
//!
//! struct Wall;
//!
//! impl Clock for Wall {
//!     async fn now(&self) -> lpc::Result<std::time::SystemTime> {
//!         Ok(std::time::SystemTime::now())
//!     }
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> lpc::Result<()> {
//! # let directory = tempfile::tempdir()?;
//! # let port = directory.path().join("clock");
//! let server = lpc::Server::bind(&port)?;
//! let handle = server.handle();
//! let serving = tokio::spawn(server.serve(Wall));
//!
//! let clock = ClockClient::connect(&port).await?;
//! println!("{:?}", clock.now().await?);
//!
//! handle.shutdown();
//! serving.await.expect("the server does not panic")
//! # }
//! ```
//!
//! If `NOTIFY_SOCKET` is set, the service manager is told when a server is ready and when it stops. See
//! [`blocking::Handle`] and [`Handle`].
//!
//! # Tracing
//!
//! What happens is told through `tracing`. With `RUST_LOG=lpc=debug` one can follow a call.
//!
//! | target | level | what |
//! |---|---|---|
//! | `lpc::call` | debug | a span for each call: `call` at the client, `serve` at the server |
//! | `lpc::call` | debug | events in it: `sent` and `received`; `answered`, or `failed` with the `error` |
//! | `lpc::connection` | debug | a connection was made, on either side |
//! | `lpc::…` | debug | a connection has ended or is made again; a child process was started |
//! | `lpc::…` | warn | the peer broke the protocol or was refused; the system lacks something |
//! | `lpc::…` | error | an implementation panicked |
//!
//! The fields of both spans are `service`, `method`, the peer's `pid` and `uid`, and the number of the
//! `call`, which is the same on both sides, and unique to one connection while the call lasts. A server has
//! the span entered while the implementation runs, in each poll of an `async fn`, so that what it tells lies
//! inside. The client's lies inside of its caller's. A warning or error that a peer can cause again and again
//! is told once in a minute, with how often it was not (`unsaid`).
//!
//! Where no subscriber has its level at debug or below, a call costs one load for that.
//!
//! # Limits
//!
//! Whatever a peer does, what it can use of this process is bounded: sizes of messages, memory, descriptors,
//! connections, calls at once, time. Each limit that can be set is a method of the builders, and is named in
//! the error that it leads to. See [`config`] for a table of them.
//!
//! # fork(2)
//!
//! In a child process after fork(2) all calls through the parent's connections fail, and nothing that the
//! child drops touches them. A server that was bound before the fork can serve in the child, as a daemon
//! does.
//!
//! # Panics
//!
//! A panic in an implementation is an error for its caller alone. That takes unwinding: built with
//! `panic = "abort"`, the process ends instead, as it then does when a `Deserialize` of the user's panics.
//! That may happen on what a peer sends, and on the made-up values by which lpc finds out, at the first
//! connection, what a method's types look like.
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
mod home;
mod maintenance;
mod memory;
mod port;
mod server;
mod shared;
mod spans;
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
pub use crate::port::{ActivatedSockets, Port};
pub use crate::server::callback::CallbackGuard;
pub use crate::server::context::Context;
pub use crate::shared::{Plain, Shared, SharedMut, View};
pub use crate::stats::{Lanes, Quick, Sizes, Stats, Traffic, Waits};

/// What generated code uses. It is not for others, and not stable.
#[doc(hidden)]
pub mod __private {
    pub use lpc_core::form::{Known, Unknown};

    pub use crate::generated::{
        Arguments, AsyncDispatch, ByRef, Crosses, Crossing, Dispatch, Dispatcher, Each, Encoder, Held, Made,
        Outcome, Reply, Request, Stays, Uncrossable, deadline, threshold,
    };
    pub use crate::server::in_process::InProcess;
}

/// The README's examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
