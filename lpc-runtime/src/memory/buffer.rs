//! [`Buffer`]: bytes whose memory is used again.

use std::cell::{Cell, RefCell};
use std::collections::TryReserveError;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::maintenance;
use crate::sys::fork::PerProcess;
use crate::sys::private;

/// A byte vector that is kept for use again when it is dropped, so that a call allocates nothing once there
/// has been one like it: a small one by its thread, a large one by the process, until nobody has taken it up
/// for a while.
#[derive(Debug)]
pub(crate) struct Buffer(Vec<u8>);

/// Spares of one thread at most: a call and its reply each need one, nested calls a few more.
const SPARES: usize = 4;

/// The same where they are [tiny](TINY): replies wait in them for their tasks, of which many may have one on
/// the way.
const TINY_SPARES: usize = 64;

/// A spare up to that size is tiny.
const TINY: usize = 1 << 10;

/// A spare larger than this is not kept by its thread.
const SMALL: usize = 64 << 10;

/// Large spares of the process at most.
const LARGE_SPARES: usize = 16;

/// A spare larger than this is given back to the allocator.
const KEPT: usize = 64 << 20;

thread_local! {
    static SPARE: Spares = const { Spares::new() };
}

/// The spares of one thread.
struct Spares {
    /// The two that were given back last, as nearly all are that are taken: a call and its reply have one each.
    last: Cell<Vec<u8>>,
    before: Cell<Vec<u8>>,
    others: RefCell<Vec<Vec<u8>>>,
}

impl Spares {
    const fn new() -> Self {
        Self { last: Cell::new(Vec::new()), before: Cell::new(Vec::new()), others: RefCell::new(Vec::new()) }
    }

    #[inline]
    fn take(&self) -> Vec<u8> {
        let last = self.last.take();
        if last.capacity() > 0 { last } else { self.take_other() }
    }

    #[inline]
    fn take_other(&self) -> Vec<u8> {
        let before = self.before.take();
        if before.capacity() > 0 { before } else { self.others.borrow_mut().pop().unwrap_or_default() }
    }

    #[inline]
    fn keep(&self, bytes: Vec<u8>) {
        let last = self.last.replace(bytes);
        if last.capacity() > 0 {
            let before = self.before.replace(last);
            if before.capacity() > 0 {
                self.keep_other(before);
            }
        }
    }

    #[inline(never)]
    fn keep_other(&self, bytes: Vec<u8>) {
        let most = if bytes.capacity() <= TINY { TINY_SPARES } else { SPARES };
        let mut others = self.others.borrow_mut();
        // The last two are some, too.
        if others.len() + 2 < most {
            others.push(bytes);
        }
    }
}

static LARGE: PerProcess<Mutex<Vec<Large>>> = PerProcess::new(Mutex::default);

struct Large {
    bytes: Vec<u8>,
    /// When it was used last.
    used: Instant,
}

impl Buffer {
    /// An empty buffer, with the capacity of some earlier use.
    #[inline]
    pub(crate) fn take() -> Self {
        // At the end of the thread there is no list any more, and destructors may still call.
        Self(SPARE.try_with(Spares::take).unwrap_or_default())
    }

    /// An empty buffer with room for so many bytes, if there is memory for it.
    #[inline]
    pub(crate) fn with_room(len: usize) -> Self {
        let mut buffer = Self::take();
        // What is to be put there asks again.
        let _ = buffer.try_reserve(len);
        buffer
    }

    /// Makes room for as many bytes more.
    ///
    /// # Errors
    ///
    /// There is no memory for that many.
    #[inline]
    pub(crate) fn try_reserve(&mut self, more: usize) -> Result<(), TryReserveError> {
        if more <= self.0.capacity() - self.0.len() { Ok(()) } else { self.try_grow(more) }
    }

    #[inline(never)]
    fn try_grow(&mut self, more: usize) -> Result<(), TryReserveError> {
        let need = self.0.len().saturating_add(more);
        if need > SMALL {
            self.grow(need);
        }
        self.0.try_reserve(more).or_else(|_| {
            private::release();
            self.0.try_reserve_exact(more)
        })
    }

    #[cold]
    fn grow(&mut self, need: usize) {
        let mut large = large();
        if let Some(at) = large.iter().position(|spare| spare.bytes.capacity() >= need) {
            let mut bytes = large.swap_remove(at).bytes;
            drop(large);
            bytes.extend_from_slice(&self.0);
            // What there was goes back to where it came from.
            drop(Self(mem::replace(&mut self.0, bytes)));
        }
    }
}

/// Gives back large buffers that nobody has used since `before`. When the oldest of what is left was used
/// last.
pub(crate) fn trim(before: Instant) -> Option<Instant> {
    let mut large = large();
    let old: Vec<_> = large.extract_if(.., |spare| spare.used <= before).collect();
    let oldest = large.iter().map(|spare| spare.used).min();
    drop(large);
    drop(old);
    oldest
}

/// Gives back all large buffers.
pub(crate) fn release() {
    let all = mem::take(&mut *large());
    drop(all);
}

#[cold]
fn keep_large(bytes: Vec<u8>) {
    let mut large = large();
    if large.len() < LARGE_SPARES {
        large.push(Large { bytes, used: Instant::now() });
        drop(large);
        maintenance::trim_private();
    }
}

fn large() -> MutexGuard<'static, Vec<Large>> {
    LARGE.get().lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = mem::take(&mut self.0);
        bytes.clear();
        match bytes.capacity() {
            0 => {}
            1..=SMALL => {
                // At the end of the thread there is no list to go to any more.
                let _ = SPARE.try_with(|spares| spares.keep(bytes));
            }
            capacity if capacity <= KEPT => keep_large(bytes),
            _ => {}
        }
    }
}

impl AsMut<Vec<u8>> for Buffer {
    fn as_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
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
