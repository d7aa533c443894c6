//! [`Stats`]: how many calls and bytes took which lane, and in which sizes.

use std::fmt;
use std::ops::RangeInclusive;

use lpc_core::Threshold;

/// The counts of a client or server since it was made, as they were at one moment.
///
/// ```
/// # use lpc::service;
/// # #[service] pub trait Echo { fn echo(&self, text: &str) -> lpc::Result<String>; }
/// # struct Plain;
/// # impl Echo for Plain { fn echo(&self, text: &str) -> lpc::Result<String> { Ok(text.to_owned()) } }
/// let echo = EchoClient::builder().threshold(lpc::Threshold::bytes(1000)).in_process(Plain)?;
/// echo.echo("small")?;
/// echo.echo(&"large".repeat(1000))?;
/// let stats = echo.client().stats();
/// assert_eq!(stats.calls, 2);
/// assert_eq!(stats.sent.socket.messages, 1);
/// assert_eq!(stats.sent.mapping.messages, 1);
/// # Ok::<(), lpc::Error>(())
/// ```
///
/// `Display` says it all in five lines:
///
/// ```
/// # use lpc::service;
/// # #[service] pub trait Echo { fn echo(&self, text: &str) -> lpc::Result<String>; }
/// # struct Plain;
/// # impl Echo for Plain { fn echo(&self, text: &str) -> lpc::Result<String> { Ok(text.to_owned()) } }
/// # let echo = EchoClient::builder().threshold(lpc::Threshold::bytes(1000)).in_process(Plain)?;
/// echo.echo("small")?;
/// echo.echo(&"large".repeat(1000))?;
/// let stats = echo.client().stats().to_string();
/// let mut lines = stats.lines();
/// assert_eq!(lines.next(), Some("calls: 2, errors: 0, fallbacks: 0"));
/// assert_eq!(lines.next(), Some("sent: socket 1 (6 B), mapping 1 (4.8 KiB), loans 0 (0 B)"));
/// # let lines: Vec<_> = lines.map(|line| line.split(':').next().unwrap()).collect();
/// # assert_eq!(lines, ["received", "waits", "quick lane"]);
/// # Ok::<(), lpc::Error>(())
/// ```
///
/// A client counts its connection, or if it [reconnects](crate::blocking::ClientBuilder::reconnect) all that
/// it had. A server counts all of its connections together, including those that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Calls that this side sent (a client) or received (a server).
    pub calls: u64,
    /// Calls that ended with an error of lpc's own, including those that were never sent. An implementation's
    /// `Err` is a result like any other.
    pub errors: u64,
    /// Bodies that this side encoded to be sent: arguments from a client, results from a server.
    pub sent: Lanes,
    /// Bodies that this side received.
    pub received: Lanes,
    /// Sent bodies above the threshold that took the socket nevertheless, because the pool (`pool_limit`) had
    /// no room for them, or the system no memory or descriptor.
    pub fallbacks: u64,
    /// How this side waited for the other's messages.
    pub waits: Waits,
    /// Messages through the [quick lane](crate::blocking::ClientBuilder::quick_lane).
    pub quick: Quick,
}

/// Messages that went through the rings of the quick lane rather than the socket.
///
/// These are calls and replies, whose bodies are in the ring (they count as the socket's in [`Lanes`]) or in
/// shared memory, and the protocol's own messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quick {
    /// Messages that this side sent.
    pub sent: u64,
    /// Messages that this side received. They may be more than the calls or replies, since a message also
    /// announces that the next one comes through the socket.
    pub received: u64,
    /// How often this side had to wake its peer through the socket.
    pub bells: u64,
}

