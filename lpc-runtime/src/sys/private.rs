//! [`Private`]: aligned memory of this process alone, to which bytes of a peer are copied.
//!
//! Large pieces are anonymous mappings of whole pages, kept for a while after use: a page that the system has
//! to give anew costs more than the copying of what goes into it. [`trim`] gives back those that nobody took
//! up again.

use std::io;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use memmap2::{Advice, MmapMut};
use zerocopy::IntoBytes as _;

use crate::maintenance;
use crate::sys::fork::PerProcess;

/// Bytes of this process, aligned to 16 bytes at least, and to pages from [`PAGES`] on.
#[derive(Debug)]
pub(crate) struct Private {
    memory: Memory,
    len: usize,
}

#[derive(Debug)]
enum Memory {
    Words(Box<[u128]>),
    /// `None` only while it is being dropped.
    Pages(Option<MmapMut>),
}

/// The length from which on memory is made of pages.
const PAGES: usize = 64 << 10;

/// The length from which on huge pages are asked for.
const HUGE: usize = 4 << 20;

/// Bytes of spares at most.
const KEPT: usize = 1 << 30;

/// Spares at most.
const SPARES: usize = 32;

static SPARE: PerProcess<Mutex<Vec<Spare>>> = PerProcess::new(Mutex::default);

#[derive(Debug)]
struct Spare {
    pages: MmapMut,
    /// When it was used last.
    used: Instant,
}

impl Private {
    /// `len` bytes of zero.
    ///
    /// # Errors
    ///
    /// The system has no memory.
    pub(crate) fn zeroed(len: usize) -> io::Result<Self> {
        let memory = if len < PAGES { words(len) } else { Memory::Pages(Some(fresh(len)?)) };
        Ok(Self { memory, len })
    }

    /// `len` bytes at any alignment up to a page, of zero.
    ///
    /// # Errors
    ///
    /// The system has no memory.
    pub(crate) fn page_aligned(len: usize) -> io::Result<Self> {
        let mut pages = used(len.max(1))?;
        pages[..len].fill(0);
        Ok(Self { memory: Memory::Pages(Some(pages)), len })
    }

    /// `len` bytes, all of which `fill` writes. Until then they are what an earlier use left there.
    ///
    /// # Errors
    ///
    /// The system has no memory, or those of `fill`.
    pub(crate) fn filled(len: usize, fill: impl FnOnce(&mut [u8]) -> io::Result<()>) -> io::Result<Self> {
        let memory = if len < PAGES { words(len) } else { Memory::Pages(Some(used(len)?)) };
        let mut private = Self { memory, len };
        fill(private.bytes_mut())?;
        Ok(private)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Words(words) => &words.as_bytes()[..self.len],
            Memory::Pages(pages) => &pages.as_deref().unwrap_or_default()[..self.len],
        }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Words(words) => &mut words.as_mut_bytes()[..self.len],
            Memory::Pages(pages) => &mut pages.as_deref_mut().unwrap_or_default()[..self.len],
        }
    }
}

fn words(len: usize) -> Memory {
    Memory::Words(vec![0; len.div_ceil(size_of::<u128>())].into_boxed_slice())
}

/// New pages, which are zero.
fn fresh(len: usize) -> io::Result<MmapMut> {
    // A power of two, so that it serves again for what is somewhat longer. Pages that are not touched cost
    // nothing.
    let rounded = len.checked_next_power_of_two().ok_or(io::ErrorKind::OutOfMemory)?;
    let pages = MmapMut::map_anon(rounded).or_else(|_| MmapMut::map_anon(len)).or_else(|_| {
        release();
        MmapMut::map_anon(len)
    })?;
    if len >= HUGE {
        // A kernel without huge pages refuses, which does no harm.
        let _ = pages.advise(Advice::HugePage);
    }
    Ok(pages)
}

/// Pages of any content.
fn used(len: usize) -> io::Result<MmapMut> {
    let fits = |spare: &Spare| spare.pages.len() >= len && spare.pages.len() / 4 <= len;
    let mut spares = spares();
    let best = (0..spares.len()).filter(|at| fits(&spares[*at])).min_by_key(|at| spares[*at].pages.len());
    match best {
        Some(at) => Ok(spares.swap_remove(at).pages),
        None => {
            drop(spares);
            fresh(len)
        }
    }
}

/// Unmaps all that is kept, because the system has no memory left.
pub(crate) fn release() {
    let spares = mem::take(&mut *spares());
    drop(spares);
    crate::memory::buffer::release();
}

/// Unmaps what was not used since `before`. When the oldest of what is left was used last.
pub(crate) fn trim(before: Instant) -> Option<Instant> {
    let mut spares = spares();
    let old: Vec<_> = spares.extract_if(.., |spare| spare.used <= before).collect();
    let oldest = spares.iter().map(|spare| spare.used).min();
    drop(spares);
    // Unmapping takes its time.
    drop(old);
    oldest
}

fn spares() -> MutexGuard<'static, Vec<Spare>> {
    SPARE.get().lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Private {
    fn drop(&mut self) {
        let Memory::Pages(pages) = &mut self.memory else { return };
        let Some(pages) = pages.take() else { return };
        let mut spares = spares();
        let kept: usize = spares.iter().map(|spare| spare.pages.len()).sum();
        if spares.len() < SPARES && kept.saturating_add(pages.len()) <= KEPT {
            spares.push(Spare { pages, used: Instant::now() });
            drop(spares);
            maintenance::trim_private();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sys::fork::tests::in_a_fork;

    #[test]
    fn a_fork_drops_memory_without_the_lock_that_a_thread_held() {
        let private = Private::zeroed(PAGES).unwrap();
        let held = spares();
        let is_done = in_a_fork(move || drop(private));
        drop(held);
        assert!(is_done);
    }

    #[test]
    fn what_was_used_once_goes_when_its_time_has_come() {
        // No other test has as much.
        const LEN: usize = 200 << 20;
        let is_there = || spares().iter().any(|spare| spare.pages.len() >= LEN);
        drop(Private::zeroed(LEN).unwrap());
        let used = spares().iter().find(|spare| spare.pages.len() >= LEN).unwrap().used;
        let oldest = trim(used.checked_sub(Duration::from_nanos(1)).unwrap());
        assert!(is_there() && oldest.is_some_and(|oldest| oldest <= used));
        trim(used);
        assert!(!is_there());
    }

    #[test]
    fn pieces_of_all_sizes_are_aligned_and_of_their_length() {
        for len in [0, 1, 17, PAGES - 1, PAGES, 3 * PAGES + 5] {
            let zeroed = Private::zeroed(len).unwrap();
            assert_eq!(zeroed.bytes().len(), len);
            assert!(zeroed.bytes().iter().all(|byte| *byte == 0));
            assert!(zeroed.bytes().as_ptr().addr().is_multiple_of(if len < PAGES { 16 } else { 4096 }));
            let filled = Private::filled(len, |bytes| {
                bytes.fill(7);
                Ok(())
            });
            assert!(filled.unwrap().bytes().iter().all(|byte| *byte == 7));
            assert_eq!(Private::page_aligned(len).unwrap().bytes().as_ptr().addr() % 4096, 0);
        }
        assert!(Private::zeroed(usize::MAX).is_err());
    }
}
