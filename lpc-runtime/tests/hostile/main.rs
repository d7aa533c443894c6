//! What hostile peers do, done to real processes: each attack to a server, to a client, or to both, of either
//! driver.
//!
//! Whatever the attack is, the same has to hold, and [`siege`] checks it:
//!
//! - An honest peer of the same process is answered, correctly and within a second, all the while.
//! - The offender is disconnected, or its own calls fail, or it did nothing wrong and is served. A server
//!   logs the reason for which it disconnects.
//! - The process then holds as many descriptors, mappings, threads and bytes of memory as before.
//! - Nothing in it has panicked, and it ends when it is told to.
//!
//! An attack is one entry of a table: its name, whom it is done to, how it has to end, and what it does. Each
//! table is a module: `segments` and `objects` (descriptors that are no honest memory), `descriptors` (floods
//! of them), `framing`, `handshake`, `decoding` (values that are none), `blocks` (places that are nowhere),
//! `bookkeeping` (frames about what is not there), `replies`, `calls`. What takes a process of its own limits
//! stands with the other `processes` tests: `bombs`, `scarce`, `scribbled`.
//!
//! `unread` has clients that read nothing of what they asked for.
//!
//! `kills` has processes killed while they and others call.
//!
//! Each attack is made by 24 peers at once; with `LPC_LONG` in the environment, a hundred times so many.
#![cfg(feature = "tokio")]
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "a test")]

#[macro_use]
mod siege;

mod blocks;
mod bookkeeping;
mod calls;
mod decoding;
mod descriptors;
mod framing;
mod handshake;
mod kills;
mod log;
mod objects;
mod quick;
mod replies;
mod roles;
mod segments;
mod unread;

#[allow(dead_code, reason = "other tests use it")]
#[path = "../processes/fault.rs"]
mod fault;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../processes/hostile.rs"]
mod peer;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../processes/process.rs"]
mod process;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../processes/service.rs"]
mod service;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../processes/vault.rs"]
mod vault;

/// Not a test: the way in for the processes that the tests start. Without a role it returns at once.
#[test]
fn other_process() {
    if let Ok(role) = std::env::var(process::ROLE) {
        roles::play(&role);
    }
}
