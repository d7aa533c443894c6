//! [`Turns`]: of the threads that call through one connection, which one receives, which one flushes, and
//! which ones park.

use std::task::Waker;

/// The turns of the callers of one connection that has no thread of its own. `H` is the receive half.
///
/// A caller is at any moment one of these:
///
/// ```text
///            begin_send          end_send             step            answered
///   (calls) ───────────► sending ───────► runnable ─────────► receiving ──┐
///      │                     │              ▲  │ ▲                        │ put_back
///      │ enter, defer        │ abort_send   │  │ └────────────────────────┘
///      └─────────────────────┼──────────────┘  │ step        wake, resume
///                            ▼                 ├────────► parked ───────► runnable
///                          gone ◄──── leave ───┘
/// ```
///
/// - Of those that wait one holds the receive half, and receives for all. When it leaves, the half goes to
///   another that is parked.
/// - Under *contention*, when so many callers are runnable, a caller that has something to send defers it,
///   and receiving too: the caller with whose leaving or parking the contention ends flushes for all, and then
///   one of them receives (flat combining: Hendler, Incze, Shavit, Tzafrir, *Flat combining and the
///   synchronization-parallelism tradeoff*, 2010). So many threads make one system call, not each its own.
/// - A caller that waits for something else than an answer (a permit, room in shared memory) is *idle*: it
///   receives only where no other caller could.
///
/// Every method is an event, to be reported under the connection's lock; what it returns is to be done after
/// unlocking.
///
/// Invariant: where the half is free and a caller is parked, another one is runnable or sending, and steps or
/// leaves; the last of them wakes an idle one, if nobody else is to receive.
/// Invariant: where a frame is deferred, a caller is runnable or sending.
#[derive(Debug)]
pub struct Turns<H> {
    /// `None` while a caller receives.
    half: Option<H>,
    /// Callers that run, or were woken and are about to.
    runnable: usize,
    /// Callers that send, which may take as long as the server likes.
    sending: usize,
    has_deferred: bool,
    /// So many runnable callers are contention.
    contention: usize,
    parked: Parked,
}

/// What is to be done after an event, without the lock.
#[derive(Debug, Default)]
#[must_use = "a caller is to be woken, or what was deferred to be flushed"]
pub struct Actions {
    /// A caller that is to receive.
    pub wake: Option<Waker>,
    /// What was deferred is to be flushed, without waiting for the peer.
    pub flush: bool,
}

/// What a caller does next.
#[derive(Debug)]
pub enum Step<H> {
    /// The caller receives, for all, and [puts the half back](Turns::put_back).
    Receive(H),
    /// The caller parks, until it is woken; then it [resumes](Turns::resume).
    Park(Spot),
}

/// Why a caller waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// For the answer to its call.
    ForAnswer,
    /// For something else: it is idle.
    Idle,
}

/// One caller's wait.
#[derive(Debug)]
pub struct Caller {
    waits: Waits,
    /// It leaves receiving and flushing to others. That they do is certain, but not when: other work may keep
    /// them from running.
    relies_on_others: bool,
}

/// Where a caller is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    index: u32,
    turn: u32,
}

impl Caller {
    /// A caller that has begun to wait.
    #[must_use]
    pub const fn new(waits: Waits) -> Self {
        Self { waits, relies_on_others: true }
    }

    /// Whether it should not sleep for long, since it relies on others to run.
    #[must_use]
    pub const fn relies_on_others(&self) -> bool {
        self.relies_on_others
    }
}

impl<H> Turns<H> {
    /// No callers yet. `contention`: so many runnable ones, two at least.
    #[must_use]
    pub fn new(half: H, contention: usize) -> Self {
        let contention = contention.max(2);
        let parked = Parked::default();
        Self { half: Some(half), runnable: 0, sending: 0, has_deferred: false, contention, parked }
    }

    /// A caller has sent what it had, without a system call. It receives, if the half is given.
    #[inline]
    pub fn enter(&mut self) -> Option<H> {
        let half = if self.is_contended() { None } else { self.half.take() };
        self.runnable += usize::from(half.is_none());
        half
    }

    /// Whether a caller is to defer what it has to send: so many others run or send that one of them flushes soon.
    #[inline]
    #[must_use]
    pub const fn defers(&self) -> bool {
        self.runnable + self.sending >= self.contention
    }

    /// A caller has deferred its frame, and is runnable.
    pub fn defer(&mut self) {
        self.has_deferred = true;
        self.runnable += 1;
    }

    /// A caller sends now.
    #[inline]
    pub fn begin_send(&mut self) {
        self.sending += 1;
    }

    /// A caller has sent. It receives, if the half is given, which it may only be where it `waits` for an
    /// answer; otherwise it is runnable.
    #[inline]
    pub fn end_send(&mut self, waits: bool) -> (Option<H>, Actions) {
        self.sending -= 1;
        let half = if waits && !self.is_contended() { self.half.take() } else { None };
        self.runnable += usize::from(half.is_none());
        (half, self.settle())
    }

    /// A caller could not send, and is gone.
    pub fn abort_send(&mut self) -> Actions {
        self.sending -= 1;
        self.settle()
    }

    /// A runnable caller sends, once more.
    pub fn send_again(&mut self) -> Actions {
        self.runnable -= 1;
        self.sending += 1;
        self.settle()
    }

    /// A caller runs that waits for something before it can call.
    pub fn enter_idle(&mut self) {
        self.runnable += 1;
    }

