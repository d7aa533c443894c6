//! What stands on the wire after the handshake: frames, each a [`Header`] and `len` bytes.
//!
//! ```text
//!  0        4      5       6        8                16
//!  | len    | kind | flags | method | call           | len bytes ...
//!  | u32    | u8   | u8    | u16    | u64            |              all little-endian
//! ```
//!
//! | kind | from | `method` | `call` | the bytes | descriptors |
//! |---|---|---|---|---|---|
//! | Call | client | index in the server's table | its id | arguments, or a [`BlockRef`]; loans; time left | |
//! | Reply | server | 0 | the call's id | result, or a [`BlockRef`]; loans | |
//! | Failure | server | 0 | the call's id | a [`WireError`](crate::error::WireError) | |
//! | Segment | both | 0 | the segment's number | its size, u64 | its memfd |
//! | Segment | both | 0 | the object's number | offset and size of the range, u64 each | its memfd or file |
//! | Release | client | 0 | a call's id: the block of its reply is free again | | |
//! | Retire | both | 0 | a segment's or object's number: the sender does not use it any more | | |
//! | Return | both | 0 | segment << 32 \| page: a loan in the receiver's pool is not read any more | | |
//! | Refuse | both | 0 | a segment's number: it cannot be read here | | |
//! | Resend | both | 0 | a call's id: the block of its Call or Reply cannot be read here | | |
//! | Cancel | client | 0 | a call's id: the call was cancelled | | |
//! | Closing | server | 0 | slots taken from the client's ring | | |
//! | At | both | 0 | the number of the CPU that the sender runs on | | |
//! | Ring | both | 0 | 0 | | the sender's memory for the quick lane |
//! | Bell | both | 0 | 0 | | |
//! | Aside | both | 0 | 0 | | |
//! | Switch | both | 0 | 0 | | |
//!
//! Flags: 1, the body is in a block (Call, Reply); 2, other calls of the client wait for their replies
//! (Call); 4, loans (Call, Reply); 8, a deadline (Call); 16, the descriptor could not be passed, and none
//! comes (Segment, Ring).
//!
//! **Segments and objects.** A segment is memory of the sender's pool; blocks of it carry bodies and loans.
//! An object is a file or a memfd that nobody can write to any more, lent as a whole or in a range; it
//! carries loans only. Both are announced once, with their descriptor, and then go by their numbers: segments
//! from 0, objects from [`OBJECT`]. A number is a slot, any that is free, and Retire frees it again. The
//! pages of an object count from its range's start.
//!
//! **Calls within calls.** Bits 26 to 31 of a call's id say how many calls it was made within, so that the
//! server does not keep it waiting behind those.
//!
//! **Loans.** With flag 4 the frame's bytes end with a table: 1 to [`MAX_LOANS`] [`BlockRef`]s, then their
//! count as a u16. What precedes it is the body.
//!
//! The block of a call's arguments is free again when its Reply or Failure arrives: that needs no frame of
//! its own. The block of a loan is free again when a Return names its first page. Objects are never returned.
//!
//! **Deadlines.** With flag 8 the frame's last 8 bytes, behind a table of loans, say how many nanoseconds the
//! caller still waits, from when the frame was made. (No point in time: the clocks of two time namespaces
//! differ, time_namespaces(7).)
//!
//! **Ends of calls.** Every Call is answered by one Reply or Failure, a cancelled one too: until then its id
//! is in use. A Cancel may meet its answer on the way, and then means nothing. After Closing the server
//! receives nothing more: of the Calls sent to it, those that it received as a whole are answered.
//!
//! **CPUs.** At is a hint, sent in front of a Call or Reply where the last one no longer holds: a side that
//! waits for a peer that runs on another CPU does better to spin for its next frame for a moment than to
//! sleep, see [`spin`](crate::spin).
//!
//! **The quick lane.** Where both sides said at the handshake that they want it, the client announces its
//! memory for it (see [`ring`](crate::ring)) with Ring, and the server, once it has mapped that, its own. All
//! that one side sends is still one sequence of frames, which begins in the socket. Switch, in the socket,
//! says that it goes on in the ring; the client sends it first, when it has mapped the server's memory, so
//! that the server knows that it may, too. In the ring, Aside says that the one frame that is next comes
//! through the socket, and Switch, that all do until there is a Switch there. So a frame with a descriptor,
//! one that is too large for the ring, and what comes while the ring is full, go through the socket. Bells,
//! in the socket, wake a side that sleeps; they stand outside of the sequence and mean nothing.
//!
//! **Descriptors.** Where the system does not pass the descriptor of a Segment or Ring frame (too many are on
//! their way between the user's processes, `ETOOMANYREFS`), the frame goes without it, and says so: what it
//! announces cannot be read.
//!
//! Where the peer cannot read the block of a body (its system has no descriptor or memory left for the
//! segment), it asks with Resend for the same frame with the body in line: the same loans, which it did not
//! take the first time. The block is free again then, and the segment is better not used for anything else.

