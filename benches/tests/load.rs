//! `benches load` and `benches scale`, in small: everything is measured, between processes, and said in JSON.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const PEERS: usize = 6;

#[test]
fn looking_and_sleeping_are_measured_in_each_situation() {
    let (table, lines) = run(&["load", "--rounds=1", "--share=1", "--idle=1"]);
    let (idle, calls): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["situation"] == "idle");
    let listed = print(&["load", "--list"]);
    let situations = listed.lines().count() - PEERS;
    let cells: BTreeSet<String> =
        calls.iter().map(|line| format!("{}{}{}", line["situation"], line["peer"], line["sleeps"])).collect();
    assert_eq!(cells.len(), calls.len(), "one line for each: {cells:?}");
    // tokio sleeps no shorter than a millisecond: two situations less, of four peers.
    assert_eq!(calls.len(), 2 * (PEERS * situations - 2 * 4));
    for line in calls {
        assert!(number(line, "p50_ns") > 0.0 && number(line, "per_s") > 0.0, "{line}");
        assert!(number(line, "p99_ns") >= number(line, "p50_ns") && number(line, "round") == 1.0, "{line}");
    }
    // Of two processes each.
    assert_eq!(idle.len(), 2 * 2 * PEERS);
    assert!(idle.iter().all(|line| line["cpu_ns"].is_u64() && line["switches"].is_u64()));
    for name in listed.lines() {
        assert!(table.contains(name), "{name} is in no table: {table}");
    }
}

#[test]
fn many_connections_are_measured_idle_and_busy_and_beside_a_flood() {
    let (table, lines) = run(&[
        "scale",
        "--connections=20",
        "--body=64KiB",
        "--clients=3",
        "--flood=4",
        "--rounds=2",
        "--share=4",
        "--idle=1",
    ]);
    let of = |part: &str| lines.iter().filter(|line| line["part"] == part).collect::<Vec<_>>();
    assert_eq!(["idle", "busy", "fair"].map(|part| of(part).len()), [2 * PEERS, 2 * PEERS, 4 * 2 * PEERS]);
    for line in of("idle") {
        assert_eq!((number(line, "connections"), number(line, "processes")), (20.0, 1.0), "{line}");
        assert!(number(line, "threads") > 0.0 && line["server_cpu_ns"].is_u64(), "{line}");
        assert!(number(&line["returned"]["used"], "descriptors") > 20.0, "{line}");
        assert!(number(&line["beside"], "p50_ns") > 0.0 && number(&line["alone"], "p50_ns") > 0.0, "{line}");
    }
    for line in of("busy") {
        assert!(number(&line["one"], "per_s") > 0.0 && number(&line["all"], "per_s") > 0.0, "{line}");
    }
    for line in of("fair") {
        assert!(number(&line["polite"], "p99_ns") >= number(&line["polite"], "p50_ns"), "{line}");
        assert_eq!(number(line, "other_per_s") > 0.0, line["beside"] != "nobody", "{line}");
    }
    assert!(table.contains("20 idle connections, of one process"), "{table}");
}

fn number(line: &Value, field: &str) -> f64 {
    line[field].as_f64().unwrap()
}

/// What this prints, and the lines of JSON that it writes.
fn run(arguments: &[&str]) -> (String, Vec<Value>) {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("lines");
    let printed = print(&[arguments, &["--json", path(&json)]].concat());
    let lines = std::fs::read_to_string(&json).unwrap();
    (printed, lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn print(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_benches")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
