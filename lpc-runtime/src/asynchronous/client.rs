//! The async client: many tasks, one connection, one task that reads it.
//!
//! A call is encoded and written by the task that makes it. The connection's own task receives and wakes whoever a
//! reply is for; it is there because a call's future may be held without being polled, and must not keep the replies
//! of others from being read. While no call is open that task sleeps, and leaves the inbox to who calls next: a lone caller
//! looks for its answer within its first poll, before the task goes on with that ([`Left`]).

use std::convert::Infallible;
use std::future::poll_fn;
use std::mem;
use std::ops::Deref;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::pin;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use lpc_core::calls::Calls;
use lpc_core::form::Question;
use lpc_core::frame::{self, CallId};
use lpc_core::receive::{Role, Violation};
use lpc_core::send::StreamPosition;
use lpc_core::{Error, ErrorKind, Progress, Result, Service, Threshold, handshake};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::coop::consume_budget;
use tokio::time::timeout_at;

use super::race::{Either, race};
use super::redial::Redial;
use super::socket::{self, AsyncLink, fill, try_receive};
use super::spinning::{Ahead, Look};
use super::stream::Stream;
use super::{ClientBuilder, ServerBuilder, greeting};
use crate::body::arrived::Arrived;
use crate::client::methods::Methods;
use crate::client::patience::{Need, Patience};
use crate::client::session::{self, Fetched, Sending};
use crate::config::{AtQuota, Config};
use crate::connection::inbox::{Filled, Inbox, Message};
use crate::connection::link::Link;
use crate::generated::{AsyncDispatch, Description, Dispatcher, Encoder, Outcome, SyncEncode};
use crate::maintenance::{self, Tend};
use crate::port::Port;
use crate::shared::{self, Plain, SharedMut};
use crate::stats::{Counters, Stats};
use crate::sys::socket::Wait;

/// A connection to a service in another process, for tasks: what a generated async client is made of.
///
/// Clones share the connection, and so may any number of tasks: their calls are in flight at once and return in the
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
    Once(Connected),
    /// By another one when it is lost.
    Again(Box<Redial>),
}

/// A generated async client.
pub trait Stub: Sized {
    /// The service that it calls.
    type Service: Service;

    /// The client that calls through this connection.
    fn from_client(client: Client) -> Self;

    /// The connection: its [`Stats`], for one.
    fn client(&self) -> &Client;
}

/// Held by clients alone, so that the connection ends with them.
#[derive(Debug)]
pub(super) struct Connected(Arc<Shared>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.link.close();
    }
}

