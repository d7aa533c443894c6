//! Large bodies, by each way in which bytes can cross.
//!
//! Memory is made once, mapped once on both sides, and used for every call (but for [`Way::Fresh`]). The
//! doorbell is one small message each way over a Unix stream socket, and both sides look for it before they
//! sleep.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use lpc_cli::measure::{Samples, produce, sum, sum_of};
use memmap2::{Mmap, MmapMut};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::memory::{self, Words};
use super::watch::Watch;
use crate::compare::peer::{Caller, Peer, Result};
use crate::compare::threads::check;
use crate::compare::work::{Batch, Job, Work};

/// What happens to the bytes between producing and reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Copied once and read, by one process alone.
    Memcpy,
    /// Sent from private memory, received into private memory.
    Socket,
    /// Copied from private to shared memory that is new for this call, mapped by the receiver, and read
    /// there.
    Fresh,
    /// Copied from private to shared memory, and from there to private memory.
    CopyCopy,
    /// The same, both private memories new for each call, as a `Vec<u8>` that is returned is.
    Vec,
    /// Copied from private to shared memory, read there.
    CopyPlace,
    /// Produced in shared memory, copied to private memory.
    PlaceCopy,
    /// Produced in shared memory, read there.
    PlacePlace,
}

struct Pool {
    name: &'static str,
    way: Way,
}

/// The largest body.
const LARGEST: usize = 64 << 20;

pub(super) fn all() -> Vec<Box<dyn Peer>> {
    [
        ("memcpy", Way::Memcpy),
        ("raw socket body", Way::Socket),
        ("raw fresh memfd", Way::Fresh),
        ("raw copy-copy", Way::CopyCopy),
        ("raw vec", Way::Vec),
        ("raw copy-place", Way::CopyPlace),
        ("raw place-copy", Way::PlaceCopy),
        ("raw place-place", Way::PlacePlace),
    ]
    .into_iter()
    .map(|(name, way)| Box::new(Pool { name, way }) as Box<dyn Peer>)
    .collect()
}

impl Peer for Pool {
    fn name(&self) -> &str {
        self.name
    }

    fn does(&self, job: Job) -> bool {
        matches!(job.work, Work::Upload | Work::Download) && job.bytes() <= LARGEST
    }

    fn serve(&self, place: &Path) -> Result<()> {
        let (socket, _) = UnixListener::bind(place)?.accept()?;
        let mut end = End::new(self.way, socket, true)?;
        loop {
            let request: Request = end.message()?;
            let [direction, seed, ..] = request;
            let len = u64::from_ne_bytes(request.as_chunks::<8>().0[1]) as usize;
            if direction == UPLOAD {
                let sum = end.read(len)?;
                end.say(&sum.to_ne_bytes())?;
            } else {
                end.send(&(len as u64).to_ne_bytes(), len, seed)?;
            }
        }
    }

    fn connect(&self, place: &Path) -> Result<Box<dyn Caller>> {
        Ok(Box::new(End::new(self.way, UnixStream::connect(place)?, false)?))
    }
}

/// What the caller asks for.
type Request = [u8; 16];

const UPLOAD: u8 = 0;
const DOWNLOAD: u8 = 1;

fn request(direction: u8, len: usize, seed: u8) -> Request {
    let mut request = [0; 16];
    request[0] = direction;
    request[1] = seed;
    request[8..].copy_from_slice(&(len as u64).to_ne_bytes());
    request
}

/// One of the two processes.
struct End {
    way: Way,
    socket: UnixStream,
    watch: Watch,
    /// Shared memory that this process writes to.
    ours: MmapMut,
    /// Shared memory that the other one writes to.
    theirs: Mmap,
    /// Private memory that bytes are produced in: the user's own, as in the rows of lpc.
    produced: Vec<u8>,
    /// Private memory that bytes are received in.
    received: MmapMut,
}

