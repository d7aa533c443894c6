//! A process that forks with connections, loans, and ports in its hands.
#![allow(unsafe_code, reason = "fork(2)")]

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use crate::process::{PORT, Process, other, say, text, until, variable, within};
use crate::service::{AnyClient, DRIVERS, Driver, Implementation, RUNTIME, asynchronous, blocking};
use crate::vault::{AnyVault, Knobs, Vault};

/// Role: forks while it calls, and says how the fork ended and how it fares itself.
pub fn forked(driver: Driver) -> lpc::Result<()> {
    let port = variable(PORT);
    let client = AnyVault::connect(driver, &port)?;
    let lent = client.lend(100_000, 5)?;
    let loan = client.loan(100_000, 6)?;
    let bound = lpc::blocking::Server::bind(format!("{port}.bound"))?;
    let serving = lpc::blocking::Server::bind(format!("{port}.serving"))?;
    let handle = serving.handle();
    let thread = std::thread::spawn(move || serving.serve::<blocking::ProbeService, _>(Implementation));
    let other = AnyClient::connect(driver, &format!("{port}.serving"))?;
    other.length(b"served")?;

    // SAFETY: what the fork runs takes no lock that another thread has here: the other threads wait in system
    // calls, and the C library sees to those of the allocator.
    match unsafe { fork() }.map_err(std::io::Error::from)? {
        ForkResult::Child => {
            let result = catch_unwind(AssertUnwindSafe(|| {
                let error = client.length(b"inherited").unwrap_err();
                assert!(error.is_disconnected() && !error.may_have_run(), "{error:?}");
                assert!(error.to_string().contains("of which this one is a fork"), "{error}");
                let error = other.length(b"inherited").unwrap_err();
                assert!(error.is_disconnected(), "{error:?}");
                assert!(lent.iter().all(|byte| *byte == 5), "it can be read still");
                drop((client, other, lent, loan, bound));
                handle.shutdown_now();
                // One of its own, with memory that has to go back.
                let own = blocking::ProbeClient::connect(format!("{port}.serving")).unwrap();
                for _ in 0..3 {
                    assert_eq!(blocking::Probe::make(&own, 100_000).unwrap(), vec![7; 100_000]);
                }
                drop(own);
            }));
            std::process::exit(i32::from(result.is_err()));
        }
        ForkResult::Parent { child } => {
            let calling = std::thread::spawn({
                let (client, other) = (client.clone(), other.clone());
                move || -> lpc::Result<()> {
                    for _ in 0..200 {
                        client.length(&[1; 20_000])?;
                        other.length(&[1; 20_000])?;
                    }
                    Ok(())
                }
            });
            let status = within("the fork", move || waitpid(child, None)).map_err(std::io::Error::from)?;
            say(format_args!("fork {}", status == WaitStatus::Exited(child, 0)));
            calling.join().unwrap()?;
        }
    }
    assert_eq!(client.sum(loan)?, 600_000);
    assert!(lent.iter().all(|byte| *byte == 5));
    say(format_args!("{} bytes", other.length(b"still served")?));
    // The port is held, and its socket there.
    UnixStream::connect(format!("{port}.bound"))?;
    let error = lpc::blocking::Server::bind(format!("{port}.bound")).map(drop).unwrap_err();
    say(format_args!("{:?}", error.kind()));
    drop(bound);
    say(format_args!("{}", Path::new(&format!("{port}.bound")).exists()));
    drop(other);
    handle.shutdown();
    thread.join().unwrap()
}

/// Role: forks over and over beside threads that use the same connections, one of a client that reconnects.
/// The forks call, and drop what they have.
pub fn forked_busily(driver: Driver) -> lpc::Result<()> {
    let port = variable(PORT);
    let client = AnyVault::connect(driver, &port)?;
    let again = AnyVault::connect_again(driver, &port)?;
    let has_ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !has_ended.load(Relaxed) {
                    client.sum(client.loan(20_000, 1).unwrap()).unwrap();
                    again.length(&[1; 20_000]).unwrap();
                }
            });
        }
        for _ in 0..60 {
            let (loan, lent) = (client.loan(20_000, 6)?, client.lend(20_000, 5)?);
            let clones = (client.clone(), again.clone());
            // SAFETY: what the fork runs takes no lock that another thread has here, which is what is tested;
            // the C library sees to those of the allocator.
            match unsafe { fork() }.map_err(std::io::Error::from)? {
                ForkResult::Child => {
                    let result = catch_unwind(AssertUnwindSafe(|| {
                        for client in [&client, &again] {
                            let error = client.length_at_once(b"inherited").unwrap_err();
                            assert!(error.is_disconnected() && !error.may_have_run(), "{error:?}");
                            client.loan(20_000, 1).map(drop).unwrap_err();
                        }
                        drop((loan, lent, clones));
                    }));
                    // SAFETY: it ends the process, without what is registered to be done at its end.
                    unsafe { nix::libc::_exit(i32::from(result.is_err())) };
                }
                ForkResult::Parent { child } => {
                    let status =
                        within("the fork", move || waitpid(child, None)).map_err(std::io::Error::from)?;
                    assert_eq!(status, WaitStatus::Exited(child, 0));
                }
            }
        }
        has_ended.store(true, Relaxed);
        Ok::<(), lpc::Error>(())
    })?;
    say("60 forks");
    Ok(())
}

