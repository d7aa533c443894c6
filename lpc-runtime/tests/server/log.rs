//! What the log is told of the end of a connection: one event for each, with the peer and the cause.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{Read, Write};
use std::sync::{Mutex, OnceLock};

use lpc_core::frame::{self, CallId};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::service::blocking::Desk;
use crate::service::{DRIVERS, Gate, HOLD, Server};
use crate::{eventually, raw};

static EVENTS: OnceLock<Mutex<Vec<Line>>> = OnceLock::new();

/// An event about a connection.
#[derive(Clone, Debug, Default)]
struct Line {
    level: Option<Level>,
    message: String,
    fields: BTreeMap<&'static str, String>,
}

struct Log;

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("lpc::server")
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line { level: Some(*event.metadata().level()), ..Line::default() };
        event.record(&mut line);
        EVENTS.get().unwrap().lock().unwrap().push(line);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}").trim_matches('"').to_owned();
        match field.name() {
            "message" => self.message = text,
            name => drop(self.fields.insert(name, text)),
        }
    }
}

/// The events since the last time, with message and cause of each.
fn events() -> Vec<(Level, String, String)> {
    let lines = std::mem::take(&mut *EVENTS.get().unwrap().lock().unwrap());
    let told = lines.into_iter().map(|line| {
        let field = |name| line.fields.get(name).cloned().unwrap_or_default();
        assert_eq!(field("service"), "Desk", "{line:?}");
        assert_eq!(field("pid"), std::process::id().to_string(), "{line:?}");
        assert_eq!(field("uid"), nix::unistd::geteuid().to_string(), "{line:?}");
        let calls = field("calls");
        (line.level.unwrap(), format!("{}, {calls} calls", line.message), field("error"))
    });
    told.collect()
}

/// One test, since the log is the process's: other tests of this file would be in it.
#[test]
fn the_end_of_a_connection_is_one_event() {
    // A process of its own, as others' connections are in the log of this one.
    const ALONE: &str = "LPC_TEST_LOG";
    if std::env::var_os(ALONE).is_none() {
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        alone.args(["--exact", "log::the_end_of_a_connection_is_one_event", "--nocapture"]).env(ALONE, "1");
        let output = alone.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    EVENTS.set(Mutex::default()).unwrap();
    tracing::subscriber::set_global_default(Log).unwrap();
    for driver in DRIVERS {
        let ended = |calls: usize, cause: &str| {
            vec![(Level::DEBUG, format!("connection ended, {calls} calls"), cause.to_owned())]
        };

        // A client that has no call under way hangs up.
        let server = Server::start(driver, &Gate::default());
        let client = server.client();
        assert_eq!(client.add(20, 22).unwrap(), 42);
        drop(client);
        eventually("the connection is over", || server.connections() == 0);
        assert_eq!(events(), ended(0, "the client hung up"), "{driver:?}");

        // One that dies with five calls.
        let (gate, held) = (Gate::default(), 5);
        let server_of_held = Server::start(driver, &gate);
        let mut stream = raw::connect(&server_of_held.port);
        for id in 1..=held {
            stream.write_all(&raw::call(HOLD, id, &())).unwrap();
        }
        eventually("they have arrived", || server_of_held.stats().calls == held);
        drop(stream);
        eventually("it is told", || !EVENTS.get().unwrap().lock().unwrap().is_empty());
        gate.open();
        eventually("the connection is over", || server_of_held.connections() == 0);
        assert_eq!(events(), ended(5, "the client hung up"), "{driver:?}");
        server_of_held.end();

        // One that sends nothing more, and takes the answers of its calls.
        let mut stream = raw::connect(&server.port);
        stream.write_all(&raw::call(2, 1, &(20_u64, 22_u64))).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        raw::answer(&mut stream);
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        drop(stream);
        eventually("the connection is over", || server.connections() == 0);
        assert_eq!(events(), ended(0, "the client hung up"), "{driver:?}");

        // One that breaks the protocol.
        let mut stream = raw::connect(&server.port);
        stream.write_all(&frame::release(CallId::new(77))).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        eventually("the connection is over", || server.connections() == 0);
        let violations = events();
        let [(level, message, cause)] = &violations[..] else { panic!("{driver:?}: {violations:?}") };
        assert_eq!((*level, message.as_str()), (Level::WARN, "connection closed, 0 calls"));
        assert!(cause.contains("has no result to be released"), "{cause}");

        // One that is there when the server ends.
        let client = server.client();
        assert_eq!(client.add(20, 22).unwrap(), 42);
        server.end();
        assert_eq!(events(), ended(0, "the server shut down"), "{driver:?}");
        drop(client);
    }
}
