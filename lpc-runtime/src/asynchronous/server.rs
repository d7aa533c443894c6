//! The async server: it accepts connections, and gives each a task.

use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

use lpc_core::receive::Role;
use lpc_core::{Error, ErrorKind, Result, Service};
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::connection::{Connection, Implementation};
use super::race::{Either, race};
use super::stream::Stream;
use super::{ServerBuilder, greeting};
use crate::config::Config;
use crate::connection::inbox::Inbox;
use crate::connection::link::Link;
use crate::connection::tally::Counters;
use crate::generated::{AsyncDispatch, Description, Dispatcher, Reply, Request};
use crate::port::{Listener, Port};
use crate::server::admission::{self, Admission, Permit};
use crate::server::ends;
use crate::server::served::Served;
use crate::stats::Stats;
use crate::sys::notify;
use crate::sys::socket::Wait;

/// An async server that holds its port and does not serve yet.
///
/// See the [crate's page](crate) for an example, and [`ServerBuilder`] for the settings.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    config: Config,
    handle: Handle,
}

/// A handle to an async server, by which any thread or task can watch and stop it.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Control>);

#[derive(Debug, Default)]
struct Control {
    counters: Arc<Counters>,
    admission: Arc<Admission>,
    stop: Notify,
    /// Calls that run are not waited for any more.
    cut: Notify,
}

impl Server {
    /// Takes hold of a [`Port`], a name or an absolute path, with the default settings.
    ///
    /// # Errors
    ///
    /// Those of [`ServerBuilder::bind`](crate::config::ServerBuilder::bind).
    pub fn bind(port: impl AsRef<Path>) -> Result<Self> {
        Self::builder().bind(port)
    }

    /// The listening socket that the service manager opened for this process (systemd.socket(5),
    /// `LISTEN_FDS`): the first one that is a Unix stream socket.
    ///
    /// It removes `LISTEN_FDS` and related variables from the environment, so that no child takes them for
    /// its own. Call it while no other thread uses the environment, best at the start: see
    /// [`std::env::remove_var`].
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) if there is none.
    pub fn from_env() -> Result<Self> {
        Self::builder().from_env()
    }

    /// A builder with the default settings.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::new()
    }

    /// A handle to watch and stop this server while it serves.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until [`Handle::shutdown`] is called and all running calls have been answered, or
    /// [`shutdown_timeout`](crate::config::ServerBuilder::shutdown_timeout) has passed. A call that still
    /// runs then goes on in its task, and its result is dropped.
    ///
    /// The service manager, if there is one, is notified once clients are served: see
    /// [`systemd_notify`](crate::config::ServerBuilder::systemd_notify).
    ///
    /// `service` is an implementation of a `#[service]` trait of `async fn`. A call becomes a task, unless
    /// its method is known to be quick. A type that implements several such traits says which one with
    /// `serve::<DocumentsService, _>(…)`.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the environment variable `LPC_THRESHOLD` is no threshold,
    /// and [`Io`](ErrorKind::Io) if the listening socket fails for good. A failure of one connection ends
    /// that connection, and is logged with `tracing`.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time enabled.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the port and all connections are closed. Running calls go on, and their
    /// results are dropped.
    pub async fn serve<M: Service, S: Send + Sync + 'static>(self, service: S) -> Result<()>
    where
        Dispatcher: AsyncDispatch<M, S>,
    {
        self.serve_arc::<M, S>(Arc::new(service)).await
    }

    /// Like [`serve`](Self::serve), with an implementation that this process uses as well.
    ///
    /// # Errors
    ///
    /// Those of [`serve`](Self::serve).
    ///
    /// # Panics
    ///
    /// Those of [`serve`](Self::serve).
    pub async fn serve_arc<M: Service, S: Send + Sync + 'static>(self, service: Arc<S>) -> Result<()>
    where
        Dispatcher: AsyncDispatch<M, S>,
    {
        let served = served::<M, S>(service, &self.config)?;
        let Self { listener, config, handle } = self;
        let mut connections = JoinSet::new();
        if config.systemd_notify {
            notify::tell(notify::READY);
        }
        let accepting = accept(&listener, &config, &handle.0, &served, &mut connections);
        let result = match race(accepting, handle.0.stop.notified()).await {
            Either::First(result) => result,
            Either::Second(()) => Ok(()),
        };
        if config.systemd_notify {
            notify::tell(notify::STOPPING);
        }
        // A client that connects from now on is refused by the system.
        drop(listener);
        handle.shutdown();
        let finished = async { while connections.join_next().await.is_some() {} };
        let finished = race(finished, handle.0.cut.notified());
        if timeout(config.shutdown_timeout, finished).await.is_err() {
            ends::log_cut_off(served.service, &config, handle.0.admission.close());
        }
        result
    }
}

