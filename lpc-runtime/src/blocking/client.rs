//! The blocking client: many threads, one connection, no thread of its own.
//!
//! Whoever waits for a reply and finds nobody reading becomes the reader: it takes the [`Inbox`], receives, hands the
//! replies of others to them, and when its own has come passes the inbox on. A lone caller therefore sends and
//! receives by itself: two system calls, no other thread.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::{self, Thread};
use std::time::Duration;

use lpc_core::calls::Calls;
use lpc_core::frame::{self, CallId};
use lpc_core::receiver::{Role, Violation};
use lpc_core::{Error, ErrorKind, Progress, Result, Service, Threshold, handshake};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{ClientBuilder, ServerBuilder, greeting};
use crate::config::{AtQuota, Config};
use crate::housekeeper::{self, Tend};
use crate::lane::incoming::{Arrived, FillError, Filled, Inbox, Message};
use crate::lane::outgoing::{Encoded, InBlock};
use crate::link::{Link, Settings};
use crate::methods::Methods;
use crate::patience::{Need, Patience, waker_of};
use crate::port::Port;
use crate::service::{Description, Dispatch, Dispatcher, Encoder, Outcome, decode_outcome};
use crate::shared::{self, Plain, SharedMut};
use crate::stats::{Counters, Stats};
use crate::sys::retry;
use crate::sys::socket::Wait;

/// A connection to a service in another process: what a generated client, such as `DocumentsClient`, is made of.
///
/// Clones share the connection, and so may any number of threads: their calls are in flight at once and return in the
/// order in which they are answered. The connection ends with the last clone.
#[derive(Clone, Debug)]
pub struct Client(Arc<Shared>);

/// A generated blocking client.
pub trait Stub: Sized {
    /// The service that it calls.
    type Service: Service;

    /// The client that calls through this connection.
    fn from_client(client: Client) -> Self;

    /// The connection: its [`Stats`], for one.
    fn client(&self) -> &Client;
}

#[derive(Debug)]
struct Shared {
    link: Arc<Link>,
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
    /// `None` while somebody reads.
    inbox: Option<Box<Inbox>>,
    /// Why the connection is over.
    over: Option<Error>,
}

/// A call whose reply has not been fetched yet.
#[derive(Debug)]
struct Waiting {
    /// Holds the arguments until the server has read them.
    block: Option<InBlock>,
    /// Whom to wake; `None` while it is awake.
    thread: Option<Thread>,
    answer: Option<Answer>,
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

/// How long a caller who waits for room leaves it at that, before it looks after the socket.
const GLANCE: Duration = Duration::from_millis(10);

impl Client {
    fn new(stream: UnixStream, service: Description, config: &Config) -> Result<Self> {
        let thresholds = config.thresholds(service.methods)?;
        let greeted = greeting::greet_server(&stream, service, config)?;
        let is_trusted = config.trusts(&stream);
        let settings = Settings { limits: greeted.limits, quota: None, idle: config.idle };
        let link = Link::new(Arc::new(stream), Wait::Sleep, settings, Arc::new(Counters::default()));
        let inbox = Box::new(Inbox::new(Role::Client, config.limits, is_trusted, &link));
        let state = State { calls: Calls::new(), full: Vec::new(), inbox: Some(inbox), over: None };
        let shared = Arc::new(Shared {
            link,
            service,
            methods: greeted.methods,
            thresholds,
            at_quota: config.at_quota,
            state: Mutex::new(state),
        });
        shared.link.tended_by(housekeeper::weak(&shared));
        Ok(Self(shared))
    }

    /// What went through which lane so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.link.counters().read()
    }

