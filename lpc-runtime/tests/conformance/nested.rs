//! Calls that an implementation makes to itself while it answers others: however deep and however many, they
//! end.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use lpc::ErrorKind;
use tokio::task::JoinSet;

use crate::in_time;
use crate::pairs::RUNTIME;

/// A service of which each call makes another, as often as is left.
#[lpc::service]
pub trait Chain {
    fn down(&self, left: u32) -> lpc::Result<u32>;

    /// Makes another once there are two of it, and ends once both have the answer.
    fn meet(&self) -> lpc::Result<()>;

    /// Makes another, behind those that fill the server's desk meanwhile.
    fn overtaken(&self) -> lpc::Result<u32>;

    fn fill(&self, bytes: Vec<u8>) -> lpc::Result<()>;

    /// Takes its time.
    fn linger(&self) -> lpc::Result<()>;
}

mod asynchronous {
    #[lpc::service]
    pub trait Chain {
        async fn down(&self, left: u32) -> lpc::Result<u32>;

        /// Makes two at once, as often as is left.
        async fn fork(&self, left: u32) -> lpc::Result<u32>;

        async fn overtaken(&self) -> lpc::Result<u32>;

        async fn fill(&self, bytes: Vec<u8>) -> lpc::Result<()>;
    }
}

/// It has a client of itself.
struct Recursive<C>(Arc<Mutex<Option<C>>>);

impl<C: Clone> Recursive<C> {
    fn own(&self) -> C {
        self.0.lock().unwrap().clone().unwrap()
    }
}

impl Chain for Recursive<ChainClient> {
    fn down(&self, left: u32) -> lpc::Result<u32> {
        if left == 0 { Ok(0) } else { Ok(self.own().down(left - 1)? + 1) }
    }

    fn meet(&self) -> lpc::Result<()> {
        static TWO: Barrier = Barrier::new(2);
        TWO.wait();
        self.own().linger()?;
        TWO.wait();
        Ok(())
    }

    fn overtaken(&self) -> lpc::Result<u32> {
        thread::sleep(FILLED);
        self.own().down(1)
    }

    fn fill(&self, _: Vec<u8>) -> lpc::Result<()> {
        Ok(())
    }

    fn linger(&self) -> lpc::Result<()> {
        thread::sleep(Duration::from_millis(20));
        Ok(())
    }
}

impl asynchronous::Chain for Recursive<asynchronous::ChainClient> {
    async fn down(&self, left: u32) -> lpc::Result<u32> {
        if left == 0 { Ok(0) } else { Ok(self.own().down(left - 1).await? + 1) }
    }

    async fn fork(&self, left: u32) -> lpc::Result<u32> {
        if left == 0 {
            return Ok(1);
        }
        let own = self.own();
        let (one, other) = tokio::join!(own.fork(left - 1), own.fork(left - 1));
        Ok(one? + other?)
    }

    async fn overtaken(&self) -> lpc::Result<u32> {
        tokio::time::sleep(FILLED).await;
        self.own().down(1).await
    }

    async fn fill(&self, _: Vec<u8>) -> lpc::Result<()> {
        Ok(())
    }
}

/// How many calls the server runs at once, and the client has in flight.
const BOUNDS: [(u32, u32); 4] = [(16, 1024), (2, 1024), (16, 2), (1, 1)];

/// How long it takes to fill a desk.
const FILLED: Duration = Duration::from_millis(400);

/// More calls than a desk takes of `LARGE` bytes.
const MANY: usize = 300;

const LARGE: usize = 4000;

/// As deep as calls nest.
const DEEPEST: u32 = lpc_core::frame::MAX_NESTING;

fn is_told(error: &lpc::Error) {
    assert_eq!((error.kind(), error.is_remote()), (ErrorKind::ResourceExhausted, true));
    assert!(error.to_string().contains("nest 32 deep at most (MAX_NESTING)"), "{error}");
}

