//! [`Port`]: the address of a service, and how a client connects to it.

pub(crate) mod activation;
mod bound;
mod diagnosis;
mod directory;

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use lpc_core::{Error, ErrorKind, Result};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;

pub use self::activation::ActivatedSockets;
pub(crate) use self::bound::{Listener, is_passing};
use self::directory::runtime_directory;

/// The address of a service: a name, or the absolute path of a socket.
///
/// ```
/// let port = lpc::Port::new("/run/documents/socket")?;
/// assert_eq!(port.path().to_str(), Some("/run/documents/socket"));
/// assert!(lpc::Port::new("no/such/name").is_err());
/// # Ok::<(), lpc::Error>(())
/// ```
///
/// A name `documents` is the socket `lpc/documents.sock` in the user's runtime directory, which only this
/// user can enter (mode 0700). That directory is the first of these:
///
/// 1. `$XDG_RUNTIME_DIR`, if it is set to an absolute path that is not another user's (as under `sudo -E`);
/// 2. `/run/user/UID`, if it exists;
/// 3. `.local/state` in the home directory.
///
/// A set-user-ID program, whose environment is its caller's word, asks neither `XDG_RUNTIME_DIR` nor `HOME`.
///
/// It is never `/tmp`, where other users can put files in the way, nor an abstract name, which has no owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The port as the user wrote it, for messages.
    name: PathBuf,
    path: PathBuf,
}

/// The most bytes of a socket's path: `sun_path` of unix(7), less its terminator.
const MAX_PATH: usize = 107;

impl Port {
    /// The port of this name or absolute path.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if it is neither, or the path is longer than a socket's may be.
    pub fn new(port: impl AsRef<Path>) -> Result<Self> {
        let name = port.as_ref();
        let refuse =
            |reason: &str| Err(Error::new(ErrorKind::InvalidInput, format!("port {name:?}: {reason}")));
        if name.as_os_str().as_bytes().contains(&0) {
            return refuse("it contains a zero byte");
        }
        let path = if name.is_absolute() {
            name.to_owned()
        } else {
            let mut parts = name.components();
            match (parts.next(), parts.next()) {
                (Some(Component::Normal(part)), None) if part == name.as_os_str() => {
                    let mut file = part.to_owned();
                    file.push(".sock");
                    runtime_directory()?.join("lpc").join(file)
                }
                (None, _) => return refuse("a name has at least one character"),
                _ => return refuse("it is neither a plain name nor an absolute path"),
            }
        };
        if path.as_os_str().len() > MAX_PATH {
            return refuse(&format!("the path {path:?} is longer than the {MAX_PATH} bytes of a socket's"));
        }
        Ok(Self { name: name.to_owned(), path })
    }

    /// The path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn has_name(&self) -> bool {
        self.name != self.path
    }

    /// The port for messages: its name, and its path if that is another.
    pub(crate) fn describe(&self) -> String {
        if self.has_name() {
            format!("`{}` ({})", self.name.display(), self.path.display())
        } else {
            format!("`{}`", self.path.display())
        }
    }

    /// Connects to the server of the port. It waits for up to `timeout` for room in the server's backlog,
    /// which is all that connect(2) waits for on a Unix socket.
    pub(crate) fn connect(&self, timeout: Duration) -> Result<UnixStream> {
        // A time beyond the clock's range is no limit.
        let deadline = Instant::now().checked_add(timeout);
        let connected = self.open(SockFlag::empty(), |socket| {
            let Some(deadline) = deadline else { return Ok(()) };
            let left = deadline.saturating_duration_since(Instant::now());
            let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX).min(i64::from(i32::MAX));
            // Zero would mean no limit.
            let micros = i64::from(left.subsec_micros()).max(1);
            setsockopt(socket, sockopt::SendTimeout, &TimeVal::new(seconds, micros))
        });
        connected?.ok_or_else(|| self.no_room(timeout))
    }

    /// The same without waiting: `None` if there is no room.
    #[cfg(feature = "tokio")]
    pub(crate) fn try_connect(&self) -> Result<Option<UnixStream>> {
        self.open(SockFlag::SOCK_NONBLOCK, |_| Ok(()))
    }

    pub(crate) fn no_room(&self, timeout: Duration) -> Error {
        let message = format!(
            "port {}: its server takes no connections, and has not for {timeout:?} (handshake_timeout)",
            self.describe()
        );
        Error::new(ErrorKind::TimedOut, message)
    }

    fn open(
        &self,
        flags: SockFlag,
        prepare: impl Fn(&OwnedFd) -> nix::Result<()>,
    ) -> Result<Option<UnixStream>> {
        let opened = || {
            let socket = socket(AddressFamily::Unix, SockType::Stream, flags | SockFlag::SOCK_CLOEXEC, None)?;
            let address = UnixAddr::new(&self.path)?;
            loop {
                // Again after each signal, with the time that is left.
                prepare(&socket)?;
                match connect(socket.as_raw_fd(), &address) {
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => return Ok(None),
                    result => return result.map(|()| Some(UnixStream::from(socket))),
                }
            }
        };
        opened().map_err(|error| {
            let (kind, reason) = diagnosis::unconnected(&self.path, error);
            Error::new(kind, format!("port {}: {reason}", self.describe()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_plain_component() {
        for name in ["", ".", "..", "a/b", "a/", "./a", "../a", "a\0b", &"x".repeat(200)] {
            assert_eq!(Port::new(name).unwrap_err().kind(), ErrorKind::InvalidInput, "{name:?}");
        }
    }
}
