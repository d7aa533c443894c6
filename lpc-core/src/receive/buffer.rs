//! [`Buffer`]: bytes that have arrived.

use crate::frame::Header;

/// Bytes that have arrived and were not taken yet: those at `start..end`.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    pub(super) bytes: Vec<u8>,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// What the buffer starts with and returns to: room for a body at the default threshold and then some.
pub(super) const BUFFER: usize = 32 << 10;

/// A buffer that had to grow beyond this for one large frame is given back after it.
pub(super) const KEPT: usize = 256 << 10;

impl Buffer {
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
}

/// Header and body of the frame that begins with these bytes, if its header is there.
#[inline]
pub(super) fn frame_len(bytes: &[u8]) -> Option<usize> {
    let bytes = bytes.first_chunk()?;
    Some(Header::decode(bytes).map_or(Header::LEN, |header| Header::LEN + header.len as usize))
}
