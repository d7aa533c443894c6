//! Connections that do nothing, and a caller beside them.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use lpc_cli::measure::{Service, Table, median, time};
use serde::Serialize;

use super::{Figures, Run, ratio};
use crate::AnyError;
use crate::caller::{Call, Clients, Job};
use crate::calling::Calling;
use crate::memory::Held;
use crate::server::{Used, raise_descriptors};
use crate::setup::Setup;

#[derive(Clone, Debug, Serialize)]
pub(super) struct Record {
    part: &'static str,
    peer: String,
    connections: u32,
    /// Processes of the clients.
    processes: usize,
    /// Resident memory of the server for each connection.
    kib_each: f64,
    threads: u64,
    /// How long the following were watched.
    ms: u64,
    server_cpu_ns: u64,
    server_switches: u64,
    clients_cpu_ns: u64,
    clients_switches: u64,
    /// Where each has sent a body before.
    returned: Option<Returned>,
    /// Calls of a client of another server that has no other.
    alone: Figures,
    /// CPU time of that server for each of them.
    alone_cpu_ns: u64,
    /// Calls of a client beside those that are idle.
    beside: Figures,
    /// CPU time of their server for each of those calls.
    beside_cpu_ns: u64,
    round: u32,
}

/// What the server held: when connections were new, when bodies had come, and after so long.
#[derive(Clone, Copy, Debug, Serialize)]
struct Returned {
    new: Held,
    used: Held,
    idle: Held,
    after_ms: u64,
}

/// After which nobody has anything to do any more.
const SETTLES: Duration = Duration::from_millis(500);

pub(super) fn measure(run: &Run<'_>) -> Result<Vec<Record>, AnyError> {
    let Run { arguments, setup, bar, .. } = *run;
    let (quiet, port) = run.server("alone")?;
    let alone = Clients::connect(&port, setup, 1)?;
    let (server, port) = run.server("full")?;
    let beside = Clients::connect(&port, setup, 1)?;
    let empty = Held::by(server.id())?;
    let mut holders = hold(&port, setup, arguments.connections as usize)?;
    thread::sleep(SETTLES);
    let new = Held::by(server.id())?;
    let kib_each = new.resident.saturating_sub(empty.resident) as f64 / f64::from(arguments.connections);
    let time = Duration::from_millis(arguments.idle);
    let returned = match arguments.body {
        0 => None,
        len => Some(returned(&mut holders, len, server.id(), new, time)?),
    };
    let look = || {
        let clients = holders.iter().map(|holder| Used::by(holder.id()));
        Ok::<_, AnyError>((Used::by(server.id())?, clients.collect::<Result<Vec<_>, _>>()?))
    };
    let before = look()?;
    thread::sleep(time);
    let after = look()?;
    let used = after.0.since(before.0);
    let clients: Vec<_> = after.1.iter().zip(before.1).map(|(after, before)| after.since(before)).collect();
    let share = run.share();
    let mut records = Vec::new();
    for round in 1..=arguments.rounds {
        let (alone, alone_cpu_ns) = figures(&alone, &quiet, share)?;
        let (beside, beside_cpu_ns) = figures(&beside, &server, share)?;
        records.push(Record {
            part: "idle",
            peer: setup.to_string(),
            connections: arguments.connections,
            processes: holders.len(),
            kib_each,
            threads: used.threads,
            ms: arguments.idle,
            server_cpu_ns: used.cpu_ns,
            server_switches: used.switches,
            clients_cpu_ns: clients.iter().map(|used| used.cpu_ns).sum(),
            clients_switches: clients.iter().map(|used| used.switches).sum(),
            returned,
            alone,
            alone_cpu_ns,
            beside,
            beside_cpu_ns,
            round,
        });
        bar.inc(1);
    }
    Ok(records)
}

