//! Where the sequence of the peer's frames leaves the socket: its ring, and the [`Entrance`], by which this
//! side stops receiving.

use std::sync::Arc;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU8, Ordering};

#[cfg(loom)]
use loom::sync::atomic::{AtomicU8, Ordering};

use crate::ring::{Consumer, Found, NoRing, Own, Peers, RingViolation, SLOTS};

/// Where the peer's next frame comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The socket, until the peer says otherwise.
    Socket,
    /// The ring.
    Ring,
    /// The socket for one frame, and then the ring.
    Aside,
}

/// What a side still receives. Shared by the one that reads and the one that shuts down.
///
/// Invariant: of the two exactly one says Closing.
#[derive(Debug)]
pub struct Entrance(AtomicU8);

/// The socket is read. Nobody has closed the entrance.
const SOCKET: u8 = 0;

/// The ring is read, too.
const RING: u8 = 1;

/// Nothing more is to be received than what has been sent already.
const CLOSED: u8 = 2;

impl Default for Entrance {
    fn default() -> Self {
        Self(AtomicU8::new(SOCKET))
    }
}

impl Entrance {
    /// Has nothing more received than what has been sent already. Whether the caller has to say Closing, once
    /// the socket is shut for receiving; if not, the one that reads the ring will, or it has been said.
    #[must_use]
    pub fn close(&self) -> bool {
        self.0.swap(CLOSED, Ordering::AcqRel) == SOCKET
    }

    /// Whether the ring may be read. If so, its reader says Closing.
    fn enter_ring(&self) -> bool {
        let entered = self.0.compare_exchange(SOCKET, RING, Ordering::AcqRel, Ordering::Acquire);
        entered != Err(CLOSED)
    }

    #[inline]
    fn is_closed(&self) -> bool {
        self.0.load(Ordering::Acquire) == CLOSED
    }
}

/// The ring of what the peer sends, as far as this side reads it.
#[derive(Debug)]
pub(super) struct Ring<O = NoRing, P = NoRing> {
    consumer: Consumer<O, P>,
    entrance: Arc<Entrance>,
    /// The entrance is this side's, which says so when it is closed.
    has_entered: bool,
    /// Where receiving ends, in slots, once the entrance is closed: behind what can have been in the ring
    /// then. A peer that goes on sending does not keep this side.
    end: Option<u64>,
    /// Nothing more is taken, and that has been said.
    is_over: bool,
    /// Frames taken since the beginning.
    frames: u64,
}

impl<O: Own, P: Peers> Ring<O, P> {
    pub(super) const fn new(consumer: Consumer<O, P>, entrance: Arc<Entrance>) -> Self {
        Self { consumer, entrance, has_entered: false, end: None, is_over: false, frames: 0 }
    }

    /// What the peer sends goes on here.
    pub(super) fn enter(&mut self) {
        if !self.has_entered {
            self.has_entered = self.entrance.enter_ring();
            self.is_over = !self.has_entered;
        }
    }

    /// Whether there is a frame, or something to say.
    #[inline]
    pub(super) fn has_next(&self) -> bool {
        !self.is_over && (self.consumer.is_ready() || self.entrance.is_closed())
    }

    /// The next frame, if there is one and it is to be taken.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Found<'_, O, P>>, RingViolation> {
        if self.end.is_none() && self.entrance.is_closed() {
            self.end = Some(self.consumer.taken() + SLOTS);
        }
        let is_at_end = self.end.is_some_and(|end| self.consumer.taken() >= end);
        if self.is_over || is_at_end { Ok(None) } else { self.consumer.next() }
    }

    /// Counts a frame that was taken.
    #[inline]
    pub(super) fn count(&mut self) {
        self.frames += 1;
    }

    /// Frames taken since the beginning.
    #[inline]
    pub(super) const fn frames(&self) -> u64 {
        self.frames
    }

    /// There is no frame to be taken. If that is the end, and is to be said, the slots that were taken.
    pub(super) fn end_if_closed(&mut self) -> Option<u64> {
        self.end?;
        self.end()
    }

    /// Stops taking frames from the ring. Gives the slots that were taken, if Closing is to say so.
    pub(super) fn end(&mut self) -> Option<u64> {
        let is_to_say = !self.is_over && self.has_entered && self.entrance.is_closed();
        self.is_over = true;
        is_to_say.then(|| self.consumer.taken())
    }

    pub(super) const fn is_over(&self) -> bool {
        self.is_over
    }

    /// Says that this side sleeps; `false` where there is a frame.
    pub(super) fn sleep(&mut self) -> bool {
        self.is_over || self.consumer.sleep()
    }

    /// Says that it is awake.
    pub(super) fn wake(&mut self) {
        self.consumer.wake();
    }
}
