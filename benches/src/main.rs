//! What a call costs, measured between two processes.
//!
//! # Layout
//!
//! - `compare`: lpc beside its floors and its rivals. In it also `calls` and `instructions`, of the same peers.
//! - `service`: the service under measurement, as the child process serves it.
//! - `memory`: what a server holds while its clients are idle, and after they have gone.
//! - `soak`: clients and servers that are killed, for as long as one likes, and what those hold that are not.
//! - `stress`: millions of calls of mixed sizes from many threads or tasks, every reply checked.
//! - `compile`: what the attribute adds to a build, in seconds and bytes.

mod compare;
mod compile;
mod memory;
mod service;
mod soak;
mod stress;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::compare::{calls, instructions};

/// Measures lpc between two processes.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    /// lpc beside its floors and its rivals, on the same work
    Compare(compare::Arguments),
    /// Instructions a call, on either side, as valgrind's callgrind counts them
    Instructions(instructions::Arguments),
    /// What a server holds while its clients are idle, and after they have gone
    Memory(memory::Arguments),
    /// Calls of mixed sizes around the threshold, from threads or tasks, every reply checked
    Stress(stress::Arguments),
    /// Mixed calls while clients and servers are killed: whether what the others hold grows
    Soak(soak::Arguments),
    /// Calls of one peer and nothing else, for strace and perf
    Calls(calls::Arguments),
    /// What `#[service]` adds to the time of a build and to the size of the program
    Compile(compile::Arguments),
    /// The other process of `stress`
    #[command(hide = true)]
    Serve {
        /// With the async driver
        #[arg(long)]
        tokio: bool,
    },
    /// The other process of one peer of `compare`, `calls` and `instructions`
    #[command(hide = true)]
    ServePeer(compare::Served),
    /// The other process of `memory`
    #[command(hide = true)]
    ServePort(memory::Served),
    /// A client of `soak`
    #[command(hide = true)]
    SoakClient(soak::Calling),
}

fn main() -> ExitCode {
    let done: Result<(), Box<dyn Error + Send + Sync>> = match Arguments::parse().work {
        Work::Compare(arguments) => compare::run(&arguments),
        Work::ServePeer(served) => compare::serve(&served),
        Work::Instructions(arguments) => instructions::run(&arguments),
        Work::Memory(arguments) => memory::run(&arguments).map_err(Into::into),
        Work::Stress(arguments) => stress::run(&arguments).map_err(Into::into),
        Work::Soak(arguments) => soak::run(&arguments).map_err(Into::into),
        Work::Calls(arguments) => calls::run(&arguments),
        Work::Compile(arguments) => compile::run(&arguments).map_err(Into::into),
        Work::Serve { tokio } => service::serve(tokio).map_err(Into::into),
        Work::ServePort(served) => memory::serve(&served).map_err(Into::into),
        Work::SoakClient(calling) => soak::call(&calling).map_err(Into::into),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("benches: {error}");
            ExitCode::FAILURE
        }
    }
}
