//! The blocking client and server: without an async runtime, and with the fewest system calls.
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
//! A client has no thread of its own: of the threads that wait for replies, one reads the socket for all of
//! them.
//!
//! A server has one thread for each connection, which reads the socket and runs methods that are known to be
//! quick. Before it runs any other method, it hands over the socket to another thread.

mod caller;
mod client;
mod connection;
mod greeting;
mod guard;
mod idle;
mod redial;
mod server;
mod workers;

pub use self::client::{Client, Stub};
pub use self::server::{Handle, Server, serve_parent};

/// The blocking driver as a type: the parameter of builders and stubs.
#[derive(Debug)]
pub enum Blocking {}

/// Builds a blocking client: see its [`builder`](Stub), the settings of [`config`](crate::config), and
/// [`connect`](crate::config::ClientBuilder::connect).
pub type ClientBuilder<C> = crate::config::ClientBuilder<C, Blocking>;

/// Builds a blocking server: see [`Server::builder`], and the settings of [`config`](crate::config).
pub type ServerBuilder = crate::config::ServerBuilder<Blocking>;
