//! [`Inbox`]: takes messages off the socket, and [`Arrived`], their bodies, off either lane.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use lpc_core::arena::PAGE;
use lpc_core::codec::{self, Decoder, Loans, Remote};
use lpc_core::frame::{self, BlockRef, CallId, OBJECT};
use lpc_core::receiver::{Incoming, Payload, Receiver, Role};
use lpc_core::{Error, ErrorKind, Limits};
use nix::poll::PollFlags;

use crate::buffer::Buffer;
use crate::lane::peer::{Object, Segment};
use crate::lane::quota::{Charge, Quota};
use crate::lane::watch::Watch;
use crate::link::{Link, Returning};
use crate::shared::memory::Memory;
use crate::stats::{Counters, Lane};
use crate::sys::mapping::FRESH;
use crate::sys::private::Private;
use crate::sys::socket::{self, Control, Received, Wait};

/// The receiving side of a connection: one thread or task holds it at a time.
#[derive(Debug)]
pub(crate) struct Inbox {
    receiver: Receiver<OwnedFd>,
    control: Control,
    descriptors: Vec<OwnedFd>,
    /// What the peer announced, by number.
    segments: Vec<Option<Arc<Segment>>>,
    objects: Vec<Option<Arc<Object>>>,
    /// Whether the user vouches for the peer: its memory is read in place.
    is_trusted: bool,
    limits: Limits,
    /// For copies of files that the peer passes.
    copies: Arc<Quota>,
    /// For the objects themselves, as long as anybody has them.
    live: Arc<Quota>,
    link: Weak<Link>,
    counters: Arc<Counters>,
    /// When the message began to arrive of which there is only a part.
    begun: Option<Instant>,
    /// How long a receive sleeps at most, as the kernel knows it.
    sleep: Option<Duration>,
    /// The last one slept as long as that.
    overslept: bool,
    watch: Watch,
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
    Closing,
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

/// What a body is taken with. (A function would borrow all of the inbox.)
macro_rules! taken {
    ($inbox:ident) => {
        Taken {
            segments: &$inbox.segments,
            objects: &$inbox.objects,
            limit: $inbox.limits.pool,
            link: &$inbox.link,
        }
    };
}

impl Inbox {
    /// What arrives on the other end of `link`'s socket.
    pub(crate) fn new(role: Role, limits: Limits, is_trusted: bool, link: &Arc<Link>) -> Self {
        Self {
            receiver: Receiver::new(role, limits),
            control: Control::new(),
            descriptors: Vec::new(),
            segments: Vec::new(),
            objects: Vec::new(),
            is_trusted,
            limits,
            copies: Quota::new(limits.pool),
            live: Quota::new(u64::from(limits.max_objects) * 4),
            link: Arc::downgrade(link),
            counters: Arc::clone(link.counters()),
            begun: None,
            sleep: None,
            overslept: false,
            watch: Watch::new(link.spin()),
        }
    }

    /// Receives once.
    pub(crate) fn fill(&mut self, socket: impl AsFd, wait: Wait) -> Result<Filled, FillError> {
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
        let Received { len, is_short } = received;
        if len == 0 {
            return Ok(Filled::End);
        }
        // A receive stops behind bytes that came with descriptors, whatever follows them.
        let is_all = len < room && self.descriptors.is_empty() && !is_short;
        self.receiver
            .received(len, self.descriptors.drain(..), is_short)
            .map_err(|violation| FillError::Peer(violation.into()))?;
        Ok(if is_all { Filled::All } else { Filled::Some })
    }

    /// Receives once, and sleeps until there is something, or `deadline`.
    ///
    /// # Errors
    ///
    /// Among others, the peer stopped in the middle of a message for longer than `stall`.
    pub(crate) fn fill_within(
        &mut self,
        socket: BorrowedFd<'_>,
        stall: Duration,
        deadline: Option<Instant>,
    ) -> Result<Filled, FillError> {
        let left =
            |until: Option<Instant>| until.map(|until| until.saturating_duration_since(Instant::now()));
        if self.receiver.is_drained() {
            let filled = self.look(socket)?;
            if filled != Filled::Nothing {
                return Ok(filled);
            }
            self.sleep_at_most(socket, left(deadline)).map_err(FillError::Io)?;
            return self.try_fill(socket, Wait::Sleep);
        }
        let filled = self.try_fill(socket, Wait::Never)?;
        if filled != Filled::Nothing {
            return Ok(filled);
        }
        let stalled = self.stalled_at(stall);
        let until = deadline.into_iter().chain(stalled).min();
        if socket::wait(socket, PollFlags::POLLIN, left(until)).map_err(FillError::Io)? {
            return self.try_fill(socket, Wait::Never);
        }
        if until == stalled { Err(FillError::Peer(stopped(stall))) } else { Ok(Filled::Nothing) }
    }

