//! lpc beside its floors and its rivals, on the same work, in interleaved rounds.
//!
//! # Layout
//!
//! - `work`: what is done. `mixed`: its struct.
//! - `peer`: what does it: the trait that a floor, lpc and a rival implement.
//! - `running`: a service that runs, and a client of it.
//! - `threads`, `tasks`: callers of clients whose calls block, and of those whose calls are futures.
//! - `floors`: the least that each way can cost, without lpc.
//! - `ours`: lpc.
//! - `rivals`: what a user might pick instead. A file each, behind the feature of that name.
//! - `report`: the tables. `plot`: the pictures.
//! - `calls`: one peer alone, to be watched by another program.
//! - `instructions`: what a call takes of the CPU, whatever else runs.

pub(crate) mod calls;
mod floors;
pub(crate) mod instructions;
mod mixed;
mod ours;
mod peer;
mod plot;
mod report;
#[cfg(feature = "rivals")]
mod rivals;
mod running;
mod tasks;
mod threads;
mod work;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use lpc_cli::measure::{Pinning, Record, Sizes, pin};

use self::peer::{Peer, Result};
use self::running::{Running, idle};
use self::work::{Job, Work};
use crate::hog;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// These works, separated by commas, and no others
    #[arg(long, value_enum, value_delimiter = ',')]
    work: Vec<Work>,
    /// Peers whose names contain one of these, separated by commas, and no others
    #[arg(long, value_delimiter = ',')]
    peer: Vec<String>,
    /// These pinnings, separated by commas, and no others
    #[arg(long, value_enum, value_delimiter = ',', default_value = "together,apart,free")]
    pinning: Vec<Pinning>,
    /// Bodies of this size, or up to this size: `64KiB`, `256B..1MiB`
    #[arg(long, default_value = "256B..64MiB", value_parser = Sizes::<4>::parse)]
    size: Sizes<4>,
    /// Clients at once, where they are the work, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1,16,256", value_parser = clap::value_parser!(u64).range(1..))]
    clients: Vec<u64>,
    /// Beside so many processes that do nothing but use the CPU; several numbers separated by commas: each in
    /// turn
    #[arg(long, value_delimiter = ',', default_value = "0")]
    hogs: Vec<u32>,
    /// Rounds: in each, every peer does every work once, one after the other
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long a peer does one work in one round, if not for a single call, in milliseconds
    #[arg(long, default_value_t = 20)]
    share: u64,
    /// Appends a line of JSON for each figure to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draws the figures into this directory
    #[arg(long, value_name = "DIRECTORY")]
    plot: Option<PathBuf>,
    /// Measures nothing: prints, and draws, what an earlier run has written with `--json`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "rounds", "share", "size", "clients", "hogs"])]
    from: Option<PathBuf>,
    /// Lists the peers, and measures nothing
    #[arg(long)]
    list: bool,
}

/// The other process of one peer.
#[derive(clap::Args)]
pub(crate) struct Served {
    #[arg(long)]
    peer: String,
    #[arg(long)]
    place: PathBuf,
    #[arg(long)]
    cpu: Option<usize>,
}

fn peers() -> Vec<Box<dyn Peer>> {
    let mut peers = floors::all();
    peers.extend(ours::all());
    #[cfg(feature = "rivals")]
    peers.extend(rivals::all());
    peers
}

pub(crate) fn serve(served: &Served) -> Result<()> {
    if let Some(cpu) = served.cpu {
        pin(cpu)?;
    }
    named(&served.peer)?.serve(&served.place)
}

fn named(name: &str) -> Result<Box<dyn Peer>> {
    let peer = peers().into_iter().find(|peer| peer.name() == name);
    Ok(peer.ok_or_else(|| format!("there is no such peer as {name:?}: `compare --list` names them"))?)
}

/// The peers whose names contain one of these parts, or all.
fn selected(parts: &[String]) -> Vec<Box<dyn Peer>> {
    let mut peers = peers();
    peers.retain(|peer| is_wanted(peer.name(), parts));
    peers
}

fn is_wanted(peer: &str, parts: &[String]) -> bool {
    parts.is_empty() || parts.iter().any(|part| peer.contains(part.as_str()))
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let peers = selected(&arguments.peer);
    if arguments.list {
        peers.iter().for_each(|peer| println!("{}", peer.name()));
        return Ok(());
    }
    if let Some(directory) = &arguments.plot {
        // Before minutes are spent on measuring.
        fs::create_dir_all(directory)
            .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
    }
    let records = match &arguments.from {
        Some(path) => read(arguments, path)?,
        None => measure_all(arguments, &peers)?,
    };
    print!("{}", report::tables(&records));
    let Some(directory) = &arguments.plot else { return Ok(()) };
    // A picture has no place for what else the machine did.
    let quiet: Vec<_> = records.into_iter().filter(|record| record.hogs == 0).collect();
    plot::write(&quiet, directory)
}

