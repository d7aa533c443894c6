//! Clients that their own process closes, from another thread than those that call.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::channel;
use std::time::Duration;

use lpc::{ConnectionEvent, Progress, Reconnect};

use crate::pairs::{self, AnyClient, Driver, RUNTIME, Running, Setup, Way};
use crate::probe::blocking::Probe;
use crate::probe::{Implementation, asynchronous, blocking};
use crate::{GUARD, eventually, in_time};

#[test]
fn a_client_that_is_closed_ends_its_calls_and_makes_no_others() {
    for setup in pairs::all() {
        let setup = Setup { max_calls_in_flight: 2, ..setup };
        let probe = Implementation::new();
        let (client, _server) = setup.connect(&probe);
        let calls: Vec<_> = (0..4)
            .map(|key| {
                let client = client.clone();
                std::thread::spawn(move || client.heed(key))
            })
            .collect();
        // The others wait for a permit, or are about to.
        eventually("two calls run", || probe.heeding.load(SeqCst) == 2);
        client.clone().close();
        assert!(!client.is_connected());
        let mut far = Vec::new();
        for call in calls {
            let error = in_time("a call ends", || call.join().unwrap()).unwrap_err();
            assert!(error.is_disconnected() && error.to_string().contains("close"), "{setup:?}: {error}");
            far.push(error.progress());
        }
        let count = |progress| far.iter().filter(|found| **found == progress).count();
        assert_eq!((count(Progress::MayHaveRun), count(Progress::NotSent)), (2, 2), "{setup:?}");
        let error = client.echo(b"?").unwrap_err();
        assert!(error.is_disconnected() && !error.may_have_run(), "{setup:?}: {error}");
        client.close();
        eventually("both are cancelled", || probe.cancelled.load(SeqCst) == 2);
    }
}

fn connect(setup: &Setup, port: &std::path::Path, reconnect: Reconnect) -> AnyClient {
    match setup.client {
        Driver::Blocking => {
            let builder = blocking::ProbeClient::builder().reconnect(reconnect);
            AnyClient::Blocking(builder.connect(port).unwrap())
        }
        Driver::Tokio => {
            let builder = asynchronous::ProbeClient::builder().reconnect(reconnect);
            AnyClient::Tokio(RUNTIME.block_on(builder.connect(port)).unwrap())
        }
    }
}

#[test]
fn a_client_that_is_closed_does_not_reconnect() {
    for setup in pairs::all().into_iter().filter(|setup| setup.way == Way::Port) {
        let server = Running::new(&setup, &Implementation::new());
        let client = connect(&setup, &server.port, Reconnect::default());
        client.close();
        let error = client.echo(b"?").unwrap_err();
        assert!(error.is_disconnected() && !error.may_have_run(), "{setup:?}: {error}");
        assert!(!client.is_connected());
    }
}

/// A call that is made again where that is allowed is not, and says that it may have run.
#[test]
fn an_idempotent_call_that_was_cut_off_may_have_run() {
    for setup in pairs::all().into_iter().filter(|setup| setup.way == Way::Port) {
        let probe = Implementation::new();
        let server = Running::new(&setup, &probe);
        let client = connect(&setup, &server.port, Reconnect::default());
        let call = std::thread::spawn({
            let client = client.clone();
            move || client.wait_idempotent(0)
        });
        eventually("the call", || probe.waits.load(SeqCst) == 1);
        client.close();
        let error = in_time("the call ends", || call.join().unwrap()).unwrap_err();
        assert!(error.is_disconnected() && error.may_have_run(), "{setup:?}: {error}");
        probe.open_now(0);
    }
}

#[test]
fn a_client_that_is_closed_stops_to_look_for_another_server() {
    /// So that a test which depends on it hangs.
    const NEVER: Duration = Duration::from_secs(3600);
    for setup in pairs::all().into_iter().filter(|setup| setup.way == Way::Port) {
        let (sender, failed) = channel();
        let reconnect =
            Reconnect::default().pauses(NEVER, NEVER).give_up_after(NEVER).on_event(move |event| {
                if let ConnectionEvent::Failed(..) = event {
                    sender.send(()).unwrap();
                }
            });
        let server = Running::new(&setup, &Implementation::new());
        let client = connect(&setup, &server.port, reconnect);
        drop(server);
        let calls: Vec<_> = (0..2)
            .map(|_| {
                let client = client.clone();
                std::thread::spawn(move || client.echo(b"?"))
            })
            .collect();
        failed.recv_timeout(GUARD).unwrap();
        client.close();
        for call in calls {
            let error = in_time("a call ends", || call.join().unwrap()).unwrap_err();
            assert!(error.is_disconnected() && !error.may_have_run(), "{setup:?}: {error}");
        }
    }
}
