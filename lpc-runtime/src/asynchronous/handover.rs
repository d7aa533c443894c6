//! [`Handover`]: where the receive half of an async client's connection is.
//!
//! The connection's own task receives; it is there because a call's future may be held without being polled,
//! and must not keep the replies of others from being received. While no call is open the task sleeps, and
//! leaves the receive half to the caller that comes next: a lone caller spins for its answer within its first
//! poll, before the task goes on with that. So a call at a time costs no trip through the runtime's queues,
//! and none to another thread.

use std::convert::Infallible;
use std::future::poll_fn;
use std::mem;
use std::sync::MutexGuard;
use std::task::{Poll, Waker};
use std::time::Duration;

use lpc_core::Result;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::coop::consume_budget;

use super::race::{Either, race};
use super::socket::{self, fill, try_receive};
use super::spinning::{Ahead, Spinning};
use super::stream::Stream;
use super::thread_spin::Spinner;
use crate::client::reply;
use crate::client::session::{Callers, Own, Session, State};
use crate::connection::inbox::{Filled, Inbox};

/// The receive half while the connection's task sleeps and no call is open, and how the task gets it back.
#[derive(Debug, Default)]
pub(super) struct Handover {
    inbox: Option<Box<Inbox>>,
    ahead: Ahead,
    /// The connection's task, which sleeps.
    task: Option<Waker>,
    /// The task is to take the half back as soon as that is here.
    is_wanted: bool,
    /// The task is woken by what comes through the socket.
    is_watched: bool,
    /// How often a caller has spun.
    spins: u64,
    handed: Handed,
}

/// What the connection's task is to do with the half that it takes back.
#[derive(Debug, Default)]
enum Handed {
    #[default]
    Receive,
    /// A caller has begun to spin, and found nothing yet.
    GoOn(Spinning),
    /// A caller has spun for as long as that pays.
    Sleep,
}

/// How long after a caller has spun the socket is watched again.
const IDLE: Duration = Duration::from_millis(10);

impl Callers for Handover {
    type Waiter = Waker;

    fn wake(&mut self, waiter: Waker) -> Option<Waker> {
        Some(waiter)
    }
}

impl Handover {
    /// The connection has ended: the task is to see that, which it may not watch for. It is to be woken
    /// without the lock.
    #[must_use]
    pub(super) fn end_of_task(&mut self) -> Option<Waker> {
        self.want(Handed::Receive)
    }

    /// Takes out what is kept of a connection that has ended: the half, which holds memory of the server, and
    /// the task.
    #[must_use]
    pub(super) fn end(&mut self) -> impl Sized + use<> {
        let Self { inbox, task, .. } = mem::take(self);
        Ended { _inbox: inbox, _task: ToWake(task) }
    }

    /// Has the connection's task take the half back, which is to be woken without the lock.
    #[must_use]
    fn want(&mut self, handed: Handed) -> Option<Waker> {
        self.handed = handed;
        self.is_wanted = true;
        self.task.take()
    }

    /// The task sleeps, and is woken by what comes through the socket, or not. How often a caller has spun.
    fn begin_watch(&mut self, is_watched: bool) -> u64 {
        self.is_watched = is_watched;
        self.spins
    }

    /// The half, if it is wanted and here.
    fn take_wanted(&mut self) -> Option<(Box<Inbox>, Handed)> {
        let inbox = self.inbox.take_if(|_| self.is_wanted)?;
        self.is_wanted = false;
        Some((inbox, mem::take(&mut self.handed)))
    }
}

/// What is left of a handover.
struct Ended {
    _inbox: Option<Box<Inbox>>,
    _task: ToWake,
}

/// A task that is woken when this is dropped: after the lock, as what is declared before it.
#[derive(Default)]
pub(super) struct ToWake(Option<Waker>);

impl Drop for ToWake {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.wake();
        }
    }
}

/// The connection's task: receives until the connection is over.
pub(super) async fn receive(
    session: &Session<Handover>,
    stream: &Stream,
    mut inbox: Box<Inbox>,
) -> Result<Infallible> {
    let stall = session.link().stall();
    let mut watches = true;
    loop {
        let in_ring = inbox.is_in_ring();
        let filled = match offer(session, inbox) {
            Ok(()) => {
                let handed;
                (inbox, handed) = take_back(session, stream, in_ring, &mut watches).await?;
                inbox.wake_up();
                let filled = match handed {
                    Handed::GoOn(spinning) => spinning.go_on(stream, &mut inbox).await?,
                    Handed::Receive if inbox.poll_ring() => {
                        consume_budget().await;
                        Filled::Some
                    }
                    Handed::Receive => try_receive(stream, &mut inbox)?,
                    Handed::Sleep => Filled::Nothing,
                };
                match filled {
                    Filled::Nothing if !matches!(handed, Handed::Receive) => {
                        socket::sleep(stream, &mut inbox, stall).await?
                    }
                    filled => filled,
                }
            }
            Err(back) => {
                inbox = back;
                // Callers that were woken call again first: it is their calls' replies that are spun for.
                fill(stream, &mut inbox, stall, &mut Ahead::never()).await?
            }
        };
        if filled == Filled::End {
            return Err(session.hung_up(&inbox)?);
        }
        let _ = session.hand_out(&mut inbox, &mut Own::default())?;
    }
}

/// Offers the half to the caller that comes next, where no call is open; gives it back otherwise.
fn offer(session: &Session<Handover>, mut inbox: Box<Inbox>) -> Result<(), Box<Inbox>> {
    if !inbox.may_be_handed_over() {
        return Err(inbox);
    }
    let mut state = session.state();
    if state.calls.has_unanswered() || !inbox.fall_asleep() {
        return Err(inbox);
    }
    state.callers.inbox = Some(inbox);
    Ok(())
}

