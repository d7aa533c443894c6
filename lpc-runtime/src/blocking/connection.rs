//! One connection of a blocking server: who reads it, what runs on it, and how its calls are answered.
//!
//! Exactly one thread leads a connection: it holds the [`Inbox`] and reads. A call of a quick method (see
//! [`Pace`](lpc_core::pace::Pace)), or of a client that has no other call waiting, it runs on the spot, with the inbox
//! put aside so that the [watch](super::workers) can have another thread take over should the call take long after
//! all. For any other the leader passes the inbox to another thread before it runs the call: that costs a wake-up.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use lpc_core::Result;
use lpc_core::frame::CallId;
use lpc_core::receiver::Violation;

use super::workers::{IDLE, Lead, Workers};
use crate::doors::Guest;
use crate::lane::incoming::{Arrived, Filled, Inbox, Message};
use crate::link::Link;
use crate::patience::waker_of;
use crate::service::{Reply, Request};
use crate::serving::{self, Blocks, Served};
use crate::shared::Current;
use crate::sys::socket::Wait;

/// The implementation that a server calls, its type forgotten.
pub(super) type Dispatch = dyn Fn(Request<'_>) -> Result<Reply> + Send + Sync;

pub(super) struct Connection {
    link: Arc<Link>,
    served: Arc<Served<Dispatch>>,
    blocks: Blocks,
    state: Mutex<State>,
    /// The watcher's tick at which the leader began to run a call itself; [`IDLE`] while it does not.
    busy: AtomicU32,
    _guest: Guest,
}

#[derive(Debug)]
struct State {
    /// Calls that run.
    running: usize,
    /// The inbox, while the leader runs a call itself: whoever takes it out is the leader.
    aside: Option<Box<Inbox>>,
}

/// A call that has arrived.
struct Call {
    id: CallId,
    method: u16,
    is_busy: bool,
    body: Arrived,
}

impl Connection {
    pub(super) fn new(link: Arc<Link>, served: Arc<Served<Dispatch>>, guest: Guest) -> Arc<Self> {
        let state = Mutex::new(State { running: 0, aside: None });
        Arc::new(Self {
            link,
            served,
            blocks: Blocks::default(),
            state,
            busy: AtomicU32::new(IDLE),
            _guest: guest,
        })
    }

    pub(super) fn busy(&self) -> &AtomicU32 {
        &self.busy
    }

    /// Leads until somebody else does, or the connection is over.
    pub(super) fn lead(self: &Arc<Self>, inbox: Box<Inbox>, workers: &Arc<Workers>) {
        let _current = Current::enter(&self.link);
        if let Err(error) = self.try_lead(inbox, workers) {
            serving::log_end(self.served.service, &error);
            self.link.close();
        }
    }

    fn try_lead(self: &Arc<Self>, mut inbox: Box<Inbox>, workers: &Arc<Workers>) -> Result<()> {
        loop {
            let Some(message) = inbox.next()? else {
                // All that arrived is answered or on its way: send the answers before waiting for more.
                let _ = self.link.flush().map_err(serving::broken)?;
                if inbox.fill(self.link.socket(), Wait::Sleep)? == Filled::End {
                    // Calls that run may still answer: the client may have closed its sending side only.
                    serving::log_cut(self.served.service, &inbox);
                    return Ok(());
                }
                continue;
            };
            let call = match message {
                Message::Call { call, method, is_busy, body } => {
                    self.admit(&body)?;
                    Call { id: call, method, is_busy, body }
                }
                Message::Release { call } => {
                    self.blocks.release(call)?;
                    continue;
                }
                Message::Resend { call } => {
                    let frame = self.blocks.inline(&self.link, call)?;
                    let _ = self.link.send(&frame).map_err(serving::broken)?;
                    continue;
                }
                // `Receiver` lets only these through to a server.
                Message::Reply { call, .. } | Message::Failure { call, .. } => {
                    return Err(Violation::UnknownCall(call).into());
                }
            };
            self.link.counters().call();
            let is_quick = self.served.is_quick(call.method);
            let (may_pass_on, is_alone) = {
                let mut state = self.state();
                state.running += 1;
                (state.running < self.served.max_calls, state.running == 1 && !call.is_busy)
            };
            if may_pass_on && !is_quick && !is_alone {
                match workers.lead(Lead { connection: Arc::clone(self), inbox }) {
                    Ok(()) => {
                        let result = self.run(call, false);
                        let aside = self.ended();
                        result?;
                        // At the limit of calls at once the one who led then is running a call itself: go on for it.
                        match aside {
                            Some(next) => inbox = next,
                            None => return Ok(()),
                        }
                        continue;
                    }
                    Err(Lead { inbox: back, .. }) => inbox = back,
                }
            }
            // The answer may wait for those of the calls behind it, as long as somebody can take over if they take long.
            let more = inbox.has_next() && may_pass_on;
            if !is_quick || !may_pass_on {
                let _ = self.link.flush().map_err(serving::broken)?;
            }
            self.state().aside = Some(inbox);
            workers.begin(&self.busy);
            let result = self.run(call, more);
            Workers::end(&self.busy);
            let aside = self.ended();
            result?;
            match aside {
                Some(back) => inbox = back,
                // Who leads now may have looked at the queue before the answer was in it.
                None => return self.link.flush().map(drop).map_err(serving::broken),
            }
        }
    }

    /// Waits until a call's arguments may be copied.
    fn admit(&self, body: &Arrived) -> Result<()> {
        while !self.blocks.admit(&self.link, body, || waker_of(thread::current())) {
            // Answers may wait for this thread to send them.
            let _ = self.link.flush().map_err(serving::broken)?;
            thread::park();
        }
        Ok(())
    }

    /// A call is over. Gives the inbox if it stands aside: the caller leads from then on.
    fn ended(&self) -> Option<Box<Inbox>> {
        let mut state = self.state();
        state.running -= 1;
        state.aside.take()
    }

    /// Has another thread lead, because the leader is held up; not where that would be a call too many.
    pub(super) fn take_over(self: &Arc<Self>, workers: &Arc<Workers>) {
        let inbox = {
            let mut state = self.state();
            if state.running >= self.served.max_calls { None } else { state.aside.take() }
        };
        let Some(inbox) = inbox else { return };
        if let Err(Lead { inbox, .. }) = workers.lead(Lead { connection: Arc::clone(self), inbox }) {
            let mut state = self.state();
            if state.running > 0 {
                state.aside = Some(inbox);
            } else {
                // All who could have taken it up again have gone.
                drop(state);
                self.link.close();
            }
        }
    }

    /// Runs a call and answers it. An error ends the connection.
    ///
    /// Where `more` calls have arrived already, the answer waits for theirs: one system call sends them together.
    fn run(&self, call: Call, more: bool) -> Result<()> {
        let Call { id, method, body, .. } = call;
        let started = Instant::now();
        let copied_len = body.copied_len();
        let answer = catch_unwind(AssertUnwindSafe(|| {
            (self.served.dispatch)(self.served.request(&self.link, method, &body))
        }));
        self.blocks.done(copied_len);
        self.served.took(method, started.elapsed());
        let answer = answer.unwrap_or_else(|panic| Err(self.served.panicked(method, &*panic)));
        let answer = answer.map_err(|error| body.explain(error));
        // Loans that nobody took go back with the answer.
        drop(body);
        let over = serving::is_fatal(&answer);
        let frame = self.blocks.frame(&self.link, id, answer)?;
        let sent = if more && over.is_none() { self.link.push(&frame) } else { self.link.send(&frame) };
        let _ = sent.map_err(serving::broken)?;
        over.map_or(Ok(()), Err)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
