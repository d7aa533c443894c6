//! [`Client`]: the handle of an async client, and how one is made.

use std::fmt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

#[cfg(doc)]
use lpc_core::ErrorKind;
use lpc_core::{Result, Service};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::ClientBuilder;
use super::caller::{Connected, Connection, dial};
use super::redial::{Redial, start};
use crate::child::{ChildProcess, Ended, Starting};
#[cfg(doc)]
use crate::client::reconnect::Reconnect;
use crate::client::reply;
use crate::client::target::{OwnProgram, Target};
use crate::client::time_limit::TimeLimit;
use crate::connection::tally::Counters;
use crate::generated::{Description, Dispatcher, Encoder, Outcome};
use crate::port::Port;
use crate::server::in_process::{Beside, InProcess};
use crate::shared::{Plain, SharedMut};
use crate::stats::Stats;

/// A connection to a service in another process, for tasks. A generated async client wraps it, and returns it
/// from `client()`.
///
/// Clones share the connection, and any number of tasks may use it: their calls are in flight at the same
/// time, and return in the order in which they are answered. The connection ends with the last clone.
///
/// # Cancel safety
///
/// If the future of a call is dropped the call is cancelled: the server is told, unless the call was not
/// sent.
///
/// A future that has been polled should be polled on, or dropped. Calls that wait for one of
/// [`max_calls_in_flight`](crate::config::ClientBuilder::max_calls_in_flight), or for room in shared memory,
/// get it in the order in which they came. Where it is the turn of one that is kept without being polled, in
/// a `select!` loop whose other branch goes on, or in a stream of futures of which only the first is polled,
/// those behind it wait until it is polled or dropped. (It is as with the permits of
/// [`tokio::sync::Semaphore`].) A task of its own for each call, or a join of all of them, has no such wait.
/// The answers of other calls are received in any case.
///
/// # fork(2)
///
/// A child of fork(2) cannot use the connection: calls fail with [`Disconnected`](ErrorKind::Disconnected),
/// and what it drops changes nothing in its parent. It can make a connection of its own.
#[derive(Clone)]
pub struct Client {
    channel: Arc<Channel>,
    /// For the calls of this clone, instead of what is set otherwise.
    deadline: Option<Duration>,
}

/// How calls get to the server.
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

impl Client {
    fn of(channel: Channel) -> Self {
        Self { channel: Arc::new(channel), deadline: None }
    }

    /// The same connection with a deadline for each call: it ends within `time`, with its result or with
    /// [`TimedOut`](ErrorKind::TimedOut). See the generated clients' `with_deadline`.
    #[must_use]
    pub fn with_deadline(&self, time: Duration) -> Self {
        Self { deadline: Some(time), ..self.clone() }
    }

