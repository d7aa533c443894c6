//! One connection of an async server: which task receives, and which runs its calls.
//!
//! One task receives. A call of a method that is known to be quick is polled on it, once; if that does not
//! finish it, and for any other method, the call becomes a task of its own. Calls beyond the limit of those
//! that run at once wait; the task that has answered one runs the next.
//!
//! What a message means, and what answers a call, is the [`Desk`]'s to say.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{self, Poll};
use std::thread;
use std::time::Duration;

use lpc_core::{Progress, Result};
use tokio::task::yield_now;
use tokio::time::timeout;

use super::race::{Either, race};
use super::signal::Signal;
use super::socket::{AsyncLink, fill};
use super::spinning::Ahead;
use super::stream::Stream;
use crate::connection::inbox::{Filled, Inbox};
use crate::connection::link::Link;
use crate::generated::{Reply, Request};
use crate::maintenance::{self, Left, Maintained};
use crate::server::admission::Permit;
use crate::server::context::{Current, Running, cancelled};
use crate::server::desk::{Answered, Call, Desk, Step};
use crate::server::ends::{self, Cause};
use crate::server::served::{Served, Stopwatch};
use crate::spans::CallSpan;
use crate::sys::cpu;
use crate::sys::socket::is_hung_up;

/// The implementation that a server calls.
pub(super) trait Implementation: Send + Sync + 'static {
    /// Answers a request.
    fn call<'a>(&'a self, request: Request<'a>) -> impl Future<Output = Result<Reply>> + Send + 'a;
}

pub(super) struct Connection<D> {
    link: AsyncLink,
    served: Arc<Served<D>>,
    /// A call has ended.
    ended: Signal,
    desk: Desk,
}

/// When an answer goes out.
#[derive(Clone, Copy)]
enum Flush {
    Now,
    /// With the answers of the calls behind it that have arrived already, which the task that receives is
    /// about to run.
    WithNext,
    /// With those of the tasks that have their turn before the connection's.
    WithOthers,
}

impl<D: Implementation> Connection<D> {
    pub(super) fn new(link: Arc<Link>, served: Arc<Served<D>>, permit: Permit) -> Arc<Self> {
        let desk = Desk::new(&served, &link, permit);
        let connection =
            Arc::new(Self { link: AsyncLink::new(link), served, ended: Signal::default(), desk });
        connection.link().maintained_by(maintenance::weak(&connection));
        connection
    }

    fn link(&self) -> &Arc<Link> {
        self.link.link()
    }

    /// Serves until the client hangs up and the calls that run are answered.
    pub(super) async fn serve(self: &Arc<Self>, socket: &Stream, inbox: Inbox) -> Result<()> {
        // Calls that still run keep the socket open: also where this future is dropped, the client has to
        // know.
        let _guard = CloseOnDrop(self);
        let result = match race(self.link.resume(socket), self.receive(socket, inbox)).await {
            Either::First(error) => Err(ends::broken(error)),
            Either::Second(result) => result,
        };
        self.desk.log_end(&result.as_ref().map_or_else(Cause::Error, |()| Cause::HungUp));
        result
    }

    async fn receive(self: &Arc<Self>, socket: &Stream, mut inbox: Inbox) -> Result<()> {
        let (mut in_a_row, mut ahead) = (0, Ahead::default());
        let run = |call| {
            let connection = Arc::clone(self);
            async move { connection.run(call).await }
        };
        let mut place = Box::pin(None);
        loop {
            // All that arrived is answered or on its way: send the answers before waiting for more.
            if self.link().needs_flush() {
                self.flush()?;
            }
            if fill(socket, &mut inbox, self.link().stall(), &mut ahead).await? == Filled::End {
                return self.hung_up(socket, &inbox).await;
            }
            while let Some(message) = inbox.next()? {
                in_a_row += 1;
                if in_a_row > IN_A_ROW {
                    in_a_row = 0;
                    // Those may take their time.
                    if self.link().needs_flush() {
                        self.flush()?;
                    }
                    yield_now().await;
                }
                // Whatever it is: a client that does not take its answers causes no more of them.
                if self.link().is_congested() {
                    self.receivable().await?;
                }
                match self.desk.receive(self.link(), message, &mut None, |_, _| false)? {
                    Step::Done => {}
                    Step::Cancelled => ahead.give_way(),
                    Step::Run(call) => {
                        if self.start(call, inbox.has_next(), run, &mut place).await? {
                            ahead.give_way();
                        }
                    }
                    Step::Waits => self.receivable().await?,
                    Step::Send(frame, refers_to) => {
                        ahead.give_way();
                        self.link.send(&frame).map_err(ends::broken)?;
                        drop(refers_to);
                        self.start_all();
                    }
                }
            }
        }
    }

