//! [`End`]: one side of a connection, of the halves that a driver has, and what is on its way from it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use arbitrary::Arbitrary;
use lpc_core::arena::{Arena, PAGE};
use lpc_core::frame::{self, BlockRef, Body, CallId};
use lpc_core::ledger::Ledger;
use lpc_core::lent::Lent;
use lpc_core::receive::{Entrance, Incoming, Payload, Receiver, Role, Violation};
use lpc_core::ring::{Consumer, Producer};
use lpc_core::send::{AfterWrite, Announced, Batch, Over, Sender, StreamPosition, WriteOutcome};
use lpc_core::{Error, Limits};

use super::memory::Memory;
use super::pages::{Block, Pages};

/// Slots of the rings: few, so that they are full at times. A frame takes 17 at most.
const SLOTS: u64 = 32;

/// Bytes that a socket takes before it is full.
const SOCKET: usize = 96 << 10;

/// Blocks that are not sent, of each side.
const MAX_DRAFTS: usize = 4;

/// What a frame brings.
#[derive(Clone, Debug)]
pub(super) enum Descriptor {
    Pages(Arc<Pages>),
    Ring(Memory),
}

/// What is on its way: bytes, and descriptors with the places of the bytes that they go with.
#[derive(Default)]
pub(super) struct Wire {
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<(usize, Descriptor)>,
    /// The other side receives nothing more than what is here.
    pub(super) is_shut: bool,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, {:?}, shut: {}", self.bytes.len(), self.descriptors, self.is_shut)
    }
}

/// How little memory a side has.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) struct Narrowness {
    pages: u8,
    segments: u8,
    blocks: u8,
}

/// How a frame is handed to the sending half.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Way {
    /// Queued, for whoever writes next.
    Enqueue,
    /// Into the ring alone, if it goes there.
    Put,
    /// With what others are about to send.
    Behind,
    /// By its sender, who writes so much.
    Send { len: u16, outcome: Outcome },
}

/// Why a writer stops.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Outcome {
    Full,
    OutOfTime,
    /// The system has no means for more, or passes no descriptor.
    Short,
}

pub(super) type EndSender = Sender<Descriptor, Memory, Memory>;

/// One side.
#[derive(Debug)]
pub(super) struct End {
    role: Role,
    pub(super) sender: EndSender,
    /// Of the writer at work.
    batch: Option<Batch<'static, Descriptor>>,
    pub(super) cpu: u32,
    pub(super) receiver: Receiver<Descriptor, Memory, Memory>,
    pub(super) entrance: Arc<Entrance>,
    /// It has said that it sleeps.
    pub(super) is_asleep: bool,
    /// Its memory for the quick lane.
    pub(super) ring: Option<Memory>,
    pub(super) pool: Arc<Ledger<Arc<Pages>>>,
    pub(super) limits: Limits,
    /// Bytes of all segments.
    pub(super) capacity: u64,
    /// Blocks that are not sent yet.
    drafts: Vec<Block>,
    pub(super) lent: Lent<Block>,
    /// The other side's memory, by number; `None` was lost on its way.
    pub(super) view: HashMap<u32, Option<Arc<Pages>>>,
    /// What the other side lent.
    pub(super) borrowed: Vec<(BlockRef, Arc<Pages>)>,
    /// What went out through the socket.
    pub(super) wire: Wire,
    pub(super) events: Vec<&'static str>,
}

/// A body that is out in a block, and the loans that went with it.
#[derive(Debug)]
pub(super) struct Sent {
    block: Block,
    pub(super) loans: Vec<BlockRef>,
}

/// A body that has arrived.
pub(super) enum Arrived {
    Inline(Vec<u8>),
    Mapped(BlockRef, Arc<Pages>),
}

impl fmt::Debug for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Mapped(block, _) => block.fmt(f),
        }
    }
}

