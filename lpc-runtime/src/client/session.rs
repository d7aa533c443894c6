//! [`Session`]: what the clients of both drivers do around a call.
//!
//! The rules are those of [`Calls`]; how a caller waits and is woken is the driver's ([`Callers`]).

use std::fmt;
use std::io;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use lpc_core::calls::{self, Calls};
use lpc_core::frame::CallId;
use lpc_core::receive::{Undecodable, Violation};
use lpc_core::turns::{Actions, Spot, Turns};
use lpc_core::{Error, ErrorKind, Progress, Result, Threshold};

use crate::body::arrived::Arrived;
use crate::body::outgoing::{Encoded, InBlock};
use crate::child::ChildProcess;
use crate::client::methods::Methods;
use crate::client::reply::{self, Fetched};
use crate::config::{AtQuota, Config};
use crate::connection::inbox::{Inbox, Message};
use crate::connection::link::Link;
use crate::connection::warnings::Warning;
use crate::credentials::Credentials;
use crate::generated::{Description, Encode, Encoder, Outcome};
use crate::handshake::{self, Greeted};
use crate::server::context::Context;
use crate::shared::{self, Plain, SharedMut};
use crate::spans::{self, CallSpan};

/// One connection of a client.
pub(crate) struct Session<C: Callers> {
    link: Arc<Link>,
    service: Description,
    /// The server, as far as it is known.
    peer: Option<Credentials>,
    /// The server, where this process has started it.
    child: OnceLock<Arc<ChildProcess>>,
    methods: Methods,
    max_running: Option<u32>,
    thresholds: Box<[Threshold]>,
    deadlines: Box<[Option<Duration>]>,
    at_quota: AtQuota,
    undecodable: Undecodable,
    state: Mutex<State<C>>,
}

/// What callers share with the holder of the receive half.
pub(crate) struct State<C: Callers> {
    pub(crate) calls: Calls<Arrived, Box<InBlock>, C::Waiter>,
    /// The driver's: where the receive half is, and how callers wait.
    pub(crate) callers: C,
}

pub(crate) type Gone<W> = calls::Gone<Arrived, Box<InBlock>, W>;

/// How the callers of a driver wait.
pub(crate) trait Callers {
    /// How a caller is told that what it waits for is there.
    type Waiter;

    /// It is there. The waker that is given is to be woken without the lock.
    fn wake(&mut self, waiter: Self::Waiter) -> Option<Waker>;

    /// Answers are about to be handed out, by a caller.
    fn begin_delivery(&mut self) {}

    /// They have been.
    fn end_delivery(&mut self) -> Actions {
        Actions::default()
    }
}

impl Callers for Turns<Box<Inbox>> {
    type Waiter = Spot;

    fn wake(&mut self, waiter: Spot) -> Option<Waker> {
        Turns::wake(self, waiter)
    }

    fn begin_delivery(&mut self) {
        Turns::begin_delivery(self);
    }

    fn end_delivery(&mut self) -> Actions {
        Turns::end_delivery(self)
    }
}

/// The call of the holder of the receive half: what comes for it is not handed out, but kept here.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// `None` where the answer is to be handed out like others.
    pub(crate) call: Option<CallId>,
    pub(crate) answer: Option<Result<Arrived>>,
}

/// What came of receiving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Handed {
    /// All that had arrived has been handed out.
    Out,
    /// And the server shuts down: calls that it has not received have failed.
    Closing,
}

impl<C: Callers> Session<C> {
    pub(crate) fn new(
        link: Arc<Link>,
        service: Description,
        greeted: Greeted,
        thresholds: Box<[Threshold]>,
        config: &Config,
        callers: C,
    ) -> Self {
        let calls = Calls::new(link.limits().max_calls as usize);
        spans::connected(&service, greeted.peer.as_ref());
        Self {
            link,
            service,
            peer: greeted.peer,
            child: OnceLock::new(),
            methods: greeted.methods,
            max_running: greeted.max_running,
            thresholds,
            deadlines: reply::deadlines(service.methods, config.deadline),
            at_quota: config.at_quota,
            undecodable: Undecodable::default(),
            state: Mutex::new(State { calls, callers }),
        }
    }

    #[inline]
    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(crate) fn service(&self) -> &Description {
        &self.service
    }

    /// The span of a call of this method.
    #[inline]
    pub(crate) fn span(&self, method: u32) -> CallSpan {
        CallSpan::of_client(&self.service, method, self.peer.as_ref())
    }

    pub(crate) fn methods(&self) -> &Methods {
        &self.methods
    }

    pub(crate) fn at_quota(&self) -> AtQuota {
        self.at_quota
    }

