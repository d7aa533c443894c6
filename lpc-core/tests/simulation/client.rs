//! [`Client`]: a blocking client, step by step as `blocking::caller` and `client::session` of lpc-runtime
//! do it. What one caller does stands in `caller`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use lpc_core::calls::{self, Calls};
use lpc_core::frame::CallId;
use lpc_core::receive::{Role, Violation};
use lpc_core::turns::{Actions, Spot, Turns};
use lpc_core::{Error, ErrorKind, Progress};

use super::inbox::{Arrived, Ended, Inbox, Message};
use super::link::{Link, Maintained, PoolBlock};
use super::world::{MILLIS, On, Process, Time, Token, World};

/// How often the client receives what no caller waits for.
const IDLE: Time = 50 * MILLIS;

type MyCalls = Calls<Arrived, Box<InBlock>, Spot>;
pub(crate) type Gone = calls::Gone<Arrived, Box<InBlock>, Spot>;

pub(crate) struct Client {
    pub(crate) world: Rc<World>,
    pub(crate) link: Rc<Link>,
    pub(crate) state: RefCell<State>,
    /// Whether timeouts make up for what others do late.
    pub(crate) has_timeouts: bool,
    /// Whether callers give up when they like.
    pub(crate) is_fickle: bool,
    /// Bytes behind the arguments.
    pub(crate) sizes: &'static [usize],
    pub(crate) record: Rc<Record>,
    /// Calls that have not returned.
    open: Rc<Cell<u32>>,
    /// Something is to come that nobody waits for.
    pub(crate) is_watched: Rc<Cell<bool>>,
}

pub(crate) struct State {
    pub(crate) calls: MyCalls,
    pub(crate) callers: Turns<Box<Inbox>>,
}

/// How a client's callers are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Callers {
    pub(crate) max_calls: usize,
    pub(crate) contention: usize,
    pub(crate) has_timeouts: bool,
    pub(crate) is_fickle: bool,
    pub(crate) sizes: &'static [usize],
}

/// A request whose body stands in a block.
#[derive(Debug)]
pub(crate) struct InBlock {
    pub(crate) block: PoolBlock,
    pub(crate) loans: Vec<Arc<PoolBlock>>,
}

/// What became of each call, by its argument.
#[derive(Debug, Default)]
pub(crate) struct Record(pub(crate) RefCell<BTreeMap<u64, Entry>>);

#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// How often the server ran it.
    pub(crate) runs: u32,
    pub(crate) result: Option<Result<(), Error>>,
}

/// What the server makes of an argument.
pub(crate) const fn answer_to(argument: u64) -> u64 {
    argument.wrapping_mul(3) ^ 0xaaaa
}

/// A call for which its caller receives.
#[derive(Default)]
pub(crate) struct Own {
    pub(crate) call: Option<CallId>,
    pub(crate) answer: Option<Result<Arrived, Error>>,
}

impl Client {
    pub(crate) fn new(
        link: &Rc<Link>,
        Callers { max_calls, contention, has_timeouts, is_fickle, sizes }: Callers,
        record: &Rc<Record>,
    ) -> Rc<Self> {
        let inbox = Box::new(Inbox::new(Role::Client, link));
        let state = State { calls: Calls::new(max_calls), callers: Turns::new(inbox, contention) };
        let client = Rc::new(Self {
            world: Rc::clone(&link.world),
            link: Rc::clone(link),
            state: RefCell::new(state),
            has_timeouts,
            is_fickle,
            sizes,
            record: Rc::clone(record),
            open: Rc::default(),
            is_watched: Rc::default(),
        });
        client.maintain();
        let weak = Rc::downgrade(&client);
        link.maintained_by(weak);
        if link.has_quick_lane {
            link.offer_ring();
        }
        client
    }

