//! A spin for something to receive, of whichever thread or task it is.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::{FillError, Filled, Inbox, Wait};

/// One spin for something to receive: since when, and for how long at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spinning {
    /// `None` before the first try, which costs no look at the clock.
    began: Option<Instant>,
    glance: Glance,
    time: Duration,
}

/// What came of a try.
#[derive(Debug)]
pub(crate) enum Spun {
    /// There is something, or with [`Filled::Nothing`], it was not there in time.
    Ended(Filled),
    /// Nothing yet, at that time.
    GoesOn(Instant),
}

impl Spinning {
    pub(crate) fn new(time: Duration) -> Self {
        Self { began: None, glance: Glance::default(), time }
    }

    /// Tries to receive for about a microsecond.
    #[inline]
    pub(crate) fn turn(&mut self, socket: impl AsFd, inbox: &mut Inbox) -> Result<Spun, FillError> {
        let mut filled = inbox.try_fill_some(socket.as_fd())?;
        if filled == Filled::Nothing {
            let now = Instant::now();
            if now - *self.began.get_or_insert(now) >= self.time {
                inbox.missed();
                return Ok(Spun::Ended(Filled::Nothing));
            }
            filled = self.glance.at(now, socket, inbox)?;
            if filled == Filled::Nothing {
                return Ok(Spun::GoesOn(now));
            }
        }
        inbox.found(self.began);
        Ok(Spun::Ended(filled))
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

/// How long a spin on the ring goes on without a look at the socket.
const EVERY: Duration = Duration::from_millis(1);
