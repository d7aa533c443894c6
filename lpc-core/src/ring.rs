//! The quick lane: small frames through memory that both sides have mapped, without a system call.
//!
//! Each side has one piece of memory of [`LEN`] bytes, which it alone writes and the other one reads. It
//! holds the ring of what this side sends, and two words about what it receives:
//!
//! ```text
//!  0          128         4096                       4352
//!  | taken    | asleep    | slot 0                   | slot 1 | ...
//!  | u64      | u64       | stamp, u64 | 248 bytes   |
//! ```
//!
//! - A frame takes as many slots as its bytes fill. Its first slot is *stamped*, when all of it is there,
//!   with the number of slots up to and with that one since the beginning. So a side that waits for a frame
//!   asks the very line of memory that brings it, and any other number there means that it has not come.
//! - `taken`: slots of the other side's ring that this side has read, and does not read again.
//! - `asleep`: odd while this side sleeps, and needs a bell through the socket to look at the ring again.
//!
//! What the peer's memory says is hostile: a stamp is compared with the only one there can be, `taken` is
//! checked, and a frame's bytes are copied once before they are parsed. Nothing that this side relies on is
//! ever read back from its own memory.
//!
//! A ring that is full is never waited for: what does not fit in goes through the socket, see
//! [`frame`](crate::frame). One slot is always kept for saying so.

use core::sync::atomic::{Ordering, fence};

use crate::frame::Header;

/// Bytes of a slot.
pub const SLOT: usize = 256;

/// Slots of a ring.
pub const SLOTS: u64 = 256;

/// Slots that one frame takes at most: enough for a body at the default threshold.
pub const MAX_SLOTS: u64 = 17;

/// Bytes of the largest frame that goes through a ring.
pub const MAX_FRAME: usize = MAX_SLOTS as usize * PIECE;

/// Where the slots begin.
const SLOTS_AT: usize = 4096;

/// Bytes of one side's memory.
pub const LEN: usize = SLOTS_AT + SLOTS as usize * SLOT;

/// Bytes of a slot in front of a piece of a frame.
const STAMP: usize = 8;

/// Bytes of a frame in one slot.
const PIECE: usize = SLOT - STAMP;

/// Bytes of a frame that are read before its length is known.
const START: usize = 32;

/// Where a side says how much it has taken, and whether it sleeps: each on a line of its own, and with the
/// neighbour that processors fetch along.
const TAKEN_AT: usize = 0;
const ASLEEP_AT: usize = 128;

/// A side's memory, as this side has it.
pub trait Own {
    /// Writes `bytes` at `offset`. They become visible with the next [`store`](Self::store).
    fn write(&self, offset: usize, bytes: &[u8]);

    /// Writes a word at `offset`, a multiple of 8, behind all that was written before
    /// ([`Ordering::Release`]).
    fn store(&self, offset: usize, value: u64);

    /// Sees to it that what was stored before is visible to a side that does not see what is loaded after
    /// ([`Ordering::SeqCst`]).
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}

/// The peer's memory, which the peer may write to at any time.
pub trait Peers {
    /// Fills `into` with what is at `offset`.
    fn read(&self, offset: usize, into: &mut [u8]);

    /// The word at `offset`, a multiple of 8, before all that is read after ([`Ordering::Acquire`]).
    fn load(&self, offset: usize) -> u64;
}

/// The memory of a side that has no quick lane: there is none.
#[derive(Clone, Copy, Debug)]
pub enum NoRing {}

impl Own for NoRing {
    fn write(&self, _: usize, _: &[u8]) {
        match *self {}
    }

    fn store(&self, _: usize, _: u64) {
        match *self {}
    }
}

impl Peers for NoRing {
    fn read(&self, _: usize, _: &mut [u8]) {
        match *self {}
    }

    fn load(&self, _: usize) -> u64 {
        match *self {}
    }
}

/// The peer broke the rules of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingViolation {
    /// It says that it has read what was never written, or not what it said before.
    #[error("it says that {said} slots of the ring were read, of {sent} that were written")]
    Taken {
        /// What it says.
        said: u64,
        /// What can be at most.
        sent: u64,
    },
    /// A frame that is too large for a ring.
    #[error("a frame of {0} bytes in the ring, whose frames have {MAX_FRAME} at most")]
    TooLong(u64),
}

