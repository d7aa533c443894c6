//! The kinds of mapping, and with [`memory::pool`](crate::memory::pool) the only code that touches shared
//! memory.
//!
//! [`OwnMapping`] is the sender's: the only writable mapping of its file, now and ever (see
//! [`memfd`](super::memfd)). [`PeerMapping`] is the receiver's: read-only. The peer may write to it at any
//! time, so bytes are copied out, and the copy is what gets parsed; a reference into it is made only where
//! the bytes cannot change, or the user vouches for that. [`Draft`] becomes memory that no process can write
//! to any more. [`OwnWords`] and [`PeerWords`] are memory that one side writes while the other one reads: all
//! of it word by word, atomically, which needs nobody's promise.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use memmap2::{Advice, MmapOptions, MmapRaw};
use nix::libc;
use nix::sys::mman::{MmapAdvise, madvise};

use super::memfd;

/// Mappings from this size on ask for huge pages. Where the system has none for shared memory
/// (`/sys/kernel/mm/transparent_hugepage/shmem_enabled`), asking does nothing.
const HUGE: usize = 4 << 20;

fn ask_for_huge_pages(mapping: &MmapRaw) {
    if mapping.len() >= HUGE {
        // A kernel without huge pages refuses, which does no harm.
        let _ = mapping.advise(Advice::HugePage);
    }
}

/// From this length on allocators get memory from the system for each vector (mallopt(3),
/// `M_MMAP_THRESHOLD`), and pages that are touched for the first time cost more than the copying.
pub(crate) const FRESH: usize = 32 << 20;

/// Asks for huge pages for what is going to be written as a whole.
fn ask_for_huge_pages_in(memory: &mut [MaybeUninit<u8>]) {
    if memory.len() < FRESH {
        return;
    }
    let skipped = memory.as_ptr().align_offset(4096);
    let Some(aligned) = memory.get_mut(skipped..) else { return };
    let len = aligned.len() & !4095;
    let Some(start) = NonNull::new(aligned.as_mut_ptr().cast()) else { return };
    // SAFETY: whole pages inside memory that is borrowed for writing; the advice changes what they are made
    // of, never what is in them (madvise(2)). A kernel without huge pages refuses, which is no harm.
    let _ = unsafe { madvise(start, len, MmapAdvise::MADV_HUGEPAGE) };
}

/// The unit of mappings.
const PAGE: usize = 4096;

/// Bytes that are looked at in one go.
const CHUNK: usize = 256 << 10;

fn map_read_only(file: impl AsFd, offset: u64, len: usize) -> io::Result<MmapRaw> {
    let mapping = MmapOptions::new().offset(offset).len(len).map_raw_read_only(&file.as_fd())?;
    ask_for_huge_pages(&mapping);
    Ok(mapping)
}

/// The same where the system refuses because the file is sealed against writing, and open for it: before Linux
/// 6.7 it maps that for this process alone, and to a reader of what cannot change that is the same.
fn map_private(file: impl AsFd, offset: u64, len: usize) -> io::Result<MmapRaw> {
    let mut options = MmapOptions::new();
    // SAFETY: what it gives is turned into an address at once, and no reference is made of it here.
    let mapping = unsafe { options.offset(offset).len(len).map_copy_read_only(&file.as_fd()) }?;
    let mapping = MmapRaw::from(mapping);
    ask_for_huge_pages(&mapping);
    Ok(mapping)
}

/// Maps a part of a file, in whichever way the system lets this process.
fn map(file: impl AsFd, offset: u64, len: usize) -> io::Result<MmapRaw> {
    map_read_only(&file, offset, len).or_else(|_| map_private(&file, offset, len))
}

/// Whether the system has all pages of `offset..offset + len` in memory (mincore(2)). It looks, and waits for
/// nobody.
fn are_in_memory(mapping: &MmapRaw, offset: usize, len: usize) -> bool {
    let start = (mapping.as_ptr().addr() + offset) & !(PAGE - 1);
    let end = mapping.as_ptr().addr() + offset + len;
    let mut states = [0_u8; 256];
    (start..end).step_by(states.len() * PAGE).all(|from| {
        let len = (end - from).min(states.len() * PAGE);
        let pages = &mut states[..len.div_ceil(PAGE)];
        // SAFETY: the array has a byte for each page of that length; of the mapping itself only the address
        // is passed, at a page's start, and nothing of it is read or written.
        let told = unsafe {
            libc::mincore(mapping.as_ptr().with_addr(from).cast_mut().cast(), len, pages.as_mut_ptr().cast())
        };
        told == 0 && pages.iter().all(|state| state & 1 == 1)
    })
}

