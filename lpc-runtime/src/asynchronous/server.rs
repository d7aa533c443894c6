//! The async server: it accepts connections, and gives each a task.

use std::future::{pending, poll_fn};
use std::io;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use lpc_core::receive::Role;
use lpc_core::{Error, ErrorKind, Result, Service};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::connection::{Connection, Implementation};
use super::race::{Either, race};
use super::stream::{self, Stream};
use super::{ServerBuilder, greeting};
use crate::config::Config;
use crate::connection::inbox::Inbox;
use crate::connection::link::Link;
use crate::connection::tally::Counters;
use crate::generated::{AsyncDispatch, Description, Dispatcher, Reply, Request};
use crate::home::Noted;
use crate::port::{ActivatedSockets, Listener, Port, activation};
use crate::server::admission::{self, Admission, Permit};
use crate::server::ends;
use crate::server::served::Served;
use crate::stats::Stats;
use crate::sys::fork::PerProcess;
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
///
/// In a fork of its process it is the handle to what the fork serves.
#[derive(Clone, Debug)]
pub struct Handle(Arc<PerProcess<Arc<Control>>>);

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

    /// A server of the listening sockets that the service manager opened for this process (systemd.socket(5),
    /// `LISTEN_FDS`): of all that are Unix stream sockets, whatever their names, with the same service. For
    /// services at sockets of different names see [`ActivatedSockets`](crate::ActivatedSockets).
    ///
    /// # Errors
    ///
    /// Those of [`ActivatedSockets::from_env`](crate::ActivatedSockets::from_env), which also says what
    /// becomes of the environment.
    pub fn from_env() -> Result<Self> {
        Self::builder().from_env()
    }

    /// A builder with the default settings.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::new()
    }

    fn new(listener: Listener, config: Config) -> Self {
        Self { listener, config, handle: Handle(Arc::new(PerProcess::new(Arc::default))) }
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
    /// - [`InvalidInput`](ErrorKind::InvalidInput): the environment variable `LPC_THRESHOLD` is no threshold.
    /// - [`Io`](ErrorKind::Io): the listening socket fails for good.
    /// - [`AddrInUse`](ErrorKind::AddrInUse): this process is a fork of the one that bound the port and
    ///   let go of it, and another server holds it now.
    ///
    /// A failure of one connection ends that connection, and is logged with `tracing`.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time enabled.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the port and all connections are closed. Running calls go on, and their
    /// results are dropped.
    pub fn serve<M: Service, S: Send + Sync + 'static>(self, service: S) -> impl Future<Output = Result<()>>
    where
        Dispatcher: AsyncDispatch<M, S>,
    {
        self.serve_arc::<M, S>(Arc::new(service))
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
    pub fn serve_arc<M: Service, S: Send + Sync + 'static>(
        self,
        service: Arc<S>,
    ) -> impl Future<Output = Result<()>>
    where
        Dispatcher: AsyncDispatch<M, S>,
    {
        // Now: who calls before this is polled first would wait, too.
        let noted = self.note_home();
        async move {
            // It may have been moved to another runtime.
            drop(noted);
            let _noted = self.note_home();
            self.serve_here::<M, S>(service).await
        }
    }

    /// Notes in which runtime it is polled.
    fn note_home(&self) -> Option<Noted> {
        self.listener.path().and_then(Noted::here)
    }

    async fn serve_here<M: Service, S: Send + Sync + 'static>(self, service: Arc<S>) -> Result<()>
    where
        Dispatcher: AsyncDispatch<M, S>,
    {
        let served = served::<M, S>(service, &self.config)?;
        let Self { mut listener, config, handle } = self;
        let control = handle.0.get();
        let mut accepting =
            Accepting { config: &config, control, served: &served, connections: JoinSet::new() };
        let before = listener.serve()?;
        if config.systemd_notify {
            notify::tell(notify::READY);
        }
        let result = match race(accepting.run(&mut listener, before), control.stop.notified()).await {
            Either::First(result) => result,
            Either::Second(()) => Ok(()),
        };
        if config.systemd_notify {
            notify::tell(notify::STOPPING);
        }
        // A client that connects from now on is refused by the system.
        drop(listener);
        handle.shutdown();
        let finished = async { while accepting.connections.join_next().await.is_some() {} };
        let finished = race(finished, control.cut.notified());
        if timeout(config.shutdown_timeout, finished).await.is_err() {
            ends::log_cut_off(served.service, &config, control.admission.close());
        }
        result
    }
}

