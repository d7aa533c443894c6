//! Waiting for a [`Link`]'s socket, the one thing that the tokio driver does with tokio's reactor.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use lpc_core::send::StreamPosition;
use lpc_core::{Error, Result};
use tokio::sync::Notify;
use tokio::task::coop::consume_budget;
use tokio::task::yield_now;
use tokio::time::{timeout, timeout_at};

use super::signal::Signal;
use super::spinning::{Ahead, Spinning};
use super::stream::{Room, Stream};
use super::thread_spin;
use crate::connection::inbox::{FillError, Filled, Inbox, stopped};
use crate::connection::link::{Flow, Link};
use crate::sys::cpu;
use crate::sys::socket::Wait;

/// A link whose queue goes on when the socket is writable again.
///
/// Senders write by themselves as long as the socket takes it all. Once it does not,
/// [`resume`](Self::resume), which runs on the connection's task, waits for it and writes what was queued.
#[derive(Debug)]
pub(super) struct AsyncLink {
    link: Arc<Link>,
    /// The connection's task is to write: the socket took no more, or something waits to be sent with what
    /// others queue meanwhile.
    is_due: Notify,
    resumed: Signal,
}

impl AsyncLink {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link, is_due: Notify::new(), resumed: Signal::default() }
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Sends a frame, at once if the socket takes it.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<StreamPosition> {
        self.send_on(frame, cpu::current())
    }

    /// The same, on this CPU.
    pub(super) fn send_on(&self, frame: &[u8], cpu: Option<u32>) -> io::Result<StreamPosition> {
        let sent = self.link.send_within(frame, cpu, None);
        self.note(sent.as_ref().ok().map(|(flow, _)| *flow));
        sent.map(|(_, position)| position)
    }

    /// Queues a frame that goes out when its caller [flushes](Self::flush).
    pub(super) fn enqueue(&self, frame: &[u8], cpu: Option<u32>) -> io::Result<StreamPosition> {
        let queued = self.link.enqueue(frame, cpu);
        self.note(queued.as_ref().ok().map(|(flow, _)| *flow));
        queued.map(|(_, position)| position)
    }

    /// Queues a frame that goes out when the connection's task has its turn, with those that other tasks
    /// queue before.
    pub(super) fn send_with_others(&self, frame: &[u8], cpu: Option<u32>) -> io::Result<StreamPosition> {
        let position = self.enqueue(frame, cpu)?;
        if let StreamPosition::Socket(_) = position {
            self.is_due.notify_one();
        }
        Ok(position)
    }

    /// Sends what was queued.
    pub(super) fn flush(&self) -> io::Result<()> {
        let flushed = self.link.flush();
        self.note(flushed.as_ref().ok().copied());
        flushed.map(drop)
    }

    /// Maintenance has come: sends what was queued. Where the socket does not take it all, its reactor says
    /// when it does.
    pub(super) fn flush_deferred(&self) {
        if self.link.flush_in_time() {
            self.is_due.notify_one();
        }
    }

    /// Has the connection's task send what was queued.
    pub(super) fn have_flushed(&self) {
        self.is_due.notify_one();
    }

    /// Ends the connection: both sides see the end of the stream at once, and nobody waits for room any more.
    pub(super) fn close(&self) {
        // In a fork of the process the locks of tokio's are not to be taken either.
        if self.link.check_process().is_ok() {
            self.link.close();
            self.resumed.tell();
        }
    }

    /// Has senders look again that wait for room in the queue.
    pub(super) fn wake_congested(&self) {
        self.resumed.tell();
    }

    fn note(&self, flow: Option<Flow>) {
        match flow {
            Some(Flow::Stalled) => self.is_due.notify_one(),
            // The queue may have been emptied, or given up, by this.
            _ => self.resumed.tell(),
        }
    }

    /// Waits until there is room in the queue for more, or the connection is over.
    pub(super) async fn uncongested(&self) {
        while self.link.is_congested() {
            self.resumed.wait_unless(|| !self.link.is_congested()).await;
        }
    }

    /// Writes queued frames when that is due, or when the socket is writable again; ends only with an error.
    pub(super) async fn resume(&self, socket: &Stream) -> io::Error {
        // On a thread of this kind of runtime, what a task wakes comes before all that is ready.
        let jumps = !socket.is_of_one_thread();
        loop {
            self.is_due.notified().await;
            let flushed = if self.link.is_stalled() {
                self.flush_all(socket).await
            } else {
                if jumps {
                    yield_now().await;
                }
                self.flush()
            };
            if let Err(error) = flushed {
                self.resumed.tell();
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
                there.unwrap_or_else(|_| Err(self.link.has_stopped_reading()))
            }
        }
    }

    /// Writes until nothing is queued.
    pub(super) async fn flush_all(&self, socket: &Stream) -> io::Result<()> {
        let mut room = None;
        loop {
            let flushed = self.link.flush();
            self.resumed.tell();
            if flushed? == Flow::Sent {
                return Ok(());
            }
            self.writable(room.get_or_insert_with(|| socket.room())).await?;
        }
    }
}

/// Receives once, as soon as there is something. Where others wait for their turn, it spins only after them.
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
    let filled = match Spinning::begin(inbox) {
        Some(mut spinning) => match ahead.spin(&mut spinning, socket, inbox)? {
            Some(filled) => {
                if filled != Filled::Nothing {
                    socket.found();
                }
                filled
            }
            None => spinning.go_on(socket, inbox).await?,
        },
        // A peer that always has something in its ring does not keep the thread from others.
        None if inbox.poll_ring() => {
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

/// Receives once, and waits for that without spinning on this connection alone.
pub(super) async fn sleep(socket: &Stream, inbox: &mut Inbox, stall: Duration) -> Result<Filled> {
    let filled = thread_spin::spin(socket, inbox).await?;
    if filled != Filled::Nothing {
        return Ok(filled);
    }
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
            Some(at) => match timeout_at(at.into(), socket.readable()).await {
                Ok(readable) => readable,
                // It may be this process that was stopped, while the rest has come.
                Err(_) => match inbox.try_fill(socket, Wait::Never)? {
                    Filled::Nothing => return Err(stopped(stall)),
                    filled => return Ok(filled),
                },
            },
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
            // All there was: tells tokio to wait for the socket, and spares the system call that would find
            // out.
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
