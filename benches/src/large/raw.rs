//! The rows without lpc: the least that carrying bytes can cost.
//!
//! Memory is made once, mapped once on both sides, and used for every call. The doorbell is one small message each way
//! over a Unix stream socket, and both sides sleep until it comes.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use lpc_cli::measure::{Service, produce, sum};
use memmap2::{Mmap, MmapMut};

use super::row::Carrier;
use super::segment;

/// What happens to the bytes between producing and reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Sent from private memory, received into private memory.
    Socket,
    /// Copied from private to shared memory, and from there to private memory.
    CopyCopy,
    /// The same, both private memories new for each call, as a `Vec<u8>` that is returned is.
    Vec,
    /// Copied from private to shared memory.
    CopyPlace,
    /// Copied from shared to private memory.
    PlaceCopy,
    /// Nothing.
    PlacePlace,
}

/// One of the two processes.
struct End {
    way: Way,
    socket: UnixStream,
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
    fn new(way: Way, socket: UnixStream, largest: usize) -> io::Result<Self> {
        let ours = segment::lend(&socket, largest)?;
        let theirs = segment::borrow(&socket, largest)?;
        let received = segment::private(largest)?;
        Ok(Self { way, socket, ours, theirs, produced: vec![0; largest], received })
    }

    /// Produces `len` bytes and hands them over with `message`.
    fn send(&mut self, message: &[u8], len: usize, seed: u8) -> io::Result<()> {
        if matches!(self.way, Way::PlacePlace | Way::PlaceCopy) {
            produce(&mut self.ours[..len], seed);
            return self.socket.write_all(message);
        }
        if self.way == Way::Vec {
            let bytes = vec![seed; len];
            self.ours[..len].copy_from_slice(&bytes);
            return self.socket.write_all(message);
        }
        let bytes = &mut self.produced[..len];
        produce(bytes, seed);
        if self.way == Way::Socket {
            // Together, so that the other side wakes up once.
            let sent = self.socket.write_vectored(&[IoSlice::new(message), IoSlice::new(bytes)])?;
            let rest = sent.checked_sub(message.len()).ok_or(io::ErrorKind::WriteZero)?;
            return self.socket.write_all(&bytes[rest..]);
        }
        self.ours[..len].copy_from_slice(bytes);
        self.socket.write_all(message)
    }

    /// Reads the `len` bytes that came with a message.
    fn read(&mut self, len: usize) -> io::Result<u64> {
        let bytes = &mut self.received[..len];
        match self.way {
            Way::Socket => self.socket.read_exact(bytes)?,
            Way::CopyCopy | Way::PlaceCopy => bytes.copy_from_slice(&self.theirs[..len]),
            Way::Vec => {
                let received = Vec::from(&self.theirs[..len]);
                return Ok(sum(&received));
            }
            Way::CopyPlace | Way::PlacePlace => return Ok(sum(&self.theirs[..len])),
        }
        Ok(sum(bytes))
    }

    fn message<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut message = [0; N];
        self.socket.read_exact(&mut message)?;
        Ok(message)
    }
}

/// What the caller asks for: as long as lpc's frame header.
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

pub(super) struct Caller {
    end: End,
    _child: Service,
}

impl Caller {
    pub(super) fn spawn(way: Way, command: &mut Command, largest: usize) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let child = Service::of(command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?);
        // The command keeps its end of the pair, through which the socket would seem alive after the child's death.
        command.stdin(Stdio::null());
        Ok(Self { end: End::new(way, ours, largest)?, _child: child })
    }
}

impl Carrier for Caller {
    fn upload(&mut self, len: usize, seed: u8) -> lpc::Result<u64> {
        self.end.send(&request(UPLOAD, len, seed), len, seed)?;
        Ok(u64::from_ne_bytes(self.end.message()?))
    }

    fn download(&mut self, len: usize, seed: u8) -> lpc::Result<u64> {
        self.end.socket.write_all(&request(DOWNLOAD, len, seed))?;
        let _: [u8; 8] = self.end.message()?;
        Ok(self.end.read(len)?)
    }

    fn check(&self) {
        // There is no other way here.
    }
}

/// Answers the caller at the other end of standard input until it hangs up.
pub(super) fn serve(way: Way, largest: usize) -> io::Result<()> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut end = End::new(way, socket, largest)?;
    loop {
        let request: Request = match end.message() {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            request => request?,
        };
        let [direction, seed, ..] = request;
        let (_, len) = request.as_chunks::<8>().0.split_at(1);
        let len = u64::from_ne_bytes(len[0]) as usize;
        if direction == UPLOAD {
            let sum = end.read(len)?;
            end.socket.write_all(&sum.to_ne_bytes())?;
        } else {
            end.send(&(len as u64).to_ne_bytes(), len, seed)?;
        }
    }
}