    /// Now and then receives what nobody waits for, and gives back memory.
    fn maintain(self: &Rc<Self>) {
        let (world, client) = (Rc::clone(&self.world), Rc::downgrade(self));
        let (is_watched, open, is_always) =
            (Rc::clone(&self.is_watched), Rc::clone(&self.open), self.has_timeouts);
        let has_work: Rc<dyn Fn() -> bool> =
            Rc::new(move || is_watched.get() && (is_always || open.get() == 0));
        self.world.spawn(Process::Client, "the client's maintenance", async move {
            loop {
                world.wait(On::Check(Rc::clone(&has_work)), "watches over memory", None).await;
                world.sleep(IDLE).await;
                let Some(client) = client.upgrade() else { return };
                client.is_watched.set(false);
                client.receive_what_is_there().await;
                let has_calls = !client.state.borrow().calls.is_empty();
                if client.link.trim() > 0 || has_calls {
                    client.is_watched.set(true);
                }
            }
        });
    }

    /// One call, from its argument to its checked result.
    pub(crate) async fn call(&self, argument: u64, token: &Arc<Token>, deadline: Option<Time>) {
        self.record.0.borrow_mut().entry(argument).or_default();
        let world = &self.world;
        world.say(|| {
            format!("calls {argument}{}", deadline.map_or_else(String::new, |at| format!(", until {at} us")))
        });
        world.set_deadline(deadline);
        self.open.set(self.open.get() + 1);
        let result = self.fetch(argument, token, deadline).await;
        let result = result.map(|(call, body)| {
            let value = body.read(world);
            if value != answer_to(argument) {
                world.fail("answer", format!("{value:#x} is not the answer to {argument}"));
            }
            if body.is_mapped() {
                self.link.release(call);
            }
        });
        world.set_deadline(None);
        self.open.set(self.open.get() - 1);
        world.say(|| match &result {
            Ok(()) => format!("has the answer to {argument}"),
            Err(error) => format!("{argument} has failed, {:?}: {error}", error.progress()),
        });
        let before = self.record.0.borrow_mut().entry(argument).or_default().result.replace(result);
        if before.is_some() {
            world.fail("twice", format!("call {argument} has ended twice"));
        }
    }

    /// Receives what is there, if no caller does.
    pub(crate) async fn receive_what_is_there(&self) -> bool {
        self.world.step().await;
        let Some(mut half) = self.state.borrow_mut().callers.borrow() else { return false };
        if let Err(Ended(reason)) = self.receive_for_others(&mut half, self.world.now()).await {
            self.end(reason);
        }
        self.world.step().await;
        let actions = self.state.borrow_mut().callers.give_back(half);
        self.act(actions).await;
        true
    }

    /// Hands what has arrived to the calls it is for. Whether the server shuts down.
    pub(crate) async fn hand_out(&self, inbox: &mut Inbox, own: &mut Own) -> Result<bool, Ended> {
        let mut delivers = false;
        let handed = self.hand_all_out(inbox, own, &mut delivers).await;
        if delivers {
            self.world.step().await;
            let actions = self.state.borrow_mut().callers.end_delivery();
            self.act(actions).await;
        }
        handed
    }

    async fn hand_all_out(
        &self,
        inbox: &mut Inbox,
        own: &mut Own,
        delivers: &mut bool,
    ) -> Result<bool, Ended> {
        let mut is_closing = false;
        while let Some(message) = inbox.next()? {
            match message {
                Message::Reply { call, body } => self.answer(call, Ok(body), own, delivers).await?,
                Message::Failure { call, error } => self.answer(call, Err(error), own, delivers).await?,
                Message::Resend { call } => {
                    if own.call == Some(call) {
                        own.call = None;
                    }
                    self.deliver(call, delivers, |calls| calls.reject(call)).await?;
                }
                Message::Closing { taken } => {
                    self.world.say(|| format!("hears that the server shuts down, {taken} slots taken"));
                    self.state
                        .borrow_mut()
                        .calls
                        .drain(Error::new(ErrorKind::Disconnected, "the server shuts down"));
                    self.link.stop_sending(taken);
                    self.send_failed();
                    is_closing = true;
                }
                Message::Call { call, .. } | Message::Release { call } | Message::Cancel { call } => {
                    return Err(self.violated(&Violation::UnknownCall(call)));
                }
            }
        }
        Ok(is_closing)
    }

