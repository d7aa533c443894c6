//! [`StallTimer`]: for how long a peer has stopped in the middle of a message.

use core::time::Duration;
use std::time::Instant;

/// Adds up the time in which a message that has begun to arrive was waited for.
///
/// What does not count is the time in which nobody waits: while nobody holds the receive half, the peer's
/// bytes may be there and nobody knows. What does count is the time of all holders who waited, one after the
/// other, each of them shorter than the limit.
///
/// ```
/// use std::time::{Duration, Instant};
/// use lpc_core::receive::StallTimer;
///
/// let (now, second) = (Instant::now(), Duration::from_secs(1));
/// let mut timer = StallTimer::default();
/// assert_eq!(timer.wait(now, 3 * second), Some(now + 3 * second));
/// timer.pause(now + second);
/// // A minute later somebody else waits.
/// let later = now + 60 * second;
/// assert_eq!(timer.wait(later, 3 * second), Some(later + 2 * second));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct StallTimer {
    /// Time that was waited by holders of the receive half who wait no more.
    waited: Duration,
    /// Since when somebody waits.
    since: Option<Instant>,
}

impl StallTimer {
    /// Somebody waits, if not since before. Gives the point in time at which the peer has taken longer than
    /// `limit`; `None` is never.
    pub fn wait(&mut self, now: Instant, limit: Duration) -> Option<Instant> {
        let since = *self.since.get_or_insert(now);
        since.checked_add(limit.saturating_sub(self.waited))
    }

    /// Nobody waits for the moment.
    pub fn pause(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.waited = self.waited.saturating_add(now.saturating_duration_since(since));
        }
    }

    /// A message has arrived as a whole.
    #[inline]
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_waited_is_added_up_and_begins_anew_with_a_whole_message() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut timer = StallTimer::default();
        for turn in 0..3 {
            let at = now + 10 * turn * second;
            assert_eq!(timer.wait(at, 3 * second), Some(at + (3 - turn) * second));
            assert_eq!(timer.wait(at + second / 2, 3 * second), Some(at + (3 - turn) * second));
            timer.pause(at + second);
            timer.pause(at + 5 * second);
        }
        let at = now + 100 * second;
        assert_eq!(timer.wait(at, 3 * second), Some(at), "it is over");
        timer.reset();
        assert_eq!(timer.wait(at, 3 * second), Some(at + 3 * second));
        assert_eq!(timer.wait(at, Duration::MAX), None);
    }
}
