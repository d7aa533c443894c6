//! What is printed.

use std::fmt::Write;

use lpc::Threshold;
use lpc_cli::measure::{Pinning, Record, Table, firsts, median, size};

use super::advice::{self, Comparison};
use super::curve::{Crossover, Curve, Point};
use super::mechanisms::Limit;
use super::rounds::{Plan, Sample, Way};
use super::route::{Bodies, Lane, Receiver, Route};
use super::sketch::sketch;

/// The two lanes side by side: for each pinning, receiver and kind of bodies, in the order in which they were
/// measured.
pub(super) fn comparisons(samples: &[Sample]) -> Vec<Comparison> {
    let of_lanes = samples.iter().filter_map(|sample| match sample.way {
        Way::Lpc(route) => Some((route, &sample.record)),
        Way::Other(_) => None,
    });
    let samples: Vec<(Route, &Record)> = of_lanes.collect();
    let key = |(route, record): &(Route, &Record)| (record.pinning, route.receiver, route.bodies);
    let keys = firsts(samples.iter().map(key));
    let comparison = |of @ (pinning, receiver, bodies)| {
        let of: Vec<_> = samples.iter().filter(|sample| key(sample) == of).collect();
        let sizes = firsts(of.iter().map(|(_, record)| record.size));
        let rounds = firsts(of.iter().map(|(_, record)| record.round));
        let curve = |is_wanted: &dyn Fn(u32) -> bool| {
            let cost = |size, lane| {
                let of = of.iter().filter(|(route, record)| route.lane == lane && record.size == size);
                median(of.filter(|(_, record)| is_wanted(record.round)).map(|(_, record)| record.p50_ns))
            };
            let point = |size: &u64| {
                let (socket, mapping) = (cost(*size, Lane::Socket)?, cost(*size, Lane::Mapping)?);
                Some(Point { size: *size, socket, mapping })
            };
            Curve(sizes.iter().filter_map(point).collect())
        };
        let rounds = rounds.into_iter().map(|wanted| curve(&|round| round == wanted)).collect();
        Comparison { pinning, receiver, bodies, median: curve(&|_round| true), rounds }
    };
    keys.into_iter().map(comparison).collect()
}

/// Tables of costs, of crossovers, of thresholds; and how to set one.
pub(super) fn text(comparisons: &[Comparison], rounds: u32) -> String {
    let mut text = format!(
        "Microseconds a call, medians of {rounds} interleaved rounds; every byte is written on one side and read on the other.\n"
    );
    let pairs = firsts(comparisons.iter().map(|of| (of.pinning, of.receiver)));
    for (pinning, receiver) in pairs {
        let of: Vec<_> =
            comparisons.iter().filter(|of| (of.pinning, of.receiver) == (pinning, receiver)).collect();
        let _ = write!(text, "\n{pinning} ({}), receiver {receiver}\n\n{}", place(pinning), costs(&of));
    }
    // Of each pinning one drawing: the others look much like it, and `--plot` has them all.
    for pinning in firsts(comparisons.iter().map(|of| of.pinning)) {
        let first = comparisons.iter().find(|of| of.pinning == pinning);
        first.into_iter().for_each(|of| text.extend(["\n", &sketch(of)]));
    }
    let _ = write!(
        text,
        "\nThe mapping lane wins from this size on, by the medians of all rounds (and by those of each: the middle half of them from, to)\n\n{}",
        crossovers(comparisons)
    );
    let _ = write!(
        text,
        "\nThresholds, and how much more than the better lane they cost at worst\n\n{}",
        thresholds(comparisons)
    );
    let receivers = firsts(comparisons.iter().map(|of| of.receiver));
    let of = |receiver| comparisons.iter().filter(move |of| of.receiver == receiver).collect::<Vec<_>>();
    if receivers.iter().any(|receiver| advice::is_disturbed(&of(*receiver))) {
        text.push_str(DISTURBED);
    }
    for receiver in receivers {
        let does = match receiver {
            Receiver::Copying => "copies",
            Receiver::Trusting => "trusts the sender",
        };
        let _ =
            write!(text, "\nTo set it, where the receiver {does}:\n\n{}", settings(comparisons, receiver));
    }
    text
}

