//! [`Redial`]: a client's connections, one after the other.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lpc_core::{Error, Result};

use super::caller::{Connection, dial};
use crate::child::{self, Ended};
use crate::client::reconnect::{ConnectionEvent, Dialling, Lost, Reconnect, Retries};
use crate::client::reply;
use crate::client::target::{OwnProgram, Target};
use crate::client::time_limit::TimeLimit;
use crate::config::Config;
use crate::connection::tally::Counters;
use crate::generated::{Description, Encode, Outcome};
use crate::home::Home;
use crate::sys::fork::ForkGuard;

pub(super) struct Redial {
    /// A fork of the process takes none of the locks, which a thread that it does not have may hold.
    fork_guard: ForkGuard,
    target: Target,
    service: Description,
    config: Config,
    policy: Reconnect,
    counters: Arc<Counters>,
    line: Mutex<Line>,
    /// Signalled when nobody dials any more, and when nobody is to.
    free: Condvar,
    /// Signalled when the client is closed.
    closed: Condvar,
}

struct Line {
    connection: Arc<Connection>,
    lost: Lost,
    /// A caller is about to replace it.
    is_dialling: bool,
    /// There is to be no other connection.
    is_closed: bool,
    /// How often that was given up, and why the last time: callers that waited for it do not try anew, one
    /// after the other.
    gave_up: (u64, Option<Error>),
}

impl Redial {
    pub(super) fn new(
        target: Target,
        service: Description,
        config: Config,
        policy: Reconnect,
        counters: Arc<Counters>,
        connection: Arc<Connection>,
    ) -> Self {
        let line = Line {
            connection,
            lost: Lost::default(),
            is_dialling: false,
            is_closed: false,
            gave_up: (0, None),
        };
        Self {
            fork_guard: ForkGuard::here(),
            target,
            service,
            config,
            policy,
            counters,
            line: Mutex::new(line),
            free: Condvar::new(),
            closed: Condvar::new(),
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
                Err(error) if !self.line().is_closed && retries.again(&error) => {}
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
            if line.is_closed {
                return Err(reply::closed());
            }
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
        let lost = lost.note(|| connection.session().why_lost());
        drop(line);
        let dialling = Dialled(self);
        if let Some(lost) = lost {
            self.policy.tell(&ConnectionEvent::Lost(&lost));
        }
        let mut tries = Dialling::new(&self.policy, deadline);
        self.end_program(&tries)?;
        loop {
            let config = self.config.with_handshake_within(tries.left());
            match self.dial(&config) {
                Ok(connection) => {
                    let mut line = self.line();
                    if line.is_closed {
                        drop(line);
                        connection.close(&reply::closed());
                        self.end_closed();
                        return Err(reply::closed());
                    }
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
                    let pause = tries.failed(error).inspect_err(|error| {
                        // The deadline is this caller's alone.
                        if !error.is_timed_out() {
                            let mut line = self.line();
                            line.gave_up = (line.gave_up.0 + 1, Some(error.clone()));
                        }
                    })?;
                    self.pause(pause)?;
                }
            }
        }
    }

    /// Sees to what is left of the program whose connection was lost, and pauses where that has not lived
    /// long.
    fn end_program(&self, tries: &Dialling<'_>) -> Result<()> {
        let Target::Program(program) = &self.target else { return Ok(()) };
        let (child, pause) = program.lock().lost(&self.policy);
        let patience = tries.left().map_or(child::PATIENCE, |left| left.min(child::PATIENCE));
        if let Some(ended) = child.and_then(|child| child.end(patience)) {
            self.policy.tell(&ConnectionEvent::ChildExited(ended.status));
        }
        self.pause(tries.left().map_or(pause, |left| left.min(pause)))
    }

    fn dial(&self, config: &Config) -> Result<Arc<Connection>> {
        match &self.target {
            Target::Port(port) => dial(port, self.service, config, Arc::clone(&self.counters)),
            Target::Program(program) => {
                let (connection, ended) = start(program, self.service, config, Arc::clone(&self.counters));
                if let Some(ended) = ended {
                    self.policy.tell(&ConnectionEvent::ChildExited(ended.status));
                }
                connection
            }
        }
    }

    /// Waits before the next attempt.
    fn pause(&self, time: Duration) -> Result<()> {
        let waited = self.closed.wait_timeout_while(self.line(), time, |line| !line.is_closed);
        let (line, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if line.is_closed { Err(reply::closed()) } else { Ok(()) }
    }

    /// Ends the connection for good. An attempt at another goes to its end, and comes to nothing.
    pub(super) fn close(&self) {
        if !self.fork_guard.is_here() {
            return;
        }
        let mut line = self.line();
        line.is_closed = true;
        let connection = Arc::clone(&line.connection);
        drop(line);
        self.closed.notify_all();
        self.free.notify_all();
        connection.close(&reply::closed());
        self.end_closed();
    }

    /// Sees to the program whose connection was closed: nobody else does, as long as there are clones.
    fn end_closed(&self) {
        let Target::Program(program) = &self.target else { return };
        let child = program.lock().take_child();
        if let Some(ended) = child.and_then(|child| child.end(child::PATIENCE)) {
            self.policy.tell(&ConnectionEvent::ChildExited(ended.status));
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

/// Starts the program, and connects with it. One that does not serve is ended.
pub(super) fn start(
    program: &OwnProgram,
    service: Description,
    config: &Config,
    counters: Arc<Counters>,
) -> (Result<Arc<Connection>>, Option<Ended>) {
    let (name, started) = {
        let mut program = program.lock();
        (program.name(), program.start(config))
    };
    let (stream, child) = match started {
        Ok(started) => started,
        Err(error) => return (Err(error), None),
    };
    match Connection::new(stream, service, config, counters, Home::NOWHERE) {
        Ok(connection) => {
            connection.session().is_with(Arc::clone(child.process()));
            program.lock().serves(child);
            (Ok(connection), None)
        }
        Err(error) => {
            let ended = child.end(child::patience(&error));
            (Err(child::failed(error, &name, ended)), ended)
        }
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
