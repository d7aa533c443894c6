//! What `tracing` is told of a call: a span on each side, in which lies all that belongs to it.

#![cfg(feature = "tokio")]
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "a test")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{LazyLock, Mutex};

use lpc::service;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

type Fields = BTreeMap<&'static str, String>;

#[derive(Debug)]
struct Span {
    name: &'static str,
    target: &'static str,
    parent: Option<u64>,
    fields: Fields,
}

#[derive(Clone, Debug)]
struct Told {
    level: Level,
    target: String,
    message: String,
    fields: Fields,
    span: Option<u64>,
}

#[derive(Debug, Default)]
struct Log {
    spans: Vec<Span>,
    events: Vec<Told>,
}

static LOG: LazyLock<Mutex<Log>> = LazyLock::new(Mutex::default);

thread_local! {
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

fn innermost() -> Option<u64> {
    ENTERED.with_borrow(|entered| entered.last().copied())
}

struct Follower;

impl Subscriber for Follower {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::DEBUG && ["lpc", "app"].iter().any(|of| metadata.target().starts_with(of))
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut fields = Fields::new();
        attributes.record(&mut Visitor(&mut fields));
        let parent = attributes.parent().map(Id::into_u64).or_else(innermost);
        let metadata = attributes.metadata();
        let span = Span { name: metadata.name(), target: metadata.target(), parent, fields };
        let mut log = LOG.lock().unwrap();
        log.spans.push(span);
        Id::from_u64(log.spans.len() as u64)
    }

    fn record(&self, id: &Id, record: &Record<'_>) {
        let mut log = LOG.lock().unwrap();
        record.record(&mut Visitor(&mut log.spans[id.into_u64() as usize - 1].fields));
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::new();
        event.record(&mut Visitor(&mut fields));
        let metadata = event.metadata();
        let told = Told {
            level: *metadata.level(),
            target: metadata.target().to_owned(),
            message: fields.remove("message").unwrap_or_default(),
            fields,
            span: event.parent().map(Id::into_u64).or_else(innermost),
        };
        LOG.lock().unwrap().events.push(told);
    }

    fn enter(&self, id: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(id.into_u64()));
    }

    fn exit(&self, id: &Id) {
        let left = ENTERED.with_borrow_mut(Vec::pop);
        assert_eq!(left, Some(id.into_u64()), "spans are left in the opposite order");
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
}

struct Visitor<'f>(&'f mut Fields);

impl Visit for Visitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

/// What was told in spans of this name of this service, in order, with the spans' fields.
fn told_in(name: &str, service: &str) -> Vec<(Told, Fields)> {
    let log = LOG.lock().unwrap();
    let within = |told: &Told| {
        let span = &log.spans[told.span? as usize - 1];
        assert!(span.parent.is_none(), "nothing was entered before: {span:?}");
        assert_eq!(span.target, "lpc::call");
        let fields = span.fields.clone();
        (span.name == name && fields["service"] == service).then_some((told.clone(), fields))
    };
    log.events.iter().filter_map(within).collect()
}

fn messages(told: &[(Told, Fields)]) -> Vec<(Level, &str)> {
    told.iter().map(|(told, _)| (told.level, told.message.as_str())).collect()
}

/// What is told of connections of this service.
fn connections(service: &str) -> Vec<String> {
    let log = LOG.lock().unwrap();
    let of = log.events.iter().filter(|told| {
        told.target == "lpc::connection" && told.fields.get("service").is_some_and(|name| name == service)
    });
    let mut messages: Vec<_> = of.map(|told| told.message.clone()).collect();
    messages.sort_unstable();
    messages
}

