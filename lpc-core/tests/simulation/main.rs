//! Deterministic simulation: all machines of the protocol together, on both sides of a connection, with
//! several callers, under a scheduler, a clock and faults that a seed decides (as in FoundationDB, turmoil,
//! madsim).
//!
//! The machines are those of this crate, and what drives them does the steps of lpc-runtime's blocking client
//! and server, from lock to lock. Checked is that every call ends, once, by its deadline, with the right
//! answer or [`Progress`]; that no call runs twice; that neither side finds a violation; that no thread waits
//! for ever; and that all memory comes back.
//!
//! | set | runs |
//! |---|---|
//! | nothing | some thousand seeds |
//! | `LPC_SEED=n` | one seed, and prints what happens |
//! | `LPC_SEEDS=n` | so many |
//! | `LPC_LONG=1` | a million |
//!
//! The first seed that fails is printed, with the shortest story that was found to fail in the same way.
//!
//! [`Progress`]: lpc_core::Progress
#![cfg(not(loom))]
#![allow(clippy::await_holding_refcell_ref, reason = "they are dropped before, or the test would panic")]

mod caller;
mod client;
mod inbox;
mod link;
mod network;
mod play;
mod server;
mod story;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use story::Story;
use world::{Failed, World};

/// Seeds of a usual run.
const SEEDS: u64 = 15_000;

/// How a run went.
struct Run {
    failed: Option<Failed>,
    choices: Vec<u16>,
    trace: Vec<String>,
    steps: u32,
    latest: u32,
}

#[test]
fn every_call_ends_once_and_in_time_whatever_happens() {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    if let Some(seed) = number("LPC_SEED") {
        let run = run(Story::of_seed(seed), true);
        run.trace.iter().for_each(|line| println!("{line}"));
        if let Some(failed) = run.failed {
            report(seed, &failed, run.choices);
        }
        return;
    }
    let seeds = number("LPC_SEEDS").unwrap_or(if number("LPC_LONG").is_some() { 1_000_000 } else { SEEDS });
    let (mut steps, mut latest) = (0, 0);
    for seed in 0..seeds {
        let run = run(Story::of_seed(seed), false);
        steps += u64::from(run.steps);
        latest = latest.max(run.latest);
        if let Some(failed) = run.failed {
            report(seed, &failed, run.choices);
        }
    }
    println!("{seeds} seeds, {steps} steps, at most {latest} steps of a caller after its deadline");
}

/// The same seed makes the same run.
#[test]
fn a_seed_decides_everything() {
    for seed in 0..20 {
        let (one, two) = (run(Story::of_seed(seed), true), run(Story::of_seed(seed), true));
        assert_eq!(one.trace, two.trace, "seed {seed}");
        assert_eq!(one.trace, run(Story::again(one.choices), true).trace, "seed {seed}, told again");
    }
}

/// Shortens the story of a seed that failed, and prints it.
fn report(seed: u64, failed: &Failed, choices: Vec<u16>) -> ! {
    println!("seed {seed} fails, {}: {}", failed.kind, failed.text);
    let count = choices.len();
    // Of a machine that panics it is enough to hear once.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let shortest = story::shrink(choices, |choices| {
        let run = run(Story::again(choices), false);
        (run.failed?.kind == failed.kind).then_some(run.choices)
    });
    let run = run(Story::again(shortest.clone()), true);
    std::panic::set_hook(hook);
    println!("of its {count} choices {} are left: {shortest:?}", shortest.len());
    run.trace.iter().for_each(|line| println!("{line}"));
    panic!("seed {seed} fails, {}: {}", failed.kind, failed.text);
}

/// Runs a story.
fn run(story: Story, is_traced: bool) -> Run {
    let world = World::new(story, is_traced);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| play::play(&world))) {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        world.fail("panic", text.unwrap_or_default());
    }
    let (steps, latest, failed) = (world.steps.get(), world.latest(), world.failed());
    let choices = world.end();
    Run { failed, choices, trace: world.take_trace(), steps, latest }
}
