//! [`Birth`]: whether this process is the one in which something was made, or a fork of it.
//!
//! A page of memory that the kernel clears in forks (`MADV_WIPEONFORK`, madvise(2)) makes that a load: no
//! system call, and right for every way of forking, those that bypass the C library included.
#![allow(unsafe_code)]

use std::io;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use lpc_core::{Error, ErrorKind, Result};
use memmap2::MmapMut;
use nix::sys::mman::{MmapAdvise, madvise};
use zerocopy::FromBytes;

/// The process in which something was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Birth(u64);

/// How many generations of processes there are, down to this one. A fork begins with its parent's count.
static GENERATIONS: AtomicU64 = AtomicU64::new(0);

impl Birth {
    /// This process.
    pub(crate) fn here() -> Self {
        let page = page();
        let generation = page.load(Relaxed);
        if generation != 0 {
            return Self(generation);
        }
        // Never a number of those that a fork inherits.
        let next = GENERATIONS.fetch_add(1, Relaxed) + 1;
        match page.compare_exchange(0, next, Relaxed, Relaxed) {
            Ok(_) => Self(next),
            Err(other_thread) => Self(other_thread),
        }
    }

    /// Makes sure that this process is that one, and no fork of it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Disconnected`].
    pub(crate) fn check(self) -> Result<()> {
        if self.is_here() {
            return Ok(());
        }
        let message = "the connection belongs to the process that made it, of which this one is a fork";
        Err(Error::new(ErrorKind::Disconnected, message))
    }

    /// Whether this is the process in which it was made, and not a fork of it.
    pub(crate) fn is_here(self) -> bool {
        page().load(Relaxed) == self.0
    }
}

/// This process's number; 0 in a fork that has not asked yet.
fn page() -> &'static AtomicU64 {
    static PAGE: OnceLock<&'static AtomicU64> = OnceLock::new();
    static KEPT: AtomicU64 = AtomicU64::new(0);
    PAGE.get_or_init(|| {
        wiped().unwrap_or_else(|error| {
            tracing::warn!(%error, "no memory that forks do not inherit: they will not know that they are forks");
            &KEPT
        })
    })
}

fn wiped() -> io::Result<&'static AtomicU64> {
    // It lives as long as the process.
    let page = Box::leak(Box::new(MmapMut::map_anon(size_of::<AtomicU64>())?));
    let start = NonNull::from(&mut page[..]).cast();
    // SAFETY: private anonymous memory, a whole page of it, that nobody else knows of. This process's stays
    // as it is.
    unsafe { madvise(start, page.len(), MmapAdvise::MADV_WIPEONFORK) }?;
    let (number, _) =
        AtomicU64::mut_from_prefix(page).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_here_is_known_to_be() {
        let births: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(Birth::here)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(births.iter().all(|birth| birth.is_here() && *birth == births[0]));
    }
}
