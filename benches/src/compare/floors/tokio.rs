//! One message of 64 bytes there, one back, over a Unix stream socket, between two tokio runtimes.

use std::error::Error;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::time::Instant;

use lpc_cli::measure::{Samples, Seeds};
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;

use super::memory::Words;
use super::socket::{Message, message, numbers};
use super::watch::Watch;
use crate::compare::peer::{Caller, Peer, Result};
use crate::compare::tasks::Flavour;
use crate::compare::threads::check;
use crate::compare::work::{Batch, Job, Work};

struct Echo {
    name: &'static str,
    flavour: Flavour,
    spins: bool,
}

pub(super) fn all() -> Vec<Box<dyn Peer>> {
    [
        ("tokio socket current", Flavour::CurrentThread, false),
        ("tokio socket current spin", Flavour::CurrentThread, true),
        ("tokio socket multi", Flavour::MultiThread, false),
        ("tokio socket multi spin", Flavour::MultiThread, true),
    ]
    .into_iter()
    .map(|(name, flavour, spins)| Box::new(Echo { name, flavour, spins }) as Box<dyn Peer>)
    .collect()
}

impl Peer for Echo {
    fn name(&self) -> &str {
        self.name
    }

    fn does(&self, job: Job) -> bool {
        job.work == Work::Add
    }

    fn serve(&self, place: &Path) -> Result<()> {
        let runtime = self.flavour.runtime()?;
        let (place, spins) = (place.to_owned(), self.spins);
        runtime.block_on(runtime.spawn(async move {
            let (socket, _) = UnixListener::bind(place)?.accept().await?;
            let mut end = End::new(socket.into_std()?, spins, true)?;
            loop {
                let (a, b) = numbers(&end.receive().await?);
                end.send(&message(a.wrapping_add(b), 0)).await?;
            }
        }))?
    }

    fn connect(&self, place: &Path) -> Result<Box<dyn Caller>> {
        let runtime = self.flavour.runtime()?;
        let end = {
            let _entered = runtime.enter();
            End::new(StdStream::connect(place)?, self.spins, false)?
        };
        Ok(Box::new(Client { runtime, end: Some(end) }))
    }
}

/// One of the two processes.
struct End {
    socket: UnixStream,
    watch: Watch,
}

impl End {
    fn new(socket: StdStream, spins: bool, is_server: bool) -> io::Result<Self> {
        socket.set_nonblocking(false)?;
        let page = if is_server { Words::join } else { |socket: &_| Words::make(socket, 0) };
        let page = spins.then(|| page(&socket)).transpose()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixStream::from_std(socket)?, watch: Watch::new(page, is_server) })
    }

    async fn send(&mut self, message: &Message) -> io::Result<()> {
        self.watch.tell();
        let mut rest = &message[..];
        while !rest.is_empty() {
            match self.socket.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn receive(&mut self) -> io::Result<Message> {
        let (mut message, mut received) = ([0; 64], 0);
        while received < message.len() {
            // Not by `try_read`: that asks the system once, and then only after the runtime's driver has run.
            let mut ask = || {
                let rest = &mut message[received..];
                recv(self.socket.as_raw_fd(), rest, MsgFlags::MSG_DONTWAIT).map_err(io::Error::from)
            };
            let looked = self.watch.look(|| match ask() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                read => Some(read),
            });
            let read = match looked {
                Some(read) => read?,
                None => self.socket.async_io(Interest::READABLE, ask).await?,
            };
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            received += read;
        }
        Ok(message)
    }
}

struct Client {
    runtime: Runtime,
    /// `None` while a task has it.
    end: Option<End>,
}

impl Caller for Client {
    fn run(&mut self, Batch { share, .. }: &Batch) -> Result<Samples> {
        let (mut end, share) = (self.end.take().ok_or("a call has failed")?, *share);
        // As a task, as a program's calls are: what `block_on` is given runs beside the workers.
        let called = self.runtime.block_on(self.runtime.spawn(async move {
            let mut samples = Samples::default();
            let begin = Instant::now();
            let mut started = begin;
            for seed in Seeds::default() {
                end.send(&message(u64::from(seed), 2)).await?;
                check(numbers(&end.receive().await?).0, u64::from(seed) + 2)?;
                let now = Instant::now();
                samples.push(now - started);
                if now - begin >= share {
                    break;
                }
                started = now;
            }
            Ok::<_, Box<dyn Error + Send + Sync>>((samples, end))
        }))?;
        let (samples, end) = called?;
        self.end = Some(end);
        Ok(samples)
    }
}
