//! [`Buffer`]: bytes that have arrived through the socket.

use core::fmt;

use crate::frame::{Header, MAX_TABLE, TIME_LEFT};

/// Bytes that have arrived and were not taken yet: those at `start..end`.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// The frame at `start` is one for which there was no memory.
    cut: Option<Cut>,
}

/// A frame of which only header and end are kept.
#[derive(Clone, Copy)]
struct Cut {
    /// Bytes that are still to be left out.
    left_out: usize,
    /// Bytes at its end that are kept: what was lent with a body stands there.
    kept: usize,
}

/// The bytes behind the header of a frame that was taken.
pub(super) enum Taken<'b> {
    All(&'b [u8]),
    /// There was no memory for all of them: these are the last ones.
    Cut(&'b [u8]),
}

/// What the buffer starts with and returns to: room for a body at the default threshold and then some.
const BUFFER: usize = 32 << 10;

/// What is kept of a frame for which there is no memory.
const END: usize = (MAX_TABLE + TIME_LEFT) as usize;

const _: () = assert!(Header::LEN + END < BUFFER);

/// A buffer that had to grow beyond this for one large frame is given back after it.
const KEPT: usize = 256 << 10;

impl Buffer {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; BUFFER], start: 0, end: 0, cut: None }
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
        let missing = self.frame_len().unwrap_or(Header::LEN).saturating_sub(have);
        let Self { bytes, start, end, .. } = self;
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
            let wanted = wanted.max(*end + 1);
            // More than is needed where there is as much: it grows with every receive.
            let more = wanted - bytes.len();
            let room = bytes.try_reserve(more).or_else(|_| bytes.try_reserve_exact(more));
            if missing > 0 && room.is_err() {
                self.cut_out(have + missing);
            } else {
                bytes.resize(wanted, 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    /// Goes on without memory for the frame at the buffer's start, which is so long.
    #[cold]
    fn cut_out(&mut self, frame_len: usize) {
        let Self { bytes, end, cut, .. } = self;
        let all = frame_len - Header::LEN;
        let kept = all.min(END);
        let there = (*end - Header::LEN).min(all - kept);
        bytes.copy_within(Header::LEN + there..*end, Header::LEN);
        *end -= there;
        *cut = Some(Cut { left_out: all - kept - there, kept });
        bytes.truncate(BUFFER.max(*end + 1));
        bytes.shrink_to(0);
    }

    /// Says that `len` bytes were put at the start of [`space`](Self::space).
    #[inline]
    pub(super) fn received(&mut self, len: usize) {
        assert!(len <= self.bytes.len() - self.end, "more was received than there was space for");
        self.end += len;
        if let Some(Cut { left_out: 1.., .. }) = self.cut {
            self.leave_out(len);
        }
    }

    #[cold]
    fn leave_out(&mut self, received: usize) {
        let Some(cut) = &mut self.cut else { return };
        let len = cut.left_out.min(received);
        let from = self.end - received;
        self.bytes.copy_within(from + len..self.end, from);
        self.end -= len;
        cut.left_out -= len;
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
        self.frame_len().is_some_and(|len| self.end - self.start >= len)
    }

    /// Takes the frame that it begins with, of which `len` bytes stand behind the header.
    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Taken<'_> {
        let from = self.start + Header::LEN;
        if self.cut.is_some() {
            return self.take_cut(from);
        }
        self.start = from + len;
        Taken::All(&self.bytes[from..self.start])
    }

    #[cold]
    fn take_cut(&mut self, from: usize) -> Taken<'_> {
        let kept = self.cut.take().map_or(0, |cut| cut.kept);
        self.start = from + kept;
        Taken::Cut(&self.bytes[from..self.start])
    }

    /// Header and body of the frame that it begins with, as far as they are kept, if the header is there.
    #[inline]
    fn frame_len(&self) -> Option<usize> {
        let bytes = self.unread().first_chunk()?;
        let len = match self.cut {
            None => Header::decode(bytes).map_or(0, |header| header.len as usize),
            Some(cut) => cut.left_out + cut.kept,
        };
        Some(Header::LEN + len)
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never what is in it.
        f.debug_struct("Buffer").field("unread", &(self.end - self.start)).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{self, Body, CallId};

    fn feed(buffer: &mut Buffer, bytes: &mut &[u8], most: usize) {
        let space = buffer.space();
        assert!(!space.is_empty());
        let len = space.len().min(bytes.len()).min(most);
        space[..len].copy_from_slice(&bytes[..len]);
        *bytes = &bytes[len..];
        buffer.received(len);
    }

    #[test]
    fn a_frame_without_memory_keeps_its_end_and_those_behind_it_are_whole() {
        const LEN: usize = 200_000;
        let mut stream = Vec::new();
        frame::begin_call(&mut stream, 1);
        stream.extend((0..LEN).map(|at| (at % 251) as u8));
        frame::seal(&mut stream, CallId::new(1), Body::Inline, &[]);
        let body = stream[Header::LEN..].to_vec();
        let behind = frame::cancel(CallId::new(7));
        stream.extend_from_slice(&behind);

        for arrived in [BUFFER, 50_000, LEN - END, LEN - 100, LEN + Header::LEN - 1] {
            for most in [1, 100, 4096, usize::MAX] {
                let mut buffer = Buffer::new();
                let mut rest = &stream[..];
                while stream.len() - rest.len() < arrived {
                    let missing = arrived - (stream.len() - rest.len());
                    feed(&mut buffer, &mut rest, missing);
                }
                buffer.cut_out(Header::LEN + LEN);
                assert!(buffer.bytes.capacity() <= 2 * BUFFER);
                while !buffer.has_frame() {
                    assert_eq!(
                        Header::decode(buffer.unread().first_chunk().unwrap()).unwrap().len,
                        LEN as u32
                    );
                    feed(&mut buffer, &mut rest, most);
                    assert!(buffer.bytes.len() <= 2 * BUFFER);
                }
                let Taken::Cut(end) = buffer.take(LEN) else { panic!("it was cut") };
                assert_eq!(end, &body[LEN - END..]);
                while !rest.is_empty() {
                    feed(&mut buffer, &mut rest, most);
                }
                assert_eq!(buffer.unread(), behind);
                assert!(matches!(buffer.take(0), Taken::All([])) && buffer.is_empty());
            }
        }
    }
}
