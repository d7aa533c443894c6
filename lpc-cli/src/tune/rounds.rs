//! Measuring: all ways in turn, round after round.

use std::panic::resume_unwind;
use std::process::Command;
use std::thread;
use std::time::Duration;

use indicatif::ProgressBar;
use lpc_cli::measure::{Pinning, Record, Samples, pin, sum_of};

use super::carrier::Opened;
use super::lanes;
use super::route::Route;
use crate::Result;

/// What is measured, and for how long.
pub(super) struct Plan<'a> {
    pub(super) routes: Vec<Route>,
    pub(super) sizes: &'a [u64],
    pub(super) rounds: u32,
    /// How long one way is measured at one size in one round, if not for a single call.
    pub(super) share: Duration,
}

impl Plan<'_> {
    /// Steps of the progress bar for one pinning.
    pub(super) fn steps(&self) -> u64 {
        self.routes.len() as u64 * self.sizes.len() as u64 * u64::from(self.rounds)
    }
}

/// What one way cost at one size in one round.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) route: Route,
    pub(super) record: Record,
}

/// A way, and the processes on both ends of it.
struct Running {
    route: Route,
    opened: Opened,
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
        let measuring = scope.spawn(|| measure_here(plan, pinning, cpus, bar, sink));
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
    if let Some(cpu) = own_cpu {
        pin(cpu).map_err(|error| format!("cannot run on CPU {cpu}: {error}"))?;
    }
    let mut running = Vec::new();
    for route in &plan.routes {
        let mut command = serve_lane(*route, service_cpu)?;
        let opened = lanes::open(*route, &mut command)
            .map_err(|error| format!("cannot start the service of {}: {error}", route.peer()))?;
        running.push(Running { route: *route, opened });
    }
    for round in 1..=plan.rounds {
        for size in plan.sizes {
            for way in &mut running {
                let Route { bodies, .. } = way.route;
                bar.set_message(format!("{bodies}, {}", way.route.peer()));
                let record = way
                    .measure(*size, plan.share, pinning, round)
                    .map_err(|error| format!("{bodies}, {}, {size} bytes: {error}", way.route.peer()))?;
                sink(Sample { route: way.route, record })?;
                bar.inc(1);
            }
        }
    }
    running.iter().try_for_each(|way| way.opened.carrier.check())
}

/// This program as the service of a route.
fn serve_lane(route: Route, cpu: Option<usize>) -> Result<Command> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let mut command = Command::new(program);
    let Route { bodies, receiver, lane } = route;
    command.arg("serve-lane").args([
        format!("--bodies={bodies}"),
        format!("--receiver={receiver}"),
        format!("--lane={lane}"),
    ]);
    command.args(cpu.map(|cpu| format!("--cpu={cpu}")));
    Ok(command)
}

impl Running {
    fn measure(&mut self, size: u64, share: Duration, pinning: Pinning, round: u32) -> Result<Record> {
        let Opened { carrier, service } = &mut self.opened;
        let mut own = vec![0; usize::try_from(size)?];
        let mut calls = |share| {
            Samples::one_by_one(share, |seed| {
                Ok::<_, crate::Failure>((carrier.carry(&mut own, seed)?, sum_of(own.len(), seed)))
            })
        };
        // Whatever ran last has put other memory into the caches.
        calls(share / 8)?;
        let (mut samples, cpu_ns) = service.observe(|| calls(share))?;
        let [p50_ns, p99_ns] = samples.quantiles([0.5, 0.99]).ok_or("no call was made")?;
        Ok(Record {
            work: self.route.bodies.work().to_owned(),
            peer: self.route.peer().to_owned(),
            pinning,
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
