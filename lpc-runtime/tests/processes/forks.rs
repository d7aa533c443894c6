//! A process that forks with connections, loans, and ports in its hands.
#![allow(unsafe_code, reason = "fork(2)")]

use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Stdio;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use crate::process::{PORT, Process, other, say, text, variable, within};
use crate::service::{AnyClient, DRIVERS, Driver, Implementation, blocking};
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

#[test]
fn a_fork_has_nothing_of_its_parents_connections_and_takes_nothing_from_them() {
    for driver in DRIVERS {
        let vault = Vault::start(driver, Knobs::default());
        let mut command = other("forked", driver);
        let forked = Process::start(command.env(PORT, text(vault.port())).stdin(Stdio::null()));
        assert_eq!(forked.rest(), ["fork true", "12 bytes", "AddrInUse", "false", "ended"]);
    }
}
