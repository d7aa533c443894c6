//! [`Context`]: what an implementation can learn about the call that it answers.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use lpc_core::{Error, ErrorKind, Progress, Result};

use crate::connection::link::Link;
use crate::credentials::Credentials;
use crate::server::wakers::Wakers;

/// The call that an implementation answers: its caller, its deadline, and whether it was cancelled.
///
/// ```
/// use lpc::{Context, service};
///
/// #[service]
/// pub trait Sums {
///     fn sum(&self, numbers: &[u64]) -> lpc::Result<u64>;
/// }
///
/// struct Careful;
///
/// impl Sums for Careful {
///     fn sum(&self, numbers: &[u64]) -> lpc::Result<u64> {
///         let context = Context::current();
///         let mut sum = 0_u64;
///         for part in numbers.chunks(1 << 16) {
///             context.check()?; // an error once the call is cancelled
///             sum = part.iter().fold(sum, |sum, number| sum.wrapping_add(*number));
///         }
///         Ok(sum)
///     }
/// }
///
/// let sums = SumsClient::builder().in_process(Careful)?;
/// assert_eq!(sums.sum(&[2, 3])?, 5);
/// assert_eq!(Careful.sum(&[2, 3])?, 5); // called directly: it is never cancelled
/// # Ok::<(), lpc::Error>(())
/// ```
///
/// A call is cancelled when its deadline passes, its future is dropped, or its caller is gone. An `async fn`
/// is then dropped at its next `await`, as it would be in the caller's process. A `fn` runs on unless it
/// asks. An `async fn` can give a clone to the tasks or threads that it starts.
#[derive(Clone, Debug)]
pub struct Context(Option<Arc<Running>>);

impl Context {
    /// The context of the call that this thread or task is answering. Outside of a call, it is one that is
    /// never cancelled.
    ///
    /// Other threads and tasks that an implementation starts are outside of the call.
    #[must_use]
    pub fn current() -> Self {
        // At the end of its thread, too: in what a destructor calls then, no call is being answered.
        Self(CURRENT.try_with(|current| current.borrow().clone()).unwrap_or_default())
    }

    /// The deadline of the call that this thread or task is answering.
    #[inline]
    pub(crate) fn deadline_of_current() -> Option<Instant> {
        CURRENT.try_with(|current| current.borrow().as_ref()?.deadline).ok().flatten()
    }

    /// The caller's credentials; `None` outside of a call, and where it is not known who the caller is.
    #[must_use]
    pub fn peer(&self) -> Option<Credentials> {
        self.0.as_ref()?.peer.clone()
    }

    /// The deadline of the call, if it has one.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.0.as_ref()?.deadline
    }

    /// The time left until the deadline, if there is one. Calls of other services that the implementation
    /// makes within the call inherit it.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        Some(self.deadline()?.saturating_duration_since(Instant::now()))
    }

    /// Whether the call was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.as_ref().is_some_and(|running| running.is_cancelled())
    }

    /// Checks that the call was not cancelled.
    ///
    /// # Errors
    ///
    /// [`Cancelled`](ErrorKind::Cancelled), for the implementation to return.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(cancelled(Progress::Ran)) } else { Ok(()) }
    }

    /// Sleeps on this thread until the call is cancelled, or `time` has passed. Returns whether it was
    /// cancelled.
    #[must_use]
    pub fn wait_cancelled(&self, time: Duration) -> bool {
        let Some(running) = &self.0 else {
            thread::sleep(time);
            return false;
        };
        let until = Instant::now().checked_add(time);
        let waker = crate::sys::thread::waker();
        let until = [until, running.deadline].into_iter().flatten().min();
        let mut waiter = Waiter::new(running);
        while !waiter.is_cancelled_or_wakes(&waker) {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            match left {
                Some(Duration::ZERO) => break,
                Some(left) => thread::park_timeout(left),
                None => thread::park(),
            }
        }
        running.is_cancelled()
    }

    /// Waits until the call is cancelled. It is for tasks that an implementation starts.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time enabled, if the call has a deadline.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped and made again.
    #[cfg(feature = "tokio")]
    pub async fn cancelled(&self) {
        let Some(running) = &self.0 else { return std::future::pending().await };
        running.cancelled().await;
    }
}

