//! [`Receiver`]: the bytes and descriptors of a peer go in, checked messages come out.
//!
//! Every rule about what a peer may say stands here, once, for both drivers.

use core::fmt;
use std::collections::VecDeque;

use crate::Limits;
use crate::arena::PAGE;
use crate::codec::Decoder;
use crate::error::{Error, WireError};
use crate::frame::{BadHeader, BlockRef, CallId, Header, Kind};

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
    /// Received descriptors that no frame has claimed yet.
    descriptors: VecDeque<F>,
    /// The sizes of the segments that the peer announced, by number.
    segments: Vec<u64>,
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
        /// The arguments.
        payload: Payload<'a>,
    },
    /// To a client: a call returned.
    Reply {
        /// The call's id; whether it waits is for [`Calls`](crate::calls::Calls) to say.
        call: CallId,
        /// The result.
        payload: Payload<'a>,
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
        /// Its size in bytes.
        len: u64,
        /// Its descriptor.
        descriptor: F,
    },
    /// To a server: the block of the reply to `call` was read.
    Release {
        /// The call's id.
        call: CallId,
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
    /// A segment with a wrong number or size.
    #[error("segment {number} of {len} bytes: {reason}")]
    Segment {
        /// The announced number.
        number: u64,
        /// The announced size.
        len: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A block outside what was announced.
    #[error("a block of {} bytes at page {} of segment {} is outside what was announced", .0.len, .0.page, .0.segment)]
    Block(BlockRef),
    /// A reply to a call that does not wait.
    #[error("a reply to call {:#x}, which does not wait for one", .0.as_u64())]
    UnknownCall(CallId),
    /// Bodies of calls that run at once, which take more than all of the peer's shared memory: some block is in two.
    #[error(
        "calls at once with {0} bytes of mapped arguments, more than the shared memory that there may be"
    )]
    Overlap(u64),
    /// A second call of an id whose first is not over, or a Release of a block that is not out.
    #[error("call {:#x} {reason}", .call.as_u64())]
    CallState {
        /// The call.
        call: CallId,
        /// What is wrong with it.
        reason: &'static str,
    },
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
            segments: Vec::new(),
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

    /// Says that `len` bytes were put at the start of [`space`](Self::space) and that `descriptors` came with them.
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
    ) -> Result<(), Violation> {
        assert!(len <= self.buffer.len() - self.end, "more was received than there was space for");
        self.end += len;
        self.descriptors.extend(descriptors);
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
            Kind::Call => Incoming::Call {
                call,
                method: header.method,
                is_busy: header.is_busy,
                payload: self.payload(&header, from)?,
            },
            Kind::Reply => Incoming::Reply { call, payload: self.payload(&header, from)? },
            Kind::Failure => {
                let mut decoder = Decoder::new(&self.buffer[from..from + len]);
                let error: WireError = decoder.next().map_err(Violation::Failure)?;
                decoder.end().map_err(Violation::Failure)?;
                Incoming::Failure { call, error: error.into() }
            }
            Kind::Segment => {
                let size: [u8; 8] = self.buffer[from..from + len].try_into().expect("length was checked");
                let len = u64::from_le_bytes(size);
                self.announce(call.as_u64(), len)?;
                let descriptor = self.descriptors.pop_front().ok_or(Violation::MissingDescriptor)?;
                Incoming::Segment { len, descriptor }
            }
            Kind::Release => Incoming::Release { call },
        }))
    }

    /// The header of the frame that begins at `start`, its direction and length checked.
    fn header(&self) -> Result<Option<Header>, Violation> {
        let Some(bytes) = self.buffer[self.start..self.end].first_chunk() else { return Ok(None) };
        let header = Header::decode(bytes)?;
        let (kind, len) = (header.kind, u64::from(header.len));
        let for_us = match kind {
            Kind::Segment => true,
            Kind::Call | Kind::Release => self.role == Role::Server,
            Kind::Reply | Kind::Failure => self.role == Role::Client,
        };
        if !for_us {
            return Err(Violation::Direction { kind, role: self.role });
        }
        let limit = match kind {
            Kind::Call | Kind::Reply => self.limits.max_message,
            Kind::Failure => MAX_FAILURE,
            Kind::Segment => 8,
            Kind::Release => 0,
        };
        if len > limit {
            return Err(Violation::TooLong { kind, len, limit });
        }
        let fixed = match kind {
            Kind::Segment => Some(8),
            Kind::Call | Kind::Reply if header.is_mapped => Some(BlockRef::LEN as u64),
            _ => None,
        };
        if fixed.is_some_and(|fixed| fixed != len) {
            return Err(Violation::Length { kind, len });
        }
        let may_be_mapped = matches!(kind, Kind::Call | Kind::Reply);
        if header.is_mapped && !may_be_mapped || header.is_busy && kind != Kind::Call {
            return Err(Violation::Header(BadHeader::Flags(bytes[5])));
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

    fn payload(&self, header: &Header, from: usize) -> Result<Payload<'_>, Violation> {
        let body = &self.buffer[from..from + header.len as usize];
        if !header.is_mapped {
            return Ok(Payload::Inline(body));
        }
        let block = BlockRef::decode(body.try_into().expect("length was checked"));
        let size = self.segments.get(block.segment as usize);
        let end = u64::from(block.page).checked_mul(PAGE).and_then(|start| start.checked_add(block.len));
        // Both must be there: even an empty block is of a segment that was announced.
        if size.zip(end).is_none_or(|(size, end)| end > *size) {
            return Err(Violation::Block(block));
        }
        if block.len > self.limits.max_message {
            let (kind, limit) = (header.kind, self.limits.max_message);
            return Err(Violation::TooLong { kind, len: block.len, limit });
        }
        Ok(Payload::Block(block))
    }

    fn announce(&mut self, number: u64, len: u64) -> Result<(), Violation> {
        let refuse = |reason| Err(Violation::Segment { number, len, reason });
        if number != self.segments.len() as u64 {
            return refuse("segments are numbered in order");
        }
        if self.segments.len() >= self.limits.max_segments as usize {
            return refuse("more segments than Limits::max_segments");
        }
        let mapped: u64 = self.segments.iter().sum();
        if mapped.checked_add(len).is_none_or(|sum| sum > self.limits.pool) {
            return refuse("more shared memory than Limits::pool");
        }
        if len == 0 || !len.is_multiple_of(PAGE) {
            return refuse("a segment is made of whole pages");
        }
        self.segments.push(len);
        Ok(())
    }
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        let message = format!("the peer broke the protocol: {violation}");
        Self::new(crate::ErrorKind::Protocol, message)
    }
}
