//! [`Warnings`]: what the log is told of one connection, however often it happens.

use std::fmt::Display;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tracing::field;

use crate::sys::fork::{ForkGuard, PerProcess};

/// How long nothing more is said of what was said: a peer can cause some of it with each frame.
const PAUSE: Duration = Duration::from_secs(60);

/// What has gone wrong, and was borne.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Warning {
    /// Of a segment.
    CannotBeOpened,
    CannotBeMapped,
    CannotBeRead,
    NoQuota,
    NoMapping,
    /// Of a segment or object that was announced without its descriptor.
    NoDescriptor,
    TooManyObjects,
    UnusableObject,
    NoPeersRing,
    PeersRingCannotBeMapped,
    NoRing,
    RingNotPassed,
    RefusedByPeer,
    NotPassed,
    NoMemoryForBody,
    NoMemoryForLoan,
    NotWatched,
    NoRoomWatched,
    NoWorker,
    NoWatcher,
    NoMaintenance,
    NotSealed,
    /// Of an implementation.
    Panicked,
}

impl Warning {
    /// All, in the order of their numbers.
    const ALL: [Self; 23] = [
        Self::CannotBeOpened,
        Self::CannotBeMapped,
        Self::CannotBeRead,
        Self::NoQuota,
        Self::NoMapping,
        Self::NoDescriptor,
        Self::TooManyObjects,
        Self::UnusableObject,
        Self::NoPeersRing,
        Self::PeersRingCannotBeMapped,
        Self::NoRing,
        Self::RingNotPassed,
        Self::RefusedByPeer,
        Self::NotPassed,
        Self::NoMemoryForBody,
        Self::NoMemoryForLoan,
        Self::NotWatched,
        Self::NoRoomWatched,
        Self::NoWorker,
        Self::NoWatcher,
        Self::NoMaintenance,
        Self::NotSealed,
        Self::Panicked,
    ];

    const fn text(self) -> &'static str {
        match self {
            Self::CannotBeOpened => "a peer's shared memory cannot be looked at",
            Self::CannotBeMapped => "a peer's shared memory cannot be mapped: it is read by pread",
            Self::CannotBeRead => "shared memory cannot be read",
            Self::NoQuota => "no quota left for a peer's shared memory (user_pool_limit)",
            Self::NoMapping => "no mapping left for a peer's shared memory (vm.max_map_count)",
            Self::NoDescriptor => {
                "the system of one side had no descriptor left for shared memory or a file that a peer passes"
            }
            Self::TooManyObjects => "more sealed memory and files of one connection are kept than may be",
            Self::UnusableObject => "a file that a peer passes cannot be used",
            Self::NoPeersRing => "no descriptor or quota (user_pool_limit) left for a peer's quick lane",
            Self::PeersRingCannotBeMapped => "a peer's memory for the quick lane cannot be mapped",
            Self::NoRing => "no shared memory for a quick lane",
            Self::RingNotPassed => "the system passes no descriptor for a quick lane",
            Self::RefusedByPeer => "the peer has no room for shared memory: large bodies take the socket",
            Self::NotPassed => {
                "the system passes no descriptor for shared memory: large bodies take the socket"
            }
            Self::NoMemoryForBody => "no shared memory for a large body: it takes the socket",
            Self::NoMemoryForLoan => "no shared memory for a loan: it will be copied",
            Self::NotWatched => "a connection cannot be watched (epoll(7)): it is looked at every 5 ms",
            Self::NoRoomWatched => "no descriptor left to wait for a peer",
            Self::NoWorker => "no thread for the calls of a connection: they run one after the other",
            Self::NoWatcher => "no thread to watch for slow calls",
            Self::NoMaintenance => "no thread to give memory back and to send what was deferred",
            Self::NotSealed => "memory cannot be sealed: it will be copied",
            Self::Panicked => "an implementation panicked",
        }
    }
}

/// What was warned of on one connection, or by one server. Each kind is said when it happens first, and then
/// at most once in [`PAUSE`], with how often it happened in between (`unsaid`); the rest is told at the end.
#[derive(Debug)]
pub(crate) struct Warnings {
    /// A fork of the process says nothing of its parent's connections.
    fork_guard: ForkGuard,
    kinds: [Kind; Warning::ALL.len()],
}

#[derive(Debug, Default)]
struct Kind {
    /// When it is to be said again, in milliseconds since [`START`]; 0 before it was said.
    again_at: AtomicU64,
    /// How often it was not said.
    unsaid: AtomicU64,
}

/// What has to do with no connection.
static PROCESS: PerProcess<Warnings> = PerProcess::new(Warnings::default);

/// Of the process.
pub(crate) fn of_process() -> &'static Warnings {
    PROCESS.get()
}

/// Before everything that is warned of.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Default for Warnings {
    fn default() -> Self {
        Self { fork_guard: ForkGuard::here(), kinds: Default::default() }
    }
}

impl Warnings {
    /// It has happened.
    pub(crate) fn warn(&self, what: Warning) {
        self.say(what, None);
    }

    /// It has happened, for this reason.
    pub(crate) fn warn_of(&self, what: Warning, error: &dyn Display) {
        self.say(what, Some(error));
    }

    #[cold]
    fn say(&self, what: Warning, error: Option<&dyn Display>) {
        let kind = &self.kinds[what as usize];
        if let Some(unsaid) = kind.happened(START.elapsed()) {
            let unsaid = (unsaid > 0).then_some(unsaid);
            let error = error.map(field::display);
            match what {
                Warning::Panicked => tracing::error!(error, unsaid, "{}", what.text()),
                _ => tracing::warn!(error, unsaid, "{}", what.text()),
            }
        }
    }
}

impl Kind {
    /// It has happened now; where it is to be said, how often it was not before.
    fn happened(&self, now: Duration) -> Option<u64> {
        let now = now.as_millis() as u64;
        let again_at = self.again_at.load(Relaxed);
        let next = now + PAUSE.as_millis() as u64;
        // Of several that come at once one says it.
        let says =
            now >= again_at && self.again_at.compare_exchange(again_at, next, Relaxed, Relaxed).is_ok();
        if says {
            return Some(self.unsaid.swap(0, Relaxed));
        }
        self.unsaid.fetch_add(1, Relaxed);
        None
    }
}

impl Drop for Warnings {
    fn drop(&mut self) {
        if !self.fork_guard.is_here() {
            return;
        }
        for (what, kind) in Warning::ALL.into_iter().zip(&self.kinds) {
            let unsaid = kind.unsaid.load(Relaxed);
            if unsaid > 0 {
                tracing::warn!(unsaid, "{}", what.text());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_in_the_order_of_their_numbers() {
        for (number, what) in Warning::ALL.into_iter().enumerate() {
            assert_eq!(what as usize, number, "{what:?}");
        }
    }

    #[test]
    fn each_is_said_when_it_happens_first_and_then_once_in_a_while() {
        let kind = Kind::default();
        let at = Duration::from_secs;
        assert_eq!(kind.happened(at(0)), Some(0));
        for _ in 0..5 {
            assert_eq!(kind.happened(at(59)), None);
        }
        assert_eq!(kind.happened(at(60)), Some(5), "and how often it was not");
        assert_eq!(kind.happened(at(61)), None);
        assert_eq!(kind.unsaid.load(Relaxed), 1, "to be told at the end");
    }
}
