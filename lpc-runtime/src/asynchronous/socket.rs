//! Waiting for a [`Link`]'s socket, the one thing that the tokio driver does with tokio's reactor.

use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use lpc_core::send::StreamPosition;
use lpc_core::{Error, Result};
use tokio::sync::Notify;
use tokio::task::coop::consume_budget;
use tokio::task::yield_now;
use tokio::time::{timeout, timeout_at};

use super::race::{Either, race};
use super::stream::{Room, Stream};
use crate::connection::inbox::{FillError, Filled, Inbox, stopped};
use crate::connection::link::{Flow, Link};
use crate::sys::socket::Wait;

/// A link whose queue goes on when the socket is writable again.
///
/// Senders write by themselves as long as the socket takes it all. Once it does not, [`resume`](Self::resume), which
/// runs on the connection's task, waits for it and writes what was queued.
#[derive(Debug)]
pub(super) struct AsyncLink {
    link: Arc<Link>,
    stalled: Notify,
    /// Something waits to be sent with what others queue meanwhile.
    queued: Notify,
    resumed: Notify,
}

impl AsyncLink {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link, stalled: Notify::new(), queued: Notify::new(), resumed: Notify::new() }
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Sends a frame, at once if the socket takes it.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<StreamPosition> {
        let sent = self.link.send_within(frame, None);
        self.note(sent.as_ref().ok().map(|(flow, _)| *flow));
        sent.map(|(_, mark)| mark)
    }

    /// Queues a frame that goes out when whoever calls this [flushes](Self::flush).
    pub(super) fn push(&self, frame: &[u8]) -> io::Result<StreamPosition> {
        let pushed = self.link.push(frame);
        self.note(pushed.as_ref().ok().map(|(flow, _)| *flow));
        pushed.map(|(_, mark)| mark)
    }

    /// Queues a frame that goes out when the connection's task has its turn, with those that other tasks queue before.
    pub(super) fn send_with_others(&self, frame: &[u8]) -> io::Result<StreamPosition> {
        let mark = self.push(frame)?;
        if let StreamPosition::Socket(_) = mark {
            self.queued.notify_one();
        }
        Ok(mark)
    }

    /// Sends what was queued.
    pub(super) fn flush(&self) -> io::Result<()> {
        let flushed = self.link.flush();
        self.note(flushed.as_ref().ok().copied());
        flushed.map(drop)
    }

    /// Ends the connection: both sides see the end of the stream at once, and nobody waits for room any more.
    pub(super) fn close(&self) {
        self.link.close();
        self.resumed.notify_waiters();
    }

    /// Has those look again who wait for room in the queue.
    pub(super) fn wake_congested(&self) {
        self.resumed.notify_waiters();
    }

    fn note(&self, flow: Option<Flow>) {
        match flow {
            Some(Flow::Stalled) => self.stalled.notify_one(),
            // The queue may have been emptied, or given up, by this.
            _ => self.resumed.notify_waiters(),
        }
    }

    /// Waits until there is room in the queue for more, or the connection is over.
    pub(super) async fn uncongested(&self) {
        while self.link.is_congested() {
            let resumed = self.resumed.notified();
            if self.link.is_congested() {
                resumed.await;
            }
        }
    }

    /// Writes queued frames when that is due, or when the socket is writable again; ends only with an error.
    pub(super) async fn resume(&self, socket: &Stream) -> io::Error {
        // On a thread of this kind of runtime, what a task wakes comes before all that is ready.
        let jumps = !socket.is_of_one_thread();
        loop {
            let flushed = match race(self.stalled.notified(), self.queued.notified()).await {
                Either::First(()) => self.flush_all(socket).await,
                Either::Second(()) => {
                    if jumps {
                        yield_now().await;
                    }
                    self.flush()
                }
            };
            if let Err(error) = flushed {
                self.resumed.notify_waiters();
                return error;
            }
        }
    }

    /// Waits until the socket takes more.
    ///
    /// # Errors
    ///
    /// It takes so long that the peer is taken for dead.
    async fn writable(&self, room: &Room) -> io::Result<()> {
        match self.link.write_timeout() {
            None => room.there().await,
            Some(time) => {
                let there = timeout(time, room.there()).await;
                there.unwrap_or_else(|_| Err(self.link.takes_nothing()))
            }
        }
    }

    /// Writes until nothing is queued.
    pub(super) async fn flush_all(&self, socket: &Stream) -> io::Result<()> {
        let mut room = None;
        loop {
            let flushed = self.link.flush();
            self.resumed.notify_waiters();
            if flushed? == Flow::Sent {
                return Ok(());
            }
            self.writable(room.get_or_insert_with(|| socket.room())).await?;
        }
    }
}

/// Receives once, as soon as there is something. Where others wait for their turn, it looks for that only after them.
///
/// # Errors
///
/// Among others, the peer stopped in the middle of a message for longer than `stall`.
pub(super) async fn fill(
    socket: &Stream,
    inbox: &mut Inbox,
    stall: Duration,
    ahead: &mut Ahead,
) -> Result<Filled> {
    let filled = match Look::begin(inbox) {
        Some(mut look) => match ahead.look(&mut look, socket, inbox)? {
            Some(filled) => {
                if filled != Filled::Nothing {
                    socket.found();
                }
                filled
            }
            None => look.go_on(socket, inbox).await?,
        },
        // A peer that always has something in its ring does not keep the thread from others.
        None if inbox.read_ring()? => {
            consume_budget().await;
            Filled::Some
        }
        None => Filled::Nothing,
    };
    match filled {
        Filled::Nothing => sleep(socket, inbox, stall).await,
        filled => Ok(filled),
    }
}

