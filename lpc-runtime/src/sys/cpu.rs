//! Which CPU a thread runs on.

/// The number of the CPU that this thread runs on at the moment: getcpu(2), which with restartable sequences
/// (rseq(2)) is no system call. `None` if it cannot be known.
#[inline]
pub(crate) fn current() -> Option<u32> {
    nix::sched::sched_getcpu().ok().and_then(|cpu| u32::try_from(cpu).ok())
}
