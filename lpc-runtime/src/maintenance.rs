//! What has to happen although nobody calls: one thread for the whole process, asleep unless there is
//! something to do.
//!
//! - What was queued to travel with the next message goes out by itself when there is none for [`SOON`].
//! - Shared memory that was not used for a while is given back.
//! - A client that has results of its server's in shared memory is looked at: whether it reads at all.
//!
//! It never blocks on a peer, and holds no connection alive. Where a socket takes no more, it waits for that
//! to change, of all such sockets together. Where the system has no thread for it, what was queued is sent by
//! whoever queued it, as far as the socket takes it at once, and then by whoever waits next on the
//! connection; the next event tries again to start it. A panic over one connection is nothing to the others.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::mem;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::connection::warnings::{self, Warning};
use crate::memory::buffer;
use crate::sys::fork::PerProcess;
use crate::sys::{private, socket};

pub(crate) mod visits;

/// A connection that needs to be looked after.
pub(crate) trait Maintained: Send + Sync {
    /// Sends what was queued for longer than it should, without waiting, and says what is left.
    fn flush_deferred(&self) -> Left {
        Left::Nothing
    }

    /// There is no thread that would [flush](Self::flush_deferred). Whether a driver sees to it. Locks may be
    /// held.
    fn flush_without_maintenance(&self) -> bool {
        false
    }

    /// Gives back memory that is not in use, and sends what waits. Says when to come again, if at all.
    fn trim(&self) -> Option<Duration>;

    /// Looks whether the peer reads what it was sent. Says when to come again, if at all.
    fn look(&self) -> Option<Duration> {
        None
    }

    /// Whether the peer should give a sign of life, because a call is under way. What it has sent is received first,
    /// if nobody else does.
    fn awaits_peer(&self) -> bool {
        false
    }

    /// The peer does not read, as this error says: the connection is to end.
    fn does_not_read(&self, _error: io::Error) {}

    /// Nothing can be sent any more: what was queued never will be.
    fn send_failed(&self) {}

    /// A writer waits, and somebody should read.
    fn meanwhile(&self) {}

    /// The connection is about to be closed, or a server's to send nothing more: nothing that has arrived
    /// runs any more.
    fn closing(&self) {}

    /// The connection is over.
    fn closed(&self) {}
}

/// What is left of what was queued.
pub(crate) enum Left {
    /// Nothing that maintenance would have to see to.
    Nothing,
    /// Something that is to be tried again, after a while.
    Later,
    /// Something that is to be tried again when this socket takes more.
    Full(Socket),
}

pub(crate) type Socket = Arc<dyn AsFd + Send + Sync>;

/// How long a message waits for another one to travel with.
const SOON: Duration = Duration::from_millis(5);

/// How long at most until it is tried again, from [`SOON`] on each time twice as long.
const LATE: Duration = Duration::from_millis(80);

/// How long private memory is kept for use again, in milliseconds: or as long as the connection keeps shared
/// memory that has the shortest `pool_idle_timeout`.
static KEPT: AtomicU64 = AtomicU64::new(3000);

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
    /// What is called at its time, unless it is [taken back](Due) before: its time may be a peer's to choose.
    due: BTreeMap<(Instant, u64), Weak<dyn Maintained>>,
    /// What waits for its socket to take more.
    stuck: Vec<(Socket, Weak<dyn Maintained>)>,
    /// By which the thread is woken while it waits for sockets.
    bell: Option<UnixStream>,
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
    Look,
    /// Once more: this long after the last time.
    Flush(Duration),
}

impl Work {
    const NONE: Self = Self {
        to_flush: Vec::new(),
        later: Vec::new(),
        due: BTreeMap::new(),
        stuck: Vec::new(),
        bell: None,
        private: None,
        has_thread: false,
    };
}

/// Has [`Maintained::flush_deferred`] called soon; `false` where there is no thread to do so.
pub(crate) fn flush(link: Weak<dyn Maintained>) -> bool {
    let mut work = work();
    work.to_flush.push(link);
    if work.to_flush.len() > 1 && work.has_thread {
        return true;
    }
    let Err(error) = work.have_thread() else {
        wake(work);
        return true;
    };
    work.to_flush.pop();
    drop(work);
    warnings::of_process().warn_of(Warning::NoMaintenance, &error);
    false
}

/// Has [`Maintained::trim`] called after this time.
pub(crate) fn trim(link: Weak<dyn Maintained>, after: Duration) {
    visit(link, What::Trim, after);
}

/// Has [`Maintained::look`] called after this time.
pub(crate) fn look(link: Weak<dyn Maintained>, after: Duration) {
    visit(link, What::Look, after);
}

fn visit(link: Weak<dyn Maintained>, what: What, after: Duration) {
    // A time that no clock shows never comes.
    let Some(at) = Instant::now().checked_add(after) else { return };
    let mut work = work();
    work.later.push(Visit { at, what, link });
    wake_or_warn(work);
}

/// That something is called at its time. Dropping this takes it back, and leaves nothing.
#[derive(Debug)]
pub(crate) struct Due((Instant, u64));

