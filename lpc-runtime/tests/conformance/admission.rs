//! Admission: which clients get into a server, how many at once, and how the server ends.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use lpc::config::ServerBuilder;
use lpc::{Credentials, Error, ErrorKind, Progress, Threshold};
use lpc_core::Limits;
use lpc_core::handshake::{ClientHello, Preamble, ServerHello};
use lpc_core::receive::Role;

use crate::pairs::{AnyClient, Driver, RUNTIME};
use crate::probe::blocking::Probe;
use crate::probe::{Implementation, asynchronous, blocking};
use crate::{eventually, in_time};

const DRIVERS: [Driver; 2] = [Driver::Blocking, Driver::Tokio];

/// What these servers are built with.
struct Rules {
    accept: Arc<dyn Fn(&Credentials) -> bool + Send + Sync>,
    max_connections: usize,
    max_connections_per_user: usize,
    max_handshakes: usize,
    shutdown_timeout: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            accept: Arc::new(|_| true),
            max_connections: 100,
            max_connections_per_user: 100,
            max_handshakes: 100,
            // So that a test which depends on it hangs.
            shutdown_timeout: Duration::from_secs(3600),
        }
    }
}

#[derive(Clone)]
enum AnyHandle {
    Blocking(lpc::blocking::Handle),
    Tokio(lpc::Handle),
}

struct Served {
    port: PathBuf,
    handle: AnyHandle,
    thread: JoinHandle<lpc::Result<()>>,
    _directory: tempfile::TempDir,
}

fn serve(driver: Driver, rules: &Rules, probe: &Arc<Implementation>) -> Served {
    fn built<D>(builder: ServerBuilder<D>, rules: &Rules) -> ServerBuilder<D> {
        let accept = Arc::clone(&rules.accept);
        builder
            .accept(move |peer| accept(peer))
            .max_connections(rules.max_connections)
            .max_connections_per_user(rules.max_connections_per_user)
            .max_handshakes(rules.max_handshakes)
            .shutdown_timeout(rules.shutdown_timeout)
            .threshold(Threshold::OFF)
    }
    let directory = tempfile::tempdir().unwrap();
    let port = directory.path().join("probe");
    let probe = Arc::clone(probe);
    let (handle, thread) = match driver {
        Driver::Blocking => {
            let server = built(lpc::blocking::Server::builder(), rules).bind(&port).unwrap();
            let handle = AnyHandle::Blocking(server.handle());
            (handle, std::thread::spawn(move || server.serve_arc::<blocking::ProbeService, _>(probe)))
        }
        Driver::Tokio => {
            let server = built(lpc::Server::builder(), rules).bind(&port).unwrap();
            let handle = AnyHandle::Tokio(server.handle());
            let serving = move || RUNTIME.block_on(server.serve_arc::<asynchronous::ProbeService, _>(probe));
            (handle, std::thread::spawn(serving))
        }
    };
    Served { port, handle, thread, _directory: directory }
}

impl Served {
    fn connect(&self, driver: Driver) -> lpc::Result<AnyClient> {
        match driver {
            Driver::Blocking => blocking::ProbeClient::connect(&self.port).map(AnyClient::Blocking),
            Driver::Tokio => {
                RUNTIME.block_on(asynchronous::ProbeClient::connect(&self.port)).map(AnyClient::Tokio)
            }
        }
    }

    fn refusal(&self, driver: Driver) -> Error {
        let error = self.connect(driver).map(drop).unwrap_err();
        assert_eq!(error.progress(), Progress::NotSent);
        assert!(error.to_string().contains("the server refuses the connection"), "{error}");
        error
    }

    fn connections(&self) -> usize {
        match &self.handle {
            AnyHandle::Blocking(handle) => handle.connections(),
            AnyHandle::Tokio(handle) => handle.connections(),
        }
    }

    fn calls(&self) -> u64 {
        match &self.handle {
            AnyHandle::Blocking(handle) => handle.stats().calls,
            AnyHandle::Tokio(handle) => handle.stats().calls,
        }
    }

    fn shutdown(&self) {
        match &self.handle {
            AnyHandle::Blocking(handle) => handle.shutdown(),
            AnyHandle::Tokio(handle) => handle.shutdown(),
        }
    }

    fn shutdown_now(&self) {
        match &self.handle {
            AnyHandle::Blocking(handle) => handle.shutdown_now(),
            AnyHandle::Tokio(handle) => handle.shutdown_now(),
        }
    }

    /// Waits for the server to end.
    fn join(self) {
        in_time("the server ends", move || self.thread.join().unwrap()).unwrap();
    }

    fn end(self) {
        self.shutdown();
        self.join();
    }
}

