//! Calls of mixed sizes around the threshold, every reply checked.

use std::sync::Arc;
use std::time::Instant;

use lpc::Threshold;
use lpc_cli::measure::Service;

use crate::service::blocking::{Work, WorkClient};
use crate::service::{self, asynchronous};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Threads, or with `--tokio` tasks, that share one client
    #[arg(long, default_value_t = 8)]
    callers: u64,
    /// Calls of each caller
    #[arg(long, default_value_t = 1_000_000)]
    calls: u64,
    /// Both sides with the async driver
    #[arg(long)]
    tokio: bool,
    /// The threshold of both sides; sizes go from 0 to twice as much
    #[arg(long, default_value = "2KiB", value_parser = parse_threshold)]
    threshold: Threshold,
}

fn parse_threshold(text: &str) -> Result<Threshold, String> {
    Threshold::parse(text).ok_or_else(|| "not a threshold".to_owned())
}

pub(crate) fn run(arguments: &Arguments) -> lpc::Result<()> {
    let command = service::command(arguments.tokio, arguments.threshold)?;
    let started = Instant::now();
    let stats = if arguments.tokio {
        service::runtime()?.block_on(tasks(arguments, command))?
    } else {
        threads(arguments, command)?
    };
    let time = started.elapsed();
    let calls = arguments.callers * arguments.calls;
    assert_eq!((stats.calls, stats.errors), (calls, 0));
    println!("{calls} calls by {} callers in {time:.1?}, every reply checked", arguments.callers);
    println!("{:.0} calls a second; {stats:#?}", calls as f64 / time.as_secs_f64());
    Ok(())
}

fn threads(arguments: &Arguments, mut command: std::process::Command) -> lpc::Result<lpc::Stats> {
    let (client, child) = WorkClient::builder().threshold(arguments.threshold).spawn(&mut command)?;
    let _child = Service::of(child);
    let calls = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..arguments.callers)
            .map(|caller| {
                let client = &client;
                scope.spawn(move || {
                    let mut sizes = Sizes::new(caller, arguments.threshold);
                    for _ in 0..arguments.calls {
                        let bytes = sizes.next();
                        assert!(client.echo(bytes)? == bytes, "the reply of another call");
                    }
                    Ok(())
                })
            })
            .collect();
        callers.into_iter().try_for_each(|caller| caller.join().expect("a caller panicked"))
    });
    calls.map(|()| client.client().stats())
}

async fn tasks(arguments: &Arguments, command: std::process::Command) -> lpc::Result<lpc::Stats> {
    use asynchronous::Work;
    let builder = asynchronous::WorkClient::builder().threshold(arguments.threshold);
    let mut command = tokio::process::Command::from(command);
    let (client, _child) = builder.spawn(command.kill_on_drop(true)).await?;
    let client = Arc::new(client);
    let (threshold, calls) = (arguments.threshold, arguments.calls);
    let callers: Vec<_> = (0..arguments.callers)
        .map(|caller| {
            let client = Arc::clone(&client);
            tokio::spawn(async move {
                let mut sizes = Sizes::new(caller, threshold);
                for _ in 0..calls {
                    let bytes = sizes.next();
                    assert!(client.echo(bytes).await? == bytes, "the reply of another call");
                }
                Ok::<_, lpc::Error>(())
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("a caller panicked")?;
    }
    Ok(client.client().stats())
}

/// Bodies of pseudo-random sizes, different for each caller.
struct Sizes {
    bytes: Vec<u8>,
    state: u64,
    range: u64,
}

impl Sizes {
    fn new(caller: u64, threshold: Threshold) -> Self {
        let range = threshold.as_bytes().clamp(1, 1 << 20) * 2;
        let seed = caller.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let bytes = (0..range).map(|at| (at.wrapping_mul(seed) >> 13) as u8).collect();
        Self { bytes, state: seed, range }
    }

    fn next(&mut self) -> &[u8] {
        // xorshift64 (Marsaglia, 2003)
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let len = (self.state % self.range) as usize;
        let from = ((self.state >> 32) as usize) % (self.bytes.len() - len);
        &self.bytes[from..from + len]
    }
}
