//! Measuring what two processes cost each other.
//!
//! # Layout
//!
//! - [`Service`]: the other process, which is this program once more.
//! - [`Pinning`]: which CPUs the two run on.
//! - [`Sizes`]: of which sizes bodies are.
//! - [`Samples`], [`check`], [`quantile`], [`median`]: times of calls, and what is said of them.
//! - [`cpu_time`], [`resident_kib`]: what a process uses.
//! - [`produce`], [`sum`], [`sum_of`], [`Seeds`]: bytes that are written and read, and the proof that they
//!   were.
//! - [`Record`], [`Table`]: what is printed.
//! - [`Scale`], [`Drawing`], [`png`]: what is drawn.

mod bytes;
mod drawing;
mod pinning;
mod process;
mod record;
mod samples;
mod scale;
mod sizes;
mod table;
mod usage;

pub use self::bytes::{Seeds, produce, sum, sum_of};
pub use self::drawing::{Drawing, png};
pub use self::pinning::{Pinning, pin};
pub use self::process::Service;
pub use self::record::Record;
pub use self::samples::{Samples, check, median, quantile};
pub use self::scale::Scale;
pub use self::sizes::Sizes;
pub use self::table::{Table, firsts, size, time};
pub use self::usage::{cpu_time, resident_kib};
