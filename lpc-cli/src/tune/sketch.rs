//! Cost against size, drawn in text.

use std::fmt::Write;

use lpc_cli::measure::{Scale, size, time};

use super::advice::Comparison;
use super::curve::Crossover;
use super::report::crossing;

/// In characters, of which each has two columns and four rows of dots.
const WIDTH: usize = 64;
const HEIGHT: usize = 14;

/// What stands to the left of the axis.
const MARGIN: usize = 8;

/// Both lanes, the socket's line dotted, and where they cross. Empty if nothing was measured.
pub(super) fn sketch(of: &Comparison) -> String {
    let points = &of.median.0;
    let costs = points.iter().flat_map(|point| [point.socket, point.mapping]);
    let across = Scale::of(points.iter().map(|point| point.size), (WIDTH * 2 - 1) as f64);
    let up = Scale::of(costs, (HEIGHT * 4 - 1) as f64);
    let (Some(across), Some(up)) = (across, up) else { return String::new() };
    let mut dots = Dots([[0; WIDTH]; HEIGHT]);
    let crossover = of.median.crossover();
    if let Crossover::At(bytes) = crossover {
        (0..HEIGHT * 4).step_by(4).for_each(|row| dots.set(across.at(bytes), row as f64));
    }
    let place = |size, cost| (across.at(size), up.at(cost));
    for two in points.windows(2) {
        dots.line(place(two[0].size, two[0].mapping), place(two[1].size, two[1].mapping), 1);
        dots.line(place(two[0].size, two[0].socket), place(two[1].size, two[1].socket), 3);
    }
    let mut labels = vec![String::new(); HEIGHT];
    for mark in up.times() {
        labels[HEIGHT - 1 - up.at(mark).round() as usize / 4] = time(mark);
    }
    let mut text = format!(
        "{}, {}, receiver {}: ── mapping lane, ┈┈ socket lane\n\n",
        of.pinning, of.bodies, of.receiver
    );
    for (label, row) in labels.iter().zip(&dots.0) {
        let axis = if label.is_empty() { '│' } else { '┤' };
        let row: String = row.iter().map(|dots| braille(*dots)).collect();
        let _ = writeln!(text, "{label:>MARGIN$} {axis}{}", row.trim_end());
    }
    let marks = across.sizes();
    let column = |bytes| across.at(bytes).round() as usize / 2;
    let is_marked = |at| if marks.iter().any(|mark| column(*mark) == at) { '┬' } else { '─' };
    let axis: String = (0..WIDTH).map(is_marked).collect();
    let _ = writeln!(text, "{:MARGIN$} └{axis}", "");
    let labels = marks.iter().map(|mark| (column(*mark), size(*mark)));
    let _ = writeln!(text, "{:MARGIN$}  {}", "", centred(labels));
    let label = crossing(of, crossover);
    let _ = match crossover {
        Crossover::At(bytes) => {
            writeln!(text, "{:MARGIN$}  {}", "", centred([(column(bytes), format!("▲ {label}"))].into_iter()))
        }
        Crossover::Always | Crossover::Never => writeln!(text, "{:MARGIN$}  crossover: {label}", ""),
    };
    text
}

/// Texts, each with its first or middle character at a column; what would stand on another is left out.
fn centred(texts: impl Iterator<Item = (usize, String)>) -> String {
    let mut line = String::new();
    for (column, text) in texts {
        let from = if text.starts_with('▲') { column } else { column.saturating_sub(text.len() / 2) };
        let used = line.chars().count();
        if from > used || used == 0 {
            line.extend(std::iter::repeat_n(' ', from - used));
            line.push_str(&text);
        }
    }
    line
}

/// The dots of each character, as bits of its Braille pattern.
struct Dots([[u8; WIDTH]; HEIGHT]);

impl Dots {
    /// Places outside are ignored.
    fn set(&mut self, across: f64, up: f64) {
        const BITS: [[u8; 2]; 4] = [[0x40, 0x80], [0x04, 0x20], [0x02, 0x10], [0x01, 0x08]];
        let (across, up) = (across.round() as usize, up.round() as usize);
        let row = (HEIGHT - 1).checked_sub(up / 4).and_then(|row| self.0.get_mut(row));
        if let Some(character) = row.and_then(|row| row.get_mut(across / 2)) {
            *character |= BITS[up % 4][across % 2];
        }
    }

    /// Every `step`th dot of a line.
    fn line(&mut self, from: (f64, f64), to: (f64, f64), step: usize) {
        let length = (to.0 - from.0).abs().max((to.1 - from.1).abs()).round().max(1.0) as usize;
        for dot in (0..=length).step_by(step) {
            let part = dot as f64 / length as f64;
            self.set(from.0 + (to.0 - from.0) * part, from.1 + (to.1 - from.1) * part);
        }
    }
}

/// The character with these dots.
fn braille(dots: u8) -> char {
    if dots == 0 { ' ' } else { char::from_u32(0x2800 + u32::from(dots)).unwrap_or(' ') }
}

#[cfg(test)]
mod tests {
    use lpc_cli::measure::Pinning;

    use super::super::curve::{Curve, Point};
    use super::super::route::{Bodies, Receiver};
    use super::*;

    fn comparison(costs: &[(u64, u64)]) -> Comparison {
        let points = costs.iter().zip(0..).map(|((socket, mapping), at)| Point {
            size: 256 << (2 * at),
            socket: *socket,
            mapping: *mapping,
        });
        Comparison {
            pinning: Pinning::Free,
            receiver: Receiver::Copying,
            bodies: Bodies::Requests,
            median: Curve(points.collect()),
            rounds: Vec::new(),
        }
    }

    #[test]
    fn lanes_that_cross_have_the_crossover_marked_below() {
        let text = sketch(&comparison(&[(5_000, 10_000), (10_000, 10_000), (100_000, 20_000)]));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2 + HEIGHT + 3, "{text}");
        assert!(lines[lines.len() - 1].trim_start().starts_with("▲ 1.0KiB"), "{text}");
        for label in ["100 µs", "5.00 µs", "256B", "4KiB", "free, requests, receiver copying"] {
            assert!(text.contains(label), "no {label} in {text}");
        }
        let arrow = lines[lines.len() - 1].chars().take_while(|character| *character == ' ').count();
        let above = |line: &str| line.chars().nth(arrow).is_some_and(|dots| dots > '\u{2800}');
        assert!(lines[2..2 + HEIGHT].iter().all(|line| above(line)), "the mark is no line up: {text}");
    }

    #[test]
    fn lanes_that_do_not_cross_are_drawn_too_and_the_text_says_so() {
        let text = sketch(&comparison(&[(5_000, 10_000), (10_000, 20_000)]));
        assert!(text.ends_with("crossover: >1KiB\n"), "{text}");
    }

    #[test]
    fn a_lone_size_and_none_at_all_are_no_trouble() {
        assert!(sketch(&comparison(&[(5_000, 10_000)])).contains("crossover: >256B"));
        assert_eq!(sketch(&comparison(&[])), "");
    }

    #[test]
    fn a_line_goes_from_its_begin_to_its_end() {
        let mut dots = Dots([[0; WIDTH]; HEIGHT]);
        dots.line((0.0, 0.0), (127.0, 55.0), 1);
        assert_eq!((dots.0[HEIGHT - 1][0] & 0x40, dots.0[0][WIDTH - 1] & 0x08), (0x40, 0x08));
        dots.set(1e9, 1e9); // Outside.
    }
}
