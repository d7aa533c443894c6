//! The service that the behaviours are about.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The implementation's own error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProbeError {
    Refused { reason: String },
    Lpc(String),
}

impl From<lpc::Error> for ProbeError {
    fn from(error: lpc::Error) -> Self {
        Self::Lpc(format!("{:?}: {error}", error.kind()))
    }
}

pub mod blocking {
    use super::ProbeError;

    #[lpc::service]
    pub trait Probe {
        fn echo(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>>;
        fn sum(&self, numbers: &[u64], text: &str) -> lpc::Result<(u64, String)>;
        fn refuse(&self, reason: &str) -> Result<(), ProbeError>;
        fn relay(&self, text: &str) -> lpc::Result<()>;
        fn panic(&self, text: &str) -> lpc::Result<()>;
        fn make(&self, len: u64) -> lpc::Result<Vec<u8>>;
        /// Returns once `open` was called with the same key.
        fn wait(&self, key: u64) -> lpc::Result<()>;
        fn open(&self, key: u64) -> lpc::Result<()>;
        fn most_at_once(&self) -> lpc::Result<u64>;
        fn nap(&self, millis: u64) -> lpc::Result<()>;
        #[lpc(threshold = "off")]
        fn echo_by_socket(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>>;
        #[lpc(threshold = "always")]
        fn echo_by_mapping(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>>;
    }
}

pub mod asynchronous {
    use super::ProbeError;

    /// The same service by name and methods: any client of one is a client of the other.
    #[lpc::service]
    pub trait Probe {
        async fn echo(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>>;
        async fn sum(&self, numbers: &[u64], text: &str) -> lpc::Result<(u64, String)>;
        async fn refuse(&self, reason: &str) -> Result<(), ProbeError>;
        async fn relay(&self, text: &str) -> lpc::Result<()>;
        async fn panic(&self, text: &str) -> lpc::Result<()>;
        async fn make(&self, len: u64) -> lpc::Result<Vec<u8>>;
        async fn wait(&self, key: u64) -> lpc::Result<()>;
        async fn open(&self, key: u64) -> lpc::Result<()>;
        async fn most_at_once(&self) -> lpc::Result<u64>;
        async fn nap(&self, millis: u64) -> lpc::Result<()>;
        #[lpc(threshold = "off")]
        async fn echo_by_socket(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>>;
        #[lpc(threshold = "always")]
        async fn echo_by_mapping(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>>;
    }
}

/// What both implementations share.
#[derive(Default)]
pub struct Implementation {
    opened: Mutex<HashSet<u64>>,
    changed: Condvar,
    notify: tokio::sync::Notify,
    running: AtomicUsize,
    most: AtomicUsize,
    /// Calls of `nap` that began.
    pub naps: AtomicUsize,
}

/// Counts a call as running.
struct Running<'a>(&'a Implementation);

impl<'a> Running<'a> {
    fn new(probe: &'a Implementation) -> Self {
        let now = probe.running.fetch_add(1, SeqCst) + 1;
        probe.most.fetch_max(now, SeqCst);
        probe.naps.fetch_add(1, SeqCst);
        Self(probe)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

impl Implementation {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn open_now(&self, key: u64) {
        self.opened.lock().unwrap().insert(key);
        self.changed.notify_all();
        self.notify.notify_waiters();
    }

    fn sum_of(numbers: &[u64], text: &str) -> (u64, String) {
        (numbers.iter().fold(0, |sum, number| sum.wrapping_add(*number)), text.to_uppercase())
    }

    fn made(len: u64) -> Vec<u8> {
        (0..len).map(|at| (at % 251) as u8).collect()
    }
}

impl blocking::Probe for Implementation {
    fn echo(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>> {
        Ok(bytes.to_vec())
    }
    fn sum(&self, numbers: &[u64], text: &str) -> lpc::Result<(u64, String)> {
        Ok(Self::sum_of(numbers, text))
    }
    fn refuse(&self, reason: &str) -> Result<(), ProbeError> {
        Err(ProbeError::Refused { reason: reason.to_owned() })
    }
    fn relay(&self, text: &str) -> lpc::Result<()> {
        Err(lpc::Error::other(text))
    }
    fn panic(&self, text: &str) -> lpc::Result<()> {
        std::panic::panic_any(text.to_owned())
    }
    fn make(&self, len: u64) -> lpc::Result<Vec<u8>> {
        Ok(Self::made(len))
    }
    fn wait(&self, key: u64) -> lpc::Result<()> {
        let mut opened = self.opened.lock().unwrap();
        while !opened.contains(&key) {
            opened = self.changed.wait(opened).unwrap();
        }
        Ok(())
    }
    fn open(&self, key: u64) -> lpc::Result<()> {
        self.open_now(key);
        Ok(())
    }
    fn most_at_once(&self) -> lpc::Result<u64> {
        Ok(self.most.load(SeqCst) as u64)
    }
    fn nap(&self, millis: u64) -> lpc::Result<()> {
        let _running = Running::new(self);
        std::thread::sleep(Duration::from_millis(millis));
        Ok(())
    }
    fn echo_by_socket(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>> {
        Ok(bytes.to_vec())
    }
    fn echo_by_mapping(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>> {
        Ok(bytes.to_vec())
    }
}

impl asynchronous::Probe for Implementation {
    async fn echo(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>> {
        Ok(bytes.to_vec())
    }
    async fn sum(&self, numbers: &[u64], text: &str) -> lpc::Result<(u64, String)> {
        Ok(Self::sum_of(numbers, text))
    }
    async fn refuse(&self, reason: &str) -> Result<(), ProbeError> {
        Err(ProbeError::Refused { reason: reason.to_owned() })
    }
    async fn relay(&self, text: &str) -> lpc::Result<()> {
        Err(lpc::Error::other(text))
    }
    async fn panic(&self, text: &str) -> lpc::Result<()> {
        tokio::task::yield_now().await;
        std::panic::panic_any(text.to_owned())
    }
    async fn make(&self, len: u64) -> lpc::Result<Vec<u8>> {
        Ok(Self::made(len))
    }
    async fn wait(&self, key: u64) -> lpc::Result<()> {
        loop {
            let notified = self.notify.notified();
            if self.opened.lock().unwrap().contains(&key) {
                return Ok(());
            }
            notified.await;
        }
    }
    async fn open(&self, key: u64) -> lpc::Result<()> {
        self.open_now(key);
        Ok(())
    }
    async fn most_at_once(&self) -> lpc::Result<u64> {
        Ok(self.most.load(SeqCst) as u64)
    }
    async fn nap(&self, millis: u64) -> lpc::Result<()> {
        let _running = Running::new(self);
        tokio::time::sleep(Duration::from_millis(millis)).await;
        Ok(())
    }
    async fn echo_by_socket(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>> {
        Ok(bytes.to_vec())
    }
    async fn echo_by_mapping(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>> {
        Ok(bytes.to_vec())
    }
}
