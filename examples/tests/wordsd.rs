//! `wordsd`, run as the daemon that it is, and as its client.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

/// Guards against hangs. Nothing takes this long.
const GUARD: Duration = Duration::from_secs(30);

fn wordsd(port: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wordsd"));
    command.arg("--port").arg(port).env_remove("LPC_THRESHOLD").env_remove("NOTIFY_SOCKET");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn ask(port: &Path, file: &Path) -> Output {
    wordsd(port).arg(file).output().unwrap()
}

/// The daemon. Killed if a test fails before it ends.
struct Daemon {
    port: PathBuf,
    child: Option<Child>,
    manager: UnixDatagram,
    directory: tempfile::TempDir,
}

impl Daemon {
    /// One that is ready, as a service manager sees it.
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (port, address) = (directory.path().join("port"), directory.path().join("manager"));
        let manager = UnixDatagram::bind(&address).unwrap();
        manager.set_read_timeout(Some(GUARD)).unwrap();
        let child = wordsd(&port).env("NOTIFY_SOCKET", &address).spawn().unwrap();
        let daemon = Self { port, child: Some(child), manager, directory };
        assert_eq!(daemon.said(), "READY=1");
        daemon
    }

    fn said(&self) -> String {
        let mut space = [0; 64];
        let len = self.manager.recv(&mut space).unwrap();
        String::from_utf8(space[..len].to_vec()).unwrap()
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().unwrap().id();
        kill(Pid::from_raw(i32::try_from(id).unwrap()), signal).unwrap();
    }

    /// A pipe, and a client whose call has begun to read it.
    fn call(&self) -> (File, Child) {
        let pipe = self.directory.path().join("pipe");
        mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let client = wordsd(&self.port).arg(&pipe).spawn().unwrap();
        // Opening it takes two.
        let (sender, opened) = mpsc::channel();
        thread::spawn(move || sender.send(File::options().write(true).open(pipe)));
        (opened.recv_timeout(GUARD).unwrap().unwrap(), client)
    }

    fn end(mut self) -> Output {
        let mut child = self.child.take().unwrap();
        let until = Instant::now() + GUARD;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > until {
                let _ = child.kill();
                panic!("the daemon does not end");
            }
            thread::sleep(Duration::from_millis(5));
        }
        child.wait_with_output().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn words_are_counted_by_the_daemon() {
    let daemon = Daemon::start();
    let file = daemon.directory.path().join("file");
    std::fs::write(&file, "to be\n or \t not to be\n").unwrap();
    for _ in 0..2 {
        let output = ask(&daemon.port, &file);
        assert_eq!(output.stdout, b"6\n", "{output:?}");
    }
    let output = ask(&daemon.port, Path::new("/no/such/file"));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("No such file or directory"));
    daemon.signal(Signal::SIGINT);
    assert_eq!(daemon.end().status.code(), Some(0));
}

#[test]
fn a_call_that_runs_when_the_daemon_is_terminated_is_answered() {
    let daemon = Daemon::start();
    let (mut pipe, client) = daemon.call();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.said(), "STOPPING=1");
    let late = ask(&daemon.port, Path::new("/dev/null"));
    assert_eq!(late.status.code(), Some(1), "nobody else is served: {late:?}");
    pipe.write_all(b"three words more").unwrap();
    drop(pipe);
    let output = client.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"3\n"[..]), "{output:?}");
    let port = daemon.port.clone();
    let output = daemon.end();
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));
    assert!(!port.exists());
}

#[test]
fn a_daemon_that_is_terminated_twice_waits_for_nobody() {
    let daemon = Daemon::start();
    let (pipe, client) = daemon.call();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.said(), "STOPPING=1");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.end().status.code(), Some(0));
    let output = client.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("shutting down"));
    drop(pipe);
}

#[test]
fn a_second_daemon_says_that_there_is_one() {
    let daemon = Daemon::start();
    let output = wordsd(&daemon.port).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("another server holds it"));
}

#[test]
fn help_says_how_it_is_used() {
    let output = wordsd(Path::new("unused")).arg("--help").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("Usage: wordsd [OPTIONS] [FILE]"));
}
