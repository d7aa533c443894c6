//! What a client's and a server's process use when nobody calls any more.

use std::thread;
use std::time::Duration;

use lpc_cli::measure::Service;
use serde::Serialize;

use crate::caller::{Call, Job};
use crate::calling::Calling;
use crate::server::{self, Used};
use crate::setup::Setup;

/// What one process used meanwhile.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Record {
    situation: &'static str,
    pub(super) peer: String,
    pub(super) sleeps: bool,
    pub(super) side: &'static str,
    pub(super) ms: u64,
    pub(super) cpu_ns: u64,
    pub(super) switches: u64,
}

/// How long they call before.
const BUSY: Duration = Duration::from_millis(100);

/// How long after their last call they may still have something to do: give back memory, find that there are
/// no calls.
const SETTLES: Duration = Duration::from_millis(500);

/// Of all these side by side: they are to use nothing.
pub(super) fn measure(setups: &[Setup], time: Duration) -> lpc::Result<Vec<Record>> {
    let directory = tempfile::tempdir()?;
    let mut pairs = Vec::new();
    for setup in setups.iter().flat_map(|setup| [false, true].map(|sleeps| Setup { sleeps, ..*setup })) {
        let port = directory.path().join(pairs.len().to_string());
        let service = server::start(&port, setup, None)?;
        let mut client = Calling::start(&port, setup, 1)?;
        client.begin(Job::of(Call::Add), 1, BUSY)?;
        client.end()?;
        pairs.push((setup, service, client));
    }
    thread::sleep(SETTLES);
    let look = || {
        let look = |(_, service, client): &(Setup, Service, Calling)| {
            Ok([Used::by(service.id())?, Used::by(client.id())?])
        };
        pairs.iter().map(look).collect::<lpc::Result<Vec<_>>>()
    };
    let before = look()?;
    thread::sleep(time);
    let after = look()?;
    let mut records = Vec::new();
    for (((setup, ..), before), after) in pairs.iter().zip(before).zip(after) {
        for (at, side) in ["server", "client"].into_iter().enumerate() {
            let used = after[at].since(before[at]);
            records.push(Record {
                situation: "idle",
                peer: setup.to_string(),
                sleeps: setup.sleeps,
                side,
                ms: time.as_millis() as u64,
                cpu_ns: used.cpu_ns,
                switches: used.switches,
            });
        }
    }
    Ok(records)
}
