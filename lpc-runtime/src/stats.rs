//! [`Stats`]: what went through which lane.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts since a client or server was made, as they were at one moment.
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
/// On a client: of its connection. On a server: of all its connections together, those that ended included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Calls that were sent, or received.
    pub calls: u64,
    /// Calls that ended with an error of lpc's own, those that were never sent included; an implementation's `Err` is
    /// a result like others.
    pub errors: u64,
    /// Bodies that this side encoded to be sent: arguments from a client, results from a server.
    pub sent: Lanes,
    /// Bodies that this side received.
    pub received: Lanes,
    /// Sent bodies over the threshold that took the socket all the same, because the pool had no room for them
    /// (`pool_limit`), or the system no memory or descriptor.
    pub fallbacks: u64,
}

/// Traffic by lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lanes {
    /// Through the Unix socket.
    pub socket: Traffic,
    /// Through shared memory.
    pub mapping: Traffic,
}

/// How much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Bodies.
    pub messages: u64,
    /// Their encoded bytes, without frame headers.
    pub bytes: u64,
}

/// A lane that a body takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Socket,
    Mapping,
}

/// The live counts behind [`Stats`]. Each is exact; they are not read at one instant.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    calls: AtomicU64,
    errors: AtomicU64,
    fallbacks: AtomicU64,
    sent: LaneCounters,
    received: LaneCounters,
}

#[derive(Debug, Default)]
struct LaneCounters {
    socket: TrafficCounters,
    mapping: TrafficCounters,
}

#[derive(Debug, Default)]
struct TrafficCounters {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn call(&self) {
        self.calls.fetch_add(1, Relaxed);
    }

    pub(crate) fn error(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    pub(crate) fn fallback(&self) {
        self.fallbacks.fetch_add(1, Relaxed);
    }

    pub(crate) fn sent(&self, lane: Lane, bytes: usize) {
        self.sent.add(lane, bytes);
    }

    pub(crate) fn received(&self, lane: Lane, bytes: usize) {
        self.received.add(lane, bytes);
    }

    pub(crate) fn read(&self) -> Stats {
        Stats {
            calls: self.calls.load(Relaxed),
            errors: self.errors.load(Relaxed),
            fallbacks: self.fallbacks.load(Relaxed),
            sent: self.sent.read(),
            received: self.received.read(),
        }
    }
}

impl LaneCounters {
    fn add(&self, lane: Lane, bytes: usize) {
        let traffic = match lane {
            Lane::Socket => &self.socket,
            Lane::Mapping => &self.mapping,
        };
        traffic.messages.fetch_add(1, Relaxed);
        traffic.bytes.fetch_add(bytes as u64, Relaxed);
    }

    fn read(&self) -> Lanes {
        Lanes { socket: self.socket.read(), mapping: self.mapping.read() }
    }
}

impl TrafficCounters {
    fn read(&self) -> Traffic {
        Traffic { messages: self.messages.load(Relaxed), bytes: self.bytes.load(Relaxed) }
    }
}
