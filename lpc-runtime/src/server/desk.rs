//! [`Desk`]: what a server does with each message of a client, for both drivers.
//!
//! The rules are [`lpc_core::desk`]'s; here they meet frames, shared memory and the log. A driver receives,
//! passes each message to [`Desk::receive`], and does the [`Step`] that comes back: how it waits, and on
//! which thread or task a call runs, is its own. A call that ran is [answered](Desk::answer) and
//! [concluded](Desk::conclude), for which the driver says how an answer is sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use lpc_core::desk::{self as core, Driver};
use lpc_core::frame::{self, Body, CallId};
use lpc_core::receive::{MAX_FAILURE, Undecodable, Violation};
use lpc_core::run_queue::{Bounds, Cancelled, Cost};
use lpc_core::{Error, ErrorKind, Progress, Result};

use crate::body::arrived::Arrived;
use crate::body::outgoing::{Encoded, InBlock};
use crate::connection::inbox::{Inbox, Message};
use crate::connection::link::Link;
use crate::connection::warnings::Warning;
use crate::generated::{Description, Reply};
use crate::memory::buffer::Buffer;
use crate::server::admission::Permit;
use crate::server::context::{Running, cancelled};
use crate::server::ends::{Cause, End};
use crate::server::served::Served;
use crate::spans::{self, CallSpan};
use crate::sys::socket;

/// The calls of one connection: those that run, those that wait to, and the results that the client has not
/// read yet.
pub(crate) struct Desk {
    service: Description,
    state: Mutex<State>,
    undecodable: Undecodable,
    end: End,
    permit: Permit,
}

struct State {
    desk: core::Desk<Connection>,
    /// Contexts of calls that have ended, to be used again.
    spare: Vec<Arc<Running>>,
}

/// The types of one connection.
pub(crate) struct Connection;

impl Driver for Connection {
    type Call = Call;
    type Handle = Arc<Running>;
    type Block = Box<InBlock>;
    type Receive = Box<Inbox>;
}

/// What is to be done after a call has ended.
pub(crate) type Next = core::Next<Connection>;

/// A call that has arrived.
pub(crate) struct Call {
    pub(crate) id: CallId,
    pub(crate) method: u16,
    /// Whether its client has other calls waiting.
    pub(crate) is_busy: bool,
    pub(crate) body: Arrived,
    pub(crate) running: Arc<Running>,
}

/// What a message asks of the driver.
pub(crate) enum Step {
    /// Nothing more.
    Done,
    /// Nothing more: a call that runs has been told that it was cancelled.
    Cancelled,
    /// To run this call.
    Run(Call),
    /// A call has arrived that waits for its turn: nothing more is to be received where the desk [is
    /// full](Desk::is_full).
    Waits,
    /// To send this frame, and then to run calls that wait, where they [may start](Desk::may_start): the one
    /// that is answered by it may have been too large for others to run before it. What it refers to is
    /// dropped after it is queued: until then that keeps its numbers.
    Send(Buffer, Option<Box<InBlock>>),
}

/// A call that has its answer. It counts as running until that is on its way.
pub(crate) struct Answered {
    answer: Answer,
    /// Of the result.
    block: Option<Box<InBlock>>,
    /// The client has memory of this side's until it has read the answer.
    lends: bool,
    /// The error that ends the connection after the answer: the client has sent too much that does not
    /// decode.
    pub(crate) fatal: Option<Error>,
    ended: Ended,
}

/// What a call that ended leaves to be counted.
struct Ended {
    id: CallId,
    cost: Cost,
    running: Arc<Running>,
}

/// A frame that answers a call.
pub(crate) enum Answer {
    Reply(Encoded),
    Failure(Buffer),
}

impl Desk {
    pub(crate) fn new<D: ?Sized>(served: &Served<D>, link: &Link, permit: Permit) -> Self {
        let bounds = Bounds { running: served.max_calls, copied: link.limits().pool, ..Bounds::default() };
        let state = State { desk: core::Desk::new(bounds), spare: Vec::new() };
        spans::accepted(&served.service, permit.peer());
        Self {
            service: served.service,
            state: Mutex::new(state),
            undecodable: Undecodable::default(),
            end: End::default(),
            permit,
        }
    }

    /// The span of a call of this method.
    #[inline]
    pub(crate) fn span(&self, method: u16, call: CallId) -> CallSpan {
        CallSpan::of_server(&self.service, method, self.permit.peer(), call)
    }

