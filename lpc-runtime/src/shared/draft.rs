//! [`SharedMut`]: values that are filled in place and then passed.

use std::fmt;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::FileExt;

use lpc_core::{Error, ErrorKind, Limits, Result};
use zerocopy::FromBytes;

use super::Shared;
use super::memory::{Memory, Plain};
use crate::connection::warnings::{self, Warning};
use crate::memory::peer::Object;
use crate::memory::pool::PoolBlock;
use crate::server::context::Current;
use crate::sys::mapping;
use crate::sys::private::Private;

/// A loan that is being written: it belongs to this process alone until it is [frozen](Self::freeze) into a
/// [`Shared`].
///
/// ```
/// use lpc::{Shared, SharedMut};
///
/// let mut squares = SharedMut::<[u64]>::zeroed(100);
/// for (n, square) in (0..).zip(squares.iter_mut()) {
///     *square = n * n;
/// }
/// let squares: Shared<[u64]> = squares.freeze();
/// assert_eq!(squares[12], 144);
/// ```
///
/// If it is dropped without being passed, its memory is free again at once.
pub struct SharedMut<T: ?Sized> {
    draft: Draft,
    values: PhantomData<Box<T>>,
}

enum Draft {
    Private(Private),
    Block { block: PoolBlock, len: usize },
    Memfd(mapping::Draft),
}

/// The bytes of `len` values.
fn size<T>(len: usize) -> Option<usize> {
    len.checked_mul(size_of::<T>())
}

impl<T: Plain> SharedMut<[T]> {
    fn of(draft: Draft) -> Self {
        const { assert!(align_of::<T>() <= 4096, "shared memory is aligned to pages") };
        Self { draft, values: PhantomData }
    }

    /// `len` zero values in private memory. Passing them copies them.
    ///
    /// # Panics
    ///
    /// If the system has no memory for them.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        Self::try_zeroed(len).unwrap_or_else(|error| panic!("no memory for {len} values: {error}"))
    }

    fn try_zeroed(len: usize) -> io::Result<Self> {
        let size = size::<T>(len).ok_or(io::ErrorKind::OutOfMemory)?;
        // Private memory has this alignment anyway.
        let is_modest = align_of::<T>() <= align_of::<u128>();
        let private = if is_modest { Private::zeroed(size)? } else { Private::page_aligned(size)? };
        Ok(Self::of(Draft::Private(private)))
    }

    /// `len` zero values in memory of their own, which [`freeze`](Self::freeze) seals against writing. Any
    /// receiver may read it in place, and pass it on without a copy.
    ///
    /// It takes a file descriptor in each process that has it. It is for data that lives long, or that
    /// several processes read.
    ///
    /// # Errors
    ///
    /// If the system has no memory or descriptor for it, or a sandbox of this process forbids
    /// memfd_create(2). The error names the call that failed. [`zeroed`](Self::zeroed) memory needs none
    /// of that.
    pub fn sealable(len: usize) -> io::Result<Self> {
        let size = match size::<T>(len) {
            None => return Err(io::ErrorKind::OutOfMemory.into()),
            Some(0) => return Ok(Self::zeroed(len)),
            Some(size) => size,
        };
        let draft = mapping::Draft::new(size).map_err(|error| {
            let remedy = "`SharedMut::zeroed` makes memory that is copied when it is passed";
            io::Error::new(error.kind(), format!("no sealable memory of {size} bytes: {error}; {remedy}"))
        })?;
        Ok(Self::of(Draft::Memfd(draft)))
    }

    /// `len` values in memory that the caller of the service's method can read, for its result. Their content
    /// is what an earlier use left there, so write all of them.
    ///
    /// This works on the thread, or in the task, on which a server called the method. Anywhere else, and if
    /// the connection has no room, it is [`zeroed`](Self::zeroed) private memory, which is copied when it is
    /// passed.
    ///
    /// # Panics
    ///
    /// Like [`zeroed`](Self::zeroed).
    #[must_use]
    pub fn for_caller(len: usize) -> Self {
        let block = Current::link().and_then(|link| link.alloc(size::<T>(len)? as u64).ok()?);
        block.map_or_else(|| Self::zeroed(len), |block| loaned(block, len))
    }

    /// Ends the writing, and returns the value to be passed.
    ///
    /// # Panics
    ///
    /// If the memory is [`sealable`](Self::sealable), and the system neither seals it nor has memory for a
    /// copy.
    #[must_use]
    pub fn freeze(self) -> Shared<[T]> {
        let memory = match self.draft {
            Draft::Private(private) => Memory::Private(private),
            Draft::Block { block, len } => Memory::Block { block, len },
            Draft::Memfd(draft) => frozen(draft)
                .unwrap_or_else(|error| panic!("memory can be neither sealed nor copied: {error}")),
        };
        Shared::of(memory)
    }
}

/// The bytes of a loan of `len` values. `None` if the loan is empty, or there is no shared memory.
///
/// # Errors
///
/// If they are more than the pool may ever have.
pub(crate) fn loan_size<T: Plain>(len: usize, limits: &Limits) -> Result<Option<u64>> {
    let size = size::<T>(len).map_or(u64::MAX, |size| size as u64);
    if limits.pool == 0 || size == 0 {
        return Ok(None);
    }
    if size > limits.pool {
        let message = format!(
            "a loan of {size} bytes is over the limit of {} (pool_limit of client or server)",
            limits.pool
        );
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    Ok(Some(size))
}

/// `len` values in private memory, in place of shared memory.
///
/// # Errors
///
/// If there is no private memory either.
pub(crate) fn unshared<T: Plain>(len: usize) -> Result<SharedMut<[T]>> {
    SharedMut::try_zeroed(len).map_err(|error| {
        Error::new(ErrorKind::ResourceExhausted, format!("no memory for a loan of {len} values: {error}"))
    })
}

/// `len` values in a block that is long enough.
pub(crate) fn loaned<T: Plain>(block: PoolBlock, len: usize) -> SharedMut<[T]> {
    let len = size::<T>(len).expect("a block is smaller than memory");
    SharedMut::of(Draft::Block { block, len })
}

/// Sealed memory, or a private copy if the system does not seal it.
fn frozen(draft: mapping::Draft) -> io::Result<Memory> {
    let len = draft.bytes().len();
    match draft.freeze() {
        Ok(file) => Ok(Memory::Object(Object::frozen(file, len as u64))),
        Err((error, file)) => {
            warnings::of_process().warn_of(Warning::NotSealed, &error);
            let fill = |into: &mut [u8]| File::from(file).read_exact_at(into, 0);
            Private::filled(len, fill).map(Memory::Private)
        }
    }
}

impl Draft {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Private(private) => private.bytes(),
            Self::Block { block, len } => block.bytes(*len),
            Self::Memfd(draft) => draft.bytes(),
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Private(private) => private.bytes_mut(),
            Self::Block { block, len } => block.bytes_mut(*len),
            Self::Memfd(draft) => draft.bytes_mut(),
        }
    }
}

const FITS: &str = "made for such values";

impl<T: Plain> Deref for SharedMut<[T]> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        let Ok(values) = <[T]>::ref_from_bytes(self.draft.bytes()) else { unreachable!("{FITS}") };
        values
    }
}

impl<T: Plain> DerefMut for SharedMut<[T]> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        let Ok(values) = <[T]>::mut_from_bytes(self.draft.bytes_mut()) else { unreachable!("{FITS}") };
        values
    }
}

impl<T: Plain + fmt::Debug> fmt::Debug for SharedMut<[T]> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
