//! What a program sets: the builders of clients and servers.
#![allow(unsafe_code, reason = "`trust` is unsafe to call")]

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

#[cfg(doc)]
use lpc_core::ErrorKind;
use lpc_core::Threshold;

use super::{AtQuota, Config, Rule};
use crate::client::reconnect::Reconnect;
use crate::credentials::Credentials;

/// Makes a client `C` with other settings than the default ones.
///
/// `D` is the driver; see [`lpc::ClientBuilder`](crate::ClientBuilder) and
/// [`lpc::blocking::ClientBuilder`](crate::blocking::ClientBuilder).
///
/// ```
/// # use lpc::service;
/// # #[service] pub trait Echo { fn echo(&self, text: &str) -> lpc::Result<String>; }
/// # fn connect() -> lpc::Result<EchoClient> {
/// let echo = EchoClient::builder().threshold(lpc::Threshold::bytes(64 * 1024)).max_message(1 << 30).connect("echo")?;
/// # Ok(echo) }
/// ```
#[derive(Debug)]
#[must_use = "a builder makes nothing until `connect` or one of its kind is called"]
pub struct ClientBuilder<C, D> {
    pub(crate) config: Config,
    made: PhantomData<fn() -> (C, D)>,
}

/// Makes a server with other settings than the default ones.
///
/// `D` is the driver; see [`lpc::ServerBuilder`](crate::ServerBuilder) and
/// [`lpc::blocking::ServerBuilder`](crate::blocking::ServerBuilder).
#[derive(Debug)]
#[must_use = "a builder makes nothing until `bind` or one of its kind is called"]
pub struct ServerBuilder<D> {
    pub(crate) config: Config,
    made: PhantomData<fn() -> D>,
}

impl<C, D> ClientBuilder<C, D> {
    /// The default settings.
    #[allow(clippy::new_without_default, reason = "a client is made by its `builder()`")]
    pub fn new() -> Self {
        Self { config: Config::new(), made: PhantomData }
    }

    /// What a call does where the connection has no room for it. Default: it waits, for 30 s at most.
    pub fn at_quota(mut self, at_quota: AtQuota) -> Self {
        self.config.at_quota = at_quota;
        self
    }

    /// How long each call may take. Default: no limit. A method's own `#[lpc(deadline = "…")]` goes before, and before
    /// that [`with_deadline`](crate::blocking::Client::with_deadline), call by call.
    ///
    /// A call that has no reply by then fails with [`ErrorKind::TimedOut`], and the server is told: an `async fn` is dropped
    /// there, a `fn` can [ask](crate::Context::is_cancelled). The reply, should there be one, is dropped when it comes.
    pub fn deadline(mut self, time: Duration) -> Self {
        self.config.deadline = Some(time);
        self
    }

    /// Has the client connect again when it has lost its connection, and make calls again that were not sent, or are
    /// idempotent. Default: it does not, and once the connection is over all calls fail. For
    /// [`connect`](crate::blocking::ClientBuilder::connect), whose first connection is made at once as ever.
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.config.reconnect = Some(reconnect);
        self
    }

    /// How many calls may be in flight at once. Default: 1024. One that was cancelled, or is past its deadline, counts
    /// until the server has answered it.
    ///
    /// # Panics
    ///
    /// If it is 0.
    pub fn max_calls_in_flight(mut self, calls: u32) -> Self {
        assert!(calls > 0, "max_calls_in_flight is at least 1");
        self.config.limits.max_calls = calls;
        self
    }
}

impl<D> ServerBuilder<D> {
    pub(crate) fn new() -> Self {
        Self::with_config(Config::new())
    }

    pub(crate) fn with_config(config: Config) -> Self {
        Self { config, made: PhantomData }
    }

    /// How many calls of one connection run side by side; further ones wait. Default: 16.
    /// Up to 1024 of them, and some 1 MiB of arguments, are read ahead, so that their cancellation is seen; what is cancelled and still runs counts.
    ///
    /// # Panics
    ///
    /// If it is 0.
    pub fn max_concurrent_calls(mut self, calls: usize) -> Self {
        assert!(calls > 0, "max_concurrent_calls is at least 1");
        self.config.max_calls = calls;
        self
    }

    /// Bytes of shared memory at most that all connections of one user have together, in both directions. Default: 8 GiB.
    /// What is over it takes the socket.
    pub fn user_pool_limit(mut self, bytes: u64) -> Self {
        self.config.user_pool = bytes;
        self
    }

    /// How many connections there may be at once. Default: 16,384.
    ///
    /// A connection counts until the last of its calls is over. Who comes when there is no room is refused: its `connect` fails
    /// with [`ErrorKind::ResourceExhausted`]. Where the system has no descriptor left for another one, clients wait instead.
    ///
    /// # Panics
    ///
    /// If it is 0.
    pub fn max_connections(mut self, connections: usize) -> Self {
        assert!(connections > 0, "max_connections is at least 1");
        self.config.max_connections = connections;
        self
    }

