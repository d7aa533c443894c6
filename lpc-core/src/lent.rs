//! [`Lent`]: the blocks of this side's pool that the peer goes on reading after the call has ended.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::receive::Violation;

/// A count of loans to a peer: for each position, what must stay alive, and how many loans of it are out.
///
/// ```
/// use std::sync::Arc;
/// use lpc_core::lent::Lent;
///
/// let mut lent = Lent::<str>::new();
/// let block: Arc<str> = Arc::from("a block");
/// let place = (0, 7); // segment, first page
/// lent.lend(place, Arc::clone(&block));
/// lent.lend(place, Arc::clone(&block)); // the same block in another call
/// assert!(lent.returned(place)?.is_none()); // it is out once more
/// assert_eq!(lent.returned(place)?, Some(block));
/// assert!(lent.returned(place).is_err());
/// # Ok::<(), lpc_core::receive::Violation>(())
/// ```
///
/// Items are returned rather than dropped, so that a caller that holds a lock can drop them after unlocking.
#[derive(Debug)]
pub struct Lent<T: ?Sized> {
    places: HashMap<(u32, u32), Out<T>>,
}

#[derive(Debug)]
struct Out<T: ?Sized> {
    item: Arc<T>,
    times: u64,
}

impl<T: ?Sized> Lent<T> {
    /// A count without loans.
    #[must_use]
    pub fn new() -> Self {
        Self { places: HashMap::new() }
    }

    /// Counts one more loan of the block at this position (segment and first page), and keeps `item` until
    /// all of them were returned. Loans of one position that are out at the same time have the same item.
    pub fn lend(&mut self, place: (u32, u32), item: Arc<T>) {
        let out = self.places.entry(place).or_insert(Out { item, times: 0 });
        out.times += 1;
    }

    /// Counts one loan less. Returns the item if that was the last.
    ///
    /// # Errors
    ///
    /// [`Violation::NotLent`] if no loan of this position is out.
    pub fn returned(&mut self, place: (u32, u32)) -> Result<Option<Arc<T>>, Violation> {
        let Entry::Occupied(mut out) = self.places.entry(place) else {
            let (segment, page) = place;
            return Err(Violation::NotLent { segment, page });
        };
        out.get_mut().times -= 1;
        Ok((out.get().times == 0).then(|| out.remove().item))
    }

    /// Returns all items, each once, at the end of the connection.
    pub fn drain(&mut self) -> impl Iterator<Item = Arc<T>> + use<T> {
        std::mem::take(&mut self.places).into_values().map(|out| out.item)
    }

    /// How many positions are lent.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nothing is lent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

impl<T: ?Sized> Default for Lent<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_kept_until_its_last_loan_is_back() {
        let mut lent = Lent::new();
        let item = Arc::new(());
        for _ in 0..3 {
            lent.lend((1, 2), Arc::clone(&item));
        }
        assert_eq!((lent.len(), Arc::strong_count(&item)), (1, 2), "one of the clones is enough");
        assert!(lent.returned((1, 2)).unwrap().is_none());
        assert!(lent.returned((1, 2)).unwrap().is_none());
        assert!(Arc::ptr_eq(&lent.returned((1, 2)).unwrap().unwrap(), &item));
        assert!(lent.is_empty());
        // And all over again, with another item at the same place.
        let next = Arc::new(());
        lent.lend((1, 2), Arc::clone(&next));
        assert!(Arc::ptr_eq(&lent.returned((1, 2)).unwrap().unwrap(), &next));
    }

    #[test]
    fn what_is_not_lent_cannot_be_returned() {
        let mut lent = Lent::new();
        lent.lend((1, 2), Arc::new(()));
        for (segment, page) in [(1, 1), (2, 2), (2, 1), (0, 0), (u32::MAX, u32::MAX)] {
            let violation = lent.returned((segment, page)).unwrap_err();
            assert!(
                matches!(violation, Violation::NotLent { segment: s, page: p } if (s, p) == (segment, page)),
                "{violation:?}"
            );
        }
        assert!(lent.returned((1, 2)).unwrap().is_some());
        assert!(matches!(lent.returned((1, 2)), Err(Violation::NotLent { segment: 1, page: 2 })));
    }

    #[test]
    fn at_the_end_all_items_come_back_once() {
        let mut lent = Lent::new();
        let items: Vec<Arc<u32>> = (0..3).map(Arc::new).collect();
        for item in &items {
            lent.lend((0, **item), Arc::clone(item));
            lent.lend((0, **item), Arc::clone(item));
        }
        let drained = lent.drain();
        assert!(lent.is_empty());
        let mut drained: Vec<Arc<u32>> = drained.collect();
        drained.sort();
        assert_eq!(drained, items);
        assert!(lent.returned((0, 0)).is_err());
    }
}
