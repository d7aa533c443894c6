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
//! | Call | client | index in the server's table | its id | arguments, or a [`BlockRef`] | |
//! | Reply | server | 0 | the call's id | result, or a [`BlockRef`] | |
//! | Failure | server | 0 | the call's id | a [`WireError`](crate::error::WireError) | |
//! | Segment | both | 0 | the segment's number, from 0 | its size, u64 | its memfd |
//! | Release | client | 0 | a call's id: the block of its reply is free again | | |
//!
//! Flags: 1, the body is in a block (Call, Reply); 2, other calls of the client wait for their replies (Call).
//!
//! The block of a call's arguments is free again when its Reply or Failure arrives: that needs no frame of its own.

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
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

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
    /// The sender adds a segment to its pool.
    Segment = 4,
    /// The block of a reply was read.
    Release = 5,
}

impl Kind {
    const fn parse(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Call,
            2 => Self::Reply,
            3 => Self::Failure,
            4 => Self::Segment,
            5 => Self::Release,
            _ => return None,
        })
    }

    /// How many descriptors come with a frame of this kind: exactly these.
    #[must_use]
    pub const fn descriptors(self) -> usize {
        matches!(self, Self::Segment) as usize
    }
}

/// The flag of a body that stands in a block of the sender's pool; the frame's own bytes are a [`BlockRef`].
const MAPPED: u8 = 1;

/// The flag of a call whose client has others waiting: a hint that running them side by side pays.
const BUSY: u8 = 2;

/// The first bytes of every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes that follow.
    pub len: u32,
    /// What the frame is.
    pub kind: Kind,
    /// Whether the body is in a block of shared memory.
    pub is_mapped: bool,
    /// Whether the client has other calls waiting.
    pub is_busy: bool,
    /// Index of the method in the server's table.
    pub method: u16,
    /// The call, or the segment.
    pub call: CallId,
}

impl Header {
    /// Bytes of an encoded header.
    pub const LEN: usize = 16;

    /// The header as it stands on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0..4].copy_from_slice(&self.len.to_le_bytes());
        bytes[4] = self.kind as u8;
        bytes[5] = (u8::from(self.is_mapped) * MAPPED) | (u8::from(self.is_busy) * BUSY);
        bytes[6..8].copy_from_slice(&self.method.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.call.0.to_le_bytes());
        bytes
    }

    /// A header, if these bytes are one.
    ///
    /// # Errors
    ///
    /// The byte that is none of this version's: the kind or the flags.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, BadHeader> {
        let [l0, l1, l2, l3, kind, flags, m0, m1, call @ ..] = *bytes;
        if flags & !(MAPPED | BUSY) != 0 {
            return Err(BadHeader::Flags(flags));
        }
        Ok(Self {
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            kind: Kind::parse(kind).ok_or(BadHeader::Kind(kind))?,
            is_mapped: flags & MAPPED != 0,
            is_busy: flags & BUSY != 0,
            method: u16::from_le_bytes([m0, m1]),
            call: CallId(u64::from_le_bytes(call)),
        })
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

/// Where a mapped body stands: in whole pages of a segment that its sender announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRef {
    /// The segment's number.
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

    /// The reference that stands in these bytes. It points nowhere until [`Receiver`](crate::receiver::Receiver)
    /// has checked it against the announced segments.
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
pub fn begin_call(frame: &mut Vec<u8>, method: u16) {
    begin(frame, Kind::Call, method);
}

/// Starts a Reply: the result's bytes follow, then [`seal`] completes it.
pub fn begin_reply(frame: &mut Vec<u8>) {
    begin(frame, Kind::Reply, 0);
}

/// Starts a Failure: the error's bytes follow, then [`seal`] completes it.
pub fn begin_failure(frame: &mut Vec<u8>) {
    begin(frame, Kind::Failure, 0);
}

fn begin(frame: &mut Vec<u8>, kind: Kind, method: u16) {
    frame.clear();
    frame.extend_from_slice(
        &Header { len: 0, kind, is_mapped: false, is_busy: false, method, call: CallId(0) }.encode(),
    );
}

/// Completes a frame that one of the `begin_…` functions started.
///
/// # Panics
///
/// If the bytes behind the header are 4 GiB or more; `Limits::max_message` keeps them below.
pub fn seal(frame: &mut Vec<u8>, call: CallId, body: Body) {
    if let Body::Mapped(block) = body {
        frame.truncate(Header::LEN);
        frame.extend_from_slice(&block.encode());
        frame[5] |= MAPPED;
    }
    let len = u32::try_from(frame.len() - Header::LEN).expect("an inline body is capped below 4 GiB");
    frame[0..4].copy_from_slice(&len.to_le_bytes());
    frame[8..16].copy_from_slice(&call.0.to_le_bytes());
}

/// Marks a Call whose client has others waiting.
pub fn mark_busy(frame: &mut [u8]) {
    frame[5] |= BUSY;
}

/// A Segment frame; its descriptor goes with its first byte.
#[must_use]
pub fn segment(number: u32, len: u64) -> [u8; Header::LEN + 8] {
    let header = Header {
        len: 8,
        kind: Kind::Segment,
        is_mapped: false,
        is_busy: false,
        method: 0,
        call: CallId(u64::from(number)),
    };
    let mut bytes = [0; Header::LEN + 8];
    bytes[..Header::LEN].copy_from_slice(&header.encode());
    bytes[Header::LEN..].copy_from_slice(&len.to_le_bytes());
    bytes
}

/// A Release frame for the block of the reply to `call`.
#[must_use]
pub fn release(call: CallId) -> [u8; Header::LEN] {
    Header { len: 0, kind: Kind::Release, is_mapped: false, is_busy: false, method: 0, call }.encode()
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
        seal(&mut frame, CallId(0x1122), Body::Inline);
        assert_eq!(frame, [2, 0, 0, 0, 1, 0, 3, 2, 0x22, 0x11, 0, 0, 0, 0, 0, 0, b'a', b'b']);

        begin_reply(&mut frame);
        seal(&mut frame, CallId(5), Body::Mapped(BlockRef { segment: 1, page: 2, len: 3 }));
        let expected: [u8; 32] = [
            16, 0, 0, 0, 2, 1, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, // header
            1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, // block
        ];
        assert_eq!(frame, expected);
        assert_eq!(release(CallId(9)), [0, 0, 0, 0, 5, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(segment(1, 4096)[..6], [8, 0, 0, 0, 4, 0]);
    }

    #[test]
    fn headers_of_no_known_frame_are_refused() {
        let mut bytes = release(CallId(0));
        bytes[4] = 0;
        assert_eq!(Header::decode(&bytes), Err(BadHeader::Kind(0)));
        bytes[4] = 6;
        assert_eq!(Header::decode(&bytes), Err(BadHeader::Kind(6)));
        bytes[4] = 5;
        bytes[5] = 4;
        assert_eq!(Header::decode(&bytes), Err(BadHeader::Flags(4)));
    }
}
