//! [`Shared`] and [`SharedMut`]: values that cross processes without being copied.

mod draft;
pub(crate) mod memory;

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::{Bound, Deref, RangeBounds};
use std::os::fd::AsFd;
use std::sync::Arc;

use lpc_core::codec::{Lent, Loan, Received};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use self::draft::SharedMut;
pub(crate) use self::draft::{loan_size, loaned, unshared};
use self::memory::{Checked, Memory};
pub use self::memory::{Plain, View};
use crate::memory::peer::Object;
use crate::sys::memfd;

/// A loan: values that another process reads where they are. A `Shared<[T]>` or a `Shared<str>`.
///
/// It may stand wherever a serde value can stand in an argument or a result, and derefs to its slice. Clones
/// share the memory.
///
/// ```
/// use lpc::{Shared, SharedMut, service};
///
/// #[service]
/// pub trait Images {
///     fn brightest(&self, pixels: Shared<[u16]>) -> lpc::Result<u16>;
///     fn gradient(&self, pixels: usize) -> lpc::Result<Shared<[u16]>>;
/// }
///
/// struct Plain;
///
/// impl Images for Plain {
///     fn brightest(&self, pixels: Shared<[u16]>) -> lpc::Result<u16> {
///         Ok(pixels.iter().copied().max().unwrap_or_default())
///     }
///
///     fn gradient(&self, pixels: usize) -> lpc::Result<Shared<[u16]>> {
///         let mut gradient = SharedMut::for_caller(pixels); // in memory that the caller can read
///         for (at, pixel) in gradient.iter_mut().enumerate() {
///             *pixel = at as u16;
///         }
///         Ok(gradient.freeze())
///     }
/// }
///
/// let images = ImagesClient::builder().in_process(Plain)?;
/// let mut pixels = images.client().loan::<u16>(1_000_000)?; // in memory that the service can read
/// pixels.fill(7);
/// assert_eq!(images.brightest(pixels.freeze())?, 7);
/// assert_eq!(images.gradient(300)?[299], 299);
/// # Ok::<(), lpc::Error>(())
/// ```
///
/// # Where the bytes are
///
/// | made by | passed | read by a receiver that does not trust the sender |
/// |---|---|---|
/// | `Client::loan`, [`SharedMut::for_caller`] | in the connection's shared memory | in a private copy |
/// | [`SharedMut::sealable`] | as a memfd, sealed against writing | in place |
/// | [`copy_of_file`](Self::copy_of_file) | the same | in place |
/// | [`from_file`](Self::from_file) | as a file descriptor, of the whole file | with pread(2), in pieces or as a whole |
/// | [`SharedMut::zeroed`], `From<Vec<T>>`, … | as a copy, made when it is passed | in a private copy |
///
/// Passing one of the first four costs nothing, whatever its length: loans of a connection on that
/// connection, sealed memory and files on any. Sealed memory that was received can be passed on to a third
/// process. Private copies are aligned, and behind this same type.
///
/// A receiver that [trusts](crate::config::ServerBuilder::trust) the sender reads all of them in place.
/// Otherwise the sender could write to them at any time. The bytes of a file are read when they are first
/// asked for: piece by piece with [`read_at`](Self::read_at), or all of them, up to
/// [`pool_limit`](crate::config::ServerBuilder::pool_limit), when the value is used as a slice.
///
/// The memory goes back to its sender when the last clone is dropped, which may be long after the call.
///
/// # Several loans for one call
///
/// A caller that takes several loans for one call holds some while it waits for others. If callers do so side
/// by side, the `pool_limit` needs room for all of them, or each waits for what the others hold until
/// `at_quota` ends the wait.
pub struct Shared<T: ?Sized + View>(Checked<T>);

impl<T: ?Sized + View> Shared<T> {
    /// The value in memory that is known to fit.
    fn of(memory: Memory) -> Self {
        Self::fit(Arc::new(memory)).expect("such a value")
    }

    fn fit(memory: Arc<Memory>) -> io::Result<Self> {
        Checked::new(memory).map(Self)
    }

