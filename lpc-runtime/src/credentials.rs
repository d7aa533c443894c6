//! [`Credentials`]: the process and user at the other end of a connection.

use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};
use std::{fs, io};

use lpc_core::Result;

use crate::sys::socket::{self, Control};

/// The process, user and groups of a peer.
///
/// ```
/// # fn policy() -> lpc::blocking::ServerBuilder {
/// /// Members of this group may connect.
/// const OPERATORS: u32 = 970;
///
/// lpc::blocking::Server::builder().socket_mode(0o666).accept(|peer| peer.is_in_group(OPERATORS))
/// # }
/// ```
///
/// Of a client or server at a port they are as they were when it connected or began to listen (`SO_PEERCRED`,
/// unix(7)): the effective user and group, and the supplementary groups. Of a peer at the other end of a
/// connected pair, such as a child process, they are those that the system attached to its first message
/// (`SCM_CREDENTIALS`): the real user and group, and no other groups. (What `SO_PEERCRED` has there is the
/// process that made the pair.)
///
/// Decide by the user. The process id may belong to another process by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pid: i32,
    uid: u32,
    gid: u32,
    groups: Option<Arc<[u32]>>,
}

/// The user or group that nobody has: `(uid_t)-1` of setuid(2).
const NOBODY: u32 = u32::MAX;

impl Credentials {
    /// Those of the peer at the other end of `stream`, which connected to a port or listens there.
    pub(crate) fn of_peer(stream: impl AsFd) -> Result<Self> {
        let peer = socket::peer_credentials(&stream)?;
        // Without them the peer is in its own group alone.
        let groups = socket::peer_groups(&stream).ok().filter(|groups| !groups.is_empty());
        let groups = groups.map(|groups| groups.into_iter().map(|gid| known(gid, Ids::Groups)).collect());
        Ok(Self { groups, ..Self::of(peer.pid(), peer.uid(), peer.gid()) })
    }

    fn of(pid: i32, uid: u32, gid: u32) -> Self {
        Self { pid, uid: known(uid, Ids::Users), gid: known(gid, Ids::Groups), groups: None }
    }

    /// The process.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// The user; [`u32::MAX`], which is nobody's number, for a user that this process's user namespace does
    /// not have (user_namespaces(7)). All of those read as 65534 elsewhere.
    #[must_use]
    pub const fn uid(&self) -> u32 {
        self.uid
    }

    /// The group; [`u32::MAX`] for one that this user namespace does not have.
    #[must_use]
    pub const fn gid(&self) -> u32 {
        self.gid
    }

    /// The supplementary groups, as far as they are known.
    #[must_use]
    pub fn groups(&self) -> &[u32] {
        self.groups.as_deref().unwrap_or(&[])
    }

    /// Whether the peer is in this group: as its [`gid`](Self::gid) or as one of its
    /// [`groups`](Self::groups). Nobody is in the group [`u32::MAX`].
    #[must_use]
    pub fn is_in_group(&self, gid: u32) -> bool {
        gid != NOBODY && (self.gid == gid || self.groups().contains(&gid))
    }
}

/// Learns the credentials of a peer during the handshake.
#[derive(Debug)]
pub(crate) struct Introduction {
    /// `None` at the end of a pair that has got no message yet.
    peer: Option<Credentials>,
    is_pair: bool,
}

impl Introduction {
    /// To be made before anything is sent: a message of a pair brings its sender's credentials only where one
    /// of both ends has asked for them.
    pub(crate) fn begin(stream: impl AsFd) -> Result<Self> {
        let is_pair = socket::is_unnamed(&stream)?;
        if is_pair {
            socket::pass_credentials(&stream, true)?;
            return Ok(Self { peer: None, is_pair });
        }
        Ok(Self { peer: Some(Credentials::of_peer(stream)?), is_pair })
    }

    /// A message has been received; the first one counts.
    pub(crate) fn received(&mut self, control: &mut Control) {
        let Some(sender) = control.take_sender() else { return };
        // A message that was sent before anybody asked has no process.
        if self.peer.is_none() && sender.pid() != 0 {
            self.peer = Some(Credentials::of(sender.pid(), sender.uid(), sender.gid()));
        }
    }

    /// The handshake is complete. The peer, as far as it is known.
    pub(crate) fn end(self, stream: impl AsFd) -> Result<Option<Credentials>> {
        if self.is_pair {
            socket::pass_credentials(stream, false)?;
        }
        Ok(self.peer)
    }
}

/// Kinds of ids.
#[derive(Clone, Copy)]
enum Ids {
    Users,
    Groups,
}

/// The id, or nobody's where it stands for all that this user namespace does not have.
fn known(id: u32, ids: Ids) -> u32 {
    static UNMAPPED: [OnceLock<Option<u32>>; 2] = [OnceLock::new(), OnceLock::new()];
    let (map, overflow) = match ids {
        Ids::Users => ("/proc/self/uid_map", "/proc/sys/kernel/overflowuid"),
        Ids::Groups => ("/proc/self/gid_map", "/proc/sys/kernel/overflowgid"),
    };
    let unmapped = UNMAPPED[ids as usize]
        .get_or_init(|| unmapped(fs::read_to_string(map), fs::read_to_string(overflow)));
    if *unmapped == Some(id) { NOBODY } else { id }
}

/// The id that stands for all that have none here: `None` where every id has one.
fn unmapped(map: io::Result<String>, overflow: io::Result<String>) -> Option<u32> {
    /// The kernel's default, which is what it is where /proc is not there.
    const OVERFLOW: u32 = 65534;
    let mapped: u64 =
        map.ok()?.lines().filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum();
    // All but (uid_t)-1.
    let is_whole = mapped >= u64::from(u32::MAX);
    (!is_whole).then(|| overflow.ok().and_then(|id| id.trim().parse().ok()).unwrap_or(OVERFLOW))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> io::Result<String> {
        Ok(text.to_owned())
    }

    #[test]
    fn ids_that_a_namespace_does_not_have_are_told_from_those_that_it_has() {
        let whole = "         0          0 4294967295\n";
        assert_eq!(unmapped(text(whole), text("65534\n")), None);
        let container = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(unmapped(text(container), text("65534\n")), Some(65534));
        assert_eq!(unmapped(text(container), text("99\n")), Some(99));
        assert_eq!(unmapped(text(container), Err(io::ErrorKind::NotFound.into())), Some(65534));
        assert_eq!(unmapped(text(""), text("65534\n")), Some(65534), "before any map is written");
        // A kernel without user namespaces.
        assert_eq!(unmapped(Err(io::ErrorKind::NotFound.into()), text("65534\n")), None);
    }

    #[test]
    fn nobody_is_in_nobodys_group() {
        let peer = Credentials { pid: 1, uid: 1, gid: NOBODY, groups: Some([7, NOBODY].into()) };
        assert!(peer.is_in_group(7) && !peer.is_in_group(8) && !peer.is_in_group(NOBODY));
    }
}
