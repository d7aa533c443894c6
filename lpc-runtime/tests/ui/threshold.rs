//! A threshold is read while the user's crate is compiled.

use lpc::service;

#[service]
pub trait Thresholds {
    #[lpc(threshold = "64KiB")]
    fn fine(&self) -> lpc::Result<u32>;

    #[lpc(threshold = "many")]
    fn many(&self) -> lpc::Result<u32>;
}

fn main() {}
