//! The calls of a client against a model that keeps plain lists.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;

use lpc_core::calls::{Abandoned, Calls, Fetched};
use lpc_core::frame::CallId;
use lpc_core::send::StreamPosition;
use lpc_core::{Error, ErrorKind, Progress};
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Event {
    Start {
        has_body: bool,
    },
    Sent(usize),
    Unsent(usize),
    Answer(usize),
    Reject(usize),
    Fetch(usize),
    Wait(usize),
    Abandon(usize),
    /// Nothing more is sent: what ends at this position or later never goes out.
    FailUnsent(u64),
    End,
}

fn event() -> impl Strategy<Value = Event> {
    let which = any::<usize>();
    prop_oneof![
        6 => any::<bool>().prop_map(|has_body| Event::Start { has_body }),
        6 => which.prop_map(Event::Sent),
        1 => which.prop_map(Event::Unsent),
        5 => which.prop_map(Event::Answer),
        2 => which.prop_map(Event::Reject),
        5 => which.prop_map(Event::Fetch),
        3 => which.prop_map(Event::Wait),
        3 => which.prop_map(Event::Abandon),
        1 => (0..200u64).prop_map(Event::FailUnsent),
        1 => Just(Event::End),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Sending,
    Sent(u64),
    Rejected,
    Answered(Option<Progress>),
    Abandoned,
}

#[derive(Clone, Debug)]
struct Call {
    stage: Stage,
    has_body: bool,
    waits: bool,
}

const LIMIT: usize = 4;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn each_call_ends_once_with_its_answer_and_its_body(events in prop::collection::vec(event(), 1..120)) {
        let mut calls = Calls::<CallId, u64, CallId>::new(LIMIT);
        let mut model: BTreeMap<u64, Call> = BTreeMap::new();
        let (mut position, mut started) = (0, 0_usize);
        let (mut bodies_out, mut bodies_back) = (0, 0);
        let mut is_closed = false;
        for event in events {
            let pick = |which: usize, model: &BTreeMap<u64, Call>| {
                model.keys().nth(which % model.len().max(1)).map(|id| (CallId::new(*id), model[id].clone()))
            };
            match event {
                Event::Start { has_body } => match calls.admit() {
                    Err(_) => prop_assert!(is_closed),
                    Ok(false) => prop_assert_eq!(model.len(), LIMIT),
                    Ok(true) => {
                        let id = calls.start(has_body.then_some(started as u64));
                        started += 1;
                        bodies_out += usize::from(has_body);
                        let call = Call { stage: Stage::Sending, has_body, waits: false };
                        prop_assert!(model.insert(id.as_u64(), call).is_none(), "an id is in use once");
                    }
                },
                Event::Sent(which) => {
                    let Some((id, call)) = pick(which, &model) else { continue };
                    if matches!(call.stage, Stage::Sent(_)) {
                        continue;
                    }
                    position += 10;
                    let was_sending = calls.sent(id, StreamPosition::Socket(position));
                    prop_assert_eq!(was_sending, call.stage == Stage::Sending);
                    if was_sending {
                        model.get_mut(&id.as_u64()).unwrap().stage = Stage::Sent(position);
                    }
                }
                Event::Unsent(which) => {
                    let Some((id, call)) = pick(which, &model) else { continue };
                    if call.stage != Stage::Sending {
                        continue;
                    }
                    let gone = calls.unsent(id);
                    prop_assert!(gone.answer.is_none());
                    prop_assert_eq!(gone.body.is_some(), call.has_body);
                    bodies_back += usize::from(gone.body.is_some());
                    model.remove(&id.as_u64());
                }
                Event::Answer(which) => {
                    let Some((id, call)) = pick(which, &model) else { continue };
                    let delivered = calls.answer(id, Ok(id));
                    match call.stage {
                        Stage::Sending | Stage::Sent(_) => {
                            let delivered = delivered.unwrap();
                            prop_assert_eq!(delivered.wake, call.waits.then_some(id));
                            prop_assert!(delivered.gone.is_none());
                            let call = model.get_mut(&id.as_u64()).unwrap();
                            (call.stage, call.waits) = (Stage::Answered(None), false);
                        }
                        Stage::Abandoned => {
                            let gone = delivered.unwrap().gone.unwrap();
                            prop_assert_eq!(gone.answer.unwrap().unwrap(), id);
                            bodies_back += usize::from(gone.body.is_some());
                            model.remove(&id.as_u64());
                        }
                        Stage::Rejected | Stage::Answered(_) => prop_assert!(delivered.is_err()),
                    }
                }
                Event::Reject(which) => {
                    let Some((id, call)) = pick(which, &model) else { continue };
                    let delivered = calls.reject(id);
                    match call.stage {
                        _ if !call.has_body => prop_assert!(delivered.is_err()),
                        Stage::Sending | Stage::Sent(_) => {
                            prop_assert_eq!(delivered.unwrap().wake, call.waits.then_some(id));
                            let call = model.get_mut(&id.as_u64()).unwrap();
                            (call.stage, call.waits) = (Stage::Rejected, false);
                        }
                        Stage::Abandoned => {
                            let gone = delivered.unwrap().gone.unwrap();
                            prop_assert!(gone.answer.is_none() && gone.body.is_some());
                            bodies_back += 1;
                            model.remove(&id.as_u64());
                        }
                        Stage::Rejected | Stage::Answered(_) => prop_assert!(delivered.is_err()),
                    }
                }
                Event::Fetch(which) => {
                    let Some((id, call)) = pick(which, &model) else { continue };
                    match (calls.fetch(id), call.stage) {
                        (Some(Fetched::Answer(gone)), Stage::Answered(progress)) => {
                            match (gone.answer.unwrap(), progress) {
                                (Ok(answer), None) => prop_assert_eq!(answer, id),
                                (Err(error), Some(progress)) => prop_assert_eq!(error.progress(), progress),
                                (answer, _) => prop_assert!(false, "{:?}", answer),
                            }
                            bodies_back += usize::from(gone.body.is_some());
                            model.remove(&id.as_u64());
                        }
                        (Some(Fetched::Rejected(_)), Stage::Rejected) => {
                            bodies_back += 1;
                            let call = model.get_mut(&id.as_u64()).unwrap();
                            (call.stage, call.has_body) = (Stage::Sending, false);
                        }
                        (None, Stage::Sending | Stage::Sent(_) | Stage::Abandoned) => {}
                        (fetched, stage) => prop_assert!(false, "{:?} of {:?}", fetched, stage),
                    }
                }
                Event::Wait(which) => {
                    let Some((id, call)) = pick(which, &model) else { continue };
                    if matches!(call.stage, Stage::Sending | Stage::Sent(_)) {
                        calls.wait(id, id);
                        model.get_mut(&id.as_u64()).unwrap().waits = true;
                    }
                }
                Event::Abandon(which) => {
                    let Some((id, call)) = pick(which, &model) else { continue };
                    match (calls.abandon(id, |_| Progress::MayHaveRun), call.stage) {
                        (
                            Abandoned::Cancel { progress, waiter },
                            Stage::Sending | Stage::Sent(_) | Stage::Abandoned,
                        ) => {
                            prop_assert_eq!(waiter, call.waits.then_some(id));
                            prop_assert_eq!(progress, Progress::MayHaveRun);
                            let call = model.get_mut(&id.as_u64()).unwrap();
                            (call.stage, call.waits) = (Stage::Abandoned, false);
                        }
                        (Abandoned::Gone(gone), Stage::Rejected | Stage::Answered(_)) => {
                            prop_assert_eq!(gone.body.is_some(), call.has_body);
                            bodies_back += usize::from(call.has_body);
                            model.remove(&id.as_u64());
                        }
                        (abandoned, stage) => prop_assert!(false, "{:?} of {:?}", abandoned, stage),
                    }
                }
                Event::FailUnsent(gone_up_to) => {
                    let error = Error::new(ErrorKind::Disconnected, "nothing is sent any more");
                    calls.drain(error.clone());
                    is_closed = true;
                    let progress = |end| if end <= gone_up_to { Progress::MayHaveRun } else { Progress::NotSent };
                    let failed = calls.fail(&error, Progress::NotSent, |position| match position {
                        StreamPosition::Socket(end) => progress(end),
                        StreamPosition::Ring(_) => unreachable!("there is none"),
                    });
                    let ended = calls.life().is_over();
                    let mut woken = Vec::new();
                    model.retain(|id, call| {
                        let got = match call.stage {
                            Stage::Sent(end) => progress(end),
                            Stage::Rejected => Progress::NotSent,
                            Stage::Abandoned => {
                                bodies_back += usize::from(call.has_body && ended);
                                return !ended;
                            }
                            _ => return true,
                        };
                        if got == Progress::NotSent {
                            call.stage = Stage::Answered(Some(got));
                            woken.extend(std::mem::take(&mut call.waits).then_some(CallId::new(*id)));
                        }
                        true
                    });
                    // The order in which calls fail is not promised.
                    let mut wake = failed.wake;
                    wake.sort_unstable();
                    prop_assert_eq!(wake, woken);
                }
                Event::End => {
                    let error = Error::new(ErrorKind::Disconnected, "the server hung up");
                    let was_over = calls.life().is_over();
                    prop_assert_eq!(calls.end(&error), !was_over);
                    is_closed = true;
                    let failed = calls.fail(&error, Progress::Ran, |_| Progress::MayHaveRun);
                    bodies_back += failed.bodies.len();
                    model.retain(|_, call| {
                        call.stage = match call.stage {
                            Stage::Sent(_) => Stage::Answered(Some(Progress::MayHaveRun)),
                            Stage::Rejected => Stage::Answered(Some(Progress::NotSent)),
                            Stage::Abandoned => return false,
                            stage => stage,
                        };
                        if let Stage::Answered(_) = call.stage {
                            call.waits = false;
                        }
                        true
                    });
                }
            }
            prop_assert_eq!(calls.len(), model.len());
            let unanswered = model.values().any(|call| !matches!(call.stage, Stage::Answered(_)));
            prop_assert_eq!(calls.has_unanswered(), unanswered);
            let kept = model.values().filter(|call| call.has_body).count();
            prop_assert_eq!(bodies_out, bodies_back + kept, "each body comes back once");
        }
    }
}

