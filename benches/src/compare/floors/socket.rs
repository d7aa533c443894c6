//! One message of 64 bytes there, one back, over a Unix stream socket.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::memory::Words;
use super::watch::Watch;
use crate::compare::peer::{Caller, Peer, Result};
use crate::compare::threads::{Blocking, Threads};
use crate::compare::work::{Job, Mixed, Work};

/// Two numbers, and what makes it as long as a small call.
pub(super) type Message = [u8; 64];

pub(super) fn message(a: u64, b: u64) -> Message {
    let mut message = [0; 64];
    message[..8].copy_from_slice(&a.to_ne_bytes());
    message[8..16].copy_from_slice(&b.to_ne_bytes());
    message
}

pub(super) fn numbers(message: &Message) -> (u64, u64) {
    let words = message.as_chunks::<8>().0;
    (u64::from_ne_bytes(words[0]), u64::from_ne_bytes(words[1]))
}

struct Socket {
    name: &'static str,
    spins: bool,
}

pub(super) fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(Socket { name: "raw socket", spins: false }),
        Box::new(Socket { name: "raw socket spin", spins: true }),
    ]
}

impl Peer for Socket {
    fn name(&self) -> &str {
        self.name
    }

    fn does(&self, job: Job) -> bool {
        matches!(job.work, Work::Add | Work::Connect | Work::Idle | Work::Clients)
    }

    fn serve(&self, place: &Path) -> Result<()> {
        for socket in UnixListener::bind(place)?.incoming() {
            let (socket, spins) = (socket?, self.spins);
            thread::spawn(move || answer(socket, spins));
        }
        Ok(())
    }

    fn connect(&self, place: &Path) -> Result<Box<dyn Caller>> {
        let (place, spins) = (place.to_owned(), self.spins);
        Ok(Box::new(Threads::new(move || {
            let socket = UnixStream::connect(&place)?;
            let page = spins.then(|| Words::make(&socket, 0)).transpose()?;
            Ok(End { socket, watch: Watch::new(page, false) })
        })?))
    }
}

/// One of the two processes.
struct End {
    socket: UnixStream,
    watch: Watch,
}

impl End {
    fn send(&self, message: &Message) -> io::Result<()> {
        self.watch.tell();
        (&self.socket).write_all(message)
    }

    fn receive(&self) -> io::Result<Message> {
        let mut message = [0; 64];
        let looked =
            self.watch.look(|| match recv(self.socket.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) => None,
                received => Some(received),
            });
        let received = looked.transpose()?;
        if received == Some(0) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (&self.socket).read_exact(&mut message[received.unwrap_or(0)..])?;
        Ok(message)
    }
}

fn answer(socket: UnixStream, spins: bool) -> io::Result<()> {
    let page = spins.then(|| Words::join(&socket)).transpose()?;
    let end = End { socket, watch: Watch::new(page, true) };
    loop {
        let (a, b) = numbers(&end.receive()?);
        end.send(&message(a.wrapping_add(b), 0))?;
    }
}

impl Blocking for End {
    fn add(&self, a: u64, b: u64) -> Result<u64> {
        self.send(&message(a, b))?;
        Ok(numbers(&self.receive()?).0)
    }

    fn upload(&self, _own: &mut [u8], _seed: u8) -> Result<u64> {
        Err("is the work of `pool`".into())
    }

    fn download(&self, _len: usize, _seed: u8) -> Result<u64> {
        Err("is the work of `pool`".into())
    }

    fn mixed(&self, _mixed: &Mixed) -> Result<u64> {
        Err("there is no codec".into())
    }
}
