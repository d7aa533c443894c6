//! Two numbers there, one back, through one cache line each way, between two tokio runtimes. A waiting side
//! spins on the line in turns with the runtime's other tasks. Before it sleeps it says so, and is then woken
//! through a socket.

use std::hint::spin_loop;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Instant;

use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;
use tokio::task::yield_now;

use super::memory::Words;
use super::readable::watched;
use super::watch::Watch;
use crate::compare::peer::{Caller, Peer, Result};
use crate::compare::tasks::{Async, Flavour, Tasks};
use crate::compare::work::{Job, Mixed, Work};

struct Flag(&'static str, Flavour);

pub(super) fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(Flag("tokio flag current spin", Flavour::CurrentThread)),
        Box::new(Flag("tokio flag multi spin", Flavour::MultiThread)),
    ]
}

impl Peer for Flag {
    fn name(&self) -> &str {
        self.0
    }

    fn does(&self, job: Job) -> bool {
        job.work == Work::Add
    }

    fn serve(&self, place: &Path) -> Result<()> {
        let (runtime, place) = (self.1.runtime()?, place.to_owned());
        runtime.block_on(runtime.spawn(async move {
            let (socket, _) = UnixListener::bind(place)?.accept().await?;
            let end = End::new(socket.into_std()?, SERVER)?;
            loop {
                let (a, b) = end.receive().await?;
                end.send(a.wrapping_add(b), 0)?;
            }
        }))?
    }

    fn connect(&self, place: &Path) -> Result<Box<dyn Caller>> {
        let place = place.to_owned();
        Ok(Box::new(Tasks::new(self.1, move || {
            let socket = UnixStream::connect(&place);
            async move { Ok(End::new(socket?, CLIENT)?) }
        })?))
    }
}

/// Sides.
const CLIENT: usize = 0;
const SERVER: usize = 1;

/// Words of a cache line, and of its neighbour, which the CPU may fetch with it.
const LINE: usize = 16;

/// Looks in one turn: about a microsecond.
const TURN: usize = 32;

/// One of the two processes.
struct End {
    side: usize,
    words: Words,
    watch: Watch,
    /// Watched for reading alone: that there is room to write again is no news, and would wake the runtime.
    socket: AsyncFd<UnixStream>,
}

impl End {
    fn new(socket: UnixStream, side: usize) -> io::Result<Self> {
        let of_len = |len| if side == SERVER { Words::join(&socket) } else { Words::make(&socket, len) };
        socket.set_nonblocking(false)?;
        let (page, words) = (of_len(0)?, of_len(4 * LINE)?);
        socket.set_nonblocking(true)?;
        let socket = watched(socket)?;
        Ok(Self { side, words, watch: Watch::new(Some(page), side == SERVER), socket })
    }

    /// What a side has said: how many messages, and the last of them.
    fn said(&self, side: usize) -> &[AtomicU64] {
        &self.words.large()[side * LINE..][..3]
    }

    /// Whether a side sleeps.
    fn sleeps(&self, side: usize) -> &AtomicU64 {
        &self.words.large()[(2 + side) * LINE]
    }

    fn send(&self, a: u64, b: u64) -> io::Result<()> {
        self.watch.tell();
        let said = self.said(self.side);
        said[1].store(a, Relaxed);
        said[2].store(b, Relaxed);
        // Before the look at whether the other side sleeps, which says so before it looks at this.
        said[0].store(said[0].load(Relaxed) + 1, SeqCst);
        if self.sleeps(1 - self.side).load(SeqCst) == 1 {
            self.socket.get_ref().write_all(b"b")?;
        }
        Ok(())
    }

    /// The next message, when it has come.
    fn arrived(&self) -> Option<(u64, u64)> {
        let theirs = self.said(1 - self.side);
        // The client speaks first.
        let next = self.said(self.side)[0].load(Relaxed) + self.side as u64;
        (theirs[0].load(SeqCst) == next).then(|| (theirs[1].load(Relaxed), theirs[2].load(Relaxed)))
    }

    async fn receive(&self) -> io::Result<(u64, u64)> {
        loop {
            let started = Instant::now();
            loop {
                if let Some(message) = self.arrived() {
                    return Ok(message);
                }
                if !self.watch.is_worth_it(started) {
                    break;
                }
                let look = |_| {
                    spin_loop();
                    self.arrived()
                };
                if let Some(message) = (0..TURN).find_map(look) {
                    return Ok(message);
                }
                yield_now().await;
            }
            self.sleep().await?;
        }
    }

    /// Sleeps until the other side has said something.
    async fn sleep(&self) -> io::Result<()> {
        let sleeps = self.sleeps(self.side);
        sleeps.store(1, SeqCst);
        if self.arrived().is_none() {
            let mut ready = self.socket.readable().await?;
            match self.socket.get_ref().read(&mut [0; LINE]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                // There is one for each sleep: no more than this has taken.
                _ => ready.clear_ready(),
            }
        }
        sleeps.store(0, Relaxed);
        Ok(())
    }
}

impl Async for End {
    async fn add(&self, a: u64, b: u64) -> Result<u64> {
        self.send(a, b)?;
        Ok(self.receive().await?.0)
    }

    async fn upload(&self, _own: &mut [u8], _seed: u8) -> Result<u64> {
        Err("is the work of `pool`".into())
    }

    async fn download(&self, _len: usize, _seed: u8) -> Result<u64> {
        Err("is the work of `pool`".into())
    }

    async fn mixed(&self, _mixed: &Mixed) -> Result<u64> {
        Err("there is no codec".into())
    }
}
