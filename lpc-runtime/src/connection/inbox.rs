//! [`Inbox`], the receive half: takes messages off the socket, or out of the ring.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use std::{io, iter};

use lpc_core::frame::{self, CallId};
use lpc_core::receive::{Incoming, Receiver, Role, Source, StallTimer};
use lpc_core::{Error, ErrorKind, Limits};
use nix::poll::PollFlags;

use crate::body::arrived::{Announced, Arrived, Unreadable};
use crate::connection::link::Link;
use crate::connection::ring::{OwnRing, PeersRing};
#[cfg(feature = "tokio")]
use crate::connection::sharing::Sharing;
use crate::connection::tally::Tally;
use crate::connection::waiting::Watch;
use crate::connection::warnings::Warnings;
use crate::memory::budget::Budget;
use crate::memory::buffer::Buffer;
use crate::memory::foreign::Foreign;
use crate::memory::quota::Quota;
use crate::sys::socket::{self, Control, Received, Wait};

mod announced;
pub(crate) mod spinning;

/// The receiving side of a connection: one thread or task holds it at a time.
#[derive(Debug)]
pub(crate) struct Inbox {
    receiver: Receiver<Foreign, OwnRing, PeersRing>,
    control: Control,
    descriptors: Vec<OwnedFd>,
    /// What the peer's user may have this process hold.
    budget: Arc<Budget>,
    announced: Announced,
    /// Whether the user vouches for the peer: its memory is read in place.
    is_trusted: bool,
    /// For copies of files that the peer passes.
    copies: Arc<Quota>,
    /// For the objects themselves, as long as anybody has them.
    live: Arc<Quota>,
    link: Weak<Link>,
    counters: Arc<Tally>,
    /// Of a message of which there is only a part.
    stall: StallTimer,
    /// How long a receive sleeps at most, as the kernel knows it.
    sleep: Option<Duration>,
    /// The last one slept as long as that.
    overslept: bool,
    watch: Watch,
    #[cfg(feature = "tokio")]
    sharing: Option<Sharing>,
    /// Frames of the ring that were counted.
    counted: u64,
    /// Frames up to which they are taken now.
    batch_end: u64,
    warnings: Arc<Warnings>,
}

/// A message of the peer that is for the driver.
#[derive(Debug)]
pub(crate) enum Message {
    Call { call: CallId, method: u16, is_busy: bool, time_left: Option<Duration>, body: Arrived },
    Reply { call: CallId, body: Arrived },
    Failure { call: CallId, error: Error },
    Release { call: CallId },
    Resend { call: CallId },
    Cancel { call: CallId },
    Closing { taken: u64 },
}

/// What one look at the socket brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// Bytes, and maybe more to come at once.
    Some,
    /// Bytes, and there were no more.
    All,
    /// Nothing yet.
    Nothing,
    /// The peer closed its side.
    End,
}

impl Inbox {
    /// What arrives on the other end of `link`'s socket.
    pub(crate) fn new(role: Role, limits: Limits, is_trusted: bool, link: &Arc<Link>) -> Self {
        let limits = Limits { quick_lane: link.limits().quick_lane, ..limits };
        Self {
            receiver: Receiver::new(role, limits).with_entrance(Arc::clone(link.entrance())),
            control: Control::new(),
            descriptors: Vec::new(),
            budget: Arc::clone(link.lender().budget()),
            announced: Announced::new(limits.pool, Arc::downgrade(link)),
            is_trusted,
            copies: Quota::new(limits.pool),
            live: Quota::new(u64::from(limits.max_objects) * 4),
            link: Arc::downgrade(link),
            counters: Arc::clone(link.counters()),
            stall: StallTimer::default(),
            sleep: None,
            overslept: false,
            watch: Watch::new(link.spin()),
            #[cfg(feature = "tokio")]
            sharing: None,
            counted: 0,
            batch_end: BATCH,
            warnings: Arc::clone(link.warnings()),
        }
    }

