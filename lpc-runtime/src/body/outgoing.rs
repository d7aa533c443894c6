//! [`Outgoing`]: encodes a body once, straight to where it travels.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use lpc_core::arena::PAGE;
use lpc_core::codec::{EncodeError, Loan, MAX_EMPTY_ELEMENTS, Sink, too_many_empty};
use lpc_core::frame::{self, BlockRef, Body, CallId, Header, Kind};
use lpc_core::{Error, ErrorKind, Progress, Result, Threshold};

use crate::connection::link::Link;
use crate::connection::tally::{Lane, Tally};
use crate::connection::warnings::Warning;
use crate::memory::buffer::Buffer;
use crate::memory::lender::Loaned;
use crate::memory::pool::PoolBlock;
use crate::shared::memory::Memory;

/// A body that is being encoded.
///
/// It begins in a buffer behind its frame's header. Once it outgrows the threshold it moves to a block of the
/// pool, a copy of at most the threshold, and all that follows is written there directly. So the size needs
/// not be known beforehand, and a large argument is copied once, by the encoder.
pub(crate) struct Outgoing<'l> {
    link: &'l Link,
    threshold: Threshold,
    when_full: WhenFull,
    /// The header and, until the body moves, the body.
    frame: Buffer,
    /// Length up to which the buffer may grow before [`overflow`](Self::overflow) has to look.
    room: usize,
    fell_back: bool,
    /// `None` for nearly all bodies, which are small: they are moved from function to function.
    large: Option<Box<Large>>,
}

/// What only a body has that refers to shared memory, or was to.
#[derive(Debug, Default)]
struct Large {
    /// Where the body moved to, and how much of it is there.
    block: Option<(PoolBlock, usize)>,
    /// The block, once the body is complete.
    place: Option<BlockRef>,
    loans: Vec<Loaned>,
    /// How long the body is going to be at least, from an earlier try.
    hint: u64,
    missing: Option<Missing>,
    /// How many elements that take no bytes are in it.
    empty: u64,
    /// The limit that the body is over, if it is.
    over: &'static str,
}

/// What a body that did not find room needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// Bytes of shared memory for all that is known of the body and its loans.
    pub(crate) room: u64,
    /// Of these, for the body: where to start the next time.
    pub(crate) hint: u64,
}

/// What becomes of a body that the pool has no room for at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// It takes the socket: a reply is not kept waiting for its client.
    Socket,
    /// Encoding stops, and says how much [is missing](Outgoing::missing).
    Stop,
}

/// An encoded body, ready to be sent.
#[derive(Debug)]
pub(crate) struct Encoded {
    lane: Lane,
    /// Of a call, how many others it is made within.
    nesting: u8,
    len: usize,
    frame: Buffer,
    large: Option<Box<Large>>,
}

/// A body in a block, which stays until its receiver has read it, and could be sent otherwise.
#[derive(Debug)]
pub(crate) struct InBlock {
    block: PoolBlock,
    len: usize,
    header: [u8; Header::LEN],
    /// With their pins: their numbers have to stay as long as the body may be sent again.
    loans: Vec<Loaned>,
}

const MAX_MESSAGE: &str = " (max_message of client or server)";
const POOL_LIMIT: &str = " (pool_limit of client or server)";
const FILE_LIMIT: &str = " (file_limit of client or server)";

/// From that length on a frame is made room for before it is sent.
const LONG: usize = 64 << 10;

/// The first block of a body that grows piece by piece. It grows in place as a rule, and is trimmed at the
/// end.
const FIRST_BLOCK: usize = 64 << 10;

impl<'l> Outgoing<'l> {
    /// A body whose frame `begin` starts (one of `frame::begin_…`).
    #[inline]
    pub(crate) fn new(
        link: &'l Link,
        threshold: Threshold,
        when_full: WhenFull,
        begin: impl FnOnce(&mut Vec<u8>),
    ) -> Self {
        let mut frame = Buffer::take();
        begin(&mut frame);
        // Without shared memory there is one lane.
        let threshold = if link.limits().pool == 0 { Threshold::OFF } else { threshold };
        let inline = threshold.as_bytes().min(link.limits().max_message);
        let room = Header::LEN.saturating_add(usize::try_from(inline).unwrap_or(usize::MAX));
        Self { link, threshold, when_full, frame, room, fell_back: false, large: None }
    }

    /// Expects a body of `hint` bytes at least.
    #[inline]
    pub(crate) fn expect(&mut self, hint: u64) {
        if hint > 0 {
            self.large().hint = hint;
        }
    }

