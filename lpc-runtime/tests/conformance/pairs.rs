//! All ways to get a client of a [`probe`](crate::probe) server.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;

use lpc::{Stats, Threshold};
use tokio::runtime::Runtime;

use crate::probe::blocking::Probe;
use crate::probe::{Implementation, ProbeError, asynchronous, blocking};

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
}

/// Every combination of drivers and ways, with the default settings.
pub fn all() -> Vec<Setup> {
    let mut setups = Vec::new();
    for client in [Driver::Blocking, Driver::Tokio] {
        for server in [Driver::Blocking, Driver::Tokio] {
            for way in [Way::Port, Way::Pair] {
                setups.push(Setup {
                    client,
                    server,
                    way,
                    threshold: Threshold::default(),
                    max_message: 64 << 20,
                    pool_limit: 128 << 20,
                    max_concurrent_calls: 16,
                });
            }
        }
    }
    setups
}

/// A server on its own thread, and where to find it.
pub struct Running {
    pub port: PathBuf,
    stop: Box<dyn Fn() + Send + Sync>,
    pub stats: Box<dyn Fn() -> Stats + Send + Sync>,
    thread: Option<JoinHandle<lpc::Result<()>>>,
    _directory: tempfile::TempDir,
}

impl Running {
    pub fn new(setup: &Setup, probe: &Arc<Implementation>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = directory.path().join("probe");
        let probe = Arc::clone(probe);
        type Watch = (Box<dyn Fn() + Send + Sync>, Box<dyn Fn() -> Stats + Send + Sync>);
        let (thread, (stop, stats)): (_, Watch) = match setup.server {
            Driver::Blocking => {
                let server = setup.blocking_server().bind(&port).unwrap();
                let (stop, stats) = (server.handle(), server.handle());
                let thread = std::thread::spawn(move || server.serve_arc::<blocking::ProbeService, _>(probe));
                (thread, (Box::new(move || stop.shutdown()), Box::new(move || stats.stats())))
            }
            Driver::Tokio => {
                let server = setup.async_server().bind(&port).unwrap();
                let (stop, stats) = (server.handle(), server.handle());
                let thread = std::thread::spawn(move || {
                    RUNTIME.block_on(server.serve_arc::<asynchronous::ProbeService, _>(probe))
                });
                (thread, (Box::new(move || stop.shutdown()), Box::new(move || stats.stats())))
            }
        };
        Self { port, stop, stats, thread: Some(thread), _directory: directory }
    }

    pub fn shutdown(&self) {
        (self.stop)();
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
    fn blocking_server(&self) -> lpc::blocking::ServerBuilder {
        lpc::blocking::Server::builder()
            .threshold(self.threshold)
            .max_message(self.max_message)
            .pool_limit(self.pool_limit)
            .max_concurrent_calls(self.max_concurrent_calls)
    }

    fn async_server(&self) -> lpc::ServerBuilder {
        lpc::Server::builder()
            .threshold(self.threshold)
            .max_message(self.max_message)
            .pool_limit(self.pool_limit)
            .max_concurrent_calls(self.max_concurrent_calls)
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

    fn serve_stream(&self, stream: UnixStream, probe: Arc<Implementation>) {
        match self.server {
            Driver::Blocking => {
                let server = self.blocking_server();
                std::thread::spawn(move || {
                    server.serve_stream::<blocking::ProbeService, _>(stream, Shared(probe))
                });
            }
            Driver::Tokio => {
                let server = self.async_server();
                RUNTIME.spawn(server.serve_stream::<asynchronous::ProbeService, _>(stream, Shared(probe)));
            }
        }
    }

    pub fn connect_stream(&self, stream: UnixStream) -> AnyClient {
        match self.client {
            Driver::Blocking => {
                let builder = blocking::ProbeClient::builder().threshold(self.threshold);
                let builder = builder.max_message(self.max_message).pool_limit(self.pool_limit);
                AnyClient::Blocking(builder.connect_stream(stream).unwrap())
            }
            Driver::Tokio => {
                let builder = asynchronous::ProbeClient::builder().threshold(self.threshold);
                let builder = builder.max_message(self.max_message).pool_limit(self.pool_limit);
                AnyClient::Tokio(RUNTIME.block_on(builder.connect_stream(stream)).unwrap())
            }
        }
    }

    pub fn connect_port(&self, server: &Running) -> AnyClient {
        match self.client {
            Driver::Blocking => {
                let builder = blocking::ProbeClient::builder().threshold(self.threshold);
                let builder = builder.max_message(self.max_message).pool_limit(self.pool_limit);
                AnyClient::Blocking(builder.connect(&server.port).unwrap())
            }
            Driver::Tokio => {
                let builder = asynchronous::ProbeClient::builder().threshold(self.threshold);
                let builder = builder.max_message(self.max_message).pool_limit(self.pool_limit);
                AnyClient::Tokio(RUNTIME.block_on(builder.connect(&server.port)).unwrap())
            }
        }
    }
}

/// An implementation that the test keeps hold of.
struct Shared(Arc<Implementation>);

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
}

macro_rules! forward {
    ($(fn $method:ident(&self $(, $argument:ident: $type:ty)*) -> $result:ty;)*) => {
        impl Probe for AnyClient {
            $(fn $method(&self $(, $argument: $type)*) -> $result {
                match self {
                    Self::Blocking(client) => client.$method($($argument),*),
                    Self::Tokio(client) => RUNTIME.block_on(asynchronous::Probe::$method(client $(, $argument)*)),
                }
            })*
        }
        impl Probe for Shared {
            $(fn $method(&self $(, $argument: $type)*) -> $result {
                Probe::$method(&*self.0 $(, $argument)*)
            })*
        }
        impl asynchronous::Probe for Shared {
            $(async fn $method(&self $(, $argument: $type)*) -> $result {
                asynchronous::Probe::$method(&*self.0 $(, $argument)*).await
            })*
        }
    };
}

forward! {
    fn echo(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>>;
    fn sum(&self, numbers: &[u64], text: &str) -> lpc::Result<(u64, String)>;
    fn refuse(&self, reason: &str) -> Result<(), ProbeError>;
    fn relay(&self, text: &str) -> lpc::Result<()>;
    fn panic(&self, text: &str) -> lpc::Result<()>;
    fn make(&self, len: u64) -> lpc::Result<Vec<u8>>;
    fn wait(&self, key: u64) -> lpc::Result<()>;
    fn open(&self, key: u64) -> lpc::Result<()>;
    fn most_at_once(&self) -> lpc::Result<u64>;
    fn nap(&self, millis: u64) -> lpc::Result<()>;
    fn echo_by_socket(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>>;
    fn echo_by_mapping(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>>;
}
