//! [`Sink`]: where encoded bytes go.

use std::sync::Arc;

use super::loan::Loan;
use super::{EncodeError, MAX_DEPTH, MAX_EMPTY_ELEMENTS};

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
///     fn written(&self) -> u64 {
///         self.len
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

    /// How many bytes it has taken.
    fn written(&self) -> u64;

    /// How deep values may nest: [`MAX_DEPTH`], unless it is said otherwise. Not more than
    /// [`DEEPEST`](super::DEEPEST).
    fn max_depth(&self) -> u32 {
        MAX_DEPTH
    }

    /// Counts elements that have taken no bytes, so many more of them.
    ///
    /// # Errors
    ///
    /// If they are more than their receiver takes: more than [`MAX_EMPTY_ELEMENTS`] in one message. By default
    /// those of one sequence are.
    fn count_empty(&mut self, elements: u64) -> Result<(), EncodeError> {
        if elements > MAX_EMPTY_ELEMENTS.into() { Err(too_many_empty()) } else { Ok(()) }
    }

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

/// The error of a message with too many elements that take no bytes.
#[cold]
pub fn too_many_empty() -> EncodeError {
    EncodeError::new(format!(
        "more than {MAX_EMPTY_ELEMENTS} elements without bytes, such as `()`, in one message \
         (codec::MAX_EMPTY_ELEMENTS); their number can be passed instead"
    ))
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

    #[inline]
    fn written(&self) -> u64 {
        self.len() as u64
    }
}
