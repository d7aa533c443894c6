//! [`Writer`]: the system calls of the thread that has the writer's turn, and waiting for room in the socket.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use lpc_core::send::{Batch, Over, WriteOutcome};
use nix::poll::PollFlags;

use crate::connection::passing::Descriptor;
use crate::sys::socket::{self, Wait};

/// The socket, as batches are written to it.
pub(crate) struct Writer {
    /// A stream of the standard library or of tokio; both are driven by the same system calls.
    socket: Arc<dyn AsFd + Send + Sync>,
    /// How long the peer may stop in the middle of a message.
    stall: Duration,
    /// How long it may have stopped reading while something is to be sent.
    write_timeout: Option<Duration>,
    /// Bytes that the socket has taken.
    written: AtomicU64,
}

/// How long a writer waits for a socket that takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Not at all.
    Now,
    /// Not at all: a reactor says when the socket takes more.
    Reactor,
    /// Until then, if there is a time.
    At(Option<Instant>),
}

/// Batches that a sender writes in a row. Those behind its own are of others.
const IN_A_ROW: u32 = 16;

impl Until {
    /// Whether a writer that has written so many batches, and may have to wait for the socket, leaves the
    /// others to somebody else.
    pub(crate) fn is_over(self, batches: u32) -> bool {
        match self {
            Self::Now | Self::Reactor => false,
            Self::At(until) => batches >= IN_A_ROW || until.is_some_and(|until| until <= Instant::now()),
        }
    }
}

/// How long a writer waits before it looks whether it is still to write, and whether there is something to be
/// read.
const SLICE: Duration = Duration::from_millis(10);

impl Writer {
    pub(crate) fn new(
        socket: Arc<dyn AsFd + Send + Sync>,
        stall: Duration,
        write_timeout: Option<Duration>,
    ) -> Self {
        Self { socket, stall, write_timeout, written: AtomicU64::new(0) }
    }

    #[inline]
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The same, for who waits for it to take more.
    pub(crate) fn shared_socket(&self) -> Arc<dyn AsFd + Send + Sync> {
        Arc::clone(&self.socket)
    }

    /// Bytes that the socket has taken.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// How long the peer may stop in the middle of a message.
    pub(crate) fn stall(&self) -> Duration {
        self.stall
    }

    /// How long the peer may have stopped reading while something is to be sent.
    #[cfg(feature = "tokio")]
    pub(crate) fn write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    /// Writes a batch until all of it is out, or the socket takes no more and is not to be waited for any
    /// longer. What is done in between, while it waits, says whether it goes on. Descriptors that have gone
    /// out are left to be closed.
    ///
    /// # Errors
    ///
    /// The socket is broken, or the peer has stopped reading for too long.
    #[inline]
    pub(crate) fn write(
        &self,
        batch: &mut Batch<'_, Descriptor>,
        until: Until,
        sent_descriptors: &mut Vec<Descriptor>,
        meanwhile: impl Fn() -> io::Result<()>,
    ) -> io::Result<WriteOutcome> {
        while let Some(piece) = batch.piece() {
            let sent =
                socket::send(self.socket(), piece.bytes, piece.descriptor.map(AsFd::as_fd), Wait::Never);
            match sent {
                Ok(len) => {
                    // By the holder of the writer's turn alone.
                    self.written.store(self.written() + len as u64, Relaxed);
                    if let Some(descriptor) = batch.wrote(len) {
                        descriptor.passed();
                        sent_descriptors.push(descriptor);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let deadline = match until {
                        Until::Now => return Ok(WriteOutcome::OutOfTime),
                        Until::Reactor => return Ok(WriteOutcome::Full),
                        Until::At(deadline) => deadline,
                    };
                    if !self.wait_writable(deadline, &meanwhile)? {
                        return Ok(WriteOutcome::OutOfTime);
                    }
                }
                Err(error) if socket::is_short_of_means(&error) => return Ok(WriteOutcome::Short),
                Err(error) => return Err(error),
            }
        }
        Ok(WriteOutcome::All)
    }

    /// Waits until the socket takes more; `false` if that takes too long for the sender.
    fn wait_writable(
        &self,
        deadline: Option<Instant>,
        meanwhile: &impl Fn() -> io::Result<()>,
    ) -> io::Result<bool> {
        let now = Instant::now();
        let stalled = self.write_timeout.and_then(|time| now.checked_add(time));
        let until = deadline.into_iter().chain(stalled).min();
        // In slices: shutdown(2) for sending does not wake a thread that waits to send.
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let slice = left.map_or(SLICE, |left| left.min(SLICE));
            if socket::wait(self.socket(), PollFlags::POLLOUT, Some(slice))? {
                return Ok(true);
            }
            meanwhile()?;
            if until.is_some_and(|until| until <= Instant::now()) {
                return if until == stalled { Err(self.has_stopped_reading()) } else { Ok(false) };
            }
        }
    }

    /// The error of a peer that has stopped reading for so long.
    pub(crate) fn has_stopped_reading(&self) -> io::Error {
        io::Error::other(format!("it has stopped reading for {:?} (stall_timeout)", self.stall))
    }
}

/// Why nothing is sent any more, as an error of a system call.
pub(crate) fn into_error(over: Over) -> io::Error {
    match over {
        Over::Closed => io::ErrorKind::BrokenPipe.into(),
        Over::NoMemory => io::Error::new(io::ErrorKind::OutOfMemory, over),
        Over::Ring(violation) => io::Error::new(io::ErrorKind::InvalidData, violation),
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("socket", &self.socket()).finish_non_exhaustive()
    }
}