    /// How many connections one user may have at once. Default: 4,096. Otherwise as
    /// [`max_connections`](Self::max_connections).
    ///
    /// # Panics
    ///
    /// If it is 0.
    pub fn max_connections_per_user(mut self, connections: usize) -> Self {
        assert!(connections > 0, "max_connections_per_user is at least 1");
        self.config.max_connections_per_user = connections;
        self
    }

    /// How many clients at once may be about to say who they are. Default: 128.
    ///
    /// Who comes when there are as many waits to be taken, so that any number of honest ones get in. To make room for them,
    /// whoever has been silent for a second then is refused with [`ErrorKind::ResourceExhausted`].
    ///
    /// Where [`accept`](Self::accept) lets several users in, each has three quarters of the places at most, so that none keeps
    /// the others out: a newcomer takes the place of a client of the same user that has been silent for 100 ms, or is refused
    /// itself. When all places are taken nevertheless, the user who has most makes room, after 100 ms too.
    ///
    /// # Panics
    ///
    /// If it is 0.
    pub fn max_handshakes(mut self, handshakes: usize) -> Self {
        assert!(handshakes > 0, "max_handshakes is at least 1");
        self.config.max_handshakes = handshakes;
        self
    }

    /// The mode of the socket of a port that is an absolute path: who may connect, as far as the file system decides it.
    /// Default: 0600. It is there before anybody can connect. Clients of other users have to be
    /// [accepted](Self::accept), too.
    ///
    /// The socket of a name is in a directory that no other user can enter: for it any other mode is an
    /// [`ErrorKind::InvalidInput`] of `bind`.
    ///
    /// # Panics
    ///
    /// If it has other bits than those of reading, writing and executing.
    pub fn socket_mode(mut self, mode: u32) -> Self {
        assert!(mode & !0o777 == 0, "socket_mode is at most 0o777");
        self.config.socket_mode = mode;
        self
    }

    /// How long `serve` waits after `Handle::shutdown` for the calls that run. Default: 30 s. Then it closes all
    /// connections and returns.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.config.shutdown_timeout = timeout;
        self
    }

    /// Whether `serve` tells the service manager that it is ready, and at its end that it stops (sd_notify(3)), where there
    /// is one that wants to know (`NOTIFY_SOCKET`). Default: yes. A program that is not ready yet when it serves, or not over
    /// when it does not, says so itself.
    pub fn systemd_notify(mut self, notify: bool) -> Self {
        self.config.systemd_notify = notify;
        self
    }
}

