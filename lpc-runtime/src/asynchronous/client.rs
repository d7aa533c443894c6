//! The async client: many tasks, one connection, one task that reads it.
//!
//! A call is encoded and written by the task that makes it. The connection's own task receives and wakes whoever a
//! reply is for; it is there because a call's future may be held without being polled, and must not keep the replies
//! of others from being read.

use std::convert::Infallible;
use std::future::poll_fn;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::pin;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use lpc_core::calls::Calls;
use lpc_core::frame::{self, CallId};
use lpc_core::receiver::{Role, Violation};
use lpc_core::{Error, ErrorKind, Progress, Result, Service, Threshold, handshake};

use super::race::{Either, race};
use super::socket::{AsyncLink, fill};
use super::{ClientBuilder, ServerBuilder, greeting};
use crate::config::{AtQuota, Config};
use crate::lane::incoming::{Arrived, Filled, Inbox, Message};
use crate::lane::outgoing::InBlock;
use crate::link::{Link, Settings};
use crate::methods::Methods;
use crate::patience::{Need, Patience};
use crate::port::Port;
use crate::service::{AsyncDispatch, Description, Dispatcher, Encoder, Outcome, decode_outcome};
use crate::shared::{self, Plain, SharedMut};
use crate::stats::{Counters, Stats};
use crate::sys::socket::Wait;

/// A connection to a service in another process, for tasks: what a generated async client is made of.
///
/// Clones share the connection, and so may any number of tasks: their calls are in flight at once and return in the
/// order in which they are answered. The connection ends with the last clone.
#[derive(Clone, Debug)]
pub struct Client(Arc<Connected>);

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
struct Connected(Arc<Shared>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.link.close();
    }
}

/// Held by the connection's task as well.
#[derive(Debug)]
struct Shared {
    link: AsyncLink,
    service: Description,
    methods: Methods,
    thresholds: Box<[Threshold]>,
    at_quota: AtQuota,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    calls: Calls<Waiting>,
    /// Whom to wake when a call is over, because there are as many as there may be.
    full: Vec<Waker>,
    /// Why the connection is over.
    over: Option<Error>,
}

/// A call whose reply has not been fetched yet.
#[derive(Debug)]
struct Waiting {
    /// Holds the arguments until the server has read them.
    block: Option<InBlock>,
    waker: Option<Waker>,
    reply: Option<Result<Arrived>>,
    /// Its future was dropped: nobody wants the reply, but the block waits for it.
    is_abandoned: bool,
}

impl Client {
    async fn new(stream: UnixStream, service: Description, config: &Config) -> Result<Self> {
        let thresholds = config.thresholds(service.methods)?;
        stream.set_nonblocking(true)?;
        let socket = Arc::new(tokio::net::UnixStream::from_std(stream)?);
        let greeted = greeting::greet_server(&socket, service, config).await?;
        let is_trusted = config.trusts(&*socket);
        let settings = Settings { limits: greeted.limits, quota: None, idle: config.idle };
        let link = Link::new(Arc::clone(&socket) as _, Wait::Never, settings, Arc::new(Counters::default()));
        let inbox = Inbox::new(Role::Client, config.limits, is_trusted, &link);
        let shared = Arc::new(Shared {
            link: AsyncLink::new(link),
            service,
            methods: greeted.methods,
            thresholds,
            at_quota: config.at_quota,
            state: Mutex::new(State { calls: Calls::new(), full: Vec::new(), over: None }),
        });
        // Made here: a task that is dropped before its first turn has to end the connection too.
        let guard = EndOnDrop(Arc::clone(&shared));
        tokio::spawn(drive(guard, socket, inbox));
        Ok(Self(Arc::new(Connected(shared))))
    }

