//! What a program sets: the builders of clients and servers.
#![allow(unsafe_code, reason = "`trust` is unsafe to call")]

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

#[cfg(doc)]
use lpc_core::ErrorKind;
use lpc_core::Threshold;
use lpc_core::codec::DEEPEST;
use lpc_core::frame::MAX_BODY;

use super::{AtQuota, Config, Rule};
use crate::client::reconnect::Reconnect;
use crate::credentials::Credentials;

/// Builds a client `C` whose settings differ from the defaults.
///
/// `D` is the driver: see [`lpc::ClientBuilder`](crate::ClientBuilder) for async clients and
/// [`lpc::blocking::ClientBuilder`](crate::blocking::ClientBuilder) for blocking ones.
///
/// ```
/// # use lpc::service;
/// # #[service] pub trait Echo { fn echo(&self, text: &str) -> lpc::Result<String>; }
/// # fn connect() -> lpc::Result<EchoClient> {
/// let echo = EchoClient::builder()
///     .threshold(lpc::Threshold::bytes(64 * 1024))
///     .max_message(1 << 30)
///     .connect("echo")?;
/// # Ok(echo) }
/// ```
#[derive(Debug)]
#[must_use = "a builder makes nothing until `connect` or one of its kind is called"]
pub struct ClientBuilder<C, D> {
    pub(crate) config: Config,
    made: PhantomData<fn() -> (C, D)>,
}

/// Builds a server whose settings differ from the defaults.
///
/// `D` is the driver: see [`lpc::ServerBuilder`](crate::ServerBuilder) for servers on tokio and
/// [`lpc::blocking::ServerBuilder`](crate::blocking::ServerBuilder) for blocking ones.
#[derive(Debug)]
#[must_use = "a builder makes nothing until `bind` or one of its kind is called"]
pub struct ServerBuilder<D> {
    pub(crate) config: Config,
    made: PhantomData<fn() -> D>,
}

impl<C, D> ClientBuilder<C, D> {
    /// A builder with the default settings.
    #[allow(clippy::new_without_default, reason = "a client is made by its `builder()`")]
    pub fn new() -> Self {
        Self { config: Config::default(), made: PhantomData }
    }

    /// What happens to a call for which the connection has no room. Default: its caller waits, for up to 30
    /// s.
    pub fn at_quota(mut self, at_quota: AtQuota) -> Self {
        self.config.at_quota = at_quota;
        self
    }

    /// How long each call may take. Default: no limit.
    ///
    /// A method's own `#[lpc(deadline = "…")]` takes precedence, and
    /// [`with_deadline`](crate::blocking::Client::with_deadline), for single calls, takes precedence over
    /// both.
    ///
    /// A call without a reply by then fails with [`ErrorKind::TimedOut`], and the server cancels it: the
    /// future of an `async fn` is dropped, a `fn` can [ask](crate::Context::is_cancelled). A reply that comes
    /// later is dropped.
    pub fn deadline(mut self, time: Duration) -> Self {
        self.config.deadline = Some(time);
        self
    }

