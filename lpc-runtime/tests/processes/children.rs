//! Services in child processes.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lpc::{ErrorKind, Progress};
use nix::unistd::Uid;

use crate::process::{Process, other, text, within};
use crate::service::blocking::Probe;
use crate::service::{AnyClient, DRIVERS, Driver, RUNTIME, blocking};

fn try_spawn(driver: Driver, command: &mut Command, timeout: Duration) -> lpc::Result<(AnyClient, Process)> {
    let (client, child) = match driver {
        Driver::Blocking => {
            let builder = blocking::ProbeClient::builder().handshake_timeout(timeout);
            builder.spawn(command).map(|(client, child)| (AnyClient::Blocking(client), child))
        }
        Driver::Tokio => {
            let builder = blocking::ProbeAsyncClient::builder().handshake_timeout(timeout);
            RUNTIME.block_on(builder.spawn(command)).map(|(client, child)| (AnyClient::Tokio(client), child))
        }
    }?;
    Ok((client, Process::adopt(child)))
}

fn spawn(client: Driver, child: Driver) -> (AnyClient, Process) {
    try_spawn(client, &mut other("serve_parent", child), Duration::from_secs(60)).unwrap()
}

fn refusal(client: Driver, command: &mut Command) -> lpc::Error {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    try_spawn(client, command, Duration::from_millis(300)).map(drop).unwrap_err()
}

/// Clients of either driver with children of either.
fn pairs() -> impl Iterator<Item = (Driver, Driver)> {
    DRIVERS.into_iter().flat_map(|client| DRIVERS.into_iter().map(move |child| (client, child)))
}

#[test]
fn small_and_large_calls_go_to_a_child_and_come_back() {
    for (client, child) in pairs() {
        let (client, mut child) = spawn(client, child);
        for len in [0, 10, 20_000, 3 << 20] {
            let bytes: Vec<u8> = (0..len).map(|at| (at % 253) as u8).collect();
            assert!(client.echo(&bytes).unwrap() == bytes);
            assert_eq!(client.length(&bytes).unwrap(), len as u64);
            assert!(client.make(len as u64).unwrap() == vec![7; len]);
        }
        let stats = client.stats();
        assert_eq!((stats.sent.mapping.messages, stats.received.mapping.messages), (4, 4));
        drop(client);
        assert_eq!(child.rest(), ["ended"], "the child serves until its parent hangs up");
        assert!(child.wait().success());
    }
}

/// The maker of a connected pair is its peer by `SO_PEERCRED`, on both sides.
#[test]
#[allow(unsafe_code, reason = "trust is what asks who the peer is")]
fn a_child_and_its_parent_know_each_other_though_the_parent_made_the_pair() {
    for (client, child) in pairs() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let rule = {
            let seen = Arc::clone(&seen);
            move |peer: &lpc::Credentials| {
                seen.lock().unwrap().push((peer.pid().cast_unsigned(), peer.uid()));
                false
            }
        };
        let mut command = other("serve_parent", child);
        // Where this user may be another one, the child is.
        let uid = if Uid::effective().is_root() { 65_534 } else { Uid::effective().as_raw() };
        command.uid(uid);
        let (called, child) = match client {
            Driver::Blocking => {
                // SAFETY: nobody is trusted.
                let builder = unsafe { blocking::ProbeClient::builder().trust(rule) };
                let (client, child) = builder.spawn(&mut command).unwrap();
                (client.peer().unwrap(), child)
            }
            Driver::Tokio => {
                // SAFETY: nobody is trusted.
                let builder = unsafe { blocking::ProbeAsyncClient::builder().trust(rule) };
                let (client, child) = RUNTIME.block_on(builder.spawn(&mut command)).unwrap();
                (RUNTIME.block_on(client.peer()).unwrap(), child)
            }
        };
        let child = Process::adopt(child);
        assert_eq!(called, Some((std::process::id(), Uid::current().as_raw())));
        assert_eq!(*seen.lock().unwrap(), [(child.id(), uid)]);
    }
}

#[test]
fn a_panic_in_a_child_is_an_error_for_its_caller_alone_however_much_it_says() {
    for (client, child) in pairs() {
        let (client, _child) = spawn(client, child);
        for len in [0, 100, 1 << 20, (1 << 20) + 2, 3 << 20] {
            let error = client.panic(len).unwrap_err();
            assert!(error.is_panic() && error.progress() == Progress::Ran, "{:?}", error.kind());
            let text = error.to_string();
            assert!(text.starts_with("Probe.panic panicked: ") && text.len() <= 1 << 20, "{}", text.len());
            assert_eq!(client.length(b"goes on").unwrap(), 7);
        }
    }
}

