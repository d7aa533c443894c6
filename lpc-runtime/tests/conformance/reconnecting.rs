//! Clients that outlive their server.

use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lpc::{ConnectionEvent, ErrorKind, Progress, Reconnect};

use crate::pairs::{self, AnyClient, Driver, RUNTIME, Running, Setup, Way};
use crate::probe::blocking::Probe;
use crate::probe::{Implementation, asynchronous, blocking};
use crate::{GUARD, eventually, in_time};

/// So that a test which depends on it hangs.
const NEVER: Duration = Duration::from_secs(3600);

fn at_ports() -> impl Iterator<Item = Setup> {
    pairs::all().into_iter().filter(|setup| setup.way == Way::Port)
}

fn connect(driver: Driver, port: &Path, reconnect: Reconnect) -> lpc::Result<AnyClient> {
    match driver {
        Driver::Blocking => {
            blocking::ProbeClient::builder().reconnect(reconnect).connect(port).map(AnyClient::Blocking)
        }
        Driver::Tokio => {
            let connecting = asynchronous::ProbeClient::builder().reconnect(reconnect).connect(port);
            RUNTIME.block_on(connecting).map(AnyClient::Tokio)
        }
    }
}

/// Short pauses, and what happened.
fn policy() -> (Reconnect, Arc<Mutex<Vec<String>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let reconnect = Reconnect::default()
        .pauses(Duration::from_millis(1), Duration::from_millis(20))
        .give_up_after(GUARD)
        .on_event({
            let events = Arc::clone(&events);
            move |event| {
                let name = match event {
                    ConnectionEvent::Lost(_) => "lost",
                    ConnectionEvent::Failed(..) => "failed",
                    ConnectionEvent::Connected => "connected",
                    ConnectionEvent::GaveUp(_) => "gave up",
                    _ => "news",
                };
                events.lock().unwrap().push(name.to_owned());
            }
        });
    (reconnect, events)
}

#[test]
fn a_client_goes_on_with_the_next_server_and_says_so() {
    for setup in at_ports() {
        let directory = tempfile::tempdir().unwrap();
        let port = directory.path().join("probe");
        let (reconnect, events) = policy();
        let first = Running::at(&setup, &Implementation::new(), &port);
        let client = connect(setup.client, &port, reconnect).unwrap();
        assert_eq!(client.echo(b"first").unwrap(), b"first");
        let calls = client.stats().calls;
        drop(first);
        let again = std::thread::spawn({
            let client = client.clone();
            move || client.echo(b"second")
        });
        eventually("a try", || events.lock().unwrap().iter().any(|event| event == "failed"));
        let second = Running::at(&setup, &Implementation::new(), &port);
        assert_eq!(again.join().unwrap().unwrap(), b"second");
        assert!(client.is_connected());
        assert!(client.stats().calls > calls, "counted on");
        let seen = events.lock().unwrap().clone();
        assert_eq!((seen.first().unwrap().as_str(), seen.last().unwrap().as_str()), ("lost", "connected"));
        assert_eq!(seen.iter().filter(|event| *event == "connected").count(), 1);
        drop(second);
    }
}

#[test]
fn a_call_of_which_nothing_is_known_is_made_again_only_if_it_is_idempotent() {
    for setup in at_ports() {
        let directory = tempfile::tempdir().unwrap();
        let port = directory.path().join("probe");
        let (reconnect, _) = policy();
        let probe = Implementation::new();
        let first = Running::at(&setup, &probe, &port);
        let client = connect(setup.client, &port, reconnect).unwrap();
        let plain = std::thread::spawn({
            let client = client.clone();
            move || client.wait(1)
        });
        let idempotent = std::thread::spawn({
            let client = client.clone();
            move || client.wait_idempotent(1)
        });
        eventually("both calls", || probe.waits.load(SeqCst) == 1 && client.stats().calls == 2);
        eventually("both received", || (first.stats)().calls == 2);
        first.cut();
        drop(first);
        let _second = Running::at(&setup, &probe, &port);
        let error = plain.join().unwrap().unwrap_err();
        assert!(error.is_disconnected() && error.progress() == Progress::MayHaveRun, "{error:?}");
        eventually("the second time", || probe.waits.load(SeqCst) == 2);
        probe.open_now(1);
        idempotent.join().unwrap().unwrap();
    }
}

#[test]
fn nobody_there_ends_a_call_in_bounded_time_and_the_next_tries_again() {
    for setup in at_ports() {
        let directory = tempfile::tempdir().unwrap();
        let port = directory.path().join("probe");
        let (reconnect, events) = policy();
        let first = Running::at(&setup, &Implementation::new(), &port);
        let client =
            connect(setup.client, &port, reconnect.give_up_after(Duration::from_millis(300))).unwrap();
        drop(first);
        for _ in 0..2 {
            let error = client.echo(b"?").unwrap_err();
            assert!(error.is_disconnected() && !error.may_have_run(), "{error:?}");
            assert!(error.to_string().contains("nobody serves it"), "{error}");
        }
        assert!(!client.is_connected());
        assert_eq!(events.lock().unwrap().iter().filter(|event| *event == "gave up").count(), 2);
        let error = client.with_deadline(Duration::from_millis(5)).echo(b"?").unwrap_err();
        assert!(!error.may_have_run() && (error.is_timed_out() || error.is_disconnected()), "{error:?}");
        let _second = Running::at(&setup, &Implementation::new(), &port);
        assert_eq!(client.echo(b"back").unwrap(), b"back");
    }
}

