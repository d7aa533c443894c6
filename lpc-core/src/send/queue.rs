//! [`Queue`]: what waits for the socket, in its order: bytes, and descriptors that each go with one of them.

use std::collections::{TryReserveError, VecDeque};
use std::mem;

/// A queue that had to grow beyond this is given back after use.
const KEPT: usize = 256 << 10;

/// Appends a frame, of any length.
#[inline]
fn append(bytes: &mut Vec<u8>, frame: &[u8]) -> Result<(), TryReserveError> {
    // More than is needed where there is as much.
    bytes.try_reserve(frame.len()).or_else(|_| bytes.try_reserve_exact(frame.len()))?;
    bytes.extend_from_slice(frame);
    Ok(())
}

/// Descriptors, each with the place of the byte that it goes with.
pub(super) type Descriptors<D> = VecDeque<(usize, D)>;

/// Frames, and the descriptors that they bring.
#[derive(Debug)]
pub(super) struct Frames<D> {
    pub(super) bytes: Vec<u8>,
    /// By their places in `bytes`.
    pub(super) descriptors: Descriptors<D>,
}

#[derive(Debug)]
pub(super) struct Queue<D> {
    /// Frames that wait, from `start` on: what is before that has been written.
    frames: Frames<D>,
    start: usize,
    /// Empty, but with capacity: the queue of the next batch.
    spare: Option<Box<Frames<D>>>,
}

impl<D> Frames<D> {
    pub(super) const fn new() -> Self {
        Self { bytes: Vec::new(), descriptors: VecDeque::new() }
    }
}

impl<D> Queue<D> {
    pub(super) const fn new() -> Self {
        Self { frames: Frames::new(), start: 0, spare: None }
    }

    /// Bytes that wait.
    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.frames.bytes.len() - self.start
    }

    /// Bytes of memory that it keeps.
    pub(super) fn capacity(&self) -> usize {
        self.frames.bytes.capacity() + self.spare.as_ref().map_or(0, |spare| spare.bytes.capacity())
    }

    /// Queues a frame.
    ///
    /// # Errors
    ///
    /// There is no memory for it.
    #[inline]
    pub(super) fn push(&mut self, frame: &[u8]) -> Result<(), TryReserveError> {
        append(&mut self.frames.bytes, frame)
    }

    /// Queues a frame whose first byte brings a descriptor.
    ///
    /// # Errors
    ///
    /// There is no memory for it.
    pub(super) fn push_with(&mut self, frame: &[u8], descriptor: D) -> Result<(), TryReserveError> {
        let place = self.frames.bytes.len();
        self.push(frame)?;
        self.frames.descriptors.push_back((place, descriptor));
        Ok(())
    }

    /// Makes room for `len` bytes that are about to be queued, or may have to be if they are not all written.
    pub(super) fn make_room(&mut self, len: usize, is_written: bool) -> Result<(), TryReserveError> {
        if is_written && self.len() == 0 {
            let spare = self.spare.get_or_insert_with(|| Box::new(Frames::new()));
            return spare.bytes.try_reserve_exact(len);
        }
        self.frames.bytes.try_reserve_exact(len)
    }

    /// What a frame that was not all written is put in, where nothing was queued before it.
    pub(super) fn take_room(&mut self) -> Frames<D> {
        self.spare.take().map_or_else(Frames::new, |spare| *spare)
    }

    /// Gives back room that was made for a large frame.
    pub(super) fn give_room_back(&mut self) {
        self.spare.take_if(|spare| spare.bytes.capacity() > KEPT);
    }

    /// Takes all that waits, if anything does, and says from where on it does.
    #[inline]
    pub(super) fn take(&mut self) -> (Option<Box<Frames<D>>>, usize) {
        if self.len() == 0 { (None, 0) } else { self.take_all() }
    }

    fn take_all(&mut self) -> (Option<Box<Frames<D>>>, usize) {
        let mut taken = self.spare.take().unwrap_or_else(|| Box::new(Frames::new()));
        mem::swap(&mut *taken, &mut self.frames);
        (Some(taken), mem::take(&mut self.start))
    }

    /// Keeps the memory of a batch that went out for the next one.
    pub(super) fn keep(&mut self, mut frames: Box<Frames<D>>) {
        if frames.bytes.capacity() <= KEPT {
            frames.bytes.clear();
            self.spare = Some(frames);
        }
    }

    /// Puts a batch that was written up to `start`, and then `rest`, back in front of what was queued since.
    ///
    /// # Errors
    ///
    /// There is no memory for it. Nothing is queued any more.
    pub(super) fn put_back(
        &mut self,
        frames: Frames<D>,
        mut start: usize,
        rest: &[u8],
    ) -> Result<(), TryReserveError> {
        let Frames { mut bytes, mut descriptors } = frames;
        append(&mut bytes, rest)?;
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
        let behind = self.frames.descriptors.drain(..);
        descriptors.extend(behind.map(|(place, descriptor)| (place + moved, descriptor)));
        append(&mut bytes, &self.frames.bytes)?;
        (self.frames, self.start) = (Frames { bytes, descriptors }, start);
        Ok(())
    }

    /// Forgets everything, and gives the descriptors back, to be closed without a lock.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = D> + use<D> {
        let descriptors = mem::replace(self, Self::new()).frames.descriptors;
        descriptors.into_iter().map(|(_, descriptor)| descriptor)
    }
}
