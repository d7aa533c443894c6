//! `thumbnail`, run as the processes that it is.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long anything may take before it counts as a hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ten values in equal steps; as a picture of one row they are drawn as [`RAMP`].
const STEPS: [u8; 10] = [0, 28, 56, 84, 112, 140, 168, 196, 224, 252];
const RAMP: &str = " .:-=+*#%@";

fn thumbnail(directory: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thumbnail"));
    // A decoder that aborts may leave its core in the current directory.
    command
        .current_dir(directory)
        .env_remove("THUMBNAIL_BUG")
        .env_remove("NO_COLOR")
        .env_remove("LPC_THRESHOLD");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs to the end. Gives the exit status, the output and the errors.
fn run(command: &mut Command) -> (Option<i32>, String, String) {
    finish(command.spawn().unwrap())
}

fn finish(child: Child) -> (Option<i32>, String, String) {
    let pid = pid(child.id());
    let (give, output) = mpsc::channel();
    thread::spawn(move || give.send(child.wait_with_output()));
    let Ok(output) = output.recv_timeout(PATIENCE) else {
        let _ = kill(pid, Signal::SIGKILL);
        panic!("the program hangs");
    };
    let Output { status, stdout, stderr } = output.unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).unwrap())
}

/// Asks until there is an answer.
fn eventually<T>(otherwise: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "{otherwise}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Files of these names and contents.
fn files(files: &[(&str, Vec<u8>)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(directory.path().join(name), content).unwrap();
    }
    directory
}

fn picture(header: &str, pixels: impl IntoIterator<Item = u8>) -> Vec<u8> {
    header.bytes().chain(pixels).collect()
}

/// A picture that is drawn as [`RAMP`].
fn good() -> Vec<u8> {
    picture("P5 10 1 255\n", STEPS)
}

/// Asserts that a picture is drawn as these lines.
#[track_caller]
fn assert_drawn(content: Vec<u8>, arguments: &[&str], lines: &[&str]) {
    let directory = files(&[("file", content)]);
    let (code, out, err) = run(thumbnail(&directory).arg("file").args(arguments));
    assert_eq!(err, "");
    assert_eq!(code, Some(0));
    assert_eq!(out, format!("file\n{}\n", lines.join("\n")));
}

/// Asserts that a file is no picture for this reason, and that the next one is drawn all the same.
#[track_caller]
fn assert_refused(content: Vec<u8>, reason: &str) {
    let directory = files(&[("bad", content), ("good", good())]);
    let (code, out, err) = run(thumbnail(&directory).args(["bad", "good"]));
    assert_eq!(err, format!("thumbnail: bad: {reason}\n"));
    assert_eq!(out, format!("good\n{RAMP}\n"));
    assert_eq!(code, Some(1));
}

#[test]
fn gray_and_color_of_one_byte_and_of_two_are_drawn_alike() {
    let thrice = |value: u8| [value; 3];
    let twice = |value: u8| [value; 2];
    for content in [
        picture("P5 10 1 255\n", STEPS),
        picture("P6 10 1 255\n", STEPS.into_iter().flat_map(thrice)),
        picture("P5 10 1 65535\n", STEPS.into_iter().flat_map(twice)),
        picture("P6 10 1 65535\n", STEPS.into_iter().flat_map(thrice).flat_map(twice)),
    ] {
        assert_drawn(content, &[], &[RAMP]);
    }
}

#[test]
fn colors_are_as_bright_as_they_look() {
    let pixels = [[0; 3], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255; 3]];
    assert_drawn(picture("P6 5 1 255\n", pixels.into_iter().flatten()), &[], &[" :+.@"]);
}

#[test]
fn values_are_parts_of_the_largest_one() {
    assert_drawn(picture("P5 3 1 1\n", [0, 1, 0]), &[], &[" @ "]);
    assert_drawn(picture("P5 3 1 1000\n", [0, 0, 1, 244, 3, 232]), &[], &[" +@"]);
    // Over it there is nothing.
    assert_drawn(picture("P5 2 1 100\n", [100, 200]), &[], &["@@"]);
    assert_drawn(picture("P5 2 1 256\n", [1, 0, 255, 255]), &[], &["@@"]);
}

#[test]
fn two_rows_make_a_line() {
    assert_drawn(picture("P5 3 3 255\n", [0, 255, 0, 0, 255, 255, 255, 0, 255]), &[], &[" @=", "@ @"]);
}

