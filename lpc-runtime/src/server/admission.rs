//! [`Doors`]: who gets into a server, how many at once, and the way out for all of them.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use lpc_core::frame;
use lpc_core::receive::Role;
use lpc_core::{Error, ErrorKind, Result};
use nix::sys::socket::Shutdown;

use crate::config::Config;
use crate::connection::link::Link;
use crate::credentials::Credentials;
use crate::generated::Description;
use crate::handshake;
use crate::server::handshakes::{self, Leaving, Strangers};
use crate::sys::fork::Birth;
use crate::sys::socket;

/// A socket of either driver.
pub(crate) type Socket = dyn AsFd + Send + Sync;

/// The connections of one server.
#[derive(Debug)]
pub(crate) struct Doors {
    birth: Birth,
    state: Mutex<State>,
    /// Signalled when the last guest has left, or nobody is to wait for that any more.
    empty: Condvar,
    complaints: Mutex<Complaints>,
}

#[derive(Debug, Default)]
struct State {
    /// By the order in which they came.
    guests: BTreeMap<u64, Entry>,
    next: u64,
    strangers: Strangers,
    /// How many each user has.
    users: HashMap<u32, usize>,
    /// Nothing is received any more.
    is_closing: bool,
    /// Nor sent.
    is_closed: bool,
}

#[derive(Debug)]
struct Entry {
    socket: Weak<Socket>,
    /// Once it is known who is there.
    link: Weak<Link>,
}

/// What the log has not been told yet.
#[derive(Debug, Default)]
struct Complaints {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    /// How many others there were of which nothing was said; `None` if it is too early to say more.
    fn may_be_said(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < QUIET) {
            self.unsaid += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// A connection that is not over: it counts as long as this lives.
#[derive(Debug)]
pub(crate) struct Guest {
    doors: Arc<Doors>,
    user: u32,
    number: u64,
}

/// How long who takes connections pauses where there is no room for another one: the end of a handshake wakes nobody.
pub(crate) const GLANCE: Duration = Duration::from_millis(5);

/// How long it pauses where the system has no descriptor for another one.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// The least time between two lines in the log about clients that did not get in.
const QUIET: Duration = Duration::from_secs(1);

impl Default for Doors {
    fn default() -> Self {
        Self {
            birth: Birth::here(),
            state: Mutex::default(),
            empty: Condvar::new(),
            complaints: Mutex::default(),
        }
    }
}

impl Doors {
    /// Whether as many clients as may be are about to say who they are, when another one has come. One that takes its time
    /// then gives it its place.
    pub(crate) fn is_crowded(&self, service: Description, config: &Config) -> bool {
        let mut state = self.state();
        if state.strangers.count() < config.max_handshakes {
            return false;
        }
        let Some(leaving) = state.strangers.make_room(Instant::now()) else { return true };
        drop(state);
        self.send_away(&leaving, service, config);
        false
    }

    /// Ends the connection of a client that took its time to say who it is.
    fn send_away(&self, leaving: &Leaving, service: Description, config: &Config) {
        let socket = self.state().guests.get(&leaving.number).and_then(|guest| guest.socket.upgrade());
        let reason = crowded("there are".into(), config.max_handshakes);
        if let Some(socket) = socket {
            if !leaving.is_greeted {
                handshake::refuse(&*socket, service, &reason);
            }
            socket::shutdown(&*socket, Shutdown::Both);
        }
        self.complain(service, &reason);
    }

    /// Lets a client in that comes to a port, or tells it why not.
    pub(crate) fn admit<S: AsFd + Send + Sync + 'static>(
        self: &Arc<Self>,
        stream: &Arc<S>,
        service: Description,
        config: &Config,
    ) -> Option<Guest> {
        let admitted = Credentials::of_peer(&**stream).and_then(|peer| {
            config.check_peer(&peer, Role::Client)?;
            if config.is_open_to_others() {
                self.check_share(peer.uid(), service, config)?;
            }
            self.enter(stream, peer.uid(), Some(config))
        });
        admitted
            .inspect_err(|reason| {
                handshake::refuse(&**stream, service, reason);
                self.complain(service, reason);
            })
            .ok()
    }

    /// Takes a connection that somebody else has made.
    pub(crate) fn take<S: AsFd + Send + Sync + 'static>(self: &Arc<Self>, stream: &Arc<S>) -> Result<Guest> {
        let peer = Credentials::of_peer(&**stream)?;
        self.enter(stream, peer.uid(), None)
    }

    /// Keeps places for handshakes free for other users. One that has its share makes room for itself.
    fn check_share(&self, user: u32, service: Description, config: &Config) -> Result<()> {
        let share = handshakes::share(config.max_handshakes);
        let mut state = self.state();
        if state.strangers.of(user) < share {
            return Ok(());
        }
        let leaving = state.strangers.make_room_of(user, Instant::now());
        drop(state);
        let leaving = leaving.ok_or_else(|| crowded(format!("user {user} has"), share))?;
        self.send_away(&leaving, service, config);
        Ok(())
    }

