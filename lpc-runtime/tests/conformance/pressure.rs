//! More than the other side takes: peers that do not read, and limits that are reached.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use lpc::Threshold;
use lpc_core::frame::{self, Body, CallId, Header};
use lpc_core::handshake::{Hello, Preamble};
use lpc_core::receiver::Role;
use lpc_core::{Limits, Method, codec};

use crate::pairs::{self, Driver, Setup, Way};
use crate::probe::Implementation;
use crate::probe::blocking::Probe;

/// Exchanges hellos by hand.
fn greet(stream: &mut UnixStream, role: Role) {
    let hello = match role {
        Role::Client => Hello::client("Probe", &Limits::default()),
        Role::Server => Hello::server("Probe", &[Method::new("echo")], &Limits::default()),
    };
    let peer = if role == Role::Client { Role::Server } else { Role::Client };
    stream.write_all(&hello.encode(role)).unwrap();
    let mut preamble = [0; Preamble::LEN];
    stream.read_exact(&mut preamble).unwrap();
    let preamble = Preamble::decode(&preamble, peer).unwrap();
    stream.read_exact(&mut vec![0; preamble.len]).unwrap();
}

#[test]
fn a_server_that_dies_without_having_read_fails_every_call() {
    for client in [Driver::Blocking, Driver::Tokio] {
        let setup = Setup { client, threshold: Threshold::OFF, ..pairs::all().remove(0) };
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let greeted = std::thread::spawn(move || {
            greet(&mut theirs, Role::Server);
            theirs
        });
        let client = setup.connect_stream(ours);
        let theirs = greeted.join().unwrap();
        let has_ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // More than the socket and the queue hold.
            for _ in 0..48 {
                scope.spawn(|| {
                    assert!(client.echo(&[7; 100_000]).unwrap_err().is_disconnected());
                    has_ended.store(true, SeqCst);
                });
            }
            std::thread::sleep(Duration::from_millis(100)); // let it fill up
            assert!(!has_ended.load(SeqCst));
            drop(theirs);
        });
        assert!(!client.echo(b"?").unwrap_err().may_have_run());
    }
}

/// Two calls in one piece, of which the second takes until the first was answered.
#[test]
fn an_answer_does_not_wait_for_the_next_call() {
    for setup in pairs::all().into_iter().filter(|setup| setup.way == Way::Port) {
        for limit in [1, 16] {
            let probe = Implementation::new();
            let setup = Setup { max_concurrent_calls: limit, ..setup.clone() };
            let server = pairs::Running::new(&setup, &probe);
            let warm = setup.connect_port(&server);
            for _ in 0..50 {
                warm.echo(b"quick").unwrap();
            }
            let mut stream = UnixStream::connect(&server.port).unwrap();
            greet(&mut stream, Role::Client);
            let (mut both, mut call) = (Vec::new(), Vec::new());
            frame::begin_call(&mut call, 0);
            codec::encode(&b"first"[..], &mut call).unwrap();
            frame::seal(&mut call, CallId::new(1), Body::Inline);
            both.extend_from_slice(&call);
            frame::begin_call(&mut call, 6);
            codec::encode(&1_u64, &mut call).unwrap();
            frame::seal(&mut call, CallId::new(2), Body::Inline);
            both.extend_from_slice(&call);
            stream.write_all(&both).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            for id in [1, 2] {
                let mut header = [0; Header::LEN];
                stream
                    .read_exact(&mut header)
                    .unwrap_or_else(|error| panic!("answer {id}: {error}, {setup:?}"));
                let header = Header::decode(&header).unwrap();
                assert_eq!(header.call, CallId::new(id));
                stream.read_exact(&mut vec![0; header.len as usize]).unwrap();
                probe.open_now(1);
            }
        }
    }
}

#[test]
fn a_time_limit_beyond_the_clock_is_none() {
    use crate::probe::blocking::{ProbeAsyncClient, ProbeClient};
    for setup in pairs::all().into_iter().filter(|setup| setup.way == Way::Port) {
        let server = pairs::Running::new(&setup, &Implementation::new());
        let client = ProbeClient::builder().handshake_timeout(Duration::MAX).connect(&server.port).unwrap();
        assert_eq!(client.echo(b"fine").unwrap(), b"fine");
        pairs::RUNTIME.block_on(async {
            let builder = ProbeAsyncClient::builder().handshake_timeout(Duration::MAX);
            assert_eq!(builder.connect(&server.port).await.unwrap().echo(b"fine").await.unwrap(), b"fine");
        });
    }
}
