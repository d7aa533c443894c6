//! One connection of a blocking server: which thread holds its receive half, and which runs its calls.
//!
//! Exactly one thread leads a connection: it holds the [`Inbox`] and receives. A call of a quick method (see
//! [`Pace`](lpc_core::pace::Pace)), or of a client that has no other call waiting, it runs on the spot, with
//! the receive half parked so that the [watch](super::workers) can have another thread take over should the
//! call take long after all. For any other call the leader hands it over to another thread before it runs the
//! call: that costs a wake-up. Calls beyond the limit of those that run at once wait; the thread that has
//! answered one runs the next.
//!
//! What a message means, and what answers a call, is the [`Desk`]'s to say.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use lpc_core::Result;

use super::guard::Guard;
use super::workers::{IDLE, TICK, Work, Workers};
use crate::connection::inbox::{Filled, Inbox};
use crate::connection::link::Link;
use crate::generated::{Reply, Request};
use crate::maintenance::{self, Left, Maintained};
use crate::server::admission::Permit;
use crate::server::context::Current;
use crate::server::desk::{Answered, Call, Desk, Next, Step};
use crate::server::ends::{self, Cause};
use crate::server::served::Served;
use crate::sys::{cpu, socket};

/// The implementation that a server calls, its type forgotten.
pub(super) type Dispatch = dyn Fn(Request<'_>) -> Result<Reply> + Send + Sync;

pub(super) struct Connection {
    link: Arc<Link>,
    served: Arc<Served<Dispatch>>,
    /// The watcher's tick at which the leader began to run a call itself; [`IDLE`] while it does not.
    busy: AtomicU32,
    /// The method of that call.
    running: AtomicU16,
    guard: Arc<Guard>,
    workers: Weak<Workers>,
    desk: Desk,
}

/// When an answer goes out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    Now,
    /// With the answers of the calls behind it that have arrived already: one system call sends them
    /// together.
    WithNext,
}

impl Connection {
    pub(super) fn new(
        link: Arc<Link>,
        served: Arc<Served<Dispatch>>,
        permit: Permit,
        workers: &Arc<Workers>,
    ) -> Arc<Self> {
        let desk = Desk::new(&served, &link, permit);
        let (busy, running) = (AtomicU32::new(IDLE), AtomicU16::new(0));
        let connection = Arc::new_cyclic(|this| {
            let guard = Guard::new(this.clone());
            Self { link, served, busy, running, guard, workers: Arc::downgrade(workers), desk }
        });
        connection.link.maintained_by(maintenance::weak(&connection));
        connection
    }

    pub(super) fn busy(&self) -> &AtomicU32 {
        &self.busy
    }

    /// Leads until another thread does, or the connection is over; without the receive half, runs what waits.
    pub(super) fn work(self: &Arc<Self>, inbox: Option<Box<Inbox>>, workers: &Arc<Workers>) {
        let led = catch_unwind(AssertUnwindSafe(|| {
            let inbox = match inbox {
                Some(inbox) => Some(inbox),
                None => self.help(workers)?,
            };
            inbox.map_or(Ok(()), |inbox| self.lead(inbox, workers))
        }));
        let error = match led {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(panic) => self.served.panicked(u16::MAX, panic),
        };
        self.desk.log_end(&Cause::Error(&error));
        self.link.close();
    }

