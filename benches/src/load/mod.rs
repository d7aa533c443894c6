//! What looking for the next message costs and saves beside sleeping at once, while the machine is busy with
//! other things.
//!
//! # Layout
//!
//! - `situation`: what goes on meanwhile.
//! - `idle`: what is used when nobody calls any more.
//! - `report`: the tables.

mod idle;
mod report;
mod situation;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use lpc_cli::measure::{Pinning, Samples, Service, cpu_time};
use serde::Serialize;

use self::situation::Situation;
use crate::caller::{Clients, Done};
use crate::setup::{Setup, is_chosen, pinned};
use crate::{hog, server};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Situations whose names contain one of these, separated by commas, and no others
    #[arg(long, value_delimiter = ',')]
    situation: Vec<String>,
    /// Peers whose names contain one of these, separated by commas, and no others
    #[arg(long, value_delimiter = ',')]
    peer: Vec<String>,
    /// Where the processes run; all clients where a client would, all services where a service would
    #[arg(long, value_enum, default_value_t = Pinning::Free)]
    pinning: Pinning,
    /// Rounds: in each, every peer calls in every situation once looking and once sleeping
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long it calls each time, in milliseconds; a quarter of that before does not count
    #[arg(long, default_value_t = 200)]
    share: u64,
    /// How long to watch, in the end, whether processes that have nothing to do use the CPU, in milliseconds
    #[arg(long, default_value_t = 3000)]
    idle: u64,
    /// Appends a line of JSON for each figure to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Lists situations and peers, and measures nothing
    #[arg(long)]
    list: bool,
}

/// What was measured of one peer in one situation and round.
#[derive(Clone, Debug, Serialize)]
struct Record {
    situation: String,
    peer: String,
    pinning: Pinning,
    /// Never looks before it sleeps.
    sleeps: bool,
    p50_ns: u64,
    p99_ns: u64,
    /// Calls a second, of all callers; where they think, that is not counted.
    per_s: f64,
    /// CPU time a call of all processes, without what the callers' thinking and the implementation use.
    cpu_ns: u64,
    /// Counted from 1.
    round: u32,
}

pub(crate) fn run(arguments: &Arguments) -> crate::Done {
    let mut situations = situation::all();
    situations.retain(|situation| is_chosen(&arguments.situation, &situation.to_string()));
    let setups = Setup::all(&arguments.peer);
    if arguments.list {
        situations.iter().for_each(|situation| println!("{situation}"));
        setups.iter().for_each(|setup| println!("{setup}"));
        return Ok(());
    }
    let json = arguments.json.as_deref().map(|path| File::options().create(true).append(true).open(path));
    let mut json = json.transpose()?;
    server::raise_descriptors()?;
    let cpus = arguments.pinning.cpus()?.ok_or("there is one CPU only")?;
    let records = measure(arguments, cpus, &setups, &situations, json.as_mut())?;
    print!("{}", report::tables(&records));
    let idle = idle::measure(&setups, Duration::from_millis(arguments.idle))?;
    print!("\n{}", report::idle(&idle));
    if let Some(json) = &mut json {
        for record in &idle {
            writeln!(json, "{}", serde_json::to_string(record)?)?;
        }
    }
    Ok(())
}

/// A service process and its clients here.
struct Pair {
    service: Service,
    clients: Clients,
}

/// As many pairs of one setup as were needed so far.
struct Peer<'a> {
    setup: Setup,
    pairs: Vec<Pair>,
    directory: &'a Path,
    cpus: [Option<usize>; 2],
}

impl Peer<'_> {
    /// What so many pairs take in a situation, in which they are.
    fn measure(&mut self, situation: Situation, share: Duration) -> lpc::Result<(Samples, f64, u64)> {
        if situation.clients > 1 {
            // Only meanwhile: those of all peers are more than a process has descriptors for.
            let pairs = (0..situation.pairs).map(|number| self.pair(situation.clients, number));
            return measure_pairs(&pairs.collect::<lpc::Result<Vec<_>>>()?, situation, share);
        }
        while self.pairs.len() < situation.pairs {
            self.pairs.push(self.pair(1, self.pairs.len())?);
        }
        measure_pairs(&self.pairs[..situation.pairs], situation, share)
    }

    /// A service process of its own, and so many clients.
    fn pair(&self, clients: usize, number: usize) -> lpc::Result<Pair> {
        let sleeps = u8::from(self.setup.sleeps);
        let port = self.directory.join(format!("{} {sleeps} {clients} {number}", self.setup));
        let service = server::start(&port, self.setup, self.cpus[1])?;
        Ok(Pair { clients: Clients::connect(&port, self.setup, clients)?, service })
    }
}

