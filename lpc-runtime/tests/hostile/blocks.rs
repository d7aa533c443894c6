//! Bodies and loans that are in no segment, or outside it, and tables of loans that are none.

use lpc::ErrorKind::{Decode, Protocol};
use lpc_core::frame::{self, BlockRef, Header, MAX_LOANS, OBJECT};

use crate::peer::{
    MIB, Peer, at_start, file_of, frozen_seals, loan, memfd_of, sealed_segment, segment_seals,
};
use crate::siege::End::{Borne, CutOff, Fails};
use crate::siege::{LOAN, LOANS};
use crate::vault::Thing;

const PLACE: BlockRef = at_start(0, MIB);

attacks! { Greeted;
    a_body_of_no_segment: both, CutOff(Protocol), |peer| peer.pass_in(PLACE, &[]);
    a_body_that_ends_behind_its_segment: both, CutOff(Protocol), |peer| in_segment(peer, at_start(0, MIB + 1));
    a_body_that_begins_behind_its_segment: both, CutOff(Protocol), |peer| {
        in_segment(peer, BlockRef { segment: 0, page: u32::MAX, len: 1 });
    };
    a_body_as_long_as_numbers_go: both, CutOff(Protocol), |peer| {
        in_segment(peer, BlockRef { segment: 0, page: 1, len: u64::MAX });
    };
    a_body_whose_end_is_its_beginning: both, CutOff(Protocol), |peer| {
        in_segment(peer, BlockRef { segment: 0, page: 2, len: u64::MAX - 2 * 4096 + 1 });
    };
    a_body_over_the_limit: both, CutOff(Protocol), |peer| {
        peer.segment(0, 512 * MIB, sealed_segment(512 * MIB));
        peer.pass_in(at_start(0, 300 * MIB), &[]);
    };
    a_body_in_an_object: both, CutOff(Protocol), |peer| {
        peer.object(0, 0, 4096, file_of(4096));
        peer.pass_in(at_start(OBJECT, 4096), &[]);
    };
    a_body_in_a_segment_that_was_retired: both, CutOff(Protocol), |peer| {
        peer.segment(0, MIB, sealed_segment(MIB));
        peer.send(&frame::retire(0));
        peer.pass_in(PLACE, &[]);
    };
    /// Each is copied when it is read: what its sender does with the block meanwhile is its own loss.
    bodies_and_loans_that_overlap: both, Borne, |peer| {
        let body = peer.body(&LOAN);
        peer.segment(0, MIB, memfd_of(&body, MIB, segment_seals()));
        for _ in 0..if peer.is_calling() { 10 } else { 1 } {
            peer.pass_in(at_start(0, body.len() as u64), &[at_start(0, 4096)]);
        }
    };
    a_loan_of_no_segment: both, CutOff(Protocol), |peer| peer.pass(&LOAN, &[PLACE]);
    a_loan_of_no_object: both, CutOff(Protocol), |peer| peer.pass(&LOAN, &[at_start(OBJECT, 1)]);
    a_loan_that_ends_behind_its_segment: both, CutOff(Protocol), |peer| {
        lend(peer, &LOAN, &[BlockRef { segment: 0, page: 1, len: MIB }]);
    };
    a_loan_of_a_segment_that_was_retired: both, CutOff(Protocol), |peer| {
        peer.segment(0, MIB, sealed_segment(MIB));
        peer.send(&frame::retire(0));
        peer.pass(&LOAN, &[PLACE]);
    };
    a_loan_of_an_object_that_was_retired: both, CutOff(Protocol), |peer| {
        peer.object(0, 0, 4096, file_of(4096));
        peer.send(&frame::retire(OBJECT));
        peer.pass(&LOAN, &[at_start(OBJECT, 4096)]);
    };
    a_loan_that_ends_behind_its_object: both, CutOff(Protocol), |peer| {
        peer.object(0, 0, 4096, file_of(5000));
        peer.pass(&LOAN, &[at_start(OBJECT, 4097)]);
    };
    a_table_that_says_it_has_no_loans: both, CutOff(Protocol), |peer| with_count(peer, 0);
    a_table_that_says_it_has_65535: both, CutOff(Protocol), |peer| with_count(peer, u16::MAX);
    a_table_that_says_it_has_one_more: both, CutOff(Protocol), |peer| with_count(peer, 2);
    a_table_that_is_cut_off: both, CutOff(Protocol), |peer| cut_to(peer, 2);
    a_frame_too_short_for_a_table: both, CutOff(Protocol), |peer| cut_to(peer, 1);
    a_loan_that_did_not_come: both, Fails(Decode), |peer| lend(peer, &[LOAN[0], 1, 1], &[PLACE]);
    a_loan_without_a_table: both, Fails(Decode), |peer| peer.pass(&LOAN, &[]);
    a_loan_with_an_index_without_end: both, Fails(Decode), |peer| {
        lend(peer, &[&[LOAN[0], 1], &[0xff; 12][..]].concat(), &[PLACE]);
    };
    a_loan_that_is_taken_twice: both, Fails(Decode), |peer| lend(peer, &[LOANS, 2, 1, 0, 1, 0], &[PLACE]);
    a_loan_that_is_no_text: both, Fails(Decode), |peer| {
        peer.object(0, 0, 4096, memfd_of(b"\xff", 4096, frozen_seals()));
        let letters = crate::peer::encoded(&Thing::Letters("".into()))[0];
        peer.pass(&[&[letters][..], &loan(0)].concat(), &[at_start(OBJECT, 4096)]);
    };
    loans_that_nobody_takes: both, Borne, |peer| lend(peer, &[0], &[at_start(0, 4096); MAX_LOANS]);
    a_loan_of_nothing: both, Borne, |peer| lend(peer, &LOAN, &[BlockRef { segment: 0, page: 256, len: 0 }]);
}

fn in_segment(peer: &mut Peer, place: BlockRef) {
    peer.segment(0, MIB, sealed_segment(MIB));
    peer.pass_in(place, &[]);
}

fn lend(peer: &mut Peer, thing: &[u8], places: &[BlockRef]) {
    peer.segment(0, MIB, sealed_segment(MIB));
    peer.pass(thing, places);
}

/// Sends a frame whose table of one loan claims another count.
fn with_count(peer: &mut Peer, count: u16) {
    peer.segment(0, MIB, sealed_segment(MIB));
    let mut frame = peer.thing(&LOAN, None, &[PLACE]);
    let at = frame.len() - 2;
    frame[at..].copy_from_slice(&count.to_le_bytes());
    peer.send(&frame);
}

/// Sends a frame of which only so many bytes are left behind the header.
fn cut_to(peer: &mut Peer, len: usize) {
    peer.segment(0, MIB, sealed_segment(MIB));
    let mut frame = peer.thing(&LOAN, None, &[PLACE]);
    frame.drain(Header::LEN..frame.len() - 2);
    frame.truncate(Header::LEN + len);
    frame[..4].copy_from_slice(&(len as u32).to_le_bytes());
    peer.send(&frame);
}
