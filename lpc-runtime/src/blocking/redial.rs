//! [`Redial`]: a client's connections, one after the other.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lpc_core::{Error, Result};

use super::caller::{Connection, dial};
use crate::client::reconnect::{ConnectionEvent, Dialling, Lost, Reconnect, Retries};
use crate::client::time_limit::TimeLimit;
use crate::config::Config;
use crate::connection::tally::Counters;
use crate::generated::{Description, Encode, Outcome};
use crate::port::Port;
use crate::sys::fork::ForkGuard;

pub(super) struct Redial {
    /// A fork of the process takes none of the locks, which a thread that it does not have may hold.
    fork_guard: ForkGuard,
    port: Port,
    service: Description,
    config: Config,
    policy: Reconnect,
    counters: Arc<Counters>,
    line: Mutex<Line>,
    /// Signalled when nobody dials any more.
    free: Condvar,
}

struct Line {
    connection: Arc<Connection>,
    lost: Lost,
    /// A caller is about to replace it.
    is_dialling: bool,
    /// How often that was given up, and why the last time: callers that waited for it do not try anew, one
    /// after the other.
    gave_up: (u64, Option<Error>),
}

impl Redial {
    pub(super) fn new(
        port: Port,
        service: Description,
        config: Config,
        policy: Reconnect,
        counters: Arc<Counters>,
        connection: Arc<Connection>,
    ) -> Self {
        let line = Line { connection, lost: Lost::default(), is_dialling: false, gave_up: (0, None) };
        Self {
            fork_guard: ForkGuard::here(),
            port,
            service,
            config,
            policy,
            counters,
            line: Mutex::new(line),
            free: Condvar::new(),
        }
    }

    pub(super) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Whether there is a connection, and no need to make one.
    pub(super) fn is_connected(&self) -> bool {
        self.current().is_ok_and(|connection| connection.is_connected())
    }

    /// Bytes of one body of arguments at most.
    pub(super) fn max_message(&self) -> u64 {
        let current = self.current();
        current.map_or(self.config.limits.max_message, |connection| {
            connection.session().link().limits().max_message
        })
    }

    /// The connection, be it over or not.
    fn current(&self) -> Result<Arc<Connection>> {
        self.fork_guard.check()?;
        Ok(Arc::clone(&self.line().connection))
    }

    pub(super) fn call<R: Outcome>(
        &self,
        method: u32,
        encode: &Encode<'_>,
        time: Option<Duration>,
    ) -> Result<R> {
        let limit = TimeLimit::new(time, self.current()?.session().time_of(method));
        let explain = |error| limit.explain(error, &self.service, method);
        let mut retries = Retries::new(&self.policy, &self.service.methods[method as usize]);
        loop {
            let connection = self.connected(limit.deadline).map_err(explain)?;
            match connection.call(method, encode, limit.deadline) {
                Err(error) if retries.again(&error) => {}
                result => return result.map_err(explain),
            }
        }
    }

    /// A connection that is not over, made now if need be.
    pub(super) fn connected(&self, deadline: Option<Instant>) -> Result<Arc<Connection>> {
        self.fork_guard.check()?;
        let mut line = self.line();
        let before = line.gave_up.0;
        loop {
            if line.connection.session().is_usable() {
                return Ok(Arc::clone(&line.connection));
            }
            if let (times, Some(error)) = &line.gave_up
                && *times != before
            {
                return Err(error.clone());
            }
            if !line.is_dialling {
                break;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            line = match left {
                Some(Duration::ZERO) => {
                    return Err(line.lost.not_in_time());
                }
                Some(left) => self.free.wait_timeout(line, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.free.wait(line).unwrap_or_else(PoisonError::into_inner),
            };
        }
        line.is_dialling = true;
        let Line { lost, connection, .. } = &mut *line;
        let lost = lost.note(|| connection.session().why_closed());
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
                    line.lost.end();
                    let lost = std::mem::replace(&mut line.connection, Arc::clone(&connection));
                    drop(line);
                    drop(lost);
                    drop(dialling);
                    self.policy.tell(&ConnectionEvent::Connected);
                    return Ok(connection);
                }
                Err(error) => {
                    self.line().lost.failed(&error);
                    std::thread::sleep(tries.failed(error).inspect_err(|error| {
                        // The deadline is this caller's alone.
                        if !error.is_timed_out() {
                            let mut line = self.line();
                            line.gave_up = (line.gave_up.0 + 1, Some(error.clone()));
                        }
                    })?);
                }
            }
        }
    }

    pub(super) fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.current() {
            Ok(connection) => connection.session().describe(f, connection.is_connected()),
            Err(_) => f.debug_struct("Client").field("service", &self.service.name).finish_non_exhaustive(),
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