    /// Connects again when the connection is lost, and repeats calls that were not sent or are idempotent.
    /// Default: it does not, and all calls fail once the connection is over.
    ///
    /// This is for [`connect`](crate::blocking::ClientBuilder::connect), which makes the first connection
    /// at once, as it does without, and for [`supervise`](crate::blocking::ClientBuilder::supervise),
    /// which starts a program.
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.config.reconnect = Some(reconnect);
        self
    }

    /// Has the child process of [`spawn`](crate::blocking::ClientBuilder::spawn) or
    /// [`supervise`](crate::blocking::ClientBuilder::supervise) killed (SIGKILL) as soon as this process
    /// ends, even where a call still runs. Default: no. The child's `serve_parent` then returns when its
    /// running calls have ended, which takes as long as they do.
    ///
    /// The child asks the kernel for it (`PR_SET_PDEATHSIG`, prctl(2)) in `serve_parent`, with what follows:
    ///
    /// - It is about the process that this one starts, not about those that it starts in turn. Where the
    ///   command is a shell or another program that starts the service as a child of its own, the service
    ///   ends with that one.
    /// - The kernel forgets it when the process changes its user or group, or executes a set-user-ID program:
    ///   drop privileges before `serve_parent`.
    /// - The kernel sends the signal when the *thread* ends that started the child. So that this is no thread
    ///   of yours, such children are started by a thread that lpc keeps for it.
    /// - Until the child calls `serve_parent` nothing ends it.
    ///
    /// ```no_run
    /// # #[lpc::service] pub trait Decoder { fn decode(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>>; }
    /// use std::process::Command;
    ///
    /// let builder = DecoderClient::builder().kill_with_parent(true);
    /// let (decoder, child) = builder.spawn(&mut Command::new("decoder"))?;
    /// # Ok::<(), lpc::Error>(())
    /// ```
    pub fn kill_with_parent(mut self, kill: bool) -> Self {
        self.config.kill_with_parent = kill;
        self
    }

    /// How many calls may be in flight at once. Default: 1024.
    ///
    /// A call that was cancelled, or is past its deadline, counts until the server has answered it. Further
    /// calls wait for their turn, in the order in which they came. Of an async client the future of a call
    /// whose turn has come and that is kept without being polled keeps those behind it waiting, as the
    /// documentation of its `Client` says.
    ///
    /// # Panics
    ///
    /// If `calls` is 0.
    pub fn max_calls_in_flight(mut self, calls: u32) -> Self {
        assert!(calls > 0, "max_calls_in_flight is at least 1");
        self.config.limits.max_calls = calls;
        self
    }
}

impl<D> ServerBuilder<D> {
    pub(crate) fn new() -> Self {
        Self::with_config(Config::default())
    }

    pub(crate) fn with_config(config: Config) -> Self {
        Self { config, made: PhantomData }
    }

    /// How many calls of one connection run at the same time; further ones wait. Default: 16.
    ///
    /// Of the waiting calls up to 1024, with about 1 MiB of arguments, are read ahead, so that their
    /// cancellation is seen; eight times as much where no call ends for a second, since those that run may
    /// wait for calls within them that were sent behind these. A call that was cancelled and still runs
    /// counts.
    ///
    /// # Panics
    ///
    /// If `calls` is 0.
    pub fn max_concurrent_calls(mut self, calls: usize) -> Self {
        assert!(calls > 0, "max_concurrent_calls is at least 1");
        self.config.max_concurrent_calls = calls;
        self
    }

    /// How many bytes of shared memory all connections of one user may use together, in both directions.
    /// Default: 8 GiB. Bodies beyond it take the socket.
    pub fn user_pool_limit(mut self, bytes: u64) -> Self {
        self.config.user_pool_limit = bytes;
        self
    }

    /// How many connections there may be at once. Default: 16,384.
    ///
    /// A connection counts until the last of its calls has ended. A client that comes when the limit is
    /// reached is refused: its `connect` fails with [`ErrorKind::ResourceExhausted`]. When the process has no
    /// file descriptor left for another connection, clients wait instead.
    ///
    /// # Panics
    ///
    /// If `connections` is 0.
    pub fn max_connections(mut self, connections: usize) -> Self {
        assert!(connections > 0, "max_connections is at least 1");
        self.config.max_connections = connections;
        self
    }

    /// How many connections one user may have at once. Default: 4,096. Otherwise like
    /// [`max_connections`](Self::max_connections).
    ///
    /// # Panics
    ///
    /// If `connections` is 0.
    pub fn max_connections_per_user(mut self, connections: usize) -> Self {
        assert!(connections > 0, "max_connections_per_user is at least 1");
        self.config.max_connections_per_user = connections;
        self
    }

