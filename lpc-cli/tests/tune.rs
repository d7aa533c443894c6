//! The program `lpc tune`, in small, as its user runs it.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lpc_cli::measure::{Pinning, Record, pin};

/// Enough to have every kind of line: three sizes, one round, as few calls as there can be.
const SMALL: [&str; 5] = ["tune", "--sizes=1KiB..4KiB", "--rounds=1", "--share=0", "--pinning=together"];

/// A run of the program, which can be told from others by a variable of its environment, inherited by what it
/// starts.
struct Run {
    command: Command,
    mark: String,
}

impl Run {
    fn new<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Self {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let mark = format!("LPC_TUNE_TEST={}-{run}", std::process::id());
        let (name, value) = mark.split_once('=').unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_lpc"));
        command.args(arguments).env(name, value).stdin(Stdio::null());
        Self { command, mark }
    }

    fn output(&mut self) -> Output {
        self.command.output().unwrap()
    }

    /// Processes of this run.
    fn alive(&self) -> usize {
        let processes = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| fs::read(entry.ok()?.path().join("environ")).ok());
        processes
            .filter(|environ| {
                environ.split(|byte| *byte == 0).any(|variable| variable == self.mark.as_bytes())
            })
            .count()
    }

    fn wait_until_none_is_alive(&self) {
        let started = Instant::now();
        while self.alive() > 0 {
            assert!(started.elapsed() < Duration::from_secs(30), "{} processes are left", self.alive());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_report_has_the_costs_the_crossovers_and_the_thresholds() {
    let mut run = Run::new(SMALL);
    let output = run.output();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    assert_eq!(run.alive(), 0);
    let report = text(&output.stdout);
    for receiver in ["copying", "trusting"] {
        let heading = format!("together (both processes on one CPU), receiver {receiver}\n");
        let table = report.split_once(&heading).unwrap().1;
        for size in ["1KiB", "2KiB", "4KiB"] {
            let line = table.lines().find(|line| line.starts_with(&format!("| {size} "))).unwrap();
            let figures: Vec<f64> = line.split('|').filter_map(|cell| cell.trim().parse().ok()).collect();
            let [_, _, requests, _, _, replies] = figures[..] else { panic!("{line}") };
            assert!(figures.iter().all(|figure| *figure > 0.0), "{line}");
            for (figures, ratio) in [(&figures[..2], requests), (&figures[3..5], replies)] {
                // Both are rounded.
                assert!((figures[1] / figures[0] / ratio - 1.0).abs() < 0.1, "{line}");
            }
        }
    }
    for part in [
        "together, requests, receiver copying: ── mapping lane, ┈┈ socket lane",
        "| requests, copying ",
        "| both, trusting ",
        "built in: 4KiB at worst",
        "  requests  the client's builder().threshold(Threshold::",
        "  replies   the server's builder().threshold(Threshold::",
        "  both      LPC_THRESHOLD=",
    ] {
        assert!(report.contains(part), "no {part:?} in {report}");
    }
}

#[test]
fn json_has_a_line_for_each_way_size_and_round_and_nothing_else() {
    let small = SMALL.map(|argument| argument.replace("--rounds=1", "--rounds=2"));
    let mut run = Run::new(small.iter().map(String::as_str).chain(["--json"]));
    let output = run.output();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!((text(&output.stderr), run.alive()), ("", 0));
    let lines = text(&output.stdout).lines();
    let records: Vec<Record> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 2 * 2 * 2 * 3 * 2);
    let ways = records.iter().map(|record| (&*record.work, &*record.peer, record.size, record.round));
    assert_eq!(ways.collect::<BTreeSet<_>>().len(), records.len(), "none twice");
    for record in &records {
        assert!(["upload", "download"].contains(&&*record.work), "{record:?}");
        let is_whole = record.p50_ns > 0
            && record.p99_ns >= record.p50_ns
            && record.per_s > 0.0
            && record.cpu_ns > 0
            && record.rss_kib > 0
            && record.pinning == Pinning::Together;
        assert!(is_whole, "{record:?}");
    }
}

/// What those that every Linux has are called.
const COMMON: [&str; 7] = [
    "pipe",
    "TCP on loopback",
    "datagram socket",
    "sequenced-packet socket",
    "POSIX shared memory",
    "memory-mapped file",
    "fresh memfd for each call",
];

/// And those that a system may be built without.
const OPTIONAL: [&str; 3] = ["POSIX message queue", "System V message queue", "System V shared memory"];

#[test]
fn mechanisms_stand_beside_the_lanes_each_as_far_as_its_limit_allows() {
    let mut run = Run::new(SMALL.into_iter().chain(["--mechanisms"]));
    let output = run.output();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(run.alive(), 0);
    let table = text(&output.stdout).split_once("What the system offers").unwrap().1;
    let line = |name: &str| table.lines().find(|line| line.starts_with(&format!("| {name} "))).unwrap();
    for name in ["lpc socket", "lpc mapping", "lpc mapping trust"].into_iter().chain(COMMON) {
        let figures = line(name).split('|').filter_map(|cell| cell.trim().parse::<f64>().ok());
        assert_eq!(figures.filter(|figure| *figure > 0.0).count(), 3, "{}", line(name));
    }
    for name in OPTIONAL {
        let cells = line(name)
            .split('|')
            .map(str::trim)
            .filter(|cell| cell.parse::<f64>().is_ok() || cell.starts_with("max "));
        let is_left_out = text(&output.stderr).contains(&format!("lpc: {name}: left out: "));
        assert!(is_left_out || cells.count() == 3, "{table}");
    }
}

#[test]
fn less_is_measured_where_less_is_asked_for() {
    let less = ["--receiver=trusting", "--bodies=replies", "--json"];
    let output = Run::new(SMALL.into_iter().chain(less)).output();
    let records = text(&output.stdout).lines().map(|line| serde_json::from_str::<Record>(line).unwrap());
    let ways: BTreeSet<_> = records.map(|record| (record.work, record.peer)).collect();
    let expected =
        ["lpc mapping trust", "lpc socket trust"].map(|peer| ("download".to_owned(), peer.to_owned()));
    assert_eq!(ways, expected.into());
}

#[test]
fn the_picture_has_a_panel_for_each_receiver_and_kind_of_bodies() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("costs.svg");
    let plot = format!("--plot={}", path.display());
    let output = Run::new(SMALL.into_iter().chain([&*plot])).output();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let svg = fs::read_to_string(path).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
    assert_eq!(svg.matches("<polyline").count(), 4 * 2);
}

