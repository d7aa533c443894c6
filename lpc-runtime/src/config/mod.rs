//! The settings of clients and servers, and their limits.
//!
//! A [`ClientBuilder`] or [`ServerBuilder`] has one method for each setting, the same for both drivers.
//!
//! # Limits
//!
//! Whatever a peer does, what it can use of this process is bounded: connections, calls, memory, descriptors,
//! time. These are the bounds, and what happens at each. Where a builder sets one, the tables name its
//! method, and so does the error that the bound leads to.
//!
//! Admission to a server:
//!
//! | limit | default | at the limit |
//! |---|---|---|
//! | users ([`accept`]) | the server's own | `connect` fails: `PermissionDenied` |
//! | connections ([`max_connections`]) | 16,384 | `connect` fails: `ResourceExhausted` |
//! | connections of one user ([`max_connections_per_user`]) | 4,096 | `connect` fails: `ResourceExhausted` |
//! | pending handshakes ([`max_handshakes`]) | 128 | the next waits; one silent for 1 s is refused |
//! | those of one user, if several are accepted | 96 | one silent for 100 ms is refused, or the next |
//! | time for a handshake ([`handshake_timeout`]) | 10 s | both sides close; `connect` fails: `TimedOut` |
//! | bytes of a client's hello, of a server's | 64 KiB, 1 MiB | `connect` fails: `Protocol` |
//! | descriptors of the process | the system's | clients wait |
//! | descriptors of one user's that wait to be closed | 64 | `connect` fails: `ResourceExhausted` |
//! | threads of the process | the system's | `connect` fails: `ResourceExhausted` |
//! | time for a shutdown ([`shutdown_timeout`]) | 30 s | all connections are closed |
//!
//! Calls and messages:
//!
//! | limit | default | kept by | at the limit |
//! |---|---|---|---|
//! | calls in flight ([`max_calls_in_flight`]) | 1024 | client | the caller waits ([`at_quota`]) |
//! | wait for a free call or memory ([`at_quota`]) | 30 s | client | `ResourceExhausted` |
//! | time for a call ([`deadline`]) | none | both | `TimedOut`; the server cancels it |
//! | calls that run at once ([`max_concurrent_calls`]) | 16 | server | further calls wait |
//! | calls within calls | 32 deep | client | `ResourceExhausted` |
//! | the same that run beyond `max_concurrent_calls` | one for each depth | server | they wait like others |
//! | waiting calls, bytes of their arguments | 1024, 1 MiB | server | it stops receiving until a call ends |
//! | the same, where none ends for a second | 8192, 8 MiB | server | it stops receiving until a call ends |
//! | pause within a message ([`stall_timeout`]) | 30 s | both | the connection is closed |
//! | time without reading replies ([`stall_timeout`]) | 30 s | server | the connection is closed |
//! | time without a sign of life during a call ([`keepalive`]) | none | both | the connection is closed |
//! | retries of a call ([`Reconnect::retries`]) | 3 | client | the last attempt's error |
//! | time to reconnect ([`Reconnect::give_up_after`]) | 10 s | client | `Disconnected` |
//! | pause before a program that ends soon is started again ([`Reconnect::pauses`]) | 1 s | client | |
//! | bytes of a body ([`max_message`]) | 256 MiB | both | sender: `TooLarge`; receiver: closes |
//! | bytes of an error's text | 64 KiB | both | sender: cuts it off; receiver: closes |
//! | nesting of a value ([`max_depth`]) | 128 | both | sender: `Encode`; receiver: `Decode` |
//! | elements of no bytes in a body | 65,536 | both | sender: `Encode`; receiver: `Decode` |
//! | bytes queued for a peer | 1 MiB and a message | both | senders wait |
//! | descriptors in one receive | 16 | receiver | closes |
//!
//! Shared memory, for each connection and direction:
//!
//! | limit | default | kept by | at the limit |
//! |---|---|---|---|
//! | bytes ([`pool_limit`]) | 512 MiB | both | arguments wait ([`at_quota`]), results take the socket |
//! | bytes of arguments copied at once ([`pool_limit`]) | 512 MiB | server | further calls wait |
//! | the same, with calls within calls that run beyond others | 1 GiB | server | these wait, too |
//! | bytes of a user's connections ([`user_pool_limit`]) | 8 GiB | server | bodies take the socket |
//! | bytes for both rings of a quick lane ([`quick_lane`]) | off; 136 KiB | both | frames take the socket |
//! | segments | 64 | both | as for `pool_limit` |
//! | blocks in use | 65,536 | sender | as for `pool_limit` |
//! | loans in one message | 1024 | both | sender: copies the others; receiver: closes |
//! | bytes of files and sealed memory ([`file_limit`]) | 64 GiB | both | the oldest are announced anew |
//! | files and pieces of sealed memory | 64 | both | the oldest are announced anew |
//! | descriptors for one user's peers, all users' | 1/2, 3/4 of `RLIMIT_NOFILE` | receiver | bodies take the socket |
//! | mappings for one user's peers, all users' | 1/2, 3/4 of `vm.max_map_count` | both | bodies take the socket |
//! | bytes of one segment | `RLIMIT_FSIZE` | sender | bodies take the socket |
//! | time without use ([`pool_idle_timeout`]) | 10 s | sender | both sides unmap it |
//!
//! - Where both sides keep a limit, the lower of the two holds. A peer that exceeds it is disconnected
//!   ("closes" above), and the reason is logged.
//! - A server that has stopped receiving does not see the calls that those within it make, directly or by way
//!   of others. So behind 8 MiB of arguments these wait until a call's deadline: with few [calls in
//!   flight](ClientBuilder::max_calls_in_flight), or arguments in shared memory, as is usual for large ones,
//!   it does not come to that.
//! - A call that was cancelled, and still runs, counts as running and as in flight.
//! - A body that is larger than the whole pool, or a single file larger than `file_limit`, is an error:
//!   `TooLarge`.
//! - The memory of a quick lane counts in `user_pool_limit`.
//! - Descriptors and mappings are counted over all connections of the process, clients' and servers', by the
//!   user at the other end.
//!
//! [`accept`]: ServerBuilder::accept
//! [`max_connections`]: ServerBuilder::max_connections
//! [`max_connections_per_user`]: ServerBuilder::max_connections_per_user
//! [`max_handshakes`]: ServerBuilder::max_handshakes
//! [`handshake_timeout`]: ServerBuilder::handshake_timeout
//! [`shutdown_timeout`]: ServerBuilder::shutdown_timeout
//! [`max_calls_in_flight`]: ClientBuilder::max_calls_in_flight
//! [`at_quota`]: ClientBuilder::at_quota
//! [`deadline`]: ClientBuilder::deadline
//! [`max_concurrent_calls`]: ServerBuilder::max_concurrent_calls
//! [`stall_timeout`]: ServerBuilder::stall_timeout
//! [`keepalive`]: ServerBuilder::keepalive
//! [`Reconnect::retries`]: crate::Reconnect::retries
//! [`Reconnect::give_up_after`]: crate::Reconnect::give_up_after
//! [`Reconnect::pauses`]: crate::Reconnect::pauses
//! [`max_depth`]: ServerBuilder::max_depth
//! [`max_message`]: ServerBuilder::max_message
//! [`pool_limit`]: ServerBuilder::pool_limit
//! [`user_pool_limit`]: ServerBuilder::user_pool_limit
//! [`quick_lane`]: ServerBuilder::quick_lane
//! [`file_limit`]: ServerBuilder::file_limit
//! [`pool_idle_timeout`]: ServerBuilder::pool_idle_timeout

