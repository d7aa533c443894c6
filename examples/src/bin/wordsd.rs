//! The idea: a daemon. It serves a port for any client, tells the service manager when it is ready, and ends
//! as it should when it is told to: calls that run are answered first.
//!
//! ```text
//! wordsd --port words          serves
//! wordsd --port words FILE     has the words of a file counted
//! ```
//!
//! A unit for systemd, `~/.config/systemd/user/wordsd.service`. `Type=notify` makes those who need the
//! service wait until clients are served; `TimeoutStopSec` is longer than the server's `shutdown_timeout`,
//! which is 30 s:
//!
//! ```text
//! [Service]
//! Type=notify
//! ExecStart=%h/.cargo/bin/wordsd --port words
//! Restart=on-failure
//! TimeoutStopSec=40
//!
//! [Install]
//! WantedBy=default.target
//! ```

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use clap::Parser;
use signal_hook::consts::TERM_SIGNALS;
use signal_hook::iterator::Signals;

/// What is served. The program is its own client, too.
#[lpc::service]
pub trait Words {
    /// Counts the words of the file at an absolute path.
    fn count(&self, file: &Path) -> lpc::Result<u64>;
}

struct Counter;

impl Words for Counter {
    fn count(&self, file: &Path) -> lpc::Result<u64> {
        let text = fs::read(file)?;
        Ok(text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count() as u64)
    }
}

/// Counts words, as a service.
///
/// Without FILE it serves until SIGTERM or SIGINT, then answers the calls that run, and ends with exit status
/// 0. With FILE it asks the server, which has to be able to read the file, and prints the count.
#[derive(Debug, Parser)]
#[command(name = "wordsd")]
struct Args {
    /// The port: a name in the user's runtime directory, or an absolute path
    #[arg(long, default_value = "words")]
    port: PathBuf,

    /// What to count the words of
    file: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Args { port, file } = Args::parse();
    let done = match file {
        None => serve(&port),
        Some(file) => ask(&port, &file),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "wordsd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(port: &Path) -> lpc::Result<()> {
    // Before anybody knows of the server: from here on the signals do not end the process.
    let mut signals = Signals::new(TERM_SIGNALS)?;
    let server = lpc::blocking::Server::bind(port)?;
    let handle = server.handle();
    thread::spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            handle.shutdown();
        }
        // To ask twice means to insist.
        if signals.next().is_some() {
            handle.shutdown_now();
        }
    });
    server.serve(Counter)
}

fn ask(port: &Path, file: &Path) -> lpc::Result<()> {
    let words = WordsClient::connect(port)?;
    let count = words.count(&std::path::absolute(file)?)?;
    writeln!(io::stdout(), "{count}")?;
    Ok(())
}
