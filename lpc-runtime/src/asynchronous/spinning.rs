//! [`Spin`](lpc_core::spin::Spin) on tokio, of a connection that has its thread to itself: in turns, between
//! which all other tasks have theirs.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::task::Poll;
use std::time::Duration;

use tokio::task::yield_now;

use super::stream::Stream;
use crate::connection::inbox::spinning;
use crate::connection::inbox::{FillError, Filled, Inbox};

/// One spin for something to receive, in turns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spinning(spinning::Spinning);

impl Spinning {
    /// `None` where it does not pay, and where one [spins for all](super::thread_spin) connections of the
    /// thread.
    pub(super) fn begin(inbox: &mut Inbox) -> Option<Self> {
        if inbox.shares_spin() {
            return None;
        }
        let time = inbox.spin_budget();
        (!time.is_zero()).then(|| Self(spinning::Spinning::new(time)))
    }

    /// Spins as long as that pays: in short turns, between which all others have theirs.
    pub(super) async fn go_on(mut self, socket: &Stream, inbox: &mut Inbox) -> Result<Filled, FillError> {
        loop {
            // First of all those whom this task has just woken: their next call is the one whose answer it
            // spins for.
            if socket.is_of_one_thread() {
                give_way().await;
            } else {
                yield_now().await;
            }
            if let Some(filled) = self.turn(socket, inbox)? {
                if filled != Filled::Nothing {
                    socket.found();
                }
                return Ok(filled);
            }
        }
    }

    /// Spins as long as that pays, without letting others have their turn.
    pub(super) fn all(&mut self, socket: impl AsFd, inbox: &mut Inbox) -> Result<Filled, FillError> {
        loop {
            if let Some(filled) = self.turn(socket.as_fd(), inbox)? {
                return Ok(filled);
            }
        }
    }

    /// Spins for a short while, without letting others have their turn. `None` where it is to be gone on.
    fn turn(&mut self, socket: impl AsFd, inbox: &mut Inbox) -> Result<Option<Filled>, FillError> {
        let mut turn = None;
        loop {
            let now = match self.0.turn(socket.as_fd(), inbox)? {
                ControlFlow::Break(filled) => return Ok(Some(filled)),
                ControlFlow::Continue(now) => now,
            };
            if turn.is_none() && inbox.is_contended() {
                return Ok(Some(Filled::Nothing));
            }
            if now - *turn.get_or_insert(now) >= TURN {
                return Ok(None);
            }
        }
    }
}

/// Learns whether to spin for a turn before others have theirs. That spares a trip through the runtime's
/// queue, which on a runtime of several threads wakes one of them; but where it brings nothing it keeps them
/// all waiting.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Spins that are left to the next try.
    left: u32,
    /// Spins without a try after the next one that brings nothing.
    pause: u32,
    /// How often it was done in a row.
    in_a_row: u32,
}

impl Ahead {
    /// Does not spin ahead of others the first time.
    pub(super) fn never() -> Self {
        Self { left: 1, ..Self::default() }
    }

    /// Spins for a turn, if that pays. `None` where it is to be gone on when others have had theirs.
    pub(super) fn spin(
        &mut self,
        spinning: &mut Spinning,
        socket: impl AsFd,
        inbox: &mut Inbox,
    ) -> Result<Option<Filled>, FillError> {
        if self.left > 0 || self.in_a_row == IN_A_ROW {
            self.left = self.left.saturating_sub(1);
            self.in_a_row = 0;
            return Ok(None);
        }
        self.in_a_row += 1;
        let filled = spinning.turn(socket, inbox)?;
        if filled.is_some_and(|filled| filled != Filled::Nothing) {
            self.pause = 0;
        } else {
            self.pause = (2 * self.pause).clamp(1, MAX_PAUSE);
            self.left = self.pause;
        }
        Ok(filled)
    }

    /// Others have to have their turn first the next time: something was done for them.
    pub(super) fn give_way(&mut self) {
        self.left = self.left.max(1);
    }
}

/// Spins ahead of others in a row, after which they have their turn.
const IN_A_ROW: u32 = 32;

/// Spins without a try to do so ahead of others, at most.
const MAX_PAUSE: u32 = 64;

/// Lets the tasks that are ready have their turns. Unlike tokio's `yield_now` it does not have the reactor
/// asked first, which is a system call; tokio asks it now and then in any case (`event_interval`). Where the
/// runtime has more threads this would wake one.
async fn give_way() {
    let mut has_been_kept = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut has_been_kept, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// How long a task that spins keeps its thread from others at once.
const TURN: Duration = Duration::from_micros(10);
