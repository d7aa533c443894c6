//! One connection of an async server: who reads it, what runs on it, and how its calls are answered.
//!
//! One task reads. A call of a method that is known to be quick is polled on it, once; if that does not
//! finish it, and for any other method, the call becomes a task of its own. Calls beyond the limit of those
//! that run at once wait; the task that has answered one runs the next.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use lpc_core::receive::Violation;
use lpc_core::{Error, Progress, Result};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::race::{Either, race};
use super::socket::{AsyncLink, fill};
use super::spinning::Ahead;
use super::stream::Stream;
use crate::connection::inbox::{Filled, Inbox, Message};
use crate::connection::link::Link;
use crate::credentials::Credentials;
use crate::generated::{Reply, Request};
use crate::maintenance::{self, Tend};
use crate::server::admission::Permit;
use crate::server::context::{Current, Running, cancelled};
use crate::server::desk::{Answer, Arrival, Call, Concluded, Desk, Ended};
use crate::server::ends;
use crate::server::served::Served;
use crate::sys::socket::is_hung_up;

/// The implementation that a server calls.
pub(super) trait Implementation: Send + Sync + 'static {
    /// Answers a request.
    fn call<'a>(&'a self, request: Request<'a>) -> impl Future<Output = Result<Reply>> + Send + 'a;
}

pub(super) struct Connection<D> {
    link: AsyncLink,
    served: Arc<Served<D>>,
    desk: Desk,
    /// A call has ended.
    ended: Notify,
    _permit: Permit,
}

/// What a call ended with. It counts as running until it is answered.
struct Done {
    /// The frame to send, and the error that ends the connection with it.
    answer: Result<(Answer, Option<Error>)>,
    ended: Ended,
}

/// When an answer goes out.
#[derive(Clone, Copy)]
enum Goes {
    Now,
    /// With the answers of the calls behind it, which the task that reads is about to run.
    WithThoseThatArrived,
    /// With those of the tasks that have their turn before the connection's.
    WithThoseThatRun,
}

impl<D: Implementation> Connection<D> {
    pub(super) fn new(
        link: Arc<Link>,
        peer: Credentials,
        served: Arc<Served<D>>,
        permit: Permit,
    ) -> Arc<Self> {
        let desk = Desk::new(peer, served.max_calls, link.limits());
        let link = AsyncLink::new(link);
        let connection = Arc::new(Self { link, served, desk, ended: Notify::new(), _permit: permit });
        connection.link().tended_by(maintenance::weak(&connection));
        connection
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        self.link.link()
    }

    /// Serves until the client hangs up and the calls that run are answered.
    pub(super) async fn serve(self: &Arc<Self>, socket: &Stream, inbox: Inbox) -> Result<()> {
        // Calls that still run keep the socket open: also where this future is dropped, the client has to
        // know.
        let _guard = CloseOnDrop(self);
        match race(self.link.resume(socket), self.receive(socket, inbox)).await {
            Either::First(error) => Err(ends::broken(error)),
            Either::Second(result) => result,
        }
    }

