//! An alias may stand for a `Result`, so its bound finds what is none.

use lpc::service;

pub type Fine = lpc::Result<u32>;
pub type Number = u32;

pub struct Report;

#[derive(Debug)]
pub struct Silent;

#[service]
pub trait Aliases {
    fn fine(&self) -> Fine;
    fn number(&self) -> Number;
    fn report(&self) -> Report;
}

#[service]
pub trait Errors {
    fn no_serde(&self) -> Result<u32, Silent>;
}

fn main() {}
