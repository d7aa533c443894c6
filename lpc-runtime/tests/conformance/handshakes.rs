//! Peers that speak something else, another version, or nothing at all.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use lpc::{Error, ErrorKind};
use lpc_core::handshake::Offer;
use lpc_core::{Limits, Method};

use crate::pairs::{self, RUNTIME, Way};
use crate::probe::Implementation;
use crate::probe::blocking::{Probe, ProbeAsyncClient, ProbeClient};

/// Connects with both drivers and gives both errors.
fn refusals(port: &Path) -> [Error; 2] {
    refusals_within(Duration::from_secs(30), port)
}

/// The same, where that is by not answering.
fn refusals_within(timeout: Duration, port: &Path) -> [Error; 2] {
    let blocking = ProbeClient::builder().handshake_timeout(timeout).connect(port);
    let asynchronous = RUNTIME.block_on(ProbeAsyncClient::builder().handshake_timeout(timeout).connect(port));
    [blocking.map(drop).unwrap_err(), asynchronous.map(drop).unwrap_err()]
}

/// How long who never answers is waited for.
const SOON: Duration = Duration::from_millis(200);

/// A server at a port of its own that treats each connection so.
fn stranger(treat: impl Fn(UnixStream) + Send + 'static) -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let port = directory.path().join("stranger");
    let listener = UnixListener::bind(&port).unwrap();
    std::thread::spawn(move || listener.incoming().take(2).for_each(|stream| treat(stream.unwrap())));
    (directory, port)
}

#[test]
fn a_port_that_nobody_serves_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let port = directory.path().join("nobody");
    for error in refusals(&port) {
        assert!(error.is_not_found() && !error.may_have_run());
        let text = error.to_string();
        assert!(text.contains("nobody serves it") && text.contains(port.to_str().unwrap()), "{text}");
    }
    drop(UnixListener::bind(&port).unwrap()); // as a killed server leaves its socket
    for error in refusals(&port) {
        assert!(error.is_not_found(), "{error}");
    }
}

#[test]
fn a_server_that_takes_no_connections_is_given_up_in_time() {
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
    let directory = tempfile::tempdir().unwrap();
    let port = directory.path().join("full");
    let server = socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).unwrap();
    bind(std::os::fd::AsRawFd::as_raw_fd(&server), &UnixAddr::new(&port).unwrap()).unwrap();
    listen(&server, Backlog::new(1).unwrap()).unwrap();
    let _waiting = [UnixStream::connect(&port).unwrap(), UnixStream::connect(&port).unwrap()];
    for error in refusals_within(SOON, &port) {
        assert!(error.is_timed_out() && !error.may_have_run(), "{error:?}");
        assert!(error.to_string().contains("takes no connections"), "{error}");
    }
}

#[test]
fn a_server_of_something_else_is_told_by_its_first_bytes() {
    let (_directory, port) = stranger(|mut stream| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    for error in refusals(&port) {
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(
            error.to_string().contains("does not speak lpc") && error.to_string().contains("HTTP/1.1"),
            "{error}"
        );
    }
}

#[test]
fn a_server_that_echoes_is_no_server() {
    let (_directory, port) = stranger(|stream| {
        std::io::copy(&mut &stream, &mut &stream).ok();
    });
    for error in refusals(&port) {
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(error.to_string().contains("no server"), "{error}");
    }
}

#[test]
fn a_server_of_another_version_is_refused_with_both_versions() {
    let (_directory, port) = stranger(|mut stream| {
        stream.write_all(b"LPC!s\x07\x09\0\0\0\0\0").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    for error in refusals(&port) {
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(error.to_string().contains("speaks lpc 7 to 9, this build 2 to 2"), "{error}");
    }
}

#[test]
fn a_server_that_says_nothing_is_given_up_in_time() {
    let (_directory, port) = stranger(|stream| {
        let _ = (&stream).read_to_end(&mut Vec::new());
    });
    for error in refusals_within(SOON, &port) {
        assert!(error.is_timed_out(), "{error:?}");
        assert!(error.to_string().contains("handshake_timeout"), "{error}");
    }
}

/// One byte now and then keeps no client waiting either.
#[test]
fn a_server_that_dribbles_is_given_up_in_time() {
    let (_directory, port) = stranger(|mut stream| {
        while stream.write_all(b"L").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    for error in refusals_within(SOON, &port) {
        assert!(matches!(error.kind(), ErrorKind::TimedOut), "{error:?}");
    }
}

#[test]
fn a_server_that_hangs_up_says_so() {
    for half in [&b""[..], b"LPC!", b"LPC!s\x02\x02\0\x50\0\0\0half a hello"] {
        let (_directory, port) = stranger(move |mut stream| {
            stream.read_exact(&mut [0; 12]).unwrap();
            stream.write_all(half).unwrap();
        });
        for error in refusals(&port) {
            assert!(error.is_disconnected(), "{error:?}");
            assert!(error.to_string().contains("hung up before it said who it is"), "{error}");
        }
    }
}

#[test]
fn a_server_that_greets_and_then_talks_nonsense_ends_the_calls() {
    let hello = Offer::new("Probe", &[Method::new("echo")], &Limits::default()).encode();
    let nonsense: [&[u8]; 6] = [
        b"",                                                                             // hangs up
        b"HTTP/1.1 200 OK\r\n",                                                          // not a frame
        b"\x01\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0x", // a call, to a client
        b"\0\0\0\0\x02\0\0\0\x63\0\0\0\0\0\0\0",      // a reply that nobody waits for
        b"\xff\xff\xff\xff\x02\0\0\0\x63\0\0\0\0\0\0\0", // a reply of 4 GiB
        b"\x10\0\0\0\x02\x01\0\0\0\0\0\0\x01\0\0\0\x05\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0", // a block of no segment
    ];
    for bytes in nonsense {
        let hello = hello.clone();
        let (_directory, port) = stranger(move |mut stream| {
            stream.write_all(&hello).unwrap();
            let mut seen = [0; 64];
            let _ = stream.read(&mut seen); // the client's hello
            let _ = stream.write_all(bytes);
            std::thread::sleep(Duration::from_millis(20));
        });
        let blocking = ProbeClient::connect(&port).unwrap();
        let error = blocking.echo(b"?").unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Disconnected), "{error:?}");
        assert!(blocking.echo(b"?").unwrap_err().progress() == lpc::Progress::NotSent);
        RUNTIME.block_on(async {
            let client = ProbeAsyncClient::connect(&port).await.unwrap();
            let error = client.echo(b"?").await.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Disconnected), "{error:?}");
        });
    }
}

#[test]
fn clients_of_something_else_do_not_disturb_the_others() {
    for setup in pairs::all().into_iter().filter(|setup| setup.way == Way::Port) {
        let server = pairs::Running::new(&setup, &Implementation::new());
        let honest = setup.connect_port(&server);
        for first in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"",
            b"LPC!",
            b"LPC!s\x02\x02\0\0\0\0\0",
            b"\xff\xff\xff\xff\xff",
        ] {
            let mut stranger = UnixStream::connect(&server.port).unwrap();
            stranger.write_all(first).unwrap();
            stranger.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            let _ = stranger.read_to_end(&mut answer);
            assert_eq!(honest.echo(b"fine").unwrap(), b"fine");
        }
        // One that stays and says nothing.
        let _silent = UnixStream::connect(&server.port).unwrap();
        assert_eq!(honest.echo(b"fine").unwrap(), b"fine");
    }
}
