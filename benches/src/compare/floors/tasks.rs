//! 64 tokio tasks on one socket: each awaits its own answer, and one more task writes what all have to say
//! and hands out what a read has brought.

use std::future::poll_fn;
use std::io::{self, Write};
use std::mem;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;
use tokio::task::{AbortHandle, yield_now};

use super::inbox::{Inbox, answer, number, numbered};
use super::memory::Words;
use super::readable::watched;
use super::socket::{Message, numbers};
use super::watch::Watch;
use crate::compare::peer::{Caller, Peer, Result};
use crate::compare::tasks::{Async, Flavour, Tasks};
use crate::compare::work::{Job, Mixed, Work};

struct OneSocket(&'static str, Flavour);

pub(super) fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(OneSocket("tokio tasks current spin", Flavour::CurrentThread)),
        Box::new(OneSocket("tokio tasks multi spin", Flavour::MultiThread)),
    ]
}

impl Peer for OneSocket {
    fn name(&self) -> &str {
        self.0
    }

    fn does(&self, job: Job) -> bool {
        job.work == Work::Add64
    }

    fn serve(&self, place: &Path) -> Result<()> {
        let (runtime, place) = (self.1.runtime()?, place.to_owned());
        runtime.block_on(runtime.spawn(async move {
            let (socket, _) = UnixListener::bind(place)?.accept().await?;
            let mut end = End::new(socket.into_std()?, true)?;
            let mut answers = Vec::new();
            loop {
                end.fill(|_waker| false).await?;
                end.inbox.take(|calls| answers.extend(calls.iter().flat_map(answer)));
                end.write(&answers)?;
                answers.clear();
            }
        }))?
    }

    fn connect(&self, place: &Path) -> Result<Box<dyn Caller>> {
        let place = place.to_owned();
        Ok(Box::new(Tasks::new(self.1, move || {
            let socket = UnixStream::connect(&place);
            async move {
                let (end, calls) = (End::new(socket?, false)?, Arc::default());
                let carrier = tokio::spawn(carry(end, Arc::clone(&calls))).abort_handle();
                Ok(Client { calls, carrier })
            }
        })?))
    }
}

/// One of the two processes.
struct End {
    /// Watched for reading alone: that there is room to write again is no news, and would wake the runtime.
    socket: AsyncFd<UnixStream>,
    watch: Watch,
    inbox: Inbox,
}

impl End {
    fn new(socket: UnixStream, is_server: bool) -> io::Result<Self> {
        socket.set_nonblocking(false)?;
        let page = if is_server { Words::join(&socket) } else { Words::make(&socket, 0) }?;
        socket.set_nonblocking(true)?;
        let socket = watched(socket)?;
        Ok(Self { socket, watch: Watch::new(Some(page), is_server), inbox: Inbox::new() })
    }

    /// There is room for all that so many calls say.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.watch.tell();
        self.socket.get_ref().write_all(bytes)
    }

    /// Waits until something has come, or `other` returns true. When this task is about to sleep, `other`
    /// gets its waker.
    async fn fill(&mut self, mut other: impl FnMut(Option<&Waker>) -> bool) -> io::Result<()> {
        let Self { socket, watch, inbox } = self;
        loop {
            let look = || if other(None) { Some(Ok(())) } else { inbox.try_fill(socket.get_ref()) };
            if let Some(filled) = watch.look(look) {
                return filled;
            }
            let ready = poll_fn(|cx| match other(Some(cx.waker())) {
                true => Poll::Ready(Ok(None)),
                false => socket.poll_read_ready(cx).map_ok(Some),
            });
            let Some(mut ready) = ready.await? else { return Ok(()) };
            let filled = inbox.try_fill(socket.get_ref());
            // An edge tells of what comes later, unless this has left something.
            if !inbox.is_full() {
                ready.clear_ready();
            }
            if let Some(filled) = filled {
                return filled;
            }
        }
    }
}

/// Calls at once: one for each bit of [`Calls::numbers`].
const CALLS: usize = 64;

/// What the tasks of one client share.
struct Calls {
    /// A bit for each number that a call has.
    numbers: u64,
    states: [State; CALLS],
    /// Calls to be sent.
    messages: Vec<u8>,
    /// Of the task that sends them, while it sleeps.
    carrier: Option<Waker>,
}

enum State {
    Waits(Waker),
    Answered(u64),
    Free,
}

impl Default for Calls {
    fn default() -> Self {
        let states = [const { State::Free }; CALLS];
        Self { numbers: 0, states, messages: Vec::new(), carrier: None }
    }
}

impl Calls {
    fn begin(&mut self, a: u64, b: u64, waker: &Waker) -> io::Result<usize> {
        let number = self.numbers.trailing_ones() as usize;
        let state = self.states.get_mut(number).ok_or_else(|| io::Error::other("too many calls at once"))?;
        *state = State::Waits(waker.clone());
        self.numbers |= 1 << number;
        self.messages.extend_from_slice(&numbered(a, b, number));
        Ok(number)
    }

    fn end(&mut self, number: usize, waker: &Waker) -> Poll<io::Result<u64>> {
        match mem::replace(&mut self.states[number], State::Free) {
            State::Answered(answer) => {
                self.numbers &= !(1 << number);
                Poll::Ready(Ok(answer))
            }
            _ => {
                self.states[number] = State::Waits(waker.clone());
                Poll::Pending
            }
        }
    }

    fn answer(&mut self, answers: &[Message], wakers: &mut Vec<Waker>) {
        for answer in answers {
            let answered = State::Answered(numbers(answer).0);
            if let State::Waits(waker) = mem::replace(&mut self.states[number(answer)], answered) {
                wakers.push(waker);
            }
        }
    }
}

fn locked(calls: &Mutex<Calls>) -> MutexGuard<'_, Calls> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends and receives for all tasks of a client.
async fn carry(mut end: End, calls: Arc<Mutex<Calls>>) -> io::Result<()> {
    let (mut messages, mut wakers) = (Vec::new(), Vec::new());
    loop {
        // All tasks that are ready say what they have to say.
        yield_now().await;
        mem::swap(&mut messages, &mut locked(&calls).messages);
        if !messages.is_empty() {
            end.write(&messages)?;
            messages.clear();
        }
        end.fill(|waker| {
            let mut calls = locked(&calls);
            calls.carrier = waker.cloned();
            !calls.messages.is_empty()
        })
        .await?;
        end.inbox.take(|answers| locked(&calls).answer(answers, &mut wakers));
        wakers.drain(..).for_each(Waker::wake);
    }
}

struct Client {
    calls: Arc<Mutex<Calls>>,
    carrier: AbortHandle,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

impl Async for Client {
    async fn add(&self, a: u64, b: u64) -> Result<u64> {
        let mut number = None;
        let answer = poll_fn(|cx| {
            let mut calls = locked(&self.calls);
            if let Some(number) = number {
                return calls.end(number, cx.waker());
            }
            match calls.begin(a, b, cx.waker()) {
                Ok(begun) => number = Some(begun),
                Err(error) => return Poll::Ready(Err(error)),
            }
            if let Some(carrier) = calls.carrier.take() {
                drop(calls);
                carrier.wake();
            }
            Poll::Pending
        });
        Ok(answer.await?)
    }

    async fn upload(&self, _own: &mut [u8], _seed: u8) -> Result<u64> {
        Err("is the work of `pool`".into())
    }

    async fn download(&self, _len: usize, _seed: u8) -> Result<u64> {
        Err("is the work of `pool`".into())
    }

    async fn mixed(&self, _mixed: &Mixed) -> Result<u64> {
        Err("there is no codec".into())
    }
}
