//! The values that are made up.

/// One of these letters, and the number of the letter, is tried before anything else: so that two fields
/// differ, and both from what is empty.
pub(super) const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";
/// The strings that are tried then, in this order. A type may want a certain format; these are the usual
/// ones.
pub(super) const STRINGS: [&str; 12] = [
    "1",
    "",
    "a",
    "127.0.0.1",
    "127.0.0.1:1",
    "http://a/",
    "a@b.c",
    "1.0.0",
    "00000000-0000-0000-0000-000000000001",
    "2000-01-01",
    "01:01:01",
    "2000-01-01T01:01:01Z",
];
/// A `NonZero` is not 0, and most ranges contain one of these: percentages, ports, years, seconds since 1970.
/// If a number does not fit the type, its lowest bits are used.
pub(super) const NUMBERS: [i64; 12] =
    [1, 0, 2, 10, 100, 1_000, 2_000, 10_000, 50_000, 1_000_000, 1_700_000_000, -1];
pub(super) const FRACTIONS: [f32; 8] = [1.0, 0.5, 0.0, -1.0, 10.0, 100.0, 1_000.0, 1_000_000.0];
pub(super) const CHARS: [char; 6] = ['a', 'A', '0', ' ', '-', '\u{e9}'];
/// Lengths: of a UUID, an address, or a key for example.
pub(super) const LENGTHS: [usize; 9] = [1, 0, 2, 4, 8, 16, 20, 32, 64];
pub(super) const BYTES: [u8; 64] = [1; 64];
/// The lengths of a sequence that was refused with one element and with none.
pub(super) const FILLINGS: [usize; 3] = [2, 4, 8];