impl Deref for Connected {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// One connection. Held by its task as well.
#[derive(Debug)]
pub(super) struct Shared {
    link: AsyncLink,
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
    /// How many of them have no reply yet.
    open: usize,
    left: Left,
    /// Whom to wake when a call is over, because there are as many as there may be.
    full: Vec<Waker>,
    /// Why no call can be made any more.
    over: Option<Error>,
    /// Nor is any answered.
    has_ended: bool,
}

/// The inbox while the connection's task sleeps and no call is open: whoever calls next looks for the answer itself, if that pays.
#[derive(Debug, Default)]
struct Left {
    inbox: Option<Box<Inbox>>,
    ahead: Ahead,
    /// The connection's task, which sleeps.
    task: Option<Waker>,
    /// It is to take the inbox back as soon as that is here.
    is_wanted: bool,
    /// It is woken by what comes through the socket.
    is_watched: bool,
    /// How often a caller has looked.
    looks: u64,
    handed: Handed,
}

impl Left {
    /// Has the connection's task take the inbox back.
    fn want(&mut self, handed: Handed) {
        self.handed = handed;
        self.is_wanted = true;
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }
}

/// Whether the caller has a thread of its own: it waits for a runtime of several threads, as `main` does.
fn is_outside_tasks() -> bool {
    let has_more_threads = |runtime: Handle| runtime.runtime_flavor() == RuntimeFlavor::MultiThread;
    tokio::task::try_id().is_none() && Handle::try_current().is_ok_and(has_more_threads)
}

/// How long after a caller has looked the socket is watched again.
const IDLE: Duration = Duration::from_millis(10);

/// What the connection's task is to do with the inbox that it takes back.
#[derive(Debug, Default)]
enum Handed {
    #[default]
    Receive,
    /// A caller has begun to look, and found nothing yet.
    GoOn(Look),
    /// It has looked for as long as that pays.
    Sleep,
}

/// Wakers that are kept at most. One more, and all of them are woken: who still waits comes back, and those are
/// forgotten whose wait was given up.
const MAX_WAITING: usize = 1 << 16;

/// A call whose reply has not been fetched yet.
#[derive(Debug)]
struct Waiting {
    sending: Sending,
    deadline: Option<Instant>,
    waker: Option<Waker>,
    reply: Option<Result<Arrived>>,
    /// Its future was dropped: nobody wants the reply, but the block waits for it.
    is_abandoned: bool,
}

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
            Channel::Once(connected) => connected.is_usable(),
            Channel::Again(redial) => redial.current().is_usable(),
        }
    }

    /// Bytes of one encoded body of arguments at most: the narrower of what client and server were built with. A few of
    /// them are taken by the lengths that are encoded along.
    #[must_use]
    pub fn max_message(&self) -> u64 {
        match &*self.channel {
            Channel::Once(connected) => connected.link.link().limits().max_message,
            Channel::Again(redial) => redial.current().link.link().limits().max_message,
        }
    }

    /// `len` values in memory that the service can read, to be filled and passed as an argument: see
    /// [`Shared`](crate::Shared).
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
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken before it returns.
    pub async fn loan<T: Plain>(&self, len: usize) -> Result<SharedMut<[T]>> {
        let deadline = session::from_now(self.deadline);
        match &*self.channel {
            Channel::Once(connected) => connected.loan(len, deadline).await,
            Channel::Again(redial) => redial.connected(deadline).await?.loan(len, deadline).await,
        }
    }

    /// Calls a method of the service's table. For generated code.
    #[doc(hidden)]
    pub async fn call<R: Outcome>(
        &self,
        method: u32,
        encode: impl Fn(&mut Encoder<'_>) -> Result<()> + Sync,
    ) -> R {
        let outcome = match &*self.channel {
            Channel::Once(connected) => {
                let deadline = session::from_now(self.deadline.or(connected.time_of(method)));
                connected.call(method, &encode, deadline).await
            }
            Channel::Again(redial) => redial.call(method, &encode, self.deadline).await,
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
            Self::Once(connected) => connected.link.link().counters().shared(),
            Self::Again(redial) => redial.counters(),
        }
    }
}

