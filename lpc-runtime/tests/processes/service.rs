//! The service of these tests.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use lpc::Stats;
use tokio::runtime::Runtime;

use crate::process::{say, until};

/// The runtime of all async sides.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
});

/// A driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Blocking,
    Tokio,
}

pub const DRIVERS: [Driver; 2] = [Driver::Blocking, Driver::Tokio];

pub mod blocking {
    #[lpc::service]
    pub trait Probe {
        fn echo(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>>;
        fn length(&self, bytes: &[u8]) -> lpc::Result<u64>;
        fn make(&self, len: u64) -> lpc::Result<Vec<u8>>;
        /// Panics with a text of this length.
        fn panic(&self, len: u64) -> lpc::Result<()>;
        /// Says so on standard output, and never returns.
        fn stall(&self) -> lpc::Result<()>;
        /// How many bytes standard input has, and what descriptors a child of this process has.
        fn inherited(&self) -> lpc::Result<(u64, Vec<String>)>;
        /// The process and user of the caller.
        fn peer(&self) -> lpc::Result<Option<(u32, u32)>>;
        /// Ends the process with this status.
        fn exit(&self, status: i32) -> lpc::Result<()>;
        /// The process's number.
        fn id(&self) -> lpc::Result<u32>;
        /// Leaves a child that lives until nobody can write to `fifo` any more.
        fn leave(&self, fifo: &str) -> lpc::Result<()>;
        #[lpc(threshold = "off")]
        fn length_by_socket(&self, bytes: &[u8]) -> lpc::Result<u64>;
        #[lpc(threshold = "always")]
        fn length_by_mapping(&self, bytes: &[u8]) -> lpc::Result<u64>;
    }
}

pub mod asynchronous {
    /// The same service by name and methods: any client of one is a client of the other.
    #[lpc::service]
    pub trait Probe {
        async fn echo(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>>;
        async fn length(&self, bytes: &[u8]) -> lpc::Result<u64>;
        async fn make(&self, len: u64) -> lpc::Result<Vec<u8>>;
        async fn panic(&self, len: u64) -> lpc::Result<()>;
        async fn stall(&self) -> lpc::Result<()>;
        async fn inherited(&self) -> lpc::Result<(u64, Vec<String>)>;
        async fn peer(&self) -> lpc::Result<Option<(u32, u32)>>;
        async fn exit(&self, status: i32) -> lpc::Result<()>;
        async fn id(&self) -> lpc::Result<u32>;
        async fn leave(&self, fifo: &str) -> lpc::Result<()>;
        #[lpc(threshold = "off")]
        async fn length_by_socket(&self, bytes: &[u8]) -> lpc::Result<u64>;
        #[lpc(threshold = "always")]
        async fn length_by_mapping(&self, bytes: &[u8]) -> lpc::Result<u64>;
    }
}

/// Implements both.
pub struct Implementation;

fn inherited() -> lpc::Result<(u64, Vec<String>)> {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input)?;
    let script = "for number in 0 3 4 5 6 7 8 9; do readlink /proc/$$/fd/$number; done; true";
    let output = Command::new("sh").args(["-c", script]).stdin(Stdio::inherit()).output()?;
    let links = String::from_utf8(output.stdout).map_err(lpc::Error::other)?;
    Ok((input.len() as u64, links.lines().map(str::to_owned).collect()))
}

fn peer() -> lpc::Result<Option<(u32, u32)>> {
    Ok(lpc::Context::current().peer().map(|peer| (peer.pid().cast_unsigned(), peer.uid())))
}

fn leave(fifo: &str) -> lpc::Result<()> {
    let child = Command::new("cat").arg(fifo).stdin(Stdio::inherit()).stdout(Stdio::null()).spawn()?;
    // Once it has opened the file, and not before, it ends when the file has no writer left.
    let opened = std::fs::canonicalize(fifo)?;
    until("the child has opened its file", || {
        let mut open = std::fs::read_dir(format!("/proc/{}/fd", child.id())).ok()?.flatten();
        open.any(|entry| std::fs::read_link(entry.path()).is_ok_and(|link| link == opened)).then_some(())
    });
    Ok(())
}

impl blocking::Probe for Implementation {
    fn echo(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>> {
        Ok(bytes.to_vec())
    }
    fn length(&self, bytes: &[u8]) -> lpc::Result<u64> {
        Ok(bytes.len() as u64)
    }
    fn make(&self, len: u64) -> lpc::Result<Vec<u8>> {
        Ok(vec![7; len as usize])
    }
    fn panic(&self, len: u64) -> lpc::Result<()> {
        std::panic::resume_unwind(Box::new("ä".repeat(len as usize / 2)))
    }
    fn stall(&self) -> lpc::Result<()> {
        say("stalled");
        loop {
            std::thread::park();
        }
    }
    fn inherited(&self) -> lpc::Result<(u64, Vec<String>)> {
        inherited()
    }
    fn peer(&self) -> lpc::Result<Option<(u32, u32)>> {
        peer()
    }
    fn exit(&self, status: i32) -> lpc::Result<()> {
        std::process::exit(status)
    }
    fn id(&self) -> lpc::Result<u32> {
        Ok(std::process::id())
    }
    fn leave(&self, fifo: &str) -> lpc::Result<()> {
        leave(fifo)
    }
    fn length_by_socket(&self, bytes: &[u8]) -> lpc::Result<u64> {
        Ok(bytes.len() as u64)
    }
    fn length_by_mapping(&self, bytes: &[u8]) -> lpc::Result<u64> {
        Ok(bytes.len() as u64)
    }
}

impl asynchronous::Probe for Implementation {
    async fn echo(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>> {
        Ok(bytes.to_vec())
    }
    async fn length(&self, bytes: &[u8]) -> lpc::Result<u64> {
        Ok(bytes.len() as u64)
    }
    async fn make(&self, len: u64) -> lpc::Result<Vec<u8>> {
        Ok(vec![7; len as usize])
    }
    async fn panic(&self, len: u64) -> lpc::Result<()> {
        std::panic::resume_unwind(Box::new("ä".repeat(len as usize / 2)))
    }
    async fn stall(&self) -> lpc::Result<()> {
        say("stalled");
        std::future::pending().await
    }
    async fn inherited(&self) -> lpc::Result<(u64, Vec<String>)> {
        inherited()
    }
    async fn peer(&self) -> lpc::Result<Option<(u32, u32)>> {
        peer()
    }
    async fn exit(&self, status: i32) -> lpc::Result<()> {
        std::process::exit(status)
    }
    async fn id(&self) -> lpc::Result<u32> {
        Ok(std::process::id())
    }
    async fn leave(&self, fifo: &str) -> lpc::Result<()> {
        leave(fifo)
    }
    async fn length_by_socket(&self, bytes: &[u8]) -> lpc::Result<u64> {
        Ok(bytes.len() as u64)
    }
    async fn length_by_mapping(&self, bytes: &[u8]) -> lpc::Result<u64> {
        Ok(bytes.len() as u64)
    }
}

/// A client of either driver; the async one is waited for, so that tests are written once.
#[derive(Clone, Debug)]
pub enum AnyClient {
    Blocking(blocking::ProbeClient),
    Tokio(blocking::ProbeAsyncClient),
}

/// How long a client waits for a server to say who it is, in tests where that may be long.
pub const PATIENCE: Duration = Duration::from_secs(60);

impl AnyClient {
    pub fn connect(driver: Driver, port: &str) -> lpc::Result<Self> {
        match driver {
            Driver::Blocking => {
                let builder = blocking::ProbeClient::builder().handshake_timeout(PATIENCE);
                builder.connect(port).map(Self::Blocking)
            }
            Driver::Tokio => {
                let builder = blocking::ProbeAsyncClient::builder().handshake_timeout(PATIENCE);
                RUNTIME.block_on(builder.connect(port)).map(Self::Tokio)
            }
        }
    }

