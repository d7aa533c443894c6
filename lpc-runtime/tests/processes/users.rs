//! Peers of other users. Only root can be several: for others these tests say so, and end.

use std::fs::Permissions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use lpc::config::ServerBuilder;
use nix::unistd::{Uid, setuid};

use crate::process::{PORT, Process, other, say, text, through_shell, until, variable};
use crate::service::{AnyClient, DRIVERS, Driver, Implementation, RUNTIME, asynchronous, blocking};

/// A user who is not root, whether there is one of this number or not.
const STRANGER: u32 = 65_534;

/// Clients that may be about to say who they are, and of one user.
const PLACES: usize = 4;
const SHARE: usize = 3;

const NEVER: Duration = Duration::from_secs(3600);

/// Role: serves that user alone, at a socket that everybody may connect to.
pub fn serve_a_stranger(driver: Driver) -> lpc::Result<()> {
    let port = variable(PORT);
    match driver {
        Driver::Blocking => {
            let builder = lpc::blocking::Server::builder().socket_mode(0o666);
            let server = builder.accept(|peer| peer.uid() == STRANGER).bind(port)?;
            say("bound");
            server.serve::<blocking::ProbeService, _>(Implementation)
        }
        Driver::Tokio => {
            let builder = lpc::Server::builder().socket_mode(0o666);
            let server = builder.accept(|peer| peer.uid() == STRANGER).bind(port)?;
            say("bound");
            RUNTIME.block_on(server.serve::<asynchronous::ProbeService, _>(Implementation))
        }
    }
}

/// Role: calls as that user, first as one who expects its own servers, then as one who knows better.
pub fn call_as_a_stranger(driver: Driver) -> lpc::Result<()> {
    setuid(Uid::from_raw(STRANGER)).map_err(std::io::Error::from)?;
    let port = variable(PORT);
    let error = AnyClient::connect(driver, &port).map(drop).expect_err("a server of another user");
    say(format_args!("{:?}: {error}", error.kind()));
    let client = match driver {
        Driver::Blocking => {
            let builder = blocking::ProbeClient::builder().accept(|peer| peer.uid() == 0);
            AnyClient::Blocking(builder.connect(port)?)
        }
        Driver::Tokio => {
            let builder = blocking::ProbeAsyncClient::builder().accept(|peer| peer.uid() == 0);
            AnyClient::Tokio(RUNTIME.block_on(builder.connect(port))?)
        }
    };
    for len in [10, 100_000] {
        say(client.length(&vec![3; len])?);
    }
    Ok(())
}