    /// The end of what the client sends. It may still wait for the answers of calls that run.
    async fn hung_up(&self, socket: &Stream, inbox: &Inbox) -> Result<()> {
        if self.desk.hung_up(self.link(), inbox) {
            return Ok(());
        }
        self.until(Desk::is_drained).await;
        if self.link().is_broken() {
            return Ok(());
        }
        self.link.flush_all(socket).await.map_err(ends::broken)
    }

    /// Waits until more may be received, or the connection is over.
    async fn receivable(&self) -> Result<()> {
        while !self.desk.may_receive(self.link().is_congested()) && !self.link().is_broken() {
            self.flush()?;
            self.link.uncongested().await;
            self.until(|desk| !desk.is_full()).await;
        }
        Ok(())
    }

    /// Sends what was queued.
    fn flush(&self) -> Result<()> {
        self.link.flush().map_err(ends::broken)
    }

    /// Waits until it is so, or the connection is over. Whether the client is still there is looked at here,
    /// since nothing is received meanwhile.
    async fn until(&self, is_so: impl Fn(&Desk) -> bool) {
        let is_so = || is_so(&self.desk) || self.link().is_broken();
        while !is_so() {
            let ended = timeout(LOOK, self.ended.wait_unless(is_so)).await;
            if ended.is_err() && is_hung_up(self.link().socket()) {
                self.desk.log_end(&Cause::HungUp);
                self.link.close();
            } else if ended.is_err() && self.desk.is_full() {
                self.link().give_sign();
                self.desk.look();
            }
        }
    }

    /// Runs the calls that wait and may run, each as a task.
    fn start_all(self: &Arc<Self>) {
        while let Some(call) = self.desk.start_next() {
            let connection = Arc::clone(self);
            tokio::spawn(Arc::clone(self).go_on(async move { connection.run(call).await }));
        }
    }

