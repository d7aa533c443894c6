//! [`Outgoing`]: encodes a body once, straight to where it travels.

use lpc_core::Threshold;
use lpc_core::codec::{EncodeError, Sink};
use lpc_core::frame::{self, Body, CallId, Header};

use crate::buffer::Buffer;
use crate::lane::pool::PoolBlock;
use crate::link::Link;
use crate::stats::Lane;

/// A body that is being encoded.
///
/// It begins in a buffer behind its frame's header. Once it outgrows the threshold it moves to a block of the pool, a
/// copy of at most the threshold, and all that follows is written there directly. So the size needs not be known
/// beforehand, and a large argument is copied once, by the encoder.
pub(crate) struct Outgoing<'l> {
    link: &'l Link,
    threshold: Threshold,
    /// The header and, until the body moves, the body.
    frame: Buffer,
    /// Length up to which the buffer may grow before [`overflow`](Self::overflow) has to look.
    room: usize,
    /// Where the body moved to, and how much of it is there.
    block: Option<(PoolBlock, usize)>,
    fell_back: bool,
}

/// An encoded body, ready to be sent.
#[derive(Debug)]
pub(crate) struct Encoded {
    frame: Buffer,
    block: Option<PoolBlock>,
    body: Body,
}

/// The first block of a body that grows piece by piece. It grows in place as a rule, and is trimmed at the end.
const FIRST_BLOCK: usize = 64 << 10;

impl<'l> Outgoing<'l> {
    /// A body whose frame `begin` starts (one of `frame::begin_…`).
    pub(crate) fn new(link: &'l Link, threshold: Threshold, begin: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut frame = Buffer::take();
        begin(&mut frame);
        let inline = threshold.as_bytes().min(link.limits().max_message);
        let room = Header::LEN.saturating_add(usize::try_from(inline).unwrap_or(usize::MAX));
        Self { link, threshold, frame, room, block: None, fell_back: false }
    }

    /// What to turn where a body is over the limit, for the end of the error's text.
    pub(crate) fn limit_name(&self) -> &'static str {
        let limits = self.link.limits();
        if limits.pool < limits.max_message {
            " (pool_limit or max_message of client or server)"
        } else {
            " (max_message of client or server)"
        }
    }

    pub(crate) fn finish(mut self) -> Encoded {
        let (body, lane, len) = match &mut self.block {
            Some((block, len)) => {
                block.shrink(*len as u64);
                (Body::Mapped(block.reference(*len)), Lane::Mapping, *len)
            }
            None => (Body::Inline, Lane::Socket, self.frame.len() - Header::LEN),
        };
        self.link.counters().sent(lane, len);
        Encoded { frame: self.frame, block: self.block.map(|(block, _)| block), body }
    }

    /// Makes room for `more` bytes: on the lane where the body is, or on the other.
    #[cold]
    fn overflow(&mut self, more: usize) -> Result<(), EncodeError> {
        let limits = self.link.limits();
        let have = self.block.as_ref().map_or(self.frame.len() - Header::LEN, |(_, len)| *len);
        let need = have.saturating_add(more);
        if need as u64 > limits.max_message {
            return Err(EncodeError::TooLarge { len: need as u64, limit: limits.max_message });
        }
        if self.fell_back || !self.threshold.is_exceeded_by(need as u64) {
            return Ok(());
        }
        if need as u64 > limits.pool {
            return Err(EncodeError::TooLarge { len: need as u64, limit: limits.pool });
        }
        let wanted = need.max(2 * have).max(FIRST_BLOCK).min(limits.max_message.min(limits.pool) as usize);
        if let Some((block, _)) = &mut self.block
            && (block.extend(wanted as u64) || block.extend(need as u64))
        {
            return Ok(());
        }
        let moved = self.link.alloc(wanted as u64).or_else(|| self.link.alloc(need as u64));
        match (moved, self.block.take()) {
            (Some(mut block), Some((old, len))) => {
                block.write_from(&old, len);
                self.block = Some((block, len));
            }
            (Some(mut block), None) => {
                block.write(0, &self.frame[Header::LEN..]);
                self.frame.truncate(Header::LEN);
                self.block = Some((block, have));
                self.room = 0;
            }
            (None, old) => {
                if let Some((block, len)) = old {
                    block.read(len, &mut self.frame);
                }
                self.link.counters().fallback();
                self.fell_back = true;
                self.room =
                    Header::LEN.saturating_add(usize::try_from(limits.max_message).unwrap_or(usize::MAX));
            }
        }
        Ok(())
    }
}

impl Sink for Outgoing<'_> {
    #[inline]
    fn push(&mut self, byte: u8) -> Result<(), EncodeError> {
        self.extend(&[byte])
    }

    #[inline]
    fn extend(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let fits = match &self.block {
            None => bytes.len() <= self.room - self.frame.len().min(self.room),
            Some((block, len)) => bytes.len() <= block.capacity() - len,
        };
        if !fits {
            self.overflow(bytes.len())?;
        }
        match &mut self.block {
            None => self.frame.extend_from_slice(bytes),
            Some((block, len)) => {
                block.write(*len, bytes);
                *len += bytes.len();
            }
        }
        Ok(())
    }
}

impl Encoded {
    /// Makes it the frame of `call`.
    pub(crate) fn seal(&mut self, call: CallId) {
        frame::seal(&mut self.frame, call, self.body);
    }

    /// Says that its client has other calls waiting.
    pub(crate) fn mark_busy(&mut self) {
        frame::mark_busy(&mut self.frame);
    }

    /// The sealed frame, as it goes over the socket.
    pub(crate) fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// The block of the body, which must stay until the peer has read it.
    pub(crate) fn take_block(&mut self) -> Option<PoolBlock> {
        self.block.take()
    }
}
