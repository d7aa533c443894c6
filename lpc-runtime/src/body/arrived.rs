//! [`Arrived`]: a body that has arrived, on either lane, and [`Announced`], the memory that bodies and loans
//! stand in.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use lpc_core::arena::PAGE;
use lpc_core::codec::{self, Decoder, Loans, Remote};
use lpc_core::frame::{BlockRef, OBJECT};
use lpc_core::receive::Payload;
use lpc_core::{Error, ErrorKind};

use crate::connection::link::{Link, Returning};
use crate::connection::tally::{Lane, Tally};
use crate::memory::buffer::Buffer;
use crate::memory::peer::{Object, Segment};
use crate::shared::memory::Memory;
use crate::sys::mapping::FRESH;
use crate::sys::private::Private;

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
    /// Why one could not be taken, or the body itself could not be kept.
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
pub(crate) struct Unreadable;

/// Memory of the peer, as it announced it.
#[derive(Debug)]
pub(crate) struct Announced {
    segments: Vec<Option<Arc<Segment>>>,
    objects: Vec<Option<Arc<Object>>>,
    /// Bytes that one body's loans may have copied.
    limit: u64,
    link: Weak<Link>,
}

impl Announced {
    /// None yet, over this connection.
    pub(crate) fn new(limit: u64, link: Weak<Link>) -> Self {
        Self { segments: Vec::new(), objects: Vec::new(), limit, link }
    }

    pub(crate) fn add_segment(&mut self, number: u32, segment: Segment) {
        put(&mut self.segments, number, Arc::new(segment));
    }

    pub(crate) fn add_object(&mut self, number: u32, object: Arc<Object>) {
        put(&mut self.objects, number & !OBJECT, object);
    }

    /// Forgets a segment or object. What refers to it keeps it.
    pub(crate) fn retire(&mut self, number: u32) {
        if number & OBJECT == 0 {
            take_out(&mut self.segments, number);
        } else {
            take_out(&mut self.objects, number & !OBJECT);
        }
    }

    /// Whether there is any.
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.iter().all(Option::is_none) && self.objects.iter().all(Option::is_none)
    }

    /// A body with its loans.
    #[inline]
    pub(crate) fn body(
        &self,
        payload: Payload<Buffer>,
        loans: &[BlockRef],
        counters: &Tally,
    ) -> Result<Arrived, Unreadable> {
        let mut lost = None;
        // Made first: where the body is asked for again, its loans come again, too.
        let bytes = match payload {
            Payload::Inline(bytes) => {
                counters.received(Lane::Socket, bytes.len());
                Bytes::Copied(bytes)
            }
            Payload::Block(block) => {
                let segment = self.segment(block.segment).ok_or(Unreadable)?;
                counters.received(Lane::Mapping, block.len as usize);
                Bytes::Remote(Box::new(RemoteBytes::new(segment, &block)))
            }
            Payload::Lost(len) => {
                counters.received(Lane::Socket, len as usize);
                lost = Some(len);
                Bytes::Copied(Buffer::take())
            }
        };
        let loans = if loans.is_empty() && lost.is_none() {
            None
        } else {
            Some(self.borrowed(loans, lost, counters))
        };
        Ok(Arrived { bytes, loans })
    }

    /// The loans of a body, of which it may be known why it cannot be read.
    fn borrowed(&self, loans: &[BlockRef], lost: Option<u64>, counters: &Tally) -> Box<Borrowed> {
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
                link: Weak::clone(&self.link),
                segment: loan.segment,
                page: loan.page,
            });
            entries.push(Some(Loan { spot: Arc::clone(spot), returning }));
        }
        let failed = lost.map(|len| format!("no memory for a body of {len} bytes"));
        let failed = failed.map_or_else(OnceLock::new, OnceLock::from);
        Box::new(Borrowed { loans: Mutex::new(entries), copied, failed })
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
                let _ = self.failed.set(format!("shared memory cannot be read: {error}"));
                None
            }
        }
    }
}

impl Arrived {
    /// Reads its values.
    #[inline]
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
    #[inline]
    pub(crate) fn owned_decoder(&self) -> Decoder<'_> {
        match &self.bytes {
            // What is that long needs new memory, and for that there is a faster way than the decoder of a
            // slice has.
            Bytes::Remote(remote) if remote.len >= FRESH => self.with_loans(Decoder::remote(&**remote)),
            _ => self.decoder(),
        }
    }

    #[inline]
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
                Error::new(ErrorKind::ResourceExhausted, cause.clone()).with_progress(error.progress())
            }
            _ => error,
        }
    }

    /// Bytes that will be copied out of the peer's memory.
    #[inline]
    pub(crate) fn copied_len(&self) -> u64 {
        let body = match &self.bytes {
            Bytes::Remote(remote) if remote.in_place().is_none() => remote.len as u64,
            _ => 0,
        };
        body + self.loans.as_ref().map_or(0, |loans| loans.copied)
    }

    /// Bytes of private memory that hold it.
    #[inline]
    pub(crate) fn held_len(&self) -> u64 {
        match &self.bytes {
            Bytes::Copied(buffer) => buffer.len() as u64,
            Bytes::Remote(_) => 0,
        }
    }

    /// Whether it stands in the peer's memory, which the peer would like back.
    #[inline]
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
