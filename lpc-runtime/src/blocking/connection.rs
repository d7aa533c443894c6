//! One connection of a blocking server: who reads it, what runs on it, and how its calls are answered.
//!
//! Exactly one thread leads a connection: it holds the [`Inbox`] and reads. A call of a quick method (see
//! [`Pace`](lpc_core::pace::Pace)), or of a client that has no other call waiting, it runs on the spot, with
//! the inbox put aside so that the [watch](super::workers) can have another thread take over should the call
//! take long after all. For any other the leader passes the inbox to another thread before it runs the call:
//! that costs a wake-up. Calls beyond the limit of those that run at once wait; whoever has answered one runs
//! the next.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use lpc_core::frame::CallId;
use lpc_core::receive::Violation;
use lpc_core::{Error, Progress, Result};

use super::workers::{IDLE, TICK, Work, Workers};
use crate::body::arrived::Arrived;
use crate::connection::inbox::{Filled, Inbox, Message};
use crate::connection::link::{Flow, Link};
use crate::credentials::Credentials;
use crate::generated::{Reply, Request};
use crate::maintenance::{self, Tend};
use crate::server::admission::Permit;
use crate::server::context::{Current, cancelled};
use crate::server::desk::{Arrival, Call, Concluded, Desk, Ended, Next};
use crate::server::ends;
use crate::server::served::Served;
use crate::sys::socket;

