//! The arena's books against a model that marks every page.

use lpc_core::arena::{Arena, Block, PAGE};
use proptest::prelude::*;

const LIMIT: u64 = 8 << 20;

/// Every page of every segment: whether it is in a block.
#[derive(Default)]
struct Model(Vec<Vec<bool>>);

impl Model {
    fn mark(&mut self, block: &Block, used: bool) {
        let first = (block.offset() / PAGE) as usize;
        for page in &mut self.0[block.segment() as usize][first..first + (block.len() / PAGE) as usize] {
            assert_ne!(*page, used, "{block:?} overlaps another block, or was free already");
            *page = used;
        }
    }

    fn used(&self) -> u64 {
        self.0.iter().flatten().filter(|used| **used).count() as u64 * PAGE
    }

    fn has_run(&self, bytes: u64) -> bool {
        let pages = bytes.div_ceil(PAGE).max(1) as usize;
        self.0.iter().any(|segment| segment.windows(pages).any(|run| run.iter().all(|used| !used)))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Alloc(u64),
    Free(usize),
    Extend(usize, u64),
    Shrink(usize, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![0..5 * PAGE, 0..LIMIT * 2, Just(u64::MAX)];
    let step = prop_oneof![
        4 => size.clone().prop_map(Step::Alloc),
        3 => any::<usize>().prop_map(Step::Free),
        1 => (any::<usize>(), size.clone()).prop_map(|(at, size)| Step::Extend(at, size)),
        1 => (any::<usize>(), size).prop_map(|(at, size)| Step::Shrink(at, size)),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    #[test]
    fn blocks_never_overlap_and_all_pages_come_back(steps in steps()) {
        let mut arena = Arena::new(LIMIT);
        let mut model = Model::default();
        let mut blocks: Vec<Block> = Vec::new();
        for step in steps {
            match step {
                Step::Alloc(bytes) => {
                    let block = arena.alloc(bytes).or_else(|| {
                        let size = arena.next_segment(bytes)?;
                        assert_eq!(arena.add_segment(size) as usize, model.0.len());
                        model.0.push(vec![false; (size / PAGE) as usize]);
                        Some(arena.alloc(bytes).expect("next_segment gives room for what it was asked for"))
                    });
                    match block {
                        Some(block) => {
                            assert!(block.len() >= bytes);
                            model.mark(&block, true);
                            blocks.push(block);
                        }
                        None => assert!(bytes > LIMIT || !model.has_run(bytes), "there was room for {bytes}"),
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
                _ => {}
            }
            assert_eq!(arena.in_use(), model.used());
            assert!(arena.capacity() <= LIMIT);
        }
        for block in blocks {
            arena.free(block);
        }
        assert_eq!(arena.in_use(), 0);
        for segment in 0..model.0.len() {
            let size = model.0[segment].len() as u64 * PAGE;
            assert!(arena.alloc(size).is_some(), "a run was not merged back");
        }
    }
}
