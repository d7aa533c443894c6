//! [`Arena`]: which pages of a sender's segments are in use. Index arithmetic only; the memory is the driver's.
//!
//! The sender owns its arena and keeps these books in private memory: nothing here is ever read from shared pages,
//! so a peer cannot corrupt it.

use std::collections::{BTreeMap, BTreeSet};

/// The unit of blocks and segments, in bytes.
pub const PAGE: u64 = 4096;

/// The first segment's size in bytes. Pages that nobody touched cost nothing, so it may well be roomy.
const FIRST_SEGMENT: u64 = 1 << 20;

/// Pages of a growing set of segments, handed out as blocks of whole pages.
///
/// ```
/// use lpc_core::arena::{Arena, PAGE};
///
/// let mut arena = Arena::new(64 << 20);
/// assert!(arena.alloc(10_000).is_none()); // no segment yet
/// let size = arena.next_segment(10_000).unwrap();
/// arena.add_segment(size);
/// let block = arena.alloc(10_000).unwrap();
/// assert_eq!(block.len(), 3 * PAGE);
/// arena.free(block);
/// assert_eq!(arena.in_use(), 0);
/// ```
///
/// The smallest free run that fits is taken, from its start, so that a steady load reuses the same warm pages. Every
/// operation takes time logarithmic in the number of free runs.
#[derive(Debug)]
pub struct Arena {
    limit: u64,
    /// Pages of each segment, by number.
    segments: Vec<u32>,
    /// Free runs by place: (segment, first page) -> pages. No two are adjacent.
    by_place: BTreeMap<(u32, u32), u32>,
    /// The same runs by size: (pages, segment, first page).
    by_size: BTreeSet<(u32, u32, u32)>,
    /// Pages in all segments.
    capacity: u64,
    /// Pages in blocks.
    in_use: u64,
}

/// Pages that belong to whoever holds this: neither `Clone` nor `Copy`, and made by [`Arena::alloc`] alone.
///
/// Invariant: no two blocks of one arena overlap.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    segment: u32,
    page: u32,
    pages: u32,
}

impl Block {
    /// The segment's number.
    #[must_use]
    pub const fn segment(&self) -> u32 {
        self.segment
    }

    /// The first page's number.
    #[must_use]
    pub const fn page(&self) -> u32 {
        self.page
    }

    /// Bytes from the segment's start.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.page as u64 * PAGE
    }

    /// Bytes of the block.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a block has at least one page")]
    pub const fn len(&self) -> u64 {
        self.pages as u64 * PAGE
    }
}

impl Arena {
    /// An arena that never holds more than `limit` bytes.
    #[must_use]
    pub const fn new(limit: u64) -> Self {
        Self {
            limit,
            segments: Vec::new(),
            by_place: BTreeMap::new(),
            by_size: BTreeSet::new(),
            capacity: 0,
            in_use: 0,
        }
    }

    /// Bytes that the arena may hold at most.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes in all segments.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        self.capacity * PAGE
    }

    /// Bytes in blocks.
    #[must_use]
    pub const fn in_use(&self) -> u64 {
        self.in_use * PAGE
    }

    /// A block of at least `bytes` bytes, if the segments have room for it.
    pub fn alloc(&mut self, bytes: u64) -> Option<Block> {
        let pages = pages(bytes)?;
        let &(free, segment, page) = self.by_size.range((pages, 0, 0)..).next()?;
        self.take_run(segment, page, free);
        if free > pages {
            self.add_run(segment, page + pages, free - pages);
        }
        self.in_use += u64::from(pages);
        Some(Block { segment, page, pages })
    }

    /// The size in bytes of the segment to add so that [`alloc`](Self::alloc) of `bytes` succeeds; `None` where the
    /// limit forbids it.
    ///
    /// Segments double, so that their number stays small.
    #[must_use]
    pub fn next_segment(&self, bytes: u64) -> Option<u64> {
        let needed = u64::from(pages(bytes)?) * PAGE;
        let room = self.limit.checked_sub(self.capacity())? / PAGE * PAGE;
        let wanted = needed.max(self.capacity()).max(FIRST_SEGMENT).checked_next_power_of_two()?;
        (needed <= room).then(|| wanted.min(room))
    }

    /// Adds a segment of `bytes` bytes, all free, and returns its number.
    ///
    /// # Panics
    ///
    /// If `bytes` is not one of the sizes that [`next_segment`](Self::next_segment) gives: whole pages, in the limit.
    pub fn add_segment(&mut self, bytes: u64) -> u32 {
        let pages = pages(bytes).filter(|pages| u64::from(*pages) * PAGE == bytes);
        let pages = pages.expect("a segment is made of whole pages");
        assert!(self.capacity() + bytes <= self.limit, "the segment is over the arena's limit");
        let number = u32::try_from(self.segments.len()).expect("the limit bounds the number of segments");
        self.segments.push(pages);
        self.capacity += u64::from(pages);
        self.add_run(number, 0, pages);
        number
    }

    /// Makes `block` at least `bytes` long without moving it, if the pages behind it are free.
    pub fn extend(&mut self, block: &mut Block, bytes: u64) -> bool {
        let Some(wanted) = pages(bytes) else { return false };
        let Some(more) = wanted.checked_sub(block.pages).filter(|more| *more > 0) else { return true };
        let behind = (block.segment, block.page + block.pages);
        let Some(&free) = self.by_place.get(&behind).filter(|free| **free >= more) else { return false };
        self.take_run(behind.0, behind.1, free);
        if free > more {
            self.add_run(behind.0, behind.1 + more, free - more);
        }
        block.pages = wanted;
        self.in_use += u64::from(more);
        true
    }

    /// Gives back the pages of `block` beyond its first `bytes` bytes; it keeps one at least.
    pub fn shrink(&mut self, block: &mut Block, bytes: u64) {
        let Some(keep) = pages(bytes).filter(|keep| *keep < block.pages) else { return };
        let tail = Block { segment: block.segment, page: block.page + keep, pages: block.pages - keep };
        block.pages = keep;
        self.free(tail);
    }

    /// Takes a block back.
    pub fn free(&mut self, block: Block) {
        let Block { segment, mut page, mut pages } = block;
        self.in_use -= u64::from(pages);
        if let Some(&behind) = self.by_place.get(&(segment, page + pages)) {
            self.take_run(segment, page + pages, behind);
            pages += behind;
        }
        let before = self.by_place.range(..(segment, page)).next_back();
        if let Some((&(_, start), &len)) =
            before.filter(|((s, start), len)| *s == segment && start + **len == page)
        {
            self.take_run(segment, start, len);
            (page, pages) = (start, len + pages);
        }
        self.add_run(segment, page, pages);
    }

    fn add_run(&mut self, segment: u32, page: u32, pages: u32) {
        self.by_place.insert((segment, page), pages);
        self.by_size.insert((pages, segment, page));
    }

    fn take_run(&mut self, segment: u32, page: u32, pages: u32) {
        self.by_place.remove(&(segment, page));
        self.by_size.remove(&(pages, segment, page));
    }
}

/// Whole pages for `bytes` bytes, one at least; `None` beyond what a page number can say.
fn pages(bytes: u64) -> Option<u32> {
    u32::try_from(bytes.div_ceil(PAGE).max(1)).ok()
}
