//! How a [`Link`] writes: one sender at a time, without the lock, and the others leave their frames to it.

use std::collections::TryReserveError;
use std::io;
use std::sync::atomic::{Ordering::Release, Ordering::SeqCst};
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lpc_core::send::{AfterWrite, Announced, BackPressure, Batch, WriteOutcome};
use nix::sys::socket::Shutdown;

use super::{Flow, Link, SharedSender, Wrote};
use crate::connection::passing::Descriptor;
use crate::connection::warnings::Warning;
use crate::connection::writer::{Until, into_error};
use crate::sys::private;
use crate::sys::socket::{self, Wait};

/// How long a sender pauses before it writes again what a writer left.
const AGAIN: Duration = Duration::from_millis(10);

impl Link {
    /// Makes room for a large frame that is about to be sent, of which what the socket does not take is kept.
    ///
    /// # Errors
    ///
    /// There is no memory for it.
    #[cold]
    pub(crate) fn make_room(&self, len: usize) -> Result<(), TryReserveError> {
        if !self.fork_guard.is_here() {
            return Ok(());
        }
        let mut sender = self.sender();
        if sender.make_room(len).is_ok() {
            return Ok(());
        }
        drop(sender);
        private::release();
        match self.sender().make_room(len) {
            // A thread writes all of it as a rule, and nothing has to be kept.
            Err(_) if self.wait == Wait::Sleep => Ok(()),
            result => result,
        }
    }

    #[inline]
    pub(super) fn until(&self, deadline: Option<Instant>) -> Until {
        match self.wait {
            Wait::Sleep => Until::At(deadline),
            Wait::Never => Until::Reactor,
        }
    }

    /// What a sender has to do about what it did not write.
    #[inline]
    pub(super) fn flow(&self, wrote: Wrote) -> Flow {
        match wrote {
            Wrote::All => Flow::Sent,
            Wrote::Stalled => Flow::Stalled,
            Wrote::Left => {
                if !self.upkeep.schedule_flush() && self.wait == Wait::Sleep {
                    self.write_on();
                }
                Flow::Sent
            }
        }
    }

    /// Writes what its writer would leave to maintenance, for which there is no thread: those who have queued
    /// it wait for answers to it. It ends when the peer has stopped reading for too long.
    #[cold]
    fn write_on(&self) {
        self.upkeep.begin_flush();
        while let Ok(Wrote::Left) = self.write(self.sender(), None, Until::At(None)) {
            std::thread::sleep(AGAIN);
        }
    }

    /// Queues a frame that asks the peer for something: it is sent by
    /// [`send_questions`](Self::send_questions).
    pub(crate) fn enqueue_question(&self, frame: &[u8]) -> usize {
        let queued = self.enqueue_deferred(frame);
        self.upkeep.ask();
        queued
    }

    /// Sends what the peer was asked for while messages were taken, before it is waited for.
    #[inline]
    pub(crate) fn send_questions(&self) {
        if self.upkeep.take_questions() {
            self.flush_or_schedule();
        }
    }

    /// Whether what nobody else would send is sent, or has somebody who does. It is tried here, without
    /// waiting.
    #[inline]
    pub(crate) fn flush_left(&self) -> bool {
        if self.upkeep.is_left() {
            self.upkeep.begin_flush();
            self.flush_or_schedule();
        }
        !self.upkeep.is_left()
    }

    /// Sends what is queued as far as the socket takes it at once, for those who may hold other locks:
    /// whatever goes wrong is found, and told, by the next flush.
    #[cold]
    pub(super) fn flush_quietly(&self) {
        let mut descriptors = Vec::new();
        let mut sender = self.sender();
        if sender.ring_bell() {
            self.counters.rang();
        }
        let Some(mut batch) = sender.begin_write() else { return };
        self.upkeep.begin_flush();
        let written = self.writer.write(&mut batch, Until::Now, &mut descriptors, || Ok(()));
        let is_all = matches!(written, Ok(WriteOutcome::All));
        let after = sender.finish(batch, if is_all { WriteOutcome::All } else { WriteOutcome::OutOfTime });
        if !is_all {
            self.upkeep.leave();
        }
        self.wake_waiting(&sender);
        drop(sender);
        // Descriptors are closed without the lock.
        drop((after, descriptors));
    }