enum Server {
    Blocking(lpc::blocking::Server),
    Tokio(lpc::Server),
}

impl Server {
    /// Serves until a thread shuts the server down, once `stop` has returned there.
    fn serve(self, stop: impl FnOnce() + Send + 'static) -> lpc::Result<()> {
        match self {
            Self::Blocking(server) => {
                let handle = server.handle();
                std::thread::spawn(move || {
                    stop();
                    handle.shutdown();
                });
                server.serve::<blocking::ProbeService, _>(Implementation)
            }
            Self::Tokio(server) => {
                let handle = server.handle();
                std::thread::spawn(move || {
                    stop();
                    handle.shutdown();
                });
                RUNTIME.block_on(server.serve::<asynchronous::ProbeService, _>(Implementation))
            }
        }
    }
}

/// Role: a daemon. Binds, forks, does with the server what the environment says, and has the fork serve until
/// that is told to stop.
pub fn daemon(driver: Driver) -> lpc::Result<()> {
    let port = variable(PORT);
    let server = match driver {
        Driver::Blocking => Server::Blocking(lpc::blocking::Server::bind(&port)?),
        Driver::Tokio => Server::Tokio(lpc::Server::bind(&port)?),
    };
    let (go, mut went) = UnixStream::pair()?;
    // SAFETY: there is no other thread but the one that watches the parent.
    let child = match unsafe { fork() }.map_err(std::io::Error::from)? {
        ForkResult::Child => {
            drop(go);
            // The parent has done its part.
            went.read_to_end(&mut Vec::new())?;
            say("serving");
            let result = server.serve(|| {
                std::io::stdin().read_line(&mut String::new()).unwrap();
            });
            say(format_args!("served {:?}", result.map_err(|error| error.to_string())));
            // SAFETY: it ends the process, and nothing else.
            unsafe { nix::libc::_exit(0) };
        }
        ForkResult::Parent { child } => child,
    };
    let (held, successor) = match variable("LPC_TEST_PARENT").as_str() {
        "drops it after" => (Some(server), None),
        "serves after it" => (None, Some(server)),
        _ => {
            drop(server);
            (None, None)
        }
    };
    drop(go);
    // It serves: what the parent does from now on is nothing to the port.
    let client = AnyClient::connect(Driver::Blocking, &until_served(&port))?;
    say(client.length(b"daemon")?);
    drop(held);
    say(client.length(b"still there")?);
    say(AnyClient::connect(Driver::Blocking, &port)?.length(b"new")?);
    let error = lpc::blocking::Server::bind(&port).map(drop).unwrap_err();
    say(format_args!("{:?}", error.kind()));
    let status = within("the daemon", move || waitpid(child, None)).map_err(std::io::Error::from)?;
    say(format_args!("{}", status == WaitStatus::Exited(child, 0)));
    say(format_args!("{}", Path::new(&port).exists()));
    if let Some(server) = successor {
        let at = port.clone();
        server.serve(move || drop(until_served(&at)))?;
        say(format_args!("{}", Path::new(&port).exists()));
    }
    drop(lpc::blocking::Server::bind(&port)?);
    Ok(())
}

/// The port, once somebody has answered there.
fn until_served(port: &str) -> String {
    until("the port is served", || AnyClient::connect(Driver::Blocking, port).ok());
    port.to_owned()
}

#[test]
fn a_daemon_that_binds_and_then_forks_serves_wholly() {
    for driver in DRIVERS {
        for parent in ["drops it before", "drops it after", "serves after it"] {
            let directory = tempfile::tempdir().unwrap();
            let port = directory.path().join("port");
            let mut command = other("daemon", driver);
            command.env(PORT, &port).env("LPC_TEST_PARENT", parent).stdin(Stdio::piped());
            let mut daemon = Process::start(&mut command);
            for line in ["serving", "6", "11", "3", "AddrInUse"] {
                assert_eq!(daemon.line(), line, "{parent}");
            }
            daemon.tell("stop");
            let mut rest = daemon.rest();
            if parent == "serves after it" {
                assert_eq!(rest.remove(3), "false", "the parent leaves nothing behind either");
            }
            assert_eq!(rest, ["served Ok(())", "true", "false", "ended"], "{parent}");
        }
    }
}

#[test]
fn a_fork_beside_busy_threads_waits_for_none_of_their_locks() {
    for driver in DRIVERS {
        let vault = Vault::start(driver, Knobs::default());
        let mut command = other("forked_busily", driver);
        let forked = Process::start(command.env(PORT, text(vault.port())).stdin(Stdio::null()));
        assert_eq!(forked.rest(), ["60 forks", "ended"]);
    }
}

#[test]
fn a_fork_has_nothing_of_its_parents_connections_and_takes_nothing_from_them() {
    for driver in DRIVERS {
        let vault = Vault::start(driver, Knobs::default());
        let mut command = other("forked", driver);
        let forked = Process::start(command.env(PORT, text(vault.port())).stdin(Stdio::null()));
        assert_eq!(forked.rest(), ["fork true", "12 bytes", "AddrInUse", "false", "ended"]);
    }
}
