//! The rings of the quick lane between two ends in one thread, and against a peer that writes what it likes.

#[path = "support/memory.rs"]
mod memory;

use std::collections::VecDeque;

use lpc_core::frame::{self, Body, CallId, Header};
use lpc_core::ring::{Consumer, LEN, MAX_FRAME, Own, Producer, RingViolation, SLOTS};
use memory::Memory;
use proptest::prelude::*;

/// The next frame, as a whole; `None` where there is none.
fn take(consumer: &mut Consumer<Memory, Memory>) -> Result<Option<Vec<u8>>, RingViolation> {
    let Some(found) = consumer.next()? else { return Ok(None) };
    let mut frame = found.header().to_vec();
    found.take(&mut frame);
    Ok(Some(frame))
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
        for step in steps {
            match step {
                Some((len, fill)) => {
                    let frame = frame(len, fill);
                    if producer.put(&frame).unwrap() {
                        sent.push_back(frame);
                    }
                }
                None => assert_eq!(take(&mut consumer).unwrap(), sent.pop_front()),
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
        for len in lens {
            let before = consumer.taken();
            match take(&mut consumer) {
                Ok(Some(frame)) => {
                    assert!((Header::LEN..=MAX_FRAME).contains(&frame.len()));
                    assert!(consumer.taken() > before);
                }
                Ok(None) | Err(_) => assert_eq!(consumer.taken(), before),
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
    for _ in 0..SLOTS {
        assert!(!producer.is_empty().unwrap());
        assert!(!producer.put(&frame(MAX_FRAME, 1)).unwrap() || consumer.taken() > 16);
        if producer.written() > SLOTS {
            return;
        }
        assert!(matches!(take(&mut consumer).unwrap().unwrap().len(), 40 | 16));
    }
    panic!("it has room again");
}

#[test]
fn a_frame_that_is_too_large_is_not_sent() {
    let ((mut producer, mut consumer), ..) = ends(SLOTS);
    assert!(!producer.put(&frame(MAX_FRAME + 1, 1)).unwrap());
    assert!(producer.put(&frame(MAX_FRAME, 1)).unwrap());
    assert!(consumer.next().unwrap().is_some() && consumer.is_ready(), "it is there until it is taken");
    assert_eq!(take(&mut consumer).unwrap().unwrap().len(), MAX_FRAME);
}

#[test]
fn a_receiver_that_sleeps_is_woken_once_for_each_sleep() {
    let ((mut producer, mut consumer), ..) = ends(SLOTS);
    let small = frame(16, 1);
    assert!(producer.put(&small).unwrap());
    assert!(!producer.has_to_wake(), "it has never slept");
    assert!(!consumer.sleep(), "there is something");
    assert!(!producer.has_to_wake());
    assert_eq!(take(&mut consumer).unwrap().unwrap(), small);
    for _ in 0..2 {
        assert!(consumer.sleep());
        assert!(!producer.has_to_wake(), "nothing was sent");
        assert!(producer.put(&small).unwrap());
        assert!(producer.has_to_wake());
        assert!(producer.put(&small).unwrap());
        assert!(!producer.has_to_wake(), "it has been woken");
        while take(&mut consumer).unwrap().is_some() {}
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
    assert_eq!(take(&mut consumer), Err(RingViolation::TooLong(long)));
}
