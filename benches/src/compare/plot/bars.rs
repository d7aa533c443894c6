//! A bar for each peer, a column for each pinning.

use lpc_cli::measure::{Drawing, Record, Scale, firsts, time};

use super::STYLE;
use super::kind::{Kind, figures};
use super::lines::place;

/// Of the peers' names, a column of bars, and the figure beside a bar.
const NAMES: f64 = 190.0;
const WIDTH: f64 = 190.0;
const FIGURE: f64 = 76.0;
/// Of the title, and what stands above the bars.
const HEAD: f64 = 80.0;
/// Of a bar, with what is below it.
const LINE: f64 = 19.0;
/// From one kind to the next.
const GAP: f64 = 12.0;

/// `None` where nobody did this work.
pub(super) fn svg(records: &[Record], work: &str) -> Option<String> {
    // Of calls at once what counts is how many there are.
    let is_rate = work == "add64";
    let figure: fn(&Record) -> u64 =
        if is_rate { |record| record.per_s as u64 } else { |record| record.p50_ns };
    let mut all = figures(records, work, figure);
    let cells = || all.iter().flat_map(|one| one.cells.values().copied());
    // The shortest bar has a length, too.
    let shortest = cells().min()? / 2;
    let along = Scale::of(cells().chain([shortest]), WIDTH)?;
    let pinnings = firsts(records.iter().filter(|record| record.work == work).map(|record| record.pinning));
    let geometric = |cells: &mut dyn Iterator<Item = u64>| {
        let logarithms: Vec<_> = cells.map(|figure| (figure.max(1) as f64).ln()).collect();
        logarithms.iter().sum::<f64>() / logarithms.len().max(1) as f64
    };
    let sign = if is_rate { -1.0 } else { 1.0 };
    all.sort_by(|one, other| {
        let key = |of: &super::kind::Figures<'_>| sign * geometric(&mut of.cells.values().copied());
        Kind::of(one.peer).cmp(&Kind::of(other.peer)).then(key(one).total_cmp(&key(other)))
    });
    let kinds = firsts(all.iter().map(|one| Kind::of(one.peer)));
    let height = HEAD + all.len() as f64 * LINE + kinds.len() as f64 * GAP;
    let width = NAMES + pinnings.len() as f64 * (WIDTH + FIGURE);
    let title = match work {
        "add" => "A call of two integers: time of one call, median".to_owned(),
        "add64" => "64 calls of two integers at once: calls a second".to_owned(),
        _ => format!("A call of {work}: time of one call, median"),
    };
    let mut drawing = Drawing::new([width, height], &title, STYLE);
    drawing.text("title", [14.0, 26.0], &title);
    let better = if is_rate { "longer is better" } else { "shorter is better" };
    drawing.text("faint", [14.0, 46.0], &format!("logarithmic; {better}"));
    for (column, pinning) in pinnings.iter().enumerate() {
        let left = NAMES + column as f64 * (WIDTH + FIGURE);
        drawing.text("panel", [left, HEAD - 12.0], place(*pinning));
    }
    for (line, one) in all.iter().enumerate() {
        let kind = Kind::of(one.peer);
        let gaps = kinds.iter().position(|of| *of == kind).unwrap_or_default();
        let y = HEAD + line as f64 * LINE + gaps as f64 * GAP;
        drawing.ending("", [NAMES - 8.0, y + 11.0], one.peer);
        for (column, pinning) in pinnings.iter().enumerate() {
            let Some(figure) = one.cells.get(&(*pinning, 0)) else { continue };
            let left = NAMES + column as f64 * (WIDTH + FIGURE);
            let length = along.at(*figure);
            drawing.bar(kind.class(), [left, y], [length, LINE - 5.0]);
            let text = if is_rate { rate(*figure) } else { time(*figure) };
            drawing.text("faint", [left + length + 5.0, y + 11.0], &text);
        }
    }
    Some(drawing.into_svg())
}

/// Calls a second with three digits that mean something.
fn rate(calls: u64) -> String {
    let (value, unit) = if calls < 1_000_000 { (calls as f64 / 1e3, "k") } else { (calls as f64 / 1e6, "M") };
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {unit}")
}
