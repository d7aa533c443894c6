//! [`Calls`]: the calls of one client connection, from the first byte sent to the answer fetched.

use std::mem;

use crate::error::{Error, Progress};
use crate::frame::CallId;
use crate::life::Life;
use crate::permits::{Permits, Ticket};
use crate::receive::Violation;
use crate::send::StreamPosition;

pub use table::Table;

mod table;

/// The calls of one client connection. `A` is an answer's body, `B` what the body of a request leaves behind
/// that stands in shared memory, and `W` how a waiting caller is woken.
///
/// A call has a permit from [`admit`](Self::admit) on, and goes
///
/// ```text
///               sent                  answered                 fetch
///   start ──► Sending ──► Sent ────────────────► Answered ─────────────► gone
///                ▲          │ │                                           ▲ ▲
///                │  rejected│ │ abandon                        answered   │ │
///          fetch │          ▼ └──────────────► Abandoned ─────────────────┘ │
///                └────── Rejected ──────────────────────────────────────────┘
///                                              abandon
/// ```
///
/// and its id is in use until it is gone. *Rejected* is a call whose body the server cannot read where it
/// stands: it has not taken the call in, and gets it again from the caller, with the body in line. An
/// *abandoned* one has no caller any more, but the server may be reading its body.
///
/// Nothing here wakes anybody or drops what a user gave: both are handed out, to be done without a lock.
///
/// ```
/// use lpc_core::calls::Calls;
/// use lpc_core::send::StreamPosition;
///
/// let mut calls = Calls::<&str, (), &str>::new(16);
/// assert!(calls.admit()?);
/// let id = calls.start(None);
/// calls.sent(id, StreamPosition::Socket(40));
/// assert!(calls.fetch(id).is_none()); // not yet
/// calls.wait(id, "the caller");
/// let delivered = calls.answer(id, Ok("the reply"))?;
/// assert_eq!(delivered.wake, Some("the caller"));
/// let Some(lpc_core::calls::Fetched::Answer(gone)) = calls.fetch(id) else { panic!("it is answered") };
/// assert_eq!(gone.answer.unwrap()?, "the reply");
/// assert!(calls.is_empty());
/// # Ok::<(), lpc_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Calls<A, B, W> {
    table: Table<Call<A, B, W>>,
    /// Calls without an answer.
    unanswered: usize,
    permits: Permits<W>,
    life: Life,
}

#[derive(Debug)]
struct Call<A, B, W> {
    stage: Stage<A>,
    body: Option<B>,
    /// The caller, while it waits for the answer.
    waiter: Option<W>,
}

#[derive(Debug)]
enum Stage<A> {
    /// How far the frame got is not known yet.
    Sending,
    Sent(StreamPosition),
    Rejected,
    Answered(Result<A, Error>),
    Abandoned,
}

/// What is left of a call that is gone.
#[derive(Debug)]
#[must_use = "dropping it gives memory back, which takes locks"]
pub struct Gone<A, B, W> {
    /// The answer, if there is one that its caller has not got.
    pub answer: Option<Result<A, Error>>,
    /// What its request left behind.
    pub body: Option<B>,
    /// The next waiter, which has its permit now.
    pub wake: Option<W>,
}

/// What came of a message about a call.
#[derive(Debug)]
#[must_use = "a caller is to be woken"]
pub struct Delivered<A, B, W> {
    /// The call's caller.
    pub wake: Option<W>,
    /// The call, if it had no caller any more, and is gone with this.
    pub gone: Option<Gone<A, B, W>>,
}

/// What a caller finds that asks for its answer.
#[derive(Debug)]
pub enum Fetched<A, B, W> {
    /// The answer, with which the call is gone.
    Answer(Gone<A, B, W>),
    /// What has to be [sent](Calls::sent) again, in line.
    Rejected(B),
}

/// What becomes of a call whose caller gives it up.
#[derive(Debug)]
pub enum Abandoned<A, B, W> {
    /// The server is to be told with a Cancel frame.
    Cancel {
        /// How far the call can have got.
        progress: Progress,
        /// How the caller was to be woken.
        waiter: Option<W>,
    },
    /// The call is gone: answered, or rejected, which is as good as not sent.
    Gone(Gone<A, B, W>),
}

/// Calls that were failed together.
#[derive(Debug)]
#[must_use = "callers are to be woken"]
pub struct Failed<B, W> {
    /// Callers, of these calls and of those that waited for a permit.
    pub wake: Vec<W>,
    /// What calls left behind that are gone, since nobody waited for them.
    pub bodies: Vec<B>,
}

impl<A, B, W> Calls<A, B, W> {
    /// At most `max_calls` at once.
    #[must_use]
    pub fn new(max_calls: usize) -> Self {
        Self { table: Table::new(), unanswered: 0, permits: Permits::new(max_calls), life: Life::default() }
    }

    /// Whether the connection is open, and why not.
    #[must_use]
    pub const fn life(&self) -> &Life {
        &self.life
    }

    /// No call is made any more, since the server receives nothing more; those it has taken in are answered.
    pub fn drain(&mut self, reason: Error) {
        self.life.drain(reason);
    }

