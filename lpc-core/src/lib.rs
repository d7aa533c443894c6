//! The protocol of lpc. Does no I/O, owns no socket and never reads the clock. Start at
//! [`receive::Receiver`].
//!
//! ```
//! use lpc_core::frame::{self, CallId};
//! use lpc_core::limits::Limits;
//! use lpc_core::receive::{Incoming, Payload, Receiver, Role};
//!
//! // What a client puts on the wire ...
//! let mut bytes = Vec::new();
//! frame::begin_call(&mut bytes, 7);
//! bytes.extend_from_slice(b"argument");
//! frame::seal(&mut bytes, CallId::new(1), frame::Body::Inline, &[]);
//!
//! // ... is what a server takes off it.
//! let mut receiver: Receiver<()> = Receiver::new(Role::Server, Limits::default());
//! receiver.space()[..bytes.len()].copy_from_slice(&bytes);
//! receiver.received(bytes.len(), [], false)?;
//! let Some(Incoming::Call { call, method, payload, .. }) = receiver.next(Vec::with_capacity)? else { panic!("one call was sent") };
//! assert_eq!((call, method), (CallId::new(1), 7));
//! assert!(matches!(payload, Payload::Inline(body) if body == b"argument"));
//! # Ok::<(), lpc_core::receive::Violation>(())
//! ```
//!
//! # Layout
//!
//! In the order in which a call meets them:
//!
//! | module | is |
//! |---|---|
//! | [`handshake`] | what peers tell each other first: version, service, methods, limits |
//! | [`form`] | what arguments and results look like, so that two builds can compare them |
//! | [`codec`] | values to bytes and back |
//! | [`control`] | the protocol's own messages to bytes and back |
//! | [`threshold`] | which lane a body takes |
//! | [`deadline`] | deadlines in attributes, as text |
//! | [`arena`], [`ledger`] | the pages of shared memory that it gets |
//! | [`lent`] | the blocks that the peer goes on reading |
//! | [`frame`] | the frames on the wire |
//! | [`ring`] | the rings of the quick lane, which carry frames without a system call |
//! | [`send`] | frames in, batches of bytes and descriptors out |
//! | [`receive`] | bytes and descriptors in, checked messages out |
//! | [`calls`] | the calls that wait for their reply |
//! | [`desk`] | what a server owes one client: its calls, its results, its end |
//! | [`run_queue`] | of those calls, which run and which wait to |
//! | [`pace`] | which methods are quick enough to run where they were read |
//! | [`spin`] | whether to spin for the next message before sleeping |
//! | [`limits`], [`error`] | the bounds, and what happens beyond them |

pub mod arena;
pub mod calls;
pub mod codec;
mod compounds;
pub mod control;
pub mod deadline;
pub mod desk;
pub mod error;
pub mod form;
pub mod frame;
pub mod handshake;
pub mod ledger;
pub mod lent;
pub mod life;
pub mod limits;
pub mod method;
pub mod pace;
pub mod permits;
pub mod receive;
pub mod ring;
pub mod run_queue;
pub mod send;
pub mod spin;
pub mod threshold;
pub mod turns;
mod type_name;

pub use error::{Error, ErrorKind, Progress, Result};
pub use limits::Limits;
pub use method::{Method, Service};
pub use threshold::Threshold;
