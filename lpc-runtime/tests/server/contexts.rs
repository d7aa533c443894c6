//! What an implementation waits for, and is told.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lpc::Context;

use crate::{GUARD, eventually};

use crate::service::blocking::Desk;
use crate::service::{DRIVERS, Gate, Server};

#[test]
fn a_waker_goes_with_the_future_that_waited() {
    for driver in DRIVERS {
        let server = Server::start(driver, &Gate::default());
        let client = server.client();
        assert_eq!(client.wakers_kept().unwrap(), 0, "{driver:?}");
        drop(client);
        server.end();
    }
}

mod long {
    pub mod blocking {
        #[lpc::service]
        pub trait Long {
            /// Ends when its server begins to shut down.
            fn until_shutdown(&self) -> lpc::Result<bool>;
            /// Ends when it is cancelled.
            fn until_cancelled(&self) -> lpc::Result<()>;
        }
    }

    pub mod asynchronous {
        #[lpc::service]
        pub trait Long {
            async fn until_shutdown(&self) -> lpc::Result<bool>;
            async fn until_cancelled(&self) -> lpc::Result<()>;
        }
    }
}

use long::blocking::{Long as _, LongClient, LongService};

/// Counts what its calls are told.
#[derive(Debug)]
struct Long {
    started: Mutex<Sender<()>>,
    cancelled: AtomicUsize,
    revoked: AtomicUsize,
}

impl Long {
    fn new() -> (Arc<Self>, Receiver<()>) {
        let (started, starts) = channel();
        let (cancelled, revoked) = (AtomicUsize::new(0), AtomicUsize::new(0));
        (Arc::new(Self { started: Mutex::new(started), cancelled, revoked }), starts)
    }

    fn start(&self) {
        self.started.lock().unwrap().send(()).unwrap();
    }
}

/// A function that is told once, and what waits for that.
fn told() -> (impl Fn() + Send + 'static, Receiver<()>) {
    let (sender, receiver) = channel();
    (move || sender.send(()).unwrap(), receiver)
}

impl long::blocking::Long for Arc<Long> {
    fn until_shutdown(&self) -> lpc::Result<bool> {
        let context = Context::current();
        assert!(!context.is_shutting_down());
        let (tell, is_told) = told();
        let _guard = context.on_shutdown(tell);
        self.start();
        is_told.recv_timeout(GUARD).map_err(lpc::Error::other)?;
        // Behind it, at once.
        let (tell, is_told) = told();
        let _now = context.on_shutdown(tell);
        is_told.try_recv().map_err(lpc::Error::other)?;
        Ok(context.is_shutting_down())
    }

    fn until_cancelled(&self) -> lpc::Result<()> {
        let context = Context::current();
        let (tell, is_told) = told();
        let counts = Arc::clone(self);
        let _guard = context.on_cancel(move || {
            counts.cancelled.fetch_add(1, SeqCst);
            tell();
        });
        let counts = Arc::clone(self);
        drop(context.on_cancel(move || _ = counts.revoked.fetch_add(1, SeqCst)));
        let _panics = context.on_cancel(|| std::panic::resume_unwind(Box::new("told")));
        self.start();
        is_told.recv_timeout(GUARD).map_err(lpc::Error::other)?;
        // Behind it, at once.
        let (tell, is_told) = told();
        let _now = context.on_cancel(tell);
        is_told.try_recv().map_err(lpc::Error::other)?;
        self.start();
        Ok(())
    }
}

impl long::asynchronous::Long for Arc<Long> {
    async fn until_shutdown(&self) -> lpc::Result<bool> {
        let context = Context::current();
        assert!(!context.is_shutting_down());
        self.start();
        context.shutdown_begun().await;
        Ok(context.is_shutting_down())
    }

    /// In a thread of its own: the call's future is dropped then.
    async fn until_cancelled(&self) -> lpc::Result<()> {
        let (this, context) = (Arc::clone(self), Context::current());
        thread::spawn(move || {
            let (tell, is_told) = told();
            let counts = Arc::clone(&this);
            let _guard = context.on_cancel(move || {
                counts.cancelled.fetch_add(1, SeqCst);
                tell();
            });
            let counts = Arc::clone(&this);
            drop(context.on_cancel(move || _ = counts.revoked.fetch_add(1, SeqCst)));
            this.start();
            is_told.recv_timeout(GUARD).unwrap();
            this.start();
        });
        std::future::pending().await
    }
}

/// A served implementation, by a function that begins the shutdown.
fn serve(
    driver: crate::service::Driver,
    long: Arc<Long>,
    port: &std::path::Path,
) -> (Box<dyn Fn()>, Serving) {
    match driver {
        crate::service::Driver::Blocking => {
            let server = lpc::blocking::Server::builder().shutdown_timeout(10 * GUARD).bind(port).unwrap();
            let handle = server.handle();
            let serving = thread::spawn(move || server.serve::<LongService, _>(long));
            (Box::new(move || handle.shutdown()), serving)
        }
        crate::service::Driver::Tokio => {
            let server = lpc::Server::builder().shutdown_timeout(10 * GUARD).bind(port).unwrap();
            let handle = server.handle();
            let serving = thread::spawn(move || {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                runtime.block_on(server.serve::<long::asynchronous::LongService, _>(long))
            });
            (Box::new(move || handle.shutdown()), serving)
        }
    }
}

type Serving = thread::JoinHandle<lpc::Result<()>>;

#[test]
fn a_call_that_heeds_the_shutdown_ends_it() {
    for driver in DRIVERS {
        let directory = tempfile::tempdir().unwrap();
        let port = directory.path().join("long");
        let (long, starts) = Long::new();
        let (shutdown, serving) = serve(driver, long, &port);
        let client = LongClient::connect(&port).unwrap();
        let call = thread::spawn(move || client.until_shutdown());
        starts.recv_timeout(GUARD).unwrap();
        shutdown();
        assert!(call.join().unwrap().unwrap(), "{driver:?}");
        serving.join().unwrap().unwrap();
    }
}

#[test]
fn a_call_is_told_once_that_it_was_cancelled() {
    for driver in DRIVERS {
        let directory = tempfile::tempdir().unwrap();
        let port = directory.path().join("long");
        let (long, starts) = Long::new();
        let (shutdown, serving) = serve(driver, Arc::clone(&long), &port);
        let client = LongClient::connect(&port).unwrap();
        let (patient, hasty) = (client.clone(), client.with_deadline(Duration::from_secs(2)));
        for (client, closes) in [(hasty, false), (patient, true)] {
            let call = {
                let client = client.clone();
                thread::spawn(move || client.until_cancelled())
            };
            starts.recv_timeout(GUARD).unwrap();
            if closes {
                client.client().close();
            }
            assert!(call.join().unwrap().is_err(), "{driver:?}");
            starts.recv_timeout(GUARD).unwrap();
        }
        shutdown();
        serving.join().unwrap().unwrap();
        assert_eq!((long.cancelled.load(SeqCst), long.revoked.load(SeqCst)), (2, 0), "{driver:?}");
        eventually("the threads end", || Arc::strong_count(&long) == 1);
    }
}

#[test]
fn outside_of_a_call_nothing_is_told() {
    let context = Context::current();
    assert!(!context.is_shutting_down());
    let (tell, is_told) = told();
    drop([context.on_cancel(|| unreachable!()), context.on_shutdown(tell)]);
    assert!(is_told.recv().is_err(), "it was dropped");
}
