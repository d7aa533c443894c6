//! Memory for the rows without lpc. Shared memory is made by the process that writes to it, handed over, and mapped by
//! the one that reads it.
#![allow(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use memmap2::{Advice, Mmap, MmapMut, MmapOptions};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// `len` bytes of new memory to write to, which the process at the other end of `socket` receives.
pub(super) fn lend(socket: &UnixStream, len: usize) -> io::Result<MmapMut> {
    let file = memfd_create(c"benches", MFdFlags::MFD_CLOEXEC)?;
    nix::unistd::ftruncate(&file, i64::try_from(len).map_err(io::Error::other)?)?;
    let descriptors = [file.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(b"m")], &control, MsgFlags::empty(), None)?;
    // SAFETY: nobody truncates the file. The other process only reads it, and only between a message that hands the
    // bytes over and its answer, when this one does not write.
    let mapping = unsafe { MmapOptions::new().len(len).map_mut(&file) }?;
    // As lpc does for its own. A kernel without huge pages refuses, which is no harm.
    let _ = mapping.advise(Advice::HugePage);
    Ok(mapping)
}

/// The memory that the process at the other end of `socket` lends.
pub(super) fn borrow(socket: &UnixStream, len: usize) -> io::Result<Mmap> {
    let (mut byte, mut control) = ([0], nix::cmsg_space!(RawFd));
    let mut slices = [IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
    let descriptor = message.cmsgs()?.find_map(|item| match item {
        ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
        _ => None,
    });
    let descriptor = descriptor.ok_or_else(|| io::Error::other("no memory came with the message"))?;
    // SAFETY: the kernel installed this descriptor for this message a moment ago, and its number went nowhere else.
    let file = unsafe { OwnedFd::from_raw_fd(descriptor) };
    // SAFETY: the other process is this same program. It does not truncate the file, and does not write to it
    // between a message that hands the bytes over and the answer, which is when they are read here.
    let mapping = unsafe { MmapOptions::new().len(len).map(&file) }?;
    let _ = mapping.advise(Advice::HugePage);
    Ok(mapping)
}

/// `len` bytes of this process alone, to receive into.
pub(super) fn private(len: usize) -> io::Result<MmapMut> {
    let mapping = MmapMut::map_anon(len)?;
    let _ = mapping.advise(Advice::HugePage);
    Ok(mapping)
}
