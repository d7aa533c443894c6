//! [`Ledger`]: an [`Arena`] that threads share, and what the driver keeps of each of its segments.

use std::mem;
use std::sync::{Arc, PoisonError};
use std::task::Waker;

#[cfg(loom)]
use loom::sync::{Mutex, MutexGuard};
#[cfg(not(loom))]
use std::sync::{Mutex, MutexGuard};

use crate::arena::{Arena, Block};

/// The most wakers that are kept. One more, and all of them are woken: waiters that still wait register
/// again, and those that gave up are forgotten.
const MAX_WAITING: usize = 1 << 16;

/// The pool of one direction. `S` is what the driver keeps of a segment: its mapping.
///
/// ```
/// use std::convert::Infallible;
/// use lpc_core::arena::Arena;
/// use lpc_core::ledger::Ledger;
///
/// let ledger = Ledger::new(Arena::new(64 << 20, 16, 1000));
/// let make = |number, len| Ok::<_, Infallible>(format!("segment {number} of {len} bytes"));
/// let lease = ledger.alloc(10_000, make)?.expect("there is room");
/// assert_eq!(*lease.segment().as_str(), *"segment 0 of 1048576 bytes");
/// drop(lease); // its pages are free again
/// let mut retired = Vec::new();
/// assert_eq!(ledger.trim(|number, _| retired.push(number)), 1); // it was used a moment ago
/// assert_eq!(ledger.trim(|number, _| retired.push(number)), 0);
/// assert_eq!(retired, [0]);
/// # Ok::<(), Infallible>(())
/// ```
///
/// Invariant: no two [`Lease`]s overlap, and a segment stays while there is a lease in it.
#[derive(Debug)]
pub struct Ledger<S> {
    books: Mutex<Books<S>>,
}

#[derive(Debug)]
struct Books<S> {
    arena: Arena,
    /// By the arena's numbers.
    segments: Vec<Option<Entry<S>>>,
    /// The waiters for a free block.
    waiting: Vec<Waker>,
    is_closed: bool,
}

#[derive(Debug)]
struct Entry<S> {
    segment: Arc<S>,
    /// Whether one of its blocks was in use at some time since the last trim.
    was_used: bool,
}

/// A block that belongs to the holder of this value. To drop it frees the block.
#[derive(Debug)]
pub struct Lease<S> {
    /// `None` only while it is being dropped.
    block: Option<Block>,
    segment: Arc<S>,
    ledger: Arc<Ledger<S>>,
}

impl<S> Ledger<S> {
    /// A ledger for an arena that has no segments yet.
    ///
    /// # Panics
    ///
    /// If the arena has a segment.
    #[must_use]
    pub fn new(arena: Arena) -> Arc<Self> {
        assert!(arena.segments().next().is_none(), "a ledger adds its arena's segments itself");
        let books = Books { arena, segments: Vec::new(), waiting: Vec::new(), is_closed: false };
        Arc::new(Self { books: Mutex::new(books) })
    }

    /// Allocates a block of at least `bytes` bytes. `None` if the arena has no room for it now, or the ledger
    /// is [closed](Self::close).
    ///
    /// If a segment has to be added, `make` makes it, given its number and size. It is called under the lock,
    /// so that what it queues (the segment's announcement) comes before any frame that refers to the segment.
    ///
    /// # Errors
    ///
    /// That of `make`; then no segment was added.
    pub fn alloc<E>(
        self: &Arc<Self>,
        bytes: u64,
        make: impl FnOnce(u32, u64) -> Result<S, E>,
    ) -> Result<Option<Lease<S>>, E> {
        let mut books = self.lock();
        if books.is_closed {
            return Ok(None);
        }
        let block = match books.arena.alloc(bytes) {
            Some(block) => block,
            None => {
                let Some(len) = books.arena.next_segment(bytes) else { return Ok(None) };
                // Before anything is changed: it may fail, or panic.
                let segment = Arc::new(make(books.arena.next_number(), len)?);
                books.add(segment, len);
                books.arena.alloc(bytes).expect("next_segment makes room for what it was asked for")
            }
        };
        let entry = books.segments[block.segment() as usize].as_mut().expect("a block's segment is there");
        entry.was_used = true;
        let segment = Arc::clone(&entry.segment);
        Ok(Some(Lease { block: Some(block), segment, ledger: Arc::clone(self) }))
    }

    /// Whether a block of this size could be allocated now. If not, `waker` is woken once when pages are
    /// freed; they may not be enough, so the caller asks again. There never is a block of more bytes than the
    /// arena's limit.
    ///
    /// It is true when the ledger is [closed](Self::close), so that no caller waits then.
    pub fn has_room(&self, bytes: u64, waker: &Waker) -> bool {
        let mut books = self.lock();
        let Books { arena, waiting, is_closed, .. } = &mut *books;
        if *is_closed || arena.has_room(bytes) {
            return true;
        }
        let overflow = if waiting.len() < MAX_WAITING { Vec::new() } else { mem::take(waiting) };
        if !waiting.last().is_some_and(|last| last.will_wake(waker)) {
            waiting.push(waker.clone());
        }
        drop(books);
        wake(overflow);
        false
    }

