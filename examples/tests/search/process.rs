//! Running the program so that a hang is a failure, and looking at its processes.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Once, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything may take before it counts as a hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// The program, which an interrupt ends, also where the tests were started with interrupts ignored, as a
/// script's job is.
pub(crate) fn search() -> Command {
    static CATCHES: Once = Once::new();
    CATCHES.call_once(|| {
        // What a process catches its children do by default; what it ignores they ignore.
        let always = Arc::new(AtomicBool::new(true));
        signal_hook::flag::register_conditional_shutdown(Signal::SIGINT as i32, 130, always).unwrap();
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_search"));
    command.env_remove("LPC_THRESHOLD").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn grep() -> Command {
    let mut command = Command::new("grep");
    command.args(["-r", "-c", "-a", "-H"]).env("LC_ALL", "C").env_remove("GREP_COLORS").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs to the end.
pub(crate) fn run(command: &mut Command) -> Output {
    finish(command.spawn().unwrap())
}

/// Takes the output and the exit status of what was started.
pub(crate) fn finish(child: Child) -> Output {
    let pid = pid(&child);
    let (give, output) = mpsc::channel();
    thread::spawn(move || give.send(child.wait_with_output()));
    match output.recv_timeout(PATIENCE) {
        Ok(output) => output.unwrap(),
        Err(_) => {
            let _ = kill(pid, Signal::SIGKILL);
            panic!("the program hangs");
        }
    }
}

pub(crate) fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// The process that `child` has started as its service.
pub(crate) fn service_of(child: &Child) -> Pid {
    let path = format!("/proc/{0}/task/{0}/children", child.id());
    let children = eventually("there is no service", || {
        let children = std::fs::read_to_string(&path).unwrap();
        (!children.trim().is_empty()).then_some(children)
    });
    Pid::from_raw(children.trim().parse().unwrap())
}

/// Waits for a process to end. A zombie has ended, too.
pub(crate) fn assert_ends(pid: Pid) {
    let path = format!("/proc/{pid}/stat");
    eventually("a process is left over", || {
        let state = std::fs::read_to_string(&path).ok().and_then(|stat| {
            // The state stands behind the program's name, which may contain anything.
            stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next())
        });
        matches!(state, None | Some('Z' | 'X')).then_some(())
    });
}

/// Asks until there is an answer.
pub(crate) fn eventually<T>(otherwise: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "{otherwise}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What was printed: each file's line, sorted, and the total.
pub(crate) fn counts(output: &Output) -> (Vec<Vec<u8>>, u64) {
    let text = output.stdout.strip_suffix(b"\n").unwrap_or_else(|| panic!("no output: {}", err(output)));
    let mut lines: Vec<_> = text.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
    let total = String::from_utf8(lines.pop().unwrap()).unwrap();
    lines.sort();
    (lines, total.strip_prefix("total: ").unwrap().parse().unwrap())
}

/// Runs both programs with the same arguments and compares all that they say, but for the order and the words
/// of error messages. Gives the total.
pub(crate) fn assert_as_grep<A: AsRef<OsStr>>(
    directory: &Path,
    grep_options: &[&str],
    arguments: &[A],
) -> u64 {
    let theirs = run(grep().current_dir(directory).args(grep_options).arg("--").args(arguments));
    let ours = run(search().current_dir(directory).arg("--").args(arguments));
    assert_same(&theirs, &ours)
}

pub(crate) fn assert_same(theirs: &Output, ours: &Output) -> u64 {
    let (lines, total) = counts(ours);
    let text = theirs.stdout.strip_suffix(b"\n").unwrap_or_default();
    let mut expected: Vec<_> =
        text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect();
    expected.sort();
    for (expected, line) in expected.iter().zip(&lines) {
        assert_eq!(String::from_utf8_lossy(line), String::from_utf8_lossy(expected));
    }
    assert_eq!(lines.len(), expected.len(), "{}", err(ours));
    // A part of a name with a line feed in it is no count.
    let sum: u64 = expected.iter().map(|line| count(line)).sum();
    assert_eq!(total, sum);
    assert_eq!(ours.status.into_raw(), theirs.status.into_raw(), "{} {}", err(ours), err(theirs));
    assert_eq!(ours.stderr.is_empty(), theirs.stderr.is_empty(), "{} {}", err(ours), err(theirs));
    total
}

fn count(line: &[u8]) -> u64 {
    let digits = line.rsplit(|&byte| byte == b':').next().filter(|digits| digits.len() < line.len());
    digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0)
}
