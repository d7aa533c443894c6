//! [`Desk`]: what a server owes one client, as a pure machine.

use std::collections::HashMap;

use crate::frame::CallId;
use crate::receive::Violation;
use crate::run_queue::{Bounds, Cancelled, Cost, RunQueue};

/// The types of a driver of [`Desk`].
pub trait Driver {
    /// A call that has arrived: what is run.
    type Call;
    /// What cancelling a call that runs takes.
    type Handle: Clone;
    /// A result in shared memory, which stays until the client has read it.
    type Block;
    /// The receive half of the connection.
    type Receive;
}

/// The calls of one client that are not answered, its results that are not read, and the parked receive half.
///
/// It does no I/O and runs nothing. A driver feeds it what has happened, and does what it gives back:
///
/// | what happened | tell | what to do |
/// |---|---|---|
/// | a Call | [`arrive`](Self::arrive) | run the call that it gives back; `None`: the call waits |
/// | a Cancel | [`cancel`](Self::cancel) | refuse the call that waited, or tell the one that runs; then [`start_next`](Self::start_next) |
/// | a Release | [`release`](Self::release) | free the block |
/// | a Resend | [`resend`](Self::resend) | send the result again with its body in line, and free the block |
/// | a call has a result | [`answer`](Self::answer) | send its frame, not before this |
/// | that frame is on its way | [`finish`](Self::finish) | run the next call; hold the receive half, if it comes back |
/// | the end of what the client sends | [`hang_up`](Self::hang_up) | go on until [`is_drained`](Self::is_drained) |
/// | the connection is over | [`end`](Self::end) | cancel, drop and free all that comes back |
///
/// Before each receive it asks [`may_receive`](Self::may_receive). Where that says no, the receive half is
/// kept, or [parked](Self::park_if_full) here until a call ends: this is how a client that sends without
/// reading is slowed down.
///
/// Invariant: each call that arrives is given back once, to be run, to be refused, or at the end; each block
/// is, too.
///
/// ```
/// use lpc_core::desk::{Desk, Driver};
/// use lpc_core::frame::CallId;
/// use lpc_core::run_queue::{Bounds, Cancelled, Cost};
///
/// struct Names;
/// impl Driver for Names {
///     type Call = &'static str;
///     type Handle = ();
///     type Block = Vec<u8>;
///     type Receive = ();
/// }
///
/// let mut desk = Desk::<Names>::new(Bounds { running: 1, ..Bounds::default() });
/// let [first, second, third] = [1, 2, 3].map(CallId::new);
/// assert_eq!(desk.arrive(first, (), Cost::default(), "first")?, Some("first"));
/// assert_eq!(desk.arrive(second, (), Cost::default(), "second")?, None);
/// assert_eq!(desk.arrive(third, (), Cost::default(), "third")?, None);
/// assert_eq!(desk.cancel(second), Cancelled::Waiting("second"));
/// desk.answer(first, Some(vec![7; 4096]))?;
/// assert_eq!(desk.finish(first, Cost::default()).call, Some("third"));
/// assert_eq!(desk.release(first)?.len(), 4096);
/// # Ok::<(), lpc_core::receive::Violation>(())
/// ```
#[derive(Debug)]
pub struct Desk<D: Driver> {
    queue: RunQueue<D::Call, D::Handle>,
    results: HashMap<CallId, D::Block>,
    /// The receive half, while its holder runs a call, or nothing more is to be received. It is held by the
    /// thread or task that takes it out.
    parked: Option<D::Receive>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The client sends nothing more; what has arrived is answered.
    Draining,
    /// Nothing is sent or run any more.
    Over,
}

/// What is to be done after a call has ended.
#[derive(Debug)]
pub struct Next<D: Driver> {
    /// To be run.
    pub call: Option<D::Call>,
    /// Others may run beside it: [`Desk::start_next`] has them.
    pub has_more: bool,
    /// To be held by the thread or task that ended the call.
    pub receive: Option<D::Receive>,
}

/// What is left when a connection is over.
#[derive(Debug)]
pub struct Remains<D: Driver> {
    /// Calls that waited. They do not run, and are not answered.
    pub waiting: Vec<D::Call>,
    /// The handles of the calls that run, to be cancelled.
    pub running: Vec<D::Handle>,
    /// The results that the client has not read.
    pub results: Vec<D::Block>,
    /// The receive half, if it was parked.
    pub receive: Option<D::Receive>,
}