/// Role: serves everybody, few of them at a time until it knows who they are, which may take long.
pub fn serve_everybody(driver: Driver) -> lpc::Result<()> {
    fn built<D>(builder: ServerBuilder<D>) -> ServerBuilder<D> {
        builder.socket_mode(0o666).accept(|_| true).max_handshakes(PLACES).handshake_timeout(NEVER)
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

/// Role: serves its own user, in a user namespace that has none: there each user reads as `nobody`, itself
/// too.
pub fn serve_as_nobody(driver: Driver) -> lpc::Result<()> {
    assert_eq!(Uid::effective().as_raw(), STRANGER);
    let port = variable(PORT);
    match driver {
        Driver::Blocking => {
            let server = lpc::blocking::Server::builder().socket_mode(0o666).bind(port)?;
            say("bound");
            server.serve::<blocking::ProbeService, _>(Implementation)
        }
        Driver::Tokio => {
            let server = lpc::Server::builder().socket_mode(0o666).bind(port)?;
            say("bound");
            RUNTIME.block_on(server.serve::<asynchronous::ProbeService, _>(Implementation))
        }
    }
}

/// Role: calls as some user, at whoever's server.
pub fn call_as_somebody(driver: Driver) -> lpc::Result<()> {
    setuid(Uid::from_raw(12_345)).map_err(std::io::Error::from)?;
    let port = variable(PORT);
    match driver {
        Driver::Blocking => blocking::ProbeClient::builder().accept(|_| true).connect(port).map(drop),
        Driver::Tokio => {
            let builder = blocking::ProbeAsyncClient::builder().accept(|_| true);
            RUNTIME.block_on(builder.connect(port)).map(drop)
        }
    }
}

/// Role: connects as that user, again and again, and says nothing to the server. Says how many connections it
/// is left.
pub fn besiege(_: Driver) -> lpc::Result<()> {
    setuid(Uid::from_raw(STRANGER)).map_err(std::io::Error::from)?;
    let mut streams: Vec<UnixStream> = Vec::new();
    for count in 1..=3 * PLACES {
        let stream = UnixStream::connect(variable(PORT))?;
        stream.set_nonblocking(true)?;
        streams.push(stream);
        until("the server makes up its mind", || (open(&streams) == count.min(SHARE)).then_some(()));
    }
    say(open(&streams));
    std::io::stdin().read_line(&mut String::new())?;
    say(open(&streams));
    Ok(())
}

/// How many of these nothing has come through, not even the end.
fn open(streams: &[UnixStream]) -> usize {
    let is_open = |mut stream: &UnixStream| {
        stream.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    streams.iter().filter(|stream| is_open(stream)).count()
}

fn is_root() -> bool {
    let is_root = Uid::effective().is_root();
    if !is_root {
        eprintln!("skipped: only root can be another user");
    }
    is_root
}

/// A directory that everybody may enter.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    directory
}

#[test]
fn another_user_is_served_where_both_sides_accept_it_and_only_there() {
    if !is_root() {
        return;
    }
    for driver in DRIVERS {
        let directory = directory();
        let port = directory.path().join("port");
        let server = Process::start(other("serve_a_stranger", driver).env(PORT, &port));
        assert_eq!(server.line(), "bound");
        assert_eq!(std::fs::metadata(&port).unwrap().permissions().mode() & 0o777, 0o666);
        for client in DRIVERS {
            let stranger = Process::start(other("call_as_a_stranger", client).env(PORT, &port));
            let refusal = stranger.line();
            assert!(refusal.starts_with("PermissionDenied: port "), "{refusal}");
            assert!(refusal.contains("the server's user 0 is not accepted (accept)"), "{refusal}");
            assert_eq!(stranger.rest(), ["10", "100000", "ended"]);
            let error = AnyClient::connect(client, text(&port)).map(drop).unwrap_err();
            assert!(error.is_permission_denied(), "{error:?}");
            let text = error.to_string();
            assert!(
                text.contains("the server refuses the connection: the client's user 0 is not accepted"),
                "{text}"
            );
        }
    }
}

#[test]
fn a_user_whose_clients_are_all_silent_keeps_no_other_user_out() {
    if !is_root() {
        return;
    }
    for driver in DRIVERS {
        let directory = directory();
        let port = directory.path().join("port");
        let server = Process::start(other("serve_everybody", driver).env(PORT, &port));
        assert_eq!(server.line(), "bound");
        let mut silent = Process::start(other("besiege", driver).env(PORT, &port).stdin(Stdio::piped()));
        assert_eq!(silent.line(), SHARE.to_string());
        for client in DRIVERS {
            assert_eq!(AnyClient::connect(client, text(&port)).unwrap().length(b"in").unwrap(), 2);
        }
        silent.tell("nobody had to go");
        assert_eq!(silent.rest(), [&SHARE.to_string(), "ended"]);
    }
}

#[test]
fn the_lock_file_of_another_user_is_an_error_that_says_whose_it_is() {
    if !is_root() {
        return;
    }
    for driver in DRIVERS {
        let directory = directory();
        let port = directory.path().join("port");
        let lock = directory.path().join("port.lock");
        std::fs::write(&lock, "").unwrap();
        chown(&lock, Some(STRANGER), None).unwrap();
        let mut server = Process::start(other("serve", driver).env(PORT, &port).stdin(Stdio::piped()));
        assert_eq!(server.line(), "ready");
        server.tell("bind");
        let line = server.line();
        assert!(line.starts_with("error PermissionDenied: "), "{line}");
        assert!(line.contains("port.lock") && line.contains("belongs to user 65534"), "{line}");
    }
}

#[test]
fn a_user_that_has_no_number_here_is_nobody_that_a_server_runs_as() {
    if !is_root() {
        return;
    }
    let works = Command::new("unshare").args(["--user", "true"]).status();
    if !works.is_ok_and(|status| status.success()) {
        eprintln!("skipped: unshare(1) makes no user namespace here");
        return;
    }
    for driver in DRIVERS {
        let directory = directory();
        let port = directory.path().join("port");
        let mut server = other("serve_as_nobody", driver);
        server.env(PORT, &port);
        let server = Process::start(&mut through_shell(r#"exec unshare --user "$0" "$@""#, &server));
        assert_eq!(server.line(), "bound");
        for client in DRIVERS {
            let stranger = Process::start(other("call_as_somebody", client).env(PORT, &port));
            let refusal = stranger.line();
            assert!(refusal.starts_with("error PermissionDenied: "), "{refusal}");
            assert!(refusal.contains("it has no id in this process's user namespace"), "{refusal}");
        }
    }
}
