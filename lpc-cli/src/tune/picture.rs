//! Cost against size, as SVG: a panel for each comparison, a column for each pinning.

use lpc::Threshold;
use lpc_cli::measure::{Drawing, Scale, firsts};

use super::advice::Comparison;
use super::curve::Crossover;
use super::report::crossing;

/// Of one panel's area of lines, and of what is around it.
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 64.0;
const TOP: f64 = 34.0;
const RIGHT: f64 = 22.0;
const BOTTOM: f64 = 56.0;

/// Of the title and the legend above all panels, and what they take in width.
const HEAD: f64 = 82.0;
const LEGEND: f64 = 480.0;

/// On a light background, and what changes on a dark one.
const STYLE: [&str; 2] = [
    "  .socket { stroke: #b35900; fill: #b35900 }
  .mapping { stroke: #0969da; fill: #0969da }
  .crossover { stroke: #1a7f37; stroke-width: 1.5 }
  .spread { fill: #1a7f37; fill-opacity: 0.15 }
  .crossing { fill: #1a7f37; font-weight: 600 }
  .built-in { stroke: #59636e; stroke-width: 1; stroke-dasharray: 3 4 }
",
    "    .socket { stroke: #f0883e; fill: #f0883e }
    .mapping { stroke: #58a6ff; fill: #58a6ff }
    .crossover { stroke: #3fb950 }
    .spread { fill: #3fb950 }
    .crossing { fill: #3fb950 }
    .built-in { stroke: #9198a1 }
",
];

/// The whole picture.
pub(super) fn svg(comparisons: &[Comparison]) -> String {
    let pinnings = firsts(comparisons.iter().map(|of| of.pinning));
    let kinds = firsts(comparisons.iter().map(|of| (of.receiver, of.bodies)));
    let (columns, rows) = (pinnings.len().max(1) as f64, kinds.len() as f64);
    let size = [(columns * (LEFT + WIDTH + RIGHT)).max(LEGEND), HEAD + rows * (TOP + HEIGHT + BOTTOM)];
    let mut drawing = Drawing::new(size, "What a call costs by the size of its body, on either lane", STYLE);
    head(&mut drawing);
    let points = || comparisons.iter().flat_map(|of| &of.median.0);
    let across = Scale::of(points().map(|point| point.size), WIDTH);
    // One scale for all panels, so that they can be compared.
    let up = Scale::of(points().flat_map(|point| [point.socket, point.mapping]), HEIGHT);
    if let (Some(across), Some(up)) = (across, up) {
        for of in comparisons {
            let position = |at: Option<usize>| at.unwrap_or_default() as f64;
            let column = position(pinnings.iter().position(|pinning| *pinning == of.pinning));
            let row = position(kinds.iter().position(|kind| *kind == (of.receiver, of.bodies)));
            let left = column * (LEFT + WIDTH + RIGHT) + LEFT;
            let top = HEAD + row * (TOP + HEIGHT + BOTTOM) + TOP;
            drawing.at([left, top], |drawing| panel(drawing, of, across, up));
        }
    }
    drawing.into_svg()
}

fn head(drawing: &mut Drawing) {
    drawing.text("title", [LEFT, 26.0], "What a call costs by the size of its body");
    drawing.bar("spread", [LEFT, 59.0], [20.0, 14.0]);
    let entries = [
        (0.0, 46.0, "socket line", "socket lane"),
        (124.0, 46.0, "mapping line", "mapping lane"),
        (258.0, 46.0, "built-in", "built-in threshold"),
        (0.0, 66.0, "crossover", "crossover, with the middle half of its rounds"),
    ];
    for (x, y, class, name) in entries {
        let x = LEFT + x;
        drawing.path(class, format_args!("M{x} {y}h20"));
        drawing.text("", [x + 26.0, y + 4.0], name);
    }
}

/// One comparison, its area's upper left corner being the origin.
fn panel(drawing: &mut Drawing, of: &Comparison, across: Scale, up: Scale) {
    let title = format!("{}, receiver {}, {}", of.bodies, of.receiver, of.pinning);
    drawing.text("panel", [0.0, -8.0], &title);
    drawing.grid(across, up);
    let x = |crossover| match crossover {
        Crossover::Always => 0.0,
        Crossover::At(bytes) => across.at(bytes),
        Crossover::Never => WIDTH,
    };
    if let Some([from, to]) = of.spread() {
        drawing.bar("spread", [x(from), 0.0], [x(to) - x(from), HEIGHT]);
    }
    let built_in = across.at(Threshold::DEFAULT.as_bytes());
    drawing.path("built-in", format_args!("M{built_in:.1} 0V{HEIGHT}"));
    let crossover = of.median.crossover();
    let at = x(crossover);
    drawing.path("crossover", format_args!("M{at:.1} 0V{HEIGHT}"));
    drawing.centred("crossing", [at, HEIGHT + 34.0], &crossing(of, crossover));
    let points = || of.median.0.iter();
    drawing.line("socket", points().map(|point| [across.at(point.size), HEIGHT - up.at(point.socket)]));
    drawing.line("mapping", points().map(|point| [across.at(point.size), HEIGHT - up.at(point.mapping)]));
}

#[cfg(test)]
mod tests {
    use lpc_cli::measure::{Pinning, png};
    use resvg::tiny_skia::{Pixmap, PremultipliedColorU8};

    use super::super::curve::{Curve, Point};
    use super::super::route::{Bodies, Receiver};
    use super::*;

    fn comparison(pinning: Pinning, costs: &[(u64, u64)]) -> Comparison {
        let points = costs.iter().zip(0..).map(|((socket, mapping), at)| Point {
            size: 1024 << at,
            socket: *socket,
            mapping: *mapping,
        });
        let median = Curve(points.collect());
        let rounds = vec![median.clone()];
        Comparison { pinning, receiver: Receiver::Copying, bodies: Bodies::Requests, median, rounds }
    }

    /// The names of elements that are open at the end: none, if each is closed in its turn.
    fn left_open(svg: &str) -> Vec<&str> {
        let mut open = Vec::new();
        for (at, _) in svg.match_indices('<') {
            let element = svg[at + 1..].split_once('>').expect("an element is not ended").0;
            let name = element.trim_start_matches('/').split([' ', '/']).next().unwrap();
            assert!(element.matches('"').count().is_multiple_of(2), "quotes of {element:?}");
            if element.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "ends what is not open");
            } else if !element.ends_with('/') {
                open.push(name);
            }
        }
        open
    }

    #[test]
    fn each_comparison_has_a_panel_with_its_lines_its_points_and_its_crossover() {
        let costs = [(5_000, 9_000), (9_000, 9_000), (60_000, 20_000)];
        let svg = svg(&[comparison(Pinning::Together, &costs), comparison(Pinning::Apart, &costs)]);
        assert_eq!(left_open(&svg), Vec::<&str>::new());
        let count = |text: &str| svg.matches(text).count();
        assert_eq!((count("<polyline"), count("<circle"), count("class=\"spread\"")), (4, 12, 3));
        assert_eq!(count(">2.0KiB</text>"), 2, "{svg}");
        for text in
            ["requests, receiver copying, apart", "10.0 µs", "1KiB", "socket lane", "prefers-color-scheme"]
        {
            assert!(svg.contains(text), "no {text:?} in {svg}");
        }
    }

    #[test]
    fn as_pixels_it_has_the_same_size_twice_and_the_colours_of_both_lines() {
        let svg = svg(&[comparison(Pinning::Apart, &[(5_000, 9_000), (60_000, 20_000)])]);
        let pixels = Pixmap::decode_png(&png(&svg).unwrap()).unwrap();
        assert_eq!(
            (pixels.width(), pixels.height()),
            (2 * LEGEND as u32, 2 * (HEAD + TOP + HEIGHT + BOTTOM) as u32)
        );
        let has = |red, green, blue| {
            let is_it = |pixel: &&PremultipliedColorU8| {
                (pixel.red(), pixel.green(), pixel.blue()) == (red, green, blue)
            };
            pixels.pixels().iter().filter(is_it).count() > 100
        };
        assert!(has(0xff, 0xff, 0xff) && has(0xb3, 0x59, 0x00) && has(0x09, 0x69, 0xda));
    }

    #[test]
    fn lanes_that_do_not_cross_are_well_formed_too() {
        let svg = svg(&[comparison(Pinning::Free, &[(5_000, 9_000), (6_000, 9_000)])]);
        assert_eq!(left_open(&svg), Vec::<&str>::new());
        assert!(svg.contains("&gt;2KiB"), "{svg}");
        assert_eq!(left_open(&super::svg(&[])), Vec::<&str>::new());
    }
}
