//! Descriptors that the system does not pass (`ETOOMANYREFS`, unix(7)), for as long as it likes: nothing
//! waits behind them, and bodies take the socket. The same where it has no memory to send anything at all,
//! until the deadline.

use std::process::Stdio;
use std::time::Duration;

use lpc::ErrorKind;
use nix::errno::Errno;

use crate::fault::{FAULT, Fault, arm, disarm, is_permitted, supervise};
use crate::process::{PORT, Process, other, say, variable, within};
use crate::service::{DRIVERS, Driver};
use crate::vault::{AnyVault, Knobs, Vault, pairs, sealed};

const LARGE: usize = 1 << 20;

/// The deadline of calls that are not to be answered.
const TIME: Duration = Duration::from_millis(200);

/// All calls of this kind fail, while that is armed.
fn always(call: &'static str, errno: Errno) -> Fault {
    Fault { call, errno, first: 1, every: 1, count: u64::MAX }
}

/// Calls with large arguments and large results, behind which small ones go.
fn go_on(client: &AnyVault) {
    for _ in 0..3 {
        assert_eq!(client.length(&vec![7; LARGE]).unwrap(), LARGE as u64);
        assert_eq!(client.length(b"behind").unwrap(), 6);
        assert!(client.make(LARGE as u64, 3).unwrap().iter().all(|byte| *byte == 3));
    }
}

/// Role: a client whose system passes no descriptors for a while.
pub fn call(driver: Driver) -> lpc::Result<()> {
    supervise()?;
    let client = AnyVault::connect(driver, &variable(PORT))?;
    arm();
    go_on(&client);
    assert!(client.stats().fallbacks > 0, "the first was sent again");
    // One that was announced in vain fails its call, or is copied, and then is announced again.
    let shared = sealed(100_000, 2);
    for _ in 0..3 {
        match client.sum(shared.clone()) {
            Ok(sum) => assert_eq!(sum, 200_000),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}"),
        }
    }
    go_on(&client);
    disarm();
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(client.sum(shared)?, 200_000);
    let before = client.stats().sent.mapping.messages;
    go_on(&client);
    assert_eq!(client.stats().sent.mapping.messages, before + 3, "it is tried again after a while");
    say("went on");
    Ok(())
}

#[test]
fn a_client_whose_descriptors_are_not_passed_goes_on_through_the_socket() {
    if !is_permitted() {
        return;
    }
    for (client, server) in pairs() {
        for errno in [Errno::ETOOMANYREFS, Errno::ENOBUFS] {
            let vault = Vault::start(server, Knobs::default());
            let mut command = other("unpassed_client", client);
            command.env(PORT, vault.port()).env(FAULT, always("sendmsg", errno).to_string());
            let process = Process::start(command.stderr(Stdio::null()));
            let lines = within("a client without descriptors", move || process.rest());
            assert_eq!(lines[1..], ["went on", "ended"], "{lines:?}");
            assert_ne!(lines[0], "failed 0");
        }
    }
}

#[test]
fn a_server_whose_descriptors_are_not_passed_goes_on_through_the_socket() {
    if !is_permitted() {
        return;
    }
    for (driver, server) in pairs() {
        let fault = always("sendmsg", Errno::ETOOMANYREFS).to_string();
        let mut vault = Vault::start_failing(server, &fault, Knobs::default());
        let client = vault.client(driver);
        vault.tell("arm");
        let client = within("a server without descriptors", move || {
            go_on(&client);
            client
        });
        vault.process.tell("disarm");
        assert_ne!(vault.process.line(), "failed 0");
        assert_eq!(vault.process.line(), "disarm");
        go_on(&client);
    }
}

/// Role: a client whose system has no memory to send anything for a while, and whose calls have deadlines.
pub fn call_in_time(driver: Driver) -> lpc::Result<()> {
    supervise()?;
    let client = match AnyVault::connect(driver, &variable(PORT))? {
        AnyVault::Blocking(client) => AnyVault::Blocking(client.with_deadline(TIME)),
        AnyVault::Tokio(client) => AnyVault::Tokio(client.with_deadline(TIME)),
    };
    client.length(b"warm")?;
    arm();
    for len in [6, 20_000, LARGE] {
        let error = client.length(&vec![7; len]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    }
    disarm();
    drop(client);
    let client = AnyVault::connect(driver, &variable(PORT))?;
    assert_eq!(client.length(b"again")?, 5);
    say("in time");
    Ok(())
}

#[test]
fn a_send_for_which_the_system_has_no_memory_does_not_outlast_a_deadline() {
    if !is_permitted() {
        return;
    }
    for driver in DRIVERS {
        let vault = Vault::start(driver, Knobs::default());
        let mut command = other("client_in_time", driver);
        command.env(PORT, vault.port()).env(FAULT, always("send", Errno::ENOBUFS).to_string());
        let process = Process::start(command.stderr(Stdio::null()));
        let lines =
            within("a client without memory", move || [process.line(), process.line(), process.line()]);
        assert_eq!(lines[1..], ["in time", "ended"], "{lines:?}");
    }
}
