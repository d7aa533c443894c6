//! Notifies the service manager: the part of sd_notify(3) that servers need.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::environment;

/// The environment variable that says where the service manager listens. It stays set: a service manager
/// passes over what children of a service say (`NotifyAccess=`, systemd.service(5)), and changing the
/// environment of threads is not safe.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// The server is ready.
pub(crate) const READY: &str = "READY=1";

/// The server stops.
pub(crate) const STOPPING: &str = "STOPPING=1";

/// Notifies the service manager, if there is one. A failure is logged, since no server depends on it.
pub(crate) fn tell(state: &str) {
    let Some(address) = environment::var(VARIABLE) else { return };
    if let Err(error) = send(&address, state) {
        tracing::warn!(%error, ?address, state, "the service manager was not told");
    }
}

fn send(address: &OsStr, state: &str) -> io::Result<()> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A service manager that has stopped reading must not keep the server from serving.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}