use core::time::Duration;

/// The bit that tells an object's number from a segment's.
pub const OBJECT: u32 = 1 << 31;

/// Loans of one Call or Reply at most.
pub const MAX_LOANS: usize = 1024;

/// Bytes of a table of loans at most.
pub const MAX_TABLE: u64 = (MAX_LOANS * BlockRef::LEN + 2) as u64;

/// Bytes of the time left for a call.
pub const TIME_LEFT: u64 = 8;

/// What `Limits::max_message` can be at most: a frame's length is a u32, and what follows a body has to fit
/// as well.
pub const MAX_BODY: u64 = u32::MAX as u64 - MAX_TABLE - TIME_LEFT;

/// Names a call of one connection. Chosen by the client; the server gives it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(u64);

impl CallId {
    /// The call of this number.
    #[must_use]
    pub const fn new(id: u64) -> Self {
        Self(id)
    }

    /// Its number.
    #[must_use]
    #[inline]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The same call, made within a call within a call: so many of them, [`MAX_NESTING`] at most.
    #[must_use]
    #[inline]
    pub const fn nested(self, nesting: u32) -> Self {
        let nesting = if nesting < MAX_NESTING { nesting } else { MAX_NESTING };
        Self(self.0 & !Self::NESTING | (nesting as u64) << Self::NESTING.trailing_zeros())
    }

    /// How many calls it was made within, each within another.
    #[must_use]
    #[inline]
    pub const fn nesting(self) -> u32 {
        let nesting = ((self.0 & Self::NESTING) >> Self::NESTING.trailing_zeros()) as u32;
        if nesting < MAX_NESTING { nesting } else { MAX_NESTING }
    }

    /// Where [`nesting`](Self::nesting) stands.
    pub(crate) const NESTING: u64 = 0x3f << 26;
}

/// How deep calls nest at most: a call that an implementation makes while it answers another is one deeper.
pub const MAX_NESTING: u32 = 32;

const _: () = assert!((MAX_NESTING as u64) << CallId::NESTING.trailing_zeros() <= CallId::NESTING);

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A client calls a method.
    Call = 1,
    /// The method returned.
    Reply = 2,
    /// The method did not return: it could not be called, or panicked, or its result could not be encoded.
    Failure = 3,
    /// The sender adds a segment to its pool, or an object.
    Segment = 4,
    /// The block of a reply was read.
    Release = 5,
    /// The sender does not use a segment or object any more.
    Retire = 6,
    /// A loan that stood in the receiver's pool is not read any more.
    Return = 7,
    /// The sender cannot read the block that a call's body stands in.
    Resend = 8,
    /// A segment of the peer's pool cannot be read here.
    Refuse = 9,
    /// A call was cancelled: its client drops the answer.
    Cancel = 10,
    /// The server receives nothing more, and closes when it has answered what it received.
    Closing = 11,
    /// The sender runs on a CPU.
    At = 12,
    /// The sender's memory for the quick lane.
    Ring = 13,
    /// There is something in the ring.
    Bell = 14,
    /// The next frame comes through the socket.
    Aside = 15,
    /// The next frames come through the ring; where this stands in the ring, through the socket.
    Switch = 16,
}

