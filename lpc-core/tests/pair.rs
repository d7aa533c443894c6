//! The protocol as a whole, without a socket: a client and a server in memory, their calls interleaved at random.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::HashMap;
use std::sync::Arc;

use lpc_core::Method;
use lpc_core::arena::{Arena, Block, PAGE};
use lpc_core::calls::Table;
use lpc_core::error::{Error, ErrorKind, Progress};
use lpc_core::frame::{self, BlockRef, Body, CallId};
use lpc_core::handshake::{ClientHello, Found, Offer, Preamble, ServerHello};
use lpc_core::lent::Lent;
use lpc_core::limits::Limits;
use lpc_core::receive::{Incoming, Payload, Receiver, Role};
use lpc_core::threshold::Threshold;
use proptest::prelude::*;

/// The client's stubs, and the server's table: in another order, and with one that the client does not know.
const WANTED: [Method; 4] =
    [Method::new("reverse"), Method::new("length"), Method::new("triple"), Method::new("fail")];
const SERVED: [Method; 5] = [
    Method::new("fail"),
    Method::new("unknown"),
    Method::new("triple"),
    Method::new("reverse"),
    Method::new("length"),
];

/// What a server's method makes of its arguments.
fn answer(name: &str, arguments: &[u8]) -> Result<Vec<u8>, Error> {
    match name {
        "reverse" => Ok(arguments.iter().rev().copied().collect()),
        "length" => Ok((arguments.len() as u64).to_le_bytes().to_vec()),
        "triple" => Ok(arguments.repeat(3)),
        "fail" => {
            let message = format!("{} bytes are no good", arguments.len());
            Err(Error::new(ErrorKind::Panicked, message).with_progress(Progress::Ran))
        }
        _ => panic!("`{name}` is called by nobody"),
    }
}

/// What is on its way to one side: bytes, and descriptors with the places of the bytes that they go with. A
/// descriptor is the number of the memory that it is of.
#[derive(Debug, Default)]
struct Wire {
    bytes: Vec<u8>,
    descriptors: Vec<(usize, u32)>,
}

/// The sending side of a peer: an arena, and the memory to it, which the other side reads.
#[derive(Debug)]
struct Sender {
    arena: Arena,
    /// By descriptor.
    memory: Vec<Vec<u8>>,
    /// The descriptors of the arena's segments.
    segments: HashMap<u32, u32>,
    lent: Lent<Lending>,
    /// What this side has lent, and goes on using.
    own: Option<Arc<Lending>>,
    limits: Limits,
    threshold: Threshold,
    wire: Wire,
}

/// A block that is lent, and how many bytes of it.
#[derive(Debug)]
struct Lending {
    block: Block,
    len: u64,
}

/// A body that is out in a block, with what it takes to send it again.
#[derive(Debug)]
struct InBlock {
    block: Block,
    len: usize,
    loans: Vec<BlockRef>,
}

/// What goes with a call or its reply.
#[derive(Clone, Copy, Debug)]
enum Loan {
    None,
    /// This many bytes that count up from some number.
    New(u64, u8),
    /// The one before, if this side still has it.
    Again,
}

/// What stands in a page that is in nobody's use.
const FREE: u8 = 0xdd;

impl Sender {
    fn new(limits: Limits, threshold: Threshold) -> Self {
        Self {
            arena: Arena::new(limits.pool, limits.max_segments, limits.max_blocks),
            memory: Vec::new(),
            segments: HashMap::new(),
            lent: Lent::new(),
            own: None,
            limits,
            threshold,
            wire: Wire::default(),
        }
    }

    fn pages(&mut self, block: &Block) -> &mut [u8] {
        let at = block.offset() as usize;
        let memory = self.segments[&block.segment()] as usize;
        &mut self.memory[memory][at..at + block.len() as usize]
    }

