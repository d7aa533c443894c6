//! [`ActivatedSockets`]: those that the service manager has opened (systemd.socket(5)).

use std::os::unix::net::UnixListener;

use listenfd::ListenFd;
use lpc_core::{Error, ErrorKind, Result};
use nix::sys::socket::{getsockopt, sockopt};

use crate::sys::environment;

/// The listening sockets that the service manager opened for this process, by name (systemd.socket(5), socket
/// activation): for a program with several services. One with a single service calls
/// [`Server::from_env`](crate::blocking::Server::from_env).
///
/// A socket has the name that its unit gives it with `FileDescriptorName=`, or else the unit's own, such as
/// `documents.socket`. Several may have the same name, and are then served together.
///
/// ```no_run
/// # #[lpc::service] pub trait Documents { fn count(&self) -> lpc::Result<u64>; }
/// # #[lpc::service] pub trait Index { fn find(&self, word: &str) -> lpc::Result<u64>; }
/// # struct Store;
/// # impl Documents for Store { fn count(&self) -> lpc::Result<u64> { Ok(0) } }
/// # impl Index for Store { fn find(&self, _: &str) -> lpc::Result<u64> { Ok(0) } }
/// let mut sockets = lpc::ActivatedSockets::from_env()?;
/// let documents = lpc::blocking::Server::builder().from_listeners(sockets.take("documents")?)?;
/// let index = lpc::blocking::Server::builder().from_listeners(sockets.take("index")?)?;
/// drop(sockets); // which closes all others
/// std::thread::spawn(|| index.serve::<IndexService, _>(Store));
/// documents.serve::<DocumentsService, _>(Store)?;
/// # Ok::<(), lpc::Error>(())
/// ```
///
/// Those that nobody has taken are closed when this is dropped, which is logged. Sockets of other kinds, and
/// what else the service manager has passed, are left alone.
#[derive(Debug)]
pub struct ActivatedSockets(Vec<(String, UnixListener)>);

/// The name of a socket that has none (sd_listen_fds_with_names(3)).
const UNNAMED: &str = "unknown";

impl ActivatedSockets {
    /// Takes all Unix stream sockets that the service manager has passed.
    ///
    /// It removes `LISTEN_FDS` and `LISTEN_PID` from the environment, so that no child takes them for its
    /// own; a second call finds none. Call it while no other thread uses the environment, best at the start:
    /// see [`std::env::remove_var`].
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) if there is none, if one is a connection instead of a
    /// listening socket (`Accept=yes`), or if this is a set-user-ID program, whose environment is its
    /// caller's word.
    pub fn from_env() -> Result<Self> {
        let refuse = |message: String| Err(Error::new(ErrorKind::InvalidInput, message));
        if environment::is_foreign() {
            return refuse(
                "this process has rights that its starter has not (AT_SECURE), and takes no sockets of it"
                    .into(),
            );
        }
        let names = environment::var("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.to_string_lossy();
        let mut names = names.split(':');
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            let name = names.next().filter(|name| !name.is_empty()).unwrap_or(UNNAMED);
            // A socket of another kind is left alone.
            let Ok(Some(socket)) = passed.take_unix_listener(index) else { continue };
            if !getsockopt(&socket, sockopt::AcceptConn).unwrap_or(true) {
                return refuse(format!(
                    "the service manager passed a connection (`{name}`), not a listening socket: \
                     its unit needs Accept=no"
                ));
            }
            sockets.push((name.to_owned(), socket));
        }
        if sockets.is_empty() {
            return refuse(
                "the service manager passed no Unix stream socket (LISTEN_FDS, LISTEN_PID)".into(),
            );
        }
        Ok(Self(sockets))
    }

    /// The names of the sockets that nobody has taken, each once.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let sockets = &self.0;
        let is_first = move |at: usize, name: &str| sockets[..at].iter().all(|(before, _)| before != name);
        sockets
            .iter()
            .enumerate()
            .filter(move |(at, (name, _))| is_first(*at, name))
            .map(|(_, (name, _))| &**name)
    }

    /// Takes the sockets of this name, for
    /// [`from_listeners`](crate::blocking::ServerBuilder::from_listeners).
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound) if there is none. The text has the names that there are.
    pub fn take(&mut self, name: &str) -> Result<Vec<UnixListener>> {
        let taken: Vec<_> = self.0.extract_if(.., |(of, _)| of == name).map(|(_, socket)| socket).collect();
        if !taken.is_empty() {
            return Ok(taken);
        }
        let names: Vec<_> = self.names().map(|name| format!("`{name}`")).collect();
        let message = format!(
            "the service manager passed no Unix stream socket `{name}` (FileDescriptorName=), but {}",
            if names.is_empty() { "no other that was not taken".to_owned() } else { names.join(", ") }
        );
        Err(Error::new(ErrorKind::NotFound, message))
    }

    /// All of them, whatever their names.
    pub(crate) fn take_all(mut self) -> Vec<UnixListener> {
        std::mem::take(&mut self.0).into_iter().map(|(_, socket)| socket).collect()
    }
}

impl Drop for ActivatedSockets {
    fn drop(&mut self) {
        for (name, _) in &self.0 {
            tracing::warn!(name, "a socket of the service manager is closed, since nobody has taken it");
        }
    }
}

/// Makes sure that connections can be accepted from these, without waiting.
pub(crate) fn check(listeners: &[UnixListener]) -> Result<()> {
    if listeners.is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, "there is no socket to listen on"));
    }
    for listener in listeners {
        if !getsockopt(listener, sockopt::AcceptConn).unwrap_or(true) {
            let message = "the socket does not listen, so nobody can connect to it (listen(2))";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        listener.set_nonblocking(true)?;
    }
    Ok(())
}