/// What it takes to accept connections.
struct Accepting<'s, D: Implementation> {
    config: &'s Config,
    control: &'s Arc<Control>,
    served: &'s Arc<Served<D>>,
    connections: JoinSet<()>,
}

impl<D: Implementation> Accepting<'_, D> {
    /// Accepts connections; first those of the socket that the listener had before.
    async fn run(&mut self, listener: &mut Listener, mut before: Option<StdListener>) -> Result<()> {
        let mut watched = Watched::new(listener)?;
        loop {
            if let Some(before) = before.take() {
                loop {
                    match before.accept() {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        accepted => self.take(accepted.map(|(stream, _)| stream)).await?,
                    }
                }
                watched = loop {
                    match Watched::new(listener) {
                        Err(error) if crate::port::is_passing(&error) => self.pause(error).await,
                        watched => break watched?,
                    }
                };
            }
            while self.connections.try_join_next().is_some() {}
            match race(watched.accept(), watched.changed(listener.check_after())).await {
                Either::First(accepted) => self.take(accepted).await?,
                Either::Second(()) => {}
            }
            before = listener.check();
        }
    }

    /// Has a task serve a connection.
    async fn take(&mut self, accepted: io::Result<UnixStream>) -> Result<()> {
        let (service, admission) = (self.served.service, &self.control.admission);
        let stream = match accepted {
            Ok(stream) => match Stream::new(stream) {
                Ok(stream) => Arc::new(stream),
                Err(error) => {
                    admission.log_refusal(service, None, &error.into());
                    return Ok(());
                }
            },
            Err(error) if crate::port::is_passing(&error) => {
                self.pause(error).await;
                return Ok(());
            }
            Err(error) => {
                let message = format!("connections cannot be accepted any more: {error}");
                return Err(Error::new(ErrorKind::Io, message));
            }
        };
        while admission.is_full(service, self.config) {
            tokio::time::sleep(admission::FULL_PAUSE).await;
        }
        let Some(permit) = admission.admit(&stream, service, self.config) else { return Ok(()) };
        let peer = permit.peer().cloned();
        let (control, served) = (Arc::clone(self.control), Arc::clone(self.served));
        let config = self.config.clone();
        self.connections.spawn(async move {
            match greet(&stream, &served, &config, &control, permit).await {
                Ok((connection, inbox)) => {
                    // It has been logged.
                    let _ = connection.serve(&stream, inbox).await;
                }
                Err(error) => control.admission.log_refusal(service, peer.as_ref(), &error),
            }
        });
        Ok(())
    }

    /// The system has no descriptor for another connection.
    async fn pause(&self, error: io::Error) {
        self.control.admission.log_refusal(self.served.service, None, &error.into());
        tokio::time::sleep(admission::PAUSE).await;
    }
}

/// A [`Listener`] as the runtime watches it.
struct Watched {
    sockets: Vec<UnixListener>,
    /// Which is asked first.
    first: AtomicUsize,
    watch: Option<AsyncFd<OwnedFd>>,
}

impl Watched {
    fn new(listener: &Listener) -> io::Result<Self> {
        let sockets = listener.sockets().iter().map(|socket| UnixListener::from_std(socket.try_clone()?));
        let sockets = sockets.collect::<io::Result<_>>()?;
        let watch = listener.watch().map(|watch| stream::watch_for_events(watch.try_clone_to_owned()?));
        Ok(Self { sockets, first: AtomicUsize::new(0), watch: watch.transpose()? })
    }

