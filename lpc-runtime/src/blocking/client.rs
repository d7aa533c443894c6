//! The blocking client: many threads, one connection, no thread of its own.
//!
//! Whoever waits for a reply and finds nobody reading becomes the reader: it takes the [`Inbox`], receives, hands the
//! replies of others to them, and when its own has come passes the inbox on. A lone caller therefore sends and
//! receives by itself: two system calls, no other thread. Where many callers are awake at once they leave sending and
//! reading to the last of them ([`State::is_crowded`]).

use std::io;
use std::mem;
use std::num::NonZero;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use lpc_core::calls::Calls;
use lpc_core::form::Question;
use lpc_core::frame::{self, CallId};
use lpc_core::receive::{Role, Violation};
use lpc_core::{Error, ErrorKind, Progress, Result, Service, Threshold, handshake};

use super::redial::Redial;
use super::{ClientBuilder, ServerBuilder, greeting};
use crate::body::arrived::Arrived;
use crate::body::outgoing::{Encoded, InBlock};
use crate::client::methods::Methods;
use crate::client::patience::{Need, Patience, waker_of};
use crate::client::session::{self, Fetched, Sending};
use crate::config::{AtQuota, Config};
use crate::connection::inbox::{Filled, Inbox, Message};
use crate::connection::link::Link;
use crate::generated::{Description, Dispatch, Dispatcher, Encode, Encoder, Outcome};
use crate::maintenance::{self, Tend};
use crate::port::Port;
use crate::shared::{self, Plain, SharedMut};
use crate::stats::{Counters, Stats};
use crate::sys::socket::Wait;

/// A connection to a service in another process: what a generated client, such as `DocumentsClient`, is made of.
///
/// Clones share the connection, and so may any number of threads: their calls are in flight at once and return in the
/// order in which they are answered. The connection ends with the last clone.
///
/// A fork of the process, as fork(2) makes it, cannot use the connection: calls fail with
/// [`Disconnected`](ErrorKind::Disconnected), and what is dropped there changes nothing here. It can connect anew.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Arc<Channel>,
    /// For the calls of this clone, instead of what is set otherwise.
    deadline: Option<Duration>,
}

/// How calls get to the server.
#[derive(Debug)]
enum Channel {
    /// By one connection.
    Once(Arc<Shared>),
    /// By another one when it is lost.
    Again(Box<Redial>),
}

/// A generated blocking client.
pub trait Stub: Sized {
    /// The service that it calls.
    type Service: Service;

    /// The client that calls through this connection.
    fn from_client(client: Client) -> Self;

    /// The connection: its [`Stats`], for one.
    fn client(&self) -> &Client;
}

/// One connection.
#[derive(Debug)]
pub(super) struct Shared {
    link: Arc<Link>,
    service: Description,
    methods: Methods,
    thresholds: Box<[Threshold]>,
    deadlines: Box<[Option<Duration>]>,
    at_quota: AtQuota,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    calls: Calls<Waiting>,
    /// Whom to wake when a call is over, because there are as many as there may be.
    full: Vec<Waker>,
    /// `None` while somebody reads.
    inbox: Option<Box<Inbox>>,
    /// Callers that neither sleep, nor read, nor send: they run, or are about to.
    awake: usize,
    /// Callers that send, which may take as long as the server likes.
    sending: usize,
    /// A call waits in the queue for them to send it.
    has_left: bool,
    /// Why no call can be made any more.
    over: Option<Error>,
    /// Nor is any answered.
    has_ended: bool,
}

/// A call whose reply has not been fetched yet.
#[derive(Debug)]
struct Waiting {
    sending: Sending,
    /// Whom to wake; `None` while it is awake.
    thread: Option<Thread>,
    answer: Option<Answer>,
    /// Its deadline has passed: nobody wants the reply, but id and block wait for it.
    is_abandoned: bool,
}

/// What came for a call.
#[derive(Debug)]
enum Answer {
    Reply(Result<Arrived>),
    /// The server cannot read the block of the arguments.
    Resend,
}

/// Receives in a row of who does not wait for what it receives.
const MAX_LOOKS: u32 = 64;

/// How many callers are a crowd, at least. (Fewer on one processor go on in turns, each for as long as it is let run, and then one that
/// sends by itself and looks for its answer is faster: 3 to 8 threads, measured.)
const CROWD: usize = 16;

/// How long a call is left at most to others who are about to run.
const LEFT: Duration = Duration::from_millis(20);

