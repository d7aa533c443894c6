//! The idea: a call to another process reads like a call in this one, because the client implements the
//! trait.
//!
//! The program starts itself a second time as the service, makes three calls to it, and says which way each
//! argument and each result went: through the socket if small, through shared memory if large. Then it runs
//! the same code ([`report`]) on an object of its own process.
//!
//! From top to bottom: the trait and its error, what calls it, what implements it, then the program.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};

use clap::Parser;
use serde::{Deserialize, Serialize};

/// What the two processes agree on. `DocumentsClient`, which implements it, is made of it.
#[lpc::service]
pub trait Documents {
    /// Counts the words of `text`.
    fn count_words(&self, text: &str) -> lpc::Result<u64>;

    /// Keeps a document.
    fn put(&self, name: &str, body: &[u8]) -> Result<DocumentId, StoreError>;

    /// Gives the body of a document back.
    fn get(&self, id: DocumentId) -> Result<Vec<u8>, StoreError>;
}

/// Names a document of one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentId(u64);

/// Why a document cannot be had.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
pub enum StoreError {
    /// The implementation's own failure: it crosses the processes as a value, and can be matched on.
    #[error("no document has the number {}", .0.0)]
    NotFound(DocumentId),

    /// The call itself failed: every call may, so every service's error is made from an `lpc::Error`.
    #[error(transparent)]
    Call(#[from] lpc::Error),
}

/// What came back from the calls.
#[derive(Debug, PartialEq, Eq)]
struct Report {
    words: u64,
    id: DocumentId,
    len: usize,
    is_as_sent: bool,
}

/// The code that uses documents. It cannot tell whether they are kept here or in another process.
fn report(documents: &impl Documents, sample: &Sample) -> Result<Report, StoreError> {
    let words = documents.count_words(&sample.line)?;
    let id = documents.put(&sample.name, &sample.body)?;
    let body = documents.get(id)?;
    Ok(Report { words, id, len: body.len(), is_as_sent: body == sample.body })
}

/// The implementation. Nothing in it knows of processes.
#[derive(Debug, Default)]
struct Store {
    /// By number. The lock is there because calls may come from several threads at once.
    documents: Mutex<Vec<Document>>,
}

#[derive(Debug)]
struct Document {
    /// Kept to be seen in a debugger; no method asks for it.
    _name: String,
    body: Vec<u8>,
}

impl Documents for Store {
    fn count_words(&self, text: &str) -> lpc::Result<u64> {
        Ok(text.split_whitespace().count() as u64)
    }

    fn put(&self, name: &str, body: &[u8]) -> Result<DocumentId, StoreError> {
        let mut documents = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        documents.push(Document { _name: name.to_owned(), body: body.to_owned() });
        Ok(DocumentId(documents.len() as u64 - 1))
    }

    fn get(&self, id: DocumentId) -> Result<Vec<u8>, StoreError> {
        let documents = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        let found = usize::try_from(id.0).ok().and_then(|index| documents.get(index));
        found.map(|document| document.body.clone()).ok_or(StoreError::NotFound(id))
    }
}

/// Documents that note which way each call goes. The client is an implementation like others, so it can be
/// wrapped like others.
struct Watched<'c> {
    client: &'c DocumentsClient,
    routes: Mutex<Vec<Route>>,
}

/// How the arguments of a call went there, and how its result came back.
#[derive(Clone, Copy, Debug)]
struct Route {
    there: &'static str,
    back: &'static str,
}

impl Watched<'_> {
    fn watch<T>(&self, call: impl FnOnce(&DocumentsClient) -> T) -> T {
        let before = self.client.client().stats();
        let result = call(self.client);
        let after = self.client.client().stats();
        let route =
            Route { there: lane(before.sent, after.sent), back: lane(before.received, after.received) };
        self.routes.lock().unwrap_or_else(PoisonError::into_inner).push(route);
        result
    }
}

/// The lane whose count has grown.
fn lane(before: lpc::Lanes, after: lpc::Lanes) -> &'static str {
    if after.mapping.messages > before.mapping.messages {
        "shared memory"
    } else if after.socket.messages > before.socket.messages {
        "socket"
    } else {
        "nothing"
    }
}

impl Documents for Watched<'_> {
    fn count_words(&self, text: &str) -> lpc::Result<u64> {
        self.watch(|client| client.count_words(text))
    }

    fn put(&self, name: &str, body: &[u8]) -> Result<DocumentId, StoreError> {
        self.watch(|client| client.put(name, body))
    }

    fn get(&self, id: DocumentId) -> Result<Vec<u8>, StoreError> {
        self.watch(|client| client.get(id))
    }
}

/// Calls a service in another process, with a small argument and with a large one.
#[derive(Debug, Parser)]
#[command(name = "quickstart")]
struct Args {
    /// The file to take the text from [default: the source of this program]
    file: Option<PathBuf>,
}

