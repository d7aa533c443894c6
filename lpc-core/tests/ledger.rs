//! The ledger against a model, and its promises to those who wait.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Wake, Waker};

use lpc_core::arena::{Arena, PAGE};
use lpc_core::ledger::{Lease, Ledger};
use proptest::prelude::*;

const LIMIT: u64 = 8 << 20;
const MAX_SEGMENTS: u32 = 6;
const MAX_BLOCKS: u32 = 16;

/// What a test keeps of a segment.
#[derive(Debug)]
struct Segment {
    number: u32,
    len: u64,
}

type TestLedger = Arc<Ledger<Segment>>;

fn ledger(limit: u64) -> TestLedger {
    Ledger::new(Arena::new(limit, MAX_SEGMENTS, MAX_BLOCKS))
}

fn make(number: u32, len: u64) -> Result<Segment, Infallible> {
    Ok(Segment { number, len })
}

fn alloc(ledger: &TestLedger, bytes: u64) -> Option<Lease<Segment>> {
    ledger.alloc(bytes, make).unwrap()
}

fn no_segment(_: u32, _: u64) -> Result<Segment, Infallible> {
    panic!("there is room")
}

/// Whether a block could be had now.
fn has_room(ledger: &TestLedger, bytes: u64) -> bool {
    ledger.wait_for(bytes).has_room(Waker::noop())
}

/// Counts how often it is woken.
#[derive(Debug, Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

impl Count {
    fn waker() -> (Arc<Self>, Waker) {
        let count = Arc::new(Self::default());
        (Arc::clone(&count), count.into())
    }

