//! The least that a call can cost each way, without lpc.
//!
//! # Layout
//!
//! - `memory`: memory that both processes have.
//! - `watch`: looking for the other side's next message before sleeping.
//! - `socket`: one message there, one back, over a Unix socket.
//! - `ring`: the same through shared memory.
//! - `tokio`: one message there, one back, between two runtimes.
//! - `flag`: the same through a cache line each way.
//! - `readable`: sockets that a runtime watches for reading alone.
//! - `inbox`: many messages a read.
//! - `batched`: 64 calls at once from one thread.
//! - `threads`: 64 calls at once from as many threads.
//! - `tasks`: 64 calls at once from as many tasks.
//! - `pool`: large bodies, by the ways in which bytes can cross.

mod batched;
mod flag;
mod inbox;
mod memory;
mod pool;
mod readable;
mod ring;
mod socket;
mod tasks;
mod threads;
mod tokio;
mod watch;

use super::peer::Peer;

pub(crate) fn all() -> Vec<Box<dyn Peer>> {
    let mut floors = socket::all();
    floors.extend(ring::all());
    floors.extend(tokio::all());
    floors.extend(flag::all());
    floors.extend(batched::all());
    floors.extend(threads::all());
    floors.extend(tasks::all());
    floors.extend(pool::all());
    floors
}