/// A client whose call is under way, and the way to hang up on it.
fn waiting(server: &Served, driver: Driver, key: u64) -> (JoinHandle<lpc::Result<()>>, UnixStream) {
    let stream = UnixStream::connect(&server.port).unwrap();
    let cut = stream.try_clone().unwrap();
    let before = server.calls();
    let client = match driver {
        Driver::Blocking => {
            AnyClient::Blocking(blocking::ProbeClient::builder().connect_stream(stream).unwrap())
        }
        Driver::Tokio => AnyClient::Tokio(
            RUNTIME.block_on(asynchronous::ProbeClient::builder().connect_stream(stream)).unwrap(),
        ),
    };
    let call = std::thread::spawn(move || client.wait(key));
    eventually("the call runs", || server.calls() > before);
    (call, cut)
}

#[test]
fn a_client_that_is_not_accepted_is_told_so_and_a_rule_that_panics_accepts_nobody() {
    for driver in DRIVERS {
        let mood = Arc::new(AtomicUsize::new(0));
        let asked = Arc::clone(&mood);
        let accept = move |peer: &Credentials| {
            assert_eq!(peer.pid(), i32::try_from(std::process::id()).unwrap());
            match asked.load(SeqCst) {
                0 => false,
                1 => std::panic::resume_unwind(Box::new("undecided")),
                _ => true,
            }
        };
        let rules = Rules { accept: Arc::new(accept), ..Rules::default() };
        let server = serve(driver, &rules, &Implementation::new());
        for client in DRIVERS {
            for bad_mood in [0, 1] {
                mood.store(bad_mood, SeqCst);
                let error = server.refusal(client);
                assert!(error.is_permission_denied(), "{error:?}");
                let user = nix::unistd::Uid::effective();
                let reason = format!("the client's user {user} is not accepted (accept)");
                assert!(error.to_string().contains(&reason), "{error}");
            }
            mood.store(2, SeqCst);
            assert_eq!(server.connect(client).unwrap().echo(b"let in").unwrap(), b"let in");
        }
        server.end();
    }
}

#[test]
fn a_client_does_not_talk_to_a_server_that_it_does_not_accept() {
    for driver in DRIVERS {
        let server = serve(driver, &Rules::default(), &Implementation::new());
        let blocking = blocking::ProbeClient::builder().accept(|_| false).connect(&server.port).map(drop);
        let connecting = asynchronous::ProbeClient::builder().accept(|_| false).connect(&server.port);
        for result in [blocking, RUNTIME.block_on(connecting).map(drop)] {
            let error = result.unwrap_err();
            assert!(error.is_permission_denied(), "{error:?}");
            assert!(error.to_string().contains("the server's user"), "{error}");
        }
        server.end();
    }
}

#[test]
fn for_a_pair_nobody_is_asked_who_may_be_there() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = lpc::blocking::Server::builder().accept(|_| false);
    let serving = std::thread::spawn(move || {
        server.serve_stream::<blocking::ProbeService, _>(theirs, Implementation::default())
    });
    let client = blocking::ProbeClient::builder().accept(|_| false).connect_stream(ours).unwrap();
    assert_eq!(client.echo(b"known").unwrap(), b"known");
    drop(client);
    in_time("the server ends", || serving.join().unwrap()).unwrap();
}

/// A server refuses without listening: when the client comes to write, nobody reads any more.
#[test]
fn a_refusal_is_heard_by_a_client_that_cannot_say_anything() {
    let refusing = || {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let reason = Error::new(ErrorKind::ResourceExhausted, "all seats are taken");
        theirs.write_all(&ServerHello::refusal(&reason).encode()).unwrap();
        ours
    };
    let blocking = blocking::ProbeClient::builder().connect_stream(refusing()).map(drop);
    let asynchronous = asynchronous::ProbeClient::builder().connect_stream(refusing());
    for result in [blocking, RUNTIME.block_on(asynchronous).map(drop)] {
        let error = result.unwrap_err();
        assert!(error.is_exhausted() && error.to_string().contains("all seats are taken"), "{error:?}");
    }
}

#[test]
fn connections_over_the_limit_are_refused_with_the_knobs_name_until_others_leave() {
    for driver in DRIVERS {
        for (knob, rules) in [
            ("(max_connections)", Rules { max_connections: 2, ..Rules::default() }),
            ("(max_connections_per_user)", Rules { max_connections_per_user: 2, ..Rules::default() }),
        ] {
            let server = serve(driver, &rules, &Implementation::new());
            let mut inside = vec![server.connect(driver).unwrap(), server.connect(driver).unwrap()];
            for client in DRIVERS {
                assert_eq!(server.connections(), 2);
                let error = server.refusal(client);
                assert!(error.is_exhausted() && error.to_string().contains(knob), "{error:?}");
                drop(inside.pop());
                eventually("a place is free", || server.connections() == 1);
                inside.push(server.connect(client).unwrap());
            }
            for client in &inside {
                assert_eq!(client.echo(b"undisturbed").unwrap(), b"undisturbed");
            }
            server.end();
        }
    }
}

