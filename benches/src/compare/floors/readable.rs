//! Sockets that a tokio runtime watches for reading alone.
//!
//! Its own are watched for writing, too: then each message that the other side reads wakes this one, to tell
//! that there is room for more.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::net::UnixStream;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// For one that does not block.
pub(super) fn watched(socket: UnixStream) -> io::Result<AsyncFd<UnixStream>> {
    // SAFETY: a `UnixStream` owns its descriptor: the number is the same, and open, for as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}