/// The implementation that a server calls, its type forgotten.
pub(super) type Dispatch = dyn Fn(Request<'_>) -> Result<Reply> + Send + Sync;

pub(super) struct Connection {
    link: Arc<Link>,
    served: Arc<Served<Dispatch>>,
    desk: Desk,
    /// The watcher's tick at which the leader began to run a call itself; [`IDLE`] while it does not.
    busy: AtomicU32,
    /// The method of that call.
    running: AtomicU16,
    guard: Arc<Guard>,
    _permit: Permit,
}

/// Has the housekeeper look whether the client is still there, while nobody reads.
struct Guard {
    connection: Weak<Connection>,
    /// It comes.
    is_on: AtomicBool,
}

/// How often.
const LOOK: Duration = Duration::from_secs(1);

impl Connection {
    pub(super) fn new(
        link: Arc<Link>,
        peer: Credentials,
        served: Arc<Served<Dispatch>>,
        permit: Permit,
    ) -> Arc<Self> {
        let desk = Desk::new(peer, served.max_calls, link.limits());
        let connection = Arc::new_cyclic(|this| {
            let guard = Guard { connection: Weak::clone(this), is_on: AtomicBool::new(false) };
            Self {
                link,
                served,
                desk,
                busy: AtomicU32::new(IDLE),
                running: AtomicU16::new(0),
                guard: Arc::new(guard),
                _permit: permit,
            }
        });
        connection.link.tended_by(maintenance::weak(&connection));
        connection
    }

    pub(super) fn busy(&self) -> &AtomicU32 {
        &self.busy
    }

    /// Leads until somebody else does, or the connection is over; without an inbox, runs what waits.
    pub(super) fn work(self: &Arc<Self>, inbox: Option<Box<Inbox>>, workers: &Arc<Workers>) {
        let led = catch_unwind(AssertUnwindSafe(|| {
            let inbox = match inbox {
                Some(inbox) => Some(inbox),
                None => self.help(workers)?,
            };
            inbox.map_or(Ok(()), |inbox| self.try_lead(inbox, workers))
        }));
        let error = match led {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(panic) => self.served.panicked(u16::MAX, panic),
        };
        ends::log_end(self.served.service, &self.link, &error);
        self.link.close();
    }

    fn try_lead(self: &Arc<Self>, mut inbox: Box<Inbox>, workers: &Arc<Workers>) -> Result<()> {
        loop {
            let Some(message) = inbox.next()? else {
                // All that arrived is answered or on its way: send the answers before waiting for more.
                if self.link.is_to_flush() {
                    let _ = self.link.flush().map_err(ends::broken)?;
                }
                if inbox.fill_within(self.link.socket(), self.link.stall(), None)? == Filled::End {
                    self.hung_up(&inbox);
                    return Ok(());
                }
                continue;
            };
            match message {
                Message::Call { call, method, is_busy, time_left, body } => {
                    self.link.counters().call();
                    match self.arrive((call, method, is_busy), time_left, body, inbox, workers)? {
                        Some(back) => inbox = back,
                        None => return Ok(()),
                    }
                }
                Message::Release { call } => self.desk.release(call)?,
                Message::Resend { call } => {
                    let frame = self.desk.inline(&self.link, call)?;
                    let _ = self.link.send(&frame).map_err(ends::broken)?;
                }
                Message::Cancel { call } => {
                    if let Some(call) = self.desk.cancel(call) {
                        self.refuse(call, cancelled(Progress::NotSent))?;
                        // It may have been too large for others to run before it.
                        self.have_helped(self.desk.may_start(), workers);
                    }
                }
                // `Receiver` lets only these through to a server.
                Message::Reply { call, .. } | Message::Failure { call, .. } => {
                    return Err(Violation::UnknownCall(call).into());
                }
                Message::Closing { .. } => unreachable!("`Receiver` lets none through to a server"),
            }
        }
    }

    /// Runs a call that has arrived, on this thread if not on another, and what waits behind it; or leaves it
    /// to wait. Gives the inbox if this thread leads after that.
    fn arrive(
        self: &Arc<Self>,
        (id, method, is_busy): (CallId, u16, bool),
        time_left: Option<Duration>,
        body: Arrived,
        inbox: Box<Inbox>,
        workers: &Arc<Workers>,
    ) -> Result<Option<Box<Inbox>>> {
        let is_quick = self.served.is_quick(method);
        // The answer may wait for those of the calls behind it, as somebody else takes over if they take
        // long.
        let more = inbox.has_next();
        let mut inbox = Some(inbox);
        let runs_here = |is_alone| is_quick || (is_alone && !is_busy);
        let call = (id, method, is_busy);
        let call = match self.desk.arrive(&self.link, call, time_left, body, &mut inbox, runs_here)? {
            Arrival::Runs(call) => call,
            Arrival::Waits if self.desk.is_full() => {
                let _ = self.link.flush().map_err(ends::broken)?;
                self.guard.watch();
                return Ok(inbox.and_then(|inbox| self.desk.put_aside_if_full(inbox)));
            }
            Arrival::Waits => return Ok(inbox),
        };
        if let Some(inbox) = inbox {
            match self.have_led(inbox, workers) {
                Ok(()) => return self.go_on(self.run(call, false, None)?, workers),
                Err(back) => self.desk.put_aside(back),
            }
        }
        self.running.store(method, Relaxed);
        workers.begin(&self.busy);
        let next = match if is_quick { Ok(Flow::Sent) } else { self.link.flush() } {
            Ok(_) => self.run(call, more, Some(workers)),
            Err(error) => Err(ends::broken(error)),
        };
        let next = next.inspect_err(|_| Workers::end(&self.busy))?;
        let led = self.go_on(next, workers)?;
        if led.is_none() && self.link.is_to_flush() {
            // Who leads now may have looked at the queue before the answer was in it.
            let _ = self.link.flush().map_err(ends::broken)?;
        }
        Ok(led)
    }

    /// Runs the calls that wait. Gives the inbox if this thread leads after that.
    fn go_on(self: &Arc<Self>, mut next: Next, workers: &Arc<Workers>) -> Result<Option<Box<Inbox>>> {
        loop {
            let Some(call) = next.call else { return Ok(next.aside) };
            if let Some(inbox) = next.aside
                && let Err(inbox) = self.have_led(inbox, workers)
            {
                self.desk.put_aside(inbox);
            }
            self.have_helped(next.has_more, workers);
            // An answer that waits for those of the calls behind it does not wait for a slow one.
            if self.link.is_to_flush() {
                let _ = self.link.flush().map_err(ends::broken)?;
            }
            next = self.run(call, false, None)?;
        }
    }

    /// Runs a call that waits, and those behind it, beside others. Gives the inbox if this thread leads after
    /// that.
    fn help(self: &Arc<Self>, workers: &Arc<Workers>) -> Result<Option<Box<Inbox>>> {
        let call = self.desk.start_next();
        self.go_on(Next { call, has_more: self.desk.may_start(), aside: None }, workers)
    }

    /// Has another thread lead, if there is one.
    fn have_led(self: &Arc<Self>, inbox: Box<Inbox>, workers: &Arc<Workers>) -> Result<(), Box<Inbox>> {
        let work = Work { connection: Arc::clone(self), inbox: Some(inbox) };
        workers.take(work).map_err(|work| work.inbox.expect("given back as it was"))
    }

    /// Has another thread run what waits beside what runs. Without one it waits for those that run.
    fn have_helped(self: &Arc<Self>, is_needed: bool, workers: &Arc<Workers>) {
        if is_needed {
            let _ = workers.take(Work { connection: Arc::clone(self), inbox: None });
        }
    }

    /// Has another thread lead, because the leader is held up.
    pub(super) fn take_over(self: &Arc<Self>, workers: &Arc<Workers>) {
        let Some(inbox) = self.desk.take_aside() else { return };
        // Not each call is timed.
        self.served.took(self.running.load(Relaxed), TICK);
        if let Err(inbox) = self.have_led(inbox, workers) {
            self.desk.put_aside(inbox);
            if self.desk.running() == 0 {
                // All who could have taken it up again have gone.
                self.link.close();
            }
        }
    }

    /// The end of what the client sends. It may still wait for the answers of calls that run.
    fn hung_up(&self, inbox: &Inbox) {
        ends::log_cut(self.served.service, inbox);
        if socket::is_hung_up(self.link.socket()) {
            self.link.close();
        } else {
            self.guard.watch();
        }
    }

    /// Runs a call and answers it. An error ends the connection.
    ///
    /// Where `more` calls have arrived already, the answer waits for theirs: one system call sends them
    /// together. Where it is `watched`, it was [begun](Workers::begin) before, and is no more afterwards.
    fn run(&self, call: Call, more: bool, watched: Option<&Arc<Workers>>) -> Result<Next> {
        let id = call.id;
        let (answer, ended) = if call.running.is_cancelled() {
            (Err(cancelled(Progress::NotSent)), call.into_ended())
        } else {
            self.answer(call)
        };
        let over = ends::is_fatal(&answer);
        let answer = self.desk.answer(&self.link, id, answer)?;
        // Before the next one can be begun by another leader, whose mark it would take off.
        if watched.is_some() {
            Workers::end(&self.busy);
        }
        let (answer, ended) = match self.desk.conclude(&self.link, answer, ended) {
            Concluded::Sent { next, has_to_wake } => {
                if has_to_wake {
                    self.link.wake();
                }
                return over.map_or(Ok(next), Err);
            }
            Concluded::Unsent(answer, ended) => (answer, ended),
        };
        // To send may take long, too. Where another leader has taken over and begun a call meanwhile, its
        // mark goes with this one; but then the inbox is aside again, and this thread takes it up as it
        // finishes.
        if let Some(workers) = watched {
            workers.begin(&self.busy);
        }
        let sent = match more && over.is_none() {
            true => self.link.push(&answer).map(drop),
            false => self.link.send(&answer).map(drop),
        };
        if watched.is_some() {
            Workers::end(&self.busy);
        }
        sent.map_err(ends::broken)?;
        over.map_or_else(|| Ok(self.desk.finish(ended)), Err)
    }

    /// Calls the implementation.
    fn answer(&self, call: Call) -> (Result<Reply>, Ended) {
        let Call { id, method, is_busy, body, running } = call;
        let started = self.served.is_timed(method).then(Instant::now);
        let current = Current::enter(running);
        let answer = catch_unwind(AssertUnwindSafe(|| {
            (self.served.dispatch)(self.served.request(&self.link, method, &body))
        }));
        let running = current.leave();
        if let Some(started) = started {
            self.served.took(method, started.elapsed());
        }
        let answer = answer.unwrap_or_else(|panic| Err(self.served.panicked(method, panic)));
        let answer = answer.map_err(|error| body.explain(error));
        // Whatever it is, nobody waits for it.
        let answer = if running.is_cancelled() { Err(cancelled(Progress::Ran)) } else { answer };
        // Loans that nobody took go back with the answer.
        (answer, Call { id, method, is_busy, body, running }.into_ended())
    }

    /// Answers a call that does not run.
    fn refuse(&self, call: Call, error: Error) -> Result<()> {
        let Call { id, body, .. } = call;
        drop(body);
        let frame = self.desk.refuse(&self.link, id, error)?;
        self.link.send(&frame).map(drop).map_err(ends::broken)
    }
}

impl Tend for Connection {
    fn flush_late(&self) -> bool {
        self.link.flush_late()
    }

    fn trim(&self) -> Option<Duration> {
        self.link.trim()
    }

    fn closed(&self) {
        self.desk.cancel_all();
    }
}

impl Guard {
    fn watch(self: &Arc<Self>) {
        if !self.is_on.swap(true, SeqCst) {
            maintenance::trim(maintenance::weak(self), LOOK);
        }
    }
}

impl Tend for Guard {
    fn flush_late(&self) -> bool {
        false
    }

    /// Comes again as long as calls run.
    fn trim(&self) -> Option<Duration> {
        let connection = self.connection.upgrade()?;
        if socket::is_hung_up(connection.link.socket()) {
            connection.link.close();
        } else if !connection.desk.is_idle() {
            return Some(LOOK);
        }
        self.is_on.store(false, SeqCst);
        None
    }
}
