//! A type without serde's traits is found where it is used.

use lpc::service;

pub struct Silent;

#[service]
pub trait Arguments {
    fn owned(&self, silent: Silent) -> lpc::Result<()>;
}

#[service]
pub trait Referred {
    fn lent(&self, silent: &Silent) -> lpc::Result<()>;
}

fn main() {}
