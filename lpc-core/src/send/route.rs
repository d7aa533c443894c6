//! [`Route`]: whether the next frame goes through the socket or the ring of the quick lane.
//!
//! All that one side sends is one sequence of frames. Switch says where it goes on, Aside that one frame of
//! it comes through the socket; see [`frame`](crate::frame).

use crate::frame;
use crate::ring::{MAX_FRAME, Own, Peers, Producer, RingViolation};

#[derive(Debug)]
pub(super) enum Route<O, P> {
    /// There is no ring.
    Socket,
    /// This side's memory was announced, and the peer's has not come yet.
    Offered(O),
    /// Both are there.
    Ring(Ring<O, P>),
}

#[derive(Debug)]
pub(super) struct Ring<O, P> {
    producer: Producer<O, P>,
    stage: Stage,
}

/// How far the two sides have come with the ring of what this side sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The peer was told of it.
    Announced,
    /// The peer has mapped it. The next frame goes through the socket.
    Mapped,
    /// The next frame goes into it.
    On,
}

/// Where a frame belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// The sequence goes on in the ring: a Switch has to go through the socket.
    pub(super) is_switched: bool,
    /// The frame was put into the ring and ends there, among its slots; otherwise it is the next one in the
    /// socket.
    pub(super) in_ring: Option<u64>,
}

impl Placed {
    const SOCKET: Self = Self { is_switched: false, in_ring: None };
}

impl<O: Own, P: Peers> Route<O, P> {
    /// Takes what this side offered.
    pub(super) fn take_offered(&mut self) -> Option<O> {
        match std::mem::replace(self, Self::Socket) {
            Self::Offered(own) => Some(own),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Takes the ring, if there is one; from now on there is none.
    pub(super) fn forget(&mut self) -> Option<Producer<O, P>> {
        match std::mem::replace(self, Self::Socket) {
            Self::Ring(ring) => Some(ring.producer),
            Self::Socket | Self::Offered(_) => None,
        }
    }

    pub(super) fn use_ring(&mut self, producer: Producer<O, P>, is_mapped: bool) {
        let stage = if is_mapped { Stage::Mapped } else { Stage::Announced };
        *self = Self::Ring(Ring { producer, stage });
    }

    /// The peer has mapped this side's memory.
    pub(super) fn is_mapped(&mut self) {
        if let Self::Ring(Ring { stage: stage @ Stage::Announced, .. }) = self {
            *stage = Stage::Mapped;
        }
    }

    /// Whether frames go into the ring at the moment.
    pub(super) const fn is_in_ring(&self) -> bool {
        matches!(self, Self::Ring(Ring { stage: Stage::On, .. }))
    }

    /// The ring, if the next frame goes there.
    #[inline]
    pub(super) const fn ring(&mut self) -> Option<&mut Producer<O, P>> {
        match self {
            Self::Ring(Ring { producer, stage: Stage::On }) => Some(producer),
            _ => None,
        }
    }

    /// The same, to look at.
    pub(super) const fn ring_if_on(&self) -> Option<&Producer<O, P>> {
        match self {
            Self::Ring(Ring { producer, stage: Stage::On }) => Some(producer),
            _ => None,
        }
    }

    /// Slots of the ring that a peer which is gone has taken, if there is a ring.
    pub(super) fn last_taken(&self) -> Option<u64> {
        match self {
            Self::Ring(ring) => ring.producer.last_taken(),
            Self::Socket | Self::Offered(_) => None,
        }
    }

    /// Whether the peer sleeps and has something in the ring. Says so once for each sleep.
    pub(super) fn needs_bell(&mut self) -> bool {
        match self {
            Self::Ring(ring) => ring.producer.has_to_wake(),
            Self::Socket | Self::Offered(_) => false,
        }
    }

    /// Puts a frame into the ring, if it can go there; otherwise says there, if need be, that the socket is
    /// where to look.
    ///
    /// # Errors
    ///
    /// What the peer says of the ring cannot be.
    #[inline]
    pub(super) fn place(
        &mut self,
        frame: &[u8],
        brings_descriptor: bool,
        socket_is_idle: bool,
    ) -> Result<Placed, RingViolation> {
        match self {
            Self::Ring(ring) => ring.place(frame, brings_descriptor, socket_is_idle),
            Self::Socket | Self::Offered(_) => Ok(Placed::SOCKET),
        }
    }
}

impl<O: Own, P: Peers> Ring<O, P> {
    /// The sequence enters the ring only when the socket is idle and the ring is empty: so it does not go
    /// back and forth while the peer is busy.
    fn place(
        &mut self,
        frame: &[u8],
        brings_descriptor: bool,
        socket_is_idle: bool,
    ) -> Result<Placed, RingViolation> {
        let fits = !brings_descriptor && frame.len() <= MAX_FRAME;
        let mut placed = Placed::SOCKET;
        if self.stage != Stage::On {
            let may_enter = self.stage == Stage::Mapped && fits && socket_is_idle;
            if !may_enter || !self.producer.is_empty()? {
                return Ok(placed);
            }
            self.stage = Stage::On;
            placed.is_switched = true;
        }
        if fits && self.producer.put(frame)? {
            placed.in_ring = Some(self.producer.written());
            return Ok(placed);
        }
        // One frame through the socket; all, where there is no room for more.
        if fits || !self.producer.put(&frame::aside())? {
            self.producer.put_last(&frame::switch())?;
            self.stage = Stage::Mapped;
        }
        Ok(placed)
    }
}
