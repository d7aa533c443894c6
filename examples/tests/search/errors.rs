//! What is wrong with arguments and files is said, and told by the exit status.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::process::{assert_as_grep, assert_same, err, grep, run, search};
use crate::tree;

#[test]
fn exit_statuses_are_greps() {
    let directory = tree::odd();
    for (pattern, root, code) in [("one", "tree", 0), ("nothing like it", "tree", 1), ("one", "missing", 2)] {
        let output = run(search().current_dir(&directory).args([pattern, root]));
        assert_eq!(output.status.code(), Some(code), "{}", err(&output));
    }
}

#[test]
fn a_missing_root_is_named() {
    let directory = tree::odd();
    for root in ["missing", "dangling", "tree/dangling link", "tree/plain/", ""] {
        assert_as_grep(directory.path(), &[], &["one", root]);
        let output = run(search().current_dir(&directory).args(["one", root]));
        assert!(err(&output).starts_with(&format!("search: {root}: ")), "{}", err(&output));
    }
}

#[test]
fn a_bad_pattern_is_shown_where_it_is_bad() {
    let output = run(search().args(["one(two", "."]));
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(output.stdout, b"");
    let err = err(&output);
    assert!(err.contains("\n    one(two\n       ^\n"), "{err}");
    assert!(err.contains("unclosed group"), "{err}");
}

#[test]
fn a_pattern_that_no_line_can_match_is_an_error() {
    for (pattern, reason) in
        [(&b"a\nb"[..], "line feed"), (b"\xff", "not UTF-8"), (b"a{1000}{1000}{1000}", "size")]
    {
        let output = run(search().arg(OsStr::from_bytes(pattern)).arg("."));
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(output.stdout, b"");
        assert!(err(&output).contains(reason), "{}", err(&output));
    }
}

#[test]
fn usage_errors_are_2_and_help_is_not_one() {
    for arguments in
        [&["one"][..], &[], &["one", ".", "two"], &["--jobs", "0", "one", "."], &["--what", "one", "."]]
    {
        let output = run(search().args(arguments));
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(output.stdout, b"");
        assert!(!output.stderr.is_empty());
    }
    let output = run(search().arg("--help"));
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("Usage: search [OPTIONS] <PATTERN> <DIR>"));
}

#[test]
fn what_may_not_be_read_is_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    fs::write(path("after"), "one\n").unwrap();
    fs::write(path("locked"), "one\n").unwrap();
    fs::create_dir(path("locked.d")).unwrap();
    fs::write(path("locked.d/file"), "one\n").unwrap();
    fs::create_dir(path("blind.d")).unwrap();
    fs::write(path("blind.d/file"), "one\n").unwrap();
    // Files in a directory that may be listed but not entered cannot be opened.
    for (name, mode) in [("locked", 0), ("locked.d", 0), ("blind.d", 0o444)] {
        fs::set_permissions(path(name), Permissions::from_mode(mode)).unwrap();
    }
    let as_nobody = fs::read(path("locked")).is_ok();
    let run = |mut command: Command, root: &Path| {
        command.arg("one").arg(root).current_dir("/");
        if as_nobody {
            command.uid(65534).gid(65534);
        }
        run(&mut command)
    };
    if as_nobody && !may_run_as_nobody() {
        eprintln!("skipped: this user may read everything, and others may not run the program");
    } else {
        let theirs = run(grep(), directory.path());
        let ours = run(search(), directory.path());
        assert_eq!(ours.status.code(), Some(2));
        assert_eq!(assert_same(&theirs, &ours), 1);
        let err = err(&ours);
        assert_eq!(err.lines().count(), 3, "{err}");
        for name in ["locked", "locked.d", "blind.d/file"] {
            let named = format!("search: {}: Permission denied", path(name).display());
            assert!(err.lines().any(|line| line.starts_with(&named)), "{err}");
        }
        for name in ["locked", "locked.d"] {
            assert_same(&run(grep(), &path(name)), &run(search(), &path(name)));
        }
    }
    // So that the directory can be removed.
    for name in ["locked.d", "blind.d"] {
        fs::set_permissions(path(name), Permissions::from_mode(0o755)).unwrap();
    }
}

fn may_run_as_nobody() -> bool {
    let mut command = search();
    command.arg("--help").current_dir("/").uid(65534).gid(65534);
    command.output().is_ok_and(|output| output.status.success())
}

#[test]
fn what_was_read_before_an_error_is_counted() {
    // Opens, and cannot be read.
    assert_as_grep(Path::new("/"), &[], &["one", "/proc/self/mem"]);
}

#[test]
fn a_service_without_a_parent_says_so() {
    let output = run(search().arg("--serve").env_remove("LPC_PARENT"));
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("was not started by an lpc client"), "{}", err(&output));
}
