//! One line of JSON.

use serde::{Deserialize, Serialize};

use super::Pinning;

/// What one peer was measured to cost at one work, in one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What was done.
    pub work: String,
    /// The peer that was measured.
    pub peer: String,
    /// Where the two processes ran.
    pub pinning: Pinning,
    /// Processes beside the two that did nothing but use the CPU.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hogs: u32,
    /// Bytes of a body, or a number of clients, where the work has one; otherwise 0.
    pub size: u64,
    /// The median of the calls' times.
    pub p50_ns: u64,
    /// Their 99th percentile.
    pub p99_ns: u64,
    /// Calls a second.
    pub per_s: f64,
    /// CPU time a call, of both processes.
    pub cpu_ns: u64,
    /// Resident memory of the service's process; of one idle connection, where that is the work.
    pub rss_kib: u64,
    /// Counted from 1.
    pub round: u32,
}

/// Most are measured on a quiet machine, and say nothing of it.
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Record {
    /// As a line of JSON, which ends as a line does.
    pub fn json_line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("names, numbers and texts");
        line.push('\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_fields_and_nothing_else() {
        let record = Record {
            work: "add".into(),
            peer: "raw socket".into(),
            pinning: Pinning::Apart,
            hogs: 0,
            size: 0,
            p50_ns: 3500,
            p99_ns: 9000,
            per_s: 250_000.5,
            cpu_ns: 7000,
            rss_kib: 2048,
            round: 1,
        };
        let line = record.json_line();
        assert_eq!(
            line,
            "{\"work\":\"add\",\"peer\":\"raw socket\",\"pinning\":\"apart\",\"size\":0,\"p50_ns\":3500,\
             \"p99_ns\":9000,\"per_s\":250000.5,\"cpu_ns\":7000,\"rss_kib\":2048,\"round\":1}\n"
        );
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
        let beside = Record { hogs: 2, ..record };
        let line = beside.json_line();
        assert!(line.contains("\"pinning\":\"apart\",\"hogs\":2,\"size\""), "{line}");
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), beside);
    }
}
