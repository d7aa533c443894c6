//! Whether to spin for the peer's next message for a moment before sleeping.
//!
//! A thread that sleeps has to be woken by another CPU, which takes tens of microseconds, ten times what a
//! call takes. A thread that instead spins for as long as a wake takes is at worst twice as slow as the
//! better of both (Karlin, Li, Manasse, Owicki, *Empirical studies of competitive spinning for a
//! shared-memory multiprocessor*, 1991), as long as the peer has a CPU of its own to run on. Where the
//! message is late as a rule, [`Spin`] learns not to look.

mod thread;

use core::time::Duration;

pub use self::thread::ThreadSpin;

/// Learns how long to look.
///
/// ```
/// use core::time::Duration;
/// use lpc_core::spin::Spin;
///
/// let micros = Duration::from_micros;
/// let mut spin = Spin::new(micros(20));
/// assert_eq!(spin.time(), micros(20));
/// spin.found(|| micros(3)); // something came while we looked
/// for _ in 0..4 {
///     assert_eq!(spin.time(), micros(20));
///     spin.missed(); // nothing came
/// }
/// assert_eq!(spin.time(), micros(0)); // it does not pay: sleep at once, for some time
/// ```
///
/// Two sides that both sleep keep each other asleep: a message then comes no sooner than it takes to wake its
/// sender. So a side that tries again after a while spins for longer than that, often enough for the other
/// side to try as well.
#[derive(Debug)]
pub struct Spin {
    limit: Duration,
    state: State,
    /// Waits without a spin before the next try.
    pause: u32,
    /// Tries that end with the first message that is late, before one that goes on.
    short: u32,
}

#[derive(Debug)]
enum State {
    /// Spinning pays; so many more misses than finds of late.
    Pays { misses: u32 },
    /// It does not: so many waits are left before the next try.
    Rests { left: u32 },
    /// A try; so many are left to it.
    Tries { left: u32 },
}

/// Misses in excess of finds after which spinning does not pay.
const MISSES: u32 = 4;

/// A try spins for so many times the limit: the time that it takes to wake a peer, and for that one to
/// answer, also where waking takes several times as long as it should. (Measured on virtual machines: 20 to
/// 55 µs.)
const LONGER: u32 = 8;

/// Waits without a spin between two tries: at first, and at most. Together with `LONGER` the latter bounds
/// what spinning in vain costs, to an eighth of a limit for each wait.
const PAUSES: (u32, u32) = (8, 64);

/// Waits of a try that finds something, though late: until the peer has tried as well.
const TRIES: u32 = 2 * PAUSES.1;

/// Short tries after one that went on for so long and found nothing early. The peer is late for another
/// reason than that it sleeps, say because its caller has something else to do, and each look takes as long
/// as it is late. A short try is enough to meet one of the peer's that goes on.
const SHORT: u32 = 32;

impl Spin {
    /// Spins for as long as `limit`; zero is never.
    #[must_use]
    pub const fn new(limit: Duration) -> Self {
        Self { limit, state: State::Pays { misses: 0 }, pause: PAUSES.0, short: 0 }
    }

    /// How long to look this time. Zero: sleep at once. Where it is more, [`found`](Self::found) or
    /// [`missed`](Self::missed) is to be told next.
    #[inline]
    pub fn time(&mut self) -> Duration {
        match &mut self.state {
            State::Pays { .. } => self.limit,
            State::Tries { .. } => self.limit.saturating_mul(LONGER),
            State::Rests { left: 0 } => {
                self.state = State::Tries { left: if self.short == 0 { TRIES } else { 0 } };
                self.limit.saturating_mul(LONGER)
            }
            State::Rests { left } => {
                *left -= 1;
                Duration::ZERO
            }
        }
    }

    /// Something came, and how long `after` is only asked where that matters: as long as spinning pays it
    /// does not.
    pub fn found(&mut self, after: impl FnOnce() -> Duration) {
        match &mut self.state {
            State::Pays { misses } => *misses = misses.saturating_sub(1),
            _ if after() < self.limit => {
                self.state = State::Pays { misses: MISSES / 2 };
                self.pause = PAUSES.0;
                self.short = 0;
            }
            State::Tries { left: 0 } => {
                self.short = self.short.checked_sub(1).unwrap_or(SHORT);
                self.rest();
            }
            State::Tries { left } => *left -= 1,
            State::Rests { .. } => {}
        }
    }

