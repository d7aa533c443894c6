//! Which CPUs the two processes run on.

use std::{fmt, io};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// Where the two processes run.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Pinning {
    /// Both on one CPU
    Together,
    /// Each on a CPU of its own
    Apart,
    /// Wherever the system puts them
    Free,
}

impl Pinning {
    /// The CPUs of the caller and of the service, where they have one, or `None` if this process may not use
    /// that many.
    ///
    /// # Errors
    ///
    /// If the system does not tell which CPUs this thread may use.
    pub fn cpus(self) -> io::Result<Option<[Option<usize>; 2]>> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let mut cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
        let first = cpus.next();
        Ok(match self {
            Self::Together => Some([first, first]),
            Self::Apart => cpus.next().map(|second| [first, Some(second)]),
            Self::Free => Some([None, None]),
        })
    }
}

impl fmt::Display for Pinning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Together => "together",
            Self::Apart => "apart",
            Self::Free => "free",
        })
    }
}

/// Keeps this thread, and those that it starts, on one CPU.
///
/// # Errors
///
/// If there is no such CPU, or this process may not use it.
pub fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}
