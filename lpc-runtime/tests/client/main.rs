//! What a client does with a server that keeps to the rules badly, or is gone: once for each driver.
//!
//! # Layout
//!
//! - `service`: the service and its clients.
//! - `raw`: a server by hand.
//! - `rejected`: calls whose bodies the server cannot read where they stand.
//! - `deadlines`: deadlines of callers that receive for others.
//! - `permits`: many callers, few calls in flight.
//! - `wakers`: tasks that end while they wait for the client.
//! - `home`: blocking calls on the thread that would have to answer them.
//! - `debug`: what a client's `Debug` shows.
#![cfg(feature = "tokio")]
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "a test")]

mod deadlines;
mod debug;
mod home;
mod permits;
mod raw;
mod rejected;
mod service;
mod wakers;

use std::time::Duration;

/// Guards against hangs. Nothing takes this long.
pub const GUARD: Duration = Duration::from_secs(60);
