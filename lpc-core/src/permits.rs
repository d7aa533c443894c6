//! [`Permits`]: so many at once, and a queue of those that wait for one.

use std::collections::VecDeque;

/// Permits of which there are so many, handed on in the order in which they were waited for.
///
/// A permit that is released goes to the waiter at the front of the queue, which is told, and to nobody else:
/// no thundering herd wakes up for one permit, and no later one overtakes. `W` is how a waiter is told: a
/// [`Waker`](core::task::Waker), for one.
///
/// ```
/// use lpc_core::permits::Permits;
///
/// let mut permits = Permits::new(1);
/// assert!(permits.try_acquire());
/// assert!(!permits.try_acquire());
/// let (first, second) = (permits.join(), permits.join());
/// permits.wait(&first, "first");
/// permits.wait(&second, "second");
/// assert_eq!(permits.release(), Some("first")); // to be told, without a lock held
/// assert!(!permits.is_granted(&second));
/// assert_eq!(permits.leave(first), Some("second")); // gives up what it was granted
/// assert!(permits.is_granted(&second));
/// permits.take(second);
/// assert_eq!(permits.release(), None);
/// ```
///
/// Every operation takes constant time, amortized.
#[derive(Debug)]
pub struct Permits<W> {
    limit: usize,
    /// Permits that are in use, or granted to a waiter that has not taken them yet.
    used: usize,
    queue: VecDeque<Place<W>>,
    /// The ticket of the first place in the queue.
    first: u64,
    /// Places in front of this one do not wait any more.
    next: usize,
}

#[derive(Debug)]
enum Place<W> {
    /// `None` while the waiter runs, and asks by itself.
    Waits(Option<W>),
    Granted,
    Gone,
}

/// A place in the queue.
#[derive(Debug)]
#[must_use = "a place that is forgotten stays in the queue"]
pub struct Ticket(u64);

