//! The server's desk against a model that keeps plain lists.

use std::collections::{BTreeMap, VecDeque};

use lpc_core::desk::{Desk, Driver, Remains};
use lpc_core::frame::CallId;
use lpc_core::run_queue::{Bounds, Cancelled, Cost};
use proptest::prelude::*;

/// What stands for a call, its handle, its block: the number of the call, in the order of arrival.
struct Numbers;

impl Driver for Numbers {
    type Call = usize;
    type Handle = usize;
    type Block = usize;
    type Receive = Half;
}

/// The one receive half.
#[derive(Debug, PartialEq, Eq)]
struct Half;

const BOUNDS: Bounds = Bounds { running: 3, copied: 10, waiting: 4, held: 12 };

#[derive(Clone, Debug)]
enum Event {
    Call {
        id: u64,
        cost: Cost,
    },
    Cancel(u64),
    Release(u64),
    Resend(u64),
    /// One of the calls that run has a result.
    Result {
        which: usize,
        is_in_block: bool,
    },
    /// The answer of one that has is on its way.
    Sent {
        which: usize,
    },
    StartNext,
    Park,
    ParkIfFull,
    TakeParked,
    HangUp,
    End,
}

fn event() -> impl Strategy<Value = Event> {
    let id = 0..8_u64;
    let cost = (0..8_u64, prop_oneof![3 => Just(0), 2 => 1..12_u64]);
    prop_oneof![
        12 => (id.clone(), cost).prop_map(|(id, (held, copied))| Event::Call { id, cost: Cost { held, copied } }),
        4 => id.clone().prop_map(Event::Cancel),
        4 => id.clone().prop_map(Event::Release),
        2 => id.prop_map(Event::Resend),
        10 => (any::<usize>(), any::<bool>()).prop_map(|(which, is_in_block)| Event::Result { which, is_in_block }),
        10 => any::<usize>().prop_map(|which| Event::Sent { which }),
        2 => Just(Event::StartNext),
        2 => Just(Event::Park),
        2 => Just(Event::ParkIfFull),
        2 => Just(Event::TakeParked),
        1 => Just(Event::HangUp),
        1 => Just(Event::End),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Call {
    id: u64,
    number: usize,
    cost: Cost,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Ran,
    Refused,
    Dropped,
}

#[derive(Default)]
struct Model {
    calls: usize,
    waiting: VecDeque<Call>,
    running: Vec<Call>,
    /// They have a result that is not on its way.
    answering: Vec<Call>,
    results: BTreeMap<u64, usize>,
    fates: BTreeMap<usize, Fate>,
    is_parked: bool,
    has_hung_up: bool,
    is_over: bool,
}

impl Model {
    fn is_in_use(&self, id: u64) -> bool {
        self.waiting.iter().chain(&self.running).any(|call| call.id == id)
    }

    fn may_run(&self, cost: Cost) -> bool {
        let running = || self.running.iter().chain(&self.answering);
        let copied: u64 = running().map(|call| call.cost.copied).sum();
        let fits = cost.copied == 0 || copied == 0 || copied + cost.copied <= BOUNDS.copied;
        running().count() < BOUNDS.running && fits
    }

    fn is_full(&self) -> bool {
        let held: u64 = self.waiting.iter().map(|call| call.cost.held).sum();
        self.waiting.len() >= BOUNDS.waiting || held > BOUNDS.held
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty() && self.answering.is_empty()
    }

    fn may_start(&self) -> bool {
        self.waiting.front().is_some_and(|call| self.may_run(call.cost))
    }

    fn end(&mut self, number: usize, fate: Fate) {
        assert_eq!(self.fates.insert(number, fate), None, "call {number} ends twice");
    }

    /// The next one runs, if one may.
    fn start(&mut self) -> Option<usize> {
        let call = self.may_start().then(|| self.waiting.pop_front()).flatten()?;
        self.end(call.number, Fate::Ran);
        self.running.push(call);
        Some(call.number)
    }

    fn take_parked(&mut self) -> Option<Half> {
        (!self.is_full() && std::mem::take(&mut self.is_parked)).then_some(Half)
    }

    fn step(&mut self, desk: &mut Desk<Numbers>, event: Event) {
        match event {
            Event::Call { .. } if self.has_hung_up || self.is_over => {}
            Event::Call { id, cost } => {
                let (number, is_in_use) = (self.calls, self.is_in_use(id));
                match desk.arrive(CallId::new(id), number, cost, number) {
                    Err(violation) => assert!(is_in_use, "{violation}"),
                    Ok(runs) => {
                        assert!(!is_in_use, "an id is in use until its call is answered");
                        self.calls += 1;
                        let call = Call { id, number, cost };
                        assert_eq!(runs.is_some(), self.waiting.is_empty() && self.may_run(cost));
                        match runs {
                            Some(ran) => {
                                assert_eq!(ran, number);
                                self.end(number, Fate::Ran);
                                self.running.push(call);
                            }
                            None => self.waiting.push_back(call),
                        }
                    }
                }
            }
            Event::Cancel(id) => {
                let waiting = self.waiting.iter().position(|call| call.id == id);
                let running = self.running.iter().find(|call| call.id == id);
                let expected = match (waiting, running) {
                    (Some(place), _) => {
                        let call = self.waiting.remove(place).expect("it is there");
                        self.end(call.number, Fate::Refused);
                        Cancelled::Waiting(call.number)
                    }
                    (None, Some(call)) => Cancelled::Running(call.number),
                    (None, None) => Cancelled::Nothing,
                };
                assert_eq!(desk.cancel(CallId::new(id)), expected);
            }
            Event::Release(id) => assert_eq!(desk.release(CallId::new(id)).ok(), self.results.remove(&id)),
            Event::Resend(id) => assert_eq!(desk.resend(CallId::new(id)).ok(), self.results.remove(&id)),
            Event::Result { .. } if self.running.is_empty() => {}
            Event::Result { which, is_in_block } => {
                let call = self.running.remove(which % self.running.len());
                self.answering.push(call);
                let block = is_in_block.then_some(call.number);
                let is_held = is_in_block && !self.is_over && self.results.contains_key(&call.id);
                assert_eq!(desk.answer(CallId::new(call.id), block).is_err(), is_held);
                if let Some(block) = block.filter(|_| !self.is_over) {
                    self.results.insert(call.id, block);
                }
            }
            Event::Sent { .. } if self.answering.is_empty() => {}
            Event::Sent { which } => {
                let call = self.answering.remove(which % self.answering.len());
                let next = desk.finish(CallId::new(call.id), call.cost);
                assert_eq!(next.call, self.start());
                assert_eq!(next.has_more, self.may_start());
                assert_eq!(next.receive, self.take_parked());
            }
            Event::StartNext => assert_eq!(desk.start_next(), self.start()),
            Event::Park if !self.is_parked => {
                desk.park(Half);
                self.is_parked = true;
            }
            Event::ParkIfFull if !self.is_parked => {
                self.is_parked = desk.park_if_full(Half).is_none();
                assert_eq!(self.is_parked, self.is_full());
            }
            Event::Park | Event::ParkIfFull => {}
            Event::TakeParked => assert_eq!(desk.take_parked(), self.take_parked()),
            Event::HangUp => {
                desk.hang_up();
                self.has_hung_up = true;
            }
            Event::End => {
                let Remains { waiting, running, results, receive } = desk.end();
                self.is_over = true;
                assert!(waiting.iter().eq(self.waiting.iter().map(|call| &call.number)));
                for call in std::mem::take(&mut self.waiting) {
                    self.end(call.number, Fate::Dropped);
                }
                let sorted = |mut numbers: Vec<usize>| {
                    numbers.sort_unstable();
                    numbers
                };
                assert_eq!(sorted(running), sorted(self.running.iter().map(|call| call.number).collect()));
                let results_of_model = std::mem::take(&mut self.results).into_values().collect();
                assert_eq!(sorted(results), sorted(results_of_model));
                assert_eq!(receive.is_some(), std::mem::take(&mut self.is_parked));
            }
        }
    }

    fn check(&self, desk: &Desk<Numbers>) {
        assert_eq!(desk.running(), self.running.len() + self.answering.len());
        assert_eq!(desk.unanswered(), self.waiting.len() + self.running.len());
        assert_eq!(desk.is_idle(), self.is_idle());
        assert_eq!(desk.may_start(), self.may_start());
        assert_eq!(desk.may_receive(false), !self.is_full());
        assert!(!desk.may_receive(true), "a client that takes no answers is not listened to");
        assert_eq!(desk.is_drained(), (self.has_hung_up || self.is_over) && self.is_idle());
        assert_eq!(desk.is_over(), self.is_over);
        // Where nothing is received until a call ends, there is one.
        assert!(!self.is_full() || !self.is_idle());
    }
}

proptest! {
    #[test]
    fn a_desk_does_as_its_model(events in prop::collection::vec(event(), 0..120)) {
        let (mut desk, mut model) = (Desk::<Numbers>::new(BOUNDS), Model::default());
        for event in events {
            model.step(&mut desk, event);
            model.check(&desk);
        }
        // Whatever happened, all that runs comes to its end, and nothing is left.
        while !model.running.is_empty() {
            model.step(&mut desk, Event::Result { which: 0, is_in_block: false });
        }
        while !model.is_idle() {
            model.step(&mut desk, Event::Sent { which: 0 });
            while !model.running.is_empty() {
                model.step(&mut desk, Event::Result { which: 0, is_in_block: false });
            }
        }
        model.check(&desk);
        prop_assert_eq!(model.fates.len(), model.calls, "each call ends once");
    }
}