macro_rules! common_knobs {
    () => {
        /// Bodies of an encoded size above this take the mapping lane. Default: the environment variable
        /// `LPC_THRESHOLD` (`off`, `always`, `4096`, `64KiB`, …), or else [`Threshold::default`].
        ///
        /// This side's threshold is for what this side sends. A method's own `#[lpc(threshold = "…")]` goes before.
        pub fn threshold(mut self, threshold: Threshold) -> Self {
            self.config.threshold = Some(threshold);
            self
        }

        /// Bytes of one encoded body at most, sent or received, on either lane. Default: 256 MiB. The narrower of
        /// both sides' holds; one body over it is an [`ErrorKind::TooLarge`].
        pub fn max_message(mut self, bytes: u64) -> Self {
            // An inline body's length stands in 32 bits of its frame, with that of a table of its loans.
            self.config.limits.max_message = bytes.min(u64::from(u32::MAX) - (64 << 10));
            self
        }

        /// Bytes of shared memory at most that this side keeps for what it sends over one connection, and that it
        /// maps of what its peer keeps. Default: 512 MiB. Loans stand in it, too. Where there is no room at the moment a
        /// caller [waits](ClientBuilder::at_quota), and a reply takes the socket; what is over the threshold and larger than
        /// all of the pool is an [`ErrorKind::TooLarge`]. Its segments double from 1 MiB on, and everything takes whole pages
        /// in one of them, so that not quite all of it can be filled. Arguments that this side copies out of the peer's memory
        /// are bounded by it as well. With 0 there is no shared memory, and everything takes the socket.
        pub fn pool_limit(mut self, bytes: u64) -> Self {
            self.config.limits.pool = bytes;
            self
        }

        /// Bytes at most of files and sealed memory that one side has passed over one connection and that the other one may be
        /// using. Default: 64 GiB. They take address space, and memory only where a receiver that does not trust copies a
        /// file, which `pool_limit` bounds. Where there are too many at once, those that were passed longest ago are announced
        /// anew when they are passed again; one over it is an [`ErrorKind::TooLarge`].
        pub fn file_limit(mut self, bytes: u64) -> Self {
            self.config.limits.lent = bytes;
            self
        }

        /// How long shared memory that this side keeps stays unused before both sides unmap it. Default: 10 s; it may take
        /// up to twice as long. Having it again costs microseconds a page.
        pub fn pool_idle_timeout(mut self, timeout: Duration) -> Self {
            // Looking for what is idle should not be all that is done.
            self.config.idle = timeout.max(Duration::from_millis(20));
            self
        }

        /// Has the memory of some peers read in place: `&str`, `&[u8]` and [`Shared`](crate::Shared) point into it, and
        /// nothing is copied on this side. `trusts` is asked once for each connection. Default: of no peer.
        ///
        /// ```
        /// # let builder = lpc::blocking::Server::builder();
        /// // SAFETY: this user's programs are ours, all of them use lpc, and none writes to files that it has passed.
        /// let builder = unsafe { builder.trust(|peer| peer.uid() == 1000) };
        /// # drop(builder);
        /// ```
        ///
        /// # Safety
        ///
        /// A peer that is trusted does not write to memory that it has passed, before that is given back: arguments with the
        /// reply, results and loans when the receiver drops them. lpc never does; the promise is that the peer runs lpc and
        /// is not made to do otherwise, and does not go on using it in a child after fork(2).
        ///
        /// Nor does anybody write to a file that the peer passes, or truncate it, as long as this side has it. That is not for
        /// lpc to keep: writing to files is safe code. Know the programs that you trust.
        pub unsafe fn trust(mut self, trusts: impl Fn(&Credentials) -> bool + Send + Sync + 'static) -> Self {
            self.config.trust = Some(Rule(Arc::new(trusts)));
            self
        }

        /// Says who may be at the other end of a port, by its credentials. Default: who runs for the same effective user as
        /// this process.
        ///
        /// It is asked for ports and for sockets of the service manager. A pair is connected by somebody who has both ends, so
        /// that for pairs, children and services in process it is not asked. Who is not accepted is turned away with
        /// [`ErrorKind::PermissionDenied`]; so is everybody for whom it panics. The user of a server is that of the process
        /// which listens: for a socket of the service manager, the service manager's.
        ///
        /// A server asks before it takes a thread or task for the client, and for one client after the other: it should decide
        /// from what it has in memory.
        ///
        /// ```
        /// # let directory = tempfile::tempdir()?;
        /// # let port = directory.path().join("documents");
        /// // One group of the machine's users; the file system would keep out all others but this one and root.
        /// let server = lpc::blocking::Server::builder().socket_mode(0o660).accept(|peer| peer.gid() == 1001).bind(port)?;
        /// # Ok::<(), lpc::Error>(())
        /// ```
        pub fn accept(mut self, accepts: impl Fn(&Credentials) -> bool + Send + Sync + 'static) -> Self {
            self.config.accept = Some(Rule(Arc::new(accepts)));
            self
        }

        /// How long the other side may stop in the middle of a message before the connection is closed, and at a server how
        /// long a client may take none of the replies that are to be sent. Default: 30 s.
        pub fn stall_timeout(mut self, timeout: Duration) -> Self {
            self.config.stall = timeout;
            self
        }

        /// How long this side looks for the other's next message before it sleeps. Default: 20 µs.
        ///
        /// Waking a thread that sleeps takes about that long, and ten times as long as a call between two threads that are
        /// awake. It looks only where the other side was last on another CPU, and where looking does not pay, because messages
        /// come later as a rule or the machine is busy, it stops, but for a try now and then. Nothing looks while no call is
        /// being made. Zero: it sleeps at once.
        pub fn spin(mut self, time: Duration) -> Self {
            self.config.spin = time;
            self
        }

        /// Has small messages go through a ring in shared memory, without a system call, where the other side wants that, too:
        /// the quick lane. Default: no. Where only one side wants it, nothing changes.
        ///
        /// For callers that need a microsecond. It takes 68 KiB of memory for each connection and side, and pays where both sides
        /// are awake: while calls follow each other within [`spin`](Self::spin) on two CPUs, or many are in flight. Who sleeps is
        /// still woken through the socket. Bodies of more than some 4 KiB, descriptors, and whatever comes while the ring is
        /// full, take the socket as ever; what a call means, and how it can fail, stays the same.
        pub fn quick_lane(mut self, quick_lane: bool) -> Self {
            self.config.limits.quick_lane = quick_lane;
            self
        }

        /// How long the other side may take to say who it is. Default: 10 s.
        pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
            self.config.handshake_timeout = timeout;
            self
        }
    };
}

impl<C, D> ClientBuilder<C, D> {
    common_knobs!();
}

impl<D> ServerBuilder<D> {
    common_knobs!();
}
