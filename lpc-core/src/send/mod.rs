//! [`Sender`]: frames go in, and come out in batches for the writer of the moment, or in the ring of the
//! quick lane.
//!
//! It is the counterpart of [`receive`](crate::receive), and does no I/O either: several senders share it
//! behind a lock, and one of them at a time [writes](Sender::begin_write), without the lock.
//!
//! ```
//! use lpc_core::frame::{self, CallId};
//! use lpc_core::ring::NoRing;
//! use lpc_core::send::{AfterWrite, Sender, WriteOutcome};
//!
//! let mut sender = Sender::<(), NoRing, NoRing>::new();
//! let first = sender.enqueue(&frame::cancel(CallId::new(1)))?;
//! let second = sender.enqueue(&frame::cancel(CallId::new(2)))?;
//! let mut batch = sender.begin_write().expect("something is queued, and nobody writes");
//! assert!(sender.begin_write().is_none(), "somebody writes");
//! // The socket takes only one of the two.
//! assert_eq!(batch.piece().map(|piece| piece.bytes.len()), Some(32));
//! batch.wrote(16);
//! assert!(matches!(sender.finish(batch, WriteOutcome::Full), AfterWrite::Stalled));
//! assert!(sender.may_have_gone(first) && !sender.may_have_gone(second));
//! # Ok::<(), lpc_core::send::Over>(())
//! ```

mod queue;
mod route;
mod writer;

use std::collections::TryReserveError;

use crate::frame;
use crate::ring::{Own, Peers, Producer, RingViolation};
use queue::Queue;
use route::Route;
use writer::Writing;

pub use writer::{AfterWrite, Announced, BackPressure, Batch, CONGESTED, MUCH, Piece, WriteOutcome};

/// The sending side of one connection. `D` is the driver's type of a descriptor, `O` and `P` are this side's
/// and the peer's memory of the quick lane.
///
/// Invariant: frames come out in the order in which they went in, in the socket and the ring together, each
/// with its descriptor, and once.
///
/// Invariant: whatever is queued has a writer at work, or somebody who was told to write it: by
/// [`AfterWrite`], or by having queued it.
#[derive(Debug)]
pub struct Sender<D, O, P> {
    queue: Queue<D>,
    writing: Writing,
    /// Senders that wait for the queue to get shorter.
    waiting: usize,
    /// Bytes of all frames for the socket so far: where the next one begins in the stream.
    total: u64,
    /// Up to where the stream may have gone out.
    gone: u64,
    /// The CPU that the peer was last told of.
    cpu: Option<u32>,
    route: Route<O, P>,
    /// How many slots of the ring the peer took, once it takes no more.
    taken: Option<u64>,
}

/// Where a frame ends in all that one side sends: what tells, when the connection is over, whether the frame
/// [may have gone](Sender::may_have_gone) out.
///
/// The sequence of frames runs through the socket or through the ring of the quick lane, and a frame stands
/// in one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamPosition {
    /// In the bytes that go through the socket.
    Socket(u64),
    /// In the slots of the ring.
    Ring(u64),
}

/// What was sent, and what the peer has taken of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Bytes that went through the socket, or wait to. The system alone knows how many of them were taken.
    pub through_socket: u64,
    /// Slots that were taken, and written, while the sequence is in the ring: what the socket brings then is
    /// no more than a bell.
    pub in_ring: Option<(u64, u64)>,
}

/// Why nothing is sent any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Over {
    /// A write failed, or the connection was closed.
    #[error("nothing is sent any more")]
    Closed,
    /// There was no memory for what had to wait.
    #[error("there is no memory for what is to be sent")]
    NoMemory,
    /// What the peer says of its ring cannot be.
    #[error(transparent)]
    Ring(RingViolation),
}

