//! Processes that are stopped, and what those at the other end notice of it.

use std::time::Duration;

use lpc::ErrorKind;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::hostile::{Peer, encoded};
use crate::service::DRIVERS;
use crate::vault::{AnyVault, Knobs, Vault};

/// Guards against hangs.
const GUARD: Duration = Duration::from_secs(30);

/// Milliseconds: of the keepalive, and of a call that takes several times as long.
const KEEPALIVE: u64 = 200;
const LONG: u64 = 5 * KEEPALIVE;

fn all_knobs() -> [Knobs; 2] {
    [Knobs::default(), Knobs::QUICK]
}

#[test]
fn a_server_that_is_stopped_is_noticed_and_one_that_is_busy_is_not() {
    for (server, client) in DRIVERS.into_iter().flat_map(|server| DRIVERS.map(|client| (server, client))) {
        for knobs in all_knobs() {
            let vault = Vault::start(server, knobs);
            let knobs = Knobs { keepalive: Some(KEEPALIVE), ..knobs };
            let client = AnyVault::connect_with(client, vault.port(), knobs).unwrap();
            // More than run at once.
            std::thread::scope(|scope| {
                let naps: Vec<_> = (0..20).map(|_| scope.spawn(|| client.nap(LONG))).collect();
                naps.into_iter().for_each(|nap| nap.join().unwrap().unwrap());
            });
            let id = Pid::from_raw(i32::try_from(vault.id()).unwrap());
            kill(id, Signal::SIGSTOP).unwrap();
            // All its threads.
            assert_eq!(
                waitpid(id, Some(WaitPidFlag::WUNTRACED)),
                Ok(WaitStatus::Stopped(id, Signal::SIGSTOP))
            );
            let error = client.length(b"abc").unwrap_err();
            kill(id, Signal::SIGCONT).unwrap();
            assert_eq!(error.kind(), ErrorKind::Disconnected);
            assert!(error.may_have_run() && error.to_string().contains("keepalive"), "{error}");
            let error = client.length(b"abc").unwrap_err();
            assert!(!error.may_have_run(), "{error}");
        }
    }
}

#[test]
fn a_client_that_takes_nothing_during_its_call_is_noticed_and_one_that_waits_is_not() {
    for server in DRIVERS {
        for knobs in all_knobs() {
            let vault = Vault::start(server, Knobs { keepalive: Some(KEEPALIVE), ..knobs });
            for driver in DRIVERS {
                let client = AnyVault::connect_with(driver, vault.port(), knobs).unwrap();
                client.nap(LONG).unwrap();
                // With no call under way nothing is asked for.
                std::thread::sleep(Duration::from_millis(2 * KEEPALIVE));
                assert_eq!(client.length(b"abc").unwrap(), 3);
            }
            let mut peer = Peer::connect(vault.port());
            peer.call("nap", &encoded(&(10 * LONG)), &[]);
            assert!(peer.is_hung_up_on(GUARD), "{server:?} {knobs:?}");
        }
    }
}
