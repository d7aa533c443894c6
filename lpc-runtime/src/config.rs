//! The builders of clients and servers: every knob, once, for both drivers.

use std::marker::PhantomData;
use std::time::Duration;

use lpc_core::{Error, ErrorKind, Limits, Method, Result, Threshold};

/// The environment variable that sets the threshold where no code does.
pub(crate) const THRESHOLD_VARIABLE: &str = "LPC_THRESHOLD";

/// Calls of one connection that run side by side, unless the builder says otherwise.
const MAX_CALLS: usize = 16;

/// How long the other side may take to say who it is.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What both sides have in common.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    threshold: Option<Threshold>,
    pub(crate) limits: Limits,
    pub(crate) handshake_timeout: Duration,
    pub(crate) max_calls: usize,
}

impl Config {
    fn new() -> Self {
        Self {
            threshold: None,
            limits: Limits::default(),
            handshake_timeout: HANDSHAKE_TIMEOUT,
            max_calls: MAX_CALLS,
        }
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
}

impl<D> ServerBuilder<D> {
    pub(crate) fn new() -> Self {
        Self::with_config(Config::new())
    }

    pub(crate) fn with_config(config: Config) -> Self {
        Self { config, made: PhantomData }
    }

    /// How many calls of one connection run side by side; further ones wait in the socket. Default: 16.
    ///
    /// # Panics
    ///
    /// If it is 0.
    pub fn max_concurrent_calls(mut self, calls: usize) -> Self {
        assert!(calls > 0, "max_concurrent_calls is at least 1");
        self.config.max_calls = calls;
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
            // An inline body's length stands in 32 bits of its frame.
            self.config.limits.max_message = bytes.min(u64::from(u32::MAX) - 1024);
            self
        }

        /// Bytes of shared memory at most that this side keeps for what it sends over one connection, and that it
        /// maps of what its peer keeps. Default: 512 MiB. A body for which there is no room at the moment takes the
        /// socket; one over the threshold that is larger than all of the pool is an [`ErrorKind::TooLarge`].
        pub fn pool_limit(mut self, bytes: u64) -> Self {
            self.config.limits.pool = bytes;
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
