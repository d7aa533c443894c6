//! The peers: what does the work.

use std::error::Error;
use std::path::Path;

use lpc_cli::measure::Samples;

use super::work::{Batch, Job};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A way to call another process.
pub(crate) trait Peer: Sync {
    /// What it is called, in tables and on the command line.
    fn name(&self) -> &str;

    /// Whether it does this.
    fn does(&self, job: Job) -> bool;

    /// Is the service's process: serves clients at `place`, a path that is free, until it is killed.
    fn serve(&self, place: &Path) -> Result<()>;

    /// Connects a client here to the service at `place`.
    fn connect(&self, place: &Path) -> Result<Box<dyn Caller>>;

    /// Whether the service uses the CPU while nobody calls.
    fn polls(&self) -> bool {
        false
    }
}

/// A client, and its callers.
pub(crate) trait Caller {
    /// Does a job for a time. Every answer is checked.
    fn run(&mut self, batch: &Batch) -> Result<Samples>;
}
