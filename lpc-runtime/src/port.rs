//! [`Port`]: the address of a service, and how a server takes hold of it.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use listenfd::ListenFd;
use lpc_core::{Error, ErrorKind, Result};
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen as listen_at, setsockopt,
    socket, sockopt,
};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::sys::time::TimeVal;
use nix::unistd::{Uid, User};

use crate::config::SOCKET_MODE;
use crate::sys::environment;
use crate::sys::fork::ForkGuard;

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

    /// The port for messages: its name, and its path if that is another.
    pub(crate) fn describe(&self) -> String {
        if self.name == self.path {
            format!("`{}`", self.path.display())
        } else {
            format!("`{}` ({})", self.name.display(), self.path.display())
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
            let (kind, reason) = match error {
                Errno::ENOENT | Errno::ECONNREFUSED => (ErrorKind::NotFound, "nobody serves it"),
                Errno::EACCES | Errno::EPERM => (ErrorKind::PermissionDenied, error.desc()),
                _ => (ErrorKind::Io, error.desc()),
            };
            Error::new(kind, format!("port {}: {reason}", self.describe()))
        })
    }

    /// Takes hold of the port. Of several servers that try, one succeeds, and none that lives loses its
    /// socket.
    ///
    /// The right to the socket is a lock on a file beside it, which the kernel releases with the process.
    /// Only its holder removes a socket that an earlier server left behind.
    pub(crate) fn bind(&self, mode: u32) -> Result<BoundPort> {
        let failed = |what: &str, error: io::Error| {
            let kind = match error.kind() {
                io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                _ => ErrorKind::Io,
            };
            Error::new(kind, format!("port {}: {what}: {error}", self.describe()))
        };
        if self.name != self.path {
            if mode != SOCKET_MODE {
                let message = format!(
                    "port {}: its directory lets no other user in, whatever the socket's mode ({mode:o}, socket_mode)",
                    self.describe()
                );
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
            let directory = self.path.parent().unwrap_or(Path::new("/"));
            private_directory(directory)
                .map_err(|error| failed(&format!("its directory {directory:?} cannot be used"), error))?;
        }
        let lock_path = self.lock_path();
        let held =
            || Error::new(ErrorKind::AddrInUse, format!("port {}: another server holds it", self.describe()));
        let lock = lock(&lock_path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => held(),
            _ => failed(&format!("its lock file {lock_path:?} cannot be used"), error),
        })?;
        // The lock file of a live server may have been removed, in which case this lock is on another file.
        if self.open(SockFlag::SOCK_NONBLOCK, |_| Ok(())).is_ok() {
            return Err(held());
        }
        remove_stale(&self.path).map_err(|error| failed("there is something in its place", error))?;
        let listener = listen(&self.path, mode).map_err(|error| failed("it cannot be bound", error))?;
        let id = identity(&self.path).map_err(|error| failed("it is gone as soon as it was made", error))?;
        Ok(BoundPort { listener, path: self.path.clone(), id, lock, fork_guard: ForkGuard::here() })
    }

    fn lock_path(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(OsStr::new(".lock"));
        path.into()
    }
}

/// Locks the file at this path, which is created if it does not exist. It must belong to this user, because
/// another owner could keep the lock.
///
/// # Errors
///
/// `WouldBlock` if another process has the lock.
fn lock(path: &Path) -> io::Result<File> {
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        // To open a pipe in its place would block.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    let found = match (&opened, fs::symlink_metadata(path)) {
        (Ok(file), _) => file.metadata()?,
        (Err(_), Ok(found)) => found,
        (Err(_), Err(_)) => return opened,
    };
    let refuse = |reason: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    if found.uid() != Uid::effective().as_raw() {
        return refuse(format!("it belongs to user {}", found.uid()));
    }
    if !found.is_file() {
        return refuse("it is no file".into());
    }
    let file = opened?;
    file.try_lock()?;
    Ok(file)
}

/// A listening socket at this path, which has its mode before any client can connect.
fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    listen_after(path, mode, || ())
}

