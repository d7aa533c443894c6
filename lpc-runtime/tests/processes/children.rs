//! Services in child processes.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lpc::{ConnectionEvent, ErrorKind, Progress, Reconnect};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::fault::{FAULT, Fault, arm, is_permitted, supervise};
use crate::process::{Process, other, say, text, until, within};
use crate::roles::serve_parent;
use crate::service::blocking::Probe;
use crate::service::{AnyClient, DRIVERS, Driver, RUNTIME, blocking};

/// The command as tokio's, for a while.
fn with_tokio<T>(command: &mut Command, run: impl FnOnce(&mut tokio::process::Command) -> T) -> T {
    let mut with = tokio::process::Command::from(std::mem::replace(command, Command::new("")));
    let result = run(&mut with);
    *command = with.into_std();
    result
}

fn try_spawn_with(
    driver: Driver,
    command: &mut Command,
    built: impl Fn(Builders) -> Builders,
) -> lpc::Result<(AnyClient, Process)> {
    match driver {
        Driver::Blocking => {
            let Builders(builder, _) = built(Builders::new());
            builder.spawn(command).map(|(client, child)| (AnyClient::Blocking(client), Process::adopt(child)))
        }
        Driver::Tokio => {
            let Builders(_, builder) = built(Builders::new());
            let spawned = with_tokio(command, |command| RUNTIME.block_on(builder.spawn(command)));
            spawned.map(|(client, child)| (AnyClient::Tokio(client), Process::adopt(child)))
        }
    }
}

/// Builders of both drivers, so that they are set once.
struct Builders(
    lpc::blocking::ClientBuilder<blocking::ProbeClient>,
    lpc::ClientBuilder<blocking::ProbeAsyncClient>,
);

impl Builders {
    fn new() -> Self {
        Self(blocking::ProbeClient::builder(), blocking::ProbeAsyncClient::builder())
    }

    fn handshake_timeout(self, time: Duration) -> Self {
        Self(self.0.handshake_timeout(time), self.1.handshake_timeout(time))
    }

    fn kill_with_parent(self) -> Self {
        Self(self.0.kill_with_parent(true), self.1.kill_with_parent(true))
    }

    fn reconnect(self, policy: &Reconnect) -> Self {
        Self(self.0.reconnect(policy.clone()), self.1.reconnect(policy.clone()))
    }

    fn supervise(self, driver: Driver, command: Command) -> lpc::Result<AnyClient> {
        match driver {
            Driver::Blocking => self.0.supervise(command).map(AnyClient::Blocking),
            Driver::Tokio => RUNTIME.block_on(self.1.supervise(command.into())).map(AnyClient::Tokio),
        }
    }
}

fn try_spawn(driver: Driver, command: &mut Command, timeout: Duration) -> lpc::Result<(AnyClient, Process)> {
    try_spawn_with(driver, command, |builders| builders.handshake_timeout(timeout))
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
                (client.peer().unwrap(), Process::adopt(child))
            }
            Driver::Tokio => {
                // SAFETY: nobody is trusted.
                let builder = unsafe { blocking::ProbeAsyncClient::builder().trust(rule) };
                let spawned = with_tokio(&mut command, |command| RUNTIME.block_on(builder.spawn(command)));
                let (client, child) = spawned.unwrap();
                (RUNTIME.block_on(client.peer()).unwrap(), Process::adopt(child))
            }
        };
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
fn a_command_that_ends_at_once_is_an_error_that_names_it_and_its_exit_status() {
    for driver in DRIVERS {
        for (script, status) in [
            ("true", "exit status: 0"),
            ("exit 3", "exit status: 3"),
            ("kill -SEGV $$", "signal: 11 (SIGSEGV)"),
        ] {
            let error = refusal(driver, Command::new("sh").args(["-c", script]));
            assert!(error.is_disconnected() && !error.may_have_run(), "{error:?}");
            let message = error.to_string();
            assert!(message.contains("child process \"sh\""), "{message}");
            assert!(message.contains("hung up before it said who it is"), "{message}");
            assert!(message.contains(&format!("(the child process has ended: {status}")), "{message}");
        }
    }
}