    fn woken(&self) -> usize {
        self.0.swap(0, Relaxed)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Alloc(u64),
    Drop(usize),
    Extend(usize, u64),
    Shrink(usize, u64),
    Withdraw(u32),
    Trim,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![0..5 * PAGE, 0..600 * PAGE, 0..LIMIT * 2, Just(u64::MAX)];
    let step = prop_oneof![
        8 => size.clone().prop_map(Step::Alloc),
        8 => any::<usize>().prop_map(Step::Drop),
        1 => (any::<usize>(), size.clone()).prop_map(|(at, size)| Step::Extend(at, size)),
        1 => (any::<usize>(), size).prop_map(|(at, size)| Step::Shrink(at, size)),
        1 => (0..MAX_SEGMENTS + 1).prop_map(Step::Withdraw),
        4 => Just(Step::Trim),
    ];
    proptest::collection::vec(step, 0..150)
}

/// What the model knows of a segment.
#[derive(Debug)]
struct Known {
    was_used: bool,
    is_withdrawn: bool,
}

proptest! {
    #[test]
    fn leases_never_overlap_and_idle_segments_go(steps in steps(), wanted in 1..=LIMIT) {
        let ledger = ledger(LIMIT);
        let mut leases: Vec<Lease<Segment>> = Vec::new();
        let mut segments: BTreeMap<u32, Known> = BTreeMap::new();
        let (count, waker) = Count::waker();
        for step in steps {
            match step {
                Step::Alloc(bytes) => {
                    let has_room = has_room(&ledger, bytes);
                    let lease = ledger.alloc(bytes, |number, len| {
                        let known = Known { was_used: true, is_withdrawn: false };
                        assert!(segments.insert(number, known).is_none(), "segment {number} is there");
                        make(number, len)
                    });
                    let lease = lease.unwrap();
                    assert_eq!(lease.is_some(), has_room);
                    if let Some(lease) = lease {
                        assert!(lease.block().len() >= bytes);
                        assert_eq!(lease.segment().number, lease.block().segment());
                        assert!(Arc::ptr_eq(lease.ledger(), &ledger));
                        let known = segments.get_mut(&lease.block().segment()).unwrap();
                        assert!(!known.is_withdrawn);
                        known.was_used = true;
                        leases.push(lease);
                    }
                }
                Step::Drop(at) if !leases.is_empty() => drop(leases.swap_remove(at % leases.len())),
                Step::Extend(at, bytes) if !leases.is_empty() => {
                    let at = at % leases.len();
                    let before = leases[at].block().len();
                    let extends = leases[at].extend(bytes);
                    assert!(leases[at].block().len() >= if extends { bytes.max(before) } else { before });
                }
                Step::Shrink(at, bytes) if !leases.is_empty() => {
                    let at = at % leases.len();
                    let before = leases[at].block().len();
                    leases[at].shrink(bytes);
                    let after = leases[at].block().len();
                    assert!((bytes.min(before)..=before).contains(&after));
                }
                Step::Withdraw(number) => {
                    ledger.withdraw(number);
                    segments.get_mut(&number).into_iter().for_each(|known| known.is_withdrawn = true);
                }
                Step::Trim => {
                    let mut retired = Vec::new();
                    let left = ledger.trim(|number, segment| {
                        assert_eq!(segment.number, number);
                        retired.push(number);
                    });
                    let mut expected = Vec::new();
                    segments.retain(|number, known| {
                        let is_idle = leases.iter().all(|lease| lease.block().segment() != *number);
                        let goes = is_idle && (known.is_withdrawn || !known.was_used);
                        if goes {
                            expected.push(*number);
                        }
                        known.was_used = !is_idle;
                        !goes
                    });
                    assert_eq!((retired, left), (expected, segments.len()));
                }
                _ => {}
            }
            let mut places: Vec<_> = leases
                .iter()
                .map(|lease| (lease.block().segment(), lease.block().offset(), lease.block().len()))
                .collect();
            places.sort_unstable();
            for pair in places.windows(2) {
                assert!(pair[0].0 != pair[1].0 || pair[0].1 + pair[0].2 <= pair[1].1, "{pair:?} overlap");
            }
            for lease in &leases {
                assert!(lease.block().offset() + lease.block().len() <= lease.segment().len);
            }
        }
        // Everything goes in the end, and whoever waits still is woken by it: what is there in pieces can be put together.
        let waiting = ledger.wait_for(wanted);
        let waits = !waiting.has_room(&waker) && !leases.is_empty();
        leases.clear();
        assert_eq!(count.woken() == 1, waits);
        ledger.make_room(wanted, |_, _| {});
        assert!(waiting.has_room(&waker));
        drop(waiting);
        count.woken();
        let waiting = ledger.wait_for(LIMIT);
        let waits = !waiting.has_room(&waker);
        count.woken();
        ledger.trim(|_, _| {});
        assert_eq!(ledger.trim(|_, _| {}), 0);
        assert!(!waits || count.woken() == 1);
        assert!(waiting.has_room(&waker));
    }
}

#[test]
fn room_wakes_the_first_that_can_use_it_and_nobody_else() {
    let ledger = ledger(4 * PAGE);
    let waiters: Vec<_> =
        [3, 1, 1, 2, 1].into_iter().map(|pages| (ledger.wait_for(pages * PAGE), Count::waker())).collect();
    let mut leases: Vec<_> = (0..4).map(|_| alloc(&ledger, 1).unwrap()).collect();
    assert!(waiters.iter().all(|(waiting, (_, waker))| !waiting.has_room(waker)));
    let woken = || -> Vec<usize> { waiters.iter().map(|(_, (count, _))| count.woken()).collect() };
    leases.pop();
    assert_eq!(woken(), [0, 1, 0, 0, 0], "there is too little for the first");
    leases.pop();
    assert_eq!(woken(), [0, 0, 1, 0, 0], "what the one before was woken for is not given away twice");
    leases.clear();
    assert_eq!(woken(), [0, 0, 0, 0, 1], "the rest is promised to those who were woken");
}

#[test]
fn room_in_pieces_wakes_one_that_waits() {
    let ledger = ledger(4 << 20);
    let (count, waker) = Count::waker();
    let mut leases: Vec<_> = (0..4).map(|_| alloc(&ledger, 1 << 20).unwrap()).collect();
    let waiting = ledger.wait_for(3 << 20);
    assert!(!waiting.has_room(&waker));
    leases.pop();
    assert_eq!(count.woken(), 0, "its segment holds another");
    leases.truncate(1);
    assert_eq!(count.woken(), 1, "two idle segments together");
    assert!(!waiting.has_room(&waker));
    ledger.make_room(3 << 20, |_, _| {});
    assert!(waiting.has_room(&waker));
}

#[test]
fn one_that_leaves_the_line_makes_room_for_the_next() {
    let ledger = ledger(PAGE);
    let lease = alloc(&ledger, 1).unwrap();
    let (first, second, third) = (ledger.wait_for(1), ledger.wait_for(1), ledger.wait_for(1));
    let counts: [_; 3] = std::array::from_fn(|_| Count::waker());
    let woken = || counts.each_ref().map(|(count, _)| count.woken());
    for (waiting, (_, waker)) in [&first, &second, &third].into_iter().zip(&counts) {
        assert!(!waiting.has_room(waker));
    }
    drop(second);
    assert_eq!(woken(), [0, 0, 0], "there is no room");
    drop(lease);
    assert_eq!(woken(), [1, 0, 0]);
    drop(first);
    assert_eq!(woken(), [0, 0, 1], "the first gave up although it was woken");
    let lease = alloc(&ledger, 1).unwrap();
    assert!(!third.has_room(&counts[2].1), "somebody was quicker");
    drop(lease);
    assert_eq!(woken(), [0, 0, 1], "and is woken again");
    assert!(third.has_room(&counts[2].1));
    drop(third);
    assert!(counts.iter().all(|(count, _)| Arc::strong_count(count) == 2), "no waker is kept");
}

#[test]
fn pages_that_a_lease_gives_up_wake_one_that_waits() {
    let ledger = ledger(2 * PAGE);
    let (count, waker) = Count::waker();
    let mut lease = alloc(&ledger, 2 * PAGE).unwrap();
    let waiting = ledger.wait_for(1);
    assert!(!waiting.has_room(&waker));
    lease.shrink(1);
    assert_eq!(count.woken(), 1);
    assert!(waiting.has_room(&waker));
}

#[test]
fn room_that_segments_leave_behind_wakes_one_that_waits() {
    let ledger = ledger(3 << 20);
    let (count, waker) = Count::waker();
    let kept = alloc(&ledger, 1 << 20).unwrap();
    drop(alloc(&ledger, 1 << 20).unwrap());
    let waiting = ledger.wait_for(2 << 20);
    assert!(!waiting.has_room(&waker), "the second segment takes a part of it");
    assert_eq!(ledger.trim(|_, _| {}), 2);
    assert_eq!(count.woken(), 1, "it can be put together");
    assert!(!waiting.has_room(&waker));
    assert_eq!(ledger.trim(|_, _| {}), 1);
    assert_eq!(count.woken(), 1);
    assert!(waiting.has_room(&waker));
    assert_eq!(alloc(&ledger, 2 << 20).unwrap().block().segment(), 1, "its number is used again");
    drop(kept);
}

#[test]
fn a_withdrawn_segment_makes_room_for_another_when_it_goes() {
    let ledger = ledger(2 << 20);
    let (count, waker) = Count::waker();
    let lease = alloc(&ledger, 2 << 20).unwrap();
    ledger.withdraw(0);
    drop(lease);
    let waiting = ledger.wait_for(1);
    assert!(!waiting.has_room(&waker));
    assert_eq!(ledger.trim(|_, _| {}), 0);
    assert_eq!(count.woken(), 1);
    assert!(waiting.has_room(&waker));
}

#[test]
fn after_the_end_nobody_waits_and_no_page_is_handed_out() {
    let ledger = ledger(2 << 20);
    let (count, waker) = Count::waker();
    let large = alloc(&ledger, (2 << 20) - PAGE).unwrap();
    let mut small = alloc(&ledger, PAGE).unwrap();
    small.shrink(1);
    drop(large);
    let waiting = ledger.wait_for(2 << 20);
    assert!(!waiting.has_room(&waker) && has_room(&ledger, 1));
    ledger.close();
    assert_eq!(count.woken(), 1);
    assert!(waiting.has_room(&waker));
    assert!(ledger.alloc(1, no_segment).unwrap().is_none());
    assert!(small.extend(1) && !small.extend(2 * PAGE));
    drop(small);
    assert!(ledger.alloc(1, no_segment).unwrap().is_none(), "the peer may still be reading it");
    assert_eq!(ledger.trim(|_, _| {}), 0, "the memory goes");
}

#[test]
fn one_that_asks_over_and_over_is_woken_once() {
    let ledger = ledger(PAGE);
    let lease = alloc(&ledger, 1).unwrap();
    let (count, waker) = Count::waker();
    let waiting = ledger.wait_for(1);
    for _ in 0..100 {
        assert!(!waiting.has_room(&waker));
    }
    drop(lease);
    assert_eq!(count.woken(), 1);
}

#[test]
fn a_segment_goes_after_a_whole_period_without_a_block() {
    let ledger = ledger(LIMIT);
    let trim = || {
        let mut retired = Vec::new();
        (ledger.trim(|number, _| retired.push(number)), retired)
    };
    let lease = alloc(&ledger, 1).unwrap();
    for _ in 0..3 {
        assert_eq!(trim(), (1, vec![]), "there is a block");
    }
    drop(lease);
    assert_eq!(trim(), (1, vec![]), "there was one until a moment ago");
    drop(ledger.alloc(1, no_segment).unwrap());
    assert_eq!(trim(), (1, vec![]), "there was another");
    assert_eq!(trim(), (0, vec![0]));
    assert_eq!(trim(), (0, vec![]));
}

#[test]
fn a_withdrawn_segment_goes_as_soon_as_it_is_idle() {
    let ledger = ledger(LIMIT);
    let lease = alloc(&ledger, 1).unwrap();
    ledger.withdraw(0);
    let next = alloc(&ledger, 1).unwrap();
    assert_eq!(next.block().segment(), 1, "another segment");
    assert_eq!(ledger.trim(|_, _| panic!("there is a block")), 2);
    drop(lease);
    let mut retired = Vec::new();
    assert_eq!(ledger.trim(|number, _| retired.push(number)), 1);
    assert_eq!(retired, [0]);
}

#[test]
fn a_segment_lives_until_its_last_holder() {
    let ledger = ledger(LIMIT);
    let segment = Arc::clone(alloc(&ledger, 1).unwrap().segment());
    ledger.trim(|_, _| {});
    ledger.trim(|_, retired| assert!(Arc::ptr_eq(&retired, &segment)));
    assert_eq!(Arc::strong_count(&segment), 1);
}

#[test]
fn a_segment_that_cannot_be_made_is_not_there() {
    let ledger = ledger(LIMIT);
    assert_eq!(ledger.alloc(1, |_, _| Err::<Segment, _>("no memory")).unwrap_err(), "no memory");
    let panics = catch_unwind(AssertUnwindSafe(|| ledger.alloc(1, no_segment)));
    assert!(panics.is_err());
    assert_eq!(ledger.trim(|_, _| {}), 0);
    let lease = alloc(&ledger, 1).unwrap();
    assert_eq!((lease.segment().number, lease.segment().len), (0, 1 << 20));
}

#[test]
fn room_in_pieces_becomes_room_for_one() {
    let ledger = Ledger::new(Arena::new(4 << 20, 8, 100));
    let make = |_, len| Ok::<_, Infallible>(len);
    // Segments of 1, 1 and 2 MiB, all of the limit.
    let mut leases: Vec<_> = (0..4).map(|_| ledger.alloc(1 << 20, make).unwrap().unwrap()).collect();
    ledger.make_room(3 << 20, |number, _| panic!("segment {number} is in use"));
    leases.truncate(1);
    assert!(ledger.alloc(3 << 20, make).unwrap().is_none(), "in pieces");
    let mut retired = Vec::new();
    ledger.make_room(3 << 20, |number, segment| retired.push((number, *segment)));
    assert_eq!(retired, [(1, 1 << 20), (2, 2 << 20)]);
    let large = ledger.alloc(3 << 20, make).unwrap().expect("room for one");
    assert_eq!((large.block().segment(), leases[0].block().segment()), (1, 0));
    ledger.make_room(1 << 20, |number, _| panic!("segment {number} is in use"));
}
