//! `benches compare`, in small: every peer does every work it does, between two processes, and says so in
//! JSON.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

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
    let pictures = directory.path().join("pictures");
    let again = compare(&["--from", path(&json), "--plot", path(&pictures)]);
    assert_eq!(again, table);
    for picture in ["upload", "download", "add", "mixed", "add64"] {
        let svg = std::fs::read_to_string(pictures.join(picture).with_extension("svg")).unwrap();
        assert!(svg.contains(">lpc blocking</text>"), "{picture}");
    }
}

#[test]
fn many_clients_are_measured_alone_and_beside_hogs() {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("lines");
    let arguments =
        ["--work=clients", "--clients=2,3", "--hogs=0,1", "--pinning=free", "--rounds=1", "--share=1"];
    let table = compare(&[&arguments[..], &["--peer=lpc,raw socket", "--json", path(&json)]].concat());
    let lines = std::fs::read_to_string(&json).unwrap();
    let records: Vec<Record> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let cells: BTreeSet<_> = records.iter().map(|record| (&*record.peer, record.size, record.hogs)).collect();
    let peers: BTreeSet<_> = cells.iter().map(|(peer, ..)| peer).collect();
    assert_eq!((cells.len(), records.len()), (peers.len() * 2 * 2, cells.len()), "{cells:?}");
    assert!(records.iter().all(|record| record.per_s > 0.0 && [2, 3].contains(&record.size)));
    assert!(
        table.contains("\nclients, free\n") && table.contains("\nclients, free, beside a hog\n"),
        "{table}"
    );
}

#[test]
fn what_is_no_figure_is_an_error_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("lines");
    std::fs::write(&json, "{}\n").unwrap();
    let output = benches(&["compare", "--from", path(&json)]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 1, is no figure of `compare`"));
}

#[test]
fn calls_says_how_many_it_made() {
    let output = benches(&["calls", "--peer=raw socket", "--share=1"]);
    let said = String::from_utf8(output.stdout).unwrap();
    let (count, rest) = said.split_once(' ').unwrap();
    assert!(count.parse::<u64>().unwrap() > 0 && rest.starts_with("calls: add, raw socket, "), "{said}");
}

#[test]
fn instructions_without_valgrind_says_what_is_missing() {
    let output = Command::new(env!("CARGO_BIN_EXE_benches"))
        .args(["instructions", "--peer=raw ring spin"])
        .env("PATH", "")
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("`valgrind`, which counts the instructions"));
}

#[test]
fn a_peer_that_nobody_knows_is_an_error() {
    let output = benches(&["serve-peer", "--peer=nobody", "--place=/nowhere"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no such peer"));
}

/// What `compare` with these arguments prints.
fn compare(arguments: &[&str]) -> String {
    let output = benches(&[&["compare"], arguments].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // Services that are stopped do not complain that their client has gone.
    assert!(said.lines().all(|line| line.ends_with(".svg")), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

fn benches(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_benches")).args(arguments).output().unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