mod builder;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use lpc_core::receive::Role;
use lpc_core::run_queue::Bounds;
use lpc_core::{Error, ErrorKind, Limits, Method, Result, Threshold};
use nix::unistd::Uid;

use crate::client::reconnect::Reconnect;
use crate::connection::link::Settings;
use crate::credentials::Credentials;
use crate::memory::budget::Budget;
use crate::sys::environment;

pub use self::builder::{ClientBuilder, ServerBuilder};

/// The environment variable that sets the threshold where no code does.
pub(crate) const THRESHOLD_VARIABLE: &str = "LPC_THRESHOLD";

/// The mode of a port's socket, unless the builder says otherwise.
pub(crate) const SOCKET_MODE: u32 = 0o600;

/// What a client does with a call for which its connection has no room at the moment: too many calls are in
/// flight ([`max_calls_in_flight`](ClientBuilder::max_calls_in_flight)), or there is no shared memory for the
/// arguments ([`pool_limit`](ClientBuilder::pool_limit)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtQuota {
    /// The caller waits, this long at most; then the call fails with [`ErrorKind::ResourceExhausted`].
    Wait(Duration),
    /// The call fails at once, with [`ErrorKind::ResourceExhausted`].
    Fail,
}

/// All settings. Each is named like the method that sets it.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    // Of both sides.
    threshold: Option<Threshold>,
    pub(crate) limits: Limits,
    pub(crate) handshake_timeout: Duration,
    pub(crate) pool_idle_timeout: Duration,
    pub(crate) stall_timeout: Duration,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) spin: Duration,
    accept: Option<Rule>,
    trust: Option<Rule>,
    // Of clients.
    pub(crate) at_quota: AtQuota,
    pub(crate) deadline: Option<Duration>,
    pub(crate) reconnect: Option<Reconnect>,
    pub(crate) kill_with_parent: bool,
    // Of servers.
    pub(crate) max_concurrent_calls: usize,
    pub(crate) user_pool_limit: u64,
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_user: usize,
    pub(crate) max_handshakes: usize,
    pub(crate) socket_mode: u32,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) systemd_notify: bool,
}