    /// Looks for something to receive, as long as that pays.
    fn look(&mut self, socket: BorrowedFd<'_>) -> Result<Filled, FillError> {
        let time = self.time_to_look();
        if time.is_zero() {
            return Ok(Filled::Nothing);
        }
        let began = Instant::now();
        loop {
            let filled = self.try_fill_some(socket)?;
            let after = began.elapsed();
            if filled != Filled::Nothing || after >= time {
                self.looked((filled != Filled::Nothing).then_some(after));
                return Ok(filled);
            }
        }
    }

    /// Tries to receive a few times in a row: reading the clock after each try would take a sixth of the time.
    pub(crate) fn try_fill_some(&mut self, socket: impl AsFd) -> Result<Filled, FillError> {
        for _ in 0..TRIES - 1 {
            let filled = self.try_fill(socket.as_fd(), Wait::Never)?;
            if filled != Filled::Nothing {
                return Ok(filled);
            }
        }
        self.try_fill(socket, Wait::Never)
    }

    /// How long to [try](Self::try_fill) to receive before sleeping. Where it is more than no time, what came of it is to be
    /// [said](Self::looked).
    pub(crate) fn time_to_look(&mut self) -> Duration {
        if self.receiver.is_drained() { self.watch.time() } else { Duration::ZERO }
    }

    /// Something was there after so long, or nothing in time.
    pub(crate) fn looked(&mut self, found: Option<Duration>) {
        self.watch.looked(found);
    }

    /// Receives once, if there is something.
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

    /// Does not count the time in which nobody read.
    pub(crate) fn begin_anew(&mut self) {
        self.begun = None;
    }

    /// When a message that has begun to arrive has taken too long.
    pub(crate) fn stalled_at(&mut self, stall: Duration) -> Option<Instant> {
        if self.receiver.is_drained() {
            return None;
        }
        self.begun.get_or_insert_with(Instant::now).checked_add(stall)
    }

    /// Has the next receive sleep no longer than that. One that sleeps shorter is right, too: what is set is changed as seldom as
    /// possible, since that is a system call.
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

    /// The next message that has arrived as a whole.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, Error> {
        loop {
            let Some(incoming) = self.receiver.next()? else { return Ok(None) };
            self.begun = None;
            match incoming {
                Incoming::Segment { number, len, descriptor } => self.add_segment(number, len, descriptor)?,
                Incoming::Object { number, offset, len, descriptor } => {
                    self.add_object(number, offset, len, descriptor)?;
                }
                Incoming::Retire { number } => {
                    if number & OBJECT == 0 {
                        take_out(&mut self.segments, number);
                    } else {
                        take_out(&mut self.objects, number & !OBJECT);
                    }
                }
                Incoming::Return { segment, page } => {
                    if let Some(link) = self.link.upgrade() {
                        link.returned(segment, page)?;
                    }
                }
                Incoming::Refuse { segment } => {
                    if let Some(link) = self.link.upgrade() {
                        link.refused(segment);
                    }
                }
                Incoming::At { cpu } => self.watch.peer_is_at(cpu),
                Incoming::Resend { call } => return Ok(Some(Message::Resend { call })),
                Incoming::Call { call, method, is_busy, time_left, payload, loans } => {
                    let taken = taken!(self);
                    match taken.body(payload, &loans, &self.counters) {
                        Ok(body) => {
                            return Ok(Some(Message::Call { call, method, is_busy, time_left, body }));
                        }
                        Err(Unreadable) => self.ask_again(call)?,
                    }
                }
                Incoming::Reply { call, payload, loans } => {
                    let taken = taken!(self);
                    match taken.body(payload, &loans, &self.counters) {
                        Ok(body) => return Ok(Some(Message::Reply { call, body })),
                        Err(Unreadable) => self.ask_again(call)?,
                    }
                }
                Incoming::Failure { call, error } => return Ok(Some(Message::Failure { call, error })),
                Incoming::Release { call } => return Ok(Some(Message::Release { call })),
                Incoming::Cancel { call } => return Ok(Some(Message::Cancel { call })),
                Incoming::Closing => return Ok(Some(Message::Closing)),
            }
        }
    }