    /// How many calls and bytes have taken which lane so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.channel.counters().read()
    }

    /// Whether there is a connection at the moment. If there is none, a client that
    /// [reconnects](ClientBuilder::reconnect) makes one for its next call; on any other client all calls
    /// fail.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        match &*self.channel {
            Channel::Once(connected) => connected.is_connected(),
            Channel::Again(redial) => redial.is_connected(),
        }
    }

    /// Ends the connection, from any thread or task. Calls that are under way fail at once with
    /// [`Disconnected`](ErrorKind::Disconnected), and their [progress](lpc_core::Error::progress) says
    /// whether they may have run; the server cancels those that run. Calls that are made after that fail as
    /// not sent. It is the end of all clones; a client that [reconnects](ClientBuilder::reconnect) does so no
    /// more.
    ///
    /// To cancel one call, drop its future.
    ///
    /// ```
    /// # use lpc::service;
    /// # #[service] pub trait Sums { async fn add(&self, a: u64, b: u64) -> lpc::Result<u64>; }
    /// # struct Plain;
    /// # impl Sums for Plain { async fn add(&self, a: u64, b: u64) -> lpc::Result<u64> { Ok(a + b) } }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> lpc::Result<()> {
    /// # let sums = SumsClient::builder().in_process(Plain).await?;
    /// sums.client().close();
    /// let error = sums.add(1, 2).await.unwrap_err();
    /// assert!(error.is_disconnected() && !error.may_have_run());
    /// # Ok(()) }
    /// ```
    pub fn close(&self) {
        match &*self.channel {
            Channel::Once(connected) => connected.close(reply::closed()),
            Channel::Again(redial) => redial.close(),
        }
    }

    /// The largest body of encoded arguments, in bytes: the lower of both sides' `max_message`. The lengths
    /// of strings and sequences are part of it.
    #[must_use]
    pub fn max_message(&self) -> u64 {
        match &*self.channel {
            Channel::Once(connected) => connected.session().link().limits().max_message,
            Channel::Again(redial) => redial.max_message(),
        }
    }

    /// Takes a loan: `len` values in memory that the service can read, to be filled and passed as an
    /// argument. See [`Shared`](crate::Shared).
    ///
    /// Their content is what an earlier use left there, so write all of them. If the system has no shared
    /// memory or descriptor for them, they are in private memory, and are copied when they are passed.
    ///
    /// # Errors
    ///
    /// - [`TooLarge`](ErrorKind::TooLarge): the values are larger than the connection's `pool_limit`.
    /// - [`ResourceExhausted`](ErrorKind::ResourceExhausted): the pool had no room for them while this waited
    ///   (`at_quota`), or the system has no memory at all.
    /// - [`TimedOut`](ErrorKind::TimedOut): the pool had no room for them until the
    ///   [deadline](Self::with_deadline).
    /// - [`Disconnected`](ErrorKind::Disconnected): the connection is over.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing was taken. One that waits for room is in line: if it is kept without
    /// being polled when its turn comes, [those behind it](Self#cancel-safety) wait.
    pub async fn loan<T: Plain>(&self, len: usize) -> Result<SharedMut<[T]>> {
        let deadline = reply::from_now(self.deadline);
        match &*self.channel {
            Channel::Once(connected) => connected.loan(len, deadline).await,
            Channel::Again(redial) => redial.connected(deadline).await?.loan(len, deadline).await,
        }
    }

    /// Calls a method of the service's table. It is for generated code.
    #[doc(hidden)]
    pub async fn call<R: Outcome>(
        &self,
        method: u32,
        encode: impl Fn(&mut Encoder<'_>) -> Result<()> + Sync,
    ) -> R {
        let outcome = match &*self.channel {
            Channel::Once(connected) => {
                let session = connected.session();
                let limit = TimeLimit::new(self.deadline, session.time_of(method));
                let outcome = connected.call(method, &encode, limit.deadline).await;
                outcome.map_err(|error| limit.explain(error, session.service(), method))
            }
            Channel::Again(redial) => redial.call(method, &encode, self.deadline).await,
        };
        outcome.unwrap_or_else(|error| {
            self.channel.counters().error();
            R::failed(error)
        })
    }
}

/// Its service, its peer, and whether it is connected; nothing of what was called.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.channel {
            Channel::Once(connected) => connected.session().describe(f, connected.is_connected()),
            Channel::Again(redial) => redial.describe(f),
        }
    }
}

impl Channel {
    fn counters(&self) -> &Arc<Counters> {
        match self {
            Self::Once(connected) => connected.session().link().counters().shared(),
            Self::Again(redial) => redial.counters(),
        }
    }
}

