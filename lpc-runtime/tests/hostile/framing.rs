//! Frames that are none, are endless, end in the middle, or go the wrong way.

use std::net::Shutdown;
use std::time::Duration;

use lpc::ErrorKind::{Disconnected, Protocol};
use lpc_core::frame::{self, CallId, Header};
use lpc_core::receive::Role;

use crate::peer::{MIB, Peer, reply};
use crate::siege::End::{Borne, CutOff, Leaves};

attacks! { Greeted;
    a_body_of_4_gib: both, CutOff(Protocol), |peer| {
        let mut frame = peer.thing(&[0], None, &[]);
        frame[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        peer.send(&frame);
    };
    /// It is within the limit, and does not come: no memory is spent on a length.
    a_body_of_200_mib_that_does_not_come: both, Leaves(Disconnected), |peer| {
        let mut frame = peer.thing(&[0], None, &[]);
        frame[..4].copy_from_slice(&(200_u32 << 20).to_le_bytes());
        peer.send(&frame);
    };
    a_release_with_a_body: server, CutOff(Protocol), |peer| longer(peer, &frame::release(CallId::new(1)));
    a_retire_with_a_body: both, CutOff(Protocol), |peer| longer(peer, &frame::retire(0));
    a_return_with_a_body: both, CutOff(Protocol), |peer| longer(peer, &frame::returned(0, 0));
    a_refuse_with_a_body: both, CutOff(Protocol), |peer| longer(peer, &frame::refuse(0));
    a_resend_with_a_body: both, CutOff(Protocol), |peer| longer(peer, &frame::resend(CallId::new(1)));
    a_segment_of_another_length: both, CutOff(Protocol), |peer| longer(peer, &frame::segment(0, MIB)[..Header::LEN]);
    half_a_header_and_silence: both, Leaves(Disconnected), |peer| {
        let frame = peer.thing(&[0; 100], None, &[]);
        peer.send(&frame[..7]);
    };
    half_a_body_and_silence: both, Leaves(Disconnected), |peer| {
        let frame = peer.thing(&[0; 100], None, &[]);
        peer.send(&frame[..50]);
    };
    half_a_frame_and_the_end: both, CutOff(Disconnected), |peer| {
        let frame = peer.thing(&[0; 100], None, &[]);
        peer.send(&frame[..50]);
        peer.shut_down(Shutdown::Write);
    };
    half_a_segment_with_its_descriptor: both, Leaves(Disconnected), |peer| {
        peer.send_with(&frame::segment(0, MIB)[..10], crate::peer::sealed_segment(MIB));
    };
    one_byte_at_a_time: both, Borne, |peer| {
        for byte in peer.thing(&[0], None, &[]) {
            peer.send(&[byte]);
        }
    };
    one_byte_now_and_then: both, Leaves(Disconnected), |peer| {
        let frame = peer.thing(&[0; 1000], None, &[]);
        peer.dribble(frame[..50].to_vec(), Duration::from_millis(20));
    };
    a_kind_that_there_is_not: both, CutOff(Protocol), |peer| altered(peer, 4, 0);
    a_kind_of_another_version: both, CutOff(Protocol), |peer| altered(peer, 4, 200);
    flags_that_there_are_not: both, CutOff(Protocol), |peer| altered(peer, 5, 0x80);
    flags_of_another_kind_of_frame: both, CutOff(Protocol), |peer| {
        let mut frame = frame::refuse(0);
        frame[5] = 1;
        peer.send(&frame);
    };
    a_block_that_is_no_reference: both, CutOff(Protocol), |peer| altered(peer, 5, 1);
    nothing_but_noise: both, CutOff(Protocol), |peer| peer.send(&[0xa5; 10_000]);
    another_protocol: both, CutOff(Protocol), |peer| peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    /// To a server a reply, to a client a call.
    the_wrong_way: both, CutOff(Protocol), |peer| {
        let mut frame = reply(1, b"", None, &[]);
        if peer.role() == Role::Server {
            frame::begin_call(&mut frame, 0);
        }
        peer.send(&frame);
    };
    a_failure_to_a_server: server, CutOff(Protocol), |peer| altered(peer, 4, 3);
    a_release_to_a_client: client, CutOff(Protocol), |peer| peer.send(&frame::release(CallId::new(1)));
    frames_and_then_the_end: server, CutOff(Disconnected), |peer| {
        for _ in 0..10 {
            peer.pass(&[0], &[]);
        }
        peer.shut_down(Shutdown::Write);
    };
    the_end_before_the_reply: client, CutOff(Disconnected), |peer| peer.shut_down(Shutdown::Write);
    a_peer_that_does_not_receive: both, Leaves(Disconnected), |peer| peer.shut_down(Shutdown::Read);
}

/// Sends a frame, which has a header only, with bytes behind it that it says are its own.
fn longer(peer: &mut Peer, frame: &[u8]) {
    let mut frame = [frame, &[0; 3]].concat();
    frame[0] = 3;
    peer.send(&frame);
}

/// Sends a frame that was in order but for this byte.
fn altered(peer: &mut Peer, at: usize, byte: u8) {
    let mut frame = peer.thing(&[0], None, &[]);
    frame[at] = byte;
    peer.send(&frame);
}