const DISTURBED: &str = "\nEven the recommended thresholds cost half as much again somewhere: other programs have disturbed the rounds.\n\
                         Measure again while the machine does nothing else, and without --quick.\n";

fn place(pinning: Pinning) -> &'static str {
    match pinning {
        Pinning::Together => "both processes on one CPU",
        Pinning::Apart => "each on a CPU of its own",
        Pinning::Free => "wherever the system puts them",
    }
}

/// A line a size.
fn costs(of: &[&Comparison]) -> Table {
    let columns =
        of.iter().flat_map(|of| [format!("{}: socket", of.bodies), "mapping".into(), "ratio".into()]);
    let mut table = Table::new(["size".to_owned()].into_iter().chain(columns));
    let points = of.first().map_or(&[][..], |of| &of.median.0);
    for (line, point) in points.iter().enumerate() {
        let cells = of.iter().filter_map(|of| of.median.0.get(line)).flat_map(|point| {
            let [socket, mapping] = [point.socket, point.mapping].map(microseconds);
            [socket, mapping, format!("{:.2}", point.ratio())]
        });
        table.row([size(point.size)].into_iter().chain(cells));
    }
    table
}

fn microseconds(nanoseconds: u64) -> String {
    format!("{:.1}", nanoseconds as f64 / 1e3)
}

/// Tables of what the system offers, beside lpc's lanes: for each pinning one, with no more than seven sizes.
/// Where a way has a limit, that stands instead of a figure.
pub(super) fn mechanisms(samples: &[Sample], plan: &Plan<'_>) -> String {
    let mut text = "\nWhat the system offers for requests, beside the lanes; every way but lpc's sleeps while it waits\n".to_owned();
    let sizes: Vec<u64> = plan.sizes.iter().copied().step_by(plan.sizes.len().div_ceil(7).max(1)).collect();
    let is_shown = |way: &Way| !matches!(way, Way::Lpc(Route { bodies: Bodies::Replies, .. }));
    let mut limits = String::new();
    for pinning in firsts(samples.iter().map(|sample| sample.record.pinning)) {
        let heading = [String::new()].into_iter().chain(sizes.iter().map(|bytes| size(*bytes)));
        let mut table = Table::new(heading);
        for way in plan.ways.iter().copied().filter(is_shown) {
            let limit = way.limit().ok().flatten();
            let cells = sizes.iter().map(|size| {
                let of = samples.iter().map(|sample| &sample.record).filter(|record| {
                    record.pinning == pinning
                        && record.peer == way.peer()
                        && record.work == Bodies::Requests.work()
                        && record.size == *size
                });
                let is_over = |limit: &Limit| *size > limit.bytes;
                match (median(of.map(|record| record.p50_ns)), limit.filter(is_over)) {
                    (Some(cost), _) => microseconds(cost),
                    (None, Some(limit)) => format!("max {}", self::size(limit.bytes)),
                    (None, None) => "-".into(),
                }
            });
            table.row([way.peer().to_owned()].into_iter().chain(cells));
        }
        let _ = write!(text, "\n{pinning} ({})\n\n{table}", place(pinning));
    }
    for way in &plan.ways {
        if let Ok(Some(limit)) = way.limit() {
            let _ = writeln!(limits, "  {}: {limit}", way.peer());
        }
    }
    text.extend(["\nLimits of the system here:\n\n", &limits]);
    text
}

/// A line a pinning.
fn crossovers(comparisons: &[Comparison]) -> Table {
    let kinds = firsts(comparisons.iter().map(|of| (of.receiver, of.bodies)));
    let columns = kinds.iter().map(|(receiver, bodies)| format!("{bodies}, {receiver}"));
    let mut table = Table::new([String::new()].into_iter().chain(columns));
    let pinnings = firsts(comparisons.iter().map(|of| of.pinning));
    for pinning in pinnings {
        let of = kinds.iter().filter_map(|kind| {
            comparisons.iter().find(|of| of.pinning == pinning && (of.receiver, of.bodies) == *kind)
        });
        table.row([pinning.to_string()].into_iter().chain(of.map(crossing_with_spread)));
    }
    table
}