impl<C: Stub> ClientBuilder<C> {
    /// Connects to the service at a [`Port`]: a name or an absolute path.
    ///
    /// # Errors
    ///
    /// - [`NotFound`](ErrorKind::NotFound): no server listens at the port. The text says whether its
    ///   directory, the socket or the server is missing.
    /// - [`WrongService`](ErrorKind::WrongService): the server there has another service.
    /// - [`Protocol`](ErrorKind::Protocol): the server does not speak this version of lpc.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): one side does not [accept](Self::accept) the
    ///   other's user, or this user may not use the socket or enter a directory on its path.
    /// - [`ResourceExhausted`](ErrorKind::ResourceExhausted): the server has reached a limit of connections.
    /// - [`TimedOut`](ErrorKind::TimedOut): the server did not answer within `handshake_timeout`.
    /// - [`InvalidInput`](ErrorKind::InvalidInput): `port` is neither a name nor an absolute path, or what is
    ///   there is no socket; or the environment variable `LPC_THRESHOLD` is no threshold.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time enabled. The connection belongs to the runtime in which
    /// it was made.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, so is the connection.
    pub async fn connect(self, port: impl AsRef<Path>) -> Result<C> {
        let (port, service) = (Port::new(port)?, Description::of::<C::Service>());
        let counters = Arc::new(Counters::default());
        let connected = dial(&port, service, &self.config, Arc::clone(&counters)).await?;
        let channel = match self.config.reconnect.clone() {
            None => Channel::Once(connected),
            Some(policy) => {
                let target = Target::Port(port);
                Channel::Again(Box::new(Redial::new(
                    target,
                    service,
                    self.config,
                    policy,
                    counters,
                    connected,
                )))
            }
        };
        Ok(C::from_client(Client::of(channel)))
    }

    /// Connects through a stream whose other end is served by
    /// [`serve_stream`](crate::blocking::ServerBuilder::serve_stream), such as one of a connected pair.
    ///
    /// # Errors
    ///
    /// Like [`connect`](Self::connect).
    ///
    /// # Panics
    ///
    /// Like [`connect`](Self::connect).
    pub async fn connect_stream(self, stream: UnixStream) -> Result<C> {
        self.config.refuse_reconnect()?;
        let service = Description::of::<C::Service>();
        let connected = Connection::connect(stream, service, &self.config, Arc::default()).await?;
        Ok(C::from_client(Client::of(Channel::Once(connected))))
    }

    /// Starts `command` with one end of a connected pair as its standard input, and connects through the
    /// other. The child serves with [`serve_parent`](super::serve_parent), or that of the blocking side.
    ///
    /// No name is involved, so no other process can connect. When the last clone of the client is dropped,
    /// or this process ends, the child's `serve_parent` returns. So drop the client before you wait for
    /// the child. See [`kill_with_parent`](Self::kill_with_parent) for a child that must not outlive this
    /// process.
    ///
    /// Calls that fail because the child has ended say with which exit status, as long as nobody has waited
    /// for the child. (Once it is dropped tokio waits for it.) To have it started again, see
    /// [`supervise`](Self::supervise).
    ///
    /// # Errors
    ///
    /// Like [`connect`](Self::connect), and [`Io`](ErrorKind::Io) if the command does not start. A child that
    /// does not serve is killed; where it has ended by itself, the error has its exit status.
    ///
    /// # Panics
    ///
    /// Like [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, so is the connection, and the child's `serve_parent` returns.
    pub async fn spawn(self, command: &mut Command) -> Result<(C, Child)> {
        self.config.refuse_reconnect()?;
        let starting = Starting::new(command.as_std_mut(), &self.config)?;
        let runtime = Handle::current();
        let child = starting.spawn(command, Command::new(""), move |command| {
            let _context = runtime.enter();
            command.spawn()
        });
        let (stream, mut child) = starting.started(command.as_std_mut(), child)?;
        let service = Description::of::<C::Service>();
        match Connection::connect(stream, service, &self.config, Arc::default()).await {
            Ok(connected) => {
                if let Some(id) = child.id() {
                    connected.session().is_with(Arc::new(ChildProcess::new(id)));
                }
                Ok((C::from_client(Client::of(Channel::Once(connected))), child))
            }
            Err(error) => {
                let ended = end(&mut child, crate::child::patience(&error)).await;
                Err(crate::child::failed(error, command.as_std().get_program(), ended))
            }
        }
    }

