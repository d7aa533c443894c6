//! [`Inbox`]: takes messages off the socket and their bodies off either lane.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use lpc_core::arena::PAGE;
use lpc_core::frame::CallId;
use lpc_core::receiver::{Incoming, Payload, Receiver, Role};
use lpc_core::{Error, ErrorKind, Limits};

use crate::buffer::Buffer;
use crate::stats::{Counters, Lane};
use crate::sys::mapping::PeerMapping;
use crate::sys::socket::{self, Control, Wait};

/// The receiving side of a connection: one thread or task holds it at a time.
#[derive(Debug)]
pub(crate) struct Inbox {
    receiver: Receiver<OwnedFd>,
    control: Control,
    descriptors: Vec<OwnedFd>,
    /// The peer's segments, by number.
    segments: Vec<Arc<PeerMapping>>,
    counters: Arc<Counters>,
}

/// A message of the peer that is for the driver.
#[derive(Debug)]
pub(crate) enum Message {
    Call { call: CallId, method: u16, is_busy: bool, body: Arrived },
    Reply { call: CallId, body: Arrived },
    Failure { call: CallId, error: Error },
    Release { call: CallId },
}

/// A body that has arrived: private already, or still in the peer's segment.
#[derive(Debug)]
pub(crate) enum Arrived {
    Copied(Buffer),
    Mapped { mapping: Arc<PeerMapping>, offset: usize, len: usize },
}

/// What one look at the socket brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// Bytes, and maybe more to come at once.
    Some,
    /// Bytes, and there were no more.
    All,
    /// The peer closed its side.
    End,
}

impl Inbox {
    pub(crate) fn new(role: Role, limits: Limits, counters: Arc<Counters>) -> Self {
        Self {
            receiver: Receiver::new(role, limits),
            control: Control::new(),
            descriptors: Vec::new(),
            segments: Vec::new(),
            counters,
        }
    }

    /// Receives once.
    pub(crate) fn fill(&mut self, socket: impl AsFd, wait: Wait) -> Result<Filled, FillError> {
        let space = self.receiver.space();
        let room = space.len();
        let len = match socket::receive(socket, space, &mut self.control, &mut self.descriptors, wait) {
            // How the kernel puts it where the peer left something unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            result => result.map_err(FillError::Io)?,
        };
        if len == 0 {
            return Ok(Filled::End);
        }
        // A receive stops behind bytes that came with descriptors, whatever follows them.
        let is_all = len < room && self.descriptors.is_empty();
        self.receiver
            .received(len, self.descriptors.drain(..))
            .map_err(|violation| FillError::Peer(violation.into()))?;
        Ok(if is_all { Filled::All } else { Filled::Some })
    }

    /// The next message that has arrived as a whole.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, Error> {
        loop {
            let Some(incoming) = self.receiver.next()? else { return Ok(None) };
            return Ok(Some(match incoming {
                Incoming::Segment { len, descriptor } => {
                    let mapping = PeerMapping::open(descriptor, len).map_err(|error| {
                        let number = self.segments.len();
                        let (kind, whose) = match error.kind() {
                            io::ErrorKind::InvalidData => {
                                (ErrorKind::Protocol, "the peer broke the protocol: ")
                            }
                            _ => (ErrorKind::Io, ""),
                        };
                        Error::new(kind, format!("{whose}segment {number} cannot be mapped: {error}"))
                    })?;
                    self.segments.push(Arc::new(mapping));
                    continue;
                }
                Incoming::Call { call, method, is_busy, payload } => {
                    let body = take(payload, &self.segments, &self.counters);
                    Message::Call { call, method, is_busy, body }
                }
                Incoming::Reply { call, payload } => {
                    Message::Reply { call, body: take(payload, &self.segments, &self.counters) }
                }
                Incoming::Failure { call, error } => Message::Failure { call, error },
                Incoming::Release { call } => Message::Release { call },
            }));
        }
    }

    /// Whether [`next`](Self::next) has something to give before more is received.
    pub(crate) fn has_next(&self) -> bool {
        self.receiver.has_next()
    }

    /// What the end of the stream means here: an error where it cuts a message in two.
    pub(crate) fn ended(&self) -> Result<(), Error> {
        if self.receiver.is_drained() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Disconnected, "the other side hung up in the middle of a message"))
    }
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

fn take(payload: Payload<'_>, segments: &[Arc<PeerMapping>], counters: &Counters) -> Arrived {
    match payload {
        Payload::Inline(bytes) => {
            counters.received(Lane::Socket, bytes.len());
            Arrived::Copied(Buffer::copy_of(bytes))
        }
        Payload::Block(block) => {
            counters.received(Lane::Mapping, block.len as usize);
            Arrived::Mapped {
                mapping: Arc::clone(&segments[block.segment as usize]),
                offset: (u64::from(block.page) * PAGE) as usize,
                len: block.len as usize,
            }
        }
    }
}

impl Arrived {
    /// The body in private memory, where the peer cannot change it any more.
    pub(crate) fn read(self) -> Buffer {
        match self {
            Self::Copied(buffer) => buffer,
            Self::Mapped { mapping, offset, len } => {
                let mut buffer = Buffer::take();
                mapping.copy_out(offset, len, &mut buffer);
                buffer
            }
        }
    }

    /// Bytes of it that stand in the peer's memory.
    pub(crate) fn mapped_len(&self) -> u64 {
        match self {
            Self::Copied(_) => 0,
            Self::Mapped { len, .. } => *len as u64,
        }
    }

    /// Whether it stands in the peer's memory, which the peer would like back.
    pub(crate) fn is_mapped(&self) -> bool {
        matches!(self, Self::Mapped { .. })
    }
}
