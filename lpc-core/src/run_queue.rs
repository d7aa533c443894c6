//! [`RunQueue`]: which calls of a connection run at a server, and which wait for their turn.

use std::collections::VecDeque;

use crate::frame::CallId;
use crate::limits::Limits;
use crate::receive::Violation;

/// The calls of one connection that have arrived and are not answered. `C` is a call, `H` what its
/// cancellation takes.
///
/// So many run at once; those behind them wait, in the order of their arrival. A call that was made within
/// another may be what that waits for, so it does not wait for such to end: for each depth of nesting one more
/// call may run. So the deepest of all runs always, and none waits for itself. When
/// [`is_full`](Self::is_full) says so nothing more should be read: until then a Cancel behind the calls that
/// wait is still seen. What those that run wait for may be behind it, too: where none ends for long,
/// [`look`](Self::look) has [`AHEAD`] times as much read.
///
/// ```
/// use lpc_core::frame::CallId;
/// use lpc_core::run_queue::{Bounds, Cost, RunQueue};
///
/// let mut queue = RunQueue::new(Bounds { running: 1, ..Bounds::default() });
/// let (first, second) = (CallId::new(1), CallId::new(2));
/// assert_eq!(queue.arrive(first, (), Cost::default(), "first")?, Some("first")); // runs at once
/// assert_eq!(queue.arrive(second, (), Cost::default(), "second")?, None);
/// queue.answer(first);
/// assert_eq!(queue.finish(first, Cost::default()), Some("second")); // runs next
/// # Ok::<(), lpc_core::receive::Violation>(())
/// ```
#[derive(Debug)]
pub struct RunQueue<C, H> {
    bounds: Bounds,
    /// Those that are not answered, and the handle of each at the same place. As a rule they are few, and
    /// nothing is found as fast as in a short list; `bounds` has 1,040 of them at most by default, which
    /// takes a tenth of a microsecond, and some eight times as many where none ends. Nor can a client choose
    /// ids that make it slower.
    ids: Vec<CallId>,
    handles: Vec<H>,
    waiting: VecDeque<Waiting<C>>,
    running: usize,
    /// By their nesting, those calls that run though there are as many without them as may run: a bit each.
    beyond: u64,
    /// Calls that wait and are nested.
    nested: usize,
    /// Of those that run.
    copied: u64,
    /// By those that wait.
    held: u64,
    /// Whether a call has ended since the last look.
    has_ended: bool,
    /// Whether more is read than the bounds say, since none had.
    reads_on: bool,
}

/// How many times as much may wait where no call ends.
pub const AHEAD: u32 = 8;

#[derive(Debug)]
struct Waiting<C> {
    id: CallId,
    cost: Cost,
    call: C,
}

/// What a call takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Private memory that holds its arguments since they arrived.
    pub held: u64,
    /// Private memory that its arguments are copied to while it runs.
    pub copied: u64,
}

/// What the calls of one connection may take together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Calls that run at once.
    pub running: usize,
    /// Bytes that these copy, and twice that with those that run beyond others because they are nested. A
    /// single call may always run.
    pub copied: u64,
    /// Calls that wait.
    pub waiting: usize,
    /// Bytes that these hold. A single call may always wait.
    pub held: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { running: 16, copied: Limits::default().pool, waiting: 1024, held: 1 << 20 }
    }
}

/// What a Cancel found.
#[derive(Debug, PartialEq, Eq)]
pub enum Cancelled<C, H> {
    /// A call that did not run yet, and now will not. It is to be answered.
    Waiting(C),
    /// A call that runs: it is over when it ends.
    Running(H),
    /// Nothing: it was answered already.
    Nothing,
}

