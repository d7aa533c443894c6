//! [`Context`]: what an implementation can learn about the call that it answers.

use std::cell::RefCell;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use lpc_core::frame::MAX_NESTING;
use lpc_core::{Error, ErrorKind, Progress, Result};

use crate::connection::link::Link;
use crate::credentials::Credentials;
use crate::server::callback::{Callback, CallbackGuard, Source};
use crate::server::wakers::{Event, Waiter};

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
/// asks, or is [told](Self::on_cancel). An `async fn` can give a clone to the tasks or threads that it
/// starts.
///
/// A server that [shuts down](crate::blocking::Handle::shutdown) waits for the calls that run, for no longer
/// than `shutdown_timeout`. A call that takes long asks whether [that has begun](Self::is_shutting_down), or
/// is [told](Self::on_shutdown), and ends early with what it has:
///
/// ```
/// use std::sync::mpsc::channel;
/// use std::thread;
/// use lpc::{Context, service};
/// # use std::sync::Mutex;
///
/// #[service]
/// pub trait Changes {
///     /// Waits for the next change.
///     fn next(&self) -> lpc::Result<Option<String>>;
/// }
///
/// enum Event {
///     Change(String),
///     Stop,
/// }
///
/// struct Watcher;
///
/// impl Changes for Watcher {
///     fn next(&self) -> lpc::Result<Option<String>> {
///         let (sender, events) = channel();
///         let stop = sender.clone();
///         let _guard = Context::current().on_shutdown(move || drop(stop.send(Event::Stop)));
///         watch(sender);
///         match events.recv() {
///             Ok(Event::Change(name)) => Ok(Some(name)),
///             _ => Ok(None), // for the caller to ask again, elsewhere
///         }
///     }
/// }
/// # static WATCHED: Mutex<Vec<std::sync::mpsc::Sender<Event>>> = Mutex::new(Vec::new());
/// # fn watch(sender: std::sync::mpsc::Sender<Event>) { WATCHED.lock().unwrap().push(sender) }
///
/// # let directory = tempfile::tempdir()?;
/// # let port = directory.path().join("changes");
/// let server = lpc::blocking::Server::bind(&port)?;
/// let handle = server.handle();
/// let serving = thread::spawn(move || server.serve(Watcher));
/// let changes = ChangesClient::connect(&port)?;
/// let waiting = thread::spawn(move || changes.next());
/// # while WATCHED.lock().unwrap().is_empty() { thread::yield_now() }
/// handle.shutdown(); // as at SIGINT
/// assert_eq!(waiting.join().unwrap()?, None);
/// serving.join().unwrap()?;
/// # Ok::<(), lpc::Error>(())
/// ```
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

    /// How many calls one is made within that this thread or task makes now.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ResourceExhausted`]: too many.
    #[inline]
    pub(crate) fn nesting_of_calls() -> Result<u32> {
        let around = CURRENT.try_with(|current| current.borrow().as_ref().map(|running| running.nesting));
        match around {
            Ok(Some(around)) if around >= MAX_NESTING => Err(nested_too_deep()),
            Ok(Some(around)) => Ok(around + 1),
            _ => Ok(0),
        }
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
        let mut waiter = Waiter::new(&running.cancelled);
        while !running.is_cancelled() && !waiter.has_come_or_wakes(&waker) {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            match left {
                Some(Duration::ZERO) => break,
                Some(left) => thread::park_timeout(left),
                None => thread::park(),
            }
        }
        running.is_cancelled()
    }

    /// Has `run` called when the call is cancelled, or now if it is. Dropping the guard takes that back.
    ///
    /// It is for what cannot ask: a system call or a library that is stopped by a function.
    ///
    /// ```
    /// # use std::os::unix::net::UnixStream;
    /// # use lpc::Context;
    /// # fn fetch(upstream: UnixStream) -> std::io::Result<Vec<u8>> {
    /// # use std::io::Read;
    /// let other = upstream.try_clone()?;
    /// let _guard = Context::current().on_cancel(move || {
    ///     let _ = other.shutdown(std::net::Shutdown::Both); // ends the read below
    /// });
    /// let mut answer = Vec::new();
    /// (&upstream).read_to_end(&mut answer)?;
    /// # Ok(answer) }
    /// ```
    ///
    /// It is called once at most, holding no lock, on whatever thread the news comes to: that one receives
    /// for the connection, or looks after all of them, and waits for it. So it should only tell others, as a
    /// [`Waker`](std::task::Waker) does. If it panics that is logged, and nothing else. Where the guard is
    /// dropped while it is being called on another thread, that goes on. Outside of a call it is never
    /// called.
    pub fn on_cancel(&self, run: impl FnOnce() + Send + 'static) -> CallbackGuard {
        let Some(running) = &self.0 else { return CallbackGuard::none() };
        let callback = Callback::new(run);
        if running.is_cancelled() {
            callback.run();
            return CallbackGuard::none();
        }
        CallbackGuard::register(Source::Call(Arc::clone(running)), &callback, running.deadline)
    }

    /// Whether the server has begun to shut down: it waits for this call, for no longer than
    /// `shutdown_timeout`. Outside of a call it has not.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.0.as_ref().is_some_and(|running| running.shutdown.has_come())
    }

    /// Has `run` called when the server begins to shut down, or now if it has. All else is as with
    /// [`on_cancel`](Self::on_cancel); the thread is the one that shuts the server down.
    pub fn on_shutdown(&self, run: impl FnOnce() + Send + 'static) -> CallbackGuard {
        let Some(running) = &self.0 else { return CallbackGuard::none() };
        CallbackGuard::register(Source::Server(Arc::clone(&running.shutdown)), &Callback::new(run), None)
    }

    /// Waits until the server begins to shut down: an `async fn` races this with what it does. Outside of a
    /// call that never happens.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped and made again.
    #[cfg(feature = "tokio")]
    pub async fn shutdown_begun(&self) {
        let Some(running) = &self.0 else { return std::future::pending().await };
        Waiter::new(&running.shutdown).comes().await;
    }

    /// Waits until the call is cancelled. It is for tasks that an implementation starts.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped and made again.
    #[cfg(feature = "tokio")]
    pub async fn cancelled(&self) {
        let Some(running) = &self.0 else { return std::future::pending().await };
        if running.deadline.is_none() || tokio::runtime::Handle::try_current().is_ok() {
            return running.cancelled().await;
        }
        // Here is no timer for the deadline.
        let told = Arc::new(tokio::sync::Notify::new());
        let tell = Arc::clone(&told);
        let _guard = self.on_cancel(move || tell.notify_one());
        told.notified().await;
    }
}