/// Also of a call that waits for another's attempts.
#[test]
fn a_call_whose_deadline_passes_before_there_is_a_connection_says_why_there_is_none() {
    for setup in at_ports() {
        let directory = tempfile::tempdir().unwrap();
        let port = directory.path().join("probe");
        let (reconnect, events) = policy();
        let first = Running::at(&setup, &Implementation::new(), &port);
        let client = connect(setup.client, &port, reconnect).unwrap();
        drop(first);
        let patient = std::thread::spawn({
            let client = client.clone();
            move || client.echo(b"at last")
        });
        eventually("a try", || events.lock().unwrap().iter().any(|event| event == "failed"));
        let error = client.with_deadline(Duration::from_millis(5)).echo(b"?").unwrap_err();
        assert!(error.is_timed_out() && !error.may_have_run(), "{error:?}");
        assert!(error.to_string().contains("nobody serves it"), "{error}");
        let cause = std::error::Error::source(&error).expect("an error has its cause");
        assert!(cause.downcast_ref::<lpc::Error>().is_some_and(lpc::Error::is_not_found), "{cause}");
        let _second = Running::at(&setup, &Implementation::new(), &port);
        assert_eq!(patient.join().unwrap().unwrap(), b"at last");
    }
}

/// A client that has lost its server, and whoever serves its port now and has not answered yet. What
/// happened.
fn kept_waiting(directory: &Path) -> (AnyClient, UnixListener, UnixStream, Arc<Mutex<Vec<String>>>) {
    let port = directory.join("probe");
    let (reconnect, events) = policy();
    let reconnect = reconnect.give_up_after(NEVER);
    let setup = at_ports().next().unwrap();
    let first = Running::at(&setup, &Implementation::new(), &port);
    let builder = asynchronous::ProbeClient::builder().reconnect(reconnect).handshake_timeout(NEVER);
    let client = AnyClient::Tokio(RUNTIME.block_on(builder.connect(&port)).unwrap());
    drop(first);
    let second = UnixListener::bind(&port).unwrap();
    let call = || client.with_deadline(Duration::from_millis(20)).echo(b"?");
    let error = call().unwrap_err();
    assert!(error.is_timed_out() && !error.may_have_run(), "{error:?}");
    let stream = second.accept().unwrap().0;
    assert!(call().unwrap_err().is_timed_out());
    (client, second, stream, events)
}

/// Of a task: a thread connects itself.
#[test]
fn a_connect_that_takes_longer_than_a_calls_deadline_is_there_for_the_next_call() {
    let directory = tempfile::tempdir().unwrap();
    let (client, second, stream, events) = kept_waiting(directory.path());
    let server = lpc::blocking::Server::builder();
    let serving = std::thread::spawn(move || {
        server.serve_stream::<blocking::ProbeService, _>(stream, Implementation::default())
    });
    assert_eq!(client.echo(b"there").unwrap(), b"there");
    second.set_nonblocking(true).unwrap();
    assert_eq!(second.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "one for all calls");
    assert_eq!(*events.lock().unwrap(), ["lost", "connected"]);
    drop(client);
    in_time("the server ends", || serving.join().unwrap()).unwrap();
}

#[test]
fn nobody_connects_for_a_client_that_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let (client, _second, mut stream, _) = kept_waiting(directory.path());
    drop(client);
    in_time("it hangs up", move || stream.read_to_end(&mut Vec::new())).unwrap();
}

#[test]
fn an_observer_that_panics_costs_no_more_than_the_calls_that_wait() {
    let directory = tempfile::tempdir().unwrap();
    let port = directory.path().join("probe");
    let setup = at_ports().next().unwrap();
    let first = Running::at(&setup, &Implementation::new(), &port);
    let reconnect = Reconnect::default().on_event(|event| {
        if let ConnectionEvent::Lost(_) = event {
            std::panic::resume_unwind(Box::new("the observer is shocked"));
        }
    });
    let client = connect(Driver::Tokio, &port, reconnect).unwrap();
    drop(first);
    let _second = Running::at(&setup, &Implementation::new(), &port);
    let error = client.echo(b"?").unwrap_err();
    assert!(error.is_disconnected() && !error.may_have_run(), "{error:?}");
    assert!(error.to_string().contains("on_event panicked"), "{error}");
    assert_eq!(client.echo(b"back").unwrap(), b"back");
}

/// A server that is replaced while many call it: each call runs exactly once.
#[test]
fn a_restart_under_load_costs_no_call_and_runs_none_twice() {
    for setup in at_ports() {
        let directory = tempfile::tempdir().unwrap();
        let port = directory.path().join("probe");
        let (reconnect, _) = policy();
        let probe = Implementation::new();
        let mut server = Running::at(&setup, &probe, &port);
        let client = connect(setup.client, &port, reconnect).unwrap();
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let client = client.clone();
                std::thread::spawn(move || (0..100).map(|_| client.nap(1).map(drop)).collect::<Vec<_>>())
            })
            .collect();
        for round in 1..=3 {
            eventually("calls", || probe.naps.load(SeqCst) > round * 60);
            drop(server);
            server = Running::at(&setup, &probe, &port);
        }
        for result in callers.into_iter().flat_map(|caller| caller.join().unwrap()) {
            assert!(result.is_ok(), "{:?}", result.unwrap_err());
        }
        assert_eq!(probe.naps.load(SeqCst), 400);
    }
}

#[test]
fn only_clients_of_ports_reconnect() {
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let builder = blocking::ProbeClient::builder().reconnect(Reconnect::default());
    let error = builder.connect_stream(ours).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("needs a port"), "{error}");
}