    /// Does what a message of the client says.
    ///
    /// Where a call is to run, `parks` says whether the receive half, if it is in `inbox`, is parked
    /// meanwhile; it is told whether the call is the only one.
    ///
    /// # Errors
    ///
    /// The client has broken the protocol, or the connection is over.
    #[inline]
    pub(crate) fn receive(
        &self,
        link: &Arc<Link>,
        message: Message,
        inbox: &mut Option<Box<Inbox>>,
        parks: impl FnOnce(&Call, bool) -> bool,
    ) -> Result<Step> {
        let mut state = self.state();
        // Of what was taken off the desk then, the client does not know that it was.
        if state.desk.is_over() {
            return Err(Error::new(ErrorKind::Disconnected, "the connection is over"));
        }
        match message {
            Message::Call { call: id, method, is_busy, time_left, body } => {
                link.counters().call();
                link.expect_life();
                // A time that no clock shows never comes.
                let deadline = time_left.and_then(|left| Instant::now().checked_add(left));
                let running = state.context(link, &self.permit, deadline, id);
                let call = Call { id, method, is_busy, body, running: Arc::clone(&running) };
                let Some(call) = state.desk.arrive(id, running, call.cost(), call)? else {
                    return Ok(Step::Waits);
                };
                let is_alone = state.desk.running() == 1;
                if parks(&call, is_alone)
                    && let Some(inbox) = inbox.take()
                {
                    state.desk.park(inbox);
                }
                Ok(Step::Run(call))
            }
            Message::Release { call } => {
                let block = state.desk.release(call)?;
                drop(state);
                drop(block);
                Ok(Step::Done)
            }
            Message::Resend { call } => {
                let block = state.desk.resend(call)?;
                drop(state);
                link.counters().fallback();
                let frame = block.inline(call, None);
                let frame =
                    frame.unwrap_or_else(|error| failure(link, call, &error.with_progress(Progress::Ran)));
                Ok(Step::Send(frame, Some(block)))
            }
            Message::Cancel { call: id } => {
                let found = state.desk.cancel(id);
                drop(state);
                match found {
                    Cancelled::Waiting(call) => {
                        // What its arguments hold goes back with the answer.
                        drop(call);
                        Ok(Step::Send(failure(link, id, &cancelled(Progress::NotSent)), None))
                    }
                    Cancelled::Running(running) => {
                        running.cancel();
                        Ok(Step::Cancelled)
                    }
                    Cancelled::Nothing => Ok(Step::Done),
                }
            }
            // `Receiver` lets only these through to a server.
            Message::Reply { call, .. } | Message::Failure { call, .. } => {
                Err(Violation::UnknownCall(call).into())
            }
            Message::Closing { .. } => unreachable!("`Receiver` lets none through to a server"),
        }
    }

    /// The answer of a call whose implementation returned or panicked. The arguments are dropped: loans that
    /// nobody took go back with the answer.
    ///
    /// It is told to the call's span, which is entered.
    #[inline]
    pub(crate) fn answer<D: ?Sized>(
        &self,
        served: &Served<D>,
        link: &Link,
        call: Call,
        outcome: thread::Result<Result<Reply>>,
        span: &CallSpan,
    ) -> Answered {
        let outcome = outcome.unwrap_or_else(|panic| {
            let error = served.panicked(call.method, panic);
            link.warnings().warn_of(Warning::Panicked, &error);
            Err(error)
        });
        let outcome = outcome.map_err(|error| call.body.explain(error));
        // Whatever it is, the client does not wait for it.
        let outcome = if call.running.is_cancelled() { Err(cancelled(Progress::Ran)) } else { outcome };
        span.ended(&outcome);
        let fatal = match &outcome {
            Err(error) if error.kind() == ErrorKind::Decode => {
                self.undecodable.failed().err().map(Error::from)
            }
            _ => {
                self.undecodable.decoded();
                None
            }
        };
        Answered { fatal, ..Answered::new(link, call, outcome) }
    }

    /// A call has its answer, on this CPU: the id is free from now on, and the call has ended once that is on
    /// its way. What does not go out without a system call is sent by `send`; it is told whether the
    /// connection ends after it.
    ///
    /// # Errors
    ///
    /// The answer could not be sent, or the connection ends after it: the client has broken the protocol.
    #[inline]
    pub(crate) fn conclude(
        &self,
        link: &Link,
        answered: Answered,
        cpu: Option<u32>,
        send: impl FnOnce(&[u8], bool) -> Result<()>,
    ) -> Result<Next> {
        let Answered { answer, block, lends, fatal, ended } = answered;
        let mut state = self.state();
        state.desk.answer(ended.id, block)?;
        answer.count(link);
        let put = link.try_put(&answer, cpu);
        if put.is_none() {
            drop(state);
            send(&answer, fatal.is_some())?;
            state = self.state();
        }
        let next = state.finish(ended);
        drop(state);
        if let Some((_, true)) = put {
            link.wake();
        }
        if lends {
            link.watch_reading();
        }
        fatal.map_or(Ok(next), Err)
    }

    /// A call that waits and may run now.
    pub(crate) fn start_next(&self) -> Option<Call> {
        self.state().desk.start_next()
    }

    /// Whether there is one.
    pub(crate) fn may_start(&self) -> bool {
        self.state().desk.may_start()
    }

    /// Whether nothing more should be received until a call has ended.
    pub(crate) fn is_full(&self) -> bool {
        !self.may_receive(false)
    }

    /// To be asked from time to time while it is full. Whether the calls that run stand still, so that more
    /// is to be received: what they wait for may not be read yet.
    pub(crate) fn look(&self) -> bool {
        self.state().desk.look()
    }

