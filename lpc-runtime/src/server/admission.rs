//! [`Admission`]: which clients a server admits, how many at once, and how it closes all their connections.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use lpc_core::frame;
use lpc_core::receive::Role;
use lpc_core::{Error, ErrorKind, Result};
use nix::poll::PollFlags;
use nix::sys::socket::Shutdown;

use crate::config::Config;
use crate::connection::link::Link;
use crate::credentials::Credentials;
use crate::generated::Description;
use crate::handshake;
use crate::memory::budget::Budget;
use crate::server::handshakes::{self, Evicted, PendingHandshakes};
use crate::server::wakers::Event;
use crate::sys::fork::ForkGuard;
use crate::sys::socket;

/// A socket of either driver.
pub(crate) type Socket = dyn AsFd + Send + Sync;

/// The connections of one server.
#[derive(Debug)]
pub(crate) struct Admission {
    fork_guard: ForkGuard,
    state: Mutex<State>,
    /// Signalled when the last permit is dropped, or that is not to be waited for any more.
    empty: Condvar,
    refusals: Mutex<RefusalLog>,
    /// The shutdown begins.
    shutdown: Arc<Event>,
}

#[derive(Debug, Default)]
struct State {
    /// In the order in which they were accepted.
    connections: BTreeMap<u64, Entry>,
    next: u64,
    pending: PendingHandshakes,
    /// How many connections each user has.
    users: HashMap<u32, usize>,
    /// Nothing is received any more.
    is_closing: bool,
    /// Nor sent.
    is_closed: bool,
}

#[derive(Debug)]
struct Entry {
    socket: Weak<Socket>,
    /// Once the handshake is complete.
    link: Weak<Link>,
}

/// Limits how often the log is told of clients that were refused.
#[derive(Debug, Default)]
struct RefusalLog {
    last: Option<Instant>,
    suppressed: u64,
}

impl RefusalLog {
    /// How many refusals were not logged since the last that was; `None` while it is too early for another
    /// line.
    fn may_log(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < QUIET) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// The right to one connection, which counts against the limits as long as this lives.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    /// Whose connection it counts as.
    user: u32,
    /// The client, as far as it is known.
    peer: Option<Credentials>,
    number: u64,
}

/// Pause before the next look where `max_handshakes` are pending: the end of a handshake wakes no thread.
pub(crate) const FULL_PAUSE: Duration = Duration::from_millis(5);

/// Pause before the next accept where the system has no descriptor for another connection.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// The least time between two lines in the log about clients that were refused.
const QUIET: Duration = Duration::from_secs(1);

impl Default for Admission {
    fn default() -> Self {
        Self {
            fork_guard: ForkGuard::here(),
            state: Mutex::default(),
            empty: Condvar::new(),
            refusals: Mutex::default(),
            shutdown: Arc::default(),
        }
    }
}

impl Admission {
    /// Whether as many handshakes are pending as may be, when another client has come. The one that has been
    /// pending for longest is evicted for it, if that is long enough.
    pub(crate) fn is_full(&self, service: Description, config: &Config) -> bool {
        let mut not_to_drop = None;
        let mut state = self.state();
        if state.pending.count() < config.max_handshakes {
            return false;
        }
        let State { pending, connections, .. } = &mut *state;
        let evicted = pending.evict(Instant::now(), |number| is_heard(connections, number, &mut not_to_drop));
        let Some(evicted) = evicted else { return true };
        drop(state);
        self.evict(&evicted, service, config);
        false
    }

    /// Ends the connection of a client whose handshake took too long.
    fn evict(&self, evicted: &Evicted, service: Description, config: &Config) {
        let socket = self.state().connections.get(&evicted.number).and_then(|permit| permit.socket.upgrade());
        let reason = too_many_pending("there are".into(), config.max_handshakes);
        if let Some(socket) = &socket {
            if !evicted.is_greeted {
                handshake::refuse(&**socket, &reason);
            }
            socket::shutdown(&**socket, Shutdown::Both);
        }
        let peer = socket.and_then(|socket| Credentials::of_peer(&*socket).ok());
        self.log_refusal(service, peer.as_ref(), &reason);
    }

