//! Bytes that one side writes and the other reads, and the proof that it did.

/// Writes every byte.
///
/// Never inlined, so that it is the same code wherever it is measured.
#[inline(never)]
pub fn produce(bytes: &mut [u8], seed: u8) {
    bytes.fill(seed);
}

/// Reads every byte, eight at a time.
///
/// Never inlined, so that it is the same code wherever it is measured.
#[inline(never)]
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().fold(0_u64, |sum, word| sum.wrapping_add(u64::from_ne_bytes(*word)));
    rest.iter().fold(words, |sum, byte| sum.wrapping_add(u64::from(*byte)))
}

/// What [`sum`] makes of `len` bytes that [`produce`] wrote.
pub fn sum_of(len: usize, seed: u8) -> u64 {
    let word = u64::from_ne_bytes([seed; 8]);
    word.wrapping_mul(len as u64 / 8).wrapping_add(u64::from(seed) * (len as u64 % 8))
}

/// What the bytes of a call are filled with: no call's are those of the call before, and none are 0, which
/// memory may be without anybody writing to it.
#[derive(Debug, Default)]
pub struct Seeds(u8);

impl Iterator for Seeds {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        self.0 = self.0 % u8::MAX + 1;
        Some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expected_sum_is_the_sum() {
        for len in [0, 1, 7, 8, 4096, 4099] {
            for seed in [1, 128, 255] {
                let mut bytes = vec![0; len];
                produce(&mut bytes, seed);
                assert_eq!(sum(&bytes), sum_of(len, seed));
            }
        }
    }

    #[test]
    fn seeds_change_with_each_call_and_are_never_zero() {
        let drawn: Vec<_> = Seeds::default().take(600).collect();
        assert!(drawn.windows(2).all(|two| two[0] != two[1]) && !drawn.contains(&0));
    }
}