impl Arrived {
    pub(super) fn read(&self) -> Vec<u8> {
        match self {
            Self::Inline(bytes) => bytes.clone(),
            Self::Mapped(block, pages) => pages.read(block),
        }
    }
}

impl End {
    pub(super) fn new(role: Role, has_ring: bool, own: Narrowness, peer: Narrowness) -> Self {
        let (own, peer) = (limits(own, has_ring), limits(peer, has_ring));
        let narrow = Limits {
            pool: own.pool.min(peer.pool),
            max_segments: own.max_segments.min(peer.max_segments),
            ..own
        };
        let entrance = Arc::<Entrance>::default();
        let mut end = Self {
            role,
            sender: Sender::new(),
            batch: None,
            cpu: 1,
            receiver: Receiver::new(role, own).with_entrance(Arc::clone(&entrance)),
            entrance,
            is_asleep: false,
            ring: None,
            pool: Ledger::new(Arena::new(narrow.pool, narrow.max_segments, narrow.max_blocks)),
            limits: narrow,
            capacity: 0,
            drafts: Vec::new(),
            lent: Lent::new(),
            view: HashMap::new(),
            borrowed: Vec::new(),
            wire: Wire::default(),
            events: Vec::new(),
        };
        if has_ring && role == Role::Client {
            let own = Memory::new();
            end.ring = Some(own.clone());
            end.sender.offer_ring(own.clone(), Descriptor::Ring(own)).expect("a new connection");
        }
        end
    }

    /// Queues a frame; nothing, where nothing is sent any more.
    pub(super) fn push(&mut self, frame: &[u8]) {
        let _ = self.sender.enqueue(frame);
    }

    /// Nothing is left to be written, or to be taken here.
    pub(super) fn is_quiet(&self) -> bool {
        self.sender.queued() == 0 && self.batch.is_none() && !self.receiver.has_next()
    }

    /// Sends a frame. `None` where it will never go out.
    pub(super) fn dispatch(&mut self, frame: &[u8], way: Way) -> Option<StreamPosition> {
        let was_in_ring = self.sender.is_in_ring();
        let position = self.try_dispatch(frame, way);
        match (was_in_ring, self.sender.is_in_ring()) {
            (false, true) => self.events.push("the ring was entered"),
            (true, false) => self.events.push("the ring was left"),
            _ => {}
        }
        position
    }

    fn try_dispatch(&mut self, frame: &[u8], way: Way) -> Option<StreamPosition> {
        let cpu = Some(self.cpu);
        match way {
            Way::Enqueue => {}
            Way::Put => {
                if let Some((position, has_to_wake)) = self.sender.try_put(frame, cpu) {
                    if has_to_wake {
                        self.sender.queue_bell();
                    }
                    return Some(position);
                }
            }
            Way::Behind => {
                if let Some(position) = self.sender.enqueue_behind(frame, cpu) {
                    return Some(position);
                }
            }
            Way::Send { len, outcome } => {
                self.sender.tell_cpu(cpu).ok()?;
                let (position, batch) = self.sender.send(frame).ok()?;
                if let Some(mut batch) = batch {
                    assert!(self.batch.is_none(), "two writers");
                    let outcome = write(&mut batch, &mut self.wire, len.into(), outcome);
                    let after = self.sender.finish(batch, outcome);
                    self.after(after);
                }
                return Some(position);
            }
        }
        self.sender.tell_cpu(cpu).ok()?;
        self.sender.enqueue(frame).ok()
    }

    /// A writer writes so much of what is queued; and ends its turn, if it has an outcome.
    pub(super) fn write(&mut self, len: usize, outcome: Option<Outcome>) {
        self.sender.ring_bell();
        let begun = self.batch.take();
        let is_new = begun.is_none();
        let new = self.sender.begin_write();
        assert!(is_new || new.is_none(), "two writers");
        let Some(mut batch) = begun.or(new) else { return };
        let reached = write(&mut batch, &mut self.wire, len, outcome.unwrap_or(Outcome::OutOfTime));
        if outcome.is_none() && reached == WriteOutcome::OutOfTime {
            self.events.push("a batch was written in parts");
            self.batch = Some(batch);
            return;
        }
        let after = self.sender.finish(batch, reached);
        self.after(after);
    }

