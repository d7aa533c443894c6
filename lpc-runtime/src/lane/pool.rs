//! [`Pool`]: the shared memory of one sending direction, kept mapped on both sides and used again.
//!
//! One of the files with `unsafe`: it hands out parts of mappings for writing, each to one owner at a time.
#![allow(unsafe_code)]

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use lpc_core::arena::{Arena, Block};
use lpc_core::frame::BlockRef;

use crate::sys::mapping::OwnMapping;

/// An [`Arena`] with the memory to it.
#[derive(Debug)]
pub(crate) struct Pool(Mutex<State>);

#[derive(Debug)]
struct State {
    arena: Arena,
    /// By the arena's segment numbers.
    segments: Vec<Arc<OwnMapping>>,
}

/// Pages of a pool that their holder alone may write. Dropping it gives them back.
#[derive(Debug)]
pub(crate) struct PoolBlock {
    /// `None` only while it is being dropped.
    block: Option<Block>,
    mapping: Arc<OwnMapping>,
    pool: Arc<Pool>,
}

impl Pool {
    /// A pool of at most `limit` bytes; it starts with none.
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { arena: Arena::new(limit), segments: Vec::new() })))
    }

    /// A block of at least `len` bytes; `None` where the limit leaves no room for it.
    ///
    /// A new segment is passed to `announce` before anybody can get a block of it, so that its announcement stands
    /// in front of whatever refers to it.
    ///
    /// # Errors
    ///
    /// The system has no memory or descriptor for a segment.
    pub(crate) fn alloc(
        self: &Arc<Self>,
        len: u64,
        announce: impl FnOnce(u32, u64, OwnedFd),
    ) -> std::io::Result<Option<PoolBlock>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let block = match state.arena.alloc(len) {
            Some(block) => block,
            None => {
                let Some(size) = state.arena.next_segment(len) else { return Ok(None) };
                let (mapping, file) = OwnMapping::create(size)?;
                let number = state.arena.add_segment(size);
                state.segments.push(Arc::new(mapping));
                announce(number, size, file);
                state.arena.alloc(len).expect("next_segment makes room for what it was asked for")
            }
        };
        let mapping = Arc::clone(&state.segments[block.segment() as usize]);
        Ok(Some(PoolBlock { block: Some(block), mapping, pool: Arc::clone(self) }))
    }

    fn with_arena<T>(&self, operate: impl FnOnce(&mut Arena) -> T) -> T {
        operate(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).arena)
    }
}

impl PoolBlock {
    /// Bytes of room.
    pub(crate) fn capacity(&self) -> usize {
        self.block().len() as usize
    }

    /// Makes room for `len` bytes where the block stands, if the pages behind it are free.
    pub(crate) fn extend(&mut self, len: u64) -> bool {
        let block = self.block.as_mut().expect(HELD);
        self.pool.with_arena(|arena| arena.extend(block, len))
    }

    /// Gives back the pages beyond the first `len` bytes.
    pub(crate) fn shrink(&mut self, len: u64) {
        let block = self.block.as_mut().expect(HELD);
        self.pool.with_arena(|arena| arena.shrink(block, len));
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
        // SAFETY: the range is inside the block, blocks of an arena do not overlap, and `&mut self` is the only way
        // to this one.
        unsafe { self.mapping.write(self.offset() + at, bytes) };
    }

    /// Copies the first `len` bytes of `from` to this block.
    ///
    /// # Panics
    ///
    /// If either is shorter.
    pub(crate) fn write_from(&mut self, from: &Self, len: usize) {
        assert!(len <= self.capacity() && len <= from.capacity(), "copy outside a block");
        // SAFETY: both ranges are inside their blocks, which do not overlap since both are held; `&mut self` and
        // `&from` keep other writers out.
        unsafe { OwnMapping::copy((&from.mapping, from.offset()), (&self.mapping, self.offset()), len) };
    }

    /// Appends a copy of the first `len` bytes to `into`.
    ///
    /// # Panics
    ///
    /// If the block is shorter.
    pub(crate) fn read(&self, len: usize, into: &mut Vec<u8>) {
        assert!(len <= self.capacity(), "read outside a block");
        // SAFETY: the range is inside the block, and `&self` keeps writers out.
        unsafe { self.mapping.read(self.offset(), len, into) };
    }

    /// How the peer finds the first `len` bytes.
    pub(crate) fn reference(&self, len: usize) -> BlockRef {
        let block = self.block();
        BlockRef { segment: block.segment(), page: block.page(), len: len as u64 }
    }

    fn block(&self) -> &Block {
        self.block.as_ref().expect(HELD)
    }

    fn offset(&self) -> usize {
        self.block().offset() as usize
    }
}

const HELD: &str = "a block is held until it is dropped";

impl Drop for PoolBlock {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.pool.with_arena(|arena| arena.free(block));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mapping::PeerMapping;

    #[test]
    fn a_block_is_written_in_place_moved_and_used_again() {
        let pool = Pool::new(4 << 20);
        let mut announced = Vec::new();
        let mut block =
            pool.alloc(10, |number, len, file| announced.push((number, len, file))).unwrap().unwrap();
        block.write(3, b"abc");
        let place = block.reference(6);
        let (number, len, file) = announced.pop().unwrap();
        assert_eq!(number, place.segment);
        let peer = PeerMapping::open(file, len).unwrap();
        let mut copy = Vec::new();
        peer.copy_out(place.page as usize * 4096, 6, &mut copy);
        assert_eq!(copy, b"\0\0\0abc");

        let mut second = pool.alloc(10, |_, _, _| panic!("there is room")).unwrap().unwrap();
        second.write_from(&block, 6);
        let mut own = b"> ".to_vec();
        second.read(6, &mut own);
        assert_eq!(own, b"> \0\0\0abc");
        assert!(!block.extend(5000), "the next page is taken");
        drop(second);
        assert!(block.extend(5000));
        drop(block);
        let again = pool.alloc(10, |_, _, _| panic!("there is room")).unwrap().unwrap();
        assert_eq!(again.reference(6), place, "the warm pages first");
    }

    #[test]
    fn the_limit_is_no_error_and_no_panic() {
        let pool = Pool::new(1 << 20);
        let block = pool.alloc(1 << 20, |_, _, _| {}).unwrap().unwrap();
        assert!(pool.alloc(1, |_, _, _| {}).unwrap().is_none());
        assert!(pool.alloc(u64::MAX, |_, _, _| {}).unwrap().is_none());
        drop(block);
        assert!(pool.alloc(1, |_, _, _| {}).unwrap().is_some());
    }
}
