//! Services in child processes, connected through the child's standard input.
//!
//! Standard input is the one descriptor that every way of starting a program passes on, so no number has to
//! be agreed on, nothing is left open in other children, and no code runs between fork and exec.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use lpc_core::{Error, ErrorKind, Result};
use nix::sys::socket::{SockType, getsockopt, sockopt};

use crate::sys::environment;

/// Tells the child that its standard input is a connection.
const VARIABLE: &str = "LPC_PARENT";

/// Starts `command` with the other end of the returned stream.
pub(crate) fn spawn(command: &mut Command) -> Result<(UnixStream, Child)> {
    let (ours, theirs) = UnixStream::pair()?;
    command.stdin(Stdio::from(OwnedFd::from(theirs))).env(VARIABLE, "stdin");
    let child = command.spawn().map_err(|error| {
        let message = format!("child process {:?} does not start: {error}", command.get_program());
        Error::new(ErrorKind::Io, message)
    });
    // The command keeps its end of the pair, through which the stream would seem alive after the child's
    // death.
    command.stdin(Stdio::null());
    Ok((ours, child?))
}

/// Ends a child that does not serve.
pub(crate) fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
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
    if environment::var(VARIABLE).is_none_or(|value| value != "stdin") {
        return refuse("LPC_PARENT is not set");
    }
    let stdin = io::stdin();
    if !matches!(getsockopt(&stdin.as_fd(), sockopt::SockType), Ok(SockType::Stream)) {
        return refuse("standard input is no stream socket");
    }
    let stream = stdin.as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(File::open("/dev/null")?).map_err(io::Error::from)?;
    Ok(UnixStream::from(stream))
}
