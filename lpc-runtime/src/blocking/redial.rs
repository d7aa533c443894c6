//! [`Redial`]: a client's connections, one after the other.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lpc_core::{Error, ErrorKind, Result};

use super::client::{Shared, dial};
use crate::client::reconnect::{ConnectionEvent, Dialling, Reconnect, Retries};
use crate::client::session;
use crate::config::Config;
use crate::generated::{Description, Encode, Outcome};
use crate::port::Port;
use crate::stats::Counters;

#[derive(Debug)]
pub(super) struct Redial {
    port: Port,
    service: Description,
    config: Config,
    policy: Reconnect,
    counters: Arc<Counters>,
    line: Mutex<Line>,
    /// Signalled when nobody dials any more.
    free: Condvar,
}

#[derive(Debug)]
struct Line {
    connection: Arc<Shared>,
    /// Whether it was said that it is lost.
    is_lost: bool,
    /// A caller is about to replace it.
    is_dialling: bool,
}

impl Redial {
    pub(super) fn new(
        port: Port,
        service: Description,
        config: Config,
        policy: Reconnect,
        counters: Arc<Counters>,
        connection: Arc<Shared>,
    ) -> Self {
        let line = Mutex::new(Line { connection, is_lost: false, is_dialling: false });
        Self { port, service, config, policy, counters, line, free: Condvar::new() }
    }

    pub(super) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// The connection, be it over or not.
    pub(super) fn current(&self) -> Arc<Shared> {
        Arc::clone(&self.line().connection)
    }

    pub(super) fn call<R: Outcome>(
        &self,
        method: u32,
        encode: &Encode<'_>,
        time: Option<Duration>,
    ) -> Result<R> {
        let deadline = session::from_now(time.or_else(|| self.current().time_of(method)));
        let mut retries = Retries::new(&self.policy, &self.service.methods[method as usize]);
        loop {
            let result = self.connected(deadline)?.call(method, encode, deadline);
            match result {
                Err(error) if retries.again(&error) => {}
                result => return result,
            }
        }
    }

    /// A connection that is not over, made now if need be.
    pub(super) fn connected(&self, deadline: Option<Instant>) -> Result<Arc<Shared>> {
        let mut line = self.line();
        loop {
            if line.connection.is_usable() {
                return Ok(Arc::clone(&line.connection));
            }
            if !line.is_dialling {
                break;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            line = match left {
                Some(Duration::ZERO) => {
                    return Err(Error::new(
                        ErrorKind::TimedOut,
                        "no new connection before the call's deadline",
                    ));
                }
                Some(left) => self.free.wait_timeout(line, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.free.wait(line).unwrap_or_else(PoisonError::into_inner),
            };
        }
        line.is_dialling = true;
        let lost = (!std::mem::replace(&mut line.is_lost, true)).then(|| line.connection.why_over());
        drop(line);
        let dialling = Dialled(self);
        if let Some(lost) = lost {
            self.policy.tell(&ConnectionEvent::Lost(&lost));
        }
        let mut tries = Dialling::new(&self.policy, deadline);
        loop {
            let config = self.config.with_handshake_within(tries.left());
            match dial(&self.port, self.service, &config, Arc::clone(&self.counters)) {
                Ok(connection) => {
                    let mut line = self.line();
                    line.is_lost = false;
                    let lost = std::mem::replace(&mut line.connection, Arc::clone(&connection));
                    drop(line);
                    drop(lost);
                    drop(dialling);
                    self.policy.tell(&ConnectionEvent::Connected);
                    return Ok(connection);
                }
                Err(error) => std::thread::sleep(tries.failed(error)?),
            }
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets others dial when this one has succeeded, or failed.
struct Dialled<'r>(&'r Redial);

impl Drop for Dialled<'_> {
    fn drop(&mut self) {
        self.0.line().is_dialling = false;
        self.0.free.notify_all();
    }
}