    #[inline]
    pub(crate) fn state(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server is this process.
    pub(crate) fn is_with(&self, child: Arc<ChildProcess>) {
        let _ = self.child.set(child);
    }

    /// The child process whose end may be what this error is about.
    #[cold]
    pub(crate) fn child_of(&self, error: &Error) -> Option<&ChildProcess> {
        let is_about_it = error.is_disconnected() && !error.is_remote() && self.link.check_process().is_ok();
        self.child.get().filter(|_| is_about_it).map(|child| &**child)
    }

    /// How long a call of this method may take, if its caller does not say otherwise.
    pub(crate) fn time_of(&self, method: u32) -> Option<Duration> {
        self.deadlines[method as usize]
    }

    /// Why no other call can be made.
    pub(crate) fn why_closed(&self) -> Error {
        self.state().calls.life().why_closed().cloned().unwrap_or_else(reply::receives_nothing)
    }

    /// The same, for somebody who observes the connection: with the exit status of a child, where it is
    /// known.
    pub(crate) fn why_lost(&self) -> Error {
        let error = self.why_closed();
        match self.child_of(&error) {
            Some(child) => child.explain_now(error),
            None => error,
        }
    }

    /// Whether another call can be made, in this process.
    pub(crate) fn is_usable(&self) -> bool {
        // First: in a fork of the process no lock is to be taken.
        self.link.check_process().is_ok() && !self.link.is_broken() && self.state().calls.life().is_open()
    }

    /// Encodes the arguments of a call; `hint` is kept for another try.
    ///
    /// # Errors
    ///
    /// `Ok(Err(bytes))`: so many bytes of shared memory are missing at the moment.
    #[inline]
    pub(crate) fn encode(
        &self,
        (method, number): (u32, u16),
        encode: &Encode<'_>,
        hint: &mut u64,
    ) -> Result<Result<Encoded, u64>> {
        let threshold = self.thresholds[method as usize];
        let nesting = Context::nesting_of_calls()?;
        let mut encoder = Encoder::new(&self.link, &self.service, method, number, threshold, *hint);
        let Err(error) = encode(&mut encoder) else { return encoder.finish(nesting).map(Ok) };
        // What is encoded so far goes: others may be waiting for its memory.
        let missing = encoder.missing().ok_or(error)?;
        *hint = missing.hint;
        Ok(Err(missing.room))
    }

    /// Memory for a loan; `Ok(Err(bytes))` where so many are missing at the moment.
    pub(crate) fn try_loan<T: Plain>(&self, len: usize) -> Result<Result<SharedMut<[T]>, u64>> {
        self.link.check_process()?;
        let Some(size) = shared::loan_size::<T>(len, self.link.limits())? else {
            return shared::unshared(len).map(Ok);
        };
        match self.link.alloc(size) {
            Ok(Some(block)) => Ok(Ok(shared::loaned(block, len))),
            Ok(None) => Ok(Err(size)),
            Err(error) => {
                self.link.warnings().warn_of(Warning::NoMemoryForLoan, &error);
                shared::unshared(len).map(Ok)
            }
        }
    }

    /// Enters a call that has its permit: its frame is complete, and is to be sent next.
    #[inline]
    pub(crate) fn start(
        &self,
        state: &mut State<C>,
        request: &mut Encoded,
        deadline: Option<Instant>,
    ) -> CallId {
        if !state.calls.is_empty() {
            request.mark_busy();
        }
        self.link.counters().call();
        self.link.expect_life();
        request.count(self.link.counters());
        let call = state.calls.start_nested(request.take_block(), request.nesting());
        request.seal(call);
        if let Some(deadline) = deadline {
            request.set_time_left(reply::time_left(deadline));
        }
        call
    }

    /// The frame of a call was sent; what happened meanwhile is seen to. Whether its answer is still to come.
    #[inline]
    pub(crate) fn is_pending(&self, state: &State<C>) -> bool {
        !state.calls.life().is_over() && !self.link.is_broken()
    }

    /// A call was sent while the connection ended, or broke: its end is for the sender to see to.
    #[cold]
    pub(crate) fn fail_late(&self) {
        let error = self.why_closed();
        let no_further = if self.state().calls.life().is_over() { Progress::Ran } else { Progress::NotSent };
        self.fail(&error, no_further);
    }

    /// The frame of a call did not go out as a whole, so that the server cannot have called anything. Why
    /// that is.
    #[cold]
    pub(crate) fn not_sent(&self, state: &mut State<C>, call: CallId, error: &io::Error) -> (Error, Woken) {
        let gone = state.calls.unsent(call);
        let error = match (state.calls.life().why_closed(), error.kind()) {
            (_, io::ErrorKind::TimedOut) => Error::new(
                ErrorKind::TimedOut,
                "the server had stopped reading when the call's deadline passed",
            ),
            (Some(reason), _) => reason.clone(),
            (None, io::ErrorKind::OutOfMemory) => Error::new(ErrorKind::ResourceExhausted, error.to_string()),
            _ => handshake::disconnected(error),
        };
        (error.with_progress(Progress::NotSent), state.woken(gone))
    }

    /// The error of a call that nobody answered before its deadline, when so many calls were in flight.
    #[cold]
    pub(crate) fn timed_out(&self, method: u32, progress: Progress, in_flight: usize) -> Error {
        let waits = match self.max_running {
            Some(running) if progress != Progress::NotSent && in_flight > running as usize => format!(
                "; {in_flight} calls of this connection were in flight, of which the server runs {running} at a time \
                 (max_concurrent_calls)"
            ),
            _ => String::new(),
        };
        reply::timed_out(&self.service, method, progress, &waits)
    }

    /// What a reply means to the caller. One that does not decode fails its call; many of them end the
    /// connection.
    #[inline]
    pub(crate) fn decode<R: Outcome>(&self, reply: Fetched<'_>, (method, number): (u32, u16)) -> Result<R> {
        let coding = self.service.codings_of_call(method, number).result();
        let decoded = reply.decode(&self.service, method, coding);
        match &decoded {
            Err(error) if error.kind() == ErrorKind::Decode => self.undecodable(),
            _ => self.undecodable.decoded(),
        }
        decoded
    }

    #[cold]
    fn undecodable(&self) {
        if let Err(violation) = self.undecodable.failed() {
            self.state().calls.drain(handshake::closed_for(&violation.into()));
            self.link.close();
        }
    }

    /// The answer that a caller has got, as a reply to be decoded.
    #[inline]
    pub(crate) fn fetched(
        &self,
        call: CallId,
        answer: Result<Arrived>,
        method: u32,
        deadline: Option<Instant>,
    ) -> Result<Fetched<'_>> {
        answer
            .map(|body| Fetched::new(&self.link, call, body))
            .map_err(|error| reply::explained(error, &self.service, method, deadline))
    }