#[test]
fn errors_of_calls_to_a_child_that_has_ended_have_its_exit_status() {
    for (client, child) in pairs() {
        let (client, mut child) = spawn(client, child);
        let error = client.exit(7).unwrap_err();
        assert!(error.is_disconnected() && error.may_have_run(), "{error:?}");
        assert!(error.to_string().ends_with("(the child process has ended: exit status: 7)"), "{error}");
        for _ in 0..2 {
            let error = client.length(b"later").unwrap_err();
            assert!(error.is_disconnected() && !error.may_have_run(), "{error:?}");
            assert!(error.to_string().ends_with("(the child process has ended: exit status: 7)"), "{error}");
        }
        assert_eq!(child.wait().code(), Some(7), "the status is there for the owner of the child, too");
    }
}

/// A policy with short pauses, and what happens by it.
fn policy(give_up_after: Duration) -> (Reconnect, Arc<Mutex<Vec<String>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let policy = Reconnect::default()
        .pauses(Duration::from_millis(1), Duration::from_millis(5))
        .give_up_after(give_up_after)
        .on_event(move |event| {
            let event = match event {
                ConnectionEvent::Lost(_) => "lost".to_owned(),
                ConnectionEvent::ChildExited(status) => status.to_string(),
                ConnectionEvent::Connected => "connected".to_owned(),
                ConnectionEvent::Failed(error, _) => format!("failed: {error}"),
                ConnectionEvent::GaveUp(error) => format!("gave up: {error}"),
                other => format!("{other:?}"),
            };
            seen.lock().unwrap().push(event);
        });
    (policy, events)
}

#[test]
fn a_supervised_program_is_started_again_when_it_has_ended() {
    for (driver, child) in pairs() {
        let (policy, events) = policy(Duration::from_secs(60));
        let client =
            Builders::new().reconnect(&policy).supervise(driver, other("serve_parent", child)).unwrap();
        let first = client.id().unwrap();
        let error = client.exit(7).unwrap_err();
        assert!(error.is_disconnected() && error.may_have_run(), "it is not repeated: {error:?}");
        assert!(error.to_string().ends_with("(the child process has ended: exit status: 7)"), "{error}");
        let second = client.id().unwrap();
        assert_ne!(first, second);
        assert_eq!(*events.lock().unwrap(), ["lost", "exit status: 7", "connected"]);

        kill(Pid::from_raw(second.cast_signed()), Signal::SIGKILL).unwrap();
        until("the end is noticed", || {
            let is_connected = match &client {
                AnyClient::Blocking(client) => client.client().is_connected(),
                AnyClient::Tokio(client) => client.client().is_connected(),
            };
            (!is_connected).then_some(())
        });
        let third = client.id().unwrap();
        assert!(third != first && third != second);
        assert_eq!(events.lock().unwrap()[3..], ["lost", "signal: 9 (SIGKILL)", "connected"]);
        drop(client);
        for id in [first, second, third] {
            until("it has ended, and was waited for", || {
                (!Path::new(&format!("/proc/{id}")).exists()).then_some(())
            });
        }
    }
}

#[test]
fn a_supervised_program_ends_when_its_client_is_closed_and_is_waited_for() {
    for (driver, child) in pairs() {
        let (policy, events) = policy(Duration::from_secs(60));
        let client =
            Builders::new().reconnect(&policy).supervise(driver, other("serve_parent", child)).unwrap();
        let id = client.id().unwrap();
        match &client {
            AnyClient::Blocking(client) => client.client().close(),
            AnyClient::Tokio(client) => client.client().close(),
        }
        until("it has ended, and was waited for", || {
            (!Path::new(&format!("/proc/{id}")).exists()).then_some(())
        });
        // Where the machine is busy it may not have ended in time by itself.
        let ends = ["exit status: 0", "signal: 9 (SIGKILL)"];
        let told = until("its end is told", || events.lock().unwrap().first().cloned());
        assert!(ends.contains(&&*told), "{told}");
        assert!(client.id().unwrap_err().is_disconnected());
    }
}

