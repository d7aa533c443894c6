//! [`Pool`]: the shared memory of one sending direction, kept mapped on both sides and used again.
//!
//! One of the files with `unsafe`: it hands out parts of mappings, each to one owner at a time.
#![allow(unsafe_code)]

use std::mem::{self, ManuallyDrop};
use std::sync::Arc;

use lpc_core::frame::BlockRef;
use lpc_core::ledger::{self, Lease, Ledger};

use crate::connection::passing::Passage;
use crate::memory::budget::Held;
use crate::memory::quota::Charge;
use crate::sys::fork::ForkGuard;
use crate::sys::mapping::OwnMapping;

/// The books of the pool, with the memory to them.
pub(crate) type Pool = Ledger<Segment>;

/// A place in the line of those who wait for room in a pool. Dropping it lets the next one have the room, but
/// in a fork of the process, which takes none of the pool's locks.
#[derive(Debug)]
pub(crate) struct WaitingForRoom {
    fork_guard: ForkGuard,
    /// `None` only while it is being dropped.
    place: Option<ledger::Waiting<Segment>>,
}

impl WaitingForRoom {
    pub(crate) fn new(place: ledger::Waiting<Segment>) -> Self {
        Self { fork_guard: ForkGuard::here(), place: Some(place) }
    }

    /// The place itself.
    pub(crate) fn place(&self) -> &ledger::Waiting<Segment> {
        self.place.as_ref().expect("it is there until this is dropped")
    }
}

impl Drop for WaitingForRoom {
    fn drop(&mut self) {
        if !self.fork_guard.is_here() {
            mem::forget(self.place.take());
        }
    }
}

/// A segment of this side's pool.
#[derive(Debug)]
pub(crate) struct Segment {
    /// A fork has the mapping, and none of the threads that may hold the pool's lock.
    fork_guard: ForkGuard,
    mapping: OwnMapping,
    passage: Arc<Passage>,
    _charge: Option<Charge>,
    _held: Option<Held>,
}

impl Segment {
    /// One that is announced to the peer.
    pub(crate) fn new(
        mapping: OwnMapping,
        passage: Arc<Passage>,
        charge: Option<Charge>,
        held: Option<Held>,
    ) -> Self {
        Self { fork_guard: ForkGuard::here(), mapping, passage, _charge: charge, _held: held }
    }
}

/// Pages of a pool that their holder alone may write. Dropping it gives them back, but in a fork of the
/// process, to which they do not belong.
#[derive(Debug)]
pub(crate) struct PoolBlock(ManuallyDrop<Lease<Segment>>);

impl Drop for PoolBlock {
    fn drop(&mut self) {
        if self.0.segment().fork_guard.is_here() {
            // SAFETY: only here, and once.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        }
    }
}

impl PoolBlock {
    pub(crate) fn new(lease: Lease<Segment>) -> Self {
        Self(ManuallyDrop::new(lease))
    }

    /// Whether it is of this pool.
    pub(crate) fn is_of(&self, pool: &Arc<Pool>) -> bool {
        Arc::ptr_eq(self.0.ledger(), pool)
    }

    /// Whether the peer got the segment that it is in.
    pub(crate) fn passage(&self) -> &Passage {
        &self.0.segment().passage
    }

    /// Bytes of room.
    pub(crate) fn capacity(&self) -> usize {
        self.0.block().len() as usize
    }

    /// Makes room for `len` bytes where the block stands, if the pages behind it are free.
    pub(crate) fn extend(&mut self, len: u64) -> bool {
        self.0.extend(len)
    }

    /// Gives back the pages beyond the first `len` bytes.
    pub(crate) fn shrink(&mut self, len: u64) {
        self.0.shrink(len);
    }

    /// Copies `bytes` to `at` in the block.
    ///
    /// # Panics
    ///
    /// If they do not fit.
    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) {
        assert!(
            at.checked_add(bytes.len()).is_some_and(|end| end <= self.capacity()),
            "write outside a block"
        );
        // SAFETY: the range is inside the block, blocks of an arena do not overlap, and `&mut self` is the
        // only way to this one.
        unsafe { self.0.segment().mapping.write(self.offset() + at, bytes) };
    }