#[cold]
fn nested_too_deep() -> Error {
    let message = format!(
        "calls that are made within calls nest {MAX_NESTING} deep at most (MAX_NESTING): do services call each other in \
         a circle?"
    );
    Error::new(ErrorKind::ResourceExhausted, message).with_progress(Progress::NotSent)
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
    /// How many calls it was made within.
    nesting: u32,
    cancelled: Event,
    /// The server begins to shut down.
    shutdown: Arc<Event>,
}

impl Running {
    pub(crate) fn new(link: &Arc<Link>, peer: Option<Credentials>, shutdown: Arc<Event>) -> Self {
        let link = Arc::downgrade(link);
        Self { link, peer, deadline: None, nesting: 0, cancelled: Event::default(), shutdown }
    }

    /// Makes it that of another call.
    pub(crate) fn renew(&mut self, deadline: Option<Instant>, nesting: u32) {
        (self.deadline, self.nesting) = (deadline, nesting);
        self.cancelled.renew();
    }

    pub(crate) fn cancelled_event(&self) -> &Event {
        &self.cancelled
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.has_come() || self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.come();
    }

    #[cfg(feature = "tokio")]
    pub(crate) async fn cancelled(&self) {
        let told = Waiter::new(&self.cancelled).comes();
        match self.deadline {
            // Either way it is.
            Some(deadline) => drop(tokio::time::timeout_at(deadline.into(), told).await),
            None => told.await,
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
