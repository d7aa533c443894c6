//! The blocking server: it accepts connections, and gives each a thread to lead it.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use lpc_core::receive::Role;
use lpc_core::{Error, ErrorKind, Result, Service};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::Shutdown;

use super::connection::{Connection, Dispatch as DispatchFn};
use super::workers::Workers;
use super::{ServerBuilder, greeting};
use crate::config::Config;
use crate::connection::inbox::Inbox;
use crate::connection::link::Link;
use crate::connection::tally::Counters;
use crate::generated::{Description, Dispatch, Dispatcher};
use crate::port::{ActivatedSockets, Listener, Port, activation};
use crate::server::admission::{self, Admission, Permit};
use crate::server::ends;
use crate::server::served::Served;
use crate::stats::Stats;
use crate::sys::fork::PerProcess;
use crate::sys::socket::{self, Wait};
use crate::sys::{notify, retry};

/// A blocking server that holds its port and does not serve yet.
///
/// See the [module](super) for an example, and [`ServerBuilder`] for the settings.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    config: Config,
    handle: Handle,
}

/// A handle to a server, by which any thread can watch and stop it.
///
/// In a fork of its process it is the handle to what the fork serves.
#[derive(Clone, Debug)]
pub struct Handle(Arc<PerProcess<Arc<Control>>>);

#[derive(Debug, Default)]
struct Control {
    counters: Arc<Counters>,
    admission: Arc<Admission>,
    workers: Arc<Workers>,
    /// Wakes the thread that accepts connections. (Shutting the listening socket down would wake it too, but
    /// a socket of the service manager's would be of no use to the next server.)
    wake: OnceLock<UnixStream>,
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
        Self { listener, config, handle: Handle::new() }
    }

    /// A handle to watch and stop this server while it serves.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until [`Handle::shutdown`] is called and all running calls have been answered, or
    /// [`shutdown_timeout`](crate::config::ServerBuilder::shutdown_timeout) has passed. A call that still
    /// runs then goes on on its thread, and its result is dropped; so `service` may live longer than this
    /// function runs.
    ///
    /// The service manager, if there is one, is notified once clients are served: see
    /// [`systemd_notify`](crate::config::ServerBuilder::systemd_notify).
    ///
    /// `service` is an implementation of a `#[service]` trait. Each connection calls it from threads of its
    /// own. A type that implements several such traits says which one with `serve::<DocumentsService, _>(…)`.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): the environment variable `LPC_THRESHOLD` is no threshold.
    /// - [`Io`](ErrorKind::Io): the listening socket fails for good.
    /// - [`AddrInUse`](ErrorKind::AddrInUse): this process is a fork of the one that bound the port and
    ///   let go of it, and another server holds it now.
    ///
    /// A failure of one connection ends that connection, and is logged with `tracing`.
    pub fn serve<M: Service, S: Send + Sync + 'static>(self, service: S) -> Result<()>
    where
        Dispatcher: Dispatch<M, S>,
    {
        self.serve_arc::<M, S>(Arc::new(service))
    }

    /// Like [`serve`](Self::serve), with an implementation that this process uses as well.
    ///
    /// # Errors
    ///
    /// Those of [`serve`](Self::serve).
    pub fn serve_arc<M: Service, S: Send + Sync + 'static>(self, service: Arc<S>) -> Result<()>
    where
        Dispatcher: Dispatch<M, S>,
    {
        let served = served::<M, S>(service, &self.config)?;
        let Self { mut listener, config, handle } = self;
        let control = handle.0.get();
        let accepting = Accepting { stop: control.begin()?, config: &config, control, served: &served };
        let before = listener.serve()?;
        if config.systemd_notify {
            notify::tell(notify::READY);
        }
        let result = accepting.run(&mut listener, before);
        if config.systemd_notify {
            notify::tell(notify::STOPPING);
        }
        // A client that connects from now on is refused by the system.
        drop(listener);
        handle.shutdown();
        if !control.admission.wait(Some(config.shutdown_timeout)) {
            ends::log_cut_off(served.service, &config, control.admission.close());
        }
        result
    }
}

