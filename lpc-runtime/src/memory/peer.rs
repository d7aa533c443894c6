//! What a peer's descriptors give access to: [`Segment`]s of its pool, and [`Object`]s, which are frozen
//! memory or files.
//!
//! One of the files with `unsafe`: it decides which of those bytes may be borrowed where they are.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak};

use lpc_core::arena::PAGE;

use crate::connection::warnings::{Warning, Warnings};
use crate::memory::budget::Held;
use crate::memory::foreign::Foreign;
use crate::memory::quota::{Charge, Quota};
use crate::sys::mapping::PeerMapping;
use crate::sys::memfd::{self, Constancy};
use crate::sys::private::Private;

/// A segment of the peer's pool.
#[derive(Debug)]
pub(crate) struct Segment {
    access: Access,
    /// The user vouches that the peer does not write to a block before it is given back (`trust` of a
    /// builder).
    is_trusted: bool,
    _charge: Option<Charge>,
    _held: Vec<Held>,
    warnings: Option<Arc<Warnings>>,
}

#[derive(Debug)]
enum Access {
    Mapped(PeerMapping, Pages),
    /// There was no room for a mapping: read by pread(2).
    File(OwnedFd),
    /// There was no descriptor for it, or no quota.
    None,
}

/// The pages of a segment that were found in memory. Others are read through its file: through the mapping
/// they would be made, for this process to pay and for the peer to keep.
#[derive(Debug)]
struct Pages {
    file: OwnedFd,
    found: Box<[AtomicU64]>,
}

impl Pages {
    /// None yet of `len` bytes.
    fn new(file: OwnedFd, len: u64) -> Self {
        let words = len.div_ceil(PAGE * 64);
        Self { file, found: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// The words of the pages of `offset..offset + len`, and which of their bits these are.
    fn words(&self, offset: usize, len: usize) -> impl Iterator<Item = (&AtomicU64, u64)> {
        let (first, end) = (offset / PAGE as usize, (offset + len).div_ceil(PAGE as usize));
        (first / 64..end.div_ceil(64)).map(move |word| {
            let from = first.max(word * 64) % 64;
            let count = (end - word * 64).min(64) - from;
            (&self.found[word], (u64::MAX >> (64 - count)) << from)
        })
    }

    /// Whether all of these were found.
    #[inline]
    fn have(&self, offset: usize, len: usize) -> bool {
        len == 0 || self.words(offset, len).all(|(word, bits)| word.load(Relaxed) & bits == bits)
    }

    /// Looks for these; whether all are there.
    #[cold]
    fn find(&self, mapping: &PeerMapping, offset: usize, len: usize) -> bool {
        let is_there = mapping.is_in_memory(offset, len);
        if is_there {
            for (word, bits) in self.words(offset, len) {
                word.fetch_or(bits, Relaxed);
            }
        }
        is_there
    }
}

impl Segment {
    /// What the peer announced as `len` bytes.
    ///
    /// # Errors
    ///
    /// [`InvalidData`](io::ErrorKind::InvalidData) where it is not what it should be.
    pub(crate) fn open(
        file: Foreign,
        len: u64,
        is_trusted: bool,
        charge: Option<Charge>,
        mapping: Held,
        warnings: &Arc<Warnings>,
    ) -> io::Result<Self> {
        memfd::check(&file, len)?;
        let (file, descriptor) = file.into_local();
        let access = match PeerMapping::of_segment(&file, len) {
            Ok(mapping) => Access::Mapped(mapping, Pages::new(file, len)),
            Err(error) => {
                warnings.warn_of(Warning::CannotBeMapped, &error);
                Access::File(file)
            }
        };
        let warnings = Arc::clone(warnings);
        Ok(Self {
            access,
            is_trusted,
            _charge: charge,
            _held: vec![descriptor, mapping],
            warnings: Some(warnings),
        })
    }

    /// One that cannot be read here.
    pub(crate) const fn lost() -> Self {
        Self { access: Access::None, is_trusted: false, _charge: None, _held: Vec::new(), warnings: None }
    }

    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.access, Access::None)
    }

    /// The mapping, if there is one, and all pages of `offset..offset + len` are there.
    #[inline]
    fn mapped(&self, offset: usize, len: usize) -> Option<&PeerMapping> {
        match &self.access {
            Access::Mapped(mapping, pages)
                if self.is_trusted || pages.have(offset, len) || pages.find(mapping, offset, len) =>
            {
                Some(mapping)
            }
            _ => None,
        }
    }

