//! The protocol as a whole, without a socket: a client and a server in memory, their calls interleaved at random.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::HashMap;

use lpc_core::Method;
use lpc_core::arena::{Arena, Block, PAGE};
use lpc_core::calls::Calls;
use lpc_core::codec;
use lpc_core::error::{Error, ErrorKind, Progress};
use lpc_core::frame::{self, BlockRef, Body, CallId};
use lpc_core::handshake::{Hello, Preamble};
use lpc_core::limits::Limits;
use lpc_core::receiver::{Incoming, Payload, Receiver, Role};
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
/// descriptor is the number of the segment that it is of.
#[derive(Debug, Default)]
struct Wire {
    bytes: Vec<u8>,
    descriptors: Vec<(usize, u32)>,
}

/// The sending side of a peer: an arena, and the memory to it, which the other side reads.
#[derive(Debug)]
struct Sender {
    arena: Arena,
    memory: Vec<Vec<u8>>,
    limits: Limits,
    threshold: Threshold,
    wire: Wire,
}

/// What stands in a page that is in nobody's use.
const FREE: u8 = 0xdd;

impl Sender {
    fn new(limits: Limits, threshold: Threshold) -> Self {
        let arena = Arena::new(limits.pool);
        Self { arena, memory: Vec::new(), limits, threshold, wire: Wire::default() }
    }

    /// Completes a frame with this body, on the lane that it has to take, and says which block it stands in.
    fn send(&mut self, mut frame: Vec<u8>, call: CallId, body: &[u8]) -> Option<Block> {
        assert!(body.len() as u64 <= self.limits.max_message, "the test keeps the limits");
        let len = body.len() as u64;
        let block = self.threshold.is_exceeded_by(len).then(|| self.alloc(len)).flatten();
        match &block {
            Some(block) => {
                let at = block.offset() as usize;
                let pages = &mut self.memory[block.segment() as usize][at..at + block.len() as usize];
                assert!(pages.iter().all(|byte| *byte == FREE), "the block is in use");
                pages.fill(0);
                pages[..body.len()].copy_from_slice(body);
                let place = BlockRef { segment: block.segment(), page: block.page(), len };
                frame::seal(&mut frame, call, Body::Mapped(place));
            }
            None => {
                frame.extend_from_slice(body);
                frame::seal(&mut frame, call, Body::Inline);
            }
        }
        self.wire.bytes.extend(frame);
        block
    }

    fn alloc(&mut self, len: u64) -> Option<Block> {
        if let Some(block) = self.arena.alloc(len) {
            return Some(block);
        }
        let size = self.arena.next_segment(len)?;
        let number = self.arena.add_segment(size);
        assert_eq!(number as usize, self.memory.len());
        self.memory.push(vec![FREE; size as usize]);
        self.wire.descriptors.push((self.wire.bytes.len(), number));
        self.wire.bytes.extend(frame::segment(number, size));
        self.arena.alloc(len)
    }

    /// Takes a block back: who reads it from now on reads something else.
    fn free(&mut self, block: Block) {
        let at = block.offset() as usize;
        self.memory[block.segment() as usize][at..at + block.len() as usize].fill(FREE);
        self.arena.free(block);
    }

    fn is_clean(&self) -> bool {
        self.arena.in_use() == 0 && self.memory.iter().flatten().all(|byte| *byte == FREE)
    }
}

/// A body that has arrived, to be read some time.
#[derive(Debug)]
enum Arrived {
    Copied(Vec<u8>),
    Mapped { descriptor: u32, block: BlockRef },
}

impl Arrived {
    fn new(payload: Payload<'_>, segments: &[u32]) -> Self {
        match payload {
            Payload::Inline(bytes) => Self::Copied(bytes.to_vec()),
            Payload::Block(block) => Self::Mapped { descriptor: segments[block.segment as usize], block },
        }
    }

    fn read(self, memory: &[Vec<u8>]) -> Vec<u8> {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Mapped { descriptor, block } => {
                let at = (u64::from(block.page) * PAGE) as usize;
                memory[descriptor as usize][at..at + block.len as usize].to_vec()
            }
        }
    }
}

/// Moves up to `len` bytes of a wire to a receiver, with the descriptors that go with them, as the kernel would: not
/// on to what was sent with another descriptor.
fn transfer(wire: &mut Wire, receiver: &mut Receiver<u32>, len: usize) {
    let mut places = wire.descriptors.iter().map(|(place, _)| *place);
    let has_own = places.next().is_some_and(|place| place < len);
    let end = if has_own { places.next().unwrap_or(usize::MAX) } else { usize::MAX };
    let space = receiver.space();
    let len = len.min(end).min(space.len()).min(wire.bytes.len());
    space[..len].copy_from_slice(&wire.bytes[..len]);
    wire.bytes.drain(..len);
    let with = wire.descriptors.iter().take_while(|(place, _)| *place < len).count();
    let descriptors: Vec<u32> = wire.descriptors.drain(..with).map(|(_, number)| number).collect();
    for (place, _) in &mut wire.descriptors {
        *place -= len;
    }
    receiver.received(len, descriptors).expect("an honest peer");
}

