//! The arena's books against a model that marks every page.

use lpc_core::arena::{Arena, Block, PAGE};
use proptest::prelude::*;

const LIMIT: u64 = 8 << 20;
const MAX_SEGMENTS: u32 = 6;
const MAX_BLOCKS: u32 = 24;

/// Every page of every segment: whether it is in a block.
struct Pages {
    used: Vec<bool>,
    is_withdrawn: bool,
}

/// The segments by their slots.
#[derive(Default)]
struct Model(Vec<Option<Pages>>);

impl Model {
    fn mark(&mut self, block: &Block, used: bool) {
        let first = (block.offset() / PAGE) as usize;
        let pages = self.0[block.segment() as usize].as_mut().expect("a block's segment is there");
        for page in &mut pages.used[first..first + (block.len() / PAGE) as usize] {
            assert_ne!(*page, used, "{block:?} overlaps another block, or was free already");
            *page = used;
        }
    }

    fn segments(&self) -> impl Iterator<Item = (u32, &Pages)> {
        (0..).zip(&self.0).filter_map(|(number, pages)| Some((number, pages.as_ref()?)))
    }

    fn capacity(&self) -> u64 {
        self.segments().map(|(_, pages)| pages.used.len() as u64 * PAGE).sum()
    }

    fn used(&self) -> u64 {
        self.segments().flat_map(|(_, pages)| &pages.used).filter(|used| **used).count() as u64 * PAGE
    }

    fn is_idle(&self, number: u32) -> bool {
        self.segments().any(|(other, pages)| other == number && !pages.used.contains(&true))
    }

    /// Where a block of this size should be taken: the smallest free run that fits, the first of those.
    fn best_fit(&self, bytes: u64) -> Option<(u32, u64)> {
        let mut runs = Vec::new();
        for (number, pages) in self.segments().filter(|(_, pages)| !pages.is_withdrawn) {
            let mut page = 0;
            for run in pages.used.chunk_by(|a, b| a == b) {
                if !run[0] {
                    runs.push((run.len() as u64 * PAGE, number, page));
                }
                page += run.len() as u64;
            }
        }
        let fitting = runs.into_iter().filter(|(len, ..)| *len >= bytes.max(1));
        fitting.min().map(|(_, segment, page)| (segment, page))
    }

    fn add(&mut self, number: u32, bytes: u64) {
        let lowest = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        assert_eq!(number as usize, lowest, "the lowest free slot");
        if lowest == self.0.len() {
            self.0.push(None);
        }
        self.0[lowest] = Some(Pages { used: vec![false; (bytes / PAGE) as usize], is_withdrawn: false });
    }
}

