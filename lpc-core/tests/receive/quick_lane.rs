//! Where the sequence of frames leaves the socket, and comes back.

use super::*;
use crate::memory_of_ring::Memory;
use std::sync::Arc;

use lpc_core::receive::{Entrance, Source};
use lpc_core::ring::{Consumer, MAX_FRAME, Own, Peers, Producer, SLOTS};

/// A side, and its peer's end of the ring.
struct Side {
    receiver: Receiver<u32, Memory, Memory>,
    peer: Producer<Memory, Memory>,
    entrance: Arc<Entrance>,
}

impl Side {
    /// One whose peer sends through a ring, which it has mapped.
    fn mapped(role: Role) -> Self {
        let entrance = Arc::<Entrance>::default();
        let receiver = Receiver::new(role, Limits { quick_lane: true, ..limits() });
        let mut receiver = receiver.with_entrance(Arc::clone(&entrance));
        let (own, peers) = (Memory::new(), Memory::new());
        let peer = Producer::new(peers.clone(), own.clone(), SLOTS);
        through_socket(&mut receiver, &frame::ring(), &[7]);
        let next = receiver.next(Vec::with_capacity);
        assert!(matches!(next, Ok(Some(Incoming::Ring { descriptor: Some(7) }))));
        receiver.read_ring(Consumer::new(own, peers, SLOTS));
        Self { receiver, peer, entrance }
    }

    /// The same, where the peer goes on in the ring.
    fn switched(role: Role) -> Self {
        let mut side = Self::mapped(role);
        side.through_socket(&frame::switch(), &[]);
        assert!(matches!(side.next(), Ok(Some(Incoming::Switch))));
        assert_eq!(side.receiver.source(), Source::Ring);
        side
    }

    fn through_socket(&mut self, bytes: &[u8], descriptors: &[u32]) {
        through_socket(&mut self.receiver, bytes, descriptors);
    }

    fn through_ring(&mut self, frame: &[u8]) {
        assert!(self.peer.put(frame).unwrap(), "there is room");
    }

    fn next(&mut self) -> Result<Option<Incoming<u32, Vec<u8>>>, Violation> {
        self.receiver.next(Vec::with_capacity)
    }

    /// The CPU of the next frame, which is an At.
    fn at(&mut self) -> Option<u64> {
        match self.next().unwrap()? {
            Incoming::At { cpu } => Some(cpu),
            other => panic!("{other:?}"),
        }
    }

    /// How much of the ring was taken, where that is said now.
    fn drained(&mut self) -> Option<u64> {
        match self.next().unwrap()? {
            Incoming::Drained { taken } => Some(taken),
            other => panic!("{other:?}"),
        }
    }
}

fn through_socket<O: Own, P: Peers>(receiver: &mut Receiver<u32, O, P>, bytes: &[u8], descriptors: &[u32]) {
    receiver.space()[..bytes.len()].copy_from_slice(bytes);
    receiver.received(bytes.len(), descriptors.iter().copied(), false).unwrap();
}

#[test]
fn a_descriptor_with_a_bell_is_a_stray_one() {
    let mut side = Side::switched(Role::Server);
    side.through_socket(&frame::bell(), &[9]);
    assert!(matches!(side.next(), Err(Violation::StrayDescriptors)));
}

#[test]
fn frames_come_in_the_order_in_which_they_were_sent_whichever_way_they_take() {
    for role in ROLES {
        let mut side = Side::switched(role);
        for frame in [frame::at(1), frame::aside(), frame::at(3), frame::switch()] {
            side.through_ring(&frame);
        }
        let later = [frame::bell(), frame::at(2), frame::at(4), frame::bell(), frame::switch()].concat();
        side.through_socket(&later, &[]);
        for cpu in 1..=4 {
            assert!(!side.receiver.is_drained());
            assert_eq!(side.at(), Some(cpu));
        }
        assert!(matches!(side.next(), Ok(Some(Incoming::Switch))));
        assert_eq!(side.at(), None);
        side.through_ring(&frame::at(5));
        assert_eq!(side.at(), Some(5));
        assert!(side.receiver.is_drained());
    }
}

