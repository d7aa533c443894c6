//! References, boxes and `Arc`s of an implementation are implementations; and the other colour has a trait,
//! for code that is generic over it.

#![cfg(feature = "tokio")]
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "a test")]

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lpc::service;

#[service]
pub trait Shelf: Debug {
    fn put(&self, title: &str) -> lpc::Result<u64>;
    fn take<'a>(&'a self, one: &'a [u8], other: &'a [u8]) -> lpc::Result<Vec<u8>>;

    /// Has an implementation of its own here, which those that refer to it are to have, too.
    fn name(&self, _width: usize) -> String {
        "any shelf".into()
    }

    /// Cannot be delegated, and runs on top of what is.
    fn twice(self, title: &str) -> lpc::Result<u64>
    where
        Self: Sized,
    {
        self.put(title)?;
        self.put(title)
    }
}

#[service]
pub trait Desk: Send + 'static {
    const LEGS: u32 = 4;

    async fn put(&self, title: &str) -> lpc::Result<u64>;

    async fn write<T: Into<String> + Send>(&self, text: T, _guard: Arc<()>) -> u64 {
        self.put(&text.into()).await.unwrap_or_default()
    }

    fn colour(&self) -> String {
        "any colour".into()
    }
}

/// An implementation of both services, and of the second one in the other colour.
#[derive(Debug, Default)]
struct Wooden(AtomicU64);

impl Wooden {
    fn add(&self, title: &str) -> u64 {
        let len = title.len() as u64;
        self.0.fetch_add(len, Ordering::Relaxed) + len
    }
}

impl Shelf for Wooden {
    fn put(&self, title: &str) -> lpc::Result<u64> {
        Ok(self.add(title))
    }

    fn take<'a>(&'a self, one: &'a [u8], other: &'a [u8]) -> lpc::Result<Vec<u8>> {
        Ok([one, other].concat())
    }

    fn name(&self, width: usize) -> String {
        format!("{:width$}", "oak")
    }
}

impl Desk for Wooden {
    const LEGS: u32 = 3;

    async fn put(&self, title: &str) -> lpc::Result<u64> {
        tokio::task::yield_now().await;
        Ok(self.add(title))
    }

    fn colour(&self) -> String {
        "brown".into()
    }
}

/// An implementation in the other colours alone.
#[derive(Debug, Default)]
struct Foreign(Wooden);

impl ShelfAsync for Foreign {
    async fn put(&self, title: &str) -> lpc::Result<u64> {
        tokio::task::yield_now().await;
        Ok(self.0.add(title))
    }

    async fn take<'a>(&'a self, one: &'a [u8], other: &'a [u8]) -> lpc::Result<Vec<u8>> {
        Ok([one, other].concat())
    }
}

impl DeskBlocking for Foreign {
    fn put(&self, title: &str) -> lpc::Result<u64> {
        Ok(self.0.add(title))
    }
}

fn fill(shelf: impl Shelf) -> u64 {
    assert_eq!(shelf.take(b"a", b"b").unwrap(), b"ab");
    shelf.put("one").unwrap();
    shelf.twice("two").unwrap()
}

async fn fill_async(shelf: impl ShelfAsync + Send + 'static) -> u64 {
    // Its futures are `Send`.
    let task = tokio::spawn(async move {
        assert_eq!(shelf.take(b"a", b"b").await.unwrap(), b"ab");
        shelf.put("one").await.unwrap();
        shelf.put("twotwo").await.unwrap()
    });
    task.await.unwrap()
}

async fn use_desk<D: Desk>(desk: D) -> (u64, u32, String) {
    let task = tokio::spawn(async move {
        desk.put("one").await.unwrap();
        (desk.write("two", Arc::new(())).await, D::LEGS, desk.colour())
    });
    task.await.unwrap()
}

fn use_desk_blocking(desk: impl DeskBlocking) -> u64 {
    desk.put("one").unwrap();
    desk.put("two").unwrap()
}

#[test]
fn references_boxes_and_arcs_implement_a_trait_of_functions() {
    assert_eq!(fill(Wooden::default()), 9);
    let wooden = Wooden::default();
    assert_eq!((fill(&wooden), fill(&wooden)), (9, 18), "it is the same shelf");
    assert_eq!(fill(Box::new(Wooden::default())), 9);
    assert_eq!(fill(Arc::new(Wooden::default())), 9);
    let object: Box<dyn ShelfObject + Send + Sync> = Box::new(Wooden::default());
    assert_eq!(object.put("one").unwrap(), 3);
    assert_eq!(ShelfObject::name(&Arc::new(Wooden::default()), 5), "oak  ");
    assert_eq!(Shelf::name(&&Wooden::default(), 5), "oak  ");
}

