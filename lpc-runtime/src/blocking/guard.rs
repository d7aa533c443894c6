//! [`Guard`]: looks whether the client is still there, while the receive half is parked.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::connection::Connection;
use crate::maintenance::{self, Maintained};

/// Has maintenance look at a connection of which the receive half is parked, as long as calls run.
pub(super) struct Guard {
    connection: Weak<Connection>,
    visits: Visits,
}

/// How often.
const LOOK: Duration = Duration::from_secs(1);

impl Guard {
    pub(super) fn new(connection: Weak<Connection>) -> Arc<Self> {
        Arc::new(Self { connection, visits: Visits::default() })
    }

    /// From now on the connection is looked at.
    pub(super) fn watch(self: &Arc<Self>) {
        if self.visits.begin() {
            maintenance::trim(maintenance::weak(self), LOOK);
        }
    }
}

impl Maintained for Guard {
    fn trim(&self) -> Option<Duration> {
        let connection = self.connection.upgrade()?;
        self.visits.visit(|| connection.is_to_be_watched()).then_some(LOOK)
    }
}

/// Visits of which one is due at a time.
#[derive(Debug, Default)]
struct Visits {
    is_due: AtomicBool,
}

impl Visits {
    /// Whether the caller has to register the next visit, because none is due.
    fn begin(&self) -> bool {
        !self.is_due.swap(true, SeqCst)
    }

    /// Pays a visit. Whether the caller has to register the next one.
    fn visit(&self, is_needed: impl FnOnce() -> bool) -> bool {
        // First: a visit that is needed from now on is registered, since this one may have looked already.
        self.is_due.store(false, SeqCst);
        is_needed() && self.begin()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_that_is_needed_once_another_has_looked_is_registered() {
        let visits = Visits::default();
        assert!(visits.begin());
        let mut is_registered = false;
        let is_next = visits.visit(|| {
            let is_needed = false;
            // Another thread, meanwhile.
            is_registered = visits.begin();
            is_needed
        });
        assert!(is_registered && !is_next);
    }

    #[test]
    fn one_visit_is_due_at_a_time() {
        let visits = Visits::default();
        assert!(visits.begin());
        assert!(!visits.begin());
        assert!(visits.visit(|| true));
        assert!(!visits.begin());
        assert!(!visits.visit(|| {
            assert!(visits.begin());
            true
        }));
        assert!(!visits.visit(|| false));
        assert!(visits.begin());
    }
}
