//! [`Limits`]: the bounds that a connection keeps.

use crate::codec::MAX_DEPTH;

/// The most that one side of a connection accepts and allocates.
///
/// ```
/// use lpc_core::Limits;
///
/// let limits = Limits { max_message: 1 << 20, ..Limits::default() };
/// assert!(limits.pool > limits.max_message);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one encoded body, sent or received, on either lane. Default: 256 MiB.
    ///
    /// Each side announces its own in the handshake; the lower one holds.
    pub max_message: u64,
    /// Bytes of shared memory that one side keeps for what it sends over one connection, and that it maps of
    /// its peer's. Default: 512 MiB. Pages cost nothing until they are touched.
    pub pool: u64,
    /// Segments of such memory in one direction of a connection. Default: 64. Since their sizes double, far
    /// fewer are needed.
    pub max_segments: u32,
    /// Blocks of such memory that one side has in use at once, for bodies on their way and for loans.
    /// Default: 65,536.
    pub max_blocks: u32,
    /// Objects (files and sealed memory) that one side lends at once over one connection. Default: 64.
    pub max_objects: u32,
    /// Bytes of such objects. Default: 64 GiB. It bounds the address space that they take, not memory.
    pub lent: u64,
    /// Calls of one client in flight over one connection. Default: 1024.
    pub max_calls: u32,
    /// How deep values in a body may nest. Default: [`MAX_DEPTH`]; at most
    /// [`DEEPEST`](crate::codec::DEEPEST).
    ///
    /// Each side announces its own in the handshake; the lower one holds.
    pub max_depth: u32,
    /// Whether small frames go through rings in shared memory if the peer asks for it as well: the quick
    /// lane. Default: no.
    pub quick_lane: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message: 256 << 20,
            pool: 512 << 20,
            max_segments: 64,
            max_blocks: 1 << 16,
            max_objects: 64,
            lent: 64 << 30,
            max_calls: 1024,
            max_depth: MAX_DEPTH,
            quick_lane: false,
        }
    }
}
