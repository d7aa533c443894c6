//! [`ThreadSpin`]: one spin for all connections of a thread.

use core::time::Duration;
use std::time::Instant;

use super::Spin;

/// Whether the connections of a thread spin each by itself, and if not, which of them spins.
///
/// A connection that has its thread to itself spins on its own socket. Where others receive meanwhile, that
/// keeps the thread from their messages. Then, for a while, one at a time spins for all: it has the thread
/// look for whatever has come, in turns, and each message renews the spin budget. Connections that are used
/// one after the other are not in each other's way.
///
/// ```
/// use std::time::{Duration, Instant};
/// use lpc_core::spin::ThreadSpin;
///
/// let (budget, now) = (Duration::from_micros(20), Instant::now());
/// let mut thread = ThreadSpin::new();
/// let spins_since = thread.count(); // connection 1 spins by itself ...
/// thread.received(None); // ... and another receives
/// assert!(thread.is_contended(spins_since) && thread.is_shared());
/// assert!(thread.begin(1, budget, now) && !thread.begin(2, budget, now));
/// thread.received(Some(spins_since));
/// assert!(thread.turn(1, now + budget / 2)); // that was worth it
/// assert!(!thread.turn(1, now + budget * 2)); // nothing came any more: sleep
/// ```
#[derive(Debug)]
pub struct ThreadSpin {
    /// How many messages there were.
    received: u64,
    /// So many more during whose wait no other came, and connections spin by themselves again.
    shared: u32,
    spin: Spin,
    budget: Duration,
    spinner: Option<Spinner>,
}

/// The connection that spins.
#[derive(Clone, Copy, Debug)]
struct Spinner {
    connection: u64,
    /// Since when nothing has come, and how long it goes on if nothing does.
    began: Instant,
    time: Duration,
    /// When it had its last turn, and how many messages there were then.
    turned: Instant,
    seen: u64,
}

/// Messages in a row that come while none comes for another connection, after which their connection has the
/// thread to itself.
const ALONE: u32 = 32;

/// Turns in which a connection asks for its own messages while another spins: together they take as long as
/// what is saved where one comes, to be woken for it. Nor do the others' messages say whether its own peer
/// still lives.
const TURNS: u32 = 32;

impl ThreadSpin {
    /// Nobody has received anything.
    #[must_use]
    pub const fn new() -> Self {
        let spin = Spin::new(Duration::ZERO);
        Self { received: 0, shared: 0, spin, budget: Duration::ZERO, spinner: None }
    }

    /// A connection that has waited since there were so many messages has received one. Where that was on
    /// another thread, nothing can be said of it.
    #[inline]
    pub fn received(&mut self, since: Option<u64>) {
        if let Some(since) = since
            && !self.is_contended(since)
        {
            self.shared = self.shared.saturating_sub(1);
        }
        self.received = self.received.wrapping_add(1);
    }

    /// How many messages were received so far: to be remembered by a connection that begins to wait.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.received
    }

    /// Whether others have received while a connection waited that began with so many messages.
    #[inline]
    pub fn is_contended(&mut self, since: u64) -> bool {
        let is_contended = since != self.received;
        if is_contended {
            self.shared = ALONE;
        }
        is_contended
    }

    /// Whether one spins for all.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        self.shared > 0
    }

    /// Whether `connection`, which has nothing to receive, is the one that spins from `now` on.
    pub fn begin(&mut self, connection: u64, budget: Duration, now: Instant) -> bool {
        if budget.is_zero() || self.is_held(now) {
            return false;
        }
        if self.budget != budget {
            (self.budget, self.spin) = (budget, Spin::new(budget));
        }
        let time = self.spin.time();
        if time.is_zero() {
            return false;
        }
        self.spinner = Some(Spinner { connection, began: now, time, turned: now, seen: self.received });
        true
    }

    /// Whether `connection`, which spins, goes on with that.
    pub fn turn(&mut self, connection: u64, now: Instant) -> bool {
        let Some(spinner) = self.spinner.as_mut().filter(|spinner| spinner.connection == connection) else {
            return false;
        };
        let has_received = spinner.seen != self.received;
        // Others had the thread, or other threads the processor.
        let is_late = now.saturating_duration_since(spinner.turned) > self.budget;
        let waited = now.saturating_duration_since(spinner.began);
        (spinner.turned, spinner.seen) = (now, self.received);
        if has_received {
            spinner.began = now;
            if !is_late {
                self.spin.found(|| waited);
                spinner.time = self.spin.time();
            }
        } else if is_late || waited >= spinner.time {
            self.spin.missed();
            spinner.time = Duration::ZERO;
        }
        let goes_on = !spinner.time.is_zero();
        if !goes_on {
            self.spinner = None;
        }
        goes_on
    }

    /// Whether `connection`, which spins, or asks for its own messages in each turn as long as another spins,
    /// goes on with that after so many `turns`.
    pub fn joins(&mut self, connection: u64, budget: Duration, turns: u32, now: Instant) -> bool {
        if self.spinner.is_some_and(|spinner| spinner.connection == connection) {
            return self.turn(connection, now);
        }
        if self.is_held(now) {
            return turns < TURNS;
        }
        self.begin(connection, budget, now)
    }

    /// `connection` waits no more: for it `has_come` something, or it gives up.
    pub fn end(&mut self, connection: u64, has_come: bool, now: Instant) {
        let Some(spinner) = self.spinner.filter(|spinner| spinner.connection == connection) else { return };
        if has_come {
            self.spin.found(|| now.saturating_duration_since(spinner.began));
        }
        self.spinner = None;
    }

    /// Whether somebody spins. One that had no turn for so long may have gone elsewhere.
    fn is_held(&self, now: Instant) -> bool {
        self.spinner.is_some_and(|spinner| now.saturating_duration_since(spinner.turned) < spinner.time)
    }
}

