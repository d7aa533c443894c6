//! The ledger, the writer's turn and the quick lane's rings under every interleaving of their threads:
//! `RUSTFLAGS="--cfg loom" cargo test -p lpc-core --test loom --release`.
#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Wake, Waker};

use loom::cell::UnsafeCell;
use loom::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use loom::sync::atomic::{AtomicBool, AtomicU64, fence};
use loom::sync::{Condvar, Mutex};
use loom::thread::{self, Thread};
use lpc_core::arena::{Arena, PAGE};
use lpc_core::frame::{self, Body, CallId};
use lpc_core::ledger::{Lease, Ledger};
use lpc_core::limits::Limits;
use lpc_core::receive::{Entrance, Incoming, Receiver, Role};
use lpc_core::ring::{Consumer, NoRing, Own, Peers, Producer};
use lpc_core::send::{AfterWrite, Batch, Sender, WriteOutcome};

/// A segment of two pages, of which loom sees whether two threads write to one at once, or without an order.
#[derive(Debug)]
struct Segment {
    pages: [UnsafeCell<()>; 2],
    is_retired: AtomicBool,
}

type TestLedger = Arc<Ledger<Segment>>;

/// A ledger of this many pages, in segments of two.
fn ledger(pages: u64, max_segments: u32) -> TestLedger {
    Ledger::new(Arena::new(pages * PAGE, max_segments, 100))
}

fn make(_: u32, len: u64) -> Result<Segment, Infallible> {
    assert!(len <= 2 * PAGE);
    let pages = [UnsafeCell::new(()), UnsafeCell::new(())];
    Ok(Segment { pages, is_retired: AtomicBool::new(false) })
}

fn alloc(ledger: &TestLedger, bytes: u64) -> Option<Lease<Segment>> {
    ledger.alloc(bytes, make).unwrap()
}

/// Uses the block as its holder may.
fn write(lease: &Lease<Segment>) {
    let first = lease.block().page() as usize;
    for page in &lease.segment().pages[first..first + (lease.block().len() / PAGE) as usize] {
        page.with_mut(|_| {});
    }
    assert!(!lease.segment().is_retired.load(Relaxed), "its segment is gone");
}

#[path = "loom/turns.rs"]
mod turns;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Gets a block, however long that takes. If no wake-up comes, loom says that the threads are in a deadlock.
fn wait_for(ledger: &TestLedger, bytes: u64) -> Lease<Segment> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let waiting = ledger.wait_for(bytes);
    loop {
        if let Some(lease) = alloc(ledger, bytes) {
            return lease;
        }
        if !waiting.has_room(&waker) {
            thread::park();
        }
    }
}

#[test]
fn no_two_threads_hold_a_page_at_once() {
    loom::model(|| {
        let ledger = ledger(2, 1);
        let run = |ledger: TestLedger| {
            move || {
                for _ in 0..2 {
                    if let Some(mut lease) = alloc(&ledger, PAGE) {
                        write(&lease);
                        lease.extend(2 * PAGE);
                        write(&lease);
                        lease.shrink(1);
                    }
                }
            }
        };
        let other = thread::spawn(run(Arc::clone(&ledger)));
        run(Arc::clone(&ledger))();
        other.join().unwrap();
        write(&alloc(&ledger, 2 * PAGE).expect("all came back"));
    });
}

#[test]
fn a_segment_is_announced_before_anybody_has_a_block_of_it() {
    loom::model(|| {
        let ledger = ledger(2, 1);
        let is_announced = Arc::new(AtomicBool::new(false));
        let run = |ledger: TestLedger, is_announced: Arc<AtomicBool>| {
            move || {
                let announce = |number, len| {
                    is_announced.store(true, Relaxed);
                    make(number, len)
                };
                let Ok(lease) = ledger.alloc(PAGE, announce);
                assert!(is_announced.load(Relaxed), "a frame that refers to it could come first");
                drop(lease);
            }
        };
        let other = thread::spawn(run(Arc::clone(&ledger), Arc::clone(&is_announced)));
        run(Arc::clone(&ledger), is_announced)();
        other.join().unwrap();
    });
}

