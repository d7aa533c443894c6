//! The bytes that values are decoded from. Nothing is read beyond their end.

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::str::Utf8Error;
use std::sync::Arc;

use serde::de;

use super::loan::{Loan, Loans};
use super::remote::Remote;
use super::{DecodeError, DecodeErrorKind, MAX_DEPTH, MAX_EMPTY_ELEMENTS, bytes, varint};

/// The length from which on bytes are copied with the question whether there is memory for it.
const LONG: usize = 64 << 10;

/// An offset, in two parts. Mostly the first part tells whether two of them differ.
#[derive(Clone, Copy)]
pub(super) struct Place {
    at: usize,
    before: usize,
}

/// The bytes, and how far they were read.
///
/// Bytes that cannot be referred to are read through a window, a private copy of the next few of them.
/// Every decision is made on one copy; bytes of a window that are still unread when it is replaced have not
/// been looked at.
pub(super) struct Input<'de> {
    /// All of the bytes, or the window.
    window: &'de [u8],
    /// How far the window was read.
    at: usize,
    /// How many bytes there are before the window.
    before: usize,
    /// How many bytes there are behind the window.
    beyond: usize,
    /// Where the bytes come from. `None` if the window has all of them.
    source: Option<&'de dyn Remote>,
    /// How long the next window is to be.
    next_window: usize,
    /// How many more elements without bytes are allowed.
    empty_left: u32,
    /// How deep values may nest.
    pub(super) max_depth: u32,
    pub(super) loans: Option<&'de dyn Loans>,
}

impl<'de> Input<'de> {
    #[inline]
    pub(super) fn new(bytes: &'de [u8]) -> Self {
        Self {
            window: bytes,
            at: 0,
            before: 0,
            beyond: 0,
            source: None,
            next_window: 0,
            empty_left: MAX_EMPTY_ELEMENTS,
            max_depth: MAX_DEPTH,
            loans: None,
        }
    }

    pub(super) fn remote(source: &'de dyn Remote) -> Self {
        let next_window = *source.windows().start();
        Self { beyond: source.len(), source: Some(source), next_window, ..Self::new(&[]) }
    }

    #[inline]
    pub(super) fn offset(&self) -> usize {
        self.before + self.at
    }

    #[inline]
    pub(super) fn place(&self) -> Place {
        Place { at: self.at, before: self.before }
    }

    /// Whether nothing was read since it was at `place`.
    #[inline]
    pub(super) fn is_at(&self, place: Place) -> bool {
        self.at == place.at && self.before == place.before
    }

    #[inline]
    pub(super) fn left(&self) -> usize {
        self.window.len() - self.at + self.beyond
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        loop {
            if let Some(byte) = self.peek() {
                self.at += 1;
                return Ok(byte);
            }
            self.need(1)?;
        }
    }

    /// The next byte, which is then in the window and still unread.
    pub(super) fn peek_byte(&mut self) -> Result<u8, DecodeError> {
        loop {
            if let Some(byte) = self.peek() {
                return Ok(byte);
            }
            self.need(1)?;
        }
    }

