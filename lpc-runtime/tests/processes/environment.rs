//! `LPC_THRESHOLD` in the environment of a process.

use std::process::Command;

use crate::process::{PORT, Process, other, text};
use crate::service::{DRIVERS, Driver};

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
