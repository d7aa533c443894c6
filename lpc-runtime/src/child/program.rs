//! [`Program`]: a command whose process is started again when it has ended.

use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use lpc_core::Result;

use super::ChildProcess;
use super::process::PAUSE;
use crate::client::reconnect::Reconnect;
use crate::config::Config;
use crate::sys::fork::ForkGuard;

/// A command, and the process that it was started as last.
#[derive(Debug)]
pub(crate) struct Program {
    command: Command,
    child: Option<OwnedChild>,
    /// When that was started.
    started: Option<Instant>,
    /// The pause before it was.
    pause: Duration,
}

impl Program {
    pub(crate) fn new(command: Command) -> Self {
        Self { command, child: None, started: None, pause: Duration::ZERO }
    }

    pub(crate) fn name(&self) -> OsString {
        self.command.get_program().to_owned()
    }

    pub(crate) fn start(&mut self, config: &Config) -> Result<(UnixStream, OwnedChild)> {
        let started = super::spawn(&mut self.command, config)?;
        self.started = Some(Instant::now());
        Ok(started)
    }

    /// It serves.
    pub(crate) fn serves(&mut self, child: OwnedChild) {
        self.child = Some(child);
    }

    /// Its connection is over: what is left of it, and how long to pause before it is started again. One that
    /// ends soon after its start again and again is started less and less often.
    pub(crate) fn lost(&mut self, policy: &Reconnect) -> (Option<OwnedChild>, Duration) {
        let Some(started) = self.started.take() else { return (self.child.take(), Duration::ZERO) };
        self.pause = policy.pause_after(self.pause, started.elapsed());
        (self.child.take(), self.pause)
    }
}

/// A child that nobody else waits for.
#[derive(Debug)]
pub(crate) struct OwnedChild {
    /// Until somebody has waited for it.
    child: Option<Child>,
    process: Arc<ChildProcess>,
    fork_guard: ForkGuard,
}

/// How a child has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// It was not killed by this process.
    pub(crate) by_itself: bool,
}

/// How long a child is let run whose connection is over: it is about to end, most likely. And how long it is
/// waited for one that was killed.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);

impl OwnedChild {
    pub(crate) fn new(child: Child) -> Self {
        let process = Arc::new(ChildProcess::new(child.id()));
        Self { child: Some(child), process, fork_guard: ForkGuard::here() }
    }

    pub(crate) fn process(&self) -> &Arc<ChildProcess> {
        &self.process
    }

    /// For somebody else to wait for it.
    pub(crate) fn into_child(mut self) -> Child {
        self.child.take().expect("nobody has waited for it")
    }

    /// Waits for it to end, this long; then kills it. `None` if the kernel keeps it nevertheless.
    pub(crate) fn end(mut self, patience: Duration) -> Option<Ended> {
        let mut ending = Ending::new(patience);
        loop {
            if let Some(ended) = self.look(&mut ending) {
                return ended;
            }
            thread::sleep(PAUSE);
        }
    }

    /// The same, for a task.
    #[cfg(feature = "tokio")]
    pub(crate) async fn end_later(mut self, patience: Duration) -> Option<Ended> {
        let mut ending = Ending::new(patience);
        loop {
            if let Some(ended) = self.look(&mut ending) {
                return ended;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether it has ended, or is given up.
    fn look(&mut self, ending: &mut Ending) -> Option<Option<Ended>> {
        let Some(child) = &mut self.child else { return Some(None) };
        if let Ok(Some(status)) = child.try_wait() {
            self.child = None;
            self.process.ended(status);
            return Some(Some(Ended { status, by_itself: !ending.is_killed }));
        }
        if ending.until <= Instant::now() {
            if ending.is_killed {
                return Some(None);
            }
            let _ = child.kill();
            *ending = Ending { is_killed: true, ..Ending::new(PATIENCE) };
        }
        None
    }
}

/// How far it is with ending a child.
struct Ending {
    /// How long it is waited.
    until: Instant,
    is_killed: bool,
}

impl Ending {
    fn new(patience: Duration) -> Self {
        Self { until: Instant::now() + patience, is_killed: false }
    }
}

impl Drop for OwnedChild {
    /// It ends by itself, as its connection is over. Somebody has to wait for that.
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take()
            && self.fork_guard.is_here()
            && !matches!(child.try_wait(), Ok(Some(_)))
        {
            let waiting = thread::Builder::new().name("lpc-child".into()).spawn(move || child.wait());
            if let Err(error) = waiting {
                tracing::debug!(%error, "nobody waits for a child that is about to end");
            }
        }
    }
}
