//! Descriptors and loans that look odd, some of which are in order.

use lpc_core::frame::{self, BlockRef, OBJECT};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::hostile::{
    MIB, Peer, at_start, encoded, file_of, frozen_seals, loan, memfd_of, seal, sealed_segment, segment_seals,
};
use crate::service::DRIVERS;
use crate::vault::{Baseline, Knobs, Vault};

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