#[test]
fn one_run_draws_as_many_pictures_as_are_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let paths = ["costs.svg", "costs.png", "again.svg"].map(|name| directory.path().join(name));
    let plots = paths.each_ref().map(|path| format!("--plot={}", path.display()));
    let output = Run::new(SMALL.into_iter().chain(plots.iter().map(String::as_str))).output();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let [svg, png, again] = paths.map(|path| fs::read(path).unwrap());
    assert!(svg.starts_with(b"<svg ") && png.starts_with(b"\x89PNG"));
    assert_eq!(text(&svg), text(&again), "of the same measurements");
}

#[test]
fn a_wrong_usage_has_status_2_and_says_what_is_wrong() {
    for (argument, message) in [
        ("--sizes=4KiB..1KiB", "the first size is above the last"),
        ("--sizes=many", "\"many\" is no size"),
        ("--sizes=1KiB..1GiB", "sizes end at 256MiB"),
        ("--pinning=nowhere", "nowhere"),
        ("--rounds=0", "0 is not in"),
        ("--plot=costs.bmp", "let the name end in `.svg` or `.png`"),
        ("--quick", "cannot be used with"),
        ("--fast", "--fast"),
    ] {
        let output = Run::new(
            SMALL
                .into_iter()
                .filter(|of| !argument.starts_with(of.split('=').next().unwrap()))
                .chain([argument]),
        )
        .output();
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{argument}: {error}");
        assert!(error.contains(message), "{argument}: {error}");
        assert_eq!(text(&output.stdout), "");
    }
    assert_eq!(Run::new([]).output().status.code(), Some(2));
}

