//! Segments that are no honest memory: truncated or not sealed against it, of another size or kind, or too
//! large.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;

use lpc::ErrorKind::Protocol;
use lpc_core::frame;
use nix::fcntl::SealFlag;
use nix::libc::O_PATH;
use nix::unistd::{ftruncate, pipe};

use crate::peer::{MIB, at_start, file_of, memfd, memfd_of, sealed_segment, segment_seals};
use crate::siege::End::{Borne, CutOff};

attacks! { Greeted;
    a_segment_without_seals_truncated_after_its_announcement: both, CutOff(Protocol), |peer| {
        let file = memfd(MIB);
        peer.segment(0, MIB, &file);
        ftruncate(&file, 0).unwrap();
        peer.pass_in(at_start(0, MIB), &[]);
    };
    /// It cannot be: that is what the seals are for.
    a_sealed_segment_truncated_after_its_announcement: both, Borne, |peer| {
        let file = memfd_of(&peer.body(&[0]), MIB, segment_seals());
        peer.segment(0, MIB, &file);
        ftruncate(&file, 0).unwrap_err();
        let body = peer.body(&[0]).len();
        peer.pass_in(at_start(0, body as u64), &[]);
    };
    shorter_than_announced: both, CutOff(Protocol), |peer| peer.segment(0, 2 * MIB, sealed_segment(MIB));
    longer_than_announced: both, CutOff(Protocol), |peer| peer.segment(0, MIB, sealed_segment(2 * MIB));
    without_seals: both, CutOff(Protocol), |peer| peer.segment(0, MIB, memfd(MIB));
    that_can_shrink: both, CutOff(Protocol), |peer| peer.segment(0, MIB, without(SealFlag::F_SEAL_SHRINK));
    that_can_grow: both, CutOff(Protocol), |peer| peer.segment(0, MIB, without(SealFlag::F_SEAL_GROW));
    that_others_can_write_to: both, CutOff(Protocol), |peer| {
        peer.segment(0, MIB, without(SealFlag::F_SEAL_FUTURE_WRITE));
    };
    that_can_be_sealed: both, CutOff(Protocol), |peer| peer.segment(0, MIB, without(SealFlag::F_SEAL_SEAL));
    a_pipe: both, CutOff(Protocol), |peer| peer.segment(0, MIB, pipe().unwrap().0);
    a_socket: both, CutOff(Protocol), |peer| peer.segment(0, MIB, UnixStream::pair().unwrap().0);
    a_path: both, CutOff(Protocol), |peer| {
        let path = OpenOptions::new().read(true).custom_flags(O_PATH).open("/").unwrap();
        peer.segment(0, MIB, path);
    };
    dev_zero: both, CutOff(Protocol), |peer| peer.segment(0, MIB, File::open("/dev/zero").unwrap());
    a_file: both, CutOff(Protocol), |peer| peer.segment(0, MIB, file_of(MIB));
    a_directory: both, CutOff(Protocol), |peer| peer.segment(0, MIB, File::open("/").unwrap());
    a_sparse_terabyte: both, CutOff(Protocol), |peer| peer.segment(0, 1 << 40, sealed_segment(1 << 40));
    over_the_limit_together: both, CutOff(Protocol), |peer| {
        peer.segment(0, 300 * MIB, sealed_segment(300 * MIB));
        peer.segment(1, 300 * MIB, sealed_segment(300 * MIB));
    };
    of_no_pages: both, CutOff(Protocol), |peer| peer.segment(0, 0, sealed_segment(0));
    of_half_a_page: both, CutOff(Protocol), |peer| peer.segment(0, 2048, sealed_segment(2048));
    in_a_slot_that_is_used: both, CutOff(Protocol), |peer| {
        peer.segment(0, MIB, sealed_segment(MIB));
        peer.segment(0, MIB, sealed_segment(MIB));
    };
    in_a_slot_that_there_is_not: both, CutOff(Protocol), |peer| peer.segment(64, MIB, sealed_segment(MIB));
    /// What is announced and never touched costs its receiver address space, which the limit bounds.
    sparse_up_to_the_limit: both, Borne, |peer| {
        for number in 0..64 {
            peer.segment(number, 8 * MIB, sealed_segment(8 * MIB));
        }
    };
    /// Which the system of the sender did not pass, as it says.
    a_flood_of_those_that_were_not_passed: both, Borne, |peer| {
        let mut segment = frame::segment(0, MIB);
        frame::mark_without_descriptor(&mut segment);
        peer.send(&[&segment[..], &frame::retire(0)].concat().repeat(1000));
    };
    that_come_and_go: both, Borne, |peer| {
        for number in 0..200 {
            peer.segment(number % 64, MIB, sealed_segment(MIB));
            peer.send(&frame::retire(number % 64));
        }
    };
}

fn without(missing: SealFlag) -> OwnedFd {
    memfd_of(b"", MIB, segment_seals().difference(missing))
}
