//! All ways to get a client of a [`probe`](crate::probe) server.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::Duration;

use lpc::config::{ClientBuilder, ServerBuilder};
use lpc::{AtQuota, Plain, Shared, SharedMut, Stats, Threshold};
use tokio::runtime::Runtime;

use crate::GUARD;
use crate::probe::blocking::Probe;
use crate::probe::{
    Borrowing, How, Implementation, LoanRefused, Nest, Place, ProbeError, asynchronous, blocking, methods,
};

/// The runtime of all async sides.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
});

/// A driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Blocking,
    Tokio,
}

/// How client and server come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A socket in a temporary directory.
    Port,
    /// A connected pair.
    Pair,
}

/// Settings that a behaviour wants to vary.
#[derive(Clone, Debug)]
pub struct Setup {
    pub client: Driver,
    pub server: Driver,
    pub way: Way,
    pub threshold: Threshold,
    pub max_message: u64,
    pub pool_limit: u64,
    pub max_concurrent_calls: usize,
    /// Both sides read each other's memory in place.
    pub trust: bool,
    pub at_quota: AtQuota,
    pub max_calls_in_flight: u32,
    pub pool_idle_timeout: Duration,
    pub user_pool_limit: u64,
    pub deadline: Option<Duration>,
    pub spin: Duration,
    /// Both sides want it.
    pub quick_lane: bool,
}

/// Every combination of drivers and ways, without the quick lane and with it, and else with the default
/// settings.
pub fn all() -> Vec<Setup> {
    let mut setups = Vec::new();
    for client in [Driver::Blocking, Driver::Tokio] {
        for server in [Driver::Blocking, Driver::Tokio] {
            for (way, quick_lane) in
                [(Way::Port, false), (Way::Pair, false), (Way::Port, true), (Way::Pair, true)]
            {
                setups.push(Setup {
                    client,
                    server,
                    way,
                    threshold: Threshold::default(),
                    max_message: 64 << 20,
                    pool_limit: 128 << 20,
                    max_concurrent_calls: 16,
                    trust: false,
                    at_quota: AtQuota::Wait(Duration::from_secs(30)),
                    max_calls_in_flight: 1024,
                    pool_idle_timeout: Duration::from_secs(10),
                    user_pool_limit: 8 << 30,
                    deadline: None,
                    spin: Duration::from_micros(20),
                    quick_lane,
                });
            }
        }
    }
    setups
}

/// The same, each without trust and with it.
pub fn all_with_and_without_trust() -> impl Iterator<Item = Setup> {
    all().into_iter().flat_map(|setup| [Setup { trust: true, ..setup.clone() }, setup])
}

/// A server on its own thread, and where to find it.
pub struct Running {
    pub port: PathBuf,
    stop: Box<dyn Fn() + Send + Sync>,
    cut: Box<dyn Fn() + Send + Sync>,
    pub stats: Box<dyn Fn() -> Stats + Send + Sync>,
    thread: Option<JoinHandle<lpc::Result<()>>>,
    /// Of a port that is only this server's.
    _directory: Option<tempfile::TempDir>,
}

impl Running {
    pub fn new(setup: &Setup, probe: &Arc<Implementation>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = directory.path().join("probe");
        let mut running = Self::at(setup, probe, &port);
        running._directory = Some(directory);
        running
    }

    pub fn at(setup: &Setup, probe: &Arc<Implementation>, port: &Path) -> Self {
        let port = port.to_owned();
        let probe = Arc::clone(probe);
        type Act = Box<dyn Fn() + Send + Sync>;
        type Watch = (Act, Act, Box<dyn Fn() -> Stats + Send + Sync>);
        let (thread, (stop, cut, stats)): (_, Watch) = match setup.server {
            Driver::Blocking => {
                let server = setup.blocking_server().bind(&port).unwrap();
                let (stop, cut, stats) = (server.handle(), server.handle(), server.handle());
                let thread = std::thread::spawn(move || server.serve_arc::<blocking::ProbeService, _>(probe));
                let cut = move || cut.shutdown_now();
                (thread, (Box::new(move || stop.shutdown()), Box::new(cut), Box::new(move || stats.stats())))
            }
            Driver::Tokio => {
                let server = setup.async_server().bind(&port).unwrap();
                let (stop, cut, stats) = (server.handle(), server.handle(), server.handle());
                let thread = std::thread::spawn(move || {
                    RUNTIME.block_on(server.serve_arc::<asynchronous::ProbeService, _>(probe))
                });
                let cut = move || cut.shutdown_now();
                (thread, (Box::new(move || stop.shutdown()), Box::new(cut), Box::new(move || stats.stats())))
            }
        };
        Self { port, stop, cut, stats, thread: Some(thread), _directory: None }
    }

    pub fn shutdown(&self) {
        (self.stop)();
    }

    /// Ends all connections at once, as the kernel does for a server that dies.
    pub fn cut(&self) {
        (self.cut)();
    }

