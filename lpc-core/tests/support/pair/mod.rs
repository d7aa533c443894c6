//! A client and a server in memory, of the halves that a driver has: they call, answer, lend, give back,
//! write in parts, sleep and wake in any order, over the socket and the rings, until one of them comes to lie
//! or to shut down.
//!
//! While both are honest nobody is accused, every reply is that of its call, nobody sleeps through a frame,
//! and what is said not to have been sent was not received. Whatever they say, no two blocks that are in use
//! overlap, no side holds more than its limits, and when the connection ends everything is back.
//!
//! A test of lpc-core plays stories of chance, and a fuzz target of lpc-runtime those that it finds.

mod end;
#[path = "../memory.rs"]
pub(crate) mod memory;
mod pages;

use std::collections::{BTreeSet, HashMap, HashSet};

use arbitrary::{Arbitrary, Unstructured};
use lpc_core::calls::{Abandoned, Calls, Fetched};
use lpc_core::desk::{Desk, Driver};
use lpc_core::error::{Error, Progress};
use lpc_core::frame::{self, BlockRef, Body, CallId};
use lpc_core::receive::{Role, Violation};
use lpc_core::run_queue::{Bounds, Cancelled, Cost};
use lpc_core::send::StreamPosition;

use end::{Arrived, End, EndSender, Narrowness, Outcome, Sent, Told, Way, Wire};

/// Plays the story that these bytes are. Gives what happened in it.
pub fn play(data: &[u8]) -> BTreeSet<&'static str> {
    match Story::read(Unstructured::new(data)) {
        Ok(story) => story.play(),
        Err(_) => BTreeSet::new(),
    }
}

/// All that [happens](play) in stories.
pub const EVENTS: [&str; 18] = [
    "all settled",
    "the ring was entered",
    "the ring was left",
    "one frame went through the socket, and the sequence stayed in the ring",
    "a sleeper was woken",
    "a batch was written in parts",
    "a socket was full",
    "a descriptor was not passed",
    "a large body went into a segment",
    "a call was sent again",
    "a reply was sent again",
    "a call was cancelled before it ran",
    "a loan came back",
    "a segment was retired",
    "the server shut down",
    "a call was not sent",
    "a ring was scribbled on",
    "a violation was found",
];

#[derive(Debug)]
struct Story {
    /// Nobody lies: steps that would are left out.
    is_honest: bool,
    has_ring: bool,
    /// All that is on its way arrives before the connection ends.
    settles: bool,
    client: Narrowness,
    server: Narrowness,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
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
        way: Way,
    },
    /// Nobody waits for one of the calls any more.
    Cancel {
        at: u8,
    },
    /// The server answers one of the calls that run with as many bytes.
    Answer {
        at: u8,
        len: u16,
        lends: Option<u16>,
        way: Way,
    },
    Fail {
        at: u8,
    },
    /// The client reads one of its replies.
    Fetch {
        at: u8,
    },
    /// A writer goes on, and may end its turn.
    Write {
        by: Side,
        len: u16,
        outcome: Option<Outcome>,
    },
    /// The socket takes more.
    Resume {
        by: Side,
    },
    /// What is on its way to this side arrives, in part; a descriptor that comes with it may be lost. Where
    /// it sleeps, that wakes it.
    Arrive {
        to: Side,
        len: u16,
        loses: bool,
    },
    /// This side looks whether there is something in the ring.
    Look {
        by: Side,
    },
    Sleep {
        by: Side,
    },
    /// This side goes on on another CPU.
    Move {
        by: Side,
        cpu: bool,
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
    /// The server receives nothing more than what was sent until now: one time in sixteen, or most stories
    /// would be short.
    ShutDown {
        odds: u8,
    },
    /// All that is on its way arrives, and is answered.
    Settle,
    /// A byte of what is on its way to this side is another.
    Corrupt {
        to: Side,
        at: u16,
        with: u8,
    },
    /// A byte of this side's segments is another.
    Scribble {
        of: Side,
        at: u16,
        with: u8,
    },
    /// A word of this side's memory for the quick lane is another: at the beginning, or of a slot.
    ScribbleRing {
        of: Side,
        at: u8,
        with: u8,
    },
    /// A frame that nobody has a reason for.
    Forge {
        by: Side,
        forged: Forged,
        number: u64,
    },
    /// A call or reply whose body stands anywhere, with loans of anything.
    Point {
        by: Side,
        call: u64,
        segment: u32,
        page: u32,
        len: u64,
        loans: u8,
    },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Forged {
    Release,
    Return,
    Retire,
    Refuse,
    Resend,
    Cancel,
    Closing,
    Bell,
    Aside,
    Switch,
    Segment(u32),
}

impl Story {
    /// As many steps as there are bytes for.
    fn read(mut bytes: Unstructured<'_>) -> arbitrary::Result<Self> {
        let (is_honest, has_ring, settles) = (bytes.arbitrary()?, bytes.arbitrary()?, bytes.arbitrary()?);
        let (client, server) = (bytes.arbitrary()?, bytes.arbitrary()?);
        let mut steps = Vec::new();
        while !bytes.is_empty() {
            steps.push(bytes.arbitrary()?);
        }
        Ok(Self { is_honest, has_ring, settles, client, server, steps })
    }

    fn play(&self) -> BTreeSet<&'static str> {
        let mut pair = Pair::new(self);
        let steps = self.steps.iter().filter(|step| !self.is_honest || step.is_honest());
        for step in steps.chain(self.settles.then_some(&Step::Settle)) {
            if let Err(violation) = pair.step(step) {
                assert!(!pair.is_honest, "{violation}, at {step:?}");
                pair.happened("a violation was found");
                break;
            }
            pair.check();
        }
        pair.hang_up();
        pair.events
    }
}

