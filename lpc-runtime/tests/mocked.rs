//! Services are mocked as other traits are: by `#[automock]`, below `#[service]`.

#![cfg(feature = "tokio")]
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "a test")]

use lpc::service;
use mockall::automock;

#[service]
#[automock]
pub trait Shelf {
    #[lpc(threshold = "1KiB", idempotent)]
    fn put(&self, title: &str) -> lpc::Result<u64>;

    fn twice(&self, title: &str) -> lpc::Result<u64> {
        Ok(self.put(title)? * 2)
    }
}

#[service]
#[automock]
pub trait Desk {
    #[lpc(deadline = "10s")]
    async fn put(&self, title: &str) -> lpc::Result<u64>;
}

#[test]
fn a_mock_of_a_service_is_called_directly_and_by_a_client() {
    let mut shelf = MockShelf::new();
    shelf.expect_put().withf(|title| title == "one").times(2).returning(|title| Ok(title.len() as u64));
    assert_eq!(shelf.put("one").unwrap(), 3);
    let client = ShelfClient::builder().in_process(shelf).unwrap();
    assert_eq!(client.twice("one").unwrap(), 6);
}

#[tokio::test]
async fn a_mock_of_an_async_service_is_called_directly_and_by_a_client() {
    let mut desk = MockDesk::new();
    desk.expect_put().times(2).returning(|title| {
        let len = title.len() as u64;
        Box::pin(async move { Ok(len) })
    });
    assert_eq!(desk.put("one").await.unwrap(), 3);
    let client = DeskClient::builder().in_process(desk).await.unwrap();
    assert_eq!(client.put("seven").await.unwrap(), 5);
}