#[test]
fn a_frame_that_was_announced_is_waited_for() {
    let mut side = Side::switched(Role::Client);
    side.through_ring(&frame::aside());
    side.through_ring(&frame::at(2));
    assert_eq!(side.at(), None);
    assert_eq!(side.receiver.source(), Source::Aside);
    assert!(side.receiver.is_between_frames() && !side.receiver.has_next() && !side.receiver.is_drained());
    let segment = frame::segment(0, PAGE);
    side.through_socket(&segment[..20], &[9]);
    assert_eq!(side.at(), None);
    side.through_socket(&segment[20..], &[]);
    let next = side.next().unwrap();
    assert!(matches!(next, Some(Incoming::Segment { number: 0, descriptor: Some(9), .. })), "{next:?}");
    assert_eq!(side.at(), Some(2));
}

#[test]
fn bells_mean_nothing() {
    let mut side = Side::switched(Role::Server);
    side.through_socket(&frame::bell().repeat(3), &[]);
    assert_eq!(side.at(), None);
    assert!(side.receiver.is_drained());
}

#[test]
fn a_frame_of_any_length_comes_out_of_the_ring_as_it_went_in() {
    let mut side = Side::switched(Role::Server);
    for len in [0, 1, 15, 16, 17, 231, 232, 233, 480, 2000, MAX_FRAME - 16] {
        let body: Vec<u8> = (0..len).map(|at| at as u8).collect();
        side.through_ring(&raw(CALL, BUSY, 9, &body));
        assert!(side.receiver.has_next());
        let next = Seen::from(side.next().unwrap().unwrap());
        let body = SeenBody::Inline(body);
        assert_eq!(next, Seen::Call { call: 9, method: 0, body, loans: Vec::new() });
    }
    assert_eq!(side.receiver.frames_of_ring(), 11);
}

#[test]
fn what_a_frame_in_the_ring_says_of_memory_is_checked_like_any_other() {
    for role in ROLES {
        let mut side = Side::switched(role);
        side.through_ring(&frame::aside());
        side.through_socket(&frame::segment(0, 2 * PAGE), &[3]);
        assert!(matches!(side.next(), Ok(Some(Incoming::Segment { .. }))));
        let inside = block(0, 1, PAGE);
        side.through_ring(&lending(role, b"body", &[inside, inside], 2));
        match Seen::from(side.next().unwrap().unwrap()) {
            Seen::Call { body, loans, .. } | Seen::Reply { body, loans, .. } => {
                assert_eq!((body, loans), (SeenBody::Inline(b"body".to_vec()), vec![inside; 2]));
            }
            other => panic!("{other:?}"),
        }
        side.through_ring(&mapped(role, 0, 0, 10));
        match Seen::from(side.next().unwrap().unwrap()) {
            Seen::Call { body, .. } | Seen::Reply { body, .. } => {
                assert_eq!(body, SeenBody::Block(block(0, 0, 10)));
            }
            other => panic!("{other:?}"),
        }
        side.through_ring(&lending(role, b"body", &[block(0, 1, PAGE + 1)], 1));
        assert!(matches!(side.next(), Err(Violation::Block(_))));
    }
}

#[test]
fn deadlines_and_failures_come_through_the_ring() {
    let mut side = Side::switched(Role::Server);
    let mut call = raw(CALL, 0, 1, b"body");
    frame::set_time_left(&mut call, Duration::from_secs(3));
    side.through_ring(&call);
    let Some(Incoming::Call { time_left, payload: Payload::Inline(body), .. }) = side.next().unwrap() else {
        panic!("a call was sent")
    };
    assert_eq!((time_left, &body[..]), (Some(Duration::from_secs(3)), &b"body"[..]));

    let mut side = Side::switched(Role::Client);
    side.through_ring(&failure(7, &Error::other("no")));
    assert!(matches!(side.next(), Ok(Some(Incoming::Failure { .. }))));
    side.through_ring(&raw(FAILURE, 0, 7, b"\xff"));
    assert!(matches!(side.next(), Err(Violation::Failure(_))));
}

#[test]
fn a_frame_through_the_socket_while_the_ring_is_read_is_found_out() {
    let mut side = Side::switched(Role::Server);
    side.through_socket(&frame::bell(), &[]);
    side.through_socket(&frame::at(1), &[]);
    // It may be the one behind an Aside that is in the ring by now.
    side.through_ring(&frame::at(2));
    assert_eq!(side.at(), Some(2));
    assert!(matches!(side.next(), Err(Violation::Quick(Kind::At, _))));
}

