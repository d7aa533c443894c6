//! Every rule about what a peer may say, for both roles: one by one, and with streams of chance.
#![allow(clippy::unwrap_used, reason = "a test")]

mod buffer;
mod descriptors;
mod frames;
mod memory;
#[path = "../support/memory.rs"]
mod memory_of_ring;
mod quick_lane;
mod streams;

use std::collections::BTreeMap;
use std::time::Duration;

use lpc_core::arena::PAGE;
use lpc_core::error::{Error, ErrorKind, Progress};
use lpc_core::frame::{self, BadHeader, BlockRef, Body, CallId, Kind, MAX_LOANS, MAX_TABLE, OBJECT};
use lpc_core::limits::Limits;
use lpc_core::receive::{Incoming, MAX_FAILURE, Payload, Receiver, Role, Violation};
use proptest::prelude::*;
use proptest::sample::Index;

const CALL: u8 = Kind::Call as u8;
const REPLY: u8 = Kind::Reply as u8;
const FAILURE: u8 = Kind::Failure as u8;
const SEGMENT: u8 = Kind::Segment as u8;
const RELEASE: u8 = Kind::Release as u8;
const RETIRE: u8 = Kind::Retire as u8;
const RETURN: u8 = Kind::Return as u8;
const RESEND: u8 = Kind::Resend as u8;
const CANCEL: u8 = Kind::Cancel as u8;
const CLOSING: u8 = Kind::Closing as u8;
const AT: u8 = Kind::At as u8;

const MAPPED: u8 = 1;
const BUSY: u8 = 2;
const LOANS: u8 = 4;
const DEADLINE: u8 = 8;
const WITHOUT: u8 = 16;

const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// What the buffer has beyond twice the bytes that arrived.
const CONSTANT: usize = 64 << 10;

fn limits() -> Limits {
    Limits {
        max_message: 1 << 20,
        pool: 1 << 20,
        max_segments: 16,
        max_objects: 8,
        lent: 1 << 30,
        ..Limits::default()
    }
}

/// The kind of frame with a body that a side in this role gets.
fn bodied(role: Role) -> u8 {
    match role {
        Role::Client => REPLY,
        Role::Server => CALL,
    }
}

/// The sixteen bytes of a header, whatever they say.
fn header(len: u32, kind: u8, flags: u8, method: u16, call: u64) -> Vec<u8> {
    let mut bytes = len.to_le_bytes().to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(method.to_le_bytes());
    bytes.extend(call.to_le_bytes());
    bytes
}

/// A frame whose length is that of its body.
fn raw(kind: u8, flags: u8, call: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = header(body.len() as u32, kind, flags, 0, call);
    bytes.extend_from_slice(body);
    bytes
}

fn mapped(role: Role, segment: u32, page: u32, len: u64) -> Vec<u8> {
    raw(bodied(role), MAPPED, 1, &BlockRef { segment, page, len }.encode())
}

/// A frame with a body of its kind and a table of these loans, which says that there are so many.
fn lending(role: Role, body: &[u8], loans: &[BlockRef], count: u16) -> Vec<u8> {
    let mut bytes = body.to_vec();
    bytes.extend(loans.iter().flat_map(BlockRef::encode));
    bytes.extend(count.to_le_bytes());
    raw(bodied(role), LOANS, 1, &bytes)
}

const fn block(segment: u32, page: u32, len: u64) -> BlockRef {
    BlockRef { segment, page, len }
}

fn failure(call: u64, error: &Error) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::begin_failure(&mut bytes);
    error.to_wire().encode(&mut bytes);
    frame::seal(&mut bytes, CallId::new(call), Body::Inline, &[]);
    bytes
}

/// A message that was taken out of its receiver.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Call { call: u64, method: u16, body: SeenBody, loans: Vec<BlockRef> },
    Reply { call: u64, body: SeenBody, loans: Vec<BlockRef> },
    Failure { call: u64, kind: ErrorKind, progress: Progress, message: String },
    Segment { number: u32, len: u64, descriptor: Option<u32> },
    Object { number: u32, offset: u64, len: u64, descriptor: Option<u32> },
    Retire { number: u32 },
    Release { call: u64 },
    Return { segment: u32, page: u32 },
    Refuse { segment: u32 },
    Resend { call: u64 },
    Cancel { call: u64 },
    Closing { taken: u64 },
    Ring { descriptor: Option<u32> },
    Switch,
    Drained { taken: u64 },
    At { cpu: u64 },
}

#[derive(Clone, Debug, PartialEq)]
enum SeenBody {
    Inline(Vec<u8>),
    Block(BlockRef),
}

impl From<Incoming<u32, Vec<u8>>> for Seen {
    fn from(incoming: Incoming<u32, Vec<u8>>) -> Self {
        match incoming {
            Incoming::Call { call, method, payload, loans, .. } => {
                Self::Call { call: call.as_u64(), method, body: payload.into(), loans }
            }
            Incoming::Reply { call, payload, loans } => {
                Self::Reply { call: call.as_u64(), body: payload.into(), loans }
            }
            Incoming::Failure { call, error } => Self::Failure {
                call: call.as_u64(),
                kind: error.kind(),
                progress: error.progress(),
                message: error.to_string(),
            },
            Incoming::Segment { number, len, descriptor } => Self::Segment { number, len, descriptor },
            Incoming::Object { number, offset, len, descriptor } => {
                Self::Object { number, offset, len, descriptor }
            }
            Incoming::Retire { number } => Self::Retire { number },
            Incoming::Release { call } => Self::Release { call: call.as_u64() },
            Incoming::Return { segment, page } => Self::Return { segment, page },
            Incoming::Refuse { segment } => Self::Refuse { segment },
            Incoming::Resend { call } => Self::Resend { call: call.as_u64() },
            Incoming::Cancel { call } => Self::Cancel { call: call.as_u64() },
            Incoming::Closing { taken } => Self::Closing { taken },
            Incoming::Ring { descriptor } => Self::Ring { descriptor },
            Incoming::Switch => Self::Switch,
            Incoming::Drained { taken } => Self::Drained { taken },
            Incoming::At { cpu } => Self::At { cpu },
        }
    }
}

