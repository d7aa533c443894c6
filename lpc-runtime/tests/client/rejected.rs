//! Calls whose bodies the server cannot read where they stand, and asks for again; and answers that do not
//! decode.

use std::io::Read as _;
use std::time::Duration;

use lpc_core::frame::{self, Body, CallId, Kind};
use lpc_core::receive::MAX_UNDECODABLE;

use crate::raw::{Listener, Server};
use crate::service::{Client, DRIVERS, POOL, WEIGH};

#[test]
fn one_whose_caller_has_given_up_is_not_sent_again_and_its_memory_is_back() {
    for driver in DRIVERS {
        let listener = Listener::bind();
        std::thread::scope(|scope| {
            let serving = scope.spawn(|| {
                let mut server = listener.accept();
                for _ in 0..12 {
                    let call = server.next(&[Kind::Call]);
                    assert_eq!(call.method, WEIGH, "{driver:?}");
                    assert_eq!(server.next(&[Kind::Call, Kind::Cancel]).kind, Kind::Cancel, "{driver:?}");
                    server.send(&frame::resend(call.call));
                    let next = server.next(&[Kind::Call]);
                    assert_ne!(next.method, WEIGH, "{driver:?}: a call that was cancelled is sent again");
                    server.reply(next.call, 3);
                }
            });
            let client = Client::connect(driver, &listener.port);
            let hasty = client.with_deadline(Duration::from_millis(30));
            for _ in 0..12 {
                // Of all the memory that there is, most: it comes back each time.
                let loan = client.loan(POOL / 2).unwrap();
                let error = hasty.weigh(&[1; 20_000], loan).unwrap_err();
                assert!(error.is_timed_out(), "{driver:?}: {error:?}");
                assert_eq!(client.add(1, 2).unwrap(), 3);
            }
            serving.join().unwrap();
        });
    }
}

#[test]
fn one_whose_caller_waits_is_sent_again_in_line() {
    for driver in DRIVERS {
        let listener = Listener::bind();
        std::thread::scope(|scope| {
            let serving = scope.spawn(|| {
                let mut server = listener.accept();
                let call = server.next(&[Kind::Call]);
                assert!(call.is_mapped());
                server.send(&frame::resend(call.call));
                let again = server.next(&[Kind::Call]);
                assert_eq!((again.call, again.is_mapped()), (call.call, false));
                server.reply(call.call, 7);
            });
            let client = Client::connect(driver, &listener.port);
            let loan = client.loan(1000).unwrap();
            assert_eq!(client.weigh(&[1; 20_000], loan).unwrap(), 7);
            serving.join().unwrap();
        });
    }
}

#[test]
fn a_server_that_answers_with_nothing_but_what_does_not_decode_is_left() {
    let spoil = |server: &mut Server, call: CallId| {
        let mut reply = Vec::new();
        frame::begin_reply(&mut reply);
        reply.push(99);
        frame::seal(&mut reply, call, Body::Inline, &[]);
        server.send(&reply);
    };
    for driver in DRIVERS {
        let listener = Listener::bind();
        std::thread::scope(|scope| {
            let serving = scope.spawn(|| {
                let mut server = listener.accept();
                for turn in 0..=2 * MAX_UNDECODABLE {
                    let call = server.next(&[Kind::Call]).call;
                    if turn == MAX_UNDECODABLE - 1 { server.reply(call, 3) } else { spoil(&mut server, call) }
                }
                server.0.read_to_end(&mut Vec::new()).unwrap();
            });
            let client = Client::connect(driver, &listener.port);
            for turn in 0..=2 * MAX_UNDECODABLE {
                match client.add(1, 2) {
                    Ok(sum) => assert_eq!((sum, turn), (3, MAX_UNDECODABLE - 1)),
                    Err(error) => {
                        assert_eq!(error.kind(), lpc::ErrorKind::Decode, "{driver:?} {turn}: {error}");
                    }
                }
            }
            let error = client.add(1, 2).unwrap_err();
            assert!(
                error.is_disconnected() && error.to_string().contains("do not decode"),
                "{driver:?}: {error}"
            );
            serving.join().unwrap();
        });
    }
}