/// Why a call was not started.
enum Stopped {
    Failed(Error),
    /// What it needs is not there at the moment.
    At(Need),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Shared {
    async fn connect(
        stream: UnixStream,
        service: Description,
        config: &Config,
        counters: Arc<Counters>,
    ) -> Result<Connected> {
        // Before the other side counts the time.
        service.find_forms();
        let thresholds = config.thresholds(service.methods)?;
        let socket = Arc::new(Stream::new(stream)?);
        let greeted = greeting::greet_server(&socket, service, config).await?;
        let is_trusted = config.trusts(&*socket);
        let settings = config.client_settings(greeted.limits);
        let link = Link::new(Arc::clone(&socket) as _, Wait::Never, settings, counters);
        let inbox = Box::new(Inbox::new(Role::Client, config.limits, is_trusted, &link));
        let shared = Arc::new(Self {
            link: AsyncLink::new(link),
            service,
            methods: greeted.methods,
            thresholds,
            deadlines: session::deadlines(service.methods, config.deadline),
            at_quota: config.at_quota,
            state: Mutex::new(State {
                calls: Calls::new(),
                open: 0,
                left: Left::default(),
                full: Vec::new(),
                over: None,
                has_ended: false,
            }),
        });
        shared.link.link().tended_by(maintenance::weak(&shared));
        if shared.link.link().limits().quick_lane {
            shared.link.link().offer_ring();
        }
        // Made here: a task that is dropped before its first turn has to end the connection too.
        let guard = EndOnDrop(Arc::clone(&shared));
        tokio::spawn(drive(guard, socket, inbox));
        Ok(Connected(shared))
    }

    /// Why no other call can be made.
    pub(super) fn why_over(&self) -> Error {
        let over = self.state().over.clone();
        over.unwrap_or_else(|| Error::new(ErrorKind::Disconnected, "the server receives nothing more"))
    }

    /// Whether another call can be made.
    pub(super) fn is_usable(&self) -> bool {
        self.state().over.is_none() && !self.link.link().is_broken()
    }

    /// How long a call of this method may take, if the caller does not say otherwise.
    pub(super) fn time_of(&self, method: u32) -> Option<Duration> {
        self.deadlines[method as usize]
    }

    pub(super) async fn loan<T: Plain>(
        &self,
        len: usize,
        deadline: Option<Instant>,
    ) -> Result<SharedMut<[T]>> {
        let link = self.link.link();
        let Some(size) = shared::loan_size::<T>(len, link.limits())? else {
            return shared::unshared(len);
        };
        let mut patience = Patience::new(self.at_quota, deadline);
        loop {
            match link.alloc(size) {
                Ok(Some(block)) => return Ok(shared::loaned(block, len)),
                Ok(None) => self.wait_for(Need::Room(size), &mut patience).await?,
                Err(error) => {
                    tracing::warn!(%error, size, "no shared memory for a loan: it will be copied");
                    return shared::unshared(len);
                }
            }
        }
    }

    pub(super) async fn call<R: Outcome>(
        &self,
        method: u32,
        encode: &SyncEncode<'_>,
        deadline: Option<Instant>,
    ) -> Result<R> {
        match self.methods.number(method) {
            Some(number) => self.call_as(method, number, encode, deadline).await,
            None => Err(self.incompatible(method, deadline).await),
        }
    }

    /// Why a method cannot be called. Asks the server what it has instead.
    async fn incompatible(&self, method: u32, deadline: Option<Instant>) -> Error {
        if let Some(number) = self.methods.unasked(method) {
            let question = Question { method: number }.encode();
            let ask = move |asking: &mut Encoder<'_>| asking.push("question", &question);
            let answer: Result<Result<Vec<u8>>> = self.call_as(method, handshake::FORM, &ask, deadline).await;
            self.methods.learn(method, answer.flatten());
        }
        self.methods.error(method)
    }

    /// Calls the server's method of this number.
    async fn call_as<R: Outcome>(
        &self,
        method: u32,
        number: u16,
        encode: &SyncEncode<'_>,
        deadline: Option<Instant>,
    ) -> Result<R> {
        let reply = self.fetch(method, number, encode, deadline).await;
        let decode = |reply: Fetched<'_>| {
            reply.decode(self.service, method).inspect_err(|error| self.undecodable(error))
        };
        reply.and_then(decode).map_err(|error| self.service.context(method, error))
    }

