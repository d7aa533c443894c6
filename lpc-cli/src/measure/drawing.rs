//! Pictures of figures, as SVG and as PNG.

use std::fmt::{Display, Write};
use std::io;

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};

use super::{Scale, size, time};

/// An SVG picture, written from its begin to its end.
#[derive(Debug)]
pub struct Drawing(String);

/// Classes instead of attributes, so that a reader's dark mode is one rule each.
const LIGHT: &str = "
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .title { font-size: 17px; font-weight: 600 }
  .panel { font-weight: 600 }
  .faint { fill: #59636e }
  .paper { fill: #ffffff }
  .grid { stroke: #d1d9e0; stroke-width: 1; fill: none }
";
const DARK: &str = "
    text { fill: #f0f6fc }
    .faint { fill: #9198a1 }
    .paper { fill: #0d1117 }
    .grid { stroke: #3d444d }
";
/// Last, since it leaves of a class's colours the stroke alone.
const LINE: &str = ".line { fill: none; stroke-width: 2; stroke-linejoin: round }";

impl Drawing {
    /// A drawing of this size, with a title for readers who cannot see it. The rules of style are for the
    /// classes that it uses beside `title`, `panel`, `faint`, `grid` and `line`, on a light background and
    /// what changes on a dark one.
    pub fn new([width, height]: [f64; 2], title: &str, [light, dark]: [&str; 2]) -> Self {
        Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
             role=\"img\">\n<title>{}</title>\n<style>{LIGHT}{light}  {LINE}\n  @media (prefers-color-scheme: dark) {{{DARK}{dark}    \
             .line {{ fill: none }}\n  }}\n</style>\n<rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n",
            escaped(title)
        ))
    }

    /// Draws with the origin at this place.
    pub fn at(&mut self, [x, y]: [f64; 2], draw: impl FnOnce(&mut Self)) {
        self.push(format_args!("<g transform=\"translate({x:.1} {y:.1})\">"));
        draw(self);
        self.push("</g>");
    }

    /// Text that begins at this place.
    pub fn text(&mut self, class: &str, at: [f64; 2], text: &str) {
        self.anchored("start", class, at, text);
    }

    /// Text around this place.
    pub fn centred(&mut self, class: &str, at: [f64; 2], text: &str) {
        self.anchored("middle", class, at, text);
    }

    /// Text that ends at this place.
    pub fn ending(&mut self, class: &str, at: [f64; 2], text: &str) {
        self.anchored("end", class, at, text);
    }

    fn anchored(&mut self, anchor: &str, class: &str, [x, y]: [f64; 2], text: &str) {
        let text = escaped(text);
        self.push(format_args!(
            "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>"
        ));
    }

    /// A path, in SVG's own words.
    pub fn path(&mut self, class: &str, path: impl Display) {
        self.push(format_args!("<path class=\"{class}\" d=\"{path}\"/>"));
    }

    /// A rectangle.
    pub fn bar(&mut self, class: &str, [x, y]: [f64; 2], [width, height]: [f64; 2]) {
        self.push(format_args!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
        ));
    }

    /// A line through all these points, each of them marked.
    pub fn line(&mut self, class: &str, points: impl Iterator<Item = [f64; 2]> + Clone) {
        let places: Vec<_> = points.clone().map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
        self.push(format_args!("<polyline class=\"{class} line\" points=\"{}\"/>", places.join(" ")));
        for [x, y] in points {
            self.push(format_args!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>"));
        }
    }

    /// The grid for cost against size, marked below and to the left; its upper left corner is the origin.
    pub fn grid(&mut self, across: Scale, up: Scale) {
        let (width, height) = (across.length(), up.length());
        for mark in across.sizes() {
            let x = across.at(mark);
            self.path("grid", format_args!("M{x:.1} 0V{height}"));
            self.centred("faint", [x, height + 16.0], &size(mark));
        }
        for mark in up.times() {
            let y = height - up.at(mark);
            self.path("grid", format_args!("M0 {y:.1}H{width}"));
            self.ending("faint", [-6.0, y + 4.0], &time(mark));
        }
    }

    /// The whole.
    pub fn into_svg(mut self) -> String {
        self.push("</svg>");
        self.0
    }

    fn push(&mut self, element: impl Display) {
        let _ = writeln!(self.0, "{element}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The same as pixels, two for each unit of length. It has a font of its own, since there may be none here.
///
/// # Errors
///
/// If it is no SVG, or there is no memory for it.
pub fn png(svg: &str) -> io::Result<Vec<u8>> {
    const ZOOM: f32 = 2.0;
    let mut options = Options::default();
    let fonts = options.fontdb_mut();
    fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
    fonts.set_sans_serif_family("Ubuntu");
    let tree = Tree::from_str(svg, &options).map_err(io::Error::other)?;
    let size = tree.size().to_int_size().scale_by(ZOOM);
    let size = size.ok_or_else(|| io::Error::other("a picture without a size"))?;
    let mut pixels = Pixmap::new(size.width(), size.height())
        .ok_or_else(|| io::Error::other("no memory for the picture"))?;
    resvg::render(&tree, Transform::from_scale(ZOOM, ZOOM), &mut pixels.as_mut());
    pixels.encode_png().map_err(io::Error::other)
}