    async fn receive(self: &Arc<Self>, socket: &Stream, mut inbox: Inbox) -> Result<()> {
        let (mut in_a_row, mut ahead) = (0, Ahead::default());
        loop {
            // All that arrived is answered or on its way: send the answers before waiting for more.
            if self.link().is_to_flush() {
                self.link.flush().map_err(ends::broken)?;
            }
            if fill(socket, &mut inbox, self.link().stall(), &mut ahead).await? == Filled::End {
                return self.hung_up(socket, &inbox).await;
            }
            while let Some(message) = inbox.next()? {
                in_a_row += 1;
                if in_a_row > IN_A_ROW {
                    in_a_row = 0;
                    // Those may take their time.
                    if self.link().is_to_flush() {
                        self.link.flush().map_err(ends::broken)?;
                    }
                    yield_now().await;
                }
                match message {
                    Message::Call { call, method, is_busy, time_left, body } => {
                        self.link().counters().call();
                        let call = (call, method, is_busy);
                        let stays = |_| false;
                        match self.desk.arrive(self.link(), call, time_left, body, &mut None, stays)? {
                            Arrival::Runs(call) => {
                                if self.start(call, inbox.has_next()).await? {
                                    ahead.give_way();
                                }
                            }
                            Arrival::Waits => self.readable().await?,
                        }
                    }
                    Message::Release { call } => self.desk.release(call)?,
                    Message::Resend { call } => {
                        let frame = self.desk.inline(self.link(), call)?;
                        self.link.send(&frame).map_err(ends::broken)?;
                    }
                    Message::Cancel { call } => {
                        ahead.give_way();
                        if let Some(call) = self.desk.cancel(call) {
                            self.refuse(call)?;
                            // It may have been too large for others to run before it.
                            self.start_all();
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
    }

    /// The end of what the client sends. It may still wait for the answers of calls that run.
    async fn hung_up(&self, socket: &Stream, inbox: &Inbox) -> Result<()> {
        ends::log_cut(self.served.service, inbox);
        if is_hung_up(self.link().socket()) {
            return Ok(());
        }
        self.until(Desk::is_idle).await;
        if self.link().is_broken() {
            return Ok(());
        }
        self.link.flush_all(socket).await.map_err(ends::broken)
    }

    /// Waits until more calls may be read.
    async fn readable(&self) -> Result<()> {
        if self.desk.is_full() {
            self.link.flush().map_err(ends::broken)?;
            self.until(|desk| !desk.is_full()).await;
        }
        Ok(())
    }

    /// Waits until it is so, or nobody is there any more for whom it matters. Nobody reads meanwhile, who
    /// would notice.
    async fn until(&self, is_so: impl Fn(&Desk) -> bool) {
        loop {
            let ended = self.ended.notified();
            if is_so(&self.desk) || self.link().is_broken() {
                return;
            }
            if timeout(LOOK, ended).await.is_err() && is_hung_up(self.link().socket()) {
                self.link.close();
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

    /// Runs a call: here if that is quick, else as a task. Whether there is such a task.
    async fn start(self: &Arc<Self>, call: Call, more: bool) -> Result<bool> {
        // Its answer needs room in the queue.
        if self.link().is_congested() {
            self.link.flush().map_err(ends::broken)?;
            self.link.uncongested().await;
        }
        let mut next = Some(call);
        while let Some(call) = next {
            let is_quick = self.served.is_quick(call.method);
            let connection = Arc::clone(self);
            let running = async move { connection.run(call).await };
            if !is_quick {
                tokio::spawn(Arc::clone(self).go_on(running));
                return Ok(true);
            }
            let mut running = Box::pin(running);
            match poll_fn(|cx| Poll::Ready(running.as_mut().poll(cx))).await {
                Poll::Ready(done) => {
                    let goes = if more { Goes::WithThoseThatArrived } else { Goes::Now };
                    next = self.answer(done, goes)?;
                }
                Poll::Pending => {
                    tokio::spawn(Arc::clone(self).go_on(running));
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Runs a call, and the calls that wait.
    async fn go_on(self: Arc<Self>, running: impl Future<Output = Done>) {
        let mut done = running.await;
        loop {
            let goes = if self.desk.running() > 1 { Goes::WithThoseThatRun } else { Goes::Now };
            match self.answer(done, goes) {
                Ok(None) => return,
                Ok(Some(call)) => {
                    self.link.uncongested().await;
                    done = self.run(call).await;
                }
                Err(error) => {
                    ends::log_end(self.served.service, self.link(), &error);
                    self.link.close();
                    return;
                }
            }
        }
    }

    /// Calls the implementation.
    async fn run(&self, call: Call) -> Done {
        let Call { id, method, is_busy, body, running } = call;
        let answer = if running.is_cancelled() {
            Err(cancelled(Progress::NotSent))
        } else {
            let call = self.served.dispatch.call(self.served.request(self.link(), method, &body));
            let (answer, time) = guarded(pin!(Some(call)), &running).await;
            self.served.took(method, time);
            answer.unwrap_or_else(|panic| Err(self.served.panicked(method, panic)))
        };
        let answer = answer.map_err(|error| body.explain(error));
        let ended = Call { id, method, is_busy, body, running }.into_ended();
        let fatal = ends::is_fatal(&answer);
        let answer = self.desk.answer(self.link(), id, answer).map(|frame| (frame, fatal));
        Done { answer, ended }
    }

    /// Sends the answer of a call, at once or with others: one system call sends them together. Gives the
    /// next call to be run.
    fn answer(self: &Arc<Self>, done: Done, goes: Goes) -> Result<Option<Call>> {
        let (answer, fatal) = done.answer?;
        let next = match self.desk.conclude(self.link(), answer, done.ended) {
            Concluded::Sent { next, has_to_wake } => {
                if has_to_wake {
                    self.link().wake();
                }
                next
            }
            Concluded::Unsent(answer, ended) => {
                let sent = match goes {
                    Goes::WithThoseThatArrived if fatal.is_none() => self.link.push(&answer),
                    Goes::WithThoseThatRun if fatal.is_none() => self.link.send_with_others(&answer),
                    _ => self.link.send(&answer),
                };
                let _ = sent.map_err(ends::broken)?;
                self.desk.finish(ended)
            }
        };
        self.ended.notify_waiters();
        if next.has_more {
            self.start_all();
        }
        fatal.map_or(Ok(next.call), Err)
    }

    /// Answers a call that was cancelled before it ran.
    fn refuse(&self, call: Call) -> Result<()> {
        let Call { id, body, .. } = call;
        drop(body);
        let frame = self.desk.refuse(self.link(), id, cancelled(Progress::NotSent))?;
        self.link.send(&frame).map(drop).map_err(ends::broken)
    }
}

impl<D: Implementation> Tend for Connection<D> {
    fn flush_late(&self) -> bool {
        self.link().flush_late()
    }

    fn trim(&self) -> Option<Duration> {
        self.link().trim()
    }

    fn closed(&self) {
        self.desk.cancel_all();
        self.ended.notify_waiters();
    }
}

/// Messages of one connection between which the tasks of others have their turn: a client with many calls
/// under way does not keep one with a single call waiting for all of them.
const IN_A_ROW: u32 = 16;

/// How often a connection that nobody reads is looked after.
const LOOK: Duration = Duration::from_secs(1);

struct CloseOnDrop<'c, D: Implementation>(&'c Connection<D>);

impl<D: Implementation> Drop for CloseOnDrop<'_, D> {
    fn drop(&mut self) {
        self.0.link.close();
    }
}

/// Runs a future to its end or panic, or until its call is cancelled, and drops it. Says how long its longest
/// turn took: that is how long it would have kept the task that reads.
async fn guarded<F: Future<Output = Result<Reply>>>(
    mut future: Pin<&mut Option<F>>,
    running: &Arc<Running>,
) -> (std::thread::Result<Result<Reply>>, Duration) {
    let mut longest = Duration::ZERO;
    let turns = poll_fn(|cx| {
        let Some(turn) = future.as_mut().as_pin_mut() else { return Poll::Pending };
        let started = Instant::now();
        let _current = Current::enter(Arc::clone(running));
        let polled = catch_unwind(AssertUnwindSafe(|| turn.poll(cx)));
        longest = longest.max(started.elapsed());
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    });
    let output = match race(turns, running.cancelled()).await {
        Either::First(output) => output,
        Either::Second(()) => Ok(Err(cancelled(Progress::Ran))),
    };
    // What it holds belongs to the implementation, and may panic, too.
    let _current = Current::enter(Arc::clone(running));
    let dropped = catch_unwind(AssertUnwindSafe(|| future.set(None)));
    (output.and_then(|output| dropped.map(|()| output)), longest)
}