impl Step {
    const fn is_honest(&self) -> bool {
        !matches!(
            self,
            Self::Corrupt { .. }
                | Self::Scribble { .. }
                | Self::ScribbleRing { .. }
                | Self::Forge { .. }
                | Self::Point { .. }
        )
    }
}

/// What the server's desk deals with.
#[derive(Debug)]
struct Serving;

impl Driver for Serving {
    type Call = (CallId, Arrived);
    type Handle = ();
    type Block = Sent;
    type Receive = ();
}

/// One who waits for the answer to a call.
#[derive(Debug)]
struct Caller {
    call: CallId,
    /// What was lent with it.
    loans: Vec<BlockRef>,
}

#[derive(Debug)]
struct Pair {
    client: End,
    server: End,
    calls: Calls<Arrived, Sent, ()>,
    callers: Vec<Caller>,
    /// What the arguments of all calls are: of which byte, and how many.
    called: HashMap<CallId, (u8, u16)>,
    desk: Desk<Serving>,
    running: Vec<(CallId, Arrived)>,
    /// The lengths of what the server answered.
    answered: HashMap<CallId, u16>,
    /// Calls that the server has received.
    received: HashSet<CallId>,
    is_shut: bool,
    /// How often the client was told.
    closings: u32,
    is_honest: bool,
    events: BTreeSet<&'static str>,
}

