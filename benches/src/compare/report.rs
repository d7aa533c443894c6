//! The tables: one a work, pinning and number of hogs, with a line for each peer.

use std::fmt::Write;

use lpc_cli::measure::{self, Pinning, Record, Table, firsts, size, time};

/// All tables of these records, as Markdown. A figure is the median of its rounds.
pub(crate) fn tables(records: &[Record]) -> String {
    let mut text = String::new();
    for work in firsts(records.iter().map(|record| &*record.work)) {
        let of: Vec<_> = records.iter().filter(|record| record.work == work).collect();
        for (pinning, hogs) in firsts(of.iter().map(|record| (record.pinning, record.hogs))) {
            let of: Vec<_> = of
                .iter()
                .copied()
                .filter(|record| (record.pinning, record.hogs) == (pinning, hogs))
                .collect();
            let _ = writeln!(text, "\n{work}, {}\n\n{}", place(pinning, hogs), table(work, &of));
        }
    }
    text
}

/// Where the two processes ran, and beside how many hogs.
pub(super) fn place(pinning: Pinning, hogs: u32) -> String {
    match hogs {
        0 => pinning.to_string(),
        1 => format!("{pinning}, beside a hog"),
        _ => format!("{pinning}, beside {hogs} hogs"),
    }
}

fn table(work: &str, records: &[&Record]) -> Table {
    let sizes = firsts(records.iter().map(|record| record.size));
    let peers = firsts(records.iter().map(|record| &*record.peer));
    let median = |peer: &str, size: u64, figure: fn(&Record) -> u64| {
        let of = records.iter().filter(|record| record.peer == peer && record.size == size);
        measure::median(of.map(|record| figure(record)))
    };
    if matches!(work, "upload" | "download") {
        let heading = [work.to_owned()].into_iter().chain(sizes.iter().map(|bytes| size(*bytes)));
        let mut table = Table::new(heading);
        for peer in peers {
            let cells =
                sizes.iter().map(|size| median(peer, *size, |record| record.p50_ns).map_or("-".into(), time));
            table.row([peer.to_owned()].into_iter().chain(cells));
        }
        return table;
    }
    let mut table = Table::new([work, "clients", "p50", "p99", "calls/s", "CPU a call", "memory, KiB"]);
    for size in sizes {
        for peer in &peers {
            let figure = |figure| median(peer, size, figure);
            let Some(p50) = figure(|record| record.p50_ns) else { continue };
            let at = |figure: Option<u64>| figure.unwrap_or_default();
            table.row([
                (*peer).to_owned(),
                size.max(1).to_string(),
                time(p50),
                time(at(figure(|record| record.p99_ns))),
                at(figure(|record| record.per_s as u64)).to_string(),
                time(at(figure(|record| record.cpu_ns))),
                at(figure(|record| record.rss_kib)).to_string(),
            ]);
        }
    }
    table
}
