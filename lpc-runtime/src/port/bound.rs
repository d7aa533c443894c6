//! [`BoundPort`]: how a server takes hold of a port, and lets go of it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::slice;
use std::time::Duration;

use lpc_core::{Error, ErrorKind, Result};
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::libc;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen as listen_at, socket,
};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::Uid;

use super::directory::private_directory;
use super::{Port, diagnosis};
use crate::config::SOCKET_MODE;
use crate::sys::fork::ForkGuard;

impl Port {
    /// Takes hold of the port. Of several servers that try, one succeeds, and none that lives loses its
    /// socket.
    ///
    /// The right to the socket is a lock on a file beside it, which the kernel releases with the process.
    /// Only its holder removes a socket that an earlier server left behind.
    pub(crate) fn bind(&self, mode: u32) -> Result<BoundPort> {
        if self.has_name() && mode != SOCKET_MODE {
            let message = format!(
                "port {}: its directory lets no other user in, whatever the socket's mode ({mode:o}, socket_mode)",
                self.describe()
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let lock = self.lock()?;
        let (listener, id) = self.listen(mode)?;
        let (port, fork_guard) = (self.clone(), ForkGuard::here());
        Ok(BoundPort { listener, port, mode, id, lock, turn: 0, fork_guard, watch: None, is_lost: false })
    }

    /// Takes the right to the socket.
    fn lock(&self) -> Result<File> {
        if self.has_name() {
            let directory = self.path.parent().unwrap_or(Path::new("/"));
            private_directory(directory).map_err(|error| {
                self.failed(&format!("its directory {directory:?} cannot be used"), error)
            })?;
        }
        // Before there is a lock file beside it.
        if let Some((kind, reason)) = diagnosis::unbindable(&self.path) {
            return Err(Error::new(kind, format!("port {}: {reason}", self.describe())));
        }
        let path = self.lock_path();
        lock(&path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => self.held(),
            _ => self.failed(&format!("its lock file {path:?} cannot be used"), error),
        })
    }

    /// Binds the socket, for the holder of the lock.
    fn listen(&self, mode: u32) -> Result<(UnixListener, FileId)> {
        if let Some((kind, reason)) = diagnosis::unbindable(&self.path) {
            return Err(Error::new(kind, format!("port {}: {reason}", self.describe())));
        }
        // The lock file of a live server may have been removed, in which case the lock is on another file.
        match self.open(SockFlag::SOCK_NONBLOCK, |_| Ok(())) {
            Ok(_) => return Err(self.held()),
            // Nobody listens there.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(left_alone(error)),
        }
        remove_stale(&self.path).map_err(|error| self.failed("there is something in its place", error))?;
        let listener = listen(&self.path, mode).map_err(|error| self.failed("it cannot be bound", error))?;
        let id = FileId::at(&self.path)
            .map_err(|error| self.failed("it is gone as soon as it was made", error))?;
        Ok((listener, id))
    }

    fn held(&self) -> Error {
        let mut message = format!("port {}: another server holds it", self.describe());
        if matches!(fs::symlink_metadata(&self.path), Err(error) if error.kind() == io::ErrorKind::NotFound) {
            let lock_path = self.lock_path();
            let _ = write!(message, ", though its socket is gone (`fuser {lock_path:?}` names its process)");
        }
        Error::new(ErrorKind::AddrInUse, message)
    }

    fn failed(&self, what: &str, error: io::Error) -> Error {
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            _ => ErrorKind::Io,
        };
        Error::new(kind, format!("port {}: {what}: {error}", self.describe()))
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

/// A listening socket at this path, which has its mode before any client can connect, and does not block.
fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    listen_after(path, mode, || ())
}

/// The same, with something done last before clients can connect.
fn listen_after(path: &Path, mode: u32, last: impl FnOnce()) -> io::Result<UnixListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
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
///
/// The process that bound it may have forks, which have the socket and the lock as well. The port is the
/// one's that bound it, until another of them serves: see [`serve`](Self::serve).
#[derive(Debug)]
pub(crate) struct BoundPort {
    listener: UnixListener,
    port: Port,
    mode: u32,
    id: FileId,
    /// Its file offset, which a process shares with its forks, says whose turn it is to hold the port.
    lock: File,
    /// This process's turn.
    turn: u64,
    fork_guard: ForkGuard,
    watch: Option<Watch>,
    /// The socket was removed, and could not be bound again.
    is_lost: bool,
}

/// How often it is looked for the socket where nobody tells that it was removed.
const CHECK: Duration = Duration::from_secs(1);

impl BoundPort {
    /// This process is about to serve. A fork takes the port over, as a daemon does that binds first; the one
    /// that bound it then leaves it alone.
    ///
    /// Gives the socket before, if there is a new one: the parent, or somebody else, has removed it.
    fn serve(&mut self) -> Result<Option<UnixListener>> {
        if !self.fork_guard.is_here() {
            self.take_over()?;
        }
        self.watch = Watch::new(&self.port.path);
        if self.is_in_place() { Ok(None) } else { self.bind_again().map(Some) }
    }

