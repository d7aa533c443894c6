//! Processes killed at random moments of all kinds of calls, and what those at the other end notice of it.

use std::time::{Duration, Instant};

use lpc::Progress;

use crate::process::{PORT, Process, other, say, variable};
use crate::roles::{Honest, driver};
use crate::service::{DRIVERS, Driver};
use crate::siege::Holdings;
use crate::vault::{AnyVault, Knobs, Vault, sealed};

/// Kills of each test, by default and with `LPC_LONG` in the environment.
const KILLS: usize = 100;
const KILLS_LONG: usize = 1000;

/// Kills before the survivor's holdings are taken, so that it has what it keeps for use again.
const WARM: usize = 4;

/// Threads that call at once.
const CALLERS: u64 = 3;

/// It comes before a kill, at random.
const MOMENT: u64 = 10_000;

const SEED: &str = "LPC_TEST_SEED";
const SERVER: &str = "LPC_TEST_SERVER_DRIVER";
const KILLS_OF_ROLE: &str = "LPC_TEST_KILLS";

fn kills() -> usize {
    if std::env::var_os("LPC_LONG").is_some() { KILLS_LONG } else { KILLS }
}

/// The seed of this run: the same again if it is in the environment.
fn seed() -> u64 {
    let clock = || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = std::env::var(SEED).map_or_else(|_| clock(), |seed| seed.parse().unwrap());
    println!("{SEED}={seed}");
    seed
}

/// Numbers that look like chance.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // Of a state of zeroes nothing else comes.
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn moment(&mut self) -> Duration {
        Duration::from_micros(self.next() % MOMENT)
    }
}

/// Calls with all that there is, of lengths around the threshold and far from it, until one fails.
fn traffic(client: &AnyVault, mut random: Random) -> lpc::Error {
    let mut call = || -> lpc::Result<()> {
        let len = [0, 100, 4000, 8191, 8192, 8193, 16_384, 100_000][random.next() as usize % 8];
        let bytes = len as u64;
        match random.next() % 6 {
            0 => assert_eq!(client.length(&vec![1; len])?, bytes),
            1 => assert_eq!(client.owned(vec![1; len])?, bytes),
            2 => assert!(client.make(bytes, 3)? == vec![3; len]),
            3 => assert_eq!(client.sum(client.loan(len, 1)?)?, bytes),
            4 => assert_eq!(client.sum(sealed(len.max(1), 1))?, bytes.max(1)),
            _ => assert!(*client.lend(bytes, 2)? == *vec![2; len]),
        }
        Ok(())
    };
    loop {
        if let Err(error) = call() {
            return error;
        }
    }
}

/// Role: calls until it is killed.
pub fn call_for_ever(driver: Driver) -> lpc::Result<()> {
    let client = AnyVault::connect(driver, &variable(PORT))?;
    let seed = seed();
    say("calling");
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let client = &client;
            scope.spawn(move || traffic(client, Random::new(seed + caller * 2)));
        }
    });
    Ok(())
}

/// Role: starts servers and kills them while it calls.
pub fn outlive(client: Driver) -> lpc::Result<()> {
    let server = driver(&variable(SERVER));
    let kills: usize = variable(KILLS_OF_ROLE).parse().unwrap();
    let mut random = Random::new(seed());
    let mut before = None;
    let mut times = Vec::new();
    let mut progress = [0; 2];
    for kill in 0..WARM + kills {
        if kill == WARM {
            before = Some(Holdings::settled(std::process::id()));
            times.clear();
        }
        let knobs = Knobs { is_quick: kill % 2 == 0, ..Knobs::default() };
        let mut vault = Vault::start(server, knobs);
        let client = AnyVault::connect_with(client, vault.port(), knobs)?;
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let (client, random) = (client.clone(), Random::new(random.next()));
                std::thread::spawn(move || (traffic(&client, random), Instant::now()))
            })
            .collect();
        std::thread::sleep(random.moment());
        let killed = Instant::now();
        vault.process.kill();
        for caller in callers {
            let (error, ended) = caller.join().unwrap();
            assert!(error.is_disconnected(), "{error:?}");
            assert!(error.progress() != Progress::Ran, "{error:?}");
            progress[usize::from(error.may_have_run())] += 1;
            times.push(ended.saturating_duration_since(killed));
        }
        let error = client.length(b"too late").unwrap_err();
        assert!(error.is_disconnected() && error.progress() == Progress::NotSent, "{error:?}");
        say("outlived");
    }
    let before = before.expect("taken on the way");
    before.wait_for(std::process::id(), "all kills");
    say(format_args!("{}; {} not sent, {} may have run", report(times), progress[0], progress[1]));
    Ok(())
}

/// Median and maximum.
fn report(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    format!(
        "{} times, median {:?}, at most {:?}",
        times.len(),
        times[times.len() / 2],
        times[times.len() - 1]
    )
}

fn kill_servers(client: Driver, server: Driver) {
    let kills = kills();
    let mut command = other("outlive", client);
    command.env(SERVER, format!("{server:?}")).env(KILLS_OF_ROLE, kills.to_string());
    let survivor = Process::start(command.env(SEED, seed().to_string()).env("MALLOC_ARENA_MAX", "1"));
    for kill in 0..WARM + kills {
        assert_eq!(survivor.line(), "outlived", "kill {kill}");
    }
    println!("from the kill of a server to the end of a call: {}", survivor.line());
    assert_eq!(survivor.rest(), ["ended"]);
}

#[test]
fn calls_of_a_killed_server_end_blocking_to_blocking() {
    kill_servers(Driver::Blocking, Driver::Blocking);
}

#[test]
fn calls_of_a_killed_server_end_blocking_to_tokio() {
    kill_servers(Driver::Blocking, Driver::Tokio);
}

#[test]
fn calls_of_a_killed_server_end_tokio_to_blocking() {
    kill_servers(Driver::Tokio, Driver::Blocking);
}

#[test]
fn calls_of_a_killed_server_end_tokio_to_tokio() {
    kill_servers(Driver::Tokio, Driver::Tokio);
}

/// Clients of both drivers, four at a time.
fn kill_clients(server: Driver) {
    const AT_ONCE: usize = 4;
    let vault = Vault::start(server, Knobs { is_hasty: true, is_quick: true, ..Knobs::default() });
    let honest = Honest::start(vault.client(Driver::Blocking));
    let seed = seed();
    let mut random = Random::new(seed);
    let mut before = None;
    let mut times = Vec::new();
    for kill in 0..WARM + kills() * 2 / AT_ONCE {
        if kill == WARM {
            before = Some(Holdings::settled(vault.id()));
        }
        let mut clients: Vec<_> = (0..AT_ONCE)
            .map(|at| {
                let mut command = other("call_for_ever", DRIVERS[at % 2]);
                Process::start(command.env(PORT, vault.port()).env(SEED, random.next().to_string()))
            })
            .collect();
        for client in &mut clients {
            assert_eq!(client.line(), "calling");
            std::thread::sleep(random.moment());
            client.kill();
        }
        let killed = Instant::now();
        if let Some(before) = &before {
            before.wait_for(vault.id(), "a kill");
            times.push(killed.elapsed());
        }
    }
    println!("from the kill of a client until its server holds nothing of it: {}", report(times));
    assert_eq!(honest.stop(), "served well");
    crate::siege::end(vault.process, &["end"]);
}

#[test]
fn a_server_keeps_nothing_of_killed_clients_blocking() {
    kill_clients(Driver::Blocking);
}

#[test]
fn a_server_keeps_nothing_of_killed_clients_tokio() {
    kill_clients(Driver::Tokio);
}