fn crossing_with_spread(of: &Comparison) -> String {
    let crossing = crossing(of, of.median.crossover());
    match of.spread() {
        Some(spread) => {
            let [from, to] = spread.map(|crossover| self::crossing(of, crossover));
            format!("{crossing} ({from}, {to})")
        }
        None => crossing,
    }
}

/// In words.
pub(super) fn crossing(of: &Comparison, crossover: Crossover) -> String {
    match crossover {
        Crossover::Always => {
            of.median.0.first().map_or("all".into(), |first| format!("<={}", size(first.size)))
        }
        Crossover::Never => of.median.0.last().map_or("none".into(), |last| format!(">{}", size(last.size))),
        Crossover::At(bytes) => about(bytes),
    }
}

/// A size with two or three digits.
fn about(bytes: u64) -> String {
    let units = [("MiB", 1 << 20), ("KiB", 1 << 10)];
    let Some((name, unit)) = units.into_iter().find(|(_, unit)| bytes >= *unit) else {
        return format!("{bytes}B");
    };
    let value = bytes as f64 / unit as f64;
    let digits = usize::from(value < 9.95);
    format!("{value:.digits$}{name}")
}

/// A line a receiver and kind of bodies, and one for both kinds together.
fn thresholds(comparisons: &[Comparison]) -> Table {
    let mut table = Table::new([
        "for".to_owned(),
        "recommended".to_owned(),
        "at worst".to_owned(),
        format!("built in: {} at worst", Threshold::DEFAULT),
    ]);
    let receivers = firsts(comparisons.iter().map(|of| of.receiver));
    for receiver in receivers {
        for bodies in [Some(Bodies::Requests), Some(Bodies::Replies), None] {
            let of = among(comparisons, receiver, bodies);
            let Some(recommended) = advice::recommended(&of) else { continue };
            let name = bodies.map_or("both".to_owned(), |bodies| bodies.to_string());
            table.row([
                format!("{name}, {receiver}"),
                recommended.to_string(),
                loss(recommended, &of),
                loss(Threshold::DEFAULT, &of),
            ]);
        }
    }
    table
}

/// Those of one receiver, and of these bodies or of both kinds; none for both kinds if only one was measured.
fn among(comparisons: &[Comparison], receiver: Receiver, bodies: Option<Bodies>) -> Vec<&Comparison> {
    let of = comparisons.iter().filter(|of| of.receiver == receiver);
    let of: Vec<_> = of.filter(|of| bodies.is_none_or(|bodies| of.bodies == bodies)).collect();
    let is_one_kind = of.iter().all(|one| one.bodies == of[0].bodies);
    if bodies.is_none() && is_one_kind { Vec::new() } else { of }
}

fn loss(threshold: Threshold, of: &[&Comparison]) -> String {
    advice::worst(threshold, of).map_or_else(String::new, |loss| {
        format!("{:.0}% ({}, {})", loss.part * 100.0, size(loss.size), loss.pinning)
    })
}

/// The code, or the variable, that sets what is recommended.
fn settings(comparisons: &[Comparison], receiver: Receiver) -> String {
    let recommended = |bodies| advice::recommended(&among(comparisons, receiver, bodies));
    let mut text = String::new();
    if let Some(threshold) = recommended(Some(Bodies::Requests)) {
        let _ = writeln!(text, "  requests  the client's builder(){}", setter(threshold));
    }
    if let Some(threshold) = recommended(Some(Bodies::Replies)) {
        let _ = writeln!(text, "  replies   the server's builder(){}", setter(threshold));
    }
    if let Some(threshold) = recommended(None) {
        let _ = writeln!(
            text,
            "  both      LPC_THRESHOLD={threshold} in the environment, or #[lpc(threshold = \"{threshold}\")] on a method"
        );
    }
    text
}

fn setter(threshold: Threshold) -> String {
    match threshold {
        Threshold::OFF => ".threshold(Threshold::OFF)".into(),
        _ => format!(".threshold(Threshold::bytes({}))", threshold.as_bytes()),
    }
}
