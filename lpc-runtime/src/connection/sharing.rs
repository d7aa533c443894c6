//! [`Sharing`]: what a connection has to do with the others that wait on the same thread.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use lpc_core::spin::ThreadSpin;

/// A connection that waits on threads of a runtime, as others do, too.
///
/// A thread that waits for one connection alone has nothing of this, and spins for that one. However many
/// such threads share a processor, they leave it to each other in turn, each with its peer; measured, that is
/// twice as fast as sleeping.
#[derive(Debug)]
pub(crate) struct Sharing {
    /// The connection's, in this process.
    number: u64,
    budget: Duration,
    seen: Seen,
}

/// What a thread had received when a connection began to wait there.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Where it keeps count of that.
    thread: usize,
    count: u64,
}

impl Sharing {
    pub(crate) fn new(budget: Duration) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        Self { number: NUMBERS.fetch_add(1, Relaxed), budget, seen: Seen::default() }
    }

    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    pub(crate) const fn budget(&self) -> Duration {
        self.budget
    }

    /// What is waited for can come from now on.
    pub(crate) fn begin(&mut self) {
        self.seen = thread(|thread| Seen::now(thread));
    }

    /// Something is received, on this thread.
    pub(crate) fn received(&mut self) {
        let seen = &mut self.seen;
        thread(|thread| {
            thread.received(seen.is_of(thread).then_some(seen.count));
            *seen = Seen::now(thread);
        });
    }

    /// Whether others have received on this thread since the connection began to wait there.
    pub(crate) fn is_contended(&mut self) -> bool {
        let seen = &mut self.seen;
        thread(|thread| {
            if seen.is_of(thread) {
                return thread.is_contended(seen.count);
            }
            *seen = Seen::now(thread);
            false
        })
    }
}

impl Seen {
    fn now(thread: &ThreadSpin) -> Self {
        Self { thread: std::ptr::from_ref(thread).addr(), count: thread.count() }
    }

    fn is_of(self, thread: &ThreadSpin) -> bool {
        self.thread == std::ptr::from_ref(thread).addr()
    }
}

/// Does something with the spin of this thread.
pub(crate) fn thread<T>(does: impl FnOnce(&mut ThreadSpin) -> T) -> T {
    thread_local! {
        static THREAD: RefCell<ThreadSpin> = const { RefCell::new(ThreadSpin::new()) };
    }
    THREAD.with_borrow_mut(does)
}
