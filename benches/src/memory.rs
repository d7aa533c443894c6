//! What a server holds: of memory, descriptors and mappings.

use std::fmt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use lpc_cli::measure::{Service, sum};

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
    /// Many clients connect, have 1 MiB carried each way, and stay idle: how soon the server is what it was before
    Idle {
        /// Clients, all in one process, each with its own connection
        #[arg(long, default_value_t = 1000)]
        clients: usize,
        /// Seconds to wait at most
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// A server with the async driver
        #[arg(long)]
        tokio: bool,
    },
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
        What::Idle { clients, seconds, tokio } => idle(clients, seconds, &Server::start(tokio)?),
        What::Rounds { rounds, every, tokio } => self::rounds(rounds, every as usize, &Server::start(tokio)?),
    }
}

fn idle(clients: usize, seconds: u32, server: &Server) -> lpc::Result<()> {
    let bytes = vec![1; SIZE];
    let clients = (0..clients)
        .map(|_| {
            let client = WorkClient::connect(&server.port)?;
            assert_eq!(client.add(1, 2)?, 3);
            Ok(client)
        })
        .collect::<lpc::Result<Vec<_>>>()?;
    let start = server.figures()?;
    println!("{} clients; the server's figures\n", clients.len());
    Figures::print_heading("at");
    start.print("start");
    for client in &clients {
        assert_eq!(client.upload(&bytes)?, sum(&bytes), "other bytes arrived");
    }
    server.figures()?.print("used");
    for second in 1..=seconds {
        thread::sleep(Duration::from_secs(1));
        let figures = server.figures()?;
        figures.print(format_args!("{second} s idle"));
        if figures.is_about(&start) {
            println!("\nwithin a tenth of the start after {second} s");
            return Ok(());
        }
    }
    println!("\nnot within a tenth of the start after {seconds} s");
    Ok(())
}

fn rounds(rounds: usize, every: usize, server: &Server) -> lpc::Result<()> {
    let bytes = vec![1; SIZE];
    println!("{rounds} clients, one after the other; the server's figures\n");
    Figures::print_heading("after");
    let mut first = None;
    let mut last = Figures::default();
    for round in 1..=rounds {
        let client = WorkClient::connect(&server.port)?;
        assert!(client.echo(&bytes)? == bytes, "other bytes came back");
        drop(client);
        if round % every == 0 {
            // The server learns only now that the last client has gone.
            thread::sleep(Duration::from_millis(200));
            last = server.figures()?;
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

    fn figures(&self) -> lpc::Result<Figures> {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = std::fs::read_to_string(process.join("status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
        let resident = resident.and_then(|kibibytes| kibibytes.trim().parse().ok());
        Ok(Figures {
            resident: resident.ok_or_else(|| std::io::Error::other("the server has gone"))?,
            descriptors: std::fs::read_dir(process.join("fd"))?.count() as u64,
            mappings: std::fs::read_to_string(process.join("maps"))?.lines().count() as u64,
        })
    }
}

/// What a process holds.
#[derive(Clone, Copy, Default)]
struct Figures {
    /// Memory, in KiB; shared memory that it has touched included.
    resident: u64,
    descriptors: u64,
    mappings: u64,
}

impl Figures {
    /// Whether no figure is more than a tenth above that of `start`.
    fn is_about(&self, start: &Self) -> bool {
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
