//! What the two processes share: the socket, and memory.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;

use lpc_core::ring::{Own, Peers};

use super::world::World;

/// A descriptor: it keeps what it stands for alive.
#[derive(Clone, Debug)]
pub(crate) enum Descriptor {
    Pages(Rc<Pages>),
    Words(Words),
}

/// A segment of shared memory: of each block only its first word, by page.
#[derive(Debug, Default)]
pub(crate) struct Pages(RefCell<HashMap<u32, u64>>);

impl Pages {
    pub(crate) fn write(&self, page: u32, word: u64) {
        self.0.borrow_mut().insert(page, word);
    }

    /// `None` where nothing is that anybody may read.
    pub(crate) fn read(&self, page: u32) -> Option<u64> {
        self.0.borrow().get(&page).copied()
    }

    pub(crate) fn clear(&self, page: u32) {
        self.0.borrow_mut().remove(&page);
    }
}

/// Slots of the rings: few, so that they are full often, and one more than the largest frame takes.
pub(crate) const SLOTS: u64 = 32;

/// One side's memory of the quick lane.
#[derive(Clone, Debug)]
pub(crate) struct Words(Rc<[Cell<u64>]>);

impl Words {
    pub(crate) fn new() -> Self {
        Self((0..(4096 + SLOTS as usize * 256) / 8).map(|_| Cell::new(0)).collect())
    }
}

impl Own for Words {
    fn write(&self, offset: usize, bytes: &[u8]) {
        for (word, bytes) in self.0[offset / 8..].iter().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            word.set(u64::from_le_bytes(whole));
        }
    }

    fn store(&self, offset: usize, value: u64) {
        self.0[offset / 8].set(value);
    }

    fn fence(&self) {}
}

impl Peers for Words {
    fn read(&self, offset: usize, into: &mut [u8]) {
        for (word, bytes) in self.0[offset / 8..].iter().zip(into.chunks_mut(8)) {
            bytes.copy_from_slice(&word.get().to_le_bytes()[..bytes.len()]);
        }
    }

    fn load(&self, offset: usize) -> u64 {
        self.0[offset / 8].get()
    }
}

/// One direction of a connected pair of sockets.
#[derive(Debug, Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    /// Each with the bytes that were sent with it, counted since the beginning.
    descriptors: VecDeque<(Range<u64>, Descriptor)>,
    read: u64,
    capacity: usize,
    /// No more is sent.
    is_ended: bool,
    /// No more is received.
    is_unread: bool,
}

/// One end of a connected pair.
#[derive(Clone)]
pub(crate) struct Socket {
    world: Rc<World>,
    out: Rc<RefCell<Pipe>>,
    input: Rc<RefCell<Pipe>>,
    pub(crate) passes: Passes,
}

/// Which descriptors the system passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passes {
    All,
    Some,
    None,
}

/// Why nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// The buffer is full.
    Full,
    /// The system has no means for it.
    Short,
    /// Nobody receives.
    Broken,
}

/// What was received.
pub(crate) enum Received {
    Nothing,
    End,
    Bytes { len: usize, descriptors: Vec<Descriptor>, is_lost: bool },
}

impl Socket {
    /// A connected pair that holds so many bytes in each direction.
    pub(crate) fn pair(world: &Rc<World>, capacity: [usize; 2], passes: Passes) -> [Self; 2] {
        let [one, two] = capacity.map(|capacity| Rc::new(RefCell::new(Pipe { capacity, ..Pipe::default() })));
        let socket = |out: &Rc<RefCell<Pipe>>, input: &Rc<RefCell<Pipe>>| {
            let (out, input) = (Rc::clone(out), Rc::clone(input));
            Self { world: Rc::clone(world), out, input, passes }
        };
        [socket(&one, &two), socket(&two, &one)]
    }

    /// Whether the system has no means for the next descriptor.
    fn loses(&self) -> bool {
        match self.passes {
            Passes::All => false,
            Passes::Some => self.world.chance(3),
            Passes::None => true,
        }
    }

    /// Sends some of `bytes`: as many as fit in, or fewer.
    pub(crate) fn send(&self, bytes: &[u8], descriptor: Option<&Descriptor>) -> Result<usize, Unsent> {
        let mut out = self.out.borrow_mut();
        if out.is_unread || out.is_ended {
            return Err(Unsent::Broken);
        }
        let room = out.capacity.saturating_sub(out.bytes.len()).min(bytes.len());
        if room == 0 {
            return Err(Unsent::Full);
        }
        if descriptor.is_some() && self.loses() {
            self.world.say(|| "the system does not pass a descriptor".into());
            return Err(Unsent::Short);
        }
        // All, if nothing is chosen.
        let len = room - if self.world.chance(3) { self.world.pick(room) } else { 0 };
        if let Some(descriptor) = descriptor {
            let start = out.read + out.bytes.len() as u64;
            out.descriptors.push_back((start..start + len as u64, descriptor.clone()));
        }
        out.bytes.extend(&bytes[..len]);
        self.world.say(|| format!("sends {len} bytes of {}", bytes.len()));
        Ok(len)
    }

    /// Receives what is there, or the beginning of it, and nothing beyond bytes that came with a descriptor.
    pub(crate) fn receive(&self, space: &mut [u8]) -> Received {
        let mut input = self.input.borrow_mut();
        if input.bytes.is_empty() {
            return if input.is_ended || input.is_unread { Received::End } else { Received::Nothing };
        }
        let there = input.bytes.len().min(space.len());
        let mut len = there - if self.world.chance(3) { self.world.pick(there) } else { 0 };
        let mut descriptors = Vec::new();
        let start = input.read;
        if let Some((with, _)) = input.descriptors.front().filter(|(with, _)| with.start < start + len as u64)
        {
            len = len.min((with.end - start) as usize);
            descriptors.extend(input.descriptors.pop_front().map(|(_, descriptor)| descriptor));
        }
        for (to, from) in space.iter_mut().zip(input.bytes.drain(..len)) {
            *to = from;
        }
        input.read += len as u64;
        let is_lost = !descriptors.is_empty() && self.loses() && descriptors.pop().is_some();
        self.world
            .say(|| format!("receives {len} bytes{}", if is_lost { ", but not the descriptor" } else { "" }));
        Received::Bytes { len, descriptors, is_lost }
    }

    /// Whether a receive would give something, or the end.
    pub(crate) fn is_readable(&self) -> bool {
        let input = self.input.borrow();
        !input.bytes.is_empty() || input.is_ended || input.is_unread
    }

    /// Whether a send would take something, or fail.
    pub(crate) fn is_writable(&self) -> bool {
        let out = self.out.borrow();
        out.bytes.len() < out.capacity || out.is_unread || out.is_ended
    }

    /// Whether the other end neither sends nor receives any more.
    pub(crate) fn is_hung_up(&self) -> bool {
        self.input.borrow().is_ended && self.out.borrow().is_unread
    }

    pub(crate) fn stop_sending(&self) {
        self.out.borrow_mut().is_ended = true;
    }

    pub(crate) fn stop_receiving(&self) {
        self.input.borrow_mut().is_unread = true;
    }

    pub(crate) fn close(&self) {
        self.stop_sending();
        self.stop_receiving();
    }
}