impl Default for ThreadSpin {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_micros(20);

    /// A thread on which one spins for all, and a time.
    fn shared() -> (ThreadSpin, Instant) {
        let mut thread = ThreadSpin::new();
        receive(&mut thread);
        (thread, Instant::now())
    }

    /// A message of another connection.
    fn receive(thread: &mut ThreadSpin) {
        thread.received(Some(thread.count().wrapping_sub(1)));
    }

    #[test]
    fn connections_that_are_used_one_after_the_other_spin_by_themselves() {
        let mut thread = ThreadSpin::new();
        for _message in 0..100 {
            let since = thread.count();
            assert!(!thread.is_contended(since));
            thread.received(Some(since));
        }
        assert!(!thread.is_shared());
    }

    #[test]
    fn connections_that_wait_at_once_do_not() {
        let mut thread = ThreadSpin::new();
        let mut since = [0; 3];
        for message in 0..99 {
            let connection = &mut since[message % 3];
            thread.received(Some(*connection));
            *connection = thread.count();
            assert_eq!(thread.is_shared(), message > 0);
        }
        // Two of them are idle from now on.
        for _ in 0..ALONE {
            assert!(thread.is_shared());
            thread.received(Some(thread.count()));
        }
        assert!(!thread.is_shared());
        thread.received(None);
        assert!(!thread.is_shared(), "it had waited on another thread");
    }

    #[test]
    fn one_at_a_time_spins() {
        let (mut thread, now) = shared();
        assert!(thread.begin(1, BUDGET, now));
        assert!(!thread.begin(2, BUDGET, now) && !thread.turn(2, now));
        assert!(thread.turn(1, now + BUDGET / 2));
        thread.end(1, true, now + BUDGET / 2);
        assert!(!thread.turn(1, now + BUDGET / 2) && thread.begin(2, BUDGET, now + BUDGET / 2));
    }

    #[test]
    fn messages_of_any_connection_renew_the_budget() {
        let (mut thread, mut now) = shared();
        assert!(thread.begin(1, BUDGET, now));
        for _ in 0..1000 {
            now += BUDGET * 3 / 4;
            receive(&mut thread);
            assert!(thread.turn(1, now));
        }
        assert!(thread.turn(1, now + BUDGET / 2) && !thread.turn(1, now + BUDGET));
    }

    #[test]
    fn it_ends_where_others_have_kept_the_thread_and_nothing_came() {
        let (mut thread, now) = shared();
        assert!(thread.begin(1, BUDGET, now) && !thread.turn(1, now + BUDGET * 3 / 2));
        // Something did: it goes on, and has learned nothing from that.
        assert!(thread.begin(1, BUDGET, now));
        receive(&mut thread);
        assert!(thread.turn(1, now + BUDGET * 3) && thread.turn(1, now + BUDGET * 7 / 2));
    }

    #[test]
    fn it_seldom_spins_where_nothing_comes_in_time() {
        let (mut thread, mut now) = shared();
        let mut spins = 0;
        for _ in 0..1000 {
            now += BUDGET * 50;
            if thread.begin(1, BUDGET, now) {
                spins += 1;
                while thread.turn(1, now) {
                    now += BUDGET / 4;
                }
            }
            receive(&mut thread);
        }
        assert!((1..50).contains(&spins), "{spins}");
    }

    #[test]
    fn another_takes_over_from_one_that_has_no_more_turns() {
        let (mut thread, now) = shared();
        assert!(thread.begin(1, BUDGET, now) && !thread.begin(2, BUDGET, now + BUDGET / 2));
        assert!(thread.begin(2, BUDGET, now + BUDGET));
        assert!(!thread.turn(1, now + BUDGET) && thread.turn(2, now + BUDGET));
        thread.end(1, false, now + BUDGET);
        assert!(thread.turn(2, now + BUDGET), "it is not for 1 to end it any more");
    }

    #[test]
    fn one_that_joins_spins_when_nobody_does_and_not_for_ever() {
        let (mut thread, now) = shared();
        assert!(thread.begin(1, BUDGET, now) && thread.joins(2, BUDGET, 0, now));
        thread.end(1, true, now);
        assert!(
            thread.joins(2, BUDGET, TURNS, now) && !thread.begin(1, BUDGET, now),
            "now it is 2 that spins"
        );
        thread.end(2, true, now);
        assert!(thread.begin(1, BUDGET, now) && !thread.joins(2, BUDGET, TURNS, now));
    }

    #[test]
    fn a_budget_of_zero_is_never() {
        let (mut thread, now) = shared();
        assert!(!thread.begin(1, Duration::ZERO, now) && !thread.joins(1, Duration::ZERO, 0, now));
    }
}