impl Kind {
    #[inline]
    const fn parse(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Call,
            2 => Self::Reply,
            3 => Self::Failure,
            4 => Self::Segment,
            5 => Self::Release,
            6 => Self::Retire,
            7 => Self::Return,
            8 => Self::Resend,
            9 => Self::Refuse,
            10 => Self::Cancel,
            11 => Self::Closing,
            12 => Self::At,
            13 => Self::Ring,
            14 => Self::Bell,
            15 => Self::Aside,
            16 => Self::Switch,
            _ => return None,
        })
    }

    /// The flags that a frame of this kind may have.
    #[must_use]
    pub const fn flags(self) -> Flags {
        match self {
            Self::Call => Flags::MAPPED.with(Flags::BUSY).with(Flags::LOANS).with(Flags::DEADLINE),
            Self::Reply => Flags::MAPPED.with(Flags::LOANS),
            Self::Segment | Self::Ring => Flags::WITHOUT,
            _ => Flags::NONE,
        }
    }
}

/// What a header says of the bytes behind it, and of the call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);

    /// The body stands in a block of the sender's pool; the frame's own bytes are a [`BlockRef`].
    pub const MAPPED: Self = Self(1);

    /// The client of a call has others waiting: a hint that running them side by side pays.
    pub const BUSY: Self = Self(2);

    /// The frame ends with a table of loans.
    pub const LOANS: Self = Self(4);

    /// A call ends with the time left for it.
    pub const DEADLINE: Self = Self(8);

    /// The frame comes without the descriptor that it should bring: the sender's system did not pass it.
    pub const WITHOUT: Self = Self(16);

    const ALL: Self = Self(31);

    /// These flags and the others.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether all of the others are among these.
    #[must_use]
    #[inline]
    pub const fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether all of these are among the others.
    #[must_use]
    #[inline]
    pub const fn are_among(self, others: Self) -> bool {
        others.has(self)
    }

    /// The byte of a header.
    #[must_use]
    #[inline]
    pub const fn as_byte(self) -> u8 {
        self.0
    }
}

/// The first bytes of every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes that follow.
    pub len: u32,
    /// What the frame is.
    pub kind: Kind,
    /// What is behind the header.
    pub flags: Flags,
    /// Index of the method in the server's table.
    pub method: u16,
    /// The call, or the segment or object, or the place of a loan.
    pub call: CallId,
}

impl Header {
    /// Bytes of an encoded header.
    pub const LEN: usize = 16;

    /// The header as it stands on the wire.
    #[must_use]
    #[inline]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0..4].copy_from_slice(&self.len.to_le_bytes());
        bytes[4] = self.kind as u8;
        bytes[5] = self.flags.0;
        bytes[6..8].copy_from_slice(&self.method.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.call.0.to_le_bytes());
        bytes
    }

    /// A header, if these bytes are one.
    ///
    /// # Errors
    ///
    /// The byte that is none of this version's: the kind or the flags.
    #[inline]
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, BadHeader> {
        let [l0, l1, l2, l3, kind, flags, m0, m1, call @ ..] = *bytes;
        if !Flags(flags).are_among(Flags::ALL) {
            return Err(BadHeader::Flags(flags));
        }
        Ok(Self {
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            kind: Kind::parse(kind).ok_or(BadHeader::Kind(kind))?,
            flags: Flags(flags),
            method: u16::from_le_bytes([m0, m1]),
            call: CallId(u64::from_le_bytes(call)),
        })
    }

    /// The header of a frame of this kind, a Call or a Reply, as nearly all are: without flags, but for the
    /// hint of a client that has other calls waiting.
    #[inline]
    pub(crate) fn decode_plain(bytes: &[u8; Self::LEN], expected: Kind) -> Option<Self> {
        let [l0, l1, l2, l3, kind, flags, m0, m1, call @ ..] = *bytes;
        let hint = if expected == Kind::Call { Flags::BUSY.0 } else { 0 };
        let is_plain = u16::from_le_bytes([kind, flags & !hint]) == expected as u16;
        is_plain.then(|| Self {
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            kind: expected,
            flags: Flags(flags),
            method: u16::from_le_bytes([m0, m1]),
            call: CallId(u64::from_le_bytes(call)),
        })
    }

    /// Whether the body is in a block of shared memory.
    #[must_use]
    pub const fn is_mapped(&self) -> bool {
        self.flags.has(Flags::MAPPED)
    }

    /// Whether the client has other calls waiting.
    #[must_use]
    #[inline]
    pub const fn is_busy(&self) -> bool {
        self.flags.has(Flags::BUSY)
    }

    /// Whether a table of loans stands behind the body.
    #[must_use]
    pub const fn has_loans(&self) -> bool {
        self.flags.has(Flags::LOANS)
    }

    /// Whether the time left for the call stands at the end.
    #[must_use]
    pub const fn has_deadline(&self) -> bool {
        self.flags.has(Flags::DEADLINE)
    }

    /// Whether a descriptor comes with the frame.
    #[must_use]
    pub const fn brings_descriptor(&self) -> bool {
        matches!(self.kind, Kind::Segment | Kind::Ring) && !self.flags.has(Flags::WITHOUT)
    }
}

