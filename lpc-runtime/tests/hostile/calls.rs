//! What a client calls that should not, or too often.

use std::time::Duration;

use lpc::ErrorKind::{Disconnected, Protocol};
use lpc_core::frame;

use crate::peer::{Answer, encoded};
use crate::siege::End::{Borne, CutOff, Leaves};

attacks! { Greeted;
    a_method_that_there_is_not: server, Borne, |peer| {
        let mut frame = peer.frame("look", &[0], None, &[]);
        frame[6..8].fill(0xff);
        peer.send(&frame);
        assert!(matches!(peer.answer(), Answer::Failure { .. }));
    };
    /// Only the peer is at a loss which answer is whose.
    one_number_for_two_calls: server, Borne, |peer| {
        let frame = peer.frame("nap", &encoded(&20_u64), None, &[]);
        peer.send(&frame.repeat(2));
    };
    one_number_for_two_results_in_blocks: server, CutOff(Protocol), |peer| {
        let frame = peer.frame("make", &encoded(&(100_000_u64, 7_u8)), None, &[]);
        peer.send(&frame.repeat(2));
    };
    a_hundred_thousand_and_no_answer_is_read: server, Leaves(Disconnected), |peer| {
        let frame = peer.frame("make", &encoded(&(1000_u64, 7_u8)), None, &[]);
        for _ in 0..100 {
            if !peer.send_for(&frame.repeat(1000), Duration::from_millis(20)) {
                break;
            }
        }
    };
    a_thousand_that_take_long: server, Leaves(Disconnected), |peer| {
        let mut frame = peer.frame("nap", &encoded(&10_u64), None, &[]);
        frame::mark_busy(&mut frame);
        peer.send(&frame.repeat(1000));
    };
    a_thousand_that_take_long_of_a_client_that_stays: server, Borne, |peer| {
        let mut frame = peer.frame("nap", &encoded(&1_u64), None, &[]);
        frame::mark_busy(&mut frame);
        peer.send(&frame.repeat(1000));
    };
}
