//! Which methods are quick enough to run on the thread or task that read the call.
//!
//! Handing a call to another thread costs a wake-up, tens of microseconds where the other thread sleeps on
//! another CPU. A method that takes less is better run where it was read; one that takes longer must not keep
//! the calls behind it waiting. Which is which is learnt from how long the method took so far.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::time::Duration;

/// About what waking a sleeping thread on another CPU costs.
const QUICK: Duration = Duration::from_micros(20);

/// Of the calls of a quick method, one in so many is timed: looking at the clock twice is a tenth of the
/// shortest call.
const TIMED: u32 = 16;

/// How long one method takes, as a moving average, shared by all connections.
///
/// ```
/// use core::time::Duration;
/// use lpc_core::pace::Pace;
///
/// let pace = Pace::new();
/// assert!(!pace.is_quick()); // not known: be careful
/// for _ in 0..8 {
///     pace.took(Duration::from_micros(2));
/// }
/// assert!(pace.is_quick());
/// pace.took(Duration::from_millis(5)); // waited for something, this time
/// assert!(!pace.is_quick());
/// ```
#[derive(Debug)]
pub struct Pace {
    /// Average in nanoseconds; `u32::MAX` where nothing is known. A lost update among racing threads loses
    /// one sample of many, so plain loads and stores do.
    average: AtomicU32,
    /// Calls since it was found to be quick. Lost updates do no harm here, either.
    calls: AtomicU32,
}

impl Pace {
    /// Nothing known yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { average: AtomicU32::new(u32::MAX), calls: AtomicU32::new(0) }
    }

    /// Whether the next call is expected to take less than handing it over would.
    #[must_use]
    pub fn is_quick(&self) -> bool {
        u128::from(self.average.load(Relaxed)) < QUICK.as_nanos()
    }

    /// Whether it is to be said how long the next call [took](Self::took): of each, unless the method is
    /// quick.
    #[must_use]
    pub fn is_timed(&self) -> bool {
        if !self.is_quick() {
            return true;
        }
        let calls = self.calls.load(Relaxed).wrapping_add(1);
        self.calls.store(calls, Relaxed);
        calls.is_multiple_of(TIMED)
    }

    /// One call took this long.
    pub fn took(&self, time: Duration) {
        let sample = u32::try_from(time.as_nanos()).unwrap_or(u32::MAX - 1);
        let average = self.average.load(Relaxed);
        let next = if average == u32::MAX { sample } else { average - average / 8 + sample / 8 };
        self.average.store(next.min(u32::MAX - 1), Relaxed);
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::new()
    }
}
