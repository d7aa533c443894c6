//! What is done.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use lpc_cli::measure::{self, Sizes};

pub(crate) use super::mixed::Mixed;
#[cfg(feature = "rivals")]
pub(crate) use super::mixed::Point;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// Two integers there, one back, one call at a time
    Add,
    /// The same, 64 calls at once on one client
    Add64,
    /// A struct of mixed fields of about 1 KiB there, one integer back
    Mixed,
    /// Bytes there, produced by the caller, every one of them read by the service
    Upload,
    /// Bytes back, produced by the service, every one of them read by the caller
    Download,
    /// Two integers there, one back, from many clients at once
    Clients,
    /// A new connection and a call of two integers on it
    Connect,
    /// Connections that were used once: what each takes of the service's memory
    Idle,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no work is hidden");
        f.pad(value.get_name())
    }
}

/// A work at one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) work: Work,
    /// Bytes of a body, or a number of clients, or 0.
    pub(crate) size: u64,
}

impl Job {
    /// Calls at once.
    pub(crate) fn callers(self) -> usize {
        match self.work {
            Work::Add64 => 64,
            Work::Clients => self.size as usize,
            _ => 1,
        }
    }

    /// Clients that are connected while it is done.
    pub(crate) fn clients(self) -> usize {
        match self.work {
            Work::Clients | Work::Idle => self.size as usize,
            _ => 1,
        }
    }

    /// Bytes of the body.
    pub(crate) fn bytes(self) -> usize {
        match self.work {
            Work::Upload | Work::Download => self.size as usize,
            _ => 0,
        }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.work {
            Work::Upload | Work::Download => write!(f, "{} {}", self.work, measure::size(self.size)),
            Work::Clients | Work::Idle => write!(f, "{} {}", self.work, self.size),
            _ => self.work.fmt(f),
        }
    }
}

/// A job, done for a time: no shorter than `share`, nor than one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    pub(crate) job: Job,
    pub(crate) share: Duration,
}

/// The jobs of these works, or of all: with bodies of these sizes, or so many clients at once.
pub(crate) fn jobs(works: &[Work], sizes: &Sizes<4>, clients: &[u64]) -> Vec<Job> {
    let works = if works.is_empty() { Work::value_variants() } else { works };
    works
        .iter()
        .flat_map(|work| {
            let sizes: &[u64] = match work {
                Work::Upload | Work::Download => sizes.as_slice(),
                Work::Clients => clients,
                Work::Idle => &[256],
                _ => &[0],
            };
            sizes.iter().map(|size| Job { work: *work, size: *size })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_of_a_mixed_struct_changes_its_digest() {
        let example = Mixed::example();
        let changes: [fn(&mut Mixed); 8] = [
            |mixed| mixed.id += 1,
            |mixed| mixed.price += 1.0,
            |mixed| mixed.active = false,
            |mixed| mixed.name.push('!'),
            |mixed| mixed.note = None,
            |mixed| mixed.tags.truncate(1),
            |mixed| mixed.counts.truncate(1),
            |mixed| mixed.points.truncate(1),
        ];
        for change in changes {
            let mut changed = example.clone();
            change(&mut changed);
            assert_ne!(changed.digest(), example.digest(), "{changed:?}");
        }
    }
}