    fn lead(self: &Arc<Self>, mut inbox: Box<Inbox>, workers: &Arc<Workers>) -> Result<()> {
        loop {
            let Some(message) = inbox.next()? else {
                // All that arrived is answered or on its way: send the answers before waiting for more.
                self.flush()?;
                if inbox.fill_within(self.link.socket(), self.link.stall(), None)? == Filled::End {
                    self.hung_up(&inbox);
                    return Ok(());
                }
                continue;
            };
            // The answer may wait for those of the calls behind it, as another thread takes over if they take
            // long.
            let more = inbox.has_next();
            let mut held = Some(inbox);
            let mut is_quick = false;
            let runs_here = |call: &Call, is_alone| {
                is_quick = self.served.is_quick(call.method);
                is_quick || (is_alone && !call.is_busy)
            };
            // A frame that is sent waits until the client has taken what is queued before it.
            let led = match self.desk.receive(&self.link, message, &mut held, runs_here)? {
                Step::Done | Step::Cancelled => held,
                Step::Run(call) => {
                    let flush = if more { Flush::WithNext } else { Flush::Now };
                    self.start(call, is_quick, flush, held, workers)?
                }
                Step::Waits if self.desk.is_full() => {
                    self.flush()?;
                    self.guard.watch();
                    held.and_then(|inbox| self.desk.park_if_full(inbox))
                }
                Step::Waits => held,
                Step::Send(frame, refers_to) => {
                    let _ = self.link.send(&frame).map_err(ends::broken)?;
                    drop(refers_to);
                    self.have_helped(self.desk.may_start(), workers);
                    held
                }
            };
            match led {
                Some(led) => inbox = led,
                None => return Ok(()),
            }
        }
    }

    /// Runs a call that has arrived, and what waits behind it, on this thread: as the leader, whose receive
    /// half is parked, or once another thread leads. Gives the receive half if this thread leads after that.
    #[inline]
    fn start(
        self: &Arc<Self>,
        call: Call,
        is_quick: bool,
        flush: Flush,
        inbox: Option<Box<Inbox>>,
        workers: &Arc<Workers>,
    ) -> Result<Option<Box<Inbox>>> {
        if let Some(inbox) = inbox {
            match self.have_led(inbox, workers) {
                Ok(()) => return self.go_on(self.run(call, Flush::Now, None)?, workers),
                Err(back) => self.desk.park(back),
            }
        }
        self.running.store(call.method, Relaxed);
        workers.begin(&self.busy);
        // Answers that wait for those of the calls behind them do not wait for a slow one.
        let next = match if is_quick { Ok(()) } else { self.flush_now() } {
            Ok(()) => self.run(call, flush, Some(workers)),
            Err(error) => Err(ends::broken(error)),
        };
        let next = next.inspect_err(|_| Workers::end(&self.busy))?;
        let led = self.go_on(next, workers)?;
        if led.is_none() {
            // The thread that leads now may have looked at the queue before the answer was in it.
            self.flush()?;
        }
        Ok(led)
    }

    /// Runs the calls that wait. Gives the receive half if this thread leads after that.
    #[inline]
    fn go_on(self: &Arc<Self>, mut next: Next, workers: &Arc<Workers>) -> Result<Option<Box<Inbox>>> {
        loop {
            let Some(call) = next.call else { return Ok(next.receive) };
            if let Some(inbox) = next.receive
                && let Err(inbox) = self.have_led(inbox, workers)
            {
                self.desk.park(inbox);
            }
            self.have_helped(next.has_more, workers);
            // An answer that waits for those of the calls behind it does not wait for a slow one.
            self.flush()?;
            next = self.run(call, Flush::Now, None)?;
        }
    }

    /// Runs a call that waits, and those behind it, beside others. Gives the receive half if this thread
    /// leads after that.
    fn help(self: &Arc<Self>, workers: &Arc<Workers>) -> Result<Option<Box<Inbox>>> {
        let call = self.desk.start_next();
        self.go_on(Next { call, has_more: self.desk.may_start(), receive: None }, workers)
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
        let Some(inbox) = self.desk.take_parked() else { return };
        // Not each call is timed.
        self.served.took(self.running.load(Relaxed), TICK);
        if let Err(inbox) = self.have_led(inbox, workers) {
            self.desk.park(inbox);
            if self.desk.running() == 0 {
                // All threads that could have taken it up again have gone.
                self.link.close();
            }
        }
    }

