//! Looking for the other side's next message before sleeping, as long as it runs on another CPU.

use std::hint::spin_loop;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nix::sched::sched_getcpu;

use super::memory::Words;

/// About what a wake takes.
const SPIN: Duration = Duration::from_micros(20);

/// One side's view of the page on which both say where they run.
pub(super) struct Watch {
    /// `None`: sleep at once.
    page: Option<Words>,
    ours: usize,
}

impl Watch {
    pub(super) fn new(page: Option<Words>, is_server: bool) -> Self {
        Self { page, ours: usize::from(is_server) }
    }

    /// Says where this side runs.
    pub(super) fn tell(&self) {
        if let Some(page) = &self.page {
            page.small()[self.ours].store(cpu(), Relaxed);
        }
    }

    /// Asks until there is something, the time is up, or the other side was last seen on this CPU.
    pub(super) fn look<T>(&self, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
        let found = ask();
        if found.is_some() || self.page.is_none() {
            return found;
        }
        let started = Instant::now();
        while self.is_worth_it(started) {
            spin_loop();
            if let Some(found) = ask() {
                return Some(found);
            }
        }
        None
    }

    /// Whether to go on spinning since then.
    pub(super) fn is_worth_it(&self, started: Instant) -> bool {
        let is_apart = |page: &Words| page.small()[1 - self.ours].load(Relaxed) != cpu();
        self.page.as_ref().is_some_and(is_apart) && started.elapsed() < SPIN
    }
}

/// This thread's CPU, counted from 1; 0 before it was asked.
fn cpu() -> u32 {
    sched_getcpu().map_or(0, |cpu| cpu as u32 + 1)
}
