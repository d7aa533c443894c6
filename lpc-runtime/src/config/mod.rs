//! The builders of clients and servers: every knob, once, for both drivers.
//!
//! # Limits
//!
//! What a peer can have of this process is bounded, whatever it says. Names in parentheses are knobs of the builders, and stand
//! in the errors that they lead to.
//!
//! | who comes to a server | default | at the limit |
//! |---|---|---|
//! | whose users (`accept`) | the server's own | `connect` fails: `PermissionDenied` |
//! | connections (`max_connections`) | 16,384 | `connect` fails: `ResourceExhausted` |
//! | connections of one user (`max_connections_per_user`) | 4,096 | `connect` fails: `ResourceExhausted` |
//! | clients that have not said who they are (`max_handshakes`) | 128 | the next one waits; who has been silent for 1 s then fails: `ResourceExhausted` |
//! | the same of one user, where others are accepted | 96 | `connect` fails: `ResourceExhausted`, as does that of who has been silent for 100 ms |
//! | time to say it, on both sides (`handshake_timeout`) | 10 s | the connection is closed; `connect` fails: `TimedOut` |
//! | bytes of what a client says, and a server | 64 KiB, 1 MiB | `Protocol` |
//! | descriptors and threads of the system | the system's | clients wait for a descriptor; without a thread `connect` fails: `ResourceExhausted` |
//! | time of a shutdown (`shutdown_timeout`) | 30 s | all connections are closed |
//!
//! | calls | default | kept by | at the limit |
//! |---|---|---|---|
//! | calls of a client in flight (`max_calls_in_flight`) | 1024 | client | the caller waits (`at_quota`), then `ResourceExhausted` |
//! | time that a caller waits for room (`at_quota`) | 30 s | client | `ResourceExhausted` |
//! | time that a call takes (`deadline`, `with_deadline`, `#[lpc(deadline)]`) | none | both | `TimedOut`; cancelled at the server |
//! | calls of a connection that run at once (`max_concurrent_calls`) | 16 | server | further ones wait; what was cancelled and still runs counts |
//! | calls that wait, and bytes of their arguments | 1024, 1 MiB | server | it reads no more until one has ended |
//! | time in the middle of a message (`stall_timeout`) | 30 s | both | the connection is closed |
//! | time in which a client takes none of its replies (`stall_timeout`) | 30 s | server | the connection is closed |
//! | tries of a call by a client that reconnects (`Reconnect::retries`) | 3 | client | the last one's error |
//! | time for a new connection (`Reconnect::give_up_after`) | 10 s | client | `Disconnected` |
//! | bytes of a body (`max_message`) | 256 MiB | both, the narrower | sender: `TooLarge`; receiver: the connection is closed |
//! | bytes of a failure's text | 64 KiB | both | sender: cut off; receiver: the connection is closed |
//! | levels of nesting in a value | 128 | both | `Encode`, or `Decode` and the connection is closed |
//! | elements without a byte in a body | 65,536 | receiver | `Decode`, and the connection is closed |
//! | bytes that wait for a peer to read | 1 MiB and a message | both | who sends waits |
//! | descriptors that come with one receive | 16 | receiver | the connection is closed |
//!
//! | shared memory | default | kept by | at the limit |
//! |---|---|---|---|
//! | bytes of a connection and direction (`pool_limit`) | 512 MiB | both, the narrower | arguments wait (`at_quota`), results take the socket; a peer that exceeds it is disconnected |
//! | bytes of arguments that are copied at once (`pool_limit`) | 512 MiB | server | further calls wait |
//! | bytes of all connections of a user (`user_pool_limit`) | 8 GiB | server | bodies take the socket |
//! | memory of a connection's quick lane (`quick_lane`), both directions; it counts in `user_pool_limit` | off; 136 KiB | both | without it all takes the socket |
//! | segments of a connection and direction | 64 | both, the narrower | as for `pool_limit` |
//! | blocks of a connection that are out | 65,536 | sender | as for `pool_limit` |
//! | loans in one message | 1024 | both | sender: further ones are copied; receiver: the connection is closed |
//! | bytes of files and sealed memory passed (`file_limit`) | 64 GiB | both, the narrower | those passed longest ago are passed anew; one alone: `TooLarge` |
//! | files and pieces of sealed memory passed | 64 | both, the narrower | as for `file_limit` |
//! | time that it stays unused (`pool_idle_timeout`) | 10 s | its owner | both sides unmap it |

mod builder;

use std::fmt;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use lpc_core::receive::Role;
use lpc_core::{Error, ErrorKind, Limits, Method, Result, Threshold};
use nix::unistd::Uid;

use crate::client::reconnect::Reconnect;
use crate::connection::link::Settings;
use crate::credentials::Credentials;

pub use self::builder::{ClientBuilder, ServerBuilder};

/// The environment variable that sets the threshold where no code does.
pub(crate) const THRESHOLD_VARIABLE: &str = "LPC_THRESHOLD";

/// Calls of one connection that run side by side, unless the builder says otherwise.
const MAX_CALLS: usize = 16;

/// How long the other side may take to say who it is.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long shared memory is kept unused. It costs microseconds a page to get it again.
const IDLE: Duration = Duration::from_secs(10);

/// How long a caller waits for room.
const PATIENCE: Duration = Duration::from_secs(30);

/// Shared memory of all connections of one user.
const USER_POOL: u64 = 8 << 30;