/// How often this side waited for its peer's next message, and with what result.
///
/// A message that has come before this side begins to wait is not counted. If many waits are `missed`,
/// spinning takes processor time and gains nothing. If many have `slept` although calls follow each other
/// closely, a longer [`spin`](crate::blocking::ClientBuilder::spin) may help, unless both sides share a CPU,
/// on which neither spins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waits {
    /// The message came while this side was spinning.
    pub found: u64,
    /// This side spun in vain, and then slept.
    pub missed: u64,
    /// This side slept, or returned to the async runtime: all that is `missed`, and all waits without
    /// spinning.
    pub slept: u64,
}

/// The traffic of one direction, by lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lanes {
    /// Bodies through the Unix socket, or the ring of the quick lane.
    pub socket: Traffic,
    /// Bodies through shared memory.
    pub mapping: Traffic,
    /// Loans: each [`Shared`](crate::Shared) whose bytes were passed beside a body.
    pub loans: Traffic,
}

/// The traffic of one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// The number of bodies.
    pub messages: u64,
    /// Their encoded bytes, without frame headers.
    pub bytes: u64,
    /// How many bodies had which size.
    pub sizes: Sizes,
}

/// A histogram of bodies, or loans, by size in powers of two: how many were empty, of 1 byte, of 2, of 3 to
/// 4, of 5 to 8, and so on.
///
/// A body whose size is a power of two counts with the smaller ones, as it does for a [`Threshold`].
/// `Display` draws a table with bars:
///
/// ```
/// # use lpc::service;
/// # #[service] pub trait Echo { fn echo(&self, text: &str) -> lpc::Result<String>; }
/// # struct Plain;
/// # impl Echo for Plain { fn echo(&self, text: &str) -> lpc::Result<String> { Ok(text.to_owned()) } }
/// # let echo = EchoClient::builder().threshold(lpc::Threshold::OFF).in_process(Plain)?;
/// echo.echo("small")?; // encoded: one byte for the length, five of text
/// echo.echo("equal")?;
/// echo.echo(&"large".repeat(1000))?;
/// let sizes = echo.client().stats().sent.socket.sizes;
/// assert_eq!(sizes.iter().collect::<Vec<_>>(), [(5..=8, 2), (4097..=8192, 1)]);
/// let table = sizes.to_string();
/// assert_eq!(table.lines().collect::<Vec<_>>(), [
///     "     up to      bodies",
///     "         8           2  ########################################",
///     "      8KiB           1  ####################",
/// ]);
/// # Ok::<(), lpc::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sizes(pub(crate) [u64; BUCKETS]);

/// One bucket for 0, one for each power of two up to 2³⁷, and one for all sizes above.
pub(crate) const BUCKETS: usize = 40;

impl Lanes {
    /// How many of these bodies, of both lanes together, would have taken the mapping lane under another
    /// threshold.
    ///
    /// It is exact if the threshold is a power of two, [`ALWAYS`](Threshold::ALWAYS) or
    /// [`OFF`](Threshold::OFF). Since sizes are counted in powers of two, any other threshold leaves out the
    /// bodies between it and the next power of two: the true number is at least the one returned.
    ///
    /// ```
    /// # use lpc::service;
    /// # #[service] pub trait Echo { fn echo(&self, text: &str) -> lpc::Result<String>; }
    /// # struct Plain;
    /// # impl Echo for Plain { fn echo(&self, text: &str) -> lpc::Result<String> { Ok(text.to_owned()) } }
    /// use lpc::Threshold;
    ///
    /// let echo = EchoClient::builder().threshold(Threshold::bytes(4 << 10)).in_process(Plain)?;
    /// for len in [10, 2000, 3000, 5000] {
    ///     echo.echo(&"x".repeat(len))?;
    /// }
    /// let sent = echo.client().stats().sent;
    /// assert_eq!(sent.mapping.messages, 1);
    /// // What another threshold would have done:
    /// assert_eq!(sent.above(Threshold::bytes(1 << 10)), 3);
    /// assert_eq!(sent.above(Threshold::bytes(64 << 10)), 0);
    /// # Ok::<(), lpc::Error>(())
    /// ```
    #[must_use]
    pub fn above(&self, threshold: Threshold) -> u64 {
        let all = self.socket.sizes.iter().chain(self.mapping.sizes.iter());
        all.filter(|(sizes, _)| threshold.is_exceeded_by(*sizes.start())).map(|(_, count)| count).sum()
    }
}

