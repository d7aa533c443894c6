//! The quick lane's memory: what [`lpc_core::ring`] reckons with, in mappings.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering::Acquire, Ordering::Relaxed, Ordering::Release, fence};

use lpc_core::ring::{self, LEN, Own, Peers};

use crate::connection::warnings::{Warning, Warnings};
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

    /// The same, to be announced, if the system has any.
    pub(crate) fn announced(warnings: &Warnings) -> Option<(Self, OwnedFd)> {
        let created = Self::create();
        created.inspect_err(|error| warnings.warn_of(Warning::NoRing, error)).ok()
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
    pub(crate) fn open(file: impl AsFd, charge: Option<Charge>) -> io::Result<Self> {
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
