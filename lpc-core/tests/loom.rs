//! The ledger under every interleaving of its threads:
//! `RUSTFLAGS="--cfg loom" cargo test -p lpc-core --test loom --release`.
#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Wake, Waker};

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, Ordering::Relaxed};
use loom::thread::{self, Thread};
use lpc_core::arena::{Arena, PAGE};
use lpc_core::ledger::{Lease, Ledger};

/// A segment of two pages, of which loom sees whether two threads write to one at once, or without an order.
#[derive(Debug)]
struct Segment {
    pages: [UnsafeCell<()>; 2],
    is_retired: AtomicBool,
}

type TestLedger = Arc<Ledger<Segment>>;

/// A ledger of this many pages, in segments of two.
fn ledger(pages: u64, max_segments: u32) -> TestLedger {
    Ledger::new(Arena::new(pages * PAGE, max_segments, 100))
}

fn make(_: u32, len: u64) -> Result<Segment, Infallible> {
    assert!(len <= 2 * PAGE);
    let pages = [UnsafeCell::new(()), UnsafeCell::new(())];
    Ok(Segment { pages, is_retired: AtomicBool::new(false) })
}

fn alloc(ledger: &TestLedger, bytes: u64) -> Option<Lease<Segment>> {
    ledger.alloc(bytes, make).unwrap()
}

/// Uses the block as its holder may.
fn write(lease: &Lease<Segment>) {
    let first = lease.block().page() as usize;
    for page in &lease.segment().pages[first..first + (lease.block().len() / PAGE) as usize] {
        page.with_mut(|_| {});
    }
    assert!(!lease.segment().is_retired.load(Relaxed), "its segment is gone");
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Gets a block, however long that takes. If no wake-up comes, loom says that the threads are in a deadlock.
fn wait_for(ledger: &TestLedger, bytes: u64) -> Lease<Segment> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Some(lease) = alloc(ledger, bytes) {
            return lease;
        }
        if !ledger.has_room(bytes, &waker) {
            thread::park();
        }
    }
}

#[test]
fn no_two_threads_hold_a_page_at_once() {
    loom::model(|| {
        let ledger = ledger(2, 1);
        let run = |ledger: TestLedger| {
            move || {
                for _ in 0..2 {
                    if let Some(mut lease) = alloc(&ledger, PAGE) {
                        write(&lease);
                        lease.extend(2 * PAGE);
                        write(&lease);
                        lease.shrink(1);
                    }
                }
            }
        };
        let other = thread::spawn(run(Arc::clone(&ledger)));
        run(Arc::clone(&ledger))();
        other.join().unwrap();
        write(&alloc(&ledger, 2 * PAGE).expect("all came back"));
    });
}

#[test]
fn a_block_that_comes_back_wakes_who_waits_for_it() {
    loom::model(|| {
        let ledger = ledger(2, 1);
        let lease = alloc(&ledger, 2 * PAGE).unwrap();
        let waiting = {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || write(&wait_for(&ledger, PAGE)))
        };
        let other = thread::spawn(move || write(&wait_for(&ledger, 2 * PAGE)));
        write(&lease);
        drop(lease);
        waiting.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn pages_given_up_wake_who_waits_for_them() {
    loom::model(|| {
        let ledger = ledger(2, 1);
        let mut lease = alloc(&ledger, 2 * PAGE).unwrap();
        let waiting = thread::spawn(move || write(&wait_for(&ledger, PAGE)));
        lease.shrink(PAGE);
        write(&lease);
        waiting.join().unwrap();
    });
}

#[test]
fn the_end_wakes_who_waits() {
    loom::model(|| {
        let ledger = ledger(1, 1);
        let _lease = alloc(&ledger, PAGE).unwrap();
        let waiting = {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || {
                let waker = Waker::from(Arc::new(Unpark(thread::current())));
                while !ledger.has_room(PAGE, &waker) {
                    thread::park();
                }
            })
        };
        ledger.close();
        waiting.join().unwrap();
    });
}

#[test]
fn a_segment_with_a_block_is_never_retired() {
    loom::model(|| {
        let ledger = ledger(2, 1);
        let trims = {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || {
                for _ in 0..2 {
                    ledger.trim(|_, segment| {
                        assert!(!segment.is_retired.swap(true, Relaxed), "it goes once");
                        // It is nobody's now, and what was written to it stands before this.
                        segment.pages.iter().for_each(|page| page.with_mut(|_| {}));
                    });
                }
            })
        };
        for _ in 0..2 {
            let lease = alloc(&ledger, PAGE).expect("there is room, in one segment or the next");
            write(&lease);
        }
        trims.join().unwrap();
    });
}

#[test]
fn a_segment_withdrawn_while_it_is_used_goes_when_it_is_not() {
    loom::model(|| {
        let ledger = ledger(2, 1);
        let lease = alloc(&ledger, PAGE).unwrap();
        let trims = {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || {
                ledger.withdraw(0);
                ledger.trim(|_, segment| segment.is_retired.store(true, Relaxed));
            })
        };
        write(&lease);
        drop(lease);
        trims.join().unwrap();
        assert_eq!(ledger.trim(|_, _| {}), 0);
    });
}