/// Receives once, and waits for that without looking.
pub(super) async fn sleep(socket: &Stream, inbox: &mut Inbox, stall: Duration) -> Result<Filled> {
    if !inbox.fall_asleep() {
        return Ok(inbox.try_fill(socket, Wait::Never)?);
    }
    inbox.count_sleep();
    let filled = receive(socket, inbox, stall).await;
    inbox.wake_up();
    filled
}

/// Receives once the socket has something.
async fn receive(socket: &Stream, inbox: &mut Inbox, stall: Duration) -> Result<Filled> {
    loop {
        let readable = match inbox.stalled_at(stall) {
            None => socket.readable().await,
            Some(at) => timeout_at(at.into(), socket.readable()).await.map_err(|_| stopped(stall))?,
        };
        readable.map_err(Error::from)?;
        let filled = try_receive(socket, inbox)?;
        if filled != Filled::Nothing {
            return Ok(filled);
        }
    }
}

/// Receives what has woken the task, if anything has.
pub(super) fn try_receive(socket: &Stream, inbox: &mut Inbox) -> Result<Filled> {
    let mut filled = Ok(Filled::Nothing);
    let _ = socket.try_read(|| {
        match inbox.fill(socket, Wait::Never) {
            Err(FillError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            // All there was: tells tokio to wait for the socket, and spares the system call that would find out.
            Ok(Filled::All) => {
                filled = Ok(Filled::All);
                Err(io::ErrorKind::WouldBlock.into())
            }
            result => {
                filled = result;
                Ok(())
            }
        }
    });
    Ok(filled?)
}

/// Looking for something to receive: since when, and for how long at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// `None` before the first try, which costs no look at the clock.
    began: Option<Instant>,
    time: Duration,
}

impl Look {
    /// `None` where it does not pay.
    pub(super) fn begin(inbox: &mut Inbox) -> Option<Self> {
        let time = inbox.time_to_look();
        (!time.is_zero()).then_some(Self { began: None, time })
    }

    /// Looks as long as that pays: in short turns, between which all others have theirs.
    pub(super) async fn go_on(mut self, socket: &Stream, inbox: &mut Inbox) -> Result<Filled, FillError> {
        loop {
            // First of all those whom this task has just woken: their next call is what it looks for the answer to.
            if socket.is_of_one_thread() {
                give_way().await;
            } else {
                yield_now().await;
            }
            if let Some(filled) = self.turn(socket, inbox)? {
                if filled != Filled::Nothing {
                    socket.found();
                }
                return Ok(filled);
            }
        }
    }

    /// Looks as long as that pays, without letting others have their turn.
    pub(super) fn all(&mut self, socket: impl AsFd, inbox: &mut Inbox) -> Result<Filled, FillError> {
        loop {
            if let Some(filled) = self.turn(socket.as_fd(), inbox)? {
                return Ok(filled);
            }
        }
    }

    /// Looks for a short while, without letting others have their turn. `None` where it is to be gone on.
    fn turn(&mut self, socket: impl AsFd, inbox: &mut Inbox) -> Result<Option<Filled>, FillError> {
        let mut turn = None;
        loop {
            let filled = inbox.try_fill_some(socket.as_fd())?;
            if filled != Filled::Nothing {
                inbox.found(self.began);
                return Ok(Some(filled));
            }
            let now = Instant::now();
            if now - *self.began.get_or_insert(now) >= self.time {
                inbox.missed();
                return Ok(Some(filled));
            }
            if now - *turn.get_or_insert(now) >= TURN {
                return Ok(None);
            }
        }
    }
}

/// Learns whether to look for a turn before others have theirs. That spares a trip through the runtime's queue, which on a runtime
/// of several threads wakes one of them; but where it brings nothing it keeps them all waiting.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Looks that are left to the next try.
    left: u32,
    /// Looks without a try after the next one that brings nothing.
    pause: u32,
    /// How often it was done in a row.
    in_a_row: u32,
}

impl Ahead {
    /// Does not look ahead of others the first time.
    pub(super) fn never() -> Self {
        Self { left: 1, ..Self::default() }
    }

    /// Looks for a turn, if that pays. `None` where it is to be gone on when others have had theirs.
    pub(super) fn look(
        &mut self,
        look: &mut Look,
        socket: impl AsFd,
        inbox: &mut Inbox,
    ) -> Result<Option<Filled>, FillError> {
        if self.left > 0 || self.in_a_row == IN_A_ROW {
            self.left = self.left.saturating_sub(1);
            self.in_a_row = 0;
            return Ok(None);
        }
        self.in_a_row += 1;
        let filled = look.turn(socket, inbox)?;
        if filled.is_some_and(|filled| filled != Filled::Nothing) {
            self.pause = 0;
        } else {
            self.pause = (2 * self.pause).clamp(1, MAX_PAUSE);
            self.left = self.pause;
        }
        Ok(filled)
    }

    /// Others have to have their turn first the next time: something was done for them.
    pub(super) fn give_way(&mut self) {
        self.left = self.left.max(1);
    }
}

/// Looks ahead of others in a row, after which they have their turn.
const IN_A_ROW: u32 = 32;

/// Looks without a try to do so ahead of others, at most.
const MAX_PAUSE: u32 = 64;

/// Lets the tasks that are ready have their turns. Unlike tokio's `yield_now` it does not have the reactor asked first, which is a
/// system call; tokio asks it now and then in any case (`event_interval`). Where the runtime has more threads this would wake one.
async fn give_way() {
    let mut has_been_kept = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut has_been_kept, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// How long a task that looks for something keeps its thread from others at once.
const TURN: Duration = Duration::from_micros(10);