#[test]
fn a_rejected_call_whose_caller_has_gone_is_not_sent_again() {
    let mut calls = Calls::<(), &str, ()>::new(1);
    assert!(calls.admit().unwrap());
    let id = calls.start(Some("the block"));
    calls.sent(id, StreamPosition::Socket(1));
    assert!(matches!(calls.abandon(id, |_| Progress::MayHaveRun), Abandoned::Cancel { .. }));
    let gone = calls.reject(id).unwrap().gone.unwrap();
    assert!(gone.answer.is_none() && gone.body == Some("the block"));
    assert!(calls.is_empty() && calls.admit().unwrap(), "its permit is free again");
}

#[test]
fn the_permit_of_a_depth_goes_to_the_next_call_of_that_depth() {
    let mut calls = Calls::<(), (), &str>::new(1);
    let start = |calls: &mut Calls<(), (), &'static str>, nesting| {
        assert!(calls.admit_nested(nesting).unwrap());
        calls.start_nested(None, nesting)
    };
    let (outer, first) = (start(&mut calls, 0), start(&mut calls, 1));
    assert!(!calls.admit().unwrap() && !calls.admit_nested(1).unwrap());
    let (other, second) = (calls.queue(), calls.queue_nested(1));
    calls.wait_for_permit(&other, "other");
    calls.wait_for_permit(&second, "second");
    // The outer call waits for both that it has made.
    assert_eq!(calls.unsent(first).wake, Some("second"));
    assert!(calls.admitted(second).unwrap().is_none());
    let second = calls.start_nested(None, 1);
    // A server that answers with another depth frees the permit of none.
    assert!(
        calls.answer(second.nested(2), Ok(())).is_err() && calls.answer(second.nested(0), Ok(())).is_err()
    );
    assert_eq!((calls.unsent(second).wake, calls.unsent(outer).wake), (None, Some("other")));
}
