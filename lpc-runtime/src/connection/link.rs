//! [`Link`]: the sending side of a connection, shared by all who send on it.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use lpc_core::arena::Arena;
use lpc_core::frame;
use lpc_core::lent::Lent;
use lpc_core::receive::Entrance;
use lpc_core::ring::{MAX_FRAME, RingViolation, SLOTS};
use lpc_core::send::StreamPosition;
use lpc_core::{Limits, Result};
use nix::poll::PollFlags;
use nix::sys::socket::Shutdown;

use crate::body::outgoing::Loaned;
use crate::connection::ring::{Consumer, OwnRing, PeersRing, Producer};
use crate::maintenance::{self, Tend};
use crate::memory::objects::{Objects, Pin};
use crate::memory::peer::Object;
use crate::memory::pool::{Pool, PoolBlock, Segment};
use crate::memory::quota::Quota;
use crate::shared::memory::Memory;
use crate::stats::{Counters, Tally};
use crate::sys::cpu;
use crate::sys::fork::Birth;
use crate::sys::mapping::OwnMapping;
use crate::sys::private;
use crate::sys::socket::{self, Wait};

/// The socket, what waits to go out on it, and the memory for large bodies.
///
/// Invariant: no lock is held over a system call that may block. Of several senders one writes, without the lock; the others leave
/// their frames in the queue, and the writer takes them along in one batch.
///
/// Invariant: a fork of the process that made it neither sends nor closes, and takes none of its locks, which a thread that
/// the fork does not have may hold.
pub(crate) struct Link {
    birth: Birth,
    /// A stream of the standard library or of tokio; both are driven by the same system calls.
    socket: Arc<dyn AsFd + Send + Sync>,
    wait: Wait,
    outbox: Mutex<Outbox>,
    /// Signalled when the writer has taken the queue.
    taken: Condvar,
    pool: Arc<Pool>,
    /// Our memory that the peer may be reading.
    lent: Mutex<Lent<Memory>>,
    /// What the peer knows by number.
    objects: Mutex<Objects>,
    limits: Limits,
    /// Shared with other connections of the same user.
    quota: Option<Arc<Quota>>,
    /// How long shared memory stays unused before it is given back.
    idle: Duration,
    /// How long the peer may stop in the middle of a message.
    stall: Duration,
    /// How long it may take nothing while something is to be sent.
    write_timeout: Option<Duration>,
    /// How long it is looked for the peer's messages before sleeping.
    spin: Duration,
    counters: Arc<Tally>,
    this: Weak<Self>,
    /// Who is called by the housekeeper, if not the link itself.
    tended: OnceLock<Weak<dyn Tend>>,
    /// Something was queued for whoever reads to [flush](Self::flush).
    is_pushed: AtomicBool,
    /// The housekeeper comes soon, to flush.
    is_late: AtomicBool,
    /// The housekeeper comes later, to trim.
    is_watched: AtomicBool,
    /// When the peer last refused a segment, if it has.
    refused: Mutex<Option<Instant>>,
    has_refused: AtomicBool,
    /// As the outbox's `broken`.
    is_broken: AtomicBool,
    /// As its `stalled`.
    is_stalled: AtomicBool,
    /// What is received from the peer.
    entrance: Arc<Entrance>,
}

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

#[derive(Debug, Default)]
struct Outbox {
    /// Frames that wait, from `start` on: what is before that has been written.
    queue: Vec<u8>,
    start: usize,
    /// Descriptors in the queue: each goes with the byte at its place.
    descriptors: Vec<(usize, OwnedFd)>,
    /// An empty vector with capacity: the queue of the next batch.
    spare: Vec<u8>,
    /// Somebody is writing.
    busy: bool,
    /// The socket took no more: whoever waits for it to be writable flushes, senders only queue.
    stalled: bool,
    /// A write failed, or the connection is over: nothing goes out any more.
    broken: bool,
    /// Senders that wait for the queue to be taken. A condition variable does not know whether it has any, and waking
    /// nobody is a system call too.
    waiting: usize,
    /// Bytes of all frames so far: where the next one begins in the stream.
    total: u64,
    /// Up to where the stream may have gone out.
    gone: u64,
    /// The CPU that the peer was last told of.
    cpu: Option<u32>,
    /// This side's memory for the quick lane, until the peer's is there.
    offered: Option<OwnRing>,
    ring: Option<Ring>,
    /// What the peer says of its ring that cannot be.
    violation: Option<RingViolation>,
    /// How many slots of the ring the peer took, once it takes no more.
    taken: Option<u64>,
}

/// What is sent through shared memory.
#[derive(Debug)]
struct Ring {
    producer: Producer,
    /// The peer has mapped it.
    is_mapped: bool,
    /// The next frame goes there, and not through the socket.
    is_on: bool,
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

/// How long a writer waits for a socket that takes no more.
#[derive(Clone, Copy, Debug)]
enum Until {
    /// Not at all.
    Now,
    /// Until then, if there is a time.
    At(Option<Instant>),
}

/// How far a write got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Went {
    All,
    /// Until the socket took no more: whoever waits for it to be writable goes on.
    Full,
    /// Until the writer's time was over: to be tried again later.
    Later,
    /// Until the system had no means for more: likewise.
    Short,
}

/// Bytes in the queue above which senders wait for the writer.
const CONGESTED: usize = 1 << 20;

