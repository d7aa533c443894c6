//! [`Strangers`]: the clients of whom a server does not know yet who they are, and who of them makes room for others.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// How long a client may be silent while others wait to be taken.
const SILENCE: Duration = Duration::from_secs(1);

/// The same where the others are of other users.
const SHORT_SILENCE: Duration = Duration::from_millis(100);

/// How many of these places one user may have where there are several users.
pub(crate) const fn share(places: usize) -> usize {
    places - places / 4
}

#[derive(Debug, Default)]
pub(crate) struct Strangers {
    /// Of each user, by the order in which they came.
    users: HashMap<u32, BTreeMap<u64, Stranger>>,
    count: usize,
}

#[derive(Debug)]
struct Stranger {
    since: Instant,
    is_greeted: bool,
}

/// Who has to go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Leaving {
    pub(crate) number: u64,
    /// The server has said its hello: a refusal would be taken for a part of what follows that.
    pub(crate) is_greeted: bool,
}

impl Strangers {
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn of(&self, user: u32) -> usize {
        self.users.get(&user).map_or(0, BTreeMap::len)
    }

    pub(crate) fn add(&mut self, user: u32, number: u64, now: Instant) {
        let stranger = Stranger { since: now, is_greeted: false };
        self.count += usize::from(self.users.entry(user).or_default().insert(number, stranger).is_none());
    }

    /// From now on the server may greet it. `false` if it has to go.
    pub(crate) fn greet(&mut self, user: u32, number: u64) -> bool {
        let stranger = self.users.get_mut(&user).and_then(|strangers| strangers.get_mut(&number));
        stranger.map(|stranger| stranger.is_greeted = true).is_some()
    }

    pub(crate) fn remove(&mut self, user: u32, number: u64) -> Option<Leaving> {
        let strangers = self.users.get_mut(&user)?;
        let Stranger { is_greeted, .. } = strangers.remove(&number)?;
        if strangers.is_empty() {
            self.users.remove(&user);
        }
        self.count -= 1;
        Some(Leaving { number, is_greeted })
    }

    /// Removes who has been silent for longest, if that is long enough, of the user who has most places.
    pub(crate) fn make_room(&mut self, now: Instant) -> Option<Leaving> {
        let user = *self.users.iter().max_by_key(|(_, strangers)| strangers.len())?.0;
        let silence = if self.users.len() > 1 { SHORT_SILENCE } else { SILENCE };
        self.oldest(user, silence, now)
    }

    /// The same of this user, who has its [`share`].
    pub(crate) fn make_room_of(&mut self, user: u32, now: Instant) -> Option<Leaving> {
        self.oldest(user, SHORT_SILENCE, now)
    }

    fn oldest(&mut self, user: u32, silence: Duration, now: Instant) -> Option<Leaving> {
        let (&number, oldest) = self.users.get(&user)?.first_key_value()?;
        if now.saturating_duration_since(oldest.since) < silence {
            return None;
        }
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

    fn leaving(number: u64) -> Option<Leaving> {
        Some(Leaving { number, is_greeted: false })
    }

    #[test]
    fn among_users_the_one_with_most_makes_room_after_a_tenth_of_a_second() {
        let (mut strangers, start) = (Strangers::default(), Instant::now());
        strangers.add(BOB, 0, start);
        for number in 1..=3 {
            strangers.add(ANN, number, after(start, number));
        }
        assert_eq!(strangers.make_room(after(start, 100)), None, "Ann's first came later than Bob's");
        assert_eq!(strangers.make_room(after(start, 101)), leaving(1));
        assert_eq!(strangers.make_room(after(start, 101)), None);
        assert_eq!(strangers.make_room(after(start, 102)), leaving(2));
        assert_eq!((strangers.of(ANN), strangers.of(BOB), strangers.count()), (1, 1, 2));
    }

    #[test]
    fn a_user_who_is_alone_makes_room_after_a_second() {
        let (mut strangers, start) = (Strangers::default(), Instant::now());
        strangers.add(ANN, 0, start);
        assert_eq!(strangers.make_room(after(start, 999)), None);
        assert_eq!(strangers.make_room(after(start, 1000)), leaving(0));
        assert_eq!((strangers.of(ANN), strangers.count()), (0, 0));
        assert_eq!(strangers.make_room(after(start, 9999)), None, "nobody is there");
    }

    #[test]
    fn a_user_with_its_share_makes_room_for_itself_alone() {
        let (mut strangers, start) = (Strangers::default(), Instant::now());
        strangers.add(BOB, 0, start);
        strangers.add(ANN, 1, after(start, 1));
        assert_eq!(strangers.make_room_of(ANN, after(start, 100)), None);
        assert_eq!(strangers.make_room_of(ANN, after(start, 101)), leaving(1));
        assert_eq!(strangers.make_room_of(ANN, after(start, 101)), None);
    }

    #[test]
    fn who_was_sent_away_is_not_greeted_and_who_was_greeted_is_known_to_be() {
        let (mut strangers, start) = (Strangers::default(), Instant::now());
        strangers.add(ANN, 0, start);
        strangers.add(ANN, 1, start);
        assert!(strangers.greet(ANN, 0));
        let later = after(start, 5000);
        assert_eq!(strangers.make_room(later), Some(Leaving { number: 0, is_greeted: true }));
        assert_eq!(strangers.make_room(later), leaving(1));
        assert!(!strangers.greet(ANN, 1));
        assert_eq!(strangers.remove(ANN, 1), None);
    }

    #[test]
    fn a_share_leaves_a_place_to_others_wherever_there_are_four() {
        assert_eq!(
            [1, 2, 3, 4, 5, 8, 128, usize::MAX].map(share),
            [1, 2, 3, 3, 4, 6, 96, usize::MAX / 4 * 3 + 3]
        );
    }
}