    /// What went through which lane so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.0.link.link().counters().read()
    }

    /// Bytes of one encoded body of arguments at most: the narrower of what client and server were built with. A few of
    /// them are taken by the lengths that are encoded along.
    #[must_use]
    pub fn max_message(&self) -> u64 {
        self.0.0.link.link().limits().max_message
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
    /// - [`Disconnected`](ErrorKind::Disconnected): the connection is over.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken before it returns.
    pub async fn loan<T: Plain>(&self, len: usize) -> Result<SharedMut<[T]>> {
        let shared = &*self.0.0;
        let link = shared.link.link();
        let Some(size) = shared::loan_size::<T>(len, link.limits())? else {
            return shared::unshared(len);
        };
        let mut patience = Patience::new(shared.at_quota);
        loop {
            match link.alloc(size) {
                Ok(Some(block)) => return Ok(shared::loaned(block, len)),
                Ok(None) => shared.wait_for(Need::Room(size), &mut patience).await?,
                Err(error) => {
                    tracing::warn!(%error, size, "no shared memory for a loan: it will be copied");
                    return shared::unshared(len);
                }
            }
        }
    }

    /// Calls a method of the service's table. For generated code.
    #[doc(hidden)]
    pub async fn call<R: Outcome>(
        &self,
        method: u32,
        encode: impl Fn(&mut Encoder<'_>) -> Result<()> + Send,
    ) -> R {
        let shared = &*self.0.0;
        let outcome = match shared.methods.number(method) {
            Some(number) => shared.call(method, number, encode).await,
            None => Err(shared.incompatible(method).await),
        };
        let outcome = outcome.and_then(|reply| {
            let outcome = decode_outcome(&reply.body, shared.service, method);
            // If not here, then when a user's type panics in its decoding.
            drop(reply);
            outcome.inspect_err(|error| {
                if error.kind() == ErrorKind::Decode {
                    shared.state().over.get_or_insert_with(|| crate::greeting::closed_for(error));
                    shared.link.close();
                }
            })
        });
        outcome.unwrap_or_else(|error| {
            shared.link.link().counters().error();
            R::failed(shared.service.context(method, error))
        })
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
    /// Why a method cannot be called. Asks the server what it has instead.
    async fn incompatible(&self, method: u32) -> Error {
        if let Some(number) = self.methods.unasked(method) {
            let ask = move |question: &mut Encoder<'_>| question.push("method", &number);
            let reply = self.call(method, handshake::FORM, ask).await;
            let answer = reply.and_then(|reply| decode_outcome(&reply.body, self.service, method)).flatten();
            self.methods.learn(method, answer);
        }
        self.methods.error(method)
    }

    /// Calls the server's method of this number, and waits for the reply.
    async fn call(
        &self,
        method: u32,
        number: u16,
        encode: impl Fn(&mut Encoder<'_>) -> Result<()> + Send,
    ) -> Result<Fetched<'_>> {
        self.link.uncongested().await;
        let mut patience = Patience::new(self.at_quota);
        let mut hint = 0;
        loop {
            let need = match self.start(method, number, &encode, &mut hint) {
                Ok(call) => return call.reply().await,
                Err(Stopped::Failed(error)) => return Err(error),
                Err(Stopped::At(need)) => need,
            };
            self.wait_for(need, &mut patience).await?;
        }
    }

    /// Encodes and sends a call.
    fn start(
        &self,
        method: u32,
        number: u16,
        encode: &impl Fn(&mut Encoder<'_>) -> Result<()>,
        hint: &mut u64,
    ) -> Result<Call<'_>, Stopped> {
        let threshold = self.thresholds[method as usize];
        let link = self.link.link();
        // Before the work of encoding, and again after it.
        self.state().may_start(link)?;
        let mut encoder = Encoder::new(link, self.service, method, number, threshold, *hint);
        if let Err(error) = encode(&mut encoder) {
            let missing = encoder.missing().ok_or(error)?;
            *hint = missing.hint;
            return Err(Stopped::At(Need::Room(missing.room)));
        }
        let mut request = encoder.finish();
        let id = {
            let mut state = self.state();
            state.may_start(link)?;
            if !state.calls.is_empty() {
                request.mark_busy();
            }
            let block = request.take_block();
            state.calls.insert(Waiting { block, waker: None, reply: None, is_abandoned: false })
        };
        link.counters().call();
        request.count(link.counters());
        request.seal(id);
        link.lend(request.loans());
        if let Err(error) = self.link.send(request.frame()) {
            // The frame did not go out as a whole, so the server cannot have called anything.
            let mut state = self.state();
            let removed = state.remove(id);
            let error = state.over.clone().unwrap_or_else(|| crate::greeting::disconnected(&error));
            drop(state);
            drop(removed);
            return Err(error.with_progress(Progress::NotSent).into());
        }
        Ok(Call { shared: self, id, is_over: false })
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
                    if !has_room && !state.full.iter().any(|other| other.will_wake(cx.waker())) {
                        state.full.push(cx.waker().clone());
                    }
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

    /// Gives a reply to the task that waits for it.
    fn deliver(&self, call: CallId, reply: Result<Arrived>) -> Result<()> {
        let mut state = self.state();
        let waiting = state.calls.get_mut(call).filter(|waiting| waiting.reply.is_none());
        let waiting = waiting.ok_or(Violation::UnknownCall(call))?;
        if waiting.is_abandoned {
            let removed = state.remove(call);
            drop(state);
            drop(removed);
            drop(reply.map(|body| Fetched { shared: self, call, body }));
            return Ok(());
        }
        waiting.reply = Some(reply);
        let waker = waiting.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// The server cannot read the block of a call's arguments: sends it again, the arguments in the frame.
    fn resend(&self, call: CallId) -> Result<()> {
        let block = self.state().calls.get_mut(call).and_then(|waiting| waiting.block.take());
        let block = block.ok_or(Violation::UnknownCall(call))?;
        self.link.link().counters().fallback();
        self.link.send(&block.inline(call)).map_err(|error| crate::greeting::disconnected(&error))
    }

    /// Fails all calls at once: the connection is over. The first reason stays.
    fn end(&self, error: &Error) {
        self.link.close();
        let mut wakers = Vec::new();
        let mut state = self.state();
        let error = state.over.get_or_insert_with(|| error.clone()).clone();
        for waiting in state.calls.iter_mut() {
            if waiting.reply.is_none() {
                waiting.reply = Some(Err(error.clone().with_progress(Progress::MayHaveRun)));
            }
            wakers.extend(waiting.waker.take());
        }
        wakers.append(&mut state.full);
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

    /// Forgets a call. What is given is to be dropped without the lock.
    #[must_use]
    fn remove(&mut self, call: CallId) -> Removed {
        Removed { _waiting: self.calls.remove(call), wakers: std::mem::take(&mut self.full) }
    }
}

/// A call that is over. Dropping it frees its block, and wakes who waited for a call less.
struct Removed {
    _waiting: Option<Waiting>,
    wakers: Vec<Waker>,
}

impl Drop for Removed {
    fn drop(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }
}

/// A reply. When it has been read, the server wants its memory back, if it stands there.
struct Fetched<'s> {
    shared: &'s Shared,
    call: CallId,
    body: Arrived,
}

impl Drop for Fetched<'_> {
    fn drop(&mut self) {
        if self.body.is_mapped() {
            // Goes out with the next call, or soon.
            self.shared.link.link().push_late(&frame::release(self.call));
        }
    }
}

/// A call that was sent. Dropping it gives the reply up.
struct Call<'s> {
    shared: &'s Shared,
    id: CallId,
    is_over: bool,
}

impl<'s> Call<'s> {
    async fn reply(mut self) -> Result<Fetched<'s>> {
        let (reply, removed) = poll_fn(|cx| {
            let mut state = self.shared.state();
            let waiting =
                state.calls.get_mut(self.id).expect("only its future removes a call that it awaits");
            match waiting.reply.take() {
                Some(reply) => Poll::Ready((reply, state.remove(self.id))),
                None => {
                    let known = waiting.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
                    if !known {
                        waiting.waker = Some(cx.waker().clone());
                    }
                    Poll::Pending
                }
            }
        })
        .await;
        self.is_over = true;
        drop(removed);
        reply.map(|body| Fetched { shared: self.shared, call: self.id, body })
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut state = self.shared.state();
        let Some(waiting) = state.calls.get_mut(self.id) else { return };
        let Some(reply) = waiting.reply.take() else {
            waiting.is_abandoned = true;
            return;
        };
        let removed = state.remove(self.id);
        drop(state);
        drop(removed);
        drop(reply.map(|body| Fetched { shared: self.shared, call: self.id, body }));
    }
}

/// The connection's task: receives until the connection is over.
async fn drive(guard: EndOnDrop, socket: Arc<tokio::net::UnixStream>, mut inbox: Inbox) {
    let shared = &*guard.0;
    let sending = async {
        let error = shared.link.resume(&socket).await;
        tracing::debug!(service = shared.service.name, %error, "nothing can be sent any more");
        // The server may have closed its receiving only: what it answers still arrives.
        std::future::pending::<Infallible>().await
    };
    let error = match race(receive(shared, &socket, &mut inbox), sending).await {
        Either::First(Err(error)) => error,
        Either::First(Ok(never)) | Either::Second(never) => match never {},
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

async fn receive(shared: &Shared, socket: &tokio::net::UnixStream, inbox: &mut Inbox) -> Result<Infallible> {
    loop {
        if fill(socket, inbox).await? == Filled::End {
            inbox.ended()?;
            return Err(Error::new(ErrorKind::Disconnected, "the server hung up"));
        }
        while let Some(message) = inbox.next()? {
            match message {
                Message::Reply { call, body } => shared.deliver(call, Ok(body))?,
                Message::Failure { call, error } => shared.deliver(call, Err(error))?,
                Message::Resend { call } => shared.resend(call)?,
                // `Receiver` lets only replies through to a client.
                Message::Call { call, .. } | Message::Release { call } => {
                    return Err(Violation::UnknownCall(call).into());
                }
            }
        }
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

impl<C: Stub> ClientBuilder<C> {
    /// Connects to the service at a [`Port`]: a name or an absolute path.
    ///
    /// # Errors
    ///
    /// - [`NotFound`](ErrorKind::NotFound): nobody serves the port.
    /// - [`WrongService`](ErrorKind::WrongService): somebody serves something else there.
    /// - [`Protocol`](ErrorKind::Protocol): what answers does not speak this version of lpc.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): it runs for another user.
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
        let port = Port::new(port)?;
        let stream = open(&port, self.config.handshake_timeout).await?;
        let connected = match crate::greeting::check_user(&stream) {
            Ok(()) => self.connect_stream(stream).await,
            Err(error) => Err(error),
        };
        connected.map_err(|error| error.with_context(format_args!("port {}", port.describe())))
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
        Client::new(stream, Description::of::<C::Service>(), &self.config).await.map(C::from_client)
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
