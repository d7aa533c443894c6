use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use lpc_core::Threshold;
use lpc_core::codec::Sink;
use lpc_core::frame::CallId;
use lpc_core::receive::Role;
use lpc_core::ring::Own;
use lpc_core::send::{AfterWrite, WriteOutcome};

use super::*;
use crate::body::outgoing::{InBlock, Outgoing, WhenFull};
use crate::connection::inbox::{Filled, Inbox, Message};

fn link(wait: Wait) -> (Arc<Link>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let idle = Duration::from_secs(10);
    let settings = Settings {
        limits: Limits::default(),
        quota: None,
        budget: crate::memory::budget::Budget::of_user(0),
        idle,
        stall: idle,
        write_timeout: None,
        keepalive: None,
        spin: Duration::ZERO,
    };
    (Link::new(Arc::new(ours), wait, settings, Arc::default()), theirs)
}

/// A reply of `len` bytes, each of which is the call's number.
fn send(link: &Link, call: u64, len: usize, threshold: Threshold) -> (Flow, Option<Box<InBlock>>) {
    let mut body = Outgoing::new(link, threshold, WhenFull::Socket, frame::begin_reply);
    for _ in 0..len {
        body.push(call as u8).unwrap();
    }
    let mut body = body.finish();
    body.seal(CallId::new(call));
    (link.send(body.frame()).unwrap(), body.take_block())
}

fn check(message: Message, expected: u64) {
    let Message::Reply { call, body } = message else { panic!("{message:?} is no reply") };
    assert_eq!(call.as_u64(), expected);
    assert!(body.read().iter().all(|byte| *byte == expected as u8));
}

#[test]
fn frames_and_descriptors_keep_their_order_through_a_stall() {
    let (link, theirs) = link(Wait::Never);
    let mut flow = Flow::Sent;
    let mut blocks = Vec::new();
    for call in 0..200 {
        // Every third one in a block; the pool doubles a few times, so that announcements stand in the queue.
        let threshold = if call % 3 == 0 { Threshold::ALWAYS } else { Threshold::OFF };
        let (sent, block) = send(&link, call, 20_000, threshold);
        flow = sent;
        blocks.push(block);
    }
    assert_eq!(flow, Flow::Stalled, "nobody reads yet");
    let mut inbox = Inbox::new(Role::Client, Limits::default(), false, &link);
    let mut next = 0;
    while next < 200 {
        let _ = link.flush().unwrap();
        while let Some(message) = inbox.next().unwrap() {
            check(message, next);
            next += 1;
        }
        if next < 200 {
            assert_ne!(inbox.fill(&theirs, Wait::Never).unwrap(), Filled::End);
        }
    }
    assert_eq!(link.flush().unwrap(), Flow::Sent);
}

/// What was read, if it is `frames`, each of which may have the news of a CPU before it.
fn is_whole(mut read: &[u8], frames: &[Vec<u8>]) -> bool {
    let news = frame::at(0).len();
    frames.iter().all(|frame| {
        if read.first() == Some(&0) {
            read = &read[news..];
        }
        let (first, rest) = read.split_at(frame.len());
        read = rest;
        first == frame
    }) && read.is_empty()
}

#[test]
fn what_a_full_socket_leaves_of_a_large_frame_goes_behind_what_waits() {
    let (link, mut theirs) = link(Wait::Never);
    let mut flow = Flow::Sent;
    let mut frames: Vec<Vec<u8>> = Vec::new();
    // Until one goes out in part only, with something small before each.
    while flow == Flow::Sent {
        let byte = 1 + frames.len() as u8;
        frames.extend([vec![byte; 4], vec![byte; 60_000]]);
        let [.., late, large] = &frames[..] else { unreachable!() };
        link.enqueue_deferred(late);
        flow = link.send(large).unwrap();
    }
    let mut read = Vec::new();
    while link.sender().queued() > 0 {
        let mut part = [0; 30_000];
        let len = theirs.read(&mut part).unwrap();
        read.extend_from_slice(&part[..len]);
        let _ = link.flush().unwrap();
    }
    link.close();
    theirs.read_to_end(&mut read).unwrap();
    assert!(is_whole(&read, &frames));
}

