//! What a server does with clients that keep to the rules badly, and with its own ends: once for each driver.
//!
//! # Layout
//!
//! - `service`: the service, its implementation, and its servers.
//! - `raw`: a client by hand.
//! - `congestion`: clients that ask and do not take the answers.
//! - `sealed`: results that refer to sealed memory.
//! - `log`: what the log is told of the end of a connection.
//! - `contexts`: what an implementation waits for.
//! - `spinning`: what a thread does while it waits for several clients.
//! - `exits`: calls at the end of a thread, and of the process.
#![cfg(feature = "tokio")]
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "a test")]

mod congestion;
mod contexts;
mod exits;
mod log;
mod raw;
mod sealed;
mod service;
mod spinning;

use std::time::{Duration, Instant};

/// Guards against hangs. Nothing takes this long.
pub const GUARD: Duration = Duration::from_secs(60);

/// Waits until it is so.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + GUARD;
    while !is_so() {
        assert!(Instant::now() < until, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