#[test]
fn frames_where_they_do_not_belong_are_refused() {
    let in_socket = |mut receiver: Receiver<u32, Memory, Memory>, bytes: &[u8], descriptors: &[u32]| {
        through_socket(&mut receiver, bytes, descriptors);
        receiver.next(Vec::with_capacity).map(|_| ()).unwrap_err().to_string()
    };
    let in_ring = |frame: &[u8]| {
        let mut side = Side::switched(Role::Server);
        side.through_ring(frame);
        side.next().map(|_| ()).unwrap_err().to_string()
    };
    let off = || Receiver::new(Role::Server, limits());
    let on = || Receiver::new(Role::Server, Limits { quick_lane: true, ..limits() });
    let mapped = || Side::mapped(Role::Server).receiver;
    assert!(in_socket(off(), &frame::ring(), &[1]).contains("nobody asked for"));
    for frame in [frame::bell(), frame::switch()] {
        assert!(in_socket(on(), &frame, &[]).contains("without a ring"));
    }
    assert!(in_socket(mapped(), &frame::ring(), &[1]).contains("a second time"));
    assert!(in_socket(mapped(), &frame::aside(), &[]).contains("in the socket"));
    assert!(in_socket(on(), &frame::ring(), &[]).contains("without its descriptor"));
    for frame in [&frame::bell()[..], &frame::ring(), &frame::segment(0, PAGE)] {
        assert!(in_ring(frame).contains("in the ring"));
    }
    let mut side = Side::switched(Role::Server);
    side.through_ring(&frame::aside());
    assert!(side.next().unwrap().is_none());
    assert!(in_socket(side.receiver, &frame::switch(), &[]).contains("where one frame was to come"));
}

mod the_end {
    use super::*;

    #[test]
    fn what_is_in_the_ring_when_receiving_stops_is_taken_and_that_is_said_once() {
        let mut side = Side::switched(Role::Server);
        side.through_ring(&frame::at(1));
        side.through_ring(&frame::at(2));
        assert!(!side.entrance.close(), "it is for the one that reads the ring to say");
        assert!(side.receiver.has_next());
        assert_eq!((side.at(), side.at()), (Some(1), Some(2)));
        assert!(side.receiver.has_next(), "there is something to say");
        assert_eq!(side.drained(), Some(2));
        side.through_ring(&frame::at(3));
        assert!(!side.receiver.has_next() && side.next().unwrap().is_none());
        assert!(side.receiver.sleep(), "it waits for the end of the stream alone");
        assert_eq!(side.receiver.end(), None, "it has been said");
        assert!(!side.entrance.close());
    }

    #[test]
    fn a_peer_that_goes_on_sending_does_not_keep_this_side() {
        let mut side = Side::switched(Role::Server);
        let _ = side.entrance.close();
        for cpu in 0..SLOTS as u32 {
            side.through_ring(&frame::at(cpu));
            assert_eq!(side.at(), Some(cpu.into()));
        }
        side.through_ring(&frame::at(7));
        assert_eq!(side.drained(), Some(SLOTS));
    }

    #[test]
    fn without_a_ring_the_one_that_stops_the_receiving_says_so() {
        for mut side in [Side::mapped(Role::Server), Side::mapped(Role::Server)] {
            assert!(side.entrance.close());
            // The peer did not know.
            side.through_socket(&frame::switch(), &[]);
            side.through_ring(&frame::at(1));
            assert!(matches!(side.next(), Ok(Some(Incoming::Switch))));
            assert_eq!((side.at(), side.receiver.end()), (None, None));
        }
        let entrance = Arc::<Entrance>::default();
        let receiver: Receiver<u32> = Receiver::new(Role::Server, limits());
        let mut receiver = receiver.with_entrance(Arc::clone(&entrance));
        assert!(entrance.close() && !entrance.close());
        assert_eq!(receiver.end(), None);
    }

    #[test]
    fn the_end_of_the_stream_says_how_much_was_taken() {
        let mut side = Side::switched(Role::Server);
        side.through_ring(&frame::switch());
        assert!(side.next().unwrap().is_none() && side.receiver.source() == Source::Socket);
        assert!(!side.entrance.close());
        assert_eq!((side.receiver.end(), side.receiver.end()), (Some(1), None));
    }

    #[test]
    fn a_peer_that_comes_back_to_the_ring_learns_how_much_was_taken() {
        let mut side = Side::switched(Role::Server);
        side.through_ring(&frame::switch());
        assert!(side.next().unwrap().is_none());
        let _ = side.entrance.close();
        side.through_socket(&frame::switch(), &[]);
        assert!(matches!(side.next(), Ok(Some(Incoming::Switch))));
        side.through_ring(&frame::at(1));
        assert_eq!((side.at(), side.drained()), (Some(1), Some(2)));
    }
}
