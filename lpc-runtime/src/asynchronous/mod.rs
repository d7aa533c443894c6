//! The client and server on tokio. Its public items stand at the crate's root.

mod client;
mod connection;
mod greeting;
mod race;
mod redial;
mod server;
mod socket;
mod spinning;
mod stream;

pub use self::client::{Client, Stub};
pub use self::server::{Handle, Server, serve_parent};

/// The driver of the crate's root, as a type.
#[derive(Debug)]
pub enum Tokio {}

/// Makes an async client with other settings than the default ones: see its [`builder`](Stub) and
/// [`connect`](crate::config::ClientBuilder::connect).
pub type ClientBuilder<C> = crate::config::ClientBuilder<C, Tokio>;

/// Makes an async server with other settings than the default ones: see [`Server::builder`].
pub type ServerBuilder = crate::config::ServerBuilder<Tokio>;