/// Takes connections.
async fn accept<D: Implementation>(
    listener: &Listener,
    config: &Config,
    control: &Arc<Control>,
    served: &Arc<Served<D>>,
    connections: &mut JoinSet<()>,
) -> Result<()> {
    listener.socket().set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener.socket().try_clone()?)?;
    let (service, admission) = (served.service, &control.admission);
    loop {
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => match stream.into_std().and_then(Stream::new) {
                Ok(stream) => Arc::new(stream),
                Err(error) => {
                    admission.log_refusal(service, None, &error.into());
                    continue;
                }
            },
            Err(error) if crate::port::is_passing(&error) => {
                admission.log_refusal(service, None, &error.into());
                tokio::time::sleep(admission::PAUSE).await;
                continue;
            }
            Err(error) => {
                let message = format!("connections cannot be accepted any more: {error}");
                return Err(Error::new(ErrorKind::Io, message));
            }
        };
        while admission.is_full(service, config) {
            tokio::time::sleep(admission::FULL_PAUSE).await;
        }
        let Some(permit) = admission.admit(&stream, service, config) else { continue };
        let peer = permit.peer().cloned();
        let (control, served, config) = (Arc::clone(control), Arc::clone(served), config.clone());
        connections.spawn(async move {
            match greet(&stream, &served, &config, &control, permit).await {
                Ok((connection, inbox)) => {
                    // It has been logged.
                    let _ = connection.serve(&stream, inbox).await;
                }
                Err(error) => control.admission.log_refusal(service, peer.as_ref(), &error),
            }
        });
    }
}

/// Greets a client.
async fn greet<D: Implementation>(
    stream: &Arc<Stream>,
    served: &Arc<Served<D>>,
    config: &Config,
    control: &Control,
    mut permit: Permit,
) -> Result<(Arc<Connection<D>>, Inbox)> {
    let limits = greeting::greet_client(stream, &served.hello, config, &mut permit).await?;
    let is_trusted = config.trusts(permit.peer());
    let settings = served.settings(limits, permit.user(), config);
    let link = Link::new(Arc::clone(stream) as _, Wait::Never, settings, Arc::clone(&control.counters));
    permit.established(&link);
    let mut inbox = Inbox::new(Role::Server, config.limits, is_trusted, &link);
    inbox.wait_in_runtime(link.spin());
    Ok((Connection::new(link, Arc::clone(served), permit), inbox))
}

/// An implementation `S` of the service `M`.
struct Implements<M, S>(Arc<S>, PhantomData<fn() -> M>);

impl<M: Service, S: Send + Sync + 'static> Implementation for Implements<M, S>
where
    Dispatcher: AsyncDispatch<M, S>,
{
    fn call<'a>(&'a self, request: Request<'a>) -> impl Future<Output = Result<Reply>> + Send + 'a {
        <Dispatcher as AsyncDispatch<M, S>>::dispatch(&self.0, request)
    }
}

fn served<M: Service, S: Send + Sync + 'static>(
    service: Arc<S>,
    config: &Config,
) -> Result<Arc<Served<Implements<M, S>>>>
where
    Dispatcher: AsyncDispatch<M, S>,
{
    Served::new(Description::of::<M>(), config, Box::new(Implements(service, PhantomData))).map(Arc::new)
}

/// Serves the process that started this one with
/// [`ClientBuilder::spawn`](crate::config::ClientBuilder::spawn), until that hangs up and the last running
/// call has ended. The connection is this process's standard input.
///
/// # Errors
///
/// Those of [`ServerBuilder::serve_parent`](crate::config::ServerBuilder::serve_parent).
///
/// # Panics
///
/// Outside of a tokio runtime with I/O and time enabled.
pub async fn serve_parent<M: Service, S: Send + Sync + 'static>(service: S) -> Result<()>
where
    Dispatcher: AsyncDispatch<M, S>,
{
    Server::builder().serve_parent::<M, S>(service).await
}

