//! How lpc is set up on both sides of a measurement.

use std::time::Duration;
use std::{fmt, io, thread};

use clap::ValueEnum;
use lpc_cli::measure::pin;
use tokio::runtime::{Builder, Runtime};

/// The driver of a process's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Driver {
    /// The blocking one
    Blocking,
    /// A tokio runtime of one thread
    Current,
    /// A tokio runtime of two threads
    Multi,
}

/// A client's and a server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub(crate) struct Setup {
    #[arg(long, value_enum, default_value_t = Driver::Blocking)]
    pub(crate) driver: Driver,
    /// With the quick lane
    #[arg(long)]
    pub(crate) quick: bool,
    /// Never looks for a message before it sleeps
    #[arg(long)]
    pub(crate) sleeps: bool,
}

impl Setup {
    /// As lpc is by default, with the blocking driver or with tokio.
    pub(crate) const fn of(tokio: bool) -> Self {
        let driver = if tokio { Driver::Multi } else { Driver::Blocking };
        Self { driver, quick: false, sleeps: false }
    }

    /// Each driver, with the quick lane and without; those whose names contain one of `parts`, if there are
    /// any.
    pub(crate) fn all(parts: &[String]) -> Vec<Self> {
        let mut all = Vec::new();
        for driver in Driver::value_variants() {
            all.extend([false, true].map(|quick| Self { driver: *driver, quick, sleeps: false }));
        }
        all.retain(|setup| is_chosen(parts, &setup.to_string()));
        all
    }

    /// As this program takes it on its command line.
    pub(crate) fn arguments(self) -> Vec<String> {
        let driver = self.driver.to_possible_value().expect("no driver is hidden");
        let mut arguments = vec!["--driver".to_owned(), driver.get_name().to_owned()];
        arguments.extend(self.quick.then(|| "--quick".to_owned()));
        arguments.extend(self.sleeps.then(|| "--sleeps".to_owned()));
        arguments
    }

    /// A runtime, where the driver has one.
    pub(crate) fn runtime(self) -> lpc::Result<Option<Runtime>> {
        let mut builder = match self.driver {
            Driver::Blocking => return Ok(None),
            Driver::Current => Builder::new_current_thread(),
            Driver::Multi => Builder::new_multi_thread(),
        };
        Ok(Some(builder.worker_threads(2).enable_all().build()?))
    }

    /// How long it looks for a message, if not for as long as lpc does by default.
    pub(crate) fn spin(self) -> Option<Duration> {
        self.sleeps.then_some(Duration::ZERO)
    }
}

/// As `compare` calls it.
impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let driver = match self.driver {
            Driver::Blocking => "blocking",
            Driver::Current => "tokio current",
            Driver::Multi => "tokio multi",
        };
        f.write_str(driver)?;
        f.write_str(if self.quick { " quick" } else { "" })
    }
}

/// Whether this is among what a user asks for: it contains one of the `parts`, or there are none.
pub(crate) fn is_chosen(parts: &[String], name: &str) -> bool {
    parts.is_empty() || parts.iter().any(|part| name.contains(part.as_str()))
}

/// Does this in a thread that runs on one CPU, as do those that it starts; if that is wanted.
pub(crate) fn pinned<T: Send, E: From<io::Error> + Send>(
    cpu: Option<usize>,
    does: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    let Some(cpu) = cpu else { return does() };
    thread::scope(|scope| {
        let done = scope.spawn(|| {
            pin(cpu)?;
            does()
        });
        done.join().expect("measuring panicked")
    })
}

/// Sets up a builder of either side and driver.
macro_rules! configured {
    ($builder:expr, $setup:expr) => {{
        let builder = $builder.quick_lane($setup.quick);
        match $setup.spin() {
            Some(time) => builder.spin(time),
            None => builder,
        }
    }};
}

pub(crate) use configured;