    /// The connection is over; calls are to be [failed](Self::fail). Whether it was not before.
    pub fn end(&mut self, reason: &Error) -> bool {
        self.life.end(reason)
    }

    /// A permit for one more call, if there is one now. It is good for one [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// No call is made any more.
    #[inline]
    pub fn admit(&mut self) -> Result<bool, Error> {
        self.admit_nested(0)
    }

    /// The same, of a call that is made within so many others: each within another, [`MAX_NESTING`] at most. Those
    /// may have all permits, and wait for it, so that for each depth there is one more.
    ///
    /// # Errors
    ///
    /// No call is made any more.
    ///
    /// [`MAX_NESTING`]: crate::frame::MAX_NESTING
    #[inline]
    pub fn admit_nested(&mut self, nesting: u32) -> Result<bool, Error> {
        self.check()?;
        Ok(self.permits.try_acquire_nested(nesting))
    }

    /// Joins the queue for a permit, where there [was none](Self::admit).
    pub fn queue(&mut self) -> Ticket {
        self.queue_nested(0)
    }

    /// The same, of a call that is made [within so many](Self::admit_nested) others.
    pub fn queue_nested(&mut self, nesting: u32) -> Ticket {
        self.permits.join_nested(nesting)
    }

    /// Takes the permit if it is there by now; gives the place in the queue back if it is not.
    ///
    /// # Errors
    ///
    /// No call is made any more; the place is gone, too, and the waiter that has the permit now is to be
    /// woken.
    pub fn admitted(&mut self, ticket: Ticket) -> Result<Option<Ticket>, (Error, Option<W>)> {
        if let Err(error) = self.check() {
            return Err((error, self.permits.leave(ticket)));
        }
        if !self.permits.is_granted(&ticket) {
            return Ok(Some(ticket));
        }
        self.permits.take(ticket);
        Ok(None)
    }

    /// Has a caller woken when it gets its permit, or there will be none. Gives how it was to be woken
    /// before.
    pub fn wait_for_permit(&mut self, ticket: &Ticket, waiter: W) -> Option<W> {
        self.permits.wait(ticket, waiter)
    }

    /// Takes out the waker of a caller that asks by itself now, or is about to give up. It is to be dropped
    /// without a lock, since that may run code of a user's.
    pub fn take_waiter(&mut self, ticket: &Ticket) -> Option<W> {
        self.permits.take_waiter(ticket)
    }

    /// Gives up waiting for a permit. The waiter that has it now is to be woken.
    pub fn leave_queue(&mut self, ticket: Ticket) -> Option<W> {
        self.permits.leave(ticket)
    }

    /// A call is about to be sent, under this id. `body` is what of it stands in shared memory.
    #[inline]
    pub fn start(&mut self, body: Option<B>) -> CallId {
        self.start_nested(body, 0)
    }

    /// The same, of a call that was [admitted](Self::admit_nested) as nested so deep, which its id says.
    #[inline]
    pub fn start_nested(&mut self, body: Option<B>, nesting: u32) -> CallId {
        self.unanswered += 1;
        self.table.insert_nested(Call { stage: Stage::Sending, body, waiter: None }, nesting)
    }

    /// The call's frame ends there in all that is sent. Whether the caller is to wait: the answer may be here
    /// already.
    ///
    /// # Panics
    ///
    /// If the call is gone.
    #[inline]
    pub fn sent(&mut self, id: CallId, position: StreamPosition) -> bool {
        let call = self.call(id);
        let is_sending = matches!(call.stage, Stage::Sending);
        if is_sending {
            call.stage = Stage::Sent(position);
        }
        is_sending
    }

    /// The call's frame did not go out as a whole, for certain.
    pub fn unsent(&mut self, id: CallId) -> Gone<A, B, W> {
        self.remove(id)
    }

    /// The answer to a call has come.
    ///
    /// # Errors
    ///
    /// The call does not wait for one.
    pub fn answer(&mut self, id: CallId, answer: Result<A, Error>) -> Result<Delivered<A, B, W>, Violation> {
        let call = self.table.get_mut(id).ok_or(Violation::UnknownCall(id))?;
        match call.stage {
            Stage::Sending | Stage::Sent(_) => {
                call.stage = Stage::Answered(answer);
                let wake = call.waiter.take();
                self.unanswered -= 1;
                Ok(Delivered { wake, gone: None })
            }
            Stage::Abandoned => {
                let gone = Gone { answer: Some(answer), ..self.remove(id) };
                Ok(Delivered { wake: None, gone: Some(gone) })
            }
            Stage::Rejected | Stage::Answered(_) => Err(Violation::UnknownCall(id)),
        }
    }

    /// The answer to a call has come to its own caller, which fetches it at once.
    ///
    /// # Panics
    ///
    /// If the call is gone.
    #[inline]
    pub fn answer_own(&mut self, id: CallId) -> Gone<A, B, W> {
        self.remove(id)
    }

