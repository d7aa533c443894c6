//! Services in child processes, connected through the child's standard input.
//!
//! Standard input is the one descriptor that every way of starting a program passes on, so no number has to
//! be agreed on, nothing is left open in other children, and no code runs between fork and exec.

mod process;
mod program;
mod starter;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use lpc_core::{Error, ErrorKind, Result};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::socket::{SockType, getsockopt, sockopt};

pub(crate) use self::process::ChildProcess;
pub(crate) use self::program::{Ended, OwnedChild, PATIENCE, Program};
use crate::config::Config;
use crate::sys::environment;

/// Tells the child that its standard input is a connection.
const VARIABLE: &str = "LPC_PARENT";

/// Its value.
const STDIN: &str = "stdin";

/// The same of a child that is to be killed when its parent ends.
const STDIN_UNTIL_DEATH: &str = "stdin,kill";

/// A command that is about to be started, with one end of a connected pair.
pub(crate) struct Starting {
    stream: UnixStream,
    kill_with_parent: bool,
}

impl Starting {
    pub(crate) fn new(command: &mut Command, config: &Config) -> Result<Self> {
        let (stream, theirs) = UnixStream::pair()?;
        let kill_with_parent = config.kill_with_parent;
        let value = if kill_with_parent { STDIN_UNTIL_DEATH } else { STDIN };
        command.stdin(Stdio::from(OwnedFd::from(theirs))).env(VARIABLE, value);
        Ok(Self { stream, kill_with_parent })
    }

    /// Starts the command, which is of this driver's kind, by `spawn`.
    pub(crate) fn spawn<M: Send + 'static, C: Send + 'static>(
        &self,
        command: &mut M,
        placeholder: M,
        spawn: impl FnOnce(&mut M) -> io::Result<C> + Send + 'static,
    ) -> io::Result<C> {
        if self.kill_with_parent { starter::spawn(command, placeholder, spawn) } else { spawn(command) }
    }

    /// What was started, and the stream to it.
    pub(crate) fn started<C>(self, command: &mut Command, child: io::Result<C>) -> Result<(UnixStream, C)> {
        // The command keeps its end of the pair, through which the stream would seem alive after the child's
        // death.
        command.stdin(Stdio::null());
        let child = child.map_err(|error| {
            let message = format!("child process {:?} does not start: {error}", command.get_program());
            Error::new(ErrorKind::Io, message)
        })?;
        Ok((self.stream, child))
    }
}

/// Starts `command`.
pub(crate) fn spawn(command: &mut Command, config: &Config) -> Result<(UnixStream, OwnedChild)> {
    let starting = Starting::new(command, config)?;
    let child = starting.spawn(command, Command::new(""), Command::spawn);
    starting.started(command, child.map(OwnedChild::new))
}

/// How long a child that could not be connected with is let run: one that has hung up is about to end.
pub(crate) fn patience(error: &Error) -> Duration {
    if error.is_disconnected() { PATIENCE } else { Duration::ZERO }
}

/// Why a child could not be connected with, and how it has ended, if it has by itself.
pub(crate) fn failed(error: Error, program: &OsStr, ended: Option<Ended>) -> Error {
    let error =
        error.with_context(format_args!("child process {program:?} (which has to call `serve_parent`)"));
    match ended {
        Some(Ended { status, by_itself: true }) => with_status(error, status),
        _ => error,
    }
}

/// The error of a connection to a child that has ended.
fn with_status(error: Error, status: ExitStatus) -> Error {
    error.with_note(format_args!("the child process has ended: {status}"))
}

/// The stream to the parent, in the child. After this standard input is empty, so that grandchildren do not
/// inherit the connection and keep it alive.
pub(crate) fn parent() -> Result<UnixStream> {
    let refuse = |reason: &str| {
        let message =
            format!("this process was not started by an lpc client (`ClientBuilder::spawn`): {reason}");
        Err(Error::new(ErrorKind::InvalidInput, message))
    };
    if environment::is_foreign() {
        return refuse("it has rights that its parent has not (AT_SECURE), and serves no such parent");
    }
    let value = environment::var(VARIABLE);
    let is_until_death = value.as_deref() == Some(OsStr::new(STDIN_UNTIL_DEATH));
    if !is_until_death && value.is_none_or(|value| value != STDIN) {
        return refuse("LPC_PARENT is not set");
    }
    let stdin = io::stdin();
    if !matches!(getsockopt(&stdin.as_fd(), sockopt::SockType), Ok(SockType::Stream)) {
        return refuse("standard input is no stream socket");
    }
    let stream = stdin.as_fd().try_clone_to_owned()?;
    // One that nobody writes to. It takes no file, which a sandbox of this process may keep from it.
    let (empty, _) = io::pipe()?;
    nix::unistd::dup2_stdin(empty).map_err(io::Error::from)?;
    if is_until_death {
        // A parent that has ended before this has closed the connection: the handshake fails.
        set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from)?;
    }
    Ok(UnixStream::from(stream))
}
