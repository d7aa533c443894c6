//! 64 calls at once, as many as possible in one system call.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use lpc_cli::measure::Samples;
use nix::sys::socket::MsgFlags;

use super::inbox::{Inbox, answer};
use super::memory::Words;
use super::socket::{message, numbers};
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
        answer_all(place)
    }

    fn connect(&self, place: &Path) -> Result<Box<dyn Caller>> {
        let socket = UnixStream::connect(place)?;
        let watch = Watch::new(Some(Words::make(&socket, 0)?), false);
        Ok(Box::new(End { socket, watch, inbox: Inbox::new() }))
    }
}

/// Serves one client: what a read brings is answered by one write.
pub(super) fn answer_all(place: &Path) -> Result<()> {
    let (socket, _) = UnixListener::bind(place)?.accept()?;
    let watch = Watch::new(Some(Words::join(&socket)?), true);
    let mut end = End { socket, watch, inbox: Inbox::new() };
    let mut answers = Vec::new();
    loop {
        end.fill()?;
        end.inbox.take(|calls| answers.extend(calls.iter().flat_map(answer)));
        end.write(&answers)?;
        answers.clear();
    }
}

/// One of the two processes.
struct End {
    socket: UnixStream,
    watch: Watch,
    inbox: Inbox,
}

impl End {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.watch.tell();
        self.socket.write_all(bytes)
    }

    /// Waits until something has come.
    fn fill(&mut self) -> io::Result<()> {
        let looked = self.watch.look(|| self.inbox.try_fill(&self.socket));
        looked.unwrap_or_else(|| self.inbox.fill(&self.socket, MsgFlags::empty()))
    }
}

impl Pipe for End {
    fn send(&mut self, calls: &[(u64, u64)]) -> io::Result<()> {
        let messages: Vec<u8> = calls.iter().flat_map(|(a, b)| message(*a, *b)).collect();
        self.write(&messages)
    }

    fn receive(&mut self, answers: &mut Vec<u64>) -> io::Result<()> {
        self.fill()?;
        self.inbox.take(|received| answers.extend(received.iter().map(|answer| numbers(answer).0)));
        Ok(())
    }
}

impl Caller for End {
    fn run(&mut self, Batch { share, .. }: &Batch) -> Result<Samples> {
        at_once(*share, self)
    }
}
