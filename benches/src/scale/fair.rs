//! One caller beside a client that always has many calls under way.

use lpc_cli::measure::{Table, firsts, time};
use serde::Serialize;

use super::{Figures, Run, ratio};
use crate::AnyError;
use crate::caller::{Call, Clients, Job};
use crate::calling::Calling;

#[derive(Clone, Debug, Serialize)]
pub(super) struct Record {
    part: &'static str,
    peer: String,
    /// What the other client does.
    beside: String,
    polite: Figures,
    /// Calls a second of the other client.
    other_per_s: f64,
    round: u32,
}

/// What is uploaded by a client that floods the server with bodies.
const BODY: usize = 64 << 10;

/// The client beside the caller: its name, and how many calls it has under way.
fn others(flood: u32) -> [(String, Option<Job>, usize); 4] {
    let [add, upload] = [Call::Add, Call::Upload(BODY)].map(|call| Some(Job::of(call)));
    [
        ("nobody".into(), None, 0),
        ("1 call".into(), add, 1),
        (format!("{flood} calls"), add, flood as usize),
        (format!("{flood} of 64KiB"), upload, flood as usize),
    ]
}

pub(super) fn measure(run: &Run<'_>) -> Result<Vec<Record>, AnyError> {
    let Run { arguments, setup, bar, .. } = *run;
    let (_server, port) = run.server("fair")?;
    let polite = Clients::connect(&port, setup, 1)?;
    let mut other = Calling::start(&port, setup, 1)?;
    let share = run.share();
    let mut records = Vec::new();
    for round in 1..=arguments.rounds {
        for (beside, job, callers) in others(arguments.flood) {
            if let Some(job) = job {
                // Until after the caller is done, its first quarter included.
                other.begin(job, callers, share + share / 2)?;
                std::thread::sleep(share / 16);
            }
            let figures = Figures::of(&polite, Job::of(Call::Add), 1, share)?;
            records.push(Record {
                part: "fair",
                peer: setup.to_string(),
                beside,
                polite: figures,
                other_per_s: if job.is_some() { other.end()? } else { 0.0 },
                round,
            });
        }
        bar.inc(1);
    }
    Ok(records)
}

pub(super) fn table(records: &[Record]) -> String {
    let mut table = Table::new([
        "peer",
        "beside",
        "p50",
        "to alone",
        "to beside 1",
        "p99",
        "to alone",
        "to beside 1",
        "calls/s",
        "the other's",
    ]);
    for of in records.chunk_by(|one, other| one.peer == other.peer) {
        // Alone, beside one call, and so on.
        let mut so_far = Vec::new();
        for beside in firsts(of.iter().map(|record| &*record.beside)) {
            let rounds = of.iter().filter(|record| record.beside == beside);
            let polite = Figures::median(rounds.clone().map(|record| record.polite));
            let other = lpc_cli::measure::median(rounds.map(|record| record.other_per_s as u64));
            so_far.push(polite);
            let mut cells = vec![of[0].peer.clone(), beside.to_owned()];
            for figure in
                [(|figures: &Figures| figures.p50_ns) as fn(&Figures) -> u64, |figures| figures.p99_ns]
            {
                cells.push(time(figure(&polite)));
                for base in [0, 1] {
                    let base = so_far.get(base).map(figure);
                    cells.push(base.map_or("-".into(), |base| ratio(figure(&polite), base)));
                }
            }
            cells.push((polite.per_s as u64).to_string());
            cells.push(other.unwrap_or_default().to_string());
            table.row(cells);
        }
    }
    format!("\none caller beside another client\n\n{table}")
}
