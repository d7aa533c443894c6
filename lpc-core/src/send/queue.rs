//! [`Queue`]: what waits for the socket, in its order: bytes, and descriptors that each go with one of them.

use std::collections::VecDeque;
use std::mem;

/// A queue that had to grow beyond this is given back after use.
const KEPT: usize = 256 << 10;

/// Descriptors, each with the place of the byte that it goes with.
pub(super) type Descriptors<D> = VecDeque<(usize, D)>;

#[derive(Debug)]
pub(super) struct Queue<D> {
    /// Frames that wait, from `start` on: what is before that has been written.
    bytes: Vec<u8>,
    start: usize,
    /// By their places in `bytes`.
    descriptors: Descriptors<D>,
    /// An empty vector with capacity: the queue of the next batch.
    spare: Vec<u8>,
}

impl<D> Queue<D> {
    pub(super) const fn new() -> Self {
        Self { bytes: Vec::new(), start: 0, descriptors: VecDeque::new(), spare: Vec::new() }
    }

    /// Bytes that wait.
    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Bytes of memory that it keeps.
    pub(super) const fn capacity(&self) -> usize {
        self.bytes.capacity() + self.spare.capacity()
    }

    #[inline]
    pub(super) fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
    }

    /// Queues a frame whose first byte brings a descriptor.
    pub(super) fn push_with(&mut self, frame: &[u8], descriptor: D) {
        self.descriptors.push_back((self.bytes.len(), descriptor));
        self.push(frame);
    }

    /// Takes all that waits: the bytes, from where on they do, and their descriptors.
    #[inline]
    pub(super) fn take(&mut self) -> (Vec<u8>, usize, Descriptors<D>) {
        if self.len() == 0 {
            return (Vec::new(), 0, VecDeque::new());
        }
        let bytes = mem::replace(&mut self.bytes, mem::take(&mut self.spare));
        (bytes, mem::take(&mut self.start), mem::take(&mut self.descriptors))
    }

    /// Keeps the memory of a batch that went out for the next one.
    #[inline]
    pub(super) fn keep(&mut self, mut bytes: Vec<u8>) {
        if (1..=KEPT).contains(&bytes.capacity()) {
            bytes.clear();
            self.spare = bytes;
        }
    }

    /// Puts a batch that was written up to `start` back in front of what was queued since.
    pub(super) fn put_back(&mut self, mut bytes: Vec<u8>, mut start: usize, mut descriptors: Descriptors<D>) {
        if start > bytes.len() / 2 {
            // What has been written goes, or a stall that never quite ends would keep all that ever was; not
            // each time, or a large batch would be copied over and over.
            bytes.drain(..start);
            for (place, _) in &mut descriptors {
                *place -= start;
            }
            start = 0;
        }
        let moved = bytes.len();
        descriptors.extend(self.descriptors.drain(..).map(|(place, descriptor)| (place + moved, descriptor)));
        bytes.extend_from_slice(&self.bytes);
        (self.bytes, self.start, self.descriptors) = (bytes, start, descriptors);
    }

    /// Forgets everything, and gives the descriptors back, to be closed without a lock.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = D> + use<D> {
        mem::replace(self, Self::new()).descriptors.into_iter().map(|(_, descriptor)| descriptor)
    }
}
