//! [`Receiver`]: the bytes and descriptors of a peer go in, checked messages come out.
//!
//! Every rule about what a peer may say stands here, once, for both drivers.

mod buffer;
mod message;
mod violation;

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use self::buffer::{BUFFER, Buffer, KEPT, frame_len};
use crate::Limits;
use crate::arena::PAGE;
use crate::error::WireError;
use crate::frame::{BadHeader, BlockRef, Flags, Header, Kind, MAX_LOANS, MAX_TABLE, OBJECT, TIME_LEFT};
use crate::ring::MAX_FRAME;

pub use self::message::{Incoming, Payload};
pub use self::violation::Violation;

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
    /// What came through the socket.
    socket: Buffer,
    /// What came through the ring: whole frames.
    ring: Buffer,
    source: Source,
    /// The peer has announced its memory for the quick lane.
    has_announced_ring: bool,
    /// And it is mapped.
    has_ring: bool,
    /// Received descriptors that no frame has claimed yet; `None` is one that was lost.
    descriptors: VecDeque<Option<F>>,
    /// The sizes of the segments and objects that the peer announced and did not retire, by number.
    announced: BTreeMap<u32, u64>,
}

/// Where the peer's next frame comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The socket, until the peer says otherwise.
    Socket,
    /// The ring.
    Ring,
    /// The socket for one frame, and then the ring.
    Aside,
}

/// Bytes of what is taken from the ring at once.
const RING_BUFFER: usize = 2 * MAX_FRAME;

/// Unclaimed descriptors at most: what the frames of one receive may bring.
const MAX_DESCRIPTORS: usize = 16;

