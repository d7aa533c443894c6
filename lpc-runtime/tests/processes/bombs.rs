//! Peers that want a server to spend more than they do: its memory stays bounded, and others are answered.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use lpc::Shared;
use lpc_core::Limits;
use lpc_core::frame::{self, BlockRef, CallId, OBJECT};

use nix::fcntl::{FallocateFlags, fallocate};

use crate::hostile::{
    Answer, MIB, Peer, at_start, encoded, frozen_seals, loan, memfd, memfd_of, seal, segment_seals,
};
use crate::process::{holdings, text, until, within};
use crate::service::{DRIVERS, Driver};
use crate::vault::{AnyVault, Baseline, Knobs, Thing, Vault, in_use, is_exhausted, memory, pairs};

/// A length as the codec writes it.
fn prefix(len: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = len;
    while rest > 127 {
        bytes.push(rest as u8 | 128);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

fn sparse_file(len: u64) -> std::fs::File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(len).unwrap();
    file
}

/// How much more memory a server had at its worst than it has now, after `act`.
fn growth(vault: &Vault, act: impl FnOnce()) -> u64 {
    // The peak begins anew.
    std::fs::write(format!("/proc/{}/clear_refs", vault.id()), "5").unwrap();
    let before = in_use(vault.id());
    let file = memory(vault.id(), "RssFile");
    act();
    memory(vault.id(), "VmHWM").saturating_sub(before + file)
}

#[test]
fn a_sparse_segment_costs_its_reader_no_more_than_the_pool_and_a_copy() {
    const LEN: u64 = 32 * MIB;
    for driver in DRIVERS {
        let knobs = Knobs { pool: Some(2 * LEN), message: Some(LEN), ..Knobs::default() };
        let vault = Vault::start(driver, knobs);
        let baseline = Baseline::of(&vault);
        let mut peer = Peer::connect(vault.port());
        let grown = growth(&vault, || {
            peer.segment(0, 2 * LEN, memfd_of(&prefix(LEN - 4), 2 * LEN, segment_seals()));
            for _ in 0..20 {
                peer.call_in_block("length", at_start(0, LEN), &[]);
                assert_eq!(peer.answer().result(), encoded(&(LEN - 4)));
                peer.call("all", &[&[1][..], &loan(0)].concat(), &[at_start(0, 2 * LEN)]);
                assert_eq!(peer.answer().result(), encoded(&(2 * LEN)));
            }
        });
        assert!(grown < 5 * LEN + 16 * MIB, "{} MiB with {driver:?}", grown / MIB);
        drop(peer);
        baseline.check("a sparse segment");
    }
}

/// A gigabyte to copy, for a table of 16 KiB.
#[test]
fn a_thousand_loans_of_one_segment_are_not_copied_a_thousand_times() {
    // The same place each time, and another one each time.
    for difference in [0, 1] {
        for driver in DRIVERS {
            let vault = Vault::start(driver, Knobs { pool: Some(4 * MIB), ..Knobs::default() });
            let baseline = Baseline::of(&vault);
            let mut peer = Peer::connect(vault.port());
            peer.segment(0, MIB, memfd_of(b"", MIB, segment_seals()));
            let mut arguments = prefix(1000);
            for index in 0..1000 {
                arguments.push(1);
                arguments.extend(prefix(index));
            }
            let grown = growth(&vault, || {
                let places: Vec<_> = (0..1000).map(|number| at_start(0, MIB - number * difference)).collect();
                peer.call("all", &arguments, &places);
                let answer = peer.answer();
                let is_refused = matches!(answer, Answer::Failure { .. } | Answer::HungUp);
                assert!(is_refused || difference == 0, "{answer:?}");
            });
            assert!(grown < 32 * MIB, "{} MiB with {driver:?}", grown / MIB);
            drop(peer);
            baseline.check("a thousand loans of one segment");
        }
    }
}

/// As above, by calls that are under way at once.
#[test]
fn calls_at_once_that_name_one_segment_are_not_all_copied() {
    for driver in DRIVERS {
        let vault = Vault::start(driver, Knobs { pool: Some(4 * MIB), ..Knobs::default() });
        let baseline = Baseline::of(&vault);
        let mut peer = Peer::connect(vault.port());
        peer.segment(0, 4 * MIB, memfd_of(b"", 4 * MIB, segment_seals()));
        let grown = growth(&vault, || {
            for _ in 0..200 {
                let mut frame = peer.frame("sum", &loan(0), None, &[at_start(0, 4 * MIB)]);
                frame::mark_busy(&mut frame);
                peer.send(&frame);
            }
            for _ in 0..200 {
                if matches!(peer.answer(), Answer::HungUp) {
                    break;
                }
            }
        });
        // What was used for copies is kept for a while.
        assert!(grown < 64 * MIB, "{} MiB with {driver:?}", grown / MIB);
        drop(peer);
        baseline.check("calls at once with one segment");
    }
}

/// What an honest client may do: one loan in several places, and in several calls. It is copied for each.
#[test]
fn one_loan_in_calls_at_once_is_no_offence_however_much_of_the_pool_it_is() {
    const LEN: usize = 3 << 20;
    for (client, server) in pairs() {
        let vault = Vault::start(server, Knobs { pool: Some(4 * MIB), ..Knobs::default() });
        let client = vault.client(client);
        let loan = client.loan(LEN, 2).unwrap();
        assert_eq!(client.all(vec![loan.clone()]).unwrap(), LEN as u64);
        let twice = client.all(vec![loan.clone(), loan.clone()]);
        assert_eq!(twice.unwrap(), 2 * LEN as u64, "twice in one call");
        within("calls with one loan", move || {
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    let (client, loan) = (client.clone(), loan.clone());
                    scope.spawn(move || {
                        for _ in 0..10 {
                            match client.all(vec![loan.clone()]) {
                                Ok(len) => assert_eq!(len, LEN as u64),
                                Err(error) => {
                                    assert!(is_exhausted(&error) && !error.may_have_run(), "{error:?}");
                                }
                            }
                        }
                    });
                }
            });
            assert_eq!(client.sum(loan).unwrap(), 2 * LEN as u64);
        });
    }
}

