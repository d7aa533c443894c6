//! [`Inbox`]: the receive half of a process: the steps of the runtime's inbox around the [`Receiver`].

use std::collections::HashMap;
use std::rc::Rc;

use lpc_core::frame::{self, BlockRef, CallId};
use lpc_core::receive::{Incoming, Payload, Receiver, Role};
use lpc_core::{Error, Limits};

use super::link::Link;
use super::network::{Descriptor, Pages, Received, Words};
use super::world::{On, Time, World};

/// Messages in a row that are taken from a ring before the holder of the receive half looks at the clock.
const BATCH: u32 = 8;

pub(crate) struct Inbox {
    world: Rc<World>,
    link: Rc<Link>,
    receiver: Receiver<Descriptor, Words, Words>,
    /// By number; `None` is one that cannot be read.
    announced: HashMap<u32, Option<Rc<Pages>>>,
    in_a_row: u32,
}

/// A message for the driver.
#[derive(Debug)]
pub(crate) enum Message {
    Call { call: CallId, time_left: Option<Time>, is_busy: bool, body: Arrived },
    Reply { call: CallId, body: Arrived },
    Failure { call: CallId, error: Error },
    Release { call: CallId },
    Resend { call: CallId },
    Cancel { call: CallId },
    Closing { taken: u64 },
}

/// A body that has arrived.
#[derive(Debug)]
pub(crate) struct Arrived {
    body: Bytes,
    /// What is lent with it, to be returned.
    pub(crate) loans: Vec<(Option<Rc<Pages>>, BlockRef)>,
}

#[derive(Debug)]
enum Bytes {
    Copied(Vec<u8>),
    Remote(Rc<Pages>, u32),
}

/// What one look at the socket brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    Some,
    Nothing,
    End,
}

/// The connection is over.
#[derive(Clone, Debug)]
pub(crate) struct Ended(pub(crate) &'static str);

impl Arrived {
    pub(crate) const fn is_mapped(&self) -> bool {
        matches!(self.body, Bytes::Remote(..))
    }

    /// Its first word.
    pub(crate) fn read(&self, world: &World) -> u64 {
        match &self.body {
            Bytes::Copied(bytes) => bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word)),
            Bytes::Remote(pages, page) => pages.read(*page).unwrap_or_else(|| {
                world.fail("memory", "a body is read after its block was given back");
                0
            }),
        }
    }
}

impl Inbox {
    pub(crate) fn new(role: Role, link: &Rc<Link>) -> Self {
        let limits = Limits { quick_lane: link.has_quick_lane, max_segments: 4, ..Limits::default() };
        Self {
            world: Rc::clone(&link.world),
            link: Rc::clone(link),
            receiver: Receiver::new(role, limits).with_entrance(std::sync::Arc::clone(&link.entrance)),
            announced: HashMap::new(),
            in_a_row: 0,
        }
    }

    /// Receives once, if there is something.
    pub(crate) fn fill(&mut self) -> Result<Filled, Ended> {
        if self.poll_ring() {
            return Ok(Filled::Some);
        }
        let space = self.receiver.space();
        match self.link.socket.receive(space) {
            Received::Nothing => Ok(Filled::Nothing),
            Received::End => {
                if self.poll_ring() {
                    return Ok(Filled::Some);
                }
                if let Some(taken) = self.receiver.end() {
                    self.link.send_now(&frame::closing(taken));
                }
                Ok(Filled::End)
            }
            Received::Bytes { len, descriptors, is_lost, .. } => {
                let received = self.receiver.received(len, descriptors, is_lost);
                received.map_err(|violation| self.violated(&violation.to_string()))?;
                Ok(Filled::Some)
            }
        }
    }

    fn poll_ring(&mut self) -> bool {
        self.in_a_row = 0;
        self.receiver.source() == lpc_core::receive::Source::Ring && self.receiver.has_next()
    }

    /// Receives once, and sleeps until there is something, or the deadline.
    pub(crate) async fn fill_within(&mut self, deadline: Option<Time>) -> Result<Filled, Ended> {
        self.world.step().await;
        let filled = self.fill()?;
        if filled != Filled::Nothing {
            return Ok(filled);
        }
        // As in a spin.
        if self.world.chance(4) {
            self.world.step().await;
            let filled = self.fill()?;
            if filled != Filled::Nothing {
                return Ok(filled);
            }
        }
        self.wait(deadline).await;
        self.fill()
    }