    async fn answer(
        &self,
        call: CallId,
        answer: Result<Arrived, Error>,
        own: &mut Own,
        delivers: &mut bool,
    ) -> Result<(), Ended> {
        if own.call != Some(call) {
            return self.deliver(call, delivers, |calls| calls.answer(call, answer)).await;
        }
        if own.answer.replace(answer).is_some() {
            return Err(self.violated(&Violation::UnknownCall(call)));
        }
        Ok(())
    }

    async fn deliver(
        &self,
        call: CallId,
        delivers: &mut bool,
        event: impl FnOnce(&mut MyCalls) -> Result<calls::Delivered<Arrived, Box<InBlock>, Spot>, Violation>,
    ) -> Result<(), Ended> {
        self.world.step().await;
        let mut state = self.state.borrow_mut();
        if !std::mem::replace(delivers, true) {
            state.callers.begin_delivery();
        }
        let calls::Delivered { wake, gone } =
            event(&mut state.calls).map_err(|violation| self.violated(&violation))?;
        self.world.say(|| format!("hands out what came for call {:#x}", call.as_u64()));
        let wake = wake.and_then(|spot| state.callers.wake(spot));
        let gone = gone.map(|gone| self.woken(&mut state, gone));
        drop(state);
        wake.into_iter().for_each(|waker| self.world.wake(waker));
        match gone {
            Some((Some(Ok(reply)), _)) if reply.is_mapped() => self.link.release(call),
            Some((None, Some(body))) => self.take_back(&body.loans),
            _ => {}
        }
        Ok(())
    }

    /// What a call leaves; the caller that has its permit now is woken.
    pub(crate) fn woken(
        &self,
        state: &mut State,
        gone: Gone,
    ) -> (Option<Result<Arrived, Error>>, Option<Box<InBlock>>) {
        let wake = gone.wake.and_then(|spot| state.callers.wake(spot));
        wake.into_iter().for_each(|waker| self.world.wake(waker));
        (gone.answer, gone.body)
    }

    /// The connection is over.
    pub(crate) fn end(&self, reason: &'static str) {
        self.world.say(|| format!("finds that the connection is over: the server {reason}"));
        let error = Error::new(ErrorKind::Disconnected, reason);
        self.state.borrow_mut().calls.drain(error.clone());
        self.link.close();
        self.state.borrow_mut().calls.end(&error);
        self.fail(&error, Progress::Ran);
    }

    pub(crate) fn fail_late(&self) {
        let (error, is_over) = {
            let state = self.state.borrow();
            let error = state.calls.life().why_closed().cloned();
            (error.unwrap_or_else(receives_nothing), state.calls.life().is_over())
        };
        self.fail(&error, if is_over { Progress::Ran } else { Progress::NotSent });
    }

    fn fail(&self, error: &Error, no_further: Progress) {
        let mut state = self.state.borrow_mut();
        let State { calls, callers } = &mut *state;
        calls.drain(error.clone());
        let error = calls.life().why_closed().unwrap_or(error).clone();
        let calls::Failed { wake, bodies } =
            calls.fail(&error, no_further, |position| self.link.progress(position));
        let wakers: Vec<_> = wake.into_iter().filter_map(|spot| callers.wake(spot)).collect();
        drop(state);
        wakers.into_iter().for_each(|waker| self.world.wake(waker));
        drop(bodies);
    }

    /// Does what is left to do after an event, without the lock.
    pub(crate) async fn act(&self, actions: Actions) {
        if actions.flush {
            self.world.say(|| "flushes for all".into());
            self.link.flush_at_once().await;
        }
        if let Some(waker) = actions.wake {
            self.world.wake(waker);
        }
    }

    /// The server has ended the connection.
    pub(crate) fn hung_up(&self, inbox: &Inbox) -> Ended {
        self.link.sender.borrow_mut().peer_is_gone();
        inbox.ended()
    }

    fn violated(&self, violation: &Violation) -> Ended {
        self.world.fail("violation", violation.to_string());
        Ended("broke the protocol")
    }
}

fn receives_nothing() -> Error {
    Error::new(ErrorKind::Disconnected, "the server receives nothing more")
}

impl Maintained for Client {
    fn send_failed(&self) {
        self.fail(&receives_nothing(), Progress::NotSent);
    }

    fn meanwhile(&self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async {
            self.receive_what_is_there().await;
        })
    }
}