impl<W> Permits<W> {
    /// `limit` permits; one, where that is none.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), used: 0, queue: VecDeque::new(), first: 0, next: 0 }
    }

    /// Takes a permit, if there is one that nobody waits for.
    #[inline]
    pub fn try_acquire(&mut self) -> bool {
        let is_free = self.used < self.limit;
        self.used += usize::from(is_free);
        is_free
    }

    /// Takes a permit beyond the limit, which then takes that many more releases to be kept again.
    pub const fn acquire_beyond(&mut self) {
        self.used += 1;
    }

    /// Joins the queue. The caller found no permit a moment ago, under the same lock.
    pub fn join(&mut self) -> Ticket {
        let ticket = Ticket(self.first + self.queue.len() as u64);
        if self.try_acquire() {
            self.queue.push_back(Place::Granted);
        } else {
            self.queue.push_back(Place::Waits(None));
        }
        ticket
    }

    /// How the waiter is to be told of its permit. Gives what was said before, or this, where it has its
    /// permit already.
    pub fn wait(&mut self, ticket: &Ticket, waiter: W) -> Option<W> {
        match self.place(ticket) {
            Place::Waits(slot) => slot.replace(waiter),
            Place::Granted | Place::Gone => Some(waiter),
        }
    }

    /// Takes out how the waiter is to be told, who asks by itself from now on, or [gives up](Self::leave).
    pub fn take_waiter(&mut self, ticket: &Ticket) -> Option<W> {
        match self.place(ticket) {
            Place::Waits(waiter) => waiter.take(),
            Place::Granted | Place::Gone => None,
        }
    }

    /// Whether the waiter was granted a permit.
    pub fn is_granted(&mut self, ticket: &Ticket) -> bool {
        matches!(self.place(ticket), Place::Granted)
    }

    /// The waiter takes the permit that it was granted.
    ///
    /// # Panics
    ///
    /// If it was granted none.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is good for one permit")]
    pub fn take(&mut self, ticket: Ticket) {
        let place = std::mem::replace(self.place(&ticket), Place::Gone);
        assert!(matches!(place, Place::Granted), "a permit that was not granted");
        self.tidy();
    }

    /// The waiter gives up. The waiter that is given has been granted its permit, and is to be told.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is good for one permit")]
    pub fn leave(&mut self, ticket: Ticket) -> Option<W> {
        let place = std::mem::replace(self.place(&ticket), Place::Gone);
        let next = if let Place::Granted = place { self.release() } else { None };
        self.tidy();
        next
    }

    /// A permit is free again. The waiter that is given has been granted it, and is to be told.
    #[inline]
    pub fn release(&mut self) -> Option<W> {
        if self.queue.is_empty() || self.used > self.limit {
            self.used -= 1;
            return None;
        }
        self.grant_next()
    }

    /// Takes out how each waiter is told, because waiting is no use any more. Each then
    /// [leaves](Self::leave).
    pub fn drain(&mut self) -> impl Iterator<Item = W> + '_ {
        self.queue.iter_mut().filter_map(|place| match place {
            Place::Waits(waiter) => waiter.take(),
            Place::Granted | Place::Gone => None,
        })
    }

    /// Permits that are in use or granted.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.used
    }

    #[cold]
    fn grant_next(&mut self) -> Option<W> {
        while let Some(place) = self.queue.get_mut(self.next) {
            self.next += 1;
            if let Place::Waits(waiter) = place {
                let waiter = waiter.take();
                *place = Place::Granted;
                return waiter;
            }
        }
        self.used -= 1;
        None
    }

    fn place(&mut self, ticket: &Ticket) -> &mut Place<W> {
        let index = usize::try_from(ticket.0 - self.first).expect("a queue fits in memory");
        &mut self.queue[index]
    }

    /// Forgets places at the front whose waiters have gone.
    fn tidy(&mut self) {
        while let Some(Place::Gone) = self.queue.front() {
            self.queue.pop_front();
            self.first += 1;
            self.next = self.next.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Come,
        Release,
        /// One of those that were granted a permit takes it.
        Take(usize),
        /// One of those in the queue gives up.
        Leave(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Come),
            2 => Just(Step::Release),
            2 => (0..64usize).prop_map(Step::Take),
            1 => (0..64usize).prop_map(Step::Leave),
        ];
        prop::collection::vec(step, 1..200)
    }

    proptest! {
        /// Against a model that searches: permits are never more than the limit, never idle while somebody
        /// waits, and granted in the order of arrival, each time with exactly one told.
        #[test]
        fn permits_go_to_those_that_wait_in_order(limit in 1..4usize, steps in steps()) {
            let mut permits = Permits::new(limit);
            let (mut in_use, mut number) = (0, 0);
            let mut waiting: BTreeMap<usize, Ticket> = BTreeMap::new();
            let mut granted: BTreeMap<usize, Ticket> = BTreeMap::new();
            for step in steps {
                let told = match step {
                    Step::Come if permits.try_acquire() => {
                        prop_assert!(waiting.is_empty(), "nobody overtakes");
                        in_use += 1;
                        None
                    }
                    Step::Come => {
                        let ticket = permits.join();
                        permits.wait(&ticket, number);
                        waiting.insert(number, ticket);
                        number += 1;
                        None
                    }
                    Step::Release if in_use == 0 => continue,
                    Step::Release => {
                        in_use -= 1;
                        permits.release()
                    }
                    Step::Take(at) => {
                        let Some(key) = granted.keys().nth(at % granted.len().max(1)).copied() else { continue };
                        permits.take(granted.remove(&key).expect("it is there"));
                        in_use += 1;
                        None
                    }
                    Step::Leave(at) => {
                        let all = waiting.len() + granted.len();
                        let Some(key) = granted.keys().chain(waiting.keys()).nth(at % all.max(1)).copied() else {
                            continue;
                        };
                        let ticket = granted.remove(&key).or_else(|| waiting.remove(&key)).expect("it is there");
                        permits.leave(ticket)
                    }
                };
                if let Some(told) = told {
                    prop_assert_eq!(waiting.keys().next(), Some(&told), "the first of those that wait");
                    granted.insert(told, waiting.remove(&told).expect("it waits"));
                }
                prop_assert_eq!(permits.used(), in_use + granted.len());
                prop_assert!(permits.used() <= limit);
                prop_assert!(waiting.is_empty() || permits.used() == limit, "one is idle while somebody waits");
                for ticket in granted.values() {
                    prop_assert!(permits.is_granted(ticket));
                }
                for ticket in waiting.values() {
                    prop_assert!(!permits.is_granted(ticket));
                }
            }
            let queued = permits.queue.len();
            prop_assert!(granted.len() + waiting.len() <= queued);
        }
    }

    #[test]
    fn a_waiter_that_runs_is_granted_a_permit_without_being_told() {
        let mut permits = Permits::<&str>::new(1);
        assert!(permits.try_acquire());
        let ticket = permits.join();
        assert_eq!(permits.release(), None);
        assert!(permits.is_granted(&ticket));
        permits.take(ticket);
        assert_eq!((permits.used(), permits.queue.len()), (1, 0));
    }
}
