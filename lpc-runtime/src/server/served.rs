//! [`Served`]: a service, and what all its connections share.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use lpc_core::pace::Pace;
use lpc_core::{Error, ErrorKind, Limits, Progress, Result, Threshold};

use crate::body::arrived::Arrived;
use crate::config::Config;
use crate::connection::link::{Link, Settings};
use crate::generated::{Description, Request};
use crate::handshake;
use crate::memory::budget::Budget;
use crate::memory::quota::UserQuotas;

/// A service and all that its connections share. `D` is how the driver calls it.
pub(crate) struct Served<D: ?Sized> {
    pub(crate) service: Description,
    /// What each client is told first.
    pub(crate) hello: Box<[u8]>,
    pub(crate) max_calls: usize,
    thresholds: Box<[Threshold]>,
    /// How long each method takes.
    paces: Box<[Pace]>,
    users: UserQuotas,
    pub(crate) dispatch: Box<D>,
}

impl<D: ?Sized> Served<D> {
    pub(crate) fn new(service: Description, config: &Config, dispatch: Box<D>) -> Result<Self> {
        // Before a client waits for it.
        service.check_forms()?;
        Ok(Self {
            service,
            hello: handshake::server_hello(service, config).into(),
            max_calls: config.max_concurrent_calls,
            thresholds: config.thresholds(service.methods)?,
            paces: service.methods.iter().map(|_| Pace::new()).collect(),
            users: UserQuotas::new(config.user_pool_limit),
            dispatch,
        })
    }

    /// What the connection to a client is made with.
    pub(crate) fn settings(&self, limits: Limits, user: u32, config: &Config) -> Settings {
        Settings {
            limits,
            quota: Some(self.users.quota(user)),
            budget: Budget::of_user(user),
            idle: config.pool_idle_timeout,
            stall: config.stall_timeout,
            write_timeout: Some(config.stall_timeout),
            keepalive: config.keepalive,
            spin: config.spin,
        }
    }

    pub(crate) fn request<'a>(&'a self, link: &'a Link, method: u16, arguments: &'a Arrived) -> Request<'a> {
        let threshold = self.thresholds.get(usize::from(method)).copied().unwrap_or_default();
        Request::new(link, &self.service, u32::from(method), arguments, threshold)
    }

    /// Whether the method is expected to take less than handing it to another thread would. One that there is
    /// not is answered at once.
    pub(crate) fn is_quick(&self, method: u16) -> bool {
        self.paces.get(usize::from(method)).is_none_or(Pace::is_quick)
    }

    /// Times a call of the method, if that is to be timed.
    pub(crate) fn stopwatch(&self, method: u16) -> Stopwatch<'_> {
        Stopwatch::new(self.paces.get(usize::from(method)))
    }

    /// A call of the method took this long.
    pub(crate) fn took(&self, method: u16, time: Duration) {
        if let Some(pace) = self.paces.get(usize::from(method)) {
            pace.took(time);
        }
    }

    /// The error of a call whose implementation panicked.
    pub(crate) fn panicked(&self, method: u16, panic: Box<dyn Any + Send>) -> Error {
        let name = self.service.method(u32::from(method));
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let text = text.map(|text| format!(": {text}")).unwrap_or_default();
        // What was panicked with may panic in its turn when it is dropped.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            mem::forget(panic);
        }
        Error::new(ErrorKind::Panicked, format!("{}.{name} panicked{text}", self.service.name))
            .with_progress(Progress::Ran)
    }
}

/// Times a call: how long the longest of its turns took, for which it would have kept the thread or task that
/// reads.
#[derive(Debug)]
pub(crate) struct Stopwatch<'s> {
    /// `None` for a call that is not timed, which costs no look at the clock.
    pace: Option<&'s Pace>,
    longest: Option<Duration>,
}

impl<'s> Stopwatch<'s> {
    fn new(pace: Option<&'s Pace>) -> Self {
        Self { pace: pace.filter(|pace| pace.is_timed()), longest: None }
    }

    /// Runs the call for a turn.
    #[inline]
    pub(crate) fn turn<T>(&mut self, run: impl FnOnce() -> T) -> T {
        if self.pace.is_none() {
            return run();
        }
        let started = Instant::now();
        let result = run();
        self.longest = self.longest.max(Some(started.elapsed()));
        result
    }
}

impl Drop for Stopwatch<'_> {
    fn drop(&mut self) {
        if let (Some(pace), Some(longest)) = (self.pace, self.longest) {
            pace.took(longest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_quick_method_one_call_in_sixteen_is_timed() {
        let pace = Pace::new();
        let timed = |calls| (0..calls).filter(|_| Stopwatch::new(Some(&pace)).pace.is_some()).count();
        assert_eq!(timed(5), 5, "nothing is known yet");
        pace.took(Duration::from_micros(1));
        assert_eq!(timed(160), 10);
    }

    #[test]
    fn a_call_that_had_no_turn_tells_nothing() {
        let pace = Pace::new();
        drop(Stopwatch::new(Some(&pace)));
        assert!(!pace.is_quick());
        Stopwatch::new(Some(&pace)).turn(|| ());
        assert!(pace.is_quick());
    }
}
