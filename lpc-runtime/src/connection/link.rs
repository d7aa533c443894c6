//! [`Link`]: the sending side of a connection, shared by all its senders: the lock around [`Sender`].

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
#[cfg(feature = "tokio")]
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::{AtomicBool, Ordering::Release, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use lpc_core::frame;
use lpc_core::receive::Entrance;
use lpc_core::ring::SLOTS;
use lpc_core::send::{MUCH, Sender, StreamPosition};
use lpc_core::{Limits, Result};
use nix::sys::socket::Shutdown;

use self::reading::Reading;
use crate::connection::passing::{Descriptor, Passage};
use crate::connection::ring::{Consumer, OwnRing, PeersRing, Producer};
use crate::connection::tally::{Counters, Tally};
use crate::connection::upkeep::Upkeep;
use crate::connection::warnings::Warnings;
use crate::connection::writer::{Until, Writer, into_error};
use crate::maintenance::Maintained;
use crate::memory::budget::Budget;
use crate::memory::lender::Lender;
use crate::memory::objects::Pin;
use crate::memory::peer::{KnowsObjects, Object};
use crate::memory::pool::{PoolBlock, WaitingForRoom};
use crate::memory::quota::Quota;
use crate::sys::cpu;
use crate::sys::fork::ForkGuard;
use crate::sys::socket::{self, Wait};

mod reading;
mod roles;
mod writing;

/// What waits to go out, the socket, and the memory for large bodies.
///
/// Invariant: no lock is held over a system call that may block. Of several senders one writes, without the
/// lock; the others leave their frames in the queue, and the writer takes them along in one batch.
///
/// Invariant: a fork of the process that made it neither sends nor closes, and takes none of its locks, which
/// a thread that the fork does not have may hold.
pub(crate) struct Link {
    fork_guard: ForkGuard,
    wait: Wait,
    sender: Mutex<SharedSender>,
    /// Signalled when a write has ended, for senders that wait for the queue to get shorter.
    taken: Condvar,
    writer: Writer,
    lender: Lender,
    /// What is received from the peer.
    entrance: Arc<Entrance>,
    upkeep: Upkeep,
    reading: Reading,
    /// How long to spin for the peer's messages before sleeping.
    spin: Duration,
    counters: Arc<Tally>,
    warnings: Arc<Warnings>,
    this: Weak<Self>,
    /// Nothing is sent any more, as the sender says, or will find.
    is_broken: AtomicBool,
    /// Whether the socket took no more, the last time.
    is_stalled: AtomicBool,
}

type SharedSender = Sender<Descriptor, OwnRing, PeersRing>;

/// What a link is made with.
pub(crate) struct Settings {
    /// The limits for what is sent: the narrower of both sides'.
    pub(crate) limits: Limits,
    pub(crate) quota: Option<Arc<Quota>>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) idle: Duration,
    /// How long the peer may stop in the middle of a message.
    pub(crate) stall: Duration,
    /// How long it may have stopped reading while something is to be sent.
    pub(crate) write_timeout: Option<Duration>,
    /// How long it may give no sign of life while a call is under way.
    pub(crate) keepalive: Option<Duration>,
    /// How long to spin for the peer's messages before sleeping.
    pub(crate) spin: Duration,
}

/// A loan of the peer's, which is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Returning {
    pub(crate) link: Weak<Link>,
    pub(crate) segment: u32,
    pub(crate) page: u32,
}

impl Drop for Returning {
    fn drop(&mut self) {
        if let Some(link) = self.link.upgrade() {
            link.enqueue_deferred(&frame::returned(self.segment, self.page));
        }
    }
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Flow {
    /// It is on its way.
    Sent,
    /// It waits for the socket to be writable; somebody has to [`flush`](Link::flush) then.
    Stalled,
}

/// What became of what was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrote {
    /// All goes out.
    All,
    /// It waits for the socket to be writable.
    Stalled,
    /// Something is left that has to be tried again.
    Left,
}

