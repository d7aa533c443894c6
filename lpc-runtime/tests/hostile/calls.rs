//! What a client calls that should not, or too often.

use std::time::Duration;

use lpc::ErrorKind::{Decode, Disconnected, Protocol};
use lpc_core::form::Question;
use lpc_core::frame::{self, CallId};
use lpc_core::receive::MAX_UNDECODABLE;

use crate::peer::{Answer, Peer, encoded};
use crate::siege::End::{Borne, CutOff, Fails, Leaves};

attacks! { Greeted;
    a_method_that_there_is_not: server, Borne, |peer| {
        let mut frame = peer.frame("look", &[0], None, &[]);
        frame[6] = 0xfe;
        peer.send(&frame);
        assert!(matches!(peer.answer(), Answer::Failure { .. }));
    };
    one_number_for_two_calls: server, CutOff(Protocol), |peer| {
        let frame = peer.frame("nap", &encoded(&20_u64), None, &[]);
        peer.send(&frame.repeat(2));
    };
    one_number_for_two_results_in_blocks: server, CutOff(Protocol), |peer| {
        let frame = peer.frame("make", &encoded(&(100_000_u64, 7_u8)), None, &[]);
        peer.send(&frame.repeat(2));
    };
    what_a_method_looks_like_where_there_is_none: server, Borne, |peer| {
        let question = Question { method: 1000 }.encode();
        let mut frame = peer.frame("look", &encoded(&question), None, &[]);
        frame[6..8].fill(0xff);
        peer.send(&frame);
        let Answer::Failure { text, .. } = peer.answer() else { panic!("there is no form of it") };
        assert!(text.contains("has no method"), "{text}");
    };
    what_a_method_looks_like_asked_in_garbage: server, Fails(Decode), |peer| {
        let mut frame = peer.frame("look", &[0xff; 9], None, &[]);
        frame[6..8].fill(0xff);
        peer.send(&frame);
    };
    what_a_method_looks_like_asked_with_more_than_a_question: server, Fails(Decode), |peer| {
        let question = [Question { method: 0 }.encode(), vec![0]].concat();
        let mut frame = peer.frame("look", &encoded(&question), None, &[]);
        frame[6..8].fill(0xff);
        peer.send(&frame);
    };
    nothing_but_what_does_not_decode: server, CutOff(Protocol), |peer| {
        for _ in 0..=MAX_UNDECODABLE {
            peer.pass(&[99], &[]);
            match peer.answer() {
                Answer::Failure { text, .. } => assert!(text.contains("argument `thing`"), "{text}"),
                answer => panic!("{answer:?}"),
            }
        }
    };
    much_that_does_not_decode: server, Borne, |peer| {
        for turn in 0..2 * MAX_UNDECODABLE {
            peer.pass(if turn.is_multiple_of(1000) { &[0] } else { &[99] }, &[]);
            peer.answer();
        }
    };
    time_left_that_is_not_there: server, CutOff(Protocol), |peer| {
        let mut frame = peer.frame("look", &[0], None, &[]);
        frame[5] |= 8;
        peer.send(&frame);
    };
    no_time_left: server, Borne, |peer| {
        let mut frame = peer.frame("nap", &encoded(&1000_u64), None, &[]);
        frame::set_time_left(&mut frame, Duration::ZERO);
        peer.send(&frame);
        assert!(matches!(peer.answer(), Answer::Failure { .. }));
    };
    cancelled_as_soon_as_made_by_the_thousand: server, Leaves(Disconnected), |peer| {
        for _ in 0..1000 {
            let call = peer.frame("nap", &encoded(&1_u64), None, &[]);
            let id = u64::from_le_bytes(call[8..16].try_into().unwrap());
            if !peer.send_for(&[&call[..], &frame::cancel(CallId::new(id))].concat(), Duration::from_secs(5)) {
                break;
            }
        }
    };
    a_hundred_thousand_and_no_answer_is_read: server, Leaves(Disconnected), |peer| {
        for _ in 0..100 {
            let calls = many(peer, "make", &encoded(&(1000_u64, 7_u8)));
            if !peer.send_for(&calls, Duration::from_millis(20)) {
                break;
            }
        }
    };
    a_thousand_that_take_long: server, Leaves(Disconnected), |peer| {
        let calls = many(peer, "nap", &encoded(&10_u64));
        peer.send(&calls);
    };
    a_thousand_that_take_long_of_a_client_that_stays: server, Borne, |peer| {
        let calls = many(peer, "nap", &encoded(&1_u64));
        peer.send(&calls);
    };
}

/// A thousand calls of a client that says it waits for others, too.
fn many(peer: &mut Peer, method: &str, arguments: &[u8]) -> Vec<u8> {
    let call = |_| {
        let mut frame = peer.frame(method, arguments, None, &[]);
        frame::mark_busy(&mut frame);
        frame
    };
    (0..1000).flat_map(call).collect()
}
