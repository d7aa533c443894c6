//! The operating system, as far as lpc needs it. Nothing here knows the protocol.
//!
//! Of it [`mapping`], which reads and writes shared memory, [`socket`], which takes over descriptors that the
//! kernel hands out as numbers, [`filesystem`], which asks the kernel about a file, [`fork`], which has a page
//! cleared in forks, and [`environment`], which asks whether this is a set-user-ID program, have `unsafe`.

pub(crate) mod cpu;
pub(crate) mod environment;
pub(crate) mod filesystem;
pub(crate) mod fork;
pub(crate) mod mapping;
pub(crate) mod memfd;
pub(crate) mod notify;
pub(crate) mod private;
pub(crate) mod socket;
pub(crate) mod thread;

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