    /// What to turn where a body is over the limit, for the end of the error's text.
    pub(crate) fn limit_name(&self) -> &'static str {
        self.large.as_ref().map_or("", |large| large.over)
    }

    fn large(&mut self) -> &mut Large {
        self.large.get_or_insert_default()
    }

    fn block(&self) -> Option<&(PoolBlock, usize)> {
        self.large.as_ref()?.block.as_ref()
    }

    fn block_mut(&mut self) -> Option<&mut (PoolBlock, usize)> {
        self.large.as_mut()?.block.as_mut()
    }

    /// The error of what is over a limit that has this name.
    fn too_large(&mut self, len: u64, limit: u64, name: &'static str) -> EncodeError {
        self.large().over = name;
        EncodeError::TooLarge { len, limit }
    }

    /// What the pool had no room for, where that is why encoding stopped.
    pub(crate) fn missing(&self) -> Option<Missing> {
        self.large.as_ref()?.missing
    }

    /// Sees to it that a complete body can be kept where it has to wait for the socket.
    ///
    /// # Errors
    ///
    /// There is no memory for that.
    #[inline]
    pub(crate) fn make_room(&self) -> Result<(), EncodeError> {
        let len = self.frame.len();
        if len < LONG {
            return Ok(());
        }
        let room = self.link.make_room(len);
        room.map_err(|_| EncodeError::OutOfMemory { len: (len - Header::LEN) as u64 })
    }

    #[inline]
    pub(crate) fn finish(mut self) -> Encoded {
        let (mut lane, mut len) = (Lane::Socket, self.frame.len() - Header::LEN);
        if let Some(large) = &mut self.large
            && let Some((block, in_block)) = &mut large.block
        {
            (lane, len) = (Lane::Mapping, *in_block);
            block.shrink(len as u64);
            large.place = Some(block.reference(len));
        }
        Encoded { lane, nesting: 0, len, frame: self.frame, large: self.large }
    }

    /// A block of at least `len` bytes, for the body or else for a loan. `None`: the system has none, or the
    /// pool where a body then takes the socket.
    fn alloc(&mut self, len: u64, is_body: bool) -> Result<Option<PoolBlock>, EncodeError> {
        match self.link.alloc(len) {
            Ok(None) if self.when_full == WhenFull::Stop => Err(self.stop(len, is_body)),
            Ok(block) => Ok(block),
            Err(error) => {
                self.link.warnings().warn_of(Warning::NoMemoryForBody, &error);
                Ok(None)
            }
        }
    }

    /// The error of a body for which there is no room, at the moment or ever.
    fn stop(&mut self, len: u64, is_body: bool) -> EncodeError {
        let limits = self.link.limits();
        let pages = |len: u64| len.next_multiple_of(PAGE);
        // What the message holds, and would hold the next time as well. A body that grows holds another block
        // then.
        let is_copy = |loan: &&Loaned| loan.is_copy;
        let large = self.large.get_or_insert_default();
        let loans: u64 = large.loans.iter().filter(is_copy).map(|loan| pages(loan.place.len)).sum();
        let body = large.block.as_ref().map_or(0, |(_, have)| pages(*have as u64));
        let (held, least) = if is_body { (loans, pages(len)) } else { (loans + body, pages(len)) };
        if held.saturating_add(least) > limits.pool {
            return self.too_large(held.saturating_add(len), limits.pool, POOL_LIMIT);
        }
        let hint = if is_body { len.max(large.hint) } else { large.hint };
        large.missing = Some(Missing { room: held + least, hint });
        EncodeError::new("no room in shared memory")
    }

    /// Makes room for `more` bytes: on the lane where the body is, or on the other.
    #[cold]
    fn overflow(&mut self, more: usize) -> Result<(), EncodeError> {
        let limits = self.link.limits();
        let have = self.block().map_or(self.frame.len() - Header::LEN, |(_, len)| *len);
        let need = have.saturating_add(more);
        if need as u64 > limits.max_message {
            return Err(self.too_large(need as u64, limits.max_message, MAX_MESSAGE));
        }
        if self.fell_back || !self.threshold.is_exceeded_by(need as u64) {
            return Ok(());
        }
        if need as u64 > limits.pool {
            return Err(self.too_large(need as u64, limits.pool, POOL_LIMIT));
        }
        let most = usize::try_from(limits.max_message.min(limits.pool)).unwrap_or(usize::MAX);
        let hint = self.large.as_ref().map_or(0, |large| large.hint);
        let hint = usize::try_from(hint).unwrap_or(usize::MAX);
        // What outgrew its block before may well grow further than it then had.
        let wanted = need.max(2 * have).max(FIRST_BLOCK).max(hint.saturating_mul(2)).min(most);
        if let Some((block, _)) = self.block_mut()
            && (block.extend(wanted as u64) || block.extend(need as u64))
        {
            return Ok(());
        }
        let moved = match self.link.alloc(wanted as u64) {
            Ok(Some(block)) => Some(block),
            _ => self.alloc(need.max(hint).min(most) as u64, true)?,
        };
        match (moved, self.large().block.take()) {
            (Some(mut block), Some((old, len))) => {
                block.write(0, old.bytes(len));
                self.large().block = Some((block, len));
            }
            (Some(mut block), None) => {
                block.write(0, &self.frame[Header::LEN..]);
                self.frame.truncate(Header::LEN);
                self.large().block = Some((block, have));
                self.room = 0;
            }
            (None, old) => {
                if let Some((block, len)) = old {
                    reserve(&mut self.frame, len)?;
                    self.frame.extend_from_slice(block.bytes(len));
                }
                self.link.counters().fallback();
                self.fell_back = true;
                self.room =
                    Header::LEN.saturating_add(usize::try_from(limits.max_message).unwrap_or(usize::MAX));
            }
        }
        Ok(())
    }

    /// Bytes that are not known to have room where the body is.
    fn extend_large(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let has_room = |(block, len): &(PoolBlock, usize)| bytes.len() <= block.capacity() - len;
        if !self.block().is_some_and(has_room) {
            self.overflow(bytes.len())?;
        }
        if let Some((block, len)) = self.block_mut() {
            block.write(*len, bytes);
            *len += bytes.len();
        } else {
            reserve(&mut self.frame, bytes.len())?;
            self.frame.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Where the peer finds these bytes, if it is to find them beside the body.
    fn place(&mut self, memory: &Arc<Memory>) -> Result<Option<Loaned>, EncodeError> {
        let (place, pin) = match &**memory {
            Memory::Block { block, len }
                if block.is_of(self.link.lender().pool()) && self.link.has_passed(block.passage()) =>
            {
                (block.reference(*len), None)
            }
            Memory::Object(object) if object.len() > self.link.limits().lent => {
                return Err(self.too_large(object.len(), self.link.limits().lent, FILE_LIMIT));
            }
            Memory::Object(object) => match self.link.announce(object) {
                Some((number, pin)) if self.link.has_passed(pin.passage()) => {
                    (BlockRef { segment: number, page: 0, len: object.len() }, Some(pin))
                }
                _ => return self.copied(memory),
            },
            _ => return self.copied(memory),
        };
        Ok(Some(Loaned { place, memory: Arc::clone(memory) as _, is_copy: false, _pin: pin }))
    }

    /// A copy in a block of its own, which the peer may keep; for bytes over the threshold.
    fn copied(&mut self, memory: &Arc<Memory>) -> Result<Option<Loaned>, EncodeError> {
        let len = memory.len();
        if self.fell_back || !self.threshold.is_exceeded_by(len) {
            return Ok(None);
        }
        let pool = self.link.limits().pool;
        if len > pool {
            return Err(self.too_large(len, pool, POOL_LIMIT));
        }
        let bytes = memory.load().map_err(|error| EncodeError::new(error.to_string()))?;
        // A body whose segment was not passed is sent again; a loan would be lost.
        let block = self.alloc(len, false)?.filter(|block| self.link.has_passed(block.passage()));
        let Some(mut block) = block else {
            self.link.counters().fallback();
            return Ok(None);
        };
        block.write(0, bytes);
        let place = block.reference(bytes.len());
        let memory = Arc::new(Memory::Block { block, len: bytes.len() });
        Ok(Some(Loaned { place, memory, is_copy: true, _pin: None }))
    }
}

/// Makes room for as many bytes more in a frame.
#[inline]
fn reserve(frame: &mut Buffer, more: usize) -> Result<(), EncodeError> {
    let reserved = frame.try_reserve(more);
    reserved.map_err(|_| EncodeError::OutOfMemory { len: (frame.len() + more - Header::LEN) as u64 })
}

impl Sink for Outgoing<'_> {
    #[inline]
    fn push(&mut self, byte: u8) -> Result<(), EncodeError> {
        // There is no room where the body has moved to a block.
        if self.frame.len() < self.room.min(self.frame.capacity()) {
            self.frame.push(byte);
            return Ok(());
        }
        self.extend(&[byte])
    }

    #[inline]
    fn extend(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        if bytes.len() <= self.room.saturating_sub(self.frame.len()) {
            reserve(&mut self.frame, bytes.len())?;
            self.frame.extend_from_slice(bytes);
            return Ok(());
        }
        self.extend_large(bytes)
    }

    #[inline]
    fn written(&self) -> u64 {
        self.block().map_or(self.frame.len() - Header::LEN, |(_, len)| *len) as u64
    }

    #[inline]
    fn max_depth(&self) -> u32 {
        self.link.limits().max_depth
    }

    #[cold]
    fn count_empty(&mut self, elements: u64) -> Result<(), EncodeError> {
        let large = self.large();
        large.empty = large.empty.saturating_add(elements);
        if large.empty > MAX_EMPTY_ELEMENTS.into() { Err(too_many_empty()) } else { Ok(()) }
    }

    fn lend(&mut self, loan: &Arc<dyn Loan>) -> Result<Option<u32>, EncodeError> {
        let any: Arc<dyn Any + Send + Sync> = Arc::clone(loan) as _;
        let Ok(memory) = any.downcast::<Memory>() else { return Ok(None) };
        // Further ones are written in line.
        if self.large.as_ref().is_some_and(|large| large.loans.len() == frame::MAX_LOANS) {
            return Ok(None);
        }
        let Some(loaned) = self.place(&memory)? else { return Ok(None) };
        let loans = &mut self.large().loans;
        loans.push(loaned);
        Ok(Some(loans.len() as u32 - 1))
    }
}