    /// Hands what has arrived to the calls it is for.
    #[inline]
    pub(crate) fn hand_out(&self, inbox: &mut Inbox, own: &mut Own) -> Result<Handed> {
        let mut delivers = false;
        let handed = self.hand_all_out(inbox, own, &mut delivers);
        self.link.send_questions();
        if delivers {
            let actions = self.state().callers.end_delivery();
            self.act(actions);
        }
        handed
    }

    #[inline]
    fn hand_all_out(&self, inbox: &mut Inbox, own: &mut Own, delivers: &mut bool) -> Result<Handed> {
        let mut handed = Handed::Out;
        while let Some(message) = inbox.next()? {
            match message {
                Message::Reply { call, body } => self.answer(call, Ok(body), own, delivers)?,
                Message::Failure { call, error } => self.answer(call, Err(error), own, delivers)?,
                Message::Resend { call } => {
                    if own.call == Some(call) {
                        if own.answer.is_some() {
                            return Err(Violation::UnknownCall(call).into());
                        }
                        own.call = None;
                    }
                    self.deliver(call, delivers, |calls| calls.reject(call))?;
                }
                Message::Closing { taken } => {
                    self.state().calls.drain(reply::closing());
                    self.link.stop_sending(taken);
                    self.send_failed();
                    handed = Handed::Closing;
                }
                // `Receiver` lets none of these through to a client.
                Message::Call { call, .. } | Message::Release { call } | Message::Cancel { call } => {
                    return Err(Violation::UnknownCall(call).into());
                }
            }
        }
        Ok(handed)
    }

    #[inline]
    fn answer(
        &self,
        call: CallId,
        answer: Result<Arrived>,
        own: &mut Own,
        delivers: &mut bool,
    ) -> Result<()> {
        if own.call != Some(call) {
            return self.deliver(call, delivers, |calls| calls.answer(call, answer));
        }
        if own.answer.replace(answer).is_some() {
            return Err(Violation::UnknownCall(call).into());
        }
        Ok(())
    }

    /// Tells the caller of a call what came for it; where it has none any more, the call is over.
    fn deliver(
        &self,
        call: CallId,
        delivers: &mut bool,
        event: impl FnOnce(
            &mut Calls<Arrived, Box<InBlock>, C::Waiter>,
        ) -> Result<calls::Delivered<Arrived, Box<InBlock>, C::Waiter>, Violation>,
    ) -> Result<()> {
        let mut state = self.state();
        if !mem::replace(delivers, true) {
            state.callers.begin_delivery();
        }
        let calls::Delivered { wake, gone } = event(&mut state.calls)?;
        let wake = wake.and_then(|waiter| state.callers.wake(waiter));
        let woken = gone.map(|gone| state.woken(gone));
        drop(state);
        if let Some(waker) = wake {
            waker.wake();
        }
        if let Some(woken) = woken {
            self.discard(call, woken);
        }
        Ok(())
    }