impl<C, H: Clone> RunQueue<C, H> {
    /// No calls yet.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let (ids, handles, waiting) = (Vec::new(), Vec::new(), VecDeque::new());
        let (running, beyond, nested, copied, held) = (0, 0, 0, 0, 0);
        let (has_ended, reads_on) = (false, false);
        Self { bounds, ids, handles, waiting, running, beyond, nested, copied, held, has_ended, reads_on }
    }

    /// A call has arrived. Gives it back if it is to run now.
    ///
    /// # Errors
    ///
    /// Another call of that id is not answered yet.
    #[inline]
    pub fn arrive(&mut self, id: CallId, handle: H, cost: Cost, call: C) -> Result<Option<C>, Violation> {
        if self.place(id).is_some() {
            return Err(Violation::CallState { call: id, reason: "is called again before it was answered" });
        }
        self.ids.push(id);
        self.handles.push(handle);
        if self.waiting.is_empty() && self.may_run(cost) {
            self.begin(cost);
            return Ok(Some(call));
        }
        if id.nesting() > 0 {
            if self.may_run_beyond(id, cost) {
                self.begin_beyond(id, cost);
                return Ok(Some(call));
            }
            self.nested += 1;
        }
        self.held = self.held.saturating_add(cost.held);
        self.waiting.push_back(Waiting { id, cost, call });
        Ok(None)
    }

    /// A call that ran is about to be answered: its id is free again.
    #[inline]
    pub fn answer(&mut self, id: CallId) {
        if let Some(place) = self.place(id) {
            self.ids.swap_remove(place);
            self.handles.swap_remove(place);
        }
    }

    #[inline]
    fn place(&self, id: CallId) -> Option<usize> {
        self.ids.iter().position(|other| *other == id)
    }

    /// The answer of a call that ran is on its way. Gives the call that is to run next, if there is one.
    #[inline]
    pub fn finish(&mut self, id: CallId, cost: Cost) -> Option<C> {
        self.running -= 1;
        self.has_ended = true;
        self.copied -= cost.copied;
        if self.beyond > 0 {
            // Which of two calls of the same nesting it was does not matter.
            self.beyond &= !(1 << id.nesting());
        }
        self.start_next()
    }

    /// Whether another call that waits may run.
    #[must_use]
    #[inline]
    pub fn may_start(&self) -> bool {
        self.waiting.front().is_some_and(|waiting| self.may_run(waiting.cost)) || self.next_nested().is_some()
    }

    /// The place of a call that waits and may run because it is nested.
    #[inline]
    fn next_nested(&self) -> Option<usize> {
        if self.nested == 0 {
            return None;
        }
        self.waiting.iter().position(|waiting| self.may_run_beyond(waiting.id, waiting.cost))
    }

    /// The next call that is to run, where one may. There may be several, after a large one.
    #[inline]
    pub fn start_next(&mut self) -> Option<C> {
        let Waiting { id, cost, .. } = *self.waiting.front()?;
        if !self.may_run(cost) {
            return self.start_nested();
        }
        let Waiting { call, .. } = self.waiting.pop_front()?;
        self.has_left(id, cost);
        self.begin(cost);
        Some(call)
    }

    #[inline(never)]
    fn start_nested(&mut self) -> Option<C> {
        let place = self.next_nested()?;
        let Waiting { id, cost, call } = self.waiting.remove(place)?;
        self.has_left(id, cost);
        self.begin_beyond(id, cost);
        Some(call)
    }

    /// A call does not wait any more.
    #[inline]
    fn has_left(&mut self, id: CallId, cost: Cost) {
        self.held -= cost.held;
        self.nested -= usize::from(id.nesting() > 0);
        self.reads_on = self.reads_on && self.exceeds(1);
    }

    /// The client has cancelled a call.
    pub fn cancel(&mut self, id: CallId) -> Cancelled<C, H> {
        let Some(handle) = self.place(id).map(|place| &self.handles[place]) else {
            return Cancelled::Nothing;
        };
        let Some(place) = self.waiting.iter().position(|waiting| waiting.id == id) else {
            return Cancelled::Running(handle.clone());
        };
        let Some(Waiting { cost, call, .. }) = self.waiting.remove(place) else { return Cancelled::Nothing };
        self.has_left(id, cost);
        self.answer(id);
        Cancelled::Waiting(call)
    }

    /// The connection is over: takes out the calls that wait, and gives the handles of those
    /// that run.
    pub fn cancel_all(&mut self) -> (Vec<C>, Vec<H>) {
        let waiting = std::mem::take(&mut self.waiting);
        let waiting = waiting.into_iter().map(|waiting| {
            self.answer(waiting.id);
            waiting.call
        });
        let waiting = waiting.collect();
        (self.held, self.nested) = (0, 0);
        (waiting, self.handles.clone())
    }

    /// Whether no more should be read for now.
    #[must_use]
    #[inline]
    pub fn is_full(&self) -> bool {
        self.exceeds(1) && (!self.reads_on || self.exceeds(AHEAD))
    }

    /// To be asked from time to time while the queue is full. Whether none has ended since the last time:
    /// those that run may wait for calls within them that are not read yet, so that more is read, until no
    /// more waits than should.
    pub fn look(&mut self) -> bool {
        let stands_still = !std::mem::take(&mut self.has_ended) && self.exceeds(1);
        self.reads_on |= stands_still;
        stands_still
    }

    #[inline]
    fn exceeds(&self, times: u32) -> bool {
        self.waiting.len() >= self.bounds.waiting.saturating_mul(times as usize)
            || self.held > self.bounds.held.saturating_mul(times.into())
    }

    /// Whether no call runs or waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting.is_empty()
    }

    /// Calls that run.
    #[must_use]
    #[inline]
    pub fn running(&self) -> usize {
        self.running
    }

    /// Whether it is so of a call that is not answered.
    pub fn has(&self, is_so: impl FnMut(&H) -> bool) -> bool {
        self.handles.iter().any(is_so)
    }

    /// Calls that run or wait, and are not answered.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.ids.len()
    }

    #[inline]
    fn may_run(&self, cost: Cost) -> bool {
        let has_room = || self.copied == 0 || self.copied.saturating_add(cost.copied) <= self.bounds.copied;
        // As a rule there is none beyond, and to count takes its time.
        let within = || self.running - self.beyond.count_ones() as usize;
        (self.running < self.bounds.running || (self.beyond > 0 && within() < self.bounds.running))
            && (cost.copied == 0 || has_room())
    }

    /// Whether a nested call may run beside as many as may run.
    fn may_run_beyond(&self, id: CallId, cost: Cost) -> bool {
        let bit = 1 << id.nesting();
        let has_room = self.copied.saturating_add(cost.copied) <= self.bounds.copied.saturating_mul(2);
        bit > 1 && self.beyond & bit == 0 && (cost.copied == 0 || has_room)
    }

    fn begin_beyond(&mut self, id: CallId, cost: Cost) {
        self.beyond |= 1 << id.nesting();
        self.begin(cost);
    }

    #[inline]
    fn begin(&mut self, cost: Cost) {
        self.running += 1;
        self.copied = self.copied.saturating_add(cost.copied);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::MAX_NESTING;

    const FREE: Cost = Cost { held: 0, copied: 0 };

    fn id(number: u64) -> CallId {
        CallId::new(number)
    }

    fn done<C, H: Clone>(queue: &mut RunQueue<C, H>, call: u64, cost: Cost) -> Option<C> {
        queue.answer(id(call));
        queue.finish(id(call), cost)
    }

    #[test]
    fn calls_run_in_the_order_of_their_arrival() {
        let mut queue = RunQueue::new(Bounds { running: 2, ..Bounds::default() });
        for call in 0..5 {
            assert_eq!(queue.arrive(id(call), (), FREE, call).unwrap().is_some(), call < 2);
        }
        assert_eq!(done(&mut queue, 1, FREE), Some(2));
        assert_eq!(done(&mut queue, 0, FREE), Some(3));
        assert_eq!(done(&mut queue, 2, FREE), Some(4));
        assert_eq!(done(&mut queue, 3, FREE), None);
        assert!(!queue.is_idle());
        assert_eq!(done(&mut queue, 4, FREE), None);
        assert!(queue.is_idle());
    }

    #[test]
    fn nested_calls_do_not_wait_for_those_that_they_are_made_within() {
        let nested = |call, nesting| id(call).nested(nesting);
        let mut queue = RunQueue::new(Bounds { running: 2, ..Bounds::default() });
        let mut arrive = |id: CallId| queue.arrive(id, (), FREE, id).unwrap().is_some();
        assert!(arrive(id(1)) && arrive(id(2)) && !arrive(id(3)));
        // One of each depth.
        assert!(
            arrive(nested(4, 1)) && !arrive(nested(5, 1)) && arrive(nested(6, 2)) && !arrive(nested(7, 2))
        );
        assert_eq!((queue.running(), queue.may_start()), (4, false));
        let mut done = |id| {
            queue.answer(id);
            queue.finish(id, FREE)
        };
        assert_eq!(done(nested(4, 1)), Some(nested(5, 1)), "before those that came earlier");
        assert_eq!(done(nested(6, 2)), Some(nested(7, 2)));
        assert_eq!(done(nested(5, 1)), None);
        assert_eq!(done(id(1)), Some(id(3)));
        assert_eq!(done(id(3)), None);
        assert_eq!(done(nested(7, 2)), None);
        assert_eq!(done(id(2)), None);
        assert!(queue.is_idle() && queue.beyond == 0 && queue.nested == 0);
    }

    #[test]
    fn however_deep_a_peer_says_that_calls_are_nested_no_more_run_than_there_are_depths() {
        let mut queue = RunQueue::new(Bounds { running: 1, ..Bounds::default() });
        let runs = (0..64_u64).flat_map(|nesting| [0, 1].map(|call| nesting << 26 | call));
        let runs = runs.filter(|call| queue.arrive(id(*call), (), FREE, ()).unwrap().is_some()).count();
        assert_eq!(runs, 1 + MAX_NESTING as usize);
        assert_eq!(queue.unanswered(), 128);
    }

    #[test]
    fn an_id_is_in_use_until_its_call_is_answered() {
        let mut queue = RunQueue::new(Bounds { running: 1, ..Bounds::default() });
        queue.arrive(id(1), (), FREE, 'a').unwrap();
        queue.arrive(id(2), (), FREE, 'b').unwrap();
        for call in [1, 2] {
            assert!(matches!(queue.arrive(id(call), (), FREE, 'c'), Err(Violation::CallState { .. })));
        }
        let mut queue = RunQueue::new(Bounds::default());
        queue.arrive(id(1), (), FREE, 'a').unwrap();
        assert_eq!(queue.cancel(id(1)), Cancelled::Running(()));
        assert!(queue.arrive(id(1), (), FREE, 'b').is_err(), "cancelled work that still runs counts");
        done(&mut queue, 1, FREE);
        assert_eq!(queue.arrive(id(1), (), FREE, 'b').unwrap(), Some('b'));
    }

    #[test]
    fn a_cancelled_call_that_waits_does_not_run() {
        let mut queue = RunQueue::new(Bounds { running: 1, ..Bounds::default() });
        for call in 0..4 {
            queue.arrive(id(call), call, FREE, call).unwrap();
        }
        assert_eq!(queue.cancel(id(2)), Cancelled::Waiting(2));
        assert_eq!(queue.cancel(id(2)), Cancelled::Nothing);
        assert_eq!(queue.cancel(id(9)), Cancelled::Nothing);
        assert_eq!(done(&mut queue, 0, FREE), Some(1));
        assert_eq!(queue.cancel_all(), (vec![3], vec![1]));
        assert_eq!(done(&mut queue, 1, FREE), None);
        assert!(queue.is_idle());
    }

    #[test]
    fn what_running_calls_copy_is_bounded_but_for_a_single_one() {
        let mut queue = RunQueue::new(Bounds { copied: 10, ..Bounds::default() });
        let cost = |copied| Cost { held: 0, copied };
        assert!(queue.arrive(id(1), (), cost(11), 'a').unwrap().is_some());
        assert!(queue.arrive(id(2), (), cost(1), 'b').unwrap().is_none());
        // Whatever it takes: no call overtakes another.
        assert!(queue.arrive(id(3), (), FREE, 'c').unwrap().is_none());
        assert_eq!(done(&mut queue, 1, cost(11)), Some('b'));
        assert_eq!(queue.start_next(), Some('c'));
        assert!(queue.arrive(id(4), (), cost(9), 'd').unwrap().is_some());
        assert!(queue.arrive(id(5), (), cost(1), 'e').unwrap().is_none());
    }

    #[test]
    fn where_no_call_ends_more_is_read() {
        let cost = Cost { held: 6, copied: 0 };
        let mut queue = RunQueue::new(Bounds { running: 1, held: 10, ..Bounds::default() });
        let arrive =
            |queue: &mut RunQueue<_, _>, id: CallId| queue.arrive(id, (), cost, id).unwrap().is_some();
        assert!(arrive(&mut queue, id(0)) && !queue.look());
        assert!(!arrive(&mut queue, id(1)) && !arrive(&mut queue, id(2)) && queue.is_full());
        assert!(queue.look() && !queue.is_full());
        // What the first waits for.
        assert!(arrive(&mut queue, id(3).nested(1)));
        for call in 4..=14 {
            assert!(!queue.is_full() && !arrive(&mut queue, id(call)), "{call}");
        }
        assert!(!arrive(&mut queue, id(15)) && queue.is_full() && queue.look() && queue.is_full());
        queue.answer(id(3).nested(1));
        assert_eq!(queue.finish(id(3).nested(1), cost), None);
        assert!(!queue.look() && queue.look());
        for call in 0..12 {
            let next = if call == 2 { 4 } else { call + 1 };
            if call != 3 {
                assert_eq!(done(&mut queue, call, cost), Some(id(next)));
            }
        }
        // As before, once so much waits as should.
        assert_eq!(done(&mut queue, 12, cost), Some(id(13)));
        assert_eq!((done(&mut queue, 13, cost), queue.is_full()), (Some(id(14)), false));
        assert!(!arrive(&mut queue, id(16)) && queue.is_full());
    }

    #[test]
    fn what_waits_is_bounded_by_number_and_bytes() {
        let bounds = Bounds { running: 1, waiting: 2, held: 10, ..Bounds::default() };
        let cost = |held| Cost { held, copied: 0 };
        let mut queue = RunQueue::new(bounds);
        queue.arrive(id(0), (), cost(100), 0).unwrap();
        queue.arrive(id(1), (), cost(1), 1).unwrap();
        assert!(!queue.is_full());
        queue.arrive(id(2), (), cost(1), 2).unwrap();
        assert!(queue.is_full());
        assert_eq!(done(&mut queue, 0, cost(100)), Some(1));
        assert!(!queue.is_full());
        assert_eq!(queue.cancel(id(2)), Cancelled::Waiting(2));
        queue.arrive(id(3), (), cost(11), 3).unwrap();
        assert!(queue.is_full());
        assert_eq!(done(&mut queue, 1, cost(1)), Some(3));
        assert!(!queue.is_full());
    }
}