/// Takes the half back once something has come through the socket that is for no caller that spins, or a
/// caller says so.
///
/// Where callers find what comes the socket is not watched: each message would wake a thread of the runtime
/// for nothing. Then it is seen to that it is again soon after the last of them.
async fn take_back(
    session: &Session<Handover>,
    stream: &Stream,
    in_ring: bool,
    watches: &mut bool,
) -> Result<(Box<Inbox>, Handed)> {
    *watches |= in_ring;
    let mut seen = session.state().callers.begin_watch(*watches);
    loop {
        let something = async {
            if *watches {
                return stream.readable().await;
            }
            tokio::time::sleep(IDLE).await;
            Ok(())
        };
        match race(handed_back(session), something).await {
            Either::First(handed) => return handed,
            Either::Second(result) => result?,
        }
        let mut state = session.state();
        let is_unanswered = state.calls.has_unanswered();
        let callers = &mut state.callers;
        let has_spun = callers.spins != seen;
        seen = callers.spins;
        if !*watches {
            *watches = !has_spun;
            callers.is_watched = *watches;
            continue;
        }
        let is_for_caller = callers.inbox.is_none() || (has_spun && !is_unanswered);
        if is_for_caller && !in_ring {
            *watches = false;
            callers.is_watched = false;
            drop(state);
            stream.unwatch();
        } else {
            callers.is_wanted = true;
        }
    }
}

/// Waits until the half is wanted and here.
async fn handed_back(session: &Session<Handover>) -> Result<(Box<Inbox>, Handed)> {
    poll_fn(|cx| {
        let mut state = session.state();
        if state.calls.life().is_over() {
            // A caller has found out.
            let reason = state.calls.life().why_closed().cloned();
            return Poll::Ready(Err(reason.unwrap_or_else(reply::closing)));
        }
        if let Some(handed) = state.callers.take_wanted() {
            return Poll::Ready(Ok(handed));
        }
        let task = &mut state.callers.task;
        let is_known = task.as_ref().is_some_and(|task| task.will_wake(cx.waker()));
        let before = if is_known { None } else { task.replace(cx.waker().clone()) };
        drop(state);
        drop(before);
        Poll::Pending
    })
    .await
}

/// Spins for the answer to a call that was just made, where the half is left to callers and it is the only
/// call: for a turn, after which the connection's task goes on with that. Where one spins for all connections
/// of the thread, that may be the caller. Where the task has to be woken it is `to_wake`.
pub(super) fn spin<'s>(
    session: &'s Session<Handover>,
    mut state: MutexGuard<'s, State<Handover>>,
    spinner: &mut Option<Spinner>,
    to_wake: &mut ToWake,
) -> MutexGuard<'s, State<Handover>> {
    let State { calls, callers } = &mut *state;
    // The task is about to take it back, or whoever had it before has handed the answer out.
    if callers.is_wanted || !calls.has_unanswered() {
        return state;
    }
    let Some(mut inbox) = callers.inbox.take() else { return state };
    inbox.begin_wait();
    let Some(mut spinning) = Spinning::begin(&mut inbox) else {
        if inbox.is_in_ring() && inbox.shared_spin().is_some() {
            // The task spins with the others, which looks at the ring.
            to_wake.0 = callers.want(Handed::Receive);
        } else if callers.is_watched {
            // What the server sends wakes the task.
            inbox.count_sleep();
            *spinner = Spinner::begin(&inbox);
        } else {
            to_wake.0 = callers.want(Handed::Sleep);
        }
        callers.inbox = Some(inbox);
        return state;
    };
    callers.spins += 1;
    let is_alone = calls.len() == 1;
    let mut ahead = mem::take(&mut callers.ahead);
    drop(state);
    inbox.wake_up();
    let spun = if is_alone { spin_for(session, &mut spinning, &mut ahead, &mut inbox) } else { Ok(None) };
    if let Err(error) = &spun {
        session.end(error);
    }
    let mut state = session.state();
    if state.calls.life().is_over() {
        drop(state);
        drop(inbox);
        return session.state();
    }
    let is_asleep = !state.calls.has_unanswered() && inbox.may_be_handed_over() && inbox.fall_asleep();
    let callers = &mut state.callers;
    callers.inbox = Some(inbox);
    callers.ahead = ahead;
    if callers.is_wanted || !is_asleep {
        to_wake.0 = callers.want(match spun {
            Ok(None) => Handed::GoOn(spinning),
            Ok(Some(Filled::Nothing)) => Handed::Sleep,
            _ => Handed::Receive,
        });
    }
    state
}

/// Spins for a turn, and hands out what comes. `None` where nothing has come yet.
fn spin_for(
    session: &Session<Handover>,
    spinning: &mut Spinning,
    ahead: &mut Ahead,
    inbox: &mut Inbox,
) -> Result<Option<Filled>> {
    let socket = session.link().socket();
    // A caller that is no task keeps none waiting.
    let filled = if is_outside_tasks() {
        Some(spinning.all(socket, inbox)?)
    } else {
        ahead.spin(spinning, socket, inbox)?
    };
    let _ = session.hand_out(inbox, &mut Own::default())?;
    Ok(filled)
}

/// Whether the caller has a thread of its own: it waits for a runtime of several threads, as `main` does.
fn is_outside_tasks() -> bool {
    let has_more_threads = |runtime: Handle| runtime.runtime_flavor() == RuntimeFlavor::MultiThread;
    tokio::task::try_id().is_none() && Handle::try_current().is_ok_and(has_more_threads)
}
