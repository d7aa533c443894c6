//! Deadlines of callers that receive for others.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use lpc_core::frame::{self, Kind};

use crate::raw::Listener;
use crate::service::{Client, DRIVERS};

/// However much comes, none of it the answer.
#[test]
fn a_flood_of_frames_does_not_keep_a_caller_beyond_its_deadline() {
    for driver in DRIVERS {
        let listener = Listener::bind();
        let has_ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut server = listener.accept();
                server.next(&[Kind::Call]);
                let flood = frame::at(1).repeat(4096);
                // Until the client hangs up, too.
                while !has_ended.load(Relaxed) {
                    if server.0.write_all(&flood).is_err() {
                        return;
                    }
                }
            });
            let client = Client::connect(driver, &listener.port);
            let error = client.with_deadline(Duration::from_millis(50)).add(1, 2).unwrap_err();
            has_ended.store(true, Relaxed);
            assert!(error.is_timed_out(), "{driver:?}: {error:?}");
        });
    }
}
