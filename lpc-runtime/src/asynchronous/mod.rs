//! The client and server on tokio. Their public items are at the root of the crate.

mod call;
mod caller;
mod client;
mod connection;
mod greeting;
mod handover;
mod race;
mod redial;
mod server;
mod signal;
mod socket;
mod spinning;
mod stream;
mod thread_spin;
mod timer;

pub use self::client::{Client, Stub};
pub use self::server::{Handle, Server, serve_parent};

/// The tokio driver as a type: the parameter of builders and stubs.
#[derive(Debug)]
pub enum Tokio {}

/// Builds an async client: see its [`builder`](Stub), the settings of [`config`](crate::config), and
/// [`connect`](crate::config::ClientBuilder::connect).
pub type ClientBuilder<C> = crate::config::ClientBuilder<C, Tokio>;

/// Builds an async server: see [`Server::builder`], and the settings of [`config`](crate::config).
pub type ServerBuilder = crate::config::ServerBuilder<Tokio>;
