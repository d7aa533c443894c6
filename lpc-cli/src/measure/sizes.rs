//! Sizes of bodies, as they are written on a command line.

use lpc::Threshold;

/// Sizes, each `FACTOR` times the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes<const FACTOR: u64>(Vec<u64>);

impl<const FACTOR: u64> Sizes<FACTOR> {
    /// Reads one size, or the first and the last: `64KiB`, `256B..1MiB`.
    ///
    /// ```
    /// use lpc_cli::measure::Sizes;
    /// assert_eq!(Sizes::<4>::parse("4KiB..64KiB").unwrap().as_slice(), [4096, 16384, 65536]);
    /// ```
    ///
    /// # Errors
    ///
    /// If the text is not that, in words for a user.
    pub fn parse(text: &str) -> Result<Self, String> {
        // A size is written as a threshold is.
        let size = |text: &str| match Threshold::parse(text) {
            Some(size) if size != Threshold::OFF && size != Threshold::ALWAYS => Ok(size.as_bytes()),
            _ => Err(format!("{text:?} is no size such as `64KiB`")),
        };
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        let (from, to) = (size(from)?, size(to)?);
        let sizes: Vec<_> = std::iter::successors(Some(from), |size| size.checked_mul(FACTOR))
            .take_while(|size| *size <= to)
            .collect();
        if sizes.is_empty() { Err("the first size is above the last".into()) } else { Ok(Self(sizes)) }
    }

    /// From the smallest to the largest; never empty.
    pub fn as_slice(&self) -> &[u64] {
        &self.0
    }

    /// The largest.
    pub fn largest(&self) -> u64 {
        self.0[self.0.len() - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_go_up_to_the_last() {
        let sizes = Sizes::<2>::parse("1KiB..5KiB").unwrap();
        assert_eq!((sizes.as_slice(), sizes.largest()), ([1024, 2048, 4096].as_slice(), 4096));
        assert_eq!(Sizes::<4>::parse("1MiB").unwrap().as_slice(), [1 << 20]);
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "off", "0", "64KiB..4KiB", "4KiB..always", "4KiB..", "..4KiB", "4 KiB"] {
            assert!(Sizes::<4>::parse(text).is_err(), "{text}");
        }
    }
}
