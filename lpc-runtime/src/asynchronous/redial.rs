//! [`Redial`]: a client's connections, one after the other.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lpc_core::{Error, ErrorKind, Result};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::caller::{Connected, dial};
use crate::client::reconnect::{ConnectionEvent, Dialling, Lost, Reconnect, Retries};
use crate::client::time_limit::TimeLimit;
use crate::config::Config;
use crate::connection::tally::Counters;
use crate::generated::{Description, Outcome, SyncEncode};
use crate::port::Port;
use crate::sys::fork::ForkGuard;

/// Held by clients alone: nobody dials for a client that is gone.
pub(super) struct Redial(Arc<Line>);

/// Held by the task that dials, too.
struct Line {
    /// A fork of the process takes none of the locks, which a thread that it does not have may hold.
    fork_guard: ForkGuard,
    port: Port,
    service: Description,
    config: Config,
    policy: Reconnect,
    counters: Arc<Counters>,
    /// In which the connections are: a caller's may be one that ends with the call.
    runtime: Handle,
    state: Mutex<State>,
}

struct State {
    connection: Arc<Connected>,
    lost: Lost,
    dialler: Option<Dialler>,
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
        port: Port,
        service: Description,
        config: Config,
        policy: Reconnect,
        counters: Arc<Counters>,
        connection: Connected,
    ) -> Self {
        let connection = Arc::new(connection);
        let state = Mutex::new(State { connection, lost: Lost::default(), dialler: None });
        let runtime = Handle::current();
        Self(Arc::new(Line {
            fork_guard: ForkGuard::here(),
            port,
            service,
            config,
            policy,
            counters,
            runtime,
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
                Err(error) if retries.again(&error) => {}
                result => return result.map_err(explain),
            }
        }
    }

    /// A connection that is not over, made now if need be.
    pub(super) async fn connected(&self, deadline: Option<Instant>) -> Result<Arc<Connected>> {
        self.0.fork_guard.check()?;
        let mut outcome = {
            let mut state = self.0.state();
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
                Err(_) => {
                    let message = "no new connection to the server: the runtime has ended in which the client was made, \
                                   or Reconnect::on_event panicked";
                    Err(Error::new(ErrorKind::Disconnected, message))
                }
            }
        };
        match deadline {
            None => dialled.await?,
            Some(deadline) => {
                let in_time = tokio::time::timeout_at(deadline.into(), dialled).await;
                in_time.unwrap_or_else(|_| Err(self.0.state().lost.not_in_time()))?;
            }
        }
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
            lost.note(|| connection.session().why_closed())
        };
        if let Some(lost) = lost {
            self.policy.tell(&ConnectionEvent::Lost(&lost));
        }
        let mut tries = Dialling::new(&self.policy, None);
        loop {
            let config = self.config.with_handshake_within(tries.left());
            match dial(&self.port, self.service, &config, Arc::clone(&self.counters)).await {
                Ok(connection) => return Ok(Arc::new(connection)),
                Err(error) => {
                    self.state().lost.failed(&error);
                    tokio::time::sleep(tries.failed(error)?).await;
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
