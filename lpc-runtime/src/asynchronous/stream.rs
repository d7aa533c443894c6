//! [`Stream`]: a connected socket that tokio's reactor watches for reading alone.
//!
//! tokio watches its own for writing, too. Then the kernel reports each message that the peer has read,
//! because there is room for another one, and so wakes this side for nothing: on one CPU that is a third of a
//! call. Room is missing seldom, and watched for only then.
//!
//! Nor is it watched while spinning finds what comes: each message would wake the thread that waits for the
//! reactor's events, which in a runtime of several is another one than that which looks.
#![allow(unsafe_code)]

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Handle, RuntimeFlavor, is_rt_shutdown_err};

use crate::connection::warnings::{Warning, Warnings};

/// How often it is tried to read or write where the system cannot watch for that.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Stream {
    socket: Arc<UnixStream>,
    /// Until spinning has paid for a while.
    watched: Mutex<Option<Arc<AsyncFd<Arc<UnixStream>>>>>,
    /// Messages that were found by spinning since it was last waited for one.
    found: AtomicU32,
    warnings: Warnings,
    runtime: Handle,
}

/// So many, and it is watched no longer. To begin and to end that are system calls.
const ENOUGH: u32 = 64;

/// Waits for a socket to have room.
#[derive(Debug)]
pub(super) struct Room(Option<AsyncFd<Arc<UnixStream>>>);

impl Stream {
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O enabled.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let stream = Self {
            socket: Arc::new(stream),
            watched: Mutex::default(),
            found: AtomicU32::new(0),
            warnings: Warnings::default(),
            runtime: Handle::current(),
        };
        // First of all where there may be no means for it: a server has not begun to serve then.
        stream.watch()?;
        Ok(stream)
    }

    /// Whether its runtime has one thread, and so no other to wake for a task that is ready.
    pub(super) fn is_of_one_thread(&self) -> bool {
        self.runtime.runtime_flavor() == RuntimeFlavor::CurrentThread
    }

    /// Waits until there may be something to read. A task that finds something again and again gives way to
    /// others now and then ([`coop`](tokio::task::coop)).
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.found.store(0, Relaxed);
        match self.watch() {
            // One task waits for it, whose waker the reactor keeps from one time to the next.
            Ok(watched) => poll_fn(|cx| watched.poll_read_ready(cx).map_ok(drop)).await,
            Err(error) if is_rt_shutdown_err(&error) => Err(error),
            Err(error) => {
                self.warnings.warn_of(Warning::NotWatched, &error);
                tokio::time::sleep(PAUSE).await;
                Ok(())
            }
        }
    }

    /// Reads, if there may be something: where `read` says that it would block, the next
    /// [`readable`](Self::readable) waits.
    pub(super) fn try_read<T>(&self, read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let watched = self.watched().clone();
        match watched {
            Some(watched) => watched.try_io(Interest::READABLE, |_| read()),
            None => read(),
        }
    }

    /// Something was there to be read, without waiting.
    pub(super) fn found(&self) {
        if self.found.fetch_add(1, Relaxed) + 1 == ENOUGH {
            self.unwatch();
        }
    }

    /// Is not watched, until it is waited for again.
    pub(super) fn unwatch(&self) {
        let watched = self.watched().take();
        // Without the lock.
        drop(watched);
    }

    fn watch(&self) -> io::Result<Arc<AsyncFd<Arc<UnixStream>>>> {
        let mut watched = self.watched();
        if let Some(watched) = &*watched {
            return Ok(Arc::clone(watched));
        }
        let _context = self.runtime.enter();
        let new = Arc::new(watch(Arc::clone(&self.socket), Interest::READABLE)?);
        Ok(Arc::clone(watched.insert(new)))
    }

    fn watched(&self) -> MutexGuard<'_, Option<Arc<AsyncFd<Arc<UnixStream>>>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a sender that has found that the socket takes no more.
    pub(super) fn room(&self) -> Room {
        // Of one file the reactor can have a descriptor once.
        let again = self.socket.try_clone();
        let watched = again.and_then(|again| watch(Arc::new(again), Interest::WRITABLE));
        Room(watched.inspect_err(|error| self.warnings.warn_of(Warning::NoRoomWatched, error)).ok())
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

fn watch(stream: Arc<UnixStream>, interest: Interest) -> io::Result<AsyncFd<Arc<UnixStream>>> {
    // SAFETY: a `UnixStream` owns its descriptor: the number stays the same, open and of the same socket, for
    // as long as it lives, and an `Arc` gives no other one out.
    Ok(unsafe { AsyncFd::register_with_interest(stream, interest) }?)
}

/// Watches a file of the kernel's that has events to be read.
pub(super) fn watch_for_events(file: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: it owns its descriptor, whose number stays the same and open for as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) }?)
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