/// How long a caller who waits for room leaves it at that, before it looks after the socket.
const GLANCE: Duration = Duration::from_millis(10);

impl Client {
    fn of(channel: Channel) -> Self {
        Self { channel: Arc::new(channel), deadline: None }
    }

    /// The same connection for calls that each end within `time`: with their result, or with
    /// [`TimedOut`](ErrorKind::TimedOut). See the generated clients' `with_deadline`.
    #[must_use]
    pub fn with_deadline(&self, time: Duration) -> Self {
        Self { deadline: Some(time), ..self.clone() }
    }

    /// What went through which lane so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.channel.counters().read()
    }

    /// Whether calls can be made at the moment. On a client that [reconnects](ClientBuilder::reconnect) the next call makes
    /// a new connection where there is none.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        match &*self.channel {
            Channel::Once(shared) => shared.is_usable(),
            Channel::Again(redial) => redial.current().is_usable(),
        }
    }

    /// Bytes of one encoded body of arguments at most: the narrower of what client and server were built with. A few of
    /// them are taken by the lengths that are encoded along.
    #[must_use]
    pub fn max_message(&self) -> u64 {
        match &*self.channel {
            Channel::Once(shared) => shared.link.limits().max_message,
            Channel::Again(redial) => redial.current().link.limits().max_message,
        }
    }

    /// `len` values in memory that the service can read, to be filled and passed as an argument: see
    /// [`Shared`](crate::Shared).
    ///
    /// ```
    /// # use lpc::{Shared, service};
    /// # #[service] pub trait Sums { fn sum(&self, values: &Shared<[f64]>) -> lpc::Result<f64>; }
    /// # struct Plain;
    /// # impl Sums for Plain {
    /// #     fn sum(&self, values: &Shared<[f64]>) -> lpc::Result<f64> { Ok(values.iter().sum()) }
    /// # }
    /// # let sums = SumsClient::builder().in_process(Plain)?;
    /// let mut values = sums.client().loan::<f64>(1000)?;
    /// values.fill(0.5);
    /// let values = values.freeze();
    /// assert_eq!(sums.sum(&values)?, 500.0);
    /// # Ok::<(), lpc::Error>(())
    /// ```
    ///
    /// Their content is whatever this connection left there, so write them all. Where the system has no memory or
    /// descriptor to share, they are in private memory, and are copied when they are passed.
    ///
    /// # Errors
    ///
    /// - [`TooLarge`](ErrorKind::TooLarge): they are more than the connection's `pool_limit`.
    /// - [`ResourceExhausted`](ErrorKind::ResourceExhausted): it has no room for them at the moment, nor while this waited
    ///   (`at_quota`); or the system has no memory at all.
    /// - [`TimedOut`](ErrorKind::TimedOut): nor until the [deadline](Self::with_deadline).
    /// - [`Disconnected`](ErrorKind::Disconnected): the connection is over.
    pub fn loan<T: Plain>(&self, len: usize) -> Result<SharedMut<[T]>> {
        let deadline = session::from_now(self.deadline);
        match &*self.channel {
            Channel::Once(shared) => shared.loan(len, deadline),
            Channel::Again(redial) => redial.connected(deadline)?.loan(len, deadline),
        }
    }

    /// Calls a method of the service's table. For generated code.
    #[doc(hidden)]
    pub fn call<R: Outcome>(&self, method: u32, encode: impl Fn(&mut Encoder<'_>) -> Result<()>) -> R {
        let outcome = match &*self.channel {
            Channel::Once(shared) => {
                let deadline = session::from_now(self.deadline.or(shared.deadlines[method as usize]));
                shared.call(method, &encode, deadline)
            }
            Channel::Again(redial) => redial.call(method, &encode, self.deadline),
        };
        outcome.unwrap_or_else(|error| {
            self.channel.counters().error();
            R::failed(error)
        })
    }
}

impl Channel {
    fn counters(&self) -> &Arc<Counters> {
        match self {
            Self::Once(shared) => shared.link.counters().shared(),
            Self::Again(redial) => redial.counters(),
        }
    }
}

