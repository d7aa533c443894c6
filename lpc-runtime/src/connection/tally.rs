//! What connections count, live: behind [`Stats`](crate::stats::Stats).

use std::array;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::stats::{BUCKETS, Stats, Traffic, bucket_of};
use crate::sys::fork::ForkGuard;

/// A lane that a body takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Socket,
    Mapping,
    Loan,
}

/// The live counts behind [`Stats`], of a client or a server. Each is exact; they are not read at one
/// instant.
///
/// What every call counts is counted by its connection, in a [`Tally`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    errors: AtomicU64,
    fallbacks: AtomicU64,
    missed: AtomicU64,
    slept: AtomicU64,
    bells: AtomicU64,
    sent: LargeCounters,
    received: LargeCounters,
    connections: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    live: Vec<Arc<Counts>>,
    /// What those counted that have ended.
    ended: Stats,
}

/// Bodies whose own cost hides that of counting them.
#[derive(Debug, Default)]
struct LargeCounters {
    mapping: TrafficCounters,
    loans: TrafficCounters,
}

/// The counters of one connection, and those that it shares.
#[derive(Debug)]
pub(crate) struct Tally {
    /// In a fork another thread may have held the lock on the connections.
    fork_guard: ForkGuard,
    shared: Arc<Counters>,
    own: Arc<Counts>,
}

/// What is counted with each small call. Each counter is written by the holder of what others would need for
/// the same, the receive half or a lock: so that it takes a load and a store, where an atomic addition would
/// take as long as the rest of the counting.
#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU64,
    found: AtomicU64,
    quick_sent: AtomicU64,
    quick_received: AtomicU64,
    sent: TrafficCounters,
    received: TrafficCounters,
}

/// The number of bodies is the sum of `sizes`, and has no counter of its own.
#[derive(Debug)]
struct TrafficCounters {
    bytes: AtomicU64,
    sizes: [AtomicU64; BUCKETS],
}

/// Counts what nobody else counts at the same time.
#[inline]
fn add_alone(count: &AtomicU64, more: u64) {
    count.store(count.load(Relaxed) + more, Relaxed);
}

