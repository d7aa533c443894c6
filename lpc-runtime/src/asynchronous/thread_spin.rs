//! One spin for all connections of a thread ([`ThreadSpin`](lpc_core::spin::ThreadSpin)): the task of one of
//! them has the reactor asked again and again, after all tasks that are ready; what is found wakes whose task
//! it is for.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Instant;

use lpc_core::{Error, Result};
use tokio::task::yield_now;

use super::socket::try_receive;
use super::stream::Stream;
use crate::connection::inbox::spinning::Glance;
use crate::connection::inbox::{Filled, Inbox};
use crate::connection::sharing;

/// The task's part in the spin of its thread: as long as it has this, it may be the one that spins.
#[derive(Debug)]
pub(super) struct Spinner {
    connection: u64,
}

impl Spinner {
    /// `None` where another spins, where that does not pay, and where the connection has the thread to
    /// itself.
    pub(super) fn begin(inbox: &Inbox) -> Option<Self> {
        let (connection, budget) = inbox.shared_spin()?;
        let begins = sharing::thread(|thread| thread.begin(connection, budget, Instant::now()));
        begins.then_some(Self { connection })
    }

    /// Has the task polled again when the reactor has been asked; `false` where the spin is over.
    pub(super) fn turn(&self, cx: &mut Context<'_>) -> bool {
        let goes_on = sharing::thread(|thread| thread.turn(self.connection, Instant::now()));
        if goes_on {
            // tokio polls a task that yields after all others, and after its reactor.
            let _ = pin!(yield_now()).as_mut().poll(cx);
        }
        goes_on
    }

    /// What the task waits for has come.
    pub(super) fn found(self) {
        sharing::thread(|thread| thread.end(self.connection, true, Instant::now()));
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        sharing::thread(|thread| thread.end(self.connection, false, Instant::now()));
    }
}

/// Spins for all connections of the thread, and receives what has come on this one. `Nothing` where it is to
/// wait without that.
pub(super) async fn spin(socket: &Stream, inbox: &mut Inbox) -> Result<Filled> {
    if inbox.is_in_ring() {
        return spin_on_ring(socket, inbox).await;
    }
    let Some(spinner) = Spinner::begin(inbox) else { return Ok(Filled::Nothing) };
    loop {
        let readable = {
            let mut readable = pin!(socket.readable());
            let turns = poll_fn(|cx| match readable.as_mut().poll(cx) {
                Poll::Pending if spinner.turn(cx) => Poll::Pending,
                Poll::Pending => Poll::Ready(None),
                Poll::Ready(result) => Poll::Ready(Some(result)),
            });
            turns.await
        };
        let Some(result) = readable else {
            inbox.count_spin(false);
            return Ok(Filled::Nothing);
        };
        result.map_err(Error::from)?;
        let filled = try_receive(socket, inbox)?;
        if filled != Filled::Nothing {
            spinner.found();
            inbox.count_spin(true);
            return Ok(filled);
        }
    }
}

/// The same where the peer sends through its ring, of which the reactor knows nothing: each such task asks
/// for itself as long as one spins, once a turn.
async fn spin_on_ring(socket: &Stream, inbox: &mut Inbox) -> Result<Filled> {
    let Some((connection, budget)) = inbox.shared_spin() else { return Ok(Filled::Nothing) };
    let spinner = Spinner { connection };
    let (mut turns, mut glance) = (0, Glance::default());
    loop {
        let now = Instant::now();
        if !sharing::thread(|thread| thread.joins(connection, budget, turns, now)) {
            break;
        }
        yield_now().await;
        let filled = if inbox.poll_ring() { Filled::Some } else { glance.at(now, socket, inbox)? };
        if filled != Filled::Nothing {
            spinner.found();
            inbox.count_spin(true);
            return Ok(filled);
        }
        turns += 1;
    }
    if turns > 0 {
        inbox.count_spin(false);
    }
    Ok(Filled::Nothing)
}