/// A trait that is dyn-compatible in all of its methods.
#[service]
pub trait ShelfObject {
    fn put(&self, title: &str) -> lpc::Result<u64>;

    fn name(&self, _width: usize) -> String {
        "any shelf".into()
    }
}

impl ShelfObject for Wooden {
    fn put(&self, title: &str) -> lpc::Result<u64> {
        Ok(self.add(title))
    }

    fn name(&self, width: usize) -> String {
        format!("{:width$}", "oak")
    }
}

#[test]
fn objects_are_implementations_and_are_served() {
    fn put(object: impl ShelfObject) -> (u64, String) {
        (object.put("one").unwrap(), object.name(4))
    }
    let oak = (3, "oak ".to_owned());
    let object: Box<dyn ShelfObject + Send + Sync> = Box::new(Wooden::default());
    assert_eq!(put(&*object), oak);
    let shared: Arc<dyn ShelfObject + Send + Sync> = Arc::new(Wooden::default());
    assert_eq!(put(Arc::clone(&shared)), oak);
    assert_eq!(put(Box::new(Wooden::default()) as Box<dyn ShelfObject>), oak);

    let client = ShelfObjectClient::builder().in_process(shared).unwrap();
    assert_eq!(client.put("one").unwrap(), 6);
    let client = ShelfObjectClient::builder().in_process(object).unwrap();
    assert_eq!(client.put("one").unwrap(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn references_boxes_and_arcs_implement_a_trait_of_async_functions() {
    let of = |desk| (desk, 3, "brown".to_owned());
    assert_eq!(use_desk(Wooden::default()).await, of(6));
    assert_eq!(use_desk(Box::new(Wooden::default())).await, of(6));
    assert_eq!(use_desk(Arc::new(Wooden::default())).await, of(6));
    let leaked: &'static Wooden = Box::leak(Box::default());
    assert_eq!(use_desk(leaked).await, of(6));

    let client = DeskClient::builder().in_process(Arc::new(Wooden::default())).await.unwrap();
    assert_eq!(client.put("one").await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_may_be_generic_over_the_other_colour() {
    assert_eq!(fill_async(Foreign::default()).await, 9);
    assert_eq!(fill_async(Arc::new(Foreign::default())).await, 9);
    let client = ShelfAsyncClient::builder().in_process(Foreign::default()).await.unwrap();
    assert_eq!(fill_async(client).await, 9);
    // An implementation of the trait itself, for a client of the other colour.
    let client = ShelfAsyncClient::builder().in_process(Wooden::default()).await.unwrap();
    assert_eq!(fill_async(client).await, 9);
}

#[test]
fn blocking_code_may_be_generic_over_an_async_service() {
    let desk = Foreign::default();
    assert_eq!((use_desk_blocking(&desk), use_desk_blocking(&desk)), (6, 12), "it is the same desk");
    assert_eq!(use_desk_blocking(Box::new(Foreign::default()) as Box<dyn DeskBlocking>), 6);
    let client = DeskBlockingClient::builder().in_process(Foreign::default()).unwrap();
    assert_eq!(use_desk_blocking(client), 6);
    let client = DeskBlockingClient::builder().in_process(Wooden::default()).unwrap();
    assert_eq!(use_desk_blocking(client), 6);
}

#[tokio::test]
async fn a_blocking_client_in_a_runtime_waits_for_another_runtime_of_its_service() {
    let client = DeskBlockingClient::builder().in_process(Wooden::default()).unwrap();
    assert_eq!(use_desk_blocking(client), 6, "with the only thread of this one");
}

/// Both kinds of servers serve both kinds of implementations.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_serve_implementations_of_the_other_colours_trait() {
    let directory = tempfile::tempdir().unwrap();
    let port = directory.path().join("shelf");
    let server = lpc::Server::bind(&port).unwrap();
    let handle = server.handle();
    let serving = tokio::spawn(server.serve(Foreign::default()));
    assert_eq!(fill_async(ShelfAsyncClient::connect(&port).await.unwrap()).await, 9);
    handle.shutdown();
    serving.await.unwrap().unwrap();
}
