//! Bytes that another process may write to while they are decoded.

use std::ops::RangeInclusive;

/// Bytes that can be copied but not referred to, because another process may write to them meanwhile.
///
/// Each call reads the bytes again, and may find others than an earlier call did. A
/// [`Decoder`](super::Decoder) looks only at copies, and never assumes that two copies agree.
///
/// ```
/// use lpc_core::codec::{Decoder, Remote};
///
/// /// Memory that no process writes to any more, so that it is its own copy.
/// struct Still(Vec<u8>);
///
/// impl Remote for Still {
///     fn len(&self) -> usize {
///         self.0.len()
///     }
///     fn keep(&self, offset: usize, len: usize) -> Option<&[u8]> {
///         Some(&self.0[offset..][..len])
///     }
///     fn append(&self, offset: usize, len: usize, into: &mut Vec<u8>) {
///         into.extend_from_slice(&self.0[offset..][..len]);
///     }
/// }
///
/// let body = Still(vec![0xac, 0x02, 2, b'a', b'b']);
/// let mut decoder = Decoder::remote(&body);
/// assert_eq!(decoder.next::<u32>()?, 300);
/// assert_eq!(decoder.next::<&str>()?, "ab");
/// decoder.end()?;
/// # Ok::<(), lpc_core::codec::DecodeError>(())
/// ```
pub trait Remote: Sync {
    /// How many bytes there are: always the same number.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A private copy of `offset..offset + len` that lives as long as `self`. `None` if there is no memory
    /// for it.
    ///
    /// A decoder keeps at most about twice as many bytes as there are.
    ///
    /// # Panics
    ///
    /// If the range is not within the bytes.
    fn keep(&self, offset: usize, len: usize) -> Option<&[u8]>;

    /// Appends a copy of `offset..offset + len` to `into`, which has room for it.
    ///
    /// # Panics
    ///
    /// If the range is not within the bytes.
    fn append(&self, offset: usize, len: usize, into: &mut Vec<u8>);

    /// How many bytes a decoder is to [`keep`](Self::keep) at a time for small values: at first, and at most.
    fn windows(&self) -> RangeInclusive<usize> {
        256..=64 << 10
    }
}
