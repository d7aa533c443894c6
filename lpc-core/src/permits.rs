//! [`Permits`]: so many at once, and a queue of those that wait for one.

use std::collections::VecDeque;

use crate::frame::MAX_NESTING;

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
/// What is nested has, for each depth, one more permit beyond the limit, since those around it may have all
/// others and wait for it. A permit of a depth goes to the first waiter of that depth.
///
/// Every operation takes constant time, amortized, but that the waiters of a depth are looked for.
#[derive(Debug)]
pub struct Permits<W> {
    limit: usize,
    /// Permits within the limit that are in use, or granted to a waiter that has not taken them yet.
    within: usize,
    /// By their nesting, those beyond the limit that are: a bit each. Who waits finds its own taken.
    beyond: u64,
    queue: VecDeque<Place<W>>,
    /// The ticket of the first place in the queue.
    first: u64,
    /// Places in front of this one do not wait any more.
    next: usize,
}

#[derive(Debug)]
enum Place<W> {
    Waits {
        nesting: u32,
        /// `None` while the waiter runs, and asks by itself.
        waiter: Option<W>,
    },
    Granted,
    Gone,
}

/// A place in the queue.
#[derive(Debug)]
#[must_use = "a place that is forgotten stays in the queue"]
pub struct Ticket {
    number: u64,
    nesting: u32,
}

