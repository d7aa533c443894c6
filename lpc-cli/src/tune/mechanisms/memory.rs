//! Memory that both processes map: a body is copied in and read in place. A message on a socket hands it
//! over.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;

use lpc_cli::measure::{produce, sum};
use rustix::fs::{MemfdFlags, Mode, memfd_create};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustix::shm;

use super::system::{Segment, map_to_read, map_to_write};
use super::{Answer, Mechanism, start};
use crate::Result;
use crate::tune::carrier::{Carrier, Opened};

pub(super) struct SystemV;

impl Mechanism for SystemV {
    fn name(&self) -> &'static str {
        "System V shared memory"
    }

    fn open(&self, command: &mut Command, largest: usize) -> Result<Opened> {
        let (segment, id) = Segment::create(largest)?;
        let socket = connect(command.arg(format!("--place={id}")))?;
        opened(command, Caller { socket, memory: segment })
    }

    fn serve(&self, place: &str, largest: usize) -> Result<()> {
        answer(&Segment::attach(place.parse()?, largest)?)
    }
}

pub(super) struct Posix;

impl Mechanism for Posix {
    fn name(&self) -> &'static str {
        "POSIX shared memory"
    }

    fn open(&self, command: &mut Command, largest: usize) -> Result<Opened> {
        let name = format!("/lpc-tune-{}", std::process::id());
        let flags = shm::OFlags::CREATE | shm::OFlags::EXCL | shm::OFlags::RDWR;
        let file = shm::open(&*name, flags, Mode::RUSR | Mode::WUSR)?;
        // The other process gets the descriptor, so that no name is left whatever happens.
        shm::unlink(&*name)?;
        open_file(command, file.into(), largest)
    }

    fn serve(&self, _place: &str, largest: usize) -> Result<()> {
        serve_file(largest)
    }
}

pub(super) struct File;

impl Mechanism for File {
    fn name(&self) -> &'static str {
        "memory-mapped file"
    }

    fn open(&self, command: &mut Command, largest: usize) -> Result<Opened> {
        open_file(command, tempfile::tempfile()?, largest)
    }

    fn serve(&self, _place: &str, largest: usize) -> Result<()> {
        serve_file(largest)
    }
}

/// The file goes to the other process as its standard output.
fn open_file(command: &mut Command, file: fs::File, largest: usize) -> Result<Opened> {
    file.set_len(largest as u64)?;
    let memory = map_to_write(&file, largest)?;
    let socket = connect(command.stdout(file))?;
    opened(command, Caller { socket, memory })
}

fn serve_file(largest: usize) -> Result<()> {
    let file = fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
    answer(&map_to_read(&file, largest)?)
}

/// A socket to the other process, where it is standard input.
fn connect(command: &mut Command) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    command.stdin(OwnedFd::from(theirs));
    Ok(ours)
}

fn opened(command: &mut Command, carrier: impl Carrier + 'static) -> Result<Opened> {
    Ok(Opened { service: start(command)?, carrier: Box::new(carrier) })
}

/// The other process's end of [`connect`].
fn parent() -> io::Result<UnixStream> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}

struct Caller<M> {
    socket: UnixStream,
    memory: M,
}

impl<M: DerefMut<Target = [u8]>> Carrier for Caller<M> {
    fn carry(&mut self, own: &mut [u8], seed: u8) -> Result<u64> {
        produce(own, seed);
        self.memory[..own.len()].copy_from_slice(own);
        self.socket.write_all(&(own.len() as u64).to_ne_bytes())?;
        receive_answer(&mut self.socket)
    }
}

fn receive_answer(socket: &mut UnixStream) -> Result<u64> {
    let mut answer = Answer::default();
    socket.read_exact(&mut answer)?;
    Ok(u64::from_ne_bytes(answer))
}

/// The length of the next body, until the caller hangs up.
fn next(socket: &mut UnixStream) -> Result<Option<usize>> {
    let mut len = [0; 8];
    match socket.read_exact(&mut len) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        read => {
            read?;
            Ok(Some(usize::try_from(u64::from_ne_bytes(len))?))
        }
    }
}

fn answer(memory: &(impl Deref<Target = [u8]> + ?Sized)) -> Result<()> {
    let mut socket = parent()?;
    while let Some(len) = next(&mut socket)? {
        let body = memory.get(..len).ok_or("a body is larger than was agreed on")?;
        socket.write_all(&sum(body).to_ne_bytes())?;
    }
    Ok(())
}

/// Made, mapped, passed and unmapped for each call.
pub(super) struct FreshMemfd;

impl Mechanism for FreshMemfd {
    fn name(&self) -> &'static str {
        "fresh memfd for each call"
    }

    fn open(&self, command: &mut Command, _largest: usize) -> Result<Opened> {
        let socket = connect(command)?;
        opened(command, FreshCaller(socket))
    }

    fn serve(&self, _place: &str, largest: usize) -> Result<()> {
        let mut socket = parent()?;
        while let Some((len, memory)) = receive_memory(&socket)? {
            if len > largest {
                return Err("a body is larger than was agreed on".into());
            }
            let sum = sum(&map_to_read(&memory, len)?);
            socket.write_all(&sum.to_ne_bytes())?;
        }
        Ok(())
    }
}

struct FreshCaller(UnixStream);

impl Carrier for FreshCaller {
    fn carry(&mut self, own: &mut [u8], seed: u8) -> Result<u64> {
        produce(own, seed);
        let file = fs::File::from(memfd_create("lpc-tune", MemfdFlags::CLOEXEC)?);
        file.set_len(own.len() as u64)?;
        map_to_write(&file, own.len())?.copy_from_slice(own);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [file.as_fd()];
        if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err("there is no room for a descriptor".into());
        }
        let len = (own.len() as u64).to_ne_bytes();
        sendmsg(&self.0, &[IoSlice::new(&len)], &mut control, SendFlags::NOSIGNAL)?;
        receive_answer(&mut self.0)
    }
}

/// The next body's length and memory, until the caller hangs up.
fn receive_memory(socket: &UnixStream) -> Result<Option<(usize, fs::File)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut len = [0; 8];
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut len)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let memory = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let memory = memory.ok_or("no memory came with a message")?;
    Ok(Some((usize::try_from(u64::from_ne_bytes(len))?, memory.into())))
}