/// The argument by which the program tells itself to be the service.
const SERVE: &str = "--serve";

/// The default FILE, wherever the program is started.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/bin/quickstart.rs");

fn main() -> ExitCode {
    let result = if std::env::args_os().nth(1).is_some_and(|argument| argument == SERVE) {
        // Returns when the parent hangs up, be it that it dies.
        lpc::blocking::serve_parent(Store::default()).map_err(|error| Failure::Serve { error })
    } else {
        let args = Args::parse();
        run(args.file.as_deref().unwrap_or(Path::new(SOURCE)))
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the output has read enough.
        Err(Failure::Output { source }) if source.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Why the program fails.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },

    #[error("{}: the file is empty, so there is nothing to send", path.display())]
    Empty { path: PathBuf },

    #[error("this program does not find itself, to start it as the service: {source}")]
    Program { source: io::Error },

    #[error("the service does not start: {error}")]
    Start { error: lpc::Error },

    #[error("the service does not serve: {error}")]
    Serve { error: lpc::Error },

    #[error(transparent)]
    Documents(#[from] StoreError),

    #[error("the service and this process disagree: {there:?} there, {here:?} here")]
    Disagree { there: Report, here: Report },

    #[error("the service does not end well: {0}")]
    End(String),

    #[error("the output cannot be written: {source}")]
    Output { source: io::Error },
}

fn run(path: &Path) -> Result<(), Failure> {
    let sample = Sample::read(path)?;

    let program = std::env::current_exe().map_err(|source| Failure::Program { source })?;
    let mut command = Command::new(program);
    // The service prints nothing, and shall not keep the reader of our output waiting.
    command.arg(SERVE).stdout(Stdio::null());
    let (client, mut service) =
        DocumentsClient::builder().spawn(&mut command).map_err(|error| Failure::Start { error })?;

    let watched = Watched { client: &client, routes: Mutex::default() };
    let there = report(&watched, &sample)?;
    let routes = watched.routes.into_inner().unwrap_or_else(PoisonError::into_inner);
    let here = report(&Store::default(), &sample)?;
    if there != here {
        return Err(Failure::Disagree { there, here });
    }
    print(&sample, &there, &routes, &service).map_err(|source| Failure::Output { source })?;

    // With the last client of the connection gone, the service ends.
    drop(client);
    match service.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::End(status.to_string())),
        Err(error) => Err(Failure::End(error.to_string())),
    }
}

fn print(sample: &Sample, report: &Report, routes: &[Route], service: &Child) -> io::Result<()> {
    let threshold = lpc::Threshold::DEFAULT;
    let repeated = match sample.copies {
        1 => String::new(),
        copies => format!(", {copies} times over to be above the default threshold of {threshold}"),
    };
    let calls = [
        (format!("count_words({} bytes)", sample.line.len()), format!("{} words", report.words)),
        (format!("put({} bytes)", sample.body.len()), format!("document {}", report.id.0)),
        (
            format!("get(document {})", report.id.0),
            format!("{} bytes, {}", report.len, if report.is_as_sent { "as sent" } else { "CHANGED" }),
        ),
    ];

    let mut out = io::stdout().lock();
    writeln!(out, "client:  process {}", std::process::id())?;
    writeln!(out, "service: process {}", service.id())?;
    writeln!(out, "small:   the beginning of {}", sample.name)?;
    writeln!(out, "large:   all of it{repeated}")?;
    writeln!(out)?;
    for ((call, result), route) in calls.iter().zip(routes) {
        writeln!(out, "{call:<24} -> {result:<24} {route}")?;
    }
    writeln!(out)?;
    writeln!(out, "the same code on an object of this process: the same results")?;
    out.flush()
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} there, {} back", self.there, self.back)
    }
}

/// What is sent: below and above the default threshold, whatever the file.
struct Sample {
    name: String,
    /// The first line, or as much of it as makes a small argument.
    line: String,
    /// The whole file, as often as it takes to be a large argument.
    body: Vec<u8>,
    copies: usize,
}

impl Sample {
    /// Bytes of the first line at most.
    const SMALL: usize = 200;

    /// Bytes of the body at least.
    const LARGE: usize = 2 * lpc::Threshold::DEFAULT.as_bytes() as usize;

    fn read(path: &Path) -> Result<Self, Failure> {
        let file = std::fs::read(path).map_err(|source| Failure::File { path: path.into(), source })?;
        if file.is_empty() {
            return Err(Failure::Empty { path: path.into() });
        }
        let line = file.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(&line[..line.len().min(Self::SMALL)]).into_owned();
        let copies = Self::LARGE.div_ceil(file.len());
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Self { name, line, body: file.repeat(copies), copies })
    }
}
