//! [`QuotaWait`]: how long a caller waits where a quota of its connection is used up.

use std::time::{Duration, Instant};

use lpc_core::{Error, ErrorKind, Result};

use crate::config::AtQuota;

/// What a caller waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quota {
    /// So many bytes of shared memory.
    Memory(u64),
    /// A permit for one more call in flight.
    Permit,
}

/// One caller's wait for a quota: as long as [`AtQuota`] says, and no longer than the call's deadline.
#[derive(Debug)]
pub(crate) struct QuotaWait {
    at_quota: AtQuota,
    deadline: Option<Instant>,
    until: Option<Instant>,
    /// How often memory was free, and gone again when the caller came to take it.
    missed: u32,
}

/// How often a caller looks again at once for memory that was free and then was not.
const TRIES: u32 = 8;

/// How long it pauses between two tries after that.
const PAUSE: Duration = Duration::from_millis(5);

impl QuotaWait {
    pub(crate) fn new(at_quota: AtQuota, deadline: Option<Instant>) -> Self {
        Self { at_quota, deadline, until: None, missed: 0 }
    }

    /// The memory is free, by the look of it, and the caller tries to take it: after this pause, where it has
    /// failed to over and over.
    ///
    /// # Errors
    ///
    /// As [`left`](Self::left), then.
    pub(crate) fn try_again(&mut self, bytes: u64) -> Result<Duration> {
        self.missed += 1;
        if self.missed > TRIES { Ok(self.left(Quota::Memory(bytes))?.min(PAUSE)) } else { Ok(Duration::ZERO) }
    }

    /// How long the caller may wait yet.
    ///
    /// # Errors
    ///
    /// Not at all: [`ErrorKind::ResourceExhausted`], naming the knob; [`ErrorKind::TimedOut`] at the
    /// deadline.
    pub(crate) fn left(&mut self, quota: Quota) -> Result<Duration> {
        let now = Instant::now();
        let fail = |kind, why: &str| {
            let message = match quota {
                Quota::Memory(bytes) => format!(
                    "no room for {bytes} bytes in the connection's shared memory, which other calls and loans take \
                     (pool_limit; {why})"
                ),
                Quota::Permit => format!("too many calls in flight (max_calls_in_flight; {why})"),
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