    /// How many handshakes may be pending at once: connections whose clients have not yet said which service
    /// they want. Default: 128.
    ///
    /// When all places are taken, the next client waits to be accepted, so that any number of honest clients
    /// get in. Clients that have been silent for a second are then refused with
    /// [`ErrorKind::ResourceExhausted`], to make room.
    ///
    /// Where [`accept`](Self::accept) lets several users in, each of them has at most three quarters of the
    /// places, so that none keeps the others out. A client beyond that share replaces one of the same user
    /// that has been silent for 100 ms, or else is refused itself. If all places are taken nevertheless, the
    /// user who holds the most gives one up, after 100 ms of silence, too.
    ///
    /// # Panics
    ///
    /// If `handshakes` is 0.
    pub fn max_handshakes(mut self, handshakes: usize) -> Self {
        assert!(handshakes > 0, "max_handshakes is at least 1");
        self.config.max_handshakes = handshakes;
        self
    }

    /// The mode of the socket of a port that is an absolute path, which decides who may connect as far as the
    /// file system is concerned. Default: 0600.
    ///
    /// The socket has this mode before any client can connect. Clients of other users have to be
    /// [accepted](Self::accept) as well. The socket of a name is in a directory that no other user can enter:
    /// for a name, `bind` fails with [`ErrorKind::InvalidInput`] unless the mode is the default.
    ///
    /// # Panics
    ///
    /// If `mode` has bits other than those for reading, writing and executing.
    pub fn socket_mode(mut self, mode: u32) -> Self {
        assert!(mode & !0o777 == 0, "socket_mode is at most 0o777");
        self.config.socket_mode = mode;
        self
    }

    /// How long `serve` waits for running calls after `Handle::shutdown`. Default: 30 s.
    ///
    /// After that it closes all connections and returns.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.config.shutdown_timeout = timeout;
        self
    }

    /// Whether `serve` notifies the service manager when it is ready, and when it stops (sd_notify(3)).
    /// Default: yes, where the environment variable `NOTIFY_SOCKET` names one.
    ///
    /// Turn it off in a program that is not yet ready when it serves, or not yet done when it stops serving,
    /// and that notifies the service manager itself.
    pub fn systemd_notify(mut self, notify: bool) -> Self {
        self.config.systemd_notify = notify;
        self
    }
}

