//! Variable-length integers: seven bits a byte, the lowest first, the top bit set on all bytes but the last.

use super::input::Input;
use super::sink::Sink;
use super::{DecodeError, DecodeErrorKind, EncodeError};

/// The most bytes of an integer of 64 bits.
const MAX_LEN: usize = 10;

/// How many bytes `value` takes.
pub(super) const fn len(value: u64) -> usize {
    let bits = u64::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Writes `value`, by one call of the sink. A smaller integer type has the same encoding.
#[inline]
pub(super) fn put<S: Sink + ?Sized>(sink: &mut S, value: u64) -> Result<(), EncodeError> {
    if value < 0x80 { sink.push(value as u8) } else { put_long(sink, value) }
}

#[inline(never)]
fn put_long<S: Sink + ?Sized>(sink: &mut S, value: u64) -> Result<(), EncodeError> {
    let mut bytes = [0; MAX_LEN];
    let mut len = 0;
    let mut rest = value;
    while rest >= 0x80 {
        bytes[len] = rest as u8 | 0x80;
        rest >>= 7;
        len += 1;
    }
    bytes[len] = rest as u8;
    sink.extend(&bytes[..=len])
}

/// Writes `value`, by one call of the sink.
pub(super) fn put_u128<S: Sink + ?Sized>(sink: &mut S, value: u128) -> Result<(), EncodeError> {
    if let Ok(value) = u64::try_from(value) {
        return put(sink, value);
    }
    let mut bytes = [0; 19];
    let mut len = 0;
    let mut rest = value;
    while rest >= 0x80 {
        bytes[len] = rest as u8 | 0x80;
        rest >>= 7;
        len += 1;
    }
    bytes[len] = rest as u8;
    sink.extend(&bytes[..=len])
}

/// Reads an integer of 64 bits.
#[inline]
pub(super) fn take(input: &mut Input<'_>) -> Result<u64, DecodeError> {
    match input.peek() {
        Some(byte @ ..0x80) => {
            input.skip(1);
            Ok(byte.into())
        }
        _ => take_long(input),
    }
}

/// Reads an integer that must not be over `max`.
#[inline]
pub(super) fn take_up_to(input: &mut Input<'_>, max: u64) -> Result<u64, DecodeError> {
    let value = take(input)?;
    if value > max { Err(too_big(input.before_integer(value))) } else { Ok(value) }
}

#[inline(never)]
fn take_long(input: &mut Input<'_>) -> Result<u64, DecodeError> {
    let mut value = 0;
    let mut shift = 0;
    for (at, &byte) in input.rest().iter().enumerate() {
        let bits = u64::from(byte & 0x7f);
        if bits > u64::MAX >> shift {
            return Err(too_big(input.offset()));
        }
        value |= bits << shift;
        if byte < 0x80 {
            if byte == 0 && at > 0 {
                return Err(too_long(input.offset()));
            }
            input.skip(at + 1);
            return Ok(value);
        }
        shift += 7;
        if shift >= u64::BITS {
            return Err(too_big(input.offset()));
        }
    }
    take_across(input)
}

/// Reads an integer of which the window has only a part. Another copy of that part may differ, so it starts
/// again.
#[cold]
#[inline(never)]
fn take_across(input: &mut Input<'_>) -> Result<u64, DecodeError> {
    if input.refill(MAX_LEN) { take_long(input) } else { Err(input.cut_short()) }
}

/// Reads an integer of 128 bits.
pub(super) fn take_u128(input: &mut Input<'_>) -> Result<u128, DecodeError> {
    let start = input.offset();
    let mut value = 0;
    for shift in (0..u128::BITS).step_by(7) {
        let byte = input.byte()?;
        let bits = u128::from(byte & 0x7f);
        if bits > u128::MAX >> shift {
            return Err(too_big(start));
        }
        value |= bits << shift;
        if byte < 0x80 {
            if byte == 0 && shift > 0 {
                return Err(too_long(start));
            }
            return Ok(value);
        }
    }
    Err(too_big(start))
}

#[cold]
fn too_big(start: usize) -> DecodeError {
    DecodeError::new(DecodeErrorKind::Malformed, start, "integer is too big for its type")
}

#[cold]
fn too_long(start: usize) -> DecodeError {
    DecodeError::new(DecodeErrorKind::Malformed, start, "integer has more bytes than it needs")
}

/// Maps small numbers of either sign to small unsigned ones: 0, -1, 1, -2, …
#[inline]
pub(super) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The reverse of [`zigzag`].
#[inline]
pub(super) const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// [`zigzag`] for 128 bits.
#[inline]
pub(super) const fn zigzag_i128(value: i128) -> u128 {
    ((value << 1) ^ (value >> 127)) as u128
}

/// The reverse of [`zigzag_i128`].
#[inline]
pub(super) const fn unzigzag_i128(value: u128) -> i128 {
    (value >> 1) as i128 ^ -((value & 1) as i128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_of_each_length_come_back() {
        let edges = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit]).chain([u64::MAX]);
        for value in edges {
            let mut bytes = Vec::new();
            put(&mut bytes, value).unwrap();
            assert_eq!(bytes.len(), len(value));
            assert_eq!(take(&mut Input::new(&bytes)).unwrap(), value);
            assert_eq!(unzigzag(zigzag(value as i64)), value as i64);
        }
    }

    #[test]
    fn needless_bytes_and_too_many_bits_are_errors() {
        for bytes in [&[0x80, 0][..], &[0xff, 0x80, 0], &[0xff; 9], &[0xff; 40]] {
            take(&mut Input::new(bytes)).unwrap_err();
        }
        let mut ten = [0xff; 10];
        ten[9] = 1;
        assert_eq!(take(&mut Input::new(&ten)).unwrap(), u64::MAX);
        ten[9] = 2;
        assert_eq!(take(&mut Input::new(&ten)).unwrap_err().offset(), 0);
        let mut nineteen = [0xff; 19];
        nineteen[18] = 3;
        assert_eq!(take_u128(&mut Input::new(&nineteen)).unwrap(), u128::MAX);
        nineteen[18] = 4;
        take_u128(&mut Input::new(&nineteen)).unwrap_err();
    }

    #[test]
    fn a_smaller_type_has_a_smaller_limit() {
        let mut bytes = Vec::new();
        put(&mut bytes, 65_536).unwrap();
        assert_eq!(take_up_to(&mut Input::new(&bytes), 65_536).unwrap(), 65_536);
        take_up_to(&mut Input::new(&bytes), 65_535).unwrap_err();
    }
}
