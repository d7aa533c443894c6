//! More than the other side takes: peers that do not read, and limits that are reached.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use lpc::Threshold;
use lpc_core::frame::{self, Body, CallId, Header, Kind};
use lpc_core::handshake::{ClientHello, Offer, Preamble};
use lpc_core::receive::Role;
use lpc_core::{Limits, Method, codec};

use crate::pairs::{self, AnyClient, Driver, Setup, Way};
use crate::probe::Implementation;
use crate::probe::blocking::Probe;

/// Exchanges hellos by hand.
fn greet(stream: &mut UnixStream, role: Role) {
    let hello = match role {
        Role::Client => ClientHello::new("Probe", &Limits::default()).encode(),
        Role::Server => Offer::new("Probe", &[Method::new("echo")], &Limits::default()).encode(),
    };
    let peer = if role == Role::Client { Role::Server } else { Role::Client };
    stream.write_all(&hello).unwrap();
    let mut preamble = [0; Preamble::LEN];
    stream.read_exact(&mut preamble).unwrap();
    let preamble = Preamble::decode(&preamble, peer).unwrap();
    stream.read_exact(&mut vec![0; preamble.len]).unwrap();
}

/// A client, and the other end of its connection.
fn served_by_hand(setup: &Setup) -> (AnyClient, UnixStream) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let greeted = std::thread::spawn(move || {
        greet(&mut theirs, Role::Server);
        theirs
    });
    (setup.connect_stream(ours), greeted.join().unwrap())
}

#[test]
fn a_server_that_dies_without_having_read_fails_every_call() {
    for client in [Driver::Blocking, Driver::Tokio] {
        let setup = Setup { client, threshold: Threshold::OFF, ..pairs::all().remove(0) };
        let (client, theirs) = served_by_hand(&setup);
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

/// As a server that shuts down does: it receives no more, and answers what it has received.
#[test]
fn a_server_that_stops_receiving_costs_no_answer_however_much_waits_to_be_sent() {
    for client in [Driver::Blocking, Driver::Tokio] {
        let setup = Setup { client, threshold: Threshold::OFF, ..pairs::all().remove(0) };
        let (client, mut theirs) = served_by_hand(&setup);
        std::thread::scope(|scope| {
            let first = scope.spawn(|| client.echo(b"first"));
            let (header, body) = read_frame(&mut theirs);
            for _ in 0..8 {
                scope.spawn(|| assert!(client.echo(&[7; 100_000]).unwrap_err().is_disconnected()));
            }
            std::thread::sleep(Duration::from_millis(100)); // let it fill up
            theirs.shutdown(std::net::Shutdown::Read).unwrap();
            theirs.read_to_end(&mut Vec::new()).unwrap();
            let mut reply = Vec::new();
            frame::begin_reply(&mut reply);
            reply.push(0); // `Ok`
            reply.extend_from_slice(&body);
            frame::seal(&mut reply, header.call, Body::Inline, &[]);
            theirs.write_all(&reply).unwrap();
            drop(theirs);
            assert_eq!(first.join().unwrap().unwrap(), b"first");
        });
    }
}

/// The next frame that is no hint.
fn read_frame(stream: &mut UnixStream) -> (Header, Vec<u8>) {
    loop {
        let mut header = [0; Header::LEN];
        stream.read_exact(&mut header).unwrap();
        let header = Header::decode(&header).unwrap();
        let mut body = vec![0; header.len as usize];
        stream.read_exact(&mut body).unwrap();
        if header.kind != Kind::At {
            return (header, body);
        }
    }
}

/// Two calls in one piece, of which the second takes until the first was answered.
#[test]
fn an_answer_does_not_wait_for_the_next_call() {
    const ECHO: u16 = 0;
    const WAIT: u16 = 6;
    for setup in pairs::all().into_iter().filter(|setup| setup.way == Way::Port) {
        for (limit, waits) in [(1, 1), (2, 1), (2, 2), (16, 1), (16, 2)] {
            let probe = Implementation::new();
            let setup = Setup { max_concurrent_calls: limit, ..setup.clone() };
            let server = pairs::Running::new(&setup, &probe);
            let warm = setup.connect_port(&server);
            probe.open_now(0);
            for _ in 0..50 {
                warm.echo(b"quick").unwrap();
                warm.wait(0).unwrap();
            }
            let mut stream = UnixStream::connect(&server.port).unwrap();
            greet(&mut stream, Role::Client);
            let mut all = Vec::new();
            for id in 1..=1 + waits {
                let mut call = Vec::new();
                frame::begin_call(&mut call, if id == 1 { ECHO } else { WAIT });
                match id {
                    1 => codec::encode(&b"first"[..], &mut call).unwrap(),
                    _ => codec::encode(&1_u64, &mut call).unwrap(),
                }
                frame::mark_busy(&mut call);
                frame::seal(&mut call, CallId::new(id), Body::Inline, &[]);
                all.extend_from_slice(&call);
            }
            stream.write_all(&all).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            for answer in 0..=waits {
                let (header, _) = read_frame(&mut stream);
                assert!(answer > 0 || header.call == CallId::new(1), "{setup:?}");
                probe.open_now(1);
            }
        }
    }
}

/// Half a reply, and callers each of which waits for less than the time in which the rest has to come.
#[test]
fn the_middle_of_a_message_is_waited_for_no_longer_by_many_callers_than_by_one() {
    use crate::probe::{asynchronous, blocking};
    const STALL: Duration = Duration::from_millis(400);
    // With one call in flight all but the first wait for a permit, which the abandoned call keeps.
    for (driver, permits) in
        [Driver::Blocking, Driver::Tokio].into_iter().flat_map(|driver| [(driver, 1024), (driver, 1)])
    {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let greeted = std::thread::spawn(move || {
            greet(&mut theirs, Role::Server);
            theirs
        });
        let client = match driver {
            Driver::Blocking => {
                let builder =
                    blocking::ProbeClient::builder().stall_timeout(STALL).max_calls_in_flight(permits);
                AnyClient::Blocking(builder.connect_stream(ours).unwrap())
            }
            Driver::Tokio => {
                let builder =
                    asynchronous::ProbeClient::builder().stall_timeout(STALL).max_calls_in_flight(permits);
                AnyClient::Tokio(pairs::RUNTIME.block_on(builder.connect_stream(ours)).unwrap())
            }
        };
        let mut theirs = greeted.join().unwrap();
        let client = client.with_deadline(STALL / 8);
        assert!(client.echo(b"?").unwrap_err().is_timed_out());
        let mut reply = Vec::new();
        frame::begin_reply(&mut reply);
        reply.extend_from_slice(&[7; 100]);
        frame::seal(&mut reply, CallId::new(1 << 32), Body::Inline, &[]);
        theirs.write_all(&reply[..50]).unwrap();
        let mut ends = (0..40).map(|_| client.echo(b"?").unwrap_err());
        let ended = ends.find(lpc::Error::is_disconnected);
        let error = ended.expect("that is more than the callers wait for together");
        assert!(error.to_string().contains("stall_timeout"), "{error}");
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