/// What all clients of these pairs take in a situation, in which they are.
fn measure_pairs(pairs: &[Pair], situation: Situation, share: Duration) -> lpc::Result<(Samples, f64, u64)> {
    let used = || {
        let services = pairs.iter().map(|pair| pair.service.cpu_time()).sum::<io::Result<u64>>()?;
        Ok::<_, io::Error>(services + cpu_time(std::process::id())?)
    };
    run_all(pairs, situation, share / 4)?;
    let before = used()?;
    let done = run_all(pairs, situation, share)?;
    let used = used()?.saturating_sub(before);
    let per_s = done.per_second(situation.job);
    let samples = done.samples();
    let own = situation.job.own_cpu().as_nanos() as u64;
    let each = (used / samples.len().max(1) as u64).saturating_sub(own);
    Ok((samples, per_s, each))
}

/// The clients of all pairs at once.
fn run_all(pairs: &[Pair], situation: Situation, share: Duration) -> lpc::Result<Done> {
    if let [pair] = pairs {
        return pair.clients.run(situation.job, situation.clients, share);
    }
    let each: Vec<_> = thread::scope(|scope| {
        let run = |pair: &Pair| pair.clients.run(situation.job, situation.clients, share);
        let callers: Vec<_> = pairs.iter().map(|pair| scope.spawn(move || run(pair))).collect();
        callers
            .into_iter()
            .map(|caller| caller.join().expect("a caller panicked"))
            .collect::<lpc::Result<_>>()
    })?;
    Ok(Done::all(each))
}

fn measure(
    arguments: &Arguments,
    cpus: [Option<usize>; 2],
    setups: &[Setup],
    situations: &[Situation],
    mut json: Option<&mut File>,
) -> Result<Vec<Record>, crate::AnyError> {
    let directory = tempfile::tempdir()?;
    let mut peers: Vec<[Peer<'_>; 2]> = setups
        .iter()
        .map(|setup| {
            [false, true].map(|sleeps| {
                let setup = Setup { sleeps, ..*setup };
                Peer { setup, pairs: Vec::new(), directory: directory.path(), cpus }
            })
        })
        .collect();
    let cells =
        situations.iter().flat_map(|situation| setups.iter().filter(|setup| situation.is_for(**setup)));
    let bar = ProgressBar::new(cells.count() as u64 * u64::from(arguments.rounds));
    bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} {eta} {msg}")?);
    let share = Duration::from_millis(arguments.share);
    let mut records = Vec::new();
    for round in 1..=arguments.rounds {
        for situation in situations {
            let _hogs = hog::start(situation.hogs)?;
            for both in &mut peers {
                if !situation.is_for(both[0].setup) {
                    continue;
                }
                bar.set_message(format!("{situation}: {}", both[0].setup));
                // The second finds the machine as the first has left it, so they take turns.
                for at in [0, 1].map(|at| (at + round as usize) % 2) {
                    let peer = &mut both[at];
                    let (mut samples, per_s, cpu_ns) = pinned(cpus[0], || peer.measure(*situation, share))
                        .map_err(|error| format!("{situation}, {}: {error}", peer.setup))?;
                    let [p50_ns, p99_ns] = samples.quantiles([0.5, 0.99]).ok_or("no call")?;
                    let record = Record {
                        situation: situation.to_string(),
                        peer: peer.setup.to_string(),
                        pinning: arguments.pinning,
                        sleeps: peer.setup.sleeps,
                        p50_ns,
                        p99_ns,
                        per_s,
                        cpu_ns,
                        round,
                    };
                    if let Some(json) = &mut json {
                        writeln!(json, "{}", serde_json::to_string(&record)?)?;
                    }
                    records.push(record);
                }
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(records)
}
