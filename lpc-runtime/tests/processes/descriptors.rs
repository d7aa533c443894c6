//! Descriptors and mappings: they come back, and running out of them is survived.

use std::process::Stdio;
use std::sync::mpsc;

use crate::process::{GUARD, PORT, Process, holdings, other, settled, text, through_shell, until};
use crate::service::{AnyClient, DRIVERS, Driver};

/// A server at `port` with so many descriptors at most.
fn server(driver: Driver, port: &str, limit: u32) -> Process {
    let script = format!(r#"ulimit -n {limit}; exec "$0" "$@""#);
    let mut command = through_shell(&script, other("serve", driver).env(PORT, port));
    let mut server = Process::start(command.stdin(Stdio::piped()));
    assert_eq!(server.line(), "ready");
    server.tell("bind");
    assert_eq!(server.line(), "bound");
    server
}

#[test]
fn connections_that_came_and_went_leave_no_descriptor_and_no_mapping() {
    for driver in DRIVERS {
        let directory = tempfile::tempdir().unwrap();
        let port = directory.path().join("port");
        let server = server(driver, text(&port), 100);
        let mut command = other("rounds", driver);
        let mut client = Process::start(command.env(PORT, &port).stdin(Stdio::piped()));
        assert_eq!(client.line(), "first");
        let first = settled(server.id());
        client.tell("go on");
        assert_eq!(client.rest(), ["ended"]);
        until("the server holds no more than after the first round", || {
            let (descriptors, mappings) = holdings(server.id());
            (descriptors <= first && mappings == 0).then_some(())
        });
    }
}

/// Whether a process has no number left for a descriptor. It may have inherited some with numbers over the
/// limit.
fn is_full(id: u32, limit: usize) -> bool {
    (0..limit).all(|number| std::fs::symlink_metadata(format!("/proc/{id}/fd/{number}")).is_ok())
}

#[test]
fn a_server_without_descriptors_goes_on_and_takes_new_clients_when_others_leave() {
    const LIMIT: usize = 40;
    const CLIENTS: usize = 60;
    for driver in DRIVERS {
        let directory = tempfile::tempdir().unwrap();
        let port = directory.path().join("port");
        let mut server = server(driver, text(&port), LIMIT as u32);
        let (sender, connected) = mpsc::channel();
        for at in 0..CLIENTS {
            let (sender, port) = (sender.clone(), port.clone());
            std::thread::spawn(move || sender.send(AnyClient::connect(DRIVERS[at % 2], text(&port))));
        }
        drop(sender);
        until("the server is full", || is_full(server.id(), LIMIT).then_some(()));
        let next = || connected.recv_timeout(GUARD).expect("a client gets in").unwrap();
        let mut inside = vec![next()];
        inside.extend(connected.try_iter().map(Result::unwrap));
        assert!(inside.len() < LIMIT);
        for _ in 0..3 {
            for client in &inside {
                assert_eq!(client.length(b"still there").unwrap(), 11);
            }
        }
        // All get in as others leave.
        for _ in 0..CLIENTS {
            let client = inside.pop().unwrap_or_else(next);
            assert_eq!(client.length(b"on the way out").unwrap(), 14);
        }
        assert!(server.is_running());
        let client = AnyClient::connect(driver, text(&port)).unwrap();
        let large = vec![6; 1 << 20];
        assert!(client.echo(&large).unwrap() == large);
        assert_eq!(client.stats().sent.mapping.messages, 1);
    }
}

#[test]
fn a_client_without_descriptors_sends_large_bodies_through_the_socket() {
    for driver in DRIVERS {
        let directory = tempfile::tempdir().unwrap();
        let port = directory.path().join("port");
        let _server = server(driver, text(&port), 100);
        let script = r#"ulimit -n 40; exec "$0" "$@""#;
        let client = Process::start(&mut through_shell(script, other("full", driver).env(PORT, text(&port))));
        assert_eq!(client.line(), "1048576 by 1 fallbacks, 0 mapped");
        assert_eq!(client.line(), "1048576 made, 0 mapped");
        assert_eq!(client.line(), "1048576 by 1 fallbacks, 1 mapped");
        assert_eq!(client.line(), "ended");
    }
}