/// The error of a call that was cancelled.
pub(crate) fn cancelled(progress: Progress) -> Error {
    Error::new(ErrorKind::Cancelled, "the call was cancelled: its caller does not wait for the result")
        .with_progress(progress)
}

/// A call that a server is answering.
#[derive(Debug)]
pub(crate) struct Running {
    link: Weak<Link>,
    peer: Option<Credentials>,
    deadline: Option<Instant>,
    is_cancelled: AtomicBool,
    wakers: Mutex<Wakers>,
}

impl Running {
    pub(crate) fn new(link: &Arc<Link>, peer: Option<Credentials>) -> Self {
        Self {
            link: Arc::downgrade(link),
            peer,
            deadline: None,
            is_cancelled: AtomicBool::new(false),
            wakers: Mutex::default(),
        }
    }

    /// Makes it that of another call.
    pub(crate) fn renew(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
        *self.is_cancelled.get_mut() = false;
        self.wakers.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Acquire) || self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    pub(crate) fn cancel(&self) {
        // Under the lock: a waiter that has looked before is among those that are woken.
        let mut wakers = self.wakers();
        self.is_cancelled.store(true, Release);
        let woken = wakers.take();
        drop(wakers);
        woken.for_each(Waker::wake);
    }

    #[cfg(feature = "tokio")]
    pub(crate) async fn cancelled(&self) {
        let mut waiter = Waiter::new(self);
        let told = std::future::poll_fn(|cx| match waiter.is_cancelled_or_wakes(cx.waker()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        });
        match self.deadline {
            // Either way it is.
            Some(deadline) => drop(tokio::time::timeout_at(deadline.into(), told).await),
            None => told.await,
        }
    }

    fn wakers(&self) -> MutexGuard<'_, Wakers> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a call to be cancelled. Its waker goes when this is dropped.
struct Waiter<'r> {
    running: &'r Running,
    place: Option<usize>,
}

impl<'r> Waiter<'r> {
    fn new(running: &'r Running) -> Self {
        Self { running, place: None }
    }

    /// Whether the call is cancelled; if not, `waker` is woken when it is, but for its deadline.
    fn is_cancelled_or_wakes(&mut self, waker: &Waker) -> bool {
        let mut wakers = self.running.wakers();
        if self.running.is_cancelled() {
            return true;
        }
        let before = match self.place {
            Some(place) => wakers.update(place, waker),
            None => {
                self.place = Some(wakers.add(waker.clone()));
                None
            }
        };
        drop(wakers);
        drop(before);
        false
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let removed = self.running.wakers().remove(place);
            drop(removed);
        }
    }
}

thread_local! {
    /// The call that this thread answers.
    static CURRENT: RefCell<Option<Arc<Running>>> = const { RefCell::new(None) };
}

/// While it lives, this thread answers a call.
pub(crate) struct Current {
    before: Option<Arc<Running>>,
}

impl Current {
    pub(crate) fn enter(running: Arc<Running>) -> Self {
        Self { before: CURRENT.replace(Some(running)) }
    }

    /// It answers the call no more, which is given back.
    pub(crate) fn leave(mut self) -> Arc<Running> {
        let running = CURRENT.replace(self.before.take());
        std::mem::forget(self);
        running.expect("it is there from `enter` on")
    }

    /// The connection through which this thread is called.
    pub(crate) fn link() -> Option<Arc<Link>> {
        CURRENT.try_with(|running| running.borrow().as_ref()?.link.upgrade()).ok()?
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        CURRENT.set(self.before.take());
    }
}
