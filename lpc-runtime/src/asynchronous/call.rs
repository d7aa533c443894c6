//! [`Call`]: a call that was sent, as the future that waits for its answer has it; and [`Queued`], before it is.

use std::future::poll_fn;
use std::mem;
use std::task::{Context, Poll};
use std::time::Instant;

use lpc_core::calls::{Abandoned, Fetched as FromTable};
use lpc_core::frame::{self, CallId};
use lpc_core::permits::Ticket;
use lpc_core::{Progress, Result};

use super::caller::Connection;
use super::handover::{self, ToWake};
use super::thread_spin::Spinner;
use crate::body::arrived::Arrived;
use crate::body::outgoing::InBlock;
use crate::client::reply;
use crate::sys::cpu;

/// A place in the queue for a permit. Dropping it gives that up.
pub(super) struct Queued<'c> {
    pub(super) connection: &'c Connection,
    pub(super) ticket: Option<Ticket>,
}

impl Queued<'_> {
    pub(super) async fn granted(&mut self) -> Result<()> {
        poll_fn(|cx| {
            let mut state = self.connection.session().state();
            let Some(ticket) = self.ticket.take() else { return Poll::Ready(Ok(())) };
            // It may be the last of its task, whose future may hold a call of this connection.
            let before = state.calls.take_waiter(&ticket);
            let (granted, woken) = match state.calls.admitted(ticket) {
                Ok(None) => (Poll::Ready(Ok(())), None),
                Ok(Some(ticket)) => {
                    let woken = state.calls.wait_for_permit(&ticket, cx.waker().clone());
                    self.ticket = Some(ticket);
                    (Poll::Pending, woken)
                }
                Err((error, woken)) => (Poll::Ready(Err(error)), woken),
            };
            drop(state);
            drop(before);
            if let Some(waker) = woken {
                waker.wake();
            }
            granted
        })
        .await
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        if self.connection.session().link().check_process().is_err() {
            return;
        }
        let mut state = self.connection.session().state();
        let own = state.calls.take_waiter(&ticket);
        let granted = state.calls.leave_queue(ticket);
        drop(state);
        drop(own);
        if let Some(waker) = granted {
            waker.wake();
        }
    }
}

/// A call that was sent. Dropping it gives the reply up.
pub(super) struct Call<'c> {
    connection: &'c Connection,
    pub(super) id: CallId,
    /// The body of one that the server has not taken in: it is to be sent again.
    rejected: Option<Box<InBlock>>,
    /// It was sent, and nobody has asked for its answer.
    is_new: bool,
    /// As long as the task spins for all connections of the thread.
    spinner: Option<Spinner>,
    is_over: bool,
}

/// What has come for a call.
pub(super) enum Fetch {
    Answer(Result<Arrived>),
    /// It has to be sent again, in line.
    Rejected,
}

impl<'c> Call<'c> {
    /// A call of this id that was sent.
    pub(super) fn new(connection: &'c Connection, id: CallId) -> Self {
        Self { connection, id, rejected: None, is_new: true, spinner: None, is_over: false }
    }

    /// The answer, or that the call has to be sent again, if it is here; else the task is woken when it is.
    pub(super) fn poll_fetch(&mut self, cx: &mut Context<'_>) -> Poll<Fetch> {
        let session = self.connection.session();
        // Before the lock, so that it is woken after it.
        let mut to_wake = ToWake::default();
        let mut state = session.state();
        if mem::take(&mut self.is_new) {
            state = handover::spin(session, state, &mut self.spinner, &mut to_wake);
        }
        match state.calls.fetch(self.id) {
            Some(FromTable::Answer(gone)) => {
                let mut gone = state.woken(gone);
                drop(state);
                if let Some(spinner) = self.spinner.take() {
                    spinner.found();
                }
                self.is_over = true;
                return Poll::Ready(Fetch::Answer(gone.answer.take().expect("it is answered")));
            }
            Some(FromTable::Rejected(body)) => {
                drop(state);
                self.rejected = Some(body);
                self.spinner = None;
                return Poll::Ready(Fetch::Rejected);
            }
            None => {}
        }
        let is_known = state.calls.waiter(self.id).is_some_and(|waker| waker.will_wake(cx.waker()));
        let before = if is_known { None } else { state.calls.wait(self.id, cx.waker().clone()) };
        drop(state);
        // It may be the last of its task, whose future may hold a call of this connection.
        drop(before);
        self.spinner.take_if(|spinner| !spinner.turn(cx));
        Poll::Pending
    }

    /// Sends the call again, whose body the server cannot read where it stands.
    #[cold]
    pub(super) fn send_again(&mut self, deadline: Option<Instant>) -> Result<()> {
        let Some(body) = self.rejected.take() else { return Ok(()) };
        let link = self.connection.session().link();
        link.counters().fallback();
        self.is_new = true;
        // What is lent with it has been lent.
        let frame = body.inline(self.id, deadline.map(reply::time_left));
        let frame = frame.inspect_err(|_| self.unsend(&body))?;
        self.connection.send_frame(self.id, &frame, &[], cpu::current(), false).inspect_err(|_| {
            self.is_over = true;
            link.lender().take_back(body.loans());
        })
    }

    /// The call is not sent again: the server has not taken it in.
    #[cold]
    fn unsend(&mut self, body: &InBlock) {
        self.is_over = true;
        let session = &self.connection.session();
        session.link().lender().take_back(body.loans());
        let mut state = session.state();
        let gone = state.calls.unsent(self.id);
        let gone = state.woken(gone);
        drop(state);
        drop(gone);
    }

    /// Gives the call up, and says how far it can have got.
    pub(super) fn abandon(&mut self) -> Progress {
        self.is_over = true;
        if let Some(body) = self.rejected.take() {
            self.unsend(&body);
            return Progress::NotSent;
        }
        let session = &self.connection.session();
        let mut state = session.state();
        match state.calls.abandon(self.id, |position| reply::progress(position, session.link())) {
            Abandoned::Cancel { progress, waiter } => {
                drop(state);
                drop(waiter);
                // Where that is no use the connection is over.
                let _ = self.connection.link().send(&frame::cancel(self.id));
                progress
            }
            Abandoned::Gone(gone) => {
                let progress = match &gone.answer {
                    Some(Ok(_)) => Progress::Ran,
                    Some(Err(error)) => error.progress(),
                    None => Progress::NotSent,
                };
                let gone = state.woken(gone);
                drop(state);
                session.discard(self.id, gone);
                progress
            }
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        // A fork of the process has nothing to give up.
        if !self.is_over && self.connection.session().link().check_process().is_ok() {
            self.abandon();
        }
    }
}