    /// Receives once, from the ring if that is where the peer sends to, and has sent something.
    ///
    /// # Errors
    ///
    /// Among others, so much of what this peer's user has passed cannot be closed that nothing more may come.
    pub(crate) fn fill(&mut self, socket: impl AsFd, wait: Wait) -> Result<Filled, FillError> {
        if self.poll_ring() {
            return Ok(Filled::Some);
        }
        if self.budget.is_overrun() {
            return Err(FillError::Peer(self.budget.clogged()));
        }
        let space = self.receiver.space();
        let room = space.len();
        let received = match socket::receive(socket, space, &mut self.control, &mut self.descriptors, wait) {
            // How the kernel puts it where the peer left something unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                Received { len: 0, is_short: false }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.overslept = wait == Wait::Sleep;
                return Err(FillError::Io(error));
            }
            result => result.map_err(FillError::Io)?,
        };
        let Received { len, mut is_short } = received;
        if len == 0 {
            // What it has sent before stands in the ring.
            if self.poll_ring() {
                return Ok(Filled::Some);
            }
            if let Some(taken) = self.receiver.end() {
                self.tell_closing(taken);
            }
            return Ok(Filled::End);
        }
        self.note_received();
        // A receive stops behind bytes that came with descriptors, whatever follows them.
        let is_all = len < room && self.descriptors.is_empty() && !is_short;
        let received = if self.descriptors.is_empty() {
            self.receiver.received(len, iter::empty(), is_short)
        } else {
            let descriptors = self.take_descriptors(&mut is_short)?;
            self.receiver.received(len, descriptors, is_short)
        };
        received.map_err(|violation| FillError::Peer(violation.into()))?;
        Ok(if is_all { Filled::All } else { Filled::Some })
    }

    /// Counts what has arrived. What is too many is closed, and missing like what the system had no room for.
    ///
    /// # Errors
    ///
    /// The peer goes on passing what cannot be closed in time.
    #[cold]
    fn take_descriptors(&mut self, is_short: &mut bool) -> Result<Vec<Foreign>, FillError> {
        let taken = self.descriptors.drain(..).map(|descriptor| Foreign::new(descriptor, &self.budget));
        let (taken, fits): (Vec<_>, Vec<_>) = taken.unzip();
        if self.budget.is_clogged() && !taken.iter().all(Foreign::is_local) {
            return Err(FillError::Peer(self.budget.clogged()));
        }
        *is_short |= fits.contains(&false);
        Ok(taken.into_iter().zip(fits).filter_map(|(taken, fits)| fits.then_some(taken)).collect())
    }

    /// Receives once, and sleeps until there is something, or `deadline`.
    ///
    /// # Errors
    ///
    /// Among others, the peer stopped in the middle of a message for longer than `stall`.
    #[inline]
    pub(crate) fn fill_within(
        &mut self,
        socket: BorrowedFd<'_>,
        stall: Duration,
        deadline: Option<Instant>,
    ) -> Result<Filled, FillError> {
        let left =
            |until: Option<Instant>| until.map(|until| until.saturating_duration_since(Instant::now()));
        if self.poll_ring() {
            return Ok(Filled::Some);
        }
        if self.receiver.is_between_frames() {
            let filled = self.spin(socket, left(deadline))?;
            if filled != Filled::Nothing {
                return Ok(filled);
            }
        }
        if self.receiver.is_drained() {
            if !self.fall_asleep() {
                return self.try_fill(socket, Wait::Never);
            }
            self.count_sleep();
            self.sleep_at_most(socket, left(deadline)).map_err(FillError::Io)?;
            let filled = self.try_fill(socket, Wait::Sleep);
            self.wake_up();
            return filled;
        }
        let filled = self.try_fill(socket, Wait::Never)?;
        if filled != Filled::Nothing {
            return Ok(filled);
        }
        if self.wait_for_more(socket, stall, deadline)? {
            return self.try_fill(socket, Wait::Never);
        }
        Ok(Filled::Nothing)
    }

    /// Waits until there is something to receive, or `until`.
    ///
    /// # Errors
    ///
    /// Among others, the peer has stopped in the middle of a message for longer than `stall`: by this wait,
    /// or several.
    pub(crate) fn wait_for_more(
        &mut self,
        socket: BorrowedFd<'_>,
        stall: Duration,
        until: Option<Instant>,
    ) -> Result<bool, FillError> {
        self.wait_for(socket, PollFlags::POLLIN, stall, until)
    }

    fn wait_for(
        &mut self,
        socket: BorrowedFd<'_>,
        events: PollFlags,
        stall: Duration,
        until: Option<Instant>,
    ) -> Result<bool, FillError> {
        let stalled = self.stalled_at(stall);
        let until = until.into_iter().chain(stalled).min();
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let waited = self.wait(socket, events, left);
        self.stall.pause(Instant::now());
        if waited? {
            return Ok(true);
        }
        if until == stalled { Err(FillError::Peer(stopped(stall))) } else { Ok(false) }
    }

    /// Receives, where there is something; else waits until there is, or room for what is left to be sent, or
    /// `deadline`.
    pub(crate) fn fill_or_wait_for_room(
        &mut self,
        socket: BorrowedFd<'_>,
        stall: Duration,
        deadline: Option<Instant>,
    ) -> Result<Filled, FillError> {
        let filled = self.try_fill(socket, Wait::Never)?;
        if filled == Filled::Nothing {
            self.wait_for(socket, PollFlags::POLLIN | PollFlags::POLLOUT, stall, deadline)?;
        }
        Ok(filled)
    }

    /// Waits until one of these events is there, and no longer than `time`.
    fn wait(
        &mut self,
        socket: BorrowedFd<'_>,
        events: PollFlags,
        time: Option<Duration>,
    ) -> Result<bool, FillError> {
        if !self.fall_asleep() {
            return Ok(true);
        }
        let waited = socket::wait(socket, events, time).map_err(FillError::Io);
        self.wake_up();
        waited
    }

    /// Whether others than its task may spin for the peer's next frame: nothing has half arrived.
    #[cfg(feature = "tokio")]
    pub(crate) fn may_be_handed_over(&self) -> bool {
        self.receiver.is_drained()
    }

    /// Whether the peer's next frame comes through its ring.
    pub(crate) fn is_in_ring(&self) -> bool {
        self.receiver.source() == Source::Ring
    }

    /// Has the peer wake this side through the socket; `false` where there is something in the ring.
    #[inline]
    pub(crate) fn fall_asleep(&mut self) -> bool {
        self.receiver.sleep()
    }

    /// This side looks at the ring again by itself.
    #[inline]
    pub(crate) fn wake_up(&mut self) {
        self.receiver.wake();
    }

    /// Whether there is something in the peer's ring, if that is where its next frame comes from. Some of
    /// what there is may be [taken](Self::next) now, and not all: a peer that goes on sending keeps nobody
    /// from looking at the time.
    #[inline]
    pub(crate) fn poll_ring(&mut self) -> bool {
        let has_next = self.receiver.source() == Source::Ring && self.receiver.has_next();
        self.begin_batch(has_next);
        has_next
    }

    #[inline]
    fn begin_batch(&mut self, has_next: bool) {
        self.batch_end = self.counted + BATCH;
        if has_next {
            self.note_received();
        }
    }

    /// Says that nothing more is received, and how much of the ring was taken.
    fn tell_closing(&self, taken: u64) {
        if let Some(link) = self.link.upgrade() {
            link.send_now(&frame::closing(taken));
        }
    }

    /// Its holder has just been found on this CPU, and waits there.
    #[inline]
    pub(crate) fn is_at(&mut self, cpu: Option<u32>) {
        self.watch.is_at(cpu);
    }

    /// Something was received.
    #[inline]
    fn note_received(&mut self) {
        #[cfg(feature = "tokio")]
        if let Some(sharing) = &mut self.sharing {
            sharing.received();
        }
    }

    /// Its holder waits until there is something to receive.
    #[inline]
    pub(crate) fn count_sleep(&self) {
        self.counters.slept();
    }

    /// Receives once, if there is something.
    #[inline]
    pub(crate) fn try_fill(&mut self, socket: impl AsFd, wait: Wait) -> Result<Filled, FillError> {
        match self.fill(socket, wait) {
            Err(FillError::Io(error))
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
            {
                Ok(Filled::Nothing)
            }
            result => result,
        }
    }

    /// When a message that has begun to arrive has taken too long.
    pub(crate) fn stalled_at(&mut self, stall: Duration) -> Option<Instant> {
        if self.receiver.is_drained() {
            self.stall.reset();
            return None;
        }
        self.stall.wait(Instant::now(), stall)
    }

    /// Has the next receive sleep no longer than that. One that sleeps shorter is right, too: what is set is
    /// changed as seldom as possible, since that is a system call.
    #[inline]
    fn sleep_at_most(&mut self, socket: BorrowedFd<'_>, left: Option<Duration>) -> io::Result<()> {
        let time = match (left, self.sleep) {
            (None, None) => return Ok(()),
            (Some(left), Some(sleep)) if sleep <= left && !self.overslept => return Ok(()),
            (None, Some(_)) if !self.overslept => return Ok(()),
            // Calls with the same deadline have a little less each time.
            (Some(left), _) if left > SHORT => Some(left / 8 * 7),
            (left, _) => left,
        };
        self.overslept = false;
        self.sleep = time;
        socket::set_receive_timeout(socket, time)
    }

    /// The next message that has arrived as a whole. Where there is none, or many came in a row, it is to be
    /// [received](Self::fill) first.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Message>, Error> {
        if self.receiver.is_empty() { Ok(None) } else { self.next_arrived() }
    }

    #[inline]
    fn next_arrived(&mut self) -> Result<Option<Message>, Error> {
        loop {
            if self.counted >= self.batch_end && self.receiver.source() == Source::Ring {
                return Ok(None);
            }
            let next = self.receiver.next(Buffer::with_room);
            self.count_frames();
            if let Ok(Some(_)) = next {
                self.stall.reset();
            }
            // Matched where it stands: a message is large, and there are few instructions around it.
            match next {
                Err(violation) => return Err(violation.into()),
                Ok(None) => return Ok(None),
                Ok(Some(Incoming::Call { call, method, is_busy, time_left, payload, loans })) => {
                    match self.announced.body(payload, &loans, &self.counters) {
                        Ok(body) => {
                            return Ok(Some(Message::Call { call, method, is_busy, time_left, body }));
                        }
                        Err(Unreadable) => self.ask_again(call)?,
                    }
                }
                Ok(Some(Incoming::Reply { call, payload, loans })) => {
                    match self.announced.body(payload, &loans, &self.counters) {
                        Ok(body) => return Ok(Some(Message::Reply { call, body })),
                        Err(Unreadable) => self.ask_again(call)?,
                    }
                }
                Ok(Some(Incoming::Segment { number, len, descriptor })) => {
                    self.add_segment(number, len, descriptor)?;
                }
                Ok(Some(Incoming::Object { number, offset, len, descriptor })) => {
                    self.add_object(number, offset, len, descriptor)?;
                }
                Ok(Some(Incoming::Retire { number })) => self.announced.retire(number),
                Ok(Some(Incoming::Return { segment, page })) => {
                    if let Some(link) = self.link.upgrade() {
                        link.lender().returned(segment, page)?;
                    }
                }
                Ok(Some(Incoming::Refuse { segment })) => {
                    if let Some(link) = self.link.upgrade() {
                        link.lender().refused(segment);
                    }
                }
                Ok(Some(Incoming::At { cpu })) => {
                    self.watch.peer_is_at(cpu);
                    if let Some(link) = self.link.upgrade() {
                        link.hear();
                    }
                }
                Ok(Some(Incoming::Resend { call })) => return Ok(Some(Message::Resend { call })),
                Ok(Some(Incoming::Failure { call, error })) => {
                    return Ok(Some(Message::Failure { call, error }));
                }
                Ok(Some(Incoming::Release { call })) => return Ok(Some(Message::Release { call })),
                Ok(Some(Incoming::Cancel { call })) => return Ok(Some(Message::Cancel { call })),
                Ok(Some(Incoming::Closing { taken })) => return Ok(Some(Message::Closing { taken })),
                Ok(Some(Incoming::Ring { descriptor })) => self.add_ring(descriptor)?,
                Ok(Some(Incoming::Switch)) => {
                    if let Some(link) = self.link.upgrade() {
                        link.ring_is_mapped();
                    }
                }
                Ok(Some(Incoming::Drained { taken })) => self.tell_closing(taken),
            }
        }
    }

    /// Counts what was taken from the ring.
    #[inline]
    fn count_frames(&mut self) {
        let frames = self.receiver.frames_of_ring();
        if frames != self.counted {
            self.counters.received_in_ring(frames - self.counted);
            self.counted = frames;
        }
    }

    /// Whether [`next`](Self::next) has something to give before more is received.
    #[inline]
    pub(crate) fn has_next(&self) -> bool {
        self.receiver.has_next()
    }

    /// Whether it holds memory of the peer.
    pub(crate) fn has_memory(&self) -> bool {
        !self.announced.is_empty()
    }

    /// What the end of the stream means here: an error where it cuts a message in two.
    pub(crate) fn ended(&self) -> Result<(), Error> {
        if self.receiver.is_drained() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Disconnected, "the other side hung up in the middle of a message"))
    }
}