impl Counters {
    pub(crate) fn error(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    pub(crate) fn read(&self) -> Stats {
        let connections = self.connections();
        let mut stats = connections.ended;
        connections.live.iter().for_each(|counts| counts.add_to(&mut stats));
        drop(connections);
        stats.errors = self.errors.load(Relaxed);
        stats.fallbacks = self.fallbacks.load(Relaxed);
        stats.waits.missed = self.missed.load(Relaxed);
        stats.waits.slept = self.slept.load(Relaxed);
        stats.quick.bells = self.bells.load(Relaxed);
        for (lanes, counters) in [(&mut stats.sent, &self.sent), (&mut stats.received, &self.received)] {
            counters.mapping.add_to(&mut lanes.mapping);
            counters.loans.add_to(&mut lanes.loans);
        }
        stats
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    /// Of a new connection.
    pub(crate) fn new(shared: Arc<Counters>) -> Arc<Self> {
        let own = Arc::new(Counts::default());
        shared.connections().live.push(Arc::clone(&own));
        Arc::new(Self { fork_guard: ForkGuard::here(), shared, own })
    }

    /// Those of the client, or of the server.
    pub(crate) fn shared(&self) -> &Arc<Counters> {
        &self.shared
    }

    /// A call was received, or is about to be sent. For the holder of a server's receive half, or of the lock
    /// on a client's calls.
    #[inline]
    pub(crate) fn call(&self) {
        add_alone(&self.own.calls, 1);
    }

    pub(crate) fn error(&self) {
        self.shared.error();
    }

    pub(crate) fn fallback(&self) {
        self.shared.fallbacks.fetch_add(1, Relaxed);
    }

    /// Something was found by spinning. For the holder of the receive half.
    pub(crate) fn found(&self) {
        add_alone(&self.own.found, 1);
    }

    /// Nothing was.
    pub(crate) fn missed(&self) {
        self.shared.missed.fetch_add(1, Relaxed);
    }

    #[inline]
    pub(crate) fn slept(&self) {
        self.shared.slept.fetch_add(1, Relaxed);
    }

    /// For the holder of the lock on the ring.
    #[inline]
    pub(crate) fn sent_in_ring(&self) {
        add_alone(&self.own.quick_sent, 1);
    }

    /// For the holder of the receive half.
    #[inline]
    pub(crate) fn received_in_ring(&self, frames: u64) {
        add_alone(&self.own.quick_received, frames);
    }

    pub(crate) fn rang(&self) {
        self.shared.bells.fetch_add(1, Relaxed);
    }

    /// For the holder of the lock on the connection's calls.
    #[inline]
    pub(crate) fn sent(&self, lane: Lane, bytes: usize) {
        add(lane, bytes as u64, &self.own.sent, &self.shared.sent);
    }

    /// How many small bodies have been received.
    pub(crate) fn received_messages(&self) -> u64 {
        self.own.received.sizes.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// For the holder of the receive half.
    #[inline]
    pub(crate) fn received(&self, lane: Lane, bytes: usize) {
        add(lane, bytes as u64, &self.own.received, &self.shared.received);
    }
}

#[inline]
fn add(lane: Lane, bytes: u64, own: &TrafficCounters, shared: &LargeCounters) {
    let shared = match lane {
        Lane::Socket => {
            add_alone(&own.sizes[bucket_of(bytes)], 1);
            add_alone(&own.bytes, bytes);
            return;
        }
        Lane::Mapping => &shared.mapping,
        Lane::Loan => &shared.loans,
    };
    shared.sizes[bucket_of(bytes)].fetch_add(1, Relaxed);
    shared.bytes.fetch_add(bytes, Relaxed);
}

impl Drop for Tally {
    fn drop(&mut self) {
        if !self.fork_guard.is_here() {
            return;
        }
        let mut connections = self.shared.connections();
        if let Some(place) = connections.live.iter().position(|counts| Arc::ptr_eq(counts, &self.own)) {
            connections.live.swap_remove(place);
        }
        self.own.add_to(&mut connections.ended);
    }
}

impl Counts {
    fn add_to(&self, stats: &mut Stats) {
        stats.calls += self.calls.load(Relaxed);
        stats.waits.found += self.found.load(Relaxed);
        stats.quick.sent += self.quick_sent.load(Relaxed);
        stats.quick.received += self.quick_received.load(Relaxed);
        self.sent.add_to(&mut stats.sent.socket);
        self.received.add_to(&mut stats.received.socket);
    }
}

impl TrafficCounters {
    fn add_to(&self, traffic: &mut Traffic) {
        for (sum, count) in traffic.sizes.0.iter_mut().zip(&self.sizes) {
            let count = count.load(Relaxed);
            *sum += count;
            traffic.messages += count;
        }
        traffic.bytes += self.bytes.load(Relaxed);
    }
}

impl Default for TrafficCounters {
    fn default() -> Self {
        Self { bytes: AtomicU64::new(0), sizes: array::from_fn(|_| AtomicU64::new(0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_connection_counted_stays_when_it_ends() {
        let shared = Arc::new(Counters::default());
        let tallies = [Tally::new(Arc::clone(&shared)), Tally::new(Arc::clone(&shared))];
        for (tally, bytes) in tallies.iter().zip([10, 100]) {
            tally.call();
            tally.sent(Lane::Socket, bytes);
            tally.received(Lane::Socket, 2 * bytes);
            tally.sent_in_ring();
            tally.received_in_ring(2);
            tally.found();
        }
        let before = shared.read();
        assert_eq!((before.calls, before.sent.socket.bytes, before.received.socket.bytes), (2, 110, 220));
        assert_eq!((before.quick.sent, before.quick.received, before.waits.found), (2, 4, 2));
        for tally in tallies {
            drop(tally);
            assert_eq!(shared.read(), before);
        }
    }
}