    /// Makes a call and waits for its reply, until its deadline.
    async fn fetch(
        &self,
        method: u32,
        number: u16,
        encode: &SyncEncode<'_>,
        deadline: Option<Instant>,
    ) -> Result<Fetched<'_>> {
        let Some(at) = deadline else { return self.answered((method, number), encode, None).await };
        // How far it got, should it not get to its end.
        let sent = Mutex::new(None);
        let answered = self.answered((method, number), encode, Some((at, &sent)));
        timeout_at(at.into(), answered).await.unwrap_or_else(|_| {
            let mark = *sent.lock().unwrap_or_else(PoisonError::into_inner);
            let progress = mark.map_or(Progress::NotSent, |mark| session::progress(mark, self.link.link()));
            Err(session::timed_out(self.service, method, progress))
        })
    }

    /// A reply that does not decode ends the connection.
    #[cold]
    fn undecodable(&self, error: &Error) {
        if error.kind() == ErrorKind::Decode {
            self.state().over.get_or_insert_with(|| crate::handshake::closed_for(error));
            self.link.close();
        }
    }

    /// Makes a call and waits for its reply.
    async fn answered(
        &self,
        (method, number): (u32, u16),
        encode: &SyncEncode<'_>,
        within: Option<(Instant, &Mutex<Option<StreamPosition>>)>,
    ) -> Result<Fetched<'_>> {
        self.link.uncongested().await;
        let deadline = within.map(|(deadline, _)| deadline);
        let mut patience = Patience::new(self.at_quota, deadline);
        let mut hint = 0;
        let call = loop {
            let need = match self.start((method, number), encode, deadline, &mut hint) {
                Ok(call) => break call,
                Err(Stopped::Failed(error)) => return Err(error),
                Err(Stopped::At(need)) => need,
            };
            self.wait_for(need, &mut patience).await?;
        };
        if let Some((_, sent)) = within {
            *sent.lock().unwrap_or_else(PoisonError::into_inner) = Some(call.mark);
        }
        call.reply().await.map_err(|error| session::explained(error, self.service, method, deadline))
    }

    /// Encodes and sends a call.
    fn start(
        &self,
        (method, number): (u32, u16),
        encode: &SyncEncode<'_>,
        deadline: Option<Instant>,
        hint: &mut u64,
    ) -> Result<Call<'_>, Stopped> {
        let threshold = self.thresholds[method as usize];
        let link = self.link.link();
        link.check_process()?;
        // Before the work of encoding, and again after it.
        self.state().may_start(link)?;
        let mut encoder = Encoder::new(link, self.service, method, number, threshold, *hint);
        if let Err(error) = encode(&mut encoder) {
            let missing = encoder.missing().ok_or(error)?;
            *hint = missing.hint;
            return Err(Stopped::At(Need::Room(missing.room)));
        }
        let mut request = encoder.finish();
        let (id, is_alone) = {
            let mut state = self.state();
            state.may_start(link)?;
            let is_alone = state.calls.is_empty();
            if !is_alone {
                request.mark_busy();
            }
            link.counters().call();
            request.count(link.counters());
            let sending = Sending { block: request.take_block(), mark: None };
            let waiting = Waiting { sending, deadline, waker: None, reply: None, is_abandoned: false };
            let id = state.calls.insert(waiting);
            state.open += 1;
            request.seal(id);
            if let Some(deadline) = deadline {
                request.set_time_left(deadline.saturating_duration_since(Instant::now()));
            }
            // Without a system call, and so under the lock.
            if request.loans().is_empty()
                && let Some((mark, has_to_wake)) = link.put(request.frame())
            {
                if let Some(waiting) = state.calls.get_mut(id) {
                    waiting.sending.mark = Some(mark);
                }
                drop(state);
                if has_to_wake {
                    link.wake();
                }
                return Ok(Call { shared: self, id, mark, is_over: false });
            }
            (id, is_alone)
        };
        link.lend(request.loans());
        let sent = match is_alone {
            true => self.link.send(request.frame()),
            // The tasks of those others may be about to call again.
            false => self.link.send_with_others(request.frame()),
        };
        match sent {
            Ok(mark) => {
                let mut state = self.state();
                if let Some(waiting) = state.calls.get_mut(id) {
                    waiting.sending.mark = Some(mark);
                }
                let has_ended = state.has_ended;
                drop(state);
                if has_ended {
                    self.fail(&self.why_over(), |_| true);
                } else if link.is_broken() {
                    self.send_failed();
                }
                Ok(Call { shared: self, id, mark, is_over: false })
            }
            Err(error) => {
                // The frame did not go out as a whole, so the server cannot have called anything.
                link.take_back(request.loans());
                let mut state = self.state();
                let removed = state.remove(id);
                let error = state.over.clone().unwrap_or_else(|| crate::handshake::disconnected(&error));
                drop(state);
                drop(removed);
                Err(error.with_progress(Progress::NotSent).into())
            }
        }
    }

    /// Waits for what a call needs that it cannot have yet. It may be gone again when the caller looks.
    async fn wait_for(&self, need: Need, patience: &mut Patience) -> Result<()> {
        let there = poll_fn(|cx| {
            let mut state = self.state();
            if let Some(error) = &state.over {
                return Poll::Ready(Err(error.clone().with_progress(Progress::NotSent)));
            }
            let is_there = match need {
                Need::Room(bytes) => {
                    drop(state);
                    self.link.link().has_room(bytes, cx.waker())
                }
                Need::Call => {
                    let has_room = state.calls.len() < self.link.link().limits().max_calls as usize;
                    let crowd = if has_room { Vec::new() } else { state.wait_for_call(cx.waker()) };
                    drop(state);
                    crowd.into_iter().for_each(Waker::wake);
                    has_room
                }
            };
            if is_there { Poll::Ready(Ok(())) } else { Poll::Pending }
        });
        let mut there = pin!(there);
        if let Poll::Ready(result) = poll_fn(|cx| Poll::Ready(there.as_mut().poll(cx))).await {
            result?;
            match patience.try_again(need)? {
                Duration::ZERO => {}
                pause => tokio::time::sleep(pause).await,
            }
            return Ok(());
        }
        let time = patience.left(need)?;
        match tokio::time::timeout(time, there).await {
            Ok(result) => result,
            // Its error, which says that time has run out; if a clock differs, the caller tries once more.
            Err(_) => patience.left(need).map(drop),
        }
    }

    /// Leaves the inbox to those who call next, where no call is open; gives it back otherwise.
    fn leave(&self, mut inbox: Box<Inbox>) -> Result<(), Box<Inbox>> {
        if !inbox.may_be_left() {
            return Err(inbox);
        }
        let mut state = self.state();
        if state.open > 0 || !inbox.fall_asleep() {
            return Err(inbox);
        }
        state.left.inbox = Some(inbox);
        Ok(())
    }

    /// Takes the inbox back once something has come through the socket that is for no caller who looks, or a caller says so.
    ///
    /// Where callers find what comes the socket is not watched: each message would wake a thread of the runtime for nothing. Then it
    /// is seen to that it is again soon after the last of them.
    async fn take_back(
        &self,
        stream: &Stream,
        in_ring: bool,
        watches: &mut bool,
    ) -> Result<(Box<Inbox>, Handed)> {
        *watches |= in_ring;
        let mut seen = self.state().left.looks;
        loop {
            self.state().left.is_watched = *watches;
            let something = async {
                if *watches {
                    return stream.readable().await;
                }
                tokio::time::sleep(IDLE).await;
                Ok(())
            };
            match race(self.handed_back(), something).await {
                Either::First(handed) => return handed,
                Either::Second(result) => result?,
            }
            let mut state = self.state();
            let has_looked = state.left.looks != seen;
            seen = state.left.looks;
            if !*watches {
                *watches = !has_looked;
                continue;
            }
            let left = &mut state.left;
            let is_for_caller = left.inbox.is_none() || (has_looked && state.open == 0);
            if is_for_caller && !in_ring {
                *watches = false;
                state.left.is_watched = false;
                drop(state);
                stream.unwatch();
            } else {
                state.left.is_wanted = true;
            }
        }
    }

    /// Waits until the inbox is wanted and here.
    async fn handed_back(&self) -> Result<(Box<Inbox>, Handed)> {
        poll_fn(|cx| {
            let mut state = self.state();
            if state.has_ended {
                // A caller has found out.
                return Poll::Ready(Err(state.over.clone().unwrap_or_else(session::closing)));
            }
            let left = &mut state.left;
            if left.is_wanted
                && let Some(inbox) = left.inbox.take()
            {
                left.is_wanted = false;
                return Poll::Ready(Ok((inbox, mem::take(&mut left.handed))));
            }
            if !left.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                left.task = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Looks for the reply to a call that was just made, where the inbox is left to callers and it is the only one: for a turn. Who
    /// goes on with that is the connection's task. So a call at a time costs no trip through the runtime's queues, and none to
    /// another thread.
    fn look<'s>(&'s self, mut state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        // Who is to take it back is on the way.
        if state.left.is_wanted {
            return state;
        }
        let Some(mut inbox) = state.left.inbox.take() else { return state };
        let Some(mut look) = Look::begin(&mut inbox) else {
            if state.left.is_watched {
                // What the server sends wakes the task.
                inbox.count_sleep();
            } else {
                state.left.want(Handed::Sleep);
            }
            state.left.inbox = Some(inbox);
            return state;
        };
        state.left.looks += 1;
        let is_alone = state.calls.len() == 1;
        let mut ahead = mem::take(&mut state.left.ahead);
        drop(state);
        inbox.wake_up();
        let looked = if is_alone { self.look_for(&mut look, &mut ahead, &mut inbox) } else { Ok(None) };
        if let Err(error) = &looked {
            self.end(error);
        }
        let mut state = self.state();
        if state.has_ended {
            drop(state);
            drop(inbox);
            return self.state();
        }
        let is_asleep = state.open == 0 && inbox.may_be_left() && inbox.fall_asleep();
        let left = &mut state.left;
        left.inbox = Some(inbox);
        left.ahead = ahead;
        if left.is_wanted || !is_asleep {
            left.want(match looked {
                Ok(None) => Handed::GoOn(look),
                Ok(Some(Filled::Nothing)) => Handed::Sleep,
                _ => Handed::Receive,
            });
        }
        state
    }

    /// Looks for a turn, and handles what comes. `None` where nothing has come yet.
    fn look_for(&self, look: &mut Look, ahead: &mut Ahead, inbox: &mut Inbox) -> Result<Option<Filled>> {
        let socket = self.link.link().socket();
        // Who is no task keeps none waiting.
        let filled = if is_outside_tasks() {
            Some(look.all(socket, inbox)?)
        } else {
            ahead.look(look, socket, inbox)?
        };
        self.handle_all(inbox)?;
        Ok(filled)
    }

    /// Handles what has arrived.
    fn handle_all(&self, inbox: &mut Inbox) -> Result<()> {
        while let Some(message) = inbox.next()? {
            match message {
                Message::Reply { call, body } => self.deliver(call, Ok(body))?,
                Message::Failure { call, error } => self.deliver(call, Err(error))?,
                Message::Resend { call } => self.resend(call)?,
                Message::Closing { taken } => {
                    self.state().over.get_or_insert_with(session::closing);
                    self.link.link().stop_sending(taken);
                    self.send_failed();
                }
                // `Receiver` lets none of these through to a client.
                Message::Call { call, .. } | Message::Release { call } | Message::Cancel { call } => {
                    return Err(Violation::UnknownCall(call).into());
                }
            }
        }
        Ok(())
    }

    /// Gives a reply to the task that waits for it.
    fn deliver(&self, call: CallId, reply: Result<Arrived>) -> Result<()> {
        let mut state = self.state();
        let waiting = state.calls.get_mut(call).filter(|waiting| waiting.reply.is_none());
        let waiting = waiting.ok_or(Violation::UnknownCall(call))?;
        if waiting.is_abandoned {
            let removed = state.remove(call);
            drop(state);
            drop(removed);
            drop(reply.map(|body| Fetched::new(self.link.link(), call, body)));
            return Ok(());
        }
        waiting.reply = Some(reply);
        let waker = waiting.waker.take();
        state.open -= 1;
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// The server cannot read the block of a call's arguments: sends it again, the arguments in the frame.
    fn resend(&self, call: CallId) -> Result<()> {
        let mut state = self.state();
        let waiting = state.calls.get_mut(call);
        let (block, deadline) =
            waiting.map_or((None, None), |waiting| (waiting.sending.block.take(), waiting.deadline));
        drop(state);
        let block = block.ok_or(Violation::UnknownCall(call))?;
        self.link.link().counters().fallback();
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let sent = self.link.send(&block.inline(call, left));
        sent.map(drop).map_err(|error| crate::handshake::disconnected(&error))
    }

    /// Fails all calls at once: the connection is over.
    fn end(&self, error: &Error) {
        // First: whoever finds that nothing can be sent any more is to know why.
        self.state().over.get_or_insert_with(|| error.clone());
        self.link.close();
        let mut state = self.state();
        state.has_ended = true;
        // What it holds of the server's memory is not kept for as long as somebody has the client.
        let left = mem::take(&mut state.left);
        drop(state);
        if let Some(task) = left.task {
            task.wake();
        }
        self.fail(error, |_| true);
    }

    /// Fails calls that are not answered. The first reason stays. Whoever is sending a call sees to it afterwards, when it is
    /// known how far it got.
    fn fail(&self, error: &Error, is_meant: impl Fn(Progress) -> bool) {
        let mut wakers = Vec::new();
        let mut state = self.state();
        let State { calls, open, over, full, .. } = &mut *state;
        let error = over.get_or_insert_with(|| error.clone());
        let is_open = |waiting: &&mut Waiting| waiting.reply.is_none() && waiting.sending.mark.is_some();
        for waiting in calls.iter_mut().filter(is_open) {
            let progress = waiting.sending.progress(self.link.link());
            if is_meant(progress) {
                waiting.reply = Some(Err(error.clone().with_progress(progress)));
                *open -= 1;
                wakers.extend(waiting.waker.take());
            }
        }
        wakers.append(full);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether another call may be in flight.
    fn may_start(&self, link: &Link) -> Result<(), Stopped> {
        if let Some(error) = &self.over {
            return Err(error.clone().with_progress(Progress::NotSent).into());
        }
        if self.calls.len() >= link.limits().max_calls as usize {
            return Err(Stopped::At(Need::Call));
        }
        Ok(())
    }

    /// Has `waker` woken when a call is over. Who is given is to be woken now, without the lock.
    #[must_use]
    fn wait_for_call(&mut self, waker: &Waker) -> Vec<Waker> {
        let crowd = if self.full.len() < MAX_WAITING { Vec::new() } else { std::mem::take(&mut self.full) };
        if !self.full.last().is_some_and(|last| last.will_wake(waker)) {
            self.full.push(waker.clone());
        }
        crowd
    }

    /// Forgets a call. What is given is to be dropped without the lock.
    #[must_use]
    fn remove(&mut self, call: CallId) -> Removed {
        let waiting = self.calls.remove(call);
        self.open -= usize::from(waiting.as_ref().is_some_and(|waiting| waiting.reply.is_none()));
        Removed { waiting, wakers: mem::take(&mut self.full) }
    }
}

/// A call that is over. Dropping it frees its block, and wakes who waited for a call less.
struct Removed {
    waiting: Option<Waiting>,
    wakers: Vec<Waker>,
}

impl Removed {
    /// The reply, if there is one.
    fn reply(&mut self) -> Option<Result<Arrived>> {
        self.waiting.as_mut()?.reply.take()
    }
}

impl Drop for Removed {
    fn drop(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }
}

impl Tend for Shared {
    fn flush_late(&self) -> bool {
        self.link.link().flush_late()
    }

    fn trim(&self) -> Option<Duration> {
        self.link.link().trim()
    }

    fn closed(&self) {
        // It is to see the end, which it may not watch for.
        self.state().left.want(Handed::Receive);
    }

    fn send_failed(&self) {
        self.link.wake_congested();
        let error = Error::new(ErrorKind::Disconnected, "the server receives nothing more");
        self.fail(&error, |progress| progress == Progress::NotSent);
    }
}

/// A call that was sent. Dropping it gives the reply up.
struct Call<'s> {
    shared: &'s Shared,
    id: CallId,
    mark: StreamPosition,
    is_over: bool,
}

impl<'s> Call<'s> {
    async fn reply(mut self) -> Result<Fetched<'s>> {
        let mut is_new = true;
        let mut removed = poll_fn(|cx| {
            let mut state = self.shared.state();
            if mem::take(&mut is_new) {
                state = self.shared.look(state);
            }
            let waiting =
                state.calls.get_mut(self.id).expect("only its future removes a call that it awaits");
            if waiting.reply.is_none() {
                let known = waiting.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
                if !known {
                    waiting.waker = Some(cx.waker().clone());
                }
                return Poll::Pending;
            }
            Poll::Ready(state.remove(self.id))
        })
        .await;
        self.is_over = true;
        let reply = removed.reply().expect("it is removed when it has one");
        drop(removed);
        reply.map(|body| Fetched::new(self.shared.link.link(), self.id, body))
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut state = self.shared.state();
        let Some(waiting) = state.calls.get_mut(self.id) else { return };
        if waiting.reply.is_none() {
            waiting.is_abandoned = true;
            drop(state);
            // Where that is no use the connection is over.
            let _ = self.shared.link.send(&frame::cancel(self.id));
            return;
        }
        let mut removed = state.remove(self.id);
        drop(state);
        let reply = removed.reply();
        drop(removed);
        drop(reply.map(|reply| reply.map(|body| Fetched::new(self.shared.link.link(), self.id, body))));
    }
}

/// The connection's task: receives until the connection is over.
async fn drive(guard: EndOnDrop, socket: Arc<Stream>, inbox: Box<Inbox>) {
    let shared = &*guard.0;
    let sending = async {
        let error = shared.link.resume(&socket).await;
        tracing::debug!(service = shared.service.name, %error, "nothing can be sent any more");
        // The server may have closed its receiving only: what it answers still arrives.
        std::future::pending::<Infallible>().await
    };
    let error = match race(sending, receive(shared, &socket, inbox)).await {
        Either::Second(Err(error)) => error,
        Either::First(never) | Either::Second(Ok(never)) => match never {},
    };
    tracing::debug!(service = shared.service.name, %error, "connection ended");
    shared.end(&error);
}

/// Fails the calls of a connection whose task is dropped with its runtime: callers may be elsewhere.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        let message = "the runtime in which the connection was made has ended";
        self.0.end(&Error::new(ErrorKind::Disconnected, message));
    }
}

