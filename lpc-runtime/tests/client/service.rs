//! The service, and its clients.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use lpc::{AtQuota, Shared};
use tokio::runtime::Runtime;

#[lpc::service]
pub trait Scale {
    fn weigh(&self, bytes: &[u8], load: Shared<[u8]>) -> lpc::Result<u64>;
    fn add(&self, a: u64, b: u64) -> lpc::Result<u64>;
}

/// The method's number.
pub const WEIGH: u16 = 0;

pub struct Plain;

impl Scale for Plain {
    fn weigh(&self, bytes: &[u8], load: Shared<[u8]>) -> lpc::Result<u64> {
        Ok((bytes.len() + load.len()) as u64)
    }
    fn add(&self, a: u64, b: u64) -> lpc::Result<u64> {
        Ok(a + b)
    }
}

pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
});

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Blocking,
    Tokio,
}

pub const DRIVERS: [Driver; 2] = [Driver::Blocking, Driver::Tokio];

/// Bytes of shared memory that a client has for what it sends.
pub const POOL: usize = 256 << 10;

#[derive(Clone, Debug)]
pub enum Client {
    Blocking(ScaleClient),
    Tokio(ScaleAsyncClient),
}

macro_rules! built {
    ($builder:expr, $calls:expr) => {
        $builder
            .pool_limit(POOL as u64)
            .threshold(lpc::Threshold::bytes(4096))
            .max_calls_in_flight($calls)
            .at_quota(AtQuota::Wait(crate::GUARD))
    };
}

impl Client {
    pub fn connect(driver: Driver, port: &Path) -> Self {
        Self::connect_with(driver, port, 16)
    }

    /// One with so many calls in flight at most.
    pub fn connect_with(driver: Driver, port: &Path, calls: u32) -> Self {
        match driver {
            Driver::Blocking => Self::Blocking(built!(ScaleClient::builder(), calls).connect(port).unwrap()),
            Driver::Tokio => {
                let client = built!(ScaleAsyncClient::builder(), calls).connect(port);
                Self::Tokio(RUNTIME.block_on(client).unwrap())
            }
        }
    }

    pub fn with_deadline(&self, time: Duration) -> Self {
        match self {
            Self::Blocking(client) => Self::Blocking(client.with_deadline(time)),
            Self::Tokio(client) => Self::Tokio(client.with_deadline(time)),
        }
    }

    pub fn add(&self, a: u64, b: u64) -> lpc::Result<u64> {
        match self {
            Self::Blocking(client) => client.add(a, b),
            Self::Tokio(client) => RUNTIME.block_on(client.add(a, b)),
        }
    }

    pub fn weigh(&self, bytes: &[u8], load: Shared<[u8]>) -> lpc::Result<u64> {
        match self {
            Self::Blocking(client) => client.weigh(bytes, load),
            Self::Tokio(client) => RUNTIME.block_on(client.weigh(bytes, load)),
        }
    }

    pub fn loan(&self, len: usize) -> lpc::Result<Shared<[u8]>> {
        let mut loan = match self {
            Self::Blocking(client) => client.client().loan(len),
            Self::Tokio(client) => RUNTIME.block_on(client.client().loan(len)),
        }?;
        loan.fill(1);
        Ok(loan.freeze())
    }
}
