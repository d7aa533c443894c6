//! [`Memory`]: where the bytes of a [`Shared`](super::Shared) are, and [`View`]: what they are read as.
//!
//! One of the files with `unsafe`: a `str` is made of bytes that were checked once.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;

use lpc_core::codec::Loan;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::connection::link::Returning;
use crate::memory::peer::{Object, Segment};
use crate::memory::pool::PoolBlock;
use crate::sys::private::Private;

/// Bytes that no longer change.
#[derive(Debug)]
pub(crate) enum Memory {
    /// Memory of this process alone.
    Private(Private),
    /// A collection of the user's, in memory of this process alone.
    Owned(Box<dyn Owned>),
    /// A block of this side's pool for a connection, which the peer can read.
    Block { block: PoolBlock, len: usize },
    /// Sealed memory, or a file.
    Object(Arc<Object>),
    /// A block of a trusted peer's pool, read in place.
    Peer { segment: Arc<Segment>, offset: usize, len: usize, _returning: Option<Returning> },
}

/// A collection of plain values.
pub(crate) trait Owned: Send + Sync {
    fn bytes(&self) -> &[u8];
}

impl<T: IntoBytes + Immutable + Send + Sync> Owned for Vec<T> {
    fn bytes(&self) -> &[u8] {
        self.as_slice().as_bytes()
    }
}

impl std::fmt::Debug for dyn Owned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owned").finish_non_exhaustive()
    }
}

impl Memory {
    /// The bytes. A file is read as a whole the first time.
    pub(crate) fn load(&self) -> io::Result<&[u8]> {
        Ok(match self {
            Self::Private(private) => private.bytes(),
            Self::Owned(owned) => owned.bytes(),
            Self::Block { block, len } => block.bytes(*len),
            Self::Object(object) => object.load()?,
            Self::Peer { segment, offset, len, .. } => {
                segment.in_place(*offset, *len).expect("made only of a segment that is trusted")
            }
        })
    }

    /// The number of bytes.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Object(object) => object.len(),
            Self::Block { len, .. } | Self::Peer { len, .. } => *len as u64,
            Self::Private(private) => private.bytes().len() as u64,
            Self::Owned(owned) => owned.bytes().len() as u64,
        }
    }
}

impl Loan for Memory {
    fn bytes(&self) -> &[u8] {
        // There is no way to return the error of a file that cannot be read.
        self.load().unwrap_or_else(|error| panic!("a shared file cannot be read: {error}"))
    }
}

/// The types that can be shared: `[T]` of plain old data, and `str`.
///
/// Plain old data may be any bytes and has no padding, as the traits of the crate
/// [zerocopy](https://docs.rs/zerocopy) 0.8 tell: integers, floats, arrays of them, and structs that are
/// `#[repr(C)]` and derive `FromBytes`, `IntoBytes` and `Immutable` (its feature `derive`).
#[diagnostic::on_unimplemented(
    message = "`Shared<{Self}>` is not possible",
    label = "neither a slice `[T]` of plain old data nor `str`",
    note = "for bytes write `Shared<[u8]>`, for text `Shared<str>`; `T` is plain old data if it derives zerocopy's `FromBytes`, `IntoBytes` and `Immutable`"
)]
pub trait View: sealed::Sealed {
    /// The size of an element, if bytes in private memory are such a value as soon as their number is a
    /// multiple of it. `None` for elements of a greater alignment, and for text.
    #[doc(hidden)]
    const UNIT: Option<usize>;

    /// The layout of an element.
    #[doc(hidden)]
    const EACH: Layout;

    /// Checks that these bytes are such a value.
    #[doc(hidden)]
    fn check(bytes: &[u8]) -> Result<(), Unfit>;

    /// The bytes as a value.
    ///
    /// # Safety
    ///
    /// They passed [`check`](Self::check), and have not changed since.
    #[doc(hidden)]
    unsafe fn view(bytes: &[u8]) -> &Self;
}

mod sealed {
    pub trait Sealed {}
}

/// Why bytes are not a value.
#[doc(hidden)]
#[derive(Debug)]
pub enum Unfit {
    /// They are not aligned for such values.
    Misaligned,
    /// They are another value, for this reason.
    Value(String),
}