    /// Completes a frame with this body, on the lane that it has to take, and says which block it stands in.
    fn send(&mut self, mut frame: Vec<u8>, call: CallId, body: &[u8], loan: Loan) -> Option<InBlock> {
        assert!(body.len() as u64 <= self.limits.max_message, "the test keeps the limits");
        let loans: Vec<BlockRef> = self.lend(loan).into_iter().collect();
        let len = body.len() as u64;
        let block = self.threshold.is_exceeded_by(len).then(|| self.alloc(len)).flatten();
        match &block {
            Some(block) => {
                self.pages(block)[..body.len()].copy_from_slice(body);
                let place = BlockRef { segment: block.segment(), page: block.page(), len };
                frame::seal(&mut frame, call, Body::Mapped(place), &loans);
            }
            None => {
                frame.extend_from_slice(body);
                frame::seal(&mut frame, call, Body::Inline, &loans);
            }
        }
        self.wire.bytes.extend(frame);
        block.map(|block| InBlock { block, len: body.len(), loans })
    }

    fn lend(&mut self, loan: Loan) -> Option<BlockRef> {
        match loan {
            Loan::None => return None,
            Loan::Again => {}
            Loan::New(len, seed) => {
                self.give_up(None);
                let block = self.alloc(len)?;
                for (at, byte) in self.pages(&block)[..len as usize].iter_mut().enumerate() {
                    *byte = seed.wrapping_add(at as u8);
                }
                self.own = Some(Arc::new(Lending { block, len }));
            }
        }
        let item = Arc::clone(self.own.as_ref()?);
        let place = BlockRef { segment: item.block.segment(), page: item.block.page(), len: item.len };
        self.lent.lend((place.segment, place.page), item);
        Some(place)
    }

    /// Gives up this one, or what this side has lent itself; whose last it was gives the block back.
    fn give_up(&mut self, item: Option<Arc<Lending>>) {
        if let Some(lending) = item.or_else(|| self.own.take()).and_then(Arc::into_inner) {
            self.free(lending.block);
        }
    }

    fn returned(&mut self, segment: u32, page: u32) {
        if let Some(item) = self.lent.returned((segment, page)).expect("it is lent") {
            self.give_up(Some(item));
        }
    }

    /// Sends what stands in a block through the socket, since the other side cannot read it, nor any other there.
    fn resend(&mut self, mut frame: Vec<u8>, call: CallId, sent: InBlock) {
        let body = self.pages(&sent.block)[..sent.len].to_vec();
        self.arena.withdraw(sent.block.segment());
        self.free(sent.block);
        frame.extend(body);
        frame::seal(&mut frame, call, Body::Inline, &sent.loans);
        self.wire.bytes.extend(frame);
    }

    /// A block, all zero.
    fn alloc(&mut self, len: u64) -> Option<Block> {
        let block = self.arena.alloc(len).or_else(|| {
            let size = self.arena.next_segment(len)?;
            let number = self.arena.add_segment(size);
            let descriptor = self.memory.len() as u32;
            self.memory.push(vec![FREE; size as usize]);
            assert!(self.segments.insert(number, descriptor).is_none(), "the slot is free");
            self.wire.descriptors.push((self.wire.bytes.len(), descriptor));
            self.wire.bytes.extend(frame::segment(number, size));
            self.arena.alloc(len)
        })?;
        let pages = self.pages(&block);
        assert!(pages.iter().all(|byte| *byte == FREE), "the block is in use");
        pages.fill(0);
        Some(block)
    }

    /// Takes a block back: who reads it from now on reads something else.
    fn free(&mut self, block: Block) {
        self.pages(&block).fill(FREE);
        self.arena.free(block);
    }

    /// Removes the segments in which nothing is.
    fn trim(&mut self) {
        let idle: Vec<u32> = self.arena.segments().filter(|number| self.arena.is_idle(*number)).collect();
        for number in idle {
            self.arena.remove_segment(number);
            self.segments.remove(&number);
            self.wire.bytes.extend(frame::retire(number));
        }
    }

    fn hang_up(&mut self) {
        for item in self.lent.drain() {
            self.give_up(Some(item));
        }
        self.give_up(None);
    }

    fn is_clean(&self) -> bool {
        self.arena.in_use() == 0 && self.memory.iter().flatten().all(|byte| *byte == FREE)
    }
}

