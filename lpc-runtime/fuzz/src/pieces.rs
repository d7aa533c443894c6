//! Bytes that arrive bit by bit, and descriptors with some of them.

/// What one receive brings.
pub(crate) struct Piece<'a> {
    pub(crate) bytes: &'a [u8],
    /// Up to three.
    pub(crate) descriptors: u8,
    /// One more came along, for which there was none left.
    pub(crate) is_lossy: bool,
}

/// The pieces that the fuzzer's bytes stand for: of each a byte that says how many descriptors (2 bits),
/// whether one is lost (1 bit) and how many bytes (5 bits, or all set and two bytes more), then the bytes.
pub(crate) fn pieces(mut data: &[u8]) -> impl Iterator<Item = Piece<'_>> {
    std::iter::from_fn(move || {
        let (&control, rest) = data.split_first()?;
        let (len, rest) = match (control >> 3, rest.split_first_chunk()) {
            (31, Some((len, rest))) => (u16::from_le_bytes(*len), rest),
            (len, _) => (u16::from(len), rest),
        };
        let (bytes, rest) = rest.split_at(rest.len().min(len.into()));
        data = rest;
        // Descriptors travel with bytes alone.
        let has_bytes = !bytes.is_empty();
        let descriptors = if has_bytes { control & 3 } else { 0 };
        Some(Piece { bytes, descriptors, is_lossy: has_bytes && control & 4 != 0 })
    })
}
