//! [`Upkeep`]: what has to happen on a connection although nobody sends, and whether it was arranged.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use crate::maintenance::{self, Maintained};

/// What maintenance, or the holder of the receive half, is to do for one connection.
pub(crate) struct Upkeep {
    /// Called by maintenance if nobody else [is](Self::maintained_by).
    link: Weak<dyn Maintained>,
    maintained: OnceLock<Weak<dyn Maintained>>,
    /// How long shared memory stays unused before it is given back.
    idle: Duration,
    /// Something was queued for the holder of the receive half to flush.
    needs_flush: AtomicBool,
    /// Maintenance comes soon, to flush.
    is_scheduled: AtomicBool,
    /// Something was queued that maintenance has no thread for: who waits next flushes it.
    is_left: AtomicBool,
    /// The peer is asked for something that is waited for.
    has_questions: AtomicBool,
    /// Maintenance comes later, to trim.
    is_watched: AtomicBool,
}

impl Upkeep {
    pub(crate) fn new(link: Weak<dyn Maintained>, idle: Duration) -> Self {
        maintenance::keep_private(idle);
        let flag = || AtomicBool::new(false);
        Self {
            link,
            maintained: OnceLock::new(),
            idle,
            needs_flush: flag(),
            is_scheduled: flag(),
            is_left: flag(),
            has_questions: flag(),
            is_watched: flag(),
        }
    }

    /// Has maintenance come to `maintained` in place of the link, which that calls in turn.
    pub(crate) fn maintained_by(&self, maintained: Weak<dyn Maintained>) {
        let _ = self.maintained.set(maintained);
    }

    fn weak(&self) -> &Weak<dyn Maintained> {
        self.maintained.get().unwrap_or(&self.link)
    }

    /// What is told when something happens.
    pub(crate) fn maintained(&self) -> Option<Arc<dyn Maintained>> {
        self.weak().upgrade()
    }

    /// Has maintenance flush soon. Where it has no thread for that somebody who waits does; `false` where
    /// that is not certain either.
    pub(crate) fn schedule_flush(&self) -> bool {
        if self.is_scheduled.swap(true, AcqRel) || maintenance::flush(Weak::clone(self.weak())) {
            return true;
        }
        self.is_left.store(true, Release);
        self.is_scheduled.store(false, Release);
        self.maintained().is_some_and(|maintained| maintained.flush_without_maintenance())
    }

    /// What was queued is left to who waits next.
    pub(crate) fn leave(&self) {
        self.is_left.store(true, Release);
    }

    /// Whether something was left to who waits next.
    #[inline]
    pub(crate) fn is_left(&self) -> bool {
        self.is_left.load(Acquire)
    }

    /// The peer was asked for something: the holder of the receive half, who has queued that, sends it.
    pub(crate) fn ask(&self) {
        self.has_questions.store(true, Release);
    }

    /// Whether something is asked that was not sent.
    #[inline]
    pub(crate) fn take_questions(&self) -> bool {
        self.has_questions.load(Acquire) && self.has_questions.swap(false, AcqRel)
    }

    /// Maintenance has come to flush.
    pub(crate) fn begin_deferred_flush(&self) {
        self.is_scheduled.store(false, Release);
    }

    /// Maintenance, which is here, has to come again; `false` where somebody else has arranged that
    /// meanwhile.
    pub(crate) fn comes_again_to_flush(&self) -> bool {
        !self.is_scheduled.swap(true, AcqRel)
    }

    /// Has the holder of the receive half flush before it waits.
    pub(crate) fn request_flush(&self) {
        self.needs_flush.store(true, Release);
    }

    /// What was [requested](Self::request_flush) is being flushed.
    pub(crate) fn begin_flush(&self) {
        self.needs_flush.store(false, Release);
        self.is_left.store(false, Release);
    }

    /// Whether something is to be flushed.
    #[inline]
    pub(crate) fn needs_flush(&self) -> bool {
        self.needs_flush.load(Acquire) || self.is_scheduled.load(Acquire) || self.is_left()
    }

    /// Has maintenance come when shared memory may be idle.
    pub(crate) fn watch(&self) {
        if !self.is_watched.swap(true, AcqRel) {
            maintenance::trim(Weak::clone(self.weak()), self.idle / 2);
        }
    }

    /// Maintenance has come to trim. First: a segment that is added from now on is watched.
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
