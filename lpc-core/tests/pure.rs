//! lpc-core does no I/O and never reads the clock: none of its sources names what would, but for comments and
//! their own tests.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;

/// What does, by the names that it takes to do it.
const IMPURE: [&str; 18] = [
    "Instant::now",
    "SystemTime",
    ".elapsed()",
    "std::net",
    "std::fs",
    "std::process",
    "std::env",
    "std::thread",
    "thread_local!",
    "std::io::",
    "std::os::",
    "print!",
    "println!",
    "async fn",
    "async move",
    "extern \"C\"",
    "nix::",
    "tokio::",
];

/// What is named so and is neither.
const PURE: [&str; 4] = [
    "std::io::Error",
    "std::os::unix::ffi::OsStrExt",
    "std::os::unix::ffi::OsStringExt",
    // What serde says.
    "\"SystemTime must be later than UNIX_EPOCH\"",
];

/// What one file names nevertheless: serde drops the errors in which a type says what it wants, so whoever
/// traces it has to listen beside them, once for each type and never during a call.
const EXCEPTION: (&str, &str) = ("form/trace/guess.rs", "thread_local!");

/// What a line names that it should not.
fn impure(line: &str) -> Option<&'static str> {
    let code = line.split("//").next().unwrap_or_default();
    let code = PURE.iter().fold(code.to_owned(), |code, pure| code.replace(pure, ""));
    IMPURE.into_iter().find(|name| code.contains(name))
}

fn visit(directory: &Path, files: &mut usize, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, files, found);
            continue;
        }
        *files += 1;
        let text = fs::read_to_string(&path).unwrap();
        // They stand at the end of a file.
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        for (number, line) in (1..).zip(code.lines()) {
            if let Some(name) =
                impure(line).filter(|name| !(path.ends_with(EXCEPTION.0) && *name == EXCEPTION.1))
            {
                found.push(format!("{}:{number}: {name}", path.display()));
            }
        }
    }
}

#[test]
fn no_source_of_lpc_core_names_a_clock_a_socket_a_file_or_a_thread() {
    let (mut files, mut found) = (0, Vec::new());
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files, &mut found);
    assert!(files > 40, "{files} files");
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn what_is_impure_is_recognised() {
    assert_eq!(impure("    let now = std::time::Instant::now();"), Some("Instant::now"));
    assert_eq!(impure("use std::os::unix::net::UnixStream;"), Some("std::os::"));
    assert_eq!(impure("fn at(now: Instant) {} // never Instant::now"), None);
    assert_eq!(impure("impl From<std::io::Error> for Error {"), None);
}
