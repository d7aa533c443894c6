//! The turns of callers, in any order of their steps: nobody waits for ever, no frame stays deferred, one
//! caller receives at a time.
//!
//! No caller here ever wakes up because time has passed: what the driver's timeouts are for is only how long
//! things take.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Wake, Waker};

use lpc_core::calls::{Calls, Fetched};
use lpc_core::frame::CallId;
use lpc_core::permits::Ticket;
use lpc_core::send::StreamPosition;
use lpc_core::turns::{Actions, Caller, Spot, Step, Turns, Waits};
use proptest::prelude::*;

/// The one receive half.
#[derive(Debug)]
struct Half;

/// A thread that is woken, or will be as soon as it parks.
struct Token(AtomicBool);

impl Wake for Token {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

struct Thread {
    token: Arc<Token>,
    waker: Waker,
    left: u32,
    actions: VecDeque<Actions>,
    at: At,
}

/// Where in its call a thread is.
enum At {
    Outside,
    Queued { ticket: Ticket, caller: Caller, spot: Option<Spot> },
    QueuedReceiving { ticket: Ticket, caller: Caller, half: Half },
    Sending { id: CallId },
    Waiting { id: CallId, caller: Caller, spot: Option<Spot> },
    Receiving { id: CallId, caller: Caller, half: Half },
    Done,
}

struct World {
    turns: Turns<Half>,
    calls: Calls<CallId, (), Spot>,
    /// Frames that wait for somebody to flush them.
    deferred: Vec<CallId>,
    /// Answers that can be received: the server answers whatever is sent.
    answers: VecDeque<CallId>,
    threads: Vec<Thread>,
}

impl World {
    fn new(threads: usize, calls: u32, contention: usize, limit: usize) -> Self {
        let thread = |_| {
            let token = Arc::new(Token(AtomicBool::new(false)));
            let waker = Waker::from(Arc::clone(&token));
            Thread { token, waker, left: calls, actions: VecDeque::new(), at: At::Outside }
        };
        Self {
            turns: Turns::new(Half, contention),
            calls: Calls::new(limit),
            deferred: Vec::new(),
            answers: VecDeque::new(),
            threads: (0..threads).map(thread).collect(),
        }
    }

    /// Whether a thread can go on.
    fn is_ready(&self, thread: usize) -> bool {
        let Thread { token, actions, at, .. } = &self.threads[thread];
        match at {
            _ if !actions.is_empty() => true,
            At::Queued { spot: Some(_), .. } | At::Waiting { spot: Some(_), .. } => token.0.load(Relaxed),
            // An idle caller receives for a moment only.
            At::Receiving { .. } => !self.answers.is_empty(),
            At::Done => false,
            _ => true,
        }
    }

    /// One section under the lock, or one thing that is done after it.
    fn step(&mut self, thread: usize, choice: u8) {
        if let Some(Actions { wake, flush }) = self.threads[thread].actions.pop_front() {
            if flush {
                self.answers.extend(self.deferred.drain(..));
            }
            if let Some(waker) = wake {
                waker.wake();
            }
            return;
        }
        let at = std::mem::replace(&mut self.threads[thread].at, At::Done);
        let at = match at {
            At::Outside if self.threads[thread].left == 0 => At::Done,
            At::Outside => {
                self.threads[thread].left -= 1;
                if self.calls.admit().unwrap() {
                    self.start(thread, choice)
                } else {
                    self.turns.enter_idle();
                    let ticket = self.calls.queue();
                    At::Queued { ticket, caller: Caller::new(Waits::Idle), spot: None }
                }
            }
            At::Queued { ticket, mut caller, spot } => {
                self.resume(thread, &mut caller, spot);
                match self.calls.admitted(ticket).unwrap() {
                    None => {
                        let actions = self.turns.leave();
                        self.then(thread, actions);
                        self.start(thread, choice)
                    }
                    Some(ticket) => match self.turn(thread, &mut caller) {
                        Step::Receive(half) => At::QueuedReceiving { ticket, caller, half },
                        Step::Park(spot) => {
                            self.calls.wait_for_permit(&ticket, spot);
                            At::Queued { ticket, caller, spot: Some(spot) }
                        }
                    },
                }
            }
            At::QueuedReceiving { ticket, caller, half } => {
                if let Some(id) = self.answers.pop_front() {
                    self.deliver(thread, id);
                }
                self.turns.put_back(half);
                At::Queued { ticket, caller, spot: None }
            }
            At::Sending { id } => {
                self.answers.push_back(id);
                // Another thread may receive the answer before this one says that it has sent.
                let waits = self.calls.sent(id, StreamPosition::Socket(1));
                let (half, actions) = self.turns.end_send(waits);
                self.then(thread, actions);
                Self::waits(id, half)
            }
            At::Waiting { id, mut caller, spot } => {
                self.resume(thread, &mut caller, spot);
                match self.calls.fetch(id) {
                    Some(Fetched::Answer(gone)) => self.leave(thread, gone),
                    Some(Fetched::Rejected(())) => unreachable!("nothing is rejected"),
                    None => match self.turn(thread, &mut caller) {
                        Step::Receive(half) => At::Receiving { id, caller, half },
                        Step::Park(spot) => {
                            self.calls.wait(id, spot);
                            At::Waiting { id, caller, spot: Some(spot) }
                        }
                    },
                }
            }
            At::Receiving { id, caller, half } => {
                let answer = self.answers.pop_front().unwrap();
                if answer == id {
                    self.turns.put_back(half);
                    let gone = self.calls.answer_own(id);
                    self.leave(thread, gone)
                } else {
                    self.deliver(thread, answer);
                    At::Receiving { id, caller, half }
                }
            }
            At::Done => unreachable!("it is not ready"),
        };
        self.threads[thread].at = at;
    }