#[test]
fn a_picture_that_cannot_be_written_has_status_1_and_names_the_file() {
    let output = Run::new(SMALL.into_iter().chain(["--plot=/nowhere/costs.svg"])).output();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).starts_with("lpc: cannot write /nowhere/costs.svg: "),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn help_is_no_error() {
    for arguments in [&["--help"][..], &["--version"], &["tune", "--help"]] {
        let output = Run::new(arguments.iter().copied()).output();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{arguments:?}");
        assert!(!output.stdout.is_empty());
    }
}

/// Would take hours.
const ENDLESS: [&str; 5] = ["tune", "--sizes=1KiB..4KiB", "--rounds=10000", "--share=100", "--json"];

#[test]
fn on_one_cpu_nothing_is_measured_apart() {
    let on_one_cpu = || {
        let [cpu, _] = Pinning::Together.cpus().unwrap().unwrap();
        pin(cpu.unwrap()).unwrap();
        let apart = SMALL.map(|argument| argument.replace("together", "apart"));
        let both = SMALL.map(|argument| argument.replace("together", "apart,together"));
        [apart, both].map(|arguments| Run::new(arguments.iter().map(String::as_str)).output())
    };
    // In a thread of its own: the others keep their CPUs.
    let [apart, both] = thread::spawn(on_one_cpu).join().unwrap();
    assert_eq!((apart.status.code(), text(&apart.stdout)), (Some(1), ""));
    assert!(
        text(&apart.stderr).contains("nothing to measure: two CPUs are needed"),
        "{}",
        text(&apart.stderr)
    );
    assert_eq!(
        (both.status.code(), text(&both.stderr)),
        (Some(0), "lpc: apart: left out, this process may use one CPU only\n")
    );
    assert!(!text(&both.stdout).contains("apart ("));
}

#[test]
fn output_that_nobody_reads_ends_it_quietly() {
    let mut run = Run::new(ENDLESS);
    let mut child = run.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    serde_json::from_str::<Record>(&line).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    assert_eq!(run.alive(), 0);
}

#[test]
fn nothing_is_left_of_it_when_it_is_killed() {
    let mut run = Run::new(ENDLESS);
    let mut child = run.command.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut String::new()).unwrap();
    assert!(run.alive() > 1, "a service runs");
    child.kill().unwrap();
    child.wait().unwrap();
    run.wait_until_none_is_alive();
}

#[test]
fn no_message_queue_is_left_of_it_when_it_is_killed() {
    let endless =
        ["tune", "--sizes=1KiB", "--rounds=10000", "--share=1", "--json", "--mechanisms", "--pinning=free"];
    let mut run = Run::new(endless);
    let mut child = run.command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let used = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| {
        let record: Record = serde_json::from_str(&line.unwrap()).unwrap();
        record
    });
    // What comes last: the queues have been used.
    assert!(
        used.take_while(|record| record.round == 1).any(|record| record.peer == "fresh memfd for each call")
    );
    child.kill().unwrap();
    child.wait().unwrap();
    run.wait_until_none_is_alive();
    // Where there are none, there is no such file either. For each queue it has the processes that sent and
    // received the last message.
    let queues = fs::read_to_string("/proc/sysvipc/msg").unwrap_or_default();
    let user = child.id().to_string();
    let is_left = |queue: &str| queue.split_whitespace().skip(5).take(2).any(|process| process == user);
    assert!(!queues.lines().any(is_left), "{queues}");
}
