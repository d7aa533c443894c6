//! How connections end: with which error, and what the log is told.

use std::io;

use lpc_core::receive::Violation;
use lpc_core::ring::RingViolation;
use lpc_core::{Error, ErrorKind, Result};

use crate::config::Config;
use crate::connection::inbox::Inbox;
use crate::connection::link::Link;
use crate::generated::{Description, Reply};

/// The error that ends a connection after its call was answered: a peer that sends what does not decode is
/// not to be trusted with the rest.
pub(crate) fn is_fatal(answer: &Result<Reply>) -> Option<Error> {
    answer.as_ref().err().filter(|error| error.kind() == ErrorKind::Decode).cloned()
}

/// A reply that could not be sent.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(crate) fn broken(error: io::Error) -> Error {
    if let Some(violation) = error.get_ref().and_then(|error| error.downcast_ref::<RingViolation>()) {
        return Violation::from(*violation).into();
    }
    Error::new(ErrorKind::Disconnected, format!("the client does not take its replies: {error}"))
}

/// Says in the log where the end of the stream cut a message in two. That is nothing to the calls that run:
/// the end may be that of a server's receiving, at its shutdown.
pub(crate) fn log_cut(service: Description, inbox: &Inbox) {
    if let Err(error) = inbox.ended() {
        tracing::debug!(service = service.name, %error, "connection cut");
    }
}

/// Says in the log that a shutdown took too long.
pub(crate) fn log_cut_off(service: Description, config: &Config, connections: usize) {
    let timeout = config.shutdown_timeout;
    tracing::warn!(service = service.name, connections, ?timeout, "calls cut off (shutdown_timeout)");
}

/// Says in the log why a connection is over; what the peer did wrong, once, though several calls may run into
/// it.
pub(crate) fn log_end(service: Description, link: &Link, error: &Error) {
    if error.is_disconnected() {
        tracing::debug!(service = service.name, %error, "connection ended");
    } else if link.tells_end() {
        tracing::warn!(service = service.name, %error, "connection closed");
    }
}