    /// Admits a client that has connected to a port, or tells it why not.
    pub(crate) fn admit<S: AsFd + Send + Sync + 'static>(
        self: &Arc<Self>,
        stream: &Arc<S>,
        service: Description,
        config: &Config,
    ) -> Option<Permit> {
        let peer = Credentials::of_peer(&**stream);
        let admitted = peer.clone().and_then(|peer| {
            config.check_peer(&peer, Role::Client)?;
            if config.is_open_to_others() {
                self.reserve_share(peer.uid(), service, config)?;
            }
            self.enter(stream, peer, Some(config))
        });
        admitted
            .inspect_err(|reason| {
                handshake::refuse(&**stream, reason);
                self.log_refusal(service, peer.as_ref().ok(), reason);
            })
            .ok()
    }

    /// Admits a connection that was handed over: the limits are for ports.
    pub(crate) fn adopt<S: AsFd + Send + Sync + 'static>(
        self: &Arc<Self>,
        stream: &Arc<S>,
    ) -> Result<Permit> {
        self.enter(stream, Credentials::of_peer(&**stream)?, None)
    }

    /// Keeps room for the handshakes of other users: a user that has its share evicts a handshake of its own.
    fn reserve_share(&self, user: u32, service: Description, config: &Config) -> Result<()> {
        let share = handshakes::share(config.max_handshakes);
        let mut not_to_drop = None;
        let mut state = self.state();
        if state.pending.of(user) < share {
            return Ok(());
        }
        let State { pending, connections, .. } = &mut *state;
        let evicted =
            pending.evict_of(user, Instant::now(), |number| is_heard(connections, number, &mut not_to_drop));
        drop(state);
        let evicted = evicted.ok_or_else(|| too_many_pending(format!("user {user} has"), share))?;
        self.evict(&evicted, service, config);
        Ok(())
    }

    fn enter<S: AsFd + Send + Sync + 'static>(
        self: &Arc<Self>,
        stream: &Arc<S>,
        peer: Credentials,
        limits: Option<&Config>,
    ) -> Result<Permit> {
        let user = peer.uid();
        Budget::of_user(user).check()?;
        let mut state = self.state();
        let of_user = state.users.get(&user).copied().unwrap_or(0);
        if let Some(limits) = limits {
            let full = |whose: String, limit: usize, knob: &str| {
                let message = format!("{whose} has {limit} connections, and may not have more ({knob})");
                Err(Error::new(ErrorKind::ResourceExhausted, message))
            };
            if state.connections.len() >= limits.max_connections {
                return full("the server".into(), limits.max_connections, "max_connections");
            }
            if of_user >= limits.max_connections_per_user {
                let limit = limits.max_connections_per_user;
                return full(format!("user {user}"), limit, "max_connections_per_user");
            }
        }
        let number = state.next;
        state.next += 1;
        let socket: Arc<Socket> = Arc::clone(stream) as _;
        state.connections.insert(number, Entry { socket: Arc::downgrade(&socket), link: Weak::new() });
        state.pending.add(user, number, Instant::now());
        state.users.insert(user, of_user + 1);
        if state.is_closing {
            socket::shutdown(&*socket, Shutdown::Read);
        }
        if state.is_closed {
            socket::shutdown(&*socket, Shutdown::Both);
        }
        drop(state);
        Ok(Permit { admission: Arc::clone(self), user, peer: Some(peer), number })
    }

    /// How many connections there are.
    pub(crate) fn count(&self) -> usize {
        self.state().connections.len()
    }

    /// Whether the shutdown has begun.
    pub(crate) fn is_closing(&self) -> bool {
        self.state().is_closing
    }

    /// Begins the shutdown: nothing more is received from any client. `false` where it had begun, and in a
    /// fork, whose parent's connections these are.
    pub(crate) fn stop_receiving(&self) -> bool {
        if !self.fork_guard.is_here() {
            return false;
        }
        let mut state = self.state();
        if std::mem::replace(&mut state.is_closing, true) {
            return false;
        }
        let connections: Vec<_> = state
            .connections
            .values()
            .map(|permit| (permit.socket.upgrade(), permit.link.upgrade()))
            .collect();
        drop(state);
        for (socket, link) in connections {
            // First: the holder of the receive half, woken by the socket's end, has to know what that means.
            let says_so = link.filter(|link| link.entrance().close());
            if let Some(socket) = socket {
                socket::shutdown(&*socket, Shutdown::Read);
            }
            // After that: what was received until now is answered, and nothing else.
            if let Some(link) = says_so {
                link.send_now(&frame::closing(0));
            }
        }
        // Last: calls that end because of it may run what takes its time.
        self.shutdown.come();
        true
    }

    /// Ends all connections, whatever runs on them. Says how many there were.
    pub(crate) fn close(&self) -> usize {
        if !self.fork_guard.is_here() {
            return 0;
        }
        let mut state = self.state();
        state.is_closed = true;
        let connections: Vec<_> = state
            .connections
            .values()
            .map(|permit| (permit.socket.upgrade(), permit.link.upgrade()))
            .collect();
        let count = connections.len();
        drop(state);
        for (socket, link) in connections {
            // Where there is a link its desk ends before the client can see the end of the socket.
            if let Some(link) = link {
                link.close();
            } else if let Some(socket) = socket {
                socket::shutdown(&*socket, Shutdown::Both);
            }
        }
        self.empty.notify_all();
        count
    }

    /// Whether all connections are over within this time, or [`close`](Self::close) was called.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> bool {
        let is_in = |state: &mut State| !state.connections.is_empty() && !state.is_closed;
        let state = self.state();
        match timeout {
            Some(timeout) => {
                let waited = self.empty.wait_timeout_while(state, timeout, is_in);
                !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
            }
            None => {
                drop(self.empty.wait_while(state, is_in).unwrap_or_else(PoisonError::into_inner));
                true
            }
        }
    }

    /// Logs why a client did not become a connection: one warning in a second, and how many others there
    /// were.
    pub(crate) fn log_refusal(&self, service: Description, peer: Option<&Credentials>, reason: &Error) {
        let (pid, uid) = (peer.map(Credentials::pid), peer.map(Credentials::uid));
        if reason.is_disconnected() {
            tracing::debug!(service = service.name, pid, uid, error = %reason, "connection ended");
            return;
        }
        let others = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).may_log(Instant::now());
        if let Some(others) = others {
            tracing::warn!(service = service.name, pid, uid, error = %reason, others, "connection refused");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether something of this client waits to be read. The socket is not to be dropped under a lock: its owner
/// may drop it meanwhile.
fn is_heard(connections: &BTreeMap<u64, Entry>, number: u64, not_to_drop: &mut Option<Arc<Socket>>) -> bool {
    *not_to_drop = connections.get(&number).and_then(|entry| entry.socket.upgrade());
    not_to_drop.as_ref().is_some_and(|socket| {
        socket::wait(&**socket, PollFlags::POLLIN, Some(Duration::ZERO)).unwrap_or(false)
    })
}

/// `whose` says whose pending handshakes are `count`.
fn too_many_pending(whose: String, count: usize) -> Error {
    let message = format!("{whose} {count} clients that have not said who they are (max_handshakes)");
    Error::new(ErrorKind::ResourceExhausted, message)
}

impl Permit {
    /// The client, as far as it is known.
    pub(crate) fn peer(&self) -> Option<&Credentials> {
        self.peer.as_ref()
    }

    /// The user whose connection it counts as: of a connected pair's, the one who made the pair.
    pub(crate) fn user(&self) -> u32 {
        self.user
    }

    /// The client has said who it is.
    pub(crate) fn introduce(&mut self, peer: Option<Credentials>) {
        self.peer = peer;
    }

    /// The server is about to send its hello.
    ///
    /// # Errors
    ///
    /// The handshake has been evicted, and the client been told.
    pub(crate) fn greet(&self) -> Result<()> {
        if self.admission.state().pending.greet(self.user, self.number) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Disconnected, "the handshake was evicted for others"))
    }

    /// By which calls learn that the server shuts down.
    pub(crate) fn shutdown(&self) -> &Arc<Event> {
        &self.admission.shutdown
    }

    /// Whether the server shuts down: the end of a connection is then not the client's.
    pub(crate) fn is_shutdown(&self) -> bool {
        let state = self.admission.state();
        state.is_closing || state.is_closed
    }

    /// The handshake is complete.
    pub(crate) fn established(&self, link: &Arc<Link>) {
        let mut state = self.admission.state();
        state.pending.remove(self.user, self.number);
        if let Some(permit) = state.connections.get_mut(&self.number) {
            permit.link = Arc::downgrade(link);
        }
        let is_closing = state.is_closing;
        drop(state);
        if is_closing && link.entrance().close() {
            link.send_now(&frame::closing(0));
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.admission.state();
        state.pending.remove(self.user, self.number);
        state.connections.remove(&self.number);
        if let Some(count) = state.users.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                state.users.remove(&self.user);
            }
        }
        if state.connections.is_empty() {
            self.admission.empty.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_one_line_a_second_with_their_number() {
        let mut refusals = RefusalLog::default();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(refusals.may_log(start), Some(0));
        for millis in 0..1000 {
            assert_eq!(refusals.may_log(at(millis)), None);
        }
        assert_eq!(refusals.may_log(at(1000)), Some(1000));
        assert_eq!(refusals.may_log(at(1999)), None);
        assert_eq!(refusals.may_log(at(9000)), Some(1));
    }
}
