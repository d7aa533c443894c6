//! Times of calls, and what is said of them.

use std::time::Duration;

/// Times of calls, and how long they took in all.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Of each call, in nanoseconds.
    times: Vec<u64>,
    /// From the first call's begin to the last one's end: less than the sum of the times where calls overlap.
    elapsed: Duration,
}

impl Samples {
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

/// The least of these that no fewer than the part `at` of them, of 0 to 1, are at most: the nearest rank.
///
/// ```
/// assert_eq!(lpc_cli::measure::quantile(&[1, 2, 3, 4, 100], 0.5), Some(3));
/// ```
pub fn quantile<T: Copy>(sorted: &[T], at: f64) -> Option<T> {
    let rank = (at * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
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
