//! The program `lpc`.
//!
//! # Layout
//!
//! - `tune`: which threshold between the lanes suits this machine.

mod tune;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

type Failure = Box<dyn Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

/// Local procedure calls: what they cost on this machine.
#[derive(Parser)]
#[command(
    name = "lpc",
    version,
    after_help = "Exit status: 0 if all went well, 1 if not, 2 for a wrong usage."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Tune(tune::Arguments),
    /// The other process of one lane of `tune`
    #[command(hide = true)]
    ServeLane(tune::Served),
    /// The other process of one mechanism of `tune`
    #[command(hide = true)]
    ServeMechanism(tune::ServedByOther),
}

/// Whether standard output was closed by its reader, as `head` does, which is no failure.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the output any more")]
struct Unread;

/// Writes to standard output.
fn print(text: &str) -> Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Unread.into()),
        Err(error) => Err(format!("cannot write to standard output: {error}").into()),
        Ok(()) => Ok(()),
    }
}

/// Writes a line to standard error. Where even that cannot be written, the exit status says what there is to
/// say.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "lpc: {text}");
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Tune(arguments) => tune::run(&arguments),
        Command::ServeLane(served) => tune::serve(&served),
        Command::ServeMechanism(served) => tune::serve_other(&served),
    };
    match done {
        Err(error) if !error.is::<Unread>() => {
            say(&error.to_string());
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
