//! What a call costs, measured between two processes.
//!
//! # Layout
//!
//! - `service`: the service under measurement, as the child process serves it.
//! - `lanes`: cost by size on either lane, from which the default threshold comes.
//! - `stress`: millions of calls of mixed sizes from many threads or tasks, every reply checked.
//! - `calls`: a fixed number of equal calls, to be run under `strace -c -f` or `perf`.

mod calls;
mod lanes;
mod service;
mod stress;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures lpc between two processes.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    /// Cost of a call by size of its argument or result, on the socket lane and on the mapping lane
    Lanes(lanes::Arguments),
    /// Calls of mixed sizes around the threshold, from threads or tasks, every reply checked
    Stress(stress::Arguments),
    /// Equal calls, one after the other, for strace and perf
    Calls(calls::Arguments),
    /// The other process of all of these
    #[command(hide = true)]
    Serve {
        /// With the async driver
        #[arg(long)]
        tokio: bool,
        /// On this CPU only
        #[arg(long)]
        cpu: Option<usize>,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().work {
        Work::Lanes(arguments) => lanes::run(&arguments),
        Work::Stress(arguments) => stress::run(&arguments),
        Work::Calls(arguments) => calls::run(&arguments),
        Work::Serve { tokio, cpu } => service::serve(tokio, cpu),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("benches: {error}");
            ExitCode::FAILURE
        }
    }
}
