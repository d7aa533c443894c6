//! The turns of a blocking client's callers, by threads that park and are woken.
//!
//! A server answers whatever is flushed. No park here ends because time has passed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Wake, Waker};

use loom::sync::{Condvar, Mutex};
use loom::thread;
use lpc_core::calls::{Calls, Fetched};
use lpc_core::frame::CallId;
use lpc_core::send::StreamPosition;
use lpc_core::turns::{Actions, Caller, Spot, Step, Turns, Waits};

/// Parks a thread. (loom forgets to unpark a thread that waits for a mutex at that moment.)
#[derive(Default)]
struct Parker {
    is_woken: Mutex<bool>,
    woken: Condvar,
}

impl Parker {
    fn park(&self) {
        let mut is_woken = self.is_woken.lock().unwrap();
        while !*is_woken {
            is_woken = self.woken.wait(is_woken).unwrap();
        }
        *is_woken = false;
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        *self.is_woken.lock().unwrap() = true;
        self.woken.notify_one();
    }
}

#[derive(Debug)]
struct Half;

struct State {
    turns: Turns<Half>,
    calls: Calls<CallId, (), Spot>,
    deferred: Vec<CallId>,
}

struct Client {
    state: Mutex<State>,
    /// Answers that have come, for the caller that receives.
    answers: Mutex<VecDeque<CallId>>,
    came: Condvar,
}

impl Client {
    fn new(contention: usize, max_calls: usize) -> Arc<Self> {
        let turns = Turns::new(Half, contention);
        let state = State { turns, calls: Calls::new(max_calls), deferred: Vec::new() };
        Arc::new(Self { state: Mutex::new(state), answers: Mutex::default(), came: Condvar::new() })
    }

    fn act(&self, Actions { wake, flush }: Actions) {
        if flush {
            let deferred = std::mem::take(&mut self.state.lock().unwrap().deferred);
            self.arrive(deferred);
        }
        if let Some(waker) = wake {
            waker.wake();
        }
    }

    fn arrive(&self, calls: Vec<CallId>) {
        self.answers.lock().unwrap().extend(calls);
        self.came.notify_all();
    }

    fn call(&self) {
        let parker = Arc::new(Parker::default());
        let waker = Waker::from(Arc::clone(&parker));
        let id = self.admitted(&parker, &waker);
        let mut state = self.state.lock().unwrap();
        let mut half = if state.turns.defers() {
            state.deferred.push(id);
            state.calls.sent(id, StreamPosition::Socket(1));
            state.turns.defer();
            drop(state);
            None
        } else {
            state.turns.begin_send();
            drop(state);
            self.arrive(vec![id]);
            let mut state = self.state.lock().unwrap();
            let waits = state.calls.sent(id, StreamPosition::Socket(1));
            let (half, actions) = state.turns.end_send(waits);
            drop(state);
            self.act(actions);
            half
        };
        let mut caller = Caller::new(Waits::ForAnswer);
        loop {
            if let Some(half) = half.take() {
                return self.receive_for(id, half);
            }
            let mut state = self.state.lock().unwrap();
            if let Some(Fetched::Answer(gone)) = state.calls.fetch(id) {
                return self.leave(state, gone);
            }
            let (step, actions) = state.turns.step(&mut caller, &waker);
            match step {
                Step::Receive(taken) => half = Some(taken),
                Step::Park(spot) => {
                    state.calls.wait(id, spot);
                    drop(state);
                    self.act(actions);
                    parker.park();
                    let actions = self.state.lock().unwrap().turns.resume(&mut caller, spot);
                    self.act(actions);
                    continue;
                }
            }
            drop(state);
            self.act(actions);
        }
    }

    fn admitted(&self, parker: &Parker, waker: &Waker) -> CallId {
        let mut state = self.state.lock().unwrap();
        if state.calls.admit().unwrap() {
            return state.calls.start(None);
        }
        let mut ticket = state.calls.queue();
        let mut caller = Caller::new(Waits::Idle);
        state.turns.enter_idle();
        loop {
            ticket = match state.calls.admitted(ticket).unwrap() {
                None => {
                    let actions = state.turns.leave();
                    let id = state.calls.start(None);
                    drop(state);
                    self.act(actions);
                    return id;
                }
                Some(ticket) => ticket,
            };
            let (step, actions) = state.turns.step(&mut caller, waker);
            match step {
                Step::Receive(half) => {
                    drop(state);
                    self.act(actions);
                    let answer = self.answers.lock().unwrap().pop_front();
                    if let Some(answer) = answer {
                        self.deliver(answer);
                    } else {
                        thread::yield_now();
                    }
                    state = self.state.lock().unwrap();
                    state.turns.put_back(half);
                }
                Step::Park(spot) => {
                    state.calls.wait_for_permit(&ticket, spot);
                    drop(state);
                    self.act(actions);
                    parker.park();
                    let actions = self.state.lock().unwrap().turns.resume(&mut caller, spot);
                    self.act(actions);
                    state = self.state.lock().unwrap();
                }
            }
        }
    }

    fn receive_for(&self, id: CallId, half: Half) {
        loop {
            let mut answers = self.answers.lock().unwrap();
            let answer = loop {
                match answers.pop_front() {
                    Some(answer) => break answer,
                    None => answers = self.came.wait(answers).unwrap(),
                }
            };
            drop(answers);
            if answer == id {
                break;
            }
            self.deliver(answer);
        }
        let mut state = self.state.lock().unwrap();
        state.turns.put_back(half);
        let gone = state.calls.answer_own(id);
        self.leave(state, gone);
    }

    fn deliver(&self, id: CallId) {
        let mut state = self.state.lock().unwrap();
        state.turns.begin_delivery();
        let wake = state.calls.answer(id, Ok(id)).unwrap().wake;
        let wake = wake.and_then(|spot| state.turns.wake(spot));
        drop(state);
        self.act(Actions { wake, flush: false });
        let actions = self.state.lock().unwrap().turns.end_delivery();
        self.act(actions);
    }

    fn leave(
        &self,
        mut state: loom::sync::MutexGuard<'_, State>,
        gone: lpc_core::calls::Gone<CallId, (), Spot>,
    ) {
        let wake = gone.wake.and_then(|spot| state.turns.wake(spot));
        let actions = state.turns.leave();
        drop(state);
        self.act(actions);
        self.act(Actions { wake, flush: false });
    }
}

/// Each thread calls once, and all come back.
fn calls(threads: usize, contention: usize, max_calls: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let client = Client::new(contention, max_calls);
        let others: Vec<_> = (1..threads)
            .map(|_| {
                let client = Arc::clone(&client);
                thread::spawn(move || client.call())
            })
            .collect();
        client.call();
        for other in others {
            other.join().unwrap();
        }
        let state = client.state.lock().unwrap();
        assert!(state.calls.is_empty() && state.deferred.is_empty() && state.turns.is_free());
    });
}

#[test]
fn two_callers_receive_for_each_other() {
    calls(2, 16, 16);
}

#[test]
fn what_is_deferred_is_flushed() {
    calls(3, 2, 16);
}

#[test]
fn a_permit_reaches_the_caller_that_waits_for_it() {
    calls(2, 16, 1);
}
