//! [`Incoming`]: what a peer says, message by message.

use core::time::Duration;

use crate::error::Error;
use crate::frame::{BlockRef, CallId};

/// A message of the peer, its form checked.
///
/// `F` is a descriptor, `B` the bytes of a body.
#[derive(Debug)]
pub enum Incoming<F, B> {
    /// To a server: a method is called.
    Call {
        /// Its id, for the reply.
        call: CallId,
        /// The method's number; whether there is one is for the dispatcher to say.
        method: u16,
        /// Whether the client has other calls waiting: a hint.
        is_busy: bool,
        /// How long the caller still waits.
        time_left: Option<Duration>,
        /// The arguments.
        payload: Payload<B>,
        /// What is lent with them: each inside the bounds of an announced segment or object.
        loans: Vec<BlockRef>,
    },
    /// To a client: a call returned.
    Reply {
        /// The call's id; whether it waits is for [`Calls`](crate::calls::Calls) to say.
        call: CallId,
        /// The result.
        payload: Payload<B>,
        /// What is lent with it: each inside the bounds of an announced segment or object.
        loans: Vec<BlockRef>,
    },
    /// To a client: a call failed outside its implementation.
    Failure {
        /// The call's id.
        call: CallId,
        /// What the server says of it.
        error: Error,
    },
    /// The peer adds a segment. Its size has been checked against the limits, not against the descriptor.
    Segment {
        /// Its number: a free slot until now.
        number: u32,
        /// Its size in bytes.
        len: u64,
        /// Its descriptor; `None` where the system had none left here for it.
        descriptor: Option<F>,
    },
    /// The peer adds an object. Its range has been checked against the limits, not against the descriptor.
    Object {
        /// Its number, with the bit [`OBJECT`](crate::frame::OBJECT): a free slot until now.
        number: u32,
        /// Where the range begins in the file. Any byte will do, not only the first of a page.
        offset: u64,
        /// Bytes from there: one at least.
        len: u64,
        /// Its descriptor; `None` where the system had none left here for it.
        descriptor: Option<F>,
    },
    /// The peer does not use a segment or object any more: its number is free again. What was lent in it may
    /// still be read here.
    Retire {
        /// Its number.
        number: u32,
    },
    /// To a server: the block of the reply to `call` was read.
    Release {
        /// The call's id.
        call: CallId,
    },
    /// A loan in this side's pool is not read any more; whether there is one is for
    /// [`Lent`](crate::lent::Lent) to say.
    Return {
        /// The segment that it stands in.
        segment: u32,
        /// Its first page.
        page: u32,
    },
    /// The peer cannot read a segment of our pool.
    Refuse {
        /// Its number.
        segment: u32,
    },
    /// The peer cannot read the block that the body of this Call or Reply stands in, and asks for the same
    /// frame with the body in line. It does not read the block any more, and took none of the loans.
    Resend {
        /// The call's id.
        call: CallId,
    },
    /// To a server: `call` was cancelled. The call may be over, or never have been.
    Cancel {
        /// The call's id.
        call: CallId,
    },
    /// To a client: the server receives nothing more.
    Closing {
        /// How many slots of the client's ring it has taken.
        taken: u64,
    },
    /// The peer's memory for the quick lane.
    Ring {
        /// Its descriptor; `None` where the system had none left here for it.
        descriptor: Option<F>,
    },
    /// What the peer sends goes on in the ring.
    Switch,
    /// No message, but the end of them: this side [stops receiving](super::Entrance), and has taken all that
    /// it takes from the ring. The peer is to be told with Closing.
    Drained {
        /// How many slots of the peer's ring were taken.
        taken: u64,
    },
    /// The peer runs on this CPU, or did a moment ago: a hint.
    At {
        /// Its number.
        cpu: u64,
    },
}

/// The body of a call or a reply.
#[derive(Debug)]
pub enum Payload<B> {
    /// It came in the frame.
    Inline(B),
    /// It stands in the peer's pool, inside the bounds of an announced segment.
    Block(BlockRef),
    /// It came in the frame, and there was no memory for its bytes, so many of them.
    Lost(u64),
}
