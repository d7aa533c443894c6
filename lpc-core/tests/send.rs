//! The sending half: what comes out of socket and ring, against a model of what went in.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/memory.rs"]
mod memory;

use lpc_core::frame::{self, CallId, Flags, Header, Kind};
use lpc_core::receive::{Incoming, Receiver, Role};
use lpc_core::ring::{Consumer, NoRing, Own, Producer};
use lpc_core::send::{
    AfterWrite, Announced, BackPressure, Batch, MUCH, Over, Sender, StreamPosition, WriteOutcome,
};
use lpc_core::{Limits, send};
use memory::Memory;
use proptest::prelude::*;

/// Slots of the ring: few, so that it is full at times. A frame takes 17 at most.
const SLOTS: u64 = 32;

type TestSender = Sender<u64, Memory, Memory>;

/// A Reply of this number and length: all that is sent is told apart by it.
fn reply(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::begin_reply(&mut bytes);
    bytes.resize(Header::LEN + len, number as u8);
    frame::seal(&mut bytes, CallId::new(number), frame::Body::Inline, &[]);
    bytes
}

/// What the receiver of the frames saw, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Reply(u64, usize),
    /// A segment's number, and its descriptor if that came.
    Segment(u32, Option<u64>),
}

/// Sender, wire and receiver, and what they should have done.
struct World {
    sender: TestSender,
    /// What went through the socket and was not received yet: bytes, and descriptors at their places.
    wire: Vec<u8>,
    descriptors: Vec<(usize, u64)>,
    receiver: Receiver<u64, Memory, Memory>,
    is_asleep: bool,
    /// What was sent, with where it ends.
    sent: Vec<(Seen, Option<StreamPosition>)>,
    seen: Vec<Seen>,
    /// Bytes that the receiver took from the socket, and descriptors.
    gone: u64,
    arrived: usize,
    batch: Option<Batch<'static, u64>>,
    bells: usize,
    has_ring: bool,
}

#[derive(Clone, Debug)]
enum Step {
    /// A frame by `enqueue`, of this length.
    Enqueue(usize),
    /// By `send`; its writer gets this far.
    Send(usize, usize, WriteOutcome),
    /// By `put`, on this CPU.
    Put(usize, u32),
    Behind(usize),
    Segment,
    Cpu(u32),
    /// A writer begins.
    Begin,
    /// It writes up to so many bytes of the next piece.
    Write(usize),
    /// Its turn ends.
    Finish(WriteOutcome),
    Resume,
    /// The receiver takes so much of what is in the socket, or all that is in the ring.
    Receive(usize),
    TakeRing,
    Sleep,
}

impl World {
    fn new(has_ring: bool) -> Self {
        let (own, peers) = (Memory::new(), Memory::new());
        let mut sender = TestSender::new();
        let limits = Limits { quick_lane: true, max_segments: u32::MAX, pool: u64::MAX, ..Limits::default() };
        let mut receiver = Receiver::new(Role::Client, limits);
        if has_ring {
            sender.use_ring(Producer::new(own.clone(), peers.clone(), SLOTS), Some(u64::MAX)).unwrap();
            sender.ring_is_mapped();
            receiver.read_ring(Consumer::new(peers, own, SLOTS));
        }
        Self {
            sender,
            wire: Vec::new(),
            descriptors: Vec::new(),
            receiver,
            is_asleep: false,
            sent: Vec::new(),
            seen: Vec::new(),
            gone: 0,
            arrived: 0,
            batch: None,
            bells: 0,
            has_ring,
        }
    }

    fn next(&self) -> u64 {
        self.sent.len() as u64
    }

