//! `#[automock]` copies a `#[service]` that stands below it to all that it makes.

use lpc::service;
use mockall::automock;

#[automock]
#[service]
pub trait Documents {
    fn get(&self) -> lpc::Result<u32>;
}

fn main() {}