impl Sizes {
    /// The sizes that occurred, in ascending order, and how often each did.
    pub fn iter(&self) -> impl Iterator<Item = (RangeInclusive<u64>, u64)> {
        let all = self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        all.map(|(bucket, count)| (sizes_in(bucket), *count))
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, errors, sent, received, fallbacks, waits, quick } = self;
        writeln!(f, "calls: {calls}, errors: {errors}, fallbacks: {fallbacks}")?;
        writeln!(f, "sent: {sent}\nreceived: {received}")?;
        write!(f, "waits: {waits}\nquick lane: {quick}")
    }
}

impl fmt::Display for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { socket, mapping, loans } = self;
        write!(f, "socket {socket}, mapping {mapping}, loans {loans}")
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.messages, Bytes(self.bytes))
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { found, missed, slept } = self;
        write!(f, "{found} found by spinning, {missed} spun in vain, {slept} slept")
    }
}

impl fmt::Display for Quick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, received, bells } = self;
        write!(f, "{sent} sent, {received} received, {bells} bells")
    }
}

/// A number of bytes, in the largest unit of which there is one.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let Some(power) = self.0.checked_ilog2().and_then(|log| (log as usize / 10).checked_sub(1)) else {
            return write!(f, "{} B", self.0);
        };
        let unit = 1_u64 << (10 * (power + 1));
        // In 128 bits, in which ten times any number of bytes is not too large. Rounded down: 1023.99 is not
        // 1024.
        let tenths = u128::from(self.0) * 10 / u128::from(unit);
        write!(f, "{}.{} {}", tenths / 10, tenths % 10, UNITS[power])
    }
}

/// The bucket of a size.
pub(crate) fn bucket_of(size: u64) -> usize {
    match size.checked_sub(1) {
        None => 0,
        Some(less) => ((u64::BITS - less.leading_zeros()) as usize + 1).min(BUCKETS - 1),
    }
}

/// The sizes in a bucket.
fn sizes_in(bucket: usize) -> RangeInclusive<u64> {
    match bucket {
        0 | 1 => bucket as u64..=bucket as u64,
        _ if bucket == BUCKETS - 1 => (1 << (bucket - 2)) + 1..=u64::MAX,
        _ => (1 << (bucket - 2)) + 1..=1 << (bucket - 1),
    }
}