impl Control {
    /// What becomes readable once the server is to stop.
    fn begin(&self) -> Result<UnixStream> {
        let (stop, wake) = UnixStream::pair()?;
        let wake = self.wake.get_or_init(|| wake);
        // Where it was to stop before this, nobody has woken anybody.
        if self.admission.is_closing() {
            socket::shutdown(wake, Shutdown::Write);
        }
        Ok(stop)
    }
}

/// What it takes to accept connections.
struct Accepting<'s> {
    stop: UnixStream,
    config: &'s Config,
    control: &'s Arc<Control>,
    served: &'s Arc<Served<DispatchFn>>,
}

/// What [`Accepting::accept`] ended with.
enum Accepted {
    /// One client, or none that matters.
    Client,
    /// There was none.
    None,
    /// The server is to stop.
    Stopped,
}

impl Accepting<'_> {
    /// Accepts connections until the server is to stop; first those of the socket that the listener had
    /// before.
    fn run(&self, listener: &mut Listener, mut before: Option<UnixListener>) -> Result<()> {
        loop {
            if let Some(before) = before.take() {
                while let Accepted::Client = self.accept(&before)? {}
            }
            let sockets = listener.sockets().iter().map(AsFd::as_fd);
            let fds = sockets.chain([self.stop.as_fd()]).chain(listener.watch());
            let mut ready: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            let time = listener
                .check_after()
                .map_or(PollTimeout::NONE, |time| PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX));
            match retry(|| poll(&mut ready, time)) {
                Ok(_) => {}
                // The kernel has no memory to wait with (ENOMEM, poll(2)).
                Err(error) if crate::port::is_passing(&error) => thread::sleep(admission::PAUSE),
                Err(error) => return Err(error.into()),
            }
            for socket in listener.sockets() {
                if let Accepted::Stopped = self.accept(socket)? {
                    return Ok(());
                }
            }
            before = listener.check();
        }
    }

    /// Whether the server is to stop before this time is over.
    fn stops_within(&self, pause: Duration) -> Result<bool> {
        match socket::wait(&self.stop, PollFlags::POLLIN, Some(pause)) {
            Err(error) if crate::port::is_passing(&error) => Ok(false),
            result => Ok(result?),
        }
    }

    /// Accepts one connection, and has a thread lead it.
    fn accept(&self, listener: &UnixListener) -> Result<Accepted> {
        let (service, admission) = (self.served.service, &self.control.admission);
        if self.stops_within(Duration::ZERO)? {
            return Ok(Accepted::Stopped);
        }
        let stream = match listener.accept() {
            Ok((stream, _)) => Arc::new(stream),
            // Or the client has left again.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Accepted::None),
            Err(error) if crate::port::is_passing(&error) => {
                admission.log_refusal(service, None, &error.into());
                let stops = self.stops_within(admission::PAUSE)?;
                return Ok(if stops { Accepted::Stopped } else { Accepted::Client });
            }
            Err(error) => {
                let message = format!("connections cannot be accepted any more: {error}");
                return Err(Error::new(ErrorKind::Io, message));
            }
        };
        while admission.is_full(service, self.config) {
            if self.stops_within(admission::FULL_PAUSE)? {
                return Ok(Accepted::Stopped);
            }
        }
        let Some(permit) = admission.admit(&stream, service, self.config) else {
            return Ok(Accepted::Client);
        };
        let peer = permit.peer().cloned();
        let (control, served) = (Arc::clone(self.control), Arc::clone(self.served));
        let config = self.config.clone();
        let (accepted, refused) = (Arc::clone(&stream), peer.clone());
        let spawned = thread::Builder::new().name("lpc-connection".into()).spawn(move || {
            if let Err(error) = lead(accepted, &served, &config, &control, permit) {
                control.admission.log_refusal(service, peer.as_ref(), &error);
            }
        });
        if let Err(error) = spawned {
            let message = format!("no thread for a connection: {error}");
            let reason = Error::new(ErrorKind::ResourceExhausted, message);
            crate::handshake::refuse(&*stream, &reason);
            admission.log_refusal(service, refused.as_ref(), &reason);
        }
        Ok(Accepted::Client)
    }
}

