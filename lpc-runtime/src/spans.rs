//! What `tracing` is told of calls and connections, by both drivers and on both sides. The crate's page has it
//! for users.
//!
//! Where nobody listens at debug level a call costs one load of that level: [`CallSpan`] is then empty.

use lpc_core::frame::CallId;
use lpc_core::{Error, Result};
use tracing::level_filters::{LevelFilter, STATIC_MAX_LEVEL};
use tracing::span::Entered;
use tracing::{Span, field};

use crate::credentials::Credentials;
use crate::generated::Description;

/// The target of calls' spans, and of the events in them.
const CALL: &str = "lpc::call";

/// The target of what is told of connections that were made.
const CONNECTION: &str = "lpc::connection";

/// The span of a call, if anybody listens.
#[derive(Debug)]
pub(crate) struct CallSpan(Option<Box<Span>>);

impl CallSpan {
    /// Of a call that this side makes.
    #[inline]
    pub(crate) fn of_client(service: &Description, method: u32, peer: Option<&Credentials>) -> Self {
        Self(if is_followed() { client(service, method, peer) } else { None })
    }

    /// Of a call that this side answers.
    #[inline]
    pub(crate) fn of_server(
        service: &Description,
        method: u16,
        peer: Option<&Credentials>,
        id: CallId,
    ) -> Self {
        Self(if is_followed() { server(service, method, peer, id) } else { None })
    }

    /// What happens on this thread from now on belongs to the call.
    #[inline]
    pub(crate) fn enter(&self) -> Option<Entered<'_>> {
        self.0.as_ref().map(|span| span.enter())
    }

    /// Runs this, which belongs to the call.
    #[cfg(feature = "tokio")]
    #[inline]
    pub(crate) fn in_scope<T>(&self, run: impl FnOnce() -> T) -> T {
        let _entered = self.enter();
        run()
    }

    /// The call has been sent, under this id.
    #[inline]
    pub(crate) fn sent(&self, id: CallId) {
        if let Some(span) = &self.0 {
            sent(span, id);
        }
    }

    /// The call has ended with this.
    #[inline]
    pub(crate) fn ended<T>(&self, outcome: &Result<T>) {
        if let Some(span) = &self.0 {
            ended(span, outcome.as_ref().err());
        }
    }
}

/// Whether anybody listens to what calls tell.
#[inline]
fn is_followed() -> bool {
    LevelFilter::DEBUG <= STATIC_MAX_LEVEL && LevelFilter::DEBUG <= LevelFilter::current()
}

#[cold]
fn client(service: &Description, method: u32, peer: Option<&Credentials>) -> Option<Box<Span>> {
    let (pid, uid) = of(peer);
    let (service, method, call) = (service.name, service.method(method), field::Empty);
    used(tracing::debug_span!(target: CALL, "call", service, method, pid, uid, call))
}

#[cold]
fn server(service: &Description, method: u16, peer: Option<&Credentials>, id: CallId) -> Option<Box<Span>> {
    let (pid, uid) = of(peer);
    let (service, method, call) = (service.name, service.method(method.into()), id.as_u64());
    let span = used(tracing::debug_span!(target: CALL, "serve", service, method, pid, uid, call))?;
    tracing::debug!(target: CALL, parent: &*span, "received");
    Some(span)
}

#[cold]
fn sent(span: &Span, id: CallId) {
    span.record("call", id.as_u64());
    tracing::debug!(target: CALL, parent: span, "sent");
}

#[cold]
fn ended(span: &Span, error: Option<&Error>) {
    match error {
        None => tracing::debug!(target: CALL, parent: span, "answered"),
        Some(error) => tracing::debug!(target: CALL, parent: span, %error, "failed"),
    }
}

/// A span that somebody listens to.
fn used(span: Span) -> Option<Box<Span>> {
    (!span.is_disabled()).then(|| Box::new(span))
}

/// This side, a client, has a connection.
pub(crate) fn connected(service: &Description, peer: Option<&Credentials>) {
    let (pid, uid) = of(peer);
    tracing::debug!(target: CONNECTION, service = service.name, pid, uid, "connected to the server");
}

/// This side, a server, has a connection.
pub(crate) fn accepted(service: &Description, peer: Option<&Credentials>) {
    let (pid, uid) = of(peer);
    tracing::debug!(target: CONNECTION, service = service.name, pid, uid, "a client has connected");
}

/// The fields that say who a peer is, as far as that is known.
fn of(peer: Option<&Credentials>) -> (Option<i32>, Option<u32>) {
    (peer.map(Credentials::pid), peer.map(Credentials::uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_of_which_nobody_is_to_know_has_no_span() {
        let service = Description::plain("Documents", &[]);
        let span = CallSpan::of_client(&service, 0, None);
        assert!(span.0.is_none() && span.enter().is_none());
        assert!(CallSpan::of_server(&service, 0, None, CallId::new(1)).0.is_none());
    }
}
