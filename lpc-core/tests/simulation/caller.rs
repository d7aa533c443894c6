//! How a caller of a [`Client`] makes a call, and waits.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use lpc_core::calls::{Abandoned, Fetched};
use lpc_core::frame::{self, Body, CallId};
use lpc_core::permits::Ticket;
use lpc_core::turns::{Caller, Step, Waits};
use lpc_core::{Error, ErrorKind, Progress};

use super::client::{Client, Gone, InBlock, Own};
use super::inbox::{Arrived, Ended, Filled, Inbox};
use super::link::{NotSent, PoolBlock};
use super::world::{MILLIS, On, Time, Token};

/// How long a caller relies at most on others that are about to run.
const RELIES: Time = 20 * MILLIS;

/// How long an idle caller receives for others before it looks whether what it waits for is there.
const SLICE: Time = 10 * MILLIS;

/// How long a caller waits for a permit or memory. Nobody should have to for so long.
const AT_QUOTA: Time = 4000 * MILLIS;

/// Bytes of a body in shared memory.
pub(crate) const BODY: u64 = 5000;

/// Receives in a row of a caller that does not wait for what it receives.
const MAX_RECEIVES: u32 = 8;

/// A request.
struct Request {
    frame: Vec<u8>,
    block: Option<Box<InBlock>>,
    loans: Vec<Arc<PoolBlock>>,
}

impl Client {
    pub(crate) async fn fetch(
        &self,
        argument: u64,
        token: &Arc<Token>,
        deadline: Option<Time>,
    ) -> Result<(CallId, Arrived), Error> {
        let request = self.encode(argument, token, deadline).await?;
        let (call, half) = self.start(request, token, deadline).await?;
        let answer = self.wait(call, half, token, deadline).await?;
        answer.map(|body| (call, body))
    }

    async fn encode(
        &self,
        argument: u64,
        token: &Arc<Token>,
        deadline: Option<Time>,
    ) -> Result<Request, Error> {
        let mut frame = Vec::new();
        frame::begin_call(&mut frame, 1);
        frame.extend(argument.to_le_bytes());
        frame.resize(frame.len() + self.sizes[self.world.pick(self.sizes.len())], 7);
        let in_block = self.world.chance(3);
        let block = if in_block { self.block(argument, token, deadline).await? } else { None };
        let has_loan = self.world.chance(4);
        let loan = if has_loan { self.link.alloc(100, argument).map(Arc::new) } else { None };
        let loans: Vec<_> = loan.into_iter().collect();
        let block = block.map(|block| Box::new(InBlock { block, loans: loans.clone() }));
        Ok(Request { frame, block, loans })
    }

    /// A block for the body, for which the caller waits where there is no room; `None` where that is no use.
    async fn block(
        &self,
        argument: u64,
        token: &Arc<Token>,
        deadline: Option<Time>,
    ) -> Result<Option<PoolBlock>, Error> {
        let until = self.until(deadline);
        loop {
            if let Some(block) = self.link.alloc(BODY, argument) {
                return Ok(Some(block));
            }
            if self.link.is_refused() || self.link.has_no_pool {
                return Ok(None);
            }
            self.wait_for_memory(token, deadline, until).await?;
        }
    }

    async fn wait_for_memory(
        &self,
        token: &Arc<Token>,
        deadline: Option<Time>,
        until: Time,
    ) -> Result<(), Error> {
        self.world.say(|| "waits for memory".into());
        let waker = Waker::from(Arc::clone(token));
        let room = self.link.ledger.wait_for(BODY);
        let mut caller = Caller::new(Waits::Idle);
        let mut is_first = true;
        self.state.borrow_mut().callers.enter_idle();
        let waited = loop {
            self.world.step().await;
            if let Some(reason) = self.state.borrow().calls.life().why_closed() {
                break Err(reason.clone().with_progress(Progress::NotSent));
            }
            if self.link.has_room(&room, &waker) {
                break Ok(());
            }
            if std::mem::take(&mut is_first) && self.receive_what_is_there().await {
                continue;
            }
            if until <= self.world.now() || self.gives_up() {
                break Err(self.not_in_time("no memory", deadline));
            }
            self.idle(&mut caller, &waker, token, until, None).await;
        };
        let actions = self.state.borrow_mut().callers.leave();
        self.act(actions).await;
        waited
    }