/// Greets a client, and leads the connection on this thread for as long as that is this thread's part.
fn lead(
    stream: Arc<UnixStream>,
    served: &Arc<Served<DispatchFn>>,
    config: &Config,
    control: &Control,
    mut permit: Permit,
) -> Result<()> {
    let limits = greeting::greet_client(&stream, &served.hello, config, &mut permit)?;
    let is_trusted = config.trusts(permit.peer());
    let settings = served.settings(limits, permit.user(), config);
    let link = Link::new(stream, Wait::Sleep, settings, Arc::clone(&control.counters));
    permit.established(&link);
    let inbox = Box::new(Inbox::new(Role::Server, config.limits, is_trusted, &link));
    let connection = Connection::new(link, Arc::clone(served), permit, &control.workers);
    control.workers.watch(&connection);
    connection.work(Some(inbox), &control.workers);
    Ok(())
}

fn served<M: Service, S: Send + Sync + 'static>(
    service: Arc<S>,
    config: &Config,
) -> Result<Arc<Served<DispatchFn>>>
where
    Dispatcher: Dispatch<M, S>,
{
    let dispatch: Box<DispatchFn> =
        Box::new(move |request| <Dispatcher as Dispatch<M, S>>::dispatch(&service, request));
    Served::new(Description::of::<M>(), config, dispatch).map(Arc::new)
}

/// Serves the process that started this one with
/// [`ClientBuilder::spawn`](crate::config::ClientBuilder::spawn), until that hangs up and the last running
/// call has ended. The connection is this process's standard input.
///
/// # Errors
///
/// Those of [`ServerBuilder::serve_parent`](crate::config::ServerBuilder::serve_parent).
pub fn serve_parent<M: Service, S: Send + Sync + 'static>(service: S) -> Result<()>
where
    Dispatcher: Dispatch<M, S>,
{
    Server::builder().serve_parent::<M, S>(service)
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
    pub fn from_listeners(self, listeners: impl IntoIterator<Item = UnixListener>) -> Result<Server> {
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
    /// The failure of the handshake. Whatever ends the connection later is logged.
    pub fn serve_stream<M: Service, S: Send + Sync + 'static>(
        self,
        stream: UnixStream,
        service: S,
    ) -> Result<()>
    where
        Dispatcher: Dispatch<M, S>,
    {
        stream.set_nonblocking(false)?;
        let served = served::<M, S>(Arc::new(service), &self.config)?;
        let control = Control::default();
        let stream = Arc::new(stream);
        let permit = control.admission.adopt(&stream)?;
        lead(stream, &served, &self.config, &control, permit)?;
        control.admission.wait(None);
        Ok(())
    }

    /// Serves the process that started this one: see [`serve_parent`].
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) if this process was not started that way, and those of
    /// [`serve_stream`](Self::serve_stream).
    pub fn serve_parent<M: Service, S: Send + Sync + 'static>(self, service: S) -> Result<()>
    where
        Dispatcher: Dispatch<M, S>,
    {
        self.serve_stream::<M, S>(crate::child::parent()?, service)
    }
}

impl Handle {
    fn new() -> Self {
        Self(Arc::new(PerProcess::new(Arc::default)))
    }

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
        if control.admission.stop_receiving()
            && let Some(wake) = control.wake.get()
        {
            // Its end of the stream is what the other end becomes readable by.
            socket::shutdown(wake, Shutdown::Write);
        }
    }

    /// Stops the server at once. It is like [`shutdown`](Self::shutdown), but running calls are neither
    /// waited for nor answered.
    pub fn shutdown_now(&self) {
        self.shutdown();
        self.0.get().admission.close();
    }
}