    fn run(&mut self, step: Step) {
        let number = self.next();
        match step {
            Step::Enqueue(len) => {
                let at = self.sender.enqueue(&reply(number, len)).unwrap();
                self.sent.push((Seen::Reply(number, len), Some(at)));
            }
            Step::Send(len, writes, outcome) => {
                let bytes = reply(number, len);
                let before = self.sender.queued();
                let (at, batch) = self.sender.send(&bytes).unwrap();
                self.sent.push((Seen::Reply(number, len), Some(at)));
                let Some(mut batch) = batch else { return };
                assert!(self.batch.is_none(), "two writers");
                if before == 0 || bytes.len() >= MUCH {
                    assert_eq!(self.sender.queued(), 0, "not copied behind the queue");
                }
                let mut left = writes;
                while left > 0 && Self::write(&mut batch, &mut self.wire, &mut self.descriptors, left) {
                    left -= 1;
                }
                self.finish(batch, outcome);
            }
            Step::Put(len, cpu) => {
                if let Some((at, wakes)) = self.sender.try_put(&reply(number, len), Some(cpu)) {
                    assert!(matches!(at, StreamPosition::Ring(_)));
                    self.sent.push((Seen::Reply(number, len), Some(at)));
                    if wakes {
                        assert!(self.is_asleep);
                        self.bells += usize::from(self.sender.queue_bell());
                    }
                }
            }
            Step::Behind(len) => {
                if let Some(at) = self.sender.enqueue_behind(&reply(number, len), Some(1)) {
                    self.sent.push((Seen::Reply(number, len), Some(at)));
                }
            }
            Step::Segment => {
                self.sender.enqueue_with(&frame::segment(number as u32, 4096), number).unwrap();
                self.sent.push((Seen::Segment(number as u32, Some(number)), None));
            }
            Step::Cpu(cpu) => self.sender.tell_cpu(Some(cpu)).unwrap(),
            Step::Begin if self.batch.is_none() => {
                self.bells += usize::from(self.sender.ring_bell());
                self.batch = self.sender.begin_write();
            }
            Step::Begin => assert!(self.sender.begin_write().is_none(), "two writers"),
            Step::Write(len) => {
                if let Some(batch) = &mut self.batch {
                    Self::write(batch, &mut self.wire, &mut self.descriptors, len);
                }
            }
            Step::Finish(outcome) => {
                if let Some(batch) = self.batch.take() {
                    self.finish(batch, outcome);
                }
            }
            Step::Resume => self.sender.resume(),
            Step::Receive(len) => self.receive(len),
            Step::TakeRing => self.take_ring(),
            Step::Sleep => self.is_asleep = self.receiver.sleep(),
        }
    }

    /// Writes up to `len` bytes of the next piece; `false` at the end of the batch.
    fn write(
        batch: &mut Batch<'_, u64>,
        wire: &mut Vec<u8>,
        descriptors: &mut Vec<(usize, u64)>,
        len: usize,
    ) -> bool {
        let Some(piece) = batch.piece() else { return false };
        let len = len.clamp(1, piece.bytes.len());
        let at = wire.len();
        wire.extend_from_slice(&piece.bytes[..len]);
        let own = piece.descriptor.copied();
        descriptors.extend(own.map(|descriptor| (at, descriptor)));
        assert_eq!(batch.wrote(len), own);
        true
    }

    fn finish(&mut self, batch: Batch<'_, u64>, outcome: WriteOutcome) {
        let is_whole = batch.piece().is_none();
        let at_descriptor = batch.piece().and_then(|piece| piece.descriptor.copied());
        let outcome = match outcome {
            // All is said exactly where it is so.
            _ if is_whole => WriteOutcome::All,
            WriteOutcome::All | WriteOutcome::Failed => WriteOutcome::OutOfTime,
            outcome => outcome,
        };
        match (self.sender.finish(batch, outcome), outcome) {
            (AfterWrite::GoOn, WriteOutcome::All) => {}
            (AfterWrite::Stalled, WriteOutcome::Full) => assert!(self.sender.is_stalled()),
            (AfterWrite::Retry, WriteOutcome::OutOfTime) => {}
            (AfterWrite::Retry, WriteOutcome::Short) => assert_eq!(at_descriptor, None),
            (AfterWrite::Lost(announced, descriptor), WriteOutcome::Short) => {
                assert_eq!(at_descriptor, Some(descriptor));
                if announced == Announced::Ring {
                    assert_eq!(descriptor, u64::MAX);
                    self.has_ring = false;
                } else {
                    assert_eq!(announced, Announced::Memory(descriptor as u32));
                    self.sent[descriptor as usize].0 = Seen::Segment(descriptor as u32, None);
                }
            }
            (after, outcome) => panic!("{after:?} after {outcome:?}"),
        }
    }

