//! `quickstart`, run as the processes that it is.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn quickstart(arguments: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
    command.args(arguments).env_remove("LPC_THRESHOLD").current_dir("/").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The number after `label` at the beginning of a line.
fn number(output: &str, label: &str) -> u32 {
    let line = output.lines().find_map(|line| line.strip_prefix(label)).unwrap();
    line.trim().parse().unwrap()
}

fn assert_three_calls(output: &Output) {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{err}");
    assert_eq!(err, "");
    assert_ne!(number(&out, "client:  process"), number(&out, "service: process"));
    let calls: Vec<_> = out.lines().filter(|line| line.contains("->")).collect();
    assert_eq!(calls.len(), 3, "{out}");
    assert!(calls[0].starts_with("count_words(") && calls[0].ends_with("socket there, socket back"), "{out}");
    assert!(calls[1].starts_with("put(") && calls[1].ends_with("shared memory there, socket back"), "{out}");
    assert!(calls[2].starts_with("get(") && calls[2].ends_with("socket there, shared memory back"), "{out}");
    assert!(calls[2].contains("as sent"), "{out}");
    assert!(out.ends_with("the same code on an object of this process: the same results\n"), "{out}");
}

#[test]
fn both_lanes_are_taken_by_default() {
    assert_three_calls(&quickstart(&[]));
}

#[test]
fn both_lanes_are_taken_whatever_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let long_line = [b'x'; 100_000];
    for (content, copies) in [
        (&b"one"[..], Some("2731 times over")),
        (b"\n", Some("8192 times over")),
        (b"\xff\xfe\0 not text", Some("times over")),
        (&long_line, None),
    ] {
        std::fs::write(&path, content).unwrap();
        let output = quickstart(&[&path]);
        assert_three_calls(&output);
        let out = text(&output.stdout);
        match copies {
            Some(copies) => assert!(out.contains(copies), "{out}"),
            None => assert!(out.contains("large:   all of it\n"), "{out}"),
        }
    }
}

#[test]
fn words_are_those_of_the_first_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("poem.txt");
    std::fs::write(&path, "roses are red\nviolets are blue\n").unwrap();
    let out = text(&quickstart(&[&path]).stdout);
    assert!(out.contains("count_words(13 bytes)"), "{out}");
    assert!(out.contains("3 words"), "{out}");
    assert!(out.contains("the beginning of poem.txt"), "{out}");
}

#[test]
fn a_file_that_cannot_be_sent_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    for (path, reason) in [
        (directory.path().join("missing"), "No such file or directory"),
        (directory.path().to_path_buf(), "Is a directory"),
        (empty, "the file is empty"),
    ] {
        let output = quickstart(&[&path]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(text(&output.stdout), "");
        let err = text(&output.stderr);
        assert!(err.contains(path.to_str().unwrap()) && err.contains(reason), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}

#[test]
fn usage_errors_are_2_and_help_is_not_one() {
    assert_eq!(quickstart(&[Path::new("one"), Path::new("two")]).status.code(), Some(2));
    let help = quickstart(&[Path::new("--help")]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("Usage: quickstart [FILE]"));
}

#[test]
fn a_service_without_a_parent_says_so() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
    let output = command.arg("--serve").stdin(Stdio::null()).env_remove("LPC_PARENT").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let err = text(&output.stderr);
    assert!(err.contains("was not started by an lpc client"), "{err}");
}

#[test]
fn a_closed_output_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
    let output = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}
