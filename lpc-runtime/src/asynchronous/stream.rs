//! [`Stream`]: a connected socket that tokio's reactor watches for reading alone.
//!
//! tokio watches its own for writing, too. Then the kernel reports each message that the peer has read, because there is room for
//! another one, and so wakes this side for nothing: on one CPU that is a third of a call. Room is missing seldom, and watched
//! for only then.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Handle, RuntimeFlavor};

/// How often it is tried to write where this process has no descriptor left to watch for room.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Stream {
    watched: AsyncFd<UnixStream>,
    is_of_one_thread: bool,
}

/// Waits for a socket to have room.
#[derive(Debug)]
pub(super) struct Room(Option<AsyncFd<UnixStream>>);

impl Stream {
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O enabled.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let is_of_one_thread = Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread;
        Ok(Self { watched: watch(stream, Interest::READABLE)?, is_of_one_thread })
    }

    /// Whether its runtime has one thread, and so no other to wake for a task that is ready.
    pub(super) fn is_of_one_thread(&self) -> bool {
        self.is_of_one_thread
    }

    /// Waits until there may be something to read.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.watched.readable().await.map(drop)
    }

    /// Reads, if there may be something: where `read` says that it would block, the next [`readable`](Self::readable) waits.
    pub(super) fn try_read<T>(&self, read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.watched.try_io(Interest::READABLE, |_| read())
    }

    /// For who has found that the socket takes no more.
    pub(super) fn room(&self) -> Room {
        // Of one file the reactor can have a descriptor once.
        let again = self.watched.get_ref().try_clone();
        let watched = again.and_then(|again| watch(again, Interest::WRITABLE));
        Room(
            watched.inspect_err(|error| tracing::warn!(%error, "no descriptor left to wait for a peer")).ok(),
        )
    }
}

impl Room {
    /// Waits until the socket may take more.
    pub(super) async fn there(&self) -> io::Result<()> {
        match &self.0 {
            // Before it is tried: room that comes after that is reported again.
            Some(watched) => watched.writable().await.map(|mut ready| ready.clear_ready()),
            None => {
                tokio::time::sleep(PAUSE).await;
                Ok(())
            }
        }
    }
}

fn watch(stream: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    // SAFETY: a `UnixStream` owns its descriptor: the number stays the same, open and of the same socket, for as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(stream, interest) }?)
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watched.get_ref().as_fd()
    }
}