#[test]
fn a_block_that_comes_back_wakes_the_waiter() {
    loom::model(|| {
        let ledger = ledger(2, 1);
        let lease = alloc(&ledger, 2 * PAGE).unwrap();
        let waiting = {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || write(&wait_for(&ledger, PAGE)))
        };
        let other = thread::spawn(move || write(&wait_for(&ledger, 2 * PAGE)));
        write(&lease);
        drop(lease);
        waiting.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn pages_given_up_wake_the_waiter() {
    loom::model(|| {
        let ledger = ledger(2, 1);
        let mut lease = alloc(&ledger, 2 * PAGE).unwrap();
        let waiting = thread::spawn(move || write(&wait_for(&ledger, PAGE)));
        lease.shrink(PAGE);
        write(&lease);
        waiting.join().unwrap();
    });
}

#[test]
fn one_that_gives_up_leaves_the_room_to_the_next() {
    loom::model(|| {
        let ledger = ledger(1, 1);
        let lease = alloc(&ledger, PAGE).unwrap();
        let gives_up = {
            let waits = ledger.wait_for(PAGE);
            thread::spawn(move || {
                let _ = waits.has_room(&Waker::from(Arc::new(Unpark(thread::current()))));
            })
        };
        let waits = {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || write(&wait_for(&ledger, PAGE)))
        };
        write(&lease);
        drop(lease);
        gives_up.join().unwrap();
        waits.join().unwrap();
    });
}

#[test]
fn the_end_wakes_the_waiter() {
    loom::model(|| {
        let ledger = ledger(1, 1);
        let _lease = alloc(&ledger, PAGE).unwrap();
        let waiting = {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || {
                let waker = Waker::from(Arc::new(Unpark(thread::current())));
                let waits = ledger.wait_for(PAGE);
                while !waits.has_room(&waker) {
                    thread::park();
                }
            })
        };
        ledger.close();
        waiting.join().unwrap();
    });
}

#[test]
fn a_segment_with_a_block_is_never_retired() {
    loom::model(|| {
        let ledger = ledger(2, 1);
        let trims = {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || {
                for _ in 0..2 {
                    ledger.trim(|_, segment| {
                        assert!(!segment.is_retired.swap(true, Relaxed), "it goes once");
                        // It is nobody's now, and what was written to it stands before this.
                        segment.pages.iter().for_each(|page| page.with_mut(|_| {}));
                    });
                }
            })
        };
        for _ in 0..2 {
            let lease = alloc(&ledger, PAGE).expect("there is room, in one segment or the next");
            write(&lease);
        }
        trims.join().unwrap();
    });
}

#[test]
fn a_segment_withdrawn_while_it_is_used_goes_when_it_is_not() {
    loom::model(|| {
        let ledger = ledger(2, 1);
        let lease = alloc(&ledger, PAGE).unwrap();
        let trims = {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || {
                ledger.withdraw(0);
                ledger.trim(|_, segment| segment.is_retired.store(true, Relaxed));
            })
        };
        write(&lease);
        drop(lease);
        trims.join().unwrap();
        assert_eq!(ledger.trim(|_, _| {}), 0);
    });
}

/// Slots of a ring: the least that can be full, and used again.
const SLOTS: u64 = 2;

/// One side's memory of the quick lane: its words, and for each slot a cell of which loom sees whether it is
/// read while it is written, or without an order.
struct Memory {
    taken: AtomicU64,
    asleep: AtomicU64,
    slots: [Slot; SLOTS as usize],
}

struct Slot {
    stamp: AtomicU64,
    access: UnsafeCell<()>,
    bytes: std::sync::Mutex<[u8; 248]>,
}

#[derive(Clone)]
struct Side(Arc<Memory>);

impl Side {
    fn new() -> Self {
        let slot = || Slot {
            stamp: AtomicU64::new(0),
            access: UnsafeCell::new(()),
            bytes: std::sync::Mutex::new([0; 248]),
        };
        let slots = [slot(), slot()];
        Self(Arc::new(Memory { taken: AtomicU64::new(0), asleep: AtomicU64::new(0), slots }))
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        match offset {
            0 => &self.0.taken,
            128 => &self.0.asleep,
            _ => &self.0.slots[(offset - 4096) / 256].stamp,
        }
    }

    /// The slot whose bytes stand at `offset`, and where in it.
    fn slot(&self, offset: usize) -> (&Slot, usize) {
        let offset = offset - 4096;
        (&self.0.slots[offset / 256], offset % 256 - 8)
    }
}

impl Own for Side {
    fn write(&self, offset: usize, bytes: &[u8]) {
        let (slot, at) = self.slot(offset);
        slot.access.with_mut(|_| slot.bytes.lock().unwrap()[at..at + bytes.len()].copy_from_slice(bytes));
    }

    fn store(&self, offset: usize, value: u64) {
        self.word(offset).store(value, Release);
    }

    fn fence(&self) {
        fence(SeqCst);
    }
}

impl Peers for Side {
    fn read(&self, offset: usize, into: &mut [u8]) {
        let (slot, at) = self.slot(offset);
        slot.access.with(|_| into.copy_from_slice(&slot.bytes.lock().unwrap()[at..at + into.len()]));
    }

    fn load(&self, offset: usize) -> u64 {
        self.word(offset).load(Acquire)
    }
}