impl<D: Driver> Desk<D> {
    /// The desk of a client that has not called yet.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let (queue, results) = (RunQueue::new(bounds), HashMap::new());
        Self { queue, results, parked: None, phase: Phase::Open }
    }

    /// A call has arrived. Gives it back if it is to run now.
    ///
    /// # Errors
    ///
    /// Another call of that id is not answered yet.
    #[inline]
    pub fn arrive(
        &mut self,
        id: CallId,
        handle: D::Handle,
        cost: Cost,
        call: D::Call,
    ) -> Result<Option<D::Call>, Violation> {
        debug_assert_ne!(self.phase, Phase::Over, "nothing arrives after the end");
        self.queue.arrive(id, handle, cost, call)
    }

    /// A call was cancelled by its client.
    pub fn cancel(&mut self, id: CallId) -> Cancelled<D::Call, D::Handle> {
        self.queue.cancel(id)
    }

    /// The client has read the result of a call.
    ///
    /// # Errors
    ///
    /// None of that id is in a block.
    pub fn release(&mut self, id: CallId) -> Result<D::Block, Violation> {
        let reason = "has no result to be released";
        self.results.remove(&id).ok_or(Violation::CallState { call: id, reason })
    }

    /// The client cannot read the block in which the result of a call is.
    ///
    /// # Errors
    ///
    /// None of that id is in a block.
    pub fn resend(&mut self, id: CallId) -> Result<D::Block, Violation> {
        let reason = "has no result to be sent again";
        self.results.remove(&id).ok_or(Violation::CallState { call: id, reason })
    }

    /// A call that ran is about to be answered, with a result in this block, if it is in one. Its id is free
    /// from now on.
    ///
    /// After the [end](Self::end) the block is dropped.
    ///
    /// # Errors
    ///
    /// The result of an earlier call of that id was not released.
    #[inline]
    pub fn answer(&mut self, id: CallId, block: Option<D::Block>) -> Result<(), Violation> {
        self.queue.answer(id);
        match block {
            Some(block) => self.keep(id, block),
            None => Ok(()),
        }
    }

    #[cold]
    fn keep(&mut self, id: CallId, block: D::Block) -> Result<(), Violation> {
        if self.phase != Phase::Over && self.results.insert(id, block).is_some() {
            let reason = "is called again before the result of its first was released";
            return Err(Violation::CallState { call: id, reason });
        }
        Ok(())
    }

    /// The answer of a call that ran is on its way.
    #[inline]
    pub fn finish(&mut self, id: CallId, cost: Cost) -> Next<D> {
        let call = self.queue.finish(id, cost);
        Next { call, has_more: self.queue.may_start(), receive: self.take_parked() }
    }

    /// Whether a call that waits may run.
    #[must_use]
    pub fn may_start(&self) -> bool {
        self.queue.may_start()
    }

    /// A call that waits and may run now.
    pub fn start_next(&mut self) -> Option<D::Call> {
        self.queue.start_next()
    }

    /// Whether more is to be received now. `is_congested` says whether more answers are queued than the
    /// client is given credit for: whatever they answer, nothing is received from a client that does not take
    /// them.
    #[must_use]
    pub fn may_receive(&self, is_congested: bool) -> bool {
        !is_congested && !self.queue.is_full()
    }

    /// To be asked from time to time while more is [not to be received](Self::may_receive) because too much
    /// waits. Whether the calls that run stand still: then more is, up to a second bound.
    pub fn look(&mut self) -> bool {
        self.queue.look()
    }

    /// Parks the receive half while its holder runs a call, for the thread or task that
    /// [takes](Self::take_parked) it over.
    #[inline]
    pub fn park(&mut self, receive: D::Receive) {
        debug_assert!(self.parked.is_none(), "there is one receive half");
        self.parked = Some(receive);
    }

    /// Parks the receive half until a call has ended; gives it back where more may be received by now.
    #[must_use]
    pub fn park_if_full(&mut self, receive: D::Receive) -> Option<D::Receive> {
        if !self.queue.is_full() {
            return Some(receive);
        }
        self.park(receive);
        None
    }

    /// Takes the receive half, if it is parked and more may be received.
    #[inline]
    pub fn take_parked(&mut self) -> Option<D::Receive> {
        if self.queue.is_full() { None } else { self.parked.take() }
    }

    /// The client sends nothing more. It may still wait for answers.
    pub fn hang_up(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Draining;
        }
    }

    /// Whether the client sends nothing more, and all that it has sent is answered.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.phase != Phase::Open && self.is_idle()
    }

    /// The connection is over, whatever runs.
    pub fn end(&mut self) -> Remains<D> {
        self.phase = Phase::Over;
        let (waiting, running) = self.queue.cancel_all();
        let results = self.results.drain().map(|(_, block)| block).collect();
        Remains { waiting, running, results, receive: self.parked.take() }
    }

    /// Whether the connection is over.
    #[must_use]
    #[inline]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Whether no call runs or waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_idle()
    }

    /// Calls that run.
    #[must_use]
    #[inline]
    pub fn running(&self) -> usize {
        self.queue.running()
    }

    /// Whether it is so of a call that is not answered.
    pub fn has(&self, is_so: impl FnMut(&D::Handle) -> bool) -> bool {
        self.queue.has(is_so)
    }

    /// Calls that run or wait.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.queue.unanswered()
    }
}
