//! [`Watch`]: whether to spin for the peer's next message before sleeping.

use std::time::Duration;

use lpc_core::spin::Spin;

use crate::sys::cpu;

/// What is known of a peer whose message is waited for.
#[derive(Debug)]
pub(crate) struct Watch {
    spin: Spin,
    /// The CPU that it was last said to run on.
    peer: Option<u64>,
    /// The CPU on which this thread was a moment ago, for the next time that it waits.
    own: Option<u32>,
}

impl Watch {
    /// Spins for as long as `limit`; zero is never.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { spin: Spin::new(limit), peer: None, own: None }
    }

    pub(crate) fn peer_is_at(&mut self, cpu: u64) {
        self.peer = Some(cpu);
    }

    /// This thread has just been found on this CPU: it is not asked again before it waits.
    #[inline]
    pub(crate) fn is_at(&mut self, cpu: Option<u32>) {
        self.own = cpu;
    }

    /// How long to spin now. On the CPU that the peer needs, not at all.
    #[inline]
    pub(crate) fn time(&mut self) -> Duration {
        let own = self.own.take().or_else(cpu::current);
        if self.is_peer_off(own) { self.spin.time() } else { Duration::ZERO }
    }

    /// Whether the peer was last on another CPU.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_peer_elsewhere(&self) -> bool {
        self.is_peer_off(cpu::current())
    }

    #[inline]
    fn is_peer_off(&self, own: Option<u32>) -> bool {
        matches!((self.peer, own), (Some(peer), Some(own)) if peer != u64::from(own))
    }

    /// Something came, after so long.
    pub(crate) fn found(&mut self, after: impl FnOnce() -> Duration) {
        self.spin.found(after);
    }

    /// Nothing came in time.
    pub(crate) fn missed(&mut self) {
        self.spin.missed();
    }
}