    /// Whether [`next`](Self::next) has something to give before more is received.
    pub(crate) fn has_next(&self) -> bool {
        self.receiver.has_next()
    }

    /// Whether it holds memory of the peer.
    pub(crate) fn has_memory(&self) -> bool {
        self.segments.iter().any(Option::is_some) || self.objects.iter().any(Option::is_some)
    }

    /// What the end of the stream means here: an error where it cuts a message in two.
    pub(crate) fn ended(&self) -> Result<(), Error> {
        if self.receiver.is_drained() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Disconnected, "the other side hung up in the middle of a message"))
    }

    fn add_segment(&mut self, number: u32, len: u64, descriptor: Option<OwnedFd>) -> Result<(), Error> {
        let segment = match (descriptor, self.charge(len)) {
            (Some(descriptor), Ok(charge)) => match Segment::open(descriptor, len, self.is_trusted, charge) {
                Ok(segment) => segment,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(refused(&format!("segment {number}"), &error));
                }
                Err(error) => {
                    tracing::warn!(%error, len, "a peer's shared memory cannot be looked at");
                    Segment::lost()
                }
            },
            (None, _) => {
                tracing::warn!(len, "this process has no descriptor left for a peer's shared memory");
                Segment::lost()
            }
            (_, Err(())) => {
                tracing::warn!(len, "no quota left for a peer's shared memory (user_pool_limit)");
                Segment::lost()
            }
        };
        if let Some(link) = self.link.upgrade() {
            if segment.is_lost() && link.push_late(&frame::refuse(number)) > MAX_ASKED {
                return Err(Error::new(ErrorKind::Protocol, UNREAD));
            }
            link.watch();
        }
        put(&mut self.segments, number, Arc::new(segment));
        Ok(())
    }

    fn charge(&self, len: u64) -> Result<Option<Charge>, ()> {
        let Some(link) = self.link.upgrade() else { return Ok(None) };
        let Some(quota) = link.quota() else { return Ok(None) };
        quota.charge(len).map(Some).ok_or(())
    }

    fn add_object(
        &mut self,
        number: u32,
        offset: u64,
        len: u64,
        descriptor: Option<OwnedFd>,
    ) -> Result<(), Error> {
        let slot = number & !OBJECT;
        let Some(descriptor) = descriptor else {
            tracing::warn!(
                len,
                "this process has no descriptor left for memory or a file that a peer passes"
            );
            return Ok(());
        };
        let Some(live) = self.live.charge(1) else {
            tracing::warn!("more sealed memory and files of one connection are kept than may be");
            return Ok(());
        };
        let copies = Some(Arc::clone(&self.copies));
        let object = match Object::open(descriptor, offset, len, self.is_trusted, copies, Some(live)) {
            Ok(object) => object,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(refused(&format!("object {slot}"), &error));
            }
            // Not the peer's fault: files change, and the system may be short of something.
            Err(error) => {
                tracing::warn!(%error, "a file that a peer passes cannot be used");
                return Ok(());
            }
        };
        put(&mut self.objects, slot, object);
        if let Some(link) = self.link.upgrade() {
            link.watch();
        }
        Ok(())
    }

    /// Has a body that cannot be read here sent through the socket.
    fn ask_again(&self, call: CallId) -> Result<(), Error> {
        let Some(link) = self.link.upgrade() else { return Ok(()) };
        if link.push_late(&frame::resend(call)) > MAX_ASKED {
            return Err(Error::new(ErrorKind::Protocol, UNREAD));
        }
        Ok(())
    }
}

/// Tries to receive between two looks at the clock: about a microsecond.
const TRIES: u32 = 4;

/// Times below which a receive is told to sleep exactly that long.
const SHORT: Duration = Duration::from_millis(10);