/// A header that this version does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// No frame has this kind.
    #[error("a frame of kind {0}")]
    Kind(u8),
    /// No frame has these flags.
    #[error("a frame with flags {0:#04x}")]
    Flags(u8),
}

/// Where a mapped body or a loan stands: in whole pages of a segment, or of a loan's object, that its sender
/// announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRef {
    /// The segment's number, or the object's.
    pub segment: u32,
    /// The first page, counted in [`PAGE`](crate::arena::PAGE) bytes.
    pub page: u32,
    /// Bytes from there.
    pub len: u64,
}

impl BlockRef {
    /// Bytes of an encoded reference.
    pub const LEN: usize = 16;

    /// The reference as it stands on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0..4].copy_from_slice(&self.segment.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.page.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    /// The reference that stands in these bytes. It points nowhere until
    /// [`Receiver`](crate::receive::Receiver) has checked it against the announced segments.
    #[must_use]
    pub fn decode(bytes: &[u8; Self::LEN]) -> Self {
        let [s0, s1, s2, s3, p0, p1, p2, p3, len @ ..] = *bytes;
        Self {
            segment: u32::from_le_bytes([s0, s1, s2, s3]),
            page: u32::from_le_bytes([p0, p1, p2, p3]),
            len: u64::from_le_bytes(len),
        }
    }
}

/// Where the body of a frame stands that [`seal`] completes.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// Behind the header, in the same buffer.
    Inline,
    /// In a block; nothing but the header is in the buffer yet.
    Mapped(BlockRef),
}

/// Starts a Call: the arguments' bytes follow, then [`seal`] completes it.
#[inline]
pub fn begin_call(frame: &mut Vec<u8>, method: u16) {
    begin(frame, Kind::Call, method);
}

/// Starts a Reply: the result's bytes follow, then [`seal`] completes it.
#[inline]
pub fn begin_reply(frame: &mut Vec<u8>) {
    begin(frame, Kind::Reply, 0);
}

/// Starts a Failure: the error's bytes follow, then [`seal`] completes it.
pub fn begin_failure(frame: &mut Vec<u8>) {
    begin(frame, Kind::Failure, 0);
}

#[inline]
fn begin(frame: &mut Vec<u8>, kind: Kind, method: u16) {
    frame.clear();
    frame.extend_from_slice(&plain(kind, 0, method, 0));
}

/// A header without flags.
#[inline]
fn plain(kind: Kind, len: u32, method: u16, call: u64) -> [u8; Header::LEN] {
    Header { len, kind, flags: Flags::NONE, method, call: CallId(call) }.encode()
}

/// Completes a frame that one of the `begin_…` functions started, once: its body, and what is lent with it.
///
/// # Panics
///
/// If there are more than [`MAX_LOANS`] loans, or the bytes behind the header are 4 GiB or more; a
/// `Limits::max_message` of [`MAX_BODY`] or less keeps them below.
#[inline]
pub fn seal(frame: &mut Vec<u8>, call: CallId, body: Body, loans: &[BlockRef]) {
    if let Body::Mapped(block) = body {
        set_block(frame, block);
    }
    if !loans.is_empty() {
        set_loans(frame, loans);
    }
    set_len(frame);
    frame[8..16].copy_from_slice(&call.0.to_le_bytes());
}

/// Says where the body stands, in place of it.
#[inline(never)]
fn set_block(frame: &mut Vec<u8>, block: BlockRef) {
    frame.truncate(Header::LEN);
    frame.extend_from_slice(&block.encode());
    frame[5] |= Flags::MAPPED.0;
}