    /// Waits until there is something to receive, or until then.
    pub(crate) async fn wait(&mut self, until: Option<Time>) {
        self.world.step().await;
        if !self.receiver.sleep() {
            return;
        }
        let socket = self.link.socket.clone();
        let readable: Rc<dyn Fn() -> bool> = Rc::new(move || socket.is_readable());
        self.world.wait(On::Check(readable), "waits to receive", until).await;
        self.receiver.wake();
    }

    pub(crate) fn has_next(&self) -> bool {
        self.receiver.has_next()
    }

    /// What the end of the stream means.
    pub(crate) fn ended(&self) -> Ended {
        Ended(if self.receiver.is_drained() { "hung up" } else { "hung up in the middle of a message" })
    }

    pub(crate) fn next(&mut self) -> Result<Option<Message>, Ended> {
        loop {
            if self.in_a_row >= BATCH && self.receiver.source() == lpc_core::receive::Source::Ring {
                return Ok(None);
            }
            let next = self.receiver.next(Vec::with_capacity);
            let Some(incoming) = next.map_err(|violation| self.violated(&violation.to_string()))? else {
                return Ok(None);
            };
            self.in_a_row += 1;
            match incoming {
                Incoming::Segment { number, descriptor, .. } => {
                    let pages = match descriptor {
                        Some(Descriptor::Pages(pages)) if !self.world.chance(16) => Some(pages),
                        _ => {
                            self.world.say(|| format!("refuses segment {number}"));
                            self.link.enqueue_deferred(&frame::refuse(number));
                            None
                        }
                    };
                    self.announced.insert(number, pages);
                }
                Incoming::Object { .. } => return Err(self.violated("an object that nobody passed")),
                Incoming::Retire { number } => drop(self.announced.remove(&number)),
                Incoming::Return { segment, page } => self.link.returned((segment, page)),
                Incoming::Refuse { segment } => self.link.refused(segment),
                Incoming::At { .. } => {}
                Incoming::Resend { call } => return Ok(Some(Message::Resend { call })),
                Incoming::Call { call, is_busy, time_left, payload, loans, .. } => {
                    match self.arrived(payload, &loans) {
                        Some(body) => {
                            let time_left = time_left.map(|left| left.as_micros() as Time);
                            return Ok(Some(Message::Call { call, time_left, is_busy, body }));
                        }
                        None => self.link.enqueue_deferred(&frame::resend(call)),
                    }
                }
                Incoming::Reply { call, payload, loans } => match self.arrived(payload, &loans) {
                    Some(body) => return Ok(Some(Message::Reply { call, body })),
                    None => self.link.enqueue_deferred(&frame::resend(call)),
                },
                Incoming::Failure { call, error } => return Ok(Some(Message::Failure { call, error })),
                Incoming::Release { call } => return Ok(Some(Message::Release { call })),
                Incoming::Cancel { call } => return Ok(Some(Message::Cancel { call })),
                Incoming::Closing { taken } => return Ok(Some(Message::Closing { taken })),
                Incoming::Ring { descriptor } => {
                    if let Some(Descriptor::Words(words)) = descriptor
                        && !self.world.chance(16)
                    {
                        self.receiver.read_ring(self.link.take_ring(words));
                    }
                }
                Incoming::Switch => self.link.sender.borrow_mut().ring_is_mapped(),
                Incoming::Drained { taken } => self.link.send_now(&frame::closing(taken)),
            }
        }
    }

    /// `None` where it stands in memory that cannot be read.
    fn arrived(&self, payload: Payload<Vec<u8>>, loans: &[BlockRef]) -> Option<Arrived> {
        let body = match payload {
            Payload::Inline(bytes) => Bytes::Copied(bytes),
            Payload::Lost(len) => panic!("there is memory for {len} bytes"),
            Payload::Block(block) => {
                let pages = self.announced.get(&block.segment)?.clone()?;
                Bytes::Remote(pages, block.page)
            }
        };
        let pages = |loan: &BlockRef| self.announced.get(&loan.segment).cloned().flatten();
        Some(Arrived { body, loans: loans.iter().map(|loan| (pages(loan), *loan)).collect() })
    }

    /// Honest peers do not break the protocol.
    fn violated(&self, text: &str) -> Ended {
        self.world.fail("violation", text);
        Ended("broke the protocol")
    }
}
