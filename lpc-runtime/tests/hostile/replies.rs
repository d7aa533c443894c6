//! What a server answers that should not.

use lpc::ErrorKind::Protocol;
use lpc_core::frame::{self, Body, CallId, MAX_LOANS};

use crate::peer::{MIB, Peer, at_start, reply, sealed_segment};
use crate::siege::End::CutOff;

attacks! { Greeted;
    nobody_asked_for: client, CutOff(Protocol), |peer| peer.send(&reply(77, &[0, 0], None, &[]));
    to_a_call_of_another_number: client, CutOff(Protocol), |peer| {
        let call = peer.asked().call;
        peer.send(&reply(call ^ 1 << 32, &[0, 0], None, &[]));
    };
    twice: client, CutOff(Protocol), |peer| {
        let call = peer.asked().call;
        peer.pass(&[0], &[]);
        assert!(peer.is_asked(), "a second call");
        peer.send(&reply(call, &[0, 0], None, &[]));
    };
    twice_at_once: client, CutOff(Protocol), |peer| {
        let frame = reply(peer.asked().call, &[0, 0], None, &[]);
        peer.send(&frame.repeat(2));
    };
    a_flood_of_them: client, CutOff(Protocol), |peer| {
        let call = peer.asked().call;
        for number in 1..10 {
            peer.send(&reply(call + number, &[0, 0], None, &[]).repeat(1000));
        }
    };
    a_flood_of_them_in_blocks: client, CutOff(Protocol), |peer| {
        peer.segment(0, MIB, sealed_segment(MIB));
        let places = [at_start(0, MIB); MAX_LOANS];
        for number in 1..10 {
            peer.send(&reply(number, &[], Some(at_start(0, MIB)), &places));
        }
    };
    a_failure_of_garbage: client, CutOff(Protocol), |peer| fail(peer, &[0xff; 100]);
    a_failure_of_nothing: client, CutOff(Protocol), |peer| fail(peer, b"");
    a_failure_with_trailing_bytes: client, CutOff(Protocol), |peer| fail(peer, &[0; 1000]);
    a_failure_of_a_mib: client, CutOff(Protocol), |peer| fail(peer, &vec![0; MIB as usize]);
    a_failure_nobody_asked_for: client, CutOff(Protocol), |peer| {
        let mut frame = Vec::new();
        frame::begin_failure(&mut frame);
        frame.extend(crate::peer::encoded(&lpc::Error::other("no").to_wire()));
        frame::seal(&mut frame, CallId::new(77), Body::Inline, &[]);
        peer.send(&frame);
    };
}

fn fail(peer: &mut Peer, error: &[u8]) {
    let mut frame = Vec::new();
    frame::begin_failure(&mut frame);
    frame.extend_from_slice(error);
    frame::seal(&mut frame, CallId::new(peer.asked().call), Body::Inline, &[]);
    peer.send(&frame);
}
