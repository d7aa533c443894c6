//! One side is killed while the other holds its memory.

use lpc::Shared;

use crate::process::{PORT, Process, other, say, variable, within};
use crate::service::Driver;
use crate::vault::{AnyVault, Baseline, Knobs, Vault, pairs, sealed};

/// Role: calls with everything that there is, for ever. The first thing it passes is kept by the server.
pub fn traffic(driver: Driver) -> lpc::Result<()> {
    const LEN: usize = 100_000;
    let client = AnyVault::connect(driver, &variable(PORT))?;
    if std::env::var_os("LPC_TEST_KEEP").is_some() {
        client.keep(client.loan(LEN, 1)?)?;
        client.keep(sealed(LEN, 2))?;
        client.keep(vec![3; LEN].into())?;
        let file = tempfile::tempfile()?;
        std::io::Write::write_all(&mut &file, &vec![4; LEN])?;
        client.keep(Shared::from_file(&file, ..)?)?;
    }
    say("going");
    let large = vec![7; LEN];
    let sealed = sealed(LEN, 1);
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (client, large, sealed) = (client.clone(), large.clone(), sealed.clone());
            std::thread::spawn(move || -> lpc::Result<()> {
                loop {
                    client.length(&large)?;
                    client.sum(client.loan(LEN, 1)?)?;
                    client.sum(sealed.clone())?;
                    let lent = client.lend(LEN as u64, 2)?;
                    client.make(LEN as u64, 3)?;
                    drop(lent);
                }
            })
        })
        .collect();
    threads.into_iter().try_for_each(|thread| thread.join().unwrap())
}

const KEPT: [(u64, u64); 4] =
    [(100_000, 100_000), (100_000, 200_000), (100_000, 300_000), (100_000, 400_000)];

#[test]
fn what_a_server_keeps_of_a_client_stays_when_that_is_killed() {
    for (client, server) in pairs() {
        for is_trusting in [false, true] {
            let vault = Vault::start(server, Knobs { is_trusting, ..Knobs::default() });
            let baseline = Baseline::of(&vault);
            let mut command = other("traffic", client);
            let mut client = Process::start(command.env(PORT, vault.port()).env("LPC_TEST_KEEP", "1"));
            assert_eq!(client.line(), "going");
            client.kill();
            assert_eq!(baseline.honest.kept().unwrap(), KEPT);
            // Others have used the connection's memory since, if it were theirs to use.
            let mut next = Process::start(other("traffic", Driver::Blocking).env(PORT, vault.port()));
            assert_eq!(next.line(), "going");
            next.kill();
            assert_eq!(baseline.honest.kept().unwrap(), KEPT);
            baseline.honest.forget().unwrap();
            baseline.check("a client was killed whose memory was kept");
        }
    }
}

#[test]
fn what_a_client_holds_of_a_server_stays_when_that_is_killed() {
    for (client, server) in pairs() {
        for is_trusting in [false, true] {
            let mut vault = Vault::start(server, Knobs::default());
            let knobs = Knobs { is_trusting, ..Knobs::default() };
            let client = AnyVault::connect_with(client, vault.port(), knobs).unwrap();
            let results: Vec<_> = (1..6).map(|fill| client.lend(100_000, fill).unwrap()).collect();
            let loan = client.loan(100_000, 9).unwrap();
            assert_eq!(client.sum(loan.clone()).unwrap(), 900_000);
            let text = results[4].clone().into_str().unwrap();
            vault.process.kill();
            let error = within("a call of a killed server", {
                let client = client.clone();
                let loan = loan.clone();
                move || client.sum(loan)
            });
            assert!(error.unwrap_err().is_disconnected());
            for (fill, result) in (1..).zip(&results) {
                assert_eq!(result.len(), 100_000);
                assert!(result.iter().all(|byte| *byte == fill));
                assert_eq!(result.is_shared(), is_trusting);
            }
            assert!(text.bytes().all(|byte| byte == 5));
            assert!(loan.iter().all(|byte| *byte == 9));

            drop(client);
            // What is held of a connection that is over can be passed to another server.
            let next = Vault::start(server, Knobs::default());
            let other = next.client(Driver::Blocking);
            assert_eq!(other.sum(loan).unwrap(), 900_000);
            assert_eq!(other.sum(results[2].clone()).unwrap(), 300_000);
        }
    }
}

/// Between two calls nobody receives, and nobody is told that the server has died.
#[test]
fn what_is_called_after_the_server_died_was_not_sent_through_either_lane() {
    for (client, server) in pairs() {
        for is_quick in [false, true] {
            let knobs = Knobs { is_quick, ..Knobs::default() };
            let mut vault = Vault::start(server, knobs);
            let connected = AnyVault::connect_with(client, vault.port(), knobs).unwrap();
            for _ in 0..100 {
                assert_eq!(connected.length(b"warm").unwrap(), 4);
            }
            assert_eq!(connected.stats().quick.sent > 0, is_quick);
            vault.process.kill();
            let error = within("a call of a killed server", move || connected.length(b"late")).unwrap_err();
            assert!(error.is_disconnected() && !error.may_have_run(), "{client:?}, {is_quick}: {error:?}");
        }
    }
}
