//! [`Arena`]: the allocator for the pages of a sender's segments. It is index arithmetic: the driver has the
//! memory.
//!
//! The sender keeps this bookkeeping in private memory. Nothing of it is ever read from shared pages, so a
//! peer cannot corrupt it.

use std::collections::{BTreeMap, BTreeSet};

/// The unit of blocks and segments, in bytes.
pub const PAGE: u64 = 4096;

/// The size of the first segment in bytes. Pages cost nothing until they are touched, so it may be roomy.
const FIRST_SEGMENT: u64 = 1 << 20;

/// When fewer free slots than this are left, the next segment takes all bytes that the limit leaves, so that
/// the arena does not run out of slots before it runs out of bytes.
const SCARCE_SLOTS: u32 = 4;

/// An allocator of blocks, each of whole pages, in a changing set of segments.
///
/// ```
/// use lpc_core::arena::{Arena, PAGE};
///
/// let mut arena = Arena::new(64 << 20, 16, 1000);
/// assert!(arena.alloc(10_000).is_none()); // no segment yet
/// let size = arena.next_segment(10_000).unwrap();
/// let number = arena.add_segment(size);
/// let block = arena.alloc(10_000).unwrap();
/// assert_eq!((block.segment(), block.len()), (number, 3 * PAGE));
/// arena.free(block);
/// assert!(arena.is_idle(number));
/// assert_eq!(arena.remove_segment(number), size);
/// ```
///
/// Allocation is best fit: a block is taken from the start of the smallest free run that is long enough, and
/// among equal ones in the segment with the lowest number. So a steady load reuses the same warm pages, and
/// the other segments become idle. Every operation on blocks takes time logarithmic in the number of free
/// runs.
#[derive(Debug)]
pub struct Arena {
    limit: u64,
    max_segments: u32,
    max_blocks: u32,
    /// By number. The number of a segment is its slot, which is reused after the segment was removed.
    segments: Vec<Option<Segment>>,
    /// Free runs by position: (segment, first page) -> pages. No two are adjacent; withdrawn segments have
    /// none.
    by_place: BTreeMap<(u32, u32), u32>,
    /// The same runs by size: (pages, segment, first page).
    by_size: BTreeSet<(u32, u32, u32)>,
    /// Pages in all segments.
    capacity: u64,
    /// Pages in blocks.
    in_use: u64,
    /// Blocks in use.
    blocks: u32,
}

#[derive(Debug)]
struct Segment {
    pages: u32,
    /// Pages in blocks.
    in_use: u32,
    /// Whether its free pages are no longer handed out.
    is_withdrawn: bool,
}

/// Pages that belong to the holder of this value. It is neither `Clone` nor `Copy`, and only [`Arena::alloc`]
/// makes one.
///
/// Invariant: no two blocks of one arena overlap.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    segment: u32,
    page: u32,
    pages: u32,
}

impl Block {
    /// The number of the segment that the block is in.
    #[must_use]
    pub const fn segment(&self) -> u32 {
        self.segment
    }

    /// The number of the block's first page in the segment.
    #[must_use]
    pub const fn page(&self) -> u32 {
        self.page
    }

    /// The block's offset in the segment, in bytes.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.page as u64 * PAGE
    }

    /// The block's length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a block has at least one page")]
    pub const fn len(&self) -> u64 {
        self.pages as u64 * PAGE
    }
}

impl Arena {
    /// An arena that never has more than `limit` bytes, in up to `max_segments` segments, nor more than
    /// `max_blocks` blocks in use at once.
    #[must_use]
    pub const fn new(limit: u64, max_segments: u32, max_blocks: u32) -> Self {
        Self {
            limit,
            max_segments,
            max_blocks,
            segments: Vec::new(),
            by_place: BTreeMap::new(),
            by_size: BTreeSet::new(),
            capacity: 0,
            in_use: 0,
            blocks: 0,
        }
    }

