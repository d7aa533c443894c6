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
    /// When the last one was.
    at: Option<Instant>,
    /// What was unread, and for how long the peer has taken nothing of it.
    unread: Option<(Unread, Duration)>,
    /// How much had been heard of the peer, and for how long it is the same.
    heard: Option<(u64, Duration)>,
}

impl Seen {
    /// Looks again, and says for how long something is unread and nothing taken, and nothing was heard. A look
    /// counts for no more than the time `between` two: this process may have been stopped itself.
    fn look(
        &mut self,
        now: Instant,
        between: Duration,
        unread: Option<Unread>,
        heard: Option<u64>,
    ) -> (Option<Duration>, Option<Duration>) {
        let before = self.at.replace(now);
        let passed =
            before.map_or(Duration::ZERO, |before| now.saturating_duration_since(before)).min(between);
        let unread = count(&mut self.unread, unread, passed, |before, is| !is.shows_taken_since(before));
        (unread, count(&mut self.heard, heard, passed, PartialEq::eq))
    }
}

/// Counts on for as long as it is the same.
fn count<T>(
    seen: &mut Option<(T, Duration)>,
    is: Option<T>,
    passed: Duration,
    is_same: impl FnOnce(&T, &T) -> bool,
) -> Option<Duration> {
    let time = match (&*seen, &is) {
        (Some((before, time)), Some(is)) if is_same(before, is) => *time + passed,
        _ => Duration::ZERO,
    };
    *seen = is.map(|is| (is, time));
    seen.is_some().then_some(time)
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

/// What was sent and not read.
#[derive(Clone, Copy, Debug)]
struct Unread {
    /// Slots of the ring that were taken, while the sequence is there.
    taken: Option<u64>,
    /// Bytes that the socket has taken from this side since its beginning.
    written: u64,
    /// Memory of what the peer has not received of them: never less than they are.
    in_socket: usize,
}

impl Unread {
    /// Whether the peer must have taken something in between. That this side has sent more is no sign of it.
    fn shows_taken_since(&self, before: &Self) -> bool {
        // The sequence enters a ring that is empty.
        let of_ring = self.taken.is_some() && self.taken != before.taken;
        let written = self.written.saturating_sub(before.written);
        of_ring || (self.in_socket as u64) < (before.in_socket as u64).saturating_add(written)
    }
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
        let (unread_for, unheard_for) = seen.look(Instant::now(), self.time_between_looks(), unread, heard);
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
        let in_ring = self.sender().taken_so_far().in_ring;
        let written = self.writer.written();
        // Where it cannot be asked the peer is not accused.
        let in_socket = socket::unread(self.socket()).unwrap_or(0);
        let is_all = match in_ring {
            Some((taken, written)) => taken == written,
            None => in_socket == 0,
        };
        (!is_all).then_some(Unread { taken: in_ring.map(|(taken, _)| taken), written, in_socket })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    const LOOK: Duration = Duration::from_millis(10);

    fn after_looks(seen: &mut Seen, looks: u32, unread: impl Fn(u32) -> Unread) -> Duration {
        let start = Instant::now();
        let looks = (0..looks).map(|look| seen.look(start + LOOK * look, LOOK, Some(unread(look)), Some(0)));
        looks.last().unwrap().0.unwrap()
    }

    #[test]
    fn what_is_sent_is_no_sign_that_anything_was_taken() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let mut written = 0;
        let mut send = |len: usize| {
            ours.write_all(&vec![0; len]).unwrap();
            written += len as u64;
            Unread { taken: None, written, in_socket: socket::unread(&ours).unwrap() }
        };
        let first = send(16);
        let second = send(300);
        assert!(!second.shows_taken_since(&first));
        theirs.read_exact(&mut [0; 316]).unwrap();
        assert!(send(16).shows_taken_since(&second), "all that was there before was taken");
        let of_ring = |taken| Unread { taken: Some(taken), written: 0, in_socket: 0 };
        assert!(!of_ring(7).shows_taken_since(&of_ring(7)));
        assert!(of_ring(8).shows_taken_since(&of_ring(7)));

        let sends =
            |look| Unread { taken: None, written: 100 * u64::from(look), in_socket: 100 * look as usize };
        assert_eq!(after_looks(&mut Seen::default(), 9, sends), LOOK * 8);
        let is_taken = |look| of_ring(look / 8);
        assert_eq!(after_looks(&mut Seen::default(), 9, |look| is_taken(u64::from(look))), Duration::ZERO);
    }

    #[test]
    fn the_time_for_which_this_process_was_stopped_is_not_the_peers() {
        let mut seen = Seen::default();
        let unread = Some(Unread { taken: Some(1), written: 0, in_socket: 0 });
        let now = Instant::now();
        seen.look(now, LOOK, unread, Some(3));
        let after = now + Duration::from_secs(100);
        assert_eq!(seen.look(after, LOOK, unread, Some(3)), (Some(LOOK), Some(LOOK)));
        assert_eq!(seen.look(after + LOOK, LOOK, None, Some(4)), (None, Some(Duration::ZERO)));
    }
}
