//! The tables: one a situation, with a line for each peer; and one of idle processes.

use std::fmt::Write;

use lpc_cli::measure::{Table, firsts, median, quantile, time};

use super::{Record, idle};

/// Where a ratio is marked: looking costs more than a tenth beside sleeping.
const TOO_MUCH: f64 = 1.1;

/// All tables of these records, as Markdown.
///
/// A figure is the median of the rounds; a ratio the median of the rounds' ratios, each of looking to
/// sleeping, so that more than 1 is worse.
pub(super) fn tables(records: &[Record]) -> String {
    let mut text = String::new();
    for situation in firsts(records.iter().map(|record| &*record.situation)) {
        let of: Vec<_> = records.iter().filter(|record| record.situation == situation).collect();
        let _ = writeln!(text, "\n{situation}, {}\n\n{}", of[0].pinning, table(&of));
    }
    text
}

fn table(records: &[&Record]) -> Table {
    let mut table = Table::new([
        "peer", "p50", "sleeping", "ratio", "p99", "sleeping", "ratio", "calls/s", "sleeping", "ratio",
        "CPU", "sleeping", "ratio",
    ]);
    for peer in firsts(records.iter().map(|record| &*record.peer)) {
        let of = |sleeps: bool| {
            records.iter().filter(move |record| record.peer == peer && record.sleeps == sleeps)
        };
        let mut cells = vec![peer.to_owned()];
        let mut add = |figure: fn(&Record) -> u64, show: fn(u64) -> String, is_better_where_more: bool| {
            for sleeps in [false, true] {
                let median = median(of(sleeps).map(|record| figure(record)));
                cells.push(median.map_or("-".into(), show));
            }
            // Rounds are in the same order in both.
            let ratios = of(false).zip(of(true)).map(|(looks, sleeps)| {
                let [looks, sleeps] = [looks, sleeps].map(|record| figure(record).max(1) as f64);
                if is_better_where_more { sleeps / looks } else { looks / sleeps }
            });
            cells.push(ratio(ratios.collect()));
        };
        add(|record| record.p50_ns, time, false);
        add(|record| record.p99_ns, time, false);
        add(|record| record.per_s as u64, |per_s| per_s.to_string(), true);
        add(|record| record.cpu_ns, time, false);
        table.row(cells);
    }
    table
}

/// The median. In bold where it is too much, and so are three quarters of the rounds; with a question mark
/// where these are not.
fn ratio(mut ratios: Vec<f64>) -> String {
    ratios.sort_unstable_by(f64::total_cmp);
    let [Some(low), Some(median)] = [0.25, 0.5].map(|at| quantile(&ratios, at)) else { return "-".into() };
    if low > TOO_MUCH {
        format!("**{median:.2}**")
    } else if median > TOO_MUCH {
        format!("{median:.2}?")
    } else {
        format!("{median:.2}")
    }
}

/// What idle processes used.
pub(super) fn idle(records: &[idle::Record]) -> String {
    let Some(first) = records.first() else { return String::new() };
    let mut table = Table::new(["peer", "waits", "side", "CPU", "context switches"]);
    for record in records {
        let waits = if record.sleeps { "sleeping" } else { "looking" };
        table.row([
            record.peer.clone(),
            waits.to_owned(),
            record.side.to_owned(),
            time(record.cpu_ns),
            record.switches.to_string(),
        ]);
    }
    format!("idle, for {} ms\n\n{table}", first.ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_marked_where_most_rounds_agree_that_it_is_too_much() {
        assert_eq!(ratio(vec![0.5, 1.05, 1.0, 0.9]), "0.90");
        assert_eq!(ratio(vec![1.3, 0.9, 1.2, 1.0, 1.4]), "1.20?");
        assert_eq!(ratio(vec![1.3, 1.15, 1.2, 1.0, 1.4]), "**1.20**");
        assert_eq!(ratio(Vec::new()), "-");
    }
}
