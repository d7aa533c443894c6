//! [`Announced`]: the memory that the peer has announced, in which bodies and loans stand.

use core::time::Duration;
use std::collections::BTreeMap;

use super::Violation;
use crate::Limits;
use crate::arena::PAGE;
use crate::frame::{BlockRef, Header, MAX_LOANS, OBJECT};

/// The sizes of the segments and objects that the peer announced and did not retire, by number.
#[derive(Debug, Default)]
pub(super) struct Announced(BTreeMap<u32, u64>);

/// What stands behind the header of a Call or Reply.
#[derive(Debug, Default)]
pub(super) struct Body {
    /// Where the body is, if that is not in the frame.
    pub(super) block: Option<BlockRef>,
    /// How much of the frame's bytes the body is, if it is there.
    pub(super) len: usize,
    pub(super) loans: Vec<BlockRef>,
    pub(super) time_left: Option<Duration>,
}

pub(super) const fn is_object(number: u32) -> bool {
    number & OBJECT != 0
}

impl Announced {
    /// Adds a segment or an object. Gives its number.
    pub(super) fn add(
        &mut self,
        limits: &Limits,
        number: u64,
        offset: u64,
        len: u64,
    ) -> Result<u32, Violation> {
        let refuse = |reason| Err(Violation::Segment { number, len, reason });
        let Ok(slot) = u32::try_from(number) else {
            return refuse("no slot has this number");
        };
        if self.0.contains_key(&slot) {
            return refuse("it is there already");
        }
        if is_object(slot) {
            let lent: u64 = self.0.range(OBJECT..).map(|(_, len)| *len).sum();
            if slot & !OBJECT >= limits.max_objects {
                return refuse("more objects than Limits::max_objects");
            }
            if lent.checked_add(len).is_none_or(|sum| sum > limits.lent) {
                return refuse("more bytes of objects than Limits::lent");
            }
            if len == 0 || offset.checked_add(len).is_none() {
                return refuse("an object is a range of bytes");
            }
        } else {
            let mapped: u64 = self.0.range(..OBJECT).map(|(_, len)| *len).sum();
            if slot >= limits.max_segments {
                return refuse("more segments than Limits::max_segments");
            }
            if mapped.checked_add(len).is_none_or(|sum| sum > limits.pool) {
                return refuse("more shared memory than Limits::pool");
            }
            if len == 0 || !len.is_multiple_of(PAGE) {
                return refuse("a segment is made of whole pages");
            }
        }
        self.0.insert(slot, len);
        Ok(slot)
    }

    /// Frees a number.
    pub(super) fn retire(&mut self, number: u64) -> Result<u32, Violation> {
        let known = u32::try_from(number).ok().filter(|number| self.0.remove(number).is_some());
        known.ok_or(Violation::Retire(number))
    }

    /// What the bytes of a Call or Reply are made of: its blocks are inside what was announced.
    pub(super) fn body(&self, limits: &Limits, header: &Header, mut bytes: &[u8]) -> Result<Body, Violation> {
        let (kind, len) = (header.kind, u64::from(header.len));
        let mut loans = Vec::new();
        let mut time_left = None;
        if header.has_deadline() {
            let nanos;
            (bytes, nanos) = bytes.split_last_chunk().ok_or(Violation::Length { kind, len })?;
            time_left = Some(Duration::from_nanos(u64::from_le_bytes(*nanos)));
        }
        if header.has_loans() {
            let entries;
            (bytes, entries) = split_table(bytes).ok_or(Violation::Loans { kind, len })?;
            loans = entries.iter().map(|entry| self.check(entry)).collect::<Result<_, _>>()?;
        }
        let mut block = None;
        if header.is_mapped() {
            let place = self.check(bytes.try_into().map_err(|_| Violation::Length { kind, len })?)?;
            if is_object(place.segment) {
                return Err(Violation::BodyInObject(place.segment));
            }
            block = Some(place);
        }
        // Now that it is known how much of the frame the body is.
        let len = block.map_or(bytes.len() as u64, |block| block.len);
        if len > limits.max_message {
            return Err(Violation::TooLong { kind, len, limit: limits.max_message });
        }
        Ok(Body { block, len: bytes.len(), loans, time_left })
    }

    /// The block in these bytes, if it is inside what was announced.
    fn check(&self, block: &[u8; BlockRef::LEN]) -> Result<BlockRef, Violation> {
        let block = BlockRef::decode(block);
        let size = self.0.get(&block.segment);
        let end = u64::from(block.page).checked_mul(PAGE).and_then(|start| start.checked_add(block.len));
        // Both must be there: even an empty block is of a segment or object that was announced.
        if size.zip(end).is_none_or(|(size, end)| end > *size) {
            return Err(Violation::Block(block));
        }
        Ok(block)
    }
}

/// Parts the bytes of a frame in the body and the entries of the table of loans behind it.
fn split_table(bytes: &[u8]) -> Option<(&[u8], &[[u8; BlockRef::LEN]])> {
    let (bytes, count) = bytes.split_last_chunk()?;
    let count = usize::from(u16::from_le_bytes(*count));
    if !(1..=MAX_LOANS).contains(&count) {
        return None;
    }
    let (body, table) = bytes.split_at(bytes.len().checked_sub(count * BlockRef::LEN)?);
    Some((body, table.as_chunks().0))
}