    fn after(&mut self, after: AfterWrite<Descriptor>) {
        match after {
            AfterWrite::GoOn | AfterWrite::Retry => {}
            AfterWrite::Stalled => self.events.push("a socket was full"),
            AfterWrite::Lost(announced, _) => {
                self.events.push("a descriptor was not passed");
                if let Announced::Memory(number) = announced {
                    self.pool.withdraw(number);
                }
            }
            AfterWrite::Over(..) => drop(self.sender.give_up()),
        }
    }

    /// Writes all that there is, as far as the socket takes it.
    pub(super) fn flush(&mut self) {
        self.sender.resume();
        self.write(usize::MAX, Some(Outcome::Full));
    }

    pub(super) fn alloc(&mut self, len: u64) -> Option<Block> {
        let Self { pool, sender, capacity, events, .. } = self;
        let lease = pool.alloc(len, |number, len| {
            let pages = Arc::new(Pages::new(len));
            let was_in_ring = sender.is_in_ring();
            let _ = sender.enqueue_with(&frame::segment(number, len), Descriptor::Pages(Arc::clone(&pages)));
            if was_in_ring && sender.is_in_ring() {
                events.push("one frame went through the socket, and the sequence stayed in the ring");
            }
            *capacity += len;
            Ok::<_, Infallible>(pages)
        });
        lease.unwrap_or_else(|never| match never {}).map(|lease| Block::new(lease, len))
    }

    /// A body of so many times this byte, behind what is in `frame` or in a block, and what goes along in
    /// shared memory. What is in a block stays there until it has been read.
    pub(super) fn body(
        &mut self,
        frame: &mut Vec<u8>,
        fill: u8,
        len: u16,
        lends: Option<u16>,
    ) -> (Body, Vec<BlockRef>, Option<Sent>) {
        let loan = lends.and_then(|len| self.alloc(len.into())).map(Arc::new);
        let loans: Vec<BlockRef> = loan.iter().map(|loan| loan.place()).collect();
        if let Some(loan) = loan {
            loan.fill(fill);
            let place = loan.place();
            self.lent.lend((place.segment, place.page), loan);
        }
        let block = if u64::from(len) > PAGE { self.alloc(len.into()) } else { None };
        match block {
            Some(block) => {
                block.fill(fill);
                self.events.push("a large body went into a segment");
                (Body::Mapped(block.place()), loans.clone(), Some(Sent { block, loans }))
            }
            None => {
                frame.resize(frame.len() + usize::from(len), fill);
                (Body::Inline, loans, None)
            }
        }
    }

    /// The frame with the body in line, for a side that cannot read it in its block.
    pub(super) fn inline(&self, mut frame: Vec<u8>, call: CallId, sent: &Sent) -> Vec<u8> {
        self.pool.withdraw(sent.block.place().segment);
        frame.extend(sent.block.read());
        frame::seal(&mut frame, call, Body::Inline, &sent.loans);
        frame
    }

    /// The other side did not get these. (A liar may have returned them.)
    pub(super) fn take_back(&mut self, loans: &[BlockRef]) {
        for loan in loans {
            let _ = self.lent.returned((loan.segment, loan.page));
        }
    }

    /// A body that has arrived, whose loans are kept. `None` where it stands in memory that cannot be read.
    pub(super) fn arrived(&mut self, payload: Payload<Vec<u8>>, loans: Vec<BlockRef>) -> Option<Arrived> {
        let pages =
            |view: &HashMap<_, Option<_>>, block: &BlockRef| view.get(&block.segment).cloned().flatten();
        let arrived = match payload {
            Payload::Inline(bytes) => Arrived::Inline(bytes),
            Payload::Block(block) => Arrived::Mapped(block, pages(&self.view, &block)?),
            Payload::Lost(len) => panic!("there is memory for {len} bytes"),
        };
        for loan in loans {
            match pages(&self.view, &loan) {
                Some(pages) => self.borrowed.push((loan, pages)),
                None => self.push(&frame::returned(loan.segment, loan.page)),
            }
        }
        Some(arrived)
    }