    /// Waits for the server to end by itself.
    pub fn join(&mut self) -> lpc::Result<()> {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

impl Setup {
    #[allow(unsafe_code, reason = "`trust` is unsafe to call")]
    fn server<D>(&self, builder: ServerBuilder<D>) -> ServerBuilder<D> {
        let builder = builder
            .threshold(self.threshold)
            .spin(self.spin)
            .quick_lane(self.quick_lane)
            .max_message(self.max_message)
            .pool_limit(self.pool_limit)
            .max_concurrent_calls(self.max_concurrent_calls)
            .pool_idle_timeout(self.pool_idle_timeout)
            .user_pool_limit(self.user_pool_limit)
            .shutdown_timeout(10 * GUARD);
        let trust = self.trust;
        // SAFETY: the peer is this process, which uses lpc, and changes no file that it passes.
        unsafe { builder.trust(move |_| trust) }
    }

    #[allow(unsafe_code, reason = "`trust` is unsafe to call")]
    fn client<C, D>(&self, builder: ClientBuilder<C, D>) -> ClientBuilder<C, D> {
        let builder = builder
            .threshold(self.threshold)
            .spin(self.spin)
            .quick_lane(self.quick_lane)
            .max_message(self.max_message)
            .pool_limit(self.pool_limit)
            .at_quota(self.at_quota)
            .max_calls_in_flight(self.max_calls_in_flight)
            .pool_idle_timeout(self.pool_idle_timeout);
        let builder = match self.deadline {
            Some(deadline) => builder.deadline(deadline),
            None => builder,
        };
        let trust = self.trust;
        // SAFETY: as in `server`.
        unsafe { builder.trust(move |_| trust) }
    }

    fn blocking_server(&self) -> lpc::blocking::ServerBuilder {
        self.server(lpc::blocking::Server::builder())
    }

    fn async_server(&self) -> lpc::ServerBuilder {
        self.server(lpc::Server::builder())
    }

    /// A client of a server of its own; a server at a port ends with the second value.
    pub fn connect(&self, probe: &Arc<Implementation>) -> (AnyClient, Option<Running>) {
        match self.way {
            Way::Port => {
                let server = Running::new(self, probe);
                (self.connect_port(&server), Some(server))
            }
            Way::Pair => {
                let (ours, theirs) = UnixStream::pair().unwrap();
                self.serve_stream(theirs, Arc::clone(probe));
                (self.connect_stream(ours), None)
            }
        }
    }

    pub fn serve_stream(&self, stream: UnixStream, probe: Arc<Implementation>) {
        match self.server {
            Driver::Blocking => {
                let server = self.blocking_server();
                std::thread::spawn(move || {
                    server.serve_stream::<blocking::ProbeService, _>(stream, Held(probe))
                });
            }
            Driver::Tokio => {
                let server = self.async_server();
                RUNTIME.spawn(server.serve_stream::<asynchronous::ProbeService, _>(stream, Held(probe)));
            }
        }
    }

    pub fn connect_stream(&self, stream: UnixStream) -> AnyClient {
        match self.client {
            Driver::Blocking => {
                let builder = self.client(blocking::ProbeClient::builder());
                AnyClient::Blocking(builder.connect_stream(stream).unwrap())
            }
            Driver::Tokio => {
                let builder = self.client(asynchronous::ProbeClient::builder());
                AnyClient::Tokio(RUNTIME.block_on(builder.connect_stream(stream)).unwrap())
            }
        }
    }

    pub fn connect_port(&self, server: &Running) -> AnyClient {
        match self.client {
            Driver::Blocking => {
                let builder = self.client(blocking::ProbeClient::builder());
                AnyClient::Blocking(builder.connect(&server.port).unwrap())
            }
            Driver::Tokio => {
                let builder = self.client(asynchronous::ProbeClient::builder());
                AnyClient::Tokio(RUNTIME.block_on(builder.connect(&server.port)).unwrap())
            }
        }
    }
}

/// An implementation that the test keeps hold of.
struct Held(Arc<Implementation>);

/// A client of either driver; the async one is waited for, so that behaviours are written once.
#[derive(Clone)]
pub enum AnyClient {
    Blocking(blocking::ProbeClient),
    Tokio(asynchronous::ProbeClient),
}

impl AnyClient {
    pub fn stats(&self) -> Stats {
        match self {
            Self::Blocking(client) => client.client().stats(),
            Self::Tokio(client) => client.client().stats(),
        }
    }

    pub fn with_deadline(&self, time: Duration) -> Self {
        match self {
            Self::Blocking(client) => Self::Blocking(client.with_deadline(time)),
            Self::Tokio(client) => Self::Tokio(client.with_deadline(time)),
        }
    }

    pub fn is_connected(&self) -> bool {
        match self {
            Self::Blocking(client) => client.client().is_connected(),
            Self::Tokio(client) => client.client().is_connected(),
        }
    }

    pub fn close(&self) {
        match self {
            Self::Blocking(client) => client.client().close(),
            Self::Tokio(client) => client.client().close(),
        }
    }

    pub fn loan<T: Plain>(&self, len: usize) -> lpc::Result<SharedMut<[T]>> {
        match self {
            Self::Blocking(client) => client.client().loan(len),
            Self::Tokio(client) => RUNTIME.block_on(client.client().loan(len)),
        }
    }

    /// `len` bytes of `fill` in the connection's shared memory.
    pub fn filled(&self, len: usize, fill: u8) -> lpc::Result<Shared<[u8]>> {
        let mut loan = self.loan(len)?;
        loan.fill(fill);
        Ok(loan.freeze())
    }
}

macro_rules! forward {
    ($($(#[$attribute:meta])* fn $method:ident(&self $(, $argument:ident: $type:ty)*) -> $result:ty;)*) => {
        impl Probe for AnyClient {
            $(fn $method(&self $(, $argument: $type)*) -> $result {
                match self {
                    Self::Blocking(client) => client.$method($($argument),*),
                    Self::Tokio(client) => RUNTIME.block_on(asynchronous::Probe::$method(client $(, $argument)*)),
                }
            })*
        }
        impl Probe for Held {
            $(fn $method(&self $(, $argument: $type)*) -> $result {
                Probe::$method(&*self.0 $(, $argument)*)
            })*
        }
        impl asynchronous::Probe for Held {
            $(async fn $method(&self $(, $argument: $type)*) -> $result {
                asynchronous::Probe::$method(&*self.0 $(, $argument)*).await
            })*
        }
    };
}

methods!(forward);
