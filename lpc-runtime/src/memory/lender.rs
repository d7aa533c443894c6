//! [`Lender`]: this side's shared memory, as far as the peer of one connection gets to read it: blocks of a
//! pool, and objects.

use std::fmt;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use lpc_core::arena::Arena;
use lpc_core::frame::{self, BlockRef, OBJECT};
use lpc_core::lent::Lent;
use lpc_core::{Limits, Result};

use crate::connection::passing::Descriptor;
use crate::connection::warnings::{Warning, Warnings};
use crate::memory::budget::Budget;
use crate::memory::objects::{Objects, Pin};
use crate::memory::peer::{KnowsObjects, Object};
use crate::memory::pool::{Pool, PoolBlock, Segment, WaitingForRoom};
use crate::memory::quota::Quota;
use crate::sys::mapping::OwnMapping;
use crate::sys::private;

/// How long nothing is put into shared memory after the peer had no room for it, or the system passed no
/// descriptor.
const REFUSED: Duration = Duration::from_secs(1);

/// The memory that the peer of one connection may be reading. In a fork of the process that has the
/// connection none of it is to be called: its locks may be held by threads that the fork does not have.
pub(crate) struct Lender {
    pool: Arc<Pool>,
    /// What stands in the pool and is lent.
    lent: Mutex<Lent<dyn Send + Sync>>,
    /// What the peer knows by number.
    objects: Mutex<Objects>,
    /// The limits for what is sent.
    limits: Limits,
    /// Shared with other connections of the same user.
    quota: Option<Arc<Quota>>,
    /// Shared with all connections of this process to the same user.
    budget: Arc<Budget>,
    /// Why and since when nothing is put into shared memory, if that is so.
    refusal: Mutex<Option<(Refusal, Instant)>>,
    is_refused: AtomicBool,
    warnings: Arc<Warnings>,
}

/// Why nothing is put into shared memory for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// The peer has no room for it.
    Peer,
    /// The system passes no descriptors.
    System,
}

/// How the peer is told: frames are queued for it, in order, without waiting.
pub(crate) trait Announce {
    /// Queues a frame that goes out with whatever is sent next.
    fn tell(&self, frame: &[u8]);

    /// Queues a frame that brings a descriptor; `false` where nothing goes out any more.
    fn announce(&self, frame: &[u8], descriptor: Descriptor) -> bool;

    /// There is memory that is to be given back when it is idle.
    fn watch(&self);
}

/// Memory that a body refers to, and where its receiver finds it.
#[derive(Clone)]
pub(crate) struct Loaned {
    pub(crate) place: BlockRef,
    pub(crate) memory: Arc<dyn Send + Sync>,
    /// Whether it was made for this message.
    pub(crate) is_copy: bool,
    /// Of an object: keeps its number as long as the body has not been sent.
    pub(crate) _pin: Option<Pin>,
}

impl Loaned {
    const fn is_of_pool(&self) -> bool {
        self.place.segment & OBJECT == 0
    }
}

impl Refusal {
    const fn message(self) -> &'static str {
        match self {
            Self::Peer => "the peer has no room for shared memory",
            Self::System => "the system passes no descriptor for shared memory",
        }
    }
}

impl Lender {
    pub(crate) fn new(
        mut limits: Limits,
        quota: Option<Arc<Quota>>,
        budget: Arc<Budget>,
        warnings: Arc<Warnings>,
    ) -> Self {
        if limits.max_segments == 0 {
            limits.pool = 0;
        }
        Self {
            pool: Pool::new(Arena::new(limits.pool, limits.max_segments, limits.max_blocks)),
            lent: Mutex::default(),
            objects: Mutex::default(),
            limits,
            quota,
            budget,
            refusal: Mutex::default(),
            is_refused: AtomicBool::new(false),
            warnings,
        }
    }

