//! The quick lane, where a system call fails that its beginning takes, or no descriptor or quota is left for
//! it: then all goes through the socket, as without it, and nobody is told.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Stdio;

use nix::errno::Errno;

use crate::fault::{FAULT, Fault, arm, disarm, is_permitted, supervise};
use crate::process::{PORT, Process, holdings, other, say, settled, through_shell, until, variable, within};
use crate::service::{DRIVERS, Driver};
use crate::vault::{AnyVault, Baseline, Knobs, Vault, all_descriptors, pairs};

const LARGE: usize = 1 << 20;

/// What fails on the side that sets it up: each call of the kind in turn, and all of them.
const FAULTS: [(&str, Errno); 9] = [
    ("memfd_create", Errno::EMFILE),
    ("memfd_create", Errno::ENOMEM),
    ("ftruncate", Errno::ENOSPC),
    ("mmap", Errno::ENOMEM),
    ("fcntl_seals", Errno::EPERM),
    ("fcntl_seals", Errno::ENOMEM),
    ("fstat", Errno::ENOMEM),
    ("sendmsg", Errno::ETOOMANYREFS),
    ("sendmsg", Errno::ENOBUFS),
];

/// More calls of one kind than a connection takes until it is warm.
const MANY: u64 = 12;

/// Small calls, all of which are answered. Whether the quick lane takes them once it could have begun.
pub fn has_lane(client: &AnyVault) -> lpc::Result<bool> {
    let mut quick = client.stats().quick;
    for _ in 0..2 {
        quick = client.stats().quick;
        for len in 0..20 {
            assert_eq!(client.length(&[7; 20][..len])?, len as u64);
        }
    }
    let now = client.stats().quick;
    let (is_sent, is_received) = (now.sent > quick.sent, now.received > quick.received);
    assert_eq!(is_sent, is_received, "one direction alone");
    Ok(is_sent)
}

/// Checks with each call of each kind failing, one at a time until there is none, and then with all of them
/// failing. The check says how many failed. All that are wrong are told together.
fn each_failure(check: impl Fn(Driver, Fault) -> u64) {
    if !is_permitted() {
        return;
    }
    let mut wrong = 0;
    for (driver, (call, errno)) in DRIVERS.into_iter().flat_map(|driver| FAULTS.map(|fault| (driver, fault)))
    {
        let mut failed = |first, count| {
            let fault = Fault { call, errno, first, every: 1, count };
            let checked = catch_unwind(AssertUnwindSafe(|| check(driver, fault)));
            checked.unwrap_or_else(|_| {
                eprintln!("WRONG: {driver:?}, {fault:?}\n");
                wrong += 1;
                0
            })
        };
        let met = (1..MANY).take_while(|first| failed(*first, 1) == 1).count();
        let is_met = (1..MANY as usize - 1).contains(&met) && failed(1, u64::MAX) > 0;
        if !is_met {
            eprintln!("WRONG: {met} calls of {call} are {errno} with {driver:?}\n");
            wrong += 1;
        }
    }
    assert_eq!(wrong, 0, "see above");
}

