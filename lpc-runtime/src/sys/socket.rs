//! Bytes and descriptors through a Unix stream socket.
#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{self, ControlMessage, MsgFlags, Shutdown, UnixAddr, UnixCredentials, sockopt};
use nix::sys::time::TimeVal;

use super::retry;

/// Whether a call on a socket may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Until something arrived, or there is room.
    Sleep,
    /// Never: `WouldBlock` instead.
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
#[inline]
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

/// Errors of a send that go away by themselves: the kernel has no memory, or too many descriptors are on
/// their way between this user's processes (unix(7)).
pub(crate) fn is_short_of_means(error: &io::Error) -> bool {
    let passing = [Errno::ENOBUFS, Errno::ENOMEM, Errno::ETOOMANYREFS];
    error.raw_os_error().map(Errno::from_raw).is_some_and(|code| passing.contains(&code))
}

/// Room for the control data of one receive: for as many descriptors as one message can bring (`SCM_MAX_FD`,
/// unix(7)), so that the kernel never has to leave any out for want of room.
#[derive(Debug)]
pub(crate) struct Control {
    words: Box<[u64; CONTROL_WORDS]>,
    /// Of the last message that said who has sent it.
    sender: Option<UnixCredentials>,
}

/// A header of two words, and 253 descriptors of half a word each; a header, and three ids.
const CONTROL_WORDS: usize = 2 + 253_usize.div_ceil(2) + 2 + 2;

impl Control {
    pub(crate) fn new() -> Self {
        Self { words: Box::new([0; CONTROL_WORDS]), sender: None }
    }

    /// Who has sent the last message that said so: where the socket [passes](pass_credentials) credentials.
    pub(crate) fn take_sender(&mut self) -> Option<UnixCredentials> {
        self.sender.take()
    }
}

/// What one receive brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// Bytes; 0 is the end of the stream.
    pub(crate) len: usize,
    /// This process had no descriptor left for one that came along.
    pub(crate) is_short: bool,
}

/// Receives into `space` and appends the descriptors that came along, with close-on-exec set. One that sleeps
/// ends with `Interrupted` at a signal.
#[inline]
pub(crate) fn receive(
    socket: impl AsFd,
    space: &mut [u8],
    control: &mut Control,
    descriptors: &mut Vec<OwnedFd>,
    wait: Wait,
) -> io::Result<Received> {
    let fd = socket.as_fd().as_raw_fd();
    let flags = (MsgFlags::MSG_CMSG_CLOEXEC | wait.flags()).bits();
    let mut slice = libc::iovec { iov_base: space.as_mut_ptr().cast(), iov_len: space.len() };
    // SAFETY: a message header is numbers and pointers, for which all zeroes is a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    message.msg_control = control.words.as_mut_ptr().cast();
    let mut call = || {
        message.msg_controllen = size_of_val(&*control.words) as _;
        // SAFETY: the header points to one slice, which is `space`, and to the control buffer, with their
        // lengths; both are borrowed for longer than the call.
        Errno::result(unsafe { libc::recvmsg(fd, &raw mut message, flags) })
    };
    let len = match wait {
        // The caller looks at the clock before it sleeps again: a receive that starts again would wait all of
        // its time again.
        Wait::Sleep => call()?,
        Wait::Never => retry(call)?,
    };
    // By hand, because nix gives out no descriptors where some are missing, and so would leak the others.
    // SAFETY: the kernel filled in the header and the control buffer, whose length it set.
    let mut item = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !item.is_null() {
        // SAFETY: it points to an item's header inside the control buffer, which is aligned for it.
        let header = unsafe { item.read() };
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: as above.
            let data = unsafe { libc::CMSG_DATA(item) }.cast::<RawFd>();
            // SAFETY: it only computes a length.
            let bytes = header.cmsg_len as usize - unsafe { libc::CMSG_LEN(0) } as usize;
            for index in 0..bytes / size_of::<RawFd>() {
                // SAFETY: the item's length says that the number is in the buffer.
                let place = unsafe { data.add(index) };
                // SAFETY: as above; nothing is said about alignment.
                let number = unsafe { place.read_unaligned() };
                // SAFETY: the kernel installed this descriptor for this message a moment ago, and its number
                // went nowhere else.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) {
            // SAFETY: as above.
            let data = unsafe { libc::CMSG_DATA(item) }.cast::<libc::ucred>();
            // SAFETY: the kernel's item of this type is that structure, for any bytes of which there is a
            // value; nothing is said about alignment.
            control.sender = Some(unsafe { data.read_unaligned() }.into());
        }
        // SAFETY: as for the first.
        item = unsafe { libc::CMSG_NXTHDR(&raw const message, item) };
    }
    let len = usize::try_from(len).expect("no error, so no negative length");
    Ok(Received { len, is_short: message.msg_flags & libc::MSG_CTRUNC != 0 })
}

/// Shuts down one or both directions, which wakes threads that wait for them. It is fine if the socket is
/// closed already.
pub(crate) fn shutdown(socket: impl AsFd, how: Shutdown) {
    let _ = socket::shutdown(socket.as_fd().as_raw_fd(), how);
}