/// How long a peer may stop in the middle of a message.
const STALL: Duration = Duration::from_secs(30);

/// How long to look for a message before sleeping: about as long as waking a thread on another CPU takes.
const SPIN: Duration = Duration::from_micros(20);

/// Connections of one server: half of the threads that Linux has by default (`/proc/sys/kernel/pid_max`). Of these the
/// blocking server takes one for a connection.
const MAX_CONNECTIONS: usize = 16_384;

/// Of these, those of one user: no user alone keeps the others out.
const MAX_CONNECTIONS_PER_USER: usize = MAX_CONNECTIONS / 4;

/// Connections at once of which it is not known yet who is there. An honest client is through in a fraction of a
/// millisecond.
const MAX_HANDSHAKES: usize = 128;

/// How long a shutdown waits for the calls that run.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// The mode of a port's socket.
pub(crate) const SOCKET_MODE: u32 = 0o600;

/// What a caller does where its connection has no room for the call at the moment: no shared memory for its arguments
/// ([`pool_limit`](ClientBuilder::pool_limit)), or too many calls in flight
/// ([`max_calls_in_flight`](ClientBuilder::max_calls_in_flight)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtQuota {
    /// It waits, this long at most, and then fails with [`ErrorKind::ResourceExhausted`].
    Wait(Duration),
    /// It fails at once, with [`ErrorKind::ResourceExhausted`].
    Fail,
}

/// What both sides have in common.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    threshold: Option<Threshold>,
    pub(crate) limits: Limits,
    pub(crate) handshake_timeout: Duration,
    pub(crate) max_calls: usize,
    pub(crate) idle: Duration,
    pub(crate) at_quota: AtQuota,
    pub(crate) user_pool: u64,
    pub(crate) stall: Duration,
    pub(crate) spin: Duration,
    /// Of a client's calls.
    pub(crate) deadline: Option<Duration>,
    /// Of a client.
    pub(crate) reconnect: Option<Reconnect>,
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_user: usize,
    pub(crate) max_handshakes: usize,
    pub(crate) socket_mode: u32,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) systemd_notify: bool,
    accept: Option<Rule>,
    trust: Option<Rule>,
}

/// Which peers.
#[derive(Clone)]
struct Rule(Arc<dyn Fn(&Credentials) -> bool + Send + Sync>);

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule").finish_non_exhaustive()
    }
}

impl Config {
    fn new() -> Self {
        Self {
            threshold: None,
            limits: Limits::default(),
            handshake_timeout: HANDSHAKE_TIMEOUT,
            max_calls: MAX_CALLS,
            idle: IDLE,
            at_quota: AtQuota::Wait(PATIENCE),
            user_pool: USER_POOL,
            stall: STALL,
            spin: SPIN,
            deadline: None,
            reconnect: None,
            max_connections: MAX_CONNECTIONS,
            max_connections_per_user: MAX_CONNECTIONS_PER_USER,
            max_handshakes: MAX_HANDSHAKES,
            socket_mode: SOCKET_MODE,
            shutdown_timeout: SHUTDOWN_TIMEOUT,
            systemd_notify: true,
            accept: None,
            trust: None,
        }
    }

    /// What a client's connection is made with.
    pub(crate) fn client_settings(&self, limits: Limits) -> Settings {
        // A server that is busy takes nothing more, and rightly so.
        let write_timeout = None;
        let (idle, stall, spin) = (self.idle, self.stall, self.spin);
        Settings { limits, quota: None, idle, stall, write_timeout, spin }
    }

    /// A client that is not made by a port has nothing to reconnect to.
    pub(crate) fn refuse_reconnect(&self) -> Result<()> {
        if self.reconnect.is_none() {
            return Ok(());
        }
        let message = "`reconnect` needs a port: only a client made by `connect` can connect again";
        Err(Error::new(ErrorKind::InvalidInput, message))
    }

    /// Whether peers of several users may be at the other end of a port.
    pub(crate) fn is_open_to_others(&self) -> bool {
        self.accept.is_some()
    }

    /// Makes sure that this peer may be at the other end of a port.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PermissionDenied`].
    pub(crate) fn check_peer(&self, peer: &Credentials, role: Role) -> Result<()> {
        let is_accepted = match &self.accept {
            None => peer.uid() == Uid::effective().as_raw(),
            // The user's code. Its panic says nothing for the peer.
            Some(Rule(accepts)) => catch_unwind(AssertUnwindSafe(|| accepts(peer))).unwrap_or(false),
        };
        if is_accepted {
            return Ok(());
        }
        let message = format!("the {role}'s user {} is not accepted (accept)", peer.uid());
        Err(Error::new(ErrorKind::PermissionDenied, message))
    }

    /// Whether the memory of the peer at the other end is read in place.
    pub(crate) fn trusts(&self, stream: impl AsFd) -> bool {
        let Some(Rule(trusts)) = &self.trust else { return false };
        // The user's code. Its panic vouches for nobody.
        let trusts = |peer| catch_unwind(AssertUnwindSafe(|| trusts(&peer))).unwrap_or(false);
        Credentials::of_peer(stream).is_ok_and(trusts)
    }

    /// The threshold of each method: its own, else the builder's, else the environment's, else the default.
    pub(crate) fn thresholds(&self, methods: &[Method]) -> Result<Box<[Threshold]>> {
        let common = match (
            self.threshold,
            std::env::var_os(THRESHOLD_VARIABLE).filter(|text| !text.is_empty()),
        ) {
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
