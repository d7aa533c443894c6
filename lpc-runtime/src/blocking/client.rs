//! The blocking client: many threads, one connection, no thread of its own.
//!
//! Whoever waits for a reply and finds nobody reading becomes the reader: it takes the [`Inbox`], receives, hands the
//! replies of others to them, and when its own has come passes the inbox on. A lone caller therefore sends and
//! receives by itself: two system calls, no other thread.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};

use lpc_core::calls::Calls;
use lpc_core::frame::{self, CallId};
use lpc_core::receiver::{Role, Violation};
use lpc_core::{Error, ErrorKind, Progress, Result, Service, Threshold};

use super::{ClientBuilder, ServerBuilder, greeting};
use crate::buffer::Buffer;
use crate::config::Config;
use crate::lane::incoming::{Arrived, Filled, Inbox, Message};
use crate::lane::pool::PoolBlock;
use crate::link::Link;
use crate::port::Port;
use crate::service::{Description, Dispatch, Dispatcher, Encoder, Outcome, decode_outcome};
use crate::stats::{Counters, Stats};
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
    link: Link,
    service: Description,
    /// For each method its number at the server.
    numbers: Box<[Option<u16>]>,
    thresholds: Box<[Threshold]>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    calls: Calls<Waiting>,
    /// `None` while somebody reads.
    inbox: Option<Box<Inbox>>,
    /// Why the connection is over.
    over: Option<Error>,
}

/// A call whose reply has not been fetched yet.
#[derive(Debug)]
struct Waiting {
    /// Holds the arguments until the server has read them.
    _block: Option<PoolBlock>,
    /// Whom to wake; `None` while it is awake.
    thread: Option<Thread>,
    reply: Option<Result<Arrived>>,
}