    fn receive(&mut self, len: usize) {
        // As the kernel does it: not on to what was sent with another descriptor.
        let mut places = self.descriptors.iter().map(|(place, _)| *place);
        let has_own = places.next().is_some_and(|place| place == 0);
        let own = if has_own { 1 } else { 0 };
        let end = self.descriptors.get(own).map_or(usize::MAX, |(place, _)| *place);
        let space = self.receiver.space();
        let len = len.min(end).min(space.len()).min(self.wire.len());
        if len == 0 {
            return;
        }
        space[..len].copy_from_slice(&self.wire[..len]);
        self.wire.drain(..len);
        self.gone += len as u64;
        let descriptors: Vec<u64> = self.descriptors.drain(..own).map(|(_, number)| number).collect();
        self.arrived += descriptors.len();
        for (place, _) in &mut self.descriptors {
            *place -= len;
        }
        self.receiver.received(len, descriptors, false).unwrap();
        self.look();
    }

    fn take_ring(&mut self) {
        self.receiver.wake();
        self.is_asleep = false;
        self.look();
    }

    fn look(&mut self) {
        while let Some(incoming) = self.receiver.next(Vec::with_capacity).unwrap() {
            match incoming {
                Incoming::Reply { call, payload: lpc_core::receive::Payload::Inline(body), .. } => {
                    assert!(body.iter().all(|byte| *byte == call.as_u64() as u8));
                    self.seen.push(Seen::Reply(call.as_u64(), body.len()));
                }
                Incoming::Segment { number, descriptor, .. } => {
                    self.seen.push(Seen::Segment(number, descriptor));
                }
                Incoming::Ring { .. } | Incoming::Switch | Incoming::At { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        let sent = self.sent.iter().map(|(seen, _)| seen);
        assert!(self.seen.iter().zip(sent).all(|(seen, sent)| seen == sent), "{:?}", self.seen);
    }

    /// What can be said at any time.
    fn check(&self) {
        if self.sender.is_congested() {
            assert!(self.batch.is_some() || self.sender.is_stalled());
        }
        let taken = self.gone + self.wire.len() as u64;
        let ended: Vec<_> = self.sent.iter().filter_map(|(_, position)| *position).collect();
        for position in ended {
            let StreamPosition::Socket(end) = position else { continue };
            if end <= taken {
                assert!(self.sender.may_have_gone(position), "it has gone");
            } else if self.batch.is_none() {
                assert!(!self.sender.may_have_gone(position), "it has not");
            }
        }
        // Twice what waits, and what is kept for the next batch.
        assert!(self.sender.capacity() <= 8 * (self.sender.queued() + MUCH) + (300 << 10));
    }

    /// Everything goes out and arrives.
    fn settle(&mut self) {
        self.sender.resume();
        for _ in 0..1000 {
            if self.batch.is_none() {
                self.run(Step::Begin);
            }
            while let Some(batch) = &mut self.batch
                && Self::write(batch, &mut self.wire, &mut self.descriptors, usize::MAX)
            {}
            self.run(Step::Finish(WriteOutcome::All));
            self.receive(usize::MAX);
            self.take_ring();
        }
        let sent: Vec<_> = self.sent.iter().map(|(seen, _)| seen.clone()).collect();
        assert_eq!(self.seen, sent, "all frames, in order");
        assert!(self.sent.iter().all(|(_, at)| at.is_none_or(|at| self.sender.may_have_gone(at))));
        assert_eq!(self.sender.queued(), 0);
    }
}

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 0_usize..300, 2 => 300_usize..5000, 1 => MUCH..3 * MUCH]
}

fn outcome() -> impl Strategy<Value = WriteOutcome> {
    prop_oneof![
        3 => Just(WriteOutcome::All),
        2 => Just(WriteOutcome::Full),
        2 => Just(WriteOutcome::OutOfTime),
        2 => Just(WriteOutcome::Short),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => len().prop_map(Step::Enqueue),
        4 => (len(), 0_usize..200, outcome()).prop_map(|(len, writes, outcome)| Step::Send(len, writes, outcome)),
        4 => (len(), 1_u32..3).prop_map(|(len, cpu)| Step::Put(len, cpu)),
        1 => len().prop_map(Step::Behind),
        2 => Just(Step::Segment),
        1 => (1_u32..3).prop_map(Step::Cpu),
        4 => Just(Step::Begin),
        4 => (1_usize..20_000).prop_map(Step::Write),
        4 => outcome().prop_map(Step::Finish),
        2 => Just(Step::Resume),
        4 => (1_usize..30_000).prop_map(Step::Receive),
        2 => Just(Step::TakeRing),
        2 => Just(Step::Sleep),
    ]
}

proptest! {
    #[test]
    fn what_comes_out_is_what_went_in(has_ring: bool, steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new(has_ring);
        for step in steps {
            // With a ring that was announced to a peer that has it mapped already, its descriptor is not
            // lost.
            let passes = world.has_ring && world.gone == 0;
            let step = match step {
                Step::Finish(WriteOutcome::Short) if passes => Step::Finish(WriteOutcome::OutOfTime),
                Step::Send(len, writes, WriteOutcome::Short) if passes => {
                    Step::Send(len, writes, WriteOutcome::OutOfTime)
                }
                step => step,
            };
            world.run(step);
            world.check();
        }
        world.settle();
    }

    /// A caller that gives up gets back what is never sent, and nothing is sent any more. Positions stay
    /// right.
    #[test]
    fn what_is_given_up_is_given_back(steps in prop::collection::vec(step(), 0..60), cut in 1_usize..10_000) {
        let mut world = World::new(false);
        for step in steps {
            world.run(step);
        }
        let sent = world.sent.clone();
        let mut batch = world.batch.take();
        if let Some(batch) = &mut batch {
            World::write(batch, &mut world.wire, &mut world.descriptors, cut);
        }
        let back: Vec<u64> = world.sender.give_up().collect();
        assert_eq!(world.sender.enqueue(&reply(0, 0)), Err(Over::Closed));
        assert!(world.sender.try_put(&reply(0, 0), None).is_none());
        assert!(world.sender.begin_write().is_none());
        let on_wire = world.gone + world.wire.len() as u64;
        let mut in_batch = 0;
        if let Some(mut batch) = batch {
            for (_, position) in &sent {
                if let Some(position @ StreamPosition::Socket(end)) = *position && end <= on_wire {
                    assert!(world.sender.may_have_gone(position));
                }
            }
            let mut rest = batch.piece().map(|piece| piece.bytes.len());
            let mut count = batch;
            while let Some(len) = rest {
                in_batch += usize::from(count.wrote(len).is_some());
                rest = count.piece().map(|piece| piece.bytes.len());
            }
            batch = count;
            // It is too late for the rest, and the writer says how far it got.
            drop(batch);
        }
        let announced = sent.iter().filter(|(seen, _)| matches!(seen, Seen::Segment(_, Some(_)))).count();
        assert_eq!(back.len() + in_batch + world.descriptors.len() + world.arrived, announced);
        assert_eq!(world.sender.queued(), 0);
    }
}

#[test]
fn a_writer_that_ends_after_the_end_says_how_far_it_got() {
    let mut sender = Sender::<(), NoRing, NoRing>::new();
    let first = sender.enqueue(&reply(1, 100)).unwrap();
    let second = sender.enqueue(&reply(2, 100)).unwrap();
    let mut batch = sender.begin_write().unwrap();
    drop(sender.give_up());
    assert!(sender.may_have_gone(second), "it may be on its way");
    batch.wrote(reply(1, 100).len());
    assert!(matches!(sender.finish(batch, WriteOutcome::Failed), AfterWrite::Over(Over::Closed, _)));
    assert!(sender.may_have_gone(first) && !sender.may_have_gone(second));
}

#[test]
fn what_the_peer_did_not_take_of_the_ring_has_not_gone() {
    let mut world = World::new(true);
    world.settle();
    world.run(Step::Cpu(1));
    let mut at = |len| world.sender.enqueue(&reply(0, len)).unwrap();
    let (first, second) = (at(1), at(1));
    assert_eq!(
        [first, second],
        [StreamPosition::Ring(2), StreamPosition::Ring(3)],
        "behind the news of the CPU"
    );
    assert!(world.sender.may_have_gone(second));
    world.sender.peer_has_taken(2);
    drop(world.sender.give_up());
    assert!(world.sender.may_have_gone(first) && !world.sender.may_have_gone(second));
}

#[test]
fn a_bell_is_rung_once_a_sleep_and_not_where_nobody_hears_it() {
    let mut world = World::new(true);
    world.settle();
    world.run(Step::Enqueue(0));
    world.settle();
    assert!(world.sender.is_in_ring() && world.bells == 0, "the peer is awake");
    for bells in 1..=2 {
        world.run(Step::Sleep);
        world.run(Step::Enqueue(0));
        world.run(Step::Enqueue(0));
        world.run(Step::Begin);
        assert_eq!(world.bells, bells);
        world.run(Step::Enqueue(0));
        assert!(!world.sender.ring_bell(), "it was rung");
        world.settle();
    }
    world.sender.enqueue_with(&frame::segment(0, 4096), 1).unwrap();
    let batch = world.sender.begin_write().unwrap();
    assert!(matches!(world.sender.finish(batch, WriteOutcome::Full), AfterWrite::Stalled));
    let queued = world.sender.queued();
    assert!(!world.sender.queue_bell());
    assert_eq!(world.sender.queued(), queued, "a peer that does not read has something to read");
}

#[test]
fn a_peer_that_lies_about_its_ring_ends_the_sending() {
    let (own, peers) = (Memory::new(), Memory::new());
    let mut sender = TestSender::new();
    sender.use_ring(Producer::new(own, peers.clone(), SLOTS), None).unwrap();
    sender.enqueue(&reply(0, 0)).unwrap();
    peers.store(0, 1000);
    let over = (0..100).find_map(|_| sender.enqueue(&reply(0, 4000)).err()).unwrap();
    assert!(matches!(over, Over::Ring(_)), "{over:?}");
    assert_eq!(sender.is_over(), Some(over));
    drop(sender.give_up());
    assert_eq!(sender.is_over(), Some(over), "the first reason stays");
}

#[test]
fn a_ring_whose_memory_was_not_passed_is_none() {
    let mut sender = TestSender::new();
    sender.offer_ring(Memory::new(), 7).unwrap();
    let behind = sender.enqueue(&reply(1, 10)).unwrap();
    let batch = sender.begin_write().unwrap();
    assert!(matches!(sender.finish(batch, WriteOutcome::Short), AfterWrite::Lost(Announced::Ring, 7)));
    assert!(sender.take_offered().is_none());
    let batch = sender.begin_write().unwrap();
    let piece = batch.piece().unwrap();
    let header = Header::decode(piece.bytes.first_chunk().unwrap()).unwrap();
    assert_eq!((header.kind, header.flags, piece.descriptor), (Kind::Ring, Flags::WITHOUT, None));
    assert_eq!(behind, StreamPosition::Socket(piece.bytes.len() as u64), "where it ends has been said");
    drop(batch);
}

#[test]
fn a_large_frame_is_not_copied_behind_what_waits() {
    let mut sender = Sender::<(), NoRing, NoRing>::new();
    sender.enqueue(b"a small one, late").unwrap();
    let large = vec![7; 8 << 20];
    let (_, batch) = sender.send(&large).unwrap();
    let mut batch = batch.expect("nobody else writes");
    while let Some(len) = batch.piece().map(|piece| piece.bytes.len()) {
        batch.wrote(len);
    }
    assert!(matches!(sender.finish(batch, WriteOutcome::All), AfterWrite::GoOn));
    assert!(sender.capacity() <= 256 << 10, "{} bytes", sender.capacity());
}

#[test]
fn a_stall_that_never_ends_keeps_only_what_waits() {
    let mut sender = Sender::<(), NoRing, NoRing>::new();
    let frame = vec![7; 60_000];
    for _ in 0..12 {
        sender.enqueue(&frame).unwrap();
    }
    for _ in 0..500 {
        sender.enqueue(&frame).unwrap();
        sender.resume();
        let mut batch = sender.begin_write().unwrap();
        batch.wrote(frame.len());
        assert!(matches!(sender.finish(batch, WriteOutcome::Full), AfterWrite::Stalled));
        let (kept, queued) = (sender.capacity(), sender.queued());
        assert!(kept <= 4 * queued + (256 << 10), "{kept} bytes kept for {queued}");
    }
}

#[test]
fn descriptors_that_never_go_out_are_handed_out() {
    for is_over_before in [true, false] {
        let mut sender = TestSender::new();
        sender.enqueue_with(&frame::segment(0, 4096), 1).unwrap();
        sender.enqueue_with(&frame::segment(1, 4096), 2).unwrap();
        let mut batch = sender.begin_write().unwrap();
        assert_eq!(batch.wrote(1), Some(1));
        if is_over_before {
            drop(sender.give_up());
        }
        let AfterWrite::Over(_, descriptors) = sender.finish(batch, WriteOutcome::Failed) else { panic!() };
        assert_eq!(descriptors, [2]);
    }
}

#[test]
fn senders_wait_where_much_waits_for_a_writer_or_the_socket() {
    let mut sender = Sender::<(), NoRing, NoRing>::new();
    let much = vec![0; send::CONGESTED + 1];
    sender.enqueue(&much).unwrap();
    assert_eq!(sender.back_pressure(), BackPressure::Write, "whoever comes next writes it");
    let batch = sender.begin_write().unwrap();
    assert_eq!(sender.back_pressure(), BackPressure::Wait, "what is being written counts");
    assert!(matches!(sender.finish(batch, WriteOutcome::Full), AfterWrite::Stalled));
    assert_eq!(sender.back_pressure(), BackPressure::Wait);
    sender.resume();
    assert_eq!(sender.back_pressure(), BackPressure::Write);
    drop(sender.give_up());
    assert_eq!(sender.back_pressure(), BackPressure::None, "sending fails");
}

proptest! {
    /// Senders who keep to it: a batch gets nowhere, or a part of the way, each time.
    #[test]
    fn no_more_is_queued_than_may_be_and_one_frame(
        steps in prop::collection::vec((0_usize..5, 1_usize..700_000, outcome()), 0..60),
    ) {
        let mut sender = Sender::<(), NoRing, NoRing>::new();
        let mut batch: Option<(Batch<'static, ()>, usize)> = None;
        for (step, len, outcome) in steps {
            let running = batch.as_ref().map_or(0, |(_, len)| *len);
            let is_much = sender.queued() + running > send::CONGESTED;
            let expected = match (is_much, batch.is_some() || sender.is_stalled()) {
                (false, _) => BackPressure::None,
                (true, true) => BackPressure::Wait,
                (true, false) => BackPressure::Write,
            };
            assert_eq!(sender.back_pressure(), expected);
            match step {
                0 | 1 if expected == BackPressure::None => drop(sender.enqueue(&vec![0; len]).unwrap()),
                0..=2 if batch.is_none() => {
                    let queued = sender.queued();
                    batch = sender.begin_write().map(|batch| (batch, queued));
                }
                3 => sender.resume(),
                _ => {
                    let Some((mut batch, _)) = batch.take() else { continue };
                    let piece = batch.piece().unwrap().bytes.len();
                    batch.wrote(len.min(piece));
                    let outcome = match outcome {
                        _ if len >= piece => WriteOutcome::All,
                        WriteOutcome::All => WriteOutcome::OutOfTime,
                        outcome => outcome,
                    };
                    let _ = sender.finish(batch, outcome);
                }
            }
            let running = batch.as_ref().map_or(0, |(_, len)| *len);
            assert!(sender.queued() + running <= send::CONGESTED + 700_000);
        }
    }
}