/// Says behind the body what is lent with it.
#[inline(never)]
fn set_loans(frame: &mut Vec<u8>, loans: &[BlockRef]) {
    assert!(loans.len() <= MAX_LOANS, "{} loans do not fit in a frame", loans.len());
    for loan in loans {
        frame.extend_from_slice(&loan.encode());
    }
    frame.extend_from_slice(&(loans.len() as u16).to_le_bytes());
    frame[5] |= Flags::LOANS.0;
}

/// Marks a Call whose client has others waiting.
#[inline]
pub fn mark_busy(frame: &mut [u8]) {
    frame[5] |= Flags::BUSY.0;
}

/// Says of a sealed Call, once, how long its caller still waits.
///
/// # Panics
///
/// As [`seal`].
pub fn set_time_left(frame: &mut Vec<u8>, left: Duration) {
    let nanos = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
    frame.extend_from_slice(&nanos.to_le_bytes());
    frame[5] |= Flags::DEADLINE.0;
    set_len(frame);
}

#[inline]
fn set_len(frame: &mut [u8]) {
    let len = u32::try_from(frame.len() - Header::LEN).expect("a frame is capped below 4 GiB");
    frame[0..4].copy_from_slice(&len.to_le_bytes());
}

/// A Segment frame for the segment of this number, of `len` bytes; its descriptor goes with its first byte.
#[must_use]
pub fn segment(number: u32, len: u64) -> [u8; Header::LEN + 8] {
    let mut bytes = [0; Header::LEN + 8];
    bytes[..Header::LEN].copy_from_slice(&plain(Kind::Segment, 8, 0, number.into()));
    bytes[Header::LEN..].copy_from_slice(&len.to_le_bytes());
    bytes
}

/// A Segment frame for the object of this number, which has the bit [`OBJECT`]: `len` bytes from `offset` of
/// the file whose descriptor goes with its first byte.
#[must_use]
pub fn object(number: u32, offset: u64, len: u64) -> [u8; Header::LEN + 16] {
    let mut bytes = [0; Header::LEN + 16];
    bytes[..Header::LEN].copy_from_slice(&plain(Kind::Segment, 16, 0, number.into()));
    bytes[Header::LEN..Header::LEN + 8].copy_from_slice(&offset.to_le_bytes());
    bytes[Header::LEN + 8..].copy_from_slice(&len.to_le_bytes());
    bytes
}

/// Says of a frame that brings a descriptor that none comes: the system did not pass it.
pub fn mark_without_descriptor(frame: &mut [u8]) {
    frame[5] |= Flags::WITHOUT.0;
}

/// A Release frame for the block of the reply to `call`.
#[must_use]
pub fn release(call: CallId) -> [u8; Header::LEN] {
    plain(Kind::Release, 0, 0, call.0)
}

/// A Retire frame for the segment or object of this number.
#[must_use]
pub fn retire(number: u32) -> [u8; Header::LEN] {
    plain(Kind::Retire, 0, 0, number.into())
}

/// A Return frame for a loan that stood at this place of its receiver's pool.
#[must_use]
pub fn returned(segment: u32, page: u32) -> [u8; Header::LEN] {
    plain(Kind::Return, 0, 0, u64::from(segment) << 32 | u64::from(page))
}

/// A Cancel frame for `call`.
#[must_use]
pub fn cancel(call: CallId) -> [u8; Header::LEN] {
    plain(Kind::Cancel, 0, 0, call.0)
}

/// A Closing frame, from a server that took so many slots of the client's ring.
#[must_use]
pub fn closing(taken: u64) -> [u8; Header::LEN] {
    plain(Kind::Closing, 0, 0, taken)
}

/// A Ring frame; the descriptor of the sender's memory goes with its first byte.
#[must_use]
pub fn ring() -> [u8; Header::LEN] {
    plain(Kind::Ring, 0, 0, 0)
}

/// A Bell frame.
#[must_use]
pub fn bell() -> [u8; Header::LEN] {
    plain(Kind::Bell, 0, 0, 0)
}

/// An Aside frame.
#[must_use]
pub fn aside() -> [u8; Header::LEN] {
    plain(Kind::Aside, 0, 0, 0)
}

/// A Switch frame.
#[must_use]
pub fn switch() -> [u8; Header::LEN] {
    plain(Kind::Switch, 0, 0, 0)
}