    /// Bytes of one encoded body of arguments at most: the narrower of what client and server were built with. A few of
    /// them are taken by the lengths that are encoded along.
    #[must_use]
    pub fn max_message(&self) -> u64 {
        self.0.link.limits().max_message
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
    /// - [`Disconnected`](ErrorKind::Disconnected): the connection is over.
    pub fn loan<T: Plain>(&self, len: usize) -> Result<SharedMut<[T]>> {
        let Some(size) = shared::loan_size::<T>(len, self.0.link.limits())? else {
            return shared::unshared(len);
        };
        let mut patience = Patience::new(self.0.at_quota);
        loop {
            match self.0.link.alloc(size) {
                Ok(Some(block)) => return Ok(shared::loaned(block, len)),
                Ok(None) => self.0.wait_for(Need::Room(size), &mut patience)?,
                Err(error) => {
                    tracing::warn!(%error, size, "no shared memory for a loan: it will be copied");
                    return shared::unshared(len);
                }
            }
        }
    }

    /// Calls a method of the service's table. For generated code.
    #[doc(hidden)]
    pub fn call<R: Outcome>(&self, method: u32, encode: impl Fn(&mut Encoder<'_>) -> Result<()>) -> R {
        let shared = &*self.0;
        let reply = shared.encode(method, encode).and_then(|request| shared.call(request));
        let outcome = reply.and_then(|reply| {
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
            shared.link.counters().error();
            R::failed(shared.service.context(method, error))
        })
    }
}

impl Shared {
    fn encode(&self, method: u32, encode: impl Fn(&mut Encoder<'_>) -> Result<()>) -> Result<Encoded> {
        let number = self.methods.number(method).ok_or_else(|| self.incompatible(method))?;
        self.encode_as(method, number, encode)
    }

    /// Why a method cannot be called. Asks the server what it has instead.
    fn incompatible(&self, method: u32) -> Error {
        if let Some(number) = self.methods.unasked(method) {
            let request =
                self.encode_as(method, handshake::FORM, |question| question.push("method", &number));
            let reply = request.and_then(|request| self.call(request));
            let answer = reply.and_then(|reply| decode_outcome(&reply.body, self.service, method)).flatten();
            self.methods.learn(method, answer);
        }
        self.methods.error(method)
    }

    fn encode_as(
        &self,
        method: u32,
        number: u16,
        encode: impl Fn(&mut Encoder<'_>) -> Result<()>,
    ) -> Result<Encoded> {
        let threshold = self.thresholds[method as usize];
        let mut patience = Patience::new(self.at_quota);
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

    fn call(&self, mut request: Encoded) -> Result<Fetched<'_>> {
        let mut waiting = Some(Waiting { block: request.take_block(), thread: None, answer: None });
        let mut patience = Patience::new(self.at_quota);
        let call = loop {
            let mut state = self.state();
            if let Some(error) = &state.over {
                return Err(error.clone().with_progress(Progress::NotSent));
            }
            if state.calls.len() >= self.link.limits().max_calls as usize {
                drop(state);
                self.wait_for(Need::Call, &mut patience)?;
                continue;
            }
            if !state.calls.is_empty() {
                request.mark_busy();
            }
            let Some(waiting) = waiting.take() else { unreachable!("taken once, on the way out") };
            break state.calls.insert(waiting);
        };
        self.link.counters().call();
        request.count(self.link.counters());
        request.seal(call);
        self.link.lend(request.loans());
        if let Err(error) = self.link.send(request.frame()) {
            // The frame did not go out as a whole, so the server cannot have called anything.
            let mut state = self.state();
            state.remove(call);
            let error = state.over.clone().unwrap_or_else(|| crate::greeting::disconnected(&error));
            return Err(error.with_progress(Progress::NotSent));
        }
        drop(request);
        self.wait(call).map(|body| Fetched { shared: self, call, body })
    }

    /// Waits for the reply to `call`, reading the socket if nobody else does.
    fn wait(&self, call: CallId) -> Result<Arrived> {
        let mut state = self.state();
        loop {
            if let Some(answer) = state.waiting(call).answer.take() {
                let block = state.waiting(call).block.take();
                if let Answer::Reply(_) = answer {
                    state.remove(call);
                }
                state.pass_on();
                drop(state);
                match answer {
                    Answer::Reply(reply) => return reply,
                    Answer::Resend => {
                        let sent = block.ok_or(Violation::UnknownCall(call)).map_err(Error::from);
                        let sent = sent.and_then(|block| self.resend(call, &block));
                        if let Err(error) = &sent {
                            self.end(error);
                        }
                        state = self.state();
                    }
                }
            } else if let Some(mut inbox) = state.inbox.take() {
                drop(state);
                let read = self.read(call, &mut inbox);
                if let Err(error) = &read {
                    self.end(error);
                }
                state = self.state();
                state.inbox = Some(inbox);
                if let Ok(answer) = read {
                    state.waiting(call).answer = Some(answer);
                }
            } else {
                state.waiting(call).thread.get_or_insert_with(thread::current);
                drop(state);
                thread::park();
                state = self.state();
            }
        }
    }

    /// Sends a call again, its arguments in the frame.
    fn resend(&self, call: CallId, block: &InBlock) -> Result<()> {
        self.link.counters().fallback();
        let sent = self.link.send(&block.inline(call));
        sent.map(drop).map_err(|error| crate::greeting::disconnected(&error))
    }

    /// Receives until the answer to `own` has come, and hands out those of others on the way.
    fn read(&self, own: CallId, inbox: &mut Inbox) -> Result<Answer> {
        let mut found = None;
        loop {
            self.hand_out(inbox, Some(own), &mut found)?;
            if let Some(answer) = found {
                return Ok(answer);
            }
            if inbox.fill(self.link.socket(), Wait::Sleep)? == Filled::End {
                inbox.ended()?;
                return Err(Error::new(ErrorKind::Disconnected, "the server hung up"));
            }
        }
    }

    /// Gives what has arrived to those for whom it is; what is for `own` is put into `found`.
    fn hand_out(&self, inbox: &mut Inbox, own: Option<CallId>, found: &mut Option<Answer>) -> Result<()> {
        while let Some(message) = inbox.next()? {
            let (call, answer) = match message {
                Message::Reply { call, body } => (call, Answer::Reply(Ok(body))),
                Message::Failure { call, error } => (call, Answer::Reply(Err(error))),
                Message::Resend { call } => (call, Answer::Resend),
                // `Receiver` lets only replies through to a client.
                Message::Call { call, .. } | Message::Release { call } => {
                    return Err(Violation::UnknownCall(call).into());
                }
            };
            if own == Some(call) && found.is_none() {
                *found = Some(answer);
            } else {
                self.state().deliver(call, answer)?;
            }
        }
        Ok(())
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
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        retry(|| poll(&mut [PollFd::new(self.link.socket(), PollFlags::POLLIN)], timeout))?;
        self.hand_out(inbox, None, &mut None)?;
        // A server that never stops does not keep who looks for others.
        for _ in 0..MAX_LOOKS {
            match inbox.fill(self.link.socket(), Wait::Never) {
                Ok(Filled::End) => {
                    inbox.ended()?;
                    return Err(Error::new(ErrorKind::Disconnected, "the server hung up"));
                }
                Ok(_) => self.hand_out(inbox, None, &mut None)?,
                Err(FillError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Fails all calls at once: the connection is over.
    fn end(&self, error: &Error) {
        // First: blocks of calls that end come back, and the server may still be reading them.
        self.link.close();
        self.state().end(error);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
            self.shared.link.push_late(&frame::release(self.call));
        }
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
        drop(state);
        self.link.tidy(has_memory && read.is_ok())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.link.close();
    }
}

impl State {
    /// Gives an answer to the caller who waits for it.
    fn deliver(&mut self, call: CallId, answer: Answer) -> Result<()> {
        let waiting = self.calls.get_mut(call).filter(|waiting| waiting.answer.is_none());
        let waiting = waiting.ok_or(Violation::UnknownCall(call))?;
        waiting.answer = Some(answer);
        if let Some(thread) = waiting.thread.take() {
            thread.unpark();
        }
        Ok(())
    }

    /// A call whose caller asks.
    fn waiting(&mut self, call: CallId) -> &mut Waiting {
        self.calls.get_mut(call).expect("only its caller removes a call")
    }

    /// Forgets a call.
    fn remove(&mut self, call: CallId) {
        self.calls.remove(call);
        self.full.drain(..).for_each(Waker::wake);
    }

    /// Makes somebody else who waits the reader.
    fn pass_on(&mut self) {
        if self.inbox.is_none() {
            return;
        }
        let next = self.calls.iter_mut().find_map(|waiting| waiting.thread.take());
        if let Some(thread) = next {
            thread.unpark();
        }
    }

    /// Fails all calls.
    fn end(&mut self, error: &Error) {
        let error = self.over.get_or_insert_with(|| error.clone()).clone();
        for waiting in self.calls.iter_mut() {
            if !matches!(waiting.answer, Some(Answer::Reply(_))) {
                waiting.answer = Some(Answer::Reply(Err(error.clone().with_progress(Progress::MayHaveRun))));
            }
            if let Some(thread) = waiting.thread.take() {
                thread.unpark();
            }
        }
        self.full.drain(..).for_each(Waker::wake);
    }
}

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
    pub fn connect(self, port: impl AsRef<Path>) -> Result<C> {
        let port = Port::new(port)?;
        let stream = port.connect(self.config.handshake_timeout)?;
        let connected = crate::greeting::check_user(&stream).and_then(|()| self.connect_stream(stream));
        connected.map_err(|error| error.with_context(format_args!("port {}", port.describe())))
    }

    /// Connects through a stream whose other end somebody serves, of a connected pair for one.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn connect_stream(self, stream: UnixStream) -> Result<C> {
        stream.set_nonblocking(false)?;
        Client::new(stream, Description::of::<C::Service>(), &self.config).map(C::from_client)
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