#[test]
fn a_supervised_program_that_does_not_start_any_more_is_given_up() {
    for driver in DRIVERS {
        let directory = tempfile::tempdir().unwrap();
        let script = format!(
            r#"if [ -e {0} ]; then exit 3; fi; : > {0}; exec "$0" "$@""#,
            directory.path().join("started").display()
        );
        let serve = other("serve_parent", driver);
        let mut command = Command::new("sh");
        command.args(["-c", &script]).arg(serve.get_program()).args(serve.get_args());
        command.envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdout(Stdio::null());
        let (policy, events) = policy(Duration::from_millis(200));
        let client = Builders::new().reconnect(&policy).supervise(driver, command).unwrap();
        client.exit(1).unwrap_err();
        let error = client.id().unwrap_err();
        assert!(error.is_disconnected() && !error.may_have_run(), "{error:?}");
        let message = error.to_string();
        assert!(message.contains("exit status: 3") && message.contains("give_up_after"), "{message}");
        let events = events.lock().unwrap();
        assert_eq!(events[..3], ["lost", "exit status: 1", "exit status: 3"]);
        assert!(events[3].starts_with("failed: ") && events[3].contains("exit status: 3"), "{events:?}");
        assert!(events.last().unwrap().starts_with("gave up: "), "{events:?}");
    }
}

#[test]
fn what_supervises_is_named_where_a_child_is_to_be_reconnected_with() {
    for driver in DRIVERS {
        let mut command = other("serve_parent", driver);
        let policy = Reconnect::default();
        let spawned = try_spawn_with(driver, &mut command, |builders| builders.reconnect(&policy));
        let error = spawned.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("`supervise`"), "{error}");
    }
}

/// Role: the parent of a child that is to be killed with it, which a thread has started that has ended since.
pub fn spawn_until_death(driver: Driver) -> lpc::Result<()> {
    let mut command = other("serve_parent", driver);
    command.stdout(Stdio::inherit());
    let thread = std::thread::spawn(move || match driver {
        Driver::Blocking => {
            let Builders(builder, _) = Builders::new().kill_with_parent();
            builder.spawn(&mut command).map(|(client, _child)| AnyClient::Blocking(client))
        }
        Driver::Tokio => {
            let Builders(_, builder) = Builders::new().kill_with_parent();
            let spawned = with_tokio(&mut command, |command| RUNTIME.block_on(builder.spawn(command)));
            spawned.map(|(client, child)| {
                // tokio would have it waited for.
                std::mem::forget(child);
                AnyClient::Tokio(client)
            })
        }
    });
    let client = thread.join().unwrap()?;
    say(client.length(b"alive")?);
    client.stall()
}

#[test]
fn a_busy_child_that_is_to_be_killed_with_its_parent_is() {
    for driver in DRIVERS {
        let mut parent = Process::start(&mut other("spawn_until_death", driver));
        assert_eq!(parent.line(), "5", "the end of the thread that started it is nothing to it");
        assert_eq!(parent.line(), "stalled");
        parent.kill();
        // Its standard output is the parent's: this returns when both have ended.
        assert_eq!(parent.rest(), [""; 0]);
    }
}

/// Role: serves its parent, and may open no file.
pub fn serve_without_files(driver: Driver) -> lpc::Result<()> {
    supervise()?;
    arm();
    serve_parent(driver)
}

#[test]
fn a_child_that_may_open_no_file_serves_its_parent() {
    if !is_permitted() {
        return;
    }
    let fault = Fault { call: "openat", errno: Errno::EACCES, first: 1, every: 1, count: 1 << 20 };
    for (client, child) in pairs() {
        let mut command = other("serve_parent_without_files", child);
        command.env(FAULT, fault.to_string());
        let (client, _child) = try_spawn(client, &mut command, Duration::from_secs(60)).unwrap();
        assert_eq!(client.length(b"served").unwrap(), 6);
        assert_eq!(client.make(100_000).unwrap(), vec![7; 100_000]);
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
        assert!(links.first().is_some_and(|link| link.starts_with("pipe:")), "{links:?}");
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
