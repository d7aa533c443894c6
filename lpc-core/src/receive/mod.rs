//! [`Receiver`]: the bytes and descriptors of a peer go in, checked messages come out.
//!
//! Every rule about what a peer may say stands here, once, for both drivers.

mod announced;
mod buffer;
mod message;
mod ring;
mod rules;
mod stall;
mod undecodable;
mod violation;

use core::fmt;
use std::collections::VecDeque;
use std::sync::Arc;

use self::announced::{Announced, Body, is_object};
use self::buffer::{Buffer, Taken};
use self::ring::Ring;
use self::rules::Rules;
use crate::Limits;
use crate::error::{Error, ErrorKind, WireError};
use crate::frame::{Flags, Header, Kind};
use crate::ring::{Consumer, NoRing, Own, Peers};

pub use self::message::{Incoming, Payload};
pub use self::ring::{Entrance, Source};
pub use self::rules::MAX_FAILURE;
pub use self::stall::StallTimer;
pub use self::undecodable::{MAX_UNDECODABLE, Undecodable};
pub use self::violation::Violation;

/// A side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The side that calls.
    Client,
    /// The side that is called.
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

/// The receiving side of one connection. `F` is the driver's type of a descriptor, `O` and `P` its memory for
/// the quick lane.
///
/// Ask for [`space`](Self::space), receive into it, say how much was [`received`](Self::received), and take
/// messages with [`next`](Self::next) until there are none. After a [`Violation`] the connection is to be
/// closed.
///
/// Invariant: memory held here is bounded by twice the bytes that did arrive, whatever the peer announces.
#[derive(Debug)]
pub struct Receiver<F, O = NoRing, P = NoRing> {
    peer: Peer<F>,
    /// What came through the socket.
    socket: Buffer,
    source: Source,
    ring: Option<Ring<O, P>>,
    entrance: Arc<Entrance>,
}

/// What is known of the peer, whichever way its frames come.
#[derive(Debug)]
struct Peer<F> {
    rules: Rules,
    /// Received descriptors that no frame has claimed yet; `None` is one that was lost.
    descriptors: VecDeque<Option<F>>,
    announced: Announced,
}

