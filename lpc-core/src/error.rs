//! [`Error`]: what went wrong with a call, and whether it may have run.

use core::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::control::{self, Malformed};

/// The result of whatever can fail in lpc.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Why a call, a connection or a server failed.
///
/// ```
/// # use lpc_core as lpc;
/// use lpc::{Error, ErrorKind};
///
/// fn word_count(text: &str) -> lpc::Result<usize> {
///     if text.is_empty() {
///         return Err(Error::other("the document is empty"));
///     }
///     Ok(text.split_whitespace().count())
/// }
/// let error = word_count("").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Other);
/// assert_eq!(error.to_string(), "the document is empty");
/// ```
///
/// [`kind`](Error::kind) is for code, the text for people, and [`progress`](Error::progress) tells whether it
/// is safe to call again. An error is one pointer wide and cheap to clone. When an implementation returns
/// one, its caller gets an error of the same kind and text, with [`Progress::Ran`].
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    progress: Progress,
    message: String,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// What kind of failure an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum ErrorKind {
    /// An implementation's own failure, or one that has no kind of its own.
    Other = 0,
    /// The port's name or path cannot be one, or a setting cannot be used.
    InvalidInput = 1,
    /// No server listens at the port.
    NotFound = 2,
    /// Another server holds the port.
    AddrInUse = 3,
    /// The peer, or the port's directory, belongs to a user that is not accepted.
    PermissionDenied = 4,
    /// The peer did not answer in time.
    TimedOut = 5,
    /// The peer does not speak lpc, or speaks another version, or broke the protocol's rules.
    Protocol = 6,
    /// The peer serves another service.
    WrongService = 7,
    /// The peer's service has no method of this name.
    UnknownMethod = 8,
    /// An argument or a result is over a limit.
    TooLarge = 9,
    /// An argument or a result could not be encoded.
    Encode = 10,
    /// The received bytes are no value of the expected type.
    Decode = 11,
    /// The connection ended before the reply came.
    Disconnected = 12,
    /// The implementation panicked.
    Panicked = 13,
    /// A system call failed.
    Io = 14,
    /// A quota of the connection is used up, or one side has no memory, descriptor or address space left.
    ResourceExhausted = 15,
    /// The call was cancelled: its deadline has passed, its future was dropped, or its caller is gone.
    Cancelled = 16,
    /// The method's arguments or result differ between the two sides.
    Incompatible = 17,
}

/// How far a call got before it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Progress {
    /// It did not reach the implementation, so to call again cannot run it twice.
    NotSent = 0,
    /// It was sent, and no reply has come.
    MayHaveRun = 1,
    /// The implementation ran, and it failed or its result could not be delivered.
    Ran = 2,
}

impl Error {
    /// An error of this kind and text, with [`Progress::NotSent`].
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, progress: Progress::NotSent, message: message.into(), source: None }))
    }

    /// A failure of the implementation's own, which its caller gets as a text.
    #[must_use]
    pub fn other(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Other, message.to_string()).with_progress(Progress::Ran)
    }

    /// The same error with another progress.
    #[must_use]
    pub fn with_progress(mut self, progress: Progress) -> Self {
        Arc::make_mut(&mut self.0).progress = progress;
        self
    }

    /// The same error with what caused it, as its [`source`](std::error::Error::source).
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.0).source = Some(Arc::new(source));
        self
    }

    /// The same error with `context: ` before its text.
    #[must_use]
    pub fn with_context(mut self, context: impl fmt::Display) -> Self {
        let inner = Arc::make_mut(&mut self.0);
        inner.message = format!("{context}: {}", inner.message);
        self
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// How far the call got.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.0.progress
    }

    /// Whether the implementation may have run. If not, to call again cannot run it twice.
    #[must_use]
    pub fn may_have_run(&self) -> bool {
        self.0.progress != Progress::NotSent
    }

    /// Whether the connection to the peer is gone.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        self.0.kind == ErrorKind::Disconnected
    }

    /// Whether no server listens at the port.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.0.kind == ErrorKind::NotFound
    }

    /// Whether a deadline or another time limit has passed.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        self.0.kind == ErrorKind::TimedOut
    }

    /// Whether an argument or a result is over a limit.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        self.0.kind == ErrorKind::TooLarge
    }

    /// Whether a quota is used up, or one side has no memory, descriptor or address space left.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.0.kind == ErrorKind::ResourceExhausted
    }

    /// Whether the call was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.kind == ErrorKind::Cancelled
    }

    /// Whether the method's arguments or result differ between the two sides.
    #[must_use]
    pub fn is_incompatible(&self) -> bool {
        self.0.kind == ErrorKind::Incompatible
    }

    /// Whether the peer is not accepted, or does not accept this process.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        self.0.kind == ErrorKind::PermissionDenied
    }

    /// Whether the implementation panicked.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        self.0.kind == ErrorKind::Panicked
    }

    /// The form that crosses processes: kind, progress and the text of the whole chain of causes.
    #[must_use]
    pub fn to_wire(&self) -> WireError {
        let mut message = self.0.message.clone();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        WireError { kind: self.0.kind as u8, progress: self.0.progress as u8, message }
    }
}

