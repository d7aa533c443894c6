//! `#[service]` on something else.

use lpc::service;

#[service]
pub struct Store {
    pub documents: Vec<String>,
}

#[service]
pub trait Documents {
    fn get(&self) -> lpc::Result<u32>;
}

#[service]
impl Documents for Store {
    fn get(&self) -> lpc::Result<u32> {
        Ok(self.documents.len() as u32)
    }
}

#[service]
fn run() {}

#[service]
mod documents {}

fn main() {
    run();
}