/// A body that has arrived, to be read some time.
#[derive(Debug)]
enum Arrived {
    Copied(Vec<u8>),
    Mapped(Mapped),
}

/// A block of the other side's memory that can be read.
#[derive(Debug)]
struct Mapped {
    descriptor: u32,
    block: BlockRef,
}

impl Mapped {
    fn read<'a>(&self, memory: &'a [Vec<u8>]) -> &'a [u8] {
        let at = (u64::from(self.block.page) * PAGE) as usize;
        &memory[self.descriptor as usize][at..at + self.block.len as usize]
    }
}

impl Arrived {
    fn read(self, memory: &[Vec<u8>]) -> Vec<u8> {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Mapped(mapped) => mapped.read(memory).to_vec(),
        }
    }
}

/// What a side knows of the other's memory, and keeps of it.
#[derive(Debug, Default)]
struct View {
    /// By number; `None` is a segment that cannot be read, since its descriptor was lost.
    segments: HashMap<u32, Option<u32>>,
    loans: Vec<Mapped>,
}

impl View {
    fn find(&self, block: BlockRef) -> Option<Mapped> {
        self.segments[&block.segment].map(|descriptor| Mapped { descriptor, block })
    }

    /// `None` where it stands in memory that cannot be read.
    fn arrived(&self, payload: Payload<Vec<u8>>) -> Option<Arrived> {
        match payload {
            Payload::Inline(bytes) => Some(Arrived::Copied(bytes)),
            Payload::Block(block) => self.find(block).map(Arrived::Mapped),
        }
    }

    /// Keeps what was lent; what cannot be read goes back at once.
    fn keep(&mut self, loans: Vec<BlockRef>, answers: &mut Wire) {
        for block in loans {
            match self.find(block) {
                Some(mapped) => self.loans.push(mapped),
                None => answers.bytes.extend(frame::returned(block.segment, block.page)),
            }
        }
    }

    /// Reads a loan and returns it.
    fn put_back(&mut self, at: usize, memory: &[Vec<u8>], answers: &mut Wire) {
        if self.loans.is_empty() {
            return;
        }
        let loan = self.loans.swap_remove(at % self.loans.len());
        let bytes = loan.read(memory);
        let counts = bytes.iter().enumerate().all(|(at, byte)| *byte == bytes[0].wrapping_add(at as u8));
        assert!(counts, "{loan:?} is not what was lent");
        answers.bytes.extend(frame::returned(loan.block.segment, loan.block.page));
    }
}

/// Moves up to `len` bytes of a wire to a receiver, with the descriptors that go with them, as the kernel would: not
/// on to what was sent with another descriptor.
fn transfer(wire: &mut Wire, receiver: &mut Receiver<u32>, len: usize, loses: bool) {
    let mut places = wire.descriptors.iter().map(|(place, _)| *place);
    let has_own = places.next().is_some_and(|place| place < len);
    let end = if has_own { places.next().unwrap_or(usize::MAX) } else { usize::MAX };
    let space = receiver.space();
    let len = len.min(end).min(space.len()).min(wire.bytes.len());
    space[..len].copy_from_slice(&wire.bytes[..len]);
    wire.bytes.drain(..len);
    let with = wire.descriptors.iter().take_while(|(place, _)| *place < len).count();
    let mut descriptors: Vec<u32> = wire.descriptors.drain(..with).map(|(_, number)| number).collect();
    for (place, _) in &mut wire.descriptors {
        *place -= len;
    }
    let lost = loses && descriptors.pop().is_some();
    receiver.received(len, descriptors, lost).expect("an honest peer");
}

/// A call of the client that is not over.
#[derive(Debug)]
struct Waiting {
    sent: Option<InBlock>,
    method: u16,
    expected: Result<Vec<u8>, String>,
    is_abandoned: bool,
}

#[derive(Debug)]
struct Client {
    sender: Sender,
    receiver: Receiver<u32>,
    view: View,
    /// The server's number of each method.
    numbers: Vec<u16>,
    calls: Table<Waiting>,
    waiting: Vec<CallId>,
    /// Replies that nobody has looked at yet, each with what it should be.
    replies: Vec<(CallId, Arrived, Vec<u8>)>,
    /// Calls that came back as they should.
    matched: usize,
}

