//! What a fuzzer does to lpc, as functions of its bytes. Each panics where lpc does what it must not.
//!
//! ```sh
//! RUSTC_BOOTSTRAP=1 cargo fuzz run frames fuzz/corpus/frames fuzz/seeds/frames    # in lpc-runtime
//! ```
//!
//! The variable lets a stable compiler build with the sanitizer. What the fuzzer finds goes to `corpus`,
//! which stays where it is found, and what makes it stop to `artifacts`; from there it is copied to `seeds`,
//! once it is mended. All seeds are run by `cargo test -p lpc-runtime --test fuzz` as well, without a fuzzer.
//!
//! # Layout
//!
//! | target | is fed |
//! |---|---|
//! | [`frames`] | bytes and descriptors of a peer, in pieces, to a `Receiver` |
//! | [`handshake`] | the first message of a peer |
//! | [`values`] | bytes to the codec, for types of all shapes, from memory that may change meanwhile |
//! | [`described`] | bytes to the codec in the coding that describes itself, for types that ask what comes next |
//! | [`pair`] | operations of a client and a server in memory, of whom either may come to lie: a model of lpc-core's tests |
//! | [`server`] | bytes and descriptors of a client to a server that runs |
#![forbid(unsafe_code)]

pub mod described;
pub mod frames;
pub mod handshake;
#[path = "../../../lpc-core/tests/support/pair/mod.rs"]
pub mod pair;
mod pieces;
pub mod server;
pub mod values;
