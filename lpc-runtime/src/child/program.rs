//! [`Program`]: a command whose process is started again when it has ended.

use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use lpc_core::Result;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

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
    pub(crate) fn serves(&mut self, mut child: OwnedChild) {
        child.ends_by_itself = true;
        self.child = Some(child);
    }

    /// What is left of it, for somebody to end.
    pub(crate) fn take_child(&mut self) -> Option<OwnedChild> {
        let mut child = self.child.take()?;
        child.ends_by_itself = false;
        Some(child)
    }

    /// Its connection is over: what is left of it, and how long to pause before it is started again. One that
    /// ends soon after its start again and again is started less and less often.
    pub(crate) fn lost(&mut self, policy: &Reconnect) -> (Option<OwnedChild>, Duration) {
        let Some(started) = self.started.take() else { return (self.take_child(), Duration::ZERO) };
        self.pause = policy.pause_after(self.pause, started.elapsed());
        (self.take_child(), self.pause)
    }
}

/// A child that nobody else waits for.
#[derive(Debug)]
pub(crate) struct OwnedChild {
    /// Until somebody has waited for it.
    child: Option<Child>,
    process: Arc<ChildProcess>,
    fork_guard: ForkGuard,
    /// It serves, and ends when its connection does.
    ends_by_itself: bool,
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
        Self { child: Some(child), process, fork_guard: ForkGuard::here(), ends_by_itself: false }
    }

    pub(crate) fn process(&self) -> &Arc<ChildProcess> {
        &self.process
    }

    /// For somebody else to wait for it.
    pub(crate) fn into_child(mut self) -> Child {
        self.child.take().expect("nobody has waited for it")
    }

    /// Waits for it to end, this long; then kills it. `None` if the kernel keeps it nevertheless, or somebody
    /// else has waited for it.
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
        if let Some(status) = has_ended(child) {
            self.child = None;
            let ended = status.map(|status| Ended { status, by_itself: !ending.is_killed });
            ended.inspect(|ended| self.process.ended(ended.status));
            return Some(ended);
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

/// How a child has ended, if it has; `None` where that is not known, since somebody else has waited for it, or
/// nobody is to (SIGCHLD is ignored). Its number may be another process's by then.
fn has_ended(child: &mut Child) -> Option<Option<ExitStatus>> {
    match child.try_wait() {
        Ok(Some(status)) => Some(Some(status)),
        Err(error) if error.raw_os_error() == Some(Errno::ECHILD as i32) => Some(None),
        Ok(None) | Err(_) => None,
    }
}

impl Drop for OwnedChild {
    /// Its connection is over: one that serves ends by itself, and any other is ended. Somebody has to wait for
    /// that.
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if !self.fork_guard.is_here() || has_ended(&mut child).is_some() {
            return;
        }
        let (id, ends_by_itself) = (child.id(), self.ends_by_itself);
        let wait = move || {
            if !ends_by_itself {
                end(&mut child);
            }
            child.wait()
        };
        if let Err(error) = thread::Builder::new().name("lpc-child".into()).spawn(wait) {
            tracing::debug!(%error, "nobody waits for a child that is about to end");
            if !ends_by_itself {
                // Nobody has waited for it: it is that one.
                let _ = kill(Pid::from_raw(id.cast_signed()), Signal::SIGKILL);
            }
        }
    }
}

/// Lets a child run for as long as one whose connection is over, then kills it.
fn end(child: &mut Child) {
    let until = Instant::now() + PATIENCE;
    while has_ended(child).is_none() {
        if until <= Instant::now() {
            let _ = child.kill();
            return;
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::waitpid;

    use super::*;

    /// Guards against hangs.
    const GUARD: Duration = Duration::from_secs(30);

    #[test]
    fn a_child_that_does_not_serve_is_ended_with_its_owner() {
        let child = OwnedChild::new(Command::new("sleep").arg("1000").spawn().unwrap());
        let process = format!("/proc/{}", child.child.as_ref().unwrap().id());
        drop(child);
        let until = Instant::now() + GUARD;
        while std::path::Path::new(&process).exists() {
            assert!(Instant::now() < until, "it lives on");
            thread::sleep(PAUSE);
        }
    }

    #[test]
    fn a_child_that_somebody_else_has_waited_for_has_ended_and_nothing_is_killed() {
        let child = Command::new("true").spawn().unwrap();
        waitpid(Pid::from_raw(child.id().cast_signed()), None).unwrap();
        let start = Instant::now();
        assert!(OwnedChild::new(child).end(GUARD).is_none());
        assert!(start.elapsed() < GUARD);
    }
}
