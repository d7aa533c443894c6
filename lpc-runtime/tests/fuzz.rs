//! What fuzzers were given to start with, and what made them stop, without a fuzzer.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "a test")]

#[path = "../fuzz/src/lib.rs"]
mod targets;

fn feed(target: &str, run: impl Fn(&[u8])) {
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
fn a_client_and_a_server_in_memory() {
    feed("pair", targets::pair::run);
}

#[test]
fn a_server_that_runs() {
    feed("server", targets::server::run);
}