    fn waits(id: CallId, half: Option<Half>) -> At {
        let caller = Caller::new(Waits::ForAnswer);
        match half {
            Some(half) => At::Receiving { id, caller, half },
            None => At::Waiting { id, caller, spot: None },
        }
    }

    fn start(&mut self, thread: usize, choice: u8) -> At {
        let id = self.calls.start(None);
        if choice.is_multiple_of(3) {
            // Into the ring.
            self.answers.push_back(id);
            self.calls.sent(id, StreamPosition::Ring(1));
            let half = self.turns.enter();
            return Self::waits(id, half);
        }
        if choice % 3 == 1 && self.turns.defers() {
            self.deferred.push(id);
            self.calls.sent(id, StreamPosition::Socket(1));
            self.turns.defer();
            return Self::waits(id, None);
        }
        let _ = thread;
        self.turns.begin_send();
        At::Sending { id }
    }

    fn resume(&mut self, thread: usize, caller: &mut Caller, spot: Option<Spot>) {
        if let Some(spot) = spot {
            self.threads[thread].token.0.store(false, Relaxed);
            let actions = self.turns.resume(caller, spot);
            self.then(thread, actions);
        }
    }

    fn turn(&mut self, thread: usize, caller: &mut Caller) -> Step<Half> {
        let waker = self.threads[thread].waker.clone();
        let (step, actions) = self.turns.step(caller, &waker);
        self.then(thread, actions);
        step
    }

    fn deliver(&mut self, thread: usize, id: CallId) {
        self.turns.begin_delivery();
        let delivered = self.calls.answer(id, Ok(id)).unwrap();
        if let Some(waker) = delivered.wake.and_then(|spot| self.turns.wake(spot)) {
            self.then(thread, Actions { wake: Some(waker), flush: false });
        }
        let actions = self.turns.end_delivery();
        self.then(thread, actions);
    }

    fn leave(&mut self, thread: usize, gone: lpc_core::calls::Gone<CallId, (), Spot>) -> At {
        let wake = gone.wake.and_then(|spot| self.turns.wake(spot));
        self.then(thread, Actions { wake, flush: false });
        let actions = self.turns.leave();
        self.then(thread, actions);
        At::Outside
    }

    /// What a thread does after the lock, whenever it is let run.
    fn then(&mut self, thread: usize, actions: Actions) {
        if actions.wake.is_some() || actions.flush {
            self.threads[thread].actions.push_back(actions);
        }
    }

    fn run(&mut self, choices: &[(u8, u8, bool)]) {
        let mut choices = choices.iter().copied().cycle();
        for _ in 0..100_000 {
            let (which, choice, is_spurious) = choices.next().unwrap();
            let ready: Vec<_> = (0..self.threads.len()).filter(|thread| self.is_ready(*thread)).collect();
            if ready.is_empty() {
                break;
            }
            // Threads may run although nobody woke them.
            let all = self.threads.len();
            let spurious = usize::from(which) % all;
            let parked = matches!(
                self.threads[spurious].at,
                At::Queued { spot: Some(_), .. } | At::Waiting { spot: Some(_), .. }
            );
            let thread =
                if is_spurious && parked { spurious } else { ready[usize::from(which) % ready.len()] };
            self.step(thread, choice);
        }
        let stuck = self.threads.iter().filter(|thread| !matches!(thread.at, At::Done)).count();
        assert_eq!(stuck, 0, "threads wait for ever, {} frames deferred", self.deferred.len());
        assert!(self.calls.is_empty() && self.deferred.is_empty() && self.answers.is_empty());
        assert!(self.turns.is_free(), "the half is back");
        assert!(!self.turns.defers() && !self.calls.has_unanswered(), "nobody is counted any more");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_call_ends_whatever_the_order(
        threads in 1..8usize,
        calls in 1..4u32,
        contention in 2..5usize,
        limit in 1..8usize,
        choices in prop::collection::vec((any::<u8>(), any::<u8>(), prop::bool::weighted(0.1)), 20..200),
    ) {
        World::new(threads, calls, contention, limit).run(&choices);
    }
}

#[test]
fn a_lone_caller_receives_by_itself() {
    let mut turns = Turns::new(Half, 16);
    turns.begin_send();
    let (half, actions) = turns.end_send(true);
    assert!(actions.wake.is_none() && !actions.flush);
    turns.put_back(half.unwrap());
    let actions = turns.leave();
    assert!(actions.wake.is_none() && turns.is_free());
}

#[test]
fn an_idle_caller_leaves_receiving_to_those_that_wait_for_answers() {
    let mut turns = Turns::new(Half, 16);
    let half = turns.enter().unwrap();
    let (mut waits, mut idle) = (Caller::new(Waits::ForAnswer), Caller::new(Waits::Idle));
    assert!(turns.enter().is_none());
    let (step, _) = turns.step(&mut waits, Waker::noop());
    assert!(matches!(step, Step::Park(_)));
    let actions = turns.give_back(half);
    assert!(actions.wake.is_some(), "a caller that waits for its answer is to receive");
    turns.enter_idle();
    let (step, actions) = turns.step(&mut idle, Waker::noop());
    assert!(
        matches!(step, Step::Park(_)),
        "that one runs by now, and may give up what the idle one waits for"
    );
    assert!(actions.wake.is_none());
    let actions = turns.leave();
    assert!(actions.wake.is_some(), "nobody else is left to receive");
}