#[test]
fn a_large_picture_is_averaged() {
    // Columns of black and white.
    let stripes = picture("P5 40 40 255\n", [0, 255].repeat(800));
    assert_drawn(stripes, &["--width", "4"], &["++++", "++++"]);
    let halves = picture("P5 400 4 255\n", [[0; 200], [255; 200]].concat().repeat(4));
    assert_drawn(halves, &["--width", "4"], &["  @@"]);
    // What does not go in evenly: one, two and two columns of five.
    let uneven = picture("P5 5 1 255\n", [255, 0, 255, 0, 0]);
    assert_drawn(uneven, &["--width", "3"], &["@+ "]);
}

#[test]
fn a_long_narrow_picture_keeps_a_column_and_a_row() {
    assert_drawn(picture("P5 1 1000 255\n", [255; 1000]), &["--width", "4"], &["@", "@"]);
    assert_drawn(picture("P5 1000 1 255\n", [255; 1000]), &["--width", "4"], &["@@@@"]);
    assert_drawn(picture("P5 1000 1000 255\n", vec![255; 1_000_000]), &["--width", "1"], &["@"]);
}

#[test]
fn comments_and_white_space_of_any_kind_are_passed_over() {
    for header in [
        "P5\n10\n1\n255\n",
        "P5\t10 \r\n 1\x0c255 ",
        "P5# made by hand\n10 1 255\n",
        "P5\n# one\n#\n# 7 7 7\n10#columns\n# three\n1 #row\n255\n",
        "P5 10 1 255#the largest\n",
        "P5 0010 01 00000000000255\n",
    ] {
        assert_drawn(picture(header, STEPS), &[], &[RAMP]);
    }
    let long = format!("P5 #{}\n10 1 255\n", "#".repeat(1_000_000));
    assert_drawn(picture(&long, STEPS), &[], &[RAMP]);
}

#[test]
fn pixels_may_look_like_white_space_or_comments() {
    assert_drawn(picture("P5 4 1 35\n", *b"\n# #"), &[], &[":@@@"]);
}

#[test]
fn what_follows_the_pixels_is_not_read() {
    let mut content = good();
    content.extend(good());
    assert_drawn(content, &[], &[RAMP]);
}

#[test]
fn a_file_that_is_no_picture_is_refused() {
    for content in [&b"P"[..], b"P6", b"P1 1 1 1", b"p6 1 1 255 aaa", b"\x89PNG\r\n\x1a\n", b" P5 1 1 255 a"]
    {
        let reason = match content {
            b"P6" => "the header has no width from 1 to 1073741824",
            _ => "not a picture: it begins with neither P5 nor P6",
        };
        assert_refused(content.to_vec(), reason);
    }
}

#[test]
fn an_empty_file_is_refused() {
    assert_refused(Vec::new(), "not a picture: it begins with neither P5 nor P6");
}

#[test]
fn a_header_is_refused_where_it_is_wrong() {
    for (header, field) in [
        ("P6 ", "width"),
        ("P6 # and so on", "width"),
        ("P6 0 1 255 ", "width"),
        ("P6 -1 1 255 ", "width"),
        ("P6 1x1 255 ", "width"),
        ("P6 10", "width"),
        ("P6 1", "width"),
        ("P6 1073741825 1 255 ", "width"),
        ("P6 18446744073709551617 1 255 ", "width"),
        ("P6 1 \n", "height"),
        ("P6 1 1.0 255 ", "height"),
        ("P6 1 4294967297 255 ", "height"),
        ("P6 1 1", "height"),
        ("P6 1 1 ", "maxval"),
        ("P6 1 1 255", "maxval"),
        ("P6 1 1 0 ", "maxval"),
        ("P6 1 1 65536 ", "maxval"),
    ] {
        let max = if field == "maxval" { 65535 } else { 1 << 30 };
        assert_refused(header.into(), &format!("the header has no {field} from 1 to {max}"));
    }
}

#[test]
fn a_file_that_is_cut_off_says_what_is_missing() {
    for (header, has, pixels) in [
        ("P5 10 1 255\n", 9, 10),
        ("P5 10 1 256\n", 10, 20),
        ("P6 4 3 1\n", 35, 36),
        ("P6 4 3 65535\n", 0, 72),
    ] {
        let missing = pixels - has;
        let reason = format!("the file is cut off: {missing} of {pixels} bytes of pixels are missing");
        assert_refused(picture(header, vec![0; has]), &reason);
    }
}