async fn receive(shared: &Shared, stream: &Stream, mut inbox: Box<Inbox>) -> Result<Infallible> {
    let stall = shared.link.link().stall();
    let mut watches = true;
    loop {
        let in_ring = inbox.is_in_ring();
        let filled = match shared.leave(inbox) {
            Ok(()) => {
                let handed;
                (inbox, handed) = shared.take_back(stream, in_ring, &mut watches).await?;
                inbox.wake_up();
                let filled = match handed {
                    Handed::GoOn(look) => look.go_on(stream, &mut inbox).await?,
                    Handed::Receive if inbox.read_ring()? => {
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
                // Those who were woken call again first: it is their calls' replies that are looked for.
                fill(stream, &mut inbox, stall, &mut Ahead::never()).await?
            }
        };
        if filled == Filled::End {
            inbox.ended()?;
            return Err(Error::new(ErrorKind::Disconnected, "the server hung up"));
        }
        shared.handle_all(&mut inbox)?;
    }
}

/// A stream to whoever serves the port, once its backlog has room.
async fn open(port: &Port, timeout: Duration) -> Result<UnixStream> {
    let opening = async {
        loop {
            if let Some(stream) = port.try_connect()? {
                return Ok(stream);
            }
            // Nothing tells when there is room.
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(timeout, opening).await.unwrap_or_else(|_| Err(port.no_room(timeout)))
}

/// Between two tries to connect to a server that does not accept.
const PAUSE: Duration = Duration::from_millis(10);

/// A new connection to whoever serves the port.
pub(super) async fn dial(
    port: &Port,
    service: Description,
    config: &Config,
    counters: Arc<Counters>,
) -> Result<Connected> {
    let stream = open(port, config.handshake_timeout).await?;
    let connected = match crate::handshake::check_server(&stream, config) {
        Ok(()) => Shared::connect(stream, service, config, counters).await,
        Err(error) => Err(error),
    };
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
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O and time enabled. The connection belongs to the runtime it was made in.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connection.
    pub async fn connect(self, port: impl AsRef<Path>) -> Result<C> {
        let (port, service) = (Port::new(port)?, Description::of::<C::Service>());
        let counters = Arc::new(Counters::default());
        let connected = dial(&port, service, &self.config, Arc::clone(&counters)).await?;
        let channel = match self.config.reconnect.clone() {
            None => Channel::Once(connected),
            Some(policy) => {
                Channel::Again(Box::new(Redial::new(port, service, self.config, policy, counters, connected)))
            }
        };
        Ok(C::from_client(Client::of(channel)))
    }

    /// Connects through a stream whose other end somebody serves, of a connected pair for one.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Panics
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_stream(self, stream: UnixStream) -> Result<C> {
        self.config.refuse_reconnect()?;
        let service = Description::of::<C::Service>();
        let connected = Shared::connect(stream, service, &self.config, Arc::default()).await?;
        Ok(C::from_client(Client::of(Channel::Once(connected))))
    }

    /// Starts `command` with one end of a connected pair as its standard input, and connects through the other. The
    /// child serves with [`serve_parent`](super::serve_parent), or that of the blocking side.
    ///
    /// No name is involved, so nobody else can connect. When the last clone of the client is dropped, or this process
    /// ends, the child's `serve_parent` returns: drop the client before waiting for the child.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), and [`Io`](ErrorKind::Io) where the command does not start. A child that does
    /// not serve is killed.
    ///
    /// # Panics
    ///
    /// As [`connect`](Self::connect).
    pub async fn spawn(self, command: &mut Command) -> Result<(C, Child)> {
        let (stream, mut child) = crate::child::spawn(command)?;
        match self.connect_stream(stream).await {
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

    /// Serves `service` on a task of this runtime and connects to it: the whole way of a call, for tests.
    ///
    /// The task ends when the last clone of the client is dropped.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Panics
    ///
    /// As [`connect`](Self::connect).
    pub async fn in_process<S>(self, service: S) -> Result<C>
    where
        Dispatcher: AsyncDispatch<C::Service, S>,
        S: Send + Sync + 'static,
    {
        let (ours, theirs) = UnixStream::pair()?;
        let server = ServerBuilder::with_config(self.config.clone());
        tokio::spawn(async move {
            if let Err(error) = server.serve_stream::<C::Service, S>(theirs, service).await {
                tracing::warn!(%error, "connection in process ended");
            }
        });
        self.connect_stream(ours).await
    }
}
