//! [`Event`]: something that happens once, and the [`Wakers`] of the tasks and threads that wait for it, each
//! as long as it waits.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// Something that happens once.
#[derive(Debug, Default)]
pub(crate) struct Event {
    has_come: AtomicBool,
    wakers: Mutex<Wakers>,
}

impl Event {
    pub(crate) fn has_come(&self) -> bool {
        self.has_come.load(Acquire)
    }

    /// It happens: all who wait are woken, without a lock.
    pub(crate) fn come(&self) {
        // Under the lock: a waiter that has looked before is among those that are woken.
        let mut wakers = self.wakers();
        self.has_come.store(true, Release);
        let woken = wakers.take();
        drop(wakers);
        woken.for_each(Waker::wake);
    }

    /// Makes it one that has not happened, and that nobody waits for.
    pub(super) fn renew(&mut self) {
        *self.has_come.get_mut() = false;
        self.wakers.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Has `waker` woken when it happens, and gives its place; `None` where it has happened.
    pub(super) fn add(&self, waker: Waker) -> Option<usize> {
        let mut wakers = self.wakers();
        if !self.has_come() {
            return Some(wakers.add(waker));
        }
        drop(wakers);
        drop(waker);
        None
    }

    /// The waker at this place is woken no more.
    pub(super) fn remove(&self, place: usize) {
        let removed = self.wakers().remove(place);
        drop(removed);
    }

    fn wakers(&self) -> MutexGuard<'_, Wakers> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for an event. Its waker goes when this is dropped.
pub(super) struct Waiter<'e> {
    event: &'e Event,
    place: Option<usize>,
}

impl<'e> Waiter<'e> {
    pub(super) fn new(event: &'e Event) -> Self {
        Self { event, place: None }
    }

    /// Whether it has happened; if not, `waker` is woken when it does.
    pub(super) fn has_come_or_wakes(&mut self, waker: &Waker) -> bool {
        let mut wakers = self.event.wakers();
        if self.event.has_come() {
            return true;
        }
        let before = match self.place {
            Some(place) => wakers.update(place, waker),
            None => {
                self.place = Some(wakers.add(waker.clone()));
                None
            }
        };
        drop(wakers);
        drop(before);
        false
    }

    #[cfg(feature = "tokio")]
    pub(super) async fn comes(mut self) {
        std::future::poll_fn(|cx| match self.has_come_or_wakes(cx.waker()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        })
        .await;
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.event.remove(place);
        }
    }
}

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