impl Link {
    pub(crate) fn new(
        socket: Arc<dyn AsFd + Send + Sync>,
        wait: Wait,
        settings: Settings,
        counters: Arc<Counters>,
    ) -> Arc<Self> {
        let Settings { limits, quota, budget, idle, stall, write_timeout, keepalive, spin } = settings;
        let warnings = Arc::<Warnings>::default();
        Arc::new_cyclic(|this| Self {
            fork_guard: ForkGuard::here(),
            wait,
            sender: Mutex::default(),
            taken: Condvar::new(),
            writer: Writer::new(socket, stall, write_timeout),
            lender: Lender::new(limits, quota, budget, Arc::clone(&warnings)),
            entrance: Arc::default(),
            upkeep: Upkeep::new(Weak::clone(this) as Weak<dyn Maintained>, idle),
            reading: Reading::new(keepalive),
            spin,
            counters: Tally::new(counters),
            warnings,
            this: Weak::clone(this),
            is_broken: AtomicBool::new(false),
            is_stalled: AtomicBool::new(false),
        })
    }

    /// Makes sure that this process is no fork of the one that made the connection.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Disconnected`].
    #[inline]
    pub(crate) fn check_process(&self) -> Result<()> {
        self.fork_guard.check()
    }

    #[inline]
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.writer.socket()
    }

    /// The limits for what is sent: the narrower of both sides'.
    #[inline]
    pub(crate) fn limits(&self) -> &Limits {
        self.lender.limits()
    }

    /// How long the peer may stop in the middle of a message.
    #[inline]
    pub(crate) fn stall(&self) -> Duration {
        self.writer.stall()
    }

    /// How long to spin for the peer's messages before sleeping.
    pub(crate) fn spin(&self) -> Duration {
        self.spin
    }

    #[inline]
    pub(crate) fn counters(&self) -> &Arc<Tally> {
        &self.counters
    }

    /// What the log is told of the connection.
    pub(crate) fn warnings(&self) -> &Arc<Warnings> {
        &self.warnings
    }

    /// This side's memory, as the peer gets to read it.
    pub(crate) fn lender(&self) -> &Lender {
        &self.lender
    }

    /// Has maintenance come to `maintained` in place of the link, which that calls in turn.
    pub(crate) fn maintained_by(&self, maintained: Weak<dyn Maintained>) {
        self.upkeep.maintained_by(maintained);
    }

    /// A block of at least `len` bytes; `None` where the pool has no room for it at the moment.
    ///
    /// # Errors
    ///
    /// As [`Lender::alloc`].
    pub(crate) fn alloc(&self, len: u64) -> io::Result<Option<PoolBlock>> {
        self.check_process().map_err(io::Error::other)?;
        self.lender.alloc(len, self)
    }

    /// Whether what is waited for can be had now; if not, `waker` is woken when it may be.
    pub(crate) fn has_room(&self, waiting: &WaitingForRoom, waker: &Waker) -> bool {
        self.lender.has_room(waiting, self, waker)
    }

    /// The number by which the peer knows an object: see [`Lender::announce`].
    pub(crate) fn announce(&self, object: &Arc<Object>) -> Option<(u32, Pin)> {
        self.lender.announce(object, self, Weak::clone(&self.this) as Weak<dyn KnowsObjects>)
    }

    /// Whether the peer got what was announced by this descriptor, as far as that is known. Where its frame
    /// still waits it is sent now, if the socket takes it at once: what refers to memory that the peer never
    /// gets would be of no use to it.
    pub(crate) fn has_passed(&self, passage: &Passage) -> bool {
        if passage.is_open() {
            self.try_flush();
        }
        !passage.is_lost()
    }

    /// Has maintenance come when shared memory may be idle.
    pub(crate) fn watch(&self) {
        self.upkeep.watch();
    }

    /// Queues a frame that goes out with what is sent next, or by maintenance. Never waits. Says how much is
    /// queued.
    pub(crate) fn enqueue_deferred(&self, frame: &[u8]) -> usize {
        if !self.fork_guard.is_here() {
            return 0;
        }
        let mut sender = self.sender();
        // Where it is over without anybody having been told, the next flush tells.
        let queued = match sender.enqueue(frame) {
            Ok(_) => sender.queued(),
            Err(_) if self.is_broken() => return 0,
            Err(_) => 0,
        };
        drop(sender);
        if !self.upkeep.schedule_flush() {
            self.flush_quietly();
        }
        queued
    }

    /// Gives back memory that is not in use, and sends what waits. Says when to come again: if there is more
    /// memory, or `has_more` says so.
    pub(crate) fn trim_and_flush(&self, has_more: bool) -> Option<Duration> {
        self.upkeep.begin_trim();
        // Before more is sent, which a client need not read that nobody calls through.
        self.note_what_is_read();
        let left = self.lender.trim(self);
        self.flush_or_schedule();
        if left > 0 || has_more { self.upkeep.comes_again_to_trim() } else { None }
    }

    /// Sends what was queued as far as the socket takes it, without waiting. Whether something is left.
    fn try_flush(&self) -> bool {
        matches!(self.write(self.sender(), None, Until::Now), Ok(Wrote::Left))
    }

    /// Maintenance has come: sends what was queued as far as the socket takes it, without waiting. Whether
    /// something is left.
    pub(crate) fn flush_in_time(&self) -> bool {
        self.upkeep.begin_deferred_flush();
        self.note_what_is_read();
        self.try_flush()
    }

    /// Sends what was queued as far as the socket takes it at once; the rest by maintenance.
    pub(crate) fn flush_or_schedule(&self) {
        if self.try_flush() {
            self.upkeep.schedule_flush();
        }
    }

    /// Sends a frame as far as the socket takes it at once; the rest goes out with what is sent next, or by
    /// maintenance.
    pub(crate) fn send_now(&self, frame: &[u8]) {
        if !self.fork_guard.is_here() {
            return;
        }
        let queued = self.sender().enqueue(frame);
        if queued.is_ok() {
            self.flush_or_schedule();
        }
    }

    /// Sends a frame, and whatever was queued before it.
    ///
    /// # Errors
    ///
    /// The frame did not go out as a whole, for certain. Where that is not known, or only what others had
    /// queued did not go out, it is no error: the holder of the receive half learns of the connection's end.
    #[inline]
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<Flow> {
        self.send_within(frame, cpu::current(), None).map(|(flow, _)| flow)
    }

    /// The same, on this CPU, and does not wait for the socket beyond `deadline`: what is left then goes out
    /// later.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send); [`TimedOut`](io::ErrorKind::TimedOut) where the frame was not even queued, and
    /// [`OutOfMemory`](io::ErrorKind::OutOfMemory) where there was no memory to queue it.
    #[inline]
    pub(crate) fn send_within(
        &self,
        frame: &[u8],
        cpu: Option<u32>,
        deadline: Option<Instant>,
    ) -> io::Result<(Flow, StreamPosition)> {
        let mut sender = self.uncongested(deadline)?;
        let sent = sender.tell_cpu(cpu).and_then(|()| sender.send(frame));
        let (position, batch) = match sent {
            Ok(sent) => sent,
            Err(over) if sender.is_over().is_none() => return Err(into_error(over)),
            Err(over) => return Err(self.fail(sender, into_error(over))),
        };
        if let StreamPosition::Ring(_) = position {
            self.counters.sent_in_ring();
        }
        match self.write(sender, batch, self.until(deadline)) {
            Ok(wrote) => Ok((self.flow(wrote), position)),
            Err(error) if !self.may_have_gone(position) => Err(error),
            Err(_) => Ok((Flow::Sent, position)),
        }
    }

    /// Puts a frame into the ring, if the next one goes there and it fits in: no system call, and no waiting.
    /// Says whether the peer has to be [woken](Self::wake) for it.
    #[inline]
    pub(crate) fn try_put(&self, frame: &[u8], cpu: Option<u32>) -> Option<(StreamPosition, bool)> {
        // Without a quick lane no lock is taken.
        if !self.limits().quick_lane || !self.fork_guard.is_here() {
            return None;
        }
        let mut sender = self.sender();
        let put = sender.try_put(frame, cpu);
        if put.is_some() {
            self.counters.sent_in_ring();
        }
        put
    }

    /// Queues a small frame, for the next [flush](Self::flush). Never waits, and sends nothing: `None` where
    /// that would be to be done.
    pub(crate) fn enqueue_behind(&self, frame: &[u8], cpu: Option<u32>) -> Option<StreamPosition> {
        if self.limits().quick_lane || !self.fork_guard.is_here() {
            return None;
        }
        self.sender().enqueue_behind(frame, cpu)
    }

    /// Wakes the peer for what was [put](Self::try_put) into the ring, which it gets whatever becomes of the
    /// bell.
    ///
    /// Never waits: a peer that does not read from its socket has something to read there.
    #[cold]
    pub(crate) fn wake(&self) {
        if self.sender().queue_bell() {
            self.counters.rang();
        }
        self.flush_or_schedule();
    }

    /// Whether the frame that ends there may have gone out as a whole.
    pub(crate) fn may_have_gone(&self, position: StreamPosition) -> bool {
        self.sender().may_have_gone(position)
    }

    /// Sends nothing more, because the peer receives nothing more, and has taken so many slots of the ring.
    /// The writer of the moment stops.
    pub(crate) fn stop_sending(&self, taken: u64) {
        if !self.fork_guard.is_here() {
            return;
        }
        let mut sender = self.sender();
        sender.peer_has_taken(taken);
        self.give_up(sender);
        socket::shutdown(self.socket(), Shutdown::Write);
    }

    /// The peer has ended the connection: what it took of the ring is known now, and that it reads nothing
    /// more.
    pub(crate) fn peer_is_gone(&self) {
        if self.fork_guard.is_here() {
            self.sender().peer_is_gone();
        }
    }

    /// Has a client's quick lane begin, as far as that is for this side to do. Without memory there will be
    /// none.
    pub(crate) fn offer_ring(&self) {
        if let Some((own, descriptor)) = OwnRing::announced(&self.warnings)
            && self.sender().offer_ring(own, descriptor.into()).is_ok()
        {
            self.flush_or_schedule();
        }
    }

    /// The peer's memory for the quick lane is mapped. A client may send through its ring from now on; a
    /// server announces its own, if it has memory for that.
    pub(crate) fn take_ring(&self, peers: PeersRing) -> Option<Consumer> {
        let offered = self.sender().take_offered();
        // Made without the lock.
        let (own, descriptor) = match offered {
            Some(own) => (own, None),
            None => {
                OwnRing::announced(&self.warnings).map(|(own, descriptor)| (own, Some(descriptor.into())))?
            }
        };
        let is_announced = descriptor.is_some();
        let producer = Producer::new(own.clone(), peers.clone(), SLOTS);
        let mut sender = self.sender();
        if sender.use_ring(producer, descriptor).is_ok() && is_announced {
            self.upkeep.request_flush();
        }
        drop(sender);
        Some(Consumer::new(own, peers, SLOTS))
    }

    /// What the peer sends goes on in its ring, so that it has mapped this side's, too.
    pub(crate) fn ring_is_mapped(&self) {
        self.sender().ring_is_mapped();
    }

    /// By which this side stops receiving.
    pub(crate) fn entrance(&self) -> &Arc<Entrance> {
        &self.entrance
    }

    /// Queues a frame for the next [`send`](Self::send) or [`flush`](Self::flush), which must come soon; if
    /// much is queued already, or it goes through the ring, it is sent at once.
    pub(crate) fn enqueue(&self, frame: &[u8], cpu: Option<u32>) -> io::Result<(Flow, StreamPosition)> {
        let mut sender = self.uncongested(None)?;
        let queued = sender.tell_cpu(cpu).and_then(|()| sender.enqueue(frame));
        let position = match queued {
            Ok(position) => position,
            Err(over) => return Err(self.fail(sender, into_error(over))),
        };
        if let StreamPosition::Ring(_) = position {
            self.counters.sent_in_ring();
            // It is out, whatever becomes of the bell.
            let wrote = self.write(sender, None, self.until(None)).unwrap_or(Wrote::All);
            return Ok((self.flow(wrote), position));
        }
        if sender.queued() >= MUCH {
            return match self.write(sender, None, self.until(None)) {
                Ok(wrote) => Ok((self.flow(wrote), position)),
                // What came behind it did not go out, perhaps.
                Err(error) if !self.may_have_gone(position) => Err(error),
                Err(_) => Ok((Flow::Sent, position)),
            };
        }
        // Under the lock: a flush sees either the flag or the frame.
        self.upkeep.request_flush();
        Ok((Flow::Sent, position))
    }

    /// Whether something was queued that nobody has flushed since, or nothing goes out any more, which a
    /// flush tells.
    #[inline]
    pub(crate) fn needs_flush(&self) -> bool {
        self.upkeep.needs_flush() || self.is_broken()
    }

    /// Sends what was queued.
    pub(crate) fn flush(&self) -> io::Result<Flow> {
        self.check_process().map_err(io::Error::other)?;
        let mut sender = self.sender();
        self.upkeep.begin_flush();
        sender.resume();
        self.is_stalled.store(false, Release);
        self.write(sender, None, self.until(None)).map(|wrote| self.flow(wrote))
    }

    /// Sends what was queued as far as the socket takes it at once; the rest goes out with what is sent next,
    /// or by maintenance. Where that fails so does all that is sent.
    pub(crate) fn flush_at_once(&self) {
        if self.fork_guard.is_here() {
            let wrote = self.write(self.sender(), None, Until::At(Some(Instant::now())));
            let _ = wrote.map(|wrote| self.flow(wrote));
        }
    }

    /// Whether the socket took no more, the last time.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_stalled(&self) -> bool {
        self.is_stalled.load(Acquire)
    }

    /// Whether so much waits for the socket to be writable that a sender of more should wait, too.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_congested(&self) -> bool {
        // Each call asks: without the lock as long as the socket takes all.
        self.is_stalled() && self.fork_guard.is_here() && self.sender().is_congested()
    }

    /// Ends the connection: both sides see the end of the stream at once.
    pub(crate) fn close(&self) {
        if !self.fork_guard.is_here() {
            return;
        }
        self.lender.close();
        // First, so that no call is answered that it was cancelled because of that.
        let mut sender = self.sender();
        let ring = sender.forget_ring();
        self.give_up(sender);
        drop(ring);
        let maintained = self.upkeep.maintained();
        // Before the peer can see the end: what it then finds that this side has taken is all that it ever
        // takes.
        if let Some(maintained) = &maintained {
            maintained.closing();
        }
        socket::shutdown(self.socket(), Shutdown::Both);
        self.lender.end();
        if let Some(maintained) = maintained {
            maintained.closed();
        }
    }

    #[inline]
    fn sender(&self) -> MutexGuard<'_, SharedSender> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the peer may have stopped reading while something is to be sent.
    #[cfg(feature = "tokio")]
    pub(crate) fn write_timeout(&self) -> Option<Duration> {
        self.writer.write_timeout()
    }

    /// The error of a peer that has stopped reading for so long.
    #[cfg(feature = "tokio")]
    pub(crate) fn has_stopped_reading(&self) -> io::Error {
        self.writer.has_stopped_reading()
    }

    /// Whether nothing is sent any more.
    #[inline]
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken.load(SeqCst)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("socket", &self.socket())
            .field("limits", self.limits())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
