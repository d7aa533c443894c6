//! The idea: many calls in flight on one connection, to a process that may die.
//!
//! `search PATTERN DIR` counts matching lines in each file of a tree, as `LC_ALL=C grep -rcaH -E PATTERN DIR`
//! does. Regular expressions of strangers and files of strangers meet in a process of their own; this one
//! reads the files and sends their text. A small file goes through the socket, a larger one through shared
//! memory, and neither side's code has a word about that. Whatever happens to the service, the program ends
//! with an error instead of a hang.
//!
//! # Layout
//!
//! - `service`: the trait, and its implementation; what runs in the other process.
//! - `lines`: which lines match. Pure.
//! - `walk`: which files there are.
//! - `pieces`: what of a file goes into one call.
//! - `crew`: the threads that share the client, and answers in order.
//! - `main`: arguments, output, exit codes, and the life of the service.

mod crew;
mod lines;
mod pieces;
mod service;
mod walk;

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::RecvError;
use std::thread;

use clap::Parser;

use crate::crew::{Answer, Crew, FileError, Plan};
use crate::service::{Patterns, SearchError, Searcher, SearcherClient};

/// Counts the lines of each file that match a pattern.
///
/// Prints PATH:COUNT for each file, in the order of the paths, and last `total: N`. The counts are those of
/// `LC_ALL=C grep -rcaE PATTERN DIR`: symbolic links in the tree are not followed, and devices, sockets and
/// pipes in it are passed over.
///
/// PATTERN is a regular expression of the crate `regex`, which means what it does to `grep -E` in all that
/// both have; it matches bytes, and never across the end of a line. `(?u)` at its beginning makes it match
/// UTF-8.
///
/// Exit status: 0 if a line matched, 1 if none did, 2 if there was an error.
#[derive(Debug, Parser)]
#[command(name = "search")]
struct Args {
    /// What to search for
    pattern: OsString,

    /// Where: a directory, or a single file
    dir: OsString,

    /// PATTERN is a text to be found as it is, not a regular expression
    #[arg(short = 'F', long)]
    fixed_strings: bool,

    /// Files that are read and searched at the same time [default: the number of CPUs and 2 more]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,

    /// The bytes that one call carries at most: no line may be longer
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 20)]
    #[arg(value_parser = clap::value_parser!(u64).range(1024..=(4 << 30) - 4096))]
    max_message: u64,

    /// Say at the end, on standard error, how many calls took which way (see also the variable LPC_THRESHOLD)
    #[arg(long)]
    stats: bool,
}

/// The argument by which the program tells itself to be the service.
const SERVE: &str = "--serve";

/// What a call carries beside the text, at most: the pattern's number and the text's length.
const OVERHEAD: u64 = 16;

/// What the program says by its exit status, errors apart.
struct Summary {
    has_found: bool,
    has_failed: bool,
    is_complete: bool,
}

fn main() -> ExitCode {
    let result = if std::env::args_os().nth(1).is_some_and(|argument| argument == SERVE) {
        serve().map(|()| ExitCode::SUCCESS)
    } else {
        run(&Args::parse())
    };
    result.unwrap_or_else(|error| {
        complain(&error);
        ExitCode::from(2)
    })
}

/// The service's process. Ends when the parent hangs up, be it that it dies.
fn serve() -> Result<(), Failure> {
    // How long messages may be is for the parent to say: the narrower limit of both sides holds.
    let server = lpc::blocking::Server::builder().max_message(u64::MAX);
    server.serve_parent(Patterns::default()).map_err(|error| Failure::Serve { error })
}

fn run(args: &Args) -> Result<ExitCode, Failure> {
    let pattern = pattern(&args.pattern, args.fixed_strings)?;
    let mut service = Service::start(args.max_message)?;
    let summary = match search(args, &pattern, &service.searcher) {
        Err(Failure::Lost { error, .. }) => {
            let status = service.kill();
            return Err(Failure::Lost { error, status });
        }
        Err(error) => {
            service.kill();
            return Err(error);
        }
        Ok(summary) => summary,
    };
    if args.stats {
        let stats = service.searcher.client().stats();
        let (socket, mapping) = (stats.sent.socket, stats.sent.mapping);
        complain(&format_args!(
            "{} calls, {} through the socket ({} bytes), {} through shared memory ({} bytes)",
            stats.calls, socket.messages, socket.bytes, mapping.messages, mapping.bytes
        ));
    }
    if summary.is_complete {
        service.end()?;
    } else {
        service.kill();
    }
    Ok(ExitCode::from(match summary {
        Summary { has_failed: true, .. } => 2,
        Summary { has_found: true, .. } => 0,
        _ => 1,
    }))
}

/// PATTERN as an expression of crate regex.
fn pattern(pattern: &OsStr, is_fixed: bool) -> Result<String, Failure> {
    if pattern.as_bytes().contains(&b'\n') {
        return Err(Failure::LineFeed);
    }
    if !is_fixed {
        return pattern.to_str().map(str::to_owned).ok_or(Failure::Encoding);
    }
    let mut escaped = String::new();
    for &byte in pattern.as_bytes() {
        if byte.is_ascii_alphanumeric() {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "\\x{byte:02X}").expect("a string takes all that is written to it");
        }
    }
    Ok(escaped)
}

