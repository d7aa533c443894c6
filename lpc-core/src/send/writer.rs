//! One writer at a time: a [`Batch`] is the writer's turn, and a sender that holds none leaves its frames to
//! the writer.
//!
//! Batches form by themselves under load, and no lock is held while they are written.

use super::queue::Frames;
use super::route::Route;
use super::{Over, Sender};
use crate::frame::{self, Header, Kind};
use crate::ring::{Own, Peers};

/// Bytes in the queue and the batch that is being written above which senders wait.
pub const CONGESTED: usize = 1 << 20;

/// Bytes in the queue above which what was meant to go out with something else goes out by itself.
pub const MUCH: usize = 16 << 10;

/// The state of the writer's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writing {
    /// Nobody writes: the next sender may.
    Idle,
    /// The holder of the batch writes, of so many bytes.
    Busy(usize),
    /// Nobody writes until the socket takes more. A driver waits for that and [resumes](Sender::resume).
    Stalled,
    /// Nobody writes any more.
    Over(Over),
}

/// The writer's turn: what it writes, while nobody else does. Write [`piece`](Self::piece) after piece, and
/// give the batch [back](Sender::finish).
#[derive(Debug)]
#[must_use = "nobody else writes before it is given back"]
pub struct Batch<'f, D> {
    /// What was queued; nothing, as a rule, where senders are few.
    queued: Option<Box<Frames<D>>>,
    /// The writer's own frame, which goes behind that from the writer's buffer.
    frame: &'f [u8],
    /// Bytes of both that have been written.
    written: usize,
    /// Where the batch ends in the stream.
    end: u64,
}

/// What is to be written next, by one system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a, D> {
    /// Never empty.
    pub bytes: &'a [u8],
    /// What goes with the first of them.
    pub descriptor: Option<&'a D>,
}

/// How far a write got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// To the end.
    All,
    /// Until the socket took no more. The connection's reactor says when it does.
    Full,
    /// Until the writer's time was over.
    OutOfTime,
    /// Until the system had no memory for more, or did not pass a descriptor.
    Short,
    /// The socket is broken.
    Failed,
}

/// What is to be done after a write.
#[derive(Debug)]
#[must_use]
pub enum AfterWrite<D> {
    /// [Begin](Sender::begin_write) again: others may have queued something meanwhile.
    GoOn,
    /// The same. What this descriptor belongs to was announced without it: the system did not pass it.
    Lost(Announced, D),
    /// The rest goes out when the socket takes more: somebody has to wait for that, and to
    /// [resume](Sender::resume).
    Stalled,
    /// The rest is to be tried again, soon.
    Retry,
    /// Nothing goes out any more, nor do these descriptors of the batch: to be closed without a lock.
    Over(Over, Vec<D>),
}

/// Whether a sender who can wait may add to the queue: see [`Sender::back_pressure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackPressure {
    /// It may.
    None,
    /// It waits for the writer, or until the socket takes more.
    Wait,
    /// It writes what is queued, which nobody else does, and asks again.
    Write,
}

/// What a frame announced that brings a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// A segment or object, by its number.
    Memory(u32),
    /// This side's memory for the quick lane. There is no ring.
    Ring,
}

impl<D> Batch<'_, D> {
    /// What is to be written next; `None` when all of it was.
    #[must_use]
    #[inline]
    pub fn piece(&self) -> Option<Piece<'_, D>> {
        match &self.queued {
            Some(queued) if self.written < queued.bytes.len() => Some(self.piece_of(queued)),
            _ => {
                let bytes = &self.frame[self.written - self.queued_len()..];
                (!bytes.is_empty()).then_some(Piece { bytes, descriptor: None })
            }
        }
    }

    fn piece_of<'a>(&self, queued: &'a Frames<D>) -> Piece<'a, D> {
        let rest = &queued.bytes[self.written..];
        // From a descriptor's byte to before the next one's.
        let mut descriptors = queued.descriptors.iter();
        let (first, second) = (descriptors.next(), descriptors.next());
        let own = first.filter(|(place, _)| *place == self.written);
        let next = if own.is_some() { second } else { first };
        let end = next.map_or(rest.len(), |(place, _)| place - self.written);
        Piece { bytes: &rest[..end], descriptor: own.map(|(_, descriptor)| descriptor) }
    }

    /// Bytes in front of the writer's own frame.
    #[inline]
    fn queued_len(&self) -> usize {
        self.queued.as_ref().map_or(0, |queued| queued.bytes.len())
    }

    /// The first `len` bytes of the [`piece`](Self::piece) were written. Gives the descriptor that went with
    /// them, to be closed.
    #[inline]
    pub fn wrote(&mut self, len: usize) -> Option<D> {
        let went = if len > 0 { self.pop_descriptor() } else { None };
        self.written += len;
        went.map(|(_, descriptor)| descriptor)
    }

    /// Takes the descriptor of what comes next, and its place.
    #[inline]
    fn pop_descriptor(&mut self) -> Option<(usize, D)> {
        let descriptors = &mut self.queued.as_mut()?.descriptors;
        if descriptors.front()?.0 == self.written { descriptors.pop_front() } else { None }
    }

    /// What has not gone out.
    fn into_descriptors(self) -> Vec<D> {
        let descriptors = self.queued.map(|queued| queued.descriptors);
        descriptors.into_iter().flatten().map(|(_, descriptor)| descriptor).collect()
    }

    /// Where the stream has got to.
    #[inline]
    fn gone(&self) -> u64 {
        self.end - (self.queued_len() + self.frame.len() - self.written) as u64
    }

    /// Has the frame that comes next go without its descriptor, and gives that back. The frame keeps its
    /// length, as it has been said where those behind it end.
    fn go_without(&mut self) -> Option<(Announced, D)> {
        let (place, descriptor) = self.pop_descriptor()?;
        let frame = &mut self.queued.as_mut()?.bytes[place..];
        frame::mark_without_descriptor(frame);
        let header = frame.first_chunk().and_then(|header| Header::decode(header).ok());
        let announced = match header {
            Some(Header { kind: Kind::Segment, call, .. }) => Announced::Memory(call.as_u64() as u32),
            _ => Announced::Ring,
        };
        Some((announced, descriptor))
    }
}

