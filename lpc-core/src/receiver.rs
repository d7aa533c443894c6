//! [`Receiver`]: the bytes and descriptors of a peer go in, checked messages come out.
//!
//! Every rule about what a peer may say stands here, once, for both drivers.

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use crate::Limits;
use crate::arena::PAGE;
use crate::codec::Decoder;
use crate::error::{Error, WireError};
use crate::frame::{BadHeader, BlockRef, CallId, Header, Kind, MAX_LOANS, MAX_TABLE, OBJECT, TIME_LEFT};

/// A side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It calls.
    Client,
    /// It is called.
    Server,
}

impl Role {
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Client => b'c',
            Self::Server => b's',
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// The receiving side of one connection. `F` is the driver's type of a descriptor.
///
/// Ask for [`space`](Self::space), receive into it, say how much was [`received`](Self::received), and take messages
/// with [`next`](Self::next) until there are none. After a [`Violation`] the connection is to be closed.
///
/// Invariant: memory held here is bounded by twice the bytes that did arrive, whatever the peer announces.
#[derive(Debug)]
pub struct Receiver<F> {
    role: Role,
    limits: Limits,
    /// Received bytes stand at `start..end`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Received descriptors that no frame has claimed yet; `None` is one that was lost.
    descriptors: VecDeque<Option<F>>,
    /// The sizes of the segments and objects that the peer announced and did not retire, by number.
    announced: BTreeMap<u32, u64>,
}

/// What the buffer starts with and returns to: room for a body at the default threshold and then some.
const BUFFER: usize = 32 << 10;

/// A buffer that had to grow beyond this for one large frame is given back after it.
const KEPT: usize = 256 << 10;

/// Unclaimed descriptors at most: what the frames of one receive may bring.
const MAX_DESCRIPTORS: usize = 16;

/// Bytes of the error in a Failure frame at most, whatever `Limits::max_message` is.
pub const MAX_FAILURE: u64 = 64 << 10;

/// A message of the peer, its form checked.
#[derive(Debug)]
pub enum Incoming<'a, F> {
    /// To a server: a method is called.
    Call {
        /// Its id, for the reply.
        call: CallId,
        /// The method's number; whether there is one is for the dispatcher to say.
        method: u16,
        /// Whether the client has other calls waiting: a hint.
        is_busy: bool,
        /// How long the caller still waits.
        time_left: Option<Duration>,
        /// The arguments.
        payload: Payload<'a>,
        /// What is lent with them: each inside the bounds of an announced segment or object.
        loans: Vec<BlockRef>,
    },
    /// To a client: a call returned.
    Reply {
        /// The call's id; whether it waits is for [`Calls`](crate::calls::Calls) to say.
        call: CallId,
        /// The result.
        payload: Payload<'a>,
        /// What is lent with it: each inside the bounds of an announced segment or object.
        loans: Vec<BlockRef>,
    },
    /// To a client: a call failed outside its implementation.
    Failure {
        /// The call's id.
        call: CallId,
        /// What the server says of it.
        error: Error,
    },
    /// The peer adds a segment. Its size has been checked against the limits, not against the descriptor.
    Segment {
        /// Its number: a free slot until now.
        number: u32,
        /// Its size in bytes.
        len: u64,
        /// Its descriptor; `None` where the system had none left here for it.
        descriptor: Option<F>,
    },
    /// The peer adds an object. Its range has been checked against the limits, not against the descriptor.
    Object {
        /// Its number, with the bit [`OBJECT`]: a free slot until now.
        number: u32,
        /// Where the range begins in the file. Any byte will do, not only the first of a page.
        offset: u64,
        /// Bytes from there: one at least.
        len: u64,
        /// Its descriptor; `None` where the system had none left here for it.
        descriptor: Option<F>,
    },
    /// The peer does not use a segment or object any more: its number is free again. What was lent in it may still be
    /// read here.
    Retire {
        /// Its number.
        number: u32,
    },
    /// To a server: the block of the reply to `call` was read.
    Release {
        /// The call's id.
        call: CallId,
    },
    /// A loan in this side's pool is not read any more; whether there is one is for [`Lent`](crate::lent::Lent) to say.
    Return {
        /// The segment that it stands in.
        segment: u32,
        /// Its first page.
        page: u32,
    },
    /// The peer cannot read a segment of our pool.
    Refuse {
        /// Its number.
        segment: u32,
    },
    /// The peer cannot read the block that the body of this Call or Reply stands in, and asks for the same frame with the
    /// body in line. It does not read the block any more, and took none of the loans.
    Resend {
        /// The call's id.
        call: CallId,
    },
    /// To a server: nobody waits for the reply to `call` any more. The call may be over, or never have been.
    Cancel {
        /// The call's id.
        call: CallId,
    },
    /// To a client: the server receives nothing more.
    Closing,
    /// The peer runs on this CPU, or did a moment ago: a hint.
    At {
        /// Its number.
        cpu: u64,
    },
}

