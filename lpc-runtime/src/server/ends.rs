//! How connections end: with which error, and what the log is told of it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use lpc_core::receive::Violation;
use lpc_core::ring::RingViolation;
use lpc_core::{Error, ErrorKind};

use crate::config::Config;
use crate::credentials::Credentials;
use crate::generated::Description;
use crate::server::admission::Permit;

/// Why a connection is over.
pub(crate) enum Cause<'e> {
    /// The client hung up, or the server did to shut down.
    HungUp,
    Error(&'e Error),
}

/// The end of a connection, of which the log is told once.
#[derive(Debug, Default)]
pub(crate) struct End {
    is_logged: AtomicBool,
}

impl End {
    /// Logs the end, if it is not logged yet: what the client did wrong as a warning, all else for debugging.
    /// `calls` says how many were not answered.
    pub(crate) fn log(
        &self,
        service: Description,
        permit: &Permit,
        cause: &Cause<'_>,
        calls: impl FnOnce() -> usize,
    ) {
        if self.is_logged.swap(true, Relaxed) {
            return;
        }
        let (service, peer, calls) = (service.name, permit.peer(), calls());
        let (pid, uid) = (peer.map(Credentials::pid), peer.map(Credentials::uid));
        match cause {
            Cause::Error(error) if !error.is_disconnected() => {
                tracing::warn!(service, pid, uid, calls, %error, "connection closed");
            }
            // Whatever a shutdown has cut off.
            _ if permit.is_shutdown() => {
                tracing::debug!(service, pid, uid, calls, error = SHUTDOWN, "connection ended");
            }
            Cause::Error(error) => tracing::debug!(service, pid, uid, calls, %error, "connection ended"),
            Cause::HungUp => tracing::debug!(service, pid, uid, calls, error = HUNG_UP, "connection ended"),
        }
    }
}

const HUNG_UP: &str = "the client hung up";

const SHUTDOWN: &str = "the server shut down";

/// The error of a frame that could not be sent.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(crate) fn broken(error: io::Error) -> Error {
    if let Some(violation) = error.get_ref().and_then(|error| error.downcast_ref::<RingViolation>()) {
        return Violation::from(*violation).into();
    }
    let message = match error.kind() {
        // The first to run into the client's end may be a call that is answered.
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => HUNG_UP.to_owned(),
        _ => format!("the client does not take its replies: {error}"),
    };
    Error::new(ErrorKind::Disconnected, message)
}

/// Logs that a shutdown took too long.
pub(crate) fn log_cut_off(service: Description, config: &Config, connections: usize) {
    let timeout = config.shutdown_timeout;
    tracing::warn!(service = service.name, connections, ?timeout, "calls cut off (shutdown_timeout)");
}
