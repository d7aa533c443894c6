//! [`Undecodable`]: how many bodies that do not decode a peer may send.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::Violation;

/// Bodies that do not decode, in a row, before a peer is disconnected.
pub const MAX_UNDECODABLE: u32 = 1024;

/// Counts the bodies of one peer that did not decode since the last one that did.
///
/// ```
/// use lpc_core::receive::{MAX_UNDECODABLE, Undecodable};
///
/// let bodies = Undecodable::default();
/// for _ in 0..MAX_UNDECODABLE {
///     bodies.failed()?;
/// }
/// bodies.decoded();
/// bodies.failed()?; // the first in a row
/// # Ok::<(), lpc_core::receive::Violation>(())
/// ```
///
/// A value that a type's `Deserialize` refuses is the fault of one call, and fails that call alone. A peer
/// that sends nothing else is not worth listening to.
#[derive(Debug, Default)]
pub struct Undecodable {
    /// Calls may be decoded by several threads. An update that is lost among them does no harm.
    in_a_row: AtomicU32,
}

impl Undecodable {
    /// A body was decoded.
    #[inline]
    pub fn decoded(&self) {
        if self.in_a_row.load(Relaxed) != 0 {
            self.in_a_row.store(0, Relaxed);
        }
    }

    /// A body did not decode.
    ///
    /// # Errors
    ///
    /// [`Violation::Undecodable`] where more than [`MAX_UNDECODABLE`] in a row did not.
    #[cold]
    pub fn failed(&self) -> Result<(), Violation> {
        if self.in_a_row.fetch_add(1, Relaxed) < MAX_UNDECODABLE {
            Ok(())
        } else {
            Err(Violation::Undecodable)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_sends_nothing_else_is_told_from_one_that_does() {
        let bodies = Undecodable::default();
        for _ in 0..3 {
            for _ in 0..MAX_UNDECODABLE {
                bodies.failed().unwrap();
            }
            bodies.decoded();
        }
        for _ in 0..MAX_UNDECODABLE {
            bodies.failed().unwrap();
        }
        assert!(matches!(bodies.failed(), Err(Violation::Undecodable)));
    }
}