    fn take_over(&mut self) -> Result<()> {
        self.fork_guard = ForkGuard::here();
        self.take_turn()
    }

    /// Takes the port from the parent or a fork: that has let go of the lock, or does not any more.
    fn take_turn(&mut self) -> Result<()> {
        self.turn = self.lock.stream_position()? + 1;
        self.lock.seek(SeekFrom::Start(self.turn))?;
        self.lock.try_lock().map_err(|_| self.port.held())
    }

    /// Looks whether the socket is where it was, if it may not be, and binds it again if it is not. Gives the
    /// one before.
    fn check(&mut self) -> Option<UnixListener> {
        let is_told = self.watch.as_ref().is_none_or(Watch::has_told);
        if !is_told && !self.is_lost {
            return None;
        }
        if self.is_in_place() {
            self.is_lost = false;
            return None;
        }
        let port = self.port.describe();
        match self.bind_again() {
            Ok(before) => {
                tracing::warn!(port, "the socket was removed, and has been bound again");
                self.is_lost = false;
                Some(before)
            }
            Err(error) => {
                if !mem::replace(&mut self.is_lost, true) {
                    tracing::warn!(port, %error, "the socket was removed, and cannot be bound again yet");
                }
                None
            }
        }
    }

    fn bind_again(&mut self) -> Result<UnixListener> {
        if FileId::at(&self.port.lock_path()).ok() == FileId::of(&self.lock).ok() {
            // Whoever of the family has removed the socket has let go of the lock as well.
            self.take_turn()?;
        } else {
            // The lock file was removed as well, and the next server would lock another one.
            (self.lock, self.turn) = (self.port.lock()?, 0);
        }
        let (listener, id) = self.port.listen(self.mode)?;
        self.id = id;
        // If it is gone again before it is watched, the next check finds out.
        self.watch = Watch::new(&self.port.path).filter(|_| self.is_in_place());
        Ok(mem::replace(&mut self.listener, listener))
    }

    /// Whether clients find the socket at its path, as far as that can be seen.
    fn is_in_place(&self) -> bool {
        match FileId::at(&self.port.path) {
            Ok(id) => id == self.id,
            Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        }
    }

    /// Removes the socket, then lets go of the lock. What is done `meanwhile` is a fork's.
    fn let_go(&self, meanwhile: impl FnOnce()) {
        if !self.is_own() {
            return;
        }
        if FileId::at(&self.port.path).is_ok_and(|id| id == self.id) {
            let _ = fs::remove_file(&self.port.path);
        }
        meanwhile();
        // Forks may still have the file open.
        let _ = self.lock.unlock();
        // One that has taken its turn before this has lost the lock, which it shares; another takes it now.
        if !self.is_own() {
            let _ = self.lock.try_lock();
        }
    }

    /// Whether the port is this process's, and not its parent's or fork's.
    fn is_own(&self) -> bool {
        self.fork_guard.is_here() && (&self.lock).stream_position().is_ok_and(|turn| turn == self.turn)
    }
}

impl Drop for BoundPort {
    fn drop(&mut self) {
        self.let_go(|| ());
    }
}

/// Identifies a file, as opposed to another one that has taken its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId(u64, u64);

impl FileId {
    fn at(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        // The system tells of a removal before the name is gone.
        if found.nlink() == 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self(found.dev(), found.ino()))
    }

    fn of(file: &File) -> io::Result<Self> {
        file.metadata().map(|found| Self(found.dev(), found.ino()))
    }
}

/// Tells when a socket may have been removed, or moved, or its directory.
#[derive(Debug)]
struct Watch(Inotify);

impl Watch {
    /// `None` where the system has none to give.
    fn new(path: &Path) -> Option<Self> {
        let watch = || {
            let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            let gone = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
            // A socket that is open is not deleted: what changes is the number of its names.
            watch.add_watch(path, gone | AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_DONT_FOLLOW)?;
            watch.add_watch(path.parent().unwrap_or(path), gone)?;
            Ok(watch)
        };
        let watch: nix::Result<_> = watch();
        watch
            .inspect_err(|error| tracing::debug!(%error, ?path, "a socket is looked for now and then"))
            .ok()
            .map(Self)
    }

