//! Starts this program again as another process, and talks with it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::service::{Driver, RUNTIME};

/// What the other process is to do.
pub const ROLE: &str = "LPC_TEST_ROLE";
/// The driver that it uses.
pub const DRIVER: &str = "LPC_TEST_DRIVER";
/// The port that it is about.
pub const PORT: &str = "LPC_TEST_PORT";

/// Guards against hangs. Nothing takes this long.
pub const GUARD: Duration = Duration::from_secs(10);

/// Begins what the other process has to say; the test harness writes to standard output, too.
const MARK: &str = "@@ ";

/// Tells the process that started this one.
pub fn say(text: impl std::fmt::Display) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{MARK}{text}").unwrap();
    stdout.flush().unwrap();
}

/// Nothing is left behind, even if the test is killed.
pub fn end_with_parent() {
    let parent = std::os::unix::process::parent_id();
    std::thread::spawn(move || {
        while std::os::unix::process::parent_id() == parent {
            std::thread::sleep(Duration::from_millis(100));
        }
        std::process::exit(1);
    });
}

/// The command that starts this program in a role, with a clean environment as far as lpc reads it.
pub fn other(role: &str, driver: Driver) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "other_process", "--nocapture"]);
    command.env(ROLE, role).env(DRIVER, format!("{driver:?}"));
    for name in ["LPC_THRESHOLD", "LPC_PARENT", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET"]
    {
        command.env_remove(name);
    }
    // A backtrace reads as much as the memory that some tests count.
    command.env("RUST_BACKTRACE", "0");
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// The same command started by a shell, which does `script` first and must end with `exec "$0" "$@"`.
pub fn through_shell(script: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.stdin(Stdio::null()).stdout(Stdio::piped());
    shell
}

/// A child of either driver's `spawn`.
pub enum AnyChild {
    Std(Child),
    Tokio(tokio::process::Child),
}

impl AnyChild {
    fn id(&self) -> Option<u32> {
        match self {
            Self::Std(child) => Some(child.id()),
            Self::Tokio(child) => child.id(),
        }
    }

    fn try_wait(&mut self) -> std::io::Result<Option<ExitStatus>> {
        match self {
            Self::Std(child) => child.try_wait(),
            Self::Tokio(child) => child.try_wait(),
        }
    }

    fn kill(&mut self) -> std::io::Result<()> {
        match self {
            Self::Std(child) => child.kill(),
            Self::Tokio(child) => child.start_kill(),
        }
    }

    fn wait(&mut self) -> std::io::Result<ExitStatus> {
        match self {
            Self::Std(child) => child.wait(),
            Self::Tokio(child) => RUNTIME.block_on(child.wait()),
        }
    }
}

impl From<Child> for AnyChild {
    fn from(child: Child) -> Self {
        Self::Std(child)
    }
}

impl From<tokio::process::Child> for AnyChild {
    fn from(child: tokio::process::Child) -> Self {
        Self::Tokio(child)
    }
}

/// A process that this one started. Killed when dropped.
pub struct Process {
    child: AnyChild,
    lines: mpsc::Receiver<String>,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        Self::adopt(command.spawn().unwrap())
    }

    /// A child whose standard output is a pipe.
    pub fn adopt(child: impl Into<AnyChild>) -> Self {
        let mut child = child.into();
        let stdout = match &mut child {
            AnyChild::Std(child) => child.stdout.take().map(OwnedFd::from),
            AnyChild::Tokio(child) => child.stdout.take().map(|stdout| stdout.into_owned_fd().unwrap()),
        };
        let stdout = File::from(stdout.expect("standard output is a pipe"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some((_, text)) = line.split_once(MARK)
                    && sender.send(text.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    pub fn id(&self) -> u32 {
        self.child.id().expect("nobody has waited for it")
    }

    /// The next that it says.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(GUARD).expect("the other process says something")
    }

    /// All that it and its children say until they have ended.
    pub fn rest(&self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.lines.recv_timeout(GUARD) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => return lines,
                Err(RecvTimeoutError::Timeout) => panic!("the other process does not end after {lines:?}"),
            }
        }
    }

    /// Writes to its standard input, which must be a pipe.
    pub fn tell(&mut self, text: &str) {
        let AnyChild::Std(child) = &mut self.child else { panic!("its standard input is its connection") };
        let stdin = child.stdin.as_mut().expect("standard input is a pipe");
        writeln!(stdin, "{text}").unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        until("the other process ends", || self.child.try_wait().unwrap())
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again and again until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + GUARD;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs `action` on another thread, so that the test fails if it hangs.
pub fn within<T: Send + 'static>(what: &str, action: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || drop(sender.send(action())));
    match receiver.recv_timeout(GUARD) {
        Ok(value) => value,
        Err(RecvTimeoutError::Timeout) => panic!("{what} hangs"),
        Err(RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("it sends its value"),
        },
    }
}

/// How many descriptors a process has, and how many mappings of lpc's shared memory.
pub fn holdings(id: u32) -> (usize, usize) {
    let descriptors = std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
    let maps = std::fs::read(format!("/proc/{id}/maps")).unwrap();
    let is_ours = |line: &&[u8]| line.windows(9).any(|part| part == b"memfd:lpc");
    (descriptors, maps.split(|byte| *byte == b'\n').filter(is_ours).count())
}

/// The holdings of a process that has nothing to do with shared memory any more, once they stay as they are.
pub fn settled(id: u32) -> usize {
    let mut last = 0;
    let mut same = 0;
    until("a process lets go of what it held", || {
        let (descriptors, mappings) = holdings(id);
        same = if mappings == 0 && descriptors == last { same + 1 } else { 0 };
        last = descriptors;
        (same == 10).then_some(descriptors)
    })
}

/// A variable of the environment that the test set.
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is set"))
}

/// A path as text.
pub fn text(path: &(impl AsRef<OsStr> + ?Sized)) -> &str {
    path.as_ref().to_str().unwrap()
}
