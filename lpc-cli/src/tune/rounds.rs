//! Measuring: all ways in turn, round after round.

use std::io;
use std::panic::resume_unwind;
use std::process::Command;
use std::thread;
use std::time::Duration;

use indicatif::ProgressBar;
use lpc_cli::measure::{Pinning, Record, Samples, check, sum_of};

use super::carrier::Opened;
use super::lanes;
use super::mechanisms::{Limit, Mechanism};
use super::route::{Bodies, Route};
use super::stay_on;
use crate::{Result, say};

/// What is measured, and for how long.
pub(super) struct Plan<'a> {
    pub(super) ways: Vec<Way>,
    pub(super) sizes: &'a [u64],
    pub(super) rounds: u32,
    /// How long one way is measured at one size in one round, if not for a single call.
    pub(super) share: Duration,
}

impl Plan<'_> {
    /// Steps of the progress bar for one pinning.
    pub(super) fn steps(&self) -> u64 {
        self.ways.len() as u64 * self.sizes.len() as u64 * u64::from(self.rounds)
    }
}

/// A way for bodies.
#[derive(Clone, Copy)]
pub(super) enum Way {
    Lpc(Route),
    /// Of the system, for requests.
    Other(&'static dyn Mechanism),
}

impl Way {
    fn bodies(self) -> Bodies {
        match self {
            Self::Lpc(route) => route.bodies,
            Self::Other(_) => Bodies::Requests,
        }
    }

    /// What it is called in records.
    pub(super) fn peer(self) -> &'static str {
        match self {
            Self::Lpc(route) => route.peer(),
            Self::Other(mechanism) => mechanism.name(),
        }
    }

    pub(super) fn limit(self) -> io::Result<Option<Limit>> {
        match self {
            Self::Lpc(_) => Ok(None),
            Self::Other(mechanism) => mechanism.limit(),
        }
    }

    /// Starts the other process; no body will be larger than `largest`.
    fn open(self, cpu: Option<usize>, largest: u64) -> Result<Opened> {
        let mut command = Command::new(std::env::current_exe()?);
        match self {
            Self::Lpc(Route { bodies, receiver, lane }) => command.args([
                "serve-lane".to_owned(),
                format!("--bodies={bodies}"),
                format!("--receiver={receiver}"),
                format!("--lane={lane}"),
            ]),
            Self::Other(mechanism) => command.args([
                "serve-mechanism".to_owned(),
                format!("--name={}", mechanism.name()),
                format!("--largest={largest}"),
            ]),
        };
        command.args(cpu.map(|cpu| format!("--cpu={cpu}")));
        match self {
            Self::Lpc(route) => lanes::open(route, &mut command),
            Self::Other(mechanism) => mechanism.open(&mut command, usize::try_from(largest)?),
        }
    }
}

/// What one way cost at one size in one round.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) way: Way,
    pub(super) record: Record,
}

/// A way, and the processes on both ends of it.
struct Running {
    way: Way,
    opened: Opened,
    /// The largest body that it carries.
    largest: u64,
}

/// Measures in a thread of its own, which alone is pinned. Each sample is given to `sink`.
pub(super) fn measure(
    plan: &Plan<'_>,
    pinning: Pinning,
    cpus: [Option<usize>; 2],
    bar: &ProgressBar,
    sink: &mut (dyn FnMut(Sample) -> Result<()> + Send),
) -> Result<()> {
    thread::scope(|scope| {
        let measuring =
            thread::Builder::new().spawn_scoped(scope, || measure_here(plan, pinning, cpus, bar, sink))?;
        measuring.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

fn measure_here(
    plan: &Plan<'_>,
    pinning: Pinning,
    [own_cpu, service_cpu]: [Option<usize>; 2],
    bar: &ProgressBar,
    sink: &mut dyn FnMut(Sample) -> Result<()>,
) -> Result<()> {
    stay_on(own_cpu)?;
    let mut running = Vec::new();
    let largest = plan.sizes.iter().copied().max().unwrap_or_default();
    for way in &plan.ways {
        let opened = way.limit().map_err(crate::Failure::from).and_then(|limit| {
            let largest = limit.map_or(largest, |limit| limit.bytes.min(largest));
            Ok(Running { way: *way, opened: way.open(service_cpu, largest)?, largest })
        });
        running.extend(passed_over(bar, *way, opened)?);
    }
    for round in 1..=plan.rounds {
        for size in plan.sizes {
            let mut still = Vec::with_capacity(running.len());
            for mut one in running {
                bar.set_message(format!("{}, {}", one.way.bodies(), one.way.peer()));
                if *size > one.largest {
                    still.push(one);
                } else if let Some(record) =
                    passed_over(bar, one.way, one.measure(*size, plan.share, pinning, round))?
                {
                    sink(Sample { way: one.way, record })?;
                    still.push(one);
                }
                bar.inc(1);
            }
            running = still;
        }
    }
    running.iter().try_for_each(|one| one.opened.carrier.check())
}

/// A way of the system's that fails is left out from then on, with a word about it: it may be missing here.
/// One of lpc's ends all.
fn passed_over<T>(bar: &ProgressBar, way: Way, done: Result<T>) -> Result<Option<T>> {
    match (done, way) {
        (Ok(done), _) => Ok(Some(done)),
        (Err(error), Way::Other(mechanism)) => {
            bar.suspend(|| say(&format!("{}: left out: {error}", mechanism.name())));
            Ok(None)
        }
        (Err(error), Way::Lpc(route)) => Err(format!("{}, {}: {error}", route.bodies, route.peer()).into()),
    }
}

impl Running {
    fn measure(&mut self, size: u64, share: Duration, pinning: Pinning, round: u32) -> Result<Record> {
        let Opened { carrier, service } = &mut self.opened;
        let mut own = vec![0; usize::try_from(size)?];
        let mut calls = |share| {
            Samples::one_by_one(share, |seed| {
                Ok::<_, crate::Failure>(check(carrier.carry(&mut own, seed)?, sum_of(own.len(), seed))?)
            })
        };
        // Whatever ran last has put other memory into the caches.
        calls(share / 8)?;
        let (mut samples, cpu_ns) = service.observe(|| calls(share))?;
        let [p50_ns, p99_ns] = samples.quantiles([0.5, 0.99]).ok_or("no call was made")?;
        Ok(Record {
            work: self.way.bodies().work().to_owned(),
            peer: self.way.peer().to_owned(),
            pinning,
            hogs: 0,
            size,
            p50_ns,
            p99_ns,
            per_s: samples.per_second(),
            cpu_ns,
            rss_kib: service.resident_kib()?,
            round,
        })
    }
}