    /// The value. A file is read now, unless it was read before.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or its sender can still change it and it is longer than
    /// [`pool_limit`](crate::config::ServerBuilder::pool_limit).
    pub fn load(&self) -> io::Result<&T> {
        self.0.load()
    }

    /// Whether the bytes are in memory that another process shares.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        match &**self.memory() {
            Memory::Private(_) | Memory::Owned(_) => false,
            Memory::Block { .. } | Memory::Peer { .. } => true,
            Memory::Object(object) => object.is_mapped(),
        }
    }

    fn memory(&self) -> &Arc<Memory> {
        self.0.memory()
    }
}

impl Shared<[u8]> {
    /// The bytes of a file, to be passed by its descriptor: the receiver reads the file itself.
    ///
    /// ```no_run
    /// # use lpc::{Shared, service};
    /// # #[service] pub trait Index { fn add(&self, text: Shared<[u8]>) -> lpc::Result<()>; }
    /// # fn run(index: &impl Index) -> Result<(), Box<dyn std::error::Error>> {
    /// let file = std::fs::File::open("/var/log/archive")?;
    /// index.add(Shared::from_file(&file, ..)?)?; // a gigabyte costs what a byte costs
    /// # Ok(()) }
    /// ```
    ///
    /// `range` is in bytes of the file, its end by default the end that the file has now.
    ///
    /// It says which bytes the value is, not which the receiver gets at: with the descriptor that can read, though
    /// not write, all of the file, also what is written to it later. Where a part is not for the receiver's
    /// eyes, pass a [copy](Self::copy_of_file).
    ///
    /// A receiver that trusts this process maps it. Any other copies what it asks for: all of it when the
    /// value is used as a slice, up to its `pool_limit` for one connection, or piece by piece with
    /// [`read_at`](Self::read_at). So does this process. What the file has lost since reads as zeroes.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](io::ErrorKind::InvalidInput): the range ends before it begins.
    /// - [`InvalidData`](io::ErrorKind::InvalidData): it is no regular file, not open for reading, or on a
    ///   filesystem that is not known to be served by this machine's kernel alone: of those that a process
    ///   or another machine serves (FUSE, NFS, …) reads may never return.
    /// - [`Unsupported`](io::ErrorKind::Unsupported): it is on a filesystem that this process does not see
    ///   mounted.
    /// - [`UnexpectedEof`](io::ErrorKind::UnexpectedEof): it is shorter than the range.
    /// - What opening it again for reading may fail with (`/proc/self/fd`, proc(5)).
    pub fn from_file(file: &File, range: impl RangeBounds<u64>) -> io::Result<Self> {
        let (start, len) = part_of(file, range)?;
        // A receiver of the descriptor may read, and nothing else.
        let object = Object::of_file(memfd::read_only(file.as_fd())?, start, len)?;
        // An empty range needs no descriptor.
        Ok(if len == 0 { Self::default() } else { Self::of(Memory::Object(object)) })
    }

    /// A copy of a part of a file, in memory of its own that is sealed against writing: the receiver reads it in
    /// place, and gets at nothing else.
    ///
    /// ```no_run
    /// # use lpc::{Shared, service};
    /// # #[service] pub trait Index { fn add(&self, text: Shared<[u8]>) -> lpc::Result<()>; }
    /// # fn run(index: &impl Index) -> Result<(), Box<dyn std::error::Error>> {
    /// let file = std::fs::File::open("/var/lib/app/secrets")?;
    /// index.add(Shared::copy_of_file(&file, 14..25)?)?; // of the others the receiver learns nothing
    /// # Ok(()) }
    /// ```
    ///
    /// `range` is in bytes of the file, its end by default the end that the file has now.
    ///
    /// # Errors
    ///
    /// As [`from_file`](Self::from_file) and [`SharedMut::sealable`], and if the file cannot be read.
    pub fn copy_of_file(file: &File, range: impl RangeBounds<u64>) -> io::Result<Self> {
        let (start, len) = part_of(file, range)?;
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut copy = SharedMut::sealable(len)?;
        memfd::read_at(file.as_fd(), &mut copy, start)?;
        Ok(copy.freeze())
    }