    /// Until when the caller waits for a quota.
    fn until(&self, deadline: Option<Time>) -> Time {
        deadline.into_iter().fold(self.world.now() + AT_QUOTA, Time::min)
    }

    fn not_in_time(&self, what: &str, deadline: Option<Time>) -> Error {
        let is_dead = deadline.is_none_or(|deadline| deadline > self.world.now()) && !self.is_fickle;
        Error::new(if is_dead { ErrorKind::ResourceExhausted } else { ErrorKind::TimedOut }, what)
    }

    /// Whether the caller does not want to wait any more, as one whose future is dropped.
    fn gives_up(&self) -> bool {
        self.is_fickle && self.world.chance(8)
    }

    async fn start(
        &self,
        mut request: Request,
        token: &Arc<Token>,
        deadline: Option<Time>,
    ) -> Result<(CallId, Option<Box<Inbox>>), Error> {
        self.admit(token, deadline).await?;
        let mut state = self.state.borrow_mut();
        let is_busy = !state.calls.is_empty();
        let places: Vec<_> = request.loans.iter().map(|loan| loan.place(1)).collect();
        let body = request.block.as_ref().map_or(Body::Inline, |body| Body::Mapped(body.block.place(BODY)));
        let call = state.calls.start(request.block.take());
        frame::seal(&mut request.frame, call, body, &places);
        if is_busy {
            frame::mark_busy(&mut request.frame);
        }
        if let Some(deadline) = deadline {
            frame::set_time_left(
                &mut request.frame,
                Duration::from_micros(deadline.saturating_sub(self.world.now())),
            );
        }
        if request.loans.is_empty() {
            if let Some((position, has_to_wake)) = self.link.put(&request.frame) {
                state.calls.sent(call, position);
                let half = state.callers.enter();
                drop(state);
                self.world.say(|| format!("puts its call into the ring, as {:#x}", call.as_u64()));
                if has_to_wake {
                    self.world.step().await;
                    self.link.wake();
                }
                return Ok((call, half));
            }
            if state.callers.defers()
                && let Some(position) = self.link.leave(&request.frame)
            {
                state.calls.sent(call, position);
                state.callers.defer();
                self.world.say(|| format!("defers its call, as {:#x}", call.as_u64()));
                return Ok((call, None));
            }
        }
        state.callers.begin_send();
        drop(state);
        self.world.say(|| format!("sends its call, as {:#x}", call.as_u64()));
        Ok((call, self.send(call, &request.frame, &request.loans, deadline).await?))
    }

    async fn send(
        &self,
        call: CallId,
        frame: &[u8],
        loans: &[Arc<PoolBlock>],
        deadline: Option<Time>,
    ) -> Result<Option<Box<Inbox>>, Error> {
        loans.iter().for_each(|loan| self.link.lend(loan));
        match self.link.send_within(frame, deadline).await {
            Ok(position) => {
                self.world.step().await;
                let mut state = self.state.borrow_mut();
                let is_unanswered = state.calls.sent(call, position);
                let is_pending = !state.calls.life().is_over() && !self.link.is_broken();
                let (half, actions) = state.callers.end_send(is_unanswered && is_pending);
                drop(state);
                self.act(actions).await;
                if !is_pending {
                    self.fail_late();
                }
                Ok(half)
            }
            Err(error) => {
                self.take_back(loans);
                self.world.step().await;
                let mut state = self.state.borrow_mut();
                let gone = state.calls.unsent(call);
                let why = match (state.calls.life().why_closed(), error) {
                    (_, NotSent::TimedOut) => {
                        Error::new(ErrorKind::TimedOut, "the server had stopped reading")
                    }
                    (Some(reason), _) => reason.clone(),
                    _ => Error::new(ErrorKind::Disconnected, "the connection is broken"),
                };
                let gone = self.woken(&mut state, gone);
                let actions = state.callers.abort_send();
                drop(state);
                self.act(actions).await;
                drop(gone);
                Err(why.with_progress(Progress::NotSent))
            }
        }
    }

    pub(crate) fn take_back(&self, loans: &[Arc<PoolBlock>]) {
        if !self.link.ledger.is_closed() {
            for loan in loans {
                let place = loan.place(1);
                self.link.returned((place.segment, place.page));
            }
        }
    }

