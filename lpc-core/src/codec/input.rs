//! The bytes that values are decoded from: nothing is read past their end, or trusted for being there.

use std::borrow::Cow;

use super::{DecodeError, DecodeErrorKind, MAX_EMPTY_ELEMENTS, varint};

/// The bytes, and how far they are read.
#[derive(Debug)]
pub(super) struct Input<'de> {
    bytes: &'de [u8],
    at: usize,
    /// How many more elements may take no bytes.
    empty_left: u32,
}

impl<'de> Input<'de> {
    pub(super) fn new(bytes: &'de [u8]) -> Self {
        Self { bytes, at: 0, empty_left: MAX_EMPTY_ELEMENTS }
    }

    #[inline]
    pub(super) fn offset(&self) -> usize {
        self.at
    }

    #[inline]
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        let byte = self.peek().ok_or_else(|| self.too_short(1))?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// What is not read yet.
    #[inline]
    pub(super) fn rest(&self) -> &'de [u8] {
        &self.bytes[self.at..]
    }

    /// Goes past the first `len` bytes of the [`rest`](Self::rest), which were looked at there.
    #[inline]
    pub(super) fn skip(&mut self, len: usize) {
        debug_assert!(len <= self.left());
        self.at += len;
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Result<&'de [u8], DecodeError> {
        let taken = self.rest().get(..len).ok_or_else(|| self.too_short(len as u64))?;
        self.at += len;
        Ok(taken)
    }

    #[inline]
    pub(super) fn take_array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let taken = self.rest().first_chunk().ok_or_else(|| self.too_short(N as u64))?;
        self.at += N;
        Ok(*taken)
    }

    /// Reads a length, and as many bytes.
    #[inline]
    pub(super) fn take_counted(&mut self) -> Result<&'de [u8], DecodeError> {
        let start = self.at;
        let len = varint::take(self)?;
        match usize::try_from(len) {
            Ok(len) if len <= self.left() => self.take(len),
            _ => Err(self.too_short(len).moved_to(start)),
        }
    }

    #[inline]
    pub(super) fn take_str(&mut self) -> Result<&'de str, DecodeError> {
        let bytes = self.take_counted()?;
        std::str::from_utf8(bytes).map_err(|error| {
            let start = self.at - bytes.len();
            let wrong = start + error.valid_up_to();
            DecodeError::new(DecodeErrorKind::Malformed, wrong, "string is not UTF-8")
        })
    }

    /// Reads the count of a sequence or map. Each element takes a byte or counts as empty.
    #[inline]
    pub(super) fn take_count(&mut self) -> Result<usize, DecodeError> {
        let start = self.at;
        let count = varint::take(self)?;
        let most = self.left() as u64 + u64::from(self.empty_left);
        match usize::try_from(count) {
            Ok(len) if count <= most => Ok(len),
            _ => {
                let left = self.left();
                let message =
                    format!("count of {count} elements is more than the rest can hold (bytes left: {left})");
                Err(DecodeError::new(DecodeErrorKind::Truncated, start, message))
            }
        }
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

    /// The error that the bytes end where another should be.
    #[cold]
    pub(super) fn cut_short(&self) -> DecodeError {
        let end = self.bytes.len();
        DecodeError::new(DecodeErrorKind::Truncated, end, "bytes end within an integer")
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
        DecodeError::new(kind, self.at, message)
    }

    /// An error about the byte that was read last.
    #[cold]
    pub(super) fn bad_tag(&self, what: &str, tag: u8) -> DecodeError {
        let message = format!("{what} of {tag} is neither 0 nor 1");
        DecodeError::new(DecodeErrorKind::Malformed, self.at - 1, message)
    }
}