impl Default for Sizes {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl fmt::Debug for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const BAR: u128 = 40;
        let most = self.0.iter().copied().max().unwrap_or(0);
        write!(f, "{:>10}  {:>10}", "up to", "bodies")?;
        for (sizes, count) in self.iter() {
            let up_to = match *sizes.end() {
                // The two sizes that a threshold has other names for.
                0 => "0".to_owned(),
                u64::MAX => "more".to_owned(),
                size => Threshold::bytes(size).to_string(),
            };
            // In 128 bits, in which no count times the bar's length is too large.
            let bar = (u128::from(count) * BAR).div_ceil(u128::from(most)) as usize;
            write!(f, "\n{up_to:>10}  {count:>10}  {:#<bar$}", "")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::connection::tally::{Lane, Tally};

    /// Sizes at and around each power of two that a body can have.
    fn sizes() -> impl Iterator<Item = u64> {
        [0].into_iter().chain((0..=32).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1]))
    }

    #[test]
    fn each_size_is_counted_in_the_one_range_that_has_it() {
        for size in sizes().chain([u64::MAX]) {
            let range = sizes_in(bucket_of(size));
            assert!(range.contains(&size), "{size} in {range:?}");
        }
        for bucket in 1..BUCKETS {
            assert_eq!(sizes_in(bucket - 1).end() + 1, *sizes_in(bucket).start(), "no gap, no overlap");
        }
        assert_eq!(*sizes_in(BUCKETS - 1).end(), u64::MAX);
    }

    #[test]
    fn a_power_of_two_splits_the_bodies_as_it_would_as_the_threshold() {
        let tally = Tally::new(Arc::default());
        for (at, size) in sizes().enumerate() {
            tally.sent(if at % 2 == 0 { Lane::Socket } else { Lane::Mapping }, size as usize);
        }
        let lanes = tally.shared().read().sent;
        let powers = (0..=33).map(|power| Threshold::bytes(1 << power));
        for threshold in powers.chain([Threshold::ALWAYS, Threshold::OFF]) {
            let above = sizes().filter(|size| threshold.is_exceeded_by(*size)).count() as u64;
            assert_eq!(lanes.above(threshold), above, "{threshold}");
        }
    }

    #[test]
    fn between_powers_of_two_no_body_is_counted_that_is_not_above() {
        let tally = Tally::new(Arc::default());
        for size in [4000, 5000, 6000, 8192, 8193] {
            tally.received(Lane::Socket, size);
        }
        assert_eq!(tally.shared().read().received.above(Threshold::bytes(5500)), 1, "of three");
    }

    #[test]
    fn bodies_and_bytes_are_counted_once() {
        let tally = Tally::new(Arc::default());
        sizes().for_each(|size| tally.sent(Lane::Mapping, size as usize));
        let Lanes { socket, mapping, loans } = tally.shared().read().sent;
        assert_eq!((socket, loans), (Traffic::default(), Traffic::default()));
        assert_eq!((mapping.messages, mapping.bytes), (sizes().count() as u64, sizes().sum()));
        assert_eq!(mapping.sizes.iter().map(|(_, count)| count).sum::<u64>(), mapping.messages);
    }

    #[test]
    fn bytes_are_told_in_the_largest_unit_of_which_there_is_one() {
        let told: Vec<_> = [0, 1023, 1024, 1536, (1 << 20) - 1, 1 << 20, u64::MAX]
            .map(Bytes)
            .iter()
            .map(Bytes::to_string)
            .collect();
        assert_eq!(told, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1023.9 KiB", "1.0 MiB", "15.9 EiB"]);
    }

    #[test]
    fn what_is_counted_is_told() {
        let tally = Tally::new(Arc::default());
        tally.call();
        tally.sent(Lane::Socket, 7);
        tally.sent(Lane::Loan, 3 << 30);
        tally.received(Lane::Mapping, 5000);
        tally.received(Lane::Mapping, 6000);
        tally.fallback();
        tally.found();
        let stats = tally.shared().read().to_string();
        assert_eq!(
            stats.lines().collect::<Vec<_>>(),
            [
                "calls: 1, errors: 0, fallbacks: 1",
                "sent: socket 1 (7 B), mapping 0 (0 B), loans 1 (3.0 GiB)",
                "received: socket 0 (0 B), mapping 2 (10.7 KiB), loans 0 (0 B)",
                "waits: 1 found by spinning, 0 spun in vain, 0 slept",
                "quick lane: 0 sent, 0 received, 0 bells",
            ]
        );
    }

    #[test]
    fn a_bar_is_as_long_as_its_count_says_and_never_missing() {
        let mut sizes = Sizes::default();
        assert_eq!(sizes.to_string().lines().count(), 1, "the heading");
        sizes.0[1] = 1;
        sizes.0[BUCKETS - 1] = u64::MAX;
        let text = sizes.to_string();
        let bars: Vec<_> = text.lines().map(|line| line.matches('#').count()).collect();
        assert_eq!(bars, [0, 1, 40]);
        assert!(text.lines().last().unwrap().trim_start().starts_with("more "), "{text}");
        assert_eq!(
            format!("{sizes:?}"),
            format!("{{1..=1: 1, 137438953473..=18446744073709551615: {}}}", u64::MAX)
        );
    }
}
