//! Large arguments and results: what lpc adds to the work itself.
//!
//! Every call produces bytes on one side and reads each of them on the other. Some rows do that through lpc; the raw
//! ones do it by hand, with the same producing and the same reading, and are the least that each way can cost.
//!
//! # Layout
//!
//! - `row`: the rows, and what each has to do.
//! - `raw`, `segment`: the rows without lpc, and their memory.
//! - `bodies`: `&[u8]` there, `Vec<u8>` back.
//! - `loans`: the same bytes as loans.
//! - `trust`: the one promise that some rows make to lpc.
//! - `report`: medians, the tables, JSON lines.

mod bodies;
mod loans;
mod raw;
mod report;
mod row;
mod segment;
mod trust;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use lpc::Threshold;

use self::report::{Samples, Sink};
use self::row::{Carrier, Row};
use crate::service::{self, Pinning};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Both processes on one CPU, each on its own, or wherever the system puts them
    #[arg(long, value_enum, default_value = "free")]
    pin: Pinning,
    /// One size, or the first and last of sizes each four times the one before
    #[arg(long, default_value = "4KiB..256MiB", value_parser = Sizes::parse)]
    sizes: Sizes,
    /// Rounds: in each, every size is measured on every row, one after the other
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// These rows, separated by commas, and no others
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Row>,
    /// Whether the bytes are produced and read. `none`: a loan of 1 GiB that is merely passed, beside a call of two
    /// integers, instead of sizes and rows
    #[arg(long, value_enum, default_value = "all")]
    touch: Touch,
    /// Appends the figures to this file, a line of JSON each
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Touch {
    All,
    None,
}

/// The other process of a row.
#[derive(clap::Args)]
pub(crate) struct Served {
    #[arg(long, value_enum)]
    row: Row,
    /// The largest body that will come
    #[arg(long)]
    largest: usize,
    #[arg(long)]
    cpu: Option<usize>,
}

#[derive(Clone, Debug)]
struct Sizes(Vec<usize>);

