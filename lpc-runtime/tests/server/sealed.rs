//! Results that refer to sealed memory.

use std::io::Write;

use lpc_core::frame::{self, CallId, Kind};

use crate::raw;
use crate::service::{DRIVERS, Gate, SEALED, Server};

/// The result owns the memory, and is dropped once it is sent again: only then the client is told that the memory goes.
#[test]
fn a_result_that_is_sent_again_comes_before_the_end_of_what_it_refers_to() {
    for driver in DRIVERS {
        let server = Server::start(driver, &Gate::default());
        let mut stream = raw::connect(&server.port);
        stream.write_all(&raw::call(SEALED, 1, &())).unwrap();
        let (header, body) = raw::answer(&mut stream);
        assert!(header.kind == Kind::Reply && body.len() < 100, "it is in shared memory");
        stream.write_all(&frame::resend(CallId::new(1))).unwrap();
        let kinds = std::iter::from_fn(|| {
            let (header, body) = raw::next(&mut stream);
            assert!(header.kind != Kind::Reply || body.len() > 20_000, "it is in the frame");
            Some(header.kind)
        });
        let told: Vec<_> = kinds.filter(|kind| matches!(kind, Kind::Reply | Kind::Retire)).take(2).collect();
        assert_eq!(told, [Kind::Reply, Kind::Retire], "{driver:?}");
        drop(stream);
        server.end();
    }
}
