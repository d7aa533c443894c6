//! `benches compare`, in small: every peer does every work it does, between two processes, and says so in JSON.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use lpc_cli::measure::Record;

#[test]
fn each_peer_is_measured_and_each_line_of_json_has_all_fields() {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("lines");
    let listed = compare(&["--list"]);
    let peers: BTreeSet<&str> = listed.lines().collect();
    let table = compare(&[
        "--work=add,add64,mixed,upload,download,connect",
        "--pinning=free",
        "--size=4KiB..16KiB",
        "--rounds=1",
        "--share=1",
        "--json",
        path(&json),
    ]);
    let lines = std::fs::read_to_string(&json).unwrap();
    let records: Vec<Record> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let measured: BTreeSet<&str> = records.iter().map(|record| &*record.peer).collect();
    assert_eq!(measured, peers);
    for record in &records {
        let is_whole = record.p50_ns > 0
            && record.p99_ns >= record.p50_ns
            && record.per_s > 0.0
            && record.cpu_ns > 0
            && record.rss_kib > 0
            && record.round == 1;
        assert!(is_whole, "{record:?}");
        assert_eq!(record.size > 0, ["upload", "download"].contains(&&*record.work), "{record:?}");
    }
    for peer in peers {
        assert!(table.contains(&format!("| {peer} ")), "{peer} is in no table: {table}");
    }
}

#[test]
fn a_peer_that_nobody_knows_is_an_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_benches"))
        .args(["serve-peer", "--peer=nobody", "--place=/nowhere"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no such peer"));
}

/// What `compare` with these arguments prints.
fn compare(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_benches")).arg("compare").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