/// Of a blocking server: an `async fn` is dropped with its caller.
#[test]
fn a_connection_counts_until_its_last_call_is_over() {
    let driver = Driver::Blocking;
    let probe = Implementation::new();
    let server = serve(driver, &Rules { max_connections: 1, ..Rules::default() }, &probe);
    let (call, cut) = waiting(&server, driver, 1);
    cut.shutdown(std::net::Shutdown::Both).unwrap();
    assert!(call.join().unwrap().unwrap_err().is_disconnected());
    assert!(server.refusal(driver).is_exhausted());
    probe.open_now(1);
    eventually("a place is free", || server.connections() == 0);
    assert_eq!(server.connect(driver).unwrap().echo(b"next").unwrap(), b"next");
    server.end();
}

#[test]
fn silent_clients_give_their_places_to_those_that_wait() {
    for driver in DRIVERS {
        let server = serve(driver, &Rules { max_handshakes: 3, ..Rules::default() }, &Implementation::new());
        let silent: Vec<_> = (0..3).map(|_| UnixStream::connect(&server.port).unwrap()).collect();
        eventually("all places are taken", || server.connections() == 3);
        for client in DRIVERS {
            assert_eq!(server.connect(client).unwrap().echo(b"in").unwrap(), b"in");
        }
        let mut told = 0;
        for mut stream in silent {
            stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            let mut hello = Vec::new();
            let _ = stream.read_to_end(&mut hello);
            told += usize::from(String::from_utf8_lossy(&hello).contains("max_handshakes"));
        }
        assert!(told > 0, "somebody had to go");
        server.end();
    }
}

/// It would read the refusal as a frame.
#[test]
fn a_client_that_has_read_the_servers_hello_makes_room_without_a_refusal() {
    for driver in DRIVERS {
        let server = serve(driver, &Rules { max_handshakes: 1, ..Rules::default() }, &Implementation::new());
        let mut slow = UnixStream::connect(&server.port).unwrap();
        let hello = ClientHello::new("Probe", &Limits::default()).encode();
        slow.write_all(&hello[..Preamble::LEN]).unwrap();
        let mut preamble = [0; Preamble::LEN];
        slow.read_exact(&mut preamble).unwrap();
        let len = Preamble::decode(&preamble, Role::Server).unwrap().len;
        assert_eq!(server.connect(driver).unwrap().echo(b"in").unwrap(), b"in");
        let mut rest = Vec::new();
        slow.read_to_end(&mut rest).unwrap();
        assert_eq!(rest.len(), len);
        server.end();
    }
}

#[test]
fn any_number_of_clients_gets_in_past_few_places_for_handshakes() {
    for driver in DRIVERS {
        let server = serve(driver, &Rules { max_handshakes: 1, ..Rules::default() }, &Implementation::new());
        std::thread::scope(|scope| {
            for at in 0..40 {
                let server = &server;
                scope.spawn(move || {
                    let client = server.connect(DRIVERS[at % 2]).unwrap();
                    assert_eq!(client.echo(&[at as u8]).unwrap(), [at as u8]);
                });
            }
        });
        server.end();
    }
}

#[test]
fn a_shutdown_waits_no_longer_than_it_may() {
    for driver in DRIVERS {
        let probe = Implementation::new();
        let rules = Rules { shutdown_timeout: Duration::from_millis(50), ..Rules::default() };
        let server = serve(driver, &rules, &probe);
        let (call, _cut) = waiting(&server, driver, 1);
        server.shutdown();
        server.join();
        let error = in_time("the call ends", || call.join().unwrap()).unwrap_err();
        assert!(error.is_disconnected() && error.may_have_run(), "{error:?}");
        probe.open_now(1);
    }
}

#[test]
fn a_server_that_is_stopped_at_once_waits_for_nobody() {
    for driver in DRIVERS {
        let probe = Implementation::new();
        let server = serve(driver, &Rules::default(), &probe);
        let (call, _cut) = waiting(&server, driver, 1);
        server.shutdown();
        server.shutdown_now();
        server.join();
        let error = in_time("the call ends", || call.join().unwrap()).unwrap_err();
        assert!(error.is_disconnected() && error.may_have_run(), "{error:?}");
        probe.open_now(1);
    }
}

#[test]
fn a_client_that_never_reads_its_replies_does_not_keep_a_server_from_ending() {
    for driver in DRIVERS {
        let rules = Rules { shutdown_timeout: Duration::from_millis(50), ..Rules::default() };
        let server = serve(driver, &rules, &Implementation::new());
        // Its runtime turns only as long as it takes to send.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(asynchronous::ProbeClient::connect(&server.port)).unwrap();
        let _calls: Vec<_> = (0..64)
            .map(|_| {
                let client = client.clone();
                let mut call = Box::pin(async move { asynchronous::Probe::make(&client, 1 << 20).await });
                runtime.block_on(std::future::poll_fn(|cx| {
                    let _ = pin!(&mut call).poll(cx);
                    std::task::Poll::Ready(())
                }));
                call
            })
            .collect();
        eventually("calls have arrived", || server.calls() > 0);
        server.shutdown();
        server.join();
    }
}
