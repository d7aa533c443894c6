//! Cost against size: a panel for each pinning, a line for each peer that can be told from the others.

use lpc_cli::measure::{Drawing, Pinning, Record, Scale, firsts};

use super::STYLE;
use super::kind::{Choice, choose, figures};

/// Of one panel's area of lines, and of what is around it.
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 22.0;
const BOTTOM: f64 = 36.0;
/// Of the title, and a panel's own.
const HEAD: f64 = 66.0;

/// Of the legend to the right, and how many characters fit into it.
const LEGEND: f64 = 250.0;
const CHARACTERS: usize = 34;
const LINE: f64 = 17.0;

/// `None` where nobody did this work.
pub(super) fn svg(records: &[Record], work: &str) -> Option<String> {
    let mut all = figures(records, work, |record| record.p50_ns);
    // It makes no call, and would take half the height.
    all.retain(|one| one.peer != "memcpy");
    let choices = choose(&all);
    let drawn = || choices.iter().flat_map(|choice| &choice.drawn).flat_map(|drawn| &drawn.figures.cells);
    let across = Scale::of(drawn().map(|((_, size), _)| *size), WIDTH)?;
    // One scale for all panels, so that they can be compared.
    let up = Scale::of(drawn().map(|(_, cost)| *cost), HEIGHT)?;
    let pinnings = firsts(records.iter().filter(|record| record.work == work).map(|record| record.pinning));
    let legend = legend(&choices);
    let panels = pinnings.len() as f64 * (LEFT + WIDTH + RIGHT);
    let height = (HEAD + HEIGHT + BOTTOM).max(HEAD + legend.len() as f64 * LINE);
    let title = format!("What one {work} costs by the size of its body");
    let mut drawing = Drawing::new([panels + LEGEND, height], &title, STYLE);
    drawing.text("title", [LEFT, 26.0], &title);
    for (column, pinning) in pinnings.into_iter().enumerate() {
        let left = column as f64 * (LEFT + WIDTH + RIGHT) + LEFT;
        drawing.at([left, HEAD], |drawing| {
            drawing.text("panel", [0.0, -10.0], place(pinning));
            drawing.grid(across, up);
            for choice in &choices {
                for (number, drawn) in choice.drawn.iter().enumerate() {
                    let cells = drawn.figures.cells.iter().filter(|((of, _), _)| *of == pinning);
                    let mut points: Vec<_> = cells.map(|((_, size), cost)| (*size, *cost)).collect();
                    points.sort_unstable();
                    let points = points.iter().map(|(size, cost)| [across.at(*size), HEIGHT - up.at(*cost)]);
                    drawing.line(&format!("{}-{number}", choice.kind.class()), points);
                }
            }
        });
    }
    drawing.at([panels + 8.0, HEAD], |drawing| {
        for (line, (class, text)) in legend.iter().enumerate() {
            let y = line as f64 * LINE;
            match class {
                Mark::Heading => drawing.text("panel", [0.0, y], text),
                Mark::Note => drawing.text("faint", [30.0, y], text),
                Mark::Peer(class) => {
                    drawing.line(class, [[0.0, y - 4.0], [24.0, y - 4.0]].into_iter());
                    drawing.text("", [30.0, y], text);
                }
            }
        }
    });
    Some(drawing.into_svg())
}

pub(super) fn place(pinning: Pinning) -> &'static str {
    match pinning {
        Pinning::Together => "both processes on one CPU",
        Pinning::Apart => "each on a CPU of its own",
        Pinning::Free => "left to the scheduler",
    }
}

enum Mark {
    Heading,
    Peer(String),
    Note,
}

/// Lines of text, from above.
fn legend(choices: &[Choice<'_>]) -> Vec<(Mark, String)> {
    let mut legend = Vec::new();
    for choice in choices {
        if !legend.is_empty() {
            legend.push((Mark::Note, String::new()));
        }
        legend.push((Mark::Heading, choice.kind.heading().to_owned()));
        for (number, drawn) in choice.drawn.iter().enumerate() {
            let class = format!("{}-{number}", choice.kind.class());
            legend.push((Mark::Peer(class), drawn.figures.peer.to_owned()));
            legend.extend(drawn.near.iter().map(|near| (Mark::Note, format!("≈ {near}"))));
        }
        if !choice.left_out.is_empty() {
            let names = wrapped("not drawn:", &choice.left_out);
            legend.extend(names.into_iter().map(|line| (Mark::Note, line)));
        }
    }
    legend
}

/// Names in lines that are short enough, none of them broken.
fn wrapped(begin: &str, names: &[&str]) -> Vec<String> {
    let mut lines = vec![begin.to_owned()];
    for (at, name) in names.iter().enumerate() {
        let comma = if at + 1 < names.len() { "," } else { "" };
        let last =
            lines.last_mut().filter(|line| line.chars().count() + name.chars().count() + 2 <= CHARACTERS);
        match last {
            Some(line) => line.extend([" ", name, comma]),
            None => lines.push(format!("{name}{comma}")),
        }
    }
    lines
}
