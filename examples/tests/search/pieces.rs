//! Files that are more than one call takes.

use std::fs;

use crate::process::{assert_same, counts, err, grep, run, search};

#[test]
fn a_large_file_is_searched_in_pieces() {
    let directory = tempfile::tempdir().unwrap();
    let text: String = (0..400_000).map(|line| format!("line {line} of many\n")).collect();
    fs::write(directory.path().join("large"), &text).unwrap();
    fs::write(directory.path().join("larger"), text.trim_end().repeat(2)).unwrap();
    let theirs = run(grep().arg("9 of").arg(directory.path()));
    for limit in ["1024", "5000", "268435456"] {
        let ours = run(search().args(["--max-message", limit, "9 of"]).arg(directory.path()));
        assert!(assert_same(&theirs, &ours) > 100_000);
    }
}

#[test]
fn a_line_over_the_limit_is_an_error_for_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("a"), "one\n").unwrap();
    fs::write(path("fits"), "o".repeat(1007) + "\none\n").unwrap();
    fs::write(path("fits at the end"), "one\n".to_owned() + &"o".repeat(1008)).unwrap();
    fs::write(path("long"), "one\n".to_owned() + &"o".repeat(1008) + "\none\n").unwrap();
    fs::write(path("z"), "one\n").unwrap();
    let output = run(search().args(["--max-message", "1024", "one", "."]).current_dir(&directory));
    let (lines, total) = counts(&output);
    assert_eq!(lines.concat(), b"./a:1./fits at the end:1./fits:1./z:1");
    assert_eq!(total, 4);
    assert_eq!(output.status.code(), Some(2));
    let message = "search: ./long: a line is over the limit of 1024 bytes of one message (--max-message)\n";
    assert_eq!(err(&output), message);
}

#[test]
fn an_endless_line_is_an_error_too() {
    let output = run(search().args(["--max-message", "100000", "one", "/dev/zero"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("over the limit of 100000 bytes"), "{}", err(&output));
}
