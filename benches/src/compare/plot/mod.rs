//! Pictures of the records: bodies by size, and calls.
//!
//! # Layout
//!
//! - `kind`: which peers are lpc's, which are floors, which rivals; and which of them fit into one picture.
//! - `lines`: cost against size.
//! - `bars`: a bar for each peer.

mod bars;
mod kind;
mod lines;

use std::fs;
use std::path::Path;

use lpc_cli::measure::Record;

use super::peer::Result;

/// Writes what can be drawn of these records, each picture into a file of its own, and says which.
pub(super) fn write(records: &[Record], directory: &Path) -> Result<()> {
    let pictures = [
        ("upload", lines::svg(records, "upload")),
        ("download", lines::svg(records, "download")),
        ("add", bars::svg(records, "add")),
        ("mixed", bars::svg(records, "mixed")),
        ("add64", bars::svg(records, "add64")),
    ];
    for (name, svg) in pictures {
        let Some(svg) = svg else { continue };
        let path = directory.join(name).with_extension("svg");
        fs::write(&path, svg).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        eprintln!("{}", path.display());
    }
    Ok(())
}

/// What differs from class to class: of each kind a hue, of its peers shades.
const STYLE: [&str; 2] = [
    "  .lpc-0, .lpc { stroke: #0550ae; fill: #0550ae }
  .lpc-1 { stroke: #0b9bb5; fill: #0b9bb5 }
  .lpc-2 { stroke: #1a7f37; fill: #1a7f37 }
  .lpc-3 { stroke: #8250df; fill: #8250df }
  .lpc-4 { stroke: #4d8dff; fill: #4d8dff }
  .lpc-5 { stroke: #00bfa0; fill: #00bfa0 }
  .floor-0, .floor-1, .floor-2, .floor-3, .floor-4, .floor-5, .floor { stroke: #6e7781; fill: #6e7781 }
  .rival-0, .rival { stroke: #bc4c00; fill: #bc4c00 }
  .rival-1 { stroke: #cf222e; fill: #cf222e }
  .rival-2 { stroke: #c2185b; fill: #c2185b }
  .rival-3 { stroke: #9a6700; fill: #9a6700 }
  .rival-4 { stroke: #7d2a1a; fill: #7d2a1a }
  .rival-5 { stroke: #e3782f; fill: #e3782f }
  .floor-0 { stroke-dasharray: 7 3 }
  .floor-1 { stroke-dasharray: 2 3 }
  .floor-2 { stroke-dasharray: 9 3 2 3 }
  .floor-3 { stroke-dasharray: 4 2 }
  .floor-4 { stroke-dasharray: 12 4 }
  .floor-5 { stroke-dasharray: 1 2 }
  circle[class] { stroke-dasharray: none }
",
    "    .lpc-0, .lpc { stroke: #58a6ff; fill: #58a6ff }
    .lpc-1 { stroke: #39c5cf; fill: #39c5cf }
    .lpc-2 { stroke: #3fb950; fill: #3fb950 }
    .lpc-3 { stroke: #bc8cff; fill: #bc8cff }
    .lpc-4 { stroke: #a5d6ff; fill: #a5d6ff }
    .lpc-5 { stroke: #7ee2b8; fill: #7ee2b8 }
    .floor-0, .floor-1, .floor-2, .floor-3, .floor-4, .floor-5, .floor { stroke: #9198a1; fill: #9198a1 }
    .rival-0, .rival { stroke: #f0883e; fill: #f0883e }
    .rival-1 { stroke: #ff7b72; fill: #ff7b72 }
    .rival-2 { stroke: #f778ba; fill: #f778ba }
    .rival-3 { stroke: #d29922; fill: #d29922 }
    .rival-4 { stroke: #ffb199; fill: #ffb199 }
    .rival-5 { stroke: #d2691e; fill: #d2691e }
",
];

#[cfg(test)]
mod tests {
    use lpc_cli::measure::Pinning;

    use super::*;

    fn record(work: &str, peer: &str, size: u64, p50_ns: u64) -> Record {
        Record {
            work: work.into(),
            peer: peer.into(),
            pinning: Pinning::Together,
            hogs: 0,
            size,
            p50_ns,
            p99_ns: p50_ns,
            per_s: 1e9 / p50_ns as f64,
            cpu_ns: 1,
            rss_kib: 1,
            round: 1,
        }
    }

    #[test]
    fn each_kind_of_peer_has_lines_of_its_own_and_those_that_coincide_are_one() {
        let costs = [
            ("raw vec", 4_000),
            ("lpc blocking", 5_000),
            ("lpc blocking quick", 5_100),
            ("elsewhere", 50_000),
        ];
        let of = |(peer, cost)| [record("upload", peer, 4096, cost), record("upload", peer, 65536, 3 * cost)];
        let records: Vec<_> = costs.into_iter().flat_map(of).collect();
        let svg = lines::svg(&records, "upload").unwrap();
        let drawn = |class| svg.matches(&format!("class=\"{class} line\"")).count();
        // Each stands in the legend as well.
        assert_eq!(["floor-0", "lpc-0", "rival-0", "lpc-1"].map(drawn), [2, 2, 2, 0], "{svg}");
        assert!(svg.contains("≈ lpc blocking quick"), "{svg}");
        assert_eq!(lines::svg(&records, "download"), None);
    }

    #[test]
    fn a_bar_is_the_longer_the_greater_its_figure_and_has_it_beside() {
        let records = [record("add", "lpc blocking", 0, 5_000), record("add", "elsewhere", 0, 50_000)];
        let svg = bars::svg(&records, "add").unwrap();
        let width = |class: &str| -> f64 {
            let (_, bar) = svg.split_once(&format!("<rect class=\"{class}\"")).unwrap();
            let (_, width) = bar.split_once("width=\"").unwrap();
            width.split_once('"').unwrap().0.parse().unwrap()
        };
        assert!(width("rival") > width("lpc"), "{svg}");
        assert!(svg.contains(">5.00 µs<") && svg.contains(">50.0 µs<"), "{svg}");
    }
}
