//! The sending half of a connection.

/// Where a frame ends in all that one side sends: what tells, when the connection is over, whether the frame may have gone out.
///
/// The sequence of frames runs through the socket or through the ring of the quick lane, and a frame stands in one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamPosition {
    /// In the bytes that go through the socket.
    Socket(u64),
    /// In the slots of the ring.
    Ring(u64),
}
