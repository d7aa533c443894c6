//! What takes real processes and their environment: children, names, `LPC_THRESHOLD`, sockets of the service
//! manager, and running out of descriptors.
//!
//! # Layout
//!
//! - `service`: one service as an `fn` trait and as an `async fn` trait, and clients of both drivers.
//! - `roles`: what this program does as the other process.
//! - `process`: starts this program again in a role, and talks with it.
//! - `children`, `names`, `environment`, `descriptors`, `users`, `manager` (what a service manager is told),
//!   `forks`, `frozen` (processes that are stopped for a while): the tests.
//! - `vault`: the service of the tests about shared memory, which are:
//!   - `scarce`: no descriptor or address space is left;
//!   - `failing`: system calls fail, one at a time;
//!   - `rings`: the same, and no descriptor or quota is left, while a quick lane begins;
//!   - `passing`: the system passes no descriptors, or has no memory to send;
//!   - `threads`: the system has no thread for maintenance;
//!   - `killed`: one side is killed;
//!   - `files`: files and sealed memory, passed on;
//!   - `stopped`: what is noticed of a process that is stopped;
//!   - `steady`: once warm, calls share no more memory;
//!   - `forged`, `scribbled`, `bombs`: peers that speak the protocol by hand (`hostile`), to do harm; more of
//!     them, one by one, in the `hostile` tests.
#![cfg(feature = "tokio")]
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "a test")]

mod bombs;
mod children;
mod descriptors;
mod environment;
mod failing;
mod fault;
mod files;
mod forged;
mod forks;
mod frozen;
#[allow(dead_code, reason = "the `hostile` tests use the rest")]
mod hostile;
mod killed;
mod manager;
mod names;
mod passing;
mod process;
mod rings;
mod roles;
mod scarce;
mod scribbled;
mod service;
mod steady;
mod stopped;
mod threads;
mod users;
mod vault;

/// Not a test: the way in for the processes that the tests start. Without a role it returns at once.
#[test]
fn other_process() {
    if let Ok(role) = std::env::var(process::ROLE) {
        roles::play(&role);
    }
}
