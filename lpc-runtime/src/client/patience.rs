//! [`Patience`]: how long a caller waits for room on its connection.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use lpc_core::{Error, ErrorKind, Result};

use crate::config::AtQuota;

/// What a caller waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// So many bytes of shared memory.
    Room(u64),
    /// One call less in flight.
    Call,
}

/// Runs out after the time that [`AtQuota`] says, or with the call's deadline.
#[derive(Debug)]
pub(crate) struct Patience {
    at_quota: AtQuota,
    deadline: Option<Instant>,
    until: Option<Instant>,
    /// Times that room was there, and gone again when it was to be taken.
    missed: u32,
}

/// Times that room is looked for again at once, where it was there and then was not.
const TRIES: u32 = 8;

/// Between two tries after that.
const PAUSE: Duration = Duration::from_millis(5);

impl Patience {
    pub(crate) fn new(at_quota: AtQuota, deadline: Option<Instant>) -> Self {
        Self { at_quota, deadline, until: None, missed: 0 }
    }

    /// There is room, by the look of it. The caller comes again if there was not; says how long it should wait before it
    /// tries, where that has happened over and over.
    ///
    /// # Errors
    ///
    /// As [`left`](Self::left), then.
    pub(crate) fn try_again(&mut self, need: Need) -> Result<Duration> {
        self.missed += 1;
        if self.missed > TRIES { Ok(self.left(need)?.min(PAUSE)) } else { Ok(Duration::ZERO) }
    }

    /// How long the caller may wait yet.
    ///
    /// # Errors
    ///
    /// Not at all: [`ErrorKind::ResourceExhausted`], naming the knob; [`ErrorKind::TimedOut`] at the deadline.
    pub(crate) fn left(&mut self, need: Need) -> Result<Duration> {
        let now = Instant::now();
        let fail = |kind, why: &str| {
            let message = match need {
                Need::Room(bytes) => format!(
                    "no room for {bytes} bytes in the connection's shared memory, which other calls and loans take \
                     (pool_limit; {why})"
                ),
                Need::Call => format!("too many calls in flight (max_calls_in_flight; {why})"),
            };
            Err(Error::new(kind, message))
        };
        let AtQuota::Wait(time) = self.at_quota else {
            return fail(ErrorKind::ResourceExhausted, "at_quota: Fail");
        };
        // A time that no clock shows is for ever.
        self.until = self.until.or_else(|| now.checked_add(time));
        let Some(until) = self.until.into_iter().chain(self.deadline).min() else { return Ok(FOREVER) };
        if until > now {
            return Ok(until - now);
        }
        if Some(until) == self.deadline {
            return fail(ErrorKind::TimedOut, "until the call's deadline");
        }
        fail(ErrorKind::ResourceExhausted, &format!("at_quota: Wait({time:?})"))
    }
}

const FOREVER: Duration = Duration::from_secs(1 << 30);

/// Wakes a thread that is parked.
pub(crate) fn waker_of(thread: Thread) -> Waker {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    Waker::from(Arc::new(Unpark(thread)))
}
