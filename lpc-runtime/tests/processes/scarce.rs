//! Shared memory where a process has no descriptor, or no address space, left for it.

use lpc::{ErrorKind, Shared};

use crate::hostile::{Peer, file_of};
use crate::process::{PORT, Process, other, say, through_shell, until, variable, within};
use crate::service::{DRIVERS, Driver};
use crate::vault::{AnyVault, Knobs, Vault, all_descriptors, all_memory_but, is_exhausted, pairs, sealed};

const LARGE: usize = 1 << 20;

/// Many calls, so that the whole pool turns out to be of no use, one segment after the other.
#[test]
fn a_server_without_descriptors_gets_large_bodies_through_the_socket() {
    for (client, server) in pairs() {
        let mut vault = Vault::start_limited(server, Knobs::default(), "ulimit -n 60;");
        let client = vault.client(client);
        vault.tell("take descriptors");
        let large = vec![7; LARGE];
        for round in 1..=4 {
            assert_eq!(client.length(&large).unwrap(), LARGE as u64);
            assert_eq!(client.owned(large.clone()).unwrap(), LARGE as u64);
            assert_eq!(client.stats().fallbacks, 2 * round);
        }
        vault.tell("give descriptors");
        // Not at once: what the server refused is not offered again for a while.
        until("memory is shared again", || {
            let before = client.stats().fallbacks;
            assert_eq!(client.length(&large).unwrap(), LARGE as u64);
            (client.stats().fallbacks == before).then_some(())
        });
        assert!(client.make(LARGE as u64, 5).unwrap() == vec![5; LARGE]);
    }
}

/// Segments that the peer cannot read count in the pool until they are retired. A client that keeps its
/// memory for long must not wait for that.
#[test]
fn large_bodies_take_the_socket_when_no_segment_of_the_whole_pool_can_be_read() {
    for (client, server) in pairs() {
        let knobs = Knobs { pool: Some(8 << 20), is_kept: true, ..Knobs::default() };
        let mut vault = Vault::start_limited(server, Knobs::default(), "ulimit -n 60;");
        let client = AnyVault::connect_with(client, vault.port(), knobs).unwrap();
        vault.tell("take descriptors");
        within("a call whose pool is of no use", move || {
            for _ in 0..30 {
                assert_eq!(client.length(&vec![7; LARGE]).unwrap(), LARGE as u64);
            }
            assert_eq!(client.stats().fallbacks, 30);
        });
    }
}

#[test]
fn a_server_without_descriptors_refuses_a_loan_that_it_cannot_read_and_goes_on() {
    for (client, server) in pairs() {
        for is_trusting in [false, true] {
            let knobs = Knobs { is_trusting, ..Knobs::default() };
            let mut vault = Vault::start_limited(server, knobs, "ulimit -n 60;");
            let client = vault.client(client);
            vault.tell("take descriptors");
            for loan in [client.loan(LARGE, 3).unwrap(), sealed(LARGE, 3)] {
                let error = client.sum(loan).unwrap_err();
                assert!(is_exhausted(&error), "{error:?}");
                assert!(error.to_string().contains("no descriptor"), "{error}");
                assert_eq!(client.length(b"goes on").unwrap(), 7);
            }
            vault.tell("give descriptors");
            assert_eq!(client.sum(sealed(LARGE, 3)).unwrap(), 3 * LARGE as u64);
            assert_eq!(client.sum(vec![1; 10].into()).unwrap(), 10);
        }
    }
}

/// The client that is out of descriptors is another process: this one has other tests to run.
#[test]
fn a_client_without_descriptors_gets_large_results_through_the_socket() {
    for (client, server) in pairs() {
        let vault = Vault::start(server, Knobs::default());
        let command = other("client_without_descriptors", client);
        let script = r#"ulimit -n 60; exec "$0" "$@""#;
        let mut command = through_shell(script, &command);
        let client = Process::start(command.env(PORT, vault.port()));
        assert_eq!(client.line(), "results by the socket");
        assert_eq!(client.line(), "loans as results");
        assert_eq!(client.line(), "arguments by the socket");
        assert_eq!(client.line(), "loans are copied");
        assert_eq!(client.line(), "memory is shared again");
        assert_eq!(client.line(), "ended");
    }
}