/// An At frame for the CPU of this number.
#[must_use]
pub fn at(cpu: u32) -> [u8; Header::LEN] {
    plain(Kind::At, 0, 0, cpu.into())
}

/// A Refuse frame for a segment of the peer's pool.
#[must_use]
pub fn refuse(segment: u32) -> [u8; Header::LEN] {
    plain(Kind::Refuse, 0, 0, u64::from(segment))
}

/// A Resend frame for the body of the Call or Reply of this id.
#[must_use]
pub fn resend(call: CallId) -> [u8; Header::LEN] {
    plain(Kind::Resend, 0, 0, call.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wire format, byte for byte: a change here is a new protocol version.
    #[test]
    fn frames_are_these_bytes() {
        let mut frame = Vec::new();
        begin_call(&mut frame, 0x0203);
        frame.extend_from_slice(b"ab");
        seal(&mut frame, CallId(0x1122), Body::Inline, &[]);
        assert_eq!(frame, [2, 0, 0, 0, 1, 0, 3, 2, 0x22, 0x11, 0, 0, 0, 0, 0, 0, b'a', b'b']);

        begin_reply(&mut frame);
        seal(&mut frame, CallId(5), Body::Mapped(BlockRef { segment: 1, page: 2, len: 3 }), &[]);
        let expected: [u8; 32] = [
            16, 0, 0, 0, 2, 1, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, // header
            1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, // block
        ];
        assert_eq!(frame, expected);
        assert_eq!(release(CallId(9)), [0, 0, 0, 0, 5, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        let expected: [u8; 24] = [
            8, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, // header
            0, 0x10, 0, 0, 0, 0, 0, 0, // size
        ];
        assert_eq!(segment(1, 4096), expected);
        let expected: [u8; 32] = [
            16, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0x80, 0, 0, 0, 0, // header
            2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, // offset, size
        ];
        assert_eq!(object(OBJECT | 1, 2, 3), expected);
        assert_eq!(retire(OBJECT | 2), [0, 0, 0, 0, 6, 0, 0, 0, 2, 0, 0, 0x80, 0, 0, 0, 0]);
        assert_eq!(returned(3, 4), [0, 0, 0, 0, 7, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(resend(CallId(5)), [0, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(at(3), [0, 0, 0, 0, 12, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn loans_stand_behind_the_body_on_either_lane() {
        let loans = [BlockRef { segment: 1, page: 2, len: 3 }, BlockRef { segment: OBJECT, page: 0, len: 4 }];
        let table: [u8; 34] = [
            1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, // the first
            0, 0, 0, 0x80, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, // the second
            2, 0, // how many
        ];
        let mut frame = Vec::new();
        begin_reply(&mut frame);
        frame.extend_from_slice(b"ab");
        seal(&mut frame, CallId(5), Body::Inline, &loans);
        assert_eq!(frame[..18], [36, 0, 0, 0, 2, 4, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, b'a', b'b']);
        assert_eq!(frame[18..], table);

        begin_call(&mut frame, 0);
        let block = BlockRef { segment: 7, page: 8, len: 9 };
        seal(&mut frame, CallId(5), Body::Mapped(block), &loans);
        mark_busy(&mut frame);
        assert_eq!(frame[..16], [50, 0, 0, 0, 1, 7, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(frame[16..32], block.encode());
        assert_eq!(frame[32..], table);
    }

    #[test]
    #[should_panic(expected = "1025 loans do not fit in a frame")]
    fn no_frame_has_more_loans_than_a_table_takes() {
        let mut frame = Vec::new();
        begin_reply(&mut frame);
        let loans = [BlockRef { segment: 0, page: 0, len: 0 }; MAX_LOANS + 1];
        seal(&mut frame, CallId(0), Body::Inline, &loans);
    }

    #[test]
    fn headers_of_no_known_frame_are_refused() {
        let mut bytes = release(CallId(0));
        bytes[4] = 0;
        assert_eq!(Header::decode(&bytes), Err(BadHeader::Kind(0)));
        bytes[4] = 17;
        assert_eq!(Header::decode(&bytes), Err(BadHeader::Kind(17)));
        bytes[4] = 5;
        bytes[5] = 32;
        assert_eq!(Header::decode(&bytes), Err(BadHeader::Flags(32)));
    }
}