impl Shared {
    pub(super) fn new(
        stream: UnixStream,
        service: Description,
        config: &Config,
        counters: Arc<Counters>,
    ) -> Result<Arc<Self>> {
        // Before the other side counts the time.
        service.find_forms();
        let thresholds = config.thresholds(service.methods)?;
        let greeted = greeting::greet_server(&stream, service, config)?;
        let is_trusted = config.trusts(&stream);
        let settings = config.client_settings(greeted.limits);
        let link = Link::new(Arc::new(stream), Wait::Sleep, settings, counters);
        let inbox = Box::new(Inbox::new(Role::Client, config.limits, is_trusted, &link));
        let state = State {
            calls: Calls::new(),
            full: Vec::new(),
            inbox: Some(inbox),
            awake: 0,
            sending: 0,
            has_left: false,
            over: None,
            has_ended: false,
        };
        let shared = Arc::new(Self {
            link,
            service,
            methods: greeted.methods,
            thresholds,
            deadlines: session::deadlines(service.methods, config.deadline),
            at_quota: config.at_quota,
            state: Mutex::new(state),
        });
        shared.link.tended_by(maintenance::weak(&shared));
        if shared.link.limits().quick_lane {
            shared.link.offer_ring();
        }
        Ok(shared)
    }

    /// Why no other call can be made.
    pub(super) fn why_over(&self) -> Error {
        let over = self.state().over.clone();
        over.unwrap_or_else(|| Error::new(ErrorKind::Disconnected, "the server receives nothing more"))
    }

    /// Whether another call can be made.
    pub(super) fn is_usable(&self) -> bool {
        self.state().over.is_none() && !self.link.is_broken()
    }

    pub(super) fn loan<T: Plain>(&self, len: usize, deadline: Option<Instant>) -> Result<SharedMut<[T]>> {
        let Some(size) = shared::loan_size::<T>(len, self.link.limits())? else {
            return shared::unshared(len);
        };
        let mut patience = Patience::new(self.at_quota, deadline);
        loop {
            match self.link.alloc(size) {
                Ok(Some(block)) => return Ok(shared::loaned(block, len)),
                Ok(None) => self.wait_for(Need::Room(size), &mut patience)?,
                Err(error) => {
                    tracing::warn!(%error, size, "no shared memory for a loan: it will be copied");
                    return shared::unshared(len);
                }
            }
        }
    }

    /// How long a call of this method may take, if the caller does not say otherwise.
    pub(super) fn time_of(&self, method: u32) -> Option<Duration> {
        self.deadlines[method as usize]
    }

    pub(super) fn call<R: Outcome>(
        &self,
        method: u32,
        encode: &Encode<'_>,
        deadline: Option<Instant>,
    ) -> Result<R> {
        match self.methods.number(method) {
            Some(number) => self.call_as(method, number, encode, deadline),
            None => Err(self.incompatible(method, deadline)),
        }
    }

    /// Why a method cannot be called. Asks the server what it has instead.
    fn incompatible(&self, method: u32, deadline: Option<Instant>) -> Error {
        if let Some(number) = self.methods.unasked(method) {
            let question = Question { method: number }.encode();
            let ask = |asking: &mut Encoder<'_>| asking.push("question", &question);
            let answer: Result<Result<Vec<u8>>> = self.call_as(method, handshake::FORM, &ask, deadline);
            self.methods.learn(method, answer.flatten());
        }
        self.methods.error(method)
    }

