//! [`ChildProcess`]: what is known of the process at the other end of a connection.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use lpc_core::Error;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// A child of this process, whose exit status is asked for without taking it from anybody who waits for the
/// child.
#[derive(Debug)]
pub(crate) struct ChildProcess {
    id: Pid,
    status: OnceLock<ExitStatus>,
    /// When its connection was found to be over.
    lost: OnceLock<Instant>,
}

/// How long it is waited at most for the end of a child whose connection is over. A process that ends
/// closes its descriptors a little earlier than its parent can know its status.
const PATIENCE: Duration = Duration::from_millis(100);

/// How often it is looked for that.
pub(crate) const PAUSE: Duration = Duration::from_millis(1);

impl ChildProcess {
    pub(crate) fn new(id: u32) -> Self {
        tracing::debug!(pid = id, "child process started");
        let id = Pid::from_raw(i32::try_from(id).expect("a process id of the system's"));
        Self { id, status: OnceLock::new(), lost: OnceLock::new() }
    }

    /// It has ended, and was waited for.
    pub(crate) fn ended(&self, status: ExitStatus) {
        if self.status.set(status).is_err() {
            return;
        }
        let pid = self.id.as_raw();
        match status.success() {
            true => tracing::debug!(pid, %status, "child process ended"),
            false => tracing::warn!(pid, %status, "child process failed"),
        }
    }

    /// How it has ended, if it has; `None` also where it was waited for elsewhere.
    fn status(&self) -> Option<ExitStatus> {
        if self.status.get().is_none() {
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            let raw = match waitid(Id::Pid(self.id), flags) {
                Ok(WaitStatus::Exited(_, code)) => (code & 0xff) << 8,
                Ok(WaitStatus::Signaled(_, signal, has_dumped)) => {
                    signal as i32 | if has_dumped { 0x80 } else { 0 }
                }
                _ => return None,
            };
            self.ended(ExitStatus::from_raw(raw));
        }
        self.status.get().copied()
    }

    /// Its connection is over. Whether it is still worth while to wait for the child's end.
    fn may_be_ending(&self, deadline: Option<Instant>) -> bool {
        let now = Instant::now();
        let lost = *self.lost.get_or_init(|| now);
        let is_in_time = now < lost + PATIENCE && deadline.is_none_or(|deadline| now < deadline);
        is_in_time && self.status().is_none() && self.is_there()
    }

    /// Whether there is such a child, ended or not, that nobody has waited for.
    fn is_there(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(self.id), flags).is_ok()
    }

    /// The error of its connection's end, with its exit status, for which it is waited a little.
    pub(crate) fn explain(&self, error: Error, deadline: Option<Instant>) -> Error {
        while self.may_be_ending(deadline) {
            std::thread::sleep(PAUSE);
        }
        self.explain_now(error)
    }

    /// The same, for a task.
    #[cfg(feature = "tokio")]
    pub(crate) async fn explain_later(&self, error: Error, deadline: Option<Instant>) -> Error {
        while self.may_be_ending(deadline) {
            tokio::time::sleep(PAUSE).await;
        }
        self.explain_now(error)
    }

    /// The same, as far as it is known.
    pub(crate) fn explain_now(&self, error: Error) -> Error {
        match self.status() {
            Some(status) => super::with_status(error, status),
            None => error,
        }
    }
}