impl Client {
    fn call(&mut self, method: usize, arguments: &[u8], loan: Loan) {
        let mut frame = Vec::new();
        let number = self.numbers[method];
        frame::begin_call(&mut frame, number);
        let expected = answer(WANTED[method].name(), arguments).map_err(|error| error.to_string());
        let waiting = Waiting { sent: None, method: number, expected, is_abandoned: false };
        let call = self.calls.insert(waiting);
        let sent = self.sender.send(frame, call, arguments, loan);
        self.calls.get_mut(call).expect("it waits").sent = sent;
        self.waiting.push(call);
    }

    fn abandon(&mut self, at: usize) {
        if !self.waiting.is_empty() {
            let call = self.waiting[at % self.waiting.len()];
            self.calls.get_mut(call).expect("it waits").is_abandoned = true;
        }
    }

    fn receive(&mut self, wire: &mut Wire, len: usize, loses: bool) {
        transfer(wire, &mut self.receiver, len, loses);
        while let Some(incoming) = self.receiver.next(Vec::with_capacity).expect("an honest server") {
            let (call, reply) = match incoming {
                Incoming::Segment { number, descriptor, .. } => {
                    self.view.segments.insert(number, descriptor);
                    continue;
                }
                Incoming::Retire { number } => {
                    self.view.segments.remove(&number);
                    continue;
                }
                Incoming::Return { segment, page } => {
                    self.sender.returned(segment, page);
                    continue;
                }
                Incoming::Resend { call } => {
                    let waiting = self.calls.get_mut(call).expect("the call waits");
                    let sent = waiting.sent.take().expect("it was sent in a block");
                    let mut frame = Vec::new();
                    frame::begin_call(&mut frame, waiting.method);
                    self.sender.resend(frame, call, sent);
                    continue;
                }
                Incoming::Reply { call, payload, loans } => {
                    let Some(body) = self.view.arrived(payload) else {
                        self.sender.wire.bytes.extend(frame::resend(call));
                        continue;
                    };
                    self.view.keep(loans, &mut self.sender.wire);
                    (call, Ok(body))
                }
                Incoming::Failure { call, error } => (call, Err(error)),
                other => panic!("{other:?} sent to a client"),
            };
            let waiting = self.calls.remove(call).expect("the call waits");
            self.waiting.retain(|other| *other != call);
            if let Some(sent) = waiting.sent {
                self.sender.free(sent.block);
            }
            match (reply, waiting.expected) {
                (Ok(body), _) if waiting.is_abandoned => {
                    self.matched += 1;
                    if matches!(body, Arrived::Mapped(_)) {
                        self.sender.wire.bytes.extend(frame::release(call));
                    }
                }
                (Ok(body), Ok(expected)) => self.replies.push((call, body, expected)),
                (Err(error), Err(expected)) => {
                    assert_eq!((error.kind(), error.progress()), (ErrorKind::Panicked, Progress::Ran));
                    assert_eq!(error.to_string(), expected);
                    self.matched += 1;
                }
                (reply, expected) => panic!("{reply:?} came for {expected:?}"),
            }
        }
    }

    fn fetch(&mut self, at: usize, memory: &[Vec<u8>]) {
        if self.replies.is_empty() {
            return;
        }
        let (call, body, expected) = self.replies.swap_remove(at % self.replies.len());
        let is_mapped = matches!(body, Arrived::Mapped(_));
        assert!(body.read(memory) == expected, "another reply than that of {call:?}");
        if is_mapped {
            self.sender.wire.bytes.extend(frame::release(call));
        }
        self.matched += 1;
    }

    /// The connection is over: what waits is given up.
    fn hang_up(&mut self) {
        assert_eq!(self.calls.iter_mut().count(), self.waiting.len());
        for call in self.waiting.drain(..) {
            let waiting = self.calls.remove(call).expect("it waits");
            if let Some(sent) = waiting.sent {
                self.sender.free(sent.block);
            }
        }
        self.replies.clear();
        self.sender.hang_up();
    }
}

