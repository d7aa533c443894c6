//! Waking a thread that is parked.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{self, Thread};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    static WAKER: Waker = new();
}

fn new() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

/// Wakes this thread when it is parked.
pub(crate) fn waker() -> Waker {
    // In a destructor of a thread-local, at the end of the thread, the one that was kept may be gone.
    WAKER.try_with(Waker::clone).unwrap_or_else(|_| new())
}