    pub fn stats(&self) -> Stats {
        match self {
            Self::Blocking(client) => client.client().stats(),
            Self::Tokio(client) => client.client().stats(),
        }
    }
}

macro_rules! forward {
    ($(fn $method:ident(&self $(, $argument:ident: $type:ty)*) -> $result:ty;)*) => {
        impl AnyClient {
            $(pub fn $method(&self $(, $argument: $type)*) -> $result {
                match self {
                    Self::Blocking(client) => blocking::Probe::$method(client $(, $argument)*),
                    Self::Tokio(client) => RUNTIME.block_on(client.$method($($argument),*)),
                }
            })*
        }
    };
}

forward! {
    fn echo(&self, bytes: &[u8]) -> lpc::Result<Vec<u8>>;
    fn length(&self, bytes: &[u8]) -> lpc::Result<u64>;
    fn make(&self, len: u64) -> lpc::Result<Vec<u8>>;
    fn panic(&self, len: u64) -> lpc::Result<()>;
    fn stall(&self) -> lpc::Result<()>;
    fn inherited(&self) -> lpc::Result<(u64, Vec<String>)>;
    fn exit(&self, status: i32) -> lpc::Result<()>;
    fn id(&self) -> lpc::Result<u32>;
    fn leave(&self, fifo: &str) -> lpc::Result<()>;
    fn length_by_socket(&self, bytes: &[u8]) -> lpc::Result<u64>;
    fn length_by_mapping(&self, bytes: &[u8]) -> lpc::Result<u64>;
}
