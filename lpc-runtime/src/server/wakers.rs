//! [`Wakers`]: of the tasks and threads that wait for one event, each as long as it waits.

use std::mem;
use std::task::Waker;

/// Wakers, each at a place that its owner knows, so that adding and removing one takes no search.
#[derive(Debug)]
pub(super) struct Wakers {
    places: Vec<Place>,
    /// The first free place; [`NONE`] if there is none.
    free: usize,
}

#[derive(Debug)]
enum Place {
    Taken(Waker),
    /// And the next free one.
    Free(usize),
}

const NONE: usize = usize::MAX;

impl Default for Wakers {
    fn default() -> Self {
        Self { places: Vec::new(), free: NONE }
    }
}

impl Wakers {
    /// Adds a waker. Gives its place.
    pub(super) fn add(&mut self, waker: Waker) -> usize {
        let place = self.free;
        match self.places.get_mut(place) {
            Some(free) => {
                if let Place::Free(next) = mem::replace(free, Place::Taken(waker)) {
                    self.free = next;
                }
                place
            }
            None => {
                self.places.push(Place::Taken(waker));
                self.places.len() - 1
            }
        }
    }

    /// Puts another waker in its place, where it is another one. The one before is given back, to be dropped
    /// without a lock.
    pub(super) fn update(&mut self, place: usize, waker: &Waker) -> Option<Waker> {
        match self.places.get_mut(place) {
            Some(Place::Taken(known)) if !known.will_wake(waker) => Some(mem::replace(known, waker.clone())),
            _ => None,
        }
    }

    /// Removes a waker, which is given back to be dropped without a lock. `None` where all have been
    /// [taken](Self::take).
    pub(super) fn remove(&mut self, place: usize) -> Option<Waker> {
        let taken = self.places.get_mut(place)?;
        match mem::replace(taken, Place::Free(self.free)) {
            Place::Taken(waker) => {
                self.free = place;
                Some(waker)
            }
            free @ Place::Free(_) => {
                *taken = free;
                None
            }
        }
    }

    /// Takes all out. None is to be added after that.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Waker> + use<> {
        let places = mem::take(self).places;
        places.into_iter().filter_map(|place| match place {
            Place::Taken(waker) => Some(waker),
            Place::Free(_) => None,
        })
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.free = NONE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again() {
        let mut wakers = Wakers::default();
        let [first, second, third] = [(); 3].map(|()| wakers.add(Waker::noop().clone()));
        assert!(wakers.remove(first).is_some() && wakers.remove(third).is_some());
        assert!(wakers.remove(third).is_none());
        let mut again = [wakers.add(Waker::noop().clone()), wakers.add(Waker::noop().clone())];
        again.sort_unstable();
        assert_eq!(again, [first, third]);
        assert_eq!(wakers.places.len(), 3);
        drop(wakers.update(second, Waker::noop()));
        assert_eq!(wakers.take().count(), 3);
        assert!(wakers.remove(second).is_none(), "it was taken");
    }
}