impl Pair {
    fn new(story: &Story) -> Self {
        Self {
            client: End::new(Role::Client, story.has_ring, story.client, story.server),
            server: End::new(Role::Server, story.has_ring, story.server, story.client),
            calls: Calls::new(MAX_CALLS),
            callers: Vec::new(),
            called: HashMap::new(),
            desk: Desk::new(Bounds { running: 2, waiting: 4, ..Bounds::default() }),
            running: Vec::new(),
            answered: HashMap::new(),
            received: HashSet::new(),
            is_shut: false,
            closings: 0,
            is_honest: true,
            events: BTreeSet::new(),
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

    fn happened(&mut self, event: &'static str) {
        debug_assert!(EVENTS.contains(&event), "{event}");
        self.events.insert(event);
    }

    fn step(&mut self, step: &Step) -> Result<(), Violation> {
        match *step {
            Step::Call { len, lends, way } => self.call(len, lends, way),
            Step::Cancel { at } => self.cancel(at),
            Step::Answer { at, len, lends, way } => return self.answer(at, len, lends, way),
            Step::Fail { at } => {
                if let Some((call, _)) = taken_at(&mut self.running, at) {
                    self.desk.answer(call, None)?;
                    self.fail(call);
                    self.finish(call);
                }
            }
            Step::Fetch { at } => self.fetch(at),
            Step::Write { by, len, outcome } => {
                self.end(by).write(len.into(), outcome);
            }
            Step::Resume { by } => self.end(by).sender.resume(),
            Step::Arrive { to, len, loses } => return self.arrive(to, len.into(), loses),
            Step::Look { by } => {
                self.end(by).awake();
                return self.take(by);
            }
            Step::Sleep { by } => self.end(by).sleep(),
            Step::Move { by, cpu } => self.end(by).cpu = 1 + u32::from(cpu),
            Step::Return { by, at } => self.end(by).give_back(at),
            Step::Trim { by } => self.end(by).trim(),
            Step::Refuse { by, segment } => self.end(by).push(&frame::refuse(segment.into())),
            Step::Resize { by, from, to } => self.end(by).draft(from, to),
            Step::ShutDown { odds } if odds.is_multiple_of(16) => self.shut_down(),
            Step::ShutDown { .. } => {}
            Step::Settle => return self.settle(),
            Step::Corrupt { to, at, with } => {
                let bytes = &mut self.wire(to).bytes;
                if !bytes.is_empty() {
                    let at = usize::from(at) % bytes.len();
                    bytes[at] ^= with;
                    self.is_honest &= with == 0;
                }
            }
            Step::Scribble { of, at, with } => {
                // Of those that the other side knows.
                let other = self.end(of.other());
                if let Some(pages) = other.view.values().flatten().next() {
                    pages.scribble(at.into(), with);
                    self.is_honest = false;
                }
            }
            Step::ScribbleRing { of, at, with } => {
                if let Some(ring) = self.end(of).ring.clone() {
                    use lpc_core::ring::{Own, Peers};
                    // What is taken, whether it sleeps, stamps, headers.
                    let at = [0, 128, 4096, 4104, 4112, 4352, 4360][usize::from(at) % 7];
                    ring.store(at, ring.load(at) ^ u64::from(with));
                    self.is_honest &= with == 0;
                    self.happened("a ring was scribbled on");
                }
            }
            Step::Forge { by, forged, number } => {
                self.is_honest = false;
                let call = CallId::new(number);
                let frame = match forged {
                    Forged::Release => frame::release(call).to_vec(),
                    Forged::Return => frame::returned((number >> 32) as u32, number as u32).to_vec(),
                    Forged::Retire => frame::retire(number as u32).to_vec(),
                    Forged::Refuse => frame::refuse(number as u32).to_vec(),
                    Forged::Resend => frame::resend(call).to_vec(),
                    Forged::Cancel => frame::cancel(call).to_vec(),
                    Forged::Closing => frame::closing(number).to_vec(),
                    Forged::Bell => frame::bell().to_vec(),
                    Forged::Aside => frame::aside().to_vec(),
                    Forged::Switch => frame::switch().to_vec(),
                    Forged::Segment(segment) => frame::segment(segment, number).to_vec(),
                };
                self.end(by).push(&frame);
            }
            Step::Point { by, call, segment, page, len, loans } => {
                self.is_honest = false;
                let mut frame = Vec::new();
                match by {
                    Side::Server => frame::begin_reply(&mut frame),
                    Side::Client => frame::begin_call(&mut frame, 0),
                }
                let place = BlockRef { segment, page, len };
                frame::seal(&mut frame, CallId::new(call), Body::Mapped(place), &vec![place; loans.into()]);
                self.end(by).push(&frame);
            }
        }
        Ok(())
    }

    fn call(&mut self, len: u16, lends: Option<u16>, way: Way) {
        if !self.calls.admit().unwrap_or(false) {
            return;
        }
        let mut frame = Vec::new();
        frame::begin_call(&mut frame, 0);
        let fill = self.called.len() as u8;
        let (body, loans, sent) = self.client.body(&mut frame, fill, len, lends);
        let call = self.calls.start(sent);
        frame::seal(&mut frame, call, body, &loans);
        self.called.insert(call, (fill, len));
        self.callers.push(Caller { call, loans });
        self.sent(call, &frame, way);
    }

    /// Sends the frame of a call, which fails at once where nothing is sent any more.
    fn sent(&mut self, call: CallId, frame: &[u8], way: Way) {
        match self.client.dispatch(frame, way) {
            Some(position) => assert!(self.calls.sent(call, position), "nobody has answered yet"),
            None => {
                drop(self.calls.unsent(call));
                let at = self.callers.iter().position(|caller| caller.call == call).expect("it waits");
                let caller = self.callers.swap_remove(at);
                self.not_sent(&caller);
            }
        }
    }

    /// The server does not get a call, and nothing of what was lent with it.
    fn not_sent(&mut self, caller: &Caller) {
        assert!(!self.is_honest || !self.received.contains(&caller.call), "{caller:?} was received");
        self.client.take_back(&caller.loans);
        self.happened("a call was not sent");
    }

    /// A caller gives up.
    fn cancel(&mut self, at: u8) {
        let Some(caller) = taken_at(&mut self.callers, at) else { return };
        match self.calls.abandon(caller.call, |_| Progress::MayHaveRun) {
            Abandoned::Cancel { .. } => self.client.push(&frame::cancel(caller.call)),
            Abandoned::Gone(gone) => match gone.answer {
                Some(Err(error)) if error.progress() == Progress::NotSent => self.not_sent(&caller),
                Some(answer) => self.forget(caller.call, answer),
                // Rejected: the server took nothing.
                None => self.client.take_back(&caller.loans),
            },
        }
    }

    /// Nobody reads this answer.
    fn forget(&mut self, call: CallId, answer: Result<Arrived, Error>) {
        self.answered.remove(&call);
        if let Ok(Arrived::Mapped(..)) = answer {
            self.client.push(&frame::release(call));
        }
    }

    /// A caller asks for its answer.
    fn fetch(&mut self, at: u8) {
        let Some(caller) = taken_at(&mut self.callers, at) else { return };
        let call = caller.call;
        match self.calls.fetch(call) {
            None => self.callers.push(caller),
            Some(Fetched::Rejected(sent)) => {
                self.callers.push(caller);
                let mut frame = Vec::new();
                frame::begin_call(&mut frame, 0);
                let frame = self.client.inline(frame, call, &sent);
                self.sent(call, &frame, Way::Enqueue);
                self.happened("a call was sent again");
            }
            Some(Fetched::Answer(gone)) => match gone.answer.expect("it is an answer") {
                Ok(reply) => {
                    let len = self.answered.get(&call).copied();
                    self.expect(call, &reply, len.map(|len| (call.as_u64() as u8, len)));
                    self.forget(call, Ok(reply));
                }
                Err(error) if error.progress() == Progress::NotSent => self.not_sent(&caller),
                Err(error) => assert!(!self.is_honest || error.to_string() == "it failed", "{error}"),
            },
        }
    }

    fn answer(&mut self, at: u8, len: u16, lends: Option<u16>, way: Way) -> Result<(), Violation> {
        let Some((call, _)) = taken_at(&mut self.running, at) else { return Ok(()) };
        let mut frame = Vec::new();
        frame::begin_reply(&mut frame);
        let (body, loans, sent) = self.server.body(&mut frame, call.as_u64() as u8, len, lends);
        frame::seal(&mut frame, call, body, &loans);
        self.answered.insert(call, len);
        self.desk.answer(call, sent)?;
        let _ = self.server.dispatch(&frame, way);
        self.finish(call);
        Ok(())
    }

    /// A call that ran has ended: others run.
    fn finish(&mut self, call: CallId) {
        self.running.extend(self.desk.finish(call, Cost::default()).call);
    }

    fn fail(&mut self, call: CallId) {
        let mut frame = Vec::new();
        frame::begin_failure(&mut frame);
        Error::other("it failed").to_wire().encode(&mut frame);
        frame::seal(&mut frame, call, Body::Inline, &[]);
        self.server.push(&frame);
    }

    /// A body is what its sender meant, if nobody has lied.
    fn expect(&self, call: CallId, body: &Arrived, expected: Option<(u8, u16)>) {
        let bytes = body.read();
        if self.is_honest {
            let (fill, len) = expected.expect("it was sent");
            assert_eq!(bytes.len(), usize::from(len), "of {call:?}");
            assert!(bytes.iter().all(|byte| *byte == fill), "another body than that of {call:?}");
        }
    }

    fn arrive(&mut self, to: Side, len: usize, loses: bool) -> Result<(), Violation> {
        let mut wire = std::mem::take(self.wire(to));
        if self.end(to).is_asleep && !wire.bytes.is_empty() {
            self.happened("a sleeper was woken");
        }
        let is_at_end = wire.bytes.is_empty() && wire.is_shut;
        let received = self.end(to).receive(&mut wire, len, loses);
        *self.wire(to) = wire;
        received?;
        self.take(to)?;
        if is_at_end && !self.end(to).receiver.has_next() {
            // As a driver does at the end of the stream.
            if let Some(taken) = self.end(to).receiver.end() {
                self.end(to).push(&frame::closing(taken));
            }
        }
        Ok(())
    }

    /// Takes the messages that are there.
    fn take(&mut self, by: Side) -> Result<(), Violation> {
        loop {
            if by == Side::Server && !self.desk.may_receive(self.server.sender.is_congested()) {
                return Ok(());
            }
            let Some(incoming) = self.end(by).receiver.next(Vec::with_capacity)? else { return Ok(()) };
            let Some(told) = self.end(by).told(incoming)? else { continue };
            match by {
                Side::Client => self.tell_client(told)?,
                Side::Server => self.tell_server(told)?,
            }
        }
    }

    fn tell_client(&mut self, told: Told) -> Result<(), Violation> {
        match told {
            Told::Body { call, payload, loans } => match self.client.arrived(payload, loans) {
                Some(reply) => self.answered(call, Ok(reply))?,
                None => self.client.push(&frame::resend(call)),
            },
            Told::Failure(call, error) => self.answered(call, Err(error))?,
            Told::Resend(call) => {
                if let Some(gone) = self.calls.reject(call)?.gone {
                    // Nobody waits for it any more.
                    self.client.take_back(&gone.body.expect("it is in a block").loans);
                }
            }
            Told::Closing(taken) => {
                self.closings += 1;
                let over = Error::new(lpc_core::ErrorKind::Disconnected, "it shuts down");
                self.calls.drain(over.clone());
                self.client.sender.peer_has_taken(taken);
                drop(self.client.sender.give_up());
                let sender = &self.client.sender;
                drop(self.calls.fail(&over, Progress::NotSent, |position| progress(sender, position)));
            }
            Told::Release(_) | Told::Cancel(_) => unreachable!("`Receiver` lets none through to a client"),
        }
        Ok(())
    }

    fn answered(&mut self, call: CallId, answer: Result<Arrived, Error>) -> Result<(), Violation> {
        // A driver does this before it takes what was lent; here a liar's loans are returned at the end.
        if let Some(answer) = self.calls.answer(call, answer)?.gone.and_then(|gone| gone.answer) {
            self.forget(call, answer);
        }
        Ok(())
    }

    fn tell_server(&mut self, told: Told) -> Result<(), Violation> {
        match told {
            Told::Body { call, payload, loans } => match self.server.arrived(payload, loans) {
                Some(arguments) => {
                    self.received.insert(call);
                    self.expect(call, &arguments, self.called.get(&call).copied());
                    let runs = self.desk.arrive(call, (), Cost::default(), (call, arguments))?;
                    self.running.extend(runs);
                }
                None => self.server.push(&frame::resend(call)),
            },
            Told::Release(call) => drop(self.desk.release(call)?),
            Told::Resend(call) => {
                let sent = self.desk.resend(call)?;
                let mut frame = Vec::new();
                frame::begin_reply(&mut frame);
                let frame = self.server.inline(frame, call, &sent);
                self.server.push(&frame);
                self.happened("a reply was sent again");
            }
            Told::Cancel(call) => {
                if let Cancelled::Waiting((call, _)) = self.desk.cancel(call) {
                    self.fail(call);
                    self.happened("a call was cancelled before it ran");
                    self.running.extend(std::iter::from_fn(|| self.desk.start_next()));
                }
            }
            Told::Failure(..) | Told::Closing(_) => unreachable!("`Receiver` lets none through to a server"),
        }
        Ok(())
    }

    /// The server receives nothing more.
    fn shut_down(&mut self) {
        if std::mem::replace(&mut self.is_shut, true) {
            return;
        }
        let says_so = self.server.entrance.close();
        self.client.wire.is_shut = true;
        if says_so {
            self.server.push(&frame::closing(0));
        }
        self.happened("the server shut down");
    }

    /// All that is on its way arrives, by what the sides tell each other alone; all is answered, read and
    /// given back.
    fn settle(&mut self) -> Result<(), Violation> {
        self.settle_once()?;
        if self.is_honest && !self.is_shut {
            // Nothing is in use, so all memory goes: what was used since the last time stays once.
            for side in [Side::Client, Side::Server] {
                self.end(side).forget_drafts();
                self.end(side).trim();
                self.end(side).trim();
            }
            self.settle_once()?;
            for end in [&self.client, &self.server] {
                assert!(end.capacity == 0 && end.view.is_empty(), "memory stays: {end:?}");
            }
        }
        Ok(())
    }

    fn settle_once(&mut self) -> Result<(), Violation> {
        for _ in 0..MANY {
            for side in [Side::Client, Side::Server] {
                self.end(side).flush();
                if !self.end(side).is_asleep {
                    self.take(side)?;
                    self.end(side).sleep();
                }
                // The end of the stream wakes, too.
                if !self.wire(side).bytes.is_empty() || self.wire(side).is_shut {
                    self.arrive(side, usize::MAX, false)?;
                }
                self.end(side).give_back(0);
            }
            while !self.running.is_empty() {
                self.answer(0, 10, None, Way::Send { len: u16::MAX, outcome: Outcome::Full })?;
            }
            self.fetch(0);
            if self.is_settled() {
                break;
            }
        }
        if self.is_honest {
            assert!(self.is_settled(), "somebody waits for ever: {self:?}");
            assert_eq!(self.closings, u32::from(self.is_shut), "the end of receiving is told once");
            self.happened("all settled");
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        let is_through = |end: &End| end.wire.bytes.is_empty() && end.borrowed.is_empty() && end.is_quiet();
        if self.is_shut {
            // What the server has not received as a whole when it goes to a ring that it does not read any
            // more is answered by the end of the connection; and a client that sends nothing more gives
            // nothing back.
            return self.closings > 0 && self.desk.is_idle() && is_through(&self.server);
        }
        let is_answered = self.callers.is_empty() && self.calls.is_empty() && self.desk.is_idle();
        let is_back = self.client.lent.is_empty() && self.server.lent.is_empty();
        is_answered && is_back && is_through(&self.client) && is_through(&self.server)
    }

    fn check(&mut self) {
        for side in [Side::Client, Side::Server] {
            let end = self.end(side);
            assert!(end.capacity <= end.limits.pool, "{} bytes of {}", end.capacity, end.limits.pool);
            let events = std::mem::take(&mut end.events);
            events.into_iter().for_each(|event| self.happened(event));
        }
    }

    /// The connection is over.
    fn hang_up(&mut self) {
        let over = Error::new(lpc_core::ErrorKind::Disconnected, "it is over");
        self.calls.end(&over);
        let sender = &self.client.sender;
        drop(self.calls.fail(&over, Progress::MayHaveRun, |position| progress(sender, position)));
        for caller in std::mem::take(&mut self.callers) {
            let fetched = self.calls.fetch(caller.call);
            let Some(Fetched::Answer(gone)) = fetched else {
                panic!("{caller:?} waits for ever: {fetched:?}")
            };
            if let Some(Err(error)) = gone.answer
                && error.progress() == Progress::NotSent
            {
                self.not_sent(&caller);
            }
        }
        assert!(self.calls.is_empty(), "{:?}", self.calls);
        drop(self.desk.end());
        self.client.hang_up();
        self.server.hang_up();
    }
}

/// How far a call got that ends there.
fn progress(sender: &EndSender, position: StreamPosition) -> Progress {
    if sender.may_have_gone(position) { Progress::MayHaveRun } else { Progress::NotSent }
}

/// Calls at once.
const MAX_CALLS: usize = 12;

/// Rounds in which all settles.
const MANY: usize = 2000;

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

fn taken_at<T>(list: &mut Vec<T>, at: u8) -> Option<T> {
    (!list.is_empty()).then(|| list.swap_remove(usize::from(at) % list.len()))
}
