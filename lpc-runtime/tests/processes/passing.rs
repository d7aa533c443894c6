//! Descriptors that the system does not pass (`ETOOMANYREFS`, unix(7)), for as long as it likes: nothing
//! waits behind them, and bodies take the socket. The same where it has no memory to send anything at all,
//! until the deadline.

use std::process::Stdio;
use std::time::Duration;

use lpc::ErrorKind;
use nix::errno::Errno;

use crate::fault::{FAULT, Fault, arm, disarm, is_permitted, supervise};
use crate::process::{PORT, Process, other, say, variable, within};
use crate::rings::has_lane;
use crate::service::{DRIVERS, Driver};
use crate::vault::{AnyVault, Knobs, Vault, pairs, private, sealed};

const LARGE: usize = 1 << 20;
const LOAN: usize = 100_000;

/// How the system says that it passes none.
const ERRNOS: [Errno; 2] = [Errno::ETOOMANYREFS, Errno::ENOBUFS];

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

/// What can be lent.
#[derive(Clone, Copy, Debug)]
enum Lends {
    /// Filled where the peer reads it.
    InPlace,
    /// Copied to where the peer reads it.
    Private,
    Sealed,
}

const LENDS: [Lends; 3] = [Lends::InPlace, Lends::Private, Lends::Sealed];

/// Loans whose memory is announced in vain, and what is called after them.
fn lend(client: &AnyVault, lends: Lends) {
    let loan = match lends {
        Lends::InPlace => client.loan(LOAN, 2).unwrap(),
        Lends::Private => private(LOAN, 2),
        Lends::Sealed => sealed(LOAN, 2),
    };
    for _ in 0..3 {
        let sum = client.sum(loan.clone());
        assert!(matches!(sum, Ok(200_000)), "{lends:?}: {sum:?}");
    }
    go_on(client);
}

/// The same of results.
fn borrow(client: &AnyVault, lends: Lends) {
    for _ in 0..3 {
        let lent = match lends {
            Lends::InPlace => client.lend(LOAN as u64, 2),
            Lends::Private => client.give(LOAN as u64, 2, false),
            Lends::Sealed => client.give(LOAN as u64, 2, true),
        };
        let lent = lent.unwrap_or_else(|error| panic!("{lends:?}: {error}"));
        assert_eq!(lent.iter().map(|byte| u64::from(*byte)).sum::<u64>(), 200_000);
    }
    go_on(client);
}

/// The quick lane's descriptor is not passed either: without it all goes through the socket.
fn go_on_without_lane(client: &AnyVault) {
    assert!(!has_lane(client).unwrap(), "no descriptor was passed for it");
    go_on(client);
}

/// Role: a client whose system passes no descriptors for a while.
pub fn call(driver: Driver) -> lpc::Result<()> {
    supervise()?;
    let client = AnyVault::connect(driver, &variable(PORT))?;
    arm();
    go_on(&client);
    assert!(client.stats().fallbacks > 0, "the first was sent again");
    for lends in LENDS {
        // Of its own: where the system has passed none, nothing is announced for a while.
        let client = AnyVault::connect(driver, &variable(PORT))?;
        lend(&client, lends);
        assert!(client.stats().fallbacks > 0, "the first was not lent");
    }
    go_on_without_lane(&AnyVault::connect_with(driver, &variable(PORT), Knobs::QUICK)?);
    let shared = sealed(LOAN, 2);
    assert_eq!(client.sum(shared.clone())?, 200_000);
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
        for errno in ERRNOS {
            let vault = Vault::start(server, Knobs::QUICK);
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
    for ((driver, server), errno) in pairs().flat_map(|pair| ERRNOS.map(|errno| (pair, errno))) {
        let fault = always("sendmsg", errno).to_string();
        let mut vault = Vault::start_failing(server, &fault, Knobs::QUICK);
        let client = vault.client(driver);
        let borrowers = LENDS.map(|lends| (lends, vault.client(driver)));
        vault.tell("arm");
        let quick = vault.quick_client(driver);
        let client = within("a server without descriptors", move || {
            go_on(&client);
            for (lends, client) in borrowers {
                borrow(&client, lends);
            }
            go_on_without_lane(&quick);
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
