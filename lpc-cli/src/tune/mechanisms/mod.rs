//! What an operating system offers for the same work: each carries requests to another process, without lpc.
//!
//! Each sleeps while it waits. The caller writes each byte in memory of its own; the other process reads each
//! byte and answers with the sum.
//!
//! # Layout
//!
//! - `streams`: a pipe, TCP on loopback.
//! - `messages`: what keeps messages apart: a datagram socket, a sequenced-packet socket.
//! - `queues`: message queues, of POSIX and of System V.
//! - `memory`: shared memory of either kind, a mapped file, a new memfd for each call.
//! - `system`: the system calls that are unsafe.

mod memory;
mod messages;
mod queues;
mod streams;
mod system;

use std::fmt;
use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use lpc_cli::measure::{Service, size};

use super::carrier::Opened;
use crate::Result;

/// A way to carry bytes to another process.
pub(super) trait Mechanism: Sync {
    /// What it is called, in tables and on the command line.
    fn name(&self) -> &'static str;

    /// The largest body that it carries, if the system has a limit.
    fn limit(&self) -> io::Result<Option<Limit>> {
        Ok(None)
    }

    /// Starts `command`, which becomes the other process; no body will be larger than `largest`. Standard
    /// input of that process ends when this one does.
    fn open(&self, command: &mut Command, largest: usize) -> Result<Opened>;

    /// Is the other process. `place` is the argument of that name that [`open`](Self::open) gave to it, if
    /// any.
    fn serve(&self, place: &str, largest: usize) -> Result<()>;
}

/// All of them.
pub(super) fn all() -> [&'static dyn Mechanism; 10] {
    [
        &streams::Pipe,
        &streams::Tcp,
        &messages::Datagram,
        &messages::SequencedPacket,
        &queues::Posix,
        &queues::SystemV,
        &memory::SystemV,
        &memory::Posix,
        &memory::File,
        &memory::FreshMemfd,
    ]
}

/// Of the size of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) bytes: u64,
    /// What sets it.
    pub(super) knob: &'static str,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bodies up to {} ({})", size(self.bytes), self.knob)
    }
}

impl Limit {
    /// What a file below `/proc/sys` says.
    fn read(path: &str, knob: &'static str) -> io::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let bytes = text.trim().parse().map_err(|_| io::Error::other(format!("{path} has no number")))?;
        Ok(Self { bytes, knob })
    }
}

/// How long the other process may take to answer, where its end cannot be noticed.
const PATIENCE: Duration = Duration::from_secs(30);

/// The sum of what was read.
type Answer = [u8; 8];

/// Starts the other process, and drops what was set for its standard streams: its ends of what connects the
/// two.
fn start(command: &mut Command) -> io::Result<Service> {
    let child = command.spawn();
    command.stdin(Stdio::null()).stdout(Stdio::null());
    child.map(Service::of)
}

/// In the other process: ends it, after `clean`, when standard input ends, because the caller has.
fn end_with_the_caller(clean: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let watching = thread::Builder::new().spawn(move || {
        let _ = io::stdin().read(&mut [0]);
        clean();
        std::process::exit(0);
    });
    watching.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_says_how_much_and_who_sets_it() {
        let limit = Limit { bytes: 8192, knob: "kernel.msgmax" };
        assert_eq!(limit.to_string(), "bodies up to 8KiB (kernel.msgmax)");
        let error = Limit::read("/proc/self/comm", "no number").unwrap_err();
        assert_eq!(error.to_string(), "/proc/self/comm has no number");
    }

    #[test]
    fn no_two_have_one_name() {
        let names: std::collections::BTreeSet<_> = all().map(Mechanism::name).into();
        assert_eq!(names.len(), all().len());
    }
}
