//! Whether the peer reads what it was sent.
//!
//! - A client that does not would keep its results in shared memory for as long as it likes, without its
//!   socket
//!   ever getting full.
//! - With `keepalive` a peer that takes nothing, and sends nothing, while calls are under way is taken for
//!   stopped. Where it has read all it is sent an At frame, which needs no answer: the system, or the ring,
//!   tells that it was taken.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lpc_core::send::Taken;

use super::Link;
use crate::maintenance;
use crate::maintenance::visits::Visits;
use crate::sys::socket;

/// What is known of the peer's reading.
#[derive(Debug)]
pub(super) struct Reading {
    keepalive: Option<Duration>,
    /// Answers that lend memory were sent since the peer was last found to have read all.
    has_answers: AtomicBool,
    /// Signs of life that nothing else counts.
    heard: AtomicU64,
    visits: Visits,
    seen: Mutex<Seen>,
}

/// What the last visits have seen.
#[derive(Debug, Default)]
struct Seen {
    /// What was unread, and since when it is the same.
    unread: Option<(Unread, Instant)>,
    /// How much had been heard of the peer, and since when it is the same.
    heard: Option<(u64, Instant)>,
}

/// What it is, and since when it is the same.
fn since<T: PartialEq>(seen: &mut Option<(T, Instant)>, is: Option<T>) -> Option<Duration> {
    let now = Instant::now();
    let since = match seen {
        Some((before, since)) if Some(&*before) == is.as_ref() => *since,
        _ => now,
    };
    *seen = is.map(|is| (is, since));
    seen.is_some().then(|| now.saturating_duration_since(since))
}

impl Reading {
    pub(super) fn new(keepalive: Option<Duration>) -> Self {
        Self {
            keepalive,
            has_answers: AtomicBool::new(false),
            heard: AtomicU64::new(0),
            visits: Visits::default(),
            seen: Mutex::default(),
        }
    }
}

/// What was sent and not read: it changes with whatever is sent, or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unread {
    taken: Taken,
    in_socket: usize,
}

/// Visits while a peer may be silent for as long as it may.
const LOOKS: u32 = 8;

impl Link {
    /// An answer that lends memory was sent: the peer is looked at until it has read that.
    #[cold]
    pub(crate) fn watch_reading(&self) {
        self.reading.has_answers.store(true, SeqCst);
        self.begin_looks();
    }

    #[cold]
    fn begin_looks(&self) {
        if self.reading.visits.begin() {
            maintenance::look(self.this.clone(), self.time_between_looks());
        }
    }

    fn time_between_looks(&self) -> Duration {
        self.reading.keepalive.map_or(self.stall(), |time| time.min(self.stall())) / LOOKS
    }

    /// A call is under way: from now on the peer is to give signs of life, where that was asked for.
    #[inline]
    pub(crate) fn expect_life(&self) {
        if self.reading.keepalive.is_some() {
            self.begin_looks();
        }
    }

    /// The peer has given a sign of life.
    pub(crate) fn hear(&self) {
        // By the holder of the receive half alone.
        self.reading.heard.store(self.reading.heard.load(Relaxed) + 1, Relaxed);
    }

    /// Gives a peer that has read all a sign of life, and finds out whether it takes it.
    pub(crate) fn give_sign(&self) {
        if self.fork_guard.is_here() && self.unread().is_none() && self.sender().repeat_cpu().is_ok() {
            self.flush_or_schedule();
        }
    }

    /// Takes note if the peer has read all that it was sent until now. What it was sent after that, and
    /// answers nothing, it may leave unread: a client that makes no calls reads but now and then.
    pub(super) fn note_what_is_read(&self) {
        // First: an answer that is sent meanwhile is looked at again.
        if self.reading.has_answers.swap(false, SeqCst) && self.unread().is_some() {
            self.reading.has_answers.store(true, SeqCst);
        }
    }

    /// Maintenance has come: a peer that has read nothing of what waits for `stall_timeout` is disconnected,
    /// as one is whose socket is full; and so is one that gives no sign of life for `keepalive`. Says when to
    /// come again, if at all.
    pub(super) fn look_whether_it_reads(&self) -> Option<Duration> {
        let mut error = None;
        let goes_on = self.reading.visits.visit(|| {
            if !self.fork_guard.is_here() || self.is_broken() {
                return false;
            }
            let maintained = self.reading.keepalive.and_then(|_| self.upkeep.maintained());
            let awaits = maintained.is_some_and(|maintained| maintained.awaits_peer());
            self.note_what_is_read();
            let has_answers = self.reading.has_answers.load(SeqCst);
            error = self.look_once(has_answers, awaits);
            error.is_none() && (awaits || has_answers)
        });
        if let Some(error) = error
            && let Some(maintained) = self.upkeep.maintained()
        {
            maintained.does_not_read(error);
        }
        goes_on.then(|| self.time_between_looks())
    }

    /// Looks once, and says why the connection is to end, if it is.
    fn look_once(&self, has_answers: bool, awaits: bool) -> Option<io::Error> {
        let unread = if has_answers || awaits { self.unread() } else { None };
        let heard = awaits.then(|| self.counters.received_messages() + self.reading.heard.load(Relaxed));
        let mut seen = self.reading.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let unread_for = since(&mut seen.unread, unread);
        let unheard_for = since(&mut seen.heard, heard);
        drop(seen);
        if has_answers && unread_for.is_some_and(|time| time >= self.stall()) {
            return Some(self.writer.has_stopped_reading());
        }
        let (time, unheard_for) = (self.reading.keepalive?, unheard_for?);
        match unread_for {
            Some(unread_for) if unread_for.min(unheard_for) >= time => {
                let message = format!("it has given no sign of life for {time:?} (keepalive)");
                return Some(io::Error::other(message));
            }
            Some(_) => {}
            None => self.give_sign(),
        }
        None
    }

    /// What the peer has not read; `None` where it has read all.
    fn unread(&self) -> Option<Unread> {
        let taken = self.sender().taken_so_far();
        // Where it cannot be asked the peer is not accused.
        let in_socket = socket::unread(self.socket()).unwrap_or(0);
        let is_all = match taken.in_ring {
            Some((taken, written)) => taken == written,
            None => in_socket == 0,
        };
        (!is_all).then_some(Unread { taken, in_socket })
    }
}
