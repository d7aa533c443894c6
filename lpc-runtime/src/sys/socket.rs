//! Bytes and descriptors through a Unix stream socket.
#![allow(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    self, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, UnixCredentials, sockopt,
};

use super::retry;

/// Descriptors that one receive takes at most. A peer that sends more at once is cut off.
const MAX_DESCRIPTORS: usize = 8;

/// Whether a call on a socket may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Until something arrived, or there is room.
    Sleep,
    /// Never: `WouldBlock` instead.
    #[cfg_attr(not(feature = "tokio"), expect(dead_code, reason = "the blocking driver always sleeps"))]
    Never,
}

impl Wait {
    fn flags(self) -> MsgFlags {
        match self {
            Self::Sleep => MsgFlags::empty(),
            Self::Never => MsgFlags::MSG_DONTWAIT,
        }
    }
}

/// Sends some of `bytes`, at least one, and with the first of them `descriptor`. Never raises SIGPIPE.
pub(crate) fn send(
    socket: impl AsFd,
    bytes: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
    wait: Wait,
) -> io::Result<usize> {
    let flags = MsgFlags::MSG_NOSIGNAL | wait.flags();
    let fd = socket.as_fd().as_raw_fd();
    match descriptor {
        None => retry(|| socket::send(fd, bytes, flags)),
        Some(descriptor) => {
            let descriptors = [descriptor.as_raw_fd()];
            let control = [ControlMessage::ScmRights(&descriptors)];
            retry(|| socket::sendmsg::<()>(fd, &[IoSlice::new(bytes)], &control, flags, None))
        }
    }
}

/// Room for the control data of one receive.
#[derive(Debug)]
pub(crate) struct Control(Vec<u8>);

impl Control {
    pub(crate) fn new() -> Self {
        Self(nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]))
    }
}

/// Receives into `space` and appends the descriptors that came along; 0 is the end of the stream.
///
/// Descriptors arrive with close-on-exec set. More of them than there is room for is an error, and none is kept.
pub(crate) fn receive(
    socket: impl AsFd,
    space: &mut [u8],
    control: &mut Control,
    descriptors: &mut Vec<OwnedFd>,
    wait: Wait,
) -> io::Result<usize> {
    let fd = socket.as_fd().as_raw_fd();
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | wait.flags();
    let (len, truncated) = loop {
        let mut slices = [IoSliceMut::new(space)];
        let message = match socket::recvmsg::<()>(fd, &mut slices, Some(&mut control.0), flags) {
            Err(nix::Error::EINTR) => continue,
            result => result?,
        };
        let truncated = message.flags.contains(MsgFlags::MSG_CTRUNC);
        for item in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(numbers) = item {
                // SAFETY: the kernel installed these descriptors for this message a moment ago, and their numbers
                // went nowhere else.
                descriptors.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
            }
        }
        break (message.bytes, truncated);
    };
    if truncated {
        descriptors.clear();
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("more than {MAX_DESCRIPTORS} descriptors at once, or no descriptor left in this process"),
        ));
    }
    Ok(len)
}

/// Ends one or both directions; who waits for them wakes up. A socket that is closed already is fine.
pub(crate) fn shutdown(socket: impl AsFd, how: Shutdown) {
    let _ = socket::shutdown(socket.as_fd().as_raw_fd(), how);
}

/// Who the peer was when it connected (`SO_PEERCRED`, unix(7)).
pub(crate) fn peer_credentials(socket: impl AsFd) -> io::Result<UnixCredentials> {
    Ok(socket::getsockopt(&socket.as_fd(), sockopt::PeerCredentials)?)
}