/// Whether the kernel says of memory that cannot grow that there is no page behind its end, as is right: it
/// calls all pages present where it may not tell, which is for the peer to decide (fchmod(2)).
fn has_no_page_behind(file: BorrowedFd<'_>) -> io::Result<bool> {
    let end = memfd::memory_len(file)?.next_multiple_of(PAGE as u64);
    Ok(!are_in_memory(&map(file, end, PAGE)?, 0, PAGE))
}

/// A segment of this process's pool.
#[derive(Debug)]
pub(crate) struct OwnMapping(MmapRaw);

impl OwnMapping {
    /// A new segment of `len` bytes, and the descriptor by which the peer gets at it.
    pub(crate) fn create(len: u64) -> io::Result<(Self, OwnedFd)> {
        let file = memfd::create(memfd::BODIES, len)?;
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mapping = MmapOptions::new().len(len).map_raw(&file)?;
        memfd::seal(file.as_fd())?;
        ask_for_huge_pages(&mapping);
        Ok((Self(mapping), file))
    }

    fn assert_has(&self, offset: usize, len: usize) {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.0.len()), "outside a segment");
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
        self.assert_has(offset, bytes.len());
        // SAFETY: in bounds by the check above.
        let to = unsafe { self.0.as_mut_ptr().add(offset) };
        // SAFETY: the destination is in bounds, mapped writable as long as `self` lives, and by the caller's
        // promise ours alone in this process, so that `bytes` is elsewhere; no other process can have a
        // writable mapping of it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    /// The bytes at `offset..offset + len`.
    ///
    /// # Safety
    ///
    /// Nothing in this process writes there as long as the result lives.
    ///
    /// # Panics
    ///
    /// If that is outside the mapping.
    pub(crate) unsafe fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        self.assert_has(offset, len);
        // SAFETY: in bounds by the check above.
        let from = unsafe { self.0.as_ptr().add(offset) };
        // SAFETY: in bounds, initialised (a memfd begins as zeroes), mapped as long as `self` lives, whose
        // borrow the result has; this process does not write there by the caller's promise, and no other can:
        // the file was mapped here before it was sealed against writable mappings, and the receivers got it
        // after.
        unsafe { slice::from_raw_parts(from, len) }
    }

    /// The bytes at `offset..offset + len`, for writing.
    ///
    /// # Safety
    ///
    /// Nothing else in this process reads or writes there as long as the result lives.
    ///
    /// # Panics
    ///
    /// If that is outside the mapping.
    #[expect(clippy::mut_from_ref, reason = "parts of a mapping belong to different owners")]
    pub(crate) unsafe fn bytes_mut(&self, offset: usize, len: usize) -> &mut [u8] {
        self.assert_has(offset, len);
        // SAFETY: in bounds by the check above.
        let from = unsafe { self.0.as_mut_ptr().add(offset) };
        // SAFETY: as for `bytes`, and by the caller's promise nobody else has a reference.
        unsafe { slice::from_raw_parts_mut(from, len) }
    }
}

/// Memory of a peer, or a file that it passed.
#[derive(Debug)]
pub(crate) struct PeerMapping {
    mapping: MmapRaw,
    /// Of the peer's bytes. Of a segment a page behind its end is mapped as well, which is never touched.
    len: usize,
}