    /// Copies bytes from `offset` on into `into`, as many as there are. Returns how many. Of a file that was
    /// not [loaded](Self::load), it reads only these.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        if let Memory::Object(object) = &**self.memory() {
            return object.read_at(offset, into);
        }
        let rest = usize::try_from(offset).ok().and_then(|start| self.get(start..)).unwrap_or_default();
        let len = rest.len().min(into.len());
        into[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    /// The length in bytes. It does not read a file.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        self.memory().len()
    }

    /// The same memory as text.
    ///
    /// # Errors
    ///
    /// If the bytes are not UTF-8, or in a file that cannot be [loaded](Self::load).
    pub fn into_str(self) -> io::Result<Shared<str>> {
        Shared::fit(Arc::clone(self.memory()))
    }
}

/// Where a part of a file begins, and how long it is. It can be read.
fn part_of(file: &File, range: impl RangeBounds<u64>) -> io::Result<(u64, u64)> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => {
            // First, since of some filesystems it is not wise to ask even that.
            memfd::inspect(file, 0, 0)?;
            file.metadata()?.len()
        }
    };
    let len = end.checked_sub(start).ok_or(io::ErrorKind::InvalidInput)?;
    // Before it is opened again, which would block if it were a pipe.
    memfd::inspect(file, start, len)?;
    Ok((start, len))
}

impl<T: ?Sized + View> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// # Panics
///
/// If the bytes are in a file and [`load`](Shared::load) would fail.
impl<T: ?Sized + View> Deref for Shared<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.load().unwrap_or_else(|error| panic!("a shared file cannot be read: {error}"))
    }
}

impl<T: ?Sized + View> AsRef<T> for Shared<T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: ?Sized + View + fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &**self.memory() {
            // A file is not read just to be logged.
            Memory::Object(object) if !object.is_mapped() => {
                f.debug_struct("Shared").field("file", object.file()).field("len", &object.len()).finish()
            }
            _ => (**self).fmt(f),
        }
    }
}

impl fmt::Display for Shared<str> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<'a, T: Plain> IntoIterator for &'a Shared<[T]> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: ?Sized + View + PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: ?Sized + View + Eq> Eq for Shared<T> {}

impl<T: Plain> From<Vec<T>> for Shared<[T]> {
    /// Takes over the vector's memory. Passing the value copies it.
    fn from(values: Vec<T>) -> Self {
        Self::of(Memory::Owned(Box::new(values)))
    }
}

impl<T: Plain + Clone> From<&[T]> for Shared<[T]> {
    fn from(values: &[T]) -> Self {
        values.to_vec().into()
    }
}

impl From<String> for Shared<str> {
    /// Takes over the string's memory. Passing the value copies it.
    fn from(text: String) -> Self {
        Self::of(Memory::Owned(Box::new(text.into_bytes())))
    }
}

impl From<&str> for Shared<str> {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl<T: Plain> Default for Shared<[T]> {
    /// An empty slice.
    fn default() -> Self {
        Vec::new().into()
    }
}

impl Default for Shared<str> {
    /// An empty string.
    fn default() -> Self {
        String::new().into()
    }
}

/// In an argument or result of a call, the bytes are passed beside the message. Any other serializer gets
/// them as bytes.
impl<T: ?Sized + View> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let loan: Arc<dyn Loan> = self.memory().clone();
        Lent(&loan).serialize(serializer)
    }
}

impl<'de, T: ?Sized + View> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let memory = match Received::deserialize_as::<T, D>(deserializer, T::EACH)? {
            Received::Loan(loan) => {
                let any: Arc<dyn std::any::Any + Send + Sync> = loan;
                any.downcast().map_err(|_| de::Error::custom("a loan of another library"))?
            }
            Received::Bytes(bytes) => Arc::new(Memory::Owned(Box::new(bytes))),
        };
        Self::fit(memory).map_err(de::Error::custom)
    }
}
