//! Which threshold between the lanes suits this machine.
//!
//! # Layout
//!
//! - `route`: what is measured of lpc. `lanes`, `trust`: how.
//! - `carrier`: what carries bodies to another process. `mechanisms`: those of the system.
//! - `rounds`: measuring, in interleaved rounds.
//! - `curve`: where the costs of the two lanes cross.
//! - `advice`: which threshold to set.
//! - `report`: what is printed.
//! - `sketch`, `picture`: cost against size, drawn in the terminal and into a file.

mod advice;
mod carrier;
mod curve;
mod lanes;
mod mechanisms;
mod picture;
mod report;
mod rounds;
mod route;
mod sketch;
mod trust;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use lpc_cli::measure::{Pinning, Sizes, firsts, pin, png};

use self::advice::Comparison;
use self::rounds::{Plan, Sample, Way};
use self::route::{Bodies, Lane, Receiver, Route};
use crate::{Result, print, say};

/// Finds the threshold that suits this machine: measures both lanes between two processes
///
/// Bodies of each size travel between this process and another one, on the socket lane and on the mapping
/// lane; every byte is written on one side and read on the other. The report has the cost of each lane by
/// size, the crossover (the size from which on the mapping lane wins), and the threshold that is never far
/// from the better lane, wherever the two processes run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The first and the last of sizes each twice the one before; units are B, KiB, MiB and GiB
    #[arg(long, value_name = "FROM..TO", default_value = "256B..1MiB", value_parser = sizes)]
    sizes: Sizes<2>,
    /// Where the two processes run; several are separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "together,apart,free")]
    pinning: Vec<Pinning>,
    /// What the receiver does with bodies in shared memory
    #[arg(long, value_enum, value_delimiter = ',', default_value = "copying,trusting")]
    receiver: Vec<Receiver>,
    /// What carries the bodies
    #[arg(long, value_enum, value_delimiter = ',', default_value = "requests,replies")]
    bodies: Vec<Bodies>,
    /// Rounds: in each, both lanes are measured at every size, one after the other
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// How long a lane is measured at one size in one round, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(..=60_000))]
    share: u64,
    /// A first impression in seconds: 3 rounds, 3 ms a size
    #[arg(long, conflicts_with_all = ["rounds", "share"])]
    quick: bool,
    /// Measures, beside the lanes, what the system offers for requests: pipe, sockets, message queues, shared
    /// memory
    #[arg(long)]
    mechanisms: bool,
    /// Draws cost against size into this file, whose name ends in `.svg` or `.png`; may be given more than once
    #[arg(long, value_name = "FILE", value_parser = picture)]
    plot: Vec<PathBuf>,
    /// Prints a line of JSON for each size, lane and round, and nothing else
    #[arg(long)]
    json: bool,
}

/// The other process of one lane.
#[derive(clap::Args)]
pub(crate) struct Served {
    #[command(flatten)]
    route: Route,
    #[arg(long)]
    cpu: Option<usize>,
}

/// The other process of one mechanism.
#[derive(clap::Args)]
pub(crate) struct ServedByOther {
    #[arg(long)]
    name: String,
    #[arg(long)]
    largest: usize,
    #[arg(long, default_value = "")]
    place: String,
    #[arg(long)]
    cpu: Option<usize>,
}

/// The largest body that can be asked for.
const LARGEST: u64 = 256 << 20;

fn sizes(text: &str) -> std::result::Result<Sizes<2>, String> {
    let sizes = Sizes::parse(text)?;
    if sizes.largest() > LARGEST { Err("sizes end at 256MiB".into()) } else { Ok(sizes) }
}

fn picture(text: &str) -> std::result::Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let known = ["svg", "png"].iter().any(|known| is_a(&path, known));
    if known { Ok(path) } else { Err("let the name end in `.svg` or `.png`".into()) }
}

/// Whether a file's name ends so.
fn is_a(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(ending))
}

pub(crate) fn serve(served: &Served) -> Result<()> {
    stay_on(served.cpu)?;
    lanes::serve(served.route)
}

pub(crate) fn serve_other(served: &ServedByOther) -> Result<()> {
    stay_on(served.cpu)?;
    let mechanism = mechanisms::all().into_iter().find(|mechanism| mechanism.name() == served.name);
    mechanism.ok_or("there is no such mechanism")?.serve(&served.place, served.largest)
}

fn stay_on(cpu: Option<usize>) -> Result<()> {
    match cpu {
        Some(cpu) => Ok(pin(cpu).map_err(|error| format!("cannot run on CPU {cpu}: {error}"))?),
        None => Ok(()),
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let plan = arguments.plan();
    // Before a minute is spent on measuring.
    let plots = arguments.plot.iter().map(|path| Plot::create(path)).collect::<Result<Vec<_>>>()?;
    let mut pinnings = Vec::new();
    for pinning in firsts(arguments.pinning.iter().copied()) {
        match pinning.cpus().map_err(|error| format!("cannot tell which CPUs there are: {error}"))? {
            Some(cpus) => pinnings.push((pinning, cpus)),
            None => say(&format!("{pinning}: left out, this process may use one CPU only")),
        }
    }
    if pinnings.is_empty() {
        return Err("nothing to measure: two CPUs are needed for `--pinning apart`".into());
    }
    let bar = ProgressBar::new(plan.steps() * pinnings.len() as u64);
    bar.set_style(ProgressStyle::with_template("{prefix:>8} {wide_bar} {percent}% {eta} {msg}")?);
    let mut samples = Vec::new();
    let mut sink = |sample: Sample| {
        if arguments.json {
            bar.suspend(|| print(&sample.record.json_line()))?;
        }
        samples.push(sample);
        Ok(())
    };
    let measured = pinnings.into_iter().try_for_each(|(pinning, cpus)| {
        bar.set_prefix(pinning.to_string());
        rounds::measure(&plan, pinning, cpus, &bar, &mut sink)
    });
    bar.finish_and_clear();
    measured?;
    let comparisons = report::comparisons(&samples);
    for plot in plots {
        plot.write(&comparisons)?;
    }
    if arguments.json {
        return Ok(());
    }
    print(&report::text(&comparisons, plan.rounds))?;
    if arguments.mechanisms { print(&report::mechanisms(&samples, &plan)) } else { Ok(()) }
}

/// Where the picture goes.
struct Plot<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> Plot<'a> {
    fn create(path: &'a Path) -> Result<Self> {
        // What is there stays until there is something better.
        let file = File::options().write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(Self { path, file })
    }

    fn write(mut self, comparisons: &[Comparison]) -> Result<()> {
        let svg = picture::svg(comparisons);
        let bytes = if is_a(self.path, "png") { png(&svg)? } else { svg.into_bytes() };
        let written = self.file.set_len(0).and_then(|()| self.file.write_all(&bytes));
        Ok(written.map_err(|error| format!("cannot write {}: {error}", self.path.display()))?)
    }
}

impl Arguments {
    fn plan(&self) -> Plan<'_> {
        let mut ways = Vec::new();
        for receiver in firsts(self.receiver.iter().copied()) {
            for bodies in firsts(self.bodies.iter().copied()) {
                let lanes = Lane::value_variants().iter();
                ways.extend(lanes.map(|lane| Way::Lpc(Route { bodies, receiver, lane: *lane })));
            }
        }
        if self.mechanisms {
            ways.extend(mechanisms::all().map(Way::Other));
        }
        let (rounds, share) = if self.quick { (3, 3) } else { (self.rounds, self.share) };
        Plan { ways, sizes: self.sizes.as_slice(), rounds, share: Duration::from_millis(share) }
    }
}