    /// The next byte, if it is in the window.
    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.window.get(self.at).copied()
    }

    /// The unread bytes of the window.
    #[inline]
    pub(super) fn rest(&self) -> &'de [u8] {
        &self.window[self.at..]
    }

    /// Skips the first `len` bytes of the [`rest`](Self::rest), which were looked at there.
    #[inline]
    pub(super) fn skip(&mut self, len: usize) {
        debug_assert!(len <= self.rest().len());
        self.at += len;
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Result<&'de [u8], DecodeError> {
        match self.take_ready(len as u64) {
            Some(taken) => Ok(taken),
            None => self.keep(len as u64),
        }
    }

    #[inline]
    pub(super) fn take_array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        loop {
            if let Some(taken) = self.rest().first_chunk() {
                self.at += N;
                return Ok(*taken);
            }
            self.need(N)?;
        }
    }

    /// Reads a length, and as many bytes.
    #[inline]
    pub(super) fn take_counted(&mut self) -> Result<&'de [u8], DecodeError> {
        let len = varint::take(self)?;
        match self.take_ready(len) {
            Some(taken) => Ok(taken),
            None => self.keep_counted(len),
        }
    }

    /// Reads a length, and as many bytes, which the caller wants to own. If they have to be copied anyway, it
    /// gets an owned copy.
    #[inline]
    pub(super) fn take_counted_to_own(&mut self) -> Result<Cow<'de, [u8]>, DecodeError> {
        let len = varint::take(self)?;
        match self.take_ready(len) {
            Some(taken) if taken.len() < LONG => Ok(Cow::Borrowed(taken)),
            Some(taken) => self.copied(taken).map(Cow::Owned),
            None => self.copy_counted(len).map(Cow::Owned),
        }
    }

    /// A copy of long bytes, which were read last: their owner would abort the process where there is no
    /// memory for it.
    #[cold]
    fn copied(&self, bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut copied = Vec::new();
        let reserved = copied.try_reserve_exact(bytes.len());
        reserved.map_err(|_| self.no_memory(bytes.len()).moved_to(self.offset() - bytes.len()))?;
        copied.extend_from_slice(bytes);
        Ok(copied)
    }

    /// Reads a path, of any bytes, as a `T`, which is the type of such.
    pub(super) fn take_path<T>(&mut self) -> Result<T, DecodeError> {
        let path = OsString::from_vec(self.take_counted_to_own()?.into_owned());
        bytes::from_path(path.into()).map_err(|_| de::Error::custom("visitor is not of a path"))
    }

    #[inline]
    pub(super) fn take_str(&mut self) -> Result<&'de str, DecodeError> {
        let bytes = self.take_counted()?;
        str::from_utf8(bytes).map_err(|error| self.not_utf8(bytes, error))
    }

    /// Reads text that the caller wants to own, like [`take_counted_to_own`](Self::take_counted_to_own).
    #[inline]
    pub(super) fn take_str_to_own(&mut self) -> Result<Cow<'de, str>, DecodeError> {
        match self.take_counted_to_own()? {
            Cow::Borrowed(bytes) => match str::from_utf8(bytes) {
                Ok(text) => Ok(Cow::Borrowed(text)),
                Err(error) => Err(self.not_utf8(bytes, error)),
            },
            Cow::Owned(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Ok(Cow::Owned(text)),
                Err(error) => Err(self.not_utf8(error.as_bytes(), error.utf8_error())),
            },
        }
    }

    /// Takes `len` bytes if the window has them.
    #[inline]
    fn take_ready(&mut self, len: u64) -> Option<&'de [u8]> {
        let len = usize::try_from(len).ok()?;
        let taken = self.rest().get(..len)?;
        self.at += len;
        Some(taken)
    }

    /// Takes `len` bytes of which the window has only a part, to refer to them.
    #[cold]
    fn keep(&mut self, len: u64) -> Result<&'de [u8], DecodeError> {
        let (source, len) = self.source_of(len)?;
        let kept = source.keep(self.offset(), len).ok_or_else(|| self.no_memory(len))?;
        debug_assert_eq!(kept.len(), len);
        self.resume_behind(len, source);
        Ok(kept)
    }

    /// [`keep`](Self::keep), where the length stands before the bytes.
    #[cold]
    fn keep_counted(&mut self, len: u64) -> Result<&'de [u8], DecodeError> {
        let start = self.before_integer(len);
        self.keep(len).map_err(|error| error.moved_to(start))
    }

    /// Takes `len` bytes of which the window has only a part, to own them. The length stands before them.
    #[cold]
    fn copy_counted(&mut self, len: u64) -> Result<Vec<u8>, DecodeError> {
        let start = self.before_integer(len);
        let (source, len) = self.source_of(len).map_err(|error| error.moved_to(start))?;
        let mut copied = Vec::new();
        copied.try_reserve_exact(len).map_err(|_| self.no_memory(len).moved_to(start))?;
        copied.extend_from_slice(self.rest());
        source.append(self.offset() + copied.len(), len - copied.len(), &mut copied);
        debug_assert_eq!(copied.len(), len);
        self.resume_behind(len, source);
        Ok(copied)
    }

    /// Where the integer that was read last begins. Each value has only one encoding.
    #[cold]
    #[inline(never)]
    pub(super) fn before_integer(&self, value: u64) -> usize {
        self.offset() - varint::len(value)
    }

    /// Where to get `len` bytes of which the window has only a part.
    fn source_of(&self, len: u64) -> Result<(&'de dyn Remote, usize), DecodeError> {
        match (self.source, usize::try_from(len)) {
            (Some(source), Ok(len)) if len <= self.left() => Ok((source, len)),
            _ => Err(self.too_short(len)),
        }
    }

    /// Skips `len` bytes that were taken from the source, more than the window has.
    fn resume_behind(&mut self, len: usize, source: &'de dyn Remote) {
        self.beyond = self.left() - len;
        self.before = self.offset() + len;
        self.window = &[];
        self.at = 0;
        // With many large values in a row, a large window for each length between them would be a waste.
        if len >= *source.windows().end() {
            self.next_window = *source.windows().start();
        }
    }

    /// Makes the window have the next `len` bytes, of which it has only a part.
    #[cold]
    #[inline(never)]
    fn need(&mut self, len: usize) -> Result<(), DecodeError> {
        if self.left() >= len && self.refill(len) { Ok(()) } else { Err(self.too_short(len as u64)) }
    }

    /// Moves the window to the unread bytes: at least `len` of them, if there are as many. Returns `false` if
    /// there are no more than the window has.
    #[cold]
    pub(super) fn refill(&mut self, len: usize) -> bool {
        let Some(source) = self.source.filter(|_| self.beyond > 0) else { return false };
        let left = self.left();
        let len = self.next_window.max(len).min(left);
        let Some(window) = source.keep(self.offset(), len) else { return false };
        self.before = self.offset();
        self.window = window;
        debug_assert_eq!(self.window.len(), len);
        self.at = 0;
        self.beyond = left - len;
        self.next_window = self.next_window.saturating_mul(4).min(*source.windows().end());
        true
    }

    /// Reads the count of a sequence or map. Each element takes a byte or counts as empty.
    #[inline]
    pub(super) fn take_count(&mut self) -> Result<usize, DecodeError> {
        let count = varint::take(self)?;
        let most = self.left() as u64 + u64::from(self.empty_left);
        match usize::try_from(count) {
            Ok(len) if count <= most => Ok(len),
            _ => {
                let left = self.left();
                let empty = self.empty_left;
                let message = format!(
                    "count of {count} elements is more than the rest can hold (bytes left: {left}; elements \
                     without bytes: {empty} at most, codec::MAX_EMPTY_ELEMENTS)"
                );
                Err(DecodeError::new(DecodeErrorKind::Truncated, self.before_integer(count), message))
            }
        }
    }

    /// Reads the index of a loan, and claims it.
    pub(super) fn take_loan(&mut self) -> Result<Arc<dyn Loan>, DecodeError> {
        let index = varint::take_up_to(self, u32::MAX.into())? as u32;
        self.loans.and_then(|loans| loans.claim(index)).ok_or_else(|| {
            let message = format!(
                "value refers to loan {index}, which did not come with the message, or was claimed before"
            );
            DecodeError::new(DecodeErrorKind::Malformed, self.before_integer(index.into()), message)
        })
    }

    /// Counts an element that took no bytes.
    #[cold]
    pub(super) fn count_empty(&mut self) -> Result<(), DecodeError> {
        let error = || {
            let message =
                format!("over {MAX_EMPTY_ELEMENTS} elements without bytes (codec::MAX_EMPTY_ELEMENTS)");
            self.error(DecodeErrorKind::TooManyEmpty, message)
        };
        self.empty_left = self.empty_left.checked_sub(1).ok_or_else(error)?;
        Ok(())
    }

    /// The error that the bytes end too early.
    #[cold]
    pub(super) fn cut_short(&self) -> DecodeError {
        let end = self.offset() + self.left();
        DecodeError::new(DecodeErrorKind::Truncated, end, "bytes end within an integer")
    }

    /// The error of a value within too many others.
    #[cold]
    pub(super) fn too_deep(&self) -> DecodeError {
        let message = format!("value is nested deeper than {} levels (max_depth)", self.max_depth);
        self.error(DecodeErrorKind::TooDeep, message)
    }

    #[cold]
    fn no_memory(&self, len: usize) -> DecodeError {
        self.error(DecodeErrorKind::OutOfMemory, format!("no memory for {len} bytes"))
    }

    #[cold]
    fn too_short(&self, needed: u64) -> DecodeError {
        let left = self.left();
        self.error(
            DecodeErrorKind::Truncated,
            format!("bytes end within a value (needed: {needed}, left: {left})"),
        )
    }

    #[cold]
    pub(super) fn error(&self, kind: DecodeErrorKind, message: impl Into<Cow<'static, str>>) -> DecodeError {
        DecodeError::new(kind, self.offset(), message)
    }

    /// An error about the byte that was read last.
    #[cold]
    pub(super) fn bad_tag(&self, what: &str, tag: u8) -> DecodeError {
        let message = format!("{what} of {tag} is neither 0 nor 1");
        DecodeError::new(DecodeErrorKind::Malformed, self.offset() - 1, message)
    }

    /// The error that `bytes`, which were read last, are not UTF-8.
    #[cold]
    fn not_utf8(&self, bytes: &[u8], error: Utf8Error) -> DecodeError {
        let wrong = self.offset() - bytes.len() + error.valid_up_to();
        DecodeError::new(DecodeErrorKind::Malformed, wrong, "string is not UTF-8")
    }
}