/// Calls of one client, and the CPU time that the server used for each.
fn figures(clients: &Clients, server: &Service, share: Duration) -> Result<(Figures, u64), AnyError> {
    let before = server.cpu_time()?;
    let figures = Figures::of(clients, Job::of(Call::Add), 1, share)?;
    Ok((figures, server.cpu_time()?.saturating_sub(before) / figures.calls.max(1)))
}

/// Descriptors that a client may take, and that its process has besides.
const DESCRIPTORS: (u64, u64) = (3, 64);

/// So many clients, in as few processes as have descriptors enough.
fn hold(port: &Path, setup: Setup, connections: usize) -> Result<Vec<Calling>, AnyError> {
    let each = (raise_descriptors()?.saturating_sub(DESCRIPTORS.1) / DESCRIPTORS.0).max(1) as usize;
    let mut holders = Vec::new();
    let mut left = connections;
    while left > 0 {
        let count = left.min(each);
        holders.push(Calling::start(port, setup, count)?);
        left -= count;
    }
    Ok(holders)
}

/// Has each client send a body, and waits until the server holds no more than before.
fn returned(
    holders: &mut [Calling],
    len: usize,
    server: u32,
    new: Held,
    time: Duration,
) -> Result<Returned, AnyError> {
    for holder in holders {
        holder.each(Job::of(Call::Upload(len)))?;
    }
    let used = Held::by(server)?;
    let started = Instant::now();
    loop {
        thread::sleep(Duration::from_millis(500).min(time));
        let idle = Held::by(server)?;
        let after = started.elapsed();
        if idle.is_about(&new) || after >= time {
            return Ok(Returned { new, used, idle, after_ms: after.as_millis() as u64 });
        }
    }
}

pub(super) fn tables(records: &[Record]) -> String {
    let Some(first) = records.first() else { return String::new() };
    let mut table = Table::new([
        "peer",
        "KiB each",
        "threads",
        "server's CPU",
        "switches",
        "clients' CPU",
        "switches",
        "p50 alone",
        "beside",
        "ratio",
        "p99 alone",
        "beside",
        "ratio",
        "server's CPU a call",
        "beside",
    ]);
    let mut memory = Table::new(["peer", "new, MiB", "used, MiB", "idle, MiB", "after", "descriptors"]);
    let mut has_memory = false;
    for of in records.chunk_by(|one, other| one.peer == other.peer) {
        let record = &of[0];
        let alone = Figures::median(of.iter().map(|record| record.alone));
        let beside = Figures::median(of.iter().map(|record| record.beside));
        table.row([
            record.peer.clone(),
            format!("{:.1}", record.kib_each),
            record.threads.to_string(),
            time(record.server_cpu_ns),
            record.server_switches.to_string(),
            time(record.clients_cpu_ns),
            record.clients_switches.to_string(),
            time(alone.p50_ns),
            time(beside.p50_ns),
            ratio(beside.p50_ns, alone.p50_ns),
            time(alone.p99_ns),
            time(beside.p99_ns),
            ratio(beside.p99_ns, alone.p99_ns),
            time(median(of.iter().map(|record| record.alone_cpu_ns)).unwrap_or_default()),
            time(median(of.iter().map(|record| record.beside_cpu_ns)).unwrap_or_default()),
        ]);
        if let Some(Returned { new, used, idle, after_ms }) = record.returned {
            has_memory = true;
            let [new_mib, used_mib, idle_mib] =
                [new, used, idle].map(|held| format!("{:.1}", held.resident as f64 / 1024.0));
            let descriptors = [new, used, idle].map(|held| held.descriptors.to_string()).join(", ");
            let after = time(after_ms * 1_000_000);
            memory.row([record.peer.clone(), new_mib, used_mib, idle_mib, after, descriptors]);
        }
    }
    let processes =
        if first.processes == 1 { "one process".into() } else { format!("{} processes", first.processes) };
    let heading = format!("{} idle connections, of {processes}, for {} ms", first.connections, first.ms);
    let memory = if has_memory { format!("\nthe server's memory\n\n{memory}") } else { String::new() };
    format!("\n{heading}\n\n{table}{memory}")
}
