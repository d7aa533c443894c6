//! [`Buffer`]: bytes that have arrived through the socket.

use core::fmt;

use crate::frame::Header;

/// Bytes that have arrived and were not taken yet: those at `start..end`.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// What the buffer starts with and returns to: room for a body at the default threshold and then some.
const BUFFER: usize = 32 << 10;

/// A buffer that had to grow beyond this for one large frame is given back after it.
const KEPT: usize = 256 << 10;

impl Buffer {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; BUFFER], start: 0, end: 0 }
    }

    /// Where the next bytes belong: never empty, and large enough for the rest of a frame that has begun to
    /// arrive, as far as the bytes that did arrive justify the memory.
    #[inline]
    pub(super) fn space(&mut self) -> &mut [u8] {
        let have = self.end - self.start;
        if have == 0 && self.bytes.len() <= KEPT {
            (self.start, self.end) = (0, 0);
            return &mut self.bytes;
        }
        let missing = frame_len(self.unread()).unwrap_or(Header::LEN).saturating_sub(have);
        let Self { bytes, start, end } = self;
        if have == 0 {
            (*start, *end) = (0, 0);
            *bytes = vec![0; BUFFER];
        }
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

    /// Says that `len` bytes were put at the start of [`space`](Self::space).
    #[inline]
    pub(super) fn received(&mut self, len: usize) {
        assert!(len <= self.bytes.len() - self.end, "more was received than there was space for");
        self.end += len;
    }

    #[inline]
    pub(super) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether it begins with a whole frame.
    #[inline]
    pub(super) fn has_frame(&self) -> bool {
        frame_len(self.unread()).is_some_and(|len| self.end - self.start >= len)
    }

    /// Takes the frame that it begins with, of which `len` bytes stand behind the header. Gives these.
    #[inline]
    pub(super) fn take(&mut self, len: usize) -> &[u8] {
        let from = self.start + Header::LEN;
        self.start = from + len;
        &self.bytes[from..self.start]
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never what is in it.
        f.debug_struct("Buffer").field("unread", &(self.end - self.start)).finish_non_exhaustive()
    }
}

/// Header and body of the frame that begins with these bytes, if its header is there.
#[inline]
fn frame_len(bytes: &[u8]) -> Option<usize> {
    let bytes = bytes.first_chunk()?;
    Some(Header::decode(bytes).map_or(Header::LEN, |header| Header::LEN + header.len as usize))
}
