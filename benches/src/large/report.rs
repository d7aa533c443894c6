//! What is said about the times that were measured.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use lpc::Threshold;
use lpc_cli::measure::Pinning;

use super::Direction;
use super::row::Row;

/// The time of each call.
#[derive(Default)]
pub(super) struct Samples(Vec<Duration>);

/// What is said about them.
pub(super) struct Figures {
    pub(super) p50: Duration,
    pub(super) p99: Duration,
}

impl Samples {
    /// Makes room now, so that none has to be made between measured calls.
    pub(super) fn reserve(&mut self, calls: usize) {
        self.0.reserve_exact(calls);
    }

    pub(super) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// By nearest rank; all zero where there are none.
    pub(super) fn figures(&mut self) -> Figures {
        self.0.sort_unstable();
        let at = |percent: usize| {
            let rank = (self.0.len() * percent).div_ceil(100);
            self.0.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Figures { p50: at(50), p99: at(99) }
    }
}

/// Where the JSON lines go, if anywhere.
pub(super) struct Sink {
    file: Option<File>,
    pin: Pinning,
    rounds: usize,
}

impl Sink {
    pub(super) fn open(path: Option<&Path>, pin: Pinning, rounds: usize) -> lpc::Result<Self> {
        let file = path.map(|path| File::options().append(true).create(true).open(path)).transpose()?;
        Ok(Self { file, pin, rounds })
    }

    pub(super) fn line(&mut self, work: &str, peer: &str, size: usize, figures: &Figures) -> lpc::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let (pinning, rounds) = (self.pin, self.rounds);
        let [p50, p99] = [figures.p50, figures.p99].map(|time| time.as_nanos());
        // None of the texts has anything in it that JSON would escape.
        writeln!(
            file,
            r#"{{"work":"{work}","peer":"{peer}","pinning":"{pinning}","size":{size},"p50_ns":{p50},"p99_ns":{p99},"rounds":{rounds}}}"#
        )?;
        Ok(())
    }
}

/// A size as people write it.
pub(super) fn size(bytes: usize) -> String {
    Threshold::bytes(bytes as u64).to_string()
}

/// The rows of lpc that stand beside their floor, by their places among `rows`.
fn ratios(direction: Direction, rows: &[Row]) -> impl Iterator<Item = (usize, usize)> {
    let place = |row| rows.iter().position(|other| *other == row);
    direction.floors().into_iter().filter_map(move |(row, floor)| Some((place(row)?, place(floor)?)))
}

pub(super) fn print_heading(direction: Direction, rows: &[Row]) {
    let mut columns = vec![format!("{:>6}", "size")];
    columns.extend(rows.iter().map(|row| format!("{:>9}", row.name())));
    columns.extend(
        ratios(direction, rows).map(|(row, floor)| format!("{} / {}", rows[row].name(), rows[floor].name())),
    );
    println!("| {} |", columns.join(" | "));
    let lines: Vec<_> =
        columns.iter().map(|column| format!("{:->width$}:", "", width = column.len() + 1)).collect();
    println!("|{}|", lines.join("|"));
}

/// One line of the table, with the median of each row.
pub(super) fn print_line(direction: Direction, rows: &[Row], len: usize, medians: &[Duration]) {
    let micros: Vec<_> = medians.iter().map(|time| time.as_secs_f64() * 1e6).collect();
    let mut columns = vec![format!("{:>6}", size(len))];
    for (row, micros) in rows.iter().zip(&micros) {
        columns.push(format!("{micros:>width$.1}", width = row.name().len().max(9)));
    }
    for (row, floor) in ratios(direction, rows) {
        let width = rows[row].name().len() + rows[floor].name().len() + 3;
        columns.push(format!("{:>width$.2}", micros[row] / micros[floor]));
    }
    println!("| {} |", columns.join(" | "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_of_the_nearest_rank() {
        let figures = |times: std::ops::RangeInclusive<u64>| {
            let mut samples = Samples(times.rev().map(Duration::from_nanos).collect());
            let Figures { p50, p99 } = samples.figures();
            (p50.as_nanos(), p99.as_nanos())
        };
        assert_eq!(figures(1..=1), (1, 1));
        assert_eq!(figures(1..=11), (6, 11));
        assert_eq!(figures(1..=1000), (500, 990));
    }
}
