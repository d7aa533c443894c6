//! Where the sequence of frames leaves the socket, and comes back.

use super::*;
use lpc_core::receive::Source;
use lpc_core::ring::MAX_FRAME;

/// A side whose peer sends through a ring, which it has mapped.
fn receiver(role: Role) -> Receiver<u32> {
    let mut receiver = Receiver::new(role, Limits { quick_lane: true, ..limits() });
    through_socket(&mut receiver, &frame::ring(), &[7]);
    assert!(matches!(receiver.next(), Ok(Some(Incoming::Ring { descriptor: Some(7) }))));
    receiver.ring_is_mapped();
    receiver
}

/// The same, where the peer goes on in the ring.
fn switched(role: Role) -> Receiver<u32> {
    let mut receiver = receiver(role);
    through_socket(&mut receiver, &frame::switch(), &[]);
    assert!(matches!(receiver.next(), Ok(Some(Incoming::Switch))));
    assert_eq!(receiver.source(), Source::Ring);
    receiver
}

fn through_socket(receiver: &mut Receiver<u32>, bytes: &[u8], descriptors: &[u32]) {
    receiver.space()[..bytes.len()].copy_from_slice(bytes);
    receiver.received(bytes.len(), descriptors.iter().copied(), false).unwrap();
}

fn through_ring(receiver: &mut Receiver<u32>, frame: &[u8]) {
    receiver.ring_space()[..frame.len()].copy_from_slice(frame);
    receiver.received_in_ring(frame.len());
}

#[test]
fn a_descriptor_with_a_bell_is_a_stray_one() {
    let mut receiver = switched(Role::Server);
    through_socket(&mut receiver, &frame::bell(), &[9]);
    assert!(matches!(receiver.next(), Err(Violation::StrayDescriptors)));
}

/// The CPU of the next frame, which is an At.
fn at(receiver: &mut Receiver<u32>) -> Option<u64> {
    match receiver.next().unwrap()? {
        Incoming::At { cpu } => Some(cpu),
        other => panic!("{other:?}"),
    }
}

#[test]
fn frames_come_in_the_order_in_which_they_were_sent_whichever_way_they_take() {
    for role in ROLES {
        let mut receiver = switched(role);
        for frame in [frame::at(1), frame::aside(), frame::at(3), frame::switch()] {
            through_ring(&mut receiver, &frame);
        }
        let later = [frame::bell(), frame::at(2), frame::at(4), frame::bell(), frame::switch()].concat();
        through_socket(&mut receiver, &later, &[]);
        for cpu in 1..=4 {
            assert!(!receiver.is_drained());
            assert_eq!(at(&mut receiver), Some(cpu));
        }
        assert!(matches!(receiver.next(), Ok(Some(Incoming::Switch))));
        assert_eq!(at(&mut receiver), None);
        through_ring(&mut receiver, &frame::at(5));
        assert_eq!(at(&mut receiver), Some(5));
        assert!(receiver.is_drained());
    }
}

#[test]
fn a_frame_that_was_announced_is_waited_for() {
    let mut receiver = switched(Role::Client);
    through_ring(&mut receiver, &frame::aside());
    through_ring(&mut receiver, &frame::at(2));
    assert_eq!(at(&mut receiver), None);
    assert_eq!(receiver.source(), Source::Aside);
    assert!(receiver.is_between_frames() && !receiver.has_next() && !receiver.is_drained());
    let segment = frame::segment(0, PAGE);
    through_socket(&mut receiver, &segment[..20], &[9]);
    assert_eq!(at(&mut receiver), None);
    through_socket(&mut receiver, &segment[20..], &[]);
    let next = receiver.next().unwrap();
    assert!(matches!(next, Some(Incoming::Segment { number: 0, descriptor: Some(9), .. })), "{next:?}");
    assert_eq!(at(&mut receiver), Some(2));
}

#[test]
fn bells_mean_nothing() {
    let mut receiver = switched(Role::Server);
    through_socket(&mut receiver, &frame::bell().repeat(3), &[]);
    assert_eq!(at(&mut receiver), None);
    assert!(receiver.is_drained());
    receiver.check_turn().unwrap();
}

#[test]
fn there_is_space_for_any_frame_of_a_ring() {
    let mut receiver = switched(Role::Server);
    for _ in 0..3 {
        assert!(receiver.ring_space().len() >= MAX_FRAME);
        let call = raw(CALL, 0, 1, &[7; MAX_FRAME - 16]);
        through_ring(&mut receiver, &call);
        assert!(matches!(receiver.next(), Ok(Some(Incoming::Call { .. }))));
    }
}

#[test]
fn a_frame_through_the_socket_while_the_ring_is_read_is_found_out() {
    let mut receiver = switched(Role::Server);
    through_socket(&mut receiver, &frame::bell(), &[]);
    through_socket(&mut receiver, &frame::at(1), &[]);
    assert!(matches!(receiver.check_turn(), Err(Violation::Quick(Kind::At, _))));
}

#[test]
fn frames_where_they_do_not_belong_are_refused() {
    let in_socket = |mut receiver: Receiver<u32>, bytes: &[u8], descriptors: &[u32]| {
        through_socket(&mut receiver, bytes, descriptors);
        receiver.next().map(|_| ()).unwrap_err().to_string()
    };
    let in_ring = |frames: &[&[u8]]| {
        let mut receiver = switched(Role::Server);
        frames.iter().for_each(|frame| through_ring(&mut receiver, frame));
        receiver.next().map(|_| ()).unwrap_err().to_string()
    };
    let off = || Receiver::new(Role::Server, limits());
    let on = || Receiver::new(Role::Server, Limits { quick_lane: true, ..limits() });
    assert!(in_socket(off(), &frame::ring(), &[1]).contains("nobody asked for"));
    for frame in [frame::bell(), frame::switch()] {
        assert!(in_socket(on(), &frame, &[]).contains("without a ring"));
    }
    assert!(in_socket(receiver(Role::Server), &frame::ring(), &[1]).contains("a second time"));
    assert!(in_socket(receiver(Role::Server), &frame::aside(), &[]).contains("in the socket"));
    assert!(in_socket(on(), &frame::ring(), &[]).contains("without its descriptor"));
    for frame in [&frame::bell()[..], &frame::ring(), &frame::segment(0, PAGE)] {
        assert!(in_ring(&[frame]).contains("in the ring"));
    }
    let mut receiver = switched(Role::Server);
    through_ring(&mut receiver, &frame::aside());
    assert!(in_socket(receiver, &frame::switch(), &[]).contains("where one frame was to come"));
}