#[derive(Debug)]
struct Server {
    sender: Sender,
    receiver: Receiver<u32>,
    view: View,
    running: Vec<(CallId, u16, Arrived)>,
    /// Results that the client has not read yet.
    results: HashMap<CallId, InBlock>,
}

impl Server {
    fn receive(&mut self, wire: &mut Wire, len: usize, loses: bool) {
        transfer(wire, &mut self.receiver, len, loses);
        while let Some(incoming) = self.receiver.next(Vec::with_capacity).expect("an honest client") {
            match incoming {
                Incoming::Segment { number, descriptor, .. } => {
                    self.view.segments.insert(number, descriptor);
                }
                Incoming::Retire { number } => drop(self.view.segments.remove(&number)),
                Incoming::Call { call, method, payload, loans, .. } => {
                    assert!(self.running.iter().all(|(other, ..)| *other != call), "{call:?} runs already");
                    match self.view.arrived(payload) {
                        Some(arguments) => {
                            self.view.keep(loans, &mut self.sender.wire);
                            self.running.push((call, method, arguments));
                        }
                        None => self.sender.wire.bytes.extend(frame::resend(call)),
                    }
                }
                Incoming::Release { call } => {
                    let sent = self.results.remove(&call).expect("its result is out");
                    self.sender.free(sent.block);
                }
                Incoming::Return { segment, page } => self.sender.returned(segment, page),
                Incoming::Resend { call } => {
                    let sent = self.results.remove(&call).expect("its result is out");
                    let mut frame = Vec::new();
                    frame::begin_reply(&mut frame);
                    self.sender.resend(frame, call, sent);
                }
                other => panic!("{other:?} sent to a server"),
            }
        }
    }

    fn run(&mut self, at: usize, memory: &[Vec<u8>], loan: Loan) {
        if self.running.is_empty() {
            return;
        }
        let (call, method, arguments) = self.running.swap_remove(at % self.running.len());
        let mut frame = Vec::new();
        match answer(SERVED[usize::from(method)].name(), &arguments.read(memory)) {
            Ok(result) => {
                frame::begin_reply(&mut frame);
                if let Some(sent) = self.sender.send(frame, call, &result, loan) {
                    assert!(self.results.insert(call, sent).is_none(), "{call:?} has a result already");
                }
            }
            Err(error) => {
                frame::begin_failure(&mut frame);
                error.to_wire().encode(&mut frame);
                frame::seal(&mut frame, call, Body::Inline, &[]);
                self.sender.wire.bytes.extend(frame);
            }
        }
    }

    fn hang_up(&mut self) {
        self.running.clear();
        for (_, sent) in self.results.drain() {
            self.sender.free(sent.block);
        }
        self.sender.hang_up();
    }
}

/// How the two are set up.
#[derive(Clone, Debug)]
struct Setup {
    client: (Limits, Threshold),
    server: (Limits, Threshold),
}

/// What one of them does next.
#[derive(Clone, Debug)]
enum Step {
    Call {
        method: usize,
        len: usize,
        seed: u8,
        loan: Loan,
    },
    Abandon(usize),
    /// So many bytes, and whether a descriptor that comes with them is lost.
    ToServer(usize, bool),
    ToClient(usize, bool),
    Run(usize, Loan),
    Fetch(usize),
    /// Each side returns a loan that it has.
    Return(usize),
    /// Each side uses what it has lent itself no more.
    GiveUp,
    Trim,
}

#[derive(Debug)]
struct Pair {
    client: Client,
    server: Server,
    called: usize,
}