/// Searches the tree and prints. Leaves its threads behind if it fails: the process is to end then.
fn search(args: &Args, pattern: &str, searcher: &SearcherClient) -> Result<Summary, Failure> {
    let id = searcher.compile(pattern).map_err(|error| match error {
        SearchError::Call(error) => Failure::of_call(error),
        error => Failure::Pattern { error },
    })?;
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let plan = Plan {
        pattern: id,
        jobs: args.jobs.map_or(cpus + 2, usize::from),
        piece_limit: usize::try_from(args.max_message - OVERHEAD).unwrap_or(usize::MAX),
        max_message: args.max_message,
    };
    let dir = PathBuf::from(&args.dir);
    let crew = Crew::start(searcher, &plan, move || walk::files(&dir))
        .map_err(|source| Failure::Threads { source })?;

    let mut out = BufWriter::new(io::stdout().lock());
    let mut summary = Summary { has_found: false, has_failed: false, is_complete: false };
    match print(&crew, &mut out, &mut summary) {
        Ok(()) => {}
        // The reader of the output has read enough.
        Err(Failure::Output { source }) if source.kind() == io::ErrorKind::BrokenPipe => {
            // Nor would it take what is left.
            let _ = out.into_parts();
            return Ok(summary);
        }
        Err(error) => {
            let _ = out.flush();
            return Err(error);
        }
    }
    crew.finish();
    summary.is_complete = true;
    Ok(summary)
}

fn print(crew: &Crew, out: &mut impl Write, summary: &mut Summary) -> Result<(), Failure> {
    let mut total = 0;
    // What waits here is printed before anything is waited for.
    while let Some(answer) = crew.next(|| out.flush().map_err(Failure::output))? {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                summary.has_failed = true;
                complain(&error);
                continue;
            }
        };
        let Answer { path, lines, error } = answer;
        match error {
            None => {}
            // Nothing more will come from there.
            Some(FileError::Search(SearchError::Call(error))) if error.is_disconnected() => {
                return Err(Failure::of_call(error));
            }
            Some(error) => {
                summary.has_failed = true;
                complain(&format_args!("{}: {error}", path.display()));
            }
        }
        if let Some(lines) = lines {
            total += lines;
            summary.has_found |= lines > 0;
            out.write_all(path.as_os_str().as_bytes()).map_err(Failure::output)?;
            writeln!(out, ":{lines}").map_err(Failure::output)?;
        }
    }
    writeln!(out, "total: {total}").map_err(Failure::output)?;
    out.flush().map_err(Failure::output)
}

/// Says something on standard error, if anybody can hear it.
fn complain(what: &impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "search: {what}");
}

/// The other process, and the connection to it.
struct Service {
    searcher: SearcherClient,
    process: Child,
}

impl Service {
    fn start(max_message: u64) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(|source| Failure::Program { source })?;
        let mut command = Command::new(program);
        // The service prints nothing, and shall not keep the reader of our output waiting.
        command.arg(SERVE).stdout(Stdio::null());
        let (searcher, process) = SearcherClient::builder()
            .max_message(max_message)
            .spawn(&mut command)
            .map_err(|error| Failure::Start { error })?;
        Ok(Self { searcher, process })
    }

    /// Hangs up and waits for the service to end, which it does when it has no client left.
    fn end(mut self) -> Result<(), Failure> {
        drop(self.searcher);
        match self.process.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Failure::End { how: status.to_string() }),
            Err(error) => Err(Failure::End { how: error.to_string() }),
        }
    }

    /// Ends the service at once. Says how it ended, which may have been before.
    fn kill(&mut self) -> String {
        let _ = self.process.kill();
        match self.process.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }
}

/// Why the program ends before its time.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{error}")]
    Pattern { error: SearchError },

    #[error("the pattern has a line feed in it, which no line has")]
    LineFeed,

    #[error("the pattern is not UTF-8: write bytes as \\xFF, or say -F")]
    Encoding,

    #[error("this program does not find itself, to start it as the service: {source}")]
    Program { source: io::Error },

    #[error("the service does not start: {error}")]
    Start { error: lpc::Error },

    #[error("the service does not serve: {error}")]
    Serve { error: lpc::Error },

    #[error("the service is lost ({status}): {error}")]
    Lost { error: lpc::Error, status: String },

    #[error("{error}")]
    Call { error: lpc::Error },

    #[error("the service does not end well: {how}")]
    End { how: String },

    #[error("no thread to search with: {source}")]
    Threads { source: io::Error },

    #[error("a thread ended without its answer")]
    Unanswered(#[from] RecvError),

    #[error("the output cannot be written: {source}")]
    Output { source: io::Error },
}

impl Failure {
    fn of_call(error: lpc::Error) -> Self {
        if error.is_disconnected() {
            Self::Lost { error, status: String::new() }
        } else {
            Self::Call { error }
        }
    }

    fn output(source: io::Error) -> Self {
        Self::Output { source }
    }
}