/// Declares the same service under a name, in each colour, and an implementation that tells what it does.
macro_rules! services {
    ($($module:ident: $name:ident $async_name:ident;)*) => {$(
        mod $module {
            use super::*;

            #[service]
            pub trait $name {
                fn put(&self, text: &str) -> lpc::Result<u64>;
            }

            #[service]
            pub trait $async_name {
                async fn put(&self, text: &str) -> lpc::Result<u64>;
            }

            pub struct Store;

            impl $name for Store {
                fn put(&self, text: &str) -> lpc::Result<u64> {
                    tracing::info!(target: "app", "one");
                    assert!(!text.is_empty(), "nothing to put");
                    tracing::info!(target: "app", "two");
                    Ok(text.len() as u64)
                }
            }

            impl $async_name for Store {
                async fn put(&self, text: &str) -> lpc::Result<u64> {
                    tracing::info!(target: "app", "one");
                    tokio::task::yield_now().await;
                    assert!(!text.is_empty(), "nothing to put");
                    tracing::info!(target: "app", "two");
                    Ok(text.len() as u64)
                }
            }
        }
    )*};
}

services! {
    same: Notes AsyncNotes;
    other: OtherNotes AsyncOtherNotes;
    failing: Failing AsyncFailing;
}

fn follow() {
    // The first test of the process sets it for all.
    let _ = tracing::subscriber::set_global_default(Follower);
}

/// A call that returned is told on both sides, under the same id.
fn check_answered(service: &str) {
    let (client, server) = (told_in("call", service), told_in("serve", service));
    assert_eq!(messages(&client), [(Level::DEBUG, "sent"), (Level::DEBUG, "answered")]);
    let expected =
        [(Level::DEBUG, "received"), (Level::INFO, "one"), (Level::INFO, "two"), (Level::DEBUG, "answered")];
    assert_eq!(messages(&server), expected);
    let fields = &client[0].1;
    assert_eq!(fields["method"], "put");
    assert_eq!(fields["pid"], std::process::id().to_string());
    assert_eq!(fields["uid"], nix::unistd::geteuid().to_string());
    assert!(fields["call"].parse::<u64>().is_ok(), "{fields:?}");
    for (told, of) in client.iter().chain(&server) {
        assert_eq!(of, fields, "{told:?}");
        assert!(told.target == "lpc::call" || told.target == "app", "{told:?}");
    }
    assert_eq!(connections(service), ["a client has connected", "connected to the server"]);
}

#[test]
fn a_call_is_followed_from_a_blocking_client_to_either_server() {
    follow();
    let client = same::NotesClient::builder().in_process(same::Store).unwrap();
    assert_eq!(same::Notes::put(&client, "three").unwrap(), 5);
    check_answered("Notes");
    let client = other::AsyncOtherNotesBlockingClient::builder().in_process(other::Store).unwrap();
    assert_eq!(client.put("three").unwrap(), 5);
    check_answered("AsyncOtherNotes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_followed_from_an_async_client_to_either_server() {
    follow();
    let client = same::AsyncNotesClient::builder().in_process(same::Store).await.unwrap();
    assert_eq!(same::AsyncNotes::put(&client, "three").await.unwrap(), 5);
    check_answered("AsyncNotes");
    let client = other::OtherNotesAsyncClient::builder().in_process(other::Store).await.unwrap();
    assert_eq!(client.put("three").await.unwrap(), 5);
    check_answered("OtherNotes");
}

/// A call that panicked is told, and the panic is an error.
fn check_panicked(service: &str) {
    let (client, server) = (told_in("call", service), told_in("serve", service));
    assert_eq!(messages(&client), [(Level::DEBUG, "sent"), (Level::DEBUG, "failed")]);
    let expected = [
        (Level::DEBUG, "received"),
        (Level::INFO, "one"),
        (Level::ERROR, "an implementation panicked"),
        (Level::DEBUG, "failed"),
    ];
    assert_eq!(messages(&server), expected);
    let text = format!("{service}.put panicked: nothing to put");
    for (told, _) in client.iter().chain(&server).filter(|(told, _)| told.fields.contains_key("error")) {
        assert!(told.fields["error"].contains(&text), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_an_error_in_the_span_of_its_call() {
    follow();
    let client = failing::FailingAsyncClient::builder().in_process(failing::Store).await.unwrap();
    assert!(client.put("").await.is_err());
    check_panicked("Failing");
    let client = failing::AsyncFailingClient::builder().in_process(failing::Store).await.unwrap();
    assert!(failing::AsyncFailing::put(&client, "").await.is_err());
    check_panicked("AsyncFailing");
}
