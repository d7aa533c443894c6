//! [`Link`]: the sending side of a connection, shared by all who send on it: the lock around [`Sender`].

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use lpc_core::frame;
use lpc_core::receive::Entrance;
use lpc_core::ring::SLOTS;
use lpc_core::send::{AfterWrite, Announced, Batch, MUCH, Over, Sender, StreamPosition, WriteOutcome};
use lpc_core::{Limits, Result};
use nix::sys::socket::Shutdown;

use crate::connection::ring::{Consumer, OwnRing, PeersRing, Producer};
use crate::connection::writer::{Until, Writer};
use crate::maintenance::{self, Tend};
use crate::memory::lender::{Announce, Lender, Loaned};
use crate::memory::objects::Pin;
use crate::memory::peer::{KnowsObjects, Object};
use crate::memory::pool::{Pool, PoolBlock, WaitingForRoom};
use crate::memory::quota::Quota;
use crate::stats::{Counters, Tally};
use crate::sys::cpu;
use crate::sys::fork::ForkGuard;
use crate::sys::socket::{self, Wait};

/// What waits to go out, the socket, and the memory for large bodies.
///
/// Invariant: no lock is held over a system call that may block. Of several senders one writes, without the lock; the others leave
/// their frames in the queue, and the writer takes them along in one batch.
///
/// Invariant: a fork of the process that made it neither sends nor closes, and takes none of its locks, which a thread that
/// the fork does not have may hold.
pub(crate) struct Link {
    fork_guard: ForkGuard,
    wait: Wait,
    sender: Mutex<SharedSender>,
    /// Signalled when a write has begun or ended, for senders that wait for the queue to get shorter.
    taken: Condvar,
    writer: Writer,
    lender: Lender,
    /// What is received from the peer.
    entrance: Arc<Entrance>,
    /// How long shared memory stays unused before it is given back.
    idle: Duration,
    /// How long it is looked for the peer's messages before sleeping.
    spin: Duration,
    counters: Arc<Tally>,
    this: Weak<Self>,
    /// Who is called by the housekeeper, if not the link itself.
    tended: OnceLock<Weak<dyn Tend>>,
    /// Something was queued for the holder of the receive half to [flush](Self::flush).
    is_pushed: AtomicBool,
    /// The housekeeper comes soon, to flush.
    is_late: AtomicBool,
    /// The housekeeper comes later, to trim.
    is_watched: AtomicBool,
    /// Nothing is sent any more, as the sender says, or will find.
    is_broken: AtomicBool,
    /// Whether the socket took no more, the last time.
    is_stalled: AtomicBool,
}

type SharedSender = Sender<OwnedFd, OwnRing, PeersRing>;

