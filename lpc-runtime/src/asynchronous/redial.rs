//! [`Redial`]: a client's connections, one after the other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lpc_core::{Error, ErrorKind, Result};

use super::client::{Connected, dial};
use crate::calling;
use crate::config::Config;
use crate::port::Port;
use crate::reconnect::{ConnectionEvent, Dialling, Reconnect, Retries};
use crate::service::{Description, Encoder, Outcome};
use crate::stats::Counters;

#[derive(Debug)]
pub(super) struct Redial {
    port: Port,
    service: Description,
    config: Config,
    policy: Reconnect,
    counters: Arc<Counters>,
    connection: Mutex<Arc<Connected>>,
    /// Held by who is about to replace the connection.
    dialling: tokio::sync::Mutex<()>,
}

impl Redial {
    pub(super) fn new(
        port: Port,
        service: Description,
        config: Config,
        policy: Reconnect,
        counters: Arc<Counters>,
        connection: Connected,
    ) -> Self {
        let connection = Mutex::new(Arc::new(connection));
        Self { port, service, config, policy, counters, connection, dialling: tokio::sync::Mutex::default() }
    }

    pub(super) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// The connection, be it over or not.
    pub(super) fn current(&self) -> Arc<Connected> {
        Arc::clone(&self.connection())
    }

    pub(super) async fn call<R: Outcome>(
        &self,
        method: u32,
        encode: &(impl Fn(&mut Encoder<'_>) -> Result<()> + Send),
        time: Option<Duration>,
    ) -> Result<R> {
        let deadline = calling::from_now(time.or_else(|| self.current().time_of(method)));
        let mut retries = Retries::new(&self.policy, &self.service.methods[method as usize]);
        loop {
            let connection = self.connected(deadline).await?;
            let result = connection.call(method, encode, deadline).await;
            match result {
                Err(error) if retries.again(&error) => {}
                result => return result,
            }
        }
    }

    /// A connection that is not over, made now if need be.
    pub(super) async fn connected(&self, deadline: Option<Instant>) -> Result<Arc<Connected>> {
        if let Some(connection) = self.usable() {
            return Ok(connection);
        }
        let Some(deadline) = deadline else { return self.renewed(None).await };
        tokio::time::timeout_at(deadline.into(), self.renewed(Some(deadline))).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::TimedOut, "no new connection before the call's deadline"))
        })
    }

    async fn renewed(&self, deadline: Option<Instant>) -> Result<Arc<Connected>> {
        let _dialling = self.dialling.lock().await;
        // Somebody else may have made it meanwhile.
        if let Some(connection) = self.usable() {
            return Ok(connection);
        }
        self.policy.tell(&ConnectionEvent::Lost(&self.current().why_over()));
        let mut tries = Dialling::new(&self.policy, deadline);
        loop {
            match dial(&self.port, self.service, &self.config, Arc::clone(&self.counters)).await {
                Ok(connection) => {
                    let connection = Arc::new(connection);
                    *self.connection() = Arc::clone(&connection);
                    self.policy.tell(&ConnectionEvent::Connected);
                    return Ok(connection);
                }
                Err(error) => tokio::time::sleep(tries.failed(error)?).await,
            }
        }
    }

    fn usable(&self) -> Option<Arc<Connected>> {
        Some(self.current()).filter(|connection| connection.is_usable())
    }

    fn connection(&self) -> MutexGuard<'_, Arc<Connected>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
