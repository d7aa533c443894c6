//! What has to happen although nobody calls: one thread for the whole process, asleep unless there is
//! something to do.
//!
//! - What was queued to travel with the next message goes out by itself when there is none for [`SOON`].
//! - Shared memory that was not used for a while is given back.
//!
//! It never blocks on a peer, and holds no connection alive. A panic over one connection is nothing to the
//! others.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::connection::warnings::{self, Warning};
use crate::memory::buffer;
use crate::sys::fork::PerProcess;
use crate::sys::private;

/// A connection that needs to be looked after.
pub(crate) trait Maintained: Send + Sync {
    /// Sends what was queued for longer than it should, without waiting. Whether to come again soon, for what
    /// is left.
    fn flush_deferred(&self) -> bool;

    /// Gives back memory that is not in use, and sends what waits. Says when to come again, if at all.
    fn trim(&self) -> Option<Duration>;

    /// Nothing can be sent any more: what was queued never will be.
    fn send_failed(&self) {}

    /// A writer waits, and somebody should read.
    fn meanwhile(&self) {}

    /// The connection is about to be closed, or a server's to send nothing more: nothing that has arrived runs
    /// any more.
    fn closing(&self) {}

    /// The connection is over.
    fn closed(&self) {}
}

/// How long a message waits for another one to travel with.
const SOON: Duration = Duration::from_millis(5);

/// How long at most until it is tried again, from [`SOON`] on each time twice as long.
const LATE: Duration = Duration::from_millis(80);

/// How long private memory is kept, at least, for use again.
const KEPT: Duration = Duration::from_secs(3);

/// A fork has not the thread, nor anything to do for the other process.
static OFFICE: PerProcess<Office> =
    PerProcess::new(|| Office { work: Mutex::new(Work::NONE), changed: Condvar::new() });

struct Office {
    work: Mutex<Work>,
    changed: Condvar,
}

struct Work {
    /// To be flushed.
    to_flush: Vec<Weak<dyn Maintained>>,
    /// What has its time.
    later: Vec<Visit>,
    /// When to look after spare memory that is [`private`] or of a [`buffer`].
    private: Option<Instant>,
    /// There is the thread.
    has_thread: bool,
}

struct Visit {
    at: Instant,
    what: What,
    link: Weak<dyn Maintained>,
}

#[derive(Clone, Copy)]
enum What {
    Trim,
    /// Once more: this long after the last time.
    Flush(Duration),
}

impl Work {
    const NONE: Self = Self { to_flush: Vec::new(), later: Vec::new(), private: None, has_thread: false };
}

/// Has [`Maintained::flush_deferred`] called soon.
pub(crate) fn flush(link: Weak<dyn Maintained>) {
    let mut work = work();
    work.to_flush.push(link);
    if work.to_flush.len() == 1 || !work.has_thread {
        wake(work);
    }
}

/// Has [`Maintained::trim`] called after this time.
pub(crate) fn trim(link: Weak<dyn Maintained>, after: Duration) {
    // A time that no clock shows never comes.
    let Some(at) = Instant::now().checked_add(after) else { return };
    let mut work = work();
    work.later.push(Visit { at, what: What::Trim, link });
    wake(work);
}

/// Has spare memory of this process given back after a while.
pub(crate) fn trim_private() {
    let mut work = work();
    if work.private.is_none() {
        work.private = Some(Instant::now() + KEPT);
        wake(work);
    }
}

fn work() -> MutexGuard<'static, Work> {
    OFFICE.get().work.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wake(mut work: MutexGuard<'_, Work>) {
    if work.has_thread {
        drop(work);
        OFFICE.get().changed.notify_one();
        return;
    }
    match thread::Builder::new().name("lpc-maintenance".into()).spawn(run) {
        Ok(_) => work.has_thread = true,
        // The next event tries again. Until then memory stays where it is, and what was deferred (loans that go
        // back, what a writer left) goes out with what its connection sends next, and not by itself.
        Err(error) => {
            drop(work);
            warnings::of_process().warn_of(Warning::NoMaintenance, &error);
        }
    }
}