/// The same, with something done last before clients can connect.
fn listen_after(path: &Path, mode: u32, last: impl FnOnce()) -> io::Result<UnixListener> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    // Until `listen`, connect(2) fails as if there were no server.
    let listening = fchmodat(AT_FDCWD, path, Mode::from_bits_truncate(mode), FchmodatFlags::NoFollowSymlink)
        .and_then(|()| {
            last();
            listen_at(&socket, Backlog::MAXCONN)
        });
    match listening {
        Ok(()) => Ok(socket.into()),
        Err(error) => {
            let _ = fs::remove_file(path);
            Err(error.into())
        }
    }
}

/// A port that this process holds. Dropping it removes the socket, then lets go of the lock.
#[derive(Debug)]
pub(crate) struct BoundPort {
    listener: UnixListener,
    path: PathBuf,
    id: (u64, u64),
    lock: File,
    fork_guard: ForkGuard,
}

/// Identifies a file, as opposed to another one that has taken its place.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

impl Drop for BoundPort {
    fn drop(&mut self) {
        // In a fork the port belongs to the parent.
        if self.fork_guard.is_here() {
            if identity(&self.path).is_ok_and(|id| id == self.id) {
                let _ = fs::remove_file(&self.path);
            }
            // Forks may still have the file open.
            let _ = self.lock.unlock();
        }
    }
}

/// Where a server's connections come from.
#[derive(Debug)]
pub(crate) enum Listener {
    Port(BoundPort),
    Inherited(UnixListener),
}

impl Listener {
    pub(crate) fn socket(&self) -> &UnixListener {
        match self {
            Self::Port(port) => &port.listener,
            Self::Inherited(listener) => listener,
        }
    }
}

/// Whether an error of accept(2) is about one connection, or goes away when other connections end.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    let passing =
        [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS, Errno::ECONNABORTED, Errno::EINTR];
    error.raw_os_error().map(Errno::from_raw).is_some_and(|code| passing.contains(&code))
}