/// An [`Error`] as it stands on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireError {
    kind: u8,
    progress: u8,
    message: String,
}

impl WireError {
    /// The same, its text cut off where the encoded error would be longer than `len` bytes.
    #[must_use]
    pub fn within(mut self, len: usize) -> Self {
        // Kind and progress, and in front of the text its length, in five bytes at most.
        let end = self.message.floor_char_boundary(len.saturating_sub(2 + 5));
        self.message.truncate(end);
        self
    }

    /// Appends the control message to `bytes`.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        control::encode(self, bytes);
    }

    /// The control message that `bytes` are.
    ///
    /// # Errors
    ///
    /// Where they are none, or more.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        control::decode(bytes)
    }
}

impl From<WireError> for Error {
    /// Its text may end up in a terminal or a log, where a peer is to write nothing but text: control
    /// characters are escaped.
    fn from(wire: WireError) -> Self {
        let kind = KINDS.get(usize::from(wire.kind)).copied().unwrap_or(ErrorKind::Other);
        let progress = match wire.progress {
            0 => Progress::NotSent,
            2 => Progress::Ran,
            _ => Progress::MayHaveRun,
        };
        Self::new(kind, escaped(wire.message)).with_progress(progress)
    }
}

fn escaped(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() {
            escaped.extend(char.escape_debug());
        } else {
            escaped.push(char);
        }
    }
    escaped
}

/// By their numbers on the wire. A number that a later version adds reads as [`ErrorKind::Other`].
const KINDS: [ErrorKind; 18] = [
    ErrorKind::Other,
    ErrorKind::InvalidInput,
    ErrorKind::NotFound,
    ErrorKind::AddrInUse,
    ErrorKind::PermissionDenied,
    ErrorKind::TimedOut,
    ErrorKind::Protocol,
    ErrorKind::WrongService,
    ErrorKind::UnknownMethod,
    ErrorKind::TooLarge,
    ErrorKind::Encode,
    ErrorKind::Decode,
    ErrorKind::Disconnected,
    ErrorKind::Panicked,
    ErrorKind::Io,
    ErrorKind::ResourceExhausted,
    ErrorKind::Cancelled,
    ErrorKind::Incompatible,
];

impl Serialize for Error {
    fn serialize<S: Serializer>(&self, serializer: S) -> core::result::Result<S::Ok, S::Error> {
        self.to_wire().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Error {
    /// An error that an implementation returned: whatever it was about there, the call itself ran.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> core::result::Result<Self, D::Error> {
        Ok(Self::from(WireError::deserialize(deserializer)?).with_progress(Progress::Ran))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug
            .field("kind", &self.0.kind)
            .field("progress", &self.0.progress)
            .field("message", &self.0.message);
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::new(ErrorKind::Io, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_stand_at_their_own_numbers() {
        for (number, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
    }

    #[test]
    fn an_unknown_kind_reads_as_other() {
        let error = Error::from(WireError { kind: 200, progress: 9, message: "from the future".into() });
        assert_eq!((error.kind(), error.progress()), (ErrorKind::Other, Progress::MayHaveRun));
    }

    #[test]
    fn what_a_peer_says_controls_no_terminal_and_begins_no_line() {
        let said = "naïve \u{1b}[2J\nall is \u{9b}well \\";
        let error = Error::from(Error::new(ErrorKind::Other, said).to_wire());
        assert_eq!(error.to_string(), r"naïve \u{1b}[2J\nall is \u{9b}well \");
    }

    #[test]
    fn the_chain_of_causes_crosses_as_text() {
        let cause = std::io::Error::other("disk on fire");
        let error = Error::new(ErrorKind::Io, "store").with_source(cause);
        assert_eq!(Error::from(error.to_wire()).to_string(), "store: disk on fire");
    }
}
