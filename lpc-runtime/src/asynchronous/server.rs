//! The async server: takes connections, and gives each a task.

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
use crate::credentials::Credentials;
use crate::generated::{AsyncDispatch, Description, Dispatcher, Reply, Request};
use crate::port::{Listener, Port};
use crate::server::admission::{self, Admission, Permit};
use crate::server::ends;
use crate::server::served::Served;
use crate::stats::{Counters, Stats};
use crate::sys::notify;
use crate::sys::socket::Wait;

/// An async server that holds its port and has not begun to serve.
///
/// See the [crate's page](crate) for an example, and [`ServerBuilder`] for the knobs.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    config: Config,
    handle: Handle,
}

/// Watches and stops an async server, from anywhere.
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
    /// As [`ServerBuilder::bind`](crate::config::ServerBuilder::bind).
    pub fn bind(port: impl AsRef<Path>) -> Result<Self> {
        Self::builder().bind(port)
    }

    /// The listening socket that the service manager opened for this process (systemd.socket(5),
    /// `LISTEN_FDS`): the first one that is a Unix stream socket.
    ///
    /// It takes `LISTEN_FDS` and its like out of the environment, so that no child believes they are meant
    /// for it. Call it where nothing else of the process uses the environment, best at the start: see
    /// [`std::env::remove_var`].
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) where there is none.
    pub fn from_env() -> Result<Self> {
        Self::builder().from_env()
    }

    /// All knobs.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::new()
    }

    /// Watches and stops this server while it serves.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until [`Handle::shutdown`] is called and the last running call has been answered, or has had
    /// its time ([`shutdown_timeout`](crate::config::ServerBuilder::shutdown_timeout)). A call that still
    /// runs then goes on as its task, unheard.
    ///
    /// Once clients are served the service manager is told, where there is one that wants to know: see
    /// [`systemd_notify`](crate::config::ServerBuilder::systemd_notify).
    ///
    /// `service` is an implementation of an `async fn` trait marked `#[service]`; a call whose method is not
    /// known to be quick becomes a task. A type that implements several such traits says which one with
    /// `serve::<DocumentsService, _>(…)`.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) where `LPC_THRESHOLD` is no threshold, and
    /// [`Io`](ErrorKind::Io) where the listening socket fails for good. What goes wrong with one connection
    /// ends that connection, and is logged with `tracing`.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O and time enabled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the port and all connections; calls that run go on, unheard.
    pub async fn serve<M: Service, S: Send + Sync + 'static>(self, service: S) -> Result<()>
    where
        Dispatcher: AsyncDispatch<M, S>,
    {
        self.serve_arc::<M, S>(Arc::new(service)).await
    }

    /// As [`serve`](Self::serve), with an implementation that this process uses as well.
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve).
    ///
    /// # Panics
    ///
    /// As [`serve`](Self::serve).
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
        // A client that connects from now on is told that nobody serves.
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
                    admission.complain(service, &error.into());
                    continue;
                }
            },
            Err(error) if crate::port::is_passing(&error) => {
                admission.complain(service, &error.into());
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
        let (control, served, config) = (Arc::clone(control), Arc::clone(served), config.clone());
        connections.spawn(async move {
            match greet(&stream, &served, &config, &control, permit).await {
                Ok((connection, inbox)) => {
                    // It has been logged.
                    let _ = connection.serve(&stream, inbox).await;
                }
                Err(error) => control.admission.complain(service, &error),
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
    permit: Permit,
) -> Result<(Arc<Connection<D>>, Inbox)> {
    let limits = greeting::greet_client(stream, &served.hello, config, &permit).await?;
    let is_trusted = config.trusts(&**stream);
    let peer = Credentials::of_peer(&**stream)?;
    let settings = served.settings(limits, peer.uid(), config);
    let link = Link::new(Arc::clone(stream) as _, Wait::Never, settings, Arc::clone(&control.counters));
    permit.established(&link);
    let inbox = Inbox::new(Role::Server, config.limits, is_trusted, &link);
    Ok((Connection::new(link, peer, Arc::clone(served), permit), inbox))
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

/// Serves the process that started this one, over the connection that it left on standard input, until it
/// hangs up and the last running call is over. See
/// [`ClientBuilder::spawn`](crate::config::ClientBuilder::spawn).
///
/// # Errors
///
/// As [`ServerBuilder::serve_parent`](crate::config::ServerBuilder::serve_parent).
///
/// # Panics
///
/// Outside a tokio runtime with I/O and time enabled.
pub async fn serve_parent<M: Service, S: Send + Sync + 'static>(service: S) -> Result<()>
where
    Dispatcher: AsyncDispatch<M, S>,
{
    Server::builder().serve_parent::<M, S>(service).await
}

impl ServerBuilder {
    /// Takes hold of a [`Port`], a name or an absolute path. Clients can connect from now on; they are
    /// answered once [`Server::serve`] is called.
    ///
    /// The socket has mode 0600, and clients of other users are turned away, unless
    /// [`socket_mode`](Self::socket_mode) and [`accept`](Self::accept) say otherwise. A lock file `PATH.lock`
    /// stays beside it. Where this process is killed, a fork of it, as fork(2) makes it, still holds the
    /// port, until it ends or executes a program.
    ///
    /// # Errors
    ///
    /// - [`AddrInUse`](ErrorKind::AddrInUse): another server holds the port.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): its directory is not ours alone, or its lock file another user's.
    /// - [`InvalidInput`](ErrorKind::InvalidInput): that is no port, or a name with a mode of its own, or `LPC_THRESHOLD` no
    ///   threshold.
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
    /// As [`Server::from_env`].
    pub fn from_env(self) -> Result<Server> {
        let listener = Listener::Inherited(crate::port::inherited()?);
        Ok(Server { listener, config: self.config, handle: Handle(Arc::default()) })
    }

    /// Serves one connection, whose other end somebody connects through, until that hangs up and the last
    /// running call is over.
    ///
    /// # Errors
    ///
    /// What went wrong in the handshake, or ended the connection before the client did.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O and time enabled.
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
    /// [`InvalidInput`](ErrorKind::InvalidInput) where this process was not started that way, and as
    /// [`serve_stream`](Self::serve_stream).
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn serve_parent<M: Service, S: Send + Sync + 'static>(self, service: S) -> Result<()>
    where
        Dispatcher: AsyncDispatch<M, S>,
    {
        self.serve_stream::<M, S>(crate::child::parent()?, service).await
    }
}

impl Handle {
    /// What went through which lane so far, on all connections.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.counters.read()
    }

    /// How many connections there are, those with a pending handshake included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.admission.count()
    }

    /// Stops the server: no connection is taken and nothing is received any more; the calls that have arrived
    /// are answered. Its `serve` returns when they are, or when they have had their time
    /// ([`shutdown_timeout`](crate::config::ServerBuilder::shutdown_timeout)).
    pub fn shutdown(&self) {
        if self.0.admission.stop_receiving() {
            self.0.stop.notify_one();
        }
    }

    /// Stops the server at once: as [`shutdown`](Self::shutdown), but calls that run are not waited for, nor
    /// answered.
    pub fn shutdown_now(&self) {
        self.shutdown();
        self.0.admission.close();
        self.0.cut.notify_one();
    }
}
