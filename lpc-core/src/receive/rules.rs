//! [`Rules`]: which frames a peer may send, which way, with which flags and of which length.

use super::{Role, Violation};
use crate::Limits;
use crate::frame::{BadHeader, BlockRef, Header, Kind, MAX_TABLE, OBJECT, TIME_LEFT};

/// Bytes of the error in a Failure frame at most, whatever `Limits::max_message` is.
pub const MAX_FAILURE: u64 = 64 << 10;

#[derive(Debug)]
pub(super) struct Rules {
    role: Role,
    /// What nearly all frames are.
    common: Kind,
    pub(super) limits: Limits,
    /// The peer has announced its memory for the quick lane.
    pub(super) has_announced_ring: bool,
    /// And it is mapped.
    pub(super) has_ring: bool,
}

impl Rules {
    /// Of a side in this role.
    pub(super) const fn new(role: Role, limits: Limits) -> Self {
        let common = match role {
            Role::Client => Kind::Reply,
            Role::Server => Kind::Call,
        };
        Self { role, common, limits, has_announced_ring: false, has_ring: false }
    }

    /// The header in these bytes, of a frame that may come that way, to this side, with these flags and this
    /// length.
    #[inline]
    pub(super) fn decode(&self, bytes: &[u8; Header::LEN], in_ring: bool) -> Result<Header, Violation> {
        match Header::decode_plain(bytes, self.common) {
            Some(header) if u64::from(header.len) <= self.limits.max_message => Ok(header),
            _ => self.decode_any(bytes, in_ring),
        }
    }

    fn decode_any(&self, bytes: &[u8; Header::LEN], in_ring: bool) -> Result<Header, Violation> {
        let header = Header::decode(bytes)?;
        let (kind, len) = (header.kind, u64::from(header.len));
        let for_us = match kind {
            Kind::Segment | Kind::Retire | Kind::Return | Kind::Resend | Kind::Refuse | Kind::At => true,
            Kind::Ring | Kind::Bell | Kind::Aside | Kind::Switch => true,
            Kind::Call | Kind::Release | Kind::Cancel => self.role == Role::Server,
            Kind::Reply | Kind::Failure | Kind::Closing => self.role == Role::Client,
        };
        if !for_us {
            return Err(Violation::Direction { kind, role: self.role });
        }
        self.check_lane(kind, in_ring)?;
        if !header.flags.are_among(kind.flags()) {
            return Err(Violation::Header(BadHeader::Flags(header.flags.as_byte())));
        }
        let (least, limit) = match kind {
            Kind::Call | Kind::Reply if header.is_mapped() => (BlockRef::LEN as u64, BlockRef::LEN as u64),
            Kind::Call | Kind::Reply => (0, self.limits.max_message),
            Kind::Failure => (0, MAX_FAILURE),
            Kind::Segment if header.call.as_u64() & u64::from(OBJECT) != 0 => (16, 16),
            Kind::Segment => (8, 8),
            Kind::Release | Kind::Retire | Kind::Return | Kind::Resend | Kind::Refuse => (0, 0),
            Kind::Cancel | Kind::Closing | Kind::At => (0, 0),
            Kind::Ring | Kind::Bell | Kind::Aside | Kind::Switch => (0, 0),
        };
        let limit = if header.has_loans() { limit.saturating_add(MAX_TABLE) } else { limit };
        let time_left = if header.has_deadline() { TIME_LEFT } else { 0 };
        let (least, limit) = (least + time_left, limit.saturating_add(time_left));
        if len > limit {
            return Err(Violation::TooLong { kind, len, limit });
        }
        if len < least {
            return Err(Violation::Length { kind, len });
        }
        Ok(header)
    }

    /// Makes sure that a frame may come the way that it came.
    fn check_lane(&self, kind: Kind, in_ring: bool) -> Result<(), Violation> {
        let reason = match kind {
            Kind::Segment | Kind::Ring | Kind::Bell if in_ring => "in the ring",
            Kind::Ring if !self.limits.quick_lane => "that nobody asked for",
            Kind::Ring if self.has_announced_ring => "for a second time",
            Kind::Bell | Kind::Switch if !self.has_ring => "without a ring",
            Kind::Aside if !in_ring => "in the socket",
            _ => return Ok(()),
        };
        Err(Violation::Quick(kind, reason))
    }
}
