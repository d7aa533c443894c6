//! [`PendingHandshakes`]: clients that have connected and not said yet who they are, and which is evicted for
//! another.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// How long a handshake may be pending while other clients wait to be accepted.
const SILENCE: Duration = Duration::from_secs(1);

/// The same where other clients are of other users.
const SHORT_SILENCE: Duration = Duration::from_millis(100);

/// How many of these handshakes may be one user's where there are several users.
pub(crate) const fn share(places: usize) -> usize {
    places - places / 4
}

#[derive(Debug, Default)]
pub(crate) struct PendingHandshakes {
    /// Of each user, in the order in which they were accepted.
    users: HashMap<u32, BTreeMap<u64, Pending>>,
    count: usize,
}

#[derive(Debug)]
struct Pending {
    since: Instant,
    is_greeted: bool,
}

/// A handshake whose connection is to be closed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Evicted {
    pub(crate) number: u64,
    /// The server has sent its hello: a refusal would be taken for a part of what follows that.
    pub(crate) is_greeted: bool,
}

impl PendingHandshakes {
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn of(&self, user: u32) -> usize {
        self.users.get(&user).map_or(0, BTreeMap::len)
    }

    pub(crate) fn add(&mut self, user: u32, number: u64, now: Instant) {
        let pending = Pending { since: now, is_greeted: false };
        self.count += usize::from(self.users.entry(user).or_default().insert(number, pending).is_none());
    }

    /// The server may send its hello from now on. `false` if the handshake was evicted.
    pub(crate) fn greet(&mut self, user: u32, number: u64) -> bool {
        let pending = self.users.get_mut(&user).and_then(|pending| pending.get_mut(&number));
        pending.map(|pending| pending.is_greeted = true).is_some()
    }

    pub(crate) fn remove(&mut self, user: u32, number: u64) -> Option<Evicted> {
        let pending = self.users.get_mut(&user)?;
        let Pending { is_greeted, .. } = pending.remove(&number)?;
        if pending.is_empty() {
            self.users.remove(&user);
        }
        self.count -= 1;
        Some(Evicted { number, is_greeted })
    }

    /// Evicts the silent handshake that has been pending for longest, if that is long enough, of the user with
    /// most of them. One that `is_heard` is no silent one: what its client has said waits to be read, since this
    /// process was stopped, or is busy.
    pub(crate) fn evict(&mut self, now: Instant, is_heard: impl FnMut(u64) -> bool) -> Option<Evicted> {
        let user = *self.users.iter().max_by_key(|(_, pending)| pending.len())?.0;
        let silence = if self.users.len() > 1 { SHORT_SILENCE } else { SILENCE };
        self.oldest(user, silence, now, is_heard)
    }

    /// The same of this user, which has its [`share`].
    pub(crate) fn evict_of(
        &mut self,
        user: u32,
        now: Instant,
        is_heard: impl FnMut(u64) -> bool,
    ) -> Option<Evicted> {
        self.oldest(user, SHORT_SILENCE, now, is_heard)
    }

    fn oldest(
        &mut self,
        user: u32,
        silence: Duration,
        now: Instant,
        mut is_heard: impl FnMut(u64) -> bool,
    ) -> Option<Evicted> {
        let long = |pending: &Pending| now.saturating_duration_since(pending.since) >= silence;
        let mut oldest = self.users.get(&user)?.iter().take_while(|(_, pending)| long(pending));
        let (&number, _) = oldest.find(|(number, _)| !is_heard(**number))?;
        self.remove(user, number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: u32 = 1000;
    const BOB: u32 = 1001;

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    fn silent(_: u64) -> bool {
        false
    }

    fn evicted(number: u64) -> Option<Evicted> {
        Some(Evicted { number, is_greeted: false })
    }

    #[test]
    fn among_users_the_one_with_most_is_evicted_after_a_tenth_of_a_second() {
        let (mut pending, start) = (PendingHandshakes::default(), Instant::now());
        pending.add(BOB, 0, start);
        for number in 1..=3 {
            pending.add(ANN, number, after(start, number));
        }
        assert_eq!(pending.evict(after(start, 100), silent), None, "Ann's first came later than Bob's");
        assert_eq!(pending.evict(after(start, 101), silent), evicted(1));
        assert_eq!(pending.evict(after(start, 101), silent), None);
        assert_eq!(pending.evict(after(start, 102), silent), evicted(2));
        assert_eq!((pending.of(ANN), pending.of(BOB), pending.count()), (1, 1, 2));
    }

    #[test]
    fn a_user_who_is_alone_is_evicted_after_a_second() {
        let (mut pending, start) = (PendingHandshakes::default(), Instant::now());
        pending.add(ANN, 0, start);
        assert_eq!(pending.evict(after(start, 999), silent), None);
        assert_eq!(pending.evict(after(start, 1000), silent), evicted(0));
        assert_eq!((pending.of(ANN), pending.count()), (0, 0));
        assert_eq!(pending.evict(after(start, 9999), silent), None, "none is pending");
    }

    #[test]
    fn a_user_with_its_share_evicts_its_own_alone() {
        let (mut pending, start) = (PendingHandshakes::default(), Instant::now());
        pending.add(BOB, 0, start);
        pending.add(ANN, 1, after(start, 1));
        assert_eq!(pending.evict_of(ANN, after(start, 100), silent), None);
        assert_eq!(pending.evict_of(ANN, after(start, 101), silent), evicted(1));
        assert_eq!(pending.evict_of(ANN, after(start, 101), silent), None);
    }

    #[test]
    fn an_evicted_handshake_is_not_greeted_and_a_greeted_one_is_known_to_be() {
        let (mut pending, start) = (PendingHandshakes::default(), Instant::now());
        pending.add(ANN, 0, start);
        pending.add(ANN, 1, start);
        assert!(pending.greet(ANN, 0));
        let later = after(start, 5000);
        assert_eq!(pending.evict(later, silent), Some(Evicted { number: 0, is_greeted: true }));
        assert_eq!(pending.evict(later, silent), evicted(1));
        assert!(!pending.greet(ANN, 1));
        assert_eq!(pending.remove(ANN, 1), None);
    }

    #[test]
    fn a_client_whose_hello_waits_to_be_read_is_not_evicted_for_silence() {
        let (mut pending, start) = (PendingHandshakes::default(), Instant::now());
        pending.add(ANN, 0, start);
        let later = after(start, 5000);
        assert_eq!(pending.evict(later, |number| number == 0), None);
        assert_eq!(pending.evict_of(ANN, later, |number| number == 0), None);
        pending.add(ANN, 1, start);
        assert_eq!(pending.evict(later, |number| number == 0), evicted(1), "the next that is silent");
        assert_eq!(pending.evict(later, silent), evicted(0));
    }

    #[test]
    fn a_share_leaves_a_place_to_others_wherever_there_are_four() {
        assert_eq!(
            [1, 2, 3, 4, 5, 8, 128, usize::MAX].map(share),
            [1, 2, 3, 3, 4, 6, 96, usize::MAX / 4 * 3 + 3]
        );
    }
}