#[test]
fn a_client_that_returns_nothing_gets_the_pool_and_then_copies() {
    const LEN: u64 = MIB;
    for driver in DRIVERS {
        let vault = Vault::start(driver, Knobs { pool: Some(8 * MIB), ..Knobs::default() });
        let baseline = Baseline::of(&vault);
        let mut peer = Peer::connect(vault.port());
        let grown = growth(&vault, || {
            let (mut lent, mut copied) = (0, 0);
            for round in 0..100 {
                // Loans that are not returned, and results that are not released.
                let method = if round % 2 == 0 { "lend" } else { "make" };
                peer.call(method, &encoded(&(LEN, 7_u8)), &[]);
                match peer.answer() {
                    Answer::Reply { loans, is_mapped, .. } if is_mapped || !loans.is_empty() => lent += 1,
                    Answer::Reply { body, .. } if body.len() as u64 > LEN => copied += 1,
                    other => panic!("{other:?}"),
                }
                assert_eq!(baseline.honest.length(b"fine").unwrap(), 4);
            }
            assert!(lent <= 8 && copied >= 92, "{lent} lent, {copied} copied");
        });
        // The pool, and what was used for copies, which is kept for a while.
        assert!(grown < 64 * MIB, "{} MiB with {driver:?}", grown / MIB);
        drop(peer);
        baseline.check("a client that returns nothing");
    }
}

#[test]
fn a_file_of_60_gib_is_an_error_as_a_whole_and_readable_in_pieces() {
    for (client, server) in pairs() {
        let vault = Vault::start(server, Knobs::default());
        let baseline = Baseline::of(&vault);
        let hostile = vault.client(client);
        let file = sparse_file(60 << 30);
        let bytes = Shared::from_file(&file, ..).unwrap();
        let grown = growth(&vault, || {
            let error = hostile.sum(bytes.clone()).unwrap_err();
            assert!(error.is_panic() && error.to_string().contains("`read_at`"), "{error:?}");
            let error = hostile.all(vec![bytes.clone()]).unwrap_err();
            assert!(error.to_string().contains("`read_at`"), "{error:?}");
            hostile.keep(bytes.clone()).unwrap();
            assert_eq!(hostile.marks(10 << 30, true).unwrap(), [0; 6]);
            hostile.forget().unwrap();
        });
        assert!(grown < 16 * MIB, "{} MiB", grown / MIB);
        drop((bytes, hostile));
        baseline.check("a file of 60 GiB");
    }
}