    /// Removes the segments of which no block was in use at any time since the previous call, and those that
    /// were [withdrawn](Self::withdraw) and have no block in use now. Returns how many segments are left.
    ///
    /// The caller keeps the time: it calls this once every idle period, so that a segment is removed after
    /// one to two of them. `retire` gets each removed segment. It is called under the lock, so that what it
    /// queues (the Retire frame) comes before the announcement of another segment with this number.
    pub fn trim(&self, mut retire: impl FnMut(u32, Arc<S>)) -> usize {
        let mut books = self.lock();
        let Books { arena, segments, waiting, .. } = &mut *books;
        let mut left = 0;
        let mut has_more_room = false;
        for (number, slot) in (0..).zip(segments) {
            let Some(entry) = slot else { continue };
            let is_idle = arena.is_idle(number);
            if is_idle && (!entry.was_used || arena.is_withdrawn(number)) {
                arena.remove_segment(number);
                has_more_room = true;
                retire(number, slot.take().expect("it is there").segment);
            } else {
                entry.was_used = !is_idle;
                left += 1;
            }
        }
        let woken = if has_more_room { mem::take(waiting) } else { Vec::new() };
        drop(books);
        wake(woken);
        left
    }

    /// Removes idle segments if that lets a new segment of the right size be added, for a body that is within
    /// the limit and fits none of the present segments. `retire` gets them, as in [`trim`](Self::trim).
    pub fn make_room(&self, bytes: u64, mut retire: impl FnMut(u32, Arc<S>)) {
        let mut books = self.lock();
        let Books { arena, segments, .. } = &mut *books;
        if arena.has_room(bytes) || !arena.could_have_room(bytes) {
            return;
        }
        let mut idle: Vec<_> = arena.segments().filter(|number| arena.is_idle(*number)).collect();
        // The largest last: they were added last.
        idle.reverse();
        while arena.next_segment(bytes).is_none()
            && let Some(number) = idle.pop()
        {
            arena.remove_segment(number);
            if let Some(entry) = segments[number as usize].take() {
                retire(number, entry.segment);
            }
        }
    }

    /// Stops handing out blocks of this segment, because the peer cannot read it. Once none of them is in
    /// use, [`trim`](Self::trim) removes the segment.
    pub fn withdraw(&self, segment: u32) {
        self.lock().arena.withdraw(segment);
    }

    /// Whether the ledger is [closed](Self::close).
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Closes the ledger at the end of the connection: no page is handed out any more, since the peer may
    /// still be reading those that are freed now, and all waiters are woken.
    pub fn close(&self) {
        let mut books = self.lock();
        let Books { arena, segments, waiting, is_closed } = &mut *books;
        *is_closed = true;
        (0..).zip(segments).for_each(|(number, _)| arena.withdraw(number));
        let woken = mem::take(waiting);
        drop(books);
        wake(woken);
    }

    /// Frees pages, and then wakes the waiters, without the lock.
    fn give_back(&self, give: impl FnOnce(&mut Arena)) {
        let mut books = self.lock();
        give(&mut books.arena);
        let woken = mem::take(&mut books.waiting);
        drop(books);
        wake(woken);
    }

    /// No user's code runs while the books are inconsistent, so they are consistent even after a panic.
    fn lock(&self) -> MutexGuard<'_, Books<S>> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Books<S> {
    fn add(&mut self, segment: Arc<S>, len: u64) {
        let slot = self.arena.add_segment(len) as usize;
        if slot == self.segments.len() {
            self.segments.push(None);
        }
        self.segments[slot] = Some(Entry { segment, was_used: true });
    }
}

impl<S> Lease<S> {
    /// The block's segment, page and length.
    #[must_use]
    pub fn block(&self) -> &Block {
        self.block.as_ref().expect(HELD)
    }

    /// The segment that the block is in.
    #[must_use]
    pub const fn segment(&self) -> &Arc<S> {
        &self.segment
    }

    /// The ledger that the block is freed to.
    #[must_use]
    pub const fn ledger(&self) -> &Arc<Ledger<S>> {
        &self.ledger
    }

    /// Makes the block at least `bytes` long without moving it, if the pages behind it are free. Returns
    /// whether it did.
    pub fn extend(&mut self, bytes: u64) -> bool {
        self.ledger.lock().arena.extend(self.block.as_mut().expect(HELD), bytes)
    }

    /// Frees the pages beyond the first `bytes` bytes. At least one stays.
    pub fn shrink(&mut self, bytes: u64) {
        let block = self.block.as_mut().expect(HELD);
        self.ledger.give_back(|arena| arena.shrink(block, bytes));
    }
}

const HELD: &str = "a block is held until its lease is dropped";

impl<S> Drop for Lease<S> {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.ledger.give_back(|arena| arena.free(block));
        }
    }
}

fn wake(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}