/// Role.
pub fn client_without_descriptors(driver: Driver) -> lpc::Result<()> {
    let large = vec![7; LARGE];
    let client = AnyVault::connect(driver, &variable(PORT))?;
    let other_client = AnyVault::connect(driver, &variable(PORT))?;
    let files = all_descriptors();
    for _ in 0..4 {
        assert!(client.make(LARGE as u64, 5)? == vec![5; LARGE]);
    }
    assert_eq!(client.stats().received.mapping.messages, 0);
    assert_eq!(client.stats().received.socket.messages, 4);
    say("results by the socket");
    // The server knows that nothing can be shared, unless it has been too long since.
    match client.lend(LARGE as u64, 5) {
        Ok(loan) => assert!(!loan.is_shared() && *loan == [5; LARGE]),
        Err(error) => assert!(is_exhausted(&error), "{error:?}"),
    }
    assert_eq!(client.length(b"goes on")?, 7);
    say("loans as results");
    assert_eq!(other_client.length(&large)?, LARGE as u64);
    assert_eq!((other_client.stats().fallbacks, other_client.stats().sent.mapping.messages), (1, 0));
    say("arguments by the socket");
    let loan = other_client.loan(LARGE, 3)?;
    assert!(!loan.is_shared());
    assert_eq!(other_client.sum(loan)?, 3 * LARGE as u64);
    lpc::SharedMut::<[u8]>::sealable(LARGE).expect_err("no descriptor is left for it");
    say("loans are copied");
    drop(files);
    assert_eq!(other_client.length(&large)?, LARGE as u64);
    assert_eq!(other_client.stats().sent.mapping.messages, 1);
    assert!(other_client.make(LARGE as u64, 5)? == vec![5; LARGE]);
    say("memory is shared again");
    Ok(())
}

/// Room for the segment's mapping there is not; for a copy of the body there is.
#[test]
fn a_server_without_address_space_for_a_segment_reads_it_all_the_same() {
    const LEN: usize = 20 << 20;
    for (client_driver, server) in pairs() {
        for is_trusting in [false, true] {
            for is_owned in [false, true] {
                let knobs = Knobs { is_trusting, ..Knobs::default() };
                let mut vault = Vault::start_limited(server, knobs, "ulimit -v 2000000;");
                let client = vault.client(client_driver);
                // The segment takes 32 MiB.
                vault.tell("leave 30000000");
                let large = vec![7; LEN];
                let len = if is_owned { client.owned(large) } else { client.length(&large) };
                assert_eq!(len.unwrap(), LEN as u64);
                assert_eq!(client.sum(client.loan(100_000, 3).unwrap()).unwrap(), 300_000);
                assert_eq!(client.sum(sealed(100_000, 3)).unwrap(), 300_000);
                vault.tell("give memory");
                assert!(client.make(LARGE as u64, 5).unwrap() == vec![5; LARGE]);
            }
        }
    }
}

/// Room for a copy there is not either.
#[test]
fn a_server_without_address_space_for_a_body_fails_that_call_alone() {
    let mut died = Vec::new();
    for (client_driver, server) in pairs() {
        for (what, call) in calls() {
            let mut vault = Vault::start_limited(server, Knobs::default(), "ulimit -v 2000000;");
            let client = vault.client(client_driver);
            let honest = vault.client(Driver::Blocking);
            assert_eq!(honest.length(b"before").unwrap(), 6);
            vault.tell("leave 20000000");
            let result = call(&client);
            // What the implementation says of a value that it cannot read is its own.
            let is_its_own = |error: &lpc::Error| is_exhausted(error) || error.is_panic();
            if let Err(error) = &result
                && !is_its_own(error)
            {
                died.push(format!("{what}, {client_driver:?} to {server:?}: {error:?}"));
                continue;
            }
            assert_eq!(honest.length(b"fine").unwrap(), 4, "after {what}");
            assert_eq!(client.length(b"goes on").unwrap(), 7, "after {what}");
            vault.tell("give memory");
            assert_eq!(client.length(&vec![7; 32 << 20]).unwrap(), 32 << 20, "after {what}");
        }
    }
    assert!(died.is_empty(), "{died:#?}");
}

type Call = fn(&AnyVault) -> lpc::Result<u64>;