impl Sizes {
    fn parse(text: &str) -> Result<Self, String> {
        // A size is written as a threshold is.
        let size = |text: &str| match Threshold::parse(text) {
            Some(size) if size != Threshold::OFF && size != Threshold::ALWAYS => Ok(size.as_bytes()),
            _ => Err(format!("{text:?} is no size such as `64KiB`")),
        };
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        let (from, to) = (size(from)?, size(to)?);
        let sizes = std::iter::successors(Some(from), |size| size.checked_mul(4));
        let sizes: Vec<_> = sizes.take_while(|size| *size <= to).map(|size| size as usize).collect();
        if sizes.is_empty() { Err("the first size is above the last".into()) } else { Ok(Self(sizes)) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    /// The caller produces, the service reads.
    Upload,
    /// The service produces, the caller reads.
    Download,
}

/// About how long one row is measured at one size in one round, if not for a single call.
const SHARE: Duration = Duration::from_millis(20);

/// One row at one size in one direction.
struct Cell {
    row: usize,
    len: usize,
    direction: Direction,
    /// Calls to be measured in a round.
    calls: usize,
    samples: Samples,
}

pub(crate) fn run(arguments: &Arguments) -> lpc::Result<()> {
    let rounds = arguments.rounds as usize;
    let mut sink = Sink::open(arguments.json.as_deref(), arguments.pin, rounds)?;
    if arguments.touch == Touch::None {
        return loans::untouched(arguments.pin, rounds, &mut sink);
    }
    let rows = if arguments.only.is_empty() { Row::value_variants() } else { &arguments.only };
    let sizes = &arguments.sizes.0;
    let largest = sizes.iter().copied().max().expect("there is a size");
    let mut carriers = rows
        .iter()
        .map(|row| row.open(arguments.pin, largest))
        .collect::<lpc::Result<Vec<Box<dyn Carrier>>>>()?;
    arguments.pin.pin_caller()?;

    let mut cells = Vec::new();
    for len in sizes {
        for direction in [Direction::Upload, Direction::Download] {
            cells.extend((0..rows.len()).map(|row| Cell {
                row,
                len: *len,
                direction,
                calls: 0,
                samples: Samples::default(),
            }));
        }
    }
    let mut seeds = Seeds(0);
    for round in 0..=rounds {
        for cell in &mut cells {
            if cell.row == 0 {
                eprint!("\rround {round} of {rounds}, {:>6} ", report::size(cell.len));
            }
            let carrier = &mut *carriers[cell.row];
            // Whatever ran last has put other memory into the caches. And a row may have given memory back that it
            // had not used for seconds: what is measured is a row in use.
            cell.call(carrier, &mut seeds)?;
            if round == 0 {
                let started = Instant::now();
                while cell.calls == 0 || started.elapsed() < SHARE {
                    cell.call(carrier, &mut seeds)?;
                    cell.calls += 1;
                }
                cell.samples.reserve(cell.calls * rounds);
                continue;
            }
            for _ in 0..cell.calls {
                let time = cell.call(carrier, &mut seeds)?;
                cell.samples.push(time);
            }
        }
    }
    eprintln!();
    carriers.iter().for_each(|carrier| carrier.check());
    println!(
        "{:?}: microseconds a call, medians of all calls in {rounds} interleaved rounds, every byte produced and read",
        arguments.pin
    );
    for direction in [Direction::Upload, Direction::Download] {
        println!("\n{direction:?}\n");
        report::print_heading(direction, rows);
        for len in sizes {
            let line = cells.iter_mut().filter(|cell| cell.len == *len && cell.direction == direction);
            let mut medians = Vec::new();
            for cell in line {
                let work = match direction {
                    Direction::Upload => "large upload",
                    Direction::Download => "large download",
                };
                let figures = cell.samples.figures();
                sink.line(work, rows[cell.row].name(), cell.len, &figures)?;
                medians.push(figures.p50);
            }
            report::print_line(direction, rows, *len, &medians);
        }
    }
    Ok(())
}

impl Cell {
    /// The time of one call, whose result is checked.
    fn call(&self, carrier: &mut dyn Carrier, seeds: &mut Seeds) -> lpc::Result<Duration> {
        let seed = seeds.next();
        let started = Instant::now();
        let sum = match self.direction {
            Direction::Upload => carrier.upload(self.len, seed)?,
            Direction::Download => carrier.download(self.len, seed)?,
        };
        let time = started.elapsed();
        assert_eq!(sum, sum_of(self.len, seed), "the sum of the bytes that were read");
        Ok(time)
    }
}

/// What the bytes of a call are filled with: no call's are those of the call before, and none are 0, which memory may
/// be without anybody writing to it.
struct Seeds(u8);

impl Seeds {
    fn next(&mut self) -> u8 {
        self.0 = self.0 % u8::MAX + 1;
        self.0
    }
}

/// Writes every byte.
#[inline(never)]
fn produce(bytes: &mut [u8], seed: u8) {
    bytes.fill(seed);
}

/// What `service::sum` makes of `len` bytes of `seed`.
fn sum_of(len: usize, seed: u8) -> u64 {
    let word = u64::from_ne_bytes([seed; 8]);
    word.wrapping_mul(len as u64 / 8).wrapping_add(u64::from(seed) * (len as u64 % 8))
}

/// Serves one row to the process that started this one.
pub(crate) fn serve(served: &Served) -> lpc::Result<()> {
    if let Some(cpu) = served.cpu {
        service::pin(cpu)?;
    }
    served.row.serve(served.largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expected_sum_is_the_sum() {
        for len in [0, 1, 7, 8, 4096, 4099] {
            for seed in [1, 128, 255] {
                let mut bytes = vec![0; len];
                produce(&mut bytes, seed);
                assert_eq!(service::sum(&bytes), sum_of(len, seed));
            }
        }
    }

    #[test]
    fn seeds_change_with_each_call_and_are_never_zero() {
        let mut seeds = Seeds(0);
        let drawn: Vec<_> = (0..600).map(|_| seeds.next()).collect();
        assert!(drawn.windows(2).all(|two| two[0] != two[1]) && !drawn.contains(&0));
    }

    #[test]
    fn sizes_go_up_by_four_to_the_last() {
        let parse = |text| Sizes::parse(text).map(|sizes| sizes.0);
        assert_eq!(parse("4KiB..64KiB").unwrap(), [4 << 10, 16 << 10, 64 << 10]);
        assert_eq!(parse("1MiB").unwrap(), [1 << 20]);
        for text in ["", "off", "64KiB..4KiB", "4KiB..always", "4KiB.."] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
