//! The client and server that block: no async runtime, and the fewest system calls.
//!
//! ```
//! use lpc::service;
//!
//! #[service]
//! pub trait Adder {
//!     fn add(&self, a: u64, b: u64) -> lpc::Result<u64>;
//! }
//!
//! struct Wrapping;
//!
//! impl Adder for Wrapping {
//!     fn add(&self, a: u64, b: u64) -> lpc::Result<u64> {
//!         Ok(a.wrapping_add(b))
//!     }
//! }
//!
//! # let directory = tempfile::tempdir()?;
//! # let port = directory.path().join("adder");
//! let server = lpc::blocking::Server::bind(&port)?;
//! let handle = server.handle();
//! let thread = std::thread::spawn(move || server.serve(Wrapping));
//!
//! let adder = AdderClient::connect(&port)?;
//! assert_eq!(adder.add(2, 3)?, 5);
//!
//! handle.shutdown();
//! thread.join().unwrap()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Threads
//!
//! A client makes no thread: of the threads that wait for replies, one reads the socket for all of them. A server
//! has a thread for each connection that reads it and runs quick methods on the spot; it passes the reading on to
//! another thread before it runs a method that is known to take longer, or not known at all.

mod client;
mod connection;
mod greeting;
mod guard;
mod redial;
mod server;
mod workers;

pub use self::client::{Client, Stub};
pub use self::server::{Handle, Server, serve_parent};

/// The driver of this module, as a type.
#[derive(Debug)]
pub enum Blocking {}

/// Makes a blocking client with other settings than the default ones: see its [`builder`](Stub) and
/// [`connect`](crate::config::ClientBuilder::connect).
pub type ClientBuilder<C> = crate::config::ClientBuilder<C, Blocking>;

/// Makes a blocking server with other settings than the default ones: see [`Server::builder`].
pub type ServerBuilder = crate::config::ServerBuilder<Blocking>;