/// What a link is made with.
pub(crate) struct Settings {
    /// The limits for what is sent: the narrower of both sides'.
    pub(crate) limits: Limits,
    pub(crate) quota: Option<Arc<Quota>>,
    pub(crate) idle: Duration,
    /// How long the peer may stop in the middle of a message.
    pub(crate) stall: Duration,
    /// How long it may take nothing while something is to be sent.
    pub(crate) write_timeout: Option<Duration>,
    /// How long to look for the peer's messages before sleeping.
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
            link.push_late(&frame::returned(self.segment, self.page));
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
        let Settings { limits, quota, idle, stall, write_timeout, spin } = settings;
        Arc::new_cyclic(|this| Self {
            fork_guard: ForkGuard::here(),
            wait,
            sender: Mutex::default(),
            taken: Condvar::new(),
            writer: Writer::new(socket, stall, write_timeout),
            lender: Lender::new(limits, quota),
            entrance: Arc::default(),
            idle,
            spin,
            counters: Tally::new(counters),
            this: Weak::clone(this),
            tended: OnceLock::new(),
            is_pushed: AtomicBool::new(false),
            is_late: AtomicBool::new(false),
            is_watched: AtomicBool::new(false),
            is_broken: AtomicBool::new(false),
            is_stalled: AtomicBool::new(false),
        })
    }

    /// Makes sure that this process is no fork of the one that made the connection.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Disconnected`].
    pub(crate) fn check_process(&self) -> Result<()> {
        self.fork_guard.check()
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.writer.socket()
    }

    /// The limits for what is sent: the narrower of both sides'.
    pub(crate) fn limits(&self) -> &Limits {
        self.lender.limits()
    }

    /// How long the peer may stop in the middle of a message.
    pub(crate) fn stall(&self) -> Duration {
        self.writer.stall()
    }

    /// How long to look for the peer's messages before sleeping.
    pub(crate) fn spin(&self) -> Duration {
        self.spin
    }

    pub(crate) fn counters(&self) -> &Arc<Tally> {
        &self.counters
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        self.lender.pool()
    }

    pub(crate) fn quota(&self) -> Option<&Arc<Quota>> {
        self.lender.quota()
    }

    /// Has the housekeeper call `tended` in place of the link, which it calls in turn.
    pub(crate) fn tended_by(&self, tended: Weak<dyn Tend>) {
        let _ = self.tended.set(tended);
    }

    fn tended(&self) -> Weak<dyn Tend> {
        self.tended.get().cloned().unwrap_or_else(|| Weak::clone(&self.this) as Weak<dyn Tend>)
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

    /// A place in the line for a block of `len` bytes.
    pub(crate) fn wait_for_room(&self, len: u64) -> WaitingForRoom {
        self.lender.wait_for(len)
    }

    /// Whether what is waited for can be had now; if not, `waker` is woken when it may be.
    pub(crate) fn has_room(&self, waiting: &WaitingForRoom, waker: &Waker) -> bool {
        self.lender.has_room(waiting, self, waker)
    }

    /// The number by which the peer knows an object: see [`Lender::announce`].
    pub(crate) fn announce(&self, object: &Arc<Object>) -> Option<(u32, Pin)> {
        self.lender.announce(object, self, Weak::clone(&self.this) as Weak<dyn KnowsObjects>)
    }

    /// Notes that the peer is about to get these.
    pub(crate) fn lend(&self, loans: &[Loaned]) {
        self.lender.lend(loans);
    }

    /// The peer did not get these.
    pub(crate) fn take_back(&self, loans: &[Loaned]) {
        self.lender.take_back(loans);
    }

    /// The peer gives a loan back.
    pub(crate) fn returned(&self, segment: u32, page: u32) -> Result<()> {
        self.lender.returned(segment, page)
    }

    /// The peer cannot read this segment.
    pub(crate) fn refused(&self, segment: u32) {
        self.lender.refused(segment);
    }

    /// Has the housekeeper come when shared memory may be idle.
    pub(crate) fn watch(&self) {
        if !self.is_watched.swap(true, AcqRel) {
            maintenance::trim(self.tended(), self.idle / 2);
        }
    }

    /// Queues a frame that goes out with whatever is sent next, or soon by itself. Never waits. Says how much is queued.
    pub(crate) fn push_late(&self, frame: &[u8]) -> usize {
        if !self.fork_guard.is_here() {
            return 0;
        }
        let mut sender = self.sender();
        // Where it is over without anybody having been told, whoever flushes tells.
        let queued = match sender.enqueue(frame) {
            Ok(_) => sender.queued(),
            Err(_) if self.is_broken() => return 0,
            Err(_) => 0,
        };
        drop(sender);
        self.flush_later();
        queued
    }

    /// Has the housekeeper flush soon.
    fn flush_later(&self) {
        if !self.is_late.swap(true, AcqRel) {
            maintenance::flush(self.tended());
        }
    }

    /// Gives back memory that is not in use, and sends what waits. Says when to come again: if there is more memory, or
    /// `has_more` says so.
    pub(crate) fn tidy(&self, has_more: bool) -> Option<Duration> {
        // First: who adds a segment from now on has it watched.
        self.is_watched.store(false, Release);
        let left = self.lender.trim(self);
        self.flush_soon();
        let is_needed = left > 0 || has_more;
        (is_needed && !self.is_watched.swap(true, AcqRel)).then_some(self.idle / 2)
    }

    /// Sends what was queued as far as the socket takes it, without waiting. Whether something is left.
    fn try_flush(&self) -> bool {
        matches!(self.write(self.sender(), None, Until::Now), Ok(Wrote::Left))
    }

    /// Sends what was queued as far as the socket takes it at once; the rest soon.
    fn flush_soon(&self) {
        if self.try_flush() {
            self.flush_later();
        }
    }

    /// Sends a frame as far as the socket takes it at once; the rest goes out with whatever is sent next, or soon.
    pub(crate) fn send_now(&self, frame: &[u8]) {
        if !self.fork_guard.is_here() {
            return;
        }
        let queued = self.sender().enqueue(frame);
        if queued.is_ok() {
            self.flush_soon();
        }
    }

    /// Sends a frame, and whatever was queued before it.
    ///
    /// # Errors
    ///
    /// The frame did not go out as a whole, for certain. Where that is not known, or only what others had queued did not
    /// go out, it is no error: whoever reads the connection learns of its end.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<Flow> {
        self.send_within(frame, None).map(|(flow, _)| flow)
    }

    /// The same, and does not wait for the socket beyond `deadline`: what is left then goes out later.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send); [`TimedOut`](io::ErrorKind::TimedOut) where the frame was not even queued.
    pub(crate) fn send_within(
        &self,
        frame: &[u8],
        deadline: Option<Instant>,
    ) -> io::Result<(Flow, StreamPosition)> {
        let mut sender = self.uncongested(deadline)?;
        let sent = sender.tell_cpu(cpu::current()).and_then(|()| sender.send(frame));
        let (position, batch) = match sent {
            Ok(sent) => sent,
            Err(over) => return Err(self.fail(sender, over.into_error())),
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

    /// Puts a frame into the ring, if the next one goes there and it fits in: no system call, and no waiting. Says whether the peer
    /// has to be [woken](Self::wake) for it.
    pub(crate) fn put(&self, frame: &[u8]) -> Option<(StreamPosition, bool)> {
        // Without a quick lane no lock is taken.
        if !self.limits().quick_lane || !self.fork_guard.is_here() {
            return None;
        }
        let mut sender = self.sender();
        let put = sender.put(frame, cpu::current());
        if put.is_some() {
            self.counters.sent_in_ring();
        }
        put
    }

    /// Queues a small frame, for whoever [flushes](Self::flush). Never waits, and sends nothing: `None` where that would be to be done.
    pub(crate) fn leave(&self, frame: &[u8]) -> Option<StreamPosition> {
        if self.limits().quick_lane || !self.fork_guard.is_here() {
            return None;
        }
        self.sender().enqueue_behind(frame, cpu::current())
    }

    /// Wakes the peer for what was [put](Self::put) into the ring, which it gets whatever becomes of the bell.
    ///
    /// Never waits: a peer that takes nothing from its socket has something to read there.
    #[cold]
    pub(crate) fn wake(&self) {
        if self.sender().queue_bell() {
            self.counters.rang();
        }
        self.flush_soon();
    }

    /// Whether the frame that ends there may have gone out as a whole.
    pub(crate) fn may_have_gone(&self, position: StreamPosition) -> bool {
        self.sender().may_have_gone(position)
    }

    /// Sends nothing more, because the peer receives nothing more, and has taken so many slots of the ring. Whoever writes at
    /// the moment stops.
    pub(crate) fn stop_sending(&self, taken: u64) {
        if !self.fork_guard.is_here() {
            return;
        }
        let mut sender = self.sender();
        sender.peer_has_taken(taken);
        self.give_up(sender);
        socket::shutdown(self.socket(), Shutdown::Write);
    }

    /// Has a client's quick lane begin, as far as that is for this side to do. Without memory there will be none.
    pub(crate) fn offer_ring(&self) {
        if let Some((own, descriptor)) = new_ring()
            && self.sender().offer_ring(own, descriptor).is_ok()
        {
            self.flush_soon();
        }
    }

    /// The peer's memory for the quick lane is mapped. A client may send through its ring from now on; a server announces its
    /// own, if it has memory for that.
    pub(crate) fn take_ring(&self, peers: PeersRing) -> Option<Consumer> {
        let offered = self.sender().take_offered();
        // Made without the lock.
        let (own, descriptor) = match offered {
            Some(own) => (own, None),
            None => new_ring().map(|(own, descriptor)| (own, Some(descriptor)))?,
        };
        let is_announced = descriptor.is_some();
        let producer = Producer::new(own.clone(), peers.clone(), SLOTS);
        let mut sender = self.sender();
        if sender.use_ring(producer, descriptor).is_ok() && is_announced {
            self.is_pushed.store(true, Release);
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

    fn until(&self, deadline: Option<Instant>) -> Until {
        match self.wait {
            Wait::Sleep => Until::At(deadline),
            Wait::Never => Until::Reactor,
        }
    }

    /// What a sender has to do about what it did not write.
    fn flow(&self, wrote: Wrote) -> Flow {
        match wrote {
            Wrote::All => Flow::Sent,
            Wrote::Stalled => Flow::Stalled,
            Wrote::Left => {
                self.flush_later();
                Flow::Sent
            }
        }
    }

    /// Queues a frame for the next [`send`](Self::send) or [`flush`](Self::flush), which must come soon; if much is
    /// queued already, or it goes through the ring, it is sent at once.
    pub(crate) fn push(&self, frame: &[u8]) -> io::Result<(Flow, StreamPosition)> {
        let mut sender = self.uncongested(None)?;
        let queued = sender.tell_cpu(cpu::current()).and_then(|()| sender.enqueue(frame));
        let position = match queued {
            Ok(position) => position,
            Err(over) => return Err(self.fail(sender, over.into_error())),
        };
        if let StreamPosition::Ring(_) = position {
            self.counters.sent_in_ring();
            // It is out, whatever becomes of the bell.
            let wrote = self.write(sender, None, self.until(None)).unwrap_or(Wrote::All);
            return Ok((self.flow(wrote), position));
        }
        if sender.queued() >= MUCH {
            let wrote = self.write(sender, None, self.until(None))?;
            return Ok((self.flow(wrote), position));
        }
        // Under the lock: whoever flushes sees either the flag or the frame.
        self.is_pushed.store(true, Release);
        Ok((Flow::Sent, position))
    }

    /// Whether something was queued that nobody has flushed since, or nothing goes out any more, which a flush tells.
    pub(crate) fn is_to_flush(&self) -> bool {
        self.is_pushed.load(Acquire) || self.is_late.load(Acquire) || self.is_broken()
    }

    /// Sends what was queued.
    pub(crate) fn flush(&self) -> io::Result<Flow> {
        self.check_process().map_err(io::Error::other)?;
        let mut sender = self.sender();
        self.is_pushed.store(false, Release);
        sender.resume();
        self.is_stalled.store(false, Release);
        self.write(sender, None, self.until(None)).map(|wrote| self.flow(wrote))
    }

    /// Sends what was queued as far as the socket takes it at once; the rest goes out with whatever is sent next, or soon. Where that
    /// fails so does all that is sent.
    pub(crate) fn flush_at_once(&self) {
        if self.fork_guard.is_here() {
            let wrote = self.write(self.sender(), None, Until::At(Some(Instant::now())));
            let _ = wrote.map(|wrote| self.flow(wrote));
        }
    }

    /// Whether so much waits for the socket to be writable that whoever sends more should wait, too.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_congested(&self) -> bool {
        // Each call asks: without the lock as long as the socket takes all.
        self.is_stalled.load(Acquire) && self.fork_guard.is_here() && self.sender().is_congested()
    }

    /// Ends the connection: both sides see the end of the stream at once.
    pub(crate) fn close(&self) {
        if !self.fork_guard.is_here() {
            return;
        }
        self.lender.close();
        self.give_up(self.sender());
        socket::shutdown(self.socket(), Shutdown::Both);
        self.lender.end();
        if let Some(tended) = self.tended().upgrade() {
            tended.closed();
        }
    }

    fn sender(&self) -> MutexGuard<'_, SharedSender> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sender, once a blocking caller may add to its queue.
    fn uncongested(&self, deadline: Option<Instant>) -> io::Result<MutexGuard<'_, SharedSender>> {
        self.check_process().map_err(io::Error::other)?;
        let mut sender = self.sender();
        while self.wait == Wait::Sleep && sender.is_congested() {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            sender.begin_waiting();
            sender = match left {
                Some(left) => self.taken.wait_timeout(sender, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.taken.wait(sender).unwrap_or_else(PoisonError::into_inner),
            };
            sender.end_waiting();
        }
        Ok(sender)
    }

    /// Writes the batch, if the caller has one, and then what is queued, until nothing is or the socket takes no more, unless
    /// somebody else is at it.
    fn write<'l>(
        &'l self,
        mut sender: MutexGuard<'l, SharedSender>,
        mut begun: Option<Batch<'_, OwnedFd>>,
        until: Until,
    ) -> io::Result<Wrote> {
        loop {
            if begun.is_none() && sender.ring_bell() {
                self.counters.rang();
            }
            let Some(mut batch) = begun.take().or_else(|| sender.begin_write()) else {
                return match sender.is_over() {
                    Some(over) => Err(self.fail(sender, over.into_error())),
                    None if sender.is_stalled() => Ok(Wrote::Stalled),
                    None => Ok(Wrote::All),
                };
            };
            let written = if until == Until::Now {
                // Under the lock, so that nobody leaves a frame to a writer who does not wait for the socket.
                self.writer.write(&mut batch, until, || Ok(()))
            } else {
                self.wake_waiting(&sender);
                drop(sender);
                let written = self.writer.write(&mut batch, until, || self.meanwhile());
                sender = self.sender();
                written
            };
            let (outcome, error) = match written {
                Ok(outcome) => (outcome, None),
                Err(error) => (WriteOutcome::Failed, Some(error)),
            };
            match sender.finish(batch, outcome) {
                AfterWrite::GoOn => {}
                AfterWrite::Lost(announced, descriptor) => {
                    drop(sender);
                    drop(descriptor);
                    self.not_passed(announced);
                    sender = self.sender();
                }
                AfterWrite::Stalled => {
                    self.is_stalled.store(true, Release);
                    self.wake_waiting(&sender);
                    return Ok(Wrote::Stalled);
                }
                AfterWrite::Retry => {
                    self.wake_waiting(&sender);
                    return Ok(Wrote::Left);
                }
                AfterWrite::Over(over) => {
                    return Err(self.fail(sender, error.unwrap_or_else(|| over.into_error())));
                }
            }
        }
    }

    /// What a writer does now and then while it waits for the socket.
    fn meanwhile(&self) -> io::Result<()> {
        if self.is_broken() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // The peer may take nothing because nobody here takes what it sends.
        if let Some(tended) = self.tended().upgrade() {
            tended.meanwhile();
        }
        Ok(())
    }

    /// Has senders look again that wait for the queue to get shorter.
    fn wake_waiting(&self, sender: &SharedSender) {
        // A condition variable does not know whether anybody waits, and waking nobody is a system call, too.
        if sender.waiting() > 0 {
            self.taken.notify_all();
        }
    }

    /// The system did not pass a descriptor: the peer is told, and does without.
    fn not_passed(&self, announced: Announced) {
        match announced {
            Announced::Memory(number) => self.lender.not_passed(number),
            Announced::Ring => tracing::warn!("the system passes no descriptor for a quick lane"),
        }
    }

    /// How long the peer may take nothing while something is to be sent.
    #[cfg(feature = "tokio")]
    pub(crate) fn write_timeout(&self) -> Option<Duration> {
        self.writer.write_timeout()
    }

    /// The error of a peer that took nothing for so long.
    #[cfg(feature = "tokio")]
    pub(crate) fn takes_nothing(&self) -> io::Error {
        self.writer.takes_nothing()
    }

    /// Gives the sending up. What the peer answers still arrives: it may have closed only its receiving.
    fn fail(&self, sender: MutexGuard<'_, SharedSender>, error: io::Error) -> io::Error {
        if !self.give_up(sender) {
            return error;
        }
        socket::shutdown(self.socket(), Shutdown::Write);
        if let Some(tended) = self.tended().upgrade() {
            tended.send_failed();
        }
        error
    }

    /// Whether nothing is sent any more.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken.load(Acquire)
    }

    /// Sends nothing more; whether something was sent until now.
    fn give_up(&self, mut sender: MutexGuard<'_, SharedSender>) -> bool {
        let is_first = !self.is_broken.swap(true, AcqRel);
        let descriptors = sender.give_up();
        drop(sender);
        // To close one may take its time, and the lock is not held.
        descriptors.for_each(drop);
        self.taken.notify_all();
        is_first
    }
}