impl ServerBuilder {
    /// Takes hold of a [`Port`], a name or an absolute path. From now on clients can connect; they are
    /// answered once [`Server::serve`] is called.
    ///
    /// The socket has mode 0600, and clients of other users are refused, unless
    /// [`socket_mode`](Self::socket_mode) and [`accept`](Self::accept) say otherwise. A lock file `PATH.lock`
    /// stays beside it. If this process is killed while a child of fork(2) lives, the child still holds the
    /// port until it ends or executes a program.
    ///
    /// # Errors
    ///
    /// - [`AddrInUse`](ErrorKind::AddrInUse): another server holds the port.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): another user can enter the directory of a name,
    ///   or owns the lock file.
    /// - [`InvalidInput`](ErrorKind::InvalidInput): `port` is neither a name nor an absolute path; or it is a
    ///   name and `socket_mode` is set; or the environment variable `LPC_THRESHOLD` is no threshold.
    pub fn bind(self, port: impl AsRef<Path>) -> Result<Server> {
        // What is wrong with the environment is better said before anybody connects.
        self.config.thresholds(&[])?;
        let listener = Listener::Port(Port::new(port)?.bind(self.config.socket_mode)?);
        Ok(Server { listener, config: self.config, handle: Handle(Arc::default()) })
    }

    /// Takes the listening socket that the service manager opened: see [`Server::from_env`].
    ///
    /// # Errors
    ///
    /// Those of [`Server::from_env`].
    pub fn from_env(self) -> Result<Server> {
        let listener = Listener::Inherited(crate::port::inherited()?);
        Ok(Server { listener, config: self.config, handle: Handle(Arc::default()) })
    }

    /// Serves one connection, until its client hangs up and the last running call has ended. The client
    /// connects through the other end with
    /// [`connect_stream`](crate::blocking::ClientBuilder::connect_stream).
    ///
    /// # Errors
    ///
    /// The failure of the handshake, or the reason for which the connection ended before its client closed
    /// it.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time enabled.
    pub async fn serve_stream<M: Service, S: Send + Sync + 'static>(
        self,
        stream: std::os::unix::net::UnixStream,
        service: S,
    ) -> Result<()>
    where
        Dispatcher: AsyncDispatch<M, S>,
    {
        let stream = Arc::new(Stream::new(stream)?);
        let served = served::<M, S>(Arc::new(service), &self.config)?;
        let control = Control::default();
        let permit = control.admission.adopt(&stream)?;
        let (connection, inbox) = greet(&stream, &served, &self.config, &control, permit).await?;
        connection.serve(&stream, inbox).await
    }

    /// Serves the process that started this one: see [`serve_parent`].
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) if this process was not started that way, and those of
    /// [`serve_stream`](Self::serve_stream).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time enabled.
    pub async fn serve_parent<M: Service, S: Send + Sync + 'static>(self, service: S) -> Result<()>
    where
        Dispatcher: AsyncDispatch<M, S>,
    {
        self.serve_stream::<M, S>(crate::child::parent()?, service).await
    }
}

impl Handle {
    /// How many calls and bytes have taken which lane so far, on all connections.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.counters.read()
    }

    /// How many connections there are, including those with a pending handshake.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.admission.count()
    }

    /// Shuts the server down gracefully. It accepts no connection and receives nothing any more, and answers
    /// the calls that have arrived. Its `serve` returns once it has, or after
    /// [`shutdown_timeout`](crate::config::ServerBuilder::shutdown_timeout).
    pub fn shutdown(&self) {
        if self.0.admission.stop_receiving() {
            self.0.stop.notify_one();
        }
    }

    /// Stops the server at once. It is like [`shutdown`](Self::shutdown), but running calls are neither
    /// waited for nor answered.
    pub fn shutdown_now(&self) {
        self.shutdown();
        self.0.admission.close();
        self.0.cut.notify_one();
    }
}
