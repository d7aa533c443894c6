//! [`Credentials`]: the process and user at the other end of a connection.

use std::os::fd::AsFd;

use lpc_core::Result;

use crate::sys::socket::peer_credentials;

/// The process, user and group of a peer, as they were when it connected (`SO_PEERCRED`, unix(7)).
///
/// Decide by the user. The process id may belong to another process by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    pid: i32,
    uid: u32,
    gid: u32,
}

impl Credentials {
    /// Those of the peer at the other end of `stream`.
    pub(crate) fn of_peer(stream: impl AsFd) -> Result<Self> {
        let peer = peer_credentials(stream)?;
        Ok(Self { pid: peer.pid(), uid: peer.uid(), gid: peer.gid() })
    }

    /// The process.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// The effective user.
    #[must_use]
    pub const fn uid(&self) -> u32 {
        self.uid
    }

    /// The effective group.
    #[must_use]
    pub const fn gid(&self) -> u32 {
        self.gid
    }
}
