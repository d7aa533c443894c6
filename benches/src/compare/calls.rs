//! Calls of one peer and nothing else, for programs that look on: strace, perf, valgrind.

use std::path::PathBuf;
use std::time::Duration;

use lpc_cli::measure::{Pinning, Service, Sizes, pin, time};

use super::named;
use super::peer::Result;
use super::running::{Running, connect};
use super::work::{self, Batch, Work};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The peer that makes them: a name of `compare --list`
    #[arg(long, default_value = "lpc blocking")]
    peer: String,
    /// What is done
    #[arg(long, value_enum, default_value = "add")]
    work: Work,
    /// Bytes of a body, where the work has one
    #[arg(long, default_value = "1MiB", value_parser = Sizes::<4>::parse)]
    size: Sizes<4>,
    /// Clients at once, where they are the work
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..))]
    clients: u64,
    /// For how long, in milliseconds
    #[arg(long, default_value_t = 1000)]
    share: u64,
    /// Where the two processes run
    #[arg(long, value_enum, default_value = "free")]
    pinning: Pinning,
    /// Calls the service that serves there (`serve-peer`), instead of starting one
    #[arg(long)]
    place: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let peer = named(&arguments.peer)?;
    let job = work::jobs(&[arguments.work], &arguments.size, &[arguments.clients])[0];
    if !peer.does(job) {
        return Err(format!("{} does not do {job}", peer.name()).into());
    }
    let [own_cpu, service_cpu] = arguments.pinning.cpus()?.ok_or("there is one CPU only")?;
    own_cpu.map_or(Ok(()), pin)?;
    let directory = tempfile::tempdir()?;
    let (mut caller, _service): (_, Option<Service>) = match &arguments.place {
        Some(place) => (connect(&*peer, place, || Ok(false))?, None),
        None => {
            let Running { caller, service, .. } =
                Running::start(&*peer, &directory.path().join("place"), service_cpu)?;
            service.resume()?;
            (caller, Some(service))
        }
    };
    let mut samples = caller.run(&Batch { job, share: Duration::from_millis(arguments.share) })?;
    let [p50] = samples.quantiles([0.5]).ok_or("no call")?;
    println!("{} calls: {job}, {}, p50 {}", samples.len(), peer.name(), time(p50));
    Ok(())
}
