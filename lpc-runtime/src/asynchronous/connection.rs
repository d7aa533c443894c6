//! One connection of an async server: who reads it, what runs on it, and how its calls are answered.
//!
//! One task reads. A call of a method that is known to be quick is polled on it, once; if that does not finish it, and
//! for any other method, the call becomes a task of its own.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use lpc_core::frame::CallId;
use lpc_core::receiver::Violation;
use lpc_core::{Error, Result};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::race::{Either, race};
use super::socket::{AsyncLink, fill};
use crate::doors::Guest;
use crate::lane::incoming::{Arrived, Filled, Inbox, Message};
use crate::link::Link;
use crate::service::{Reply, Request};
use crate::serving::{self, Answer, Blocks, Served};
use crate::shared::Current;

/// The implementation that a server calls.
pub(super) trait Implementation: Send + Sync + 'static {
    /// Answers a request.
    fn call<'a>(&'a self, request: Request<'a>) -> impl Future<Output = Result<Reply>> + Send + 'a;
}

pub(super) struct Connection<D> {
    link: AsyncLink,
    served: Arc<Served<D>>,
    blocks: Blocks,
    /// One for each call that may run.
    permits: Arc<Semaphore>,
    _guest: Guest,
}

/// A call that has arrived, and its permission to run.
struct Call {
    id: CallId,
    method: u16,
    body: Arrived,
    permit: OwnedSemaphorePermit,
}

/// What a call ended with. It counts as running until it is answered.
struct Ended {
    /// The frame to send, and the error that ends the connection with it.
    answer: Result<(Answer, Option<Error>)>,
    _permit: OwnedSemaphorePermit,
}

impl<D: Implementation> Connection<D> {
    pub(super) fn new(link: Arc<Link>, served: Arc<Served<D>>, guest: Guest) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(served.max_calls.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self {
            link: AsyncLink::new(link),
            served,
            blocks: Blocks::default(),
            permits,
            _guest: guest,
        })
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        self.link.link()
    }

    /// Serves until the client hangs up and the calls that run are answered.
    pub(super) async fn serve(self: &Arc<Self>, socket: &UnixStream, inbox: Inbox) -> Result<()> {
        // Calls that still run keep the socket open: also where this future is dropped, the client has to know.
        let _guard = CloseOnDrop(&self.link);
        match race(self.receive(socket, inbox), self.link.resume(socket)).await {
            Either::First(result) => result,
            Either::Second(error) => Err(serving::broken(error)),
        }
    }

    async fn receive(self: &Arc<Self>, socket: &UnixStream, mut inbox: Inbox) -> Result<()> {
        loop {
            // All that arrived is answered or on its way: send the answers before waiting for more.
            self.link.flush().map_err(serving::broken)?;
            if fill(socket, &mut inbox).await? == Filled::End {
                serving::log_cut(self.served.service, &inbox);
                // The client may have closed its sending side only: the calls that run may still answer.
                let all = u32::try_from(self.served.max_calls).unwrap_or(u32::MAX);
                let _ = self.permits.acquire_many(all).await;
                return self.link.flush_all(socket).await.map_err(serving::broken);
            }
            while let Some(message) = inbox.next()? {
                match message {
                    Message::Call { call, method, body, .. } => {
                        self.link().counters().call();
                        let permit = self.permit().await?;
                        self.admit(&body).await?;
                        self.start(Call { id: call, method, body, permit }, inbox.has_next()).await?;
                    }
                    Message::Release { call } => self.blocks.release(call)?,
                    Message::Resend { call } => {
                        let frame = self.blocks.inline(self.link(), call)?;
                        self.link.send(&frame).map_err(serving::broken)?;
                    }
                    // `Receiver` lets only these through to a server.
                    Message::Reply { call, .. } | Message::Failure { call, .. } => {
                        return Err(Violation::UnknownCall(call).into());
                    }
                }
            }
        }
    }

    /// Waits until one call more may run, and until its answer has room in the queue.
    async fn permit(&self) -> Result<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned()
            && !self.link().is_congested()
        {
            return Ok(permit);
        }
        self.link.flush().map_err(serving::broken)?;
        self.link.uncongested().await;
        Ok(Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed"))
    }

    /// Waits until a call's arguments may be copied.
    async fn admit(&self, body: &Arrived) -> Result<()> {
        let admit = |cx: &mut Context<'_>| self.blocks.admit(self.link(), body, || cx.waker().clone());
        if poll_fn(|cx| Poll::Ready(admit(cx))).await {
            return Ok(());
        }
        self.link.flush().map_err(serving::broken)?;
        poll_fn(|cx| if admit(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
        Ok(())
    }

    /// Runs a call: here if that is quick, else as a task.
    async fn start(self: &Arc<Self>, call: Call, more: bool) -> Result<()> {
        let is_quick = self.served.is_quick(call.method);
        let connection = Arc::clone(self);
        let running = async move { connection.run(call).await };
        if !is_quick {
            let connection = Arc::clone(self);
            tokio::spawn(async move { connection.answer_or_close(running.await) });
            return Ok(());
        }
        let mut running = Box::pin(running);
        match poll_fn(|cx| Poll::Ready(running.as_mut().poll(cx))).await {
            Poll::Ready(ended) => self.answer(ended, more),
            Poll::Pending => {
                let connection = Arc::clone(self);
                tokio::spawn(async move { connection.answer_or_close(running.await) });
                Ok(())
            }
        }
    }

    /// Calls the implementation.
    async fn run(&self, call: Call) -> Ended {
        let Call { id, method, body, permit } = call;
        let copied_len = body.copied_len();
        let call = pin!(self.served.dispatch.call(self.served.request(self.link(), method, &body)));
        let (answer, time) = guarded(call, self.link()).await;
        self.blocks.done(copied_len);
        self.served.took(method, time);
        let answer = answer.unwrap_or_else(|panic| Err(self.served.panicked(method, &*panic)));
        let answer = answer.map_err(|error| body.explain(error));
        let fatal = serving::is_fatal(&answer);
        let answer = self.blocks.frame(self.link(), id, answer).map(|frame| (frame, fatal));
        Ended { answer, _permit: permit }
    }

    /// Sends the answer of a call. Where `more` calls have arrived already, it waits for theirs: one system call
    /// sends them together.
    fn answer(&self, ended: Ended, more: bool) -> Result<()> {
        let (frame, fatal) = ended.answer?;
        let sent = if more && fatal.is_none() { self.link.push(&frame) } else { self.link.send(&frame) };
        sent.map_err(serving::broken)?;
        fatal.map_or(Ok(()), Err)
    }

    fn answer_or_close(&self, ended: Ended) {
        if let Err(error) = self.answer(ended, false) {
            serving::log_end(self.served.service, &error);
            self.link.close();
        }
    }
}

struct CloseOnDrop<'l>(&'l AsyncLink);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Runs a future to its end or panic, and says how long its longest turn took: that is how long it would have kept
/// the task that reads.
async fn guarded<F: Future>(
    mut future: Pin<&mut F>,
    link: &Arc<Link>,
) -> (std::thread::Result<F::Output>, Duration) {
    let mut longest = Duration::ZERO;
    let output = poll_fn(|cx| {
        let started = Instant::now();
        let _current = Current::enter(link);
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        longest = longest.max(started.elapsed());
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await;
    (output, longest)
}
