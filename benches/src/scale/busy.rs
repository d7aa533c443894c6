//! Many clients that call at once, beside one.

use lpc_cli::measure::{Table, time};
use serde::Serialize;

use super::{Figures, Run, ratio};
use crate::AnyError;
use crate::caller::{Call, Clients, Job};

#[derive(Clone, Debug, Serialize)]
pub(super) struct Record {
    part: &'static str,
    peer: String,
    clients: u32,
    one: Figures,
    all: Figures,
    round: u32,
}

pub(super) fn measure(run: &Run<'_>) -> Result<Vec<Record>, AnyError> {
    let Run { arguments, setup, bar, .. } = *run;
    let (_server, port) = run.server("busy")?;
    let one = Clients::connect(&port, setup, 1)?;
    let all = Clients::connect(&port, setup, arguments.clients as usize)?;
    let share = run.share();
    let job = Job::of(Call::Add);
    let mut records = Vec::new();
    for round in 1..=arguments.rounds {
        records.push(Record {
            part: "busy",
            peer: setup.to_string(),
            clients: arguments.clients,
            one: Figures::of(&one, job, 1, share)?,
            all: Figures::of(&all, job, arguments.clients as usize, share)?,
            round,
        });
        bar.inc(1);
    }
    Ok(records)
}

pub(super) fn table(records: &[Record]) -> String {
    let Some(first) = records.first() else { return String::new() };
    let mut table = Table::new([
        "peer",
        "p50 of one",
        "of all",
        "p99 of one",
        "of all",
        "calls/s of one",
        "of all",
        "ratio",
    ]);
    for of in records.chunk_by(|one, other| one.peer == other.peer) {
        let one = Figures::median(of.iter().map(|record| record.one));
        let all = Figures::median(of.iter().map(|record| record.all));
        table.row([
            of[0].peer.clone(),
            time(one.p50_ns),
            time(all.p50_ns),
            time(one.p99_ns),
            time(all.p99_ns),
            (one.per_s as u64).to_string(),
            (all.per_s as u64).to_string(),
            ratio(all.per_s as u64, one.per_s as u64),
        ]);
    }
    format!("\n{} clients that call at once, beside one\n\n{table}", first.clients)
}