impl<D, O: Own, P: Peers> Sender<D, O, P> {
    /// The sending side of a new connection.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            queue: Queue::new(),
            writing: Writing::Idle,
            waiting: 0,
            total: 0,
            gone: 0,
            cpu: None,
            route: Route::Socket,
            taken: None,
        }
    }

    /// Puts a frame into the ring, if it goes there, or queues it for the socket.
    ///
    /// # Errors
    ///
    /// Nothing is sent any more.
    #[inline]
    pub fn enqueue(&mut self, frame: &[u8]) -> Result<StreamPosition, Over> {
        Ok(match self.place(frame, false)? {
            Some(position) => position,
            None => self.queue(frame).map_err(|_| self.no_memory())?,
        })
    }

    /// Queues a frame whose first byte brings a descriptor.
    ///
    /// # Errors
    ///
    /// Nothing is sent any more.
    pub fn enqueue_with(&mut self, frame: &[u8], descriptor: D) -> Result<(), Over> {
        let placed = self.place(frame, true)?;
        debug_assert!(placed.is_none(), "no descriptor goes through a ring");
        if self.queue.push_with(frame, descriptor).is_err() {
            return Err(self.no_memory());
        }
        self.pass(frame.len());
        Ok(())
    }

    /// Sends a frame as [`enqueue`](Self::enqueue) does. Where nobody writes, its sender becomes the writer,
    /// and the frame is not copied to go behind what waits, unless it is small.
    ///
    /// # Errors
    ///
    /// Nothing is sent any more; or, where the connection [is not over](Self::is_over), this frame is not,
    /// since there is no memory for it ([`Over::NoMemory`]).
    #[inline]
    pub fn send<'f>(&mut self, frame: &'f [u8]) -> Result<(StreamPosition, Option<Batch<'f, D>>), Over> {
        if let Some(position) = self.place(frame, false)? {
            return Ok((position, None));
        }
        if self.writing != Writing::Idle || (self.queue.len() > 0 && frame.len() < MUCH) {
            // Nothing is lost but this frame.
            let position = self.queue(frame).map_err(|_| Over::NoMemory)?;
            return Ok((position, self.begin_write()));
        }
        let position = self.pass(frame.len());
        Ok((position, Some(self.batch(frame))))
    }

    /// Puts a frame into the ring, if the next one goes there, it fits in, and nothing else is to be done.
    /// Says whether the peer has to be [woken](Self::ring_bell) for it.
    #[inline]
    pub fn try_put(&mut self, frame: &[u8], cpu: Option<u32>) -> Option<(StreamPosition, bool)> {
        if self.cpu != cpu || self.queue.len() > 0 || self.is_over().is_some() {
            return None;
        }
        let ring = self.route.ring()?;
        match ring.put(frame) {
            Ok(true) => Some((StreamPosition::Ring(ring.written()), ring.has_to_wake())),
            Ok(false) => None,
            Err(violation) => {
                self.writing = Writing::Over(Over::Ring(violation));
                None
            }
        }
    }

    /// Queues a small frame that others are about to send with theirs; `None` where so much waits that it
    /// should be [sent](Self::send).
    #[inline]
    pub fn enqueue_behind(&mut self, frame: &[u8], cpu: Option<u32>) -> Option<StreamPosition> {
        if self.is_over().is_some() || self.queue.len() + frame.len() > MUCH {
            return None;
        }
        self.tell_cpu(cpu).ok()?;
        self.enqueue(frame).ok()
    }

    /// Tells the peer on which CPU this side is awake, if it does not know.
    ///
    /// # Errors
    ///
    /// Nothing is sent any more.
    #[inline]
    pub fn tell_cpu(&mut self, cpu: Option<u32>) -> Result<(), Over> {
        if let Some(number) = cpu
            && self.cpu != cpu
        {
            self.cpu = cpu;
            self.enqueue(&frame::at(number))?;
        }
        Ok(())
    }

    /// Tells the peer again on which CPU this side was last. It is a frame that asks nothing of the peer, and
    /// that it [takes](Self::taken_so_far) if it is alive. Not where something waits already.
    ///
    /// # Errors
    ///
    /// Nothing is sent any more.
    pub fn repeat_cpu(&mut self) -> Result<(), Over> {
        if self.queue.len() == 0 && matches!(self.writing, Writing::Idle | Writing::Busy(_)) {
            self.enqueue(&frame::at(self.cpu.unwrap_or_default()))?;
        }
        Ok(())
    }

    /// Queues a bell where the peer sleeps and has something in the ring; whether it did. A bell is rung once
    /// for each sleep.
    #[inline]
    pub fn ring_bell(&mut self) -> bool {
        self.route.needs_bell() && self.queue_bell()
    }

    /// Queues a bell for a peer that [has to be woken](Self::try_put); whether it did.
    pub fn queue_bell(&mut self) -> bool {
        // A peer whose socket takes no more has something to read there.
        let is_heard = matches!(self.writing, Writing::Idle | Writing::Busy(_));
        is_heard && self.queue(&frame::bell()).map_err(|_| self.no_memory()).is_ok()
    }

    /// Announces this side's memory for the quick lane, before the peer does: a client's.
    ///
    /// # Errors
    ///
    /// Nothing is sent any more.
    pub fn offer_ring(&mut self, own: O, descriptor: D) -> Result<(), Over> {
        self.enqueue_with(&frame::ring(), descriptor)?;
        self.route = Route::Offered(own);
        Ok(())
    }

    /// What this side has offered.
    pub fn take_offered(&mut self) -> Option<O> {
        self.route.take_offered()
    }

    /// The peer's memory is mapped, and with this side's it makes a ring. A server announces its own only
    /// now, by a `descriptor`; where that was done before, the peer has mapped it.
    ///
    /// # Errors
    ///
    /// Nothing is sent any more.
    pub fn use_ring(&mut self, producer: Producer<O, P>, descriptor: Option<D>) -> Result<(), Over> {
        let is_mapped = descriptor.is_none();
        match (self.is_over(), descriptor) {
            (Some(over), _) => return Err(over),
            (None, Some(descriptor)) => self.enqueue_with(&frame::ring(), descriptor)?,
            (None, None) => {}
        }
        self.route.use_ring(producer, is_mapped);
        Ok(())
    }

    /// The peer sends through its ring, so that it has mapped this side's, too.
    pub fn ring_is_mapped(&mut self) {
        self.route.is_mapped();
    }

    /// Whether frames go into the ring at the moment.
    #[must_use]
    pub const fn is_in_ring(&self) -> bool {
        self.route.is_in_ring()
    }

    /// Whether the frame that ends there may have gone out as a whole.
    #[must_use]
    #[inline]
    pub fn may_have_gone(&self, position: StreamPosition) -> bool {
        match position {
            StreamPosition::Socket(end) => end <= self.gone,
            StreamPosition::Ring(end) => self.taken.is_none_or(|taken| end <= taken),
        }
    }

    /// The peer has stopped reading, and has taken so many slots of the ring. Sending [is
    /// over](Self::give_up).
    pub const fn peer_has_taken(&mut self, slots: u64) {
        self.taken = Some(slots);
    }

    /// What has been sent so far, and what the peer has taken of it, as far as this side can know.
    pub fn taken_so_far(&self) -> Taken {
        let ring = self.route.ring_if_on().map(|ring| {
            // What cannot be is found out by whoever sends next.
            (ring.last_taken().unwrap_or_default(), ring.written())
        });
        Taken { through_socket: self.total, in_ring: ring }
    }

    /// The peer has ended the connection, and reads nothing more: what it left in its memory says how much of
    /// the ring it took. So it is known of calls that were put there after its death that they did not run.
    pub fn peer_is_gone(&mut self) {
        if self.taken.is_none() {
            self.taken = self.route.last_taken();
        }
    }

    /// The connection is over, and nobody asks any more how far a frame got in the ring. What is given is its
    /// memory, to be unmapped without a lock.
    #[must_use = "unmapping takes its time"]
    pub fn forget_ring(&mut self) -> Option<Producer<O, P>> {
        self.route.forget()
    }

    /// Sends nothing more. Gives what was queued and never goes out: descriptors, to be closed without a
    /// lock. The memory of the ring stays until it is [forgotten](Self::forget_ring): a peer that is gone has
    /// left there how much of it was taken.
    pub fn give_up(&mut self) -> impl Iterator<Item = D> + use<D, O, P> {
        // The first reason stays.
        if self.is_over().is_none() {
            self.writing = Writing::Over(Over::Closed);
        }
        self.queue.clear()
    }

    /// Why nothing is sent any more, if that is so.
    #[must_use]
    #[inline]
    pub const fn is_over(&self) -> Option<Over> {
        match self.writing {
            Writing::Over(over) => Some(over),
            _ => None,
        }
    }

    /// Bytes that wait for the socket, but for what is being written.
    #[must_use]
    pub const fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Bytes of memory that are kept for what is queued.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.queue.capacity()
    }

    /// Puts a frame into the ring, if it goes there; otherwise the next one in the socket's queue has to be
    /// this one.
    #[inline]
    fn place(&mut self, frame: &[u8], brings_descriptor: bool) -> Result<Option<StreamPosition>, Over> {
        if let Some(over) = self.is_over() {
            return Err(over);
        }
        let socket_is_idle = self.writing == Writing::Idle && self.queue.len() == 0;
        let placed = self.route.place(frame, brings_descriptor, socket_is_idle).map_err(|violation| {
            let over = Over::Ring(violation);
            self.writing = Writing::Over(over);
            over
        })?;
        if placed.is_switched {
            self.queue_switch()?;
        }
        Ok(placed.in_ring.map(StreamPosition::Ring))
    }

    #[cold]
    fn queue_switch(&mut self) -> Result<StreamPosition, Over> {
        self.queue(&frame::switch()).map_err(|_| self.no_memory())
    }

    /// Queues a frame for the socket.
    #[inline]
    fn queue(&mut self, frame: &[u8]) -> Result<StreamPosition, TryReserveError> {
        self.queue.push(frame)?;
        Ok(self.pass(frame.len()))
    }

    /// There is no memory for what is to be sent, nor any way to go on without it.
    #[cold]
    fn no_memory(&mut self) -> Over {
        self.writing = Writing::Over(Over::NoMemory);
        Over::NoMemory
    }

    /// Makes room for a large frame that is about to be sent, which may have to wait, or the rest of it.
    ///
    /// # Errors
    ///
    /// There is no memory for it: it cannot be sent.
    pub fn make_room(&mut self, len: usize) -> Result<(), TryReserveError> {
        self.queue.make_room(len, self.writing == Writing::Idle)
    }

    /// Counts a frame that goes into the socket's stream now. Says where it ends.
    #[inline]
    const fn pass(&mut self, len: usize) -> StreamPosition {
        self.total += len as u64;
        StreamPosition::Socket(self.total)
    }
}

impl<D, O: Own, P: Peers> Default for Sender<D, O, P> {
    fn default() -> Self {
        Self::new()
    }
}
