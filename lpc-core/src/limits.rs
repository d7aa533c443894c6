//! The bounds that a connection keeps, in one place.

/// What one side of a connection accepts and allocates at most.
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
    /// The peer tells its own at the handshake; the smaller one holds.
    pub max_message: u64,
    /// Bytes of shared memory that one side keeps for what it sends over one connection, and that it maps of what
    /// its peer keeps. Default: 512 MiB. Pages that were never touched cost nothing.
    pub pool: u64,
    /// Segments that a peer may announce over one connection. Default: 64; doubling sizes need far fewer.
    pub max_segments: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_message: 256 << 20, pool: 512 << 20, max_segments: 64 }
    }
}