impl<W> Permits<W> {
    /// `limit` permits; one, where that is none.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), within: 0, beyond: 0, queue: VecDeque::new(), first: 0, next: 0 }
    }

    /// Takes a permit, if there is one that nobody waits for.
    #[inline]
    pub fn try_acquire(&mut self) -> bool {
        self.try_acquire_nested(0)
    }

    /// The same, for what is nested so deep: [`MAX_NESTING`] at most, and 0 is not nested.
    #[inline]
    pub fn try_acquire_nested(&mut self, nesting: u32) -> bool {
        let is_free = self.within < self.limit;
        self.within += usize::from(is_free);
        is_free || self.try_acquire_beyond(nesting)
    }

    #[inline]
    const fn try_acquire_beyond(&mut self, nesting: u32) -> bool {
        let bit = beyond(nesting);
        let is_free = self.beyond & bit != bit;
        self.beyond |= bit;
        is_free
    }

    /// Joins the queue. The caller found no permit a moment ago.
    pub fn join(&mut self) -> Ticket {
        self.join_nested(0)
    }

    /// The same, for what is nested so deep.
    pub fn join_nested(&mut self, nesting: u32) -> Ticket {
        let ticket = Ticket { number: self.first + self.queue.len() as u64, nesting };
        let is_granted = self.try_acquire_nested(nesting);
        self.queue.push_back(if is_granted {
            Place::Granted
        } else {
            Place::Waits { nesting, waiter: None }
        });
        ticket
    }

    /// How the waiter is to be told of its permit. Gives what was said before, or this, where it has its
    /// permit already.
    pub fn wait(&mut self, ticket: &Ticket, waiter: W) -> Option<W> {
        match self.place(ticket) {
            Place::Waits { waiter: slot, .. } => slot.replace(waiter),
            Place::Granted | Place::Gone => Some(waiter),
        }
    }

    /// Takes out how the waiter is to be told, who asks by itself from now on, or [gives up](Self::leave).
    pub fn take_waiter(&mut self, ticket: &Ticket) -> Option<W> {
        match self.place(ticket) {
            Place::Waits { waiter, .. } => waiter.take(),
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
        let next = if let Place::Granted = place { self.release_nested(ticket.nesting) } else { None };
        self.tidy();
        next
    }

    /// A permit is free again. The waiter that is given has been granted it, and is to be told.
    #[inline]
    pub fn release(&mut self) -> Option<W> {
        self.release_nested(0)
    }

    /// The same, of what is nested so deep.
    #[inline]
    pub fn release_nested(&mut self, nesting: u32) -> Option<W> {
        // Which of two of the same nesting has the permit beyond the limit does not matter.
        if self.beyond & beyond(nesting) != 0 {
            return self.grant_nested(nesting);
        }
        if self.queue.is_empty() {
            self.within -= 1;
            return None;
        }
        self.grant_next()
    }

    /// Takes out how each waiter is told, because waiting is no use any more. Each then
    /// [leaves](Self::leave).
    pub fn drain(&mut self) -> impl Iterator<Item = W> + '_ {
        self.queue.iter_mut().filter_map(|place| match place {
            Place::Waits { waiter, .. } => waiter.take(),
            Place::Granted | Place::Gone => None,
        })
    }

    /// Permits that are in use or granted.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.within + self.beyond.count_ones() as usize
    }

    #[cold]
    fn grant_next(&mut self) -> Option<W> {
        while let Some(place) = self.queue.get_mut(self.next) {
            self.next += 1;
            if let Place::Waits { waiter, .. } = place {
                let waiter = waiter.take();
                *place = Place::Granted;
                return waiter;
            }
        }
        self.within -= 1;
        None
    }

    /// Hands on the permit of a depth beyond the limit.
    #[cold]
    fn grant_nested(&mut self, depth: u32) -> Option<W> {
        for place in self.queue.iter_mut().skip(self.next) {
            if let Place::Waits { nesting, waiter } = place
                && *nesting == depth
            {
                let waiter = waiter.take();
                *place = Place::Granted;
                return waiter;
            }
        }
        self.beyond &= !beyond(depth);
        None
    }

    fn place(&mut self, ticket: &Ticket) -> &mut Place<W> {
        let index = usize::try_from(ticket.number - self.first).expect("a queue fits in memory");
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

/// The bit of a depth; none of what is not nested.
#[inline]
const fn beyond(nesting: u32) -> u64 {
    debug_assert!(nesting <= MAX_NESTING);
    (1 << nesting) & !1
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Depths that are tried, that of what is not nested included.
    const DEPTHS: usize = 3;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// One that is nested so deep.
        Come(usize),
        Release(usize),
        /// One of those that were granted a permit takes it.
        Take(usize),
        /// One of those in the queue gives up.
        Leave(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let depth = prop_oneof![2 => Just(0), 1 => 1..DEPTHS];
        let step = prop_oneof![
            3 => depth.clone().prop_map(Step::Come),
            2 => depth.prop_map(Step::Release),
            2 => (0..64usize).prop_map(Step::Take),
            1 => (0..64usize).prop_map(Step::Leave),
        ];
        prop::collection::vec(step, 1..200)
    }

    proptest! {
        /// Against a model that searches: permits are never more than the limit and one of each depth, never
        /// idle while somebody waits who may have them, and granted in the order of arrival, each time with
        /// exactly one told.
        #[test]
        fn permits_go_to_those_that_wait_in_order(limit in 1..4usize, steps in steps()) {
            let mut permits = Permits::new(limit);
            let (mut in_use, mut number) = ([0; DEPTHS], 0);
            let mut waiting: BTreeMap<usize, (usize, Ticket)> = BTreeMap::new();
            let mut granted: BTreeMap<usize, (usize, Ticket)> = BTreeMap::new();
            for step in steps {
                let first = |of: Option<usize>| {
                    let mut all = waiting.iter().filter(|(_, (depth, _))| of.is_none_or(|of| of == *depth));
                    all.next().map(|(key, _)| *key)
                };
                let firsts = [None, Some(1), Some(2)].map(first);
                let told = match step {
                    Step::Come(depth) if permits.try_acquire_nested(depth as u32) => {
                        prop_assert!(waiting.values().all(|(other, _)| *other != depth), "nobody overtakes");
                        in_use[depth] += 1;
                        None
                    }
                    Step::Come(depth) => {
                        let ticket = permits.join_nested(depth as u32);
                        permits.wait(&ticket, number);
                        waiting.insert(number, (depth, ticket));
                        number += 1;
                        None
                    }
                    Step::Release(depth) if in_use[depth] == 0 => continue,
                    Step::Release(depth) => {
                        in_use[depth] -= 1;
                        permits.release_nested(depth as u32)
                    }
                    Step::Take(at) => {
                        let Some(key) = granted.keys().nth(at % granted.len().max(1)).copied() else { continue };
                        let (depth, ticket) = granted.remove(&key).expect("it is there");
                        permits.take(ticket);
                        in_use[depth] += 1;
                        None
                    }
                    Step::Leave(at) => {
                        let all = waiting.len() + granted.len();
                        let Some(key) = granted.keys().chain(waiting.keys()).nth(at % all.max(1)).copied() else {
                            continue;
                        };
                        let left = granted.remove(&key).or_else(|| waiting.remove(&key));
                        permits.leave(left.expect("it is there").1)
                    }
                };
                if let Some(told) = told {
                    prop_assert!(firsts.contains(&Some(told)), "the first of those that wait");
                    granted.insert(told, waiting.remove(&told).expect("it waits"));
                }
                let mut used = in_use;
                granted.values().for_each(|(depth, _)| used[*depth] += 1);
                prop_assert_eq!(permits.used(), used.iter().sum::<usize>());
                prop_assert!(permits.within <= limit);
                prop_assert!(waiting.is_empty() || permits.within == limit, "one idles while one waits");
                for (depth, ticket) in granted.values() {
                    prop_assert!(permits.is_granted(ticket));
                    prop_assert!(used[*depth] > 0);
                }
                for (depth, ticket) in waiting.values() {
                    prop_assert!(!permits.is_granted(ticket));
                    // One of its depth runs, so that what it waits for ends by itself.
                    prop_assert!(*depth == 0 || used[*depth] > 0, "one of depth {depth} waits for others");
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