fn run() {
    let changed = &OFFICE.get().changed;
    let mut work = work();
    loop {
        let now = Instant::now();
        let due = work.later.iter().map(|visit| visit.at).chain(work.private).min();
        let is_due = due.is_some_and(|due| due <= now);
        if work.to_flush.is_empty() && !is_due {
            work = match due {
                Some(due) => changed.wait_timeout(work, due - now).unwrap_or_else(PoisonError::into_inner).0,
                None => changed.wait(work).unwrap_or_else(PoisonError::into_inner),
            };
            continue;
        }
        if !work.to_flush.is_empty() {
            drop(work);
            thread::sleep(SOON);
            work = self::work();
        }
        let to_flush = std::mem::take(&mut work.to_flush);
        let now = Instant::now();
        let later: Vec<_> = work.later.extract_if(.., |visit| visit.at <= now).collect();
        let private = work.private.take_if(|at| *at <= now);
        drop(work);
        let to_flush = to_flush.into_iter().map(|link| Visit { at: now, what: What::Flush(SOON), link });
        let again: Vec<_> = later.into_iter().chain(to_flush).filter_map(paid).collect();
        let private = private.filter(|_| private::trim() | buffer::trim()).map(|_| Instant::now() + KEPT);
        work = self::work();
        work.later.extend(again);
        if private.is_some() {
            work.private = private;
        }
    }
}

/// Pays a visit, and says when the next one is, if at all.
fn paid(visit: Visit) -> Option<Visit> {
    let Visit { what, link, .. } = visit;
    let maintained = link.upgrade()?;
    let next = catch_unwind(AssertUnwindSafe(move || match what {
        What::Trim => Some((maintained.trim()?, What::Trim)),
        What::Flush(pause) => maintained.flush_deferred().then(|| (pause, What::Flush(LATE.min(pause * 2)))),
    }));
    let (after, what) = next.unwrap_or_else(|_| {
        tracing::error!("a connection is not looked after any more: that panicked");
        None
    })?;
    Some(Visit { at: Instant::now().checked_add(after)?, what, link })
}

/// What [`Maintained`] is registered by: `Weak<Link>` or of a client around it.
pub(crate) fn weak<T: Maintained + 'static>(of: &Arc<T>) -> Weak<dyn Maintained> {
    Arc::downgrade(of) as Weak<dyn Maintained>
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Guards against hangs.
    const GUARD: Duration = Duration::from_secs(30);

    /// Stuck until it was flushed so many times, and says when it is flushed.
    struct Stuck(Mutex<u32>, Sender<u32>);

    impl Maintained for Stuck {
        fn flush_deferred(&self) -> bool {
            let mut left = self.0.lock().unwrap();
            *left -= 1;
            self.1.send(*left).unwrap();
            *left > 0
        }

        fn trim(&self) -> Option<Duration> {
            None
        }
    }

    struct Panics;

    impl Maintained for Panics {
        fn flush_deferred(&self) -> bool {
            std::panic::resume_unwind(Box::new("flushed"));
        }

        fn trim(&self) -> Option<Duration> {
            std::panic::resume_unwind(Box::new("trimmed"));
        }
    }

    #[test]
    fn what_is_stuck_is_tried_until_it_is_not_whatever_else_panics() {
        let panics = Arc::new(Panics);
        let (sender, flushed) = channel();
        let stuck = Arc::new(Stuck(Mutex::new(4), sender));
        flush(weak(&panics));
        trim(weak(&panics), Duration::ZERO);
        flush(weak(&stuck));
        for left in [3, 2, 1, 0] {
            assert_eq!(flushed.recv_timeout(GUARD), Ok(left));
        }
        flush(weak(&panics));
        *stuck.0.lock().unwrap() = 1;
        flush(weak(&stuck));
        assert_eq!(flushed.recv_timeout(GUARD), Ok(0));
    }
}
