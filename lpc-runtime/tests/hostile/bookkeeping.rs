//! Frames about what is not there, or not any more, once and by the thousand.

use lpc::ErrorKind::{Disconnected, Protocol};
use lpc_core::frame::{self, BlockRef, CallId, OBJECT};

use crate::peer::{Answer, MIB, Peer, encoded, sealed_segment};
use crate::siege::End::{Borne, CutOff, Leaves};

attacks! { Greeted;
    a_return_of_what_was_never_lent: both, CutOff(Protocol), |peer| peer.send(&frame::returned(9, 0));
    a_return_of_an_object: both, CutOff(Protocol), |peer| peer.send(&frame::returned(OBJECT, 0));
    a_return_without_end: both, CutOff(Protocol), |peer| peer.send(&frame::returned(u32::MAX, u32::MAX));
    a_second_return: both, CutOff(Protocol), |peer| {
        let BlockRef { segment, page, .. } = lent(peer);
        peer.send(&frame::returned(segment, page).repeat(2));
    };
    a_return_of_a_page_inside_a_loan: both, CutOff(Protocol), |peer| {
        let BlockRef { segment, page, .. } = lent(peer);
        peer.send(&frame::returned(segment, page + 1));
    };
    a_flood_of_returns: both, CutOff(Protocol), |peer| flood(peer, &frame::returned(0, 9));
    a_retired_segment_that_never_was: both, CutOff(Protocol), |peer| peer.send(&frame::retire(5));
    a_retired_object_that_never_was: both, CutOff(Protocol), |peer| peer.send(&frame::retire(OBJECT | 5));
    a_retired_segment_of_no_number: both, CutOff(Protocol), |peer| {
        let mut frame = frame::retire(0);
        frame[8..].fill(0xff);
        peer.send(&frame);
    };
    a_segment_retired_twice: both, CutOff(Protocol), |peer| {
        peer.segment(3, MIB, sealed_segment(MIB));
        peer.send(&frame::retire(3).repeat(2));
    };
    a_flood_of_retires: both, CutOff(Protocol), |peer| flood(peer, &frame::retire(1));
    /// A peer that cannot read a segment may say so before it can know that the segment is gone.
    a_refusal_of_a_segment_that_never_was: both, Borne, |peer| peer.send(&frame::refuse(5));
    a_refusal_of_an_object: both, Borne, |peer| peer.send(&frame::refuse(OBJECT));
    a_refusal_of_no_number: both, CutOff(Protocol), |peer| {
        let mut frame = frame::refuse(0);
        frame[8..].fill(0xff);
        peer.send(&frame);
    };
    a_flood_of_cancellations_of_nothing: server, Borne, |peer| flood(peer, &frame::cancel(CallId::new(77)));
    a_cancellation_by_a_server: client, CutOff(Protocol), |peer| peer.send(&frame::cancel(CallId::new(77)));
    a_client_that_says_it_closes: server, CutOff(Protocol), |peer| peer.send(&frame::closing(0));
    a_flood_of_cpus_that_no_machine_has: both, Borne, |peer| {
        let mut frame = frame::at(u32::MAX);
        flood(peer, &frame);
        frame[8..].fill(0xff);
        peer.send(&frame);
    };
    a_flood_of_refusals: both, Borne, |peer| flood(peer, &frame::refuse(0));
    a_resend_of_no_call: both, CutOff(Protocol), |peer| peer.send(&frame::resend(CallId::new(77)));
    a_flood_of_resends: both, CutOff(Protocol), |peer| flood(peer, &frame::resend(CallId::new(77)));
    a_resend_of_what_was_not_in_a_block: client, CutOff(Protocol), |peer| {
        let call = peer.asked().call;
        peer.send(&frame::resend(CallId::new(call)));
    };
    a_resend_of_a_result_that_was_not_in_a_block: server, CutOff(Protocol), |peer| {
        let call = peer.call("length", &encoded(&b"abc"[..]), &[]);
        assert_eq!(peer.answer().result(), encoded(&3_u64));
        peer.send(&frame::resend(CallId::new(call)));
    };
    a_second_resend: server, CutOff(Protocol), |peer| {
        let call = CallId::new(mapped(peer));
        peer.send(&frame::resend(call).repeat(2));
    };
    a_resend_after_the_release: server, CutOff(Protocol), |peer| {
        let call = CallId::new(mapped(peer));
        peer.send(&[frame::release(call), frame::resend(call)].concat());
    };
    a_release_of_no_call: server, CutOff(Protocol), |peer| peer.send(&frame::release(CallId::new(77)));
    a_second_release: server, CutOff(Protocol), |peer| {
        let call = CallId::new(mapped(peer));
        peer.send(&frame::release(call).repeat(2));
    };
    a_flood_of_releases: server, CutOff(Protocol), |peer| flood(peer, &frame::release(CallId::new(77)));
    results_and_loans_that_are_never_given_back: server, Leaves(Disconnected), |peer| {
        for _ in 0..20 {
            mapped(peer);
            lent(peer);
        }
    };
}

fn flood(peer: &mut Peer, frame: &[u8]) {
    for _ in 0..10 {
        peer.send(&frame.repeat(1000));
    }
}

/// Something that the other side has lent.
fn lent(peer: &mut Peer) -> BlockRef {
    if !peer.is_calling() {
        return peer.asked().loans[0];
    }
    peer.call("lend", &encoded(&(100_000_u64, 7_u8)), &[]);
    match peer.answer() {
        Answer::Reply { loans, .. } => loans[0],
        other => panic!("{other:?}"),
    }
}

/// Has a server answer in a block, to a call of this id.
fn mapped(peer: &mut Peer) -> u64 {
    let call = peer.call("make", &encoded(&(100_000_u64, 7_u8)), &[]);
    assert!(matches!(peer.answer(), Answer::Reply { is_mapped: true, .. }));
    call
}