/// Has [`Maintained::trim`] called then, once, as long as what this gives is kept.
#[must_use = "it is called only as long as this is kept"]
pub(crate) fn due(what: Weak<dyn Maintained>, at: Instant) -> Due {
    // A fork may drop what it has of its parent, and that is nothing of its own.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let key = (at, NEXT.fetch_add(1, Relaxed));
    let mut work = work();
    let is_first = work.due.first_key_value().is_none_or(|(first, _)| key < *first);
    work.due.insert(key, what);
    if is_first || !work.has_thread {
        wake_or_warn(work);
    }
    Due(key)
}

impl Drop for Due {
    fn drop(&mut self) {
        work().due.remove(&self.0);
    }
}

/// How long private memory is kept for use again.
fn kept() -> Duration {
    Duration::from_millis(KEPT.load(Relaxed))
}

/// Has private memory kept no longer than this.
pub(crate) fn keep_private(time: Duration) {
    KEPT.fetch_min(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Relaxed);
}

/// Has spare memory of this process given back after a while.
pub(crate) fn trim_private() {
    let mut work = work();
    if work.private.is_none() {
        work.private = Some(Instant::now() + kept());
        wake_or_warn(work);
    }
}

/// Gives back private memory that nobody took up since it was put down, if that is long enough ago. When to
/// come again, if any is left.
fn trim_spares() -> Option<Instant> {
    let now = Instant::now();
    let Some(before) = now.checked_sub(kept()) else { return Some(now + kept()) };
    let oldest = [private::trim(before), buffer::trim(before)].into_iter().flatten().min()?;
    Some(oldest + kept())
}

fn work() -> MutexGuard<'static, Work> {
    OFFICE.get().work.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Work {
    /// Starts the thread, if there is none.
    fn have_thread(&mut self) -> io::Result<()> {
        if !self.has_thread {
            thread::Builder::new().name("lpc-maintenance".into()).spawn(run)?;
            self.has_thread = true;
        }
        Ok(())
    }
}

/// Wakes the thread. Where there is none, memory stays where it is until the next event finds one.
fn wake_or_warn(mut work: MutexGuard<'_, Work>) {
    match work.have_thread() {
        Ok(()) => wake(work),
        Err(error) => {
            drop(work);
            warnings::of_process().warn_of(Warning::NoMaintenance, &error);
        }
    }
}

fn wake(work: MutexGuard<'_, Work>) {
    match &work.bell {
        // Where it is full it is heard.
        Some(bell) => drop((&*bell).write(&[0])),
        None => {
            drop(work);
            OFFICE.get().changed.notify_one();
        }
    }
}