impl Client {
    fn new(stream: UnixStream, service: Description, config: &Config) -> Result<Self> {
        let thresholds = config.thresholds(service.methods)?;
        let greeted = greeting::greet_server(&stream, service, config)?;
        let counters = Arc::new(Counters::default());
        let inbox = Box::new(Inbox::new(Role::Client, config.limits, Arc::clone(&counters)));
        Ok(Self(Arc::new(Shared {
            link: Link::new(Arc::new(stream), Wait::Sleep, greeted.limits, counters),
            service,
            numbers: greeted.numbers,
            thresholds,
            state: Mutex::new(State { calls: Calls::new(), inbox: Some(inbox), over: None }),
        })))
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

    /// Calls a method of the service's table. For generated code.
    #[doc(hidden)]
    pub fn call<R: Outcome>(&self, method: u32, encode: impl FnOnce(&mut Encoder<'_>) -> Result<()>) -> R {
        let shared = &*self.0;
        let reply = shared.encoder(method).and_then(|mut encoder| {
            encode(&mut encoder)?;
            shared.call(encoder)
        });
        let outcome = reply.and_then(|body| {
            decode_outcome(&body, shared.service, method).inspect_err(|error| {
                shared.state().over.get_or_insert_with(|| crate::greeting::closed_for(error));
                shared.link.close();
            })
        });
        outcome.unwrap_or_else(|error| {
            shared.link.counters().error();
            R::failed(shared.service.context(method, error))
        })
    }
}

impl Shared {
    fn encoder(&self, method: u32) -> Result<Encoder<'_>> {
        let index = method as usize;
        let number = self.numbers[index].ok_or_else(|| self.service.unknown_method(method))?;
        Ok(Encoder::new(&self.link, self.service, method, number, self.thresholds[index]))
    }

    fn call(&self, encoder: Encoder<'_>) -> Result<Buffer> {
        let mut request = encoder.finish();
        let waiting = Waiting { _block: request.take_block(), thread: None, reply: None };
        let call = {
            let mut state = self.state();
            if let Some(error) = &state.over {
                return Err(error.clone().with_progress(Progress::NotSent));
            }
            if !state.calls.is_empty() {
                request.mark_busy();
            }
            state.calls.insert(waiting)
        };
        self.link.counters().call();
        request.seal(call);
        if let Err(error) = self.link.send(request.frame()) {
            // The frame did not go out as a whole, so the server cannot have called anything.
            let mut state = self.state();
            state.calls.remove(call);
            let error = state.over.clone().unwrap_or_else(|| crate::greeting::disconnected(&error));
            return Err(error.with_progress(Progress::NotSent));
        }
        drop(request);
        self.wait(call)
    }

    /// Waits for the reply to `call`, reading the socket if nobody else does.
    fn wait(&self, call: CallId) -> Result<Buffer> {
        let mut state = self.state();
        loop {
            if let Some(reply) = state.calls.get_mut(call).and_then(|waiting| waiting.reply.take()) {
                state.calls.remove(call);
                state.pass_on();
                drop(state);
                return self.fetch(call, reply);
            }
            if let Some(mut inbox) = state.inbox.take() {
                drop(state);
                let reply = self.read(call, &mut inbox);
                state = self.state();
                state.inbox = Some(inbox);
                match reply {
                    Ok(reply) => {
                        state.calls.remove(call);
                        state.pass_on();
                        drop(state);
                        return self.fetch(call, reply);
                    }
                    Err(error) => {
                        state.end(&error);
                        self.link.close();
                    }
                }
            } else {
                let waiting = state.calls.get_mut(call).expect("only its caller removes a call");
                waiting.thread.get_or_insert_with(thread::current);
                drop(state);
                thread::park();
                state = self.state();
            }
        }
    }

    /// Receives until the reply to `own` has come, and hands out those of others on the way.
    fn read(&self, own: CallId, inbox: &mut Inbox) -> Result<Result<Arrived>> {
        let mut found = None;
        loop {
            while let Some(message) = inbox.next()? {
                let (call, reply) = match message {
                    Message::Reply { call, body } => (call, Ok(body)),
                    Message::Failure { call, error } => (call, Err(error)),
                    // `Receiver` lets only replies through to a client.
                    Message::Call { call, .. } | Message::Release { call } => {
                        return Err(Violation::UnknownCall(call).into());
                    }
                };
                if call == own && found.is_none() {
                    found = Some(reply);
                } else {
                    self.state().deliver(call, reply)?;
                }
            }
            if let Some(reply) = found {
                return Ok(reply);
            }
            if inbox.fill(self.link.socket(), Wait::Sleep)? == Filled::End {
                inbox.ended()?;
                return Err(Error::new(ErrorKind::Disconnected, "the server hung up"));
            }
        }
    }

    /// Takes a reply's body out of the server's memory, and lets the server know.
    fn fetch(&self, call: CallId, reply: Result<Arrived>) -> Result<Buffer> {
        let body = reply?;
        let is_mapped = body.is_mapped();
        let bytes = body.read();
        if is_mapped {
            // Goes out with the next call; if that is long in coming, the server merely keeps a block longer. A
            // connection that is over has no need of it.
            let _ = self.link.push(&frame::release(call));
        }
        Ok(bytes)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives a reply to the caller who waits for it.
    fn deliver(&mut self, call: CallId, reply: Result<Arrived>) -> Result<()> {
        let waiting = self.calls.get_mut(call).filter(|waiting| waiting.reply.is_none());
        let waiting = waiting.ok_or(Violation::UnknownCall(call))?;
        waiting.reply = Some(reply);
        if let Some(thread) = waiting.thread.take() {
            thread.unpark();
        }
        Ok(())
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

    /// Fails all calls at once: the connection is over.
    fn end(&mut self, error: &Error) {
        let error = self.over.get_or_insert_with(|| error.clone()).clone();
        for waiting in self.calls.iter_mut() {
            if waiting.reply.is_none() {
                waiting.reply = Some(Err(error.clone().with_progress(Progress::MayHaveRun)));
            }
            if let Some(thread) = waiting.thread.take() {
                thread.unpark();
            }
        }
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
