//! Messages of 64 bytes through rings in shared memory, with a futex for the side that sleeps.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use lpc_cli::measure::Samples;
use rustix::thread::futex;

use super::batched::{self, Pipe};
use super::memory::Words;
use super::watch::Watch;
use crate::compare::peer::{Caller, Peer, Result};
use crate::compare::threads::check;
use crate::compare::work::{Batch, Job, Work};

struct Ring;

pub(super) fn all() -> Vec<Box<dyn Peer>> {
    vec![Box::new(Ring)]
}

/// Slots of a ring: what may be on its way in one direction.
const SLOTS: u32 = 256;
/// Words of a slot.
const SLOT: usize = 8;

/// A direction's words that futexes may be, each on a cache line of its own: how many messages were ever
/// written, and whether the reader sleeps.
const WRITTEN: usize = 0;
const SLEEPS: usize = 32;
/// From one direction's words to the other's.
const NEXT: usize = 64;

impl Peer for Ring {
    fn name(&self) -> &str {
        "raw ring spin"
    }

    fn does(&self, job: Job) -> bool {
        matches!(job.work, Work::Add | Work::Add64)
    }

    fn serve(&self, place: &Path) -> Result<()> {
        let (socket, _) = UnixListener::bind(place)?.accept()?;
        let watch = Watch::new(Some(Words::join(&socket)?), true);
        let mut end = End { words: Words::join(&socket)?, watch, written: 0, read: 0, ours: 1 };
        loop {
            let (a, b) = end.receive()?;
            end.send(a.wrapping_add(b), 0);
        }
    }

    fn connect(&self, place: &Path) -> Result<Box<dyn Caller>> {
        let socket = UnixStream::connect(place)?;
        let watch = Watch::new(Some(Words::make(&socket, 0)?), false);
        let words = Words::make(&socket, 2 * SLOTS as usize * SLOT)?;
        Ok(Box::new(End { words, watch, written: 0, read: 0, ours: 0 }))
    }
}

/// One of the two processes.
struct End {
    words: Words,
    watch: Watch,
    /// Messages ever written and read by this side.
    written: u32,
    read: u32,
    /// The direction that this side writes to, 0 or 1.
    ours: usize,
}

impl End {
    /// Writes a message. There is room: no more calls are made at once than there are slots.
    fn send(&mut self, a: u64, b: u64) {
        self.watch.tell();
        let slot = (self.ours * SLOTS as usize + (self.written % SLOTS) as usize) * SLOT;
        let slot = &self.words.large()[slot..slot + SLOT];
        for (word, value) in slot.iter().zip([a, b, 0, 0, 0, 0, 0, 0]) {
            word.store(value, Relaxed);
        }
        self.written = self.written.wrapping_add(1);
        let words = &self.words.small()[self.ours * NEXT..];
        // Before the look at whether the reader sleeps, which says so before it looks at this.
        words[WRITTEN].store(self.written, SeqCst);
        if words[SLEEPS].load(SeqCst) == 1 {
            // The reader alone takes it back: here that could come after it has said so anew.
            let _ = futex::wake(&words[WRITTEN], futex::Flags::empty(), 1);
        }
    }

    /// Reads the next message, when it has come.
    fn receive(&mut self) -> io::Result<(u64, u64)> {
        let words = &self.words.small()[(1 - self.ours) * NEXT..];
        let is_there = || (words[WRITTEN].load(Acquire) != self.read).then_some(());
        while self.watch.look(is_there).is_none() {
            words[SLEEPS].store(1, SeqCst);
            if words[WRITTEN].load(SeqCst) == self.read {
                match futex::wait(&words[WRITTEN], futex::Flags::empty(), self.read, None) {
                    Ok(()) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            words[SLEEPS].store(0, Relaxed);
        }
        let slot = ((1 - self.ours) * SLOTS as usize + (self.read % SLOTS) as usize) * SLOT;
        let slot = &self.words.large()[slot..slot + SLOT];
        let mut message = [0; SLOT];
        message.iter_mut().zip(slot).for_each(|(value, word)| *value = word.load(Relaxed));
        self.read = self.read.wrapping_add(1);
        Ok((message[0], message[1]))
    }
}

impl Caller for End {
    fn run(&mut self, Batch { job, share }: &Batch) -> Result<Samples> {
        if job.work == Work::Add {
            return Samples::one_by_one(*share, |seed| {
                End::send(self, u64::from(seed), 2);
                check(End::receive(self)?.0, u64::from(seed) + 2)
            });
        }
        batched::at_once(*share, self)
    }
}

impl Pipe for End {
    fn send(&mut self, calls: &[(u64, u64)]) -> io::Result<()> {
        calls.iter().for_each(|(a, b)| End::send(self, *a, *b));
        Ok(())
    }

    fn receive(&mut self, answers: &mut Vec<u64>) -> io::Result<()> {
        answers.push(End::receive(self)?.0);
        while self.words.small()[(1 - self.ours) * NEXT + WRITTEN].load(Acquire) != self.read {
            answers.push(End::receive(self)?.0);
        }
        Ok(())
    }
}
