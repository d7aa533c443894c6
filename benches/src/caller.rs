//! Clients of a [`server`](crate::server), and what they call.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use lpc_cli::measure::{Samples, check, sum};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::service::blocking::{Work as _, WorkClient};
use crate::service::{asynchronous, burn};
use crate::setup::{Setup, configured};

/// What one caller does, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) call: Call,
    pub(crate) think: Think,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Call {
    /// Two integers there, one back.
    Add,
    /// One whose implementation uses the CPU for so long.
    Burn(Duration),
    /// So many bytes there.
    Upload(usize),
}

/// What a caller does between two calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Think {
    Nothing,
    /// It uses the CPU for so long.
    Busy(Duration),
    /// It sleeps for so long.
    Asleep(Duration),
}

impl Job {
    pub(crate) const fn of(call: Call) -> Self {
        Self { call, think: Think::Nothing }
    }

    /// The CPU time of each call and what is before the next that is not spent on calling.
    pub(crate) fn own_cpu(self) -> Duration {
        let handler = if let Call::Burn(time) = self.call { time } else { Duration::ZERO };
        let think = if let Think::Busy(time) = self.think { time } else { Duration::ZERO };
        handler + think
    }

    fn body(self) -> Vec<u8> {
        vec![1; if let Call::Upload(len) = self.call { len } else { 0 }]
    }
}

/// What callers have done.
pub(crate) struct Done {
    callers: Vec<Samples>,
    elapsed: Duration,
}

impl Done {
    /// What was done side by side.
    pub(crate) fn all(done: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Self { callers: Vec::new(), elapsed: Duration::ZERO };
        for done in done {
            all.callers.extend(done.callers);
            all.elapsed = all.elapsed.max(done.elapsed);
        }
        all
    }

    /// Calls a second, of all callers. Where they think, that is not counted.
    pub(crate) fn per_second(&self, job: Job) -> f64 {
        if job.think == Think::Nothing {
            let calls: usize = self.callers.iter().map(Samples::len).sum();
            return calls as f64 / self.elapsed.as_secs_f64().max(1e-9);
        }
        self.callers.iter().map(Samples::per_second).sum()
    }

    /// All calls.
    pub(crate) fn samples(self) -> Samples {
        Samples::side_by_side(self.callers, self.elapsed)
    }
}

/// Clients of one server.
pub(crate) enum Clients {
    Threads(Vec<Arc<WorkClient>>),
    Tasks(Vec<Arc<asynchronous::WorkClient>>, Runtime),
}

impl Clients {
    /// Connects so many, and makes a call on each.
    pub(crate) fn connect(port: &Path, setup: Setup, count: usize) -> lpc::Result<Self> {
        let Some(runtime) = setup.runtime()? else {
            let client = || {
                let client = configured!(WorkClient::builder(), setup).connect(port)?;
                check(client.add(1, 2)?, 3)?;
                Ok(Arc::new(client))
            };
            return Ok(Self::Threads((0..count).map(|_| client()).collect::<lpc::Result<_>>()?));
        };
        let port = PathBuf::from(port);
        let clients = runtime.spawn(async move {
            use asynchronous::{Work, WorkClient};
            let mut clients = Vec::new();
            while clients.len() < count {
                let client = configured!(WorkClient::builder(), setup).connect(&port).await?;
                check(client.add(1, 2).await?, 3)?;
                clients.push(Arc::new(client));
            }
            Ok::<_, lpc::Error>(clients)
        });
        let clients = runtime.block_on(clients).map_err(lpc::Error::other)??;
        Ok(Self::Tasks(clients, runtime))
    }

    /// Does what blocks while tasks of these clients have their turns.
    pub(crate) fn meanwhile<T: Send + 'static>(
        &self,
        blocks: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> lpc::Result<T> {
        match self {
            Self::Threads(_) => Ok(blocks()?),
            Self::Tasks(_, runtime) => {
                Ok(runtime.block_on(runtime.spawn_blocking(blocks)).map_err(lpc::Error::other)??)
            }
        }
    }

