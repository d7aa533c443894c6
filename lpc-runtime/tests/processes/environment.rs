//! What the environment of a process says, and when it is not believed.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::Uid;

use crate::process::{PORT, Process, other, say, text};
use crate::service::{DRIVERS, Driver, Implementation, RUNTIME, asynchronous, blocking};

fn with_threshold(role: &str, driver: Driver, threshold: Option<&str>) -> Command {
    let mut command = other(role, driver);
    if let Some(threshold) = threshold {
        command.env("LPC_THRESHOLD", threshold);
    }
    command
}

/// Each line: what the threshold was set by; the lanes of arguments and results of 1, 99, 100 and 20,000
/// bytes (a length and, in results, the variant `Ok` come on top); those of methods with a threshold of their
/// own.
#[test]
fn the_environment_sets_the_threshold_where_no_code_does() {
    for driver in DRIVERS {
        for (threshold, lanes) in [
            (None, "sssm sssm"),
            (Some("off"), "ssss ssss"),
            (Some("always"), "mmmm mmmm"),
            (Some("100"), "ssmm smmm"),
            (Some("1MiB"), "ssss ssss"),
        ] {
            let process = Process::start(&mut with_threshold("lanes", driver, threshold));
            let expected = [
                format!("environment {lanes} sm"),
                "off ssss ssss sm".to_owned(),
                "always mmmm mmmm sm".to_owned(),
                "ended".to_owned(),
            ];
            assert_eq!(process.rest(), expected, "LPC_THRESHOLD={threshold:?}");
        }
    }
}

#[test]
fn a_threshold_in_the_environment_that_is_none_is_an_error_that_names_it() {
    for driver in DRIVERS {
        for threshold in ["sometimes", "-1", "16 KiB"] {
            let directory = tempfile::tempdir().unwrap();
            let mut command = with_threshold("nonsense", driver, Some(threshold));
            let process = Process::start(command.env(PORT, text(&directory.path().join("port"))));
            let lines = process.rest();
            let [client, pair, port, with_builder, end] = &lines[..] else { panic!("{lines:?}") };
            for line in [client, pair, port] {
                assert!(line.starts_with("InvalidInput: "), "{line}");
                assert!(line.contains("LPC_THRESHOLD") && line.contains(&format!("{threshold:?}")), "{line}");
            }
            assert_eq!((with_builder.as_str(), end.as_str()), ("4", "ended"));
        }
    }
}

/// Role: says where a port is, and whether a parent is served that the environment tells of.
pub fn believe(driver: Driver) -> lpc::Result<()> {
    say(lpc::Port::new("words").map_or_else(|error| error.to_string(), |port| text(port.path()).to_owned()));
    let parent = match driver {
        Driver::Blocking => lpc::blocking::serve_parent::<blocking::ProbeService, _>(Implementation),
        Driver::Tokio => RUNTIME.block_on(lpc::serve_parent::<asynchronous::ProbeService, _>(Implementation)),
    };
    say(parent.unwrap_err());
    let server = lpc::blocking::Server::from_env();
    say(server.unwrap_err());
    Ok(())
}

#[test]
fn the_runtime_directory_of_another_user_is_not_taken_for_ones_own() {
    if !Uid::effective().is_root() {
        eprintln!("skipped: only root can be another user");
        return;
    }
    for driver in DRIVERS {
        let [own, others] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        chown(others.path(), Some(12_345), None).unwrap();
        let port = |runtime: &tempfile::TempDir, home: &tempfile::TempDir| {
            let mut command = other("believe", driver);
            Process::start(command.env("XDG_RUNTIME_DIR", runtime.path()).env("HOME", home.path())).line()
        };
        assert_eq!(port(&own, &others), text(&own.path().join("lpc/words.sock")));
        let port = port(&others, &own);
        assert!(!port.starts_with(text(others.path())), "{port}");
    }
}

#[test]
fn a_program_with_more_rights_than_its_caller_believes_nothing_of_its_environment() {
    if !Uid::effective().is_root() {
        eprintln!("skipped: only root can make such a program for another user");
        return;
    }
    for driver in DRIVERS {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let program = directory.path().join("program");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o4755)).unwrap();
        let runtime = directory.path().join("runtime");
        std::fs::create_dir(&runtime).unwrap();
        // What the caller would like it to believe.
        let mut command = with_program(&program, &mut other("believe", driver));
        command.env("XDG_RUNTIME_DIR", &runtime).env("HOME", &runtime);
        command.env("LPC_PARENT", "stdin").env("LISTEN_FDS", "1").uid(12_345);
        let lines = Process::start(&mut command).rest();
        let [port, parent, socket, end] = &lines[..] else { panic!("{lines:?}") };
        if parent.contains("no stream socket") {
            eprintln!("skipped: set-user-ID has no effect in {}", directory.path().display());
            return;
        }
        assert!(!port.starts_with(text(&runtime)), "{port}");
        assert!(parent.contains("AT_SECURE") && socket.contains("AT_SECURE"), "{lines:?}");
        assert_eq!(end, "ended");
    }
}

/// The same command of a copy of this program.
fn with_program(program: &Path, command: &mut Command) -> Command {
    let mut copy = Command::new(program);
    copy.args(command.get_args()).stdin(Stdio::null()).stdout(Stdio::piped());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            copy.env(name, value);
        }
    }
    copy
}