    /// Takes what is on its way as the kernel gives it: not on to what was sent with another descriptor.
    pub(super) fn receive(&mut self, wire: &mut Wire, len: usize, loses: bool) -> Result<(), Violation> {
        self.awake();
        let space = self.receiver.space();
        let second = wire.descriptors.get(1).map_or(usize::MAX, |(place, _)| *place);
        let len = wire.bytes.len().min(len).min(space.len()).min(second);
        space[..len].copy_from_slice(&wire.bytes[..len]);
        wire.bytes.drain(..len);
        let is_here = wire.descriptors.first().is_some_and(|(place, _)| *place < len);
        let mut descriptor = is_here.then(|| wire.descriptors.remove(0).1);
        for (place, _) in &mut wire.descriptors {
            *place -= len;
        }
        let lost = loses && descriptor.take().is_some();
        self.receiver.received(len, descriptor, lost)
    }

    /// Looks at the ring by itself.
    pub(super) fn awake(&mut self) {
        self.is_asleep = false;
        self.receiver.wake();
    }

    /// Sleeps, unless something that has come was left, because its answers would have been too many.
    pub(super) fn sleep(&mut self) {
        self.is_asleep = !self.receiver.has_next() && self.receiver.sleep();
    }

    /// What either side may be told. Gives back what is for one of them.
    pub(super) fn told(
        &mut self,
        incoming: Incoming<Descriptor, Vec<u8>>,
    ) -> Result<Option<Told>, Violation> {
        match incoming {
            Incoming::Segment { number, len, descriptor } => {
                // As a driver checks the descriptor itself.
                let pages = match descriptor {
                    Some(Descriptor::Pages(pages)) if pages.len() == len => Some(pages),
                    _ => None,
                };
                if pages.is_none() {
                    self.push(&frame::refuse(number));
                }
                self.view.insert(number, pages);
            }
            Incoming::Retire { number } => {
                self.view.remove(&number);
                self.events.push("a segment was retired");
            }
            Incoming::Return { segment, page } => {
                drop(self.lent.returned((segment, page))?);
                self.events.push("a loan came back");
            }
            Incoming::Refuse { segment } => self.pool.withdraw(segment),
            Incoming::Ring { descriptor: Some(Descriptor::Ring(peers)) } => self.use_ring(peers),
            Incoming::Switch => self.sender.ring_is_mapped(),
            Incoming::Drained { taken } => self.push(&frame::closing(taken)),
            Incoming::Ring { .. } | Incoming::At { .. } | Incoming::Object { .. } => {}
            Incoming::Call { call, payload, loans, .. } => {
                return Ok(Some(Told::Body { call, payload, loans }));
            }
            Incoming::Reply { call, payload, loans } => return Ok(Some(Told::Body { call, payload, loans })),
            Incoming::Failure { call, error } => return Ok(Some(Told::Failure(call, error))),
            Incoming::Release { call } => return Ok(Some(Told::Release(call))),
            Incoming::Resend { call } => return Ok(Some(Told::Resend(call))),
            Incoming::Cancel { call } => return Ok(Some(Told::Cancel(call))),
            Incoming::Closing { taken } => return Ok(Some(Told::Closing(taken))),
        }
        Ok(None)
    }

    fn use_ring(&mut self, peers: Memory) {
        let (own, descriptor) = match self.sender.take_offered() {
            Some(own) => (own, None),
            None if self.role == Role::Client => return,
            None => {
                let own = Memory::new();
                self.ring = Some(own.clone());
                (own.clone(), Some(Descriptor::Ring(own)))
            }
        };
        self.receiver.read_ring(Consumer::new(own.clone(), peers.clone(), SLOTS));
        let _ = self.sender.use_ring(Producer::new(own, peers, SLOTS), descriptor);
    }

