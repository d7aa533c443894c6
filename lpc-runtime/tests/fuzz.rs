//! What fuzzers were given to start with, and what made them stop, without a fuzzer.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;

#[path = "../fuzz/src/lib.rs"]
mod targets;

fn feed(target: &str, mut run: impl FnMut(&[u8])) {
    let directory = format!("{}/fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
    let seeds: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!seeds.is_empty(), "{target} has seeds");
    for seed in seeds {
        // The output of a test is shown where it fails: the last one is the seed.
        println!("{}", seed.display());
        run(&std::fs::read(seed).unwrap());
    }
}

#[test]
fn frames_in_pieces() {
    feed("frames", targets::frames::run);
}

#[test]
fn hellos() {
    feed("handshake", targets::handshake::run);
}

#[test]
fn values_of_all_shapes() {
    feed("values", targets::values::run);
}

#[test]
fn values_that_describe_themselves() {
    feed("described", targets::described::run);
}

#[test]
fn a_client_and_a_server_in_memory() {
    let mut happened = BTreeSet::new();
    feed("pair", |story| happened.extend(targets::pair::play(story)));
    let missing: Vec<_> = targets::pair::EVENTS.iter().filter(|event| !happened.contains(*event)).collect();
    assert!(missing.is_empty(), "in no seed: {missing:?}");
}

#[test]
fn a_server_that_runs() {
    feed("server", targets::server::run);
}
