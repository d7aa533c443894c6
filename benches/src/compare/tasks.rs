//! Callers of clients whose calls are futures: tasks of a tokio runtime.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lpc_cli::measure::{Samples, Seeds, sum_of};
use tokio::runtime::{Builder, Runtime};

use super::peer::{Caller, Result};
use super::threads::check;
use super::work::{Batch, Job, Mixed, Work};

/// A client whose calls are futures.
pub(crate) trait Async: Send + Sync + 'static {
    /// Two integers there, one back.
    fn add(&self, a: u64, b: u64) -> impl Future<Output = Result<u64>> + Send;

    /// Produces `seed`s in `own`, or in as many bytes elsewhere, has the service read them, and returns the
    /// sum that it answers.
    fn upload(&self, own: &mut [u8], seed: u8) -> impl Future<Output = Result<u64>> + Send;

    /// Has the service produce `len` bytes of `seed`, reads them here, and returns their sum.
    fn download(&self, len: usize, seed: u8) -> impl Future<Output = Result<u64>> + Send;

    /// The digest of this, from the service.
    fn mixed(&self, mixed: &Mixed) -> impl Future<Output = Result<u64>> + Send;
}

/// Which runtime the two processes have, each its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    CurrentThread,
    MultiThread,
}

impl Flavour {
    pub(crate) fn runtime(self) -> Result<Runtime> {
        let mut builder = match self {
            Self::CurrentThread => Builder::new_current_thread(),
            Self::MultiThread => Builder::new_multi_thread(),
        };
        Ok(builder.worker_threads(2).enable_all().build()?)
    }
}

pub(crate) struct Tasks<C, F> {
    connect: Arc<F>,
    clients: Vec<Arc<C>>,
    runtime: Runtime,
}

impl<C, F, R> Tasks<C, F>
where
    C: Async,
    F: Fn() -> R + Send + Sync + 'static,
    R: Future<Output = Result<C>> + Send,
{
    pub(crate) fn new(flavour: Flavour, connect: F) -> Result<Self> {
        let runtime = flavour.runtime()?;
        let client = runtime.block_on(connect())?;
        Ok(Self { connect: Arc::new(connect), clients: vec![Arc::new(client)], runtime })
    }
}

impl<C, F, R> Caller for Tasks<C, F>
where
    C: Async,
    F: Fn() -> R + Send + Sync + 'static,
    R: Future<Output = Result<C>> + Send,
{
    fn run(&mut self, Batch { job, share }: &Batch) -> Result<Samples> {
        let (connect, job, share) = (Arc::clone(&self.connect), *job, *share);
        match job.work {
            // Each as a task, as a program's calls are: what `block_on` is given runs beside the workers.
            Work::Connect => self.runtime.block_on(self.runtime.spawn(async move {
                let mut samples = Samples::default();
                let begin = Instant::now();
                while samples.is_empty() || begin.elapsed() < share {
                    let started = Instant::now();
                    let client = connect().await?;
                    check(client.add(1, 2).await?, 3)?;
                    samples.push(started.elapsed());
                }
                Ok(samples)
            }))?,
            Work::Idle => {
                let (samples, clients) = self.runtime.block_on(self.runtime.spawn(async move {
                    let (mut samples, mut clients) = (Samples::default(), Vec::new());
                    while clients.len() < job.clients() {
                        let started = Instant::now();
                        let client = connect().await?;
                        check(client.add(1, 2).await?, 3)?;
                        samples.push(started.elapsed());
                        clients.push(Arc::new(client));
                    }
                    Ok::<_, Box<dyn std::error::Error + Send + Sync>>((samples, clients))
                }))??;
                self.clients.extend(clients);
                Ok(samples)
            }
            _ => {
                self.clients.truncate(job.clients());
                while self.clients.len() < job.clients() {
                    self.clients.push(Arc::new(self.runtime.block_on(connect())?));
                }
                let started = Instant::now();
                let callers: Vec<_> = (0..job.callers())
                    .map(|caller| Arc::clone(&self.clients[caller % self.clients.len()]))
                    .map(|client| self.runtime.spawn(call(client, job, share)))
                    .collect();
                let mut samples = Vec::new();
                for caller in callers {
                    samples.push(self.runtime.block_on(caller)??);
                }
                if let [_] = &samples[..] {
                    return Ok(samples.remove(0));
                }
                Ok(Samples::side_by_side(samples, started.elapsed()))
            }
        }
    }
}

/// One caller's part of a job.
async fn call<C: Async>(client: Arc<C>, job: Job, share: Duration) -> Result<Samples> {
    let len = job.bytes();
    let mut own = vec![0; if job.work == Work::Upload { len } else { 0 }];
    let mixed = Mixed::example();
    let mut samples = Samples::default();
    let begin = Instant::now();
    let mut started = begin;
    for seed in Seeds::default() {
        match job.work {
            Work::Upload => check(client.upload(&mut own, seed).await?, sum_of(len, seed))?,
            Work::Download => check(client.download(len, seed).await?, sum_of(len, seed))?,
            Work::Mixed => check(client.mixed(&mixed).await?, mixed.digest())?,
            _ => check(client.add(u64::from(seed), 2).await?, u64::from(seed) + 2)?,
        }
        let now = Instant::now();
        samples.push(now - started);
        if now - begin >= share {
            break;
        }
        started = now;
    }
    Ok(samples)
}
