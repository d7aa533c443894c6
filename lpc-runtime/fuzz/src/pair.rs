//! A client and a server in memory, which call, answer, lend and give back in any order, until one of them
//! comes to lie.
//!
//! While both are honest nobody is accused, and every reply is that of its call. Whatever they say, no two
//! blocks that are in use overlap, no side holds more than its limits, and a violation ends the connection,
//! after which everything is back.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arbitrary::{Arbitrary, Unstructured};
use lpc_core::Limits;
use lpc_core::arena::{Arena, PAGE};
use lpc_core::calls::Table;
use lpc_core::error::Error;
use lpc_core::frame::{self, BlockRef, Body, CallId};
use lpc_core::ledger::{Lease, Ledger};
use lpc_core::lent::Lent;
use lpc_core::receive::{Incoming, Payload, Receiver, Role, Violation};

/// The fuzzer's bytes as a story.
pub fn run(data: &[u8]) {
    if let Ok(story) = Story::arbitrary_take_rest(Unstructured::new(data)) {
        story.play();
    }
}

#[derive(Arbitrary, Debug)]
struct Story {
    client: Narrowness,
    server: Narrowness,
    steps: Vec<Step>,
}

/// How little memory a side has.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Narrowness {
    pages: u8,
    segments: u8,
    blocks: u8,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Side {
    Client,
    Server,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// Above the threshold of a page the body goes to a block. `lends`: bytes that go along.
    Call {
        len: u16,
        lends: Option<u16>,
    },
    /// The server answers one of the calls that run with as many bytes.
    Answer {
        at: u8,
        len: u16,
        lends: Option<u16>,
    },
    Fail {
        at: u8,
    },
    /// The client reads one of its replies.
    Fetch {
        at: u8,
    },
    /// What is on its way to this side arrives, in part; a descriptor that comes with it may be lost.
    Arrive {
        to: Side,
        len: u16,
        loses: bool,
    },
    /// This side is through with something that was lent to it.
    Return {
        by: Side,
        at: u8,
    },
    Trim {
        by: Side,
    },
    /// This side has all that it lent read again, in another call.
    Refuse {
        by: Side,
        segment: u8,
    },
    /// Grows or shrinks a block that this side has not sent yet.
    Resize {
        by: Side,
        from: u16,
        to: u16,
    },
    /// A byte of what is on its way to this side is another.
    Corrupt {
        to: Side,
        at: u16,
        with: u8,
    },
    /// A byte of the other's shared memory is another.
    Scribble {
        of: Side,
        at: u16,
        with: u8,
    },
    /// A frame that nobody has a reason for.
    Forge {
        to: Side,
        forged: Forged,
        number: u64,
    },
    /// A call or reply whose body stands anywhere, with loans of anything.
    Point {
        to: Side,
        call: u64,
        segment: u32,
        page: u32,
        len: u64,
        loans: u8,
    },
    HangUp,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Forged {
    Release,
    Return,
    Retire,
    Refuse,
    Resend,
    Segment(u32),
}

impl Story {
    fn play(&self) {
        let mut pair = Pair::new(self);
        for step in &self.steps {
            if let Err(violation) = pair.step(step) {
                assert!(!pair.is_honest, "{violation}, at {step:?}");
                break;
            }
            if let Step::HangUp = step {
                break;
            }
            pair.check();
        }
        pair.hang_up();
    }
}

/// Memory of a segment: what is in it, and which of its pages are in use.
#[derive(Debug)]
struct Memory {
    bytes: Mutex<Vec<u8>>,
    taken: Mutex<Vec<bool>>,
}

impl Memory {
    fn new(len: u64) -> Self {
        Self {
            bytes: Mutex::new(vec![0; len as usize]),
            taken: Mutex::new(vec![false; (len / PAGE) as usize]),
        }
    }

    fn len(&self) -> u64 {
        locked(&self.bytes).len() as u64
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A block that nobody else has.
#[derive(Debug)]
struct Held {
    lease: Lease<Arc<Memory>>,
    /// Bytes that are meant.
    len: u64,
}

impl Held {
    fn new(lease: Lease<Arc<Memory>>, len: u64) -> Self {
        let held = Self { lease, len };
        held.mark(true);
        held
    }

    fn mark(&self, is_taken: bool) {
        let block = self.lease.block();
        let pages = block.page() as usize..block.page() as usize + (block.len() / PAGE) as usize;
        for page in &mut locked(&self.lease.segment().taken)[pages] {
            assert!(*page != is_taken, "{block:?} overlaps another");
            *page = is_taken;
        }
    }

    fn resize(&mut self, len: u64) {
        self.mark(false);
        if self.lease.extend(len) {
            self.lease.shrink(len);
            self.len = len;
        }
        self.mark(true);
        assert!(self.lease.block().len() >= self.len);
    }

    fn fill(&self, with: u8) {
        let start = self.lease.block().offset() as usize;
        locked(&self.lease.segment().bytes)[start..start + self.len as usize].fill(with);
    }

    fn reference(&self) -> BlockRef {
        let block = self.lease.block();
        BlockRef { segment: block.segment(), page: block.page(), len: self.len }
    }

    fn read(&self) -> Vec<u8> {
        let start = self.lease.block().offset() as usize;
        locked(&self.lease.segment().bytes)[start..start + self.len as usize].to_vec()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.mark(false);
    }
}

/// What is on its way: bytes, and memory with the places of the bytes that it goes with.
#[derive(Debug, Default)]
struct Wire {
    bytes: Vec<u8>,
    descriptors: Vec<(usize, Arc<Memory>)>,
}

/// What both sides have.
#[derive(Debug)]
struct End {
    pool: Arc<Ledger<Arc<Memory>>>,
    limits: Limits,
    /// Bytes of all segments.
    capacity: u64,
    /// Blocks that are not sent yet.
    drafts: Vec<Held>,
    lent: Lent<Held>,
    receiver: Receiver<Arc<Memory>>,
    /// The other side's memory, by number; `None` was lost on its way.
    view: HashMap<u32, Option<Arc<Memory>>>,
    /// What the other side lent.
    borrowed: Vec<(BlockRef, Arc<Memory>)>,
    wire: Wire,
}

/// A body that is out in a block, and the loans that went with it.
#[derive(Debug)]
struct Sent {
    block: Held,
    loans: Vec<BlockRef>,
}

/// A body that has arrived.
#[derive(Debug)]
enum Arrived {
    Inline(Vec<u8>),
    Mapped(BlockRef, Arc<Memory>),
}

impl Arrived {
    fn read(&self) -> Vec<u8> {
        match self {
            Self::Inline(bytes) => bytes.clone(),
            Self::Mapped(block, memory) => read(block, memory),
        }
    }
}

/// The receiver has checked the bounds.
fn read(block: &BlockRef, memory: &Memory) -> Vec<u8> {
    let start = (u64::from(block.page) * PAGE) as usize;
    locked(&memory.bytes)[start..start + block.len as usize].to_vec()
}

impl End {
    fn new(role: Role, own: Narrowness, peer: Narrowness) -> Self {
        let (own, peer) = (limits(own), limits(peer));
        let narrow = Limits {
            pool: own.pool.min(peer.pool),
            max_segments: own.max_segments.min(peer.max_segments),
            ..own
        };
        Self {
            pool: Ledger::new(Arena::new(narrow.pool, narrow.max_segments, narrow.max_blocks)),
            limits: narrow,
            capacity: 0,
            drafts: Vec::new(),
            lent: Lent::new(),
            receiver: Receiver::new(role, own),
            view: HashMap::new(),
            borrowed: Vec::new(),
            wire: Wire::default(),
        }
    }

    fn alloc(&mut self, len: u64) -> Option<Held> {
        let Self { pool, wire, capacity, .. } = self;
        let lease = pool.alloc(len, |number, len| {
            let memory = Arc::new(Memory::new(len));
            wire.descriptors.push((wire.bytes.len(), Arc::clone(&memory)));
            wire.bytes.extend(frame::segment(number, len));
            *capacity += len;
            Ok::<_, Infallible>(memory)
        });
        lease.unwrap_or_else(|never| match never {}).map(|lease| Held::new(lease, len))
    }

    /// Completes a frame; what of it stands in a block.
    fn send(&mut self, mut frame: Vec<u8>, call: CallId, len: u16, lends: Option<u16>) -> Option<Sent> {
        let tag = call.as_u64() as u8;
        let loan = lends.and_then(|len| self.alloc(len.into())).map(Arc::new);
        let loans: Vec<BlockRef> = loan.iter().map(|loan| loan.reference()).collect();
        if let Some(loan) = loan {
            loan.fill(tag);
            let place = loan.reference();
            self.lent.lend((place.segment, place.page), loan);
        }
        let block = if u64::from(len) > PAGE { self.alloc(len.into()) } else { None };
        match &block {
            Some(block) => {
                block.fill(tag);
                frame::seal(&mut frame, call, Body::Mapped(block.reference()), &loans);
            }
            None => {
                frame.resize(frame.len() + usize::from(len), tag);
                frame::seal(&mut frame, call, Body::Inline, &loans);
            }
        }
        self.wire.bytes.extend(frame);
        block.map(|block| Sent { block, loans })
    }

    /// Sends through the socket what the other side cannot read in its block.
    fn resend(&mut self, mut frame: Vec<u8>, call: CallId, sent: Sent) {
        self.pool.withdraw(sent.block.reference().segment);
        frame.extend(sent.block.read());
        frame::seal(&mut frame, call, Body::Inline, &sent.loans);
        self.wire.bytes.extend(frame);
    }

    /// `None` where it stands in memory that was lost.
    fn arrived(&mut self, payload: Received, loans: Vec<BlockRef>) -> Option<Arrived> {
        let memory = |block: &BlockRef| self.view.get(&block.segment).and_then(Option::clone);
        let arrived = match payload {
            Received::Inline(bytes) => Arrived::Inline(bytes),
            Received::Block(block) => Arrived::Mapped(block, memory(&block)?),
        };
        for loan in loans {
            match memory(&loan) {
                Some(memory) => self.borrowed.push((loan, memory)),
                None => self.wire.bytes.extend(frame::returned(loan.segment, loan.page)),
            }
        }
        Some(arrived)
    }

    fn give_back(&mut self, at: u8) {
        if !self.borrowed.is_empty() {
            let (loan, memory) = self.borrowed.swap_remove(usize::from(at) % self.borrowed.len());
            read(&loan, &memory);
            self.wire.bytes.extend(frame::returned(loan.segment, loan.page));
        }
    }

    fn trim(&mut self) {
        let Self { pool, wire, capacity, .. } = self;
        pool.trim(|number, memory| {
            *capacity -= memory.len();
            wire.bytes.extend(frame::retire(number));
        });
    }

    /// Everything that it has out comes back, and nothing is handed out any more.
    fn hang_up(&mut self) {
        self.pool.close();
        drop(self.lent.drain());
        self.drafts.clear();
        assert!(self.alloc(1).is_none(), "its memory may still be read");
        assert_eq!(self.pool.trim(|_, memory| assert!(!locked(&memory.taken).contains(&true))), 0);
    }
}

fn limits(narrowness: Narrowness) -> Limits {
    Limits {
        max_message: u64::from(u16::MAX),
        pool: u64::from(narrowness.pages % 64) * PAGE,
        max_segments: u32::from(narrowness.segments % 6),
        max_blocks: u32::from(narrowness.blocks % 32),
        ..Limits::default()
    }
}

/// As [`Payload`], but it borrows nothing.
enum Received {
    Inline(Vec<u8>),
    Block(BlockRef),
}

impl From<Payload<Vec<u8>>> for Received {
    fn from(payload: Payload<Vec<u8>>) -> Self {
        match payload {
            Payload::Inline(bytes) => Self::Inline(bytes),
            Payload::Block(block) => Self::Block(block),
        }
    }
}

#[derive(Debug)]
struct Pair {
    client: End,
    server: End,
    calls: Table<Waiting>,
    /// Replies that are not read yet.
    replies: Vec<(CallId, Arrived)>,
    running: Vec<(CallId, Arrived)>,
    results: HashMap<CallId, Sent>,
    /// The lengths of what the server answered.
    answered: HashMap<CallId, u16>,
    is_honest: bool,
}

/// A call that waits for its reply.
#[derive(Debug)]
struct Waiting {
    len: u16,
    sent: Option<Sent>,
}

impl Pair {
    fn new(story: &Story) -> Self {
        Self {
            client: End::new(Role::Client, story.client, story.server),
            server: End::new(Role::Server, story.server, story.client),
            calls: Table::new(),
            replies: Vec::new(),
            running: Vec::new(),
            results: HashMap::new(),
            answered: HashMap::new(),
            is_honest: true,
        }
    }

    fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// What is on its way to this side.
    fn wire(&mut self, to: Side) -> &mut Wire {
        match to {
            Side::Client => &mut self.server.wire,
            Side::Server => &mut self.client.wire,
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), Violation> {
        match *step {
            Step::Call { len, lends } => {
                let mut frame = Vec::new();
                frame::begin_call(&mut frame, 0);
                let call = self.calls.insert(Waiting { len, sent: None });
                let sent = self.client.send(frame, call, len, lends);
                self.calls.get_mut(call).expect("it waits").sent = sent;
            }
            Step::Answer { at, len, lends } => {
                let Some((call, _)) = taken_at(&mut self.running, at) else { return Ok(()) };
                let mut frame = Vec::new();
                frame::begin_reply(&mut frame);
                self.answered.insert(call, len);
                if let Some(sent) = self.server.send(frame, call, len, lends)
                    && self.results.insert(call, sent).is_some()
                {
                    return Err(Violation::CallState { call, reason: "is called again too early" });
                }
            }
            Step::Fail { at } => {
                let Some((call, _)) = taken_at(&mut self.running, at) else { return Ok(()) };
                let mut frame = Vec::new();
                frame::begin_failure(&mut frame);
                Error::other("it failed").to_wire().encode(&mut frame);
                frame::seal(&mut frame, call, Body::Inline, &[]);
                self.server.wire.bytes.extend(frame);
            }
            Step::Fetch { at } => {
                let Some((call, reply)) = taken_at(&mut self.replies, at) else { return Ok(()) };
                let expected = self.answered.remove(&call);
                self.expect(call, &reply, expected);
                if let Arrived::Mapped(..) = reply {
                    self.client.wire.bytes.extend(frame::release(call));
                }
            }
            Step::Arrive { to, len, loses } => return self.arrive(to, len, loses),
            Step::Return { by, at } => self.end(by).give_back(at),
            Step::Trim { by } => self.end(by).trim(),
            Step::Refuse { by, segment } => {
                self.end(by).wire.bytes.extend(frame::refuse(segment.into()));
            }
            Step::Resize { by, from, to } => {
                let end = self.end(by);
                if let Some(mut draft) = end.alloc(from.into()) {
                    draft.resize(to.into());
                    end.drafts.push(draft);
                }
                if end.drafts.len() > MAX_DRAFTS {
                    end.drafts.remove(0);
                }
            }
            Step::Corrupt { to, at, with } => {
                let bytes = &mut self.wire(to).bytes;
                if !bytes.is_empty() {
                    let at = usize::from(at) % bytes.len();
                    bytes[at] ^= with;
                    self.is_honest &= with == 0;
                }
            }
            Step::Scribble { of, at, with } => {
                let other = match of {
                    Side::Client => &self.server,
                    Side::Server => &self.client,
                };
                // Of those that the other side knows.
                if let Some(memory) = other.view.values().flatten().next() {
                    let mut bytes = locked(&memory.bytes);
                    let at = usize::from(at) % bytes.len();
                    bytes[at] = with;
                    self.is_honest = false;
                }
            }
            Step::Forge { to, forged, number } => {
                self.is_honest = false;
                let call = CallId::new(number);
                let bytes = &mut self.wire(to).bytes;
                match forged {
                    Forged::Release => bytes.extend(frame::release(call)),
                    Forged::Return => bytes.extend(frame::returned((number >> 32) as u32, number as u32)),
                    Forged::Retire => bytes.extend(frame::retire(number as u32)),
                    Forged::Refuse => bytes.extend(frame::refuse(number as u32)),
                    Forged::Resend => bytes.extend(frame::resend(call)),
                    Forged::Segment(segment) => bytes.extend(frame::segment(segment, number)),
                }
            }
            Step::Point { to, call, segment, page, len, loans } => {
                self.is_honest = false;
                let mut frame = Vec::new();
                match to {
                    Side::Client => frame::begin_reply(&mut frame),
                    Side::Server => frame::begin_call(&mut frame, 0),
                }
                let place = BlockRef { segment, page, len };
                frame::seal(&mut frame, CallId::new(call), Body::Mapped(place), &vec![place; loans.into()]);
                self.wire(to).bytes.extend(frame);
            }
            Step::HangUp => {}
        }
        Ok(())
    }

    /// Bytes as the kernel gives them: not on to what was sent with another descriptor.
    fn arrive(&mut self, to: Side, len: u16, loses: bool) -> Result<(), Violation> {
        let mut wire = std::mem::take(self.wire(to));
        let receiver = &mut self.end(to).receiver;
        let space = receiver.space();
        let len = wire.bytes.len().min(len.into()).min(space.len());
        let second = wire.descriptors.get(1).map_or(usize::MAX, |(place, _)| *place);
        let len = len.min(second);
        space[..len].copy_from_slice(&wire.bytes[..len]);
        wire.bytes.drain(..len);
        let is_here = wire.descriptors.first().is_some_and(|(place, _)| *place < len);
        let mut descriptor = is_here.then(|| wire.descriptors.remove(0).1);
        for (place, _) in &mut wire.descriptors {
            *place -= len;
        }
        let lost = loses && descriptor.take().is_some();
        let received = receiver.received(len, descriptor, lost);
        *self.wire(to) = wire;
        received?;
        match to {
            Side::Client => while self.next_of_client()? {},
            Side::Server => while self.next_of_server()? {},
        }
        Ok(())
    }

    /// What comes to the client; whether there was something.
    fn next_of_client(&mut self) -> Result<bool, Violation> {
        let Some(incoming) = self.client.receiver.next(Vec::with_capacity)? else { return Ok(false) };
        match incoming {
            Incoming::Reply { call, payload, loans } => {
                let payload = payload.into();
                self.calls.get_mut(call).ok_or(Violation::UnknownCall(call))?;
                match self.client.arrived(payload, loans) {
                    Some(reply) => {
                        self.calls.remove(call);
                        self.replies.push((call, reply));
                    }
                    None => self.client.wire.bytes.extend(frame::resend(call)),
                }
            }
            Incoming::Failure { call, error } => {
                assert!(!self.is_honest || error.to_string() == "it failed", "{error}");
                self.calls.remove(call).ok_or(Violation::UnknownCall(call))?;
            }
            Incoming::Resend { call } => {
                let sent = self.calls.get_mut(call).and_then(|waiting| waiting.sent.take());
                let sent = sent.ok_or(Violation::UnknownCall(call))?;
                let mut frame = Vec::new();
                frame::begin_call(&mut frame, 0);
                self.client.resend(frame, call, sent);
            }
            other => News::of(other).tell(&mut self.client)?,
        }
        Ok(true)
    }

    /// What comes to the server; whether there was something.
    fn next_of_server(&mut self) -> Result<bool, Violation> {
        let Some(incoming) = self.server.receiver.next(Vec::with_capacity)? else { return Ok(false) };
        match incoming {
            Incoming::Call { call, payload, loans, .. } => {
                let payload = payload.into();
                match self.server.arrived(payload, loans) {
                    Some(arguments) => {
                        let expected = self.calls.get_mut(call).map(|waiting| waiting.len);
                        self.expect(call, &arguments, expected);
                        self.running.push((call, arguments));
                    }
                    None => self.server.wire.bytes.extend(frame::resend(call)),
                }
            }
            Incoming::Release { call } => {
                let reason = "has no result to be released";
                self.results.remove(&call).ok_or(Violation::CallState { call, reason })?;
            }
            Incoming::Resend { call } => {
                let reason = "has no result to be sent again";
                let sent = self.results.remove(&call).ok_or(Violation::CallState { call, reason })?;
                let mut frame = Vec::new();
                frame::begin_reply(&mut frame);
                self.server.resend(frame, call, sent);
            }
            other => News::of(other).tell(&mut self.server)?,
        }
        Ok(true)
    }

    /// A body is what its sender meant, if nobody has lied.
    fn expect(&self, call: CallId, body: &Arrived, len: Option<u16>) {
        let bytes = body.read();
        if self.is_honest {
            assert_eq!(Some(bytes.len()), len.map(usize::from), "of {call:?}");
            assert!(
                bytes.iter().all(|byte| *byte == call.as_u64() as u8),
                "another body than that of {call:?}"
            );
        }
    }

    fn check(&self) {
        for end in [&self.client, &self.server] {
            assert!(end.capacity <= end.limits.pool, "{} bytes of {}", end.capacity, end.limits.pool);
        }
    }

    /// The connection is over.
    fn hang_up(&mut self) {
        for (_, waiting) in self.calls.iter_mut() {
            waiting.sent = None;
        }
        self.results.clear();
        self.client.hang_up();
        self.server.hang_up();
    }
}

/// Blocks that are not sent, of each side.
const MAX_DRAFTS: usize = 4;

fn taken_at<T>(list: &mut Vec<T>, at: u8) -> Option<T> {
    (!list.is_empty()).then(|| list.swap_remove(usize::from(at) % list.len()))
}

/// What either side may be told.
enum News {
    Segment {
        number: u32,
        descriptor: Option<Arc<Memory>>,
    },
    Retire {
        number: u32,
    },
    Return {
        segment: u32,
        page: u32,
    },
    Refuse {
        segment: u32,
    },
    /// Memory that stays as it is, of which this model has none.
    Object,
}

impl News {
    fn of(incoming: Incoming<Arc<Memory>, Vec<u8>>) -> Self {
        match incoming {
            Incoming::Segment { number, len, descriptor } => {
                // As a driver checks the descriptor itself.
                let descriptor = descriptor.filter(|memory| memory.len() == len);
                Self::Segment { number, descriptor }
            }
            Incoming::Retire { number } => Self::Retire { number },
            Incoming::Return { segment, page } => Self::Return { segment, page },
            Incoming::Refuse { segment } => Self::Refuse { segment },
            Incoming::Object { .. } => Self::Object,
            other => panic!("{other:?} is not for this side"),
        }
    }

    fn tell(self, end: &mut End) -> Result<(), Violation> {
        match self {
            Self::Segment { number, descriptor } => {
                if descriptor.is_none() {
                    end.wire.bytes.extend(frame::refuse(number));
                }
                end.view.insert(number, descriptor);
            }
            Self::Retire { number } => drop(end.view.remove(&number)),
            Self::Return { segment, page } => drop(end.lent.returned((segment, page))?),
            Self::Refuse { segment } => end.pool.withdraw(segment),
            Self::Object => {}
        }
        Ok(())
    }
}