/// Decides about a peer by its credentials.
#[derive(Clone)]
struct Rule(Arc<dyn Fn(&Credentials) -> bool + Send + Sync>);

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule").finish_non_exhaustive()
    }
}

impl Default for Config {
    fn default() -> Self {
        // Half of the threads that Linux has by default (`/proc/sys/kernel/pid_max`): the blocking server
        // uses one for each connection.
        let max_connections = 16_384;
        Self {
            threshold: None,
            limits: Limits::default(),
            handshake_timeout: Duration::from_secs(10),
            // To have a page again costs microseconds.
            pool_idle_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            keepalive: None,
            // About as long as it takes to wake a thread on another CPU.
            spin: Duration::from_micros(20),
            accept: None,
            trust: None,
            at_quota: AtQuota::Wait(Duration::from_secs(30)),
            deadline: None,
            reconnect: None,
            kill_with_parent: false,
            max_concurrent_calls: Bounds::default().running,
            user_pool_limit: 8 << 30,
            max_connections,
            // No user alone keeps the others out.
            max_connections_per_user: max_connections / 4,
            // The handshake of an honest client takes a fraction of a millisecond.
            max_handshakes: 128,
            socket_mode: SOCKET_MODE,
            shutdown_timeout: Duration::from_secs(30),
            systemd_notify: true,
        }
    }
}

impl Config {
    /// The settings of a client's connection.
    ///
    /// # Errors
    ///
    /// The user of the server has passed this process too much that cannot be closed.
    pub(crate) fn client_settings(&self, limits: Limits, server: Option<&Credentials>) -> Result<Settings> {
        let budget = Budget::of_peer(server);
        budget.check()?;
        Ok(Settings {
            limits,
            quota: None,
            budget,
            idle: self.pool_idle_timeout,
            stall: self.stall_timeout,
            // A busy server may stop receiving for as long as it likes.
            write_timeout: None,
            keepalive: self.keepalive,
            spin: self.spin,
        })
    }

    /// The same settings for a handshake that may take no longer than `time` (`None`: without another limit).
    pub(crate) fn with_handshake_within(&self, time: Option<Duration>) -> Self {
        let mut config = self.clone();
        config.handshake_timeout =
            time.map_or(self.handshake_timeout, |time| time.min(self.handshake_timeout));
        config
    }

    /// Refuses `reconnect` for a client that has no port to connect to again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`].
    pub(crate) fn refuse_reconnect(&self) -> Result<()> {
        if self.reconnect.is_none() {
            return Ok(());
        }
        let message = "`reconnect` needs a port or a program: a client made by `connect` can connect again, one \
                       made by `supervise` starts its program again";
        Err(Error::new(ErrorKind::InvalidInput, message))
    }

    /// Whether peers of several users may be at the other end of a port.
    pub(crate) fn is_open_to_others(&self) -> bool {
        self.accept.is_some()
    }

    /// Checks that this peer may be at the other end of a port (`accept`).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PermissionDenied`].
    pub(crate) fn check_peer(&self, peer: &Credentials, role: Role) -> Result<()> {
        let is_accepted = match &self.accept {
            None => peer.uid() == Uid::effective().as_raw(),
            // This is the user's code. If it panics, the peer is not accepted.
            Some(Rule(accepts)) => catch_unwind(AssertUnwindSafe(|| accepts(peer))).unwrap_or(false),
        };
        if is_accepted {
            return Ok(());
        }
        let message = match peer.uid() {
            u32::MAX => format!(
                "the {role}'s user is not accepted (accept): it has no id in this process's user namespace"
            ),
            uid => format!("the {role}'s user {uid} is not accepted (accept)"),
        };
        Err(Error::new(ErrorKind::PermissionDenied, message))
    }

    /// Whether the memory of this peer is read in place (`trust`). One that is not known is not trusted.
    pub(crate) fn trusts(&self, peer: Option<&Credentials>) -> bool {
        let (Some(Rule(trusts)), Some(peer)) = (&self.trust, peer) else { return false };
        // This is the user's code. If it panics, the peer is not trusted.
        catch_unwind(AssertUnwindSafe(|| trusts(peer))).unwrap_or(false)
    }

    /// The threshold of each method: its own, else the builder's, else the environment's, else the default.
    pub(crate) fn thresholds(&self, methods: &[Method]) -> Result<Box<[Threshold]>> {
        let common = match (self.threshold, environment::var(THRESHOLD_VARIABLE)) {
            (Some(threshold), _) => threshold,
            (None, None) => Threshold::default(),
            (None, Some(text)) => text.to_str().and_then(Threshold::parse).ok_or_else(|| {
                let message = format!(
                    "{THRESHOLD_VARIABLE}={text:?}: a threshold is `off`, `always` or a size such as `64KiB`"
                );
                Error::new(ErrorKind::InvalidInput, message)
            })?,
        };
        Ok(methods.iter().map(|method| method.threshold().unwrap_or(common)).collect())
    }
}
