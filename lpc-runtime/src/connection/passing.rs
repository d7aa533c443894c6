//! [`Descriptor`]: a descriptor on its way to the peer, and [`Passage`]: whether it got there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Acquire, Ordering::Release};

/// Whether the descriptor of what was announced went out with its frame. The system may pass none
/// (`ETOOMANYREFS`, unix(7)): then the frame goes without, and what it announced is of no use to the peer.
#[derive(Debug, Default)]
pub(crate) struct Passage(AtomicU8);

const PASSED: u8 = 1;
const LOST: u8 = 2;

impl Passage {
    /// Whether that is not known yet: the frame waits to be sent.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Acquire) == 0
    }

    /// Whether it did not.
    #[inline]
    pub(crate) fn is_lost(&self) -> bool {
        self.0.load(Acquire) == LOST
    }
}

/// A descriptor that goes with a frame.
#[derive(Debug)]
pub(crate) struct Descriptor {
    descriptor: OwnedFd,
    /// Where somebody asks.
    passage: Option<Arc<Passage>>,
}

impl Descriptor {
    /// Of shared memory or a file.
    pub(crate) fn with(descriptor: OwnedFd, passage: &Arc<Passage>) -> Self {
        Self { descriptor, passage: Some(Arc::clone(passage)) }
    }

    /// It went out.
    pub(crate) fn passed(&self) {
        self.conclude(PASSED);
    }

    /// Its frame goes out without it.
    pub(crate) fn lost(&self) {
        self.conclude(LOST);
    }

    fn conclude(&self, how: u8) {
        if let Some(passage) = &self.passage {
            passage.0.store(how, Release);
        }
    }
}

impl From<OwnedFd> for Descriptor {
    fn from(descriptor: OwnedFd) -> Self {
        Self { descriptor, passage: None }
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