    /// Has `callers` threads or tasks do the job side by side for at least `share`, in turn on these clients.
    pub(crate) fn run(&self, job: Job, callers: usize, share: Duration) -> lpc::Result<Done> {
        let started = Instant::now();
        let callers = self.run_each(job, callers, share)?;
        Ok(Done { callers, elapsed: started.elapsed() })
    }

    fn run_each(&self, job: Job, callers: usize, share: Duration) -> lpc::Result<Vec<Samples>> {
        match self {
            Self::Threads(clients) => {
                let ready = Barrier::new(callers);
                thread::scope(|scope| {
                    let callers: Vec<_> = (0..callers)
                        .map(|caller| {
                            let (client, ready) = (&clients[caller % clients.len()], &ready);
                            scope.spawn(move || {
                                ready.wait();
                                call(client, job, share)
                            })
                        })
                        .collect();
                    callers.into_iter().map(|caller| caller.join().expect("a caller panicked")).collect()
                })
            }
            Self::Tasks(clients, runtime) => {
                let client = |caller: usize| Arc::clone(&clients[caller % clients.len()]);
                let callers: Vec<_> = (0..callers)
                    .map(|caller| runtime.spawn(call_async(client(caller), job, share)))
                    .collect();
                runtime.block_on(async {
                    let mut samples = Vec::new();
                    for caller in callers {
                        samples.push(caller.await.map_err(lpc::Error::other)??);
                    }
                    Ok(samples)
                })
            }
        }
    }

    /// One call of each client, one after the other.
    pub(crate) fn each(&self, job: Job) -> lpc::Result<Done> {
        let started = Instant::now();
        let callers: lpc::Result<_> = match self {
            Self::Threads(clients) => {
                clients.iter().map(|client| call(client, job, Duration::ZERO)).collect()
            }
            Self::Tasks(clients, runtime) => clients
                .iter()
                .map(|client| {
                    let called = runtime.spawn(call_async(Arc::clone(client), job, Duration::ZERO));
                    runtime.block_on(called).map_err(lpc::Error::other)?
                })
                .collect(),
        };
        Ok(Done { callers: callers?, elapsed: started.elapsed() })
    }
}

fn call(client: &WorkClient, job: Job, share: Duration) -> lpc::Result<Samples> {
    let body = job.body();
    let sum = sum(&body);
    let mut samples = Samples::default();
    let begin = Instant::now();
    loop {
        let started = Instant::now();
        match job.call {
            Call::Add => check(client.add(samples.len() as u64, 2)?, samples.len() as u64 + 2)?,
            Call::Burn(time) => client.burn(time.as_nanos() as u64)?,
            Call::Upload(_) => check(client.upload(&body)?, sum)?,
        }
        samples.push(started.elapsed());
        if begin.elapsed() >= share {
            return Ok(samples);
        }
        match job.think {
            Think::Nothing => {}
            Think::Busy(time) => burn(time),
            Think::Asleep(time) => thread::sleep(time),
        }
    }
}

async fn call_async(
    client: Arc<asynchronous::WorkClient>,
    job: Job,
    share: Duration,
) -> lpc::Result<Samples> {
    use asynchronous::Work;
    let body = job.body();
    let sum = sum(&body);
    let mut samples = Samples::default();
    let begin = Instant::now();
    loop {
        let started = Instant::now();
        match job.call {
            Call::Add => check(client.add(samples.len() as u64, 2).await?, samples.len() as u64 + 2)?,
            Call::Burn(time) => client.burn(time.as_nanos() as u64).await?,
            Call::Upload(_) => check(client.upload(&body).await?, sum)?,
        }
        samples.push(started.elapsed());
        if begin.elapsed() >= share {
            return Ok(samples);
        }
        match job.think {
            Think::Nothing => {}
            Think::Busy(time) => burn(time),
            Think::Asleep(time) => tokio::time::sleep(time).await,
        }
    }
}
