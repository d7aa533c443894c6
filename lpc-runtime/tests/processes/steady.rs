//! Once warm, calls share no more memory: each uses what is there.

use std::collections::BTreeSet;

use lpc::Shared;

use crate::process::{PORT, Process, holdings, other, say, variable};
use crate::service::Driver;
use crate::vault::{AnyVault, Knobs, Vault, pairs, sealed};

/// Longer than the time in which a server takes a method for a slow one, and moves it to other threads.
const WARM: usize = 300;
const CALLS: usize = 1000;
const LEN: usize = 20_000;

#[test]
fn calls_of_a_warm_connection_make_and_map_nothing() {
    for ((client, server), is_trusting) in pairs().zip([false, true, true, false]) {
        let vault = Vault::start(server, Knobs { is_kept: true, is_trusting, ..Knobs::default() });
        let mut command = other("steady", client);
        command.env(PORT, vault.port()).env("LPC_TEST_SERVER", vault.id().to_string());
        let client = Process::start(&mut command);
        let kinds = kinds().map(|(what, _)| format!("{what}: the same"));
        let lines = client.rest();
        assert_eq!(lines[..lines.len() - 1], kinds, "{lines:?}");
        assert_eq!(lines.last().unwrap(), "ended");
    }
}

type Call = fn(&AnyVault, &Shared<[u8]>) -> lpc::Result<()>;

fn kinds() -> [(&'static str, Call); 6] {
    [
        ("a body", |client, _| {
            assert_eq!(client.length(&[7; LEN])?, LEN as u64);
            Ok(())
        }),
        ("a result", |client, _| {
            assert_eq!(client.make(LEN as u64, 7)?.len(), LEN);
            Ok(())
        }),
        ("a loan", |client, _| {
            assert_eq!(client.length(b"small")?, 5);
            assert_eq!(client.all(vec![client.loan(LEN, 2)?])?, LEN as u64);
            Ok(())
        }),
        ("sealed memory", |client, sealed| {
            assert_eq!(client.all(vec![sealed.clone()])?, LEN as u64);
            Ok(())
        }),
        ("private memory", |client, _| {
            assert_eq!(client.all(vec![vec![2; LEN].into()])?, LEN as u64);
            Ok(())
        }),
        ("a loan as result", |client, _| {
            let lent = client.lend(LEN as u64, 2)?;
            assert_eq!((lent.len(), lent[LEN - 1]), (LEN, 2));
            Ok(())
        }),
    ]
}

/// The addresses and inodes of all shared memory that a process has mapped.
fn mappings(id: u32) -> BTreeSet<String> {
    let maps = std::fs::read_to_string(format!("/proc/{id}/maps")).unwrap();
    maps.lines().filter(|line| line.contains("/memfd:lpc")).map(str::to_owned).collect()
}

/// Role.
pub fn steady(driver: Driver) -> lpc::Result<()> {
    let processes = [std::process::id(), variable("LPC_TEST_SERVER").parse().unwrap()];
    let knobs = Knobs { is_kept: true, is_trusting: true, ..Knobs::default() };
    let client = AnyVault::connect_with(driver, &variable(PORT), knobs)?;
    let sealed = sealed(LEN, 2);
    let state = || processes.map(|id| (mappings(id), holdings(id).0));
    for (what, call) in kinds() {
        for _ in 0..WARM {
            call(&client, &sealed)?;
        }
        let before = state();
        assert!(before.iter().any(|(mappings, _)| !mappings.is_empty()));
        for _ in 0..CALLS {
            call(&client, &sealed)?;
        }
        let after = state();
        let verdict =
            if before == after { "the same".into() } else { format!("{before:?} and then {after:?}") };
        say(format_args!("{what}: {verdict}"));
    }
    Ok(())
}