/// What the socket is to the rings: bells that wait to be heard.
#[derive(Default)]
struct Bells {
    waiting: Mutex<usize>,
    rung: Condvar,
}

impl Bells {
    fn ring(&self) {
        *self.waiting.lock().unwrap() += 1;
        self.rung.notify_one();
    }

    /// Sleeps until there is one. If none ever comes, loom says that the threads are in a deadlock.
    fn hear(&self) {
        let mut waiting = self.waiting.lock().unwrap();
        while *waiting == 0 {
            waiting = self.rung.wait(waiting).unwrap();
        }
        *waiting = 0;
    }
}

fn small(number: u64) -> Vec<u8> {
    let mut frame = Vec::new();
    frame::begin_reply(&mut frame);
    frame::seal(&mut frame, CallId::new(number), Body::Inline, &[]);
    frame
}

/// The next frame's number, if there is one.
fn take(consumer: &mut Consumer<Side, Side>) -> Option<u64> {
    let found = consumer.next().unwrap()?;
    let number = u64::from_le_bytes(*found.header().last_chunk().unwrap());
    found.take(&mut Vec::new());
    Some(number)
}

/// The next frame's number, however long that takes.
fn receive(consumer: &mut Consumer<Side, Side>, bells: &Bells) -> u64 {
    loop {
        if let Some(number) = take(consumer) {
            return number;
        }
        if consumer.sleep() {
            bells.hear();
            consumer.wake();
        }
    }
}

/// Sends a frame as soon as there is room.
fn send(producer: &mut Producer<Side, Side>, bells: &Bells, number: u64) {
    while !producer.put(&small(number)).unwrap() {
        thread::yield_now();
    }
    if producer.has_to_wake() {
        bells.ring();
    }
}

fn ring() -> (Producer<Side, Side>, Consumer<Side, Side>) {
    let (senders, receivers) = (Side::new(), Side::new());
    (Producer::new(senders.clone(), receivers.clone(), SLOTS), Consumer::new(receivers, senders, SLOTS))
}

#[test]
fn no_frame_in_a_ring_is_missed_by_a_side_that_goes_to_sleep() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring();
        let bells = Arc::new(Bells::default());
        let sender = {
            let bells = Arc::clone(&bells);
            thread::spawn(move || (1..=2).for_each(|number| send(&mut producer, &bells, number)))
        };
        for number in 1..=2 {
            assert_eq!(receive(&mut consumer, &bells), number);
        }
        sender.join().unwrap();
    });
}

#[test]
fn a_slot_is_written_again_only_after_it_was_read() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring();
        let receiver = thread::spawn(move || {
            let mut next = 1;
            while next <= 3 {
                match take(&mut consumer) {
                    Some(number) => {
                        assert_eq!(number, next);
                        next += 1;
                    }
                    None => thread::yield_now(),
                }
            }
        });
        for number in 1..=3 {
            while !producer.put(&small(number)).unwrap() {
                thread::yield_now();
            }
        }
        receiver.join().unwrap();
    });
}

/// A server that is about to read its ring, and a thread that has it stop receiving.
#[test]
fn the_end_of_receiving_is_said_by_exactly_one() {
    loom::model(|| {
        let entrance = Arc::<Entrance>::default();
        let limits = Limits { quick_lane: true, ..Limits::default() };
        let receiver = Receiver::<(), Side, Side>::new(Role::Server, limits);
        let mut receiver = receiver.with_entrance(Arc::clone(&entrance));
        receiver.read_ring(Consumer::new(Side::new(), Side::new(), SLOTS));
        let switch = frame::switch();
        receiver.space()[..switch.len()].copy_from_slice(&switch);
        receiver.received(switch.len(), [], false).unwrap();
        let closing = thread::spawn(move || entrance.close());
        let mut said = 0;
        for _ in 0..3 {
            let next = receiver.next(Vec::with_capacity).unwrap();
            said += usize::from(matches!(next, Some(Incoming::Drained { .. })));
        }
        said += usize::from(closing.join().unwrap());
        // The end of the stream comes after that.
        said += usize::from(receiver.end().is_some());
        assert_eq!(said, 1);
    });
}

/// A call and its reply, through two rings that share the sides' memory.
#[test]
fn two_sides_that_sleep_wake_each_other() {
    loom::model(|| {
        let (client, server) = (Side::new(), Side::new());
        let bells = Arc::new([Bells::default(), Bells::default()]);
        let serving = {
            let mut calls = Consumer::new(server.clone(), client.clone(), SLOTS);
            let mut replies = Producer::new(server.clone(), client.clone(), SLOTS);
            let bells = Arc::clone(&bells);
            thread::spawn(move || {
                let call = receive(&mut calls, &bells[0]);
                send(&mut replies, &bells[1], call);
            })
        };
        let mut calls = Producer::new(client.clone(), server.clone(), SLOTS);
        let mut replies = Consumer::new(client, server, SLOTS);
        send(&mut calls, &bells[0], 5);
        assert_eq!(receive(&mut replies, &bells[1]), 5);
        serving.join().unwrap();
    });
}