    /// The server cannot read the body of a call where it stands, and has not taken the call in.
    ///
    /// # Errors
    ///
    /// The call does not wait for an answer, or has no body in shared memory.
    pub fn reject(&mut self, id: CallId) -> Result<Delivered<A, B, W>, Violation> {
        let call = self.table.get_mut(id).filter(|call| call.body.is_some());
        let call = call.ok_or(Violation::UnknownCall(id))?;
        match call.stage {
            Stage::Sending | Stage::Sent(_) => {
                call.stage = Stage::Rejected;
                Ok(Delivered { wake: call.waiter.take(), gone: None })
            }
            Stage::Abandoned => Ok(Delivered { wake: None, gone: Some(self.remove(id)) }),
            Stage::Rejected | Stage::Answered(_) => Err(Violation::UnknownCall(id)),
        }
    }

    /// The answer to a call of the caller's, if it is there; else it [waits](Self::wait).
    ///
    /// # Panics
    ///
    /// If the call is gone.
    #[inline]
    pub fn fetch(&mut self, id: CallId) -> Option<Fetched<A, B, W>> {
        let call = self.call(id);
        match call.stage {
            Stage::Answered(_) => Some(Fetched::Answer(self.remove(id))),
            Stage::Rejected => {
                call.stage = Stage::Sending;
                call.body.take().map(Fetched::Rejected)
            }
            Stage::Sending | Stage::Sent(_) | Stage::Abandoned => None,
        }
    }

    /// Has the caller woken when there is something to [fetch](Self::fetch). Gives how it was to be woken
    /// before.
    #[inline]
    pub fn wait(&mut self, id: CallId, waiter: W) -> Option<W> {
        self.call(id).waiter.replace(waiter)
    }

    /// How the caller is to be woken, as said the last time.
    pub fn waiter(&mut self, id: CallId) -> Option<&W> {
        self.call(id).waiter.as_ref()
    }

    /// The caller gives a call up: its deadline has passed, or its future is dropped.
    ///
    /// # Panics
    ///
    /// If the call is gone.
    pub fn abandon(
        &mut self,
        id: CallId,
        progress: impl FnOnce(StreamPosition) -> Progress,
    ) -> Abandoned<A, B, W> {
        let call = self.call(id);
        let progress = match call.stage {
            Stage::Sent(position) => progress(position),
            _ => Progress::MayHaveRun,
        };
        match call.stage {
            Stage::Sending | Stage::Sent(_) | Stage::Abandoned => {
                call.stage = Stage::Abandoned;
                Abandoned::Cancel { progress, waiter: call.waiter.take() }
            }
            Stage::Rejected | Stage::Answered(_) => Abandoned::Gone(self.remove(id)),
        }
    }

    /// Fails calls whose frames were sent and that have no answer, as far as they got `no_further` than so.
    /// Those that are just being sent are for their senders to fail, when it is known how far they got. Once
    /// the connection is over, abandoned calls are gone.
    pub fn fail(
        &mut self,
        error: &Error,
        no_further: Progress,
        progress: impl Fn(StreamPosition) -> Progress,
    ) -> Failed<B, W> {
        let mut failed = Failed { wake: self.permits.drain().collect(), bodies: Vec::new() };
        let mut abandoned = Vec::new();
        for (id, call) in self.table.iter_mut() {
            let got = match call.stage {
                Stage::Sent(position) => progress(position),
                Stage::Rejected => Progress::NotSent,
                Stage::Abandoned if self.life.is_over() => {
                    abandoned.push(id);
                    continue;
                }
                Stage::Sending | Stage::Answered(_) | Stage::Abandoned => continue,
            };
            if got <= no_further {
                call.stage = Stage::Answered(Err(error.clone().with_progress(got)));
                self.unanswered -= 1;
                failed.wake.extend(call.waiter.take());
            }
        }
        for id in abandoned {
            let gone = self.remove(id);
            failed.bodies.extend(gone.body);
            failed.wake.extend(gone.wake);
        }
        failed
    }

    /// Whether calls have no answer yet, abandoned ones included.
    #[must_use]
    pub const fn has_unanswered(&self) -> bool {
        self.unanswered > 0
    }

    /// How many calls there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    #[inline]
    fn check(&self) -> Result<(), Error> {
        match self.life.why_closed() {
            None => Ok(()),
            Some(reason) => Err(reason.clone().with_progress(Progress::NotSent)),
        }
    }

    /// A call that its caller asks about.
    #[inline]
    fn call(&mut self, id: CallId) -> &mut Call<A, B, W> {
        self.table.get_mut(id).expect("a call with a caller is there")
    }

    #[inline]
    fn remove(&mut self, id: CallId) -> Gone<A, B, W> {
        let Call { stage, body, .. } = self.table.remove(id).expect("the call is there");
        let answer = match stage {
            Stage::Answered(answer) => Some(answer),
            _ => {
                self.unanswered -= 1;
                None
            }
        };
        Gone { answer, body, wake: self.permits.release_nested(id.nesting()) }
    }
}

impl<A, B, W> Gone<A, B, W> {
    /// Takes out the waiter to wake.
    #[must_use]
    pub fn take_wake(&mut self) -> Option<W> {
        mem::take(&mut self.wake)
    }
}