#[test]
fn a_header_of_absurd_dimensions_costs_no_memory() {
    let directory = files(&[
        ("large", b"P6 20000 20000 65535 few".to_vec()),
        ("absurd", b"P6 1073741824 1073741824 65535 few".to_vec()),
        ("good", good()),
    ]);
    // 1 GiB of address space, for each of the processes.
    let script = "ulimit -v 1048576 && exec \"$0\" large absurd good";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_thumbnail")]).current_dir(&directory);
    let (code, out, err) = run(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    assert_eq!(
        err,
        "thumbnail: large: the file is cut off: 2399999997 of 2400000000 bytes of pixels are missing\n\
         thumbnail: absurd: the file is cut off: 6917529027641081853 of 6917529027641081856 bytes of pixels are missing\n"
    );
    assert_eq!(out, format!("good\n{RAMP}\n"));
    assert_eq!(code, Some(1));
}

#[test]
fn what_cannot_be_opened_is_named() {
    let directory = files(&[("good", good())]);
    fs::create_dir(directory.path().join("directory")).unwrap();
    nix::unistd::mkfifo(&directory.path().join("pipe"), Mode::S_IRWXU).unwrap();
    let (code, out, err) =
        run(thumbnail(&directory).args(["missing", "directory", "pipe", "/dev/zero", "good"]));
    let lines: Vec<_> = err.lines().collect();
    assert_eq!(
        lines,
        [
            "thumbnail: missing: No such file or directory (os error 2)",
            "thumbnail: directory: not a regular file",
            "thumbnail: pipe: not a regular file",
            "thumbnail: /dev/zero: not a regular file",
        ]
    );
    assert_eq!(out, format!("good\n{RAMP}\n"));
    assert_eq!(code, Some(1));
}

#[test]
fn a_decoder_that_breaks_costs_one_picture() {
    let unlucky = || picture("P5 13 1 255\n", [0; 13]);
    let directory =
        files(&[("before", good()), ("unlucky", unlucky()), ("again", unlucky()), ("after", good())]);
    let names = ["before", "unlucky", "again", "after"];
    for (bug, reason) in [
        ("abort", "the decoder is lost (signal: 6 (SIGABRT)"),
        ("panic", "the decoder failed: Thumbnails.thumbnail panicked: 13 is an unlucky number; "),
        ("lie", "the decoder failed: its answer is no picture; "),
    ] {
        let (code, out, err) = run(thumbnail(&directory).args(names).env("THUMBNAIL_BUG", bug));
        // A panic says something of its own as well.
        let said: Vec<_> = err.lines().filter(|line| line.starts_with("thumbnail: ")).collect();
        assert_eq!(said.len(), 2, "{err}");
        for (said, name) in said.iter().zip(["unlucky", "again"]) {
            assert!(said.starts_with(&format!("thumbnail: {name}: {reason}")), "{err}");
            assert!(said.ends_with("the next picture gets another one"), "{err}");
        }
        assert_eq!(out, format!("before\n{RAMP}\nafter\n{RAMP}\n"));
        assert_eq!(code, Some(1));
    }
    let (code, _, err) = run(thumbnail(&directory).args(names));
    assert_eq!((code, err), (Some(0), String::new()));
}

#[test]
fn a_decoder_killed_in_the_middle_costs_one_picture() {
    let directory =
        files(&[("before", good()), ("endless", b"P5 200000 300000 255\n".to_vec()), ("after", good())]);
    // Gigabytes that take no room on the disk, and minutes to decode.
    let endless = fs::canonicalize(directory.path().join("endless")).unwrap();
    File::options().write(true).open(&endless).unwrap().set_len(60_000_000_100).unwrap();

    let mut child = thumbnail(&directory).args(["before", "endless", "after"]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut before = String::new();
    stdout.read_line(&mut before).unwrap();
    stdout.read_line(&mut before).unwrap();
    assert_eq!(before, format!("before\n{RAMP}\n"));

    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let decoder: u32 = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    // It has the file, and has come to reading it.
    eventually("the decoder does not decode", || {
        let mut descriptors = fs::read_dir(format!("/proc/{decoder}/fd")).unwrap();
        descriptors.find(|entry| is_link_to(&entry.as_ref().unwrap().path(), &endless)).map(drop)
    });
    eventually("the decoder does not read", || (bytes_read(decoder) > 1 << 20).then_some(()));
    assert!(peak_kib(decoder) < 64 << 10, "{} KiB", peak_kib(decoder));
    kill(pid(decoder), Signal::SIGKILL).unwrap();

    let mut after = String::new();
    stdout.read_to_string(&mut after).unwrap();
    assert_eq!(after, format!("after\n{RAMP}\n"));
    let (code, _, err) = finish(child);
    let reason = "the decoder is lost (signal: 9 (SIGKILL)); the next picture gets another one";
    assert_eq!(err, format!("thumbnail: endless: {reason}\n"));
    assert_eq!(code, Some(1));
}

fn is_link_to(link: &Path, target: &Path) -> bool {
    fs::read_link(link).is_ok_and(|path| path == target)
}

fn bytes_read(process: u32) -> u64 {
    field(&format!("/proc/{process}/io"), "rchar:")
}

fn peak_kib(process: u32) -> u64 {
    field(&format!("/proc/{process}/status"), "VmHWM:")
}

fn field(path: &str, label: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(label)).unwrap();
    value.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Runs with a terminal as standard output. Gives what it shows.
fn shown(command: &mut Command) -> String {
    let terminal = openpty(None, None).unwrap();
    let child = command.stdout(terminal.slave).spawn().unwrap();
    // The command keeps its end, without which the output would come to its end with the program.
    command.stdout(Stdio::null());
    let reader = thread::spawn(move || {
        let mut shown = Vec::new();
        // Fails with EIO at the end.
        let _ = File::from(terminal.master).read_to_end(&mut shown);
        shown
    });
    let (code, _, err) = finish(child);
    assert_eq!((code, err), (Some(0), String::new()));
    let shown = reader.join().unwrap();
    String::from_utf8(shown).unwrap().replace("\r\n", "\n")
}

#[test]
fn a_terminal_shows_colors() {
    let pixels = [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12], [13, 14, 15], [16, 17, 18]];
    let directory = files(&[("file", picture("P6 2 3 255\n", pixels.into_iter().flatten()))]);
    assert_eq!(
        shown(thumbnail(&directory).arg("file")),
        "file\n\
         \x1b[38;2;1;2;3m\x1b[48;2;7;8;9m▀\x1b[38;2;4;5;6m\x1b[48;2;10;11;12m▀\x1b[0m\n\
         \x1b[38;2;13;14;15m▀\x1b[38;2;16;17;18m▀\x1b[0m\n"
    );
}

#[test]
fn a_terminal_shows_plain_characters_where_that_is_wanted() {
    let directory = files(&[("file", good())]);
    let plain = format!("file\n{RAMP}\n");
    assert_eq!(shown(thumbnail(&directory).args(["--ascii", "file"])), plain);
    assert_eq!(shown(thumbnail(&directory).arg("file").env("NO_COLOR", "1")), plain);
    assert_ne!(shown(thumbnail(&directory).arg("file").env("NO_COLOR", "")), plain);
}

#[test]
fn the_demonstration_needs_no_file() {
    let directory = files(&[("file", good())]);
    let (code, out, err) = run(thumbnail(&directory).args(["--demo", "--width", "48", "file"]));
    assert_eq!((code, err), (Some(0), String::new()));
    let lines: Vec<_> = out.lines().collect();
    let [name, demo @ .., _, _] = &lines[..] else { panic!("{out}") };
    assert_eq!(*name, "demo");
    assert_eq!(demo.len(), 16, "{out}");
    assert!(demo.iter().all(|line| line.len() == 48), "{out}");
    assert!(
        demo.iter().any(|line| line.contains('%')) && demo.iter().any(|line| line.contains('.')),
        "{out}"
    );
    assert!(out.ends_with(&format!("file\n{RAMP}\n")), "{out}");
}

#[test]
fn usage_errors_are_2_and_help_is_not_one() {
    let directory = files(&[]);
    for arguments in [&[][..], &["--width", "0", "file"], &["--width", "1001", "file"], &["--what"]] {
        let (code, out, err) = run(thumbnail(&directory).args(arguments));
        assert_eq!((code, out), (Some(2), String::new()));
        assert_ne!(err, "");
    }
    let (code, out, _) = run(thumbnail(&directory).arg("--help"));
    assert_eq!(code, Some(0));
    assert!(out.contains("Usage: thumbnail [OPTIONS] [IMAGE]..."), "{out}");
}

#[test]
fn a_decoder_without_a_parent_says_so() {
    let directory = files(&[]);
    let (code, _, err) = run(thumbnail(&directory).arg("--serve").env_remove("LPC_PARENT"));
    assert_eq!(code, Some(1));
    assert!(err.contains("was not started by an lpc client"), "{err}");
}

#[test]
fn a_closed_output_is_no_error() {
    let directory = files(&[("file", good())]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let (code, _, err) = run(thumbnail(&directory).args(["file", "file"]).stdout(writer));
    assert_eq!((code, err), (Some(0), String::new()));
}

#[test]
fn a_full_disk_is_an_error() {
    let directory = files(&[("file", good())]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (code, _, err) = run(thumbnail(&directory).arg("file").stdout(full));
    assert_eq!(code, Some(1));
    assert!(err.starts_with("thumbnail: the output cannot be written: "), "{err}");
}
