//! Callers of clients whose calls block: threads.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use lpc_cli::measure::{self, Samples, sum_of};

use super::peer::{Caller, Result};
use super::work::{Batch, Job, Mixed, Work};

/// A client whose calls block.
pub(crate) trait Blocking: Send + Sync {
    /// Two integers there, one back.
    fn add(&self, a: u64, b: u64) -> Result<u64>;

    /// Produces `seed`s in `own`, or in as many bytes elsewhere, has the service read them, and returns the
    /// sum that it answers.
    fn upload(&self, own: &mut [u8], seed: u8) -> Result<u64>;

    /// Has the service produce `len` bytes of `seed`, reads them here, and returns their sum.
    fn download(&self, len: usize, seed: u8) -> Result<u64>;

    /// The digest of this, from the service.
    fn mixed(&self, mixed: &Mixed) -> Result<u64>;
}

pub(crate) struct Threads<C, F> {
    connect: F,
    clients: Vec<C>,
}

impl<C: Blocking, F: Fn() -> Result<C>> Threads<C, F> {
    pub(crate) fn new(connect: F) -> Result<Self> {
        let client = connect()?;
        Ok(Self { connect, clients: vec![client] })
    }
}

impl<C: Blocking, F: Fn() -> Result<C>> Caller for Threads<C, F> {
    fn run(&mut self, Batch { job, share }: &Batch) -> Result<Samples> {
        let mut samples = Samples::default();
        match job.work {
            Work::Connect => {
                return Samples::one_by_one(*share, |seed| {
                    let client = (self.connect)()?;
                    check(client.add(u64::from(seed), 2)?, u64::from(seed) + 2)
                });
            }
            Work::Idle => {
                while self.clients.len() <= job.clients() {
                    let started = Instant::now();
                    let client = (self.connect)()?;
                    check(client.add(1, 2)?, 3)?;
                    samples.push(started.elapsed());
                    self.clients.push(client);
                }
                return Ok(samples);
            }
            _ => {}
        }
        self.clients.truncate(job.clients());
        while self.clients.len() < job.clients() {
            self.clients.push((self.connect)()?);
        }
        if job.callers() == 1 {
            return call(&self.clients[0], *job, *share);
        }
        let ready = Barrier::new(job.callers() + 1);
        thread::scope(|scope| {
            let callers: Vec<_> = (0..job.callers())
                .map(|caller| {
                    let (client, ready) = (&self.clients[caller % self.clients.len()], &ready);
                    scope.spawn(move || {
                        ready.wait();
                        call(client, *job, *share)
                    })
                })
                .collect();
            ready.wait();
            let started = Instant::now();
            let samples = callers.into_iter().map(|caller| caller.join().expect("a caller panicked"));
            let samples = samples.collect::<Result<Vec<_>>>()?;
            Ok(Samples::side_by_side(samples, started.elapsed()))
        })
    }
}

/// One caller's part of a job.
fn call<C: Blocking>(client: &C, job: Job, share: Duration) -> Result<Samples> {
    let len = job.bytes();
    match job.work {
        Work::Upload => {
            let mut own = vec![0; len];
            Samples::one_by_one(share, |seed| check(client.upload(&mut own, seed)?, sum_of(len, seed)))
        }
        Work::Download => {
            Samples::one_by_one(share, |seed| check(client.download(len, seed)?, sum_of(len, seed)))
        }
        Work::Mixed => {
            let mixed = Mixed::example();
            Samples::one_by_one(share, |_seed| check(client.mixed(&mixed)?, mixed.digest()))
        }
        _ => Samples::one_by_one(share, |seed| check(client.add(u64::from(seed), 2)?, u64::from(seed) + 2)),
    }
}

/// Whether an answer is right.
pub(crate) fn check(answer: u64, expected: u64) -> Result<()> {
    Ok(measure::check(answer, expected)?)
}
