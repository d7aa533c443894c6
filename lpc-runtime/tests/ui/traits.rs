//! What a service trait as a whole cannot be.

use lpc::service;

#[service]
pub trait Generic<T> {
    fn get(&self) -> lpc::Result<u32>;
}

#[service]
pub trait Sized<const N: usize> {
    fn get(&self) -> lpc::Result<u32>;
}

#[service]
pub trait Lifetime<'a> {
    fn get(&self, name: &'a str) -> lpc::Result<u32>;
}

#[service]
pub unsafe trait Unsafe {
    fn get(&self) -> lpc::Result<u32>;
}

#[service]
pub trait Associated {
    type Id;
    const LIMIT: u32;
    const DEFAULT: u32 = 3;
    fn get(&self) -> lpc::Result<u32>;
}

macro_rules! more_methods {
    () => {};
}

#[service]
pub trait Macro {
    more_methods!();
    fn get(&self) -> lpc::Result<u32>;
}

fn main() {}
