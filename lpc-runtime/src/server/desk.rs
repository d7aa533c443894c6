//! What the servers of both drivers have in common: how the calls of a connection are answered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lpc_core::frame::{self, Body, CallId};
use lpc_core::receive::{MAX_FAILURE, Violation};
use lpc_core::run_queue::{Bounds, Cancelled, Cost, RunQueue};
use lpc_core::{Error, ErrorKind, Limits, Result};

use crate::body::arrived::Arrived;
use crate::body::outgoing::{Encoded, InBlock};
use crate::connection::inbox::Inbox;
use crate::connection::link::Link;
use crate::credentials::Credentials;
use crate::generated::Reply;
use crate::memory::buffer::Buffer;
use crate::server::context::Running;

/// A call that has arrived.
pub(crate) struct Call {
    pub(crate) id: CallId,
    pub(crate) method: u16,
    /// Whether its client has other calls waiting.
    pub(crate) is_busy: bool,
    pub(crate) body: Arrived,
    pub(crate) running: Arc<Running>,
}

impl Call {
    fn cost(&self) -> Cost {
        Cost { held: self.body.held_len(), copied: self.body.copied_len() }
    }
}

/// What a call that ended leaves to be counted.
pub(crate) struct Ended {
    id: CallId,
    cost: Cost,
    running: Arc<Running>,
}

impl Call {
    /// What is left of it when it has ended.
    pub(crate) fn into_ended(self) -> Ended {
        Ended { id: self.id, cost: self.cost(), running: self.running }
    }
}

/// The calls of one connection: those that run, those that wait to, and the results that the client has not
/// read yet.
pub(crate) struct Desk {
    peer: Credentials,
    state: Mutex<State>,
    results: Mutex<HashMap<CallId, Box<InBlock>>>,
}

struct State {
    queue: RunQueue<Call, Arc<Running>>,
    /// Of calls that are over, to be used again.
    spare: Vec<Arc<Running>>,
    /// The inbox, while who leads the connection runs a call, or nothing more is to be read: whoever takes it
    /// out leads.
    aside: Option<Box<Inbox>>,
    /// The connection is over: nothing runs any more that did not.
    is_over: bool,
}

/// What becomes of a call that has arrived.
pub(crate) enum Arrival {
    /// It runs now.
    Runs(Call),
    /// It waits for its turn.
    Waits,
}

/// What became of an answer.
pub(crate) enum Concluded {
    /// It is in the ring, and the call has ended. The client may have to be [woken](Link::wake) for it.
    Sent { next: Next, has_to_wake: bool },
    /// It is to be sent, and then the call has [ended](Desk::finish).
    Unsent(Answer, Ended),
}

/// What is to be done after a call has ended.
pub(crate) struct Next {
    /// To be run.
    pub(crate) call: Option<Call>,
    /// Others may run beside it.
    pub(crate) has_more: bool,
    /// To be led.
    pub(crate) aside: Option<Box<Inbox>>,
}

impl Desk {
    pub(crate) fn new(peer: Credentials, max_calls: usize, limits: &Limits) -> Self {
        let bounds = Bounds { running: max_calls, copied: limits.pool, ..Bounds::default() };
        let state = State { queue: RunQueue::new(bounds), spare: Vec::new(), aside: None, is_over: false };
        Self { peer, state: Mutex::new(state), results: Mutex::default() }
    }

    /// A call has arrived. If it runs, and `puts_aside` says so for a call that is the only one, or not, the
    /// inbox is put aside while its holder runs it.
    ///
    /// # Errors
    ///
    /// Another one of its id is not answered yet.
    pub(crate) fn arrive(
        &self,
        link: &Arc<Link>,
        (id, method, is_busy): (CallId, u16, bool),
        time_left: Option<Duration>,
        body: Arrived,
        inbox: &mut Option<Box<Inbox>>,
        puts_aside: impl FnOnce(bool) -> bool,
    ) -> Result<Arrival> {
        // A time that no clock shows never comes.
        let deadline = time_left.and_then(|left| Instant::now().checked_add(left));
        let mut state = self.state();
        if state.is_over {
            return Err(Error::new(ErrorKind::Disconnected, "the connection is over"));
        }
        let mut running = state.spare.pop().unwrap_or_else(|| Arc::new(Running::new(link, self.peer)));
        Arc::get_mut(&mut running).expect("what is spare has no other owner").renew(deadline);
        let call = Call { id, method, is_busy, body, running: Arc::clone(&running) };
        Ok(match state.queue.arrive(id, running, call.cost(), call)? {
            Some(call) => {
                let is_alone = state.queue.running() == 1;
                if puts_aside(is_alone) {
                    state.aside = inbox.take();
                }
                Arrival::Runs(call)
            }
            None => Arrival::Waits,
        })
    }

    /// The answer of a call that ran is on its way.
    pub(crate) fn finish(&self, ended: Ended) -> Next {
        self.state().finish(ended)
    }

    /// A call that waits and may run now.
    pub(crate) fn start_next(&self) -> Option<Call> {
        self.state().queue.start_next()
    }

    /// Whether there is one.
    pub(crate) fn may_start(&self) -> bool {
        self.state().queue.may_start()
    }