/// Bytes of the error in a Failure frame at most, whatever `Limits::max_message` is.
pub const MAX_FAILURE: u64 = 64 << 10;

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
            socket: Buffer { bytes: vec![0; BUFFER], start: 0, end: 0 },
            ring: Buffer::default(),
            source: Source::Socket,
            has_announced_ring: false,
            has_ring: false,
            descriptors: VecDeque::new(),
            announced: BTreeMap::new(),
        }
    }

    /// Where the next bytes from the socket belong: never empty, and large enough for the rest of a frame that has begun to
    /// arrive, as far as the bytes that did arrive justify the memory.
    pub fn space(&mut self) -> &mut [u8] {
        let Buffer { bytes, start, end } = &mut self.socket;
        if start == end {
            (*start, *end) = (0, 0);
            if bytes.len() > KEPT {
                *bytes = vec![0; BUFFER];
            }
        }
        let have = *end - *start;
        let missing = frame_len(&bytes[*start..*end]).unwrap_or(Header::LEN).saturating_sub(have);
        if bytes.len() - *end < missing.min(BUFFER) || *end == bytes.len() {
            bytes.copy_within(*start..*end, 0);
            (*start, *end) = (0, have);
        }
        let wanted = (have + missing).min(have.saturating_mul(2)).max(BUFFER);
        if *end == bytes.len() || (*start == 0 && bytes.len() < wanted) {
            bytes.resize(wanted.max(*end + 1), 0);
        }
        &mut bytes[*end..]
    }

    /// The peer's memory for the quick lane is mapped: what it sends may go on there.
    pub fn ring_is_mapped(&mut self) {
        self.has_ring = true;
    }

    /// Where the next frame comes from, when [`next`](Self::next) has none.
    #[must_use]
    #[inline]
    pub const fn source(&self) -> Source {
        self.source
    }

    /// Where the next frames from the ring belong. As long as [`next`](Self::next) has none, and wants one from the
    /// [ring](Source::Ring), there is space for any.
    #[inline]
    pub fn ring_space(&mut self) -> &mut [u8] {
        let Buffer { bytes, start, end } = &mut self.ring;
        if start == end {
            (*start, *end) = (0, 0);
            bytes.resize(RING_BUFFER, 0);
        }
        &mut bytes[*end..]
    }

    /// Says that a frame of `len` bytes was put at the start of [`ring_space`](Self::ring_space).
    ///
    /// # Panics
    ///
    /// If `len` is more than the space there was.
    #[inline]
    pub fn received_in_ring(&mut self, len: usize) {
        assert!(len <= self.ring.bytes.len() - self.ring.end, "more was received than there was space for");
        self.ring.end += len;
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
        assert!(
            len <= self.socket.bytes.len() - self.socket.end,
            "more was received than there was space for"
        );
        self.socket.end += len;
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
    #[inline]
    pub fn is_drained(&self) -> bool {
        self.socket.is_empty() && self.ring.is_empty()
    }

    /// Whether nothing has arrived yet of the next frame.
    #[must_use]
    #[inline]
    pub fn is_between_frames(&self) -> bool {
        self.current().is_empty()
    }

    /// Whether [`next`](Self::next) has something to give before more bytes arrive. With a quick lane it may turn out to be
    /// no message, but where the next one comes from.
    #[must_use]
    #[inline]
    pub fn has_next(&self) -> bool {
        self.current().has_frame()
    }

    /// Makes sure that nothing but bells has come through the socket, where all that is in the ring was taken and the next
    /// frame should come through that.
    ///
    /// # Errors
    ///
    /// A frame came through the socket.
    #[inline]
    pub fn check_turn(&mut self) -> Result<(), Violation> {
        if self.socket.is_empty() || self.source != Source::Ring || !self.ring.is_empty() {
            return Ok(());
        }
        self.skip_bells()?;
        match self.header(&self.socket, false)? {
            Some((header, _)) => Err(Violation::Quick(header.kind, "in the socket, where the ring is read")),
            None => Ok(()),
        }
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
    #[inline]
    pub fn next(&mut self) -> Result<Option<Incoming<'_, F>>, Violation> {
        if self.is_quiet() { Ok(None) } else { self.parse() }
    }

    /// Whether there is nothing to look at: as often as a message is taken, since that goes on until there is none.
    #[inline]
    fn is_quiet(&self) -> bool {
        let ring_is_read = self.source == Source::Ring;
        self.socket.is_empty() && self.descriptors.is_empty() && (!ring_is_read || self.ring.is_empty())
    }

    fn parse(&mut self) -> Result<Option<Incoming<'_, F>>, Violation> {
        let (header, source, from) = loop {
            let source = self.source;
            let Some((header, from)) = self.next_frame()? else { return Ok(None) };
            match (header.kind, source) {
                (Kind::Bell, _) => {}
                (Kind::Aside, _) => self.source = Source::Aside,
                (Kind::Switch, Source::Ring) => self.source = Source::Socket,
                (Kind::Switch, Source::Socket) => {
                    self.source = Source::Ring;
                    return Ok(Some(Incoming::Switch));
                }
                (Kind::Switch, Source::Aside) => {
                    return Err(Violation::Quick(Kind::Switch, "where one frame was to come"));
                }
                _ => {
                    if source == Source::Aside {
                        self.source = Source::Ring;
                    }
                    break (header, source, from);
                }
            }
        };
        let len = header.len as usize;
        let at = (source, from, len);
        let call = header.call;
        Ok(Some(match header.kind {
            Kind::Call => {
                let (payload, loans, time_left) = self.body(&header, self.taken(at))?;
                let (method, is_busy) = (header.method, header.is_busy());
                Incoming::Call { call, method, is_busy, time_left, payload, loans }
            }
            Kind::Reply => {
                let (payload, loans, _) = self.body(&header, self.taken(at))?;
                Incoming::Reply { call, payload, loans }
            }
            Kind::Failure => {
                let error = WireError::decode(self.taken(at)).map_err(Violation::Failure)?;
                Incoming::Failure { call, error: error.into() }
            }
            Kind::Segment => {
                let words = self.taken(at).as_chunks().0;
                let (offset, len) = match words {
                    [len] => (0, u64::from_le_bytes(*len)),
                    [offset, len] => (u64::from_le_bytes(*offset), u64::from_le_bytes(*len)),
                    _ => return Err(Violation::Length { kind: Kind::Segment, len: len as u64 }),
                };
                let number = self.announce(call.as_u64(), offset, len)?;
                let descriptor = self.descriptor(&header)?;
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
            Kind::Closing => Incoming::Closing { taken: call.as_u64() },
            Kind::At => Incoming::At { cpu: call.as_u64() },
            Kind::Ring => {
                self.has_announced_ring = true;
                Incoming::Ring { descriptor: self.descriptor(&header)? }
            }
            Kind::Bell | Kind::Aside | Kind::Switch => unreachable!("taken out above"),
            Kind::Refuse => match u32::try_from(call.as_u64()) {
                Ok(segment) => Incoming::Refuse { segment },
                Err(_) => return Err(Violation::Retire(call.as_u64())),
            },
        }))
    }

    /// What holds the next frame, or the beginning of it.
    #[inline]
    const fn current(&self) -> &Buffer {
        match self.source {
            Source::Ring => &self.ring,
            Source::Socket | Source::Aside => &self.socket,
        }
    }

    /// The bytes of a frame that was taken: from where, from which byte on, and how many.
    #[inline]
    fn taken(&self, (source, from, len): (Source, usize, usize)) -> &[u8] {
        let buffer = if source == Source::Ring { &self.ring } else { &self.socket };
        &buffer.bytes[from..from + len]
    }

    /// The header of the next frame, and where its bytes begin, once it is there as a whole.
    #[inline]
    fn next_frame(&mut self) -> Result<Option<(Header, usize)>, Violation> {
        let in_ring = self.source == Source::Ring;
        if in_ring && !self.socket.is_empty() {
            self.skip_bells()?;
        }
        if self.socket.is_empty() && !self.descriptors.is_empty() {
            return Err(Violation::StrayDescriptors);
        }
        let Some((header, is_whole)) = self.header(self.current(), in_ring)? else { return Ok(None) };
        if !in_ring {
            self.check_descriptors(&header)?;
        }
        if !is_whole {
            return Ok(None);
        }
        let buffer = if in_ring { &mut self.ring } else { &mut self.socket };
        let from = buffer.start + Header::LEN;
        buffer.start = from + header.len as usize;
        Ok(Some((header, from)))
    }

    /// Bells stand outside of the sequence of frames.
    fn skip_bells(&mut self) -> Result<(), Violation> {
        while let Some((header, _)) = self.header(&self.socket, false)?
            && header.kind == Kind::Bell
        {
            self.check_descriptors(&header)?;
            self.socket.start += Header::LEN;
        }
        Ok(())
    }

    /// Makes sure that the next frame from the socket brings the descriptors that it should.
    ///
    /// Descriptors come with the first byte of their frame, and a receive never goes on beyond the bytes that were sent with
    /// descriptors (unix(7)); so those of a frame further back are here only if all of it is, too.
    fn check_descriptors(&self, header: &Header) -> Result<(), Violation> {
        if !header.brings_descriptor() && !self.descriptors.is_empty() && !self.socket.has_frame() {
            return Err(Violation::StrayDescriptors);
        }
        Ok(())
    }

    /// The descriptor that comes with a frame; `None` where the system of one side had none left for it.
    fn descriptor(&mut self, header: &Header) -> Result<Option<F>, Violation> {
        if header.flags.has(Flags::WITHOUT) {
            return Ok(None);
        }
        self.descriptors.pop_front().ok_or(Violation::MissingDescriptor)
    }

    /// The header of the frame that a buffer begins with, its direction and length checked, and whether all of it is there.
    #[inline]
    fn header(&self, buffer: &Buffer, in_ring: bool) -> Result<Option<(Header, bool)>, Violation> {
        let unread = buffer.unread();
        let Some(bytes) = unread.first_chunk() else { return Ok(None) };
        let header = Header::decode(bytes)?;
        self.check_header(&header, in_ring)?;
        Ok(Some((header, unread.len() - Header::LEN >= header.len as usize)))
    }

    /// Makes sure that a frame may come that way, to this side, with these flags and this length.
    fn check_header(&self, header: &Header, in_ring: bool) -> Result<(), Violation> {
        let (kind, len) = (header.kind, u64::from(header.len));
        // What a small call is made of: everything else is looked at more closely.
        let expected = match self.role {
            Role::Client => Kind::Reply,
            Role::Server => Kind::Call,
        };
        let allowed = if kind == Kind::Call { Flags::BUSY } else { Flags::NONE };
        if kind == expected && header.flags.are_among(allowed) && len <= self.limits.max_message {
            return Ok(());
        }
        let for_us = match kind {
            Kind::Segment | Kind::Retire | Kind::Return | Kind::Resend | Kind::Refuse | Kind::At => true,
            Kind::Ring | Kind::Bell | Kind::Aside | Kind::Switch => true,
            Kind::Call | Kind::Release | Kind::Cancel => self.role == Role::Server,
            Kind::Reply | Kind::Failure | Kind::Closing => self.role == Role::Client,
        };
        if !for_us {
            return Err(Violation::Direction { kind, role: self.role });
        }
        self.check_lane(kind, in_ring)?;
        if !header.flags.are_among(kind.flags()) {
            return Err(Violation::Header(BadHeader::Flags(header.flags.as_byte())));
        }
        let (least, limit) = match kind {
            Kind::Call | Kind::Reply if header.is_mapped() => (BlockRef::LEN as u64, BlockRef::LEN as u64),
            Kind::Call | Kind::Reply => (0, self.limits.max_message),
            Kind::Failure => (0, MAX_FAILURE),
            Kind::Segment if header.call.as_u64() & u64::from(OBJECT) != 0 => (16, 16),
            Kind::Segment => (8, 8),
            Kind::Release | Kind::Retire | Kind::Return | Kind::Resend | Kind::Refuse => (0, 0),
            Kind::Cancel | Kind::Closing | Kind::At => (0, 0),
            Kind::Ring | Kind::Bell | Kind::Aside | Kind::Switch => (0, 0),
        };
        let limit = if header.has_loans() { limit.saturating_add(MAX_TABLE) } else { limit };
        let time_left = if header.has_deadline() { TIME_LEFT } else { 0 };
        let (least, limit) = (least + time_left, limit.saturating_add(time_left));
        if len > limit {
            return Err(Violation::TooLong { kind, len, limit });
        }
        if len < least {
            return Err(Violation::Length { kind, len });
        }
        Ok(())
    }

    /// Makes sure that a frame may come the way that it came.
    fn check_lane(&self, kind: Kind, in_ring: bool) -> Result<(), Violation> {
        let reason = match kind {
            Kind::Segment | Kind::Ring | Kind::Bell if in_ring => "in the ring",
            Kind::Ring if !self.limits.quick_lane => "that nobody asked for",
            Kind::Ring if self.has_announced_ring => "for a second time",
            Kind::Bell | Kind::Switch if !self.has_ring => "without a ring",
            Kind::Aside if !in_ring => "in the socket",
            _ => return Ok(()),
        };
        Err(Violation::Quick(kind, reason))
    }

    /// Where the body of a Call or Reply stands, what is lent with it, and how long its caller still waits.
    fn body<'a>(
        &self,
        header: &Header,
        mut body: &'a [u8],
    ) -> Result<(Payload<'a>, Vec<BlockRef>, Option<Duration>), Violation> {
        let (kind, len) = (header.kind, u64::from(header.len));
        let mut loans = Vec::new();
        let mut time_left = None;
        if header.has_deadline() {
            let nanos;
            (body, nanos) = body.split_last_chunk().ok_or(Violation::Length { kind, len })?;
            time_left = Some(Duration::from_nanos(u64::from_le_bytes(*nanos)));
        }
        if header.has_loans() {
            let entries;
            (body, entries) = split_table(body).ok_or(Violation::Loans { kind, len })?;
            loans = entries.iter().map(|entry| self.check(entry)).collect::<Result<_, _>>()?;
        }
        let limit = self.limits.max_message;
        let payload = if header.is_mapped() {
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