/// Frames that are taken from the ring in a row.
const BATCH: u64 = 128;

/// Times below which a receive is told to sleep exactly that long.
const SHORT: Duration = Duration::from_millis(10);

/// The error of a peer that does not finish what it has begun to send.
pub(crate) fn stopped(stall: Duration) -> Error {
    let message = format!("the peer stopped in the middle of a message for {stall:?} (stall_timeout)");
    Error::new(ErrorKind::Disconnected, message)
}

const UNREAD: &str = "the peer sends what cannot be read here, and does not read what it is asked";

/// Bytes that wait to be sent above which nobody asks for a body again. A peer that reads keeps it far below.
const MAX_ASKED: usize = 4 << 20;

fn refused(what: &str, error: &io::Error) -> Error {
    Error::new(ErrorKind::Protocol, format!("the peer broke the protocol: {what} cannot be used: {error}"))
}

/// Why receiving failed.
#[derive(Debug)]
pub(crate) enum FillError {
    Io(io::Error),
    Peer(Error),
}

impl From<FillError> for Error {
    fn from(error: FillError) -> Self {
        match error {
            FillError::Peer(error) => error,
            FillError::Io(error) => {
                Self::new(ErrorKind::Disconnected, format!("the connection broke: {error}"))
            }
        }
    }
}
