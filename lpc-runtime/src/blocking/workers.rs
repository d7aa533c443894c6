//! [`Workers`]: the threads of a server, and the watch for calls that hold up those behind them.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::Duration;

use super::connection::Connection;
use crate::connection::inbox::Inbox;
use crate::connection::warnings::{Warning, Warnings};

/// A connection to be led: its messages are received and its calls run, until another thread leads it or it
/// is over. Without the receive half, only calls that wait are run.
pub(super) struct Work {
    pub(super) connection: Arc<Connection>,
    pub(super) inbox: Option<Box<Inbox>>,
}

/// Threads that lead connections, made as they are needed and kept for a while.
#[derive(Debug, Default)]
pub(super) struct Workers {
    idle: Mutex<Vec<Arc<Seat>>>,
    watch: Watch,
    warnings: Warnings,
}

/// Where a thread of the pool is given its work.
struct Seat {
    work: Mutex<Option<Work>>,
    thread: OnceLock<Thread>,
}

/// How long a thread waits for work before it ends.
const KEPT_IDLE: Duration = Duration::from_secs(10);

impl Workers {
    /// Has a thread do this: an idle one, or else a new one. Gives the work back where the system has no
    /// thread left.
    pub(super) fn take(self: &Arc<Self>, work: Work) -> Result<(), Work> {
        let idle = lock(&self.idle).pop();
        if let Some(seat) = idle {
            *lock(&seat.work) = Some(work);
            if let Some(thread) = seat.thread.get() {
                thread.unpark();
            }
            return Ok(());
        }
        let seat = Arc::new(Seat { work: Mutex::new(Some(work)), thread: OnceLock::new() });
        let (workers, theirs) = (Arc::clone(self), Arc::clone(&seat));
        match thread::Builder::new().name("lpc-worker".into()).spawn(move || workers.work(&theirs)) {
            Ok(_) => Ok(()),
            Err(error) => {
                self.warnings.warn_of(Warning::NoWorker, &error);
                Err(lock(&seat.work).take().expect("the thread that would take it does not exist"))
            }
        }
    }

    fn work(self: &Arc<Self>, seat: &Arc<Seat>) {
        seat.thread.get_or_init(thread::current);
        loop {
            let work = lock(&seat.work).take();
            if let Some(work) = work {
                work.connection.work(work.inbox, self);
                lock(&self.idle).push(Arc::clone(seat));
                continue;
            }
            thread::park_timeout(KEPT_IDLE);
            if lock(&seat.work).is_some() {
                continue;
            }
            // Nothing came, or the wake-up was for nothing. The thread that takes the seat off the list gives
            // it work.
            let mut idle = lock(&self.idle);
            if let Some(place) = idle.iter().position(|other| Arc::ptr_eq(other, seat)) {
                idle.swap_remove(place);
                return;
            }
        }
    }

    /// Adds a connection to those that are watched.
    pub(super) fn watch(&self, connection: &Arc<Connection>) {
        push_weak(&mut lock(&self.watch.connections), connection);
    }

    /// The connections that are alive.
    fn connections(&self) -> Vec<Arc<Connection>> {
        lock(&self.watch.connections).iter().filter_map(Weak::upgrade).collect()
    }

    /// Marks a connection whose leader runs a call itself. Without the mark no thread would receive if that
    /// call takes unexpectedly long.
    pub(super) fn begin(self: &Arc<Self>, busy: &AtomicU32) {
        busy.store(self.watch.tick.load(Relaxed), SeqCst);
        // Pairs with the watcher, which stores `asleep` and then looks at `busy`: one of the two sees the
        // other.
        if self.watch.asleep.load(SeqCst) {
            self.wake_watcher();
        }
    }

    /// Takes the mark off.
    pub(super) fn end(busy: &AtomicU32) {
        busy.store(IDLE, Relaxed);
    }

    #[cold]
    fn wake_watcher(self: &Arc<Self>) {
        if !self.watch.asleep.swap(false, SeqCst) {
            return;
        }
        let mut watcher = lock(&self.watch.thread);
        if let Some(thread) = &*watcher {
            let thread = thread.clone();
            drop(watcher);
            thread.unpark();
            return;
        }
        let workers = Arc::downgrade(self);
        match thread::Builder::new().name("lpc-watch".into()).spawn(move || watch(&workers)) {
            Ok(handle) => *watcher = Some(handle.thread().clone()),
            Err(error) => {
                self.warnings.warn_of(Warning::NoWatcher, &error);
                self.watch.asleep.store(true, SeqCst);
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if let Some(thread) = &*lock(&self.watch.thread) {
            thread.unpark();
        }
    }
}

/// `busy` of a connection whose leader is not running a call.
pub(super) const IDLE: u32 = 0;

/// How often the watcher looks, while there is something to watch.
pub(super) const TICK: Duration = Duration::from_millis(2);

/// Looks without seeing a call run after which the watcher sleeps: idle servers use no CPU.
const QUIET: u32 = 50;

#[derive(Debug)]
struct Watch {
    /// The watcher's looks, never [`IDLE`].
    tick: AtomicU32,
    asleep: AtomicBool,
    connections: Mutex<Vec<Weak<Connection>>>,
    thread: Mutex<Option<Thread>>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            tick: AtomicU32::new(1),
            asleep: AtomicBool::new(true),
            connections: Mutex::default(),
            thread: Mutex::default(),
        }
    }
}

/// Hands over the receive half of connections whose leader is held up by a call that was expected to be
/// quick.
fn watch(workers: &Weak<Workers>) {
    let mut quiet = 0;
    loop {
        thread::park_timeout(TICK);
        let Some(workers) = workers.upgrade() else { return };
        let tick = workers.watch.tick.load(Relaxed);
        workers.watch.tick.store(tick.wrapping_add(1).max(1), Relaxed);
        let mut seen = false;
        for connection in workers.connections() {
            let since = connection.busy().load(SeqCst);
            seen |= since != IDLE;
            if since != IDLE && since != tick {
                connection.take_over(&workers);
            }
        }
        quiet = if seen { 0 } else { quiet + 1 };
        if quiet > QUIET {
            workers.watch.asleep.store(true, SeqCst);
            let late = workers.connections().iter().any(|connection| connection.busy().load(SeqCst) != IDLE);
            if late && workers.watch.asleep.swap(false, SeqCst) {
                continue;
            }
            drop(workers);
            thread::park();
            quiet = 0;
        }
    }
}

/// Adds to a list of what may be alive, and drops what is not, now and then.
fn push_weak<T>(list: &mut Vec<Weak<T>>, item: &Arc<T>) {
    if list.len() == list.capacity() {
        list.retain(|item| item.strong_count() > 0);
        // So that the next time comes after as many additions as there are items.
        list.reserve(list.len() + 1);
    }
    list.push(Arc::downgrade(item));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat").finish_non_exhaustive()
    }
}
