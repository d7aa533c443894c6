//! [`Signal`]: has tasks look again at what they wait for, of which there are seldom any.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::sync::Notify;

/// Tells all tasks that wait. Where there are none that is a load: each call that is answered tells, and
/// [`Notify`] takes a lock for it.
#[derive(Debug, Default)]
pub(super) struct Signal {
    waiting: AtomicUsize,
    told: Notify,
}

impl Signal {
    /// Has the tasks that wait look again. What they look at was changed before, behind a lock that looking
    /// takes, or by an atomic operation in the one order of all such ([`SeqCst`]).
    pub(super) fn tell(&self) {
        if self.waiting.load(SeqCst) > 0 {
            self.told.notify_waiters();
        }
    }

    /// Waits until it is told, unless it `is_so` already.
    pub(super) async fn wait_unless(&self, is_so: impl FnOnce() -> bool) {
        // First, so that whoever changes what is looked at after that finds somebody to tell.
        let _waiting = Waiting::begin(&self.waiting);
        let told = self.told.notified();
        if !is_so() {
            told.await;
        }
    }
}

/// A task that waits.
struct Waiting<'s>(&'s AtomicUsize);

impl<'s> Waiting<'s> {
    fn begin(waiting: &'s AtomicUsize) -> Self {
        waiting.fetch_add(1, SeqCst);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}
