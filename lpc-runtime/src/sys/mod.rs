//! The operating system, as far as lpc needs it. Nothing here knows the protocol.
//!
//! `unsafe` stands in this folder alone: in [`mapping`], which reads and writes shared memory, and in [`socket`],
//! which takes over descriptors that the kernel hands out as numbers.

pub(crate) mod mapping;
pub(crate) mod memfd;
pub(crate) mod socket;

use std::io;

/// Runs a system call again as long as a signal interrupts it.
pub(crate) fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(nix::Error::EINTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}
