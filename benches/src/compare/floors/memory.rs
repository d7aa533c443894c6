//! Memory for the floors. Shared memory is made by one process, handed over, and mapped by both.
#![allow(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, AtomicU64};

use memmap2::{Advice, Mmap, MmapMut, MmapOptions, MmapRaw};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// `len` bytes of new memory to write to, which the process at the other end of `socket` [borrows](borrow).
pub(super) fn lend(socket: &UnixStream, len: usize) -> io::Result<MmapMut> {
    let file = make(len)?;
    pass(socket, &file)?;
    // SAFETY: nobody truncates the file. The other process only reads it, and only between a message that
    // hands the bytes over and its answer, when this one does not write.
    let mapping = unsafe { MmapOptions::new().len(len).map_mut(&file) }?;
    // As lpc does for its own. A kernel without huge pages refuses, which is no harm.
    let _ = mapping.advise(Advice::HugePage);
    Ok(mapping)
}

/// The memory that the process at the other end of `socket` [lends](lend).
pub(super) fn borrow(socket: &UnixStream, len: usize) -> io::Result<Mmap> {
    let file = receive(socket)?;
    // SAFETY: the other process is this same program. It does not truncate the file, and does not write to it
    // between a message that hands the bytes over and the answer, which is when they are read here.
    let mapping = unsafe { MmapOptions::new().len(len).map(&file) }?;
    let _ = mapping.advise(Advice::HugePage);
    Ok(mapping)
}

/// These bytes in new memory, which the process at the other end of `socket` [borrows](borrow).
pub(super) fn lend_filled(socket: &UnixStream, bytes: &[u8]) -> io::Result<()> {
    let file = make(bytes.len())?;
    {
        // SAFETY: nobody else has the file yet.
        let mut mapping = unsafe { MmapOptions::new().len(bytes.len()).map_mut(&file) }?;
        mapping.copy_from_slice(bytes);
    }
    pass(socket, &file)
}

/// `len` bytes of this process alone, to receive into.
pub(super) fn private(len: usize) -> io::Result<MmapMut> {
    let mapping = MmapMut::map_anon(len)?;
    let _ = mapping.advise(Advice::HugePage);
    Ok(mapping)
}

/// Memory that both processes write to, as atomics alone.
pub(super) struct Words(MmapRaw);

/// Of the memory's begin: what is used as words of 32 bits.
const SMALL: usize = 4096;

impl Words {
    /// New, all 0, with room for `len` words of 64 bits; the process at the other end of `socket`
    /// [joins](Self::join).
    pub(super) fn make(socket: &UnixStream, len: usize) -> io::Result<Self> {
        let file = self::make(SMALL + len * size_of::<u64>())?;
        pass(socket, &file)?;
        Ok(Self(MmapRaw::map_raw(&file)?))
    }

    /// What the process at the other end of `socket` has [made](Self::make).
    pub(super) fn join(socket: &UnixStream) -> io::Result<Self> {
        Ok(Self(MmapRaw::map_raw(&receive(socket)?)?))
    }

    /// The words of 32 bits, which futexes can be.
    pub(super) fn small(&self) -> &[AtomicU32] {
        // SAFETY: the first `SMALL` bytes are mapped as long as `self` is, aligned as a page is, and nobody
        // makes the file shorter. Both processes use them through this function alone, as atomics.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), SMALL / size_of::<u32>()) }
    }

    /// The words of 64 bits.
    pub(super) fn large(&self) -> &[AtomicU64] {
        let len = (self.0.len() - SMALL) / size_of::<u64>();
        // SAFETY: the mapping has no fewer than `SMALL` bytes (`make`), so this is in it or at its end.
        let first = unsafe { self.0.as_ptr().add(SMALL) };
        // SAFETY: as for `small`, of the bytes behind those.
        unsafe { std::slice::from_raw_parts(first.cast(), len) }
    }
}

/// New memory, all 0.
pub(super) fn make(len: usize) -> io::Result<OwnedFd> {
    let file = memfd_create(c"benches", MFdFlags::MFD_CLOEXEC)?;
    nix::unistd::ftruncate(&file, i64::try_from(len).map_err(io::Error::other)?)?;
    Ok(file)
}

/// Sends memory, with one byte.
pub(super) fn pass(socket: &UnixStream, file: &OwnedFd) -> io::Result<()> {
    let descriptors = [file.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(b"m")], &control, MsgFlags::empty(), None)?;
    Ok(())
}

/// Receives what was [passed](pass).
pub(super) fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
    let (mut byte, mut control) = ([0], nix::cmsg_space!(RawFd));
    let mut slices = [IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
    let descriptor = message.cmsgs()?.find_map(|item| match item {
        ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
        _ => None,
    });
    let descriptor = descriptor.ok_or_else(|| io::Error::other("no memory came with the message"))?;
    // SAFETY: the kernel installed this descriptor for this message a moment ago, and its number went nowhere
    // else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