/// Waits until one of `events` is there, or the socket is broken; `false` if none is within `time`.
pub(crate) fn wait(socket: impl AsFd, events: PollFlags, time: Option<Duration>) -> io::Result<bool> {
    let until = time.and_then(|time| Instant::now().checked_add(time));
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        // Rounded up, so as not to look too early; beyond what poll(2) can wait for it looks in between.
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut [PollFd::new(socket.as_fd(), events)], timeout) {
            Ok(0) if left.is_some_and(|left| !left.is_zero()) => {}
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until one of these sockets takes more, or is broken, or `bell` has something to be read, for no
/// longer than `time`. Says of which it is so.
pub(crate) fn wait_for_room(
    bell: BorrowedFd<'_>,
    sockets: &[Arc<dyn AsFd + Send + Sync>],
    time: Option<Duration>,
) -> io::Result<Vec<bool>> {
    let room = sockets.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLOUT));
    let mut ready: Vec<_> = [PollFd::new(bell, PollFlags::POLLIN)].into_iter().chain(room).collect();
    let time = time.map_or(PollTimeout::NONE, |time| {
        PollTimeout::try_from(time + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
    });
    match poll(&mut ready, time) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(ready[1..].iter().map(|ready| ready.any().unwrap_or(true)).collect())
}

/// Whether the peer has closed both directions, or is gone (`POLLHUP`, poll(2)).
pub(crate) fn is_hung_up(socket: impl AsFd) -> bool {
    let mut ready = [PollFd::new(socket.as_fd(), PollFlags::empty())];
    let looked = retry(|| poll(&mut ready, PollTimeout::ZERO));
    looked.is_ok() && ready[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
}

/// Memory of what was sent and the peer has not received, in the system's measure (`SIOCOUTQ`, unix(7)).
pub(crate) fn unread(socket: impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: this request writes one `int` to where the pointer says, which lives longer than the call.
    Errno::result(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Has receives that sleep end with `WouldBlock` after this time (`SO_RCVTIMEO`, socket(7)); `None` is never.
pub(crate) fn set_receive_timeout(socket: impl AsFd, time: Option<Duration>) -> io::Result<()> {
    // Zero stands for never.
    let time = time.map_or(Duration::ZERO, |time| time.max(Duration::from_micros(1)));
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX).min(i64::from(i32::MAX));
    let value = TimeVal::new(seconds, time.subsec_micros().into());
    Ok(socket::setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &value)?)
}

/// The peer's credentials as they were when it connected (`SO_PEERCRED`, unix(7)).
pub(crate) fn peer_credentials(socket: impl AsFd) -> io::Result<UnixCredentials> {
    Ok(socket::getsockopt(&socket.as_fd(), sockopt::PeerCredentials)?)
}

/// The peer's supplementary groups as they were then (`SO_PEERGROUPS`).
pub(crate) fn peer_groups(socket: impl AsFd) -> io::Result<Vec<libc::gid_t>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 32];
    loop {
        let mut len = size_of_val(&*groups) as libc::socklen_t;
        // SAFETY: the option is written to the vector, which has as many bytes as `len` says.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        let count = len as usize / size_of::<libc::gid_t>();
        match Errno::result(result) {
            Ok(_) => {
                groups.truncate(count);
                return Ok(groups);
            }
            // It has said how many there are.
            Err(Errno::ERANGE) if count > groups.len() => groups.resize(count, 0),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether messages bring their sender's credentials (`SO_PASSCRED`, unix(7)).
pub(crate) fn pass_credentials(socket: impl AsFd, pass: bool) -> io::Result<()> {
    Ok(socket::setsockopt(&socket.as_fd(), sockopt::PassCred, &pass)?)
}

/// Whether neither end has a name: they are a connected pair.
pub(crate) fn is_unnamed(socket: impl AsFd) -> io::Result<bool> {
    let fd = socket.as_fd().as_raw_fd();
    let [here, there]: [UnixAddr; 2] = [
        socket::getsockname(fd)?,
        match socket::getpeername(fd) {
            // The peer has left.
            Err(Errno::ENOTCONN) => return Ok(true),
            name => name?,
        },
    ];
    Ok(here.is_unnamed() && there.is_unnamed())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_the_peer_has_not_received_is_unread() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(unread(&ours).unwrap(), 0);
        send(&ours, b"xy", None, Wait::Never).unwrap();
        let one = unread(&ours).unwrap();
        assert!(one >= 2);
        send(&ours, b"z", None, Wait::Never).unwrap();
        assert!(unread(&ours).unwrap() > one);
        std::io::Read::read_exact(&mut theirs, &mut [0; 3]).unwrap();
        assert_eq!(unread(&ours).unwrap(), 0);
    }

    #[test]
    fn every_descriptor_of_a_message_arrives_and_is_owned() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let many: Vec<_> = (0..253).map(|_| ours.as_raw_fd()).collect();
        let control = [ControlMessage::ScmRights(&many)];
        socket::sendmsg::<()>(theirs.as_raw_fd(), &[IoSlice::new(b"xy")], &control, MsgFlags::empty(), None)
            .unwrap();
        let (mut space, mut descriptors) = ([0; 8], Vec::new());
        let received =
            receive(&ours, &mut space, &mut Control::new(), &mut descriptors, Wait::Sleep).unwrap();
        assert_eq!(received, Received { len: 2, is_short: false });
        assert_eq!(descriptors.len(), 253);
        let numbers: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        drop(descriptors);
        let link = |number| std::fs::read_link(format!("/proc/self/fd/{number}"));
        // Other tests may have been given the numbers again, for something else than this socket.
        let socket = link(ours.as_raw_fd()).unwrap();
        assert!(numbers.into_iter().all(|number| link(number).is_err() || link(number).unwrap() != socket));
    }
}
