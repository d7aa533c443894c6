//! `search`, run as the processes that it is: what it counts against GNU grep, and how it ends.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod counts;
mod ends;
mod errors;
mod pieces;
mod process;
mod tree;
