//! Clients in a process of their own, which call when they are told to.

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use lpc_cli::measure::Service;
use serde::{Deserialize, Serialize};

use crate::caller::{Clients, Job};
use crate::server::{self, READY, expect_ready};
use crate::setup::Setup;

/// The clients' process.
#[derive(clap::Args)]
pub(crate) struct Called {
    #[arg(long)]
    port: PathBuf,
    #[arg(long)]
    clients: usize,
    #[command(flatten)]
    setup: Setup,
}

/// What they are told, a line of JSON.
#[derive(Serialize, Deserialize)]
enum Order {
    /// So many callers side by side.
    Run { job: Job, callers: usize, share: Duration },
    /// One call of each client, one after the other.
    Each { job: Job },
}

/// What they answer: calls a second, of all callers.
#[derive(Serialize, Deserialize)]
struct Answer {
    per_s: f64,
}

/// Does what it is told until its parent has nothing more to say.
pub(crate) fn run(called: &Called) -> lpc::Result<()> {
    server::raise_descriptors()?;
    let clients = Clients::connect(&called.port, called.setup, called.clients)?;
    print!("{READY}");
    loop {
        let line = clients.meanwhile(|| {
            let mut line = String::new();
            io::stdin().read_line(&mut line).map(|_| line)
        })?;
        if line.is_empty() {
            return Ok(());
        }
        let (done, job) = match serde_json::from_str(&line).map_err(lpc::Error::other)? {
            Order::Run { job, callers, share } => (clients.run(job, callers, share)?, job),
            Order::Each { job } => (clients.each(job)?, job),
        };
        let answer = Answer { per_s: done.per_second(job) };
        println!("{}", serde_json::to_string(&answer).map_err(lpc::Error::other)?);
    }
}

/// Such a process; it ends when this is dropped.
pub(crate) struct Calling {
    child: Service,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Calling {
    /// So many clients, each of which has made a call.
    pub(crate) fn start(port: &Path, setup: Setup, clients: usize) -> lpc::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([Path::new("call-port"), Path::new("--port"), port]).args(setup.arguments());
        command.args(["--clients", &clients.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = child.stdin.take().expect("it is piped");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut calling = Self { child: Service::of(child), orders, answers };
        expect_ready(&mut calling.answers, "a process of clients")?;
        Ok(calling)
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Has `callers` do the job side by side, from now on.
    pub(crate) fn begin(&mut self, job: Job, callers: usize, share: Duration) -> lpc::Result<()> {
        self.order(&Order::Run { job, callers, share })
    }

    /// Has each client make one such call.
    pub(crate) fn each(&mut self, job: Job) -> lpc::Result<f64> {
        self.order(&Order::Each { job })?;
        self.end()
    }

    fn order(&mut self, order: &Order) -> lpc::Result<()> {
        let order = serde_json::to_string(order).map_err(lpc::Error::other)?;
        Ok(writeln!(self.orders, "{order}")?)
    }

    /// Waits until that is done, and says how many calls a second it was.
    pub(crate) fn end(&mut self) -> lpc::Result<f64> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let answer: Answer = serde_json::from_str(&line).map_err(lpc::Error::other)?;
        Ok(answer.per_s)
    }
}
