//! [`Redial`]: a client's connections, one after the other.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lpc_core::{Error, ErrorKind, Result};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::caller::{Connected, Connection, dial};
use super::timer::Timer;
use crate::child::{self, Ended};
use crate::client::reconnect::{ConnectionEvent, Dialling, Lost, Reconnect, Retries};
use crate::client::reply;
use crate::client::target::{OwnProgram, Target};
use crate::client::time_limit::TimeLimit;
use crate::config::Config;
use crate::connection::tally::Counters;
use crate::generated::{Description, Outcome, SyncEncode};
use crate::sys::fork::ForkGuard;

/// Held by clients alone: nobody dials for a client that is gone.
pub(super) struct Redial(Arc<Line>);

/// Held by the task that dials, too.
struct Line {
    /// A fork of the process takes none of the locks, which a thread that it does not have may hold.
    fork_guard: ForkGuard,
    target: Target,
    service: Description,
    config: Config,
    policy: Reconnect,
    counters: Arc<Counters>,
    /// In which the connections are: a caller's may be one that ends with the call.
    runtime: Handle,
    timer: Timer,
    state: Mutex<State>,
}

struct State {
    connection: Arc<Connected>,
    lost: Lost,
    dialler: Option<Dialler>,
    /// There is to be no other connection.
    is_closed: bool,
}

/// The task that is about to replace the connection. It is no caller's, whose deadline may be too short for
/// it.
struct Dialler {
    task: AbortHandle,
    outcome: watch::Receiver<Option<Result<()>>>,
}

impl Drop for Redial {
    fn drop(&mut self) {
        if !self.0.fork_guard.is_here() {
            return;
        }
        if let Some(dialler) = &self.0.state().dialler {
            dialler.task.abort();
        }
    }
}

impl Redial {
    /// In the runtime of the first connection.
    pub(super) fn new(
        target: Target,
        service: Description,
        config: Config,
        policy: Reconnect,
        counters: Arc<Counters>,
        connection: Connected,
    ) -> Self {
        let connection = Arc::new(connection);
        let state = Mutex::new(State { connection, lost: Lost::default(), dialler: None, is_closed: false });
        let runtime = Handle::current();
        Self(Arc::new(Line {
            fork_guard: ForkGuard::here(),
            target,
            service,
            config,
            policy,
            counters,
            runtime,
            timer: Timer::here(),
            state,
        }))
    }

    pub(super) fn counters(&self) -> &Arc<Counters> {
        &self.0.counters
    }

    /// Whether there is a connection, and no need to make one.
    pub(super) fn is_connected(&self) -> bool {
        self.current().is_ok_and(|connection| connection.is_connected())
    }

    /// Bytes of one body of arguments at most.
    pub(super) fn max_message(&self) -> u64 {
        let current = self.current();
        current.map_or(self.0.config.limits.max_message, |connection| {
            connection.session().link().limits().max_message
        })
    }

    /// Ends the connection for good.
    pub(super) fn close(&self) {
        if !self.0.fork_guard.is_here() {
            return;
        }
        let mut state = self.0.state();
        state.is_closed = true;
        let (connection, dialler) = (Arc::clone(&state.connection), state.dialler.take());
        drop(state);
        if let Some(dialler) = dialler {
            dialler.task.abort();
        }
        connection.close(reply::closed());
        self.0.end_closed();
    }

    pub(super) fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.current() {
            Ok(connection) => connection.session().describe(f, connection.is_connected()),
            Err(_) => f.debug_struct("Client").field("service", &self.0.service.name).finish_non_exhaustive(),
        }
    }

    /// The connection, be it over or not.
    fn current(&self) -> Result<Arc<Connected>> {
        self.0.fork_guard.check()?;
        Ok(Arc::clone(&self.0.state().connection))
    }

    pub(super) async fn call<R: Outcome>(
        &self,
        method: u32,
        encode: &SyncEncode<'_>,
        time: Option<Duration>,
    ) -> Result<R> {
        let limit = TimeLimit::new(time, self.current()?.session().time_of(method));
        let explain = |error| limit.explain(error, &self.0.service, method);
        let mut retries = Retries::new(&self.0.policy, &self.0.service.methods[method as usize]);
        loop {
            let connection = self.connected(limit.deadline).await.map_err(explain)?;
            match connection.call(method, encode, limit.deadline).await {
                Err(error) if !self.0.state().is_closed && retries.again(&error) => {}
                result => return result.map_err(explain),
            }
        }
    }

    /// A connection that is not over, made now if need be.
    pub(super) async fn connected(&self, deadline: Option<Instant>) -> Result<Arc<Connected>> {
        self.0.fork_guard.check()?;
        let mut outcome = {
            let mut state = self.0.state();
            if state.is_closed {
                return Err(reply::closed());
            }
            if state.connection.session().is_usable() {
                return Ok(Arc::clone(&state.connection));
            }
            // One that has ended without an outcome never has one.
            match &state.dialler {
                Some(dialler) if dialler.outcome.has_changed().is_ok() => dialler.outcome.clone(),
                _ => state.dialler.insert(Line::dialler(&self.0)).outcome.clone(),
            }
        };
        let dialled = async {
            match outcome.wait_for(Option::is_some).await {
                Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
                Err(_) if self.0.state().is_closed => Err(reply::closed()),
                Err(_) => {
                    let message = "no new connection to the server: the runtime has ended in which the client was made, \
                                   or Reconnect::on_event panicked";
                    Err(Error::new(ErrorKind::Disconnected, message))
                }
            }
        };
        let in_time = self.0.timer.within(deadline, dialled).await;
        in_time.unwrap_or_else(|| Err(self.0.state().lost.not_in_time()))?;
        self.current()
    }
}

