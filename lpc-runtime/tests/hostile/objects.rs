//! Objects that are no file or memory, or not as they were announced.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;

use lpc::ErrorKind::{Protocol, ResourceExhausted};
use lpc_core::frame::{self, OBJECT};
use nix::libc::O_PATH;
use nix::sys::stat::Mode;
use nix::unistd::{mkfifo, pipe};

use crate::peer::{MIB, at_start, file_of};
use crate::siege::End::{Borne, CutOff, Fails};
use crate::siege::LOAN;

attacks! { Greeted;
    a_directory: both, CutOff(Protocol), |peer| peer.object(0, 0, 1, File::open("/").unwrap());
    a_pipe: both, CutOff(Protocol), |peer| peer.object(0, 0, 1, pipe().unwrap().0);
    a_fifo: both, CutOff(Protocol), |peer| peer.object(0, 0, 1, fifo());
    a_socket: both, CutOff(Protocol), |peer| peer.object(0, 0, 1, UnixStream::pair().unwrap().0);
    dev_zero: both, CutOff(Protocol), |peer| peer.object(0, 0, 1, File::open("/dev/zero").unwrap());
    a_path: both, CutOff(Protocol), |peer| {
        peer.object(0, 0, 1, open(OpenOptions::new().read(true).custom_flags(O_PATH)));
    };
    a_write_only_file: both, CutOff(Protocol), |peer| peer.object(0, 0, 1, open(OpenOptions::new().write(true)));
    beyond_all_numbers: both, CutOff(Protocol), |peer| peer.object(0, u64::MAX, 1, file_of(100));
    of_no_bytes: both, CutOff(Protocol), |peer| peer.object(0, 0, 0, file_of(100));
    over_the_limit: both, CutOff(Protocol), |peer| peer.object(0, 0, (64 << 30) + 1, file_of(100));
    over_the_limit_together: both, CutOff(Protocol), |peer| {
        let file = file_of(40 << 30);
        peer.object(0, 0, 40 << 30, &file);
        peer.object(1, 0, 40 << 30, &file);
    };
    in_a_slot_that_is_used: both, CutOff(Protocol), |peer| {
        peer.object(0, 0, 100, file_of(100));
        peer.object(0, 0, 100, file_of(100));
    };
    in_a_slot_that_there_is_not: both, CutOff(Protocol), |peer| peer.object(64, 0, 100, file_of(100));
    /// Files change; an honest peer may pass one that has just become shorter.
    a_file_that_is_shorter_than_announced: both, Borne, |peer| peer.object(0, 0, 101, file_of(100));
    a_flood_of_files_that_are_shorter_than_announced: both, Borne, |peer| {
        let file = file_of(100);
        for _ in 0..200 {
            peer.object(0, 0, 101, &file);
            peer.send(&frame::retire(OBJECT));
        }
    };
    /// Which the system of the sender did not pass, as it says.
    a_flood_of_files_that_were_not_passed: both, Borne, |peer| {
        let mut object = frame::object(OBJECT, 0, 100);
        frame::mark_without_descriptor(&mut object);
        peer.send(&[&object[..], &frame::retire(OBJECT)].concat().repeat(1000));
    };
    a_loan_of_a_file_that_is_shorter_than_announced: both, Fails(ResourceExhausted), |peer| {
        peer.object(0, 0, MIB, file_of(100));
        peer.pass(&LOAN, &[at_start(OBJECT, MIB)]);
    };
}

fn open(options: &OpenOptions) -> OwnedFd {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(MIB).unwrap();
    options.open(file.path()).unwrap().into()
}

fn fifo() -> OwnedFd {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fifo");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    File::options().read(true).write(true).open(path).unwrap().into()
}