    /// A runnable caller that found nothing receives or parks.
    pub fn step(&mut self, caller: &mut Caller, waker: &Waker) -> (Step<H>, Actions) {
        self.runnable -= 1;
        let leaves_it = caller.relies_on_others && self.is_contended();
        // What an idle caller waits for may be given up by any other that runs, and would not wake it while it receives.
        let may_receive = caller.waits == Waits::ForAnswer || self.is_alone();
        if !leaves_it
            && may_receive
            && let Some(half) = self.half.take()
        {
            return (Step::Receive(half), self.settle());
        }
        caller.relies_on_others &= leaves_it || self.has_deferred;
        let spot = self.parked.add(caller.waits, waker);
        (Step::Park(spot), self.settle())
    }

    /// A caller that was parked runs again. If nobody has woken it, it does not rely on others any longer.
    pub fn resume(&mut self, caller: &mut Caller, spot: Spot) -> Actions {
        let mut actions = Actions::default();
        if self.parked.remove(spot).is_some() {
            self.runnable += 1;
            if caller.relies_on_others {
                actions.flush = std::mem::take(&mut self.has_deferred);
            }
        }
        caller.relies_on_others = false;
        actions
    }

    /// A parked caller gets what it waits for: it is runnable from now on, and to be woken. `None` where it
    /// runs already.
    pub fn wake(&mut self, spot: Spot) -> Option<Waker> {
        let waker = self.parked.remove(spot)?;
        self.runnable += 1;
        Some(waker)
    }

    /// A caller that has received what it wanted puts the half back, and is runnable.
    #[inline]
    pub fn put_back(&mut self, half: H) {
        self.half = Some(half);
        self.runnable += 1;
    }

    /// A caller that receives is about to hand answers to others. They may run at once, so that it counts as
    /// runnable until it has handed out all.
    pub fn begin_delivery(&mut self) {
        self.runnable += 1;
    }

    /// All answers are handed out.
    pub fn end_delivery(&mut self) -> Actions {
        self.runnable -= 1;
        self.settle()
    }

    /// A runnable caller is gone.
    #[inline]
    pub fn leave(&mut self) -> Actions {
        self.runnable -= 1;
        self.settle()
    }

    /// The half, for something else than a caller that receives for a moment. It is to be [given
    /// back](Self::give_back).
    pub fn borrow(&mut self) -> Option<H> {
        self.half.take()
    }

    /// Gives the half back.
    pub fn give_back(&mut self, half: H) -> Actions {
        self.half = Some(half);
        self.settle()
    }

    /// Whether no caller receives.
    #[must_use]
    pub const fn is_free(&self) -> bool {
        self.half.is_some()
    }

    /// Whether no other caller runs, sends, or waits for an answer.
    fn is_alone(&self) -> bool {
        self.runnable + self.sending == 0 && self.parked.of(Waits::ForAnswer).is_empty()
    }

    #[inline]
    const fn is_contended(&self) -> bool {
        self.runnable >= self.contention
    }

    /// Sees to the invariants after there may be a runnable caller less.
    #[inline]
    fn settle(&mut self) -> Actions {
        let flush = self.has_deferred && !self.defers();
        self.has_deferred &= !flush;
        let is_idle = self.half.is_some() && !self.is_contended();
        let wake = if is_idle { self.parked.pop(self.runnable + self.sending == 0) } else { None };
        self.runnable += usize::from(wake.is_some());
        Actions { wake, flush }
    }
}

/// The callers that are parked.
#[derive(Debug, Default)]
struct Parked {
    /// By spot.
    places: Vec<Place>,
    free: Vec<u32>,
    /// Those that wait for an answer, and those that are idle. The one that came last is the next to receive:
    /// it waits longest, and so hands the half on least often.
    lists: [Vec<(u32, Waker)>; 2],
}

#[derive(Debug)]
struct Place {
    /// How often it was used.
    turn: u32,
    waits: Waits,
    /// Where in its list; `None` while nobody is parked here.
    at: Option<usize>,
}

impl Parked {
    fn of(&self, waits: Waits) -> &Vec<(u32, Waker)> {
        &self.lists[waits as usize]
    }

    fn add(&mut self, waits: Waits, waker: &Waker) -> Spot {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { turn: 0, waits, at: None });
            u32::try_from(self.places.len() - 1).expect("fewer than 2^32 threads")
        });
        let list = &mut self.lists[waits as usize];
        let place = &mut self.places[index as usize];
        place.turn = place.turn.wrapping_add(1);
        (place.waits, place.at) = (waits, Some(list.len()));
        list.push((index, waker.clone()));
        Spot { index, turn: place.turn }
    }

    fn remove(&mut self, spot: Spot) -> Option<Waker> {
        let place = self.places.get_mut(spot.index as usize).filter(|place| place.turn == spot.turn)?;
        let (at, waits) = (place.at.take()?, place.waits);
        let list = &mut self.lists[waits as usize];
        let (_, waker) = list.swap_remove(at);
        if let Some((moved, _)) = list.get(at) {
            self.places[*moved as usize].at = Some(at);
        }
        self.free.push(spot.index);
        Some(waker)
    }

    /// Takes out the caller that is to receive: an idle one only where `idle_may`.
    fn pop(&mut self, idle_may: bool) -> Option<Waker> {
        let [for_answer, idle] = &self.lists;
        let (index, _) = for_answer.last().or_else(|| idle.last().filter(|_| idle_may))?;
        let index = *index;
        self.remove(Spot { index, turn: self.places[index as usize].turn })
    }
}
