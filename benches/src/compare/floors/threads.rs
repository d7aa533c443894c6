//! 64 threads on one socket: one writes what all have to say, one reads for all, and each sleeps on a futex
//! of its own.
//!
//! While other callers are about to run, a caller leaves both to the last of them. So calls go out together,
//! and no thread spins for answers on a CPU that others need.

use std::io::{self, Write};
use std::mem;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::socket::MsgFlags;
use rustix::thread::futex;

use super::batched::answer_all;
use super::inbox::{Inbox, number, numbered};
use super::memory::Words;
use super::socket::numbers;
use super::watch::Watch;
use crate::compare::peer::{Caller, Peer, Result};
use crate::compare::threads::{Blocking, Threads};
use crate::compare::work::{Job, Mixed, Work};

struct OneSocket;

pub(super) fn all() -> Vec<Box<dyn Peer>> {
    vec![Box::new(OneSocket)]
}

impl Peer for OneSocket {
    fn name(&self) -> &str {
        "raw threads spin"
    }

    fn does(&self, job: Job) -> bool {
        job.work == Work::Add64
    }

    fn serve(&self, place: &Path) -> Result<()> {
        answer_all(place)
    }

    fn connect(&self, place: &Path) -> Result<Box<dyn Caller>> {
        let place = place.to_owned();
        Ok(Box::new(Threads::new(move || {
            let socket = UnixStream::connect(&place)?;
            let watch = Watch::new(Some(Words::make(&socket, 0)?), false);
            let (inbox, waiters) = (Mutex::new(Inbox::new()), std::array::from_fn(|_| Waiter::default()));
            Ok(Client { socket, watch, calls: Mutex::default(), inbox, waiters })
        })?))
    }
}

/// Calls at once: one for each bit of [`Calls::numbers`].
const CALLS: usize = 64;

/// What the callers of one client share.
struct Client {
    socket: UnixStream,
    watch: Watch,
    calls: Mutex<Calls>,
    /// Locked by the thread that reads.
    inbox: Mutex<Inbox>,
    waiters: [Waiter; CALLS],
}

#[derive(Default)]
struct Calls {
    /// A bit for each number that a call has.
    numbers: u64,
    /// Callers that have been woken up, and have not run since.
    woken: usize,
    /// Calls to be sent.
    messages: Vec<u8>,
    /// Empty, and as long as `messages` once was.
    spare: Vec<u8>,
    is_written: bool,
    is_read: bool,
}

impl Client {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, a: u64, b: u64) -> io::Result<u64> {
        let (number, reads) = {
            let mut calls = self.calls();
            let number = calls.numbers.trailing_ones() as usize;
            if number == CALLS {
                return Err(io::Error::other("more calls at once than there are numbers"));
            }
            calls.numbers |= 1 << number;
            calls.messages.extend_from_slice(&numbered(a, b, number));
            let is_last = calls.woken == 0;
            let reads = is_last && !calls.is_read;
            calls.is_read |= is_last;
            if is_last {
                self.write(calls)?;
            }
            (number, reads)
        };
        if reads || self.waiters[number].wait()? == Told::Read {
            return self.read(number);
        }
        let answer = self.waiters[number].answer();
        let mut calls = self.calls();
        calls.numbers &= !(1 << number);
        calls.woken -= 1;
        self.leave(calls)?;
        Ok(answer)
    }

    /// Sends all queued calls, unless another thread is sending and will send these, too.
    fn write<'a>(&'a self, mut calls: MutexGuard<'a, Calls>) -> io::Result<()> {
        if mem::replace(&mut calls.is_written, true) {
            return Ok(());
        }
        let mut messages = mem::take(&mut calls.spare);
        while !calls.messages.is_empty() {
            mem::swap(&mut messages, &mut calls.messages);
            drop(calls);
            self.watch.tell();
            (&self.socket).write_all(&messages)?;
            messages.clear();
            calls = self.calls();
        }
        calls.spare = messages;
        calls.is_written = false;
        Ok(())
    }

    /// Reads for all, until the answer to the call of this number has come.
    fn read(&self, own: usize) -> io::Result<u64> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answer = None;
        while answer.is_none() {
            let looked = self.watch.look(|| inbox.try_fill(&self.socket));
            looked.unwrap_or_else(|| inbox.fill(&self.socket, MsgFlags::empty()))?;
            inbox.take(|answers| {
                answer = answers.iter().find(|answer| number(answer) == own).map(|answer| numbers(answer).0);
                self.calls().woken += answers.len() - usize::from(answer.is_some());
                for answer in answers.iter().filter(|answer| number(answer) != own) {
                    self.waiters[number(answer)].tell_answer(numbers(answer).0);
                }
            });
        }
        drop(inbox);
        let mut calls = self.calls();
        calls.numbers &= !(1 << own);
        calls.is_read = false;
        self.leave(calls)?;
        answer.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Called by a thread that leaves with its answer: makes another one send the queued calls and read
    /// answers.
    fn leave<'a>(&'a self, mut calls: MutexGuard<'a, Calls>) -> io::Result<()> {
        if calls.woken > 0 {
            return Ok(());
        }
        if !calls.is_read {
            let waits = |number: &usize| calls.numbers & 1 << number != 0;
            calls.is_read = (0..CALLS).filter(waits).any(|number| self.waiters[number].tell_to_read());
        }
        if calls.messages.is_empty() { Ok(()) } else { self.write(calls) }
    }
}

/// What a waiting caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Answer,
    Read,
}

/// Where one caller waits. On cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Waiter {
    state: AtomicU32,
    answer: AtomicU64,
}

/// States of a [`Waiter`].
const NOTHING: u32 = 0;
const SLEEPS: u32 = 1;
const ANSWERED: u32 = 2;
const TO_READ: u32 = 3;

impl Waiter {
    fn wait(&self) -> io::Result<Told> {
        // It has been told something where this fails.
        let _ = self.state.compare_exchange(NOTHING, SLEEPS, AcqRel, Acquire);
        while self.state.load(Acquire) == SLEEPS {
            match futex::wait(&self.state, futex::Flags::PRIVATE, SLEEPS, None) {
                Ok(()) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let told = self.state.swap(NOTHING, Acquire);
        Ok(if told == TO_READ { Told::Read } else { Told::Answer })
    }

    fn answer(&self) -> u64 {
        self.answer.load(Relaxed)
    }

    fn tell_answer(&self, answer: u64) {
        self.answer.store(answer, Relaxed);
        if self.state.swap(ANSWERED, AcqRel) == SLEEPS {
            let _ = futex::wake(&self.state, futex::Flags::PRIVATE, 1);
        }
    }

    /// Unless it has an answer.
    fn tell_to_read(&self) -> bool {
        if self.state.compare_exchange(SLEEPS, TO_READ, AcqRel, Relaxed).is_ok() {
            let _ = futex::wake(&self.state, futex::Flags::PRIVATE, 1);
            return true;
        }
        self.state.compare_exchange(NOTHING, TO_READ, AcqRel, Relaxed).is_ok()
    }
}

impl Blocking for Client {
    fn add(&self, a: u64, b: u64) -> Result<u64> {
        Ok(self.call(a, b)?)
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
