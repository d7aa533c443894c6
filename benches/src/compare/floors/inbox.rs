//! Messages of 64 bytes as they come: many a system call.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{MsgFlags, recv};

use super::socket::{Message, message, numbers};

/// Messages that one read takes.
const MANY: usize = 64;

/// What has come through a socket, and has not been taken.
pub(super) struct Inbox {
    bytes: Vec<u8>,
    filled: usize,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; MANY * size_of::<Message>()], filled: 0 }
    }

    /// Reads once. There is room: what is whole has been [taken](Self::take).
    pub(super) fn fill(&mut self, socket: &impl AsFd, flags: MsgFlags) -> io::Result<()> {
        let received = recv(socket.as_fd().as_raw_fd(), &mut self.bytes[self.filled..], flags)?;
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.filled += received;
        Ok(())
    }

    /// The same, if there is something.
    pub(super) fn try_fill(&mut self, socket: &impl AsFd) -> Option<io::Result<()>> {
        match self.fill(socket, MsgFlags::MSG_DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            filled => Some(filled),
        }
    }

    /// Whether there may be more in the socket.
    pub(super) fn is_full(&self) -> bool {
        self.filled == self.bytes.len()
    }

    /// Takes the messages that are whole.
    pub(super) fn take(&mut self, take: impl FnOnce(&[Message])) {
        let (messages, rest) = self.bytes[..self.filled].as_chunks();
        take(messages);
        let rest = rest.len();
        self.bytes.copy_within(self.filled - rest..self.filled, 0);
        self.filled = rest;
    }
}

/// A call that is told from others by a number, which comes back in its [answer].
pub(super) fn numbered(a: u64, b: u64, number: usize) -> Message {
    let mut call = message(a, b);
    call[16..24].copy_from_slice(&(number as u64).to_ne_bytes());
    call
}

/// The number of a call or an answer.
pub(super) fn number(message: &Message) -> usize {
    u64::from_ne_bytes(message.as_chunks().0[2]) as usize
}

/// What a service answers.
pub(super) fn answer(call: &Message) -> Message {
    let (a, b) = numbers(call);
    let mut answer = *call;
    answer[..8].copy_from_slice(&a.wrapping_add(b).to_ne_bytes());
    answer
}