fn measure_all(arguments: &Arguments, peers: &[Box<dyn Peer>]) -> Result<Vec<Record>> {
    let jobs = work::jobs(&arguments.work, &arguments.size, &arguments.clients);
    let json = arguments.json.as_deref().map(|path| File::options().create(true).append(true).open(path));
    let mut json = json.transpose()?;
    let mut records = Vec::new();
    for pinning in &arguments.pinning {
        let Some(cpus) = pinning.cpus()? else {
            eprintln!("{pinning}: left out, there is one CPU only");
            continue;
        };
        for hogs in &arguments.hogs {
            // Where the system puts them, whatever is pinned.
            let _hogs = hog::start(*hogs as usize)?;
            // In a thread of its own, which alone is pinned, and with it those that it starts.
            let measured = thread::scope(|scope| {
                scope
                    .spawn(|| measure(arguments, (*pinning, *hogs), cpus, peers, &jobs))
                    .join()
                    .expect("measuring panicked")
            })?;
            if let Some(json) = &mut json {
                let lines: String = measured.iter().map(Record::json_line).collect();
                json.write_all(lines.as_bytes())?;
            }
            records.extend(measured);
        }
    }
    Ok(records)
}

/// The records of an earlier run, of the peers, works and pinnings that are wanted.
fn read(arguments: &Arguments, path: &Path) -> Result<Vec<Record>> {
    let lines =
        fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let records = lines.lines().enumerate().map(|(at, line)| {
        serde_json::from_str(line).map_err(|error| {
            format!("{}, line {}, is no figure of `compare`: {error}", path.display(), at + 1)
        })
    });
    let mut records: Vec<Record> = records.collect::<std::result::Result<_, _>>()?;
    records.retain(|record| {
        is_wanted(&record.peer, &arguments.peer)
            && arguments.pinning.contains(&record.pinning)
            && (arguments.work.is_empty()
                || arguments.work.iter().any(|work| work.to_string() == record.work))
    });
    Ok(records)
}

fn measure(
    arguments: &Arguments,
    (pinning, hogs): (Pinning, u32),
    [own_cpu, service_cpu]: [Option<usize>; 2],
    peers: &[Box<dyn Peer>],
    jobs: &[Job],
) -> Result<Vec<Record>> {
    if let Some(cpu) = own_cpu {
        pin(cpu)?;
    }
    let directory = tempfile::tempdir()?;
    let mut running = Vec::new();
    for (number, peer) in peers.iter().enumerate() {
        if jobs.iter().any(|job| peer.does(*job)) {
            running.push(Running::start(&**peer, &directory.path().join(number.to_string()), service_cpu)?);
        }
    }
    let cells =
        jobs.iter().flat_map(|job| peers.iter().map(move |peer| u64::from(peer.does(*job)))).sum::<u64>();
    let bar = ProgressBar::new(cells * u64::from(arguments.rounds));
    bar.set_style(ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {eta} {msg}")?);
    bar.set_prefix(report::place(pinning, hogs));
    let mut records = Vec::new();
    for round in 1..=arguments.rounds {
        for job in jobs {
            for (number, running) in running.iter_mut().enumerate() {
                if !running.peer.does(*job) {
                    continue;
                }
                bar.set_message(format!("{job} {}", running.peer.name()));
                let name = running.peer.name();
                let measured = if job.work == Work::Idle {
                    idle(
                        running.peer,
                        *job,
                        &directory.path().join(format!("idle{number}-{round}")),
                        service_cpu,
                    )
                } else {
                    let share = Duration::from_millis(arguments.share) * job.callers().min(5) as u32;
                    running
                        .measure(*job, share)
                        .and_then(|(samples, cpu)| Ok((samples, cpu, running.service.resident_kib()?)))
                };
                let (mut samples, cpu_ns, rss_kib) =
                    measured.map_err(|error| format!("{name}, {job}: {error}"))?;
                let [p50_ns, p99_ns] =
                    samples.quantiles([0.5, 0.99]).ok_or_else(|| format!("{name}: no call"))?;
                records.push(Record {
                    work: job.work.to_string(),
                    peer: name.to_owned(),
                    pinning,
                    hogs,
                    size: job.size,
                    p50_ns,
                    p99_ns,
                    per_s: samples.per_second(),
                    cpu_ns,
                    rss_kib,
                    round,
                });
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(records)
}