/// Plain old data, which a [`Shared`](super::Shared) slice consists of: see [`View`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not plain old data, and cannot be shared between processes",
    label = "cannot stand in a `Shared<[_]>`",
    note = "make it `#[repr(C)]` without padding, and derive zerocopy's `FromBytes`, `IntoBytes` and `Immutable`"
)]
pub trait Plain: FromBytes + IntoBytes + Immutable + Send + Sync + 'static {}

impl<T: FromBytes + IntoBytes + Immutable + Send + Sync + 'static> Plain for T {}

impl<T: Plain> sealed::Sealed for [T] {}

impl<T: Plain> View for [T] {
    const UNIT: Option<usize> =
        if align_of::<T>() <= align_of::<u128>() { Some(size_of::<T>()) } else { None };
    const EACH: Layout = Layout::new::<T>();

    fn check(bytes: &[u8]) -> Result<(), Unfit> {
        const { assert!(align_of::<T>() <= 4096, "shared memory is aligned to pages") };
        match <[T]>::ref_from_bytes(bytes) {
            Ok(_) => Ok(()),
            Err(zerocopy::CastError::Alignment(_)) => Err(Unfit::Misaligned),
            Err(_) => {
                let (len, size, name) = (bytes.len(), size_of::<T>(), std::any::type_name::<T>());
                Err(Unfit::Value(format!(
                    "{len} bytes are no whole number of {name}, which take {size} each"
                )))
            }
        }
    }

    unsafe fn view(bytes: &[u8]) -> &Self {
        let Ok(values) = <[T]>::ref_from_bytes(bytes) else { unreachable!("they were checked") };
        values
    }
}

impl sealed::Sealed for str {}

impl View for str {
    const UNIT: Option<usize> = None;
    const EACH: Layout = Layout::new::<u8>();

    fn check(bytes: &[u8]) -> Result<(), Unfit> {
        std::str::from_utf8(bytes).map(drop).map_err(|error| Unfit::Value(error.to_string()))
    }

    unsafe fn view(bytes: &[u8]) -> &Self {
        // SAFETY: they are UTF-8, by the caller's promise.
        unsafe { std::str::from_utf8_unchecked(bytes) }
    }
}

/// Memory whose bytes are a `T`.
///
/// Invariant: they passed `T`'s check; or they are in a file that was not read, their number is right, and
/// `T` has no other rules.
pub(crate) struct Checked<T: ?Sized> {
    memory: Arc<Memory>,
    view: PhantomData<fn() -> Box<T>>,
}

impl<T: ?Sized + View> Checked<T> {
    /// Checks that memory is such a value. If only the alignment is wrong, it makes a private copy.
    ///
    /// # Errors
    ///
    /// If it is another value, or a file that cannot be read.
    pub(crate) fn new(memory: Arc<Memory>) -> io::Result<Self> {
        let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
        if let Memory::Object(object) = &*memory
            && object.is_aligned()
            && T::UNIT.is_some_and(|unit| object.len().is_multiple_of(unit as u64))
        {
            // The file may be long, and never be read as a whole.
            return Ok(Self { memory, view: PhantomData });
        }
        match T::check(memory.load()?) {
            Ok(()) => Ok(Self { memory, view: PhantomData }),
            Err(Unfit::Misaligned) => {
                let bytes = memory.load()?;
                let is_modest = T::UNIT.is_some();
                let mut copy = if is_modest {
                    Private::zeroed(bytes.len())?
                } else {
                    Private::page_aligned(bytes.len())?
                };
                copy.bytes_mut().copy_from_slice(bytes);
                Self::new(Arc::new(Memory::Private(copy)))
            }
            Err(Unfit::Value(reason)) => Err(invalid(reason)),
        }
    }

    /// The value. A file is read now, unless it was read before.
    pub(crate) fn load(&self) -> io::Result<&T> {
        let bytes = self.memory.load()?;
        // SAFETY: the bytes of `memory` never change, and by the invariant they have passed the check, or
        // need none.
        Ok(unsafe { T::view(bytes) })
    }

    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }
}

impl<T: ?Sized> Clone for Checked<T> {
    fn clone(&self) -> Self {
        Self { memory: Arc::clone(&self.memory), view: PhantomData }
    }
}