    /// Nothing came in time.
    pub fn missed(&mut self) {
        match &mut self.state {
            State::Pays { misses } if *misses + 1 < MISSES => *misses += 1,
            _ => self.rest(),
        }
    }

    fn rest(&mut self) {
        self.state = State::Rests { left: self.pause };
        self.pause = (self.pause * 2).min(PAUSES.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(20);

    /// The share of `waits` in which it looked, where something comes `after` so long.
    fn spins(spin: &mut Spin, waits: u32, after: impl Fn(u32) -> Duration) -> f64 {
        let mut spins = 0;
        for wait in 0..waits {
            let time = spin.time();
            if time.is_zero() {
                continue;
            }
            spins += 1;
            if after(wait) < time { spin.found(|| after(wait)) } else { spin.missed() }
        }
        f64::from(spins) / f64::from(waits)
    }

    #[test]
    fn it_goes_on_as_long_as_most_spins_find_something() {
        let mut spin = Spin::new(LIMIT);
        assert_eq!(spins(&mut spin, 10_000, |_| LIMIT / 4), 1.0);
        let some = |wait| if wait % 3 == 0 { LIMIT * 50 } else { LIMIT / 4 };
        assert_eq!(spins(&mut spin, 10_000, some), 1.0, "two of three");
    }

    #[test]
    fn it_stops_where_messages_are_late_and_begins_again_when_they_are_not() {
        let mut spin = Spin::new(LIMIT);
        assert!(spins(&mut spin, 10_000, |_| LIMIT * 50) < 0.02);
        assert!(spins(&mut spin, 10_000, |wait| if wait % 4 == 0 { LIMIT / 4 } else { LIMIT * 50 }) < 0.2);
        spins(&mut spin, PAUSES.1 + 1, |_| LIMIT / 4);
        assert_eq!(spins(&mut spin, 100, |_| LIMIT / 4), 1.0);
    }

    /// Each waits for the other, and is late by the time it takes to wake it where it slept.
    #[test]
    fn two_that_have_stopped_find_each_other_again() {
        let mut sides = [Spin::new(LIMIT), Spin::new(LIMIT)];
        for side in &mut sides {
            spins(side, 1000, |_| LIMIT * 50);
        }
        assert_eq!(meet(&mut sides, 4 * 1000), [false, false]);
        assert!(sides.iter().all(|side| matches!(side.state, State::Pays { .. })));
    }

    /// To wake takes much longer than it should.
    #[test]
    fn two_that_are_slow_to_wake_find_each_other_again() {
        let mut sides = [Spin::new(LIMIT), Spin::new(LIMIT)];
        for side in &mut sides {
            spins(side, 20, |_| LIMIT * 50);
        }
        assert_eq!(meet_after(&mut sides, 500, LIMIT * 5), [false, false]);
    }

    /// Which of them sleep after so many turns.
    fn meet(sides: &mut [Spin; 2], turns: usize) -> [bool; 2] {
        meet_after(sides, turns, LIMIT + LIMIT / 4)
    }

    /// The same, where one that sleeps takes so long to answer.
    fn meet_after(sides: &mut [Spin; 2], turns: usize, late: Duration) -> [bool; 2] {
        let mut is_asleep = [true, true];
        for turn in 0..turns {
            let (me, other) = (turn % 2, 1 - turn % 2);
            let answer = if is_asleep[other] { late } else { LIMIT / 10 };
            let time = sides[me].time();
            is_asleep[me] = time <= answer;
            if time > answer {
                sides[me].found(|| answer);
            } else if !time.is_zero() {
                sides[me].missed();
            }
        }
        is_asleep
    }

    /// A look takes as long as the message is late: a caller that thinks in between, a method that takes its
    /// time.
    #[test]
    fn it_seldom_spins_where_each_message_is_late_by_a_little() {
        let mut spin = Spin::new(LIMIT);
        assert!(spins(&mut spin, 100_000, |_| LIMIT * 5 / 2) < 0.1);
    }

    #[test]
    fn two_that_were_late_for_another_reason_find_each_other_again() {
        let mut sides = [Spin::new(LIMIT), Spin::new(LIMIT)];
        for (side, waits) in sides.iter_mut().zip([10_000, 11_111]) {
            spins(side, waits, |_| LIMIT * 5 / 2);
        }
        assert_eq!(meet(&mut sides, 2 * 5000), [false, false]);
    }

    #[test]
    fn a_limit_of_zero_is_never() {
        let mut spin = Spin::new(Duration::ZERO);
        assert_eq!(spins(&mut spin, 100, |_| Duration::ZERO), 0.0);
    }
}
