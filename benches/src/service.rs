//! The service under measurement, once for each driver, served by a child process.

use std::process::{Child, Command};

use lpc::Threshold;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

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
}

/// Reads every byte, eight at a time. Never inlined, so that it is the same code wherever it is measured.
#[inline(never)]
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().fold(0_u64, |sum, word| sum.wrapping_add(u64::from_ne_bytes(*word)));
    rest.iter().fold(words, |sum, byte| sum.wrapping_add(u64::from(*byte)))
}

/// Serves the parent process.
pub(crate) fn serve(tokio: bool, cpu: Option<usize>) -> lpc::Result<()> {
    if let Some(cpu) = cpu {
        pin(cpu)?;
    }
    if tokio {
        runtime()?.block_on(lpc::serve_parent::<asynchronous::WorkService, _>(Worker))
    } else {
        lpc::blocking::serve_parent::<blocking::WorkService, _>(Worker)
    }
}

/// Where the two processes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Pinning {
    Together,
    Apart,
    Free,
}

impl Pinning {
    /// The CPU of the service's process. The caller's is 0, where it has one.
    pub(crate) fn service_cpu(self) -> Option<usize> {
        match self {
            Self::Together => Some(0),
            Self::Apart => Some(1),
            Self::Free => None,
        }
    }

    /// Pins the caller.
    pub(crate) fn pin_caller(self) -> lpc::Result<()> {
        if self == Self::Free { Ok(()) } else { pin(0) }
    }
}

/// Keeps this thread, and those that it starts, on one CPU.
pub(crate) fn pin(cpu: usize) -> lpc::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)).map_err(std::io::Error::from)?;
    Ok(())
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

/// A child process that serves, until it is dropped.
pub(crate) struct Serving(pub(crate) Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
