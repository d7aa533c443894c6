//! What has to happen although nobody calls: one thread for the whole process, asleep unless there is something to do.
//!
//! - What was queued to travel with the next message goes out by itself when there is none for [`SOON`].
//! - Shared memory that was not used for a while is given back.
//!
//! It never blocks on a peer, and holds no connection alive.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::buffer;
use crate::sys::fork::Birth;
use crate::sys::private;

/// A connection that needs to be looked after.
pub(crate) trait Tend: Send + Sync {
    /// Sends what was queued for longer than it should, without waiting. Whether to come again soon, for what is left.
    fn flush_late(&self) -> bool;

    /// Gives back memory that is not in use, and sends what waits. Says when to come again, if at all.
    fn trim(&self) -> Option<Duration>;

    /// Nothing can be sent any more: what was queued never will be.
    fn send_failed(&self) {}

    /// A writer waits, and somebody should read.
    fn meanwhile(&self) {}

    /// The connection is over.
    fn closed(&self) {}
}

/// How long a message waits for another one to travel with.
const SOON: Duration = Duration::from_millis(5);

/// How long private memory is kept, at least, for use again.
const KEPT: Duration = Duration::from_secs(3);

static WORK: Mutex<Work> = Mutex::new(Work::NONE);

static CHANGED: Condvar = Condvar::new();

struct Work {
    /// To be flushed.
    soon: Vec<Weak<dyn Tend>>,
    /// To be trimmed, each at its time.
    later: Vec<(Instant, Weak<dyn Tend>)>,
    /// When to look after spare memory that is [`private`] or of a [`buffer`].
    private: Option<Instant>,
    /// The process that has the thread.
    keeper: Option<Birth>,
}

impl Work {
    const NONE: Self = Self { soon: Vec::new(), later: Vec::new(), private: None, keeper: None };
}

/// Has [`Tend::flush_late`] called soon.
pub(crate) fn flush(link: Weak<dyn Tend>) {
    let mut work = work();
    work.soon.push(link);
    if work.soon.len() == 1 || work.keeper.is_none() {
        wake(work);
    }
}

/// Has [`Tend::trim`] called after this time.
pub(crate) fn trim(link: Weak<dyn Tend>, after: Duration) {
    // A time that no clock shows never comes.
    let Some(at) = Instant::now().checked_add(after) else { return };
    let mut work = work();
    work.later.push((at, link));
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
    let mut work = WORK.lock().unwrap_or_else(PoisonError::into_inner);
    if work.keeper.is_some_and(|keeper| !keeper.is_here()) {
        // A fork has not the thread, and nothing to do for the other process.
        *work = Work::NONE;
    }
    work
}

fn wake(mut work: MutexGuard<'_, Work>) {
    if work.keeper.is_some() {
        drop(work);
        CHANGED.notify_one();
        return;
    }
    match thread::Builder::new().name("lpc-housekeeper".into()).spawn(keep) {
        Ok(_) => work.keeper = Some(Birth::here()),
        // The next one who comes tries again. Until then memory stays where it is; no call depends on it.
        Err(error) => tracing::warn!(%error, "no thread to give memory back"),
    }
}

fn keep() {
    let mut work = work();
    loop {
        let now = Instant::now();
        let due = work.later.iter().map(|(at, _)| *at).chain(work.private).min();
        let is_due = due.is_some_and(|due| due <= now);
        if work.soon.is_empty() && !is_due {
            work = match due {
                Some(due) => CHANGED.wait_timeout(work, due - now).unwrap_or_else(PoisonError::into_inner).0,
                None => CHANGED.wait(work).unwrap_or_else(PoisonError::into_inner),
            };
            continue;
        }
        if !work.soon.is_empty() {
            drop(work);
            thread::sleep(SOON);
            work = self::work();
        }
        let soon = std::mem::take(&mut work.soon);
        let now = Instant::now();
        let later: Vec<_> = work.later.extract_if(.., |(at, _)| *at <= now).collect();
        let private = work.private.take_if(|at| *at <= now);
        drop(work);
        let mut again: Vec<(Instant, Weak<dyn Tend>)> = Vec::new();
        for (_, link) in later {
            let after = link.upgrade().and_then(|link| link.trim());
            if let Some(at) = after.and_then(|after| Instant::now().checked_add(after)) {
                again.push((at, link));
            }
        }
        let stalled: Vec<_> =
            soon.into_iter().filter(|link| link.upgrade().is_some_and(|link| link.flush_late())).collect();
        let private = private.filter(|_| private::trim() | buffer::trim()).map(|_| Instant::now() + KEPT);
        work = self::work();
        work.later.extend(again);
        work.soon.extend(stalled);
        if private.is_some() {
            work.private = private;
        }
    }
}

/// What [`Tend`] is registered by: `Weak<Link>` or of a client around it.
pub(crate) fn weak<T: Tend + 'static>(of: &Arc<T>) -> Weak<dyn Tend> {
    Arc::downgrade(of) as Weak<dyn Tend>
}