fn named(object: u32, len: u64) -> BlockRef {
    at_start(OBJECT | object, len)
}

/// A hole in sealed memory becomes a page when it is read where it is, and the reader's.
#[test]
fn sealed_memory_that_is_all_holes_costs_its_reader_no_more_than_a_copy() {
    const LEN: u64 = 256 * MIB;
    for driver in DRIVERS {
        for (method, argument) in [("sum", loan(0)), ("characters", loan(0))] {
            let limit = Some(16 * MIB);
            let vault = Vault::start(driver, Knobs { pool: limit, message: limit, ..Knobs::default() });
            let baseline = Baseline::of(&vault);
            let mut peer = Peer::connect(vault.port());
            let grown = growth(&vault, || {
                peer.object(0, 0, LEN, memfd_of(b"", LEN, frozen_seals()));
                peer.call(method, &argument, &[named(0, LEN)]);
                within("an answer", move || drop(peer.answer()));
            });
            assert!(grown < 64 * MIB, "{method}: {} MiB with {driver:?}", grown / MIB);
            baseline.check("sealed memory of holes");
        }
    }
}

/// Each within the limit of a copy, together far beyond it.
#[test]
fn files_of_one_call_are_not_all_copied() {
    const LEN: u64 = 16 * MIB;
    for driver in DRIVERS {
        let knobs = Knobs { pool: Some(LEN), message: Some(LEN), ..Knobs::default() };
        let vault = Vault::start(driver, knobs);
        let baseline = Baseline::of(&vault);
        let mut peer = Peer::connect(vault.port());
        let grown = growth(&vault, || {
            let file = sparse_file(LEN);
            let mut arguments = vec![32];
            for number in 0..32 {
                peer.object(number, 0, LEN, &file);
                arguments.extend(loan(number as u8));
            }
            let places: Vec<_> = (0..32).map(|number| named(number, LEN)).collect();
            peer.call("all", &arguments, &places);
            within("an answer", move || drop(peer.answer()));
        });
        assert!(grown < 128 * MIB, "{} MiB with {driver:?}", grown / MIB);
        baseline.check("many files in one call");
    }
}

/// Each call asks for 16 bytes of answer, and is over before there is a reply to wait for.
#[test]
fn a_client_that_does_not_read_what_is_asked_of_it_is_not_answered_into_memory() {
    const CALLS: u64 = 2_000_000;
    for driver in DRIVERS {
        // A segment over the quota cannot be read, so that each body in it is asked for again.
        let vault = Vault::start(driver, Knobs { user_pool: Some(MIB), ..Knobs::default() });
        let baseline = Baseline::of(&vault);
        let mut peer = Peer::connect(vault.port());
        peer.segment(0, 4 * MIB, memfd_of(b"", 4 * MIB, segment_seals()));
        let grown = growth(&vault, || {
            let call = peer.frame("length", &[], Some(at_start(0, 4096)), &[]);
            let many = call.repeat(10_000);
            let stop = Instant::now() + Duration::from_secs(5);
            for _ in 0..CALLS / 10_000 {
                // Until the server does not read any more, which is one way to stay in bounds.
                if !peer.send_for(&many, Duration::from_secs(1)) || Instant::now() > stop {
                    break;
                }
            }
        });
        assert!(grown < 16 * MIB, "{} MiB with {driver:?}", grown / MIB);
        baseline.answers("a client that does not read");
        drop(peer);
        baseline.check("a client that does not read");
    }
}

/// A segment over the quota of its user is no offence, nor is asking again for what is not there.
#[test]
fn a_resend_of_a_call_comes_in_the_frame_or_never() {
    for driver in DRIVERS {
        let vault = Vault::start(driver, Knobs { user_pool: Some(MIB), ..Knobs::default() });
        let baseline = Baseline::of(&vault);
        let mut peer = Peer::connect(vault.port());
        peer.segment(0, 4 * MIB, memfd_of(b"", 4 * MIB, segment_seals()));
        let call = peer.call_in_block("length", at_start(0, 4096), &[]);
        assert!(matches!(peer.answer(), Answer::Resend { call: again } if again == call));
        let mut frame = Vec::new();
        frame::begin_call(&mut frame, peer.method("length"));
        frame.extend(encoded(&b"again"[..]));
        frame::seal(&mut frame, CallId::new(call), frame::Body::Inline, &[]);
        peer.send(&frame);
        assert_eq!(peer.answer().result(), encoded(&5_u64));
        // One that is never sent again costs nothing.
        peer.call_in_block("length", at_start(0, 4096), &[]);
        assert!(matches!(peer.answer(), Answer::Resend { .. }));
        drop(peer);
        baseline.check("a call that was not sent again");
    }
}

