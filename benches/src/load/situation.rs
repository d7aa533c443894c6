//! What goes on while lpc waits.

use std::fmt;
use std::time::Duration;

use crate::caller::{Call, Job, Think};
use crate::setup::{Driver, Setup};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Situation {
    /// Processes that do nothing but use the CPU.
    pub(super) hogs: usize,
    /// Clients' processes that call at once, each a server of its own.
    pub(super) pairs: usize,
    /// Connections of each of them, which call at once.
    pub(super) clients: usize,
    pub(super) job: Job,
}

const ALONE: Situation = Situation { hogs: 0, pairs: 1, clients: 1, job: Job::of(Call::Add) };

pub(super) fn all() -> Vec<Situation> {
    let micros = Duration::from_micros;
    let mut all = vec![ALONE];
    all.extend([1, 2].map(|hogs| Situation { hogs, ..ALONE }));
    all.extend([2, 4].map(|pairs| Situation { pairs, ..ALONE }));
    all.push(Situation { hogs: 2, pairs: 2, ..ALONE });
    for hogs in [0, 2] {
        all.extend([16, 256].map(|clients| Situation { hogs, clients, ..ALONE }));
    }
    for how in [Think::Busy, Think::Asleep] {
        all.extend([10, 100, 1000].map(|time| {
            let job = Job { think: how(micros(time)), ..ALONE.job };
            Situation { job, ..ALONE }
        }));
    }
    for time in [5, 50, 500] {
        all.push(Situation { job: Job::of(Call::Burn(micros(time))), ..ALONE });
    }
    all
}

impl Situation {
    /// Whether it is another than those before, for this one: tokio sleeps no shorter than a millisecond.
    pub(super) fn is_for(self, setup: Setup) -> bool {
        let Think::Asleep(time) = self.job.think else { return true };
        setup.driver == Driver::Blocking || time >= Duration::from_millis(1)
    }
}

impl fmt::Display for Situation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = |time: Duration| time.as_micros();
        let mut parts = Vec::new();
        if self.hogs > 0 {
            parts.push(format!("hogs {}", self.hogs));
        }
        if self.pairs > 1 {
            parts.push(format!("pairs {}", self.pairs));
        }
        if self.clients > 1 {
            parts.push(format!("clients {}", self.clients));
        }
        match self.job.think {
            Think::Nothing => {}
            Think::Busy(time) => parts.push(format!("think {} us", micros(time))),
            Think::Asleep(time) => parts.push(format!("sleep {} us", micros(time))),
        }
        if let Call::Burn(time) = self.job.call {
            parts.push(format!("handler {} us", micros(time)));
        }
        if parts.is_empty() {
            parts.push("alone".to_owned());
        }
        f.pad(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_situation_has_a_name_of_its_own() {
        let names: Vec<_> = all().iter().map(Situation::to_string).collect();
        assert_eq!(lpc_cli::measure::firsts(names.iter()).len(), names.len(), "{names:?}");
    }
}
