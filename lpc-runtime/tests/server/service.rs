//! The service, its implementation, and its servers.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context as TaskContext, Wake, Waker};
use std::thread::JoinHandle;

use lpc::{Context, Shared, SharedMut, Stats};
use tempfile::TempDir;
use tokio::sync::Notify;

pub mod blocking {
    use lpc::Shared;

    #[lpc::service]
    pub trait Desk {
        /// Returns once the gate is open.
        fn hold(&self) -> lpc::Result<()>;
        #[lpc(threshold = "always")]
        fn make(&self, len: u64) -> lpc::Result<Vec<u8>>;
        fn add(&self, a: u64, b: u64) -> lpc::Result<u64>;
        /// Of 100 wakers with which the call's end was waited for in vain: how many are kept.
        fn wakers_kept(&self) -> lpc::Result<u64>;
        /// Sealed memory that the result alone owns.
        #[lpc(threshold = "always")]
        fn sealed(&self) -> lpc::Result<(Vec<u8>, Shared<[u8]>)>;
    }
}

pub mod asynchronous {
    use lpc::Shared;

    #[lpc::service]
    pub trait Desk {
        async fn hold(&self) -> lpc::Result<()>;
        #[lpc(threshold = "always")]
        async fn make(&self, len: u64) -> lpc::Result<Vec<u8>>;
        async fn add(&self, a: u64, b: u64) -> lpc::Result<u64>;
        async fn wakers_kept(&self) -> lpc::Result<u64>;
        #[lpc(threshold = "always")]
        async fn sealed(&self) -> lpc::Result<(Vec<u8>, Shared<[u8]>)>;
    }
}

/// The methods' numbers.
pub const HOLD: u16 = 0;
pub const MAKE: u16 = 1;
pub const ADD: u16 = 2;
pub const SEALED: u16 = 4;

/// Holds calls until it is open.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar, Notify)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
        self.0.2.notify_waiters();
    }
}

impl blocking::Desk for Gate {
    fn hold(&self) -> lpc::Result<()> {
        let is_open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(is_open, |is_open| !*is_open).unwrap());
        Ok(())
    }
    fn make(&self, len: u64) -> lpc::Result<Vec<u8>> {
        Ok(vec![7; len as usize])
    }
    fn add(&self, a: u64, b: u64) -> lpc::Result<u64> {
        Ok(a + b)
    }
    fn wakers_kept(&self) -> lpc::Result<u64> {
        Ok(wakers_kept())
    }
    fn sealed(&self) -> lpc::Result<(Vec<u8>, Shared<[u8]>)> {
        sealed()
    }
}

impl asynchronous::Desk for Gate {
    async fn hold(&self) -> lpc::Result<()> {
        loop {
            let opened = self.0.2.notified();
            if *self.0.0.lock().unwrap() {
                return Ok(());
            }
            opened.await;
        }
    }
    async fn make(&self, len: u64) -> lpc::Result<Vec<u8>> {
        Ok(vec![7; len as usize])
    }
    async fn add(&self, a: u64, b: u64) -> lpc::Result<u64> {
        Ok(a + b)
    }
    async fn wakers_kept(&self) -> lpc::Result<u64> {
        Ok(wakers_kept())
    }
    async fn sealed(&self) -> lpc::Result<(Vec<u8>, Shared<[u8]>)> {
        sealed()
    }
}

fn sealed() -> lpc::Result<(Vec<u8>, Shared<[u8]>)> {
    let sealed = SharedMut::<[u8]>::sealable(4096).map_err(lpc::Error::other)?;
    Ok((vec![7; 20_000], sealed.freeze()))
}

struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

fn wakers_kept() -> u64 {
    let context = Context::current();
    let wakers: Vec<_> = (0..100).map(|_| Arc::new(Nobody)).collect();
    for waker in &wakers {
        let waker = Waker::from(Arc::clone(waker));
        let is_cancelled = pin!(context.cancelled()).poll(&mut TaskContext::from_waker(&waker)).is_ready();
        assert!(!is_cancelled, "the caller waits");
    }
    wakers.iter().filter(|waker| Arc::strong_count(waker) > 1).count() as u64
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Blocking,
    Tokio,
}

pub const DRIVERS: [Driver; 2] = [Driver::Blocking, Driver::Tokio];

/// A server that runs one call of a connection at a time.
#[derive(Debug)]
pub struct Server {
    pub port: PathBuf,
    handle: Handle,
    thread: JoinHandle<lpc::Result<()>>,
    _directory: TempDir,
}

#[derive(Debug)]
enum Handle {
    Blocking(lpc::blocking::Handle),
    Tokio(lpc::Handle),
}

impl Server {
    pub fn start(driver: Driver, gate: &Gate) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (port, gate) = (directory.path().join("port"), gate.clone());
        let (handle, thread) = match driver {
            Driver::Blocking => {
                let builder = lpc::blocking::Server::builder().max_concurrent_calls(1);
                let server = builder.bind(&port).unwrap();
                let handle = Handle::Blocking(server.handle());
                (handle, std::thread::spawn(move || server.serve::<blocking::DeskService, _>(gate)))
            }
            Driver::Tokio => {
                let server = lpc::Server::builder().max_concurrent_calls(1).bind(&port).unwrap();
                let handle = Handle::Tokio(server.handle());
                let serve = move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(server.serve::<asynchronous::DeskService, _>(gate))
                };
                (handle, std::thread::spawn(serve))
            }
        };
        Self { port, handle, thread, _directory: directory }
    }

    pub fn client(&self) -> blocking::DeskClient {
        blocking::DeskClient::connect(&self.port).unwrap()
    }

    pub fn stats(&self) -> Stats {
        match &self.handle {
            Handle::Blocking(handle) => handle.stats(),
            Handle::Tokio(handle) => handle.stats(),
        }
    }

    pub fn connections(&self) -> usize {
        match &self.handle {
            Handle::Blocking(handle) => handle.connections(),
            Handle::Tokio(handle) => handle.connections(),
        }
    }

    /// Shuts it down, and waits until it has ended.
    pub fn end(self) {
        match &self.handle {
            Handle::Blocking(handle) => handle.shutdown(),
            Handle::Tokio(handle) => handle.shutdown(),
        }
        self.thread.join().unwrap().unwrap();
    }
}