impl Encoded {
    /// The same, of a call that is made within so many others.
    #[inline]
    pub(crate) const fn nested(mut self, nesting: u32) -> Self {
        self.nesting = nesting as u8;
        self
    }

    #[inline]
    pub(crate) fn nesting(&self) -> u32 {
        self.nesting.into()
    }

    /// Makes it the frame of `call`.
    #[inline]
    pub(crate) fn seal(&mut self, call: CallId) {
        let Some(large) = &self.large else {
            return frame::seal(&mut self.frame, call, Body::Inline, &[]);
        };
        let places: Vec<_> = large.loans.iter().map(|loan| loan.place).collect();
        frame::seal(&mut self.frame, call, large.place.map_or(Body::Inline, Body::Mapped), &places);
    }

    /// Counts it among what was sent. For the holder of the lock on the connection's calls.
    #[inline]
    pub(crate) fn count(&self, counters: &Tally) {
        counters.sent(self.lane, self.len);
        for loan in self.loans() {
            counters.sent(Lane::Loan, loan.place.len as usize);
        }
    }

    /// Says that its client has other calls waiting.
    #[inline]
    pub(crate) fn mark_busy(&mut self) {
        frame::mark_busy(&mut self.frame);
    }

    /// Says of a sealed call how long its caller still waits.
    pub(crate) fn set_time_left(&mut self, left: Duration) {
        frame::set_time_left(&mut self.frame, left);
    }