/// What stands behind a frame's header.
enum Bytes<'a, B> {
    /// In the buffer for what comes through the socket.
    Buffered(&'a [u8]),
    /// In the same, but only the last ones: there was no memory for all.
    Cut(&'a [u8]),
    /// In the driver's own.
    Taken(B),
}

/// Unclaimed descriptors at most: what the frames of one receive may bring.
const MAX_DESCRIPTORS: usize = 16;

impl<F, O: Own, P: Peers> Receiver<F, O, P> {
    /// The receiving side of a peer in `role`, bounded by `limits`.
    #[must_use]
    pub fn new(role: Role, limits: Limits) -> Self {
        Self {
            peer: Peer {
                rules: Rules::new(role, limits),
                descriptors: VecDeque::new(),
                announced: Announced::default(),
            },
            socket: Buffer::new(),
            source: Source::Socket,
            ring: None,
            entrance: Arc::default(),
        }
    }

    /// The same, where others have this side stop receiving by this.
    #[must_use]
    pub fn with_entrance(mut self, entrance: Arc<Entrance>) -> Self {
        self.entrance = entrance;
        self
    }

    /// Where the next bytes from the socket belong: never empty, and large enough for the rest of a frame
    /// that has begun to arrive, as far as the bytes that did arrive justify the memory.
    #[inline]
    pub fn space(&mut self) -> &mut [u8] {
        self.socket.space()
    }

    /// Says that `len` bytes were put at the start of [`space`](Self::space) and that `descriptors` came with
    /// them, and whether one was `lost`: the system had none left here for it. The frame that declares it is
    /// given without.
    ///
    /// # Errors
    ///
    /// Descriptors by the dozen.
    ///
    /// # Panics
    ///
    /// If `len` is more than the space there was.
    #[inline]
    pub fn received(
        &mut self,
        len: usize,
        descriptors: impl IntoIterator<Item = F>,
        lost: bool,
    ) -> Result<(), Violation> {
        self.socket.received(len);
        let waiting = &mut self.peer.descriptors;
        for descriptor in descriptors {
            waiting.push_back(Some(descriptor));
        }
        if lost {
            // The system installs them in order: what it lost stands behind what it did not.
            waiting.push_back(None);
        }
        if waiting.len() > MAX_DESCRIPTORS { Err(Violation::StrayDescriptors) } else { Ok(()) }
    }

    /// The peer's memory for the quick lane is mapped: what it sends may go on in this ring.
    pub fn read_ring(&mut self, ring: Consumer<O, P>) {
        self.peer.rules.has_ring = true;
        self.ring = Some(Ring::new(ring, Arc::clone(&self.entrance)));
    }

    /// Where the next frame comes from, when [`next`](Self::next) has none.
    #[must_use]
    #[inline]
    pub const fn source(&self) -> Source {
        self.source
    }

    /// Frames taken from the ring since the beginning.
    #[must_use]
    #[inline]
    pub fn frames_of_ring(&self) -> u64 {
        self.ring.as_ref().map_or(0, Ring::frames)
    }

    /// Has the peer ring a bell for what it sends from now on; `false` where there is something to be taken
    /// from the ring.
    #[must_use]
    pub fn sleep(&mut self) -> bool {
        match &mut self.ring {
            Some(ring) if self.source == Source::Ring => ring.sleep(),
            _ => true,
        }
    }

    /// This side looks at the ring again by itself.
    pub fn wake(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.wake();
        }
    }

    /// The peer has closed its side, and what it sent before was taken. If this side [stops
    /// receiving](Entrance) and the peer is to be told with Closing, the slots of its ring that were taken.
    pub fn end(&mut self) -> Option<u64> {
        self.ring.as_mut().and_then(Ring::end)
    }

    /// Whether nothing is left of a frame that has begun to arrive, or was said to come: where a connection
    /// may end in peace.
    #[must_use]
    #[inline]
    pub fn is_drained(&self) -> bool {
        self.socket.is_empty() && self.source != Source::Aside
    }

    /// Whether nothing has arrived that was not taken, not even a part of a frame: [`next`](Self::next) has
    /// nothing to give, and no violation to report.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        let has_ring = match &self.ring {
            Some(ring) if self.source == Source::Ring => ring.has_next(),
            _ => false,
        };
        !has_ring && self.socket.is_empty() && self.peer.descriptors.is_empty()
    }

    /// Whether nothing has arrived yet of the next frame.
    #[must_use]
    #[inline]
    pub fn is_between_frames(&self) -> bool {
        match &self.ring {
            Some(ring) if self.source == Source::Ring => !ring.has_next(),
            _ => self.socket.is_empty(),
        }
    }

    /// Whether [`next`](Self::next) has something to give before more bytes arrive. With a quick lane it may
    /// turn out to be no message, but where the next one comes from.
    #[must_use]
    #[inline(always)]
    pub fn has_next(&self) -> bool {
        match &self.ring {
            Some(ring) if self.source == Source::Ring => ring.has_next(),
            _ => self.socket.has_frame(),
        }
    }

    /// The next message, once it has arrived as a whole. The bytes of a body are put behind what is in a
    /// `buffer`, which should have room for so many. A body for which there is no memory is
    /// [lost](Payload::Lost), and its message comes without.
    ///
    /// # Errors
    ///
    /// What the peer did wrong.
    #[inline]
    pub fn next<B: AsMut<Vec<u8>>>(
        &mut self,
        buffer: impl Fn(usize) -> B,
    ) -> Result<Option<Incoming<F, B>>, Violation> {
        loop {
            let (header, bytes) = match self.source {
                Source::Ring => match self.next_of_ring(&buffer)? {
                    Some(frame) => frame,
                    None if self.source != Source::Ring => continue,
                    None => return self.without_frame(),
                },
                source => {
                    if self.socket.is_empty() && self.peer.descriptors.is_empty() {
                        return Ok(None);
                    }
                    let Some((header, true)) = self.next_of_socket()? else { return Ok(None) };
                    let bytes = match self.socket.take(header.len as usize) {
                        Taken::All(bytes) => Bytes::Buffered(bytes),
                        Taken::Cut(bytes) => Bytes::Cut(bytes),
                    };
                    match header.kind {
                        Kind::Bell => continue,
                        Kind::Switch if source == Source::Aside => {
                            return Err(Violation::Quick(Kind::Switch, "where one frame was to come"));
                        }
                        Kind::Switch => {
                            self.source = Source::Ring;
                            if let Some(ring) = &mut self.ring {
                                ring.enter();
                            }
                            return Ok(Some(Incoming::Switch));
                        }
                        _ if source == Source::Aside => self.source = Source::Ring,
                        _ => {}
                    }
                    (header, bytes)
                }
            };
            return self.peer.message(&header, bytes, &buffer).map(Some);
        }
    }

    /// The next frame from the ring. None where there is none, or one that says that the next one comes
    /// through the socket.
    #[inline]
    fn next_of_ring<B: AsMut<Vec<u8>>>(
        &mut self,
        buffer: &impl Fn(usize) -> B,
    ) -> Result<Option<(Header, Bytes<'static, B>)>, Violation> {
        let Some(ring) = &mut self.ring else { return Ok(None) };
        let Some(frame) = ring.next()? else { return Ok(None) };
        let header = self.peer.rules.decode(frame.header(), true)?;
        let bytes = match header.len {
            0 if !matches!(header.kind, Kind::Call | Kind::Reply) => {
                frame.skip();
                Bytes::Buffered(&[][..])
            }
            len => {
                let mut bytes = buffer(len as usize);
                frame.take(bytes.as_mut());
                Bytes::Taken(bytes)
            }
        };
        ring.count();
        match header.kind {
            Kind::Aside => self.source = Source::Aside,
            Kind::Switch => self.source = Source::Socket,
            _ => return Ok(Some((header, bytes))),
        }
        Ok(None)
    }

    /// What there is to say of a ring in which there is no frame to be taken.
    #[cold]
    fn without_frame<B>(&mut self) -> Result<Option<Incoming<F, B>>, Violation> {
        let Some(ring) = &mut self.ring else { return Ok(None) };
        if let Some(taken) = ring.end_if_closed() {
            return Ok(Some(Incoming::Drained { taken }));
        }
        // Before it sends anything but bells through the socket, the peer says so in the ring.
        if !ring.is_over()
            && (!self.socket.is_empty() || !self.peer.descriptors.is_empty())
            && let Some(header) = self.next_behind_bells()?
        {
            return Err(Violation::Quick(header.kind, "in the socket, where the ring is read"));
        }
        Ok(None)
    }

    /// The header of the next frame in the socket behind bells, which stand outside of the sequence of
    /// frames.
    fn next_behind_bells(&mut self) -> Result<Option<Header>, Violation> {
        while let Some((header, _)) = self.next_of_socket()? {
            if header.kind != Kind::Bell {
                return Ok(Some(header));
            }
            self.socket.take(0);
        }
        Ok(None)
    }

    /// The header of the next frame in the socket, and whether all of that is there.
    #[inline]
    fn next_of_socket(&self) -> Result<Option<(Header, bool)>, Violation> {
        if self.socket.is_empty() {
            let is_stray = !self.peer.descriptors.is_empty();
            return if is_stray { Err(Violation::StrayDescriptors) } else { Ok(None) };
        }
        let unread = self.socket.unread();
        let Some(bytes) = unread.first_chunk() else { return Ok(None) };
        let header = self.peer.rules.decode(bytes, false)?;
        let is_whole = self.socket.has_frame();
        // Descriptors come with the first byte of their frame, and a receive never goes on beyond the bytes
        // that were sent with descriptors (unix(7)); so those of a frame further back are here only if all of
        // this one is, too.
        if !is_whole && !header.brings_descriptor() && !self.peer.descriptors.is_empty() {
            return Err(Violation::StrayDescriptors);
        }
        Ok(Some((header, is_whole)))
    }
}

