//! Frames, descriptors and tables of loans that no honest peer sends: each ends its connection and nothing else.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use lpc_core::frame::{self, BlockRef, Body, CallId, Header, OBJECT};
use nix::fcntl::SealFlag;
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::hostile::{
    Answer, MIB, Peer, at_start, encoded, frozen_seals, loan, memfd, memfd_of, seal, segment_seals,
};
use crate::service::DRIVERS;
use crate::vault::{Baseline, Knobs, Vault};

type Act = Box<dyn Fn(&mut Peer)>;

fn act(act: impl Fn(&mut Peer) + 'static) -> Act {
    Box::new(act)
}

/// Does each to a server of its own driver, over a connection of its own.
fn cut_off(acts: impl Fn() -> Vec<(&'static str, Act)>) {
    for driver in DRIVERS {
        let vault = Vault::start(driver, Knobs::default());
        let baseline = Baseline::of(&vault);
        for (what, act) in acts() {
            let mut peer = Peer::connect(vault.port());
            act(&mut peer);
            assert!(peer.is_cut_off(), "{what} is no offence to {driver:?}");
            baseline.answers(what);
            // Its descriptors are gone although it stays.
            baseline.check(what);
        }
    }
}

#[test]
fn descriptors_that_are_no_honest_segment_end_the_connection() {
    cut_off(|| {
        let segment =
            |file: fn() -> OwnedFd, announced: u64| act(move |peer| peer.segment(0, announced, file()));
        vec![
            ("a segment that is shorter than announced", segment(|| sealed_segment(MIB), 2 * MIB)),
            ("a segment that is longer than announced", segment(|| sealed_segment(2 * MIB), MIB)),
            ("a segment without seals", segment(|| memfd(MIB), MIB)),
            ("a segment that can shrink", segment(|| without(SealFlag::F_SEAL_SHRINK), MIB)),
            ("a segment that can grow", segment(|| without(SealFlag::F_SEAL_GROW), MIB)),
            ("a segment that others can write to", segment(|| without(SealFlag::F_SEAL_FUTURE_WRITE), MIB)),
            ("a segment that can be sealed", segment(|| without(SealFlag::F_SEAL_SEAL), MIB)),
            ("a pipe as segment", segment(|| nix::unistd::pipe().unwrap().0, MIB)),
            ("/dev/zero as segment", segment(|| File::open("/dev/zero").unwrap().into(), MIB)),
            ("a file as segment", segment(|| file_of(MIB), MIB)),
            ("a directory as segment", segment(|| File::open("/").unwrap().into(), MIB)),
            ("a segment over the limit", segment(|| sealed_segment(4 << 30), 4 << 30)),
            ("a segment of no pages", segment(|| sealed_segment(0), 0)),
            ("a segment of half a page", segment(|| sealed_segment(2048), 2048)),
        ]
    });
}

fn sealed_segment(len: u64) -> OwnedFd {
    memfd_of(b"", len, segment_seals())
}

fn without(missing: SealFlag) -> OwnedFd {
    memfd_of(b"", MIB, segment_seals().difference(missing))
}

fn file_of(len: u64) -> OwnedFd {
    let file = tempfile::tempfile().unwrap();
    file.set_len(len).unwrap();
    file.into()
}

fn open(flags: i32, options: &mut std::fs::OpenOptions) -> OwnedFd {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(MIB).unwrap();
    options.custom_flags(flags).open(file.path()).unwrap().into()
}

/// Pages of another kind, a fault on which may find none and kill.
#[test]
fn memory_of_huge_pages_is_no_segment_and_is_not_mapped_as_object() {
    let huge = || {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_HUGETLB;
        let file = memfd_create(c"lpc", flags).ok()?;
        nix::unistd::ftruncate(&file, 2 << 20).ok()?;
        Some(file)
    };
    for driver in DRIVERS {
        let vault = Vault::start(driver, Knobs::default());
        let baseline = Baseline::of(&vault);
        // A kernel without hugetlbfs has no such memory to send.
        let (Some(segment), Some(object)) = (huge(), huge()) else { return };
        seal(&segment, segment_seals());
        seal(&object, frozen_seals());
        let mut peer = Peer::connect(vault.port());
        peer.segment(0, 2 << 20, segment);
        assert!(peer.is_cut_off());
        baseline.check("a segment of huge pages");
        // Read like a file, which for a hole needs no page.
        let mut peer = Peer::connect(vault.port());
        peer.object(0, 0, 2 << 20, object);
        peer.call("sum", &loan(0), &[at_start(OBJECT, 2 << 20)]);
        assert_eq!(peer.answer().result(), encoded(&0_u64));
        drop(peer);
        baseline.check("an object of huge pages");
    }
}

#[test]
fn descriptors_that_are_no_honest_object_end_the_connection() {
    cut_off(|| {
        let object =
            |file: fn() -> OwnedFd, offset, len| act(move |peer| peer.object(0, offset, len, file()));
        vec![
            ("a directory as object", object(|| File::open("/").unwrap().into(), 0, 1)),
            ("a pipe as object", object(|| nix::unistd::pipe().unwrap().0, 0, 1)),
            ("a fifo as object", object(fifo, 0, 1)),
            ("a socket as object", object(|| std::os::unix::net::UnixStream::pair().unwrap().0.into(), 0, 1)),
            ("/dev/zero as object", object(|| File::open("/dev/zero").unwrap().into(), 0, 1)),
            ("a path as object", object(|| open(libc::O_PATH, File::options().read(true)), 0, 1)),
            ("a write-only file as object", object(|| open(0, File::options().write(true)), 0, 1)),
            ("an object beyond all numbers", object(|| file_of(100), u64::MAX, 1)),
            ("an object of no bytes", object(|| file_of(100), 0, 0)),
            ("an object over the limit", object(|| file_of(100), 0, (64 << 30) + 1)),
            (
                "objects over the limit together",
                act(|peer| {
                    let file = file_of(40 << 30);
                    peer.object(0, 0, 40 << 30, &file);
                    peer.object(1, 0, 40 << 30, &file);
                }),
            ),
        ]
    });
}

/// Files change; an honest peer may pass one that has just become shorter.
#[test]
fn a_file_that_is_shorter_than_was_said_is_no_offence() {
    for driver in DRIVERS {
        let vault = Vault::start(driver, Knobs::default());
        for (slot, offset, len) in [(0, 0, 101), (1, 100, 1), (2, 1 << 63, 1)] {
            let mut peer = Peer::connect(vault.port());
            peer.object(slot, offset, len, file_of(100));
            assert!(peer.is_content(), "{len} bytes at {offset} of 100, with {driver:?}");
        }
    }
}

fn fifo() -> OwnedFd {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    File::options().read(true).write(true).open(path).unwrap().into()
}

#[test]
fn frames_about_what_is_not_there_end_the_connection() {
    cut_off(|| {
        vec![
            ("a return of what was never lent", act(|peer| peer.send(&frame::returned(0, 0)))),
            ("a return of an object", act(|peer| peer.send(&frame::returned(OBJECT, 0)))),
            (
                "a second return",
                act(|peer| {
                    let place = lent(peer);
                    let returned = frame::returned(place.segment, place.page);
                    peer.send(&returned);
                    assert!(peer.is_content(), "the first was in order");
                    peer.send(&returned);
                }),
            ),
            (
                "a return of a page inside a loan",
                act(|peer| {
                    let place = lent(peer);
                    peer.send(&frame::returned(place.segment, place.page + 1));
                }),
            ),
            ("a retired segment that never was", act(|peer| peer.send(&frame::retire(5)))),
            ("a retired object that never was", act(|peer| peer.send(&frame::retire(OBJECT | 5)))),
            (
                "a segment retired twice",
                act(|peer| {
                    peer.segment(3, MIB, sealed_segment(MIB));
                    peer.send(&frame::retire(3));
                    assert!(peer.is_content(), "once is in order");
                    peer.send(&frame::retire(3));
                }),
            ),
            (
                "a segment in a slot that is used",
                act(|peer| {
                    peer.segment(0, MIB, sealed_segment(MIB));
                    assert!(peer.is_content());
                    peer.segment(0, MIB, sealed_segment(MIB));
                }),
            ),
            (
                "an object in a slot that is used",
                act(|peer| {
                    peer.object(0, 0, 100, file_of(100));
                    assert!(peer.is_content());
                    peer.object(0, 0, 100, file_of(100));
                }),
            ),
            ("a segment in a slot that there is not", act(|peer| peer.segment(64, MIB, sealed_segment(MIB)))),
            ("an object in a slot that there is not", act(|peer| peer.object(64, 0, 100, file_of(100)))),
            (
                "segments over the limit together",
                act(|peer| {
                    peer.segment(0, 300 * MIB, sealed_segment(300 * MIB));
                    peer.segment(1, 300 * MIB, sealed_segment(300 * MIB));
                }),
            ),
            (
                "a segment without a descriptor",
                act(|peer| {
                    peer.send(&frame::segment(0, MIB));
                }),
            ),
            (
                "a descriptor that no frame declares",
                act(|peer| {
                    peer.send_with(&frame::release(CallId::new(1)), sealed_segment(MIB));
                }),
            ),
            ("a resend of no call", act(|peer| peer.send(&frame::resend(CallId::new(77))))),
            (
                "a resend of what was not in a block",
                act(|peer| {
                    let call = peer.call("length", &encoded(&b"abc"[..]), &[]);
                    assert_eq!(peer.answer().result(), encoded(&3_u64));
                    peer.send(&frame::resend(CallId::new(call)));
                }),
            ),
            (
                "a second resend",
                act(|peer| {
                    let call = mapped(peer);
                    peer.send(&frame::resend(CallId::new(call)));
                    assert_eq!(peer.answer().result(), encoded(&vec![7_u8; 100_000]));
                    peer.send(&frame::resend(CallId::new(call)));
                }),
            ),
            (
                "a resend after the release",
                act(|peer| {
                    let call = mapped(peer);
                    peer.send(&frame::release(CallId::new(call)));
                    assert!(peer.is_content());
                    peer.send(&frame::resend(CallId::new(call)));
                }),
            ),
            (
                "a second release",
                act(|peer| {
                    let release = frame::release(CallId::new(mapped(peer)));
                    peer.send(&release);
                    assert!(peer.is_content());
                    peer.send(&release);
                }),
            ),
            (
                "a reply to a server",
                act(|peer| {
                    let mut reply = Vec::new();
                    frame::begin_reply(&mut reply);
                    frame::seal(&mut reply, CallId::new(1), Body::Inline, &[]);
                    peer.send(&reply);
                }),
            ),
        ]
    });
}

/// Has the server lend something, and says where.
fn lent(peer: &mut Peer) -> BlockRef {
    peer.call("lend", &encoded(&(100_000_u64, 7_u8)), &[]);
    match peer.answer() {
        Answer::Reply { loans, body, .. } => {
            assert_eq!(body, [0, 1, 0], "`Ok` of the first loan");
            loans[0]
        }
        other => panic!("{other:?}"),
    }
}

/// Has the server answer in a block, to a call of this id.
fn mapped(peer: &mut Peer) -> u64 {
    let call = peer.call("make", &encoded(&(100_000_u64, 7_u8)), &[]);
    assert!(matches!(peer.answer(), Answer::Reply { is_mapped: true, .. }));
    call
}

#[test]
fn blocks_and_loans_that_are_nowhere_end_the_connection() {
    const PLACE: BlockRef = at_start(0, MIB);
    cut_off(|| {
        let with_segment = |then: fn(&mut Peer)| {
            act(move |peer| {
                peer.segment(0, MIB, sealed_segment(MIB));
                then(peer);
            })
        };
        vec![
            (
                "a body of no segment",
                act(|peer| {
                    peer.call_in_block("length", PLACE, &[]);
                }),
            ),
            (
                "a body that ends behind its segment",
                with_segment(|peer| {
                    peer.call_in_block("length", at_start(0, MIB + 1), &[]);
                }),
            ),
            (
                "a body that begins behind its segment",
                with_segment(|peer| {
                    peer.call_in_block("length", BlockRef { segment: 0, page: u32::MAX, len: 1 }, &[]);
                }),
            ),
            (
                "a body that is as long as numbers go",
                with_segment(|peer| {
                    peer.call_in_block("length", BlockRef { segment: 0, page: 1, len: u64::MAX }, &[]);
                }),
            ),
            (
                "a body in an object",
                act(|peer| {
                    peer.object(0, 0, 4096, file_of(4096));
                    peer.call_in_block("length", at_start(OBJECT, 4096), &[]);
                }),
            ),
            (
                "a body of a segment that was retired",
                with_segment(|peer| {
                    peer.send(&frame::retire(0));
                    peer.call_in_block("length", PLACE, &[]);
                }),
            ),
            (
                "a loan of no segment",
                act(|peer| {
                    peer.call("sum", &loan(0), &[PLACE]);
                }),
            ),
            (
                "a loan of no object",
                act(|peer| {
                    peer.call("sum", &loan(0), &[at_start(OBJECT, 1)]);
                }),
            ),
            (
                "a loan that ends behind its segment",
                with_segment(|peer| {
                    peer.call("sum", &loan(0), &[BlockRef { segment: 0, page: 1, len: MIB }]);
                }),
            ),
            (
                "a loan of a segment that was retired",
                with_segment(|peer| {
                    peer.send(&frame::retire(0));
                    peer.call("sum", &loan(0), &[PLACE]);
                }),
            ),
            (
                "a loan of an object that was retired",
                act(|peer| {
                    peer.object(0, 0, 4096, file_of(4096));
                    peer.send(&frame::retire(OBJECT));
                    peer.call("sum", &loan(0), &[at_start(OBJECT, 4096)]);
                }),
            ),
            (
                "a loan that ends behind its object",
                act(|peer| {
                    peer.object(0, 0, 4096, file_of(5000));
                    peer.call("sum", &loan(0), &[at_start(OBJECT, 4097)]);
                }),
            ),
            ("a table that says it has no loans", with_segment(|peer| broken_table(peer, 0))),
            ("a table that says it has 65535", with_segment(|peer| broken_table(peer, u16::MAX))),
            ("a table that says it has one more", with_segment(|peer| broken_table(peer, 2))),
            (
                "a table that is cut off",
                with_segment(|peer| {
                    let mut call = peer.frame("sum", &loan(0), None, &[PLACE]);
                    call.drain(Header::LEN..call.len() - 2);
                    call[..4].copy_from_slice(&2_u32.to_le_bytes());
                    peer.send(&call);
                }),
            ),
            (
                "a frame too short for a table",
                with_segment(|peer| {
                    let mut call = peer.frame("sum", &loan(0), None, &[PLACE]);
                    call.truncate(Header::LEN + 1);
                    call[..4].copy_from_slice(&1_u32.to_le_bytes());
                    peer.send(&call);
                }),
            ),
            (
                "a loan that did not come",
                with_segment(|peer| {
                    peer.call("sum", &loan(1), &[PLACE]);
                }),
            ),
            (
                "a loan without a table",
                with_segment(|peer| {
                    peer.call("sum", &loan(0), &[]);
                }),
            ),
            (
                "a loan that is taken twice",
                with_segment(|peer| {
                    peer.call("all", &[2, 1, 0, 1, 0], &[PLACE]);
                }),
            ),
            (
                "a loan of another kind",
                with_segment(|peer| {
                    peer.call("sum", &[2, 0], &[PLACE]);
                }),
            ),
            (
                "a loan that is no text",
                act(|peer| {
                    let file = memfd_of(b"\xff", 4096, frozen_seals());
                    peer.object(0, 0, 4096, file);
                    peer.call("characters", &loan(0), &[at_start(OBJECT, 4096)]);
                }),
            ),
        ]
    });
}

/// A call whose table of one loan claims another count.
fn broken_table(peer: &mut Peer, count: u16) {
    let mut call = peer.frame("sum", &loan(0), None, &[at_start(0, MIB)]);
    let at = call.len() - 2;
    call[at..].copy_from_slice(&count.to_le_bytes());
    peer.send(&call);
}

/// What looks odd and is in order.
#[test]
fn loans_that_nobody_takes_and_empty_ones_are_no_offence() {
    for driver in DRIVERS {
        let vault = Vault::start(driver, Knobs::default());
        let baseline = Baseline::of(&vault);
        let mut peer = Peer::connect(vault.port());
        peer.segment(0, MIB, sealed_segment(MIB));
        let places = vec![at_start(0, 4096); frame::MAX_LOANS];
        peer.call("sum", &loan(9), &places);
        assert_eq!(peer.answer().result(), encoded(&0_u64));
        peer.call("sum", &loan(0), &[BlockRef { segment: 0, page: 256, len: 0 }]);
        assert_eq!(peer.answer().result(), encoded(&0_u64));
        // Beyond the page: what is mapped of the memory is a part of its file.
        let mut body = vec![0; 4095];
        body.extend_from_slice(b"abc");
        peer.object(0, 4095, 3, memfd_of(&body, 5000, frozen_seals()));
        peer.call("characters", &loan(0), &[at_start(OBJECT, 3)]);
        assert_eq!(peer.answer().result(), encoded(&3_u64));
        // Retired while a value of it is kept.
        peer.call("keep", &loan(0), &[at_start(OBJECT, 3)]);
        assert_eq!(peer.answer().result(), encoded(&1_u64));
        peer.send(&frame::retire(OBJECT));
        peer.send(&frame::retire(0));
        assert!(peer.is_content());
        drop(peer);
        assert_eq!(
            baseline.honest.kept().unwrap(),
            [(3, u64::from(b'a') + u64::from(b'b') + u64::from(b'c'))]
        );
        baseline.honest.forget().unwrap();
        baseline.check("what is in order");
    }
}