    /// The bytes where they are, if that is safe. Bounds were checked when the block arrived.
    pub(crate) fn in_place(&self, offset: usize, len: usize) -> Option<&[u8]> {
        match &self.access {
            // SAFETY: the segment's size is sealed. It is the peer that may write to it, and the caller of
            // the builder's `trust`, which is unsafe, has vouched that it does not before the block is given
            // back; that happens when whatever holds this segment for the block is dropped, and the result
            // borrows from that.
            Access::Mapped(mapping, _) if self.is_trusted => Some(unsafe { mapping.bytes(offset, len) }),
            _ => None,
        }
    }

    /// Fills `into` from `offset` on.
    pub(crate) fn copy(&self, offset: usize, into: &mut [u8]) {
        if let Some(mapping) = self.mapped(offset, into.len()) {
            return mapping.copy(offset, into);
        }
        match &self.access {
            Access::Mapped(_, Pages { file, .. }) | Access::File(file) => {
                if let Err(error) = memfd::read_at(file.as_fd(), into, offset as u64) {
                    // A memfd of this size can be read, so this does not happen; decoding will find the
                    // zeroes wrong.
                    if let Some(warnings) = &self.warnings {
                        warnings.warn_of(Warning::CannotBeRead, &error);
                    }
                    into.fill(0);
                }
            }
            Access::None => into.fill(0),
        }
    }

    /// Appends `offset..offset + len` to `into`, which has room for them.
    pub(crate) fn append(&self, offset: usize, len: usize, into: &mut Vec<u8>) {
        if let Some(mapping) = self.mapped(offset, len) {
            return mapping.append(offset, len, into);
        }
        let start = into.len();
        into.resize(start + len, 0);
        self.copy(offset, &mut into[start..]);
    }
}

/// Frozen memory, or a part of a file, which connections pass on by its descriptor.
#[derive(Debug)]
pub(crate) struct Object {
    file: OwnedFd,
    offset: u64,
    len: u64,
    /// Only where its bytes may be borrowed; of frozen memory since somebody first asked.
    mapping: OnceLock<Option<Mapped>>,
    /// Whether they may be.
    promise: Promise,
    /// Else what it contained when somebody first asked.
    copy: OnceLock<(Private, Option<Charge>)>,
    loading: Mutex<()>,
    /// What such copies may take together, for one that a peer passed.
    quota: Option<Arc<Quota>>,
    /// One of those that the connection may have, and the descriptor.
    _live: Option<(Charge, Held)>,
    /// The connections that know it, and the number that it has there.
    links: Mutex<Vec<(Weak<dyn KnowsObjects>, u32)>>,
}

/// Why an object's bytes may be borrowed where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    /// They may not.
    None,
    /// They cannot change. Which of its pages are there is to be looked at.
    Sealed,
    /// It is this process's own, or the user vouches for the peer that passed it.
    Vouched,
}

#[derive(Debug)]
struct Mapped {
    mapping: PeerMapping,
    _charge: Charge,
    _held: Option<Held>,
}

/// A connection whose peer knows objects by their numbers.
pub(crate) trait KnowsObjects: Send + Sync {
    /// An object is dropped that the peer knew under this number.
    fn forget(&self, object: &Object, number: u32);
}

impl std::fmt::Debug for dyn KnowsObjects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KnowsObjects").finish_non_exhaustive()
    }
}

/// Address space for mapped objects of all connections of this process: an eighth of what there is at least.
static MAPPED: LazyLock<Arc<Quota>> = LazyLock::new(|| Quota::new(16 << 40));

impl Object {
    /// A part of a file of this process.
    pub(crate) fn of_file(file: OwnedFd, offset: u64, len: u64) -> io::Result<Arc<Self>> {
        let promise = match memfd::inspect(&file, offset, len)? {
            Constancy::Frozen => Promise::Sealed,
            Constancy::Changing => Promise::None,
        };
        Ok(Self::made(file, (offset, len), promise, None, None))
    }

    /// A part of a file that a peer passed, which the user vouches for or not.
    ///
    /// # Errors
    ///
    /// As [`memfd::inspect`].
    pub(crate) fn open(
        file: Foreign,
        offset: u64,
        len: u64,
        is_trusted: bool,
        quota: Option<Arc<Quota>>,
        live: Charge,
    ) -> io::Result<Arc<Self>> {
        let promise = match memfd::inspect(&file, offset, len)? {
            _ if is_trusted => Promise::Vouched,
            Constancy::Frozen => Promise::Sealed,
            Constancy::Changing => Promise::None,
        };
        let (file, held) = file.into_local();
        // It may be passed on, to others who are to read it.
        let file = if promise == Promise::Sealed { file } else { memfd::without_writing(file) };
        Ok(Self::made(file, (offset, len), promise, quota, Some((live, held))))
    }