/// The sending end of a ring. `slots` of it, a power of two.
#[derive(Debug)]
pub struct Producer<O, P> {
    own: O,
    peers: P,
    slots: u64,
    /// Slots written since the beginning.
    written: u64,
    /// Slots that the peer has taken, as far as it was asked.
    taken: u64,
    /// The sleep of the peer for which the bell was rung.
    rung: u64,
    /// Something was written since the peer was last found awake, or woken.
    is_unheard: bool,
}

impl<O: Own, P: Peers> Producer<O, P> {
    /// The sending end where this side's memory is `own` and the other one's `peers`.
    pub const fn new(own: O, peers: P, slots: u64) -> Self {
        assert!(slots.is_power_of_two());
        Self { own, peers, slots, written: 0, taken: 0, rung: 0, is_unheard: false }
    }

    /// Slots written so far.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Slots that the peer says it has taken, as it left it when it died; `None` where that cannot be.
    pub fn last_taken(&self) -> Option<u64> {
        Some(self.peers.load(TAKEN_AT)).filter(|said| (self.taken..=self.written).contains(said))
    }

    /// Sends a frame; `false` where it does not fit in, with the slot that is kept.
    ///
    /// # Errors
    ///
    /// What the peer says of the ring cannot be.
    pub fn put(&mut self, frame: &[u8]) -> Result<bool, RingViolation> {
        let slots = slots_of(frame.len());
        if slots > MAX_SLOTS || !self.has_room(slots + 1)? {
            return Ok(false);
        }
        self.write(frame, slots);
        Ok(true)
    }

    /// Sends a frame of one slot in the slot that is kept. Once, until the ring [is empty](Self::is_empty).
    ///
    /// # Errors
    ///
    /// What the peer says of the ring cannot be.
    ///
    /// # Panics
    ///
    /// If that was done before, or the frame does not fit in.
    pub fn put_last(&mut self, frame: &[u8]) -> Result<(), RingViolation> {
        assert!(frame.len() <= PIECE, "a frame for one slot");
        let has_room = self.has_room(1)?;
        assert!(has_room, "the slot is kept");
        self.write(frame, 1);
        Ok(())
    }

    /// Whether the peer has taken all that was sent.
    ///
    /// # Errors
    ///
    /// What the peer says of the ring cannot be.
    pub fn is_empty(&mut self) -> Result<bool, RingViolation> {
        self.has_room(self.slots)
    }

    /// Whether the peer sleeps, and has to be woken for what was sent. Says so once for each sleep.
    pub fn has_to_wake(&mut self) -> bool {
        if !self.is_unheard {
            return false;
        }
        self.is_unheard = false;
        // Together with the one in `Consumer::sleep`: either the peer sees what was sent, or it is seen to
        // sleep here.
        self.own.fence();
        let asleep = self.peers.load(ASLEEP_AT);
        if asleep.is_multiple_of(2) || asleep == self.rung {
            return false;
        }
        self.rung = asleep;
        true
    }

    fn has_room(&mut self, slots: u64) -> Result<bool, RingViolation> {
        if self.slots - (self.written - self.taken) >= slots {
            return Ok(true);
        }
        let said = self.peers.load(TAKEN_AT);
        if !(self.taken..=self.written).contains(&said) {
            return Err(RingViolation::Taken { said, sent: self.written });
        }
        self.taken = said;
        Ok(self.slots - (self.written - self.taken) >= slots)
    }

    fn write(&mut self, frame: &[u8], slots: u64) {
        for (number, piece) in (self.written..).zip(frame.chunks(PIECE)) {
            let at = slot_at(number, self.slots) + STAMP;
            if let Some(rest) = START.checked_sub(piece.len()) {
                // In whole words of a length known beforehand; nobody reads what is behind the frame.
                let mut start = [0; START];
                start[..START - rest].copy_from_slice(piece);
                self.own.write(at, &start);
            } else {
                self.own.write(at, piece);
            }
        }
        self.own.store(slot_at(self.written, self.slots), self.written + 1);
        self.written += slots;
        self.is_unheard = true;
    }
}

/// The receiving end of a ring. `slots` of it, a power of two.
#[derive(Debug)]
pub struct Consumer<O, P> {
    own: O,
    peers: P,
    slots: u64,
    /// Slots taken since the beginning.
    taken: u64,
    asleep: u64,
}

