//! Cost against size, as SVG, and as PNG: a panel for each comparison, a column for each pinning.

use std::fmt::Write;

use lpc::Threshold;
use lpc_cli::measure::{firsts, size, time};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};

use super::advice::Comparison;
use super::curve::Crossover;
use super::report::crossing;
use super::scale::Scale;
use crate::Result;

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

/// Classes instead of attributes, so that a reader's dark mode is one rule each.
const STYLE: &str = "
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .title { font-size: 17px; font-weight: 600 }
  .panel { font-weight: 600 }
  .faint { fill: #59636e }
  .paper { fill: #ffffff }
  .grid { stroke: #d1d9e0; stroke-width: 1; fill: none }
  .socket { stroke: #b35900; fill: #b35900 }
  .mapping { stroke: #0969da; fill: #0969da }
  .line { fill: none; stroke-width: 2; stroke-linejoin: round }
  .crossover { stroke: #1a7f37; stroke-width: 1.5 }
  .spread { fill: #1a7f37; fill-opacity: 0.15 }
  .crossing { fill: #1a7f37; font-weight: 600 }
  .built-in { stroke: #59636e; stroke-width: 1; stroke-dasharray: 3 4 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .faint { fill: #9198a1 }
    .paper { fill: #0d1117 }
    .grid { stroke: #3d444d }
    .socket { stroke: #f0883e; fill: #f0883e }
    .mapping { stroke: #58a6ff; fill: #58a6ff }
    .line { fill: none }
    .crossover { stroke: #3fb950 }
    .spread { fill: #3fb950 }
    .crossing { fill: #3fb950 }
    .built-in { stroke: #9198a1 }
  }
";

/// The whole picture.
pub(super) fn svg(comparisons: &[Comparison]) -> String {
    let pinnings = firsts(comparisons.iter().map(|of| of.pinning));
    let kinds = firsts(comparisons.iter().map(|of| (of.receiver, of.bodies)));
    let (columns, rows) = (pinnings.len().max(1) as f64, kinds.len() as f64);
    let (width, height) =
        ((columns * (LEFT + WIDTH + RIGHT)).max(LEGEND), HEAD + rows * (TOP + HEIGHT + BOTTOM));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\">\n<title>What a call costs by the size of its body, on either lane</title>\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n"
    );
    head(&mut svg);
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
            let _ = writeln!(svg, "<g transform=\"translate({left} {top})\">");
            panel(&mut svg, of, across, up);
            svg.push_str("</g>\n");
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// The same as pixels, two for each unit of length. It has a font of its own, since there may be none here.
pub(super) fn png(svg: &str) -> Result<Vec<u8>> {
    const ZOOM: f32 = 2.0;
    let mut options = Options::default();
    let fonts = options.fontdb_mut();
    fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
    fonts.set_sans_serif_family("Ubuntu");
    let tree = Tree::from_str(svg, &options)?;
    let size = tree.size().to_int_size().scale_by(ZOOM).ok_or("a picture without a size")?;
    let mut pixels = Pixmap::new(size.width(), size.height()).ok_or("no memory for the picture")?;
    resvg::render(&tree, Transform::from_scale(ZOOM, ZOOM), &mut pixels.as_mut());
    Ok(pixels.encode_png()?)
}

fn head(svg: &mut String) {
    let _ = writeln!(
        svg,
        "<text class=\"title\" x=\"{LEFT}\" y=\"26\">What a call costs by the size of its body</text>"
    );
    let _ = writeln!(svg, "<rect class=\"spread\" x=\"{LEFT}\" y=\"59\" width=\"20\" height=\"14\"/>");
    let entries = [
        (0.0, 46, "socket line", "socket lane"),
        (124.0, 46, "mapping line", "mapping lane"),
        (258.0, 46, "built-in", "built-in threshold"),
        (0.0, 66, "crossover", "crossover, with the middle half of its rounds"),
    ];
    for (x, y, class, name) in entries {
        let x = LEFT + x;
        let _ = writeln!(
            svg,
            "<path class=\"{class}\" d=\"M{x} {y}h20\"/><text x=\"{}\" y=\"{}\">{name}</text>",
            x + 26.0,
            y + 4
        );
    }
}

/// One comparison, its area's upper left corner being the origin.
fn panel(svg: &mut String, of: &Comparison, across: Scale, up: Scale) {
    let _ = writeln!(
        svg,
        "<text class=\"panel\" x=\"0\" y=\"-8\">{}, receiver {}, {}</text>",
        of.bodies, of.receiver, of.pinning
    );
    for mark in across.sizes() {
        let x = across.at(mark);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{x:.1} 0V{HEIGHT}\"/>");
        let y = HEIGHT + 16.0;
        let _ = writeln!(
            svg,
            "<text class=\"faint\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{y}\">{}</text>",
            size(mark)
        );
    }
    for mark in up.times() {
        let y = HEIGHT - up.at(mark);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M0 {y:.1}H{WIDTH}\"/>");
        let _ = writeln!(
            svg,
            "<text class=\"faint\" text-anchor=\"end\" x=\"-6\" y=\"{:.1}\">{}</text>",
            y + 4.0,
            time(mark)
        );
    }
    let x = |crossover| match crossover {
        Crossover::Always => 0.0,
        Crossover::At(bytes) => across.at(bytes),
        Crossover::Never => WIDTH,
    };
    if let Some([from, to]) = of.spread() {
        let (from, width) = (x(from), x(to) - x(from));
        let _ = writeln!(
            svg,
            "<rect class=\"spread\" x=\"{from:.1}\" y=\"0\" width=\"{width:.1}\" height=\"{HEIGHT}\"/>"
        );
    }
    let built_in = across.at(Threshold::DEFAULT.as_bytes());
    let _ = writeln!(svg, "<path class=\"built-in\" d=\"M{built_in:.1} 0V{HEIGHT}\"/>");
    let crossover = of.median.crossover();
    let at = x(crossover);
    let _ = writeln!(svg, "<path class=\"crossover\" d=\"M{at:.1} 0V{HEIGHT}\"/>");
    let _ = writeln!(
        svg,
        "<text class=\"crossing\" text-anchor=\"middle\" x=\"{at:.1}\" y=\"{}\">{}</text>",
        HEIGHT + 34.0,
        escaped(&crossing(of, crossover))
    );
    line(
        svg,
        "socket",
        of.median.0.iter().map(|point| (across.at(point.size), HEIGHT - up.at(point.socket))),
    );
    line(
        svg,
        "mapping",
        of.median.0.iter().map(|point| (across.at(point.size), HEIGHT - up.at(point.mapping))),
    );
}

/// Through all these points, each of them marked.
fn line(svg: &mut String, class: &str, points: impl Iterator<Item = (f64, f64)> + Clone) {
    let places: Vec<_> = points.clone().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(svg, "<polyline class=\"{class} line\" points=\"{}\"/>", places.join(" "));
    for (x, y) in points {
        let _ = writeln!(svg, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>");
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use lpc_cli::measure::Pinning;

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
            let is_it = |pixel: &&resvg::tiny_skia::PremultipliedColorU8| {
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