impl Line {
    fn dialler(line: &Arc<Self>) -> Dialler {
        let (sender, outcome) = watch::channel(None);
        let line = Arc::clone(line);
        let runtime = line.runtime.clone();
        let task = runtime.spawn(async move {
            let result = line.dial().await.map(|connection| {
                let mut state = line.state();
                if state.is_closed {
                    drop(state);
                    connection.close(reply::closed());
                    line.end_closed();
                    return;
                }
                state.lost.end();
                let lost = std::mem::replace(&mut state.connection, connection);
                drop(state);
                drop(lost);
                line.policy.tell(&ConnectionEvent::Connected);
            });
            line.state().dialler = None;
            sender.send_replace(Some(result));
        });
        Dialler { task: task.abort_handle(), outcome }
    }

    async fn dial(&self) -> Result<Arc<Connected>> {
        let lost = {
            let mut state = self.state();
            let State { lost, connection, .. } = &mut *state;
            lost.note(|| connection.session().why_lost())
        };
        if let Some(lost) = lost {
            self.policy.tell(&ConnectionEvent::Lost(&lost));
        }
        let mut tries = Dialling::new(&self.policy, None);
        self.end_program(&tries).await;
        loop {
            let config = self.config.with_handshake_within(tries.left());
            match self.connect(&config).await {
                Ok(connection) => return Ok(Arc::new(connection)),
                Err(error) => {
                    self.state().lost.failed(&error);
                    tokio::time::sleep(tries.failed(error)?).await;
                }
            }
        }
    }

    /// Sees to what is left of the program whose connection was lost, and pauses where that has not lived
    /// long.
    async fn end_program(&self, tries: &Dialling<'_>) {
        let Target::Program(program) = &self.target else { return };
        let (child, pause) = program.lock().lost(&self.policy);
        if let Some(child) = child
            && let Some(ended) = child.end_later(child::PATIENCE).await
        {
            self.policy.tell(&ConnectionEvent::ChildExited(ended.status));
        }
        tokio::time::sleep(tries.left().map_or(pause, |left| left.min(pause))).await;
    }

    /// Sees to the program whose connection was closed: nobody else does, as long as there are clones. That may
    /// take a while, and the runtime may end before.
    fn end_closed(&self) {
        let Target::Program(program) = &self.target else { return };
        let Some(child) = program.lock().take_child() else { return };
        let policy = self.policy.clone();
        let end = move || {
            if let Some(ended) = child.end(child::PATIENCE) {
                policy.tell(&ConnectionEvent::ChildExited(ended.status));
            }
        };
        // Without a thread the child has been dropped, which ends it as well.
        if let Err(error) = thread::Builder::new().name("lpc-child".into()).spawn(end) {
            tracing::debug!(%error, "nobody tells how a child has ended");
        }
    }

    async fn connect(&self, config: &Config) -> Result<Connected> {
        match &self.target {
            Target::Port(port) => dial(port, self.service, config, Arc::clone(&self.counters)).await,
            Target::Program(program) => {
                let (connection, ended) =
                    start(program, self.service, config, Arc::clone(&self.counters)).await;
                if let Some(ended) = ended {
                    self.policy.tell(&ConnectionEvent::ChildExited(ended.status));
                }
                connection
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the program, and connects with it. One that does not serve is ended.
pub(super) async fn start(
    program: &OwnProgram,
    service: Description,
    config: &Config,
    counters: Arc<Counters>,
) -> (Result<Connected>, Option<Ended>) {
    let (name, started) = {
        let mut program = program.lock();
        (program.name(), program.start(config))
    };
    let (stream, child) = match started {
        Ok(started) => started,
        Err(error) => return (Err(error), None),
    };
    match Connection::connect(stream, service, config, counters).await {
        Ok(connection) => {
            connection.session().is_with(Arc::clone(child.process()));
            program.lock().serves(child);
            (Ok(connection), None)
        }
        Err(error) => {
            let ended = child.end_later(child::patience(&error)).await;
            (Err(child::failed(error, &name, ended)), ended)
        }
    }
}
