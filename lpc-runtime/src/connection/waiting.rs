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
}

impl Watch {
    /// Spins for as long as `limit`; zero is never.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { spin: Spin::new(limit), peer: None }
    }

    pub(crate) fn peer_is_at(&mut self, cpu: u64) {
        self.peer = Some(cpu);
    }

    /// How long to spin now. On the CPU that the peer needs, not at all.
    #[inline]
    pub(crate) fn time(&mut self) -> Duration {
        if self.is_peer_elsewhere() { self.spin.time() } else { Duration::ZERO }
    }

    /// Whether the peer was last on another CPU.
    #[inline]
    pub(crate) fn is_peer_elsewhere(&self) -> bool {
        matches!((self.peer, cpu::current()), (Some(peer), Some(own)) if peer != u64::from(own))
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
