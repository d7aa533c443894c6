//! Instructions a call, which nothing else that the machine does can change.
//!
//! Both processes run under valgrind's callgrind, each in its own, and on one CPU: there nobody waits by
//! looking, which would be counted as work. Each peer is run for a short time and, from the start, for a
//! longer one. The further calls of the longer run are what it has more instructions for, so that starting
//! and ending cancel out.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use lpc_cli::measure::{Pinning, Service, Sizes, Table, pin};
use serde::Serialize;

use super::peer::{Peer, Result};
use super::running::START;
use super::selected;
use super::work::{self, Job, Work};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// These works, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "add")]
    work: Vec<Work>,
    /// Peers whose names contain one of these, separated by commas, and no others
    #[arg(long, value_delimiter = ',')]
    peer: Vec<String>,
    /// Bodies of this size, or up to this size
    #[arg(long, default_value = "64KiB", value_parser = Sizes::<4>::parse)]
    size: Sizes<4>,
    /// Clients at once, where they are the work
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..))]
    clients: u64,
    /// How long the longer run of a peer calls, in milliseconds; the shorter takes a quarter of that
    #[arg(long, default_value_t = 4000)]
    share: u64,
    /// Appends a line of JSON for each figure to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

/// One line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    work: String,
    peer: &'a str,
    pinning: Pinning,
    size: u64,
    /// Instructions a call, in user mode, of the client's process.
    client_instructions: u64,
    /// And of the service's.
    service_instructions: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let peers = selected(&arguments.peer);
    let jobs = work::jobs(&arguments.work, &arguments.size, &[arguments.clients]);
    let json = arguments.json.as_deref().map(|path| File::options().create(true).append(true).open(path));
    let mut json = json.transpose()?;
    // The processes that this one starts inherit it.
    let [cpu, _] = Pinning::Together.cpus()?.ok_or("there is no CPU")?;
    cpu.map_or(Ok(()), pin)?;
    let (polling, peers): (Vec<_>, Vec<_>) = peers.into_iter().partition(|peer| peer.polls());
    for peer in polling {
        eprintln!("{}: left out, it waits by looking, which cannot be told from work", peer.name());
    }
    let cells: Vec<(Job, &dyn Peer)> = jobs
        .iter()
        .flat_map(|job| peers.iter().filter(|peer| peer.does(*job)).map(|peer| (*job, &**peer)))
        .collect();
    let bar = ProgressBar::new(cells.len() as u64);
    bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} {eta} {msg}")?);
    let mut table = Table::new(["instructions a call", "work", "client", "service", "both"]);
    for (job, peer) in cells {
        bar.set_message(format!("{job} {}", peer.name()));
        let [client, service] =
            a_call(peer, job, arguments.share).map_err(|error| format!("{}, {job}: {error}", peer.name()))?;
        table.row([
            peer.name().to_owned(),
            job.to_string(),
            client.to_string(),
            service.to_string(),
            (client + service).to_string(),
        ]);
        if let Some(json) = &mut json {
            let line = Line {
                work: job.work.to_string(),
                peer: peer.name(),
                pinning: Pinning::Together,
                size: job.size,
                client_instructions: client,
                service_instructions: service,
            };
            writeln!(json, "{}", serde_json::to_string(&line)?)?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    print!("{table}");
    Ok(())
}

/// Instructions a call, of the client and of the service.
fn a_call(peer: &dyn Peer, job: Job, share: u64) -> Result<[u64; 2]> {
    let short = Counts::of(peer, job, share / 4)?;
    let long = Counts::of(peer, job, share)?;
    let calls = long.calls.checked_sub(short.calls).filter(|calls| *calls > 0);
    let calls = calls.ok_or("too few calls to tell: `--share` is too short")?;
    let each = |long: u64, short: u64| (long.saturating_sub(short) + calls / 2) / calls;
    Ok([each(long.client, short.client), each(long.service, short.service)])
}

/// Of one run, from the start of both processes to their ends.
struct Counts {
    calls: u64,
    client: u64,
    service: u64,
}

impl Counts {
    fn of(peer: &dyn Peer, job: Job, share: u64) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let [place, said, service_counts, client_counts] =
            ["place", "said", "service", "client"].map(|name| directory.path().join(name));
        let place_name = place.to_str().ok_or("the temporary directory's name is not UTF-8")?;
        let mut command = counted(&service_counts)?;
        command.args(["serve-peer", "--peer", peer.name(), "--place", place_name]);
        // Some end with an error when their client has gone.
        command.stderr(File::create(&said)?);
        let mut service = Service::of(command.spawn().map_err(explained)?);
        await_place(&place, &mut service)?;
        let mut command = counted(&client_counts)?;
        command.args(["calls", "--peer", peer.name(), "--place", place_name, "--pinning=together"]);
        command.args([format!("--work={}", job.work), format!("--share={share}")]);
        command.arg(format!("--clients={}", job.clients()));
        if job.bytes() > 0 {
            command.arg(format!("--size={}B", job.size));
        }
        let output = command.output().map_err(explained)?;
        if !output.status.success() {
            let (client, service) = (String::from_utf8_lossy(&output.stderr), fs::read_to_string(&said)?);
            return Err(format!("the client failed: {client}{service}").into());
        }
        service.interrupt()?;
        let said = String::from_utf8(output.stdout)?;
        let calls = said.split_once(' ').and_then(|(calls, _)| calls.parse().ok());
        Ok(Self {
            calls: calls.ok_or_else(|| format!("the client did not say how many calls it made: {said:?}"))?,
            client: total(&client_counts)?,
            service: total(&service_counts)?,
        })
    }
}

/// This program under callgrind, which writes what it has counted into a file.
fn counted(file: &Path) -> Result<Command> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--quiet", "--vgdb=no", "--fair-sched=try"]);
    command.arg(format!("--callgrind-out-file={}", file.display()));
    command.arg(std::env::current_exe()?);
    Ok(command)
}

fn explained(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::NotFound => io::Error::other(
            "the program `valgrind`, which counts the instructions, is not installed (or not in PATH)",
        ),
        _ => error,
    }
}

/// Until the service is there, which under valgrind takes a second: a client that tries in vain is counted as
/// well. Some services are not at a place in the file system.
fn await_place(place: &Path, service: &mut Service) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let started = Instant::now();
    while !place.exists() && started.elapsed() < PATIENCE.min(START) {
        if let Some(status) = service.ended()? {
            return Err(format!("the service has ended: {status}").into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The instructions of all threads of a process.
fn total(file: &Path) -> Result<u64> {
    let counts = fs::read_to_string(file)
        .map_err(|error| format!("callgrind has not written {}: {error}", file.display()))?;
    let total = counts.lines().rev().find_map(|line| line.strip_prefix("totals:"));
    let total = total.and_then(|total| total.trim().parse().ok());
    Ok(total.ok_or_else(|| format!("callgrind has not written a total into {}", file.display()))?)
}
