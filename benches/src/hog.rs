//! Processes that do nothing but use the CPU.

use std::os::unix::process::parent_id;
use std::thread;
use std::time::Duration;

use lpc_cli::measure::Service;

use crate::service::burn;

/// Starts so many, which run until they are dropped.
pub(crate) fn start(count: usize) -> std::io::Result<Vec<Service>> {
    let hogs = (0..count).map(|_| Service::start(["hog"])).collect();
    if count > 0 {
        // Until they run, and the scheduler knows them for what they are.
        thread::sleep(Duration::from_millis(100));
    }
    hogs
}

/// Is one, until it is killed or its parent has gone.
pub(crate) fn run() {
    let parent = parent_id();
    while parent_id() == parent {
        burn(Duration::from_millis(100));
    }
}
