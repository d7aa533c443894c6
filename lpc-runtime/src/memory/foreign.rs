//! [`Foreign`]: a descriptor that a peer passed, as long as nothing is known of its file.
//!
//! A file may be on a filesystem for which a process answers (FUSE), and that may be the peer. It is asked by
//! fstat(2), fstatfs(2), read(2) and even close(2), which then take as long as the peer likes; a socket may
//! linger as it is closed. So what is neither memory nor a file for which the kernel alone answers is closed by a
//! thread that does nothing else, and no thread that serves, or waits until a deadline, ever closes one or asks about it.
//! How many may wait for that thread is bounded by the [`Budget`].

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::credentials::Credentials;
use crate::memory::budget::{Budget, Held, Unclosed};
use crate::sys::fork::PerProcess;
use crate::sys::memfd;

/// A descriptor of a peer's. It is closed without waiting for anything.
#[derive(Debug)]
pub(crate) struct Foreign(
    /// `None` only while it is being dropped, or taken out.
    Option<(OwnedFd, Held)>,
);

impl Foreign {
    /// One that has just arrived, and whether the user's budget has room for it.
    pub(crate) fn new(file: OwnedFd, budget: &Arc<Budget>) -> (Self, bool) {
        let (held, fits) = budget.descriptor();
        (Self(Some((file, held))), fits)
    }

    /// Whether the kernel alone answers for it.
    pub(crate) fn is_local(&self) -> bool {
        memfd::is_local(self)
    }

    /// The descriptor, to be closed like any other: for one that was found to be memory, or a file for which
    /// the kernel alone answers.
    pub(crate) fn into_local(mut self) -> (OwnedFd, Held) {
        self.0.take().expect("it is there until it is dropped")
    }
}

impl AsFd for Foreign {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_ref().expect("it is there until it is dropped").0.as_fd()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let Some((file, held)) = self.0.take() else { return };
        if !memfd::is_local(&file) {
            close_elsewhere(Waiting { file, unclosed: held.unclosed() });
        }
    }
}

/// Closes descriptors that came where none belongs.
pub(crate) fn close_strays(strays: &mut Vec<OwnedFd>, socket: impl AsFd) {
    if strays.is_empty() {
        return;
    }
    let budget = Budget::of_peer(Credentials::of_peer(socket).ok().as_ref());
    for stray in strays.drain(..) {
        drop(Foreign::new(stray, &budget));
    }
}

/// A descriptor that waits to be closed. What is counted of it comes last: it is closed by then.
struct Waiting {
    file: OwnedFd,
    unclosed: Unclosed,
}

/// What waits for one user's thread.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    has_thread: bool,
}

/// By user, so that nobody waits for another's filesystem.
static QUEUES: PerProcess<Mutex<HashMap<u32, Queue>>> = PerProcess::new(Mutex::default);

fn queues() -> MutexGuard<'static, HashMap<u32, Queue>> {
    QUEUES.get().lock().unwrap_or_else(PoisonError::into_inner)
}

fn close_elsewhere(waiting: Waiting) {
    let user = waiting.unclosed.user();
    let mut queues = queues();
    let queue = queues.entry(user).or_default();
    queue.waiting.push_back(waiting);
    if queue.has_thread {
        return;
    }
    match thread::Builder::new().name("lpc-closer".into()).spawn(move || run(user)) {
        Ok(_) => queue.has_thread = true,
        // The next one tries again.
        Err(error) => tracing::warn!(%error, "no thread to close what a peer passed"),
    }
}

fn run(user: u32) {
    loop {
        let mut queues = queues();
        let Some(next) = queues.get_mut(&user).and_then(|queue| queue.waiting.pop_front()) else {
            queues.remove(&user);
            return;
        };
        drop(queues);
        let Waiting { file, unclosed } = next;
        drop(file);
        drop(unclosed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::time::Duration;

    use nix::libc::linger;
    use nix::sys::socket::{setsockopt, sockopt};

    use super::*;

    /// Any user that no other test has.
    fn budget() -> Arc<Budget> {
        Budget::of_user(4_000_000_001)
    }

    /// A socket whose last close waits until its peer has taken what was sent, or is gone; and that peer.
    fn lingering() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let theirs = listener.accept().unwrap().0;
        ours.set_nonblocking(true).unwrap();
        while ours.write(&[0; 65_536]).is_ok() {}
        setsockopt(&ours, sockopt::Linger, &linger { l_onoff: 1, l_linger: 600 }).unwrap();
        (ours, theirs)
    }

    #[test]
    fn nobody_waits_for_a_close_and_it_counts_until_it_is_done() {
        let budget = budget();
        let (socket, peer) = lingering();
        let closed = thread::spawn({
            let budget = Arc::clone(&budget);
            move || drop(Foreign::new(socket.into(), &budget))
        });
        // Guards against hangs.
        for _ in 0..3000 {
            if closed.is_finished() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        assert!(closed.is_finished(), "the thread that dropped it waits for the close");
        assert_eq!(budget.unclosed(), 1, "it lingers");

        let (pipe, _other) = nix::unistd::pipe().unwrap();
        let other_user = Budget::of_user(4_000_000_003);
        drop(Foreign::new(pipe, &other_user));
        while other_user.unclosed() > 0 {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(budget.unclosed(), 1, "others do not wait for it");

        drop(peer);
        while budget.unclosed() > 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn memory_is_closed_at_once() {
        let budget = Budget::of_user(4_000_000_002);
        let (file, fits) = Foreign::new(memfd::create(memfd::BODIES, 1).unwrap(), &budget);
        assert!(fits && file.is_local());
        drop(file);
        assert_eq!(budget.unclosed(), 0);
        let (pipe, _other) = nix::unistd::pipe().unwrap();
        assert!(!Foreign::new(pipe, &budget).0.is_local());
    }
}
