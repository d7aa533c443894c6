//! The quick lane's memory: what [`lpc_core::ring`] reckons with, in mappings.

use std::hint::spin_loop;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, fence};

use lpc_core::frame::Header;
use lpc_core::receive::Receiver;
use lpc_core::ring::{self, LEN, Own, Peers, RingViolation, SLOTS, Taken};

use crate::memory::quota::Charge;
use crate::sys::mapping::{OwnWords, PeerWords};

pub(crate) type Producer = ring::Producer<OwnRing, PeersRing>;
pub(crate) type Consumer = ring::Consumer<OwnRing, PeersRing>;

/// This side's memory.
#[derive(Clone, Debug)]
pub(crate) struct OwnRing(Arc<OwnWords>);

impl OwnRing {
    /// Fresh memory, and the descriptor by which the peer gets at it.
    pub(crate) fn create() -> io::Result<(Self, OwnedFd)> {
        let (words, file) = OwnWords::create(LEN)?;
        Ok((Self(Arc::new(words)), file))
    }
}

impl Own for OwnRing {
    #[inline]
    fn write(&self, offset: usize, bytes: &[u8]) {
        let words = &self.0.words()[offset / 8..][..bytes.len().div_ceil(8)];
        let (whole, rest) = bytes.as_chunks();
        for (word, bytes) in words.iter().zip(whole) {
            word.store(u64::from_ne_bytes(*bytes), Relaxed);
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            words[whole.len()].store(u64::from_ne_bytes(last), Relaxed);
        }
    }

    #[inline]
    fn store(&self, offset: usize, value: u64) {
        self.0.words()[offset / 8].store(value, Release);
    }
}

/// The peer's memory.
#[derive(Clone, Debug)]
pub(crate) struct PeersRing(Arc<Mapped>);

#[derive(Debug)]
struct Mapped {
    words: PeerWords,
    /// For both sides' memory.
    _charge: Option<Charge>,
}

/// What one connection's quick lane counts for in the quota of its user.
pub(crate) const COST: u64 = 2 * LEN as u64;

impl PeersRing {
    /// Maps what the peer announced.
    ///
    /// # Errors
    ///
    /// [`InvalidData`](io::ErrorKind::InvalidData) where it is not what it should be.
    pub(crate) fn open(file: &OwnedFd, charge: Option<Charge>) -> io::Result<Self> {
        Ok(Self(Arc::new(Mapped { words: PeerWords::open(file, LEN)?, _charge: charge })))
    }
}

impl Peers for PeersRing {
    #[inline]
    fn read(&self, offset: usize, into: &mut [u8]) {
        let mut number = offset / 8;
        let (whole, rest) = into.as_chunks_mut();
        for bytes in whole {
            *bytes = self.0.words.load(number).to_ne_bytes();
            number += 1;
        }
        if !rest.is_empty() {
            rest.copy_from_slice(&self.0.words.load(number).to_ne_bytes()[..rest.len()]);
        }
    }

    #[inline]
    fn load(&self, offset: usize) -> u64 {
        let word = self.0.words.load(offset / 8);
        fence(Acquire);
        word
    }
}

/// Looks at the ring between two looks at the clock.
const TRIES: u32 = 32;

/// The ring of what the peer sends, as its reader has it.
#[derive(Debug)]
pub(crate) struct Reading {
    consumer: Consumer,
    /// Nothing more is to be received than what has been sent already.
    stop: Arc<AtomicBool>,
    /// Slots that are taken after that at most.
    left: Option<u64>,
    is_over: bool,
}

/// What came of reading a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// So many frames.
    Some(u64),
    /// There are none.
    Nothing,
    /// So many, and what comes after the slots that were taken so far is never taken.
    Over { frames: u64, taken: u64 },
}

impl Reading {
    pub(crate) fn new(consumer: Consumer, stop: Arc<AtomicBool>) -> Self {
        Self { consumer, stop, left: None, is_over: false }
    }

    /// Takes what is there, as far as the receiver has space for it.
    pub(crate) fn read(&mut self, receiver: &mut Receiver<OwnedFd>) -> Result<Read, RingViolation> {
        if self.is_over {
            return Ok(Read::Nothing);
        }
        if self.left.is_none() {
            if self.stop.load(Acquire) {
                self.left = Some(SLOTS);
            } else if !self.consumer.is_ready() {
                return Ok(Read::Nothing);
            }
        }
        let before = self.consumer.taken();
        let mut frames = 0;
        while receiver.ring_space().len() >= Header::LEN
            && let Taken::Frame(len) = self.consumer.take(receiver.ring_space())?
        {
            receiver.received_in_ring(len);
            frames += 1;
        }
        if let Some(left) = &mut self.left {
            // No more than what can have been in it: a client that goes on sending does not keep the server.
            *left = left.saturating_sub(self.consumer.taken() - before);
            if frames == 0 || *left == 0 {
                self.is_over = true;
                return Ok(Read::Over { frames, taken: self.consumer.taken() });
            }
        }
        Ok(if frames > 0 { Read::Some(frames) } else { Read::Nothing })
    }

    /// Looks at the ring until there is something, for a microsecond or so.
    pub(crate) fn wait_a_moment(&self) {
        for _ in 0..TRIES {
            if self.consumer.is_ready() {
                return;
            }
            spin_loop();
        }
    }

    /// Takes nothing more. Gives the slots taken where that is to be said.
    pub(crate) fn end_if_stopping(&mut self) -> Option<u64> {
        let is_stopping = !self.is_over && self.stop.load(Acquire);
        self.is_over = true;
        is_stopping.then(|| self.consumer.taken())
    }

    /// Whether nothing more is taken.
    pub(crate) const fn is_over(&self) -> bool {
        self.is_over
    }

    /// Takes nothing, which has been said.
    pub(crate) fn end(&mut self) {
        self.is_over = true;
    }

    /// Says that this side sleeps; `false` where there is a frame.
    pub(crate) fn sleep(&mut self) -> bool {
        self.is_over || self.consumer.sleep()
    }

    /// Says that it is awake.
    pub(crate) fn wake(&mut self) {
        self.consumer.wake();
    }
}
