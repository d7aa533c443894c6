//! Clients that ask and do not take the answers.

use std::collections::HashSet;
use std::io::{BufReader, ErrorKind, Write};
use std::time::Duration;

use lpc_core::frame::{self, CallId, Kind};

use crate::service::blocking::Desk;
use crate::service::{DRIVERS, Gate, HOLD, MAKE, Server};
use crate::{eventually, raw};

/// Of what a client sends, more than a server and two sockets hold before it has taken an answer.
const MUCH: usize = 8 << 20;

/// How long a client waits to send before it gives up: a server that is slow for so long is taken for one
/// that does not listen, which only makes the test weaker.
const STUCK: Duration = Duration::from_secs(2);

#[test]
fn a_client_that_cancels_calls_and_takes_no_answers_is_not_listened_to() {
    for driver in DRIVERS {
        let gate = Gate::default();
        let server = Server::start(driver, &gate);
        let mut stream = raw::connect(&server.port);
        stream.set_write_timeout(Some(STUCK)).unwrap();
        stream.write_all(&raw::call(HOLD, 1, &())).unwrap();
        let (mut last, mut sent, mut batch) = (1, 0, Vec::new());
        loop {
            if batch.is_empty() {
                for _ in 0..512 {
                    last += 1;
                    batch.extend(raw::call(HOLD, last, &()));
                    batch.extend(frame::cancel(CallId::new(last)));
                }
            }
            match stream.write(&batch) {
                Ok(len) => drop(batch.drain(..len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{driver:?}: {error}"),
            }
            sent += 1;
            let bytes = last as usize * (2 * frame::Header::LEN);
            assert!(
                bytes < MUCH,
                "{driver:?} has read {bytes} bytes in {sent} writes, and no answer was taken"
            );
        }
        // Once it takes them it gets them all, each once.
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let writer = std::thread::spawn(move || {
            stream.set_write_timeout(None).unwrap();
            stream.write_all(&batch).unwrap();
            stream
        });
        let mut cancelled: HashSet<u64> = (2..=last).collect();
        while !cancelled.is_empty() {
            let (header, _) = raw::answer(&mut reader);
            assert_eq!(header.kind, Kind::Failure);
            assert!(cancelled.remove(&header.call.as_u64()), "{driver:?} answers a call twice");
        }
        gate.open();
        let (header, _) = raw::answer(&mut reader);
        assert_eq!((header.kind, header.call), (Kind::Reply, CallId::new(1)));
        drop((reader, writer.join().unwrap()));
        server.end();
    }
}

#[test]
fn results_that_are_asked_for_again_are_sent_as_they_are_taken() {
    /// Results, and bytes of each.
    const RESULTS: u64 = 60;
    const LEN: usize = 1 << 20;
    for driver in DRIVERS {
        let server = Server::start(driver, &Gate::default());
        let mut stream = raw::connect(&server.port);
        for id in 1..=RESULTS {
            stream.write_all(&raw::call(MAKE, id, &(LEN as u64))).unwrap();
            let (header, body) = raw::answer(&mut stream);
            assert_eq!((header.kind, header.call.as_u64()), (Kind::Reply, id));
            assert!(body.len() < 100, "it is in shared memory");
        }
        let asked: Vec<u8> = (1..=RESULTS).flat_map(|id| frame::resend(CallId::new(id))).collect();
        stream.write_all(&asked).unwrap();
        eventually("the first is sent again", || server.stats().fallbacks > 0);
        // By then a server that does not wait for its client has sent all others, too.
        let honest = server.client();
        for number in 0..200 {
            assert_eq!(honest.add(number, 1).unwrap(), number + 1);
        }
        let queued = server.stats().fallbacks;
        assert!(queued < 8, "{driver:?} has {queued} results in its queue, of {RESULTS}");
        for id in 1..=RESULTS {
            let (header, body) = raw::answer(&mut stream);
            assert_eq!((header.kind, header.call.as_u64()), (Kind::Reply, id));
            assert!(body.len() >= LEN && body.ends_with(&[7; 4096]));
        }
        assert_eq!(server.stats().fallbacks, RESULTS);
        drop((stream, honest));
        server.end();
    }
}