/// The body of a call or a reply.
#[derive(Debug)]
pub enum Payload<'a> {
    /// It came through the socket.
    Inline(&'a [u8]),
    /// It stands in the peer's pool, inside the bounds of an announced segment.
    Block(BlockRef),
}

/// A peer broke the protocol's rules.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    /// Bytes that are no header.
    #[error("{0}")]
    Header(#[from] BadHeader),
    /// A frame that this side never gets.
    #[error("a {kind:?} frame sent to a {role}")]
    Direction {
        /// The frame's kind.
        kind: Kind,
        /// The side that got it.
        role: Role,
    },
    /// A frame over the limit.
    #[error("a {kind:?} frame of {len} bytes, over the limit of {limit}")]
    TooLong {
        /// The frame's kind.
        kind: Kind,
        /// Its length.
        len: u64,
        /// What is accepted.
        limit: u64,
    },
    /// A frame of fixed length with another.
    #[error("a {kind:?} frame of {len} bytes")]
    Length {
        /// The frame's kind.
        kind: Kind,
        /// Its length.
        len: u64,
    },
    /// A Failure frame whose error does not decode.
    #[error("a failure that does not decode")]
    Failure(#[source] crate::codec::DecodeError),
    /// Descriptors that no frame declared.
    #[error("descriptors that no frame declared")]
    StrayDescriptors,
    /// A frame that declares a descriptor which did not come.
    #[error("a segment without its descriptor")]
    MissingDescriptor,
    /// A segment or object with a wrong number or size.
    #[error("{} of {len} bytes: {reason}", Name(*.number))]
    Segment {
        /// The announced number.
        number: u64,
        /// The announced size.
        len: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The end of a segment or object that was not announced, or is over already.
    #[error("{} was retired, which was not announced", Name(*.0))]
    Retire(u64),
    /// A block outside what was announced.
    #[error(
        "a block of {} bytes at page {} of {} is outside what was announced",
        .0.len, .0.page, Name(.0.segment.into())
    )]
    Block(BlockRef),
    /// A body that stands in an object.
    #[error("a body in {}, where only loans may stand", Name((*.0).into()))]
    BodyInObject(u32),
    /// A frame whose table of loans does not fit in it, or has a count that none has.
    #[error("a {kind:?} frame of {len} bytes with a broken table of loans")]
    Loans {
        /// The frame's kind.
        kind: Kind,
        /// Its length.
        len: u64,
    },
    /// A return of what is not lent.
    #[error("page {page} of {} was returned, where nothing is lent", Name((*.segment).into()))]
    NotLent {
        /// The segment.
        segment: u32,
        /// The page.
        page: u32,
    },
    /// A reply to a call that does not wait.
    #[error("a reply to call {:#x}, which does not wait for one", .0.as_u64())]
    UnknownCall(CallId),
    /// A second call of an id whose first is not over, or a Release of a block that is not out.
    #[error("call {:#x} {reason}", .call.as_u64())]
    CallState {
        /// The call.
        call: CallId,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// A segment's or object's number as messages put it.
struct Name(u64);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u32::try_from(self.0) {
            Ok(number) if is_object(number) => write!(f, "object {}", number & !OBJECT),
            _ => write!(f, "segment {}", self.0),
        }
    }
}

const fn is_object(number: u32) -> bool {
    number & OBJECT != 0
}