    /// The sealed frame, as it goes over the socket.
    #[inline]
    pub(crate) fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// What the body refers to.
    #[inline]
    pub(crate) fn loans(&self) -> &[Loaned] {
        self.large.as_ref().map_or(&[], |large| &large.loans)
    }

    /// The block of the body, which must stay until the peer has read it.
    #[inline]
    pub(crate) fn take_block(&mut self) -> Option<Box<InBlock>> {
        let large = self.large.as_mut()?;
        let (block, len) = large.block.take()?;
        let header = *self.frame.first_chunk().expect("a frame has a header");
        Some(Box::new(InBlock { block, len, header, loans: large.loans.clone() }))
    }
}

impl InBlock {
    /// What the body refers to.
    pub(crate) fn loans(&self) -> &[Loaned] {
        &self.loans
    }

    /// The same body in a frame of its own, to be sent through the socket.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ResourceExhausted`]: there is no memory for a copy.
    pub(crate) fn inline(&self, call: CallId, time_left: Option<Duration>) -> Result<Buffer> {
        let mut frame = Buffer::take();
        frame.try_reserve(Header::LEN + self.len).map_err(|_| {
            let message =
                format!("no memory for a body of {} bytes, which the peer asks for again", self.len);
            Error::new(ErrorKind::ResourceExhausted, message).with_progress(Progress::NotSent)
        })?;
        let header = Header::decode(&self.header).expect("encoded here");
        match header.kind {
            Kind::Reply => frame::begin_reply(&mut frame),
            _ => frame::begin_call(&mut frame, header.method),
        }
        frame.extend_from_slice(self.block.bytes(self.len));
        let places: Vec<_> = self.loans.iter().map(|loan| loan.place).collect();
        frame::seal(&mut frame, call, Body::Inline, &places);
        if header.is_busy() {
            frame::mark_busy(&mut frame);
        }
        if let Some(left) = time_left {
            frame::set_time_left(&mut frame, left);
        }
        Ok(frame)
    }
}
