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
/// one, its caller gets an error of the same kind and text, with the texts of its causes as its chain of
/// [`source`](std::error::Error::source)s and [`Progress::Ran`]; that one [is remote](Error::is_remote).
///
/// Two errors are equal if their kinds, their progress and their texts are.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    progress: Progress,
    is_remote: bool,
    message: String,
    source: Source,
}

#[derive(Clone)]
enum Source {
    None,
    /// The cause.
    Cause(Arc<dyn std::error::Error + Send + Sync>),
    /// The error that this one stands for: its text is the message, its cause is the cause.
    Whole(Arc<dyn std::error::Error + Send + Sync>),
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
    /// The received bytes are no value of the expected type, or one that its `Deserialize` refuses.
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
    /// A method has an argument or a result of a type that cannot be carried: what it writes, it cannot read
    /// again. The text names the type and what to change; no call was made.
    Unsupported = 18,
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
        let (progress, source) = (Progress::NotSent, Source::None);
        Self(Arc::new(Inner { kind, progress, is_remote: false, message: message.into(), source }))
    }

    /// A failure of the implementation's own, which its caller gets as a text.
    #[must_use]
    pub fn other(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Other, message.to_string()).with_progress(Progress::Ran)
    }

    /// A failure of the implementation's own, with the text of `error` and its causes: of any error type, of
    /// `anyhow`'s, or of a text.
    ///
    /// ```
    /// # use lpc_core as lpc;
    /// use std::error::Error as _;
    ///
    /// #[derive(Debug, thiserror::Error)]
    /// #[error("no configuration")]
    /// struct Unconfigured(#[source] std::num::ParseIntError);
    ///
    /// fn limit(text: &str) -> lpc::Result<u32> {
    ///     text.parse().map_err(Unconfigured).map_err(lpc::Error::from_error)
    /// }
    /// let error = limit("many").unwrap_err();
    /// assert_eq!(error.to_string(), "no configuration");
    /// assert_eq!(error.source().unwrap().to_string(), "invalid digit found in string");
    /// ```
    #[must_use]
    pub fn from_error(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::whole(ErrorKind::Other, error.into()).with_progress(Progress::Ran)
    }

    fn whole(kind: ErrorKind, error: Box<dyn std::error::Error + Send + Sync>) -> Self {
        let mut whole = Self::new(kind, error.to_string());
        whole.inner().source = Source::Whole(error.into());
        whole
    }

    fn inner(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.0)
    }

    /// The same error with another progress.
    #[must_use]
    pub fn with_progress(mut self, progress: Progress) -> Self {
        self.inner().progress = progress;
        self
    }

    /// The same error with what caused it, as its [`source`](std::error::Error::source).
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.inner().source = Source::Cause(Arc::new(source));
        self
    }

    /// The same error with `context: ` before its text.
    #[must_use]
    pub fn with_context(mut self, context: impl fmt::Display) -> Self {
        let inner = self.inner();
        inner.message = format!("{context}: {}", inner.message);
        self
    }

    /// The same error with ` (note)` behind its text.
    #[must_use]
    pub fn with_note(mut self, note: impl fmt::Display) -> Self {
        let inner = self.inner();
        inner.message = format!("{} ({note})", inner.message);
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

    /// Whether the implementation returned this error, rather than lpc on the call's way.
    ///
    /// What it says is then not about this call: where an implementation passes on that it is disconnected
    /// from a third process, [`is_disconnected`](Self::is_disconnected) is true of the error, and yet its
    /// caller's own connection is as good as before.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        self.0.is_remote
    }

    /// Whether the connection to the peer is gone. (See [`is_remote`](Self::is_remote) for whose peer.)
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

    /// Whether a method has an argument or a result of a type that cannot be carried.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.0.kind == ErrorKind::Unsupported
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

    /// The form that crosses processes: kind, progress, and the texts of the error and its causes.
    #[must_use]
    pub fn to_wire(&self) -> WireError {
        let first = std::error::Error::source(self);
        let causes = core::iter::successors(first, |cause| cause.source()).take(MAX_CAUSES);
        WireError {
            kind: self.0.kind as u8,
            progress: self.0.progress as u8,
            message: self.0.message.clone(),
            causes: causes.map(ToString::to_string).collect(),
        }
    }
}

/// Causes of an error that cross processes.
const MAX_CAUSES: usize = 16;

/// An [`Error`] as it stands on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireError {
    kind: u8,
    progress: u8,
    message: String,
    causes: Vec<String>,
}

impl WireError {
    /// The same, its texts cut off, and the innermost causes left out, where the encoded error would be
    /// longer than `len` bytes.
    #[must_use]
    pub fn within(mut self, len: usize) -> Self {
        // In front of each text and of the causes stands a length, in five bytes at most.
        const LENGTH: usize = 5;
        let mut left = len.saturating_sub(2 + LENGTH);
        let mut fit = |text: &mut String| {
            left = left.saturating_sub(LENGTH);
            let mut end = left.min(text.len());
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            left -= text.len();
            left > 0
        };
        let mut fits = fit(&mut self.message);
        self.causes.retain_mut(|cause| {
            fits = fits && fit(cause);
            fits
        });
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

#[doc(hidden)]
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
        let mut error = Self::new(kind, escaped(wire.message)).with_progress(progress);
        let causes = wire.causes.into_iter().take(MAX_CAUSES);
        let cause = causes
            .rev()
            .fold(None, |source, text| Some(Arc::new(RemoteCause { text: escaped(text), source })));
        if let Some(cause) = cause {
            error.inner().source = Source::Cause(cause);
        }
        error
    }
}

