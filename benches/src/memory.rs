//! What a server holds: of memory, descriptors and mappings.

use std::fmt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use lpc_cli::measure::{Service, resident_kib};
use serde::Serialize;

use crate::server;
use crate::service::blocking::{Work, WorkClient};
use crate::setup::Setup;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Clients come, have 1 MiB carried each way, and go, one after the other: whether the server grows
    Rounds {
        /// Clients
        #[arg(long, default_value_t = 10_000)]
        rounds: usize,
        /// A line of figures after so many
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
        every: u32,
        /// A server with the async driver
        #[arg(long)]
        tokio: bool,
    },
}

/// Of each body.
const SIZE: usize = 1 << 20;

pub(crate) fn run(arguments: &Arguments) -> lpc::Result<()> {
    server::raise_descriptors()?;
    match arguments.what {
        What::Rounds { rounds, every, tokio } => self::rounds(rounds, every as usize, &Server::start(tokio)?),
    }
}

fn rounds(rounds: usize, every: usize, server: &Server) -> lpc::Result<()> {
    let bytes = vec![1; SIZE];
    println!("{rounds} clients, one after the other; the server's figures\n");
    Held::print_heading("after");
    let mut first = None;
    let mut last = Held::default();
    for round in 1..=rounds {
        let client = WorkClient::connect(&server.port)?;
        assert!(client.echo(&bytes)? == bytes, "other bytes came back");
        drop(client);
        if round % every == 0 {
            // The server learns only now that the last client has gone.
            thread::sleep(Duration::from_millis(200));
            last = Held::by(server.child.id())?;
            last.print(round);
            first.get_or_insert(last);
        }
    }
    if let Some(first) = first {
        let grown = |now: u64, then: u64| i128::from(now) - i128::from(then);
        println!(
            "\nsince the first line: {:+} KiB, {:+} descriptors, {:+} mappings",
            grown(last.resident, first.resident),
            grown(last.descriptors, first.descriptors),
            grown(last.mappings, first.mappings)
        );
    }
    Ok(())
}

/// A server in a process of its own.
struct Server {
    port: PathBuf,
    child: Service,
    /// Of the port.
    _directory: tempfile::TempDir,
}

impl Server {
    fn start(tokio: bool) -> lpc::Result<Self> {
        let directory = tempfile::tempdir()?;
        let port = directory.path().join("work");
        let child = server::start(&port, Setup::of(tokio), None)?;
        Ok(Self { port, child, _directory: directory })
    }
}

/// What a process holds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Held {
    /// Memory, in KiB; shared memory that it has touched included.
    pub(crate) resident: u64,
    pub(crate) descriptors: u64,
    mappings: u64,
}

impl Held {
    /// By the process of this id.
    pub(crate) fn by(id: u32) -> lpc::Result<Self> {
        Ok(Self {
            resident: resident_kib(id)?,
            descriptors: std::fs::read_dir(format!("/proc/{id}/fd"))?.count() as u64,
            mappings: std::fs::read_to_string(format!("/proc/{id}/maps"))?.lines().count() as u64,
        })
    }

    /// Whether neither memory nor descriptors are more than a tenth above those of `start`.
    pub(crate) fn is_about(&self, start: &Self) -> bool {
        let is_about = |now: u64, then: u64| now * 10 <= then * 11;
        is_about(self.resident, start.resident) && is_about(self.descriptors, start.descriptors)
    }

    fn print_heading(when: &str) {
        println!("| {when:>9} | VmRSS, MiB | descriptors | mappings |");
        println!("|----------:|-----------:|------------:|---------:|");
    }

    fn print(&self, when: impl fmt::Display) {
        let when = when.to_string();
        let resident = self.resident as f64 / 1024.0;
        println!("| {when:>9} | {resident:>10.1} | {:>11} | {:>8} |", self.descriptors, self.mappings);
    }
}