/// The error of a peer that does not finish what it has begun to send.
pub(crate) fn stopped(stall: Duration) -> Error {
    let message = format!("the peer stopped in the middle of a message for {stall:?} (stall_timeout)");
    Error::new(ErrorKind::Disconnected, message)
}

const UNREAD: &str = "the peer sends what cannot be read here, and does not read what it is asked";

/// Bytes that wait to be sent above which nobody asks for a body again. Who reads keeps it far below.
const MAX_ASKED: usize = 4 << 20;

fn put<T>(slots: &mut Vec<Option<T>>, number: u32, item: T) {
    let index = number as usize;
    if slots.len() <= index {
        slots.resize_with(index + 1, || None);
    }
    slots[index] = Some(item);
}

fn take_out<T>(slots: &mut [Option<T>], number: u32) {
    if let Some(slot) = slots.get_mut(number as usize) {
        *slot = None;
    }
}

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

/// A body that has arrived.
#[derive(Debug)]
pub(crate) struct Arrived {
    bytes: Bytes,
    loans: Option<Box<Borrowed>>,
}

#[derive(Debug)]
enum Bytes {
    /// In private memory.
    Copied(Buffer),
    /// In the peer's, which it may change at any time.
    Remote(Box<RemoteBytes>),
}

/// Memory of the peer that a body refers to.
#[derive(Debug)]
struct Borrowed {
    /// By index; `None` once claimed.
    loans: Mutex<Vec<Option<Loan>>>,
    /// Bytes that will be copied.
    copied: u64,
    /// Why one could not be taken.
    failed: OnceLock<String>,
}

/// One entry of a body's table.
#[derive(Debug)]
struct Loan {
    spot: Arc<Spot>,
    /// Of a block.
    returning: Option<Returning>,
}

/// Memory that is referred to, maybe more than once.
#[derive(Debug)]
enum Spot {
    /// Read where it is.
    InPlace {
        segment: Arc<Segment>,
        offset: usize,
        len: usize,
    },
    /// Copied, once for all who refer to it.
    Copied {
        segment: Arc<Segment>,
        offset: usize,
        len: usize,
        copy: OnceLock<Result<Arc<Memory>, String>>,
    },
    Object(Arc<Object>),
    /// It cannot be read here.
    Lost(&'static str),
}

/// A body is in a segment that cannot be read here.
struct Unreadable;

/// What a body is taken with.
struct Taken<'a> {
    segments: &'a [Option<Arc<Segment>>],
    objects: &'a [Option<Arc<Object>>],
    /// Bytes that one body's loans may have copied.
    limit: u64,
    link: &'a Weak<Link>,
}

impl Taken<'_> {
    fn body(
        &self,
        payload: Payload<'_>,
        loans: &[BlockRef],
        counters: &Counters,
    ) -> Result<Arrived, Unreadable> {
        // Made first: where the body is asked for again, its loans come again, too.
        let bytes = match payload {
            Payload::Inline(bytes) => {
                counters.received(Lane::Socket, bytes.len());
                Bytes::Copied(Buffer::copy_of(bytes))
            }
            Payload::Block(block) => {
                let segment = self.segment(block.segment).ok_or(Unreadable)?;
                counters.received(Lane::Mapping, block.len as usize);
                Bytes::Remote(Box::new(RemoteBytes::new(segment, &block)))
            }
        };
        if loans.is_empty() {
            return Ok(Arrived { bytes, loans: None });
        }
        let mut spots: HashMap<(u32, u32, u64), Arc<Spot>> = HashMap::new();
        let mut copied = 0_u64;
        let mut entries = Vec::with_capacity(loans.len());
        for loan in loans {
            counters.received(Lane::Loan, loan.len as usize);
            let spot = spots.entry((loan.segment, loan.page, loan.len)).or_insert_with(|| {
                let spot = self.spot(loan, self.limit - copied);
                copied += spot.copied_len();
                Arc::new(spot)
            });
            let returning = (loan.segment & OBJECT == 0).then(|| Returning {
                link: Weak::clone(self.link),
                segment: loan.segment,
                page: loan.page,
            });
            entries.push(Some(Loan { spot: Arc::clone(spot), returning }));
        }
        let loans = Borrowed { loans: Mutex::new(entries), copied, failed: OnceLock::new() };
        Ok(Arrived { bytes, loans: Some(Box::new(loans)) })
    }

    /// A segment that can be read. (`Receiver` knows that it was announced.)
    fn segment(&self, number: u32) -> Option<Arc<Segment>> {
        self.segments.get(number as usize)?.as_ref().filter(|segment| !segment.is_lost()).cloned()
    }

    fn spot(&self, loan: &BlockRef, limit: u64) -> Spot {
        if loan.segment & OBJECT != 0 {
            let object = self.objects.get((loan.segment & !OBJECT) as usize).cloned().flatten();
            // Only objects as a whole are passed.
            return object
                .filter(|object| object.len() == loan.len)
                .map_or(Spot::Lost(NO_ROOM), Spot::Object);
        }
        let Some(segment) = self.segment(loan.segment) else { return Spot::Lost(NO_ROOM) };
        let (offset, len) = (offset(loan), loan.len as usize);
        if segment.in_place(offset, len).is_some() {
            Spot::InPlace { segment, offset, len }
        } else if loan.len <= limit {
            Spot::Copied { segment, offset, len, copy: OnceLock::new() }
        } else {
            Spot::Lost("copies of the loans in one message would be over the limit (pool_limit)")
        }
    }
}