/// Sleeps until something is due, a socket that was full takes more, or there is other work.
fn sleep(mut work: MutexGuard<'static, Work>, time: Option<Duration>) -> MutexGuard<'static, Work> {
    let changed = &OFFICE.get().changed;
    if !work.stuck.is_empty()
        && let Ok((bell, heard)) = UnixStream::pair()
        && bell.set_nonblocking(true).is_ok()
    {
        work.bell = Some(bell);
        let sockets: Vec<_> = work.stuck.iter().map(|(socket, _)| Arc::clone(socket)).collect();
        drop(work);
        let ready = socket::wait_for_room(heard.as_fd(), &sockets, time);
        let mut work = self::work();
        work.bell = None;
        // Others have been added behind these, at most. Where it cannot be waited for, all are tried after a
        // while.
        let ready = ready.unwrap_or_else(|_| {
            thread::sleep(LATE);
            vec![true; sockets.len()]
        });
        let mut ready = ready.into_iter();
        let now = Instant::now();
        let due: Vec<_> = work.stuck.extract_if(.., |_| ready.next().unwrap_or(false)).collect();
        work.later.extend(due.into_iter().map(|(_, link)| Visit { at: now, what: What::Flush(SOON), link }));
        return work;
    }
    // Without means to wait for them, they are tried after a while.
    let time = if work.stuck.is_empty() { time } else { Some(time.map_or(LATE, |time| time.min(LATE))) };
    let mut work = match time {
        Some(time) => changed.wait_timeout(work, time).unwrap_or_else(PoisonError::into_inner).0,
        None => changed.wait(work).unwrap_or_else(PoisonError::into_inner),
    };
    let now = Instant::now();
    let due = mem::take(&mut work.stuck);
    work.later.extend(due.into_iter().map(|(_, link)| Visit { at: now, what: What::Flush(SOON), link }));
    work
}

fn run() {
    let mut work = work();
    loop {
        let now = Instant::now();
        let first_due = work.due.first_key_value().map(|((at, _), _)| *at);
        let due = work.later.iter().map(|visit| visit.at).chain(work.private).chain(first_due).min();
        let is_due = due.is_some_and(|due| due <= now);
        if work.to_flush.is_empty() && !is_due {
            work = sleep(work, due.map(|due| due - now));
            continue;
        }
        if !work.to_flush.is_empty() {
            drop(work);
            thread::sleep(SOON);
            work = self::work();
        }
        let to_flush = mem::take(&mut work.to_flush);
        let now = Instant::now();
        let mut later: Vec<_> = work.later.extract_if(.., |visit| visit.at <= now).collect();
        while let Some(first) = work.due.first_entry().filter(|first| first.key().0 <= now) {
            let ((at, _), link) = first.remove_entry();
            later.push(Visit { at, what: What::Trim, link });
        }
        let private = work.private.take_if(|at| *at <= now);
        drop(work);
        let to_flush = to_flush.into_iter().map(|link| Visit { at: now, what: What::Flush(SOON), link });
        let (mut again, mut stuck) = (Vec::new(), Vec::new());
        for visit in later.into_iter().chain(to_flush) {
            match paid(visit) {
                Some(Next::At(visit)) => again.push(visit),
                Some(Next::WhenItTakesMore(socket, link)) => stuck.push((socket, link)),
                None => {}
            }
        }
        let private = private.and_then(|_| trim_spares());
        work = self::work();
        work.later.extend(again);
        work.stuck.extend(stuck);
        if private.is_some() {
            work.private = private;
        }
    }
}

/// When something is visited next.
enum Next {
    At(Visit),
    WhenItTakesMore(Socket, Weak<dyn Maintained>),
}

/// Pays a visit, and says when the next one is, if at all.
fn paid(visit: Visit) -> Option<Next> {
    let Visit { what, link, .. } = visit;
    let maintained = link.upgrade()?;
    let visited = catch_unwind(AssertUnwindSafe(move || match what {
        What::Trim => maintained.trim().map(|after| (after, What::Trim)).ok_or(None),
        What::Look => maintained.look().map(|after| (after, What::Look)).ok_or(None),
        What::Flush(pause) => match maintained.flush_deferred() {
            Left::Nothing => Err(None),
            Left::Later => Ok((pause, What::Flush(LATE.min(pause * 2)))),
            Left::Full(socket) => Err(Some(socket)),
        },
    }));
    let visited = visited.unwrap_or_else(|_| {
        tracing::error!("a connection is not looked after any more: that panicked");
        Err(None)
    });
    match visited {
        Ok((after, what)) => Some(Next::At(Visit { at: Instant::now().checked_add(after)?, what, link })),
        Err(socket) => Some(Next::WhenItTakesMore(socket?, link)),
    }
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
        fn flush_deferred(&self) -> Left {
            let mut left = self.0.lock().unwrap();
            *left -= 1;
            self.1.send(*left).unwrap();
            if *left > 0 { Left::Later } else { Left::Nothing }
        }

        fn trim(&self) -> Option<Duration> {
            None
        }
    }

    #[test]
    fn what_is_due_is_called_at_its_time_and_what_is_taken_back_leaves_nothing() {
        let (sender, calls) = channel();
        struct Called(Sender<u32>, u32);
        impl Maintained for Called {
            fn trim(&self) -> Option<Duration> {
                self.0.send(self.1).unwrap();
                None
            }
        }
        let [first, second, third] = [1, 2, 3].map(|number| Arc::new(Called(sender.clone(), number)));
        let now = Instant::now();
        let _second = due(weak(&second), now + Duration::from_millis(20));
        let _first = due(weak(&first), now);
        drop(due(weak(&third), now + GUARD));
        assert_eq!(Arc::weak_count(&third), 0);
        assert_eq!([(); 2].map(|()| calls.recv_timeout(GUARD).unwrap()), [1, 2]);
    }

    struct Panics;

    impl Maintained for Panics {
        fn flush_deferred(&self) -> Left {
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

    /// Has something for a socket that takes no more, and says when it is tried.
    struct Full(Arc<UnixStream>, Sender<()>);

    impl Maintained for Full {
        fn flush_deferred(&self) -> Left {
            self.1.send(()).unwrap();
            match (&*self.0).write_all(&[0]) {
                Ok(_) => Left::Nothing,
                Err(_) => Left::Full(Arc::clone(&self.0) as Socket),
            }
        }

        fn trim(&self) -> Option<Duration> {
            None
        }
    }

    #[test]
    fn what_a_full_socket_does_not_take_is_tried_when_it_does_and_not_before() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        while (&ours).write(&[0; 4096]).is_ok() {}
        let (sender, tries) = channel();
        let full = Arc::new(Full(Arc::new(ours), sender));
        flush(weak(&full));
        tries.recv_timeout(GUARD).unwrap();
        // Long enough for many tries, and others are not kept waiting.
        let (sender, flushed) = channel();
        let others = Arc::new(Stuck(Mutex::default(), sender));
        for _ in 0..20 {
            *others.0.lock().unwrap() = 1;
            flush(weak(&others));
            flushed.recv_timeout(GUARD).unwrap();
        }
        assert!(tries.try_recv().is_err(), "it was tried in vain");
        theirs.set_nonblocking(true).unwrap();
        while std::io::Read::read(&mut theirs, &mut [0; 4096]).is_ok_and(|len| len > 0) {}
        tries.recv_timeout(GUARD).unwrap();
    }
}