#[test]
fn a_blocking_service_that_calls_itself_runs() {
    for ((running, in_flight), quick) in
        BOUNDS.into_iter().flat_map(|bounds| [(bounds, false), (bounds, true)])
    {
        in_time(&format!("{running} calls, {in_flight} in flight, {quick}"), move || {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let own = Arc::new(Mutex::new(None));
            let server =
                lpc::blocking::Server::builder().max_concurrent_calls(running as usize).quick_lane(quick);
            let chain = Recursive(Arc::clone(&own));
            let server = thread::spawn(move || server.serve_stream::<ChainService, _>(theirs, chain));
            let client = ChainClient::builder().max_calls_in_flight(in_flight).quick_lane(quick);
            let client = client.connect_stream(ours).unwrap();
            *own.lock().unwrap() = Some(client.clone());
            assert_eq!(client.down(17).unwrap(), 17);
            assert_eq!(client.down(DEEPEST).unwrap(), DEEPEST);
            is_told(&client.down(DEEPEST + 1).unwrap_err());
            if running.min(in_flight) > 1 {
                thread::scope(|scope| {
                    for _ in 0..2 {
                        scope.spawn(|| client.meet().unwrap());
                    }
                });
            }
            // Many that each wait for others.
            thread::scope(|scope| {
                for depth in 0..40 {
                    let client = &client;
                    scope.spawn(move || assert_eq!(client.down(depth % 5).unwrap(), depth % 5));
                }
            });
            drop((client, own.lock().unwrap().take()));
            server.join().unwrap().unwrap();
        });
    }
}

#[test]
fn an_async_service_that_calls_itself_runs() {
    use asynchronous::{Chain as _, ChainClient, ChainService};
    for ((running, in_flight), quick) in
        BOUNDS.into_iter().flat_map(|bounds| [(bounds, false), (bounds, true)])
    {
        let chains = async move {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let own = Arc::new(Mutex::new(None));
            let server = lpc::Server::builder().max_concurrent_calls(running as usize).quick_lane(quick);
            let server =
                tokio::spawn(server.serve_stream::<ChainService, _>(theirs, Recursive(Arc::clone(&own))));
            let client = ChainClient::builder().max_calls_in_flight(in_flight).quick_lane(quick);
            let client = client.connect_stream(ours).await.unwrap();
            *own.lock().unwrap() = Some(client.clone());
            assert_eq!(client.down(17).await.unwrap(), 17);
            assert_eq!(client.down(DEEPEST).await.unwrap(), DEEPEST);
            is_told(&client.down(DEEPEST + 1).await.unwrap_err());
            assert_eq!(client.fork(4).await.unwrap(), 16);
            let mut many = JoinSet::new();
            for depth in 0..40 {
                let client = client.clone();
                many.spawn(async move { assert_eq!(client.down(depth % 5).await.unwrap(), depth % 5) });
            }
            many.join_all().await;
            drop((client, own.lock().unwrap().take()));
            server.await.unwrap().unwrap();
        };
        in_time(&format!("{running} calls, {in_flight} in flight, {quick}"), move || {
            RUNTIME.block_on(chains);
        });
    }
}

#[test]
fn a_blocking_service_reads_the_calls_that_those_wait_for_which_run() {
    in_time("a full desk", || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let own = Arc::new(Mutex::new(None));
        let server = lpc::blocking::Server::builder().max_concurrent_calls(1);
        let chain = Recursive(Arc::clone(&own));
        let server = thread::spawn(move || server.serve_stream::<ChainService, _>(theirs, chain));
        let client = ChainClient::builder().connect_stream(ours).unwrap();
        *own.lock().unwrap() = Some(client.clone());
        thread::scope(|scope| {
            scope.spawn(|| assert_eq!(client.overtaken().unwrap(), 1));
            thread::sleep(FILLED / 8);
            for _ in 0..MANY {
                scope.spawn(|| client.fill(vec![0; LARGE]).unwrap());
            }
        });
        drop((client, own.lock().unwrap().take()));
        server.join().unwrap().unwrap();
    });
}

#[test]
fn an_async_service_reads_the_calls_that_those_wait_for_which_run() {
    use asynchronous::{Chain as _, ChainClient, ChainService};
    let calls = async {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let own = Arc::new(Mutex::new(None));
        let server = lpc::Server::builder().max_concurrent_calls(1);
        let server =
            tokio::spawn(server.serve_stream::<ChainService, _>(theirs, Recursive(Arc::clone(&own))));
        let client = ChainClient::builder().connect_stream(ours).await.unwrap();
        *own.lock().unwrap() = Some(client.clone());
        let mut all = JoinSet::new();
        let outer = client.clone();
        all.spawn(async move { assert_eq!(outer.overtaken().await.unwrap(), 1) });
        tokio::time::sleep(FILLED / 8).await;
        for _ in 0..MANY {
            let client = client.clone();
            all.spawn(async move { client.fill(vec![0; LARGE]).await.unwrap() });
        }
        all.join_all().await;
        drop((client, own.lock().unwrap().take()));
        server.await.unwrap().unwrap();
    };
    in_time("a full desk", || RUNTIME.block_on(calls));
}
