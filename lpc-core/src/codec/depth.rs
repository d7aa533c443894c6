//! [`Depth`]: how much deeper a value may nest.

use super::DEEPEST;

/// How many levels deeper a value may nest.
///
/// A node of a list or tree is one level, though there is an `Option` or newtype between it and the next:
/// those are thin, and count only where one is directly within another. None nests without end all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Depth(
    /// The levels, times two, and whether the value is directly within a thin one.
    u32,
);

impl Depth {
    const THIN: u32 = 1;
    const LEVEL: u32 = 2;

    #[inline]
    pub(super) const fn of(levels: u32) -> Self {
        let levels = if levels < DEEPEST { levels } else { DEEPEST };
        Self(levels * Self::LEVEL)
    }

    /// That of what is within a value.
    #[inline]
    pub(super) const fn within(self) -> Option<Self> {
        match (self.0 & !Self::THIN).checked_sub(Self::LEVEL) {
            Some(left) => Some(Self(left)),
            None => None,
        }
    }

    /// That of what is within a newtype or a `Some`.
    #[inline]
    pub(super) const fn within_thin(self) -> Option<Self> {
        if self.0 & Self::THIN == 0 {
            return Some(Self(self.0 | Self::THIN));
        }
        match self.0.checked_sub(Self::LEVEL) {
            Some(left) => Some(Self(left)),
            None => None,
        }
    }

    /// As a number below 2 to the power of [`BITS`](Self::BITS).
    #[inline]
    pub(super) const fn bits(self) -> u32 {
        self.0
    }

    #[inline]
    pub(super) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(super) const BITS: u32 = 12;
}

const _: () = assert!(Depth::of(u32::MAX).0 < 1 << Depth::BITS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_thin_counts_only_within_another_that_is() {
        let mut node = Depth::of(3);
        for _ in 0..3 {
            node = node.within_thin().and_then(Depth::within).expect("three of them");
        }
        let last = node.within_thin().expect("it is thin");
        assert_eq!((last.within(), last.within_thin()), (None, None));
        assert_eq!(node.within(), None);
        assert_eq!(Depth::from_bits(node.bits()), node);
    }

    #[test]
    fn nothing_nests_without_end() {
        let mut depth = Depth::of(u32::MAX);
        let thin = std::iter::from_fn(|| {
            depth = depth.within_thin()?;
            Some(())
        });
        assert_eq!(thin.count(), 1 + DEEPEST as usize);
    }
}