/// Bytes in the queue above which what was meant to go out with something else goes out by itself.
const MUCH: usize = 16 << 10;

/// How long nothing is put into shared memory after the peer had no room for it.
const REFUSED: Duration = Duration::from_secs(1);

/// How long a writer waits before it looks whether it is still to write, and whether there is something to be read.
const SLICE: Duration = Duration::from_millis(10);

/// A queue that had to grow beyond this is given back after use.
const KEPT: usize = 256 << 10;

impl Link {
    pub(crate) fn new(
        socket: Arc<dyn AsFd + Send + Sync>,
        wait: Wait,
        settings: Settings,
        counters: Arc<Counters>,
    ) -> Arc<Self> {
        let Settings { mut limits, quota, idle, stall, write_timeout, spin } = settings;
        if limits.max_segments == 0 {
            limits.pool = 0;
        }
        Arc::new_cyclic(|this| Self {
            birth: Birth::here(),
            socket,
            wait,
            outbox: Mutex::default(),
            taken: Condvar::new(),
            pool: Pool::new(Arena::new(limits.pool, limits.max_segments, limits.max_blocks)),
            lent: Mutex::default(),
            objects: Mutex::default(),
            limits,
            quota,
            idle,
            stall,
            write_timeout,
            spin,
            counters: Tally::new(counters),
            this: Weak::clone(this),
            tended: OnceLock::new(),
            is_pushed: AtomicBool::new(false),
            is_late: AtomicBool::new(false),
            is_watched: AtomicBool::new(false),
            refused: Mutex::default(),
            has_refused: AtomicBool::new(false),
            is_broken: AtomicBool::new(false),
            is_stalled: AtomicBool::new(false),
            entrance: Arc::default(),
        })
    }