    /// The next connection, of any of the sockets.
    async fn accept(&self) -> io::Result<UnixStream> {
        let count = self.sockets.len();
        let accepted = poll_fn(|cx| {
            for at in (self.first.load(Relaxed)..).take(count).map(|at| at % count) {
                if let Poll::Ready(accepted) = self.sockets[at].poll_accept(cx) {
                    // One that has many clients does not keep the others waiting.
                    self.first.store(at + 1, Relaxed);
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        });
        accepted.await.and_then(|(stream, _)| stream.into_std())
    }

    /// It is time to [check](Listener::check), or this time has passed.
    async fn changed(&self, after: Option<Duration>) {
        let told = async {
            match &self.watch {
                Some(watch) => match watch.readable().await {
                    Ok(mut ready) => ready.clear_ready(),
                    // The runtime ends.
                    Err(_) => pending().await,
                },
                None => pending().await,
            }
        };
        match after {
            Some(after) => drop(timeout(after, told).await),
            None => told.await,
        }
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
    /// If the socket is removed or moved while the server serves, it is bound again. What stands in its place
    /// then is left alone, and the port is back when that is gone.
    ///
    /// A daemon may bind, fork, and serve in the child: the child takes the port over, whether or not its
    /// parent drops the server, and handles that were made before the fork are those of its server.
    ///
    /// # Errors
    ///
    /// - [`AddrInUse`](ErrorKind::AddrInUse): another server holds the port.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): another user can enter the directory of a name,
    ///   or owns the lock file.
    /// - [`NotFound`](ErrorKind::NotFound): the directory of a path does not exist.
    /// - [`InvalidInput`](ErrorKind::InvalidInput): `port` is neither a name nor an absolute path, or
    ///   something else than a socket is there; or it is a name and `socket_mode` is set; or the
    ///   environment variable `LPC_THRESHOLD` is no threshold.
    pub fn bind(self, port: impl AsRef<Path>) -> Result<Server> {
        // What is wrong with the environment is better said before anybody connects.
        self.config.thresholds(&[])?;
        let bound = Port::new(port)?.bind(self.config.socket_mode)?;
        Ok(Server::new(Listener::Port(Box::new(bound)), self.config))
    }

    /// Serves the sockets that the service manager opened: see [`Server::from_env`].
    ///
    /// # Errors
    ///
    /// Those of [`Server::from_env`].
    pub fn from_env(self) -> Result<Server> {
        self.from_listeners(ActivatedSockets::from_env()?.take_all())
    }

    /// Serves these listening sockets, all with the same service: those that
    /// [`ActivatedSockets`](crate::ActivatedSockets) have by name, or others that this process was handed.
    /// They stay where they are in the file system when the server ends.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) if there is none, or one does not listen.
    pub fn from_listeners(self, listeners: impl IntoIterator<Item = StdListener>) -> Result<Server> {
        let listeners: Vec<_> = listeners.into_iter().collect();
        activation::check(&listeners)?;
        Ok(Server::new(Listener::HandedOver(listeners), self.config))
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
        stream: UnixStream,
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
        self.0.get().counters.read()
    }

    /// How many connections there are, including those with a pending handshake.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.get().admission.count()
    }

    /// Shuts the server down gracefully. It accepts no connection and receives nothing any more, and answers
    /// the calls that have arrived. Its `serve` returns once it has, or after
    /// [`shutdown_timeout`](crate::config::ServerBuilder::shutdown_timeout).
    pub fn shutdown(&self) {
        let control = self.0.get();
        if control.admission.stop_receiving() {
            control.stop.notify_one();
        }
    }

    /// Stops the server at once. It is like [`shutdown`](Self::shutdown), but running calls are neither
    /// waited for nor answered.
    pub fn shutdown_now(&self) {
        self.shutdown();
        self.0.get().admission.close();
        self.0.get().cut.notify_one();
    }
}
