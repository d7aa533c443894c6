//! [`Reconnect`]: how a client connects again when it has lost its connection.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::mem;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lpc_core::{Error, ErrorKind, Method, Progress};

/// How a client reconnects: how long it tries, how long it pauses in between, and which calls it repeats.
///
/// ```no_run
/// use std::time::Duration;
/// use lpc::{ConnectionEvent, Reconnect};
///
/// # #[lpc::service] pub trait Documents { fn count_words(&self, text: &str) -> lpc::Result<u64>; }
/// let reconnect = Reconnect::default().give_up_after(Duration::from_secs(3)).on_event(|event| {
///     if let ConnectionEvent::Lost(error) = event {
///         eprintln!("documents: {error}");
///     }
/// });
/// let documents = DocumentsClient::builder().reconnect(reconnect).connect("documents")?;
/// # Ok::<(), lpc::Error>(())
/// ```
///
/// A connection is made when a call needs one, by the calling thread. An async client has a task of its own
/// for it, in the runtime of the first connection, which goes on for other callers when the first one's
/// deadline has passed. Pauses double from 10 ms to 1 s. Each is shortened by a random part of up to one
/// half, so that the clients of a restarted server do not all come at once.
///
/// A call is repeated if it was certainly not sent, or if its method is marked `#[lpc(idempotent)]` and the
/// call may have run. No other call is.
#[derive(Clone)]
pub struct Reconnect {
    first_pause: Duration,
    max_pause: Duration,
    give_up_after: Duration,
    retries: u32,
    on_event: Option<Arc<OnEvent>>,
}

type OnEvent = dyn Fn(&ConnectionEvent<'_>) + Send + Sync;

/// What happens to the connection of a client that reconnects.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum ConnectionEvent<'e> {
    /// The connection is over. This is reported once for each connection.
    Lost(&'e Error),
    /// The process of a [supervised](crate::blocking::ClientBuilder::supervise) program has ended: by itself,
    /// or killed since its connection was over and it did not end, or since it did not serve.
    ChildExited(ExitStatus),
    /// A new connection could not be made. The next attempt follows after this pause.
    Failed(&'e Error, Duration),
    /// A new connection was made.
    Connected,
    /// No connection could be made within [`Reconnect::give_up_after`]. The next call tries again.
    GaveUp(&'e Error),
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            first_pause: Duration::from_millis(10),
            max_pause: Duration::from_secs(1),
            give_up_after: Duration::from_secs(10),
            retries: 3,
            on_event: None,
        }
    }
}

impl Reconnect {
    /// How long a call waits for a new connection. Default: 10 s. The call's own deadline takes precedence.
    #[must_use]
    pub fn give_up_after(mut self, time: Duration) -> Self {
        self.give_up_after = time;
        self
    }

    /// The first pause between two attempts, and the longest. Default: 10 ms and 1 s.
    #[must_use]
    pub fn pauses(mut self, first: Duration, max: Duration) -> Self {
        // Without a pause, this process would do nothing else.
        self.first_pause = first.max(Duration::from_millis(1));
        self.max_pause = max.max(self.first_pause);
        self
    }

    /// How often one call is repeated at most. Default: 3.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Calls `on_event` when a connection is lost or made, on the thread or in the task that connects. It
    /// should be quick, and must not call through this client.
    #[must_use]
    pub fn on_event(mut self, on_event: impl Fn(&ConnectionEvent<'_>) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(on_event));
        self
    }

    /// The pause before a program is started again that lived for this long, after such a pause before.
    pub(crate) fn pause_after(&self, pause: Duration, lived: Duration) -> Duration {
        if lived >= self.max_pause {
            return Duration::ZERO;
        }
        pause.saturating_mul(2).clamp(self.first_pause, self.max_pause)
    }

    pub(crate) fn tell(&self, event: &ConnectionEvent<'_>) {
        tracing::debug!(?event, "reconnecting");
        if let Some(on_event) = &self.on_event {
            on_event(event);
        }
    }
}

impl fmt::Debug for Reconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnect")
            .field("give_up_after", &self.give_up_after)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}

/// The retries of one call.
#[derive(Debug)]
pub(crate) struct Retries {
    left: u32,
    is_idempotent: bool,
}

impl Retries {
    pub(crate) fn new(policy: &Reconnect, method: &Method) -> Self {
        Self { left: policy.retries, is_idempotent: method.is_idempotent() }
    }

    /// Whether a call that failed with this error is repeated.
    pub(crate) fn again(&mut self, error: &Error) -> bool {
        let may = error.is_disconnected()
            && (error.progress() == Progress::NotSent
                || self.is_idempotent && error.progress() == Progress::MayHaveRun);
        if !may || self.left == 0 {
            return false;
        }
        self.left -= 1;
        true
    }
}

/// The attempts at one connection.
#[derive(Debug)]
pub(crate) struct Dialling<'p> {
    policy: &'p Reconnect,
    pause: Duration,
    /// When the policy gives up.
    until: Option<Instant>,
    /// The deadline of the call that needs the connection.
    deadline: Option<Instant>,
    /// Why the attempt before failed.
    failed: Option<Error>,
}

impl<'p> Dialling<'p> {
    pub(crate) fn new(policy: &'p Reconnect, deadline: Option<Instant>) -> Self {
        let until = Instant::now().checked_add(policy.give_up_after);
        Self { policy, pause: policy.first_pause, until, deadline, failed: None }
    }