    /// Makes sure that this process is no fork of the one that made the connection.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Disconnected`].
    pub(crate) fn check_process(&self) -> Result<()> {
        self.birth.check()
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The limits for what is sent: the narrower of both sides'.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How long the peer may stop in the middle of a message.
    pub(crate) fn stall(&self) -> Duration {
        self.stall
    }

    /// How long to look for the peer's messages before sleeping.
    pub(crate) fn spin(&self) -> Duration {
        self.spin
    }

    pub(crate) fn counters(&self) -> &Arc<Tally> {
        &self.counters
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(crate) fn quota(&self) -> Option<&Arc<Quota>> {
        self.quota.as_ref()
    }

    pub(crate) fn this(&self) -> Weak<Self> {
        Weak::clone(&self.this)
    }

    /// Has the housekeeper call `tended` in place of the link, which it calls in turn.
    pub(crate) fn tended_by(&self, tended: Weak<dyn Tend>) {
        let _ = self.tended.set(tended);
    }

    fn tended(&self) -> Weak<dyn Tend> {
        self.tended.get().cloned().unwrap_or_else(|| self.this() as Weak<dyn Tend>)
    }

    /// A block of at least `len` bytes; `None` where the pool has no room for it at the moment.
    ///
    /// # Errors
    ///
    /// The system has no memory or descriptor for a segment, or the user's quota no room, or the peer could not read it.
    pub(crate) fn alloc(&self, len: u64) -> io::Result<Option<PoolBlock>> {
        self.check_process().map_err(io::Error::other)?;
        if self.is_refused() {
            return Err(io::Error::other("the peer has no room for shared memory"));
        }
        let make = |number, len| {
            let charge = match &self.quota {
                Some(quota) => Some(quota.charge(len).ok_or_else(quota_is_used_up)?),
                None => None,
            };
            let created = OwnMapping::create(len).or_else(|_| {
                private::release();
                OwnMapping::create(len)
            });
            let (mapping, descriptor) = created?;
            self.outbox().announce(&frame::segment(number, len), descriptor);
            self.watch();
            Ok::<_, io::Error>(Segment::new(mapping, charge))
        };
        if let Some(lease) = self.pool.alloc(len, make)? {
            return Ok(Some(PoolBlock::new(lease)));
        }
        // There may be room, but in pieces.
        self.retire(|retire| self.pool.make_room(len, retire));
        Ok(self.pool.alloc(len, make)?.map(PoolBlock::new))
    }

    /// Whether a block of so many bytes can be had now; if not, `waker` is woken when it may be. All that is missing for it is
    /// made: a segment with that much room in one piece.
    pub(crate) fn has_room(&self, len: u64, waker: &Waker) -> bool {
        loop {
            match self.alloc(len) {
                Ok(None) => {}
                // Where the system has none, waiting is no use.
                Ok(Some(_)) | Err(_) => return true,
            }
            if !self.pool.has_room(len, waker) {
                return false;
            }
            if self.pool.is_closed() {
                return true;
            }
        }
    }

    /// Tells the peer which segments go, in front of whatever is announced under their numbers, and lets them go.
    fn retire<T>(&self, choose: impl FnOnce(&mut dyn FnMut(u32, Arc<Segment>)) -> T) -> T {
        let mut gone = Vec::new();
        let result = choose(&mut |number, segment| {
            let mut outbox = self.outbox();
            outbox.add(&frame::retire(number));
            drop(outbox);
            gone.push(segment);
        });
        // Unmapping takes its time, and no lock is held here.
        drop(gone);
        result
    }

    /// The number by which the peer knows an object, and a pin that keeps it so; it is told now, if it does not know it.
    /// `None` where it cannot be.
    pub(crate) fn announce(&self, object: &Arc<Object>) -> Option<(u32, Pin)> {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = objects.known(object) {
            return Some(known);
        }
        // First, so that nothing has to be taken back.
        let descriptor = object.file().try_clone().ok()?;
        let mut retired = Vec::new();
        let added = objects.add(object, &self.limits, &mut retired);
        let mut outbox = self.outbox();
        if outbox.broken {
            return None;
        }
        for number in retired {
            outbox.add(&frame::retire(number));
        }
        let (number, pin) = added?;
        outbox.announce(&frame::object(number, object.offset(), object.len()), descriptor);
        drop(outbox);
        drop(objects);
        object.announced(self.this(), number);
        Some((number, pin))
    }

    /// An object is dropped that the peer knew under this number.
    pub(crate) fn retire_object(&self, object: &Object, number: u32) {
        if !self.birth.is_here() {
            return;
        }
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        if objects.forget(object, number) {
            // Under the lock, so that nobody else is announced by this number before.
            self.push_late(&frame::retire(number));
        }
    }

    /// Notes that the peer is about to get these.
    pub(crate) fn lend(&self, loans: &[Loaned]) {
        if loans.is_empty() {
            return;
        }
        let mut lent = self.lent();
        for loan in loans {
            if let Memory::Block { .. } = &*loan.memory {
                lent.lend((loan.place.segment, loan.place.page), Arc::clone(&loan.memory));
            }
        }
    }

    /// The peer did not get these.
    pub(crate) fn take_back(&self, loans: &[Loaned]) {
        for loan in loans {
            if let Memory::Block { .. } = &*loan.memory {
                let _ = self.returned(loan.place.segment, loan.place.page);
            }
        }
    }

    /// The peer gives a loan back.
    pub(crate) fn returned(&self, segment: u32, page: u32) -> Result<()> {
        let memory = self.lent().returned((segment, page))?;
        drop(memory);
        Ok(())
    }

    /// The peer cannot read this segment. Others it could not read either, so that for a while nothing is put into any.
    pub(crate) fn refused(&self, segment: u32) {
        // Once for all that it refuses.
        if !self.is_refused() {
            tracing::warn!(segment, "the peer has no room for shared memory: large bodies take the socket");
        }
        self.pool.withdraw(segment);
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.has_refused.store(true, Release);
    }

    /// Whether the peer has refused a segment a moment ago.
    fn is_refused(&self) -> bool {
        if !self.has_refused.load(Acquire) {
            return false;
        }
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.is_some_and(|at| at.elapsed() < REFUSED) {
            return true;
        }
        *refused = None;
        self.has_refused.store(false, Release);
        false
    }

    fn lent(&self) -> MutexGuard<'_, Lent<Memory>> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the housekeeper come when shared memory may be idle.
    pub(crate) fn watch(&self) {
        if !self.is_watched.swap(true, AcqRel) {
            maintenance::trim(self.tended(), self.idle / 2);
        }
    }

    /// Queues a frame that goes out with whatever is sent next, or soon by itself. Never waits. Says how much is queued.
    pub(crate) fn push_late(&self, frame: &[u8]) -> usize {
        if !self.birth.is_here() {
            return 0;
        }
        let mut outbox = self.outbox();
        if outbox.broken {
            return 0;
        }
        outbox.add(frame);
        let len = outbox.len();
        drop(outbox);
        if !self.is_late.swap(true, AcqRel) {
            maintenance::flush(self.tended());
        }
        len
    }

    /// Gives back memory that is not in use, and sends what waits. Says when to come again: if there is more memory, or
    /// `has_more` says so.
    pub(crate) fn tidy(&self, has_more: bool) -> Option<Duration> {
        // First: who adds a segment from now on has it watched.
        self.is_watched.store(false, Release);
        let left = self.retire(|retire| self.pool.trim(retire));
        if self.try_flush() && !self.is_late.swap(true, AcqRel) {
            maintenance::flush(self.tended());
        }
        let is_needed = left > 0 || has_more;
        (is_needed && !self.is_watched.swap(true, AcqRel)).then_some(self.idle / 2)
    }

    /// Sends what was queued as far as the socket takes it, without waiting. Whether something is left.
    ///
    /// Under the lock, so that nobody leaves a frame to a writer who stops half-way: what is left here goes out with whatever
    /// is sent next, or when this is tried again.
    fn try_flush(&self) -> bool {
        let mut outbox = self.outbox();
        if let Err(error) = self.ring_bell(&mut outbox) {
            self.fail(outbox, error);
            return false;
        }
        if outbox.broken || outbox.busy || outbox.stalled || outbox.len() == 0 {
            // Whoever writes, or waits for the socket, takes it along.
            return false;
        }
        let (batch, start, mut descriptors) = outbox.take();
        let (end, result) = self.write_batch(&batch, start, &mut descriptors, Until::Now);
        outbox.gone = outbox.total - (batch.len() - end) as u64;
        match result {
            Ok(Went::All) => {
                outbox.keep(batch);
                false
            }
            Ok(short) => {
                outbox.put_back(batch, end, descriptors, short);
                true
            }
            Err(error) => {
                self.fail(outbox, error);
                false
            }
        }
    }

    /// Sends a frame as far as the socket takes it at once; the rest goes out with whatever is sent next, or soon.
    pub(crate) fn send_now(&self, frame: &[u8]) {
        if self.push_unsent(frame) {
            self.flush_soon();
        }
    }

    /// Sends what was queued as far as the socket takes it at once; the rest soon.
    fn flush_soon(&self) {
        if self.try_flush() && !self.is_late.swap(true, AcqRel) {
            maintenance::flush(self.tended());
        }
    }

    fn push_unsent(&self, frame: &[u8]) -> bool {
        if !self.birth.is_here() {
            return false;
        }
        let mut outbox = self.outbox();
        outbox.add(frame);
        !outbox.broken
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
        let until = self.until(deadline);
        let mut outbox = self.uncongested(deadline)?;
        outbox.tell(cpu::current());
        let put = outbox.put(frame, false);
        if outbox.violation.is_some() {
            let error = outbox.why_broken();
            return Err(self.fail(outbox, error));
        }
        if let Some(mark) = put {
            self.counters.sent_in_ring();
            return Ok((self.drain(outbox, until).unwrap_or(Flow::Sent), mark));
        }
        let is_free = !outbox.busy && !outbox.stalled;
        if !is_free || (outbox.len() > 0 && frame.len() < MUCH) {
            let mark = outbox.queue(frame);
            return Ok((self.drain(outbox, until).unwrap_or(Flow::Sent), mark));
        }
        // Straight from the sender's buffer: the common case, and what is large is not copied to go behind what waits.
        let (mut waiting, start, mut descriptors) = outbox.take();
        let end_of_frame = outbox.pass(frame.len());
        let mark = StreamPosition::Socket(end_of_frame);
        outbox.busy = true;
        outbox.gone = end_of_frame;
        drop(outbox);
        let (end, result) = self.write_batch(&waiting, start, &mut descriptors, until);
        let (len, result) = match result {
            Ok(Went::All) => self.write(frame, None, until),
            short => (0, short),
        };
        let mut outbox = self.outbox();
        outbox.busy = false;
        outbox.gone = end_of_frame - (waiting.len() - end + frame.len() - len) as u64;
        match result {
            Ok(Went::All) => {
                outbox.keep(waiting);
                if outbox.len() == 0 && !outbox.broken {
                    return Ok((Flow::Sent, mark));
                }
                Ok((self.drain(outbox, until).unwrap_or(Flow::Sent), mark))
            }
            Ok(short) => {
                waiting.extend_from_slice(&frame[len..]);
                outbox.put_back(waiting, end, descriptors, short);
                Ok((self.stop_short(outbox, short), mark))
            }
            Err(error) => Err(self.fail(outbox, error)),
        }
    }

    /// Puts a frame into the ring, if the next one goes there and it fits in: no system call, and no waiting. Says whether the peer
    /// has to be [woken](Self::wake) for it.
    pub(crate) fn put(&self, frame: &[u8]) -> Option<(StreamPosition, bool)> {
        // Who has no quick lane takes no lock.
        if !self.limits.quick_lane || !self.birth.is_here() {
            return None;
        }
        let mut outbox = self.outbox();
        let put = outbox.put_at_once(frame, cpu::current());
        if put.is_some() {
            self.counters.sent_in_ring();
        }
        put
    }

    /// Queues a small frame, for whoever [flushes](Self::flush). Never waits, and sends nothing: `None` where that would be to be done.
    pub(crate) fn leave(&self, frame: &[u8]) -> Option<StreamPosition> {
        if self.limits.quick_lane || !self.birth.is_here() {
            return None;
        }
        let mut outbox = self.outbox();
        if outbox.broken || outbox.len() + frame.len() > MUCH {
            return None;
        }
        outbox.tell(cpu::current());
        Some(outbox.queue(frame))
    }

    /// Wakes the peer for what was [put](Self::put) into the ring, which it gets whatever becomes of the bell.
    ///
    /// Never waits: a peer that takes nothing from its socket has something to read there.
    #[cold]
    pub(crate) fn wake(&self) {
        self.queue_bell(&mut self.outbox());
        self.flush_soon();
    }

    /// Whether the frame that ends there may have gone out as a whole.
    pub(crate) fn may_have_gone(&self, mark: StreamPosition) -> bool {
        let outbox = self.outbox();
        match mark {
            StreamPosition::Socket(end) => end <= outbox.gone,
            StreamPosition::Ring(end) => outbox.taken.is_none_or(|taken| end <= taken),
        }
    }

    /// Sends nothing more, because the peer receives nothing more, and has taken so many slots of the ring. Whoever writes at
    /// the moment stops.
    pub(crate) fn stop_sending(&self, taken: u64) {
        if !self.birth.is_here() {
            return;
        }
        let mut outbox = self.outbox();
        outbox.taken = Some(taken);
        self.give_up(outbox);
        socket::shutdown(self.socket(), Shutdown::Write);
    }

    /// Has a client's quick lane begin, as far as that is for this side to do. Without memory there will be none.
    pub(crate) fn offer_ring(&self) {
        match OwnRing::create() {
            Ok((own, descriptor)) => {
                let mut outbox = self.outbox();
                outbox.announce(&frame::ring(), descriptor);
                outbox.offered = Some(own);
                drop(outbox);
                self.flush_soon();
            }
            Err(error) => tracing::warn!(%error, "no shared memory for a quick lane"),
        }
    }

    /// The peer's memory for the quick lane is mapped. A client may send through its ring from now on; a server announces its
    /// own, if it has memory for that.
    pub(crate) fn take_ring(&self, peers: PeersRing) -> Option<Consumer> {
        let mut outbox = self.outbox();
        let (own, is_mapped) = match outbox.offered.take() {
            Some(own) => (own, true),
            None => {
                let (own, descriptor) = OwnRing::create()
                    .inspect_err(|error| tracing::warn!(%error, "no shared memory for a quick lane"))
                    .ok()?;
                outbox.announce(&frame::ring(), descriptor);
                self.is_pushed.store(true, Release);
                (own, false)
            }
        };
        if !outbox.broken {
            let producer = Producer::new(own.clone(), peers.clone(), SLOTS);
            outbox.ring = Some(Ring { producer, is_mapped, is_on: false });
        }
        Some(Consumer::new(own, peers, SLOTS))
    }

    /// What the peer sends goes on in its ring, so that it has mapped this side's, too.
    pub(crate) fn ring_is_mapped(&self) {
        if let Some(ring) = &mut self.outbox().ring {
            ring.is_mapped = true;
        }
    }

    /// By which this side stops receiving.
    pub(crate) fn entrance(&self) -> &Arc<Entrance> {
        &self.entrance
    }

    fn until(&self, deadline: Option<Instant>) -> Until {
        match self.wait {
            Wait::Sleep => Until::At(deadline),
            Wait::Never => Until::Now,
        }
    }

    /// Sees to it that what the socket did not take goes out later.
    fn stop_short(&self, mut outbox: MutexGuard<'_, Outbox>, short: Went) -> Flow {
        // Who waits for room waits for a writer that is no more.
        if outbox.waiting > 0 {
            self.taken.notify_all();
        }
        if outbox.broken {
            return Flow::Sent;
        }
        if short == Went::Full {
            outbox.stalled = true;
            self.is_stalled.store(true, Release);
            return Flow::Stalled;
        }
        if !self.is_late.swap(true, AcqRel) {
            maintenance::flush(self.tended());
        }
        Flow::Sent
    }

    /// Queues a frame for the next [`send`](Self::send) or [`flush`](Self::flush), which must come soon; if much is
    /// queued already, or it goes through the ring, it is sent at once.
    pub(crate) fn push(&self, frame: &[u8]) -> io::Result<(Flow, StreamPosition)> {
        let mut outbox = self.uncongested(None)?;
        outbox.tell(cpu::current());
        let mark = outbox.add(frame);
        if outbox.violation.is_some() {
            let error = outbox.why_broken();
            return Err(self.fail(outbox, error));
        }
        if let StreamPosition::Ring(_) = mark {
            self.counters.sent_in_ring();
            // It is out, whatever becomes of the bell.
            return Ok((self.drain(outbox, self.until(None)).unwrap_or(Flow::Sent), mark));
        }
        if outbox.len() >= MUCH {
            return Ok((self.drain(outbox, self.until(None))?, mark));
        }
        // Under the lock: who flushes sees either the flag or the frame.
        self.is_pushed.store(true, Release);
        Ok((Flow::Sent, mark))
    }

    /// Whether something was queued that nobody has flushed since, or nothing goes out any more, which a flush tells.
    pub(crate) fn is_to_flush(&self) -> bool {
        self.is_pushed.load(Acquire) || self.is_late.load(Acquire) || self.is_broken()
    }

    /// Sends what was queued.
    pub(crate) fn flush(&self) -> io::Result<Flow> {
        self.check_process().map_err(io::Error::other)?;
        let mut outbox = self.outbox();
        self.is_pushed.store(false, Release);
        outbox.stalled = false;
        self.is_stalled.store(false, Release);
        self.drain(outbox, self.until(None))
    }

    /// Sends what was queued as far as the socket takes it at once; the rest goes out with whatever is sent next, or soon. Where that
    /// fails so does all that is sent.
    pub(crate) fn flush_at_once(&self) {
        if self.birth.is_here() {
            let _ = self.drain(self.outbox(), Until::At(Some(Instant::now())));
        }
    }

    /// Whether so much waits for the socket to be writable that who sends more should wait, too.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_congested(&self) -> bool {
        // Each call asks: without the lock as long as the socket takes all.
        if !self.is_stalled.load(Acquire) || !self.birth.is_here() {
            return false;
        }
        let outbox = self.outbox();
        outbox.stalled && outbox.len() > CONGESTED
    }

    /// Ends the connection: both sides see the end of the stream at once.
    pub(crate) fn close(&self) {
        if !self.birth.is_here() {
            return;
        }
        // First: a block that comes back because the connection is over is not handed out again, since the peer may still
        // be reading it.
        self.pool.close();
        self.give_up(self.outbox());
        socket::shutdown(self.socket(), Shutdown::Both);
        let lent = mem::take(&mut *self.lent());
        drop(lent);
        if let Some(tended) = self.tended().upgrade() {
            tended.closed();
        }
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outbox, once a blocking sender may add to it.
    fn uncongested(&self, deadline: Option<Instant>) -> io::Result<MutexGuard<'_, Outbox>> {
        self.check_process().map_err(io::Error::other)?;
        let mut outbox = self.outbox();
        while self.wait == Wait::Sleep && outbox.busy && !outbox.broken && outbox.len() > CONGESTED {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            outbox.waiting += 1;
            outbox = match left {
                Some(Duration::ZERO) => {
                    outbox.waiting -= 1;
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Some(left) => self.taken.wait_timeout(outbox, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.taken.wait(outbox).unwrap_or_else(PoisonError::into_inner),
            };
            outbox.waiting -= 1;
        }
        if outbox.broken { Err(outbox.why_broken()) } else { Ok(outbox) }
    }

    /// Queues a bell where the peer sleeps and has something in the ring.
    fn ring_bell(&self, outbox: &mut Outbox) -> io::Result<()> {
        if !outbox.broken && outbox.violation.is_some() {
            return Err(outbox.why_broken());
        }
        let has_to_wake = outbox.ring.as_mut().is_some_and(|ring| ring.producer.has_to_wake());
        if has_to_wake {
            self.queue_bell(outbox);
        }
        Ok(())
    }

    fn queue_bell(&self, outbox: &mut Outbox) {
        // A peer whose socket takes no more has something to read there.
        if !outbox.stalled && !outbox.broken {
            self.counters.rang();
            outbox.queue(&frame::bell());
        }
    }

    /// Writes the queue until it is empty or the socket takes no more, unless somebody else is at it.
    fn drain<'l>(&'l self, mut outbox: MutexGuard<'l, Outbox>, until: Until) -> io::Result<Flow> {
        if let Err(error) = self.ring_bell(&mut outbox) {
            return Err(self.fail(outbox, error));
        }
        loop {
            if outbox.broken {
                return Err(outbox.why_broken());
            }
            if outbox.busy || outbox.len() == 0 {
                return Ok(Flow::Sent);
            }
            if outbox.stalled {
                return Ok(Flow::Stalled);
            }
            outbox.busy = true;
            let (batch, start, mut descriptors) = outbox.take();
            let mark = outbox.total;
            outbox.gone = mark;
            if outbox.waiting > 0 {
                self.taken.notify_all();
            }
            drop(outbox);
            let (end, result) = self.write_batch(&batch, start, &mut descriptors, until);
            outbox = self.outbox();
            outbox.busy = false;
            outbox.gone = mark - (batch.len() - end) as u64;
            match result {
                Ok(Went::All) => outbox.keep(batch),
                Ok(short) => {
                    outbox.put_back(batch, end, descriptors, short);
                    return Ok(self.stop_short(outbox, short));
                }
                Err(error) => return Err(self.fail(outbox, error)),
            }
        }
    }

    /// Writes a batch from `start` on, whose descriptors each go with the byte at their place. Returns up to where it
    /// went out, and leaves the descriptors of the rest.
    fn write_batch(
        &self,
        batch: &[u8],
        start: usize,
        descriptors: &mut Vec<(usize, OwnedFd)>,
        until: Until,
    ) -> (usize, io::Result<Went>) {
        let mut done = start;
        while done < batch.len() {
            // From a descriptor's byte to before the next one's.
            let with = descriptors.first().is_some_and(|(place, _)| *place == done);
            let next = descriptors.get(usize::from(with)).map_or(batch.len(), |(place, _)| *place);
            let descriptor = with.then(|| descriptors[0].1.as_fd());
            let (len, result) = self.write(&batch[done..next], descriptor, until);
            if with && len > 0 {
                descriptors.remove(0);
            }
            done += len;
            if !matches!(result, Ok(Went::All)) {
                return (done, result);
            }
        }
        (done, Ok(Went::All))
    }

    /// Writes until all is out, or the socket takes no more and is not to be waited for any longer. Returns how much went out.
    fn write(
        &self,
        bytes: &[u8],
        descriptor: Option<BorrowedFd<'_>>,
        until: Until,
    ) -> (usize, io::Result<Went>) {
        let mut done = 0;
        while done < bytes.len() {
            let descriptor = descriptor.filter(|_| done == 0);
            match socket::send(self.socket(), &bytes[done..], descriptor, Wait::Never) {
                Ok(len) => done += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let Until::At(deadline) = until else { return (done, Ok(Went::Full)) };
                    match self.wait_writable(deadline) {
                        Ok(true) => {}
                        Ok(false) => return (done, Ok(Went::Later)),
                        Err(error) => return (done, Err(error)),
                    }
                }
                Err(error) if socket::is_short_of_means(&error) => return (done, Ok(Went::Short)),
                Err(error) => return (done, Err(error)),
            }
        }
        (done, Ok(Went::All))
    }

    /// Waits until the socket takes more; `false` if that takes too long for the sender.
    ///
    /// # Errors
    ///
    /// It takes so long that the peer is taken for dead.
    fn wait_writable(&self, deadline: Option<Instant>) -> io::Result<bool> {
        let now = Instant::now();
        let stalled = self.write_timeout.and_then(|time| now.checked_add(time));
        let until = deadline.into_iter().chain(stalled).min();
        // In slices: shutdown(2) for sending does not wake who waits to send.
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let slice = left.map_or(SLICE, |left| left.min(SLICE));
            if socket::wait(self.socket(), PollFlags::POLLOUT, Some(slice))? {
                return Ok(true);
            }
            if self.is_broken() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if until.is_some_and(|until| until <= Instant::now()) {
                return if until == stalled { Err(self.takes_nothing()) } else { Ok(false) };
            }
            // The peer may take nothing because nobody here takes what it sends.
            if let Some(tended) = self.tended().upgrade() {
                tended.meanwhile();
            }
        }
    }