    /// Calls the server's method of this number.
    fn call_as<R: Outcome>(
        &self,
        method: u32,
        number: u16,
        encode: &Encode<'_>,
        deadline: Option<Instant>,
    ) -> Result<R> {
        let reply = self.fetch(method, number, encode, deadline);
        let decode = |reply: Fetched<'_>| {
            reply.decode(self.service, method).inspect_err(|error| self.undecodable(error))
        };
        reply.and_then(decode).map_err(|error| self.service.context(method, error))
    }

    /// Makes a call and waits for its reply.
    fn fetch(
        &self,
        method: u32,
        number: u16,
        encode: &Encode<'_>,
        deadline: Option<Instant>,
    ) -> Result<Fetched<'_>> {
        let request = self.encode(method, number, encode, deadline)?;
        let (call, inbox) = self.start(request, deadline)?;
        let body = self.wait(call, inbox, method, deadline)?;
        Ok(Fetched::new(&self.link, call, body))
    }

    /// A reply that does not decode ends the connection.
    #[cold]
    fn undecodable(&self, error: &Error) {
        if error.kind() == ErrorKind::Decode {
            self.state().over.get_or_insert_with(|| crate::handshake::closed_for(error));
            self.link.close();
        }
    }

    fn encode(
        &self,
        method: u32,
        number: u16,
        encode: &Encode<'_>,
        deadline: Option<Instant>,
    ) -> Result<Encoded> {
        self.link.check_process()?;
        let threshold = self.thresholds[method as usize];
        let mut patience = Patience::new(self.at_quota, deadline);
        let mut hint = 0;
        loop {
            let mut encoder = Encoder::new(&self.link, self.service, method, number, threshold, hint);
            let Err(error) = encode(&mut encoder) else { return Ok(encoder.finish()) };
            let missing = encoder.missing().ok_or(error)?;
            // What it holds would be missing to others, who may be waiting, too.
            drop(encoder);
            hint = missing.hint;
            self.wait_for(Need::Room(missing.room), &mut patience)?;
        }
    }

    /// Sends a call. Gives the inbox as well if nobody reads, to be [waited](Self::wait) with.
    fn start(&self, mut request: Encoded, deadline: Option<Instant>) -> Result<(CallId, Option<Box<Inbox>>)> {
        let mut state = self.may_start(deadline)?;
        if !state.calls.is_empty() {
            request.mark_busy();
        }
        self.link.counters().call();
        request.count(self.link.counters());
        let sending = Sending { block: request.take_block(), mark: None };
        let call = state.calls.insert(Waiting { sending, thread: None, answer: None, is_abandoned: false });
        request.seal(call);
        if let Some(deadline) = deadline {
            request.set_time_left(deadline.saturating_duration_since(Instant::now()));
        }
        // Without a system call, and so under the lock.
        if request.loans().is_empty() {
            if let Some((mark, has_to_wake)) = self.link.put(request.frame()) {
                state.waiting(call).sending.mark = Some(mark);
                let inbox = state.take_inbox();
                state.awake += usize::from(inbox.is_none());
                drop(state);
                if has_to_wake {
                    self.link.wake();
                }
                return Ok((call, inbox));
            }
            if state.is_crowd_sending()
                && let Some(mark) = self.link.leave(request.frame())
            {
                state.waiting(call).sending.mark = Some(mark);
                state.has_left = true;
                state.awake += 1;
                return Ok((call, None));
            }
        }
        state.sending += 1;
        drop(state);
        self.link.lend(request.loans());
        match self.link.send_within(request.frame(), deadline) {
            Ok((_, mark)) => {
                let mut state = self.state();
                state.sending -= 1;
                let waiting = state.waiting(call);
                waiting.sending.mark = Some(mark);
                // Somebody else may have read the answer already.
                let is_answered = waiting.answer.is_some();
                let has_ended = state.has_ended;
                let is_over = has_ended || self.link.is_broken();
                let inbox = if is_answered || is_over { None } else { state.take_inbox() };
                state.awake += usize::from(inbox.is_none());
                self.send_left(state);
                if has_ended {
                    self.fail(&self.why_over(), |_| true);
                } else if is_over {
                    self.send_failed();
                }
                Ok((call, inbox))
            }
            Err(error) => {
                // The frame did not go out as a whole, so the server cannot have called anything.
                // Nor does it know of what was lent with it.
                self.link.take_back(request.loans());
                let mut state = self.state();
                state.sending -= 1;
                state.remove(call);
                let error = match (&state.over, error.kind()) {
                    (_, io::ErrorKind::TimedOut) => {
                        let message = "the server took nothing more before the call's deadline";
                        Error::new(ErrorKind::TimedOut, message)
                    }
                    (Some(over), _) => over.clone(),
                    _ => crate::handshake::disconnected(&error),
                };
                state.pass_on();
                self.send_left(state);
                Err(error.with_progress(Progress::NotSent))
            }
        }
    }

    /// The calls, once there may be one more.
    fn may_start(&self, deadline: Option<Instant>) -> Result<MutexGuard<'_, State>> {
        let mut patience = None;
        loop {
            let state = self.state();
            if let Some(error) = &state.over {
                return Err(error.clone().with_progress(Progress::NotSent));
            }
            if state.calls.len() < self.link.limits().max_calls as usize {
                return Ok(state);
            }
            drop(state);
            let patience = patience.get_or_insert_with(|| Patience::new(self.at_quota, deadline));
            self.wait_for(Need::Call, patience)?;
        }
    }

    /// Waits for the reply to `call`: reads as long as it has the inbox, which it takes where nobody else does.
    fn wait(
        &self,
        call: CallId,
        inbox: Option<Box<Inbox>>,
        method: u32,
        deadline: Option<Instant>,
    ) -> Result<Arrived> {
        let mut state = match inbox {
            Some(inbox) => self.lead(call, inbox, deadline),
            None => self.state(),
        };
        // Who finds others awake leaves it to them to have somebody read.
        let mut leaves = true;
        loop {
            if let Some(answer) = state.waiting(call).answer.take() {
                let block = state.waiting(call).sending.block.take();
                if let Answer::Reply(_) = answer {
                    state.remove(call);
                }
                state.awake -= 1;
                state.pass_on();
                self.send_left(state);
                match answer {
                    Answer::Reply(reply) => {
                        return reply
                            .map_err(|error| session::explained(error, self.service, method, deadline));
                    }
                    Answer::Resend => {
                        let sent = block.ok_or(Violation::UnknownCall(call)).map_err(Error::from);
                        let sent = sent.and_then(|block| self.resend(call, &block, deadline));
                        if let Err(error) = &sent {
                            self.end(error);
                        }
                        state = self.state();
                        state.awake += 1;
                        continue;
                    }
                }
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(self.abandon(state, call, method));
            }
            state.awake -= 1;
            let is_crowded = leaves && state.is_crowded();
            if !is_crowded && let Some(inbox) = state.inbox.take() {
                self.send_left(state);
                state = self.lead(call, inbox, deadline);
                continue;
            }
            leaves &= is_crowded || state.has_left;
            state.waiting(call).thread.get_or_insert_with(thread::current);
            self.send_left(state);
            // Others may be kept from running by something else.
            let most = leaves.then_some(LEFT);
            match left.into_iter().chain(most).min() {
                Some(time) => thread::park_timeout(time),
                None => thread::park(),
            }
            state = self.state();
            // Otherwise who took it has counted this caller.
            if state.waiting(call).thread.take().is_some() {
                state.awake += 1;
                if leaves && mem::take(&mut state.has_left) {
                    drop(state);
                    self.link.flush_at_once();
                    state = self.state();
                }
            }
            leaves = false;
        }
    }

    /// Sends what was left to those who are awake, where that is for the caller to do, who is so no more: the last of them. Never waits:
    /// the caller may have its answer, or the inbox, without which a server that sends does not receive.
    fn send_left(&self, mut state: MutexGuard<'_, State>) {
        let sends = !state.is_crowd_sending() && mem::take(&mut state.has_left);
        drop(state);
        if sends {
            self.link.flush_at_once();
        }
    }

    /// Reads until `own` is answered, or its deadline, or the connection's end, and puts the inbox back.
    fn lead(&self, own: CallId, mut inbox: Box<Inbox>, deadline: Option<Instant>) -> MutexGuard<'_, State> {
        let read = self.read(own, &mut inbox, deadline);
        if let Err(error) = &read {
            self.end(error);
        }
        let mut state = self.state();
        state.inbox = Some(inbox);
        state.awake += 1;
        if let Ok(Some(answer)) = read {
            state.waiting(own).answer = Some(answer);
        }
        state
    }

    /// Gives a call up whose deadline has passed.
    fn abandon(&self, mut state: MutexGuard<'_, State>, call: CallId, method: u32) -> Error {
        let waiting = state.waiting(call);
        waiting.is_abandoned = true;
        let progress = waiting.sending.progress(&self.link);
        state.awake -= 1;
        state.pass_on();
        drop(state);
        self.link.send_now(&frame::cancel(call));
        // Its reply, which frees its block, may be the last thing to come for a while.
        self.link.watch();
        session::timed_out(self.service, method, progress)
    }

    /// Sends a call again, its arguments in the frame.
    fn resend(&self, call: CallId, block: &InBlock, deadline: Option<Instant>) -> Result<()> {
        self.link.counters().fallback();
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match self.link.send_within(&block.inline(call, left), deadline) {
            // The server has not taken it in, and does not get it again: its caller sees the deadline next.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(()),
            sent => sent.map(drop).map_err(|error| crate::handshake::disconnected(&error)),
        }
    }

    /// Receives until the answer to `own` has come, or its deadline, and hands out those of others on the way.
    fn read(&self, own: CallId, inbox: &mut Inbox, deadline: Option<Instant>) -> Result<Option<Answer>> {
        let mut found = None;
        // Nobody may have read for a while.
        inbox.begin_anew();
        loop {
            // The end of sending may be an answer, too.
            let is_closing = self.hand_out(inbox, Some(own), &mut found)?;
            if found.is_some() || is_closing {
                return Ok(found);
            }
            match inbox.fill_within(self.link.socket(), self.link.stall(), deadline)? {
                Filled::End => {
                    inbox.ended()?;
                    return Err(Error::new(ErrorKind::Disconnected, "the server hung up"));
                }
                Filled::Nothing if deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                    return Ok(None);
                }
                _ => {}
            }
        }
    }

    /// Gives what has arrived to those for whom it is; what is for `own` is put into `found`. Whether the server shuts down,
    /// and calls that were not sent have failed for it.
    fn hand_out(&self, inbox: &mut Inbox, own: Option<CallId>, found: &mut Option<Answer>) -> Result<bool> {
        let mut is_counted = false;
        let result = self.hand_all_out(inbox, own, found, &mut is_counted);
        if is_counted {
            let mut state = self.state();
            state.awake -= 1;
            self.send_left(state);
        }
        result
    }

    /// The same. As long as it hands answers to others, who may run at once, the caller is counted among those who are awake.
    fn hand_all_out(
        &self,
        inbox: &mut Inbox,
        own: Option<CallId>,
        found: &mut Option<Answer>,
        is_counted: &mut bool,
    ) -> Result<bool> {
        let mut is_closing = false;
        while let Some(message) = inbox.next()? {
            let (call, answer) = match message {
                Message::Reply { call, body } => (call, Answer::Reply(Ok(body))),
                Message::Failure { call, error } => (call, Answer::Reply(Err(error))),
                Message::Resend { call } => (call, Answer::Resend),
                Message::Closing { taken } => {
                    self.state().over.get_or_insert_with(session::closing);
                    self.link.stop_sending(taken);
                    self.send_failed();
                    is_closing = true;
                    continue;
                }
                // `Receiver` lets none of these through to a client.
                Message::Call { call, .. } | Message::Release { call } | Message::Cancel { call } => {
                    return Err(Violation::UnknownCall(call).into());
                }
            };
            if own != Some(call) {
                self.deliver(call, answer, is_counted)?;
            } else if found.replace(answer).is_some() {
                return Err(Violation::UnknownCall(call).into());
            }
        }
        Ok(is_closing)
    }

    /// Gives an answer to the caller who waits for it.
    fn deliver(&self, call: CallId, answer: Answer, is_counted: &mut bool) -> Result<()> {
        let mut state = self.state();
        state.awake += usize::from(!mem::replace(is_counted, true));
        let waiting = state.calls.get_mut(call).filter(|waiting| waiting.answer.is_none());
        let waiting = waiting.ok_or(Violation::UnknownCall(call))?;
        if !waiting.is_abandoned {
            waiting.answer = Some(answer);
            let thread = waiting.thread.take();
            state.awake += usize::from(thread.is_some());
            drop(state);
            if let Some(thread) = thread {
                thread.unpark();
            }
            return Ok(());
        }
        match answer {
            Answer::Reply(reply) => {
                state.remove(call);
                drop(state);
                drop(reply.map(|body| Fetched::new(&self.link, call, body)));
                Ok(())
            }
            // The server has not taken it in, and does not get it again.
            Answer::Resend => {
                state.remove(call);
                Ok(())
            }
        }
    }

    /// Waits for what a call needs that it cannot have yet. It may be gone again when the caller looks.
    fn wait_for(&self, need: Need, patience: &mut Patience) -> Result<()> {
        let waker = waker_of(thread::current());
        // What gives room may have arrived already, and nobody has read it.
        let mut time = Duration::ZERO;
        loop {
            if self.has(need, &waker)? {
                return patience.try_again(need).map(thread::sleep);
            }
            let inbox = self.state().inbox.take();
            if let Some(mut inbox) = inbox {
                if let Err(error) = self.look(&mut inbox, time) {
                    self.end(&error);
                }
                let mut state = self.state();
                state.inbox = Some(inbox);
                state.pass_on();
            } else if time > Duration::ZERO {
                thread::park_timeout(time);
            }
            if self.has(need, &waker)? {
                return patience.try_again(need).map(thread::sleep);
            }
            time = patience.left(need)?.min(GLANCE);
        }
    }

    /// Whether there is what a call needs; if not, `waker` is woken when there may be.
    fn has(&self, need: Need, waker: &Waker) -> Result<bool> {
        let mut state = self.state();
        if let Some(error) = &state.over {
            return Err(error.clone().with_progress(Progress::NotSent));
        }
        Ok(match need {
            Need::Room(bytes) => {
                drop(state);
                return Ok(self.link.has_room(bytes, waker));
            }
            Need::Call => {
                let has_room = state.calls.len() < self.link.limits().max_calls as usize;
                if !has_room && !state.full.iter().any(|other| other.will_wake(waker)) {
                    state.full.push(waker.clone());
                }
                has_room
            }
        })
    }

    /// Reads what arrives within `time`, for others.
    fn look(&self, inbox: &mut Inbox, time: Duration) -> Result<()> {
        self.link.flush_late();
        inbox.wait(self.link.socket(), Some(time))?;
        let _ = self.hand_out(inbox, None, &mut None)?;
        // A server that never stops does not keep who looks for others.
        for _ in 0..MAX_LOOKS {
            match inbox.try_fill(self.link.socket(), Wait::Never)? {
                Filled::End => {
                    inbox.ended()?;
                    return Err(Error::new(ErrorKind::Disconnected, "the server hung up"));
                }
                Filled::Nothing => break,
                _ => drop(self.hand_out(inbox, None, &mut None)?),
            }
        }
        Ok(())
    }

    /// Fails all calls at once: the connection is over.
    fn end(&self, error: &Error) {
        // First: whoever finds that nothing can be sent any more is to know why.
        self.state().over.get_or_insert_with(|| error.clone());
        // Before calls end: their blocks come back, and the server may still be reading them.
        self.link.close();
        self.state().has_ended = true;
        self.fail(error, |_| true);
    }

    /// Fails calls that are not answered. The first reason stays. Whoever is sending a call sees to it afterwards, when it is
    /// known how far it got.
    fn fail(&self, error: &Error, is_meant: impl Fn(Progress) -> bool) {
        let mut state = self.state();
        let State { calls, over, full, awake, .. } = &mut *state;
        let error = over.get_or_insert_with(|| error.clone());
        for waiting in calls.iter_mut().filter(|waiting| waiting.sending.mark.is_some()) {
            let progress = waiting.sending.progress(&self.link);
            if matches!(waiting.answer, Some(Answer::Reply(_))) || !is_meant(progress) {
                continue;
            }
            waiting.answer = Some(Answer::Reply(Err(error.clone().with_progress(progress))));
            if let Some(thread) = waiting.thread.take() {
                *awake += 1;
                thread.unpark();
            }
        }
        full.drain(..).for_each(Waker::wake);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tend for Shared {
    fn flush_late(&self) -> bool {
        self.link.flush_late()
    }

    fn trim(&self) -> Option<Duration> {
        // Without callers nobody reads, and the server's word that memory is free again lies in the socket.
        let inbox = self.state().inbox.take();
        let Some(mut inbox) = inbox else {
            // A caller reads. What the server has lent meanwhile is seen to the next time.
            return self.link.tidy(true);
        };
        let read = self.look(&mut inbox, Duration::ZERO);
        if let Err(error) = &read {
            self.end(error);
        }
        let has_memory = inbox.has_memory();
        let mut state = self.state();
        state.inbox = Some(inbox);
        state.pass_on();
        let awaits = !state.calls.is_empty();
        drop(state);
        self.link.tidy((has_memory || awaits) && read.is_ok())
    }

    /// Replies that nobody waits for would keep the server from reading.
    fn meanwhile(&self) {
        let Some(mut inbox) = self.state().inbox.take() else { return };
        if let Err(error) = self.look(&mut inbox, Duration::ZERO) {
            self.end(&error);
        }
        let mut state = self.state();
        state.inbox = Some(inbox);
        state.pass_on();
    }

    fn send_failed(&self) {
        let error = Error::new(ErrorKind::Disconnected, "the server receives nothing more");
        self.fail(&error, |progress| progress == Progress::NotSent);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.link.close();
    }
}

impl State {
    /// A call whose caller asks.
    fn waiting(&mut self, call: CallId) -> &mut Waiting {
        self.calls.get_mut(call).expect("only its caller removes a call")
    }

    /// Forgets a call.
    fn remove(&mut self, call: CallId) {
        self.calls.remove(call);
        if !self.full.is_empty() {
            self.full.drain(..).for_each(Waker::wake);
        }
    }

    /// Whether so many other callers run, or are about to, that they wait for a processor. Then who calls leaves it to them to have somebody
    /// read: of many threads only one is to look for answers, and on a processor that no other needs.
    fn is_crowded(&self) -> bool {
        is_crowd(self.awake)
    }

    /// Whether so many run or send. Then what they have to say goes out together, by the last of the crowd: of many threads not each is
    /// to make a system call.
    fn is_crowd_sending(&self) -> bool {
        is_crowd(self.awake + self.sending)
    }

    /// The inbox, if a caller is to read now.
    fn take_inbox(&mut self) -> Option<Box<Inbox>> {
        if self.is_crowded() { None } else { self.inbox.take() }
    }

    /// Makes somebody else who waits the reader, unless that is for others who leave.
    fn pass_on(&mut self) {
        if self.inbox.is_none() || self.calls.is_empty() || self.is_crowded() {
            return;
        }
        let next = self.calls.iter_mut().find_map(|waiting| waiting.thread.take());
        if let Some(thread) = next {
            self.awake += 1;
            thread.unpark();
        }
    }
}

/// Whether so many callers are a crowd: as many as [`CROWD`], and as there are processors (as it was when that was first asked).
fn is_crowd(callers: usize) -> bool {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    callers >= CROWD
        && callers >= *PROCESSORS.get_or_init(|| thread::available_parallelism().map_or(CROWD, NonZero::get))
}

/// A new connection to whoever serves the port.
pub(super) fn dial(
    port: &Port,
    service: Description,
    config: &Config,
    counters: Arc<Counters>,
) -> Result<Arc<Shared>> {
    let stream = port.connect(config.handshake_timeout)?;
    let connected = crate::handshake::check_server(&stream, config)
        .and_then(|()| Shared::new(stream, service, config, counters));
    connected.map_err(|error| error.with_context(format_args!("port {}", port.describe())))
}

impl<C: Stub> ClientBuilder<C> {
    /// Connects to the service at a [`Port`]: a name or an absolute path.
    ///
    /// # Errors
    ///
    /// - [`NotFound`](ErrorKind::NotFound): nobody serves the port.
    /// - [`WrongService`](ErrorKind::WrongService): somebody serves something else there.
    /// - [`Protocol`](ErrorKind::Protocol): what answers does not speak this version of lpc.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): one side does not [accept](Self::accept) the other's user.
    /// - [`ResourceExhausted`](ErrorKind::ResourceExhausted): the server has as many connections as it may.
    /// - [`TimedOut`](ErrorKind::TimedOut): it does not answer.
    /// - [`InvalidInput`](ErrorKind::InvalidInput): that is no port, or `LPC_THRESHOLD` no threshold.
    pub fn connect(self, port: impl AsRef<Path>) -> Result<C> {
        let (port, service) = (Port::new(port)?, Description::of::<C::Service>());
        let counters = Arc::new(Counters::default());
        let shared = dial(&port, service, &self.config, Arc::clone(&counters))?;
        let channel = match self.config.reconnect.clone() {
            None => Channel::Once(shared),
            Some(policy) => {
                Channel::Again(Box::new(Redial::new(port, service, self.config, policy, counters, shared)))
            }
        };
        Ok(C::from_client(Client::of(channel)))
    }

    /// Connects through a stream whose other end somebody serves, of a connected pair for one.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn connect_stream(self, stream: UnixStream) -> Result<C> {
        self.config.refuse_reconnect()?;
        stream.set_nonblocking(false)?;
        let shared = Shared::new(stream, Description::of::<C::Service>(), &self.config, Arc::default())?;
        Ok(C::from_client(Client::of(Channel::Once(shared))))
    }

    /// Starts `command` with one end of a connected pair as its standard input, and connects through the other. The
    /// child serves with [`serve_parent`](super::serve_parent), or that of the async side.
    ///
    /// No name is involved, so nobody else can connect. When the last clone of the client is dropped, or this process
    /// ends, the child's `serve_parent` returns: drop the client before waiting for the child.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), and [`Io`](ErrorKind::Io) where the command does not start. A child that does
    /// not serve is killed.
    pub fn spawn(self, command: &mut Command) -> Result<(C, Child)> {
        let (stream, mut child) = crate::child::spawn(command)?;
        match self.connect_stream(stream) {
            Ok(client) => Ok((client, child)),
            Err(error) => {
                crate::child::end(&mut child);
                Err(error.with_context(format_args!(
                    "child process {:?} (which has to call `serve_parent`)",
                    command.get_program()
                )))
            }
        }
    }

    /// Serves `service` on a thread of this process and connects to it: the whole way of a call, for tests.
    ///
    /// The thread ends when the last clone of the client is dropped.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn in_process<S>(self, service: S) -> Result<C>
    where
        Dispatcher: Dispatch<C::Service, S>,
        S: Send + Sync + 'static,
    {
        let (ours, theirs) = UnixStream::pair()?;
        let server = ServerBuilder::with_config(self.config.clone());
        thread::Builder::new().name("lpc-server".into()).spawn(move || {
            if let Err(error) = server.serve_stream::<C::Service, S>(theirs, service) {
                tracing::warn!(%error, "connection in process ended");
            }
        })?;
        self.connect_stream(ours)
    }
}
