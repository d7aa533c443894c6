//! Equal calls, one after the other.

use std::time::Instant;

use lpc::Threshold;
use lpc_cli::measure::Service;

use crate::service::blocking::{Work, WorkClient};
use crate::service::{self, asynchronous};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Calls
    #[arg(long, default_value_t = 10_000)]
    count: u64,
    /// Bytes there and back; 0 adds two integers instead
    #[arg(long, default_value_t = 0)]
    size: usize,
    /// Both sides with the async driver
    #[arg(long)]
    tokio: bool,
}

pub(crate) fn run(arguments: &Arguments) -> lpc::Result<()> {
    let mut command = service::command(arguments.tokio, Threshold::default())?;
    let bytes = vec![1; arguments.size];
    let started;
    if arguments.tokio {
        use asynchronous::Work;
        let runtime = service::runtime()?;
        let client = asynchronous::WorkClient::builder();
        started = runtime.block_on(async {
            let (client, child) = client.spawn(&mut command).await?;
            let _child = Service::of(child);
            let started = Instant::now();
            for call in 0..arguments.count {
                if bytes.is_empty() {
                    assert_eq!(client.add(call, 1).await?, call + 1);
                } else {
                    assert_eq!(client.echo(&bytes).await?.len(), bytes.len());
                }
            }
            Ok::<_, lpc::Error>(started)
        })?;
    } else {
        let (client, child) = WorkClient::builder().spawn(&mut command)?;
        let _child = Service::of(child);
        started = Instant::now();
        for call in 0..arguments.count {
            if bytes.is_empty() {
                assert_eq!(client.add(call, 1)?, call + 1);
            } else {
                assert_eq!(client.echo(&bytes)?.len(), bytes.len());
            }
        }
    }
    let each = started.elapsed() / u32::try_from(arguments.count.max(1)).unwrap_or(u32::MAX);
    println!("{} calls of {} bytes, {each:?} each", arguments.count, arguments.size);
    Ok(())
}