    /// How long the peer may take nothing while something is to be sent.
    #[cfg(feature = "tokio")]
    pub(crate) fn write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    /// The error of a peer that took nothing for so long.
    pub(crate) fn takes_nothing(&self) -> io::Error {
        io::Error::other(format!("it took nothing for {:?} (stall_timeout)", self.stall))
    }

    /// Gives the sending up. What the peer answers still arrives: it may have closed only its receiving.
    fn fail(&self, outbox: MutexGuard<'_, Outbox>, error: io::Error) -> io::Error {
        self.give_up(outbox);
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

    fn give_up(&self, mut outbox: MutexGuard<'_, Outbox>) {
        self.is_broken.store(true, Release);
        let Outbox { busy, waiting, total, gone, taken, violation, .. } = *outbox;
        *outbox = Outbox { broken: true, busy, waiting, total, gone, taken, violation, ..Outbox::default() };
        drop(outbox);
        self.taken.notify_all();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("socket", &self.socket())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
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

fn quota_is_used_up() -> io::Error {
    io::Error::other(
        "all connections of this user together have as much shared memory as they may (user_pool_limit)",
    )
}

impl Outbox {
    /// Puts a frame into the ring, or queues it.
    fn add(&mut self, frame: &[u8]) -> StreamPosition {
        match self.put(frame, false) {
            Some(mark) => mark,
            None => self.queue(frame),
        }
    }

    /// Puts a frame into the ring, if it goes there and nothing else is to be done. Says whether the peer has to be woken.
    fn put_at_once(&mut self, frame: &[u8], cpu: Option<u32>) -> Option<(StreamPosition, bool)> {
        if self.broken || self.cpu != cpu || self.len() > 0 {
            return None;
        }
        let ring = self.ring.as_mut().filter(|ring| ring.is_on)?;
        match ring.producer.put(frame) {
            Ok(true) => Some((StreamPosition::Ring(ring.producer.written()), ring.producer.has_to_wake())),
            Ok(false) => None,
            Err(violation) => {
                self.violation = Some(violation);
                None
            }
        }
    }

    /// Puts a frame into the ring, if it goes there; otherwise the next one in the socket's queue is to be this one.
    fn put(&mut self, frame: &[u8], has_descriptor: bool) -> Option<StreamPosition> {
        let is_idle = !self.busy && !self.stalled && self.len() == 0;
        let ring = self.ring.as_mut()?;
        let mut is_switched = false;
        let put = ring.put(frame, has_descriptor, is_idle, &mut is_switched);
        if is_switched {
            self.queue(&frame::switch());
        }
        put.unwrap_or_else(|violation| {
            self.violation = Some(violation);
            None
        })
    }

    /// Queues a frame for the socket, if anything takes it any more.
    fn queue(&mut self, frame: &[u8]) -> StreamPosition {
        if !self.broken {
            self.queue.extend_from_slice(frame);
        }
        StreamPosition::Socket(self.pass(frame.len()))
    }

    /// Counts a frame that goes into the socket's stream now. Says where it ends.
    fn pass(&mut self, len: usize) -> u64 {
        self.total += len as u64;
        self.total
    }

    /// Tells the peer on which CPU this side is awake, if it does not know.
    fn tell(&mut self, cpu: Option<u32>) {
        if let Some(number) = cpu
            && self.cpu != cpu
        {
            self.cpu = cpu;
            self.add(&frame::at(number));
        }
    }

    /// Queues a frame that brings a descriptor.
    fn announce(&mut self, frame: &[u8], descriptor: OwnedFd) {
        let _ = self.put(frame, true);
        if !self.broken {
            self.descriptors.push((self.queue.len(), descriptor));
        }
        self.queue(frame);
    }

    /// Why nothing is sent any more.
    fn why_broken(&self) -> io::Error {
        match self.violation {
            Some(violation) => io::Error::new(io::ErrorKind::InvalidData, violation),
            None => io::ErrorKind::BrokenPipe.into(),
        }
    }

    /// Bytes that wait.
    fn len(&self) -> usize {
        self.queue.len() - self.start
    }

    /// What waits, from where on it does, and the descriptors that go with it.
    fn take(&mut self) -> (Vec<u8>, usize, Vec<(usize, OwnedFd)>) {
        if self.len() == 0 {
            return Default::default();
        }
        let batch = mem::replace(&mut self.queue, mem::take(&mut self.spare));
        (batch, mem::take(&mut self.start), mem::take(&mut self.descriptors))
    }

    /// Keeps a batch that went out for the next one.
    fn keep(&mut self, mut batch: Vec<u8>) {
        if (1..=KEPT).contains(&batch.capacity()) {
            batch.clear();
            self.spare = batch;
        }
    }

    /// Puts a batch that was written up to `start` back in front of what was queued since.
    fn put_back(
        &mut self,
        mut batch: Vec<u8>,
        start: usize,
        mut descriptors: Vec<(usize, OwnedFd)>,
        short: Went,
    ) {
        if self.broken {
            return;
        }
        if short == Went::Short && descriptors.first().is_some_and(|(place, _)| *place == start) {
            self.withdraw_ring(&mut batch[start..], &mut descriptors);
        }
        let mut start = start;
        if start > batch.len() / 2 {
            // What has been written goes, or a stall that never quite ends would keep all that ever was; not each time,
            // or a large batch would be copied over and over.
            batch.drain(..start);
            for (place, _) in &mut descriptors {
                *place -= start;
            }
            start = 0;
        }
        let moved = batch.len();
        descriptors.extend(self.descriptors.drain(..).map(|(place, descriptor)| (place + moved, descriptor)));
        batch.extend_from_slice(&self.queue);
        (self.queue, self.start, self.descriptors) = (batch, start, descriptors);
    }

    /// Does without a quick lane, if it is the memory for that which cannot be passed: no call waits for it. Its frame, the first of
    /// these, becomes one of the same length that says nothing new, since where those behind it end has been said.
    fn withdraw_ring(&mut self, waiting: &mut [u8], descriptors: &mut Vec<(usize, OwnedFd)>) {
        let ring = frame::ring();
        let Some(cpu) = self.cpu.or_else(cpu::current).filter(|_| waiting.starts_with(&ring)) else { return };
        tracing::warn!("the system passes no descriptor for a quick lane");
        waiting[..ring.len()].copy_from_slice(&frame::at(cpu));
        descriptors.remove(0);
        // The peer never knew of it.
        (self.offered, self.ring) = (None, None);
    }
}

impl Ring {
    /// Puts a frame into the ring, if it can go there; otherwise says there that the socket is where to look.
    ///
    /// What is sent goes on in the ring (`is_switched`) when the socket `is_idle` and the ring empty: so it does not go back and
    /// forth while the peer is busy.
    fn put(
        &mut self,
        frame: &[u8],
        has_descriptor: bool,
        is_idle: bool,
        is_switched: &mut bool,
    ) -> Result<Option<StreamPosition>, RingViolation> {
        let fits = !has_descriptor && frame.len() <= MAX_FRAME;
        if !self.is_on {
            if !fits || !self.is_mapped || !is_idle || !self.producer.is_empty()? {
                return Ok(None);
            }
            self.is_on = true;
            *is_switched = true;
        }
        if fits && self.producer.put(frame)? {
            return Ok(Some(StreamPosition::Ring(self.producer.written())));
        }
        // One frame through the socket; all, where there is no room for more.
        if !fits && self.producer.put(&frame::aside())? {
            return Ok(None);
        }
        self.producer.put_last(&frame::switch())?;
        self.is_on = false;
        Ok(None)
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

    #[test]
    fn a_stall_that_never_ends_keeps_only_what_waits() {
        let (link, mut theirs) = link(Wait::Never);
        let frame = vec![7; 60_000];
        let mut read = vec![0; 60_000];
        for _ in 0..12 {
            let _ = link.send(&frame).unwrap();
        }
        for _ in 0..500 {
            theirs.read_exact(&mut read).unwrap();
            let _ = link.flush().unwrap();
            assert_eq!(link.send(&frame).unwrap(), Flow::Stalled);
            let outbox = link.outbox();
            assert!(
                outbox.queue.len() <= 2 * outbox.len() + frame.len(),
                "{} bytes kept",
                outbox.queue.len()
            );
        }
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
    fn a_large_frame_goes_behind_what_waits_and_is_not_copied_to() {
        let (link, mut theirs) = link(Wait::Sleep);
        let frames = [b"late".to_vec(), vec![7; 8 << 20]];
        let mut read = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| theirs.read_to_end(&mut read).unwrap());
            link.push_late(&frames[0]);
            assert_eq!(link.send(&frames[1]).unwrap(), Flow::Sent);
            let outbox = link.outbox();
            assert!(outbox.queue.capacity() + outbox.spare.capacity() <= KEPT);
            drop(outbox);
            link.close();
        });
        assert!(is_whole(&read, &frames));
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
        while link.outbox().len() > 0 {
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
        assert!(link.outbox().ring.as_ref().unwrap().is_on);
        let large = vec![0; 60 << 10];
        while link.outbox().len() == 0 {
            let _ = link.send_within(&large, at_once).unwrap();
        }
        // Where nothing is queued the next one is put.
        link.outbox().take();
        peers_own.store(128, 3);
        let (_, has_to_wake) = link.put(&frame::release(CallId::new(2))).unwrap();
        assert!(has_to_wake);
        link.wake();
        assert_eq!(link.outbox().len(), frame::bell().len());
    }

    #[test]
    fn bells_do_not_pile_up_where_nobody_hears_them() {
        let (link, _theirs) = link(Wait::Never);
        let (peers_own, file) = OwnRing::create().unwrap();
        link.offer_ring();
        let _reading = link.take_ring(PeersRing::open(&file, None).unwrap()).unwrap();
        // A peer that takes all that is in the ring, says each time that it sleeps, and never reads the socket.
        for turn in 0..200_000 {
            let _ = link.send(&frame::release(CallId::new(turn))).unwrap();
            let written = link.outbox().ring.as_ref().unwrap().producer.written();
            peers_own.store(0, written);
            peers_own.store(128, 2 * turn + 1);
        }
        let outbox = link.outbox();
        assert!(outbox.stalled && outbox.ring.as_ref().unwrap().is_on);
        assert!(outbox.queue.capacity() <= KEPT, "{} bytes", outbox.queue.capacity());
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
            while link.outbox().waiting < 3 {
                std::thread::yield_now();
            }
            assert!(!has_failed.load(Relaxed));
            drop(theirs);
        });
        assert!(link.push(b"late").is_err());
    }
}
