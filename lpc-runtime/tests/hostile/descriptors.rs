//! Descriptors that no frame declares, in numbers, and frames whose descriptor does not come.

use lpc::ErrorKind::Protocol;
use lpc_core::frame;

use crate::peer::{MIB, sealed_segment};
use crate::siege::End::CutOff;

attacks! { Greeted;
    that_no_frame_declares: both, CutOff(Protocol), |peer| {
        peer.send_with(&frame::refuse(0), sealed_segment(MIB));
    };
    hundreds_in_one_message: both, CutOff(Protocol), |peer| {
        peer.send_with_copies(&frame::refuse(0), sealed_segment(MIB), 250);
    };
    hundreds_with_a_segment: both, CutOff(Protocol), |peer| {
        peer.send_with_copies(&frame::segment(0, MIB), sealed_segment(MIB), 250);
    };
    one_more_than_declared: both, CutOff(Protocol), |peer| {
        peer.send_with_copies(&frame::segment(0, MIB), sealed_segment(MIB), 2);
        peer.send(&frame::refuse(0));
    };
    one_with_every_byte: both, CutOff(Protocol), |peer| {
        let file = sealed_segment(MIB);
        for byte in frame::segment(0, MIB) {
            peer.send_with(&[byte], &file);
        }
        peer.send(&frame::refuse(0));
    };
    one_with_every_byte_of_a_body: both, CutOff(Protocol), |peer| {
        let file = sealed_segment(MIB);
        for byte in peer.thing(&[0; 100], None, &[]) {
            peer.send_with(&[byte], &file);
        }
    };
    declared_and_missing: both, CutOff(Protocol), |peer| peer.send(&frame::segment(0, MIB));
    of_an_object_declared_and_missing: both, CutOff(Protocol), |peer| {
        peer.send(&frame::object(frame::OBJECT, 0, MIB));
    };
}