    /// Memory of this process that nobody can write to any more.
    pub(crate) fn frozen(file: OwnedFd, len: u64) -> Arc<Self> {
        Self::made(file, (0, len), Promise::Vouched, None, None)
    }

    fn made(
        file: OwnedFd,
        (offset, len): (u64, u64),
        promise: Promise,
        quota: Option<Arc<Quota>>,
        live: Option<(Charge, Held)>,
    ) -> Arc<Self> {
        let (mapping, copy) = (OnceLock::new(), OnceLock::new());
        let (loading, links) = (Mutex::default(), Mutex::default());
        Arc::new(Self { file, offset, len, mapping, promise, copy, loading, quota, _live: live, links })
    }

    /// Its bytes where they are, if that is safe, and there is room for them.
    fn mapping(&self) -> Option<&PeerMapping> {
        if self.promise == Promise::None {
            return None;
        }
        self.mapping.get_or_init(|| self.map()).as_ref().map(|mapped| &mapped.mapping)
    }

    fn map(&self) -> Option<Mapped> {
        let charge = MAPPED.charge(self.len)?;
        let held = match &self._live {
            Some((_, descriptor)) => Some(descriptor.budget().mapping()?),
            None => None,
        };
        let mapping = PeerMapping::of_file(&self.file, self.offset, self.len).ok()?;
        // A page that was never written would be made by being read, for this process to pay.
        let is_paid =
            self.promise == Promise::Vouched || mapping.is_all_in_memory(self.file.as_fd(), self.offset);
        is_paid.then_some(Mapped { mapping, _charge: charge, _held: held })
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Where it begins in its file.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Whether its bytes are read where they are.
    pub(crate) fn is_mapped(&self) -> bool {
        self.mapping().is_some()
    }

    /// Whether its bytes, wherever they will be read, are aligned as those of private memory are.
    pub(crate) fn is_aligned(&self) -> bool {
        self.promise == Promise::None || self.offset.is_multiple_of(PAGE)
    }

    /// Its bytes. A file that may change is read as a whole the first time.
    ///
    /// # Errors
    ///
    /// It cannot be read, or there is no memory for it.
    pub(crate) fn load(&self) -> io::Result<&[u8]> {
        if let Some(mapping) = self.mapping() {
            let len = usize::try_from(self.len).unwrap_or(usize::MAX);
            // SAFETY: mapped only where `memfd::inspect` found the file sealed against writing and shrinking,
            // or the caller of the builder's `trust`, which is unsafe, has vouched for the peer that passed
            // it.
            return Ok(unsafe { mapping.bytes(0, len) });
        }
        if let Some((copy, _)) = self.copy.get() {
            return Ok(copy.bytes());
        }
        // One at a time: of two who ask at once one waits for the other's copy.
        let _loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((copy, _)) = self.copy.get() {
            return Ok(copy.bytes());
        }
        let charge = match &self.quota {
            Some(quota) => Some(quota.charge(self.len).ok_or_else(|| self.too_large())?),
            None => None,
        };
        let len = usize::try_from(self.len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let copy = Private::filled(len, |into| memfd::read_at(self.file.as_fd(), into, self.offset))?;
        Ok(self.copy.get_or_init(|| (copy, charge)).0.bytes())
    }

    fn too_large(&self) -> io::Error {
        io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!(
                "a file of {} bytes that can still change, or is not all there, would have to be copied, and copies \
                 for one connection are limited (pool_limit); read it piece by piece, with `read_at`",
                self.len
            ),
        )
    }

    /// Copies from `offset` on into `into`; how much there was.
    pub(crate) fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let rest = self.len.saturating_sub(offset);
        let len = usize::try_from(rest).unwrap_or(usize::MAX).min(into.len());
        let into = &mut into[..len];
        match (self.mapping(), self.copy.get()) {
            (None, None) => memfd::read_at(self.file.as_fd(), into, self.offset + offset.min(self.len))?,
            _ => {
                let start = usize::try_from(offset.min(self.len)).unwrap_or(usize::MAX);
                into.copy_from_slice(&self.load()?[start..start + len]);
            }
        }
        Ok(len)
    }

    /// Notes that a connection knows it under this number.
    pub(crate) fn announced(&self, link: Weak<dyn KnowsObjects>, number: u32) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|(other, _)| other.strong_count() > 0 && !other.ptr_eq(&link));
        links.push((link, number));
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let links = std::mem::take(self.links.get_mut().unwrap_or_else(PoisonError::into_inner));
        for (link, number) in links {
            if let Some(link) = link.upgrade() {
                link.forget(self, number);
            }
        }
    }
}