    /// Starts `command` like [`spawn`](Self::spawn), and again when its process has ended: it may crash,
    /// or be killed, and the client goes on.
    ///
    /// The rules are those of [`reconnect`](Self::reconnect), whose [`Reconnect`] it uses, or the default:
    /// the program is started again when a call needs it; a start that fails is tried again after growing
    /// pauses, until [`give_up_after`](Reconnect::give_up_after); and calls are repeated only if they were
    /// certainly not sent, or are idempotent. A program that ends soon after its start, again and again,
    /// is paused for before the next start, too, up to the longest of the [`pauses`](Reconnect::pauses).
    ///
    /// The process belongs to the client. Once its connection is over, or [closed](crate::Client::close),
    /// it has 100 ms to end before it is killed; where it was lost another one is started. When the last clone
    /// of the client is dropped it ends by itself, as its `serve_parent` returns. (tokio's `kill_on_drop` has
    /// no effect.)
    /// [`ConnectionEvent::ChildExited`](crate::ConnectionEvent::ChildExited) has its exit status.
    ///
    /// ```no_run
    /// # #[lpc::service] pub trait Decoder { async fn decode(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>>; }
    /// # async fn supervise() -> lpc::Result<()> {
    /// use lpc::{ConnectionEvent, Reconnect};
    /// use tokio::process::Command;
    ///
    /// let policy = Reconnect::default().on_event(|event| {
    ///     if let ConnectionEvent::ChildExited(status) = event {
    ///         eprintln!("the decoder has ended: {status}");
    ///     }
    /// });
    /// let decoder = DecoderClient::builder().reconnect(policy).supervise(Command::new("decoder")).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Like [`spawn`](Self::spawn): the first start is tried once.
    ///
    /// # Panics
    ///
    /// Like [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, so is the connection, and the child's `serve_parent` returns.
    pub async fn supervise(self, command: Command) -> Result<C> {
        let (program, service) = (OwnProgram::new(command.into_std()), Description::of::<C::Service>());
        let (config, counters) = (self.config, Arc::new(Counters::default()));
        let policy = config.reconnect.clone().unwrap_or_default();
        let connected = start(&program, service, &config, Arc::clone(&counters)).await.0?;
        let target = Target::Program(program);
        let redial = Redial::new(target, service, config, policy, counters, connected);
        Ok(C::from_client(Client::of(Channel::Again(Box::new(redial)))))
    }

    /// Serves `service` in a task of this runtime and connects to it. It is for tests: calls take the same
    /// way as between processes.
    ///
    /// The service implements the trait, or the one of the other colour; one of `fn` gets a thread of its own.
    /// (Where it implements both, the driver `D` says which: `in_process::<_, lpc::Tokio>(service)`.)
    ///
    /// The task, or the thread, ends when the last clone of the client is dropped.
    ///
    /// # Errors
    ///
    /// Like [`connect`](Self::connect).
    ///
    /// # Panics
    ///
    /// Like [`connect`](Self::connect).
    pub async fn in_process<S, D>(self, service: S) -> Result<C>
    where
        Dispatcher: InProcess<C::Service, S, D>,
    {
        let (ours, theirs) = UnixStream::pair()?;
        let beside = Beside { config: &self.config, is_task: true };
        <Dispatcher as InProcess<C::Service, S, D>>::start(beside, theirs, service)?;
        self.connect_stream(ours).await
    }
}

/// Waits for a child to end, this long; then kills it.
async fn end(child: &mut Child, patience: Duration) -> Option<Ended> {
    if let Ok(Ok(status)) = timeout(patience, child.wait()).await {
        return Some(Ended { status, by_itself: true });
    }
    let _ = child.start_kill();
    let status = timeout(crate::child::PATIENCE, child.wait()).await.ok()?.ok()?;
    Some(Ended { status, by_itself: false })
}