macro_rules! common_knobs {
    () => {
        /// The encoded size above which a body takes the mapping lane. Default: the environment variable
        /// `LPC_THRESHOLD` (`off`, `always`, `4096`, `64KiB`, …) if it is set, else [`Threshold::default`].
        ///
        /// It applies to what this side sends: arguments on a client, results on a server. A method's own
        /// `#[lpc(threshold = "…")]` takes precedence.
        pub fn threshold(mut self, threshold: Threshold) -> Self {
            self.config.threshold = Some(threshold);
            self
        }

        /// The largest encoded body in bytes, sent or received, on either lane. Default: 256 MiB.
        ///
        /// The lower of both sides' limits holds. A body beyond it is an [`ErrorKind::TooLarge`].
        pub fn max_message(mut self, bytes: u64) -> Self {
            self.config.limits.max_message = bytes.min(MAX_BODY);
            self
        }

        /// How deep values may nest, in arguments and results. Default: 128; at most 1024.
        ///
        /// A sequence, a map, a tuple, a struct and an enum are each a level, and so is an `Option` or
        /// newtype directly within another: a list of nodes with a field `Option<Box<Node>>` has a level a
        /// node. The lower of both sides' limits holds. A value beyond it is an [`ErrorKind::Encode`].
        ///
        /// Values are encoded and decoded by functions that call themselves: each level takes up to
        /// 8 KiB of the stack in a build without optimisation, and about 1 KiB in one with it. Threads have 2
        /// MiB unless they are made with more (`RUST_MIN_STACK` for those of a blocking server,
        /// `thread_stack_size` for tokio's); a type that contains itself beside a large array takes that
        /// array's size a level more. What a peer sends is decoded on them, too.
        pub fn max_depth(mut self, levels: u32) -> Self {
            self.config.limits.max_depth = levels.min(DEEPEST);
            self
        }

        /// How many bytes of shared memory this side keeps for what it sends over one connection, and how
        /// many of its peer's it maps. Default: 512 MiB. With 0 there is no shared memory, and everything
        /// takes the socket.
        ///
        /// Loans are part of it. When it has no room at the moment, a caller [waits](ClientBuilder::at_quota)
        /// and a reply takes the socket; a body above the threshold that is larger than the whole pool is an
        /// [`ErrorKind::TooLarge`]. Segments double in size from 1 MiB on, and each body occupies whole pages
        /// of one segment, so the last few pages may remain unused.
        ///
        /// A server also copies no more bytes of arguments than this out of one connection's memory at the
        /// same time.
        pub fn pool_limit(mut self, bytes: u64) -> Self {
            self.config.limits.pool = bytes;
            self
        }

        /// How many bytes of files and sealed memory the peer may hold that this side has passed over one
        /// connection. Default: 64 GiB.
        ///
        /// They occupy address space, and memory only where a receiver that does not trust the sender copies
        /// a file, which `pool_limit` bounds. Beyond the limit, those passed longest ago are withdrawn, and
        /// announced again when they are passed again; a single one over it is an [`ErrorKind::TooLarge`].
        pub fn file_limit(mut self, bytes: u64) -> Self {
            self.config.limits.lent = bytes;
            self
        }

        /// How long shared memory that this side keeps stays mapped without being used. Default: 10 s.
        ///
        /// It may take up to twice as long until both sides unmap it. To have a page of it again costs
        /// microseconds.
        pub fn pool_idle_timeout(mut self, timeout: Duration) -> Self {
            // The search for idle memory should not keep this process busy.
            self.config.pool_idle_timeout = timeout.max(Duration::from_millis(20));
            self
        }

        /// Reads the memory of the peers for which `trusts` returns true in place: `&str`, `&[u8]` and
        /// [`Shared`](crate::Shared) point into it, and nothing is copied on this side. Default: no peer's.
        ///
        /// `trusts` is called once for each connection.
        ///
        /// ```
        /// # let builder = lpc::blocking::Server::builder();
        /// // SAFETY: all programs of this user are ours, use lpc, and never write to files they have passed.
        /// let builder = unsafe { builder.trust(|peer| peer.uid() == 1000) };
        /// # drop(builder);
        /// ```
        ///
        /// # Safety
        ///
        /// A trusted peer must not write to memory that it has passed until that is given back: arguments
        /// with the reply, results and loans when the receiver drops them. lpc never does. So the promise is
        /// that the peer runs lpc, is not made to do otherwise, and does not go on using the connection in a
        /// child after fork(2).
        ///
        /// Nor may anybody write to or truncate a file that the peer passes, for as long as this side has it.
        /// lpc cannot see to that, as writing to a file is safe code. Know the programs that you trust.
        pub unsafe fn trust(mut self, trusts: impl Fn(&Credentials) -> bool + Send + Sync + 'static) -> Self {
            self.config.trust = Some(Rule(Arc::new(trusts)));
            self
        }

        /// Decides by its credentials whether a peer may be at the other end of a port. Default: only a
        /// process of the same effective user as this one.
        ///
        /// A peer that is not accepted, or for which `accepts` panics, is refused with
        /// [`ErrorKind::PermissionDenied`]. `accepts` is called for ports and for sockets of the service
        /// manager. It is not called for connected pairs, child processes and services in the same process,
        /// where one program had both ends to give away. The credentials of a server are those of the process
        /// that listens: for a socket of the service manager, the service manager's.
        ///
        /// A server calls it before it takes a thread or task for the client, for one client after the other,
        /// so it should decide from what is in memory.
        ///
        /// ```
        /// # let directory = tempfile::tempdir()?;
        /// # let port = directory.path().join("documents");
        /// // Clients of one group, which the default mode of the socket would keep out.
        /// let server = lpc::blocking::Server::builder()
        ///     .socket_mode(0o660)
        ///     .accept(|peer| peer.gid() == 1001)
        ///     .bind(port)?;
        /// # Ok::<(), lpc::Error>(())
        /// ```
        pub fn accept(mut self, accepts: impl Fn(&Credentials) -> bool + Send + Sync + 'static) -> Self {
            self.config.accept = Some(Rule(Arc::new(accepts)));
            self
        }

        /// How long the peer may pause in the middle of a message before the connection is closed; for a
        /// server, also how long a client may leave replies unread. Default: 30 s.
        ///
        /// A client has left them unread if it has taken nothing from its socket and its ring meanwhile. What
        /// it has read it may keep for as long as it likes. A blocking client that nobody calls through reads
        /// every half [`pool_idle_timeout`](Self::pool_idle_timeout), which should be shorter than this.
        pub fn stall_timeout(mut self, timeout: Duration) -> Self {
            self.config.stall_timeout = timeout;
            self
        }

        /// How long the peer may give no sign of life while a call is under way, before the connection is
        /// closed and its calls fail with [`Disconnected`](ErrorKind::Disconnected). Default: for ever. (A
        /// peer that has ended is noticed at once in any case.)
        ///
        /// So a peer is noticed that is stopped (SIGSTOP, a debugger), frozen (its cgroup), or stuck as a
        /// whole, without a deadline. As long as calls are under way this side sends a small frame now and
        /// then, and looks whether the peer takes it, which its library does however long its calls run:
        /// there is nothing that the peer has to agree to. It takes up to half as long again. With no call
        /// under way nothing is sent, and nothing is noticed; nor is a call that hangs in a process that is
        /// alive, for which there are deadlines.
        ///
        /// ```
        /// # use std::time::Duration;
        /// # #[lpc::service] pub trait Sums { fn add(&self, a: u64, b: u64) -> lpc::Result<u64>; }
        /// # struct Plain;
        /// # impl Sums for Plain { fn add(&self, a: u64, b: u64) -> lpc::Result<u64> { Ok(a + b) } }
        /// let sums = SumsClient::builder().keepalive(Duration::from_secs(5)).in_process(Plain)?;
        /// assert_eq!(sums.add(1, 2)?, 3);
        /// # Ok::<(), lpc::Error>(())
        /// ```
        ///
        /// A server whose queue of waiting calls is full receives nothing, and gives a sign of life each
        /// second: so no less than 3 s suits such clients. A peer on tokio whose threads are all blocked for
        /// as long as this is taken for stopped, and so is a blocking server that the system has no thread
        /// for.
        pub fn keepalive(mut self, time: Duration) -> Self {
            // To look more often would keep this process busy.
            self.config.keepalive = Some(time.max(Duration::from_millis(20)));
            self
        }

        /// How long this side spins for the peer's next message before it sleeps. Default: 20 µs. Zero: not
        /// at all.
        ///
        /// To wake a sleeping thread takes about that long, and ten times as long as a call between two
        /// threads that are awake. This side spins only while calls are in flight and the peer was last seen
        /// on another CPU. It stops where spinning does not pay, because messages usually come later or the
        /// machine is busy, and tries again now and then.
        pub fn spin(mut self, time: Duration) -> Self {
            self.config.spin = time;
            self
        }

        /// Sends small messages through a ring in shared memory, without a system call, if the peer asks for
        /// it as well: the quick lane. Default: no.
        ///
        /// It is for callers that need a microsecond. It costs 68 KiB of memory for each connection and side,
        /// and pays while both sides are awake: while calls follow each other within [`spin`](Self::spin) on
        /// two CPUs, or many are in flight. A side that sleeps is still woken through the socket. Bodies of
        /// more than about 4 KiB, descriptors, and whatever is sent while the ring is full take the socket as
        /// ever. What a call means, and how it can fail, stays the same.
        pub fn quick_lane(mut self, quick_lane: bool) -> Self {
            self.config.limits.quick_lane = quick_lane;
            self
        }

        /// How long a handshake may take. Default: 10 s.
        ///
        /// What has come from the peer by then counts, also where this process was stopped meanwhile and
        /// reads it later.
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