fn calls() -> [(&'static str, Call); 5] {
    const LEN: usize = 32 << 20;
    [
        ("a borrowed body", |client| client.length(&vec![7; LEN])),
        ("an owned body", |client| client.owned(vec![7; LEN])),
        ("a loan", |client| client.sum(client.loan(LEN, 7)?)),
        ("sealed memory", |client| client.sum(sealed(LEN, 7))),
        ("a file", |client| {
            let file = tempfile::tempfile()?;
            file.set_len(LEN as u64)?;
            client.sum(Shared::from_file(&file, ..)?)
        }),
    ]
}

#[test]
fn a_client_without_address_space_sends_large_bodies_all_the_same() {
    // (A tokio client copies what the socket does not take at once, for which there would have to be room,
    // too.)
    for (client, server) in pairs().filter(|(client, _)| *client == Driver::Blocking) {
        let vault = Vault::start(server, Knobs::default());
        let script = r#"ulimit -v 2000000; exec "$0" "$@""#;
        let mut command = through_shell(script, &other("client_without_memory", client));
        let client = Process::start(command.env(PORT, vault.port()).env("MALLOC_ARENA_MAX", "1"));
        assert_eq!(client.rest(), ["arguments", "loans", "results", "ended"]);
    }
}

/// Role.
pub fn client_without_memory(driver: Driver) -> lpc::Result<()> {
    const LEN: usize = 40 << 20;
    let client = AnyVault::connect(driver, &variable(PORT))?;
    client.length(b"a call before")?;
    let large = vec![7; LEN];
    // Not as much as a segment of 64 MiB takes.
    let memory = all_memory_but(50 << 20);
    assert_eq!(client.length(&large)?, LEN as u64);
    assert_eq!(client.stats().fallbacks, 1);
    say("arguments");
    let loan = client.loan(LEN, 3)?;
    assert!(!loan.is_shared());
    drop(loan);
    say("loans");
    drop(large);
    assert!(client.make(LEN as u64, 5)?.iter().all(|byte| *byte == 5));
    drop(memory);
    say("results");
    Ok(())
}

/// Segments double, so that a pool which is used up is in pieces, none of which takes a body that is almost
/// as large as all of it. Nothing is in use that could come back, so a caller who waited would wait until
/// memory is given back.
#[test]
fn a_body_almost_as_large_as_the_pool_is_sent_although_that_is_in_pieces() {
    for (client, server) in pairs() {
        let knobs = Knobs { pool: Some(4 << 20), is_kept: true, ..Knobs::default() };
        let vault = Vault::start(server, Knobs::default());
        let client = AnyVault::connect_with(client, vault.port(), knobs).unwrap();
        let pieces: Vec<_> = (0..4).map(|_| client.loan(1 << 20, 1).unwrap()).collect();
        drop(pieces);
        within("a body that fits in no piece", move || {
            assert_eq!(client.length(&vec![7; 3 << 20]).unwrap(), 3 << 20);
            assert_eq!(client.sum(client.loan(3 << 20, 2).unwrap()).unwrap(), 6 << 20);
        });
    }
}

/// Both processes have none.
#[test]
fn two_processes_without_descriptors_talk_through_the_socket() {
    for driver in DRIVERS {
        let mut vault = Vault::start_limited(driver, Knobs::default(), "ulimit -n 60;");
        let client = vault.client(driver);
        vault.tell("take descriptors");
        // The server cannot make a segment, and the client's is of no use to it.
        let large = vec![9; LARGE];
        for _ in 0..3 {
            assert_eq!(client.length(&large).unwrap(), LARGE as u64);
            assert!(client.make(LARGE as u64, 9).unwrap() == large);
            // Nor can it lend: the result is copied.
            assert!(*client.lend(LARGE as u64, 9).unwrap() == *large);
        }
        assert_eq!(client.stats().received.mapping.messages, 0);
    }
}

/// What goes over that limit is ended by a signal.
#[test]
fn a_limit_for_files_means_that_large_bodies_take_the_socket() {
    for (client, server) in pairs() {
        let vault = Vault::start_limited(server, Knobs::default(), "ulimit -f 512;");
        let honest = vault.client(client);
        assert!(honest.make(LARGE as u64, 5).unwrap() == vec![5; LARGE]);
        assert_eq!(honest.stats().received.mapping.messages, 0);
        assert_eq!(honest.length(&vec![7; LARGE]).unwrap(), LARGE as u64, "of memory of the client's");
        assert_eq!(honest.stats().sent.mapping.messages, 1);

        let script = r#"ulimit -f 512; exec "$0" "$@""#;
        let mut command = through_shell(script, &other("client_of_small_files", client));
        let limited = Process::start(command.env(PORT, vault.port()));
        assert_eq!(limited.rest(), ["arguments", "loans", "ended"]);
    }
}

/// Role.
pub fn client_of_small_files(driver: Driver) -> lpc::Result<()> {
    let client = AnyVault::connect(driver, &variable(PORT))?;
    assert_eq!(client.length(&vec![7; LARGE])?, LARGE as u64);
    assert_eq!(client.stats().fallbacks, 1);
    say("arguments");
    let error = lpc::SharedMut::<[u8]>::sealable(LARGE).expect_err("over the limit");
    assert!(error.to_string().contains("RLIMIT_FSIZE"), "{error}");
    assert!(!client.loan(LARGE, 3)?.is_shared());
    say("loans");
    Ok(())
}

/// Several connections, each within its own limits, that take all there is together.
#[test]
fn the_peers_of_one_user_leave_descriptors_for_others() {
    for (client, server) in pairs() {
        let vault = Vault::start_limited(server, Knobs::default(), "ulimit -n 100;");
        let peers: Vec<_> = (0..3)
            .map(|_| {
                let mut peer = Peer::connect(vault.port());
                let file = file_of(100);
                for number in 0..60 {
                    peer.object(number, 0, 100, &file);
                }
                assert!(peer.is_content());
                peer
            })
            .collect();
        until("no more are held than one user may have", || {
            let held = std::fs::read_dir(format!("/proc/{}/fd", vault.id())).unwrap().count();
            (50..75).contains(&held).then_some(())
        });
        let port = vault.port().to_owned();
        within("another client", move || {
            let honest = AnyVault::connect(client, &port).unwrap();
            assert_eq!(honest.length(&vec![7; LARGE]).unwrap(), LARGE as u64);
            assert_eq!(honest.stats().fallbacks, 1);
            assert!(honest.make(LARGE as u64, 5).unwrap() == vec![5; LARGE]);
        });
        drop(peers);
        let honest = vault.client(client);
        until("descriptors are free again", || {
            let before = honest.stats().sent.mapping.messages;
            assert_eq!(honest.length(&vec![7; LARGE]).unwrap(), LARGE as u64);
            (honest.stats().sent.mapping.messages > before).then_some(())
        });
    }
}

/// Nor is there memory to receive it in, or to encode it, or to keep what the socket does not take.
#[test]
fn a_body_for_the_socket_without_memory_fails_its_call_alone() {
    const LEN: usize = 200 << 20;
    let knobs = Knobs { pool: Some(0), ..Knobs::default() };
    // For what is received, and not for a copy of it; and not even for that.
    let limits = [("ulimit -v 350000;", 3), ("ulimit -v 180000;", 2)];
    for ((client_driver, server), (limit, most)) in pairs().flat_map(|pair| limits.map(|limit| (pair, limit)))
    {
        let what = format!("{client_driver:?} to {server:?}, {limit}");
        let vault = Vault::start_limited(server, knobs, limit);
        let client = vault.client(client_driver);
        let honest = vault.client(Driver::Blocking);
        let large = vec![7; LEN];
        type Call<'c> = &'c dyn Fn() -> lpc::Result<u64>;
        let calls: [(&str, Call<'_>); 3] = [
            ("argument", &|| client.length(&large)),
            ("owned argument", &|| client.owned(large.clone())),
            ("result", &|| client.make(LEN as u64, 5).map(|made| made.len() as u64)),
        ];
        // What the implementation allocates is its own affair.
        for (which, call) in calls.into_iter().take(most) {
            let error = call().expect_err(&what);
            assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{what}, {which}: {error}");
            assert!(error.to_string().contains("no memory for"), "{what}, {which}: {error}");
            assert_eq!(
                honest.length(b"fine").map_err(|error| format!("{what} after {which}: {error}")),
                Ok(4)
            );
        }
        assert_eq!(client.length(&vec![7; 8 << 20]).unwrap(), 8 << 20, "{what}");
        assert_eq!(client.make(8 << 20, 5).unwrap().len(), 8 << 20, "{what}");
    }
}

/// The same of a client.
#[test]
fn a_client_without_memory_for_a_body_fails_that_call_alone() {
    let knobs = Knobs { pool: Some(0), ..Knobs::default() };
    for (client, server) in pairs() {
        let vault = Vault::start_limited(server, knobs, "");
        let script = r#"ulimit -v 350000; exec "$0" "$@""#;
        let mut command = through_shell(script, &other("hungry_client", client));
        let process = Process::start(command.env(PORT, vault.port()).env("MALLOC_ARENA_MAX", "1"));
        let lines = process.rest();
        assert_eq!(lines, ["argument", "result", "goes on", "ended"], "{client:?} to {server:?}");
    }
}

/// Role: a client whose bodies are larger than its memory.
pub fn hungry_client(driver: Driver) -> lpc::Result<()> {
    const LEN: usize = 200 << 20;
    let client = AnyVault::connect(driver, &variable(PORT))?;
    let is_told = |error: lpc::Error| {
        let is_told =
            error.kind() == ErrorKind::ResourceExhausted && error.to_string().contains("no memory for");
        assert!(is_told, "{error:?}");
    };
    let large = vec![7; LEN];
    is_told(client.length(&large).unwrap_err());
    say("argument");
    drop(large);
    is_told(client.make(LEN as u64, 5).map(drop).unwrap_err());
    say("result");
    assert_eq!(client.length(&vec![7; 8 << 20])?, 8 << 20);
    assert_eq!(client.make(8 << 20, 5)?.len(), 8 << 20);
    say("goes on");
    Ok(())
}