    async fn send_again(
        &self,
        call: CallId,
        body: &InBlock,
        deadline: Option<Time>,
    ) -> Result<Option<Box<Inbox>>, Error> {
        let mut frame = Vec::new();
        frame::begin_call(&mut frame, 1);
        frame.extend(body.block.word().to_le_bytes());
        let places: Vec<_> = body.loans.iter().map(|loan| loan.place(1)).collect();
        frame::seal(&mut frame, call, Body::Inline, &places);
        if let Some(deadline) = deadline {
            frame::set_time_left(
                &mut frame,
                Duration::from_micros(deadline.saturating_sub(self.world.now())),
            );
        }
        self.world.say(|| format!("sends call {:#x} again, in line", call.as_u64()));
        let sent = self.send(call, &frame, &[], deadline).await;
        if sent.is_err() {
            self.take_back(&body.loans);
        }
        sent
    }

    async fn admit(&self, token: &Arc<Token>, deadline: Option<Time>) -> Result<(), Error> {
        self.world.step().await;
        let mut state = self.state.borrow_mut();
        if state.calls.admit()? {
            return Ok(());
        }
        let mut ticket = state.calls.queue();
        state.callers.enter_idle();
        drop(state);
        self.world.say(|| "waits for a permit".into());
        let waker = Waker::from(Arc::clone(token));
        let mut caller = Caller::new(Waits::Idle);
        let until = self.until(deadline);
        let (error, granted) = loop {
            let gives_up = self.gives_up();
            let mut state = self.state.borrow_mut();
            if gives_up {
                break (self.not_in_time("no permit", deadline), state.calls.leave_queue(ticket));
            }
            ticket = match state.calls.admitted(ticket) {
                Ok(None) => {
                    // Where nothing is to be done the caller holds the lock until it has entered its call.
                    let actions = state.callers.leave();
                    drop(state);
                    if actions.wake.is_some() || actions.flush {
                        self.act(actions).await;
                        self.world.step().await;
                    }
                    return Ok(());
                }
                Ok(Some(ticket)) => ticket,
                Err((error, granted)) => break (error, granted),
            };
            if until <= self.world.now() {
                break (self.not_in_time("no permit", deadline), state.calls.leave_queue(ticket));
            }
            drop(state);
            self.idle(&mut caller, &waker, token, until, Some(&ticket)).await;
            self.world.step().await;
        };
        let mut state = self.state.borrow_mut();
        let granted = granted.and_then(|spot| state.callers.wake(spot));
        let actions = state.callers.leave();
        drop(state);
        self.act(actions).await;
        granted.into_iter().for_each(|waker| self.world.wake(waker));
        Err(error)
    }

    async fn idle(
        &self,
        caller: &mut Caller,
        waker: &Waker,
        token: &Arc<Token>,
        end: Time,
        ticket: Option<&Ticket>,
    ) {
        let mut state = self.state.borrow_mut();
        let (step, actions) = state.callers.step(caller, waker);
        match step {
            Step::Receive(mut half) => {
                drop(state);
                self.act(actions).await;
                let until = end.min(self.world.now() + SLICE);
                if let Err(Ended(reason)) = self.receive_for_others(&mut half, until).await {
                    self.end(reason);
                }
                self.world.step().await;
                self.state.borrow_mut().callers.put_back(half);
            }
            Step::Park(spot) => {
                if let Some(ticket) = ticket {
                    state.calls.wait_for_permit(ticket, spot);
                }
                drop(state);
                self.act(actions).await;
                self.park(caller, token, Some(end)).await;
                let actions = self.state.borrow_mut().callers.resume(caller, spot);
                self.act(actions).await;
            }
        }
    }