impl<D, O: Own, P: Peers> Sender<D, O, P> {
    /// Makes the caller the writer of all that is queued; `None` where nothing is, or it is not for the
    /// caller to write.
    #[inline]
    pub fn begin_write(&mut self) -> Option<Batch<'static, D>> {
        if self.writing != Writing::Idle || self.queue.len() == 0 {
            return None;
        }
        Some(self.batch(&[]))
    }

    /// Makes the caller the writer of all that is queued and, behind that, of a frame of its own, which was
    /// [passed](Self::pass).
    #[inline]
    pub(super) fn batch<'f>(&mut self, frame: &'f [u8]) -> Batch<'f, D> {
        // It may have gone out from now on, until it is known how far the write got.
        self.gone = self.total;
        let (queued, written) = self.queue.take();
        let batch = Batch { queued, frame, written, end: self.total };
        self.writing = Writing::Busy(batch.queued_len() - written + frame.len());
        batch
    }

    /// Ends the writer's turn, and says what is to be done next. What was not written goes out before what
    /// was queued since.
    #[inline]
    pub fn finish(&mut self, batch: Batch<'_, D>, outcome: WriteOutcome) -> AfterWrite<D> {
        self.gone = batch.gone();
        if let Writing::Over(over) = self.writing {
            return AfterWrite::Over(over, batch.into_descriptors());
        }
        self.writing = Writing::Idle;
        if outcome == WriteOutcome::All {
            if let Some(queued) = batch.queued {
                self.queue.keep(queued);
            }
            if batch.frame.len() > MUCH {
                self.queue.give_room_back();
            }
            return AfterWrite::GoOn;
        }
        self.put_back(batch, outcome)
    }

    /// What was not written goes out before what was queued since.
    #[cold]
    fn put_back(&mut self, mut batch: Batch<'_, D>, outcome: WriteOutcome) -> AfterWrite<D> {
        let lost = match outcome {
            WriteOutcome::Failed => {
                self.writing = Writing::Over(Over::Closed);
                return AfterWrite::Over(Over::Closed, batch.into_descriptors());
            }
            WriteOutcome::Short => batch.go_without(),
            WriteOutcome::Full => {
                self.writing = Writing::Stalled;
                None
            }
            WriteOutcome::OutOfTime | WriteOutcome::All => None,
        };
        let Batch { queued, frame, written, .. } = batch;
        let queued = queued.map_or_else(|| self.queue.take_room(), |queued| *queued);
        let written_of_frame = written.saturating_sub(queued.bytes.len());
        // What is left of the writer's own frame is copied only now.
        let rest = &frame[written_of_frame..];
        if self.queue.put_back(queued, written - written_of_frame, rest).is_err() {
            let descriptors = lost.into_iter().map(|(_, descriptor)| descriptor).collect();
            return AfterWrite::Over(self.no_memory(), descriptors);
        }
        match lost {
            Some((announced, descriptor)) => {
                if announced == Announced::Ring {
                    // The peer never knew of it.
                    self.route = Route::Socket;
                }
                AfterWrite::Lost(announced, descriptor)
            }
            None if outcome == WriteOutcome::Full => AfterWrite::Stalled,
            None => AfterWrite::Retry,
        }
    }

    /// The socket takes more, or may: the next one to [begin to write](Self::begin_write) is the writer.
    pub fn resume(&mut self) {
        if self.writing == Writing::Stalled {
            self.writing = Writing::Idle;
        }
    }

    /// Whether all waits for the socket to take more.
    #[must_use]
    #[inline]
    pub fn is_stalled(&self) -> bool {
        self.writing == Writing::Stalled
    }

    /// Whether so much waits for a writer or the socket that a sender who can wait should.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.back_pressure() == BackPressure::Wait
    }

    /// What a sender that can wait does before it adds a frame. However many there are, and whatever becomes
    /// of their batches, no more is then queued than [`CONGESTED`] and one frame.
    #[must_use]
    #[inline]
    pub const fn back_pressure(&self) -> BackPressure {
        let (running, pressure) = match self.writing {
            Writing::Idle => (0, BackPressure::Write),
            Writing::Busy(running) => (running, BackPressure::Wait),
            Writing::Stalled => (0, BackPressure::Wait),
            Writing::Over(_) => return BackPressure::None,
        };
        if self.queue.len().saturating_add(running) > CONGESTED { pressure } else { BackPressure::None }
    }

    /// One more sender waits until the queue [is shorter](Self::back_pressure).
    pub const fn begin_waiting(&mut self) {
        self.waiting += 1;
    }

    /// It waits no more.
    pub const fn end_waiting(&mut self) {
        self.waiting -= 1;
    }

    /// Senders that wait, and are to look again when a write has ended.
    #[must_use]
    #[inline]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }
}
