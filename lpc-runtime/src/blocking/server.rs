//! The blocking server: takes connections, and gives each a thread to lead it.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use lpc_core::receiver::Role;
use lpc_core::{Error, ErrorKind, Result, Service};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::Shutdown;

use super::connection::{Connection, Dispatch as DispatchFn};
use super::workers::Workers;
use super::{ServerBuilder, greeting};
use crate::config::Config;
use crate::lane::incoming::Inbox;
use crate::link::Link;
use crate::port::{Listener, Port};
use crate::service::{Description, Dispatch, Dispatcher};
use crate::serving::{self, Served};
use crate::stats::{Counters, Stats};
use crate::sys::retry;
use crate::sys::socket::{self, Wait};

/// A blocking server that holds its port and has not begun to serve.
///
/// See the [module](super) for an example, and [`ServerBuilder`] for the knobs.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    /// Readable once the server is to stop.
    stop: UnixStream,
    config: Config,
    handle: Handle,
}

/// Watches and stops a server, from any thread.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Control>);

#[derive(Debug)]
struct Control {
    counters: Arc<Counters>,
    stopping: AtomicBool,
    workers: Arc<Workers>,
    /// Wakes the thread that takes connections: the other end of `Server::stop`. (Shutting the listening socket down
    /// would wake it too, but a socket of the service manager's would be of no use to the next server.)
    wake: Option<UnixStream>,
    /// The streams of connections that may be alive.
    streams: Mutex<Vec<Weak<UnixStream>>>,
    /// Connections that are not over, and who waits for there being none.
    live: Mutex<usize>,
    none_left: Condvar,
}

/// How long to wait where the system has no descriptor for a connection.
const PAUSE: Duration = Duration::from_millis(50);

impl Server {
    /// Takes hold of a [`Port`], a name or an absolute path, with the default settings.
    ///
    /// # Errors
    ///
    /// As [`ServerBuilder::bind`](crate::config::ServerBuilder::bind).
    pub fn bind(port: impl AsRef<Path>) -> Result<Self> {
        Self::builder().bind(port)
    }

    /// The listening socket that the service manager opened for this process (systemd.socket(5), `LISTEN_FDS`): the
    /// first one that is a Unix stream socket.
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

    fn new(listener: Listener, config: Config) -> Result<Self> {
        let (stop, wake) = UnixStream::pair()?;
        Ok(Self { listener, stop, config, handle: Handle::new(Some(wake)) })
    }

    /// Watches and stops this server while it serves.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until [`Handle::shutdown`] is called and the last running call has been answered.
    ///
    /// `service` is an implementation of a trait marked `#[service]`; each connection calls it from threads of its
    /// own. A type that implements several such traits says which one with `serve::<DocumentsService, _>(…)`.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) where `LPC_THRESHOLD` is no threshold, and
    /// [`Io`](ErrorKind::Io) where the listening socket fails for good. What goes wrong with one connection ends
    /// that connection, and is logged with `tracing`.
    pub fn serve<M: Service, S: Send + Sync + 'static>(self, service: S) -> Result<()>
    where
        Dispatcher: Dispatch<M, S>,
    {
        self.serve_arc::<M, S>(Arc::new(service))
    }

    /// As [`serve`](Self::serve), with an implementation that this process uses as well.
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve).
    pub fn serve_arc<M: Service, S: Send + Sync + 'static>(self, service: Arc<S>) -> Result<()>
    where
        Dispatcher: Dispatch<M, S>,
    {
        let served = served::<M, S>(service, &self.config)?;
        let Self { listener, stop, config, handle } = self;
        let result = accept(&listener, &stop, &config, &handle.0, &served);
        // Who connects from now on is told that nobody serves.
        drop(listener);
        handle.shutdown();
        handle.0.wait();
        result
    }
}