impl PeerMapping {
    /// Maps what the peer announced as a segment of `len` bytes, and [`memfd::check`] found to be one.
    pub(crate) fn of_segment(file: impl AsFd, len: u64) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        let with_end = len.checked_add(PAGE).ok_or(io::ErrorKind::InvalidInput)?;
        let mapping = map_read_only(file, 0, with_end)?;
        Ok(Self { mapping, len })
    }

    /// Maps a part of a file. Whether reading it may raise SIGBUS is for the caller to know.
    pub(crate) fn of_file(file: impl AsFd, offset: u64, len: u64) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(Self { mapping: map(file, offset, len)?, len })
    }

    /// Whether all pages of a part of `file` are in memory, which is [frozen](memfd::Constancy), so that they
    /// stay, and nobody can add any. Those that are not are read once by other means, which makes none.
    pub(crate) fn is_all_in_memory(&self, file: BorrowedFd<'_>, offset: u64) -> bool {
        (0..self.len).step_by(CHUNK).all(|at| {
            let len = CHUNK.min(self.len - at);
            are_in_memory(&self.mapping, at, len)
                || (memfd::read_at(file, &mut vec![0; len], offset + at as u64).is_ok()
                    && are_in_memory(&self.mapping, at, len))
        }) && has_no_page_behind(file).unwrap_or(false)
    }

    /// Whether all pages at `offset..offset + len` of a segment are in memory: then reading them makes none
    /// that would be this process's to pay for, and its peer's to keep. Those of a segment stay, since its
    /// seals let nobody take any out.
    ///
    /// # Panics
    ///
    /// If that is outside the mapping.
    pub(crate) fn is_in_memory(&self, offset: usize, len: usize) -> bool {
        self.assert_has(offset, len);
        // For the reason in `has_no_page_behind`.
        are_in_memory(&self.mapping, offset, len) && !are_in_memory(&self.mapping, self.len, PAGE)
    }

    fn assert_has(&self, offset: usize, len: usize) {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "read outside a segment");
    }

    /// Fills `into` with a copy of what is at `offset`.
    ///
    /// # Panics
    ///
    /// If that is outside the mapping.
    pub(crate) fn copy(&self, offset: usize, into: &mut [u8]) {
        self.assert_has(offset, into.len());
        // SAFETY: in bounds by the check above.
        let from = unsafe { self.mapping.as_ptr().add(offset) };
        // SAFETY: the source is in bounds and mapped as long as `self` lives; its size is sealed, so no page
        // of it can vanish. Another process may write to it meanwhile: each byte is read by this one copy and
        // nowhere else, so whatever mixture arrives is merely the message, to be parsed as hostile. The
        // target is private.
        unsafe { ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
    }

    /// Appends a copy of `offset..offset + len` to `into`.
    ///
    /// # Panics
    ///
    /// If that is outside the mapping.
    pub(crate) fn append(&self, offset: usize, len: usize, into: &mut Vec<u8>) {
        self.assert_has(offset, len);
        into.reserve(len);
        ask_for_huge_pages_in(into.spare_capacity_mut());
        // SAFETY: in bounds by the check above.
        let from = unsafe { self.mapping.as_ptr().add(offset) };
        // SAFETY: `reserve` made room for `len` bytes behind the length.
        let to = unsafe { into.as_mut_ptr().add(into.len()) };
        // SAFETY: as in `copy`; the target has room.
        unsafe { ptr::copy_nonoverlapping(from, to, len) };
        // SAFETY: the copy initialised `len` more bytes, within the capacity.
        unsafe { into.set_len(into.len() + len) };
    }

    /// The bytes at `offset..offset + len`, where they are.
    ///
    /// # Safety
    ///
    /// No process writes there, or makes the file shorter, as long as the result lives.
    ///
    /// # Panics
    ///
    /// If that is outside the mapping.
    pub(crate) unsafe fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        self.assert_has(offset, len);
        // SAFETY: in bounds by the check above.
        let from = unsafe { self.mapping.as_ptr().add(offset) };
        // SAFETY: in bounds, initialised by the system, mapped as long as `self` lives, whose borrow the
        // result has; constant by the caller's promise.
        unsafe { slice::from_raw_parts(from, len) }
    }
}

/// Words that this process alone writes, and a peer reads meanwhile.
#[derive(Debug)]
pub(crate) struct OwnWords(MmapRaw);

impl OwnWords {
    /// `len` bytes of zeroes, and the descriptor by which the peer gets at them.
    pub(crate) fn create(len: usize) -> io::Result<(Self, OwnedFd)> {
        let file = memfd::create(memfd::QUICK_LANE, len as u64)?;
        let mapping = MmapOptions::new().len(len).map_raw(&file)?;
        memfd::seal(file.as_fd())?;
        Ok((Self(mapping), file))
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the whole mapping, as far as it is made of words: at a page's start, readable and writable,
        // initialised (a memfd begins as zeroes), there as long as `self`. Nothing in this process refers to
        // it otherwise, and no other process can write to it.
        unsafe { slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() / 8) }
    }
}

/// Words that a peer writes, at any time.
#[derive(Debug)]
pub(crate) struct PeerWords(MmapRaw);

impl PeerWords {
    /// Maps what a peer says to be `len` bytes of words.
    pub(crate) fn open(file: impl AsFd, len: usize) -> io::Result<Self> {
        memfd::check(&file, len as u64)?;
        Ok(Self(MmapOptions::new().len(len).map_raw_read_only(&file.as_fd())?))
    }

