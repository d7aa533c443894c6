//! Bytes that are read through windows, as those in another process's memory are.

use std::ops::RangeInclusive;

use lpc_core::codec::{DecodeError, Decoder, Remote};
use serde::de::DeserializeOwned;

/// Windows that end within all sorts of values, and those of everyday use.
pub(crate) const WINDOWS: [RangeInclusive<usize>; 4] = [1..=1, 3..=3, 1..=37, 256..=64 << 10];

/// Nobody writes to these, so that they are their own copy.
pub(crate) struct Still<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) windows: RangeInclusive<usize>,
}

impl Remote for Still<'_> {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn keep(&self, offset: usize, len: usize) -> Option<&[u8]> {
        Some(&self.bytes[offset..][..len])
    }

    fn append(&self, offset: usize, len: usize, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.bytes[offset..][..len]);
    }

    fn windows(&self) -> RangeInclusive<usize> {
        self.windows.clone()
    }
}

/// Decodes `bytes` from where they are, and through windows. The one and the other must be `same`, or have
/// failed by the same error.
pub(crate) fn decoded<T: DeserializeOwned>(
    bytes: &[u8],
    same: impl Fn(&T, &T) -> bool,
) -> Result<T, DecodeError> {
    let decoded = all(Decoder::new(bytes));
    for windows in WINDOWS {
        let source = Still { bytes, windows: windows.clone() };
        match (&decoded, &all(Decoder::remote(&source))) {
            (Ok(one), Ok(other)) => assert!(same(one, other), "{windows:?} give another value"),
            (one, other) => assert_eq!(one.as_ref().err(), other.as_ref().err(), "{windows:?}"),
        }
    }
    decoded
}

fn all<T: DeserializeOwned>(mut decoder: Decoder<'_>) -> Result<T, DecodeError> {
    let value = decoder.next()?;
    decoder.end()?;
    Ok(value)
}
