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
    /// The id of the call in it, or of the last. Its upper half says how often the place was used.
    id: CallId,
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
        self.insert_nested(call, 0)
    }

    /// The same, of a call that is [nested](CallId::nested) so deep.
    ///
    /// # Panics
    ///
    /// As [`insert`](Self::insert).
    #[inline]
    pub fn insert_nested(&mut self, call: T, nesting: u32) -> CallId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { id: CallId::new(0), call: None });
            let index = u32::try_from(self.places.len() - 1).ok().filter(|index| *index < MOST);
            index.expect("fewer than 2^26 calls wait at once")
        });
        let place = &mut self.places[index as usize];
        let turn = ((place.id.as_u64() >> 32) as u32).wrapping_add(1);
        place.id = CallId::new(u64::from(turn) << 32 | u64::from(index)).nested(nesting);
        place.call = Some(call);
        place.id
    }

    /// The call of this id.
    #[inline]
    pub fn get_mut(&mut self, id: CallId) -> Option<&mut T> {
        self.places.get_mut(index(id)).filter(|place| place.id == id)?.call.as_mut()
    }

    /// Takes the call of this id out.
    #[inline]
    pub fn remove(&mut self, id: CallId) -> Option<T> {
        let index = index(id);
        let call = self.places.get_mut(index).filter(|place| place.id == id)?.call.take()?;
        self.free.push(index as u32);
        Some(call)
    }

    /// All calls, in no particular order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (CallId, &mut T)> {
        self.places.iter_mut().filter_map(|place| Some((place.id, place.call.as_mut()?)))
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

/// The place of a call. How deep that is nested stands above it.
#[inline]
const fn index(id: CallId) -> usize {
    (id.as_u64() & (MOST as u64 - 1)) as usize
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
        // The last is of another depth, whose permit it would free.
        let unknowns = [0, 1, u64::MAX, id.as_u64() + 1, id.as_u64() ^ 1 << 40, id.nested(1).as_u64()];
        for unknown in unknowns {
            assert_eq!(calls.get_mut(CallId::new(unknown)), None);
            assert_eq!(calls.remove(CallId::new(unknown)), None);
        }
        assert_eq!((calls.len(), calls.remove(id), calls.len()), (1, Some(1), 0));
        let id = calls.insert_nested(2, 3);
        assert_eq!((id.nesting(), calls.remove(id.nested(0)), calls.remove(id)), (3, None, Some(2)));
    }
}
