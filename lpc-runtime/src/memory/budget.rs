//! [`Budget`]: how many descriptors and mappings this process holds for the peers of one user.
//!
//! The system limits both for a process (`RLIMIT_NOFILE`, `vm.max_map_count`), and whoever reaches the limit
//! takes them from everybody. One user's peers have half of them, and all users' together three quarters.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use lpc_core::{Error, ErrorKind, Result};
use nix::sys::resource::{Resource, getrlimit};

use crate::credentials::Credentials;
use crate::sys::fork::PerProcess;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Descriptors,
    Mappings,
}

#[derive(Debug)]
struct Count {
    limit: u64,
    used: AtomicU64,
}

/// What the peers of one user hold here, over all connections of this process.
#[derive(Debug)]
pub(crate) struct Budget {
    user: u32,
    descriptors: Count,
    mappings: Count,
    /// Of the descriptors, those that wait to be closed.
    unclosed: AtomicU64,
}

/// One descriptor or mapping, which counts as long as this lives.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Arc<Budget>,
    kind: Kind,
}

/// A descriptor that waits to be closed, as long as this lives.
#[derive(Debug)]
pub(crate) struct Unclosed(Held);

/// So many descriptors may wait to be closed, for one user, until its peers are turned away.
const MAX_UNCLOSED: u64 = 64;

static USERS: PerProcess<Mutex<HashMap<u32, Weak<Budget>>>> = PerProcess::new(Mutex::default);

/// Of all users, by the system's limits as they were at the first connection.
static TOTAL: LazyLock<[Count; 2]> = LazyLock::new(|| {
    let of = |limit: u64| Count::new(limit / 4 * 3);
    [of(descriptor_limit()), of(mapping_limit())]
});

fn descriptor_limit() -> u64 {
    // Where that cannot be told, what systems usually have.
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft)
}

fn mapping_limit() -> u64 {
    static LIMIT: LazyLock<u64> = LazyLock::new(|| {
        let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
        text.trim().parse().unwrap_or(65_530)
    });
    *LIMIT
}

impl Count {
    const fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0) }
    }

    fn take(&self) -> bool {
        self.used.fetch_update(Relaxed, Relaxed, |used| (used < self.limit).then_some(used + 1)).is_ok()
    }

    fn take_anyway(&self) -> bool {
        self.used.fetch_add(1, Relaxed) < self.limit
    }

    fn give_back(&self) {
        self.used.fetch_sub(1, Relaxed);
    }
}

impl Budget {
    /// What this peer shares with all others of its user; one that is not known counts as nobody's.
    pub(crate) fn of_peer(peer: Option<&Credentials>) -> Arc<Self> {
        Self::of_user(peer.map_or(u32::MAX, Credentials::uid))
    }

    /// What all peers of this user share.
    pub(crate) fn of_user(user: u32) -> Arc<Self> {
        let mut users = USERS.get().lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(budget) = users.get(&user).and_then(Weak::upgrade) {
            return budget;
        }
        users.retain(|_, budget| budget.strong_count() > 0);
        let budget = Arc::new(Self::with_limits(user, descriptor_limit() / 2, mapping_limit() / 2));
        users.insert(user, Arc::downgrade(&budget));
        budget
    }

    const fn with_limits(user: u32, descriptors: u64, mappings: u64) -> Self {
        let (descriptors, mappings) = (Count::new(descriptors), Count::new(mappings));
        Self { user, descriptors, mappings, unclosed: AtomicU64::new(0) }
    }

    const fn count(&self, kind: Kind) -> &Count {
        match kind {
            Kind::Descriptors => &self.descriptors,
            Kind::Mappings => &self.mappings,
        }
    }

    /// The right to one more mapping, if there is one left.
    pub(crate) fn mapping(self: &Arc<Self>) -> Option<Held> {
        let kind = Kind::Mappings;
        if !self.count(kind).take() {
            return None;
        }
        if !TOTAL[kind as usize].take() {
            self.count(kind).give_back();
            return None;
        }
        Some(Held { budget: Arc::clone(self), kind })
    }

    /// Counts a descriptor that has arrived, and says whether it is one of those that may be held.
    pub(crate) fn descriptor(self: &Arc<Self>) -> (Held, bool) {
        let kind = Kind::Descriptors;
        let fits = self.count(kind).take_anyway() & TOTAL[kind as usize].take_anyway();
        (Held { budget: Arc::clone(self), kind }, fits)
    }

    /// Whether so many of the user's descriptors wait to be closed that more are a reason to part.
    pub(crate) fn is_clogged(&self) -> bool {
        self.unclosed.load(Relaxed) >= MAX_UNCLOSED
    }

    /// Whether those that wait to be closed are as many as the user may have at all: whatever is received may
    /// bring more, which then are there, on each of the user's connections.
    pub(crate) fn is_overrun(&self) -> bool {
        self.unclosed.load(Relaxed) >= self.descriptors.limit
    }

    #[cfg(test)]
    pub(crate) fn unclosed(&self) -> u64 {
        self.unclosed.load(Relaxed)
    }

    /// Makes sure that another connection to the user may be made.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ResourceExhausted`] where it is [clogged](Self::is_clogged).
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_clogged() { Err(self.clogged()) } else { Ok(()) }
    }

    /// The error of a user whose descriptors cannot be closed.
    pub(crate) fn clogged(&self) -> Error {
        let message = format!(
            "{} descriptors that peers of user {} passed wait to be closed, which their filesystem holds up",
            self.unclosed.load(Relaxed),
            self.user
        );
        Error::new(ErrorKind::ResourceExhausted, message)
    }
}

impl Held {
    /// Of what it is held.
    pub(crate) const fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// The same descriptor waits to be closed from now on.
    pub(crate) fn unclosed(self) -> Unclosed {
        self.budget.unclosed.fetch_add(1, Relaxed);
        Unclosed(self)
    }
}

impl Unclosed {
    /// Whose peer passed it.
    pub(crate) fn user(&self) -> u32 {
        self.0.budget.user
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.count(self.kind).give_back();
        TOTAL[self.kind as usize].give_back();
    }
}

impl Drop for Unclosed {
    fn drop(&mut self) {
        self.0.budget.unclosed.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_the_budget_is_said_to_be_and_what_is_dropped_can_be_taken_again() {
        let budget = Arc::new(Budget::with_limits(1, 2, 1));
        let mapping = budget.mapping().unwrap();
        assert!(budget.mapping().is_none());
        drop(mapping);
        assert!(budget.mapping().is_some());
        let held: Vec<_> = (0..3).map(|_| budget.descriptor()).collect();
        let fits: Vec<_> = held.iter().map(|(_, fits)| *fits).collect();
        assert_eq!(fits, [true, true, false]);
        drop(held);
        assert!(budget.descriptor().1);
    }

    #[test]
    fn a_user_whose_descriptors_are_not_closed_is_turned_away_until_they_are() {
        let budget = Arc::new(Budget::with_limits(1, 1000, 1));
        let mut waiting: Vec<_> = (0..MAX_UNCLOSED).map(|_| budget.descriptor().0.unclosed()).collect();
        assert!(!budget.is_overrun(), "those that pass nothing are served");
        let error = budget.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
        waiting.extend((MAX_UNCLOSED..1000).map(|_| budget.descriptor().0.unclosed()));
        assert!(budget.is_overrun());
        drop(waiting);
        budget.check().unwrap();
        assert_eq!(budget.descriptors.used.load(Relaxed), 0);
    }
}