    /// Gives back what a cancelled call leaves.
    pub(crate) fn discard(&self, call: CallId, mut woken: Woken) {
        match woken.answer.take() {
            Some(answer) => drop(answer.map(|body| Fetched::new(&self.link, call, body))),
            // The server has not taken it in, nor what was lent with it.
            None => {
                if let Some(body) = &woken.body {
                    self.link.lender().take_back(body.loans());
                }
            }
        }
    }

    /// The server has ended the connection. The reason for which calls fail.
    ///
    /// # Errors
    ///
    /// Another one: it did so in the middle of a message.
    pub(crate) fn hung_up(&self, inbox: &Inbox) -> Result<Error> {
        self.link.peer_is_gone();
        inbox.ended()?;
        Ok(reply::hung_up())
    }

    /// The connection is over: fails all calls at once.
    pub(crate) fn end(&self, error: &Error) {
        // First: a caller that finds that nothing can be sent any more is to know why.
        self.state().calls.drain(error.clone());
        // Before calls end: their blocks come back, and the server may still be reading them.
        self.link.close();
        if self.state().calls.end(error) {
            self.log_end(error);
        }
        self.fail(error, Progress::Ran);
    }

    /// Ends the connection from any thread. The holder of the receive half sees the end of the stream, and
    /// [fails](Self::end) the calls.
    pub(crate) fn close(&self, reason: Error) {
        // In a fork of the process no lock is to be taken.
        if self.link.check_process().is_ok() {
            self.state().calls.drain(reason);
            self.link.close();
        }
    }

    /// Whether the server is to give signs of life.
    pub(crate) fn awaits_server(&self) -> bool {
        self.state().calls.has_unanswered()
    }

    /// Nothing can be sent any more. What the server has received may still be answered.
    pub(crate) fn send_failed(&self) {
        self.fail(&reply::receives_nothing(), Progress::NotSent);
    }

    /// Fails calls that got no further than this, and those that wait to be made. The first reason stays.
    fn fail(&self, error: &Error, no_further: Progress) {
        let mut state = self.state();
        let State { calls, callers } = &mut *state;
        calls.drain(error.clone());
        let error = calls.life().why_closed().unwrap_or(error).clone();
        let calls::Failed { wake, bodies } =
            calls.fail(&error, no_further, |position| reply::progress(position, &self.link));
        let wakers: Vec<_> = wake.into_iter().filter_map(|waiter| callers.wake(waiter)).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        drop(bodies);
    }

    /// Does what is left to do after an event, without the lock.
    #[inline]
    pub(crate) fn act(&self, actions: Actions) {
        if actions.flush {
            self.link.flush_at_once();
        }
        if let Some(waker) = actions.wake {
            waker.wake();
        }
    }

    /// Its service, its peer, and whether it is connected; nothing of what was called.
    pub(crate) fn describe(&self, f: &mut fmt::Formatter<'_>, is_connected: bool) -> fmt::Result {
        f.debug_struct("Client")
            .field("service", &self.service.name)
            .field("peer", &self.peer)
            .field("is_connected", &is_connected)
            .finish_non_exhaustive()
    }

    /// One event for each connection: that of the peer's fault is a warning.
    fn log_end(&self, error: &Error) {
        let peer = self.peer.as_ref();
        let (pid, uid) = (peer.map(Credentials::pid), peer.map(Credentials::uid));
        let service = self.service.name;
        if error.is_disconnected() {
            tracing::debug!(service, pid, uid, %error, "connection to the server ended");
        } else {
            tracing::warn!(service, pid, uid, %error, "connection to the server closed");
        }
    }
}

impl<C: Callers> State<C> {
    /// What a call leaves, with the caller that has its permit now counted as awake.
    #[inline]
    pub(crate) fn woken(&mut self, gone: Gone<C::Waiter>) -> Woken {
        let Gone { answer, body, wake } = gone;
        let wake = wake.and_then(|waiter| self.callers.wake(waiter));
        Woken { answer, body, wake }
    }
}

/// What a call leaves. Dropping it, without the lock, gives its memory back and wakes the caller that has its
/// permit now.
#[must_use]
pub(crate) struct Woken {
    pub(crate) answer: Option<Result<Arrived>>,
    pub(crate) body: Option<Box<InBlock>>,
    wake: Option<Waker>,
}

impl Drop for Woken {
    fn drop(&mut self) {
        if let Some(waker) = self.wake.take() {
            waker.wake();
        }
    }
}

impl<C: Callers> fmt::Debug for Session<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe(f, self.is_usable())
    }
}
