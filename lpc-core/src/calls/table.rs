//! [`Table`]: a place for each call, named by an id that is not used again for long.

use crate::frame::CallId;

/// Places for calls, each with a `T`.
///
/// ```
/// use lpc_core::calls::Table;
///
/// let mut calls = Table::new();
/// let first = calls.insert("first");
/// assert_eq!(calls.remove(first), Some("first"));
/// let second = calls.insert("second"); // takes the same place ...
/// assert_ne!(first, second); // ... under another id,
/// assert_eq!(calls.remove(first), None); // so that a reply that comes twice finds nobody
/// ```
///
/// Inserting, finding and removing take constant time, and no allocation once the table has its size.
#[derive(Clone, Debug)]
pub struct Table<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Place<T> {
    /// How often the place was used: the upper half of the id of the call in it.
    turn: u32,
    call: Option<T>,
}

impl<T> Table<T> {
    /// An empty table.
    #[must_use]
    pub const fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    /// Adds a call and names it.
    ///
    /// # Panics
    ///
    /// If there are 2^26 calls already.
    #[inline]
    pub fn insert(&mut self, call: T) -> CallId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { turn: 0, call: None });
            let index = u32::try_from(self.places.len() - 1).ok().filter(|index| *index < MOST);
            index.expect("fewer than 2^26 calls wait at once")
        });
        let place = &mut self.places[index as usize];
        place.turn = place.turn.wrapping_add(1);
        place.call = Some(call);
        join(place.turn, index)
    }

    /// The call of this id.
    #[inline]
    pub fn get_mut(&mut self, id: CallId) -> Option<&mut T> {
        let (turn, index) = split(id);
        self.places.get_mut(index).filter(|place| place.turn == turn)?.call.as_mut()
    }

    /// Takes the call of this id out.
    #[inline]
    pub fn remove(&mut self, id: CallId) -> Option<T> {
        let (turn, index) = split(id);
        let call = self.places.get_mut(index).filter(|place| place.turn == turn)?.call.take()?;
        self.free.push(index as u32);
        Some(call)
    }

    /// All calls, in no particular order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (CallId, &mut T)> {
        (0..).zip(&mut self.places).filter_map(|(index, place)| {
            let id = join(place.turn, index);
            place.call.as_mut().map(|call| (id, call))
        })
    }

    /// How many calls there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether there is none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[inline]
fn join(turn: u32, index: u32) -> CallId {
    CallId::new(u64::from(turn) << 32 | u64::from(index))
}

#[inline]
fn split(id: CallId) -> (u32, usize) {
    // The bits between say how deep the call is nested.
    ((id.as_u64() >> 32) as u32, (id.as_u64() & u64::from(MOST - 1)) as usize)
}

/// How many places there may be.
const MOST: u32 = 1 << CallId::NESTING.trailing_zeros();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_nobody_gave_out_find_nobody() {
        let mut calls = Table::new();
        let id = calls.insert(1);
        for unknown in [0, 1, u64::MAX, id.as_u64() + 1, id.as_u64() ^ 1 << 40] {
            assert_eq!(calls.get_mut(CallId::new(unknown)), None);
            assert_eq!(calls.remove(CallId::new(unknown)), None);
        }
        assert_eq!((calls.len(), calls.remove(id), calls.len()), (1, Some(1), 0));
    }
}