const NO_ROOM: &str = "the receiver has no descriptor, address space or quota left for it (user_pool_limit at a server), or it is \
                       a file that has become shorter";

fn offset(block: &BlockRef) -> usize {
    (u64::from(block.page) * PAGE) as usize
}

impl Spot {
    /// Bytes that taking it copies.
    fn copied_len(&self) -> u64 {
        match self {
            Self::Copied { len, .. } => *len as u64,
            _ => 0,
        }
    }
}

impl Loan {
    /// The memory; in private memory, unless it is safe to read it where it is.
    fn take(self) -> Result<Arc<Memory>, String> {
        match &*self.spot {
            Spot::InPlace { segment, offset, len } => {
                let (segment, offset, len) = (Arc::clone(segment), *offset, *len);
                Ok(Arc::new(Memory::Peer { segment, offset, len, _returning: self.returning }))
            }
            Spot::Copied { segment, offset, len, copy } => copy
                .get_or_init(|| {
                    let fill = |into: &mut [u8]| {
                        segment.copy(*offset, into);
                        Ok(())
                    };
                    let private = Private::filled(*len, fill).map_err(|error| error.to_string())?;
                    Ok(Arc::new(Memory::Private(private)))
                })
                .clone(),
            Spot::Object(object) => Ok(Arc::new(Memory::Object(Arc::clone(object)))),
            Spot::Lost(reason) => Err((*reason).to_owned()),
        }
    }
}

impl Loans for Borrowed {
    fn claim(&self, index: u32) -> Option<Arc<dyn codec::Loan>> {
        let mut loans = self.loans.lock().unwrap_or_else(PoisonError::into_inner);
        let loan = loans.get_mut(index as usize)?.take()?;
        drop(loans);
        match loan.take() {
            Ok(memory) => Some(memory),
            Err(error) => {
                let _ = self.failed.set(error);
                None
            }
        }
    }
}