    /// The first `len` bytes.
    ///
    /// # Panics
    ///
    /// If the block is shorter.
    pub(crate) fn bytes(&self, len: usize) -> &[u8] {
        assert!(len <= self.capacity(), "read outside a block");
        // SAFETY: inside the block, which is this holder's alone, and `&self` keeps writers out.
        unsafe { self.0.segment().mapping.bytes(self.offset(), len) }
    }

    /// The first `len` bytes, for writing.
    ///
    /// # Panics
    ///
    /// If the block is shorter.
    pub(crate) fn bytes_mut(&mut self, len: usize) -> &mut [u8] {
        assert!(len <= self.capacity(), "write outside a block");
        // SAFETY: as for `write`; the result has the borrow of `self`, which keeps everybody else out.
        unsafe { self.0.segment().mapping.bytes_mut(self.offset(), len) }
    }

    /// How the peer finds the first `len` bytes.
    pub(crate) fn reference(&self, len: usize) -> BlockRef {
        let block = self.0.block();
        BlockRef { segment: block.segment(), page: block.page(), len: len as u64 }
    }

    fn offset(&self) -> usize {
        self.0.block().offset() as usize
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Barrier;

    use lpc_core::arena::Arena;

    use super::*;
    use crate::sys::fork::tests::in_a_fork;
    use crate::sys::mapping::PeerMapping;

    #[test]
    fn a_fork_drops_a_block_without_the_lock_that_a_thread_held() {
        let pool = Pool::new(Arena::new(4 << 20, 8, 8));
        let make = |_, len| {
            let (mapping, _file) = OwnMapping::create(len)?;
            Ok::<_, std::io::Error>(Segment::new(mapping, Arc::default(), None, None))
        };
        let block = PoolBlock::new(pool.alloc(10, make).unwrap().unwrap());
        let (is_locked, end) = (Barrier::new(2), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // More than the first segment has room for: another is made under the lock.
                let large = pool.alloc(2 << 20, |number, len| {
                    is_locked.wait();
                    end.wait();
                    make(number, len)
                });
                assert!(large.unwrap().is_some());
            });
            is_locked.wait();
            let is_done = in_a_fork(move || drop(block));
            end.wait();
            assert!(is_done, "the fork waits for a lock that nobody will release");
        });
    }

    #[test]
    fn a_block_is_written_in_place_and_used_again() {
        let pool = Pool::new(Arena::new(4 << 20, 8, 8));
        let mut announced = Vec::new();
        let lease = pool.alloc(10, |number, len| {
            let (mapping, file) = OwnMapping::create(len)?;
            announced.push((number, len, file));
            Ok::<_, std::io::Error>(Segment::new(mapping, Arc::default(), None, None))
        });
        let mut block = PoolBlock::new(lease.unwrap().unwrap());
        block.write(3, b"abc");
        let place = block.reference(6);
        let (number, len, file) = announced.pop().unwrap();
        assert_eq!(number, place.segment);
        let peer = PeerMapping::of_segment(&file, len).unwrap();
        let mut copy = Vec::new();
        peer.append(place.page as usize * 4096, 6, &mut copy);
        assert_eq!(copy, b"\0\0\0abc");

        let again = |bytes| {
            let lease = pool.alloc(bytes, |_, _| -> Result<_, Infallible> { panic!("there is room") });
            PoolBlock::new(lease.unwrap().unwrap())
        };
        let mut second = again(10);
        second.bytes_mut(6).copy_from_slice(block.bytes(6));
        assert_eq!(second.bytes(6), b"\0\0\0abc");
        assert!(!block.extend(5000), "the next page is taken");
        drop(second);
        assert!(block.extend(5000));
        drop(block);
        assert_eq!(again(10).reference(6), place, "the warm pages first");
    }
}