    /// Runs a call: here if that is quick, in the `place`, else as a task. Whether there is such a task.
    async fn start<F: Future<Output = Answered> + Send + 'static>(
        self: &Arc<Self>,
        call: Call,
        more: bool,
        run: impl Fn(Call) -> F,
        place: &mut Place<F>,
    ) -> Result<bool> {
        let mut next = Some(call);
        while let Some(call) = next {
            let is_quick = self.served.is_quick(call.method);
            let running = run(call);
            if !is_quick {
                tokio::spawn(Arc::clone(self).go_on(running));
                return Ok(true);
            }
            place.set(Some(running));
            match poll_fn(|cx| Poll::Ready(poll_in(place, cx))).await {
                Poll::Ready(answered) => {
                    place.set(None);
                    next = self.send(answered, if more { Flush::WithNext } else { Flush::Now })?;
                }
                Poll::Pending => {
                    let mut place = mem::replace(place, Box::pin(None));
                    tokio::spawn(Arc::clone(self).go_on(poll_fn(move |cx| poll_in(&mut place, cx))));
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Runs a call, and the calls that wait.
    async fn go_on(self: Arc<Self>, running: impl Future<Output = Answered>) {
        let mut answered = running.await;
        loop {
            let flush = if self.desk.running() > 1 { Flush::WithOthers } else { Flush::Now };
            match self.send(answered, flush) {
                Ok(None) => return,
                Ok(Some(call)) => {
                    self.link.uncongested().await;
                    answered = self.run(call).await;
                }
                Err(error) => {
                    self.desk.log_end(&Cause::Error(&error));
                    self.link.close();
                    return;
                }
            }
        }
    }

    /// Calls the implementation.
    async fn run(&self, call: Call) -> Answered {
        if call.running.is_cancelled() {
            return call.refused(self.link());
        }
        let span = self.desk.span(call.method, call.id);
        let outcome = {
            let mut stopwatch = self.served.stopwatch(call.method);
            let request = self.served.request(self.link(), call.method, &call.body);
            let future = pin!(Some(self.served.dispatch.call(request)));
            guarded(future, &call.running, &mut stopwatch, &span).await
        };
        let _entered = span.enter();
        self.desk.answer(&self.served, self.link(), call, outcome, &span)
    }

    /// Sends the answer of a call, at once or with others: one system call sends them together. Gives the
    /// next call to be run.
    fn send(self: &Arc<Self>, answered: Answered, flush: Flush) -> Result<Option<Call>> {
        let cpu = cpu::current();
        let sent = self.desk.conclude(self.link(), answered, cpu, |frame, is_last| {
            let sent = match flush {
                Flush::WithNext if !is_last => self.link.enqueue(frame, cpu),
                Flush::WithOthers if !is_last => self.link.send_with_others(frame, cpu),
                _ => self.link.send_on(frame, cpu),
            };
            sent.map(drop).map_err(ends::broken)
        });
        self.ended.tell();
        let next = sent?;
        if next.has_more {
            self.start_all();
        }
        Ok(next.call)
    }
}

impl<D: Implementation> Maintained for Connection<D> {
    fn flush_deferred(&self) -> Left {
        self.link.flush_deferred();
        Left::Nothing
    }

    fn flush_without_maintenance(&self) -> bool {
        self.link.have_flushed();
        true
    }

    fn trim(&self) -> Option<Duration> {
        self.link().trim()
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

    fn closed(&self) {
        self.ended.tell();
    }
}

/// Where a call is run that may have to be moved to a task: there is one for all calls until that happens.
type Place<F> = Pin<Box<Option<F>>>;

fn poll_in<F: Future>(place: &mut Place<F>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
    place.as_mut().as_pin_mut().expect("a call is there until it has ended").poll(cx)
}

/// Messages of one connection between which the tasks of others have their turn: a client with many calls
/// under way does not keep one with a single call waiting for all of them.
const IN_A_ROW: u32 = 16;

/// How often a connection is looked at while nothing is received.
const LOOK: Duration = Duration::from_secs(1);

struct CloseOnDrop<'c, D: Implementation>(&'c Connection<D>);

impl<D: Implementation> Drop for CloseOnDrop<'_, D> {
    fn drop(&mut self) {
        self.0.link.close();
    }
}

/// Runs a future to its end or panic, or until its call is cancelled, and drops it.
async fn guarded<F: Future<Output = Result<Reply>>>(
    mut future: Pin<&mut Option<F>>,
    running: &Arc<Running>,
    stopwatch: &mut Stopwatch<'_>,
    span: &CallSpan,
) -> thread::Result<Result<Reply>> {
    let turns = poll_fn(|cx| {
        let Some(turn) = future.as_mut().as_pin_mut() else { return Poll::Pending };
        let _current = Current::enter(Arc::clone(running));
        let _entered = span.enter();
        let output = match stopwatch.turn(|| catch_unwind(AssertUnwindSafe(|| turn.poll(cx)))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(panic) => Err(panic),
        };
        Poll::Ready(dropped(future.as_mut(), output))
    });
    match race(turns, running.cancelled()).await {
        Either::First(output) => output,
        Either::Second(()) => {
            let _current = Current::enter(Arc::clone(running));
            let _entered = span.enter();
            dropped(future, Ok(Err(cancelled(Progress::Ran))))
        }
    }
}

/// The output of a future, once that is dropped: what it holds belongs to the implementation, and may panic,
/// too.
fn dropped<F, T>(mut future: Pin<&mut Option<F>>, output: thread::Result<T>) -> thread::Result<T> {
    let dropped = catch_unwind(AssertUnwindSafe(|| future.set(None)));
    output.and_then(|output| dropped.map(|()| output))
}
