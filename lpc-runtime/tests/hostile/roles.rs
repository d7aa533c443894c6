//! What this program does as the process that is attacked.

use std::io::BufRead;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::process::{DRIVER, PORT, end_with_parent, say, variable};
use crate::service::{DRIVERS, Driver, RUNTIME};
use crate::vault::{self, AnyVault, Knobs, Thing, blocking};
use crate::{kills, log};

/// Plays a role to its end, which is the process's.
pub fn play(role: &str) -> ! {
    let driver = driver(&variable(DRIVER));
    end_with_parent();
    // A thread may panic and the process go on.
    std::panic::set_hook(Box::new(|panic| say(format_args!("panicked: {panic}"))));
    let result = match role {
        "vault" => {
            log::begin();
            vault::serve(driver)
        }
        "client" => {
            log::begin();
            client(driver)
        }
        "call_for_ever" => kills::call_for_ever(driver),
        "outlive" => kills::outlive(driver),
        other => panic!("no role is called {other}"),
    };
    match result {
        Ok(()) => say("ended"),
        Err(error) => say(format_args!("error {:?}: {error}", error.kind())),
    }
    std::process::exit(0);
}

/// The driver of this name.
pub fn driver(name: &str) -> Driver {
    DRIVERS.into_iter().find(|driver| format!("{driver:?}") == name).expect("a driver")
}

/// Calls whatever port it is told to, each time on a thread of its own, and an honest server all the time.
fn client(driver: Driver) -> lpc::Result<()> {
    let honest = Honest::start(AnyVault::connect(driver, &variable(PORT))?);
    say("connected");
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("call", port) => {
                let port = port.to_owned();
                std::thread::spawn(move || say(outcome(driver, &port)));
            }
            ("warm", threads) => {
                warm(threads.parse().unwrap());
                say("warm");
            }
            ("end", _) => break,
            _ => panic!("{line}"),
        }
    }
    say(honest.stop());
    Ok(())
}

/// Has so many threads at once: the C library keeps the stacks of some for those that come later.
fn warm(threads: usize) {
    let barrier = Barrier::new(threads);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| barrier.wait());
        }
    });
}

/// What comes of two calls, both of which lend something.
fn outcome(driver: Driver, port: &str) -> String {
    let calls = || {
        let knobs = Knobs { is_hasty: true, is_quick: true, ..Knobs::default() };
        let client = AnyVault::connect_with(driver, port, knobs)?;
        let loan = client.loan(5000, 7)?;
        for _ in 0..2 {
            let thing = Thing::Loan(loan.clone());
            let seen = match &client {
                AnyVault::Blocking(client) => blocking::Vault::look(client, thing),
                AnyVault::Tokio(client) => RUNTIME.block_on(client.look(thing)),
            }?;
            seen.read();
        }
        Ok::<(), lpc::Error>(())
    };
    match calls() {
        Ok(()) => "answered".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// A peer that keeps to the rules, and calls all the time.
pub struct Honest {
    thread: JoinHandle<String>,
    has_ended: Arc<AtomicBool>,
    heart: Heart,
}

/// Within this an honest peer is answered, whatever others do, not counting the time for which the machine
/// runs something else.
const SOON: Duration = Duration::from_secs(1);

impl Honest {
    pub fn start(vault: AnyVault) -> Self {
        let has_ended = Arc::new(AtomicBool::new(false));
        let heart = Heart::start(&has_ended);
        let thread = std::thread::spawn({
            let (has_ended, missed) = (Arc::clone(&has_ended), Arc::clone(&heart.missed));
            move || {
                while !has_ended.load(Relaxed) {
                    let (started, missed_before) = (Instant::now(), missed.load(Relaxed));
                    let answer = vault.length(b"fine");
                    let took = started.elapsed();
                    let missed = Duration::from_micros(missed.load(Relaxed) - missed_before);
                    if !matches!(answer, Ok(4)) || took.saturating_sub(missed) >= SOON {
                        return format!(
                            "{answer:?} after {took:?}, of which {missed:?} were not this process's"
                        );
                    }
                    std::thread::sleep(BEAT);
                }
                "served well".to_owned()
            }
        });
        Self { thread, has_ended, heart }
    }

    /// Whether it was always answered.
    pub fn stop(self) -> String {
        self.has_ended.store(true, Relaxed);
        self.heart.thread.join().unwrap();
        self.thread.join().unwrap()
    }
}

/// A thread that wants to run every [`BEAT`], and counts for how long it could not: nobody else of this
/// machine could, then.
struct Heart {
    thread: JoinHandle<()>,
    /// In microseconds.
    missed: Arc<AtomicU64>,
}

const BEAT: Duration = Duration::from_millis(1);

impl Heart {
    fn start(has_ended: &Arc<AtomicBool>) -> Self {
        let missed = Arc::new(AtomicU64::new(0));
        let thread = std::thread::spawn({
            let (has_ended, missed) = (Arc::clone(has_ended), Arc::clone(&missed));
            move || {
                while !has_ended.load(Relaxed) {
                    let started = Instant::now();
                    std::thread::sleep(BEAT);
                    missed.fetch_add((started.elapsed() - BEAT).as_micros() as u64, Relaxed);
                }
            }
        });
        Self { thread, missed }
    }
}
