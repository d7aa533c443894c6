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
use lpc_cli::measure::{Pinning, Seeds, Sizes, pin, sum_of};

use self::report::{Samples, Sink};
use self::row::{Carrier, Row};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Both processes on one CPU, each on its own, or wherever the system puts them
    #[arg(long, value_enum, default_value = "free")]
    pin: Pinning,
    /// One size, or the first and last of sizes each four times the one before
    #[arg(long, default_value = "4KiB..256MiB", value_parser = Sizes::<4>::parse)]
    sizes: Sizes<4>,
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
    let sizes: Vec<_> = arguments.sizes.as_slice().iter().map(|size| *size as usize).collect();
    let largest = arguments.sizes.largest() as usize;
    let mut carriers = rows
        .iter()
        .map(|row| row.open(arguments.pin, largest))
        .collect::<lpc::Result<Vec<Box<dyn Carrier>>>>()?;
    pin_caller(arguments.pin)?;

    let mut cells = Vec::new();
    for len in &sizes {
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
    let mut seeds = Seeds::default();
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
        "{}: microseconds a call, medians of all calls in {rounds} interleaved rounds, every byte produced and read",
        arguments.pin
    );
    for direction in [Direction::Upload, Direction::Download] {
        println!("\n{direction:?}\n");
        report::print_heading(direction, rows);
        for len in &sizes {
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
        let seed = seeds.next().expect("seeds do not end");
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

/// The CPUs of the caller and of the service, where they have one.
fn cpus(pinning: Pinning) -> lpc::Result<[Option<usize>; 2]> {
    Ok(pinning.cpus()?.ok_or_else(|| std::io::Error::other("there is one CPU only"))?)
}

/// Keeps the caller on its CPU, if it has one.
fn pin_caller(pinning: Pinning) -> lpc::Result<()> {
    let [cpu, _] = cpus(pinning)?;
    Ok(cpu.map_or(Ok(()), pin)?)
}

/// Serves one row to the process that started this one.
pub(crate) fn serve(served: &Served) -> lpc::Result<()> {
    if let Some(cpu) = served.cpu {
        pin(cpu)?;
    }
    served.row.serve(served.largest)
}