    /// The limits for what is sent.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(crate) fn quota(&self) -> Option<&Arc<Quota>> {
        self.quota.as_ref()
    }

    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// A block of at least `len` bytes; `None` where the pool has no room for it at the moment.
    ///
    /// # Errors
    ///
    /// The system has no memory or descriptor for a segment, or the user's quota no room, or the peer could
    /// not read it.
    pub(crate) fn alloc(&self, len: u64, peer: &impl Announce) -> io::Result<Option<PoolBlock>> {
        if let Some(refusal) = self.refusal() {
            return Err(io::Error::other(refusal.message()));
        }
        let make = |number, len| {
            let charge = match &self.quota {
                Some(quota) => Some(quota.charge(len).ok_or_else(quota_is_used_up)?),
                None => None,
            };
            let held = self.budget.mapping().ok_or_else(mappings_are_used_up)?;
            let created = OwnMapping::create(len).or_else(|_| {
                private::release();
                OwnMapping::create(len)
            });
            let (mapping, descriptor) = created?;
            let passage = Arc::default();
            peer.announce(&frame::segment(number, len), Descriptor::with(descriptor, &passage));
            peer.watch();
            Ok::<_, io::Error>(Segment::new(mapping, passage, charge, Some(held)))
        };
        if let Some(lease) = self.pool.alloc(len, make)? {
            return Ok(Some(PoolBlock::new(lease)));
        }
        // There may be room, but in pieces.
        self.retire(peer, |retire| self.pool.make_room(len, retire));
        Ok(self.pool.alloc(len, make)?.map(PoolBlock::new))
    }

    /// A place in the line for a block of `len` bytes.
    pub(crate) fn wait_for(&self, len: u64) -> WaitingForRoom {
        WaitingForRoom::new(self.pool.wait_for(len))
    }

    /// Whether what is waited for can be had now; if not, `waker` is woken when it may be.
    pub(crate) fn has_room(&self, waiting: &WaitingForRoom, peer: &impl Announce, waker: &Waker) -> bool {
        let waiting = waiting.place();
        // Where nothing is put into shared memory, waiting is no use.
        if self.refusal().is_some() {
            return true;
        }
        // All that is missing for it is made: a segment with that much room in one piece, for a body and its
        // loans together.
        match self.alloc(waiting.bytes(), peer) {
            Ok(block) => drop(block),
            Err(_) => return true,
        }
        waiting.has_room(waker)
    }

    /// Gives back segments that are not in use; how many are left.
    pub(crate) fn trim(&self, peer: &impl Announce) -> usize {
        self.retire(peer, |retire| self.pool.trim(retire))
    }

    /// Tells the peer which segments go, in front of whatever is announced under their numbers, and lets them
    /// go.
    fn retire<T>(
        &self,
        peer: &impl Announce,
        choose: impl FnOnce(&mut dyn FnMut(u32, Arc<Segment>)) -> T,
    ) -> T {
        let mut gone = Vec::new();
        let result = choose(&mut |number, segment| {
            peer.tell(&frame::retire(number));
            gone.push(segment);
        });
        // Unmapping takes its time, and no lock is held here.
        drop(gone);
        result
    }

    /// The number by which the peer knows an object, and a pin that keeps it so; it is told now, if it does
    /// not know it. `None` where it cannot be.
    pub(crate) fn announce(
        &self,
        object: &Arc<Object>,
        peer: &impl Announce,
        this: Weak<dyn KnowsObjects>,
    ) -> Option<(u32, Pin)> {
        let mut objects = self.objects();
        if let Some(known) = objects.known(object) {
            return Some(known);
        }
        if self.refusal() == Some(Refusal::System) {
            return None;
        }
        // First, so that nothing has to be taken back.
        let descriptor = object.file().try_clone().ok()?;
        let mut retired = Vec::new();
        let added = objects.add(object, &self.limits, &mut retired);
        for number in retired {
            peer.tell(&frame::retire(number));
        }
        let (number, pin) = added?;
        let descriptor = Descriptor::with(descriptor, pin.passage());
        let is_told = peer.announce(&frame::object(number, object.offset(), object.len()), descriptor);
        drop(objects);
        if !is_told {
            return None;
        }
        object.announced(this, number);
        Some((number, pin))
    }

    /// An object is dropped that the peer knew under this number.
    pub(crate) fn forget(&self, object: &Object, number: u32, tell: impl FnOnce(&[u8])) {
        let mut objects = self.objects();
        if objects.forget(object, number) {
            // Under the lock, so that nobody else is announced by this number before.
            tell(&frame::retire(number));
        }
    }

    /// Notes that the peer is about to get these.
    #[inline]
    pub(crate) fn lend(&self, loans: &[Loaned]) {
        if loans.is_empty() {
            return;
        }
        let mut lent = self.lent();
        for loan in loans.iter().filter(|loan| loan.is_of_pool()) {
            lent.lend((loan.place.segment, loan.place.page), Arc::clone(&loan.memory));
        }
    }

    /// The peer did not get these.
    pub(crate) fn take_back(&self, loans: &[Loaned]) {
        for loan in loans.iter().filter(|loan| loan.is_of_pool()) {
            let _ = self.returned(loan.place.segment, loan.place.page);
        }
    }

    /// The peer gives a loan back.
    pub(crate) fn returned(&self, segment: u32, page: u32) -> Result<()> {
        let returned = self.lent().returned((segment, page));
        match returned {
            Ok(memory) => drop(memory),
            // At the end of a connection nothing is lent any more, whatever the peer still gives back.
            Err(_) if self.pool.is_closed() => {}
            Err(violation) => return Err(violation.into()),
        }
        Ok(())
    }

    /// The peer cannot read this segment. Others it could not read either, so that for a while nothing is put
    /// into any.
    pub(crate) fn refused(&self, segment: u32) {
        self.refuse(Some(segment), Refusal::Peer);
    }

    /// The system did not pass the descriptor of this segment or object, of which the peer was told without.
    pub(crate) fn not_passed(&self, number: u32) {
        if number & OBJECT != 0 {
            self.objects().lose(number);
        }
        self.refuse((number & OBJECT == 0).then_some(number), Refusal::System);
    }

    fn refuse(&self, segment: Option<u32>, why: Refusal) {
        self.warnings.warn(match why {
            Refusal::Peer => Warning::RefusedByPeer,
            Refusal::System => Warning::NotPassed,
        });
        if let Some(segment) = segment {
            self.pool.withdraw(segment);
        }
        *self.lock_refusal() = Some((why, Instant::now()));
        self.is_refused.store(true, Release);
    }

    /// Why nothing is put into shared memory, if something was refused a moment ago.
    fn refusal(&self) -> Option<Refusal> {
        if !self.is_refused.load(Acquire) {
            return None;
        }
        let mut refusal = self.lock_refusal();
        *refusal = refusal.filter(|(_, at)| at.elapsed() < REFUSED);
        self.is_refused.store(refusal.is_some(), Release);
        refusal.map(|(why, _)| why)
    }

    fn lock_refusal(&self) -> MutexGuard<'_, Option<(Refusal, Instant)>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection is about to end: a block that comes back because of that is not handed out again, since
    /// the peer may still be reading it.
    pub(crate) fn close(&self) {
        self.pool.close();
    }

    /// The connection is over: nothing that was lent comes back any more.
    pub(crate) fn end(&self) {
        let lent = mem::take(&mut *self.lent());
        drop(lent);
    }

    fn lent(&self) -> MutexGuard<'_, Lent<dyn Send + Sync>> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn quota_is_used_up() -> io::Error {
    io::Error::other(
        "all connections of this user together have as much shared memory as they may (user_pool_limit)",
    )
}

fn mappings_are_used_up() -> io::Error {
    io::Error::other(
        "all connections to this user together have as many mappings as they may (vm.max_map_count)",
    )
}

impl fmt::Debug for Lender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lender").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl fmt::Debug for Loaned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaned").field("place", &self.place).finish_non_exhaustive()
    }
}
