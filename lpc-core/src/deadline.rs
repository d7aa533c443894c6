//! Deadlines as text.

use core::time::Duration;

/// Reads a time: a whole number, not zero, and `ns`, `us`, `ms`, `s`, `min` or `h`. `None` for anything else.
///
/// ```
/// use core::time::Duration;
/// use lpc_core::deadline;
///
/// assert_eq!(deadline::parse("250ms"), Some(Duration::from_millis(250)));
/// assert_eq!(deadline::parse("2min"), Some(Duration::from_secs(120)));
/// assert_eq!(deadline::parse("soon"), None);
/// ```
#[must_use]
pub const fn parse(text: &str) -> Option<Duration> {
    let bytes = text.as_bytes();
    let mut digits = 0;
    let mut number: u64 = 0;
    while digits < bytes.len() && bytes[digits].is_ascii_digit() {
        number = match number.checked_mul(10) {
            Some(number) => number,
            None => return None,
        };
        number = match number.checked_add((bytes[digits] - b'0') as u64) {
            Some(number) => number,
            None => return None,
        };
        digits += 1;
    }
    if number == 0 {
        return None;
    }
    let seconds = match bytes.split_at(digits).1 {
        b"ns" => return Some(Duration::from_nanos(number)),
        b"us" => return Some(Duration::from_micros(number)),
        b"ms" => return Some(Duration::from_millis(number)),
        b"s" => Some(number),
        b"min" => number.checked_mul(60),
        b"h" => number.checked_mul(3600),
        _ => None,
    };
    match seconds {
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_known_and_nothing_else() {
        for (text, nanos) in
            [("7us", 7_000), ("30s", 30_000_000_000), ("1min", 60_000_000_000), ("2h", 7_200_000_000_000)]
        {
            assert_eq!(parse(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        for text in
            ["", "s", "5", "-1s", "1.5s", "5 s", "5S", "99999999999999999999s", "18446744073709551615h"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