    /// Whether more is to be received, where the link [is congested](Link::is_congested), or is not.
    pub(crate) fn may_receive(&self, is_congested: bool) -> bool {
        self.state().desk.may_receive(is_congested)
    }

    /// Whether the client sends nothing more, and every call is answered.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_drained(&self) -> bool {
        self.state().desk.is_drained()
    }

    /// Whether every call is answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.state().desk.is_idle()
    }

    /// Whether the client waits for an answer, and so is to give signs of life.
    pub(crate) fn is_awaited(&self) -> bool {
        self.state().desk.has(|running| !running.is_cancelled())
    }

    /// Calls that run.
    pub(crate) fn running(&self) -> usize {
        self.state().desk.running()
    }

    /// Parks the receive half while its holder runs a call.
    pub(crate) fn park(&self, inbox: Box<Inbox>) {
        self.state().desk.park(inbox);
    }

    /// Parks the receive half until a call has ended; gives it back where more may be received by now.
    pub(crate) fn park_if_full(&self, inbox: Box<Inbox>) -> Option<Box<Inbox>> {
        self.state().desk.park_if_full(inbox)
    }

    /// Takes the receive half, if it is parked and more may be received.
    pub(crate) fn take_parked(&self) -> Option<Box<Inbox>> {
        self.state().desk.take_parked()
    }

    /// The end of what the client sends. Whether the connection is over with it: it may still wait for the
    /// answers of calls that run.
    pub(crate) fn hung_up(&self, link: &Link, inbox: &Inbox) -> bool {
        // That a message is cut in two is nothing to the calls that run: the end may be that of this side's
        // receiving.
        if let Err(error) = inbox.ended() {
            tracing::debug!(service = self.service.name, %error, "connection cut");
        }
        self.state().desk.hang_up();
        let is_over = socket::is_hung_up(link.socket());
        if is_over {
            self.log_end(&Cause::HungUp);
        }
        is_over
    }

    /// The connection is over: whatever runs or waits is cancelled.
    pub(crate) fn end(&self) {
        let remains = self.state().desk.end();
        remains.running.iter().for_each(|running| running.cancel());
    }

    /// Logs why the connection is over: the first cause, of several that calls may run into.
    pub(crate) fn log_end(&self, cause: &Cause<'_>) {
        let calls = || self.state().desk.unanswered();
        self.end.log(self.service, &self.permit, cause, calls);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.log_end(&Cause::HungUp);
    }
}

/// Contexts of calls that are kept for those to come.
const SPARE: usize = 16;

impl State {
    #[inline]
    fn context(
        &mut self,
        link: &Arc<Link>,
        permit: &Permit,
        deadline: Option<Instant>,
        id: CallId,
    ) -> Arc<Running> {
        let mut running = self.spare.pop().unwrap_or_else(|| {
            Arc::new(Running::new(link, permit.peer().cloned(), Arc::clone(permit.shutdown())))
        });
        Arc::get_mut(&mut running).expect("what is spare has no other owner").renew(deadline, id.nesting());
        running
    }

    #[inline]
    fn finish(&mut self, ended: Ended) -> Next {
        let Ended { id, cost, mut running } = ended;
        let next = self.desk.finish(id, cost);
        if self.spare.len() < SPARE && Arc::get_mut(&mut running).is_some() {
            self.spare.push(running);
        }
        next
    }
}

impl Call {
    #[inline]
    fn cost(&self) -> Cost {
        Cost { held: self.body.held_len(), copied: self.body.copied_len() }
    }

    /// The answer of a call that was cancelled before it ran.
    pub(crate) fn refused(self, link: &Link) -> Answered {
        Answered::new(link, self, Err(cancelled(Progress::NotSent)))
    }
}

impl Answered {
    #[inline]
    fn new(link: &Link, call: Call, outcome: Result<Reply>) -> Self {
        let ended = Ended { id: call.id, cost: call.cost(), running: call.running };
        drop(call.body);
        let (answer, block, lends) = match outcome {
            Ok(Reply(mut reply)) => {
                reply.seal(ended.id);
                link.lender().lend(reply.loans());
                let block = reply.take_block();
                let lends = block.is_some() || !reply.loans().is_empty();
                (Answer::Reply(reply), block, lends)
            }
            Err(error) => (Answer::Failure(failure(link, ended.id, &error)), None, false),
        };
        Self { answer, block, lends, fatal: None, ended }
    }
}

impl Answer {
    /// Counts it. For the holder of the lock on the calls.
    #[inline]
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

/// The frame of a call that failed.
fn failure(link: &Link, call: CallId, error: &Error) -> Buffer {
    link.counters().error();
    let mut frame = Buffer::take();
    frame::begin_failure(&mut frame);
    // A longer one would end the connection of a caller whose call merely failed.
    error.to_wire().within(MAX_FAILURE as usize).encode(&mut frame);
    frame::seal(&mut frame, call, Body::Inline, &[]);
    frame
}