impl End {
    fn new(way: Way, socket: UnixStream, is_server: bool) -> io::Result<Self> {
        let page = if is_server { Words::join(&socket) } else { Words::make(&socket, 0) }?;
        let ours = memory::lend(&socket, LARGEST)?;
        let theirs = memory::borrow(&socket, LARGEST)?;
        let watch = Watch::new(Some(page), is_server);
        Ok(Self {
            way,
            socket,
            watch,
            ours,
            theirs,
            produced: vec![0; LARGEST],
            received: memory::private(LARGEST)?,
        })
    }

    /// Produces `len` bytes and hands them over with `message`.
    fn send(&mut self, message: &[u8], len: usize, seed: u8) -> io::Result<()> {
        let bytes = &mut self.produced[..len];
        match self.way {
            Way::PlacePlace | Way::PlaceCopy => produce(&mut self.ours[..len], seed),
            Way::Vec => self.ours[..len].copy_from_slice(&vec![seed; len]),
            Way::Socket => {
                produce(bytes, seed);
                self.watch.tell();
                // Together, so that the other side wakes up once.
                let sent = self.socket.write_vectored(&[IoSlice::new(message), IoSlice::new(bytes)])?;
                let rest = sent.checked_sub(message.len()).ok_or(io::ErrorKind::WriteZero)?;
                return self.socket.write_all(&bytes[rest..]);
            }
            Way::Fresh => {
                produce(bytes, seed);
                self.say(message)?;
                memory::lend_filled(&self.socket, &self.produced[..len])?;
                return Ok(());
            }
            Way::Memcpy | Way::CopyCopy | Way::CopyPlace => {
                produce(bytes, seed);
                self.ours[..len].copy_from_slice(bytes);
            }
        }
        self.say(message)
    }

    /// Reads the `len` bytes that came with a message.
    fn read(&mut self, len: usize) -> io::Result<u64> {
        let bytes = &mut self.received[..len];
        match self.way {
            Way::Socket => self.socket.read_exact(bytes)?,
            Way::Fresh => return Ok(sum(&memory::borrow(&self.socket, len)?)),
            Way::CopyCopy | Way::PlaceCopy => bytes.copy_from_slice(&self.theirs[..len]),
            Way::Vec => return Ok(sum(&Vec::from(&self.theirs[..len]))),
            Way::Memcpy | Way::CopyPlace | Way::PlacePlace => return Ok(sum(&self.theirs[..len])),
        }
        Ok(sum(bytes))
    }

    fn say(&mut self, message: &[u8]) -> io::Result<()> {
        self.watch.tell();
        self.socket.write_all(message)
    }

    fn message<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut message = [0; N];
        let looked =
            self.watch.look(|| match recv(self.socket.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) => None,
                received => Some(received),
            });
        let received = looked.transpose()?;
        if received == Some(0) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.socket.read_exact(&mut message[received.unwrap_or(0)..])?;
        Ok(message)
    }

    fn upload(&mut self, len: usize, seed: u8) -> io::Result<u64> {
        self.send(&request(UPLOAD, len, seed), len, seed)?;
        Ok(u64::from_ne_bytes(self.message()?))
    }

    fn download(&mut self, len: usize, seed: u8) -> io::Result<u64> {
        self.say(&request(DOWNLOAD, len, seed))?;
        let _: [u8; 8] = self.message()?;
        self.read(len)
    }

    fn copy(&mut self, len: usize, seed: u8) -> u64 {
        produce(&mut self.produced[..len], seed);
        self.received[..len].copy_from_slice(&self.produced[..len]);
        sum(&self.received[..len])
    }
}

impl Caller for End {
    fn run(&mut self, Batch { job, share }: &Batch) -> Result<Samples> {
        let (len, share): (usize, Duration) = (job.bytes(), *share);
        Samples::one_by_one(share, |seed| {
            let sum = match (self.way, job.work) {
                (Way::Memcpy, _) => self.copy(len, seed),
                (_, Work::Upload) => self.upload(len, seed)?,
                _ => self.download(len, seed)?,
            };
            check(sum, sum_of(len, seed))
        })
    }
}