    /// The sender, once a blocking caller may add to its queue.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](io::ErrorKind::TimedOut) where it may not in time; or nothing is sent any more.
    #[inline]
    pub(super) fn uncongested(&self, deadline: Option<Instant>) -> io::Result<MutexGuard<'_, SharedSender>> {
        self.check_process().map_err(io::Error::other)?;
        let sender = self.sender();
        if self.wait == Wait::Never || sender.back_pressure() == BackPressure::None {
            return Ok(sender);
        }
        self.wait_until_uncongested(sender, deadline)
    }

    #[cold]
    pub(super) fn wait_until_uncongested<'l>(
        &'l self,
        mut sender: MutexGuard<'l, SharedSender>,
        deadline: Option<Instant>,
    ) -> io::Result<MutexGuard<'l, SharedSender>> {
        loop {
            let is_left = sender.back_pressure() == BackPressure::Write;
            if is_left {
                // What a writer left that had no more time.
                let wrote = self.write(sender, None, self.until(deadline))?;
                let _ = self.flow(wrote);
                sender = self.sender();
            }
            if sender.back_pressure() == BackPressure::None {
                return Ok(sender);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // Where the system has no memory for a write nobody says when it has.
            let pause = left.into_iter().chain(is_left.then_some(AGAIN)).min();
            sender.begin_waiting();
            sender = match pause {
                Some(pause) => {
                    self.taken.wait_timeout(sender, pause).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.taken.wait(sender).unwrap_or_else(PoisonError::into_inner),
            };
            sender.end_waiting();
        }
    }

    /// Writes the batch, if the caller has one, and then what is queued, until nothing is or the socket takes
    /// no more, unless somebody else is at it. One that waits for the socket hands the turn on after a while.
    pub(super) fn write<'l>(
        &'l self,
        sender: MutexGuard<'l, SharedSender>,
        begun: Option<Batch<'_, Descriptor>>,
        until: Until,
    ) -> io::Result<Wrote> {
        // To close one may take its time: it is done after the lock is released.
        let mut descriptors = Vec::new();
        self.write_batches(sender, begun, until, &mut descriptors)
    }

    #[inline]
    pub(super) fn write_batches<'l>(
        &'l self,
        mut sender: MutexGuard<'l, SharedSender>,
        mut begun: Option<Batch<'_, Descriptor>>,
        until: Until,
        descriptors: &mut Vec<Descriptor>,
    ) -> io::Result<Wrote> {
        let mut batches = 0;
        loop {
            if begun.is_none() {
                if sender.ring_bell() {
                    self.counters.rang();
                }
                if batches > 0 && sender.queued() > 0 && sender.is_over().is_none() && until.is_over(batches)
                {
                    return Ok(Wrote::Left);
                }
                begun = sender.begin_write();
            }
            let Some(mut batch) = begun.take() else {
                return match sender.is_over() {
                    Some(over) => Err(self.fail(sender, into_error(over))),
                    None if sender.is_stalled() => Ok(Wrote::Stalled),
                    None => Ok(Wrote::All),
                };
            };
            batches += 1;
            let written = if until == Until::Now {
                // Under the lock, so that nobody leaves a frame to a writer that does not wait for the
                // socket.
                self.writer.write(&mut batch, until, descriptors, || Ok(()))
            } else {
                drop(sender);
                let written = self.writer.write(&mut batch, until, descriptors, || self.meanwhile());
                descriptors.clear();
                sender = self.sender();
                written
            };
            let (outcome, error) = match written {
                Ok(outcome) => (outcome, None),
                Err(error) => (WriteOutcome::Failed, Some(error)),
            };
            let after = sender.finish(batch, outcome);
            self.wake_waiting(&sender);
            match after {
                AfterWrite::GoOn => {}
                AfterWrite::Lost(announced, descriptor) => {
                    // Before anybody can find that its frame has gone out.
                    descriptor.lost();
                    drop(sender);
                    drop(descriptor);
                    self.not_passed(announced);
                    sender = self.sender();
                }
                AfterWrite::Stalled => {
                    self.is_stalled.store(true, Release);
                    return Ok(Wrote::Stalled);
                }
                AfterWrite::Retry => return Ok(Wrote::Left),
                AfterWrite::Over(over, unsent) => {
                    descriptors.extend(unsent);
                    return Err(self.fail_batch(sender, error.unwrap_or_else(|| into_error(over))));
                }
            }
        }
    }

    /// What a writer does now and then while it waits for the socket.
    pub(super) fn meanwhile(&self) -> io::Result<()> {
        if self.is_broken() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // The peer may have stopped reading because nobody here receives what it sends.
        if let Some(maintained) = self.upkeep.maintained() {
            maintained.meanwhile();
        }
        Ok(())
    }

    /// Has senders look again that wait for the queue to get shorter.
    #[inline]
    pub(super) fn wake_waiting(&self, sender: &SharedSender) {
        // A condition variable does not know whether anybody waits, and waking nobody is a system call, too.
        if sender.waiting() > 0 {
            self.taken.notify_all();
        }
    }

    /// The system did not pass a descriptor: the peer is told, and does without.
    pub(super) fn not_passed(&self, announced: Announced) {
        match announced {
            Announced::Memory(number) => self.lender.not_passed(number),
            Announced::Ring => self.warnings.warn(Warning::RingNotPassed),
        }
    }

    /// Gives the sending up. What the peer answers still arrives: it may have closed only its receiving.
    pub(super) fn fail(&self, sender: MutexGuard<'_, SharedSender>, error: io::Error) -> io::Error {
        if self.give_up(sender) {
            self.end_sending();
            self.send_failed();
        }
        error
    }

    /// The same after a batch that was cut. How far its calls got is known only now, also where the end was
    /// told before.
    pub(super) fn fail_batch(&self, sender: MutexGuard<'_, SharedSender>, error: io::Error) -> io::Error {
        if self.give_up(sender) {
            self.end_sending();
        }
        self.send_failed();
        error
    }

    pub(super) fn send_failed(&self) {
        if let Some(maintained) = self.upkeep.maintained() {
            maintained.send_failed();
        }
    }

    /// Lets the peer see that nothing more is sent.
    pub(super) fn end_sending(&self) {
        // As in `close`: a client that sees the end finds what its server has taken, and nothing else runs.
        if let Some(maintained) = self.upkeep.maintained() {
            maintained.closing();
        }
        socket::shutdown(self.socket(), Shutdown::Write);
    }

    /// Sends nothing more; whether something was sent until now.
    pub(super) fn give_up(&self, mut sender: MutexGuard<'_, SharedSender>) -> bool {
        let is_first = !self.is_broken.swap(true, SeqCst);
        let descriptors = sender.give_up();
        drop(sender);
        // To close one may take its time, and the lock is not held.
        descriptors.for_each(drop);
        self.taken.notify_all();
        is_first
    }
}