/// Takes connections until the server is to stop.
fn accept(
    listener: &Listener,
    stop: &UnixStream,
    config: &Config,
    control: &Arc<Control>,
    served: &Arc<Served<DispatchFn>>,
) -> Result<()> {
    listener.socket().set_nonblocking(true)?;
    loop {
        let mut ready =
            [listener.socket().as_fd(), stop.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        retry(|| poll(&mut ready, PollTimeout::NONE))?;
        if control.stopping.load(SeqCst) {
            return Ok(());
        }
        let stream = match listener.socket().accept() {
            Ok((stream, _)) => stream,
            // Whoever it was has left again.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) if crate::port::is_passing(&error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                thread::sleep(PAUSE);
                continue;
            }
            Err(error) => {
                let message = format!("connections cannot be accepted any more: {error}");
                return Err(Error::new(ErrorKind::Io, message));
            }
        };
        let (served, config) = (Arc::clone(served), config.clone());
        let live = Live::new(control);
        let spawned = thread::Builder::new().name("lpc-connection".into()).spawn(move || {
            let led =
                crate::greeting::check_user(&stream).and_then(|()| lead(stream, &served, &config, live));
            if let Err(error) = led {
                tracing::warn!(service = served.service.name, %error, "connection refused");
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a connection");
        }
    }
}

/// Greets a client, and leads the connection on this thread for as long as that is this thread's part.
fn lead(stream: UnixStream, served: &Arc<Served<DispatchFn>>, config: &Config, live: Live) -> Result<()> {
    let stream = Arc::new(stream);
    let control = Arc::clone(&live.0);
    control.watch(&stream);
    let limits = greeting::greet_client(&stream, served.service, config)?;
    let is_trusted = config.trusts(&*stream);
    let peer = crate::greeting::credentials(&*stream)?;
    let settings = served.settings(limits, peer.uid(), config);
    let link = Link::new(stream, Wait::Sleep, settings, Arc::clone(&control.counters));
    let inbox = Box::new(Inbox::new(Role::Server, config.limits, is_trusted, &link));
    let connection = Connection::new(link, peer, Arc::clone(served), live);
    control.workers.watch(&connection);
    connection.lead(inbox, &control.workers);
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

/// Serves the process that started this one, over the connection that it left on standard input, until it hangs up
/// and the last running call is over. See [`ClientBuilder::spawn`](crate::config::ClientBuilder::spawn).
///
/// # Errors
///
/// As [`ServerBuilder::serve_parent`](crate::config::ServerBuilder::serve_parent).
pub fn serve_parent<M: Service, S: Send + Sync + 'static>(service: S) -> Result<()>
where
    Dispatcher: Dispatch<M, S>,
{
    Server::builder().serve_parent::<M, S>(service)
}

impl ServerBuilder {
    /// Takes hold of a [`Port`], a name or an absolute path. Clients can connect from now on; they are answered once
    /// [`Server::serve`] is called.
    ///
    /// The socket has mode 0600, and clients of other users are turned away. A lock file `PATH.lock` stays beside it.
    ///
    /// # Errors
    ///
    /// - [`AddrInUse`](ErrorKind::AddrInUse): another server holds the port.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): its directory is not ours alone.
    /// - [`InvalidInput`](ErrorKind::InvalidInput): that is no port, or `LPC_THRESHOLD` no threshold.
    pub fn bind(self, port: impl AsRef<Path>) -> Result<Server> {
        // What is wrong with the environment is better said before anybody connects.
        self.config.thresholds(&[])?;
        Server::new(Listener::Port(Port::new(port)?.bind()?), self.config)
    }

    /// Takes the listening socket that the service manager opened: see [`Server::from_env`].
    ///
    /// # Errors
    ///
    /// As [`Server::from_env`].
    pub fn from_env(self) -> Result<Server> {
        Server::new(Listener::Inherited(crate::port::inherited()?), self.config)
    }

    /// Serves one connection, whose other end somebody connects through, until that hangs up and the last running
    /// call is over.
    ///
    /// # Errors
    ///
    /// What went wrong in the handshake. Whatever ends the connection later is logged.
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
        let handle = Handle::new(None);
        lead(stream, &served, &self.config, Live::new(&handle.0))?;
        handle.0.wait();
        Ok(())
    }

    /// Serves the process that started this one: see [`serve_parent`].
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) where this process was not started that way, and as
    /// [`serve_stream`](Self::serve_stream).
    pub fn serve_parent<M: Service, S: Send + Sync + 'static>(self, service: S) -> Result<()>
    where
        Dispatcher: Dispatch<M, S>,
    {
        self.serve_stream::<M, S>(crate::child::parent()?, service)
    }
}

impl Handle {
    fn new(wake: Option<UnixStream>) -> Self {
        Self(Arc::new(Control {
            counters: Arc::default(),
            stopping: AtomicBool::new(false),
            workers: Arc::default(),
            wake,
            streams: Mutex::default(),
            live: Mutex::default(),
            none_left: Condvar::new(),
        }))
    }

    /// What went through which lane so far, on all connections.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.counters.read()
    }

    /// Stops the server: no connection is taken and nothing is received any more; the calls that have arrived are
    /// answered. Its `serve` returns when they are.
    pub fn shutdown(&self) {
        if self.0.stopping.swap(true, SeqCst) {
            return;
        }
        if let Some(wake) = &self.0.wake {
            // Its end of the stream is what the other end becomes readable by.
            socket::shutdown(wake, Shutdown::Write);
        }
        for stream in self.0.streams().iter().filter_map(Weak::upgrade) {
            socket::shutdown(&*stream, Shutdown::Read);
        }
    }
}

impl Control {
    fn wait(&self) {
        let mut live = self.live();
        while *live > 0 {
            live = self.none_left.wait(live).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Adds a stream to those that a shutdown reaches.
    fn watch(&self, stream: &Arc<UnixStream>) {
        let mut streams = self.streams();
        serving::push_weak(&mut streams, stream);
        if self.stopping.load(SeqCst) {
            socket::shutdown(&**stream, Shutdown::Read);
        }
    }

    fn streams(&self) -> MutexGuard<'_, Vec<Weak<UnixStream>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> MutexGuard<'_, usize> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is not over, as its server counts it.
#[derive(Debug)]
pub(super) struct Live(Arc<Control>);

impl Live {
    fn new(control: &Arc<Control>) -> Self {
        *control.live() += 1;
        Self(Arc::clone(control))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let mut live = self.0.live();
        *live -= 1;
        if *live == 0 {
            self.0.none_left.notify_all();
        }
    }
}