#[test]
fn a_child_that_is_killed_fails_all_its_calls_at_once() {
    for (client, child) in pairs() {
        let (client, mut child) = spawn(client, child);
        let calls: Vec<_> = (0..4)
            .map(|_| {
                let client = client.clone();
                std::thread::spawn(move || client.stall())
            })
            .collect();
        for _ in 0..4 {
            assert_eq!(child.line(), "stalled");
        }
        child.kill();
        let results = within("a call of a killed child", move || {
            calls.into_iter().map(|call| call.join().unwrap()).collect::<Vec<_>>()
        });
        for result in results {
            let error = result.unwrap_err();
            assert!(error.is_disconnected() && error.progress() == Progress::MayHaveRun, "{error:?}");
        }
        let error = client.length(b"later").unwrap_err();
        assert!(error.is_disconnected() && !error.may_have_run(), "{error:?}");
    }
}

#[test]
fn a_child_ends_by_itself_when_its_parent_is_killed() {
    for driver in DRIVERS {
        let mut parent = Process::start(&mut other("spawn", driver));
        assert_eq!(parent.line(), "spawned");
        parent.kill();
        // Its standard output is the parent's: this returns when both have ended.
        assert_eq!(parent.rest(), ["ended"]);
    }
}

#[test]
fn a_command_that_does_not_start_is_an_error_that_names_it() {
    for driver in DRIVERS {
        let error = refusal(driver, &mut Command::new("/no/such/program"));
        assert_eq!((error.kind(), error.progress()), (ErrorKind::Io, Progress::NotSent));
        let message = error.to_string();
        assert!(message.contains("/no/such/program") && message.contains("does not start"), "{message}");
    }
}

#[test]
fn a_command_that_ends_at_once_is_an_error_that_names_it() {
    for driver in DRIVERS {
        let error = refusal(driver, &mut Command::new("true"));
        assert!(error.is_disconnected() && !error.may_have_run(), "{error:?}");
        let message = error.to_string();
        assert!(message.contains("child process \"true\""), "{message}");
        assert!(message.contains("hung up before it said who it is"), "{message}");
    }
}

/// Standard input is a socket, and so can be written to: a program might answer there.
#[test]
fn a_command_that_is_something_else_is_an_error_that_names_it() {
    for driver in DRIVERS {
        for (script, reason) in
            [("cat >&0", "it is no server"), ("echo 'what do you want?' >&0; cat >/dev/null", "what do you")]
        {
            let error = refusal(driver, Command::new("sh").args(["-c", script]));
            assert_eq!((error.kind(), error.progress()), (ErrorKind::Protocol, Progress::NotSent));
            let message = error.to_string();
            assert!(message.contains("child process \"sh\"") && message.contains(reason), "{message}");
        }
    }
}

#[test]
fn a_command_that_says_nothing_is_given_up_and_killed() {
    for driver in DRIVERS {
        for program in ["cat", "sleep"] {
            let (mut reader, writer) = std::io::pipe().unwrap();
            let mut command = Command::new(program);
            if program == "sleep" {
                command.arg("60");
            }
            command.stdout(writer).stderr(Stdio::null());
            let error = try_spawn(driver, &mut command, Duration::from_millis(300)).map(drop).unwrap_err();
            assert!(error.is_timed_out() && error.to_string().contains(program), "{error:?}");
            drop(command);
            within("a child that is of no use", move || reader.read_to_end(&mut Vec::new())).unwrap();
        }
    }
}

#[test]
fn a_childs_own_children_do_not_inherit_the_connection() {
    for (client, child) in pairs() {
        let (client, _child) = spawn(client, child);
        let (input, links) = client.inherited().unwrap();
        assert_eq!(input, 0, "standard input is at its end");
        assert_eq!(links.first().map(String::as_str), Some("/dev/null"));
        assert!(
            links.iter().all(|link| !link.starts_with("socket:") && !link.contains("memfd")),
            "{links:?}"
        );
    }
}

#[test]
fn a_childs_death_is_seen_while_its_own_children_live() {
    for (client, child) in pairs() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        // The grandchild lives as long as this is open.
        let alive = File::options().read(true).write(true).open(&fifo).unwrap();
        let (client, mut child) = spawn(client, child);
        client.leave(text(&fifo)).unwrap();
        let call = std::thread::spawn({
            let client = client.clone();
            move || client.stall()
        });
        assert_eq!(child.line(), "stalled");
        child.kill();
        let error = within("a call of a killed child", move || call.join().unwrap()).unwrap_err();
        assert!(error.is_disconnected() && error.may_have_run(), "{error:?}");
        drop(alive);
    }
}

#[test]
fn a_process_that_no_client_started_has_no_parent_to_serve() {
    for driver in DRIVERS {
        let plain = Process::start(&mut other("serve_parent", driver));
        let line = plain.line();
        assert!(line.starts_with("error InvalidInput: ") && line.contains("ClientBuilder::spawn"), "{line}");
        assert!(line.contains("LPC_PARENT is not set"), "{line}");

        // As a child's own child sees it: the variable is inherited, the connection is not.
        let nested = Process::start(other("serve_parent", driver).env("LPC_PARENT", "stdin"));
        let line = nested.line();
        assert!(line.starts_with("error InvalidInput: ") && line.contains("ClientBuilder::spawn"), "{line}");
        assert!(line.contains("standard input is no stream socket"), "{line}");
    }
}
