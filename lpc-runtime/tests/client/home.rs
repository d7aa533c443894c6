//! Blocking calls on the thread that would have to answer them.

use std::time::Duration;

use lpc::ErrorKind;
use tokio::runtime::{Builder, Runtime};

mod asynchronous {
    #[lpc::service]
    pub trait Home {
        async fn add(&self, a: u64, b: u64) -> lpc::Result<u64>;
    }
}

use asynchronous::{HomeBlockingClient, HomeClient, HomeService};

struct Adds;

impl asynchronous::Home for Adds {
    async fn add(&self, a: u64, b: u64) -> lpc::Result<u64> {
        Ok(a + b)
    }
}

/// So that a test which depends on it hangs.
const NEVER: Duration = Duration::from_secs(3600);

fn connect(port: &std::path::Path) -> lpc::Result<HomeBlockingClient> {
    HomeBlockingClient::builder().handshake_timeout(NEVER).connect(port)
}

fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_blocking_call_to_a_server_of_this_threads_runtime_fails_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let port = directory.path().join("home");
    one_thread().block_on(async {
        let serving = tokio::spawn(lpc::Server::bind(&port).unwrap().serve::<HomeService, _>(Adds));
        let waits_for_itself = |error: lpc::Error| {
            assert_eq!((error.kind(), error.may_have_run()), (ErrorKind::InvalidInput, false));
            assert!(error.to_string().contains("spawn_blocking"), "{error}");
        };
        waits_for_itself(connect(&port).unwrap_err());
        // The ways out.
        let client = HomeClient::connect(&port).await.unwrap();
        assert_eq!(asynchronous::Home::add(&client, 1, 2).await.unwrap(), 3);
        let to = port.clone();
        let client = tokio::task::spawn_blocking(move || connect(&to).unwrap()).await.unwrap();
        waits_for_itself(client.add(1, 2).unwrap_err());
        let added = tokio::task::spawn_blocking(move || client.add(1, 2)).await.unwrap();
        assert_eq!(added.unwrap(), 3);
        serving.abort();
        assert!(serving.await.is_err());
        assert_eq!(connect(&port).unwrap_err().kind(), ErrorKind::NotFound, "it is forgotten");
    });
}

#[test]
fn a_blocking_call_to_a_server_of_another_runtime_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let port = directory.path().join("home");
    let calls = || {
        let client = connect(&port).unwrap();
        assert_eq!(client.add(1, 2).unwrap(), 3);
    };
    let server = lpc::Server::bind(&port).unwrap();
    let handle = server.handle();
    let home = one_thread();
    let entered = home.handle().clone();
    let serving = std::thread::spawn(move || home.block_on(server.serve::<HomeService, _>(Adds)));
    calls();
    one_thread().block_on(async { calls() });
    Runtime::new().unwrap().block_on(async { calls() });
    let inside = entered.enter();
    calls();
    drop(inside);
    handle.shutdown();
    serving.join().unwrap().unwrap();
    // Bound in one and served in another, which has threads enough.
    let many = Runtime::new().unwrap();
    one_thread().block_on(async {
        let server = lpc::Server::bind(&port).unwrap();
        let handle = server.handle();
        let serving = many.spawn(async { server.serve::<HomeService, _>(Adds).await });
        calls();
        handle.shutdown();
        serving.await.unwrap().unwrap();
    });
    drop(many);
}