impl<F> Receiver<F> {
    /// The receiving side of a peer in `role`, bounded by `limits`.
    #[must_use]
    pub fn new(role: Role, limits: Limits) -> Self {
        Self {
            role,
            limits,
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
            descriptors: VecDeque::new(),
            announced: BTreeMap::new(),
        }
    }

    /// Where the next bytes belong: never empty, and large enough for the rest of a frame that has begun to arrive,
    /// as far as the bytes that did arrive justify the memory.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.buffer.len() > KEPT {
                self.buffer = vec![0; BUFFER];
            }
        }
        let have = self.end - self.start;
        let missing = self.frame_len().map_or(Header::LEN, |len| len).saturating_sub(have);
        if self.buffer.len() - self.end < missing.min(BUFFER) || self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, have);
        }
        let wanted = (have + missing).min(have.saturating_mul(2)).max(BUFFER);
        if self.end == self.buffer.len() || (self.start == 0 && self.buffer.len() < wanted) {
            self.buffer.resize(wanted.max(self.end + 1), 0);
        }
        &mut self.buffer[self.end..]
    }

    /// Says that `len` bytes were put at the start of [`space`](Self::space) and that `descriptors` came with them, and
    /// whether one was `lost`: the system had none left here for it. The frame that declares it is given without.
    ///
    /// # Errors
    ///
    /// Descriptors by the dozen.
    ///
    /// # Panics
    ///
    /// If `len` is more than the space there was.
    pub fn received(
        &mut self,
        len: usize,
        descriptors: impl IntoIterator<Item = F>,
        lost: bool,
    ) -> Result<(), Violation> {
        assert!(len <= self.buffer.len() - self.end, "more was received than there was space for");
        self.end += len;
        for descriptor in descriptors {
            self.descriptors.push_back(Some(descriptor));
        }
        if lost {
            // The system installs them in order: what it lost stands behind what it did not.
            self.descriptors.push_back(None);
        }
        if self.descriptors.len() > MAX_DESCRIPTORS { Err(Violation::StrayDescriptors) } else { Ok(()) }
    }

    /// Whether nothing is left of a frame that has begun to arrive: where a connection may end in peace.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.start == self.end
    }

    /// Whether [`next`](Self::next) has something to give before more bytes arrive.
    #[must_use]
    pub fn has_next(&self) -> bool {
        self.frame_len().is_some_and(|len| self.end - self.start >= len)
    }

    /// The next message, once it has arrived as a whole.
    ///
    /// # Errors
    ///
    /// What the peer did wrong.
    #[expect(
        clippy::should_implement_trait,
        reason = "what it gives borrows from it, which no iterator's items may"
    )]
    pub fn next(&mut self) -> Result<Option<Incoming<'_, F>>, Violation> {
        let Some(header) = self.header()? else {
            let stray = self.is_drained() && !self.descriptors.is_empty();
            return if stray { Err(Violation::StrayDescriptors) } else { Ok(None) };
        };
        if header.kind.descriptors() == 0
            && !self.descriptors.is_empty()
            && self.descriptors_are_of_this_frame()
        {
            return Err(Violation::StrayDescriptors);
        }
        let len = header.len as usize;
        if self.end - self.start - Header::LEN < len {
            return Ok(None);
        }
        let from = self.start + Header::LEN;
        self.start = from + len;
        let call = header.call;
        Ok(Some(match header.kind {
            Kind::Call => {
                let (payload, loans, time_left) = self.body(&header, from)?;
                let Header { method, is_busy, .. } = header;
                Incoming::Call { call, method, is_busy, time_left, payload, loans }
            }
            Kind::Reply => {
                let (payload, loans, _) = self.body(&header, from)?;
                Incoming::Reply { call, payload, loans }
            }
            Kind::Failure => {
                let mut decoder = Decoder::new(&self.buffer[from..from + len]);
                let error: WireError = decoder.next().map_err(Violation::Failure)?;
                decoder.end().map_err(Violation::Failure)?;
                Incoming::Failure { call, error: error.into() }
            }
            Kind::Segment => {
                let words = self.buffer[from..from + len].as_chunks().0;
                let (offset, len) = match words {
                    [len] => (0, u64::from_le_bytes(*len)),
                    [offset, len] => (u64::from_le_bytes(*offset), u64::from_le_bytes(*len)),
                    _ => return Err(Violation::Length { kind: Kind::Segment, len: len as u64 }),
                };
                let number = self.announce(call.as_u64(), offset, len)?;
                let descriptor = self.descriptors.pop_front().ok_or(Violation::MissingDescriptor)?;
                if is_object(number) {
                    Incoming::Object { number, offset, len, descriptor }
                } else {
                    Incoming::Segment { number, len, descriptor }
                }
            }
            Kind::Release => Incoming::Release { call },
            Kind::Retire => {
                let number = u32::try_from(call.as_u64()).ok();
                let number = number.filter(|number| self.announced.remove(number).is_some());
                Incoming::Retire { number: number.ok_or(Violation::Retire(call.as_u64()))? }
            }
            Kind::Return => {
                let (segment, page) = ((call.as_u64() >> 32) as u32, call.as_u64() as u32);
                if is_object(segment) {
                    return Err(Violation::NotLent { segment, page });
                }
                Incoming::Return { segment, page }
            }
            Kind::Resend => Incoming::Resend { call },
            Kind::Cancel => Incoming::Cancel { call },
            Kind::Closing => Incoming::Closing,
            Kind::At => Incoming::At { cpu: call.as_u64() },
            Kind::Refuse => match u32::try_from(call.as_u64()) {
                Ok(segment) => Incoming::Refuse { segment },
                Err(_) => return Err(Violation::Retire(call.as_u64())),
            },
        }))
    }

    /// The header of the frame that begins at `start`, its direction and length checked.
    fn header(&self) -> Result<Option<Header>, Violation> {
        let Some(bytes) = self.buffer[self.start..self.end].first_chunk() else { return Ok(None) };
        let header = Header::decode(bytes)?;
        let (kind, len) = (header.kind, u64::from(header.len));
        let for_us = match kind {
            Kind::Segment | Kind::Retire | Kind::Return | Kind::Resend | Kind::Refuse | Kind::At => true,
            Kind::Call | Kind::Release | Kind::Cancel => self.role == Role::Server,
            Kind::Reply | Kind::Failure | Kind::Closing => self.role == Role::Client,
        };
        if !for_us {
            return Err(Violation::Direction { kind, role: self.role });
        }
        let has_body = matches!(kind, Kind::Call | Kind::Reply);
        let is_of_call = header.is_busy || header.has_deadline;
        if (header.is_mapped || header.has_loans) && !has_body || is_of_call && kind != Kind::Call {
            return Err(Violation::Header(BadHeader::Flags(bytes[5])));
        }
        let (least, limit) = match kind {
            Kind::Call | Kind::Reply if header.is_mapped => (BlockRef::LEN as u64, BlockRef::LEN as u64),
            Kind::Call | Kind::Reply => (0, self.limits.max_message),
            Kind::Failure => (0, MAX_FAILURE),
            Kind::Segment if header.call.as_u64() & u64::from(OBJECT) != 0 => (16, 16),
            Kind::Segment => (8, 8),
            Kind::Release | Kind::Retire | Kind::Return | Kind::Resend | Kind::Refuse => (0, 0),
            Kind::Cancel | Kind::Closing | Kind::At => (0, 0),
        };
        let limit = if header.has_loans { limit.saturating_add(MAX_TABLE) } else { limit };
        let time_left = if header.has_deadline { TIME_LEFT } else { 0 };
        let (least, limit) = (least + time_left, limit.saturating_add(time_left));
        if len > limit {
            return Err(Violation::TooLong { kind, len, limit });
        }
        if len < least {
            return Err(Violation::Length { kind, len });
        }
        Ok(Some(header))
    }

    /// Header and body of the frame that begins at `start`, if its header is there.
    fn frame_len(&self) -> Option<usize> {
        let bytes = self.buffer[self.start..self.end].first_chunk()?;
        Some(Header::decode(bytes).map_or(Header::LEN, |header| Header::LEN + header.len as usize))
    }

    /// Descriptors come with the first byte of their frame, and a receive never goes on beyond the bytes that were
    /// sent with descriptors (unix(7)); so those of a frame further back are here only if all of it is, too.
    fn descriptors_are_of_this_frame(&self) -> bool {
        !self.has_next()
    }

    /// Where the body of a Call or Reply stands, what is lent with it, and how long its caller still waits.
    fn body(
        &self,
        header: &Header,
        from: usize,
    ) -> Result<(Payload<'_>, Vec<BlockRef>, Option<Duration>), Violation> {
        let (kind, len) = (header.kind, u64::from(header.len));
        let mut body = &self.buffer[from..from + header.len as usize];
        let mut loans = Vec::new();
        let mut time_left = None;
        if header.has_deadline {
            let nanos;
            (body, nanos) = body.split_last_chunk().ok_or(Violation::Length { kind, len })?;
            time_left = Some(Duration::from_nanos(u64::from_le_bytes(*nanos)));
        }
        if header.has_loans {
            let entries;
            (body, entries) = split_table(body).ok_or(Violation::Loans { kind, len })?;
            loans = entries.iter().map(|entry| self.check(entry)).collect::<Result<_, _>>()?;
        }
        let limit = self.limits.max_message;
        let payload = if header.is_mapped {
            let block = self.check(body.try_into().map_err(|_| Violation::Length { kind, len })?)?;
            if is_object(block.segment) {
                return Err(Violation::BodyInObject(block.segment));
            }
            if block.len > limit {
                return Err(Violation::TooLong { kind, len: block.len, limit });
            }
            Payload::Block(block)
        } else {
            // Again, now that it is known how much of the frame the body is.
            let len = body.len() as u64;
            if len > limit {
                return Err(Violation::TooLong { kind, len, limit });
            }
            Payload::Inline(body)
        };
        Ok((payload, loans, time_left))
    }

    /// The block in these bytes, if it is inside what was announced.
    fn check(&self, block: &[u8; BlockRef::LEN]) -> Result<BlockRef, Violation> {
        let block = BlockRef::decode(block);
        let size = self.announced.get(&block.segment);
        let end = u64::from(block.page).checked_mul(PAGE).and_then(|start| start.checked_add(block.len));
        // Both must be there: even an empty block is of a segment or object that was announced.
        if size.zip(end).is_none_or(|(size, end)| end > *size) {
            return Err(Violation::Block(block));
        }
        Ok(block)
    }

    fn announce(&mut self, number: u64, offset: u64, len: u64) -> Result<u32, Violation> {
        let refuse = |reason| Err(Violation::Segment { number, len, reason });
        let Ok(slot) = u32::try_from(number) else {
            return refuse("no slot has this number");
        };
        if self.announced.contains_key(&slot) {
            return refuse("it is there already");
        }
        if is_object(slot) {
            let lent: u64 = self.announced.range(OBJECT..).map(|(_, len)| *len).sum();
            if slot & !OBJECT >= self.limits.max_objects {
                return refuse("more objects than Limits::max_objects");
            }
            if lent.checked_add(len).is_none_or(|sum| sum > self.limits.lent) {
                return refuse("more bytes of objects than Limits::lent");
            }
            if len == 0 || offset.checked_add(len).is_none() {
                return refuse("an object is a range of bytes");
            }
        } else {
            let mapped: u64 = self.announced.range(..OBJECT).map(|(_, len)| *len).sum();
            if slot >= self.limits.max_segments {
                return refuse("more segments than Limits::max_segments");
            }
            if mapped.checked_add(len).is_none_or(|sum| sum > self.limits.pool) {
                return refuse("more shared memory than Limits::pool");
            }
            if len == 0 || !len.is_multiple_of(PAGE) {
                return refuse("a segment is made of whole pages");
            }
        }
        self.announced.insert(slot, len);
        Ok(slot)
    }
}

/// Parts the bytes of a frame in the body and the entries of the table of loans behind it.
fn split_table(bytes: &[u8]) -> Option<(&[u8], &[[u8; BlockRef::LEN]])> {
    let (bytes, count) = bytes.split_last_chunk()?;
    let count = usize::from(u16::from_le_bytes(*count));
    if !(1..=MAX_LOANS).contains(&count) {
        return None;
    }
    let (body, table) = bytes.split_at(bytes.len().checked_sub(count * BlockRef::LEN)?);
    Some((body, table.as_chunks().0))
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        let message = format!("the peer broke the protocol: {violation}");
        Self::new(crate::ErrorKind::Protocol, message)
    }
}