/// One that sleeps, and reads neither its ring nor its socket.
#[test]
fn waking_a_peer_whose_socket_is_full_waits_for_nothing() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let idle = Duration::from_secs(10);
    let limits = Limits { quick_lane: true, ..Limits::default() };
    let spin = Duration::ZERO;
    let settings = Settings {
        limits,
        quota: None,
        budget: crate::memory::budget::Budget::of_user(0),
        idle,
        stall: idle,
        write_timeout: None,
        keepalive: None,
        spin,
    };
    let link = Link::new(Arc::new(ours), Wait::Sleep, settings, Arc::default());
    let (peers_own, file) = OwnRing::create().unwrap();
    link.offer_ring();
    let _reading = link.take_ring(PeersRing::open(&file, None).unwrap()).unwrap();
    let at_once = Some(Instant::now());
    let _ = link.send_within(&frame::release(CallId::new(1)), cpu::current(), at_once).unwrap();
    assert!(link.sender().is_in_ring());
    let large = vec![0; 60 << 10];
    while link.sender().queued() == 0 {
        let _ = link.send_within(&large, cpu::current(), at_once).unwrap();
    }
    // Where nothing is queued the next one is put.
    let mut sender = link.sender();
    let mut rest = sender.begin_write().unwrap();
    while let Some(len) = rest.piece().map(|piece| piece.bytes.len()) {
        rest.wrote(len);
    }
    assert!(matches!(sender.finish(rest, WriteOutcome::All), AfterWrite::GoOn));
    drop(sender);
    peers_own.store(128, 3);
    let (_, has_to_wake) = link.try_put(&frame::release(CallId::new(2)), cpu::current()).unwrap();
    assert!(has_to_wake);
    link.wake();
    assert_eq!(link.sender().queued(), frame::bell().len());
}

#[test]
fn bells_do_not_pile_up_where_nobody_hears_them() {
    let (link, _theirs) = link(Wait::Never);
    let (peers_own, file) = OwnRing::create().unwrap();
    link.offer_ring();
    let _reading = link.take_ring(PeersRing::open(&file, None).unwrap()).unwrap();
    // A peer that takes all that is in the ring, says each time that it sleeps, and never reads the socket.
    for turn in 0..200_000 {
        let (_, position) =
            link.send_within(&frame::release(CallId::new(turn)), cpu::current(), None).unwrap();
        if let StreamPosition::Ring(written) = position {
            peers_own.store(0, written);
            peers_own.store(128, 2 * turn + 1);
        }
    }
    let sender = link.sender();
    assert!(sender.is_stalled() && sender.is_in_ring());
    assert!(sender.capacity() <= 512 << 10, "{} bytes", sender.capacity());
}

#[test]
fn frames_of_many_threads_are_whole() {
    let (link, theirs) = link(Wait::Sleep);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let link = &link;
            scope.spawn(move || {
                for round in 0..100 {
                    let _ = send(link, thread, 100 + round * 30, Threshold::OFF);
                }
            });
        }
        let mut inbox = Inbox::new(Role::Client, Limits::default(), false, &link);
        let mut seen = 0;
        while seen < 800 {
            inbox.fill(&theirs, Wait::Sleep).unwrap();
            while let Some(message) = inbox.next().unwrap() {
                let Message::Reply { call, body } = message else { panic!("{message:?} is no reply") };
                assert!(body.read().iter().all(|byte| u64::from(*byte) == call.as_u64()));
                seen += 1;
            }
        }
    });
}

#[test]
fn senders_that_wait_for_a_peer_that_does_not_read_are_freed_by_its_end() {
    let (link, theirs) = link(Wait::Sleep);
    let has_failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (link, has_failed) = (&link, &has_failed);
            scope.spawn(move || {
                let frame = vec![thread; 100_000];
                while link.send(&frame).is_ok() {}
                has_failed.store(true, Relaxed);
            });
        }
        // Until the queue is full and all wait: one in the system call, the others for it.
        while link.sender().waiting() < 3 {
            std::thread::yield_now();
        }
        assert!(!has_failed.load(Relaxed));
        drop(theirs);
    });
    assert!(link.enqueue(b"late", None).is_err());
}

/// The peer gave it back before it could know, and has done nothing wrong.
#[test]
fn what_comes_back_after_the_end_of_a_connection_is_no_violation() {
    let (link, _theirs) = link(Wait::Never);
    assert!(link.lender().returned(0, 7).is_err(), "nothing is lent");
    link.close();
    assert!(link.lender().returned(0, 7).is_ok());
}

/// A server's desk: whether the end of the socket could be seen when it was told of the end.
struct Watches(UnixStream, Mutex<Vec<bool>>);

impl Maintained for Watches {
    fn trim(&self) -> Option<Duration> {
        None
    }

    fn closing(&self) {
        let mut theirs = &self.0;
        let end =
            std::iter::repeat_with(|| theirs.read(&mut [0; 4096])).find(|read| !matches!(read, Ok(1..)));
        self.1.lock().unwrap().push(end.unwrap().is_ok());
    }
}

fn watched(link: &Link, theirs: &UnixStream) -> Arc<Watches> {
    theirs.set_nonblocking(true).unwrap();
    let desk = Arc::new(Watches(theirs.try_clone().unwrap(), Mutex::default()));
    link.maintained_by(crate::maintenance::weak(&desk));
    desk
}