#[derive(Clone, Debug)]
enum Step {
    Alloc(u64),
    Free(usize),
    Extend(usize, u64),
    Shrink(usize, u64),
    Withdraw(u32),
    Remove(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![0..5 * PAGE, 0..600 * PAGE, 0..LIMIT * 2, Just(u64::MAX)];
    let step = prop_oneof![
        8 => size.clone().prop_map(Step::Alloc),
        6 => any::<usize>().prop_map(Step::Free),
        2 => (any::<usize>(), size.clone()).prop_map(|(at, size)| Step::Extend(at, size)),
        2 => (any::<usize>(), size).prop_map(|(at, size)| Step::Shrink(at, size)),
        1 => (0..MAX_SEGMENTS + 1).prop_map(Step::Withdraw),
        3 => (0..MAX_SEGMENTS + 1).prop_map(Step::Remove),
    ];
    proptest::collection::vec(step, 0..150)
}

proptest! {
    #[test]
    fn blocks_never_overlap_and_all_pages_come_back(steps in steps()) {
        let mut arena = Arena::new(LIMIT, MAX_SEGMENTS, MAX_BLOCKS);
        let mut model = Model::default();
        let mut blocks: Vec<Block> = Vec::new();
        for step in steps {
            match step {
                Step::Alloc(bytes) => {
                    let has_room = arena.has_room(bytes);
                    let may = blocks.len() < MAX_BLOCKS as usize;
                    let expected = model.best_fit(bytes).filter(|_| may);
                    let mut block = arena.alloc(bytes);
                    let place = block.as_ref().map(|block| (block.segment(), block.offset() / PAGE));
                    assert_eq!(place, expected, "the smallest run that fits");
                    if block.is_none() && let Some(size) = arena.next_segment(bytes) {
                        model.add(arena.add_segment(size), size);
                        block = arena.alloc(bytes);
                        assert!(block.is_some(), "next_segment gives room for what it was asked for");
                    }
                    assert_eq!(block.is_some(), has_room);
                    match block {
                        Some(block) => {
                            assert!(block.len() >= bytes);
                            model.mark(&block, true);
                            blocks.push(block);
                        }
                        None => assert!(
                            !may || model.segments().count() == MAX_SEGMENTS as usize
                                || bytes > LIMIT - model.capacity(),
                            "there was room for {bytes}"
                        ),
                    }
                }
                Step::Free(at) if !blocks.is_empty() => {
                    let block = blocks.swap_remove(at % blocks.len());
                    model.mark(&block, false);
                    arena.free(block);
                }
                Step::Extend(at, bytes) if !blocks.is_empty() => {
                    let at = at % blocks.len();
                    model.mark(&blocks[at], false);
                    if arena.extend(&mut blocks[at], bytes) {
                        assert!(blocks[at].len() >= bytes);
                    }
                    model.mark(&blocks[at], true);
                }
                Step::Shrink(at, bytes) if !blocks.is_empty() => {
                    let at = at % blocks.len();
                    let before = blocks[at].len();
                    model.mark(&blocks[at], false);
                    arena.shrink(&mut blocks[at], bytes);
                    assert!(blocks[at].len() >= bytes.min(before) && blocks[at].len() <= before);
                    model.mark(&blocks[at], true);
                }
                Step::Withdraw(number) => {
                    arena.withdraw(number);
                    if let Some(Some(pages)) = model.0.get_mut(number as usize) {
                        pages.is_withdrawn = true;
                    }
                }
                Step::Remove(number) if model.is_idle(number) => {
                    let pages = model.0[number as usize].take().expect("it is idle");
                    assert_eq!(arena.remove_segment(number), pages.used.len() as u64 * PAGE);
                }
                _ => {}
            }
            assert_eq!(arena.in_use(), model.used());
            assert_eq!(arena.capacity(), model.capacity());
            assert_eq!(arena.blocks() as usize, blocks.len());
            assert!(arena.capacity() <= LIMIT && arena.segments().count() <= MAX_SEGMENTS as usize);
            assert!(arena.segments().eq(model.segments().map(|(number, _)| number)));
            for number in 0..=MAX_SEGMENTS {
                assert_eq!(arena.is_idle(number), model.is_idle(number), "segment {number}");
            }
        }
        for block in blocks {
            arena.free(block);
        }
        assert_eq!((arena.in_use(), arena.blocks()), (0, 0));
        for (number, pages) in model.segments() {
            assert!(arena.is_idle(number));
            let size = pages.used.len() as u64 * PAGE;
            assert!(pages.is_withdrawn || arena.alloc(size).is_some(), "a run was not merged back");
        }
    }
}

/// The sizes of the segments that are asked for, one after another, for blocks of this size.
fn sizes(mut arena: Arena, bytes: u64) -> Vec<u64> {
    std::iter::from_fn(|| {
        let size = arena.next_segment(bytes)?;
        arena.add_segment(size);
        while arena.alloc(bytes).is_some() {}
        Some(size)
    })
    .collect()
}

#[test]
fn segments_double_and_the_last_takes_what_is_left() {
    let mib = |sizes: &[u64]| sizes.iter().map(|size| size << 20).collect::<Vec<_>>();
    assert_eq!(sizes(Arena::new(11 << 20, 64, 1000), 1 << 20), mib(&[1, 1, 2, 4, 3]));
    assert_eq!(sizes(Arena::new(16 << 20, 64, 1000), 5 << 20), mib(&[8, 8]));
    assert_eq!(sizes(Arena::new((1 << 20) + 5000, 64, 1000), 1), [1 << 20, PAGE]);
    assert_eq!(sizes(Arena::new(PAGE - 1, 64, 1000), 1), [0; 0]);
}

#[test]
fn where_slots_are_scarce_a_segment_takes_all_the_room() {
    for (max_segments, expected) in [
        (0, &[][..]),
        (1, &[100]),
        (3, &[100]),
        (4, &[1, 99]),
        (6, &[1, 1, 2, 96]),
        (20, &[1, 1, 2, 4, 8, 16, 32, 36]),
    ] {
        let expected: Vec<u64> = expected.iter().map(|size| size << 20).collect();
        assert_eq!(
            sizes(Arena::new(100 << 20, max_segments, 1000), 1 << 20),
            expected,
            "{max_segments} slots"
        );
    }
}

#[test]
fn no_segment_is_larger_than_a_page_number_can_say() {
    let most = u64::from(u32::MAX) * PAGE;
    let mut arena = Arena::new(u64::MAX, 1, 1);
    assert_eq!(arena.next_segment(most), Some(most));
    assert_eq!(arena.next_segment(most + 1), None);
    arena.add_segment(most);
    assert_eq!(arena.alloc(u64::MAX), None);
    assert_eq!(arena.alloc(most).map(|block| block.len()), Some(most));
    let arena = Arena::new(u64::MAX, 64, 1);
    assert_eq!(arena.next_segment(most), Some(most));
}

#[test]
fn no_more_blocks_are_out_than_may_be() {
    let mut arena = Arena::new(LIMIT, 64, 2);
    arena.add_segment(1 << 20);
    let first = arena.alloc(1).expect("the first");
    let mut second = arena.alloc(1).expect("the second");
    assert!(arena.extend(&mut second, 3 * PAGE), "that makes no third");
    arena.shrink(&mut second, 1);
    assert!(!arena.has_room(1) && arena.alloc(1).is_none() && arena.next_segment(2 << 20).is_none());
    arena.free(first);
    assert!(arena.has_room(1) && arena.next_segment(2 << 20).is_some());
    assert!(arena.alloc(1).is_some());
}

#[test]
fn a_withdrawn_segment_gives_no_page_and_becomes_idle() {
    let mut arena = Arena::new(2 << 20, 8, 100);
    let number = arena.add_segment(1 << 20);
    let mut block = arena.alloc(3 * PAGE).expect("there is room");
    arena.withdraw(number);
    assert!(arena.is_withdrawn(number) && !arena.is_idle(number));
    assert!(arena.alloc(1).is_none() && !arena.extend(&mut block, 4 * PAGE));
    arena.shrink(&mut block, PAGE);
    assert!(arena.alloc(1).is_none(), "nor what comes back");
    assert_eq!(arena.next_segment(2 << 20), None, "it counts until it is removed");
    arena.free(block);
    assert!(arena.is_idle(number) && arena.alloc(1).is_none());
    arena.remove_segment(number);
    assert!(!arena.is_withdrawn(number) && !arena.is_idle(number));
    assert_eq!(arena.next_segment(2 << 20), Some(2 << 20));
    assert_eq!(arena.add_segment(1 << 20), number, "its number is free");
    assert!(arena.alloc(1).is_some(), "and what has it now is not withdrawn");
}

#[test]
#[should_panic(expected = "only an idle segment can be removed")]
fn a_segment_with_a_block_cannot_be_removed() {
    let mut arena = Arena::new(LIMIT, 8, 100);
    let number = arena.add_segment(1 << 20);
    let _block = arena.alloc(1).expect("there is room");
    arena.remove_segment(number);
}

#[test]
#[should_panic(expected = "the arena has all its segments")]
fn a_segment_over_the_limit_cannot_be_added() {
    let mut arena = Arena::new(LIMIT, 1, 100);
    arena.add_segment(1 << 20);
    arena.add_segment(1 << 20);
}
