//! [`Objects`]: the frozen memory and files that a connection's peer knows by number.

use std::sync::Arc;

use lpc_core::Limits;
use lpc_core::frame::OBJECT;

use crate::connection::passing::Passage;
use crate::memory::peer::Object;

/// What was announced to one peer. Announced once, an object is then only named; those that were not named
/// for longest make room for others.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    /// By number.
    slots: Vec<Option<Known>>,
    /// Bytes of all.
    len: u64,
    /// Counts uses.
    clock: u64,
}

#[derive(Debug)]
struct Known {
    /// Tells objects apart. An object says good-bye before another can have its address.
    address: usize,
    len: u64,
    used: u64,
    /// Shared by the messages that name it and are not sent yet.
    pin: Pin,
}

/// The address of no object.
const NOWHERE: usize = 0;

/// Keeps an object's number as long as it lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pin {
    held: Arc<()>,
    passage: Arc<Passage>,
}

impl Pin {
    /// Whether the peer got what it was told of by this number.
    pub(crate) fn passage(&self) -> &Arc<Passage> {
        &self.passage
    }
}

impl Objects {
    /// The number of an object that the peer knows.
    pub(crate) fn known(&mut self, object: &Arc<Object>) -> Option<(u32, Pin)> {
        self.clock += 1;
        let address = Arc::as_ptr(object).addr();
        let mut known = (0..).zip(self.slots.iter_mut().map(Option::as_mut));
        let (slot, known) = known.find_map(|(slot, known)| {
            known.filter(|known| known.address == address).map(|known| (slot, known))
        })?;
        known.used = self.clock;
        Some((OBJECT | slot, known.pin.clone()))
    }

    /// Adds an object that the peer does not know. `None` where the limits leave no room for it. The peer has
    /// to be told, in either case and first, that those in `retired` are not used any more, which were to
    /// make room.
    pub(crate) fn add(
        &mut self,
        object: &Arc<Object>,
        limits: &Limits,
        retired: &mut Vec<u32>,
    ) -> Option<(u32, Pin)> {
        if object.len() > limits.lent {
            return None;
        }
        let slot = loop {
            let has_room = self.len.checked_add(object.len()).is_some_and(|sum| sum <= limits.lent);
            if has_room && let Some(slot) = self.free(limits.max_objects as usize) {
                break slot;
            }
            retired.push(self.retire_oldest()?);
        };
        self.clock += 1;
        let (address, pin) = (Arc::as_ptr(object).addr(), Pin::default());
        self.slots[slot] = Some(Known { address, len: object.len(), used: self.clock, pin: pin.clone() });
        self.len += object.len();
        Some((OBJECT | slot as u32, pin))
    }

    /// Forgets an object that is being dropped; whether the peer knew it by this number.
    pub(crate) fn forget(&mut self, object: &Object, number: u32) -> bool {
        let Some(slot) = self.slots.get_mut((number & !OBJECT) as usize) else { return false };
        if slot.as_ref().is_none_or(|known| known.address != std::ptr::from_ref(object).addr()) {
            return false;
        }
        self.len -= slot.take().map_or(0, |known| known.len);
        true
    }

    /// The peer was told of this number, and got nothing by it. Whatever names it already does so in vain;
    /// nothing else will, and it makes room before all others.
    pub(crate) fn lose(&mut self, number: u32) {
        let slot = self.slots.get_mut((number & !OBJECT) as usize);
        if let Some(known) = slot.and_then(Option::as_mut) {
            (known.address, known.used) = (NOWHERE, 0);
        }
    }

    fn free(&mut self, max: usize) -> Option<usize> {
        if let Some(slot) = self.slots.iter().position(Option::is_none) {
            return Some(slot);
        }
        if self.slots.len() >= max {
            return None;
        }
        self.slots.push(None);
        Some(self.slots.len() - 1)
    }

    fn retire_oldest(&mut self) -> Option<u32> {
        let known = |slot: usize| self.slots[slot].as_ref();
        let unpinned =
            |slot: &usize| known(*slot).is_some_and(|known| Arc::strong_count(&known.pin.held) == 1);
        let oldest =
            (0..self.slots.len()).filter(unpinned).min_by_key(|slot| known(*slot).map(|known| known.used))?;
        self.len -= self.slots[oldest].take().map_or(0, |known| known.len);
        Some(OBJECT | oldest as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mapping::Draft;

    fn object(len: usize) -> Arc<Object> {
        Object::of_file(Draft::new(len).unwrap().freeze().unwrap(), 0, len as u64).unwrap()
    }

    #[test]
    fn an_object_is_announced_once_and_the_oldest_makes_room() {
        let limits = Limits { max_objects: 2, lent: 10_000, ..Limits::default() };
        let mut objects = Objects::default();
        let mut retired = Vec::new();
        let (a, b, c) = (object(1000), object(1000), object(1000));
        assert!(objects.known(&a).is_none());
        assert!(matches!(objects.add(&a, &limits, &mut retired), Some((OBJECT, _))));
        assert!(objects.add(&b, &limits, &mut retired).is_some());
        assert!(matches!(objects.known(&a), Some((OBJECT, _))));
        assert!(retired.is_empty());
        let pinned = objects.add(&c, &limits, &mut retired).unwrap();
        assert_eq!((pinned.0, &*retired), (OBJECT | 1, &[OBJECT | 1][..]));
        // Both that are left are about to be sent: their numbers have to stay.
        let other = objects.known(&a).unwrap();
        assert!(objects.known(&b).is_none() && objects.add(&b, &limits, &mut retired).is_none());
        drop((pinned, other));
        assert!(objects.add(&b, &limits, &mut retired).is_some());
        assert_eq!(retired, [OBJECT | 1, OBJECT | 1]);
    }

    #[test]
    fn an_object_that_did_not_arrive_is_announced_again_and_its_number_makes_room_first() {
        let limits = Limits { max_objects: 2, lent: 10_000, ..Limits::default() };
        let mut objects = Objects::default();
        let mut retired = Vec::new();
        let (a, b) = (object(1000), object(1000));
        drop(objects.add(&b, &limits, &mut retired).unwrap());
        let (lost, pin) = objects.add(&a, &limits, &mut retired).unwrap();
        objects.lose(lost);
        assert!(objects.known(&a).is_none());
        assert!(!objects.forget(&a, lost), "the number goes with another");
        let _named = objects.known(&b).unwrap();
        assert!(objects.add(&a, &limits, &mut retired).is_none(), "a message that is not sent names it");
        drop(pin);
        let (again, _pin) = objects.add(&a, &limits, &mut retired).unwrap();
        assert_eq!((again, &*retired), (lost, &[lost][..]));
    }

    #[test]
    fn what_is_too_long_is_not_announced_and_what_is_dropped_makes_room() {
        let limits = Limits { max_objects: 9, lent: 2000, ..Limits::default() };
        let mut objects = Objects::default();
        let mut retired = Vec::new();
        assert!(objects.add(&object(2001), &limits, &mut retired).is_none());
        let (small, a, b) = (object(400), object(1500), object(1500));
        objects.add(&small, &limits, &mut retired).unwrap();
        let (number, _pin) = objects.add(&a, &limits, &mut retired).unwrap();
        assert!(objects.add(&b, &limits, &mut retired).is_none(), "pinned");
        assert_eq!(retired, [OBJECT], "it made room in vain, and is gone all the same");
        assert!(!objects.forget(&b, number));
        assert!(objects.forget(&a, number));
        assert!(!objects.forget(&a, number));
        assert!(objects.add(&b, &limits, &mut retired).is_some());
    }
}
