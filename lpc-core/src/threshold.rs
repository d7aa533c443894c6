//! The size above which a body travels through shared memory.

use core::fmt;

/// The encoded size, in bytes, above which a body takes the mapping lane instead of the socket.
///
/// ```
/// # use lpc_core as lpc;
/// use lpc::Threshold;
///
/// assert_eq!(Threshold::parse("64KiB"), Some(Threshold::bytes(64 * 1024)));
/// assert_eq!(Threshold::parse("off"), Some(Threshold::OFF));
/// assert_eq!(Threshold::parse("always"), Some(Threshold::ALWAYS));
/// assert_eq!(Threshold::parse("sometimes"), None);
/// assert_eq!(Threshold::bytes(65536).to_string(), "64KiB");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Threshold(u64);

impl Threshold {
    /// No body ever takes the mapping lane.
    pub const OFF: Self = Self(u64::MAX);

    /// Every body takes the mapping lane, unless it is empty.
    pub const ALWAYS: Self = Self(0);

    /// The threshold unless another is set: 4 KiB. `benches/README.md` has the measurement behind it.
    pub const DEFAULT: Self = Self(4 << 10);

    /// Bodies of more than `bytes` bytes take the mapping lane.
    #[must_use]
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Reads `"off"`, `"always"`, or a size: `"4096"`, `"16KiB"`, `"1MiB"`, `"1GiB"` (powers of 1024).
    ///
    /// `None` for anything else. It is a `const fn`, so that the compiler checks the text of an attribute.
    #[must_use]
    pub const fn parse(text: &str) -> Option<Self> {
        match text.as_bytes() {
            b"off" => return Some(Self::OFF),
            b"always" => return Some(Self::ALWAYS),
            _ => {}
        }
        let bytes = text.as_bytes();
        let mut digits = 0;
        let mut value: u64 = 0;
        while digits < bytes.len() && bytes[digits].is_ascii_digit() {
            value = match value.checked_mul(10) {
                Some(tens) => match tens.checked_add((bytes[digits] - b'0') as u64) {
                    Some(sum) => sum,
                    None => return None,
                },
                None => return None,
            };
            digits += 1;
        }
        let unit: u64 = match bytes.split_at(digits).1 {
            b"" | b"B" => 1,
            b"KiB" => 1 << 10,
            b"MiB" => 1 << 20,
            b"GiB" => 1 << 30,
            _ => return None,
        };
        match value.checked_mul(unit) {
            Some(bytes) if digits > 0 => Some(Self(bytes)),
            _ => None,
        }
    }

    /// The size in bytes; `u64::MAX` stands for [`OFF`](Self::OFF).
    #[must_use]
    pub const fn as_bytes(self) -> u64 {
        self.0
    }

    /// Whether a body of `len` bytes takes the mapping lane.
    #[must_use]
    pub const fn is_exceeded_by(self, len: u64) -> bool {
        len > self.0
    }
}

impl Default for Threshold {
    /// [`Threshold::DEFAULT`].
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::OFF => f.write_str("off"),
            Self::ALWAYS => f.write_str("always"),
            Self(bytes) if bytes % (1 << 30) == 0 => write!(f, "{}GiB", bytes >> 30),
            Self(bytes) if bytes % (1 << 20) == 0 => write!(f, "{}MiB", bytes >> 20),
            Self(bytes) if bytes % (1 << 10) == 0 => write!(f, "{}KiB", bytes >> 10),
            Self(bytes) => write!(f, "{bytes}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_no_size_is_refused() {
        for text in [
            "",
            "KiB",
            "-1",
            "1 KiB",
            "1kb",
            "0x10",
            "99999999999999999999",
            "18446744073709551615KiB",
            "Off",
        ] {
            assert_eq!(Threshold::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_displayed_parses_back() {
        for bytes in [0, 1, 1023, 1024, 4096, 1 << 20, 3 << 30, u64::MAX] {
            let threshold = Threshold::bytes(bytes);
            assert_eq!(Threshold::parse(&threshold.to_string()), Some(threshold));
        }
    }
}
