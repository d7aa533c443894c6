//! What a process warns of in its log: each a line of its output.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::process::say;

/// Begins such a line.
const LINE: &str = "log ";

/// From now on this process says what is in its log.
pub fn begin() {
    tracing::subscriber::set_global_default(Log).expect("it is the first");
}

/// How many of each other warning there are.
pub fn others(log: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for line in log.iter().filter_map(|line| line.strip_prefix(LINE)) {
        // Their reasons differ.
        let message = line.split_once(": ").map_or(line, |(message, _)| message);
        if !message.starts_with("connection") {
            *counts.entry(message).or_default() += 1;
        }
    }
    counts
}

/// Whether a line of a process is in its log.
pub fn has(line: &str) -> bool {
    line.starts_with(LINE)
}

/// Splits the lines of a process into what was in its log, and the rest.
pub fn split(lines: Vec<String>) -> (Vec<String>, Vec<String>) {
    lines.into_iter().partition(|line| line.starts_with(LINE))
}

/// How many of these are warnings with this message and a reason.
pub fn count(log: &[String], message: &str) -> usize {
    let start = format!("{LINE}{message}: ");
    log.iter().filter(|line| line.len() > start.len() && line.starts_with(&start)).count()
}

struct Log;

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() == Level::WARN && metadata.target().starts_with("lpc")
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        say(format_args!("{LINE}{}: {}", line.message, line.error).to_string().replace('\n', " "));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    error: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = match field.name() {
            "message" => &mut self.message,
            "error" => &mut self.error,
            _ => return,
        };
        write!(text, "{value:?}").expect("memory takes it");
    }
}
