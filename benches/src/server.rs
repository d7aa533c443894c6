//! A server of the [`service`](crate::service) in a process of its own, and what such a process uses.

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lpc_cli::measure::{Service, cpu_time};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::service::blocking::WorkService;
use crate::service::{Worker, asynchronous};
use crate::setup::{Setup, configured};

/// The server's process.
#[derive(clap::Args)]
pub(crate) struct Served {
    #[arg(long)]
    port: PathBuf,
    #[arg(long)]
    cpu: Option<usize>,
    #[command(flatten)]
    setup: Setup,
}

/// What a process says once it is ready.
pub(crate) const READY: &str = "ready\n";

/// Connections that a server has room for, in all and of one user.
const CONNECTIONS: usize = 1 << 20;

/// Starts a server of this port, which clients can connect to.
pub(crate) fn start(port: &Path, setup: Setup, cpu: Option<usize>) -> lpc::Result<Service> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([Path::new("serve-port"), Path::new("--port"), port]).args(setup.arguments());
    command.args(cpu.iter().flat_map(|cpu| ["--cpu".to_owned(), cpu.to_string()]));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().expect("it is piped");
    let service = Service::of(child);
    expect_ready(&mut BufReader::new(output), "the server")?;
    Ok(service)
}

/// Waits until a process says that it is ready.
pub(crate) fn expect_ready(output: &mut impl BufRead, who: &str) -> io::Result<()> {
    let mut line = String::new();
    output.read_line(&mut line)?;
    if line == READY { Ok(()) } else { Err(io::Error::other(format!("{who} does not start"))) }
}

/// Serves until it is killed.
pub(crate) fn serve(served: &Served) -> lpc::Result<()> {
    raise_descriptors()?;
    if let Some(cpu) = served.cpu {
        lpc_cli::measure::pin(cpu)?;
    }
    let setup = served.setup;
    macro_rules! server {
        ($builder:expr) => {{
            let builder = configured!($builder, setup).user_pool_limit(u64::MAX >> 1);
            builder.max_connections(CONNECTIONS).max_connections_per_user(CONNECTIONS).bind(&served.port)?
        }};
    }
    match setup.runtime()? {
        None => {
            let server = server!(lpc::blocking::Server::builder());
            print!("{READY}");
            server.serve::<WorkService, _>(Worker)
        }
        Some(runtime) => runtime.block_on(async {
            let server = server!(lpc::Server::builder());
            print!("{READY}");
            server.serve::<asynchronous::WorkService, _>(Worker).await
        }),
    }
}

/// Lets this process have as many descriptors as it may, and says how many that is.
pub(crate) fn raise_descriptors() -> lpc::Result<u64> {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    Ok(raised.map_err(io::Error::from)?)
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// Of the CPU.
    pub(crate) cpu_ns: u64,
    /// How often a thread of it, of those that are there, gave the CPU up or lost it.
    pub(crate) switches: u64,
    /// Threads that are there.
    pub(crate) threads: u64,
}

impl Used {
    /// By the process of this id.
    pub(crate) fn by(id: u32) -> io::Result<Self> {
        let mut used = Self { cpu_ns: cpu_time(id)?, ..Self::default() };
        for thread in std::fs::read_dir(format!("/proc/{id}/task"))? {
            // It may have ended meanwhile.
            let Ok(status) = std::fs::read_to_string(thread?.path().join("status")) else { continue };
            let switches = status.lines().filter_map(|line| line.split_once("ctxt_switches:"));
            used.switches += switches.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum::<u64>();
            used.threads += 1;
        }
        Ok(used)
    }

    /// What was used since `earlier`; its threads are those of now.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            switches: self.switches.saturating_sub(earlier.switches),
            threads: self.threads,
        }
    }
}
