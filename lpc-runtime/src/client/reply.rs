//! What becomes of a call's reply: [`Fetched`], and the errors of calls that have none.

use std::io;
use std::time::{Duration, Instant};

use lpc_core::codec::Coding;
use lpc_core::frame::{self, CallId};
use lpc_core::send::StreamPosition;
use lpc_core::{Error, ErrorKind, Method, Progress, Result};

use crate::body::arrived::Arrived;
use crate::connection::link::Link;
use crate::generated::{Description, Outcome, decode_outcome};

/// How long the calls of each method may take: its own deadline, else the client's.
pub(crate) fn deadlines(methods: &[Method], common: Option<Duration>) -> Box<[Option<Duration>]> {
    methods.iter().map(|method| method.deadline().or(common)).collect()
}

/// When that is over. A time that no clock shows never comes.
#[inline]
pub(crate) fn from_now(time: Option<Duration>) -> Option<Instant> {
    // Without one the clock is not looked at.
    time.and_then(|time| Instant::now().checked_add(time))
}

/// How much is left until a deadline.
pub(crate) fn time_left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// A reply. When it has been read, the server wants its memory back, if it stands there.
pub(crate) struct Fetched<'l> {
    link: &'l Link,
    call: CallId,
    body: Arrived,
}

impl<'l> Fetched<'l> {
    #[inline]
    pub(crate) fn new(link: &'l Link, call: CallId, body: Arrived) -> Self {
        Self { link, call, body }
    }

    #[inline]
    pub(crate) fn decode<R: Outcome>(self, service: &Description, method: u32, coding: Coding) -> Result<R> {
        decode_outcome(&self.body, service, method, coding, self.link.limits().max_depth)
    }
}

impl Drop for Fetched<'_> {
    fn drop(&mut self) {
        if self.body.is_mapped() {
            // Goes out with the next call, or by maintenance.
            self.link.enqueue_deferred(&frame::release(self.call));
        }
    }
}

/// How far a call can have got whose frame ends there.
pub(crate) fn progress(position: StreamPosition, link: &Link) -> Progress {
    // What is queued goes out later, unless nothing does any more.
    if link.is_broken() && !link.may_have_gone(position) { Progress::NotSent } else { Progress::MayHaveRun }
}

/// The error of a call that nobody answered in time.
pub(crate) fn timed_out(service: &Description, method: u32, progress: Progress, why: &str) -> Error {
    let (service, method) = (service.name, service.method(method));
    let what = if progress == Progress::NotSent { "not sent" } else { "no reply" };
    let message = format!("{service}.{method}: {what} before the deadline{why}");
    Error::new(ErrorKind::TimedOut, message).with_progress(progress)
}

/// What the server's word on a call means to its caller: a server that sees the deadline pass first says that
/// the call was cancelled.
pub(crate) fn explained(
    error: Error,
    service: &Description,
    method: u32,
    deadline: Option<Instant>,
) -> Error {
    if !error.is_cancelled() || deadline.is_none() {
        return error;
    }
    if error.progress() == Progress::NotSent {
        let message = format!(
            "{}.{}: it waited at the server until the deadline, while others ran (max_concurrent_calls)",
            service.name,
            service.method(method)
        );
        return Error::new(ErrorKind::TimedOut, message);
    }
    timed_out(service, method, Progress::MayHaveRun, "")
}

/// Why calls fail on a connection whose server shuts down.
pub(crate) fn closing() -> Error {
    Error::new(ErrorKind::Disconnected, "the server is shutting down")
}

/// Why calls fail on a client that this process has closed.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Disconnected, "the client was closed in this process (`close`)")
}

/// Why calls fail on a connection whose server is stopped.
#[expect(clippy::needless_pass_by_value, reason = "of a trait's method")]
pub(crate) fn stopped(error: io::Error) -> Error {
    Error::new(ErrorKind::Disconnected, format!("the server is stopped: {error}"))
}

/// Why calls fail on a connection whose server closed it.
pub(crate) fn hung_up() -> Error {
    Error::new(ErrorKind::Disconnected, "the server hung up")
}

/// Why calls fail on a connection whose server has stopped reading.
pub(crate) fn receives_nothing() -> Error {
    Error::new(ErrorKind::Disconnected, "the server receives nothing more")
}