    /// The time left for further attempts; `None`: no limit.
    pub(crate) fn left(&self) -> Option<Duration> {
        let until = self.until.into_iter().chain(self.deadline).min();
        until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// Takes note of a failed attempt. Returns how long to pause before the next one.
    ///
    /// # Errors
    ///
    /// If there is no next one.
    pub(crate) fn failed(&mut self, error: Error) -> Result<Duration, Error> {
        let left = self.left();
        let is_last = left.is_some_and(|left| left.is_zero());
        // Of one for which no time was left, the one before says more.
        let error = match self.failed.take() {
            Some(before) if is_last && error.is_timed_out() => before,
            _ => error,
        };
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(not_in_time(Some(error)));
        }
        if !is_passing(&error) || is_last {
            self.policy.tell(&ConnectionEvent::GaveUp(&error));
            let message = format!("no new connection to the server: {error} (Reconnect::give_up_after)");
            let kind = if is_passing(&error) { ErrorKind::Disconnected } else { error.kind() };
            return Err(Error::new(kind, message).with_source(error));
        }
        let chance = RandomState::new().build_hasher().finish() as u32;
        let part = self.pause.mul_f64(f64::from(chance) / f64::from(u32::MAX) / 2.0);
        let pause = (self.pause - part).min(left.unwrap_or(Duration::MAX));
        self.pause = self.pause.saturating_mul(2).min(self.policy.max_pause);
        self.policy.tell(&ConnectionEvent::Failed(&error, pause));
        self.failed = Some(error);
        Ok(pause)
    }
}

/// What is known of a connection that a client has lost, as long as there is no other.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    /// Whether it was said that it is lost.
    is_said: bool,
    /// Why it is, and then why the last attempt at another failed.
    why: Option<Error>,
}

impl Lost {
    /// The connection is lost. Gives the reason the first time, to be said.
    pub(crate) fn note(&mut self, why: impl FnOnce() -> Error) -> Option<Error> {
        if mem::replace(&mut self.is_said, true) {
            return None;
        }
        self.why = Some(why());
        self.why.clone()
    }

    /// An attempt at another one failed.
    pub(crate) fn failed(&mut self, why: &Error) {
        self.why = Some(why.clone());
    }

    /// There is another one.
    pub(crate) fn end(&mut self) {
        *self = Self::default();
    }

    /// The error of a call before whose deadline there is none.
    pub(crate) fn not_in_time(&self) -> Error {
        not_in_time(self.why.clone())
    }
}

/// The error of a call before whose deadline there is no new connection: why the last attempt failed or,
/// before one has, why the connection was lost.
fn not_in_time(why: Option<Error>) -> Error {
    let message = "no new connection to the server before the call's deadline";
    match why {
        Some(why) => Error::new(ErrorKind::TimedOut, format!("{message}: {why}")).with_source(why),
        None => Error::new(ErrorKind::TimedOut, message),
    }
}

/// Whether trying again later may help.
fn is_passing(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::TimedOut
            | ErrorKind::Disconnected
            | ErrorKind::Io
            | ErrorKind::ResourceExhausted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_are_shortened_by_half_at_most() {
        let policy = Reconnect::default().pauses(Duration::from_millis(8), Duration::from_millis(50));
        let mut dialling = Dialling::new(&policy, None);
        for longest in [8, 16, 32, 50, 50] {
            let pause = dialling.failed(Error::new(ErrorKind::NotFound, "nobody")).unwrap();
            let longest = Duration::from_millis(longest);
            assert!(pause <= longest && pause * 2 >= longest, "{pause:?} of {longest:?}");
        }
    }

    #[test]
    fn a_program_that_ends_soon_again_and_again_is_started_less_and_less_often() {
        let policy = Reconnect::default().pauses(Duration::from_millis(8), Duration::from_millis(50));
        let (short, long) = (Duration::from_millis(49), Duration::from_millis(50));
        let mut pause = Duration::ZERO;
        for longer in [8, 16, 32, 50, 50] {
            pause = policy.pause_after(pause, short);
            assert_eq!(pause, Duration::from_millis(longer));
        }
        pause = policy.pause_after(pause, long);
        assert_eq!(pause, Duration::ZERO, "it has lived");
        assert_eq!(policy.pause_after(pause, short), Duration::from_millis(8));
    }

    #[test]
    fn what_no_patience_mends_is_not_tried_again() {
        let policy = Reconnect::default();
        let error = Dialling::new(&policy, None).failed(Error::new(ErrorKind::WrongService, "other"));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::WrongService);
        let late =
            Dialling::new(&policy, Some(Instant::now())).failed(Error::new(ErrorKind::NotFound, "nobody"));
        assert!(late.unwrap_err().is_timed_out());
    }

    #[test]
    fn only_what_was_not_sent_or_is_idempotent_is_called_again() {
        let policy = Reconnect::default().retries(2);
        let lost = |progress| Error::new(ErrorKind::Disconnected, "gone").with_progress(progress);
        let mut plain = Retries::new(&policy, &Method::new("put"));
        assert!(!plain.again(&lost(Progress::MayHaveRun)));
        assert!(!plain.again(&lost(Progress::Ran)));
        assert!(plain.again(&lost(Progress::NotSent)));
        assert!(plain.again(&lost(Progress::NotSent)));
        assert!(!plain.again(&lost(Progress::NotSent)), "two are enough");
        let mut idempotent = Retries::new(&policy, &Method::new("get").idempotent());
        assert!(idempotent.again(&lost(Progress::MayHaveRun)));
        assert!(!idempotent.again(&lost(Progress::Ran)));
        assert!(
            !idempotent.again(&Error::new(ErrorKind::TimedOut, "late").with_progress(Progress::MayHaveRun))
        );
    }
}