    /// The word of this number, at the moment. Relaxed: what comes after needs a fence.
    pub(crate) fn load(&self, number: usize) -> u64 {
        assert!(number < self.0.len() / 8, "read outside of shared words");
        // SAFETY: in bounds by the check above.
        let word = unsafe { self.0.as_ptr().cast::<AtomicU64>().add(number) };
        // SAFETY: at a multiple of 8 of a page's start, readable as long as `self` lives; its size is sealed,
        // so no page of it can vanish. Other processes write to it; this one never does, and of atomic
        // accesses a relaxed load of a word is the one that read-only memory allows (`std::sync::atomic`).
        unsafe { &*word }.load(Relaxed)
    }
}

/// Memory that is being written and will be sealed. Until then no other process has its file.
#[derive(Debug)]
pub(crate) struct Draft {
    mapping: MmapRaw,
    file: OwnedFd,
}

impl Draft {
    /// `len` zero bytes; more than none.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let file = memfd::create(memfd::BODIES, len as u64)?;
        let mapping = MmapOptions::new().len(len).map_raw(&file);
        let mapping = mapping.map_err(|error| memfd::named("mmap(2)", error))?;
        ask_for_huge_pages(&mapping);
        Ok(Self { mapping, file })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the whole mapping, which lives as long as `self`; its file is known to nobody else, and
        // `&self` keeps `bytes_mut` out.
        unsafe { slice::from_raw_parts(self.mapping.as_ptr(), self.mapping.len()) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`, and `&mut self` keeps everybody else out.
        unsafe { slice::from_raw_parts_mut(self.mapping.as_mut_ptr(), self.mapping.len()) }
    }

    /// Seals the memory against writing by any process. If the system refuses, it returns the file, which no
    /// other process has.
    pub(crate) fn freeze(self) -> Result<OwnedFd, (io::Error, OwnedFd)> {
        let Self { mapping, file } = self;
        let len = mapping.len() as u64;
        // Pages that were never written would be made by whoever reads them, who therefore copies instead.
        // Where there is no memory for them that is what receivers do.
        if !are_in_memory(&mapping, 0, mapping.len()) && memfd::allocate(file.as_fd(), len).is_ok() {
            for page in (0..mapping.len()).step_by(PAGE) {
                // SAFETY: inside the mapping, which nobody else knows.
                let byte = unsafe { mapping.as_mut_ptr().add(page) };
                // SAFETY: as above: readable and writable, and there is memory for it.
                let value = unsafe { byte.read_volatile() };
                // SAFETY: as above.
                unsafe { byte.write_volatile(value) };
            }
        }
        // The seal is refused as long as there is a writable mapping.
        drop(mapping);
        match memfd::freeze(file.as_fd()) {
            Ok(()) => Ok(file),
            Err(error) => Err((error, file)),
        }
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
        memfd::check(&file, 8192).unwrap();
        let peer = PeerMapping::of_segment(&file, 8192).unwrap();
        let mut copy = b"old ".to_vec();
        peer.append(4101, 5, &mut copy);
        assert_eq!(copy, b"old there");
        peer.copy(4096, &mut copy[..4]);
        assert_eq!(copy, b"overthere");
    }

    #[test]
    fn a_segment_cannot_be_truncated_grown_or_written_by_its_receiver() {
        let (_own, file) = OwnMapping::create(8192).unwrap();
        assert!(nix::unistd::ftruncate(&file, 0).is_err());
        assert!(nix::unistd::ftruncate(&file, 1 << 20).is_err());
        assert!(nix::unistd::write(&file, b"scribble").is_err());
        assert!(MmapOptions::new().len(8192).map_raw(&file).is_err(), "a second writable mapping");
    }

    #[test]
    fn descriptors_that_are_no_sealed_memfd_are_refused() {
        let error = |file: OwnedFd, len| memfd::check(file, len).unwrap_err().to_string();
        let (pipe, _other) = nix::unistd::pipe().unwrap();
        assert!(error(pipe, 4096).contains("no memfd"));
        assert!(error(std::fs::File::open("/dev/zero").unwrap().into(), 4096).contains("no memfd"));
        assert!(error(memfd::create(memfd::BODIES, 4096).unwrap(), 4096).contains("lacks seals"));
        let (_own, file) = OwnMapping::create(4096).unwrap();
        assert!(error(file, 8192).contains("4096 bytes, 8192 were announced"));
    }

    #[test]
    fn a_frozen_draft_is_written_by_nobody_and_read_in_part() {
        use crate::sys::memfd::Constancy::{Changing, Frozen};

        let mut draft = Draft::new(10_000).unwrap();
        draft.bytes_mut()[5000] = 7;
        assert_eq!(draft.bytes()[5000], 7);
        let file = draft.freeze().unwrap();
        assert_eq!(memfd::inspect(&file, 5000, 5000).unwrap(), Frozen);
        assert!(memfd::inspect(&file, 5000, 5001).is_err());
        assert!(memfd::inspect(&file, u64::MAX, 1).is_err());
        assert!(nix::unistd::write(&file, b"scribble").is_err());
        assert!(MmapOptions::new().len(4096).map_raw(&file).is_err());
        let mapping = PeerMapping::of_file(&file, 4999, 3).unwrap();
        // SAFETY: frozen.
        assert_eq!(unsafe { mapping.bytes(0, 3) }, [0, 7, 0]);
        assert_eq!(memfd::inspect(memfd::create(memfd::BODIES, 9).unwrap(), 0, 9).unwrap(), Changing);
    }

    #[test]
    fn a_private_mapping_of_frozen_memory_is_as_good_as_a_shared_one() {
        let mut draft = Draft::new(10_000).unwrap();
        draft.bytes_mut()[5000] = 7;
        let file = draft.freeze().unwrap();
        let private = PeerMapping { mapping: map_private(&file, 0, 10_000).unwrap(), len: 10_000 };
        assert!(private.is_all_in_memory(file.as_fd(), 0));
        // SAFETY: frozen.
        assert_eq!(unsafe { private.bytes(4999, 3) }, [0, 7, 0]);
    }

    #[test]
    fn pages_that_are_not_there_are_told_from_those_that_are() {
        let (own, file) = OwnMapping::create(16_384).unwrap();
        // SAFETY: nobody else knows the mapping.
        unsafe { own.write(4096, b"there") };
        let peer = PeerMapping::of_segment(&file, 16_384).unwrap();
        assert!(peer.is_in_memory(4096, 4096) && peer.is_in_memory(4100, 1));
        assert!(
            !peer.is_in_memory(4096, 4097) && !peer.is_in_memory(4095, 2) && !peer.is_in_memory(0, 16_384)
        );
        assert_eq!(nix::sys::stat::fstat(&file).unwrap().st_blocks, 8, "to ask makes none");
        let sparse = memfd::create(memfd::BODIES, 16_384).unwrap();
        memfd::freeze(sparse.as_fd()).unwrap();
        assert!(!PeerMapping::of_file(&sparse, 0, 16_384).unwrap().is_all_in_memory(sparse.as_fd(), 0));
        assert_eq!(nix::sys::stat::fstat(&sparse).unwrap().st_blocks, 0, "to ask makes none");
    }

    #[test]
    fn a_frozen_draft_is_all_there_though_it_was_written_in_part() {
        let mut draft = Draft::new(1 << 20).unwrap();
        draft.bytes_mut()[500_000] = 7;
        let file = draft.freeze().unwrap();
        assert!(PeerMapping::of_file(&file, 0, 1 << 20).unwrap().is_all_in_memory(file.as_fd(), 0));
    }

    #[test]
    fn descriptors_that_cannot_be_read_like_a_file_are_refused() {
        let error = |file: OwnedFd| memfd::inspect(file, 0, 1).unwrap_err().to_string();
        let (pipe, _other) = nix::unistd::pipe().unwrap();
        assert!(error(pipe).contains("no regular file"));
        assert!(error(std::fs::File::open("/dev/zero").unwrap().into()).contains("no regular file"));
        let file = tempfile::NamedTempFile::new().unwrap();
        let write_only = std::fs::OpenOptions::new().append(true).open(file.path()).unwrap();
        assert!(error(write_only.into()).contains("not open for reading"));
        assert!(error(file.into_file().into()).contains("0 bytes"));
    }

    #[test]
    fn a_read_beyond_the_end_of_a_file_gives_zeroes() {
        let file = memfd::create(memfd::BODIES, 3).unwrap();
        nix::unistd::write(&file, b"abc").unwrap();
        let mut bytes = [9; 5];
        memfd::read_at(file.as_fd(), &mut bytes, 1).unwrap();
        assert_eq!(bytes, *b"bc\0\0\0");
        let reader = memfd::read_only(file.as_fd()).unwrap();
        assert!(nix::unistd::write(&reader, b"x").is_err());
    }
}
