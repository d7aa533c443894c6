//! [`Callback`]: a function that an implementation has called when something happens to its call or its
//! server.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use crate::maintenance::{self, Due, Maintained};
use crate::server::context::Running;
use crate::server::wakers::Event;

/// A function that is called once at most.
pub(super) struct Callback(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Callback {
    pub(super) fn new(run: impl FnOnce() + Send + 'static) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(Box::new(run)))))
    }

    /// Calls it, unless it was called or taken.
    pub(super) fn run(&self) {
        let Some(run) = self.take() else { return };
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            tracing::error!("a function panicked that a call had registered with its Context");
        }
    }

    fn take(&self) -> Option<Box<dyn FnOnce() + Send>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Wake for Callback {
    fn wake(self: Arc<Self>) {
        self.run();
    }
}

impl Maintained for Callback {
    fn trim(&self) -> Option<Duration> {
        self.run();
        None
    }
}

/// Of what it is told.
pub(super) enum Source {
    Call(Arc<Running>),
    Server(Arc<Event>),
}

impl Source {
    fn event(&self) -> &Event {
        match self {
            Self::Call(running) => running.cancelled_event(),
            Self::Server(event) => event,
        }
    }
}

/// A function that [`Context::on_cancel`](crate::Context::on_cancel) or
/// [`Context::on_shutdown`](crate::Context::on_shutdown) has called. Dropping this takes that back.
#[must_use = "the function is called only as long as this is kept"]
pub struct CallbackGuard(Option<Registered>);

struct Registered {
    source: Source,
    place: usize,
    callback: Arc<Callback>,
    /// Of a deadline nobody brings the news.
    due: Option<Due>,
}

impl CallbackGuard {
    /// Of a function that was called, or never is.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Has it called when the event comes, or at the deadline; now, where the event has come.
    pub(super) fn register(source: Source, callback: &Arc<Callback>, deadline: Option<Instant>) -> Self {
        match source.event().add(Waker::from(Arc::clone(callback))) {
            Some(place) => {
                let due = deadline.map(|at| maintenance::due(maintenance::weak(callback), at));
                Self(Some(Registered { source, place, callback: Arc::clone(callback), due }))
            }
            None => {
                callback.run();
                Self(None)
            }
        }
    }
}

impl Drop for CallbackGuard {
    fn drop(&mut self) {
        if let Some(Registered { source, place, callback, due }) = self.0.take() {
            drop(due);
            source.event().remove(place);
            drop(callback.take());
        }
    }
}

impl fmt::Debug for CallbackGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallbackGuard").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_that_is_dropped_leaves_nothing_until_a_deadline_that_is_the_peers_to_choose() {
        let callback = Callback::new(|| ());
        let event = Arc::new(Event::default());
        let far = Instant::now() + Duration::from_secs(3600);
        let guard = CallbackGuard::register(Source::Server(Arc::clone(&event)), &callback, Some(far));
        assert_eq!(Arc::weak_count(&callback), 1, "maintenance has it");
        drop(guard);
        assert_eq!((Arc::weak_count(&callback), Arc::strong_count(&callback)), (0, 1));
    }
}
