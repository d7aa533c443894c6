//! What carries bodies between two processes.

use lpc_cli::measure::Service;

use crate::Result;

/// A way for bodies to the other process, or back.
pub(super) trait Carrier {
    /// Has a body of `seed`s carried, as long as `own`, in which it may be produced; returns the sum of what
    /// was read on the other side.
    fn carry(&mut self, own: &mut [u8], seed: u8) -> Result<u64>;

    /// Whether all bodies went this way.
    ///
    /// # Errors
    ///
    /// If some had to take another.
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// A carrier and its other process, which ends with this: first, so that it never sees a carrier that is half
/// gone.
pub(super) struct Opened {
    pub(super) service: Service,
    pub(super) carrier: Box<dyn Carrier>,
}
