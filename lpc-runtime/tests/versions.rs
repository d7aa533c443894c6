//! Client and server of two versions of one service: what is the same on both sides works, whatever else
//! differs.
#![cfg(feature = "tokio")]
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "a test")]

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;

use lpc::{Error, ErrorKind, Progress};

mod old {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    pub struct Order {
        pub name: String,
        pub price: u32,
    }

    macro_rules! service {
        ($name:ident $($colour:tt)?) => {
            #[lpc::service]
            pub trait $name {
                $($colour)? fn removed(&self) -> lpc::Result<u32>;
                $($colour)? fn place(&self, order: &Order) -> lpc::Result<u32>;
                $($colour)? fn count(&self, text: &str) -> lpc::Result<u32>;
                $($colour)? fn total(&self) -> lpc::Result<u32>;
            }
        };
    }

    pub mod blocking {
        use super::Order;
        service!(Orders);
    }

    pub mod asynchronous {
        use super::Order;
        service!(Orders async);
    }
}

mod new {
    use serde::{Deserialize, Serialize};

    /// Another name than before, and a field of another type.
    #[derive(Serialize, Deserialize)]
    pub struct Purchase {
        pub name: String,
        pub price: u64,
    }

    macro_rules! service {
        ($name:ident $($colour:tt)?) => {
            #[lpc::service]
            pub trait $name {
                $($colour)? fn added(&self) -> lpc::Result<u32>;
                $($colour)? fn total(&self) -> lpc::Result<String>;
                $($colour)? fn count(&self, text: String) -> lpc::Result<u32>;
                $($colour)? fn place(&self, order: &Purchase) -> lpc::Result<u32>;
            }
        };
    }

    pub mod blocking {
        use super::Purchase;
        service!(Orders);
    }

    pub mod asynchronous {
        use super::Purchase;
        service!(Orders async);
    }
}

/// The new version; it counts its calls.
#[derive(Default)]
struct Shop(Arc<AtomicU32>);

impl Shop {
    fn called<T>(&self, value: T) -> lpc::Result<T> {
        self.0.fetch_add(1, SeqCst);
        Ok(value)
    }
}

macro_rules! implement {
    ($module:ident $($colour:tt)?) => {
        impl new::$module::Orders for Shop {
            $($colour)? fn added(&self) -> lpc::Result<u32> {
                self.called(1)
            }
            $($colour)? fn total(&self) -> lpc::Result<String> {
                self.called("1".to_owned())
            }
            $($colour)? fn count(&self, text: String) -> lpc::Result<u32> {
                self.called(text.len() as u32)
            }
            $($colour)? fn place(&self, _: &new::Purchase) -> lpc::Result<u32> {
                self.called(1)
            }
        }
    };
}

implement!(blocking);
implement!(asynchronous async);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A stream to a server of either driver.
fn serve(is_async: bool, shop: Shop) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        if is_async {
            let server = lpc::Server::builder();
            runtime().block_on(server.serve_stream::<new::asynchronous::OrdersService, _>(theirs, shop))
        } else {
            let server = lpc::blocking::Server::builder();
            server.serve_stream::<new::blocking::OrdersService, _>(theirs, shop)
        }
    });
    ours
}

fn is_incompatible(error: &Error, text: &str) {
    assert_eq!((error.kind(), error.progress()), (ErrorKind::Incompatible, Progress::NotSent));
    assert!(error.to_string().starts_with(text), "{error}");
}

const PLACE: &str =
    "Orders.place differs between client and server: argument `order.price` is `u32` here and `u64` there (";
const TOTAL: &str =
    "Orders.total differs between client and server: the result `Ok.0` is `u32` here and `str` there (";

/// Calls everything twice through a client of one type.
macro_rules! call_all {
    ($client:expr, $calls:expr $(, $dot_await:tt)?) => {{
        let client = $client;
        let order = old::Order { name: "tea".into(), price: 3 };
        for round in 1..=2 {
            is_incompatible(&client.place(&order)$(.$dot_await)?.unwrap_err(), PLACE);
            is_incompatible(&client.total()$(.$dot_await)?.unwrap_err(), TOTAL);
            assert_eq!(client.stats().calls, 2 + (round - 1), "the two questions, once");
            let removed = client.removed()$(.$dot_await)?.unwrap_err();
            assert_eq!((removed.kind(), removed.progress()), (ErrorKind::UnknownMethod, Progress::NotSent));
            assert_eq!($calls.load(SeqCst), round as u32 - 1, "nothing has run");
            assert_eq!(client.count("words")$(.$dot_await)?.unwrap(), 5, "the others go on");
        }
    }};
}

/// So that a client of each type has its statistics at hand.
macro_rules! stats {
    ($($client:ty),*) => {$(
        impl Stats for $client {
            fn stats(&self) -> lpc::Stats {
                self.client().stats()
            }
        }
    )*};
}

trait Stats {
    fn stats(&self) -> lpc::Stats;
}

stats!(
    old::blocking::OrdersClient,
    old::blocking::OrdersAsyncClient,
    old::asynchronous::OrdersClient,
    old::asynchronous::OrdersBlockingClient
);

#[test]
fn what_is_the_same_works_and_what_differs_says_how() {
    use old::asynchronous::Orders as _;
    use old::blocking::Orders as _;
    for is_async in [false, true] {
        let calls = Arc::new(AtomicU32::new(0));
        let stream = || {
            calls.store(0, SeqCst);
            serve(is_async, Shop(Arc::clone(&calls)))
        };
        call_all!(old::blocking::OrdersClient::builder().connect_stream(stream()).unwrap(), calls);
        call_all!(
            old::asynchronous::OrdersBlockingClient::builder().connect_stream(stream()).unwrap(),
            calls
        );
        runtime().block_on(async {
            let client = old::blocking::OrdersAsyncClient::builder().connect_stream(stream()).await;
            call_all!(client.unwrap(), calls, await);
            let client = old::asynchronous::OrdersClient::builder().connect_stream(stream()).await;
            call_all!(client.unwrap(), calls, await);
        });
    }
}
