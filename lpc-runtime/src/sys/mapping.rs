//! The two kinds of mapping, and the only code that touches shared memory.
//!
//! [`OwnMapping`] is the sender's: the only writable mapping of its file, now and ever (see [`memfd`](super::memfd)).
//! [`PeerMapping`] is the receiver's: read-only, and no reference into it ever exists, because the peer may write to
//! it at any time; bytes are copied out, and the copy is what gets parsed.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr;

use memmap2::{MmapOptions, MmapRaw};

use super::memfd;

/// A segment of this process's pool.
#[derive(Debug)]
pub(crate) struct OwnMapping(MmapRaw);

impl OwnMapping {
    /// A new segment of `len` bytes, and the descriptor by which the peer gets at it.
    pub(crate) fn create(len: u64) -> io::Result<(Self, OwnedFd)> {
        let file = memfd::create(len)?;
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mapping = MmapOptions::new().len(len).map_raw(&file)?;
        memfd::seal(file.as_fd())?;
        Ok((Self(mapping), file))
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Safety
    ///
    /// Nothing else in this process reads or writes `offset..offset + bytes.len()` meanwhile.
    ///
    /// # Panics
    ///
    /// If that is outside the mapping.
    pub(crate) unsafe fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(
            offset.checked_add(bytes.len()).is_some_and(|end| end <= self.0.len()),
            "write outside a segment"
        );
        // SAFETY: in bounds by the check above.
        let to = unsafe { self.0.as_mut_ptr().add(offset) };
        // SAFETY: the destination is in bounds, mapped writable as long as `self` lives, and by the caller's promise
        // ours alone in this process; no other process can have a writable mapping of it. `bytes` is private memory:
        // no reference into a mapping exists anywhere.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    /// Appends a copy of `offset..offset + len` to `into`.
    ///
    /// # Safety
    ///
    /// Nothing in this process writes there meanwhile.
    ///
    /// # Panics
    ///
    /// If that is outside the mapping.
    pub(crate) unsafe fn read(&self, offset: usize, len: usize, into: &mut Vec<u8>) {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.0.len()), "read outside a segment");
        into.reserve(len);
        // SAFETY: in bounds by the check above.
        let from = unsafe { self.0.as_ptr().add(offset) };
        // SAFETY: `reserve` made room for `len` bytes behind the length.
        let to = unsafe { into.as_mut_ptr().add(into.len()) };
        // SAFETY: the source is in bounds, mapped as long as `self` lives and by the caller's promise not written;
        // the target is private memory.
        unsafe { ptr::copy_nonoverlapping(from, to, len) };
        // SAFETY: the copy initialised `len` more bytes, within the capacity.
        unsafe { into.set_len(into.len() + len) };
    }

    /// Copies the first `len` bytes of a block to a block of another place.
    ///
    /// # Safety
    ///
    /// As for [`write`](Self::write), for both ranges; they do not overlap.
    ///
    /// # Panics
    ///
    /// If either is outside its mapping.
    pub(crate) unsafe fn copy(from: (&Self, usize), to: (&Self, usize), len: usize) {
        for (mapping, offset) in [from, to] {
            let end = offset.checked_add(len);
            assert!(end.is_some_and(|end| end <= mapping.0.len()), "copy outside a segment");
        }
        // SAFETY: in bounds by the check above.
        let source = unsafe { from.0.0.as_ptr().add(from.1) };
        // SAFETY: in bounds by the check above.
        let target = unsafe { to.0.0.as_mut_ptr().add(to.1) };
        // SAFETY: both are in bounds and mapped as long as their mappings live; by the caller's promise they are
        // ours alone in this process and do not overlap.
        unsafe { ptr::copy_nonoverlapping(source, target, len) };
    }
}

/// A segment of the peer's pool.
#[derive(Debug)]
pub(crate) struct PeerMapping(MmapRaw);

impl PeerMapping {
    /// Maps what the peer announced as `len` bytes, if it is what it should be.
    pub(crate) fn open(file: OwnedFd, len: u64) -> io::Result<Self> {
        memfd::check(&file, len)?;
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(Self(MmapOptions::new().len(len).map_raw_read_only(&file)?))
    }

    /// Puts a copy of `offset..offset + len` into `into`, in place of what was there.
    ///
    /// # Panics
    ///
    /// If that is outside the mapping.
    pub(crate) fn copy_out(&self, offset: usize, len: usize, into: &mut Vec<u8>) {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.0.len()), "read outside a segment");
        into.clear();
        into.reserve(len);
        // SAFETY: in bounds by the check above.
        let from = unsafe { self.0.as_ptr().add(offset) };
        // SAFETY: the source is in bounds and mapped as long as `self` lives; its size is sealed, so no page of it
        // can vanish. Another process may write to it meanwhile: each byte is read by this one copy and nowhere
        // else, so whatever mixture arrives is merely the message, to be parsed as hostile. The target is private,
        // and `reserve` made room for `len` bytes.
        unsafe { ptr::copy_nonoverlapping(from, into.as_mut_ptr(), len) };
        // SAFETY: the copy initialised `len` bytes, within the capacity.
        unsafe { into.set_len(len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_owner_writes_the_peer_reads() {
        let (own, file) = OwnMapping::create(8192).unwrap();
        // SAFETY: nobody else knows the mapping.
        unsafe { own.write(4096, b"over there") };
        let peer = PeerMapping::open(file.try_clone().unwrap(), 8192).unwrap();
        let mut copy = b"old".to_vec();
        peer.copy_out(4101, 5, &mut copy);
        assert_eq!(copy, b"there");
    }

    #[test]
    fn a_segment_cannot_be_truncated_grown_or_written_by_who_gets_it() {
        let (_own, file) = OwnMapping::create(8192).unwrap();
        assert!(nix::unistd::ftruncate(&file, 0).is_err());
        assert!(nix::unistd::ftruncate(&file, 1 << 20).is_err());
        assert!(nix::unistd::write(&file, b"scribble").is_err());
        assert!(MmapOptions::new().len(8192).map_raw(&file).is_err(), "a second writable mapping");
    }

    #[test]
    fn descriptors_that_are_no_sealed_memfd_are_refused() {
        let error = |file: OwnedFd, len| PeerMapping::open(file, len).unwrap_err().to_string();
        let (pipe, _other) = nix::unistd::pipe().unwrap();
        assert!(error(pipe, 4096).contains("no memfd"));
        assert!(error(std::fs::File::open("/dev/zero").unwrap().into(), 4096).contains("no memfd"));
        assert!(error(memfd::create(4096).unwrap(), 4096).contains("lacks seals"));
        let (_own, file) = OwnMapping::create(4096).unwrap();
        assert!(error(file, 8192).contains("4096 bytes, 8192 were announced"));
    }
}