/// The first Unix stream socket of those that the service manager opened for this process.
pub(crate) fn inherited() -> Result<UnixListener> {
    if environment::is_foreign() {
        let message =
            "this process has rights that its starter has not (AT_SECURE), and takes no sockets of it";
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    let mut sockets = ListenFd::from_env();
    for index in 0..sockets.len() {
        // A socket of another kind is left alone.
        if let Ok(Some(listener)) = sockets.take_unix_listener(index) {
            listener.set_nonblocking(false)?;
            return Ok(listener);
        }
    }
    let message = "the service manager passed no Unix stream socket (LISTEN_FDS, LISTEN_PID)";
    Err(Error::new(ErrorKind::InvalidInput, message))
}

fn runtime_directory() -> Result<PathBuf> {
    let set = |name| environment::var(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let own = |path: &PathBuf| !is_of_another_user(path);
    if let Some(directory) = set("XDG_RUNTIME_DIR").filter(own) {
        return Ok(directory);
    }
    let user = Uid::effective();
    let directory = PathBuf::from(format!("/run/user/{user}"));
    if directory.is_dir() {
        return Ok(directory);
    }
    let home = set("HOME").filter(own).or_else(|| Some(User::from_uid(user).ok()??.dir).filter(own));
    let home = home.ok_or_else(|| {
        let message = "a port's name needs a runtime directory: neither XDG_RUNTIME_DIR nor HOME is a directory of this user";
        Error::new(ErrorKind::InvalidInput, message)
    })?;
    let directory = home.join(".local/state");
    DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
    Ok(directory)
}

/// Whether the directory is another user's: under `sudo -E`, the variables of the environment name those of
/// the user who called it.
fn is_of_another_user(directory: &Path) -> bool {
    fs::metadata(directory).is_ok_and(|found| found.uid() != Uid::effective().as_raw())
}

/// Creates the directory if it does not exist, but not its parents, and checks that only this user can enter
/// it.
fn private_directory(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => result?,
    }
    let found = fs::symlink_metadata(directory)?;
    let refuse = |reason: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    if !found.is_dir() {
        return refuse(format!("{} is no directory", directory.display()));
    }
    if found.uid() != Uid::effective().as_raw() {
        return refuse(format!("{} belongs to user {}", directory.display(), found.uid()));
    }
    if found.mode() & 0o077 != 0 {
        return refuse(format!("{} has mode {:o}, not 700", directory.display(), found.mode() & 0o777));
    }
    Ok(())
}

/// Removes the socket of a server that is gone, as the lock shows.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "not a socket")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_name_is_one_plain_component() {
        for name in ["", ".", "..", "a/b", "a/", "./a", "../a", "a\0b", &"x".repeat(200)] {
            assert_eq!(Port::new(name).unwrap_err().kind(), ErrorKind::InvalidInput, "{name:?}");
        }
    }

    #[test]
    fn one_server_holds_a_port_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let port = Port::new(directory.path().join("socket")).unwrap();
        assert!(port.connect(Duration::from_secs(10)).unwrap_err().is_not_found());
        let held = port.bind(SOCKET_MODE).unwrap();
        assert_eq!(port.bind(SOCKET_MODE).unwrap_err().kind(), ErrorKind::AddrInUse);
        port.connect(Duration::from_secs(10)).unwrap();
        drop(held);
        assert!(!port.path().exists());
        drop(port.bind(SOCKET_MODE).unwrap());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_anything_else_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let port = Port::new(directory.path().join("socket")).unwrap();
        drop(UnixListener::bind(port.path()).unwrap()); // as a killed server leaves it
        assert!(port.connect(Duration::from_secs(10)).unwrap_err().is_not_found());
        drop(port.bind(SOCKET_MODE).unwrap());
        fs::write(port.path(), "precious").unwrap();
        assert!(port.bind(SOCKET_MODE).unwrap_err().to_string().contains("not a socket"));
        assert_eq!(fs::read(port.path()).unwrap(), b"precious");
    }

    #[test]
    fn a_live_server_keeps_its_socket_though_its_lock_file_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let port = Port::new(directory.path().join("socket")).unwrap();
        let held = port.bind(SOCKET_MODE).unwrap();
        fs::remove_file(port.lock_path()).unwrap();
        assert_eq!(port.bind(SOCKET_MODE).unwrap_err().kind(), ErrorKind::AddrInUse);
        port.connect(Duration::from_secs(10)).unwrap();
        // What has taken the place of its socket is not its to remove.
        fs::remove_file(port.path()).unwrap();
        let other = UnixListener::bind(port.path()).unwrap();
        drop(held);
        assert!(port.path().exists());
        drop(other);
    }

    #[test]
    fn the_socket_has_the_mode_that_was_asked_for_whatever_the_umask() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        for mode in [0o600, 0o660, 0o666] {
            let held = Port::new(&path).unwrap().bind(mode).unwrap();
            assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o7777, mode);
            drop(held);
        }
        let named = Port { name: "documents".into(), path };
        let error = named.bind(0o660).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("socket_mode"), "{error}");
    }

    #[test]
    fn nobody_connects_before_the_socket_has_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let mut was_tried = false;
        let listener = listen_after(&path, 0o640, || {
            was_tried = true;
            let error = UnixStream::connect(&path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o7777, 0o640);
        });
        assert!(was_tried);
        let _listener = listener.unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn what_stands_in_the_place_of_a_socket_or_its_lock_is_neither_followed_nor_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let port = Port::new(directory.path().join("socket")).unwrap();
        let target = directory.path().join("target");
        for place in [port.path.clone(), port.lock_path()] {
            std::os::unix::fs::symlink(&target, &place).unwrap();
            let error = port.bind(SOCKET_MODE).unwrap_err().to_string();
            assert!(error.contains("no file") || error.contains("not a socket"), "{error}");
            assert!(!target.exists(), "nothing was made where the link points");
            fs::remove_file(place).unwrap();
            let _ = fs::remove_file(port.lock_path());
        }
        nix::unistd::mkfifo(&port.lock_path(), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        assert!(port.bind(SOCKET_MODE).unwrap_err().to_string().contains("no file"));
    }

    #[test]
    fn a_directory_that_others_can_enter_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let open = directory.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
        assert!(private_directory(&open).unwrap_err().to_string().contains("mode 755"));
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&open, &link).unwrap();
        assert!(private_directory(&link).unwrap_err().to_string().contains("no directory"));
        private_directory(&directory.path().join("lpc")).unwrap();
        // A mistyped XDG_RUNTIME_DIR is not to be made.
        assert_eq!(
            private_directory(&directory.path().join("new/lpc")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
