//! What every client may expect of every server: each behaviour once, over all pairs of drivers, lanes and
//! ways to connect.
//!
//! # Layout
//!
//! - `probe`: one service as an `fn` trait and as an `async fn` trait of the same name, and its
//!   implementation.
//! - `pairs`: all ways to get a client of it.
//! - `calls`, `ends`: the behaviours.
//! - `deadlines`: calls that are cancelled, by hand or by the clock, and what the implementation can know of
//!   it.
//! - `closing`: clients that their own process closes.
//! - `ports`: servers whose socket is removed.
//! - `reconnecting`: clients that outlive their server.
//! - `admission`: who gets in, how many at once, and how a server ends.
//! - `loans`: values in shared memory: where they may stand, where they are, how long they stay.
//! - `quotas`: what happens where there is no room, and that room comes back.
//! - `pressure`: more than the other side takes.
//! - `contention`: many threads of one client.
//! - `nested`: calls that an implementation makes to itself.
//! - `handshakes`: peers that speak something else, or nothing.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "a test")]

mod admission;
mod calls;
mod closing;
mod contention;
mod deadlines;
mod ends;
mod handshakes;
mod loans;
mod nested;
mod pairs;
mod ports;
mod pressure;
mod probe;
mod quick;
mod quotas;
mod reconnecting;

use std::time::{Duration, Instant};

/// Guards against hangs. Nothing takes this long.
pub const GUARD: Duration = Duration::from_secs(30);

/// Waits until it is so.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + GUARD;
    while !is_so() {
        assert!(Instant::now() < until, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What `run` gives, which must not take for ever.
#[track_caller]
pub fn in_time<T: Send + 'static>(what: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(run()));
    receiver.recv_timeout(GUARD).unwrap_or_else(|error| panic!("{what}: {error}"))
}
