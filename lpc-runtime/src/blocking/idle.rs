//! Callers that are idle: they wait for a permit or for room in shared memory, and receive for others
//! meanwhile, where no other caller could.

use std::mem;
use std::sync::MutexGuard;
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use lpc_core::permits::Ticket;
use lpc_core::turns::{Actions, Caller, Spot, Step, Waits};
use lpc_core::{Progress, Result};

use super::caller::{Callers, Connection, park};
use crate::client::backpressure::{Quota, QuotaWait};
use crate::client::session::{Own, State};
use crate::connection::inbox::{Filled, Inbox};
use crate::memory::pool::WaitingForRoom;
use crate::sys::socket::Wait;
use crate::sys::thread::waker;

/// Receives in a row of a caller that does not wait for what it receives.
const MAX_RECEIVES: u32 = 64;

/// How long an idle caller receives for others before it looks whether what it waits for is there.
const SLICE: Duration = Duration::from_millis(10);

impl Connection {
    /// Waits until so much shared memory may be had. It may be gone again when the caller comes to take it.
    #[cold]
    /// What is given keeps its place until then.
    pub(super) fn wait_for_memory(&self, bytes: u64, wait: &mut QuotaWait) -> Result<WaitingForRoom> {
        let waker = waker();
        let room = self.link().lender().wait_for(bytes);
        let mut caller = Caller::new(Waits::Idle);
        let mut is_first = true;
        self.session().state().callers.enter_idle();
        let waited = loop {
            // First: where the connection is over there is room, and none to be had.
            if let Some(reason) = self.session().state().calls.life().why_closed() {
                break Err(reason.clone().with_progress(Progress::NotSent));
            }
            if self.link().has_room(&room, &waker) {
                break wait.try_again(bytes);
            }
            // What gives memory back may have arrived already, and nobody has received it.
            if mem::take(&mut is_first) && self.receive_what_is_there(|_| ()).is_some() {
                continue;
            }
            let left = match wait.left(Quota::Memory(bytes)) {
                Ok(left) => left,
                Err(error) => break Err(error),
            };
            let state = self.session().state();
            self.idle(state, &mut caller, &waker, left, |_, _| {});
        };
        let actions = self.session().state().callers.leave();
        self.session().act(actions);
        waited.map(|pause| {
            thread::sleep(pause);
            room
        })
    }

    /// Waits for a permit, and gives the calls with that.
    #[cold]
    pub(super) fn wait_for_permit<'s>(
        &'s self,
        mut state: MutexGuard<'s, State<Callers>>,
        mut ticket: Ticket,
        deadline: Option<Instant>,
    ) -> Result<MutexGuard<'s, State<Callers>>> {
        let waker = waker();
        let mut caller = Caller::new(Waits::Idle);
        let mut wait = QuotaWait::new(self.session().at_quota(), deadline);
        state.callers.enter_idle();
        let (error, granted) = loop {
            ticket = match state.calls.admitted(ticket) {
                Ok(None) => {
                    let Actions { wake, flush } = state.callers.leave();
                    if wake.is_none() && !flush {
                        return Ok(state);
                    }
                    drop(state);
                    self.session().act(Actions { wake, flush });
                    return Ok(self.session().state());
                }
                Ok(Some(ticket)) => ticket,
                Err((error, granted)) => break (error, granted),
            };
            let left = match wait.left(Quota::Permit) {
                Ok(left) => left,
                Err(error) => break (error, state.calls.leave_queue(ticket)),
            };
            self.idle(state, &mut caller, &waker, left, |state, spot| {
                state.calls.wait_for_permit(&ticket, spot);
            });
            state = self.session().state();
        };
        let granted = granted.and_then(|spot| state.callers.wake(spot));
        let actions = state.callers.leave();
        drop(state);
        self.session().act(actions);
        if let Some(waker) = granted {
            waker.wake();
        }
        Err(error)
    }

    /// An idle caller found that what it waits for is not there: it receives for a moment, where no other
    /// caller does, or parks. `parks` is told where.
    fn idle(
        &self,
        mut state: MutexGuard<'_, State<Callers>>,
        caller: &mut Caller,
        waker: &Waker,
        left: Duration,
        parks: impl FnOnce(&mut State<Callers>, Spot),
    ) {
        let (step, actions) = state.callers.step(caller, waker);
        match step {
            Step::Receive(mut half) => {
                drop(state);
                self.session().act(actions);
                if let Err(error) = self.receive_for_others(&mut half, left.min(SLICE)) {
                    self.session().end(&error);
                }
                self.session().state().callers.put_back(half);
            }
            Step::Park(spot) => {
                parks(&mut state, spot);
                drop(state);
                self.session().act(actions);
                park(caller, Some(left));
                let actions = self.session().state().callers.resume(caller, spot);
                self.session().act(actions);
            }
        }
    }

    /// Receives what comes within `time`, for others.
    fn receive_for_others(&self, inbox: &mut Inbox, time: Duration) -> Result<()> {
        self.link().flush_or_schedule();
        if !time.is_zero() {
            let until = Instant::now().checked_add(time);
            let _ = inbox.wait_for_more(self.link().socket(), self.link().stall(), until)?;
        }
        let mut own = Own::default();
        let _ = self.session().hand_out(inbox, &mut own)?;
        // A server that never stops does not keep the caller for others.
        for _ in 0..MAX_RECEIVES {
            match inbox.try_fill(self.link().socket(), Wait::Never)? {
                Filled::End => return Err(self.session().hung_up(inbox)?),
                Filled::Nothing => break,
                _ => drop(self.session().hand_out(inbox, &mut own)?),
            }
        }
        Ok(())
    }

    /// Receives what is there, if no caller does, and gives what `look` says of the receive half then.
    pub(super) fn receive_what_is_there<T>(&self, look: impl FnOnce(&Inbox) -> T) -> Option<Result<T>> {
        let mut half = self.session().state().callers.borrow()?;
        let received = self.receive_for_others(&mut half, Duration::ZERO);
        if let Err(error) = &received {
            self.session().end(error);
        }
        let looked = look(&half);
        let actions = self.session().state().callers.give_back(half);
        self.session().act(actions);
        Some(received.map(|()| looked))
    }
}
