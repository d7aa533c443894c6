//! An async service in a program without the feature `tokio`.

use lpc::service;

#[service]
pub trait Documents {
    async fn count_words(&self, text: &str) -> lpc::Result<u64>;
}

#[service]
pub trait Fine {
    fn count_words(&self, text: &str) -> lpc::Result<u64>;
}

struct Store;

impl Documents for Store {
    async fn count_words(&self, text: &str) -> lpc::Result<u64> {
        Ok(text.len() as u64)
    }
}

fn main() {
    let _ = FineClient::connect("fine");
    let _ = Store.count_words("one two");
}