impl Pair {
    /// Both sides, through with the handshake.
    fn new(setup: &Setup) -> Self {
        let ((client_limits, client_threshold), (server_limits, server_threshold)) =
            (setup.client, setup.server);
        let preamble = |bytes: &[u8], role| {
            let preamble = Preamble::decode(bytes.first_chunk().unwrap(), role).unwrap();
            assert_eq!(Preamble::LEN + preamble.len, bytes.len());
            preamble
        };
        let said = ClientHello::new("Bytes", &client_limits).encode();
        let of_client = ClientHello::decode(preamble(&said, Role::Client), &said[Preamble::LEN..]).unwrap();
        let said = Offer::new("Bytes", &SERVED, &server_limits).encode();
        let of_server = ServerHello::decode(preamble(&said, Role::Server), &said[Preamble::LEN..]).unwrap();
        let of_server = of_server.into_offer().unwrap();
        let number = |found| match found {
            Found::Same(number) => number,
            other => panic!("all are served: {other:?}"),
        };
        let numbers = of_server.resolve("Bytes", &WANTED, &[0; WANTED.len()]).unwrap();
        Self {
            client: Client {
                sender: Sender::new(of_server.limits.narrow(&client_limits), client_threshold),
                receiver: Receiver::new(Role::Client, client_limits),
                numbers: numbers.into_iter().map(number).collect(),
                view: View::default(),
                calls: Table::new(),
                waiting: Vec::new(),
                replies: Vec::new(),
                matched: 0,
            },
            server: Server {
                sender: Sender::new(of_client.limits.narrow(&server_limits), server_threshold),
                receiver: Receiver::new(Role::Server, server_limits),
                view: View::default(),
                running: Vec::new(),
                results: HashMap::new(),
            },
            called: 0,
        }
    }

    fn step(&mut self, step: &Step) {
        let Self { client, server, .. } = self;
        match step {
            Step::Call { method, len, seed, loan } => {
                // A third, so that no result is over the limit.
                let len = (*len).min(client.sender.limits.max_message as usize / 3);
                let arguments: Vec<u8> = (0..len).map(|at| (at as u8).wrapping_mul(*seed)).collect();
                client.call(*method, &arguments, *loan);
                self.called += 1;
            }
            Step::Abandon(at) => client.abandon(*at),
            Step::ToServer(len, loses) => server.receive(&mut client.sender.wire, *len, *loses),
            Step::ToClient(len, loses) => client.receive(&mut server.sender.wire, *len, *loses),
            Step::Run(at, loan) => server.run(*at, &client.sender.memory, *loan),
            Step::Return(at) => {
                client.view.put_back(*at, &server.sender.memory, &mut client.sender.wire);
                server.view.put_back(*at, &client.sender.memory, &mut server.sender.wire);
            }
            Step::GiveUp => {
                client.sender.give_up(None);
                server.sender.give_up(None);
            }
            Step::Trim => {
                client.sender.trim();
                server.sender.trim();
            }
            Step::Fetch(at) => client.fetch(*at, &server.sender.memory),
        }
        let (own, peer) = (&self.client.sender, &self.server.sender);
        assert!(own.arena.capacity() <= own.limits.pool && peer.arena.capacity() <= peer.limits.pool);
    }

    /// Goes on until nothing is left to do.
    fn settle(&mut self, at: usize) {
        self.step(&Step::GiveUp);
        while !(self.client.calls.is_empty()
            && self.client.replies.is_empty()
            && self.client.view.loans.is_empty()
            && self.server.view.loans.is_empty()
            && self.client.sender.wire.bytes.is_empty()
            && self.server.sender.wire.bytes.is_empty())
        {
            for step in [
                Step::ToServer(usize::MAX, false),
                Step::Run(at, Loan::None),
                Step::ToClient(usize::MAX, false),
                Step::Fetch(at),
                Step::Return(at),
            ] {
                self.step(&step);
            }
        }
    }
}

fn limits() -> impl Strategy<Value = Limits> + Clone {
    let pool = prop_oneof![Just(0), Just(5 * PAGE), Just(1 << 20), Just(4 << 20)];
    let max_message = prop_oneof![Just(100), Just(10_000), Just(2 << 20)];
    let max_blocks = prop_oneof![1 => Just(3), 3 => Just(100)];
    (pool, max_message, max_blocks).prop_map(|(pool, max_message, max_blocks)| Limits {
        max_message,
        pool,
        max_segments: 8,
        max_blocks,
        ..Limits::default()
    })
}