/// A body that came in a frame, in memory of its own.
#[inline]
fn copied<B: AsMut<Vec<u8>>>(bytes: &[u8], buffer: &impl Fn(usize) -> B) -> Payload<B> {
    let mut body = buffer(bytes.len());
    let into = body.as_mut();
    if into.capacity() - into.len() < bytes.len() && !make_room(into, bytes.len()) {
        return Payload::Lost(bytes.len() as u64);
    }
    into.extend_from_slice(bytes);
    Payload::Inline(body)
}

/// Whether there is memory for so many bytes more.
#[cold]
fn make_room(buffer: &mut Vec<u8>, len: usize) -> bool {
    buffer.try_reserve_exact(len).is_ok()
}

impl<F> Peer<F> {
    #[inline]
    fn message<B: AsMut<Vec<u8>>>(
        &mut self,
        header: &Header,
        bytes: Bytes<'_, B>,
        buffer: &impl Fn(usize) -> B,
    ) -> Result<Incoming<F, B>, Violation> {
        let call = header.call;
        match header.kind {
            Kind::Call => {
                let (payload, Body { loans, time_left, .. }) = self.body(header, bytes, buffer)?;
                let (method, is_busy) = (header.method, header.is_busy());
                Ok(Incoming::Call { call, method, is_busy, time_left, payload, loans })
            }
            Kind::Reply => {
                let (payload, Body { loans, .. }) = self.body(header, bytes, buffer)?;
                Ok(Incoming::Reply { call, payload, loans })
            }
            _ => match bytes {
                Bytes::Buffered(bytes) => self.other(header, bytes),
                // No other is as long.
                Bytes::Cut(_) if header.kind == Kind::Failure => {
                    let error =
                        Error::new(ErrorKind::ResourceExhausted, "no memory for the text of an error");
                    Ok(Incoming::Failure { call, error })
                }
                Bytes::Cut(bytes) => self.other(header, bytes),
                Bytes::Taken(mut bytes) => self.other(header, bytes.as_mut()),
            },
        }
    }

