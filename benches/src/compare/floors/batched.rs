//! 64 calls at once, as many as possible in one system call.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use lpc_cli::measure::Samples;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::memory::Words;
use super::socket::{Message, message, numbers};
use super::watch::Watch;
use crate::compare::peer::{Caller, Peer, Result};
use crate::compare::threads::check;
use crate::compare::work::{Batch, Job, Work};

/// Calls at once.
const CALLS: usize = 64;

/// What takes many calls at once, and answers them in their order.
pub(super) trait Pipe {
    fn send(&mut self, calls: &[(u64, u64)]) -> io::Result<()>;

    /// Waits for an answer, and takes those that have come with it.
    fn receive(&mut self, answers: &mut Vec<u64>) -> io::Result<()>;
}

/// Keeps [`CALLS`] calls under way, from one thread.
pub(super) fn at_once(share: Duration, pipe: &mut impl Pipe) -> Result<Samples> {
    let mut samples = Samples::default();
    let (mut sent, mut calls, mut answers) = (VecDeque::new(), Vec::new(), Vec::new());
    let mut call: u64 = 0;
    let begin = Instant::now();
    let mut now = begin;
    loop {
        if now - begin < share || samples.is_empty() {
            calls.extend((sent.len()..CALLS).map(|at| (call + at as u64, 2)));
            for (a, _) in &calls {
                sent.push_back((now, a + 2));
            }
            call += CALLS as u64;
            pipe.send(&calls)?;
            calls.clear();
        } else if sent.is_empty() {
            return Ok(Samples::side_by_side([samples], begin.elapsed()));
        }
        pipe.receive(&mut answers)?;
        now = Instant::now();
        for answer in answers.drain(..) {
            let (sent, expected) = sent.pop_front().ok_or("an answer to no call")?;
            check(answer, expected)?;
            samples.push(now - sent);
        }
    }
}

struct Batched;

pub(super) fn all() -> Vec<Box<dyn Peer>> {
    vec![Box::new(Batched)]
}

impl Peer for Batched {
    fn name(&self) -> &str {
        "raw socket batched"
    }

    fn does(&self, job: Job) -> bool {
        job.work == Work::Add64
    }

    fn serve(&self, place: &Path) -> Result<()> {
        let (socket, _) = UnixListener::bind(place)?.accept()?;
        let watch = Watch::new(Some(Words::join(&socket)?), true);
        let mut end = End { socket, watch, received: Vec::new() };
        let mut answers = Vec::new();
        loop {
            end.more(|received| {
                for call in received {
                    let (a, b) = numbers(call);
                    answers.extend_from_slice(&message(a.wrapping_add(b), 0));
                }
            })?;
            end.write(&answers)?;
            answers.clear();
        }
    }

    fn connect(&self, place: &Path) -> Result<Box<dyn Caller>> {
        let socket = UnixStream::connect(place)?;
        let watch = Watch::new(Some(Words::make(&socket, 0)?), false);
        Ok(Box::new(End { socket, watch, received: Vec::new() }))
    }
}

/// One of the two processes.
struct End {
    socket: UnixStream,
    watch: Watch,
    /// The begin of a message whose end has not come.
    received: Vec<u8>,
}

impl End {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.watch.tell();
        self.socket.write_all(bytes)
    }

    /// Waits for a message, and takes those that have come with it.
    fn more(&mut self, mut take: impl FnMut(&[Message])) -> io::Result<()> {
        let mut bytes = [0; CALLS * size_of::<Message>()];
        let looked =
            self.watch.look(|| match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) => None,
                received => Some(received),
            });
        let received = match looked {
            Some(received) => received?,
            None => self.socket.read(&mut bytes)?,
        };
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.received.extend_from_slice(&bytes[..received]);
        let (messages, rest) = self.received.as_chunks();
        take(messages);
        let rest = rest.len();
        self.received.drain(..self.received.len() - rest);
        Ok(())
    }
}

impl Pipe for End {
    fn send(&mut self, calls: &[(u64, u64)]) -> io::Result<()> {
        let messages: Vec<u8> = calls.iter().flat_map(|(a, b)| message(*a, *b)).collect();
        self.write(&messages)
    }

    fn receive(&mut self, answers: &mut Vec<u64>) -> io::Result<()> {
        self.more(|received| answers.extend(received.iter().map(|answer| numbers(answer).0)))
    }
}

impl Caller for End {
    fn run(&mut self, Batch { share, .. }: &Batch) -> Result<Samples> {
        at_once(*share, self)
    }
}