impl From<Payload<Vec<u8>>> for SeenBody {
    fn from(payload: Payload<Vec<u8>>) -> Self {
        match payload {
            Payload::Inline(bytes) => Self::Inline(bytes),
            Payload::Block(block) => Self::Block(block),
            Payload::Lost(len) => panic!("there is memory for {len} bytes"),
        }
    }
}

/// A driver's part, and a watch on what every receiver guarantees.
struct Driver {
    receiver: Receiver<u32>,
    limits: Limits,
    arrived: usize,
    seen: Vec<Seen>,
    /// The sizes of segments and objects, by number.
    announced: BTreeMap<u32, u64>,
}

impl Driver {
    fn new(role: Role, limits: Limits) -> Self {
        Self {
            receiver: Receiver::new(role, limits),
            limits,
            arrived: 0,
            seen: Vec::new(),
            announced: BTreeMap::new(),
        }
    }

    /// Receives as many of `bytes` as there is space for and says how many.
    fn receive(&mut self, bytes: &[u8], descriptors: &[u32]) -> Result<usize, Violation> {
        self.receive_or_lose(bytes, descriptors, false)
    }

    /// The same, where the system may have lost a descriptor.
    fn receive_or_lose(&mut self, bytes: &[u8], descriptors: &[u32], lost: bool) -> Result<usize, Violation> {
        let space = self.receiver.space();
        assert!(!space.is_empty(), "there is always space");
        assert!(
            space.len() <= 2 * self.arrived + CONSTANT,
            "{} bytes of space for {} that arrived",
            space.len(),
            self.arrived
        );
        let len = bytes.len().min(space.len());
        space[..len].copy_from_slice(&bytes[..len]);
        self.arrived += len;
        self.receiver.received(len, descriptors.iter().copied(), lost)?;
        Ok(len)
    }

    /// Takes all messages that are there.
    fn drain(&mut self) -> Result<(), Violation> {
        loop {
            let has_next = self.receiver.has_next();
            let Some(incoming) = self.receiver.next(Vec::with_capacity)? else {
                assert!(!has_next, "a frame is there and was not given");
                return Ok(());
            };
            assert!(has_next, "a frame was given that is not there");
            let seen = Seen::from(incoming);
            match &seen {
                Seen::Segment { number, len, .. } | Seen::Object { number, len, .. } => {
                    assert_eq!(number & OBJECT != 0, matches!(seen, Seen::Object { .. }));
                    assert!(self.announced.insert(*number, *len).is_none(), "{number} is there already");
                    let sum = |objects: bool| -> u64 {
                        let of_kind = self.announced.iter().filter(|(n, _)| (*n & OBJECT != 0) == objects);
                        of_kind.map(|(_, len)| len).sum()
                    };
                    assert!(sum(false) <= self.limits.pool && sum(true) <= self.limits.lent);
                }
                Seen::Retire { number } => assert!(self.announced.remove(number).is_some()),
                Seen::Call { body, loans, .. } | Seen::Reply { body, loans, .. } => {
                    assert!(loans.len() <= MAX_LOANS);
                    if let SeenBody::Block(block) = body {
                        assert!(block.segment & OBJECT == 0, "a body in an object");
                        assert!(block.len <= self.limits.max_message);
                        self.check(block);
                    }
                    loans.iter().for_each(|loan| self.check(loan));
                }
                _ => {}
            }
            self.seen.push(seen);
        }
    }

    fn check(&self, block: &BlockRef) {
        let size = self.announced.get(&block.segment);
        let end = u64::from(block.page).checked_mul(PAGE).unwrap().checked_add(block.len);
        assert!(size.zip(end).is_some_and(|(size, end)| end <= *size), "{block:?} is outside");
    }

    /// Receives all of `bytes`, the descriptors with the first of them, and takes the messages.
    fn feed(&mut self, mut bytes: &[u8], descriptors: &[u32]) -> Result<(), Violation> {
        let mut descriptors = descriptors;
        while !bytes.is_empty() {
            let len = self.receive(bytes, std::mem::take(&mut descriptors))?;
            bytes = &bytes[len..];
            self.drain()?;
        }
        Ok(())
    }

    /// Announces a segment of this many pages, as an honest peer does.
    fn segment(&mut self, pages: u64) {
        let number = (0..).find(|number| !self.announced.contains_key(number)).unwrap();
        self.feed(&frame::segment(number, pages * PAGE), &[number]).unwrap();
    }

    /// Announces an object of these many bytes, as an honest peer does.
    fn object(&mut self, len: u64) {
        let number = (OBJECT..).find(|number| !self.announced.contains_key(number)).unwrap();
        self.feed(&frame::object(number, 0, len), &[number]).unwrap();
    }

    fn retire(&mut self, number: u32) {
        self.feed(&frame::retire(number), &[]).unwrap();
    }
}

/// What comes of these bytes: the messages before a violation are fine too.
fn fed(role: Role, bytes: &[u8], descriptors: &[u32]) -> Result<Vec<Seen>, Violation> {
    let mut driver = Driver::new(role, limits());
    driver.feed(bytes, descriptors).map(|()| driver.seen)
}

fn refused(role: Role, bytes: &[u8]) -> Violation {
    fed(role, bytes, &[]).expect_err("the peer broke a rule")
}