/// A call of the client that is not over.
#[derive(Debug)]
struct Waiting {
    block: Option<Block>,
    expected: Result<Vec<u8>, String>,
    is_abandoned: bool,
}

#[derive(Debug)]
struct Client {
    sender: Sender,
    receiver: Receiver<u32>,
    /// The server's number of each method.
    numbers: Vec<u16>,
    segments: Vec<u32>,
    calls: Calls<Waiting>,
    waiting: Vec<CallId>,
    /// Replies that nobody has looked at yet, each with what it should be.
    replies: Vec<(CallId, Arrived, Vec<u8>)>,
    /// Calls that came back as they should.
    matched: usize,
}

impl Client {
    fn call(&mut self, method: usize, arguments: &[u8]) {
        let mut frame = Vec::new();
        frame::begin_call(&mut frame, self.numbers[method]);
        let expected = answer(WANTED[method].name(), arguments).map_err(|error| error.to_string());
        let call = self.calls.insert(Waiting { block: None, expected, is_abandoned: false });
        let block = self.sender.send(frame, call, arguments);
        self.calls.get_mut(call).expect("it waits").block = block;
        self.waiting.push(call);
    }

    fn abandon(&mut self, at: usize) {
        if !self.waiting.is_empty() {
            let call = self.waiting[at % self.waiting.len()];
            self.calls.get_mut(call).expect("it waits").is_abandoned = true;
        }
    }