    /// Where the body of a Call or Reply is, and what comes with it.
    #[inline]
    fn body<B: AsMut<Vec<u8>>>(
        &self,
        header: &Header,
        bytes: Bytes<'_, B>,
        buffer: &impl Fn(usize) -> B,
    ) -> Result<(Payload<B>, Body), Violation> {
        // As nearly all are.
        if header.flags.are_among(Flags::BUSY) {
            let payload = match bytes {
                Bytes::Buffered(bytes) => copied(bytes, buffer),
                Bytes::Cut(_) => Payload::Lost(header.len.into()),
                Bytes::Taken(bytes) => Payload::Inline(bytes),
            };
            return Ok((payload, Body::default()));
        }
        let limits = &self.rules.limits;
        match bytes {
            Bytes::Buffered(bytes) => {
                let body = self.announced.body(limits, header, bytes)?;
                Ok((body.block.map_or_else(|| copied(&bytes[..body.len], buffer), Payload::Block), body))
            }
            Bytes::Cut(bytes) => {
                let body = self.announced.body(limits, header, bytes)?;
                Ok((Payload::Lost(u64::from(header.len)), body))
            }
            Bytes::Taken(mut bytes) => {
                let body = self.announced.body(limits, header, bytes.as_mut())?;
                bytes.as_mut().truncate(body.len);
                Ok((body.block.map_or(Payload::Inline(bytes), Payload::Block), body))
            }
        }
    }

    /// A frame that has no body of the user's.
    fn other<B>(&mut self, header: &Header, bytes: &[u8]) -> Result<Incoming<F, B>, Violation> {
        let call = header.call;
        Ok(match header.kind {
            Kind::Failure => {
                let error = WireError::decode(bytes).map_err(Violation::Failure)?;
                Incoming::Failure { call, error: error.into() }
            }
            Kind::Segment => {
                let (offset, len) = match bytes.as_chunks().0 {
                    [len] => (0, u64::from_le_bytes(*len)),
                    [offset, len] => (u64::from_le_bytes(*offset), u64::from_le_bytes(*len)),
                    _ => return Err(Violation::Length { kind: Kind::Segment, len: bytes.len() as u64 }),
                };
                let number = self.announced.add(&self.rules.limits, call.as_u64(), offset, len)?;
                let descriptor = self.descriptor(header)?;
                if is_object(number) {
                    Incoming::Object { number, offset, len, descriptor }
                } else {
                    Incoming::Segment { number, len, descriptor }
                }
            }
            Kind::Release => Incoming::Release { call },
            Kind::Retire => Incoming::Retire { number: self.announced.retire(call.as_u64())? },
            Kind::Return => {
                let (segment, page) = ((call.as_u64() >> 32) as u32, call.as_u64() as u32);
                if is_object(segment) {
                    return Err(Violation::NotLent { segment, page });
                }
                Incoming::Return { segment, page }
            }
            Kind::Resend => Incoming::Resend { call },
            Kind::Cancel => Incoming::Cancel { call },
            Kind::Closing => Incoming::Closing { taken: call.as_u64() },
            Kind::At => Incoming::At { cpu: call.as_u64() },
            Kind::Ring => {
                self.rules.has_announced_ring = true;
                Incoming::Ring { descriptor: self.descriptor(header)? }
            }
            Kind::Refuse => match u32::try_from(call.as_u64()) {
                Ok(segment) => Incoming::Refuse { segment },
                Err(_) => return Err(Violation::Retire(call.as_u64())),
            },
            Kind::Call | Kind::Reply | Kind::Bell | Kind::Aside | Kind::Switch => {
                unreachable!("taken out above")
            }
        })
    }

    /// The descriptor that comes with a frame; `None` where the system of one side had none left for it.
    fn descriptor(&mut self, header: &Header) -> Result<Option<F>, Violation> {
        if !header.brings_descriptor() {
            return Ok(None);
        }
        self.descriptors.pop_front().ok_or(Violation::MissingDescriptor)
    }
}