    async fn wait(
        &self,
        call: CallId,
        mut half: Option<Box<Inbox>>,
        token: &Arc<Token>,
        deadline: Option<Time>,
    ) -> Result<Result<Arrived, Error>, Error> {
        let waker = Waker::from(Arc::clone(token));
        let mut caller = Caller::new(Waits::ForAnswer);
        loop {
            if let Some(half) = half.take() {
                if let Some(answer) = self.receive_for(call, half, deadline).await {
                    return Ok(answer);
                }
            } else {
                self.world.step().await;
            }
            let mut state = self.state.borrow_mut();
            match state.calls.fetch(call) {
                Some(Fetched::Answer(gone)) => {
                    drop(state);
                    return Ok(self.leave_with(gone).await);
                }
                Some(Fetched::Rejected(body)) => {
                    let actions = state.callers.send_again();
                    drop(state);
                    self.act(actions).await;
                    half = self.send_again(call, &body, deadline).await?;
                    continue;
                }
                None => {}
            }
            if deadline.is_some_and(|deadline| deadline <= self.world.now()) || self.gives_up() {
                drop(state);
                return self.abandon(call).await;
            }
            let (step, actions) = state.callers.step(&mut caller, &waker);
            let spot = match step {
                Step::Receive(taken) => {
                    drop(state);
                    self.act(actions).await;
                    half = Some(taken);
                    continue;
                }
                Step::Park(spot) => spot,
            };
            state.calls.wait(call, spot);
            drop(state);
            self.act(actions).await;
            self.park(&caller, token, deadline).await;
            let actions = self.state.borrow_mut().callers.resume(&mut caller, spot);
            self.act(actions).await;
        }
    }

    /// Receives until the caller's own answer has come, or its deadline, or the end.
    async fn receive_for(
        &self,
        call: CallId,
        mut half: Box<Inbox>,
        deadline: Option<Time>,
    ) -> Option<Result<Arrived, Error>> {
        let answer = self.receive(call, &mut half, deadline).await;
        if let Err(Ended(reason)) = &answer {
            self.end(reason);
        }
        self.world.step().await;
        let mut state = self.state.borrow_mut();
        state.callers.put_back(half);
        let Ok(Some(answer)) = answer else { return None };
        let mut gone = state.calls.answer_own(call);
        gone.answer = Some(answer);
        drop(state);
        Some(self.leave_with(gone).await)
    }

    /// The caller has its answer, under the lock.
    async fn leave_with(&self, gone: Gone) -> Result<Arrived, Error> {
        let mut state = self.state.borrow_mut();
        let (answer, body) = self.woken(&mut state, gone);
        let actions = state.callers.leave();
        drop(state);
        self.act(actions).await;
        drop(body);
        answer.expect("it is answered")
    }

    async fn abandon(&self, call: CallId) -> Result<Result<Arrived, Error>, Error> {
        let mut state = self.state.borrow_mut();
        match state.calls.abandon(call, |position| self.link.progress(position)) {
            Abandoned::Gone(gone) => {
                drop(state);
                Ok(self.leave_with(gone).await)
            }
            Abandoned::Cancel { progress, .. } => {
                let actions = state.callers.leave();
                drop(state);
                self.world.say(|| format!("gives call {:#x} up", call.as_u64()));
                self.act(actions).await;
                self.world.step().await;
                self.link.send_now(&frame::cancel(call));
                self.is_watched.set(true);
                Err(Error::new(ErrorKind::TimedOut, "no reply before the deadline").with_progress(progress))
            }
        }
    }

    async fn receive(
        &self,
        call: CallId,
        inbox: &mut Inbox,
        deadline: Option<Time>,
    ) -> Result<Option<Result<Arrived, Error>>, Ended> {
        let mut own = Own { call: Some(call), answer: None };
        loop {
            let is_closing = self.hand_out(inbox, &mut own).await?;
            if own.answer.is_some() || own.call.is_none() || is_closing {
                return Ok(own.answer);
            }
            if deadline.is_some_and(|deadline| deadline <= self.world.now()) {
                return Ok(None);
            }
            if inbox.fill_within(deadline).await? == Filled::End {
                return Err(self.hung_up(inbox));
            }
        }
    }

    pub(crate) async fn receive_for_others(&self, inbox: &mut Inbox, until: Time) -> Result<(), Ended> {
        self.link.flush_soon();
        inbox.wait(Some(until)).await;
        let mut own = Own::default();
        self.hand_out(inbox, &mut own).await?;
        for _ in 0..MAX_RECEIVES {
            match inbox.fill()? {
                Filled::End => return Err(self.hung_up(inbox)),
                Filled::Nothing => break,
                Filled::Some => drop(self.hand_out(inbox, &mut own).await?),
            }
        }
        Ok(())
    }

    async fn park(&self, caller: &Caller, token: &Arc<Token>, deadline: Option<Time>) {
        let most = caller.relies_on_others() && self.has_timeouts;
        let most = most.then_some(self.world.now() + RELIES);
        let until = deadline.into_iter().chain(most).min();
        self.world.wait(On::Token(Arc::clone(token)), "is parked", until).await;
        token.take();
    }
}