    fn enter<S: AsFd + Send + Sync + 'static>(
        self: &Arc<Self>,
        stream: &Arc<S>,
        user: u32,
        limits: Option<&Config>,
    ) -> Result<Guest> {
        let mut state = self.state();
        let of_user = state.users.get(&user).copied().unwrap_or(0);
        if let Some(limits) = limits {
            let full = |whose: String, limit: usize, knob: &str| {
                let message = format!("{whose} has {limit} connections, and may not have more ({knob})");
                Err(Error::new(ErrorKind::ResourceExhausted, message))
            };
            if state.guests.len() >= limits.max_connections {
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
        state.guests.insert(number, Entry { socket: Arc::downgrade(&socket), link: Weak::new() });
        state.strangers.add(user, number, Instant::now());
        state.users.insert(user, of_user + 1);
        if state.is_closing {
            socket::shutdown(&*socket, Shutdown::Read);
        }
        if state.is_closed {
            socket::shutdown(&*socket, Shutdown::Both);
        }
        drop(state);
        Ok(Guest { doors: Arc::clone(self), user, number })
    }

    /// How many connections there are.
    pub(crate) fn count(&self) -> usize {
        self.state().guests.len()
    }

    /// The shutdown begins: nothing more is received from anybody. `false` where it had begun, and in a fork, whose parent's
    /// connections these are.
    pub(crate) fn close_entrance(&self) -> bool {
        if !self.birth.is_here() {
            return false;
        }
        let mut state = self.state();
        if std::mem::replace(&mut state.is_closing, true) {
            return false;
        }
        let guests: Vec<_> =
            state.guests.values().map(|guest| (guest.socket.upgrade(), guest.link.upgrade())).collect();
        drop(state);
        for (socket, link) in guests {
            // First: who is woken by the socket's end has to know what it means.
            let says_so = link.filter(|link| link.close_entrance());
            if let Some(socket) = socket {
                socket::shutdown(&*socket, Shutdown::Read);
            }
            // After that: what was received until now is answered, and nothing else.
            if let Some(link) = says_so {
                link.send_now(&frame::closing(0));
            }
        }
        true
    }

    /// Ends all connections, whatever runs on them. Says how many there were.
    pub(crate) fn close(&self) -> usize {
        if !self.birth.is_here() {
            return 0;
        }
        let mut state = self.state();
        state.is_closed = true;
        let guests: Vec<_> =
            state.guests.values().map(|guest| (guest.socket.upgrade(), guest.link.upgrade())).collect();
        let count = guests.len();
        drop(state);
        for (socket, link) in guests {
            if let Some(socket) = socket {
                socket::shutdown(&*socket, Shutdown::Both);
            }
            if let Some(link) = link {
                link.close();
            }
        }
        self.empty.notify_all();
        count
    }

    /// Whether everybody has left within this time, or [`close`](Self::close) was called.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> bool {
        let is_in = |state: &mut State| !state.guests.is_empty() && !state.is_closed;
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

    /// Says in the log why a client did not get in: that of one in a second, and how many others there were.
    pub(crate) fn complain(&self, service: Description, reason: &Error) {
        if reason.is_disconnected() {
            tracing::debug!(service = service.name, error = %reason, "connection ended");
            return;
        }
        let others =
            self.complaints.lock().unwrap_or_else(PoisonError::into_inner).may_be_said(Instant::now());
        if let Some(others) = others {
            tracing::warn!(service = service.name, error = %reason, others, "connection refused");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `whose` says whose clients are `count`.
fn crowded(whose: String, count: usize) -> Error {
    let message = format!("{whose} {count} clients that have not said who they are (max_handshakes)");
    Error::new(ErrorKind::ResourceExhausted, message)
}

impl Guest {
    /// The server is about to say its hello.
    ///
    /// # Errors
    ///
    /// It must not: the client has been told to go.
    pub(crate) fn greet(&self) -> Result<()> {
        if self.doors.state().strangers.greet(self.user, self.number) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Disconnected, "the client has made room for others"))
    }

    /// It is known who is there.
    pub(crate) fn introduce(&self, link: &Arc<Link>) {
        let mut state = self.doors.state();
        state.strangers.remove(self.user, self.number);
        if let Some(guest) = state.guests.get_mut(&self.number) {
            guest.link = Arc::downgrade(link);
        }
        let is_closing = state.is_closing;
        drop(state);
        if is_closing && link.close_entrance() {
            link.send_now(&frame::closing(0));
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut state = self.doors.state();
        state.strangers.remove(self.user, self.number);
        state.guests.remove(&self.number);
        if let Some(count) = state.users.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                state.users.remove(&self.user);
            }
        }
        if state.guests.is_empty() {
            self.doors.empty.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_a_second_that_says_how_many_there_were() {
        let mut complaints = Complaints::default();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(complaints.may_be_said(start), Some(0));
        for millis in 0..1000 {
            assert_eq!(complaints.may_be_said(at(millis)), None);
        }
        assert_eq!(complaints.may_be_said(at(1000)), Some(1000));
        assert_eq!(complaints.may_be_said(at(1999)), None);
        assert_eq!(complaints.may_be_said(at(9000)), Some(1));
    }
}
