//! What small calls take from the heap, once there have been some.
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use lpc::service;

struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: the system's allocator, which is only counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

#[service]
trait Adder {
    fn add(&self, a: u64, b: u64) -> lpc::Result<u64>;
    fn count(&self, text: &str) -> lpc::Result<usize>;
}

mod asynchronous {
    #[lpc::service]
    pub(crate) trait Adder {
        async fn add(&self, a: u64, b: u64) -> lpc::Result<u64>;
        async fn count(&self, text: &str) -> lpc::Result<usize>;
    }
}

struct Plain;

impl Adder for Plain {
    fn add(&self, a: u64, b: u64) -> lpc::Result<u64> {
        Ok(a + b)
    }

    fn count(&self, text: &str) -> lpc::Result<usize> {
        Ok(text.len())
    }
}

impl asynchronous::Adder for Plain {
    async fn add(&self, a: u64, b: u64) -> lpc::Result<u64> {
        Ok(a + b)
    }

    async fn count(&self, text: &str) -> lpc::Result<usize> {
        Ok(text.len())
    }
}

/// Calls of each method.
const CALLS: u64 = 1000;

/// What a thread that comes late to a connection takes, and the like: a few, whatever the number of calls.
const SLACK: u64 = CALLS / 10;

/// Rounds of calls, of which that counts which took the least: on a busy machine a call may be held up, and
/// then other threads come to the connection.
const ROUNDS: usize = 5;

/// The least by which these counts grow from one to the next.
fn least(counts: impl Iterator<Item = u64>) -> u64 {
    let counts: Vec<_> = counts.collect();
    counts.windows(2).map(|pair| pair[1] - pair[0]).min().expect("several rounds")
}

/// Both sides are in this process, so that both are counted. One test, so that nothing else is.
#[test]
fn a_small_call_takes_nothing_from_the_heap_but_its_task() {
    for quick_lane in [false, true] {
        let client = AdderClient::builder().quick_lane(quick_lane).in_process(Plain).unwrap();
        let calls = || {
            for _ in 0..CALLS {
                assert_eq!(client.add(20, 22).unwrap(), 42);
                assert_eq!(client.count("nine byte").unwrap(), 9);
            }
            COUNT.load(SeqCst)
        };
        let taken = least((0..=ROUNDS).map(|_| calls()));
        assert!(taken < SLACK, "{taken} by {} blocking calls, quick lane: {quick_lane}", 2 * CALLS);
    }

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for quick_lane in [false, true] {
        let taken = runtime.block_on(async {
            use asynchronous::Adder;
            let client =
                asynchronous::AdderClient::builder().quick_lane(quick_lane).in_process(Plain).await.unwrap();
            let calls = async || {
                for _ in 0..CALLS {
                    assert_eq!(client.add(20, 22).await.unwrap(), 42);
                    assert_eq!(client.count("nine byte").await.unwrap(), 9);
                }
                COUNT.load(SeqCst)
            };
            let mut counts = Vec::new();
            for _ in 0..=ROUNDS {
                counts.push(calls().await);
            }
            least(counts.into_iter())
        });
        assert!(taken < 2 * CALLS + SLACK, "{taken} by {} async calls, quick lane: {quick_lane}", 2 * CALLS);
    }
}
