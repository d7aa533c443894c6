//! [`Timer`]: how callers wait for a time, wherever they are polled.

use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::time::{sleep, timeout_at};

/// The clock of callers: that of the runtime in which they are polled, or where there is none that of the
/// connection, which outlives it.
#[derive(Debug)]
pub(super) struct Timer(Handle);

impl Timer {
    /// That of a connection that is made here.
    pub(super) fn here() -> Self {
        Self(Handle::current())
    }

    /// What a future gives before the deadline.
    pub(super) async fn within<F: Future>(&self, deadline: Option<Instant>, future: F) -> Option<F::Output> {
        match deadline {
            None => Some(future.await),
            Some(at) => self.make(|| timeout_at(at.into(), future)).await.ok(),
        }
    }

    /// What it gives within this time. A time that no clock shows never comes.
    pub(super) async fn within_time<F: Future>(&self, time: Duration, future: F) -> Option<F::Output> {
        self.within(Instant::now().checked_add(time), future).await
    }

    pub(super) async fn sleep(&self, time: Duration) {
        self.make(|| sleep(time)).await;
    }

    /// A timer belongs to the runtime in which it is made, and may be polled anywhere.
    fn make<T>(&self, make: impl FnOnce() -> T) -> T {
        let _entered = Handle::try_current().is_err().then(|| self.0.enter());
        make()
    }
}
