//! Many connections of one server: what they cost while nobody calls, how many calls they carry, whether each
//! gets its share.
//!
//! # Layout
//!
//! - `idle`: connections that do nothing, and a caller beside them.
//! - `busy`: many clients that call at once, beside one.
//! - `fair`: one caller beside a client that always has many calls under way.

mod busy;
mod fair;
mod idle;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use lpc_cli::measure::{Pinning, Service};
use serde::Serialize;

use crate::caller::{Clients, Job};
use crate::setup::{Setup, pinned};
use crate::{AnyError, server};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// These parts, separated by commas, and no others
    #[arg(long, value_enum, value_delimiter = ',')]
    part: Vec<Part>,
    /// Peers whose names contain one of these, separated by commas, and no others
    #[arg(long, value_delimiter = ',')]
    peer: Vec<String>,
    /// Connections that are idle, in as few processes as may hold them
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Bytes that each of those sends before: whether the server gives that memory back
    #[arg(long, default_value = "0", value_parser = parse_size)]
    body: usize,
    /// How long those are watched, and at most waited for to give memory back, in milliseconds
    #[arg(long, default_value_t = 3000)]
    idle: u64,
    /// Clients that call at once
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// Calls that are always under way on the client beside which another gets its share
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    flood: u32,
    /// Where clients and servers run
    #[arg(long, value_enum, default_value_t = Pinning::Free)]
    pinning: Pinning,
    /// Rounds: in each, everything of a peer is measured once
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long calls are made each time, in milliseconds; a quarter of that before does not count
    #[arg(long, default_value_t = 300)]
    share: u64,
    /// Appends a line of JSON for each figure to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Connections that do nothing, and a caller beside them
    Idle,
    /// Many clients that call at once, beside one
    Busy,
    /// One caller beside a client that always has many calls under way
    Fair,
}

fn parse_size(text: &str) -> Result<usize, String> {
    if text == "0" {
        return Ok(0);
    }
    let size = lpc_cli::measure::Sizes::<2>::parse(text)?;
    usize::try_from(size.largest()).map_err(|error| error.to_string())
}

pub(crate) fn run(arguments: &Arguments) -> crate::Done {
    let parts = if arguments.part.is_empty() { Part::value_variants() } else { &arguments.part };
    let setups = Setup::all(&arguments.peer);
    let json = arguments.json.as_deref().map(|path| File::options().create(true).append(true).open(path));
    let mut json = json.transpose()?;
    server::raise_descriptors()?;
    for part in parts {
        match part {
            Part::Idle => {
                let records = measure(arguments, "idle", &setups, idle::measure, json.as_mut())?;
                print!("{}", idle::tables(&records));
            }
            Part::Busy => {
                let records = measure(arguments, "busy", &setups, busy::measure, json.as_mut())?;
                print!("{}", busy::table(&records));
            }
            Part::Fair => {
                let records = measure(arguments, "fair", &setups, fair::measure, json.as_mut())?;
                print!("{}", fair::table(&records));
            }
        }
    }
    Ok(())
}

/// What a part measures of one setup.
type Measure<T> = fn(&Run<'_>) -> Result<Vec<T>, AnyError>;

/// What it is to measure.
struct Run<'a> {
    arguments: &'a Arguments,
    setup: Setup,
    /// For ports.
    directory: &'a Path,
    /// Of servers; clients have another already.
    cpu: Option<usize>,
    bar: &'a ProgressBar,
}

impl Run<'_> {
    /// Starts a server, and says where it is.
    fn server(&self, name: &str) -> lpc::Result<(Service, PathBuf)> {
        let port = self.directory.join(name);
        Ok((server::start(&port, self.setup, self.cpu)?, port))
    }

    /// How long calls are made each time.
    fn share(&self) -> Duration {
        Duration::from_millis(self.arguments.share)
    }
}

fn measure<T: Serialize + Send>(
    arguments: &Arguments,
    part: &str,
    setups: &[Setup],
    measure: Measure<T>,
    mut json: Option<&mut File>,
) -> Result<Vec<T>, AnyError> {
    let bar = ProgressBar::new(setups.len() as u64 * u64::from(arguments.rounds));
    bar.set_style(ProgressStyle::with_template("{prefix:>5} {wide_bar} {pos}/{len} {eta} {msg}")?);
    bar.set_prefix(part.to_owned());
    let [own_cpu, cpu] = arguments.pinning.cpus()?.ok_or("there is one CPU only")?;
    let mut records = Vec::new();
    for setup in setups {
        bar.set_message(setup.to_string());
        bar.tick();
        let directory = tempfile::tempdir()?;
        let run = Run { arguments, setup: *setup, directory: directory.path(), cpu, bar: &bar };
        let measured = pinned(own_cpu, || measure(&run));
        let measured = measured.map_err(|error| format!("{part}, {setup}: {error}"))?;
        // At once: the next one may take long.
        if let Some(json) = &mut json {
            for record in &measured {
                writeln!(json, "{}", serde_json::to_string(record)?)?;
            }
        }
        records.extend(measured);
    }
    bar.finish_and_clear();
    Ok(records)
}

/// What calls took.
#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    p50_ns: u64,
    p99_ns: u64,
    /// Calls a second, of all callers.
    per_s: f64,
    /// That were made, those that do not count for the other figures included.
    calls: u64,
}

impl Figures {
    /// Of so many callers, each doing this job on a client of its own as far as there are enough.
    fn of(clients: &Clients, job: Job, callers: usize, share: Duration) -> Result<Self, AnyError> {
        let before = clients.run(job, callers, share / 4)?.samples().len();
        let done = clients.run(job, callers, share)?;
        let per_s = done.per_second(job);
        let mut samples = done.samples();
        let [p50_ns, p99_ns] = samples.quantiles([0.5, 0.99]).ok_or("no call")?;
        let calls = (before + samples.len()) as u64;
        Ok(Self { p50_ns, p99_ns, per_s, calls })
    }

    /// Of each figure the median.
    fn median(all: impl Iterator<Item = Self> + Clone) -> Self {
        let median =
            |figure: fn(Self) -> u64| lpc_cli::measure::median(all.clone().map(figure)).unwrap_or_default();
        Self {
            p50_ns: median(|figures| figures.p50_ns),
            p99_ns: median(|figures| figures.p99_ns),
            per_s: median(|figures| figures.per_s as u64) as f64,
            calls: median(|figures| figures.calls),
        }
    }
}

/// How many times as much, in two digits.
fn ratio(of: u64, to: u64) -> String {
    format!("{:.2}", of as f64 / to.max(1) as f64)
}
