//! One colour a trait; the odd one out gets the error.

use lpc::service;

#[service]
pub trait MostlyBlocking {
    fn one(&self) -> lpc::Result<u32>;
    async fn two(&self) -> lpc::Result<u32>;
    fn three(&self) -> lpc::Result<u32>;
}

#[service]
pub trait MostlyAsync {
    fn one(&self) -> lpc::Result<u32>;
    async fn two(&self) -> lpc::Result<u32>;
    async fn three(&self) -> lpc::Result<u32>;

    fn local(&self) -> u32 {
        3
    }
}

fn main() {}
