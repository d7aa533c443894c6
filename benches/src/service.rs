//! The service under measurement, once for each driver, served by a child process.

use std::hint::spin_loop;
use std::process::Command;
use std::time::Duration;

use lpc::Threshold;
use lpc_cli::measure::sum;
use nix::time::ClockId;

pub(crate) mod blocking {
    /// The work, as blocking calls.
    #[lpc::service]
    pub(crate) trait Work {
        /// Two integers there, one back.
        fn add(&self, a: u64, b: u64) -> lpc::Result<u64>;
        /// Bytes there, every one of them read.
        fn upload(&self, bytes: &[u8]) -> lpc::Result<u64>;
        /// Bytes back, every one of them written.
        fn download(&self, len: u64, seed: u8) -> lpc::Result<Vec<u8>>;
        /// Bytes there and back.
        fn echo(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>>;
        /// Bytes that are lent, every one of them read.
        fn read(&self, bytes: lpc::Shared<[u8]>) -> lpc::Result<u64>;
        /// Nothing there, nothing back, and the CPU used for so many nanoseconds.
        fn burn(&self, ns: u64) -> lpc::Result<()>;
    }
}

pub(crate) mod asynchronous {
    /// The same as async calls.
    #[lpc::service]
    pub(crate) trait Work {
        /// Two integers there, one back.
        async fn add(&self, a: u64, b: u64) -> lpc::Result<u64>;
        /// Bytes there, every one of them read.
        async fn upload(&self, bytes: &[u8]) -> lpc::Result<u64>;
        /// Bytes back, every one of them written.
        async fn download(&self, len: u64, seed: u8) -> lpc::Result<Vec<u8>>;
        /// Bytes there and back.
        async fn echo(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>>;
        /// Bytes that are lent, every one of them read.
        async fn read(&self, bytes: lpc::Shared<[u8]>) -> lpc::Result<u64>;
        /// Nothing there, nothing back, and the CPU used for so many nanoseconds.
        async fn burn(&self, ns: u64) -> lpc::Result<()>;
    }
}

pub(crate) struct Worker;

impl blocking::Work for Worker {
    fn add(&self, a: u64, b: u64) -> lpc::Result<u64> {
        Ok(a.wrapping_add(b))
    }

    fn upload(&self, bytes: &[u8]) -> lpc::Result<u64> {
        Ok(sum(bytes))
    }

    fn download(&self, len: u64, seed: u8) -> lpc::Result<Vec<u8>> {
        Ok(vec![seed; len as usize])
    }

    fn echo(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>> {
        Ok(bytes.to_vec())
    }

    fn read(&self, bytes: lpc::Shared<[u8]>) -> lpc::Result<u64> {
        Ok(sum(&bytes))
    }

    fn burn(&self, ns: u64) -> lpc::Result<()> {
        burn(Duration::from_nanos(ns));
        Ok(())
    }
}

impl asynchronous::Work for Worker {
    async fn add(&self, a: u64, b: u64) -> lpc::Result<u64> {
        Ok(a.wrapping_add(b))
    }

    async fn upload(&self, bytes: &[u8]) -> lpc::Result<u64> {
        Ok(sum(bytes))
    }

    async fn download(&self, len: u64, seed: u8) -> lpc::Result<Vec<u8>> {
        Ok(vec![seed; len as usize])
    }

    async fn echo(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>> {
        Ok(bytes.to_vec())
    }

    async fn read(&self, bytes: lpc::Shared<[u8]>) -> lpc::Result<u64> {
        Ok(sum(&bytes))
    }

    async fn burn(&self, ns: u64) -> lpc::Result<()> {
        burn(Duration::from_nanos(ns));
        Ok(())
    }
}

/// Uses the CPU for so long; what others use it for meanwhile does not count.
pub(crate) fn burn(time: Duration) {
    let used = || ClockId::CLOCK_THREAD_CPUTIME_ID.now().map_or(Duration::MAX, Duration::from);
    let until = used().saturating_add(time);
    while used() < until {
        for _ in 0..32 {
            spin_loop();
        }
    }
}

/// Serves the parent process.
pub(crate) fn serve(tokio: bool) -> lpc::Result<()> {
    if tokio {
        runtime()?.block_on(lpc::serve_parent::<asynchronous::WorkService, _>(Worker))
    } else {
        lpc::blocking::serve_parent::<blocking::WorkService, _>(Worker)
    }
}

pub(crate) fn runtime() -> lpc::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// This program as the service's process; with its threshold in the environment.
pub(crate) fn command(tokio: bool, threshold: Threshold) -> lpc::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("serve").env("LPC_THRESHOLD", threshold.to_string());
    if tokio {
        command.arg("--tokio");
    }
    Ok(command)
}
