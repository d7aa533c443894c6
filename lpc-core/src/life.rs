//! [`Life`]: whether a connection is open, and why it is not any more.

use crate::error::Error;

/// The life of a connection: open, draining, over.
///
/// ```
/// use lpc_core::life::Life;
/// use lpc_core::{Error, ErrorKind};
///
/// let mut life = Life::default();
/// assert!(life.is_open());
/// life.drain(Error::new(ErrorKind::Disconnected, "the server is shutting down"));
/// assert!(life.end(&Error::new(ErrorKind::Disconnected, "the server hung up")));
/// assert!(!life.end(&Error::new(ErrorKind::Protocol, "and again"))); // the end is told once
/// assert_eq!(life.why_closed().unwrap().to_string(), "the server is shutting down"); // the first reason stays
/// ```
#[derive(Debug, Default)]
pub struct Life(State);

#[derive(Debug, Default)]
enum State {
    #[default]
    Open,
    /// No call is made any more; those that were may still be answered.
    Draining(Error),
    /// Nor is any answered.
    Over(Error),
}

impl Life {
    /// Whether calls may be made.
    #[must_use]
    #[inline]
    pub const fn is_open(&self) -> bool {
        matches!(self.0, State::Open)
    }

    /// Whether nothing is answered any more.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.0, State::Over(_))
    }

    /// Why no call may be made, if none may.
    #[must_use]
    #[inline]
    pub const fn why_closed(&self) -> Option<&Error> {
        match &self.0 {
            State::Open => None,
            State::Draining(reason) | State::Over(reason) => Some(reason),
        }
    }

    /// No call is made any more. The first reason stays.
    pub fn drain(&mut self, reason: Error) {
        if self.is_open() {
            self.0 = State::Draining(reason);
        }
    }

    /// The connection is over. Whether it was not before. The first reason stays, be it of draining.
    pub fn end(&mut self, reason: &Error) -> bool {
        let first = match std::mem::take(&mut self.0) {
            State::Open => reason.clone(),
            State::Draining(first) => first,
            State::Over(first) => {
                self.0 = State::Over(first);
                return false;
            }
        };
        self.0 = State::Over(first);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;

    proptest! {
        /// It never goes back, the first reason stays, and the end is told once.
        #[test]
        fn it_goes_one_way(steps in prop::collection::vec(any::<bool>(), 0..20)) {
            let mut life = Life::default();
            let (mut first, mut ends) = (None, 0);
            for (number, ends_now) in steps.into_iter().enumerate() {
                let reason = Error::new(ErrorKind::Disconnected, number.to_string());
                let (was_open, was_over) = (life.is_open(), life.is_over());
                if ends_now {
                    ends += u32::from(life.end(&reason));
                } else {
                    life.drain(reason);
                }
                first.get_or_insert(number);
                prop_assert!(!life.is_open(), "it was open: {was_open}");
                prop_assert!(life.is_over() || !was_over);
                prop_assert_eq!(life.why_closed().map(ToString::to_string), first.map(|first| first.to_string()));
            }
            prop_assert_eq!(ends, u32::from(life.is_over()));
        }
    }
}