/// A client that claims to accept nothing can only be refused.
#[test]
fn a_client_with_limits_of_nothing_is_refused_what_it_does_not_accept() {
    for driver in DRIVERS {
        let vault = Vault::start(driver, Knobs::default());
        let baseline = Baseline::of(&vault);
        for limits in [
            Limits { pool: 0, ..Limits::default() },
            Limits { max_message: 0, ..Limits::default() },
            Limits { max_segments: 0, ..Limits::default() },
            Limits { max_objects: 0, lent: 0, ..Limits::default() },
        ] {
            let mut peer = Peer::connect_with(vault.port(), &limits);
            for method in ["make", "lend"] {
                peer.call(method, &encoded(&(100_000_u64, 7_u8)), &[]);
                assert!(!matches!(peer.answer(), Answer::HungUp), "{limits:?}");
            }
            drop(peer);
            baseline.check("a client that accepts nothing");
        }
    }
}

/// Each byte reads as what it was or as zero; nobody is killed by SIGBUS.
#[test]
fn a_file_that_is_truncated_while_it_is_read_reads_as_zeroes() {
    const LEN: u64 = 4 * MIB;
    for (client, server) in pairs() {
        let vault = Vault::start(server, Knobs::default());
        let baseline = Baseline::of(&vault);
        let file = Arc::new(sparse_file(0));
        let fill = vec![1; LEN as usize];
        let write = |file: &std::fs::File| std::os::unix::fs::FileExt::write_all_at(file, &fill, 0).unwrap();
        write(&file);
        let hostile = vault.client(client);
        let bytes = Shared::from_file(&file, ..).unwrap();
        hostile.keep(bytes.clone()).unwrap();
        file.set_len(0).unwrap();
        assert_eq!(hostile.kept().unwrap(), [(LEN, 0)], "truncated after it was passed");
        hostile.forget().unwrap();
        write(&file);
        hostile.keep(Shared::from_file(&file, 1..).unwrap()).unwrap();
        let has_ended = Arc::new(AtomicBool::new(false));
        let truncating = std::thread::spawn({
            let (file, has_ended) = (Arc::clone(&file), Arc::clone(&has_ended));
            move || {
                while !has_ended.load(Relaxed) {
                    file.set_len(0).unwrap();
                    file.set_len(LEN).unwrap();
                }
            }
        });
        for _ in 0..30 {
            assert!(hostile.marks(100_000, true).unwrap().iter().all(|byte| *byte <= 1));
        }
        // Announced at a time when it may be too short, which is an error of the call.
        for _ in 0..30 {
            let Ok(bytes) = Shared::from_file(&file, 0..LEN) else { continue };
            let other = AnyVault::connect(client, vault.port()).unwrap();
            match other.sum(bytes) {
                Ok(sum) => assert!(sum <= LEN),
                Err(error) => assert!(error.is_exhausted(), "{error:?}"),
            }
        }
        has_ended.store(true, Relaxed);
        truncating.join().unwrap();
        hostile.forget().unwrap();
        drop((hostile, bytes));
        baseline.check("a file that is truncated");
    }
}

/// Descriptors and mappings of objects that come and go, some while values of them are read.
#[test]
fn objects_that_come_and_go_leave_nothing() {
    for driver in DRIVERS {
        let vault = Vault::start(driver, Knobs::default());
        let baseline = Baseline::of(&vault);
        let mut peer = Peer::connect(vault.port());
        for round in 0..500_u32 {
            let file: OwnedFd = memfd_of(b"abc", 4096, frozen_seals());
            peer.object(round % 64, 0, 3, file);
            peer.call("characters", &loan(0), &[named(round % 64, 3)]);
            peer.send(&frame::retire(OBJECT | (round % 64)));
            assert_eq!(peer.answer().result(), encoded(&3_u64));
        }
        assert!(peer.is_content());
        until("no object is mapped", || (holdings(vault.id()).1 == 0).then_some(()));
        assert!(peer.is_content());
        drop(peer);
        baseline.check("objects that came and went");
    }
}