impl Arrived {
    /// Reads its values.
    pub(crate) fn decoder(&self) -> Decoder<'_> {
        let decoder = match &self.bytes {
            Bytes::Copied(buffer) => Decoder::new(buffer),
            Bytes::Remote(remote) => match remote.in_place() {
                Some(bytes) => Decoder::new(bytes),
                None => Decoder::remote(&**remote),
            },
        };
        self.with_loans(decoder)
    }

    /// Reads its values, none of which borrows from it.
    pub(crate) fn owned_decoder(&self) -> Decoder<'_> {
        match &self.bytes {
            // What is that long needs new memory, and for that there is a faster way than the decoder of a slice has.
            Bytes::Remote(remote) if remote.len >= FRESH => self.with_loans(Decoder::remote(&**remote)),
            _ => self.decoder(),
        }
    }

    fn with_loans<'a>(&'a self, decoder: Decoder<'a>) -> Decoder<'a> {
        match &self.loans {
            Some(loans) => decoder.with_loans(&**loans),
            None => decoder,
        }
    }

    /// What an error in its decoding is, which may be this process's lack of memory and not the peer's fault.
    pub(crate) fn explain(&self, error: Error) -> Error {
        match self.loans.as_ref().and_then(|loans| loans.failed.get()) {
            Some(cause) if error.kind() == ErrorKind::Decode => {
                Error::new(ErrorKind::ResourceExhausted, format!("shared memory cannot be read: {cause}"))
                    .with_progress(error.progress())
            }
            _ => error,
        }
    }

    /// Bytes that will be copied out of the peer's memory.
    pub(crate) fn copied_len(&self) -> u64 {
        let body = match &self.bytes {
            Bytes::Remote(remote) if remote.in_place().is_none() => remote.len as u64,
            _ => 0,
        };
        body + self.loans.as_ref().map_or(0, |loans| loans.copied)
    }

    /// Bytes of private memory that hold it.
    pub(crate) fn held_len(&self) -> u64 {
        match &self.bytes {
            Bytes::Copied(buffer) => buffer.len() as u64,
            Bytes::Remote(_) => 0,
        }
    }

    /// Whether it stands in the peer's memory, which the peer would like back.
    pub(crate) fn is_mapped(&self) -> bool {
        matches!(self.bytes, Bytes::Remote(_))
    }

    /// All its bytes, as they are now.
    #[cfg(test)]
    pub(crate) fn read(&self) -> Vec<u8> {
        match &self.bytes {
            Bytes::Copied(buffer) => buffer.to_vec(),
            Bytes::Remote(remote) => {
                let mut bytes = Vec::new();
                remote.append(0, remote.len, &mut bytes);
                bytes
            }
        }
    }
}

/// Bytes in the peer's memory, of which parts are copied as they are asked for.
#[derive(Debug)]
struct RemoteBytes {
    segment: Arc<Segment>,
    offset: usize,
    len: usize,
    kept: Kept,
}

/// Copies, kept until all are dropped. They stay where they are when another one is added.
#[derive(Debug, Default)]
struct Kept {
    count: AtomicUsize,
    /// All that most bodies need: a window and a long value.
    first: [OnceLock<Copy>; FIRST],
    more: OnceLock<Box<Levels>>,
}

const FIRST: usize = 2;

/// Level n has room for 2^n copies: enough for one of each byte of the largest body.
type Levels = [OnceLock<Box<[OnceLock<Copy>]>>; 32];

#[derive(Debug)]
enum Copy {
    Small(Buffer),
    Large(Private),
}

/// Copies from this length on are made of pages: what is longer than a decoder's window.
const LARGE: usize = (64 << 10) + 1;

impl RemoteBytes {
    fn new(segment: Arc<Segment>, block: &BlockRef) -> Self {
        Self { segment, offset: offset(block), len: block.len as usize, kept: Kept::default() }
    }

    fn in_place(&self) -> Option<&[u8]> {
        self.segment.in_place(self.offset, self.len)
    }

    fn assert_has(&self, offset: usize, len: usize) {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "read outside a body");
    }
}

impl Kept {
    fn push(&self, copy: Copy) -> &[u8] {
        let number = self.count.fetch_add(1, Relaxed);
        let place = match self.first.get(number) {
            Some(place) => place,
            None => {
                let number = number - FIRST + 1;
                let level = number.ilog2();
                let levels = self.more.get_or_init(Box::default);
                let places = levels[level as usize]
                    .get_or_init(|| (0..1_usize << level).map(|_| OnceLock::new()).collect());
                &places[number - (1 << level)]
            }
        };
        match place.get_or_init(|| copy) {
            Copy::Small(buffer) => buffer,
            Copy::Large(private) => private.bytes(),
        }
    }
}

impl Remote for RemoteBytes {
    fn len(&self) -> usize {
        self.len
    }

    fn keep(&self, offset: usize, len: usize) -> Option<&[u8]> {
        self.assert_has(offset, len);
        let from = self.offset + offset;
        if len < LARGE {
            let mut buffer = Buffer::take();
            self.segment.append(from, len, &mut buffer);
            return Some(self.kept.push(Copy::Small(buffer)));
        }
        let copy = |into: &mut [u8]| {
            self.segment.copy(from, into);
            Ok(())
        };
        Some(self.kept.push(Copy::Large(Private::filled(len, copy).ok()?)))
    }

    fn append(&self, offset: usize, len: usize, into: &mut Vec<u8>) {
        self.assert_has(offset, len);
        self.segment.append(self.offset + offset, len, into);
    }
}