fn setup() -> impl Strategy<Value = Setup> {
    let threshold = prop_oneof![
        1 => Just(Threshold::OFF),
        2 => Just(Threshold::ALWAYS),
        3 => Just(Threshold::bytes(50)),
        3 => Just(Threshold::bytes(4096)),
    ];
    let side = (limits(), threshold);
    (side.clone(), side).prop_map(|(client, server)| Setup { client, server })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let len = prop_oneof![
        1 => Just(0),
        5 => 0..200_usize,
        5 => 3000..20_000_usize,
        1 => 100_000..400_000_usize,
    ];
    let piece = prop_oneof![2 => 1..64_usize, 2 => 1..20_000_usize, 1 => Just(usize::MAX)];
    let loan = prop_oneof![
        4 => Just(Loan::None),
        2 => (2..10_000_u64, any::<u8>()).prop_map(|(len, seed)| Loan::New(len, seed)),
        1 => Just(Loan::Again),
    ];
    let loses = prop::bool::weighted(0.1);
    let step = prop_oneof![
        6 => (0..WANTED.len(), len, any::<u8>(), loan.clone())
            .prop_map(|(method, len, seed, loan)| Step::Call { method, len, seed, loan }),
        1 => any::<usize>().prop_map(Step::Abandon),
        5 => (piece.clone(), loses).prop_map(|(len, loses)| Step::ToServer(len, loses)),
        5 => (piece, loses).prop_map(|(len, loses)| Step::ToClient(len, loses)),
        5 => (any::<usize>(), loan).prop_map(|(at, loan)| Step::Run(at, loan)),
        4 => any::<usize>().prop_map(Step::Fetch),
        3 => any::<usize>().prop_map(Step::Return),
        1 => Just(Step::GiveUp),
        2 => Just(Step::Trim),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_the_order_every_call_gets_its_reply_and_every_block_comes_back(
        setup in setup(),
        steps in steps(),
        at in any::<usize>(),
    ) {
        let mut pair = Pair::new(&setup);
        for step in &steps {
            pair.step(step);
        }
        pair.settle(at);
        prop_assert_eq!(pair.client.matched, pair.called);
        prop_assert!(pair.client.calls.is_empty() && pair.client.waiting.is_empty());
        prop_assert!(pair.server.running.is_empty() && pair.server.results.is_empty());
        prop_assert!(pair.client.sender.is_clean() && pair.server.sender.is_clean());
        prop_assert!(pair.client.receiver.is_drained() && pair.server.receiver.is_drained());
        prop_assert!(pair.client.sender.lent.is_empty() && pair.server.sender.lent.is_empty());
        // Nothing is out, so all memory goes.
        pair.step(&Step::Trim);
        pair.settle(at);
        for (sender, view) in
            [(&pair.client.sender, &pair.server.view), (&pair.server.sender, &pair.client.view)]
        {
            prop_assert!(sender.arena.capacity() == 0 && sender.segments.is_empty());
            prop_assert!(view.segments.is_empty());
        }
    }

    #[test]
    fn a_connection_that_ends_in_the_middle_leaves_no_block_behind(setup in setup(), steps in steps()) {
        let mut pair = Pair::new(&setup);
        for step in &steps {
            pair.step(step);
        }
        pair.client.hang_up();
        pair.server.hang_up();
        prop_assert!(pair.client.calls.is_empty());
        prop_assert!(pair.client.sender.is_clean() && pair.server.sender.is_clean());
    }
}

fn roomy() -> Setup {
    let side = (
        Limits { max_message: 2 << 20, pool: 4 << 20, max_segments: 8, ..Limits::default() },
        Threshold::bytes(4096),
    );
    Setup { client: side, server: side }
}

#[test]
fn replies_find_their_calls_when_the_last_is_answered_first() {
    let mut pair = Pair::new(&roomy());
    for len in [10, 5000, 20, 100_000, 30, 6000] {
        pair.step(&Step::Call { method: 0, len, seed: len as u8 | 1, loan: Loan::None });
    }
    while pair.server.running.len() < 6 {
        pair.step(&Step::ToServer(usize::MAX, false));
    }
    for last in (0..6).rev() {
        pair.step(&Step::Run(last, Loan::None));
    }
    pair.settle(0);
    assert_eq!(pair.client.matched, 6);
    assert!(pair.client.sender.is_clean() && pair.server.sender.is_clean());
}

#[test]
fn one_large_call_after_another_uses_the_same_pages_again() {
    let mut pair = Pair::new(&roomy());
    for _ in 0..50 {
        pair.step(&Step::Call { method: 0, len: 100_000, seed: 3, loan: Loan::None });
        pair.settle(0);
    }
    assert_eq!(pair.client.matched, 50);
    assert_eq!((pair.client.sender.memory.len(), pair.server.sender.memory.len()), (1, 1));
}

#[test]
fn a_pool_without_room_sends_large_bodies_inline() {
    let full = Limits { pool: PAGE, ..roomy().client.0 };
    let mut pair = Pair::new(&Setup { client: (full, Threshold::ALWAYS), ..roomy() });
    for _ in 0..3 {
        pair.step(&Step::Call { method: 0, len: 4000, seed: 5, loan: Loan::None });
    }
    // One page, with a segment to announce it; the others' bodies are in the stream.
    assert!(pair.client.sender.wire.bytes.len() > 2 * 4000);
    assert_eq!(pair.client.sender.arena.in_use(), PAGE);
    pair.settle(0);
    assert_eq!(pair.client.matched, 3);
    assert!(pair.client.sender.is_clean() && pair.server.sender.is_clean());
}

#[test]
fn a_loan_is_read_after_its_call_and_returned_as_often_as_it_was_lent() {
    let mut pair = Pair::new(&roomy());
    for loan in [Loan::New(9000, 7), Loan::Again, Loan::Again] {
        pair.step(&Step::Call { method: 0, len: 10, seed: 1, loan });
    }
    while pair.client.matched < 3 {
        for step in [
            Step::ToServer(usize::MAX, false),
            Step::Run(0, Loan::None),
            Step::ToClient(usize::MAX, false),
            Step::Fetch(0),
            Step::GiveUp,
        ] {
            pair.step(&step);
        }
    }
    for left in (0..3).rev() {
        assert_eq!(pair.client.sender.arena.in_use(), 3 * PAGE, "one block, still lent");
        pair.step(&Step::Return(0));
        pair.step(&Step::ToClient(usize::MAX, false));
        assert_eq!(pair.server.view.loans.len(), left);
    }
    assert!(pair.client.sender.is_clean());
}

#[test]
fn what_cannot_be_read_in_memory_comes_through_the_socket_and_the_memory_goes() {
    let mut pair = Pair::new(&roomy());
    pair.step(&Step::Call { method: 0, len: 100_000, seed: 3, loan: Loan::New(5000, 1) });
    pair.step(&Step::ToServer(usize::MAX, true));
    while pair.server.running.is_empty() {
        pair.step(&Step::ToClient(usize::MAX, false));
        pair.step(&Step::ToServer(usize::MAX, false));
    }
    assert!(matches!(pair.server.running[0].2, Arrived::Copied(_)));
    pair.step(&Step::Run(0, Loan::None));
    pair.step(&Step::ToClient(usize::MAX, true));
    pair.settle(0);
    assert_eq!(pair.client.matched, 1);
    assert!(pair.client.sender.is_clean() && pair.server.sender.is_clean());
    for sender in [&pair.client.sender, &pair.server.sender] {
        assert!(sender.arena.is_withdrawn(0));
    }
    pair.step(&Step::Trim);
    // The next is tried with other memory, in the same slot.
    pair.step(&Step::Call { method: 0, len: 100_000, seed: 3, loan: Loan::None });
    pair.settle(0);
    assert_eq!(pair.client.matched, 2);
    assert_eq!((pair.client.sender.memory.len(), pair.server.sender.memory.len()), (2, 2));
    assert!(pair.client.sender.segments.contains_key(&0) && !pair.client.sender.arena.is_withdrawn(0));
}
