//! Processes that are stopped in the middle of a handshake, for longer than it may take.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::time::Duration;

use lpc::config::ServerBuilder;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::{PORT, Process, other, say, text, until, variable, within};
use crate::service::{AnyClient, DRIVERS, Driver, Implementation, PATIENCE, RUNTIME, asynchronous, blocking};

/// How long a handshake may take.
const LIMIT: Duration = Duration::from_secs(1);

/// Role: serves a port, says when somebody comes, and does not wait long to hear who it is.
pub fn serve_impatiently(driver: Driver) -> lpc::Result<()> {
    fn built<D>(builder: ServerBuilder<D>) -> ServerBuilder<D> {
        builder.handshake_timeout(LIMIT).accept(|_| {
            say("accepted");
            true
        })
    }
    let port = variable(PORT);
    match driver {
        Driver::Blocking => {
            let server = built(lpc::blocking::Server::builder()).bind(port)?;
            say("bound");
            server.serve::<blocking::ProbeService, _>(Implementation)
        }
        Driver::Tokio => {
            let server = built(lpc::Server::builder()).bind(port)?;
            say("bound");
            RUNTIME.block_on(server.serve::<asynchronous::ProbeService, _>(Implementation))
        }
    }
}

/// Role: calls, and does not wait long to hear who answers.
pub fn call_impatiently(driver: Driver) -> lpc::Result<()> {
    let port = variable(PORT);
    let client = match driver {
        Driver::Blocking => {
            let builder = blocking::ProbeClient::builder().handshake_timeout(LIMIT);
            AnyClient::Blocking(builder.connect(port)?)
        }
        Driver::Tokio => {
            let builder = blocking::ProbeAsyncClient::builder().handshake_timeout(LIMIT);
            AnyClient::Tokio(RUNTIME.block_on(builder.connect(port))?)
        }
    };
    say(client.length(b"thawed")?);
    Ok(())
}

/// Stops a process that waits for a hello, has the hello sent, and lets the process go on later than it would
/// have waited.
fn frozen(process: &Process, send: impl FnOnce()) {
    let id = Pid::from_raw(process.id().cast_signed());
    let state = |letters: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        let state = stat.rsplit_once(") ").unwrap().1.chars().next().unwrap();
        letters.contains(state).then_some(())
    };
    // It has begun to wait, most likely. Where it has not, it waits afterwards, and this shows less.
    std::thread::sleep(LIMIT / 20);
    kill(id, Signal::SIGSTOP).unwrap();
    until("the process is stopped", || state("T"));
    send();
    std::thread::sleep(LIMIT * 3 / 2);
    kill(id, Signal::SIGCONT).unwrap();
}

/// Bytes that were sent and not received yet.
#[allow(unsafe_code, reason = "ioctl(2)")]
fn unread(stream: &UnixStream) -> i32 {
    let mut bytes = 0;
    // SAFETY: the kernel writes a number.
    let result = unsafe { nix::libc::ioctl(stream.as_raw_fd(), nix::libc::TIOCOUTQ, &raw mut bytes) };
    assert_eq!(result, 0);
    bytes
}

#[test]
fn a_server_that_was_stopped_hears_a_client_that_has_said_who_it_is_meanwhile() {
    for driver in DRIVERS {
        let directory = tempfile::tempdir().unwrap();
        let port = directory.path().join("port");
        let server = Process::start(other("serve_impatiently", driver).env(PORT, &port));
        assert_eq!(server.line(), "bound");
        let stream = UnixStream::connect(&port).unwrap();
        assert_eq!(server.line(), "accepted");
        let (watched, mut connecting) = (stream.try_clone().unwrap(), None);
        frozen(&server, || {
            connecting = Some(std::thread::spawn(move || {
                let builder = blocking::ProbeClient::builder().handshake_timeout(PATIENCE);
                builder.connect_stream(stream)
            }));
            until("the hello is on its way", || (unread(&watched) > 0).then_some(()));
        });
        let connected = within("a handshake", move || connecting.unwrap().join().unwrap());
        let client = AnyClient::Blocking(connected.unwrap_or_else(|error| panic!("{driver:?}: {error}")));
        assert_eq!(client.length(b"thawed").unwrap(), 6);
    }
}

#[test]
fn a_client_that_was_stopped_hears_a_server_that_has_said_who_it_is_meanwhile() {
    for driver in DRIVERS {
        let directory = tempfile::tempdir().unwrap();
        let (port, real) = (directory.path().join("port"), directory.path().join("real"));
        let mut server = Process::start(other("serve", driver).env(PORT, &real).stdin(Stdio::piped()));
        assert_eq!(server.line(), "ready");
        server.tell("bind");
        assert_eq!(server.line(), "bound");
        let listener = UnixListener::bind(&port).unwrap();
        let client = Process::start(other("call_impatiently", driver).env(PORT, text(&port)));
        let (mut theirs, _) = listener.accept().unwrap();
        let mut ours = UnixStream::connect(&real).unwrap();
        // Each hello comes in one piece.
        let mut space = vec![0; 1 << 20];
        let len = theirs.read(&mut space).unwrap();
        ours.write_all(&space[..len]).unwrap();
        let len = ours.read(&mut space).unwrap();
        frozen(&client, || theirs.write_all(&space[..len]).unwrap());
        let (mut from, mut to) = (theirs.try_clone().unwrap(), ours.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        std::thread::spawn(move || std::io::copy(&mut ours, &mut theirs));
        assert_eq!(client.rest(), ["6", "ended"], "{driver:?}");
    }
}
