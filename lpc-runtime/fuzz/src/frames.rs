//! Whatever a peer sends, a [`Receiver`] gives out nothing that it should not, and holds no more than
//! arrived.

use std::collections::BTreeMap;

use lpc_core::Limits;
use lpc_core::arena::PAGE;
use lpc_core::frame::{BlockRef, Header, MAX_LOANS, OBJECT};
use lpc_core::receive::{Incoming, Payload, Receiver, Role, Source, Violation};
use lpc_core::ring::{Consumer, MAX_FRAME, Producer, SLOTS};

use super::pair::memory::Memory;
use super::pieces::{Piece, pieces};

/// A byte that chooses the role and the limits, then pieces.
pub fn run(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let role = if choice & 1 == 0 { Role::Server } else { Role::Client };
    let limits = if choice & 2 == 0 { Limits::default() } else { NARROW };
    let mut peer = Peer::new(role, limits);
    let _ = pieces(data).try_for_each(|piece| peer.receive(&piece));
    // What comes without descriptors means the same, in whatever pieces it comes.
    if pieces(data).all(|piece| piece.descriptors == 0 && !piece.is_lossy) {
        let bytes: Vec<u8> = pieces(data).flat_map(|piece| piece.bytes).copied().collect();
        for len in [1, bytes.len().max(1)] {
            let mut other = Peer::new(role, limits);
            let pieces = bytes.chunks(len).map(|bytes| Piece { bytes, descriptors: 0, is_lossy: false });
            let _ = pieces.into_iter().try_for_each(|piece| other.receive(&piece));
            assert_eq!(other.messages, peer.messages, "in pieces of {len} bytes");
        }
    }
    if let Some(bytes) = data.first_chunk()
        && let Ok(header) = Header::decode(bytes)
    {
        assert_eq!(header.encode(), *bytes);
    }
}

/// Limits that a few frames reach.
const NARROW: Limits = Limits {
    max_depth: 20,
    max_message: 100,
    pool: 8 * PAGE,
    max_segments: 3,
    max_blocks: 10,
    max_objects: 2,
    lent: 1000,
    max_calls: 10,
    quick_lane: true,
};

/// Room that a receiver has without anything having arrived.
const BUFFER: usize = 32 << 10;

/// A receiver, and what is known of what it was given and gave.
struct Peer {
    receiver: Receiver<u32, Memory, Memory>,
    /// The sending end of the ring that it reads.
    ring: Producer<Memory, Memory>,
    consumer: Option<Consumer<Memory, Memory>>,
    limits: Limits,
    arrived: usize,
    /// The next descriptor's number.
    next: u32,
    /// The least number that may be given out next.
    due: u32,
    announced: BTreeMap<u32, u64>,
    /// There are frames that are no messages: those that say where the next one comes from.
    has_ring: bool,
    messages: Vec<String>,
}

impl Peer {
    fn new(role: Role, limits: Limits) -> Self {
        let (own, peers) = (Memory::new(), Memory::new());
        Self {
            receiver: Receiver::new(role, limits),
            ring: Producer::new(peers.clone(), own.clone(), SLOTS),
            consumer: Some(Consumer::new(own, peers, SLOTS)),
            limits,
            arrived: 0,
            next: 0,
            due: 0,
            announced: BTreeMap::new(),
            has_ring: false,
            messages: Vec::new(),
        }
    }

    fn receive(&mut self, piece: &Piece<'_>) -> Result<(), Violation> {
        let mut descriptors = self.next..self.next + u32::from(piece.descriptors);
        self.next = descriptors.end;
        let mut is_lossy = piece.is_lossy;
        let mut bytes = piece.bytes;
        while !bytes.is_empty() {
            // As from the peer's ring, where that is what is read and there is a frame for it.
            if self.receiver.source() == Source::Ring
                && let Some(frame) = frame_in(bytes)
            {
                assert_eq!(self.ring.put(frame), Ok(true), "all that was in it was taken");
                bytes = &bytes[frame.len()..];
                if let Err(violation) = self.take() {
                    self.messages.push(violation.to_string());
                    return Err(violation);
                }
                continue;
            }
            let space = self.receiver.space();
            let most = BUFFER.max(2 * self.arrived) + 1;
            assert!((1..=most).contains(&space.len()), "{} bytes of room for {}", space.len(), self.arrived);
            let (now, rest) = bytes.split_at(bytes.len().min(space.len()));
            space[..now.len()].copy_from_slice(now);
            bytes = rest;
            self.arrived += now.len();
            let received =
                self.receiver.received(now.len(), descriptors.by_ref(), std::mem::take(&mut is_lossy));
            if let Err(violation) = received.and_then(|()| self.take()) {
                self.messages.push(violation.to_string());
                return Err(violation);
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Result<(), Violation> {
        let Self { receiver, limits, next, due, announced, has_ring, consumer, messages, .. } = self;
        loop {
            let has_next = receiver.has_next();
            let Some(incoming) = receiver.next(Vec::with_capacity)? else {
                assert!(!has_next || *has_ring, "it said that it has one");
                return Ok(());
            };
            messages.push(format!("{incoming:?}"));
            match incoming {
                Incoming::Call { payload, loans, .. } | Incoming::Reply { payload, loans, .. } => {
                    let len = match payload {
                        Payload::Inline(bytes) => bytes.len() as u64,
                        Payload::Lost(len) => len,
                        Payload::Block(block) => {
                            assert!(block.segment & OBJECT == 0 && is_inside(&block, announced), "{block:?}");
                            block.len
                        }
                    };
                    assert!(len <= limits.max_message && loans.len() <= MAX_LOANS);
                    assert!(loans.iter().all(|loan| is_inside(loan, announced)), "{loans:?}");
                }
                Incoming::Segment { number, len, descriptor }
                | Incoming::Object { number, len, descriptor, .. } => {
                    assert!(announced.insert(number, len).is_none(), "{number} is there already");
                    let sum = |is_object| -> u64 {
                        let ours =
                            announced.iter().filter(|(number, _)| (**number & OBJECT != 0) == is_object);
                        ours.map(|(_, len)| len).sum()
                    };
                    assert!(sum(false) <= limits.pool && sum(true) <= limits.lent);
                    if let Some(descriptor) = descriptor {
                        assert!((*due..*next).contains(&descriptor), "{descriptor} is given out twice");
                        *due = descriptor + 1;
                    }
                }
                Incoming::Ring { descriptor } => {
                    assert!(limits.quick_lane);
                    if let Some(descriptor) = descriptor {
                        assert!((*due..*next).contains(&descriptor), "{descriptor} is given out twice");
                        *due = descriptor + 1;
                    }
                    receiver.read_ring(consumer.take().expect("a ring is announced once"));
                    *has_ring = true;
                }
                Incoming::Retire { number } => assert!(announced.remove(&number).is_some()),
                Incoming::Return { segment, .. } => assert!(segment & OBJECT == 0),
                _ => {}
            }
        }
    }
}

/// The frame that these bytes begin with, if a ring can hold it.
fn frame_in(bytes: &[u8]) -> Option<&[u8]> {
    let len = u32::from_le_bytes(*bytes.first_chunk()?) as usize + Header::LEN;
    bytes.get(..len).filter(|frame| frame.len() <= MAX_FRAME)
}

fn is_inside(block: &BlockRef, announced: &BTreeMap<u32, u64>) -> bool {
    let end = u128::from(block.page) * u128::from(PAGE) + u128::from(block.len);
    announced.get(&block.segment).is_some_and(|len| end <= u128::from(*len))
}
