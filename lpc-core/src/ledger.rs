//! [`Ledger`]: an [`Arena`] that threads share, and what the driver keeps of each of its segments.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::task::Waker;

#[cfg(loom)]
use loom::sync::{Mutex, MutexGuard};
#[cfg(not(loom))]
use std::sync::{Mutex, MutexGuard};

use crate::arena::{Arena, Block, PAGE};

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
    /// Those who wait for room, in the order in which they came.
    line: BTreeMap<u64, Place>,
    /// The number of the next one to come.
    next: u64,
    is_closed: bool,
}

/// One who waits for room.
#[derive(Debug)]
struct Place {
    bytes: u64,
    /// The same in whole pages.
    room: u64,
    /// Kept while there is no room.
    waker: Option<Waker>,
    /// There is, or was when it was woken: it has not asked since whether it is gone again.
    is_called: bool,
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

/// A place in the line of those who wait for room. Of those for whom there is enough the first are woken, and
/// nobody else.
///
/// Dropping it leaves the line, with a block or without, and wakes the next one if there is room for it.
#[derive(Debug)]
pub struct Waiting<S> {
    ledger: Arc<Ledger<S>>,
    number: u64,
    bytes: u64,
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
        let books = Books { arena, segments: Vec::new(), line: BTreeMap::new(), next: 0, is_closed: false };
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

    /// A place in the line for a block of this size, to be [asked](Waiting::has_room) whether there is room.
    /// For more bytes than the arena's limit there never is.
    pub fn wait_for(self: &Arc<Self>, bytes: u64) -> Waiting<S> {
        let mut books = self.lock();
        let number = books.next;
        books.next += 1;
        let room = bytes.max(1).checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
        books.line.insert(number, Place { bytes, room, waker: None, is_called: false });
        drop(books);
        Waiting { ledger: Arc::clone(self), number, bytes }
    }

    /// Removes the segments of which no block was in use at any time since the previous call, and those that
    /// were [withdrawn](Self::withdraw) and have no block in use now. Returns how many segments are left.
    ///
    /// The caller keeps the time: it calls this once every idle period, so that a segment is removed after
    /// one to two of them. `retire` gets each removed segment. It is called under the lock, so that what it
    /// queues (the Retire frame) comes before the announcement of another segment with this number.
    pub fn trim(&self, mut retire: impl FnMut(u32, Arc<S>)) -> usize {
        let mut books = self.lock();
        let Books { arena, segments, .. } = &mut *books;
        let mut left = 0;
        for (number, slot) in (0..).zip(segments) {
            let Some(entry) = slot else { continue };
            let is_idle = arena.is_idle(number);
            if is_idle && (!entry.was_used || arena.is_withdrawn(number)) {
                arena.remove_segment(number);
                retire(number, slot.take().expect("it is there").segment);
            } else {
                entry.was_used = !is_idle;
                left += 1;
            }
        }
        let called = books.call();
        drop(books);
        wake(called);
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
        let called = books.call();
        drop(books);
        wake(called);
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
        let Books { arena, segments, line, is_closed, .. } = &mut *books;
        *is_closed = true;
        (0..).zip(segments).for_each(|(number, _)| arena.withdraw(number));
        let called = line.values_mut().filter_map(|place| place.waker.take()).collect();
        drop(books);
        wake(called);
    }

    /// Gives something back, and then wakes those who can use it, without the lock.
    fn give_back(&self, give: impl FnOnce(&mut Arena)) {
        let mut books = self.lock();
        give(&mut books.arena);
        let called = books.call();
        drop(books);
        wake(called);
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

impl<S> Books<S> {
    /// Calls those who wait and for whom there is room, the first first, until it is used up. Gives their
    /// wakers.
    fn call(&mut self) -> Vec<Waker> {
        let Self { arena, line, .. } = self;
        // What those were woken for who have not come yet is theirs, wherever they stand.
        let promised = line.values().filter(|place| place.is_called);
        let taken = promised.fold(arena.in_use(), |sum, place| sum.saturating_add(place.room));
        let mut free = arena.limit().saturating_sub(taken);
        // There is no room for so much, or more.
        let mut too_much = u64::MAX;
        let mut called = Vec::new();
        for place in line.values_mut() {
            if free == 0 {
                break;
            }
            if place.room <= free && place.room < too_much && place.waker.is_some() {
                // Room that is there only in pieces the one who is called puts together: `make_room`.
                if arena.has_room(place.bytes) || arena.could_have_room(place.bytes) {
                    free -= place.room;
                    place.is_called = true;
                    called.extend(place.waker.take());
                } else {
                    too_much = place.room;
                }
            }
        }
        called
    }
}

impl<S> Waiting<S> {
    /// Bytes that are waited for.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a block could be had now; if not, `waker` is woken when there is room, which may be there only
    /// [in pieces](Ledger::make_room): once, and others may take it first, so that the caller asks again.
    ///
    /// It is true when the ledger is [closed](Ledger::close), so that nobody waits then.
    #[must_use]
    pub fn has_room(&self, waker: &Waker) -> bool {
        let mut books = self.ledger.lock();
        let Books { arena, line, is_closed, .. } = &mut *books;
        let place = line.get_mut(&self.number).expect("it stays in line until it is dropped");
        place.is_called = *is_closed || arena.has_room(self.bytes);
        if place.is_called {
            return true;
        }
        let is_known = place.waker.as_ref().is_some_and(|kept| kept.will_wake(waker));
        let before = if is_known { None } else { place.waker.replace(waker.clone()) };
        drop(books);
        // It may be the last of a task whose future holds a lease.
        drop(before);
        false
    }
}

impl<S> Drop for Waiting<S> {
    fn drop(&mut self) {
        let mut books = self.ledger.lock();
        let place = books.line.remove(&self.number);
        let called = books.call();
        drop(books);
        // Its waker may be the last of a task whose future holds a lease.
        drop(place);
        wake(called);
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