    pub(super) fn give_back(&mut self, at: u8) {
        if !self.borrowed.is_empty() {
            let (loan, pages) = self.borrowed.swap_remove(usize::from(at) % self.borrowed.len());
            pages.read(&loan);
            self.push(&frame::returned(loan.segment, loan.page));
        }
    }

    /// Makes a block that it does not send, and resizes it.
    pub(super) fn draft(&mut self, from: u16, to: u16) {
        if let Some(mut draft) = self.alloc(from.into()) {
            draft.resize(to.into());
            self.drafts.push(draft);
        }
        if self.drafts.len() > MAX_DRAFTS {
            self.drafts.remove(0);
        }
    }

    pub(super) fn forget_drafts(&mut self) {
        self.drafts.clear();
    }

    pub(super) fn trim(&mut self) {
        let Self { pool, sender, capacity, .. } = self;
        pool.trim(|number, pages| {
            *capacity -= pages.len();
            let _ = sender.enqueue(&frame::retire(number));
        });
    }

    /// Everything that it has out comes back, and nothing is handed out any more.
    pub(super) fn hang_up(&mut self) {
        let never_sent = self.sender.give_up().count();
        assert!(self.sender.is_over().is_some() && self.sender.queued() == 0, "{never_sent} descriptors");
        if let Some(batch) = self.batch.take() {
            assert!(matches!(
                self.sender.finish(batch, WriteOutcome::Failed),
                AfterWrite::Over(Over::Closed | Over::Ring(_), _)
            ));
        }
        self.pool.close();
        drop(self.lent.drain());
        self.drafts.clear();
        assert!(self.alloc(1).is_none(), "its memory may still be read");
        assert_eq!(self.pool.trim(|_, pages| assert!(pages.is_free())), 0);
    }
}

/// What is for a client or for a server alone.
pub(super) enum Told {
    Body { call: CallId, payload: Payload<Vec<u8>>, loans: Vec<BlockRef> },
    Failure(CallId, Error),
    Release(CallId),
    Resend(CallId),
    Cancel(CallId),
    Closing(u64),
}

/// Writes up to `len` bytes of a batch, and says how far that got: `outcome`, unless all was written, or none
/// can be.
fn write<'f>(
    batch: &mut Batch<'f, Descriptor>,
    wire: &mut Wire,
    mut len: usize,
    outcome: Outcome,
) -> WriteOutcome {
    loop {
        let Some(piece) = batch.piece() else { return WriteOutcome::All };
        if wire.is_shut {
            return WriteOutcome::Failed;
        }
        let room = SOCKET.saturating_sub(wire.bytes.len());
        if room == 0 {
            return WriteOutcome::Full;
        }
        let part = piece.bytes.len().min(len).min(room);
        let is_stopped = matches!(outcome, Outcome::Short) && piece.descriptor.is_some();
        if part == 0 || is_stopped {
            return match outcome {
                Outcome::Full => WriteOutcome::Full,
                Outcome::OutOfTime => WriteOutcome::OutOfTime,
                Outcome::Short => WriteOutcome::Short,
            };
        }
        let place = wire.bytes.len();
        wire.bytes.extend_from_slice(&piece.bytes[..part]);
        let own = batch.wrote(part);
        wire.descriptors.extend(own.map(|descriptor| (place, descriptor)));
        len -= part;
    }
}

fn limits(narrowness: Narrowness, has_ring: bool) -> Limits {
    Limits {
        max_message: u64::from(u16::MAX),
        pool: u64::from(narrowness.pages % 64) * PAGE,
        max_segments: u32::from(narrowness.segments % 6),
        max_blocks: u32::from(narrowness.blocks % 32),
        quick_lane: has_ring,
        ..Limits::default()
    }
}