    /// The most bytes that all segments may have together.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// The bytes of all segments.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        self.capacity * PAGE
    }

    /// The bytes of all blocks in use.
    #[must_use]
    pub const fn in_use(&self) -> u64 {
        self.in_use * PAGE
    }

    /// The number of blocks in use.
    #[must_use]
    pub const fn blocks(&self) -> u32 {
        self.blocks
    }

    /// The numbers of all segments, in ascending order.
    pub fn segments(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(&self.segments).filter(|(_, segment)| segment.is_some()).map(|(number, _)| number)
    }

    /// Allocates a block of at least `bytes` bytes. `None` if no free run is long enough, or `max_blocks` are
    /// in use.
    pub fn alloc(&mut self, bytes: u64) -> Option<Block> {
        let pages = pages(bytes)?;
        let (free, segment, page) = self.fitting_run(pages)?;
        self.take_run(segment, page, free);
        if free > pages {
            self.add_run(segment, page + pages, free - pages);
        }
        self.count(segment).in_use += pages;
        self.in_use += u64::from(pages);
        self.blocks += 1;
        Some(Block { segment, page, pages })
    }

    /// Whether [`alloc`](Self::alloc) of `bytes` would succeed now, or after another segment is added.
    #[must_use]
    pub fn has_room(&self, bytes: u64) -> bool {
        pages(bytes).and_then(|pages| self.fitting_run(pages)).is_some() || self.next_segment(bytes).is_some()
    }

    /// Whether [`next_segment`](Self::next_segment) would give a size if idle segments were removed: there
    /// are enough free bytes, but in pieces.
    #[must_use]
    pub fn could_have_room(&self, bytes: u64) -> bool {
        let idle = self.segments.iter().flatten().filter(|segment| segment.in_use == 0);
        let (count, idle_pages) =
            idle.fold((0, 0), |(count, sum), segment| (count + 1, sum + u64::from(segment.pages)));
        let free = self.limit.saturating_sub(self.capacity() - idle_pages * PAGE) / PAGE * PAGE;
        let has_slot = self.max_segments.saturating_sub(self.segments().count() as u32) + count > 0;
        pages(bytes).is_some_and(|pages| u64::from(pages) * PAGE <= free)
            && has_slot
            && self.blocks < self.max_blocks
    }

    /// The size in bytes of the segment to add so that [`alloc`](Self::alloc) of `bytes` succeeds. `None` if
    /// a limit forbids it.
    ///
    /// Each segment doubles the capacity, so that there are few of them.
    #[must_use]
    pub fn next_segment(&self, bytes: u64) -> Option<u64> {
        let needed = u64::from(pages(bytes)?) * PAGE;
        let room = self.limit.checked_sub(self.capacity())? / PAGE * PAGE;
        let slots = self.max_segments.saturating_sub(self.segments().count() as u32);
        if needed > room || slots == 0 || self.blocks >= self.max_blocks {
            return None;
        }
        let room = room.min(u64::from(u32::MAX) * PAGE);
        if slots < SCARCE_SLOTS {
            return Some(room);
        }
        let wanted = needed.max(self.capacity()).max(FIRST_SEGMENT).checked_next_power_of_two()?;
        Some(wanted.min(room))
    }

    /// The number that the next segment will have: the lowest free slot.
    pub(crate) fn next_number(&self) -> u32 {
        let slot = self.segments.iter().position(Option::is_none).unwrap_or(self.segments.len());
        u32::try_from(slot).expect("max_segments bounds the number of segments")
    }

    /// Adds a segment of `bytes` bytes, all free, in the lowest free slot. Returns its number.
    ///
    /// # Panics
    ///
    /// If `bytes` is no whole number of pages, or over a limit. The sizes of
    /// [`next_segment`](Self::next_segment) are fine.
    pub fn add_segment(&mut self, bytes: u64) -> u32 {
        let pages = pages(bytes).filter(|pages| u64::from(*pages) * PAGE == bytes);
        let pages = pages.expect("a segment is made of whole pages");
        assert!(
            self.limit.checked_sub(self.capacity()).is_some_and(|room| bytes <= room),
            "the segment is over the arena's limit"
        );
        let number = self.next_number();
        assert!(number < self.max_segments, "the arena has all its segments");
        let slot = number as usize;
        if slot == self.segments.len() {
            self.segments.push(None);
        }
        self.segments[slot] = Some(Segment { pages, in_use: 0, is_withdrawn: false });
        self.capacity += u64::from(pages);
        self.add_run(number, 0, pages);
        number
    }

    /// Whether this segment exists and none of its blocks is in use.
    #[must_use]
    pub fn is_idle(&self, number: u32) -> bool {
        self.segment(number).is_some_and(|segment| segment.in_use == 0)
    }

    /// Whether this segment exists and was [withdrawn](Self::withdraw).
    #[must_use]
    pub fn is_withdrawn(&self, number: u32) -> bool {
        self.segment(number).is_some_and(|segment| segment.is_withdrawn)
    }

    /// Stops handing out pages of this segment, because the peer cannot read it. Its blocks in use stay
    /// valid; it is idle once the last of them was freed. Nothing happens if there is no such segment.
    pub fn withdraw(&mut self, number: u32) {
        if let Some(Some(segment)) = self.segments.get_mut(number as usize) {
            segment.is_withdrawn = true;
            self.take_runs_of(number);
        }
    }

    /// Removes a segment, whose number may then be reused. Returns its size in bytes.
    ///
    /// # Panics
    ///
    /// If it is not [idle](Self::is_idle).
    pub fn remove_segment(&mut self, number: u32) -> u64 {
        assert!(self.is_idle(number), "only an idle segment can be removed");
        let segment = self.segments[number as usize].take().expect("an idle segment is there");
        self.take_runs_of(number);
        self.capacity -= u64::from(segment.pages);
        u64::from(segment.pages) * PAGE
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
        self.count(block.segment).in_use += more;
        self.in_use += u64::from(more);
        true
    }

    /// Frees the pages of `block` beyond its first `bytes` bytes. It keeps at least one.
    pub fn shrink(&mut self, block: &mut Block, bytes: u64) {
        let Some(keep) = pages(bytes).filter(|keep| *keep < block.pages) else { return };
        self.give_back(block.segment, block.page + keep, block.pages - keep);
        block.pages = keep;
    }

    /// Frees a block.
    pub fn free(&mut self, block: Block) {
        self.give_back(block.segment, block.page, block.pages);
        self.blocks -= 1;
    }

    fn give_back(&mut self, segment: u32, mut page: u32, mut pages: u32) {
        self.in_use -= u64::from(pages);
        let count = self.count(segment);
        count.in_use -= pages;
        if count.is_withdrawn {
            return;
        }
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

    fn segment(&self, number: u32) -> Option<&Segment> {
        self.segments.get(number as usize)?.as_ref()
    }

    /// The counts of a block's segment.
    fn count(&mut self, segment: u32) -> &mut Segment {
        let segment = self.segments.get_mut(segment as usize).and_then(Option::as_mut);
        segment.expect("a segment stays while a block of it is out")
    }

    /// The run from which to take a block of `pages`: (pages, segment, first page).
    fn fitting_run(&self, pages: u32) -> Option<(u32, u32, u32)> {
        let fitting = self.by_size.range((pages, 0, 0)..).next();
        fitting.copied().filter(|_| self.blocks < self.max_blocks)
    }

    fn add_run(&mut self, segment: u32, page: u32, pages: u32) {
        self.by_place.insert((segment, page), pages);
        self.by_size.insert((pages, segment, page));
    }

    fn take_run(&mut self, segment: u32, page: u32, pages: u32) {
        self.by_place.remove(&(segment, page));
        self.by_size.remove(&(pages, segment, page));
    }

    fn take_runs_of(&mut self, segment: u32) {
        while let Some((&(_, page), &pages)) = self.by_place.range((segment, 0)..=(segment, u32::MAX)).next()
        {
            self.take_run(segment, page, pages);
        }
    }
}

/// The number of pages for `bytes` bytes, at least one. `None` if it is not a page number.
fn pages(bytes: u64) -> Option<u32> {
    u32::try_from(bytes.div_ceil(PAGE).max(1)).ok()
}
