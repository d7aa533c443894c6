//! What a call costs, measured between two processes.
//!
//! # Layout
//!
//! - `compare`: lpc beside its floors and its rivals. In it also `calls` and `instructions`, of the same
//!   peers.
//! - `load`: looking for the next message beside sleeping, while the machine is busy with other things.
//! - `service`: the service under measurement, as the child process serves it.
//! - `scale`: thousands of idle connections, hundreds of busy ones, and whether each gets its share.
//! - `memory`: what a server holds after its clients have gone.
//! - `soak`: clients and servers that are killed, for as long as one likes, and what those hold that are not.
//! - `stress`: millions of calls of mixed sizes from many threads or tasks, every reply checked.
//! - `compile`: what the attribute adds to a build, in seconds and bytes.
//! - `setup`, `server`, `caller`, `calling`, `hog`: what several of these share: drivers, a server's process,
//!   clients, a process of those, and processes that do nothing but use the CPU.

mod caller;
mod calling;
mod compare;
mod compile;
mod hog;
mod load;
mod memory;
mod scale;
mod server;
mod service;
mod setup;
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
    /// Looking for the next message beside sleeping at once, with the machine busy, callers that think, slow
    /// methods
    Load(load::Arguments),
    /// Many connections of one server: what idle ones cost, what busy ones carry, and whether each gets its
    /// share
    Scale(scale::Arguments),
    /// Instructions a call, on either side, as valgrind's callgrind counts them
    Instructions(instructions::Arguments),
    /// What a server holds after its clients have gone
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
    /// The other process of `memory` and `soak`, and the servers of `load` and `scale`
    #[command(hide = true)]
    ServePort(server::Served),
    /// A process of clients of such a server
    #[command(hide = true)]
    CallPort(calling::Called),
    /// A process of `load` that uses the CPU
    #[command(hide = true)]
    Hog,
    /// A client of `soak`
    #[command(hide = true)]
    SoakClient(soak::Calling),
}

type AnyError = Box<dyn Error + Send + Sync>;

type Done = Result<(), AnyError>;

fn main() -> ExitCode {
    let done: Done = match Arguments::parse().work {
        Work::Compare(arguments) => compare::run(&arguments),
        Work::ServePeer(served) => compare::serve(&served),
        Work::Load(arguments) => load::run(&arguments),
        Work::Scale(arguments) => scale::run(&arguments),
        Work::Instructions(arguments) => instructions::run(&arguments),
        Work::Memory(arguments) => memory::run(&arguments).map_err(Into::into),
        Work::Stress(arguments) => stress::run(&arguments).map_err(Into::into),
        Work::Soak(arguments) => soak::run(&arguments).map_err(Into::into),
        Work::Calls(arguments) => calls::run(&arguments),
        Work::Compile(arguments) => compile::run(&arguments).map_err(Into::into),
        Work::Serve { tokio } => service::serve(tokio).map_err(Into::into),
        Work::ServePort(served) => server::serve(&served).map_err(Into::into),
        Work::CallPort(called) => calling::run(&called).map_err(Into::into),
        Work::Hog => {
            hog::run();
            Ok(())
        }
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
