//! A service that runs, and a client of it.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use lpc_cli::measure::{Samples, Service};

use super::peer::{Caller, Peer, Result};
use super::work::{Batch, Job, Work};

/// A peer, its service and its client here.
pub(super) struct Running<'a> {
    pub(super) peer: &'a dyn Peer,
    /// Killed before the client hangs up, or it would say so, which looks like a failure.
    pub(super) service: Service,
    pub(super) caller: Box<dyn Caller>,
}

impl<'a> Running<'a> {
    pub(super) fn start(peer: &'a dyn Peer, place: &Path, cpu: Option<usize>) -> Result<Self> {
        let path = place.to_str().ok_or("the temporary directory's name is not UTF-8")?;
        let cpu = cpu.map(|cpu| cpu.to_string());
        let mut arguments = vec!["serve-peer", "--peer", peer.name(), "--place", path];
        arguments.extend(cpu.iter().flat_map(|cpu| ["--cpu", cpu]));
        let mut service = Service::start(arguments)?;
        let caller = connect(peer, place, || Ok(service.ended()?.is_some()))?;
        let running = Self { peer, caller, service };
        running.rest()?;
        Ok(running)
    }

    /// Uses no CPU from now on.
    fn rest(&self) -> Result<()> {
        if self.peer.polls() { Ok(self.service.pause()?) } else { Ok(()) }
    }

    pub(super) fn measure(&mut self, job: Job, share: Duration) -> Result<(Samples, u64)> {
        self.service.resume()?;
        // Whatever ran last has put other memory into the caches.
        self.caller.run(&Batch { job, share: share / 8 })?;
        let observed = self.service.observe(|| self.caller.run(&Batch { job, share }))?;
        self.rest()?;
        Ok(observed)
    }
}

/// What an idle connection costs the service, in a process that had none before; and the time to make one.
pub(super) fn idle(
    peer: &dyn Peer,
    job: Job,
    place: &Path,
    cpu: Option<usize>,
) -> Result<(Samples, u64, u64)> {
    let mut running = Running::start(peer, place, cpu)?;
    running.service.resume()?;
    running.caller.run(&Batch { job: Job { work: Work::Add, size: 0 }, share: Duration::ZERO })?;
    let empty = running.service.resident_kib()?;
    let (samples, cpu_ns) =
        running.service.observe(|| running.caller.run(&Batch { job, share: Duration::ZERO }))?;
    let grown = running.service.resident_kib()?.saturating_sub(empty);
    Ok((samples, cpu_ns, grown / job.size))
}

/// A client of the service at `place`, when there is one: there is no common way in which services say that
/// they are ready.
pub(super) fn connect(
    peer: &dyn Peer,
    place: &Path,
    mut has_ended: impl FnMut() -> Result<bool>,
) -> Result<Box<dyn Caller>> {
    let started = Instant::now();
    loop {
        match peer.connect(place) {
            Ok(caller) => return Ok(caller),
            Err(error) if started.elapsed() > START || has_ended()? => {
                return Err(format!("{}: {error}", peer.name()).into());
            }
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// How long a service may take to start.
pub(super) const START: Duration = Duration::from_secs(30);
