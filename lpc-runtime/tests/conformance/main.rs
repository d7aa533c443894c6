//! What every client may expect of every server: each behaviour once, over all pairs of drivers, lanes and ways to
//! connect.
//!
//! # Layout
//!
//! - `probe`: one service as an `fn` trait and as an `async fn` trait of the same name, and its implementation.
//! - `pairs`: all ways to get a client of it.
//! - `calls`, `ends`: the behaviours.
//! - `pressure`: more than the other side takes.
//! - `strangers`: peers that speak something else, or nothing.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "a test")]

mod calls;
mod ends;
mod pairs;
mod pressure;
mod probe;
mod strangers;
