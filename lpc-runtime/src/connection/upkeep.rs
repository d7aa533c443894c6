//! [`Upkeep`]: what has to happen on a connection although nobody sends, and whether it was arranged.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use crate::maintenance::{self, Tend};

/// What maintenance, or the holder of the receive half, is to do for one connection.
pub(crate) struct Upkeep {
    /// Called by maintenance if nobody else [is](Self::tended_by).
    link: Weak<dyn Tend>,
    tended: OnceLock<Weak<dyn Tend>>,
    /// How long shared memory stays unused before it is given back.
    idle: Duration,
    /// Something was queued for the holder of the receive half to flush.
    is_pushed: AtomicBool,
    /// Maintenance comes soon, to flush.
    is_late: AtomicBool,
    /// Maintenance comes later, to trim.
    is_watched: AtomicBool,
}

impl Upkeep {
    pub(crate) fn new(link: Weak<dyn Tend>, idle: Duration) -> Self {
        let flag = || AtomicBool::new(false);
        let (is_pushed, is_late, is_watched) = (flag(), flag(), flag());
        Self { link, tended: OnceLock::new(), idle, is_pushed, is_late, is_watched }
    }

    /// Has maintenance call `tended` in place of the link, which it calls in turn.
    pub(crate) fn tended_by(&self, tended: Weak<dyn Tend>) {
        let _ = self.tended.set(tended);
    }

    fn weak(&self) -> &Weak<dyn Tend> {
        self.tended.get().unwrap_or(&self.link)
    }

    /// Whom to tell what happens.
    pub(crate) fn tended(&self) -> Option<Arc<dyn Tend>> {
        self.weak().upgrade()
    }

    /// Has maintenance flush soon.
    pub(crate) fn flush_later(&self) {
        if !self.is_late.swap(true, AcqRel) {
            maintenance::flush(Weak::clone(self.weak()));
        }
    }

    /// Maintenance has come to flush.
    pub(crate) fn begin_late_flush(&self) {
        self.is_late.store(false, Release);
    }

    /// Maintenance, which is here, has to come again; `false` where somebody else has arranged that meanwhile.
    pub(crate) fn comes_again_to_flush(&self) -> bool {
        !self.is_late.swap(true, AcqRel)
    }

    /// Has the holder of the receive half flush before it waits.
    pub(crate) fn push(&self) {
        self.is_pushed.store(true, Release);
    }

    /// What was [pushed](Self::push) is being flushed.
    pub(crate) fn begin_flush(&self) {
        self.is_pushed.store(false, Release);
    }

    /// Whether something is to be flushed.
    pub(crate) fn is_to_flush(&self) -> bool {
        self.is_pushed.load(Acquire) || self.is_late.load(Acquire)
    }

    /// Has maintenance come when shared memory may be idle.
    pub(crate) fn watch(&self) {
        if !self.is_watched.swap(true, AcqRel) {
            maintenance::trim(Weak::clone(self.weak()), self.idle / 2);
        }
    }

    /// Maintenance has come to trim. First: whoever adds a segment from now on has it watched.
    pub(crate) fn begin_trim(&self) {
        self.is_watched.store(false, Release);
    }

    /// When maintenance, which is here, has to come again to trim; `None` where that was arranged meanwhile.
    pub(crate) fn comes_again_to_trim(&self) -> Option<Duration> {
        (!self.is_watched.swap(true, AcqRel)).then_some(self.idle / 2)
    }
}

impl fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upkeep").finish_non_exhaustive()
    }
}