    /// Nobody waits for the answer of a call any more. Gives it back if it did not run, to be answered.
    pub(crate) fn cancel(&self, id: CallId) -> Option<Call> {
        let cancelled = self.state().queue.cancel(id);
        match cancelled {
            Cancelled::Waiting(call) => Some(call),
            Cancelled::Running(running) => {
                running.cancel();
                None
            }
            Cancelled::Nothing => None,
        }
    }

    /// The client is gone, and waits for nothing any more.
    pub(crate) fn cancel_all(&self) {
        let mut state = self.state();
        state.is_over = true;
        let (waiting, running) = state.queue.cancel_all();
        let aside = state.aside.take();
        drop(state);
        running.iter().for_each(|running| running.cancel());
        drop((waiting, aside));
    }

    /// Whether nothing more should be read for now.
    pub(crate) fn is_full(&self) -> bool {
        self.state().queue.is_full()
    }

    /// Whether every call is answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.state().queue.is_idle()
    }

    /// Calls that run.
    pub(crate) fn running(&self) -> usize {
        self.state().queue.running()
    }

    /// Puts the inbox aside while its holder runs a call.
    pub(crate) fn put_aside(&self, inbox: Box<Inbox>) {
        self.state().aside = Some(inbox);
    }

    /// Puts the inbox aside until a call has ended; gives it back where more can be read by now.
    pub(crate) fn put_aside_if_full(&self, inbox: Box<Inbox>) -> Option<Box<Inbox>> {
        let mut state = self.state();
        if !state.queue.is_full() {
            return Some(inbox);
        }
        state.aside = Some(inbox);
        None
    }

    /// Takes the inbox, if it stands aside and may be read.
    pub(crate) fn take_aside(&self) -> Option<Box<Inbox>> {
        self.state().take_aside()
    }

    /// The frame that answers a call that did not run, whose id is free from then on.
    pub(crate) fn refuse(&self, link: &Link, call: CallId, error: Error) -> Result<Answer> {
        self.state().queue.answer(call);
        self.answer(link, call, Err(error))
    }

    /// A call has ended, and this answers it: the id is free from now on. Sends what goes out without a
    /// system call.
    pub(crate) fn conclude(&self, link: &Link, answer: Answer, ended: Ended) -> Concluded {
        let mut state = self.state();
        state.queue.answer(ended.id);
        answer.count(link);
        match link.put(&answer) {
            Some((_, has_to_wake)) => Concluded::Sent { next: state.finish(ended), has_to_wake },
            None => Concluded::Unsent(answer, ended),
        }
    }

    /// The frame that answers `call`. A result in a block stays until it is released.
    pub(crate) fn answer(&self, link: &Link, call: CallId, answer: Result<Reply>) -> Result<Answer> {
        match answer {
            Ok(Reply(mut reply)) => {
                reply.seal(call);
                link.lend(reply.loans());
                if let Some(block) = reply.take_block()
                    && self.results().insert(call, block).is_some()
                {
                    let reason = "is called again before the result of its first was released";
                    return Err(Violation::CallState { call, reason }.into());
                }
                Ok(Answer::Reply(reply))
            }
            Err(error) => {
                link.counters().error();
                let mut frame = Buffer::take();
                frame::begin_failure(&mut frame);
                // A longer one would end the connection of a caller whose call merely failed.
                error.to_wire().within(MAX_FAILURE as usize).encode(&mut frame);
                frame::seal(&mut frame, call, Body::Inline, &[]);
                Ok(Answer::Failure(frame))
            }
        }
    }

    /// The client has read the result of `call`.
    pub(crate) fn release(&self, call: CallId) -> Result<()> {
        let reason = "has no result to be released";
        self.results().remove(&call).ok_or(Violation::CallState { call, reason })?;
        Ok(())
    }

    /// The client cannot read the segment in which the result of `call` is: a frame with the result in it.
    pub(crate) fn inline(&self, link: &Link, call: CallId) -> Result<Buffer> {
        let reason = "has no result to be sent again";
        let block = self.results().remove(&call).ok_or(Violation::CallState { call, reason })?;
        link.counters().fallback();
        Ok(block.inline(call, None))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn results(&self) -> MutexGuard<'_, HashMap<CallId, Box<InBlock>>> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Contexts of calls that are kept for those to come.
const SPARE: usize = 16;

impl State {
    fn finish(&mut self, ended: Ended) -> Next {
        let Ended { cost, mut running, .. } = ended;
        let call = self.queue.finish(cost);
        if self.spare.len() < SPARE && Arc::get_mut(&mut running).is_some() {
            self.spare.push(running);
        }
        Next { call, has_more: self.queue.may_start(), aside: self.take_aside() }
    }

    fn take_aside(&mut self) -> Option<Box<Inbox>> {
        if self.queue.is_full() { None } else { self.aside.take() }
    }
}

/// A frame that answers a call.
pub(crate) enum Answer {
    Reply(Encoded),
    Failure(Buffer),
}

impl Answer {
    /// Counts it. For who holds the lock on the calls.
    fn count(&self, link: &Link) {
        if let Self::Reply(reply) = self {
            reply.count(link.counters());
        }
    }
}

impl std::ops::Deref for Answer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Reply(reply) => reply.frame(),
            Self::Failure(frame) => frame,
        }
    }
}
