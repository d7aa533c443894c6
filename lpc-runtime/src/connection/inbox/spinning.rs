//! A spin for something to receive, of whichever thread or task it is.

use std::hint::spin_loop;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use lpc_core::receive::Source;

use super::{FillError, Filled, Inbox, Wait};
#[cfg(feature = "tokio")]
use crate::connection::sharing::{self, Sharing};

/// One spin for something to receive: since when, and for how long at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spinning {
    /// `None` before the first try, which costs no look at the clock.
    began: Option<Instant>,
    glance: Glance,
    time: Duration,
}

impl Spinning {
    pub(crate) fn new(time: Duration) -> Self {
        Self { began: None, glance: Glance::default(), time }
    }

    /// Tries to receive for about a microsecond. Breaks with what came of the spin: [`Filled::Nothing`] where
    /// nothing was there in time; goes on at the time of the last look at the clock.
    #[inline]
    pub(crate) fn turn(
        &mut self,
        socket: impl AsFd,
        inbox: &mut Inbox,
    ) -> Result<ControlFlow<Filled, Instant>, FillError> {
        let mut filled = inbox.try_fill_some(socket.as_fd())?;
        if filled == Filled::Nothing {
            let now = Instant::now();
            if now - *self.began.get_or_insert(now) >= self.time {
                inbox.missed();
                return Ok(ControlFlow::Break(Filled::Nothing));
            }
            filled = self.glance.at(now, socket, inbox)?;
            if filled == Filled::Nothing {
                return Ok(ControlFlow::Continue(now));
            }
        }
        inbox.found(self.began);
        Ok(ControlFlow::Break(filled))
    }
}

/// Looks at the socket now and then while the ring is spun on, where it cannot be seen that the peer is gone.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Glance(Option<Instant>);

impl Glance {
    /// Receives once, if it is time to, and there is something.
    #[inline]
    pub(crate) fn at(
        &mut self,
        now: Instant,
        socket: impl AsFd,
        inbox: &mut Inbox,
    ) -> Result<Filled, FillError> {
        if now - *self.0.get_or_insert(now) < EVERY || !inbox.is_in_ring() {
            return Ok(Filled::Nothing);
        }
        self.0 = Some(now);
        inbox.try_fill(socket, Wait::Never)
    }
}

impl Inbox {
    /// Spins for something to receive, as long as that pays, and no longer than `left`.
    #[inline]
    pub(super) fn spin(
        &mut self,
        socket: BorrowedFd<'_>,
        left: Option<Duration>,
    ) -> Result<Filled, FillError> {
        let time = self.spin_budget().min(left.unwrap_or(Duration::MAX));
        if time.is_zero() {
            return Ok(Filled::Nothing);
        }
        let mut spinning = Spinning::new(time);
        loop {
            if let ControlFlow::Break(filled) = spinning.turn(socket, self)? {
                return Ok(filled);
            }
        }
    }

    /// Tries to receive a few times in a row: reading the clock after each try would take a sixth of the
    /// time.
    fn try_fill_some(&mut self, socket: impl AsFd) -> Result<Filled, FillError> {
        if self.receiver.source() == Source::Ring {
            let has_next = (0..RING_TRIES).any(|_| {
                let has_next = self.receiver.has_next();
                if !has_next {
                    spin_loop();
                }
                has_next
            });
            self.begin_batch(has_next);
            return Ok(if has_next { Filled::Some } else { Filled::Nothing });
        }
        for _ in 0..TRIES - 1 {
            let filled = self.try_fill(socket.as_fd(), Wait::Never)?;
            if filled != Filled::Nothing {
                return Ok(filled);
            }
        }
        self.try_fill(socket, Wait::Never)
    }

    /// How long to [try](Self::try_fill) to receive before sleeping. Where it is more than no time, it is to
    /// be said what came of it: [something](Self::found) or [nothing](Self::missed).
    #[inline]
    pub(crate) fn spin_budget(&mut self) -> Duration {
        if self.receiver.is_between_frames() { self.watch.time() } else { Duration::ZERO }
    }

    /// Waits on threads of a runtime, as others do, too.
    #[cfg(feature = "tokio")]
    pub(crate) fn wait_in_runtime(&mut self, spin_budget: Duration) {
        self.sharing = Some(Sharing::new(spin_budget));
    }

    /// Whether one spins for all connections of the thread. Otherwise each spins by itself.
    #[cfg(feature = "tokio")]
    pub(crate) fn shares_spin(&self) -> bool {
        self.sharing.is_some() && sharing::thread(|thread| thread.is_shared())
    }

    /// The connection's number and budget in the spin of its thread, where it may take part in that. On the
    /// CPU that the peer needs it does not.
    #[cfg(feature = "tokio")]
    pub(crate) fn shared_spin(&self) -> Option<(u64, Duration)> {
        let sharing = self.sharing.as_ref()?;
        let may_spin = !sharing.budget().is_zero()
            && self.shares_spin()
            && self.receiver.is_between_frames()
            && self.watch.is_peer_elsewhere();
        may_spin.then(|| (sharing.number(), sharing.budget()))
    }

    /// Whether others receive on this thread while this connection spins by itself.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_contended(&mut self) -> bool {
        self.sharing.as_mut().is_some_and(Sharing::is_contended)
    }

    /// A lone call has been made: its answer can come from now on.
    #[cfg(feature = "tokio")]
    pub(crate) fn begin_wait(&mut self) {
        if let Some(sharing) = &mut self.sharing {
            sharing.begin();
        }
    }

    /// What came of the connection's part in the spin of its thread.
    #[cfg(feature = "tokio")]
    pub(crate) fn count_spin(&self, has_found: bool) {
        if has_found {
            self.counters.found();
        } else {
            self.counters.missed();
        }
    }

    /// Something was there, after a spin that began then, or at once.
    fn found(&mut self, began: Option<Instant>) {
        self.counters.found();
        self.watch.found(|| began.map_or(Duration::ZERO, |began| began.elapsed()));
    }

    /// Nothing was there in time.
    fn missed(&mut self) {
        self.counters.missed();
        self.watch.missed();
    }
}

/// Tries to receive between two looks at the clock: about a microsecond.
const TRIES: u32 = 4;

/// Looks at the ring between two looks at the clock.
const RING_TRIES: u32 = 32;

/// How long a spin on the ring goes on without a look at the socket.
const EVERY: Duration = Duration::from_millis(1);
