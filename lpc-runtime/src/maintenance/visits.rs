//! [`Visits`]: whether maintenance is to come again to look at something.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Visits of which one is due at a time.
#[derive(Debug, Default)]
pub(crate) struct Visits {
    is_due: AtomicBool,
}

impl Visits {
    /// Whether the caller has to register the next visit, because none is due.
    pub(crate) fn begin(&self) -> bool {
        !self.is_due.swap(true, SeqCst)
    }

    /// Pays a visit. Whether the caller has to register the next one.
    pub(crate) fn visit(&self, is_needed: impl FnOnce() -> bool) -> bool {
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
