//! [`TimeLimit`]: how long a call may take, and who says so.

use std::fmt;
use std::time::{Duration, Instant};

use lpc_core::Error;

use crate::client::reply;
use crate::generated::Description;
use crate::server::context::Context;

/// When a call has to be over: the sooner of its own deadline and that of the call it is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeLimit {
    pub(crate) deadline: Option<Instant>,
    source: Source,
}

/// Who has set it.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// The caller, for this call.
    Call(Duration),
    /// The method's attribute or the client's builder.
    Default(Duration),
    /// The call that is being answered by this one's caller, with so much time left.
    Outer(Duration),
    /// Nobody: there is none.
    Nobody,
}

impl TimeLimit {
    /// That of a call which may take `of_call` or else `by_default`.
    #[inline]
    pub(crate) fn new(of_call: Option<Duration>, by_default: Option<Duration>) -> Self {
        let source = match (of_call, by_default) {
            (Some(time), _) => Source::Call(time),
            (None, Some(time)) => Source::Default(time),
            (None, None) => Source::Nobody,
        };
        let own = Self { deadline: reply::from_now(of_call.or(by_default)), source };
        match Context::deadline_of_current() {
            Some(outer) if own.deadline.is_none_or(|own| outer < own) => Self::within(outer),
            _ => own,
        }
    }

    #[cold]
    fn within(outer: Instant) -> Self {
        Self { deadline: Some(outer), source: Source::Outer(reply::time_left(outer)) }
    }

    /// The error with a word on who set the deadline, where it is that this has passed.
    pub(crate) fn explain(self, error: Error, service: &Description, method: u32) -> Error {
        if !error.is_timed_out() || self.deadline.is_none_or(|deadline| deadline > Instant::now()) {
            return error;
        }
        let is_methods = service.methods[method as usize].deadline().is_some();
        error.with_note(Told { source: self.source, is_methods })
    }
}

struct Told {
    source: Source,
    is_methods: bool,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            Source::Call(time) => write!(f, "with_deadline({time:?})"),
            Source::Default(time) if self.is_methods => write!(f, "the method's deadline of {time:?}"),
            Source::Default(time) => write!(f, "the client's deadline of {time:?}"),
            Source::Outer(left) => {
                write!(f, "{left:?} were left of the deadline of the call that this one was made for")
            }
            Source::Nobody => f.write_str("no deadline"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lpc_core::{ErrorKind, Method};

    const METHODS: [Method; 2] =
        [Method::new("plain"), Method::new("hasty").with_deadline(Duration::from_millis(7))];
    const SERVICE: Description = Description::plain("Races", &METHODS);
    const PLAIN: u32 = 0;
    const HASTY: u32 = 1;

    #[test]
    fn an_error_says_whose_deadline_has_passed() {
        let zero = Some(Duration::ZERO);
        let late = || Error::new(ErrorKind::TimedOut, "late");
        let told = |limit: TimeLimit, method| limit.explain(late(), &SERVICE, method).to_string();
        assert_eq!(told(TimeLimit::new(zero, None), HASTY), "late (with_deadline(0ns))");
        assert_eq!(told(TimeLimit::new(None, zero), PLAIN), "late (the client's deadline of 0ns)");
        assert_eq!(told(TimeLimit::new(None, zero), HASTY), "late (the method's deadline of 0ns)");
    }

    #[test]
    fn what_timed_out_for_another_reason_is_not_explained() {
        let limit = TimeLimit::new(Some(Duration::from_secs(1000)), None);
        let error =
            limit.explain(Error::new(ErrorKind::TimedOut, "the handshake took too long"), &SERVICE, PLAIN);
        assert_eq!(error.to_string(), "the handshake took too long");
    }
}
