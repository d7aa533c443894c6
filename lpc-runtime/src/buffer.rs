//! [`Buffer`]: bytes whose memory is used again.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// A byte vector that goes back to its thread's spares when it is dropped, so that a call allocates nothing once its
/// thread has made one like it.
#[derive(Debug)]
pub(crate) struct Buffer(Vec<u8>);

/// Spares of one thread at most: a call and its reply each need one, nested calls a few more.
const SPARES: usize = 4;

/// A spare larger than this is given back to the allocator.
const KEPT: usize = 8 << 20;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl Buffer {
    /// An empty buffer, with the capacity of its last use.
    pub(crate) fn take() -> Self {
        Self(SPARE.with_borrow_mut(Vec::pop).unwrap_or_default())
    }

    /// A buffer with a copy of `bytes`.
    pub(crate) fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = Self::take();
        buffer.0.extend_from_slice(bytes);
        buffer
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0);
        if bytes.capacity() == 0 || bytes.capacity() > KEPT {
            return;
        }
        bytes.clear();
        // At the end of the thread there is no list to go to any more.
        let _ = SPARE.try_with(|spare| {
            if let Ok(mut spare) = spare.try_borrow_mut()
                && spare.len() < SPARES
            {
                spare.push(bytes);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}
