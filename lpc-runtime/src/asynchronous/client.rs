//! [`Client`]: the handle of an async client, and how one is made.

use std::fmt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

#[cfg(doc)]
use lpc_core::ErrorKind;
use lpc_core::{Result, Service};

use super::caller::{Connected, Connection, dial};
use super::redial::Redial;
use super::{ClientBuilder, ServerBuilder};
use crate::client::reply;
use crate::client::time_limit::TimeLimit;
use crate::connection::tally::Counters;
use crate::generated::{AsyncDispatch, Description, Dispatcher, Encoder, Outcome};
use crate::port::Port;
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
    /// - [`NotFound`](ErrorKind::NotFound): no server listens at the port.
    /// - [`WrongService`](ErrorKind::WrongService): the server there has another service.
    /// - [`Protocol`](ErrorKind::Protocol): the server does not speak this version of lpc.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): one side does not [accept](Self::accept) the
    ///   other's user.
    /// - [`ResourceExhausted`](ErrorKind::ResourceExhausted): the server has reached a limit of connections.
    /// - [`TimedOut`](ErrorKind::TimedOut): the server did not answer within `handshake_timeout`.
    /// - [`InvalidInput`](ErrorKind::InvalidInput): `port` is neither a name nor an absolute path, or the
    ///   environment variable `LPC_THRESHOLD` is no threshold.
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
                Channel::Again(Box::new(Redial::new(port, service, self.config, policy, counters, connected)))
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
    /// No name is involved, so no other process can connect. When the last clone of the client is dropped, or
    /// this process ends, the child's `serve_parent` returns. So drop the client before you wait for the
    /// child.
    ///
    /// # Errors
    ///
    /// Like [`connect`](Self::connect), and [`Io`](ErrorKind::Io) if the command does not start. A child that
    /// does not serve is killed.
    ///
    /// # Panics
    ///
    /// Like [`connect`](Self::connect).
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

    /// Serves `service` in a task of this runtime and connects to it. It is for tests: calls take the same
    /// way as between processes.
    ///
    /// The task ends when the last clone of the client is dropped.
    ///
    /// # Errors
    ///
    /// Like [`connect`](Self::connect).
    ///
    /// # Panics
    ///
    /// Like [`connect`](Self::connect).
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
