//! However it ends, it ends: with what it has to say, and with both processes.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout};

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::process::{assert_ends, err, finish, pid, run, search, service_of};
use crate::tree;

/// More files than fit into all queues between the walk and a reader that does not read.
const MANY: usize = 6000;

/// A search that has printed a line, and cannot come to its end before more of its output is read.
struct Halfway {
    child: Child,
    service: Pid,
    stdout: BufReader<ChildStdout>,
    _tree: TempDir,
}

fn halfway() -> Halfway {
    let tree = tree::many(MANY);
    let mut command = search();
    command.args(["--jobs", "3", "one"]).arg(tree.path()).process_group(0);
    let mut child = command.spawn().unwrap();
    let service = service_of(&child);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert!(line.ends_with(":0\n"), "{line}");
    Halfway { child, service, stdout, _tree: tree }
}

/// A search in the middle of a call: it has sent a piece of what it reads from a pipe to a service that
/// stands still.
struct MidCall {
    child: Child,
    service: Pid,
    _pipe: File,
    _directory: TempDir,
}

fn mid_call() -> MidCall {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    let child = search().arg("one").arg(&path).process_group(0).spawn().unwrap();
    // Opens once the other end is opened, when the service has answered its first call.
    let mut pipe = OpenOptions::new().write(true).open(&path).unwrap();
    let service = service_of(&child);
    kill(service, Signal::SIGSTOP).unwrap();
    // All but what a pipe holds must have been read before this returns: a piece.
    pipe.write_all("one\n".repeat((1 << 18) + (1 << 14)).as_bytes()).unwrap();
    MidCall { child, service, _pipe: pipe, _directory: directory }
}

#[test]
fn a_service_killed_halfway_ends_the_search() {
    let Halfway { child, service, mut stdout, _tree } = halfway();
    kill(service, Signal::SIGKILL).unwrap();
    let mut out = String::new();
    stdout.read_to_string(&mut out).unwrap();
    let output = finish(child);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        err(&output).starts_with("search: the service is lost (signal: 9 (SIGKILL)): "),
        "{}",
        err(&output)
    );
    assert_eq!(err(&output).lines().count(), 1, "{}", err(&output));
    // What was counted was printed, in whole lines.
    assert!(out.is_empty() || out.ends_with('\n'));
    assert!(out.lines().count() < MANY && !out.contains("total"), "{}", out.lines().count());
    assert_ends(service);
}

#[test]
fn a_service_killed_in_a_call_ends_the_search() {
    let MidCall { child, service, _pipe, _directory } = mid_call();
    kill(service, Signal::SIGKILL).unwrap();
    let output = finish(child);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(output.stdout, b"");
    assert!(
        err(&output).starts_with("search: the service is lost (signal: 9 (SIGKILL)): "),
        "{}",
        err(&output)
    );
    assert_ends(service);
}

#[test]
fn an_interrupt_of_the_parent_ends_both() {
    let Halfway { child, service, stdout: _stdout, _tree } = halfway();
    kill(pid(&child), Signal::SIGINT).unwrap();
    let output = finish(child);
    assert_eq!((output.status.signal(), err(&output).as_str()), (Some(Signal::SIGINT as i32), ""));
    assert_ends(service);
}

#[test]
fn an_interrupt_of_the_parent_in_a_call_ends_both() {
    let MidCall { child, service, _pipe, _directory } = mid_call();
    kill(pid(&child), Signal::SIGINT).unwrap();
    let output = finish(child);
    assert_eq!((output.status.signal(), err(&output).as_str()), (Some(Signal::SIGINT as i32), ""));
    kill(service, Signal::SIGCONT).unwrap();
    assert_ends(service);
}

#[test]
fn an_interrupt_from_the_terminal_ends_both() {
    let Halfway { child, service, stdout: _stdout, _tree } = halfway();
    killpg(pid(&child), Signal::SIGINT).unwrap();
    let output = finish(child);
    assert_eq!((output.status.signal(), err(&output).as_str()), (Some(Signal::SIGINT as i32), ""));
    assert_ends(service);
}

#[test]
fn an_output_closed_early_ends_both_quietly() {
    let Halfway { child, service, stdout, _tree } = halfway();
    drop(stdout);
    let output = finish(child);
    assert_eq!(err(&output), "");
    assert_eq!(output.status.code(), Some(0));
    assert_ends(service);
}

#[test]
fn an_output_that_takes_nothing_is_an_error() {
    let directory = tree::odd();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = run(search().arg("one").arg(directory.path()).stdout(full));
    assert_eq!(output.status.code(), Some(2));
    assert!(
        err(&output).contains("the output cannot be written: No space left on device"),
        "{}",
        err(&output)
    );
}
