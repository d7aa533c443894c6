//! [`Violation`]: what a peer may not do.

use core::fmt;

use super::announced::is_object;
use super::{MAX_UNDECODABLE, Role};
use crate::error::Error;
use crate::frame::{BadHeader, BlockRef, CallId, Kind, OBJECT};
use crate::ring::RingViolation;

/// A peer broke the protocol's rules.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    /// Bytes that are no header.
    #[error("{0}")]
    Header(#[from] BadHeader),
    /// A frame that this side never gets.
    #[error("a {kind:?} frame sent to a {role}")]
    Direction {
        /// The frame's kind.
        kind: Kind,
        /// The side that got it.
        role: Role,
    },
    /// A frame over the limit.
    #[error("a {kind:?} frame of {len} bytes, over the limit of {limit}")]
    TooLong {
        /// The frame's kind.
        kind: Kind,
        /// Its length.
        len: u64,
        /// What is accepted.
        limit: u64,
    },
    /// A frame of fixed length with another.
    #[error("a {kind:?} frame of {len} bytes")]
    Length {
        /// The frame's kind.
        kind: Kind,
        /// Its length.
        len: u64,
    },
    /// Too many bodies in a row that do not decode.
    #[error("more than {MAX_UNDECODABLE} bodies in a row that do not decode")]
    Undecodable,
    /// A Failure frame whose error does not decode.
    #[error("a failure that does not decode")]
    Failure(#[source] crate::control::Malformed),
    /// A frame of the quick lane where there is none, or where it does not belong.
    #[error("a {0:?} frame {1}")]
    Quick(Kind, &'static str),
    /// The ring holds what it cannot.
    #[error(transparent)]
    Ring(#[from] RingViolation),
    /// Descriptors that no frame declared.
    #[error("descriptors that no frame declared")]
    StrayDescriptors,
    /// A frame that declares a descriptor which did not come.
    #[error("a segment without its descriptor")]
    MissingDescriptor,
    /// A segment or object with a wrong number or size.
    #[error("{} of {len} bytes: {reason}", Name(*.number))]
    Segment {
        /// The announced number.
        number: u64,
        /// The announced size.
        len: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The end of a segment or object that was not announced, or is over already.
    #[error("{} was retired, which was not announced", Name(*.0))]
    Retire(u64),
    /// A block outside what was announced.
    #[error(
        "a block of {} bytes at page {} of {} is outside what was announced",
        .0.len, .0.page, Name(.0.segment.into())
    )]
    Block(BlockRef),
    /// A body that stands in an object.
    #[error("a body in {}, where only loans may stand", Name((*.0).into()))]
    BodyInObject(u32),
    /// A frame whose table of loans does not fit in it, or has a count that none has.
    #[error("a {kind:?} frame of {len} bytes with a broken table of loans")]
    Loans {
        /// The frame's kind.
        kind: Kind,
        /// Its length.
        len: u64,
    },
    /// A return of what is not lent.
    #[error("page {page} of {} was returned, where nothing is lent", Name((*.segment).into()))]
    NotLent {
        /// The segment.
        segment: u32,
        /// The page.
        page: u32,
    },
    /// A reply to a call that does not wait.
    #[error("a reply to call {:#x}, which does not wait for one", .0.as_u64())]
    UnknownCall(CallId),
    /// A second call of an id whose first is not over, or a Release of a block that is not out.
    #[error("call {:#x} {reason}", .call.as_u64())]
    CallState {
        /// The call.
        call: CallId,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// A segment's or object's number as messages put it.
struct Name(u64);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u32::try_from(self.0) {
            Ok(number) if is_object(number) => write!(f, "object {}", number & !OBJECT),
            _ => write!(f, "segment {}", self.0),
        }
    }
}

#[doc(hidden)]
impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        let message = format!("the peer broke the protocol: {violation}");
        Self::new(crate::ErrorKind::Protocol, message)
    }
}