/// What `disarm` says.
fn count(line: &str) -> u64 {
    line.strip_prefix("failed ").and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

#[test]
fn a_server_that_cannot_begin_it_answers_through_the_socket() {
    each_failure(|driver, fault| {
        let mut vault = Vault::start_failing(driver, &fault.to_string(), Knobs::QUICK);
        let baseline = Baseline::of(&vault);
        vault.tell("arm");
        let client = vault.quick_client(driver);
        let what = format!("{driver:?}, {fault:?}");
        let (is_quick, client) = within(&what, move || (has_lane(&client), client));
        baseline.answers(&what);
        vault.process.tell("disarm");
        let failed = count(&vault.process.line());
        assert_eq!(vault.process.line(), "disarm");
        assert_eq!(is_quick.expect(&what), failed == 0, "{what}");
        assert_eq!(client.length(&vec![7; LARGE]).unwrap(), LARGE as u64);
        // Another connection has it.
        assert!(has_lane(&vault.quick_client(driver)).unwrap(), "{what}");
        drop(client);
        baseline.check(&what);
        failed
    });
}

#[test]
fn a_client_that_cannot_begin_it_calls_through_the_socket() {
    let vaults = DRIVERS.map(|driver| (driver, Vault::start(driver, Knobs::QUICK)));
    each_failure(|driver, fault| {
        let (_, vault) = vaults.iter().find(|(server, _)| *server == driver).expect("one of each driver");
        let baseline = Baseline::of(vault);
        let mut command = other("failing_quick_client", driver);
        command.env(PORT, vault.port()).env(FAULT, fault.to_string());
        let lines = Process::start(command.stderr(Stdio::null())).rest();
        let [first, other, failed, again, end] = &lines[..] else { panic!("{fault:?}: it says {lines:?}") };
        let failed = count(failed);
        let expected = if failed == 0 { "quick" } else { "socket" };
        let ends = (other.as_str(), again.as_str(), end.as_str());
        assert_eq!((first.as_str(), ends), (expected, ("socket", "quick", "ended")), "{driver:?}, {fault:?}");
        baseline.check(&format!("{fault:?}"));
        failed
    });
}

/// Role: a client that wants the quick lane, beside one that does not, and system calls fail as it connects.
pub fn call(driver: Driver) -> lpc::Result<()> {
    supervise()?;
    let port = variable(PORT);
    let lane = |client: &AnyVault| has_lane(client).map(|has_it| if has_it { "quick" } else { "socket" });
    let plain = AnyVault::connect(driver, &port)?;
    lane(&plain)?;
    let before = settled(std::process::id());
    arm();
    let client = AnyVault::connect_with(driver, &port, Knobs::QUICK)?;
    say(lane(&client)?);
    say(lane(&plain)?);
    disarm();
    assert_eq!(client.length(&vec![7; LARGE])?, LARGE as u64);
    say(lane(&AnyVault::connect_with(driver, &port, Knobs::QUICK)?)?);
    drop(client);
    until("the client lets go of what it held", || {
        let (descriptors, mappings) = holdings(std::process::id());
        (descriptors <= before && mappings == 0).then_some(())
    });
    Ok(())
}

/// How many descriptors more there are after `action`.
fn taken<T>(id: u32, action: impl FnOnce() -> T) -> (T, usize) {
    let before = settled(id);
    let result = action();
    (result, settled(id) - before)
}

/// To begin it a server needs one beside the connection's own: first for the one that it gets, and then for
/// the one that it makes.
#[test]
fn a_server_without_descriptors_for_it_answers_through_the_socket() {
    for (client, server) in pairs() {
        for (spare, is_quick) in [(0, false), (1, true)] {
            let mut vault = Vault::start_limited(server, Knobs::QUICK, "ulimit -n 60;");
            let baseline = Baseline::of(&vault);
            let (plain, own) = taken(vault.id(), || {
                let plain = vault.client(client);
                plain.length(b"in").unwrap();
                plain
            });
            vault.tell(&format!("spare {}", own + spare));
            let what = format!("{client:?} to {server:?} with {spare} to spare");
            let quick = vault.quick_client(client);
            let (has_it, quick) = within(&what, move || (has_lane(&quick), quick));
            assert_eq!(has_it.expect(&what), is_quick, "{what}");
            assert_eq!(quick.length(&vec![7; LARGE]).unwrap(), LARGE as u64);
            assert!(!has_lane(&plain).unwrap());
            vault.tell("give descriptors");
            assert_eq!(has_lane(&quick).unwrap(), is_quick, "{what}");
            assert!(has_lane(&vault.quick_client(client)).unwrap(), "{what}");
            drop((quick, plain));
            baseline.check(&what);
        }
    }
}

#[test]
fn a_server_that_runs_out_of_descriptors_goes_on_in_it() {
    for (client, server) in pairs() {
        let mut vault = Vault::start_limited(server, Knobs::QUICK, "ulimit -n 60;");
        let baseline = Baseline::of(&vault);
        let client = vault.quick_client(client);
        assert!(has_lane(&client).unwrap());
        vault.tell("take descriptors");
        let large = vec![7; LARGE];
        for round in 1..=4 {
            // Each goes through the socket, and the small ones after it do not.
            assert_eq!(client.length(&large).unwrap(), LARGE as u64);
            assert!(client.make(LARGE as u64, 7).unwrap() == large);
            assert_eq!(client.stats().fallbacks, round);
            assert!(has_lane(&client).unwrap());
        }
        vault.tell("give descriptors");
        assert!(has_lane(&client).unwrap());
        drop(client);
        baseline.check("a client in the quick lane");
    }
}

#[test]
fn a_client_without_descriptors_for_it_calls_through_the_socket() {
    for (client, server) in pairs() {
        let vault = Vault::start(server, Knobs::QUICK);
        let baseline = Baseline::of(&vault);
        let command = other("quick_client_without_descriptors", client);
        let mut command = through_shell(r#"ulimit -n 60; exec "$0" "$@""#, &command);
        let lines = Process::start(command.env(PORT, vault.port())).rest();
        assert_eq!(lines, ["none to make it", "none to get it", "none in it", "ended"]);
        baseline.check("a client without descriptors");
    }
}

/// Role.
pub fn call_without_descriptors(driver: Driver) -> lpc::Result<()> {
    let id = std::process::id();
    let port = variable(PORT);
    let connect = || AnyVault::connect_with(driver, &port, Knobs::QUICK);
    let all_but = |count| {
        let mut files = all_descriptors();
        files.truncate(files.len() - count);
        files
    };
    let large = vec![7; LARGE];
    let first = AnyVault::connect(driver, &port)?;
    first.length(b"whose runtime stays")?;
    let (plain, own) = taken(id, || AnyVault::connect(driver, &port));
    let plain = plain?;
    let before = settled(id);

    let files = all_but(own);
    let client = connect()?;
    assert!(!has_lane(&client)?);
    assert_eq!(client.length(&large)?, LARGE as u64);
    drop(files);
    assert!(!has_lane(&client)?);
    drop(client);
    say("none to make it");

    let client = connect()?;
    let files = all_but(0);
    let is_quick = has_lane(&client)?;
    // With tokio it may have come before.
    assert!(!is_quick || driver == Driver::Tokio);
    assert!(client.make(LARGE as u64, 7)? == large);
    drop(files);
    assert_eq!(has_lane(&client)?, is_quick);
    drop(client);
    say("none to get it");

    let client = connect()?;
    assert!(has_lane(&client)?);
    let files = all_but(0);
    for _ in 0..4 {
        assert_eq!(client.length(&large)?, LARGE as u64);
        assert!(client.make(LARGE as u64, 7)? == large);
        assert!(has_lane(&client)?);
    }
    drop(files);
    drop(client);
    say("none in it");
    assert!(!has_lane(&plain)?);
    until("the client lets go of what it held", || {
        let (descriptors, mappings) = holdings(id);
        (descriptors <= before && mappings == 0).then_some(())
    });
    Ok(())
}

/// What the memory of one quick lane counts for.
const COST: u64 = 2 * lpc_core::ring::LEN as u64;

#[test]
fn a_client_whose_users_quota_is_used_up_calls_through_the_socket() {
    for (client, server) in pairs() {
        for (user_pool, are_quick) in [(COST - 1, [false, false]), (2 * COST - 1, [true, false])] {
            let knobs = Knobs { user_pool: Some(user_pool), ..Knobs::QUICK };
            let vault = Vault::start(server, knobs);
            let baseline = Baseline::of(&vault);
            let clients = are_quick.map(|is_quick| {
                let client = vault.quick_client(client);
                assert_eq!(has_lane(&client).unwrap(), is_quick, "of {user_pool} bytes");
                client
            });
            for (client, is_quick) in clients.iter().zip(are_quick) {
                assert_eq!(client.length(&vec![7; LARGE]).unwrap(), LARGE as u64);
                assert!(client.make(LARGE as u64, 7).unwrap() == vec![7; LARGE]);
                assert_eq!(has_lane(client).unwrap(), is_quick);
            }
            drop(clients);
            baseline.check("clients of one quota");
            // What they had is there again.
            assert_eq!(has_lane(&vault.quick_client(client)).unwrap(), are_quick[0]);
        }
    }
}
