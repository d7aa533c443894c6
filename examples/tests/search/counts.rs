//! The counts are GNU grep's.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use crate::process::{assert_as_grep, assert_same, counts, err, grep, run, search};
use crate::tree;

#[test]
fn counts_are_greps_on_an_odd_tree() {
    let directory = tree::odd();
    for pattern in [
        "one",
        "two",
        "",
        ".",
        "^",
        "$",
        "^$",
        "^one",
        "one$",
        "^one$",
        "on.",
        "o.*e",
        "[a-z]o",
        "[^o]",
        "[^o]e",
        "o[^n]*e",
        "one.",
        "\u{e9}",
        "caf.",
        "nothing like it",
    ] {
        assert_as_grep(directory.path(), &[], &[pattern, "tree"]);
    }
    for pattern in [
        "one|two",
        "(one)+",
        "e+",
        "o{1}n",
        r"\bone\b",
        r"\Bone",
        r"\w+ ",
        r"\W",
        r"one\W",
        r"\s",
        r"\s$",
        r"\S",
        r"\.",
        r"a\+b",
        r"\(one\)",
        "x*",
        "^(one|two)$",
    ] {
        assert_as_grep(directory.path(), &["-E"], &[pattern, "tree"]);
    }
}

#[test]
fn a_root_is_followed_and_its_path_kept() {
    let directory = tree::odd();
    for root in [
        "tree",
        "tree/",
        "tree///",
        "./tree",
        "tree/../tree",
        ".",
        "./",
        "tree link",
        "tree link/",
        "tree link/below",
        "tree/plain",
        "file link",
        "tree/link to file",
        "tree/empty",
        "nothing",
        "/dev/null",
    ] {
        assert_as_grep(directory.path(), &[], &["one", root]);
    }
    let absolute = directory.path().join("tree");
    assert_as_grep(directory.path(), &[], &[OsStr::new("one"), absolute.as_os_str()]);
}

#[test]
fn a_fixed_string_is_found_as_it_is() {
    let directory = tree::odd();
    let patterns: [&[u8]; 11] =
        [b"one", b"", b".", b"a.b", b"a+b", b"(one)", b"[one]", b"\\one", b"*", b"\xff", "\u{e9}".as_bytes()];
    for pattern in patterns.map(OsStr::from_bytes) {
        let theirs = run(grep().current_dir(&directory).args(["-F", "-e"]).arg(pattern).arg("tree"));
        let ours = run(search().current_dir(&directory).arg("-F").arg("--").arg(pattern).arg("tree"));
        assert_same(&theirs, &ours);
    }
}

#[test]
fn any_number_of_jobs_counts_the_same_in_the_same_order() {
    let directory = tree::many(3000);
    let theirs = run(grep().arg("one").arg(directory.path()));
    let mut first = None;
    for jobs in ["1", "2", "16", "100"] {
        let ours = run(search().args(["--jobs", jobs, "one"]).arg(directory.path()));
        assert_eq!(assert_same(&theirs, &ours), 73_500);
        let first = first.get_or_insert_with(|| ours.stdout.clone());
        assert_eq!(ours.stdout, *first);
    }
    let first = String::from_utf8(first.unwrap()).unwrap();
    let paths: Vec<_> = first.lines().filter_map(|line| Some(line.rsplit_once(':')?.0)).collect();
    assert!(paths[..3000].is_sorted());
}

#[test]
fn text_around_the_threshold_is_counted_the_same_either_way() {
    let directory = tempfile::tempdir().unwrap();
    for len in (4 << 10) - 12..(4 << 10) + 12 {
        let mut text = "one\nother\n".repeat(len / 10 + 1);
        text.truncate(len);
        fs::write(directory.path().join(len.to_string()), text).unwrap();
    }
    let theirs = run(grep().arg("one").arg(directory.path()));
    for (threshold, socket, mapping) in
        [(None, true, true), (Some("off"), true, false), (Some("always"), false, true)]
    {
        let mut command = search();
        command.args(["--stats", "one"]).arg(directory.path());
        if let Some(threshold) = threshold {
            command.env("LPC_THRESHOLD", threshold);
        }
        let mut ours = run(&mut command);
        let stats = err(&ours);
        ours.stderr.clear();
        assert_same(&theirs, &ours);
        assert!(stats.starts_with("search: 25 calls, "), "{stats}");
        assert_eq!(!stats.contains(" 0 through the socket"), socket, "{stats}");
        assert_eq!(!stats.contains(" 0 through shared memory"), mapping, "{stats}");
    }
}

#[test]
fn files_may_change_while_they_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("restless");
    let text = "one\n".repeat(500_000);
    fs::write(&path, &text).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                fs::write(&path, &text).unwrap();
            }
        });
        let outputs: Vec<_> = (0..20).map(|_| run(search().arg("one").arg(directory.path()))).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for output in outputs {
            let (lines, total) = counts(&output);
            assert_eq!((lines.len(), err(&output)), (1, String::new()));
            assert!(total <= 500_000, "{total}");
        }
    });
}