    /// The end of what the client sends.
    fn hung_up(&self, inbox: &Inbox) {
        if self.desk.hung_up(&self.link, inbox) {
            self.link.close();
        } else {
            self.guard.watch();
        }
    }

    /// Whether the guard is to come again: the client is there, and calls run. Ends the connection where it
    /// is not.
    pub(super) fn is_to_be_watched(self: &Arc<Self>) -> bool {
        if socket::is_hung_up(self.link.socket()) {
            self.desk.log_end(&Cause::HungUp);
            self.link.close();
            return false;
        }
        if self.desk.is_full() {
            self.link.give_sign();
        }
        if self.desk.look() {
            self.read_on();
        }
        !self.desk.is_idle()
    }

    /// Has another thread lead though all calls that run stand still. Where there is none, the next look
    /// tries again.
    fn read_on(self: &Arc<Self>) {
        if let Some(workers) = self.workers.upgrade()
            && let Some(inbox) = self.desk.take_parked()
            && let Err(inbox) = self.have_led(inbox, &workers)
        {
            self.desk.park(inbox);
        }
    }

    /// Sends what was queued, if anything was.
    #[inline]
    fn flush(&self) -> Result<()> {
        if self.link.needs_flush() { self.flush_now().map_err(ends::broken) } else { Ok(()) }
    }

    fn flush_now(&self) -> io::Result<()> {
        self.link.flush().map(drop)
    }

    /// Runs a call and answers it. An error ends the connection.
    ///
    /// Where it is `watched`, it was [begun](Workers::begin) before, and is no more afterwards.
    #[inline]
    fn run(&self, call: Call, flush: Flush, watched: Option<&Arc<Workers>>) -> Result<Next> {
        let answered = if call.running.is_cancelled() { call.refused(&self.link) } else { self.answer(call) };
        // Before the next one can be begun by another leader, whose mark it would take off.
        if watched.is_some() {
            Workers::end(&self.busy);
        }
        // It will be needed twice.
        let cpu = cpu::current();
        let next = self.desk.conclude(&self.link, answered, cpu, |frame, is_last| {
            // To send may take long, too. Where another leader has taken over and begun a call meanwhile, its
            // mark goes with this one; but then the receive half is parked again, and this thread takes it up
            // as it finishes.
            if let Some(workers) = watched {
                workers.begin(&self.busy);
            }
            let sent = match flush {
                Flush::WithNext if !is_last => self.link.enqueue(frame, cpu).map(drop),
                _ => self.link.send_within(frame, cpu, None).map(drop),
            };
            if watched.is_some() {
                Workers::end(&self.busy);
            }
            sent.map_err(ends::broken)
        });
        next.map(|mut next| {
            if let Some(inbox) = &mut next.receive {
                inbox.is_at(cpu);
            }
            next
        })
    }

    /// Calls the implementation.
    #[inline]
    fn answer(&self, call: Call) -> Answered {
        let Call { id, method, is_busy, body, running } = call;
        let mut stopwatch = self.served.stopwatch(method);
        let span = self.desk.span(method, id);
        let _entered = span.enter();
        let current = Current::enter(running);
        let outcome = stopwatch.turn(|| {
            catch_unwind(AssertUnwindSafe(|| {
                (self.served.dispatch)(self.served.request(&self.link, method, &body))
            }))
        });
        drop(stopwatch);
        let call = Call { id, method, is_busy, body, running: current.leave() };
        self.desk.answer(&self.served, &self.link, call, outcome, &span)
    }
}

impl Maintained for Connection {
    fn flush_deferred(&self) -> Left {
        self.link.flush_deferred()
    }

    fn trim(&self) -> Option<Duration> {
        self.link.trim()
    }

    fn awaits_peer(&self) -> bool {
        self.desk.is_awaited()
    }

    fn does_not_read(&self, error: io::Error) {
        self.desk.log_end(&Cause::Error(&ends::broken(error)));
        self.link.close();
    }

    fn closing(&self) {
        self.desk.end();
    }
}
