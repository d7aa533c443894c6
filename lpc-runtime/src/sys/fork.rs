//! [`ForkGuard`]: whether this process is the one in which something was made, or a fork of it.
//! [`PerProcess`]: what a fork does not inherit.
//!
//! A page of memory that the kernel clears in forks (`MADV_WIPEONFORK`, madvise(2)) makes that a load: no
//! system call, and right for every way of forking, those that bypass the C library included.
#![allow(unsafe_code)]

use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::{fmt, io};

use lpc_core::{Error, ErrorKind, Result};
use memmap2::MmapMut;
use nix::sys::mman::{MmapAdvise, madvise};
use zerocopy::FromBytes;

/// The process in which something was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ForkGuard(u64);

/// How many generations of processes there are, down to this one. A fork begins with its parent's count.
static GENERATIONS: AtomicU64 = AtomicU64::new(0);

impl ForkGuard {
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
    #[inline]
    pub(crate) fn check(self) -> Result<()> {
        if self.is_here() {
            return Ok(());
        }
        Err(is_a_fork())
    }

    /// Whether this is the process in which it was made, and not a fork of it.
    #[inline]
    pub(crate) fn is_here(self) -> bool {
        page().load(Relaxed) == self.0
    }
}

#[cold]
fn is_a_fork() -> Error {
    let message = "the connection belongs to the process that made it, of which this one is a fork";
    Error::new(ErrorKind::Disconnected, message)
}

/// Something of which each process has its own, made when it is first asked for. A fork begins anew: it never
/// takes a lock that a thread held which it does not have.
pub(crate) struct PerProcess<T> {
    /// Null, or from a box.
    own: AtomicPtr<Own<T>>,
    make: fn() -> T,
}

struct Own<T> {
    fork_guard: ForkGuard,
    value: T,
}

impl<T: Send + Sync> PerProcess<T> {
    pub(crate) const fn new(make: fn() -> T) -> Self {
        Self { own: AtomicPtr::new(ptr::null_mut()), make }
    }

    /// This process's.
    pub(crate) fn get(&self) -> &T {
        // Pairs with the Release in `begin`.
        let own = self.own.load(Acquire);
        // SAFETY: what is not null is from a box, is never written to, and lives at least as long as `self`.
        match unsafe { own.as_ref() } {
            Some(known) if known.fork_guard.is_here() => &known.value,
            _ => self.begin(own),
        }
    }

    #[cold]
    fn begin(&self, before: *mut Own<T>) -> &T {
        // What the parent has is forgotten in its fork, and not dropped: its lock may be held.
        let own = Box::into_raw(Box::new(Own { fork_guard: ForkGuard::here(), value: (self.make)() }));
        match self.own.compare_exchange(before, own, Release, Acquire) {
            // SAFETY: it was made here, is never written to, and lives at least as long as `self`.
            Ok(_) => unsafe { &(*own).value },
            Err(other_thread) => {
                // SAFETY: it was made here, and nobody else has seen it.
                drop(unsafe { Box::from_raw(own) });
                // SAFETY: as in `get`.
                unsafe { &(*other_thread).value }
            }
        }
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let own = *self.own.get_mut();
        // SAFETY: as in `get`.
        if unsafe { own.as_ref() }.is_some_and(|own| own.fork_guard.is_here()) {
            // SAFETY: it is from a box, and nobody else has a part of it any more.
            drop(unsafe { Box::from_raw(own) });
        }
    }
}

impl<T: fmt::Debug + Send + Sync> fmt::Debug for PerProcess<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// This process's number; 0 in a fork that has not asked yet.
#[inline]
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
pub(crate) mod tests {
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use nix::libc;
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    use super::*;

    /// Runs something in a fork of this process; whether it came to its end.
    pub(crate) fn in_a_fork(run: impl FnOnce()) -> bool {
        // SAFETY: what is run is there to show that it takes no lock of another thread; the C library sees to
        // the allocator's.
        let child = match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                run();
                // SAFETY: it ends the process, and nothing else.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child } => child,
        };
        // What it would drop is for the fork to drop.
        std::mem::forget(run);
        let guard = Instant::now() + Duration::from_secs(30);
        loop {
            match waitpid(child, Some(WaitPidFlag::WNOHANG)).unwrap() {
                WaitStatus::StillAlive if Instant::now() < guard => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                WaitStatus::StillAlive => {
                    kill(child, Signal::SIGKILL).unwrap();
                    waitpid(child, None).unwrap();
                    return false;
                }
                status => return status == WaitStatus::Exited(child, 0),
            }
        }
    }

    #[test]
    fn a_fork_has_its_own_of_what_each_process_has() {
        static LOCKED: PerProcess<Mutex<u32>> = PerProcess::new(|| Mutex::new(7));
        let mut held = LOCKED.get().lock().unwrap();
        *held = 8;
        assert!(in_a_fork(|| assert_eq!(*LOCKED.get().lock().unwrap(), 7)));
        drop(held);
        assert_eq!(*LOCKED.get().lock().unwrap(), 8);
    }

    #[test]
    fn what_was_made_here_is_known_to_be() {
        let fork_guards: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ForkGuard::here)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(fork_guards.iter().all(|fork_guard| fork_guard.is_here() && *fork_guard == fork_guards[0]));
    }
}