    /// Whether it has told anything since it was asked last.
    fn has_told(&self) -> bool {
        let mut has_told = false;
        while self.0.read_events().is_ok() {
            has_told = true;
        }
        has_told
    }
}

/// Where a server's connections come from.
#[derive(Debug)]
pub(crate) enum Listener {
    Port(Box<BoundPort>),
    /// Somebody else's: the service manager's, for one.
    HandedOver(Vec<UnixListener>),
}

impl Listener {
    /// Where its clients connect, if that is known.
    #[cfg(feature = "tokio")]
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Port(port) => Some(&port.port.path),
            Self::HandedOver(_) => None,
        }
    }

    /// The sockets, which do not block.
    pub(crate) fn sockets(&self) -> &[UnixListener] {
        match self {
            Self::Port(port) => slice::from_ref(&port.listener),
            Self::HandedOver(listeners) => listeners,
        }
    }

    /// This process is about to serve. Gives the socket before, whose clients are served as well, if there is
    /// a new one.
    ///
    /// # Errors
    ///
    /// The port was let go of by the process of which this one is a fork, and cannot be had again.
    pub(crate) fn serve(&mut self) -> Result<Option<UnixListener>> {
        match self {
            Self::Port(port) => port.serve(),
            Self::HandedOver(_) => Ok(None),
        }
    }

    /// Makes sure that clients still find the socket. Gives the one before, whose clients are served as well,
    /// if there is a new one.
    pub(crate) fn check(&mut self) -> Option<UnixListener> {
        match self {
            Self::Port(port) => port.check(),
            Self::HandedOver(_) => None,
        }
    }

    /// What becomes readable when it is time to [`check`](Self::check).
    pub(crate) fn watch(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Port(port) => port.watch.as_ref().map(|watch| watch.0.as_fd()),
            Self::HandedOver(_) => None,
        }
    }

    /// After what time that is in any case.
    pub(crate) fn check_after(&self) -> Option<Duration> {
        match self {
            Self::Port(port) => (port.is_lost || port.watch.is_none()).then_some(CHECK),
            Self::HandedOver(_) => None,
        }
    }
}

/// Whether an error of accept(2) is about one connection, or goes away when other connections end.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    let passing =
        [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS, Errno::ECONNABORTED, Errno::EINTR];
    error.raw_os_error().map(Errno::from_raw).is_some_and(|code| passing.contains(&code))
}

/// Why a socket is not removed that could not be connected to: somebody may listen there nevertheless.
fn left_alone(error: Error) -> Error {
    let remedy = match error.kind() {
        ErrorKind::Io => {
            "whether a server listens there cannot be seen now: free what is short, and try again"
        }
        _ => {
            "somebody may listen there, so it is left alone: choose another path, or remove it if nobody does"
        }
    };
    error.with_note(remedy)
}

/// Removes the socket of a server that is gone, as the lock shows.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path),
        Ok(found) => Err(io::Error::new(io::ErrorKind::AlreadyExists, diagnosis::no_socket(&found))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixStream};
    use std::time::Duration;

    use super::*;

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
    fn a_socket_is_removed_only_where_it_is_known_that_nobody_listens() {
        let directory = tempfile::tempdir().unwrap();
        let port = Port::new(directory.path().join("socket")).unwrap();
        let mut held = port.bind(SOCKET_MODE).unwrap();
        fs::remove_file(port.path()).unwrap();
        let live = UnixDatagram::bind(port.path()).unwrap();
        let again = held.bind_again().unwrap_err();
        drop(held);
        for error in [again, port.bind(SOCKET_MODE).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let error = error.to_string();
            assert!(error.contains("another type") && error.contains("choose another path"), "{error}");
        }
        let client = UnixDatagram::unbound().unwrap();
        client.send_to(b"still there", port.path()).unwrap();
        drop(live);
        drop(port.bind(SOCKET_MODE).unwrap());
    }

    #[test]
    fn a_fork_that_takes_its_turn_while_its_parent_lets_go_has_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let port = Port::new(directory.path().join("socket")).unwrap();
        let held = port.bind(SOCKET_MODE).unwrap();
        let mut of_fork = held.lock.try_clone().unwrap();
        held.let_go(|| {
            of_fork.seek(SeekFrom::Start(held.turn + 1)).unwrap();
            of_fork.try_lock().unwrap();
        });
        drop(held);
        assert_eq!(port.bind(SOCKET_MODE).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(of_fork);
        drop(port.bind(SOCKET_MODE).unwrap());
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
}
