//! Cost by size on either lane.

use std::time::{Duration, Instant};

use lpc::Threshold;

use crate::service::blocking::{Work, WorkClient};
use crate::service::{self, Pinning, Serving, sum};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Rounds: in each, every size is measured once on each lane, one after the other
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Both processes on one CPU, each on its own, or wherever the system puts them
    #[arg(long, value_enum, default_value = "free")]
    pin: Pinning,
    /// The largest size
    #[arg(long, default_value_t = 16 << 20)]
    largest: u64,
}

/// One lane: a client and a service whose thresholds allow no other.
struct Lane {
    client: WorkClient,
    _child: Serving,
}

impl Lane {
    fn new(threshold: Threshold, pin: Pinning) -> lpc::Result<Self> {
        let mut command = service::command(false, threshold)?;
        if let Some(cpu) = pin.service_cpu() {
            command.args(["--cpu", &cpu.to_string()]);
        }
        let (client, child) = WorkClient::builder().threshold(threshold).spawn(&mut command)?;
        Ok(Self { client, _child: Serving(child) })
    }

    /// Time of one upload and of one download of this size; the receiver reads every byte.
    fn measure(&self, bytes: &[u8], expected: u64, calls: u32) -> lpc::Result<[Duration; 2]> {
        let started = Instant::now();
        for _ in 0..calls {
            assert_eq!(self.client.upload(bytes)?, expected);
        }
        let upload = started.elapsed() / calls;
        let started = Instant::now();
        for call in 0..calls {
            let bytes = self.client.download(bytes.len() as u64, call as u8)?;
            std::hint::black_box(sum(&bytes));
        }
        Ok([upload, started.elapsed() / calls])
    }
}

pub(crate) fn run(arguments: &Arguments) -> lpc::Result<()> {
    let lanes = [Lane::new(Threshold::OFF, arguments.pin)?, Lane::new(Threshold::ALWAYS, arguments.pin)?];
    arguments.pin.pin_caller()?;
    let sizes: Vec<u64> = std::iter::successors(Some(256), |size| Some(size * 2))
        .take_while(|size| *size <= arguments.largest)
        .collect();
    // By size, lane, direction.
    let mut times: Vec<[[Vec<Duration>; 2]; 2]> = sizes.iter().map(|_| Default::default()).collect();
    for round in 0..=arguments.rounds {
        eprint!("\rround {round} of {} ", arguments.rounds);
        for (size, times) in sizes.iter().zip(&mut times) {
            let bytes: Vec<u8> = (0..*size).map(|at| (at * 7) as u8).collect();
            let (expected, calls) = (sum(&bytes), ((8 << 20) / size).clamp(4, 200) as u32);
            for (lane, times) in lanes.iter().zip(times) {
                let measured = lane.measure(&bytes, expected, calls)?;
                if round > 0 {
                    times.iter_mut().zip(measured).for_each(|(times, time)| times.push(time));
                }
            }
        }
    }
    eprintln!();
    println!(
        "{:?}: medians of {} interleaved rounds, microseconds a call, every byte read\n",
        arguments.pin, arguments.rounds
    );
    println!("|     bytes | upload: socket | mapping | ratio | download: socket | mapping | ratio |");
    println!("|----------:|---------------:|--------:|------:|-----------------:|--------:|------:|");
    for (size, [socket, mapping]) in sizes.iter().zip(&mut times) {
        let [up, down] = [0, 1].map(|direction| {
            let [socket, mapping] =
                [&mut socket[direction], &mut mapping[direction]].map(|times| median(times));
            (socket, mapping, mapping / socket)
        });
        println!(
            "| {size:>9} | {:>14.1} | {:>7.1} | {:>5.2} | {:>16.1} | {:>7.1} | {:>5.2} |",
            up.0, up.1, up.2, down.0, down.1, down.2
        );
    }
    Ok(())
}

/// In microseconds.
fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}
