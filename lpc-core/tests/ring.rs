//! The rings of the quick lane between two ends in one thread, and against a peer that writes what it likes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use lpc_core::frame::{self, Body, CallId, Header};
use lpc_core::ring::{Consumer, LEN, MAX_FRAME, Own, Peers, Producer, RingViolation, SLOTS, Taken};
use proptest::prelude::*;

/// The memory of one side.
#[derive(Clone)]
struct Memory(Rc<RefCell<Vec<u8>>>);

impl Memory {
    fn new() -> Self {
        Self(Rc::new(RefCell::new(vec![0; LEN])))
    }
}

impl Own for Memory {
    fn write(&self, offset: usize, bytes: &[u8]) {
        self.0.borrow_mut()[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn store(&self, offset: usize, value: u64) {
        self.write(offset, &value.to_le_bytes());
    }
}

impl Peers for Memory {
    fn read(&self, offset: usize, into: &mut [u8]) {
        into.copy_from_slice(&self.0.borrow()[offset..offset + into.len()]);
    }

    fn load(&self, offset: usize) -> u64 {
        let mut word = [0; 8];
        self.read(offset, &mut word);
        u64::from_le_bytes(word)
    }
}

type Ends = (Producer<Memory, Memory>, Consumer<Memory, Memory>);

/// Both ends of one direction, and the memory of the sender's side and the receiver's.
fn ends(slots: u64) -> (Ends, Memory, Memory) {
    let (senders, receivers) = (Memory::new(), Memory::new());
    let producer = Producer::new(senders.clone(), receivers.clone(), slots);
    let consumer = Consumer::new(receivers.clone(), senders.clone(), slots);
    ((producer, consumer), senders, receivers)
}

/// A frame of `len` bytes in all.
fn frame(len: usize, fill: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    frame::begin_call(&mut frame, 1);
    frame.resize(len, fill);
    frame::seal(&mut frame, CallId::new(u64::from(fill)), Body::Inline, &[]);
    frame
}

proptest! {
    #[test]
    fn frames_arrive_as_they_were_sent_and_in_their_order(
        steps in prop::collection::vec(prop::option::weighted(0.6, (Header::LEN..MAX_FRAME + 1, any::<u8>())), 1..400),
        slots in 2_u32..9,
    ) {
        let ((mut producer, mut consumer), ..) = ends(1 << slots);
        let mut sent = VecDeque::new();
        let mut space = vec![0; MAX_FRAME];
        for step in steps {
            match step {
                Some((len, fill)) => {
                    let frame = frame(len, fill);
                    if producer.put(&frame).unwrap() {
                        sent.push_back(frame);
                    }
                }
                None => match (sent.pop_front(), consumer.take(&mut space).unwrap()) {
                    (Some(frame), Taken::Frame(len)) => assert_eq!(frame, space[..len]),
                    (None, Taken::Nothing) => {}
                    other => panic!("{other:?}"),
                },
            }
            assert_eq!(consumer.is_ready(), !sent.is_empty());
            assert_eq!(producer.is_empty().unwrap(), sent.is_empty());
        }
    }

    /// Whatever the peer's memory says: a frame of a possible length, nothing, or a violation.
    #[test]
    fn no_memory_of_the_peers_brings_an_end_out_of_step(
        words in prop::collection::vec((0..LEN / 8, any::<u64>()), 0..60),
        stamps in prop::collection::vec((0..8_u64, 0..20_u64), 0..20),
        lens in prop::collection::vec(0..5000_usize, 1..40),
    ) {
        let ((mut producer, mut consumer), senders, receivers) = ends(8);
        for (word, value) in words {
            senders.store(word * 8, value);
            receivers.store(word * 8, value);
        }
        for (slot, stamp) in stamps {
            senders.store(4096 + slot as usize * 256, stamp);
        }
        let mut space = vec![0; MAX_FRAME];
        for len in lens {
            let before = consumer.taken();
            match consumer.take(&mut space) {
                Ok(Taken::Frame(len)) => {
                    assert!((Header::LEN..=MAX_FRAME).contains(&len));
                    assert!(consumer.taken() > before);
                }
                Ok(Taken::Nothing | Taken::NoSpace) | Err(_) => assert_eq!(consumer.taken(), before),
            }
            let written = producer.written();
            if let Ok(true) = producer.put(&vec![0; len]) {
                assert!(producer.written() - written <= 8);
            }
            producer.has_to_wake();
        }
    }
}

#[test]
fn a_full_ring_takes_one_more_frame_and_is_used_again_when_it_is_empty() {
    let ((mut producer, mut consumer), ..) = ends(SLOTS);
    let small = frame(40, 7);
    while producer.put(&small).unwrap() {}
    assert_eq!(producer.written(), SLOTS - 1);
    producer.put_last(&frame(16, 8)).unwrap();
    let mut space = [0; MAX_FRAME];
    for _ in 0..SLOTS {
        assert!(!producer.is_empty().unwrap());
        assert!(!producer.put(&frame(MAX_FRAME, 1)).unwrap() || consumer.taken() > 16);
        if producer.written() > SLOTS {
            return;
        }
        assert!(matches!(consumer.take(&mut space), Ok(Taken::Frame(40 | 16))));
    }
    panic!("it has room again");
}

#[test]
fn a_frame_that_is_too_large_is_not_sent() {
    let ((mut producer, mut consumer), ..) = ends(SLOTS);
    assert!(!producer.put(&frame(MAX_FRAME + 1, 1)).unwrap());
    assert!(producer.put(&frame(MAX_FRAME, 1)).unwrap());
    let mut space = [0; MAX_FRAME];
    assert_eq!(consumer.take(&mut space[..MAX_FRAME - 1]).unwrap(), Taken::NoSpace);
    assert_eq!(consumer.take(&mut space).unwrap(), Taken::Frame(MAX_FRAME));
}

#[test]
fn a_receiver_that_sleeps_is_woken_once_for_each_sleep() {
    let ((mut producer, mut consumer), ..) = ends(SLOTS);
    let (small, mut space) = (frame(16, 1), [0; 64]);
    assert!(producer.put(&small).unwrap());
    assert!(!producer.has_to_wake(), "it has never slept");
    assert!(!consumer.sleep(), "there is something");
    assert!(!producer.has_to_wake());
    assert_eq!(consumer.take(&mut space).unwrap(), Taken::Frame(16));
    for _ in 0..2 {
        assert!(consumer.sleep());
        assert!(!producer.has_to_wake(), "nothing was sent");
        assert!(producer.put(&small).unwrap());
        assert!(producer.has_to_wake());
        assert!(producer.put(&small).unwrap());
        assert!(!producer.has_to_wake(), "it has been woken");
        while consumer.take(&mut space).unwrap() != Taken::Nothing {}
        // The second time without a word that it woke up.
    }
    consumer.wake();
    assert!(producer.put(&small).unwrap());
    assert!(!producer.has_to_wake());
}

#[test]
fn a_peer_that_lies_is_found_out() {
    let ((mut producer, mut consumer), senders, receivers) = ends(SLOTS);
    let small = frame(16, 1);
    while producer.put(&small).unwrap() {}
    let sent = producer.written();
    for said in [sent + 1, u64::MAX] {
        receivers.store(0, said);
        assert_eq!(producer.put(&small), Err(RingViolation::Taken { said, sent }));
    }
    receivers.store(0, 9);
    assert!(producer.put(&small).unwrap());
    receivers.store(0, 8);
    assert!(producer.is_empty().is_err(), "it takes back what it said");

    senders.write(4096 + 8, &u32::MAX.to_le_bytes());
    let long = u64::from(u32::MAX) + Header::LEN as u64;
    assert_eq!(consumer.take(&mut [0; MAX_FRAME]), Err(RingViolation::TooLong(long)));
}
