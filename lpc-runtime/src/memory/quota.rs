//! [`Quota`]: bytes of shared memory that several connections may have together.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// So many bytes, and how many of them are taken.
#[derive(Debug)]
pub(crate) struct Quota {
    limit: u64,
    used: AtomicU64,
}

/// Bytes of a quota. They are given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    quota: Arc<Quota>,
    bytes: u64,
}

impl Quota {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0) })
    }

    /// Takes `bytes` of it, if there are as many.
    pub(crate) fn charge(self: &Arc<Self>, bytes: u64) -> Option<Charge> {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Relaxed, Relaxed, fits).ok()?;
        Some(Charge { quota: Arc::clone(self), bytes })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.quota.used.fetch_sub(self.bytes, Relaxed);
    }
}

/// The quota of each user, which all its connections share.
#[derive(Debug)]
pub(crate) struct UserQuotas {
    limit: u64,
    quotas: Mutex<HashMap<u32, Weak<Quota>>>,
}

impl UserQuotas {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, quotas: Mutex::default() }
    }

    pub(crate) fn quota(&self, user: u32) -> Arc<Quota> {
        let mut quotas = self.quotas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(quota) = quotas.get(&user).and_then(Weak::upgrade) {
            return quota;
        }
        quotas.retain(|_, quota| quota.strong_count() > 0);
        let quota = Quota::new(self.limit);
        quotas.insert(user, Arc::downgrade(&quota));
        quota
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_can_be_charged_again() {
        let quota = Quota::new(10);
        let first = quota.charge(6).unwrap();
        assert!(quota.charge(5).is_none());
        assert!(quota.charge(u64::MAX).is_none());
        drop(first);
        assert!(quota.charge(10).is_some());
    }
}