/// A cause in the process that an error came from.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct RemoteCause {
    text: String,
    source: Option<Arc<RemoteCause>>,
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
const KINDS: [ErrorKind; 19] = [
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
    ErrorKind::Unsupported,
];

impl Serialize for Error {
    fn serialize<S: Serializer>(&self, serializer: S) -> core::result::Result<S::Ok, S::Error> {
        self.to_wire().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Error {
    /// An error that an implementation returned: whatever it was about there, the call itself ran.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> core::result::Result<Self, D::Error> {
        let mut error = Self::from(WireError::deserialize(deserializer)?).with_progress(Progress::Ran);
        error.inner().is_remote = true;
        Ok(error)
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
        if self.0.is_remote {
            debug.field("is_remote", &true);
        }
        if let Some(source) = std::error::Error::source(self) {
            debug.field("source", &source);
        }
        debug.finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.source {
            Source::None => None,
            Source::Cause(cause) => Some(&**cause),
            Source::Whole(whole) => whole.source(),
        }
    }
}

impl PartialEq for Error {
    fn eq(&self, other: &Self) -> bool {
        let [one, other] = [&self.0, &other.0];
        (one.kind, one.progress, &one.message) == (other.kind, other.progress, &other.message)
    }
}

impl Eq for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::whole(ErrorKind::Io, error.into())
    }
}

/// The error as the reason of an I/O error, for code that returns those.
///
/// ```
/// # use lpc_core as lpc;
/// use std::io;
///
/// let error = lpc::Error::new(lpc::ErrorKind::NotFound, "nobody serves `documents`");
/// let error = io::Error::from(error);
/// assert_eq!(error.kind(), io::ErrorKind::NotFound);
/// assert!(error.get_ref().unwrap().is::<lpc::Error>());
/// ```
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            ErrorKind::InvalidInput | ErrorKind::TooLarge | ErrorKind::Encode => Io::InvalidInput,
            ErrorKind::NotFound => Io::NotFound,
            ErrorKind::AddrInUse => Io::AddrInUse,
            ErrorKind::PermissionDenied => Io::PermissionDenied,
            ErrorKind::TimedOut => Io::TimedOut,
            ErrorKind::Protocol | ErrorKind::Decode => Io::InvalidData,
            ErrorKind::WrongService
            | ErrorKind::UnknownMethod
            | ErrorKind::Incompatible
            | ErrorKind::Unsupported => Io::Unsupported,
            ErrorKind::Disconnected => Io::ConnectionAborted,
            ErrorKind::ResourceExhausted => Io::QuotaExceeded,
            ErrorKind::Other | ErrorKind::Panicked | ErrorKind::Io | ErrorKind::Cancelled => Io::Other,
        };
        Self::new(kind, error)
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
        let wire =
            WireError { kind: 200, progress: 9, message: "from the future".into(), causes: Vec::new() };
        let error = Error::from(wire);
        assert_eq!((error.kind(), error.progress()), (ErrorKind::Other, Progress::MayHaveRun));
    }

    #[test]
    fn what_a_peer_says_controls_no_terminal_and_begins_no_line() {
        let said = "naïve \u{1b}[2J\nall is \u{9b}well \\";
        let error = Error::from(Error::new(ErrorKind::Other, said).to_wire());
        assert_eq!(error.to_string(), r"naïve \u{1b}[2J\nall is \u{9b}well \");
    }

    /// The texts of an error and its causes.
    fn chain(error: &Error) -> Vec<String> {
        let first: &(dyn std::error::Error + 'static) = error;
        core::iter::successors(Some(first), |cause| cause.source()).map(ToString::to_string).collect()
    }

    fn crossed(error: &Error) -> Error {
        Error::from(error.to_wire())
    }

    #[test]
    fn causes_cross_one_by_one() {
        let cause = Error::other("disk on fire").with_source(std::io::Error::other("smoke\n"));
        let error = Error::new(ErrorKind::Io, "store").with_source(cause);
        assert_eq!(chain(&error), ["store", "disk on fire", "smoke\n"]);
        assert_eq!(chain(&crossed(&error)), ["store", "disk on fire", r"smoke\n"]);
        assert_eq!(chain(&crossed(&crossed(&error))), chain(&crossed(&error)));
        assert_eq!(crossed(&error), error);
        assert_ne!(crossed(&error), crossed(&error).with_progress(Progress::Ran));
    }

    #[test]
    fn an_error_of_another_type_keeps_its_text_and_its_causes() {
        let cause = Error::other("middle").with_source(std::fmt::Error);
        let error = Error::from_error(cause.clone());
        assert_eq!(chain(&error), chain(&cause));
        assert_eq!(chain(&Error::from_error("a text")), ["a text"]);
        assert_eq!(
            chain(&error.with_context("while storing")),
            ["while storing: middle", &std::fmt::Error.to_string()]
        );
    }

    #[test]
    fn an_error_is_cut_to_fit_from_its_end() {
        let deep =
            (0..40).fold(Error::other("root"), |cause, _| Error::other("é".repeat(50)).with_source(cause));
        assert_eq!(chain(&crossed(&deep)).len(), 1 + MAX_CAUSES);
        for len in (0..2500).rev() {
            let mut bytes = Vec::new();
            deep.to_wire().within(len).encode(&mut bytes);
            assert!(bytes.len() <= len.max(4), "{} bytes, {len} fit", bytes.len());
            let cut = chain(&Error::from(WireError::decode(&bytes).unwrap()));
            assert!(cut.iter().zip(chain(&deep)).all(|(cut, whole)| whole.starts_with(cut)));
            assert!(
                len < 200 || cut[0].len() == 100 && cut.len() >= (len / 120).min(1 + MAX_CAUSES),
                "{len}: {cut:?}"
            );
        }
    }
}