#[test]
fn a_desk_ends_before_the_peer_sees_that_nothing_more_is_sent() {
    let (link, mut theirs) = link(Wait::Sleep);
    let desk = watched(&link, &theirs);
    let (peers_own, file) = OwnRing::create().unwrap();
    link.offer_ring();
    let _reading = link.take_ring(PeersRing::open(&file, None).unwrap()).unwrap();
    let _ = link.send(&frame::release(CallId::new(1))).unwrap();
    assert!(link.sender().is_in_ring());
    // What cannot be: that is seen once the ring is full.
    peers_own.store(0, 1 << 20);
    let failed = (0..10_000).any(|_| link.send(&frame::release(CallId::new(2))).is_err());
    assert!(failed && link.is_broken());
    assert_eq!(desk.1.lock().unwrap()[..], [false]);
    assert_eq!(theirs.read(&mut [0; 4096]).unwrap(), 0);
}

#[test]
fn a_desk_ends_before_the_peer_sees_that_its_server_has_cut_it_off() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let ours = Arc::new(ours);
    let idle = Duration::from_secs(10);
    let (limits, spin) = (Limits::default(), Duration::ZERO);
    let settings = Settings {
        limits,
        quota: None,
        budget: crate::memory::budget::Budget::of_user(0),
        idle,
        stall: idle,
        write_timeout: None,
        keepalive: None,
        spin,
    };
    let link = Link::new(Arc::clone(&ours) as _, Wait::Sleep, settings, Arc::default());
    let desk = watched(&link, &theirs);
    let admission = Arc::new(crate::server::admission::Admission::default());
    let permit = admission.adopt(&ours).unwrap();
    permit.established(&link);
    assert_eq!(admission.close(), 1);
    assert_eq!(desk.1.lock().unwrap()[..], [false]);
    assert_eq!((&theirs).read(&mut [0; 16]).unwrap(), 0);
}

/// What a writer calls: has more queued while it waits, and counts how often it waits and fails.
struct Busy {
    link: Weak<Link>,
    theirs: UnixStream,
    waited: AtomicUsize,
    failed: AtomicUsize,
}

impl Busy {
    fn new(link: &Arc<Link>, theirs: &UnixStream) -> Arc<Self> {
        theirs.set_nonblocking(true).unwrap();
        let (waited, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let theirs = theirs.try_clone().unwrap();
        let busy = Arc::new(Self { link: Arc::downgrade(link), theirs, waited, failed });
        link.maintained_by(crate::maintenance::weak(&busy));
        busy
    }
}

impl Maintained for Busy {
    fn trim(&self) -> Option<Duration> {
        None
    }

    fn meanwhile(&self) {
        let waited = self.waited.fetch_add(1, Relaxed);
        if waited < 1000 {
            let link = self.link.upgrade().unwrap();
            if waited < 100 && link.sender().queued() == 0 {
                link.enqueue_deferred(&vec![0; 400_000]);
            }
            while let Ok(1..) = (&self.theirs).read(&mut [0; 4096]) {}
        }
    }

    fn send_failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }
}

#[test]
fn a_writer_for_others_hands_the_turn_on() {
    let (link, theirs) = link(Wait::Sleep);
    let busy = Busy::new(&link, &theirs);
    let _ = link.send(&vec![0; 400_000]).unwrap();
    assert!(busy.waited.load(Relaxed) < 100, "it writes whatever others queue");
    assert!(link.sender().queued() > 0 && link.needs_flush());
}

#[test]
fn the_calls_of_a_batch_that_is_cut_are_told_once_it_is_known_how_far_it_got() {
    let (link, theirs) = link(Wait::Sleep);
    let busy = Busy::new(&link, &theirs);
    busy.waited.store(1000, Relaxed);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| link.send(&vec![0; 4 << 20]));
        while busy.waited.load(Relaxed) == 1000 {
            std::thread::yield_now();
        }
        link.stop_sending(0);
        assert!(writer.join().unwrap().is_err());
    });
    assert_eq!(busy.failed.load(Relaxed), 1);
}

#[test]
fn senders_whose_time_is_over_leave_no_more_than_may_be_queued() {
    const FRAME: usize = 600_000;
    let (link, _theirs) = link(Wait::Sleep);
    let frame = vec![0; FRAME];
    let refused = (0..20).find_map(|_| link.send_within(&frame, cpu::current(), Some(Instant::now())).err());
    assert_eq!(refused.expect("nobody reads").kind(), io::ErrorKind::TimedOut);
    assert!(link.sender().queued() <= lpc_core::send::CONGESTED + FRAME);
}