/// The next frame in a ring, of which the first bytes have been read. It is there until it is
/// [taken](Self::take).
#[derive(Debug)]
pub struct Found<'a, O, P> {
    consumer: &'a mut Consumer<O, P>,
    start: [u8; START],
    /// With its header.
    len: usize,
}

impl<O: Own, P: Peers> Consumer<O, P> {
    /// The receiving end where this side's memory is `own` and the other one's `peers`.
    pub const fn new(own: O, peers: P, slots: u64) -> Self {
        assert!(slots.is_power_of_two());
        Self { own, peers, slots, taken: 0, asleep: 0 }
    }

    /// Slots taken so far.
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether there is a frame.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.peers.load(slot_at(self.taken, self.slots)) == self.taken + 1
    }

    /// The next frame, if there is one.
    ///
    /// # Errors
    ///
    /// The frame is longer than any can be.
    #[inline]
    #[expect(
        clippy::should_implement_trait,
        reason = "what it gives borrows from it, which no iterator's items may"
    )]
    pub fn next(&mut self) -> Result<Option<Found<'_, O, P>>, RingViolation> {
        if !self.is_ready() {
            return Ok(None);
        }
        // All of a small frame, most often, and the line of memory is here.
        let mut start = [0; START];
        self.peers.read(slot_at(self.taken, self.slots) + STAMP, &mut start);
        // From the copy, which is what will be parsed.
        let [l0, l1, l2, l3, ..] = start;
        let len = u64::from(u32::from_le_bytes([l0, l1, l2, l3])) + Header::LEN as u64;
        if len > MAX_FRAME as u64 {
            return Err(RingViolation::TooLong(len));
        }
        Ok(Some(Found { consumer: self, start, len: len as usize }))
    }

    /// Says that this side goes to sleep, until the peer rings; `false` where there is a frame now.
    pub fn sleep(&mut self) -> bool {
        // Another one than before, even where nobody said that this side woke up.
        self.asleep += 1 + self.asleep % 2;
        self.own.store(ASLEEP_AT, self.asleep);
        // Together with the one in `Producer::has_to_wake`.
        self.own.fence();
        if !self.is_ready() {
            return true;
        }
        self.wake();
        false
    }

    /// Says that this side is awake.
    pub fn wake(&mut self) {
        if !self.asleep.is_multiple_of(2) {
            self.asleep += 1;
            self.own.store(ASLEEP_AT, self.asleep);
        }
    }
}

impl<O: Own, P: Peers> Found<'_, O, P> {
    /// The bytes of its header.
    #[must_use]
    #[inline]
    pub fn header(&self) -> &[u8; Header::LEN] {
        self.start.first_chunk().expect("a header is no longer than that")
    }

    /// Takes the frame, and puts the bytes behind its header at the end of `into`.
    #[inline]
    pub fn take(self, into: &mut Vec<u8>) {
        let Self { consumer, start, len } = &self;
        match len.checked_sub(START) {
            None | Some(0) => into.extend_from_slice(&start[Header::LEN..*len]),
            Some(more) => {
                into.extend_from_slice(&start[Header::LEN..]);
                let at = into.len();
                into.resize(at + more, 0);
                let slots = consumer.slots;
                let (here, others) = into[at..].split_at_mut(more.min(PIECE - START));
                consumer.peers.read(slot_at(consumer.taken, slots) + STAMP + START, here);
                for (number, piece) in (consumer.taken + 1..).zip(others.chunks_mut(PIECE)) {
                    consumer.peers.read(slot_at(number, slots) + STAMP, piece);
                }
            }
        }
        self.skip();
    }

    /// Takes the frame without what stands behind its header.
    #[inline]
    pub fn skip(self) {
        let Self { consumer, len, .. } = self;
        consumer.taken += slots_of(len);
        consumer.own.store(TAKEN_AT, consumer.taken);
    }
}

/// Slots that a frame of so many bytes takes.
const fn slots_of(len: usize) -> u64 {
    len.div_ceil(PIECE) as u64
}

/// Where the slot of this number since the beginning stands.
const fn slot_at(number: u64, slots: u64) -> usize {
    SLOTS_AT + (number % slots) as usize * SLOT
}