/// A server that is trusted by mistake is no concern here; one whose client is a liar is.
#[test]
fn an_untrusting_server_reads_no_peer_memory_in_place() {
    for driver in DRIVERS {
        let vault = Vault::start(driver, Knobs::default());
        for client in DRIVERS {
            let client = vault.client(client);
            let place = client.place(client.loan(100_000, 1).unwrap()).unwrap();
            assert!(!place.contains("memfd"), "{place}");
        }
        let trusting = Vault::start(driver, Knobs { is_trusting: true, ..Knobs::default() });
        let client = trusting.client(Driver::Blocking);
        let place = client.place(client.loan(100_000, 1).unwrap()).unwrap();
        assert!(place.contains("memfd:lpc"), "{place}");
    }
}

/// Pages of a file that there are, in bytes.
fn allocated(file: &OwnedFd) -> u64 {
    nix::sys::stat::fstat(file).unwrap().st_blocks as u64 * 512
}

/// Sealed memory that seems to be all there when it is announced, for there are as many pages behind its end.
/// They are freed then; and what makes others by reading would pay for them, and not be able to free them.
fn forged(len: u64) -> OwnedFd {
    let file = memfd(len);
    fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, len as i64, len as i64).unwrap();
    seal(&file, frozen_seals());
    assert_eq!(allocated(&file), len);
    file
}

#[test]
fn nobody_makes_pages_of_a_peers_memory_by_reading_it() {
    const LEN: u64 = 32 * MIB;
    for driver in DRIVERS {
        let vault = Vault::start(driver, Knobs { pool: Some(LEN), ..Knobs::default() });
        let baseline = Baseline::of(&vault);
        let mut peer = Peer::connect(vault.port());
        let (segment, object) = (memfd_of(&prefix(LEN - 4), LEN, segment_seals()), forged(2 * LEN));
        peer.segment(0, LEN, &segment);
        peer.object(0, 0, 2 * LEN, &object);
        nix::unistd::ftruncate(&object, 2 * LEN as i64).unwrap();
        peer.call_in_block("length", at_start(0, LEN), &[]);
        assert_eq!(peer.answer().result(), encoded(&(LEN - 4)));
        peer.call("sum", &loan(0), &[at_start(0, LEN)]);
        peer.answer().result();
        // More than may be copied.
        peer.call("sum", &loan(0), &[at_start(OBJECT, 2 * LEN)]);
        assert!(matches!(peer.answer(), Answer::Failure { .. }));
        assert_eq!((allocated(&segment), allocated(&object)), (4096, 0), "with {driver:?}");
        drop(peer);
        baseline.check("memory that is not there");
    }
}

/// The same of a client, which copies as much as it likes.
#[test]
fn a_client_makes_no_pages_of_its_servers_memory_by_reading_it() {
    const LEN: u64 = MIB;
    for driver in DRIVERS {
        let directory = tempfile::tempdir().unwrap();
        let port = directory.path().join("port");
        let listener = std::os::unix::net::UnixListener::bind(&port).unwrap();
        for is_object in [false, true] {
            let port = text(&port).to_owned();
            let caller = std::thread::spawn(move || {
                let client = AnyVault::connect(driver, &port).unwrap();
                let Thing::Loan(loan) = client.look(Thing::Nothing).unwrap() else { panic!("no loan") };
                assert!(loan.len() as u64 == LEN && loan.iter().all(|byte| *byte == 0));
            });
            let mut peer = Peer::accept(&listener);
            let file = if is_object { forged(LEN) } else { memfd_of(b"", LEN, segment_seals()) };
            if is_object {
                peer.object(0, 0, LEN, &file);
                nix::unistd::ftruncate(&file, LEN as i64).unwrap();
            } else {
                peer.segment(0, LEN, &file);
            }
            peer.pass(&[10, 1, 0], &[at_start(if is_object { OBJECT } else { 0 }, LEN)]);
            caller.join().unwrap();
            assert_eq!(allocated(&file), 0, "with {driver:?}");
        }
    }
}