/// What is on its way through the socket, of which loom sees whether two write to it at once.
#[derive(Default)]
struct Wire {
    turn: UnsafeCell<()>,
    bytes: std::sync::Mutex<Vec<u8>>,
}

/// Writes a batch, piece by piece, as the writer of the moment may.
fn write_all<'f>(mut batch: Batch<'f, ()>, wire: &Wire) -> Batch<'f, ()> {
    while let Some(len) = batch.piece().map(|piece| {
        wire.turn.with_mut(|_| wire.bytes.lock().unwrap().extend_from_slice(piece.bytes));
        piece.bytes.len()
    }) {
        batch.wrote(len);
    }
    batch
}

/// Sends a frame, and what others queue meanwhile.
fn send_all(sender: &Mutex<Sender<(), NoRing, NoRing>>, wire: &Wire, frame: &[u8]) {
    let mut guard = sender.lock().unwrap();
    let (_, mut batch) = guard.send(frame).unwrap();
    while let Some(begun) = batch.take().or_else(|| guard.begin_write()) {
        drop(guard);
        let written = write_all(begun, wire);
        guard = sender.lock().unwrap();
        assert!(matches!(guard.finish(written, WriteOutcome::All), AfterWrite::GoOn));
    }
}

#[test]
fn one_sender_writes_at_a_time_and_nothing_stays_unsent() {
    loom::model(|| {
        let (sender, wire) = (Arc::new(Mutex::new(Sender::new())), Arc::new(Wire::default()));
        let run = |first: u64| {
            let (sender, wire) = (Arc::clone(&sender), Arc::clone(&wire));
            move || (first..first + 2).for_each(|number| send_all(&sender, &wire, &small(number)))
        };
        let other = thread::spawn(run(10));
        run(0)();
        other.join().unwrap();
        let bytes = std::mem::take(&mut *wire.bytes.lock().unwrap());
        let numbers: Vec<u64> = bytes.as_chunks::<16>().0.iter().map(|frame| u64::from(frame[8])).collect();
        assert_eq!(numbers.len(), 4, "{numbers:?}");
        for each in [[0, 1], [10, 11]] {
            assert!(numbers.iter().filter(|number| each.contains(number)).eq(&each), "{numbers:?}");
        }
        assert_eq!(sender.lock().unwrap().queued(), 0);
    });
}

/// A frame is put into the ring, and its sender's bell may be rung by somebody else who flushes at the time.
#[test]
fn a_bell_is_not_lost_between_two_that_could_ring_it() {
    loom::model(|| {
        let (senders, receivers) = (Side::new(), Side::new());
        let mut sender = Sender::<(), Side, Side>::new();
        sender.use_ring(Producer::new(senders.clone(), receivers.clone(), SLOTS), None).unwrap();
        let mut consumer = Consumer::new(receivers, senders, SLOTS);
        // The sequence enters the ring.
        sender.enqueue(&small(1)).unwrap();
        let switch = write_all(sender.begin_write().unwrap(), &Wire::default());
        assert!(matches!(sender.finish(switch, WriteOutcome::All), AfterWrite::GoOn));
        let (sender, bells) = (Arc::new(Mutex::new(sender)), Arc::new(Bells::default()));
        assert_eq!(receive(&mut consumer, &bells), 1);

        fn flush(sender: &Mutex<Sender<(), Side, Side>>, bells: &Bells) {
            let mut guard = sender.lock().unwrap();
            guard.ring_bell();
            while let Some(batch) = guard.begin_write() {
                drop(guard);
                let written = write_all(batch, &Wire::default());
                bells.ring();
                guard = sender.lock().unwrap();
                assert!(matches!(guard.finish(written, WriteOutcome::All), AfterWrite::GoOn));
            }
        }
        let puts = {
            let (sender, bells) = (Arc::clone(&sender), Arc::clone(&bells));
            thread::spawn(move || {
                let mut guard = sender.lock().unwrap();
                let (_, has_to_wake) = guard.try_put(&small(2), None).unwrap();
                if has_to_wake {
                    guard.queue_bell();
                }
                drop(guard);
                flush(&sender, &bells);
            })
        };
        let flushes = {
            let (sender, bells) = (Arc::clone(&sender), Arc::clone(&bells));
            thread::spawn(move || flush(&sender, &bells))
        };
        assert_eq!(receive(&mut consumer, &bells), 2);
        puts.join().unwrap();
        flushes.join().unwrap();
    });
}