/// Fresh memory for the quick lane, and its descriptor, if the system has any.
fn new_ring() -> Option<(OwnRing, OwnedFd)> {
    OwnRing::create().inspect_err(|error| tracing::warn!(%error, "no shared memory for a quick lane")).ok()
}

/// An error of sending as one of a system call.
trait IntoError {
    fn into_error(self) -> io::Error;
}

impl IntoError for Over {
    fn into_error(self) -> io::Error {
        match self {
            Self::Closed => io::ErrorKind::BrokenPipe.into(),
            Self::Ring(violation) => io::Error::new(io::ErrorKind::InvalidData, violation),
        }
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

impl Announce for Link {
    fn tell(&self, frame: &[u8]) {
        let _ = self.sender().enqueue(frame);
    }

    fn announce(&self, frame: &[u8], descriptor: OwnedFd) -> bool {
        let mut sender = self.sender();
        // What is not queued is closed without the lock.
        let is_over = sender.is_over().is_some();
        !is_over && sender.enqueue_with(frame, descriptor).is_ok()
    }

    fn watch(&self) {
        Link::watch(self);
    }
}

impl KnowsObjects for Link {
    fn forget(&self, object: &Object, number: u32) {
        if self.fork_guard.is_here() {
            self.lender.forget(object, number, |frame| {
                self.push_late(frame);
            });
        }
    }
}

impl Tend for Link {
    fn flush_late(&self) -> bool {
        self.is_late.store(false, Release);
        self.try_flush() && !self.is_late.swap(true, AcqRel)
    }

    fn trim(&self) -> Option<Duration> {
        self.tidy(false)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use lpc_core::Threshold;
    use lpc_core::codec::Sink;
    use lpc_core::frame::CallId;
    use lpc_core::receive::Role;
    use lpc_core::ring::Own;

    use super::*;
    use crate::body::outgoing::{InBlock, Outgoing, WhenFull};
    use crate::connection::inbox::{Filled, Inbox, Message};

    fn link(wait: Wait) -> (Arc<Link>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let idle = Duration::from_secs(10);
        let settings = Settings {
            limits: Limits::default(),
            quota: None,
            idle,
            stall: idle,
            write_timeout: None,
            spin: Duration::ZERO,
        };
        (Link::new(Arc::new(ours), wait, settings, Arc::default()), theirs)
    }

    /// A reply of `len` bytes, each of which is the call's number.
    fn send(link: &Link, call: u64, len: usize, threshold: Threshold) -> (Flow, Option<Box<InBlock>>) {
        let mut body = Outgoing::new(link, threshold, WhenFull::Socket, frame::begin_reply);
        for _ in 0..len {
            body.push(call as u8).unwrap();
        }
        let mut body = body.finish();
        body.seal(CallId::new(call));
        (link.send(body.frame()).unwrap(), body.take_block())
    }

    fn check(message: Message, expected: u64) {
        let Message::Reply { call, body } = message else { panic!("{message:?} is no reply") };
        assert_eq!(call.as_u64(), expected);
        assert!(body.read().iter().all(|byte| *byte == expected as u8));
    }

    #[test]
    fn frames_and_descriptors_keep_their_order_through_a_stall() {
        let (link, theirs) = link(Wait::Never);
        let mut flow = Flow::Sent;
        let mut blocks = Vec::new();
        for call in 0..200 {
            // Every third one in a block; the pool doubles a few times, so that announcements stand in the queue.
            let threshold = if call % 3 == 0 { Threshold::ALWAYS } else { Threshold::OFF };
            let (sent, block) = send(&link, call, 20_000, threshold);
            flow = sent;
            blocks.push(block);
        }
        assert_eq!(flow, Flow::Stalled, "nobody reads yet");
        let mut inbox = Inbox::new(Role::Client, Limits::default(), false, &link);
        let mut next = 0;
        while next < 200 {
            let _ = link.flush().unwrap();
            while let Some(message) = inbox.next().unwrap() {
                check(message, next);
                next += 1;
            }
            if next < 200 {
                assert_ne!(inbox.fill(&theirs, Wait::Never).unwrap(), Filled::End);
            }
        }
        assert_eq!(link.flush().unwrap(), Flow::Sent);
    }

    /// What was read, if it is `frames`, each of which may have the news of a CPU before it.
    fn is_whole(mut read: &[u8], frames: &[Vec<u8>]) -> bool {
        let news = frame::at(0).len();
        frames.iter().all(|frame| {
            if read.first() == Some(&0) {
                read = &read[news..];
            }
            let (first, rest) = read.split_at(frame.len());
            read = rest;
            first == frame
        }) && read.is_empty()
    }

    #[test]
    fn what_a_full_socket_leaves_of_a_large_frame_goes_behind_what_waits() {
        let (link, mut theirs) = link(Wait::Never);
        let mut flow = Flow::Sent;
        let mut frames: Vec<Vec<u8>> = Vec::new();
        // Until one goes out in part only, with something small before each.
        while flow == Flow::Sent {
            let byte = 1 + frames.len() as u8;
            frames.extend([vec![byte; 4], vec![byte; 60_000]]);
            let [.., late, large] = &frames[..] else { unreachable!() };
            link.push_late(late);
            flow = link.send(large).unwrap();
        }
        let mut read = Vec::new();
        while link.sender().queued() > 0 {
            let mut part = [0; 30_000];
            let len = theirs.read(&mut part).unwrap();
            read.extend_from_slice(&part[..len]);
            let _ = link.flush().unwrap();
        }
        link.close();
        theirs.read_to_end(&mut read).unwrap();
        assert!(is_whole(&read, &frames));
    }

    /// One that sleeps, and reads neither its ring nor its socket.
    #[test]
    fn waking_a_peer_whose_socket_is_full_waits_for_nothing() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let idle = Duration::from_secs(10);
        let limits = Limits { quick_lane: true, ..Limits::default() };
        let spin = Duration::ZERO;
        let settings = Settings { limits, quota: None, idle, stall: idle, write_timeout: None, spin };
        let link = Link::new(Arc::new(ours), Wait::Sleep, settings, Arc::default());
        let (peers_own, file) = OwnRing::create().unwrap();
        link.offer_ring();
        let _reading = link.take_ring(PeersRing::open(&file, None).unwrap()).unwrap();
        let at_once = Some(Instant::now());
        let _ = link.send_within(&frame::release(CallId::new(1)), at_once).unwrap();
        assert!(link.sender().is_in_ring());
        let large = vec![0; 60 << 10];
        while link.sender().queued() == 0 {
            let _ = link.send_within(&large, at_once).unwrap();
        }
        // Where nothing is queued the next one is put.
        let mut sender = link.sender();
        let mut rest = sender.begin_write().unwrap();
        while let Some(len) = rest.piece().map(|piece| piece.bytes.len()) {
            rest.wrote(len);
        }
        assert!(matches!(sender.finish(rest, WriteOutcome::All), AfterWrite::GoOn));
        drop(sender);
        peers_own.store(128, 3);
        let (_, has_to_wake) = link.put(&frame::release(CallId::new(2))).unwrap();
        assert!(has_to_wake);
        link.wake();
        assert_eq!(link.sender().queued(), frame::bell().len());
    }

    #[test]
    fn bells_do_not_pile_up_where_nobody_hears_them() {
        let (link, _theirs) = link(Wait::Never);
        let (peers_own, file) = OwnRing::create().unwrap();
        link.offer_ring();
        let _reading = link.take_ring(PeersRing::open(&file, None).unwrap()).unwrap();
        // A peer that takes all that is in the ring, says each time that it sleeps, and never reads the socket.
        for turn in 0..200_000 {
            let (_, position) = link.send_within(&frame::release(CallId::new(turn)), None).unwrap();
            if let StreamPosition::Ring(written) = position {
                peers_own.store(0, written);
                peers_own.store(128, 2 * turn + 1);
            }
        }
        let sender = link.sender();
        assert!(sender.is_stalled() && sender.is_in_ring());
        assert!(sender.capacity() <= 512 << 10, "{} bytes", sender.capacity());
    }

    #[test]
    fn frames_of_many_threads_are_whole() {
        let (link, theirs) = link(Wait::Sleep);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let link = &link;
                scope.spawn(move || {
                    for round in 0..100 {
                        let _ = send(link, thread, 100 + round * 30, Threshold::OFF);
                    }
                });
            }
            let mut inbox = Inbox::new(Role::Client, Limits::default(), false, &link);
            let mut seen = 0;
            while seen < 800 {
                inbox.fill(&theirs, Wait::Sleep).unwrap();
                while let Some(message) = inbox.next().unwrap() {
                    let Message::Reply { call, body } = message else { panic!("{message:?} is no reply") };
                    assert!(body.read().iter().all(|byte| u64::from(*byte) == call.as_u64()));
                    seen += 1;
                }
            }
        });
    }

    #[test]
    fn senders_that_wait_for_a_peer_that_does_not_read_are_freed_by_its_end() {
        let (link, theirs) = link(Wait::Sleep);
        let has_failed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (link, has_failed) = (&link, &has_failed);
                scope.spawn(move || {
                    let frame = vec![thread; 100_000];
                    while link.send(&frame).is_ok() {}
                    has_failed.store(true, Relaxed);
                });
            }
            // Until the queue is full and all wait: one in the system call, the others for it.
            while link.sender().waiting() < 3 {
                std::thread::yield_now();
            }
            assert!(!has_failed.load(Relaxed));
            drop(theirs);
        });
        assert!(link.push(b"late").is_err());
    }
}
