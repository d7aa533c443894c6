//! Times of calls, and what is said of them.

use std::io;
use std::time::{Duration, Instant};

use super::Seeds;

/// Times of calls, and how long they took in all.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Of each call, in nanoseconds.
    times: Vec<u64>,
    /// From the first call's begin to the last one's end: less than the sum of the times where calls overlap.
    elapsed: Duration,
}

impl Samples {
    /// Calls one after the other, each timed: at least one, for at least `share`. A call is given a seed of
    /// its own.
    ///
    /// # Errors
    ///
    /// If a call fails.
    pub fn one_by_one<E>(share: Duration, mut call: impl FnMut(u8) -> Result<(), E>) -> Result<Self, E> {
        let mut samples = Self::default();
        let begin = Instant::now();
        let mut started = begin;
        for seed in Seeds::default() {
            call(seed)?;
            let now = Instant::now();
            samples.push(now - started);
            if now - begin >= share {
                break;
            }
            started = now;
        }
        Ok(samples)
    }

    /// Adds a call.
    pub fn push(&mut self, time: Duration) {
        self.times.push(time.as_nanos() as u64);
        self.elapsed += time;
    }

    /// All calls of callers that ran side by side for `elapsed`.
    pub fn side_by_side(callers: impl IntoIterator<Item = Self>, elapsed: Duration) -> Self {
        let times = callers.into_iter().flat_map(|samples| samples.times).collect();
        Self { times, elapsed }
    }

    /// The number of calls.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there was no call.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Calls a second.
    pub fn per_second(&self) -> f64 {
        self.len() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The [`quantile`]s of the times, in nanoseconds.
    pub fn quantiles<const N: usize>(&mut self, at: [f64; N]) -> Option<[u64; N]> {
        self.times.sort_unstable();
        let quantiles = at.map(|at| quantile(&self.times, at));
        quantiles.iter().all(Option::is_some).then(|| quantiles.map(Option::unwrap_or_default))
    }
}

/// Whether an answer is right.
///
/// # Errors
///
/// If it is not.
pub fn check(answer: u64, expected: u64) -> io::Result<()> {
    if answer == expected {
        Ok(())
    } else {
        Err(io::Error::other(format!("{answer} was answered, which is not {expected}")))
    }
}

/// The least of these that no fewer than the part `at` of them, of 0 to 1, are at most: the nearest rank.
///
/// ```
/// assert_eq!(lpc_cli::measure::quantile(&[1, 2, 3, 4, 100], 0.5), Some(3));
/// ```
pub fn quantile<T: Copy>(sorted: &[T], at: f64) -> Option<T> {
    let rank = (at * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// The [`quantile`] in the middle.
///
/// ```
/// assert_eq!(lpc_cli::measure::median([9, 1, 5]), Some(5));
/// ```
pub fn median(values: impl IntoIterator<Item = u64>) -> Option<u64> {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_unstable();
    quantile(&values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<u32> = (1..=100).collect();
        assert_eq!([0.0, 0.01, 0.5, 0.99, 1.0].map(|at| quantile(&values, at).unwrap()), [1, 1, 50, 99, 100]);
        assert_eq!(quantile(&[7], 0.99), Some(7));
        assert_eq!(quantile::<u8>(&[], 0.5), None);
    }

    #[test]
    fn calls_one_by_one_end_with_the_first_wrong_answer() {
        let mut calls = 0;
        let samples = Samples::one_by_one(Duration::ZERO, |seed| {
            calls += 1;
            check(u64::from(seed), u64::from(seed))
        });
        assert_eq!((samples.unwrap().len(), calls), (1, 1));
        let wrong = |seed| check(u64::from(seed), 1);
        let error = Samples::one_by_one(Duration::MAX, wrong).unwrap_err();
        assert_eq!(error.to_string(), "2 was answered, which is not 1");
    }

    #[test]
    fn calls_side_by_side_take_the_time_of_one() {
        let caller = |times: &[u64]| {
            let mut samples = Samples::default();
            times.iter().for_each(|time| samples.push(Duration::from_micros(*time)));
            samples
        };
        assert_eq!(caller(&[10, 30]).per_second().round(), 50_000.0);
        let callers = [caller(&[50, 10]), caller(&[40, 20])];
        let mut both = Samples::side_by_side(callers, Duration::from_micros(80));
        assert_eq!((both.len(), both.per_second().round()), (4, 50_000.0));
        assert_eq!(both.quantiles([0.5, 1.0]), Some([20_000, 50_000]));
        assert_eq!(Samples::default().quantiles([0.5]), None);
    }
}