    fn receive(&mut self, wire: &mut Wire, len: usize) {
        transfer(wire, &mut self.receiver, len);
        while let Some(incoming) = self.receiver.next().expect("an honest server") {
            let (call, reply) = match incoming {
                Incoming::Segment { descriptor, .. } => {
                    self.segments.push(descriptor);
                    continue;
                }
                Incoming::Reply { call, payload } => (call, Ok(Arrived::new(payload, &self.segments))),
                Incoming::Failure { call, error } => (call, Err(error)),
                other => panic!("{other:?} sent to a client"),
            };
            let waiting = self.calls.remove(call).expect("the call waits");
            self.waiting.retain(|other| *other != call);
            if let Some(block) = waiting.block {
                self.sender.free(block);
            }
            match (reply, waiting.expected) {
                (Ok(body), _) if waiting.is_abandoned => {
                    self.matched += 1;
                    if matches!(body, Arrived::Mapped { .. }) {
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
        let is_mapped = matches!(body, Arrived::Mapped { .. });
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
            if let Some(block) = waiting.block {
                self.sender.free(block);
            }
        }
        self.replies.clear();
    }
}

#[derive(Debug)]
struct Server {
    sender: Sender,
    receiver: Receiver<u32>,
    segments: Vec<u32>,
    running: Vec<(CallId, u16, Arrived)>,
    /// Results that the client has not read yet.
    results: HashMap<CallId, Block>,
}

impl Server {
    fn receive(&mut self, wire: &mut Wire, len: usize) {
        transfer(wire, &mut self.receiver, len);
        while let Some(incoming) = self.receiver.next().expect("an honest client") {
            match incoming {
                Incoming::Segment { descriptor, .. } => self.segments.push(descriptor),
                Incoming::Call { call, method, payload, .. } => {
                    assert!(self.running.iter().all(|(other, ..)| *other != call), "{call:?} runs already");
                    self.running.push((call, method, Arrived::new(payload, &self.segments)));
                }
                Incoming::Release { call } => {
                    let block = self.results.remove(&call).expect("its result is out");
                    self.sender.free(block);
                }
                other => panic!("{other:?} sent to a server"),
            }
        }
    }

    fn run(&mut self, at: usize, memory: &[Vec<u8>]) {
        if self.running.is_empty() {
            return;
        }
        let (call, method, arguments) = self.running.swap_remove(at % self.running.len());
        let mut frame = Vec::new();
        match answer(SERVED[usize::from(method)].name(), &arguments.read(memory)) {
            Ok(result) => {
                frame::begin_reply(&mut frame);
                if let Some(block) = self.sender.send(frame, call, &result) {
                    assert!(self.results.insert(call, block).is_none(), "{call:?} has a result already");
                }
            }
            Err(error) => {
                frame::begin_failure(&mut frame);
                codec::encode(&error.to_wire(), &mut frame).expect("an error encodes");
                frame::seal(&mut frame, call, Body::Inline);
                self.sender.wire.bytes.extend(frame);
            }
        }
    }

    fn hang_up(&mut self) {
        self.running.clear();
        for (_, block) in self.results.drain() {
            self.sender.free(block);
        }
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
    Call { method: usize, len: usize, seed: u8 },
    Abandon(usize),
    ToServer(usize),
    ToClient(usize),
    Run(usize),
    Fetch(usize),
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
        let heard = |bytes: Vec<u8>, role| {
            let (preamble, body) = bytes.split_first_chunk().expect("a whole preamble");
            assert_eq!(Preamble::decode(preamble, role).unwrap().len, body.len());
            Hello::decode(body).unwrap()
        };
        let of_client = heard(Hello::client("Bytes", &client_limits).encode(Role::Client), Role::Client);
        let of_server =
            heard(Hello::server("Bytes", &SERVED, &server_limits).encode(Role::Server), Role::Server);
        let numbers = of_server.resolve("Bytes", &WANTED).unwrap();
        Self {
            client: Client {
                sender: Sender::new(of_server.narrow(&client_limits), client_threshold),
                receiver: Receiver::new(Role::Client, client_limits),
                numbers: numbers.into_iter().map(|number| number.expect("all are served")).collect(),
                segments: Vec::new(),
                calls: Calls::new(),
                waiting: Vec::new(),
                replies: Vec::new(),
                matched: 0,
            },
            server: Server {
                sender: Sender::new(of_client.narrow(&server_limits), server_threshold),
                receiver: Receiver::new(Role::Server, server_limits),
                segments: Vec::new(),
                running: Vec::new(),
                results: HashMap::new(),
            },
            called: 0,
        }
    }

    fn step(&mut self, step: &Step) {
        let Self { client, server, .. } = self;
        match step {
            Step::Call { method, len, seed } => {
                // A third, so that no result is over the limit.
                let len = (*len).min(client.sender.limits.max_message as usize / 3);
                let arguments: Vec<u8> = (0..len).map(|at| (at as u8).wrapping_mul(*seed)).collect();
                client.call(*method, &arguments);
                self.called += 1;
            }
            Step::Abandon(at) => client.abandon(*at),
            Step::ToServer(len) => server.receive(&mut client.sender.wire, *len),
            Step::ToClient(len) => client.receive(&mut server.sender.wire, *len),
            Step::Run(at) => server.run(*at, &client.sender.memory),
            Step::Fetch(at) => client.fetch(*at, &server.sender.memory),
        }
        let (own, peer) = (&self.client.sender, &self.server.sender);
        assert!(own.arena.capacity() <= own.limits.pool && peer.arena.capacity() <= peer.limits.pool);
    }

    /// Goes on until nothing is left to do.
    fn settle(&mut self, at: usize) {
        while !(self.client.calls.is_empty()
            && self.client.replies.is_empty()
            && self.client.sender.wire.bytes.is_empty())
        {
            for step in
                [Step::ToServer(usize::MAX), Step::Run(at), Step::ToClient(usize::MAX), Step::Fetch(at)]
            {
                self.step(&step);
            }
        }
    }
}

fn limits() -> impl Strategy<Value = Limits> + Clone {
    let pool = prop_oneof![Just(0), Just(5 * PAGE), Just(1 << 20), Just(4 << 20)];
    let max_message = prop_oneof![Just(100), Just(10_000), Just(2 << 20)];
    (pool, max_message).prop_map(|(pool, max_message)| Limits { max_message, pool, max_segments: 8 })
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
    let step = prop_oneof![
        6 => (0..WANTED.len(), len, any::<u8>())
            .prop_map(|(method, len, seed)| Step::Call { method, len, seed }),
        1 => any::<usize>().prop_map(Step::Abandon),
        5 => piece.clone().prop_map(Step::ToServer),
        5 => piece.prop_map(Step::ToClient),
        5 => any::<usize>().prop_map(Step::Run),
        4 => any::<usize>().prop_map(Step::Fetch),
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
    let side = (Limits { max_message: 2 << 20, pool: 4 << 20, max_segments: 8 }, Threshold::bytes(4096));
    Setup { client: side, server: side }
}

#[test]
fn replies_find_their_calls_when_the_last_is_answered_first() {
    let mut pair = Pair::new(&roomy());
    for len in [10, 5000, 20, 100_000, 30, 6000] {
        pair.step(&Step::Call { method: 0, len, seed: len as u8 | 1 });
    }
    while pair.server.running.len() < 6 {
        pair.step(&Step::ToServer(usize::MAX));
    }
    for last in (0..6).rev() {
        pair.step(&Step::Run(last));
    }
    pair.settle(0);
    assert_eq!(pair.client.matched, 6);
    assert!(pair.client.sender.is_clean() && pair.server.sender.is_clean());
}

#[test]
fn one_large_call_after_another_uses_the_same_pages_again() {
    let mut pair = Pair::new(&roomy());
    for _ in 0..50 {
        pair.step(&Step::Call { method: 0, len: 100_000, seed: 3 });
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
        pair.step(&Step::Call { method: 0, len: 4000, seed: 5 });
    }
    // One page, with a segment to announce it; the others' bodies are in the stream.
    assert!(pair.client.sender.wire.bytes.len() > 2 * 4000);
    assert_eq!(pair.client.sender.arena.in_use(), PAGE);
    pair.settle(0);
    assert_eq!(pair.client.matched, 3);
    assert!(pair.client.sender.is_clean() && pair.server.sender.is_clean());
}
