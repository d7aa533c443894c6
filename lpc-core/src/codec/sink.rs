//! [`Sink`]: where encoded bytes go.

use std::sync::Arc;

use super::EncodeError;
use super::loan::Loan;

/// Where encoded bytes go.
///
/// ```
/// use lpc_core::codec::{EncodeError, Sink, encode};
///
/// /// Counts, and stops at a limit.
/// struct Measure { len: u64, limit: u64 }
///
/// impl Sink for Measure {
///     fn push(&mut self, byte: u8) -> Result<(), EncodeError> {
///         self.extend(&[byte])
///     }
///     fn extend(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
///         self.len += bytes.len() as u64;
///         let Self { len, limit } = *self;
///         if len > limit { Err(EncodeError::TooLarge { len, limit }) } else { Ok(()) }
///     }
/// }
///
/// let mut measure = Measure { len: 0, limit: 6 };
/// encode("hello", &mut measure).unwrap();
/// assert!(encode("!", &mut measure).unwrap_err().is_too_large());
/// ```
pub trait Sink {
    /// Appends one byte.
    ///
    /// # Errors
    ///
    /// If the sink accepts no more. Encoding then stops.
    fn push(&mut self, byte: u8) -> Result<(), EncodeError>;

    /// Appends `bytes`.
    ///
    /// # Errors
    ///
    /// If the sink accepts no more. Encoding then stops.
    fn extend(&mut self, bytes: &[u8]) -> Result<(), EncodeError>;

    /// Carries `loan` beside the message, and returns the index by which the receiver is to claim it. `None`
    /// if its bytes are to be written inline, as they are by default.
    ///
    /// # Errors
    ///
    /// If the sink accepts no more. Encoding then stops.
    fn lend(&mut self, _loan: &Arc<dyn Loan>) -> Result<Option<u32>, EncodeError> {
        Ok(None)
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn push(&mut self, byte: u8) -> Result<(), EncodeError> {
        Vec::push(self, byte);
        Ok(())
    }

    #[inline]
    fn extend(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}
