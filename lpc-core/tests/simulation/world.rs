//! [`World`]: the clock, the threads, and the scheduler, which takes its decisions from the [`Story`].
//!
//! A thread is a future. It lets others run wherever they could notice that they did: where it takes a
//! [lock](World::step), makes a system call, or [waits](World::wait).

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};

use super::story::Story;

/// Microseconds.
pub(crate) type Time = u64;

pub(crate) const MILLIS: Time = 1000;

/// Steps of a story at most.
const MAX_STEPS: u32 = 60_000;

/// Steps of a thread at most after the deadline of what it does.
const MAX_LATE: u32 = 100;

/// After so long everything has to be over.
const MAX_TIME: Time = 20_000 * MILLIS;

/// A process that can die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Process {
    Client,
    Server,
    /// Whatever makes faults.
    Fate,
}

/// What went wrong.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    /// What kind of fault: the same while a story is made short.
    pub(crate) kind: &'static str,
    pub(crate) text: String,
}

/// The park token of a thread.
#[derive(Debug, Default)]
pub(crate) struct Token(AtomicBool);

impl Wake for Token {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

impl Token {
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Relaxed)
    }
}

/// What a thread waits for, besides time.
#[derive(Clone)]
pub(crate) enum On {
    /// Nothing: it runs.
    Nothing,
    /// Time alone.
    Never,
    Token(Arc<Token>),
    /// That the number is another one.
    Change(Rc<Cell<u32>>, u32),
    /// Whatever this says.
    Check(Rc<dyn Fn() -> bool>),
}

impl On {
    fn is_there(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Never => false,
            Self::Token(token) => token.0.load(Relaxed),
            Self::Change(number, old) => number.get() != *old,
            Self::Check(check) => check(),
        }
    }
}

struct Thread {
    name: Rc<str>,
    process: Process,
    /// `None` while it runs.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    on: On,
    what: &'static str,
    until: Option<Time>,
    /// It was scheduled out, or the system is busy.
    frozen: Time,
    /// Of what it does.
    deadline: Option<Time>,
    late: u32,
    is_over: bool,
}

pub(crate) struct World {
    story: RefCell<Story>,
    now: Cell<Time>,
    threads: RefCell<Vec<Thread>>,
    current: Cell<usize>,
    wakes: RefCell<Vec<Waker>>,
    failed: RefCell<Option<Failed>>,
    trace: Option<RefCell<Vec<String>>>,
    /// Whether the scheduler delays threads, and wakes them for nothing.
    is_rough: Cell<bool>,
    /// Whether it ends after [`MAX_TIME`], instead of failing.
    may_hang: Cell<bool>,
    /// The most steps that a thread went on after its deadline.
    latest: Cell<u32>,
    pub(crate) steps: Cell<u32>,
}

impl World {
    pub(crate) fn new(story: Story, is_traced: bool) -> Rc<Self> {
        Rc::new(Self {
            story: RefCell::new(story),
            now: Cell::new(0),
            threads: RefCell::default(),
            current: Cell::new(usize::MAX),
            wakes: RefCell::default(),
            failed: RefCell::default(),
            trace: is_traced.then(RefCell::default),
            is_rough: Cell::new(false),
            may_hang: Cell::new(false),
            latest: Cell::new(0),
            steps: Cell::new(0),
        })
    }

    pub(crate) fn pick(&self, count: usize) -> usize {
        self.story.borrow_mut().pick(count)
    }

    /// Whether something happens that does once in so many times.
    pub(crate) fn chance(&self, once_in: usize) -> bool {
        self.pick(once_in) == once_in - 1 && once_in > 1
    }

    pub(crate) fn set_rough(&self, is_rough: bool) {
        self.is_rough.set(is_rough);
    }

    /// From now on it is no fault that something never ends, but for what has a deadline.
    pub(crate) fn let_hang(&self) {
        self.may_hang.set(true);
    }

    /// Whether a thread has not done what has a deadline.
    pub(crate) fn misses_deadline(&self) -> bool {
        self.threads.borrow().iter().any(|thread| !thread.is_over && thread.deadline.is_some())
    }

    pub(crate) fn now(&self) -> Time {
        self.now.get()
    }

    /// Notes what happens, in plain words.
    pub(crate) fn say(&self, text: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            let name =
                self.threads.borrow().get(self.current.get()).map_or("-".into(), |t| Rc::clone(&t.name));
            trace.borrow_mut().push(format!("{:>9.3} ms  {name}: {}", self.now() as f64 / 1e3, text()));
        }
    }

    /// The story ends here, badly. The first reason stays.
    pub(crate) fn fail(&self, kind: &'static str, text: impl Into<String>) {
        let text = text.into();
        self.say(|| format!("FAULT, {kind}: {text}"));
        self.failed.borrow_mut().get_or_insert(Failed { kind, text });
    }

    pub(crate) fn spawn(
        &self,
        process: Process,
        name: impl Into<Rc<str>>,
        future: impl Future<Output = ()> + 'static,
    ) {
        self.threads.borrow_mut().push(Thread {
            name: name.into(),
            process,
            future: Some(Box::pin(future)),
            on: On::Nothing,
            what: "is new",
            until: None,
            frozen: 0,
            deadline: None,
            late: 0,
            is_over: false,
        });
    }

    /// Another thread may run here.
    pub(crate) async fn step(&self) {
        self.pause(On::Nothing, "runs", None).await;
    }

    /// Waits for this, or until then; whether it is there. A thread that is parked may be woken for nothing.
    pub(crate) async fn wait(&self, on: On, what: &'static str, until: Option<Time>) -> bool {
        if on.is_there() {
            self.step().await;
            return true;
        }
        self.pause(on.clone(), what, until).await;
        on.is_there()
    }

    pub(crate) async fn sleep(&self, time: Time) {
        self.pause(On::Never, "sleeps", Some(self.now() + time)).await;
    }

    async fn pause(&self, on: On, what: &'static str, until: Option<Time>) {
        if let Some(thread) = self.threads.borrow_mut().get_mut(self.current.get()) {
            (thread.on, thread.what, thread.until) = (on, what, until);
        }
        let mut is_second = false;
        std::future::poll_fn(|_| {
            if std::mem::replace(&mut is_second, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// The current thread has to be done with what it does by then.
    pub(crate) fn set_deadline(&self, deadline: Option<Time>) {
        if let Some(thread) = self.threads.borrow_mut().get_mut(self.current.get()) {
            (thread.deadline, thread.late) = (deadline, 0);
        }
    }

    /// Wakes a thread, some time.
    pub(crate) fn wake(&self, waker: Waker) {
        self.wakes.borrow_mut().push(waker);
    }

    /// All threads of a process are gone.
    pub(crate) fn kill(&self, process: Process) {
        let mut dead = Vec::new();
        for thread in self.threads.borrow_mut().iter_mut().filter(|thread| thread.process == process) {
            thread.is_over = true;
            dead.extend(thread.future.take());
        }
        drop(dead);
    }

    /// Runs until nothing is left to be done.
    pub(crate) fn run(&self) {
        while self.failed.borrow().is_none() && self.turn() {
            self.steps.set(self.steps.get() + 1);
            if self.steps.get() > MAX_STEPS {
                self.fail("endless", format!("it goes on and on: {}", self.who_waits()));
            }
        }
    }

    /// One step; `false` if none is possible.
    fn turn(&self) -> bool {
        let mut ready: Vec<usize> = Vec::new();
        let now = self.now();
        let mut next = Time::MAX;
        let threads = self.threads.borrow();
        let (current, count) = (self.current.get(), threads.len());
        for at in 0..count {
            // The one that ran goes on, if nothing is chosen.
            let number = if current < count { (current + at) % count } else { at };
            let thread = &threads[number];
            if thread.is_over {
                continue;
            }
            let is_ready = thread.on.is_there() || thread.until.is_some_and(|until| until <= now);
            if !is_ready {
                next = thread.until.into_iter().fold(next, Time::min);
            } else if thread.frozen > now {
                next = next.min(thread.frozen);
            } else {
                ready.push(number);
            }
        }
        drop(threads);
        let wakes = self.wakes.borrow().len();
        if ready.is_empty() && wakes == 0 {
            return next < Time::MAX && self.pass(next);
        }
        if self.is_rough.get() {
            match self.pick(128) {
                127 => return self.pass(next.min(now + 1 + self.pick(8) as Time * MILLIS)),
                126 => self.freeze(count),
                125 => self.wake_for_nothing(count),
                _ => {}
            }
        }
        let choice = self.pick(ready.len() + wakes);
        match ready.get(choice) {
            Some(number) => self.poll(*number),
            None => {
                let waker = self.wakes.borrow_mut().remove(choice - ready.len());
                waker.wake();
            }
        }
        true
    }

    fn pass(&self, next: Time) -> bool {
        self.now.set(next.max(self.now()));
        if next > MAX_TIME && self.may_hang.get() {
            return false;
        }
        if next > MAX_TIME {
            self.fail(
                "late",
                format!("it is not over after {} s: {}", MAX_TIME / 1000 / MILLIS, self.who_waits()),
            );
        }
        true
    }

    fn freeze(&self, count: usize) {
        let (number, time) = (self.pick(count), 1 + self.pick(40) as Time);
        let until = self.now() + time * MILLIS;
        let thread = &mut self.threads.borrow_mut()[number];
        thread.frozen = until;
    }

    fn wake_for_nothing(&self, count: usize) {
        let number = self.pick(count);
        let thread = &mut self.threads.borrow_mut()[number];
        if let On::Token(_) = thread.on {
            thread.on = On::Nothing;
        }
    }

    fn poll(&self, number: usize) {
        let mut threads = self.threads.borrow_mut();
        let thread = &mut threads[number];
        let Some(mut future) = thread.future.take() else { return };
        let is_late = thread.deadline.is_some_and(|deadline| deadline < self.now());
        thread.late += u32::from(is_late);
        self.latest.set(self.latest.get().max(thread.late));
        let too_late = thread.late > MAX_LATE;
        drop(threads);
        self.current.set(number);
        if too_late {
            self.fail("deadline", format!("a call goes on for {MAX_LATE} steps after its deadline"));
        }
        let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let mut threads = self.threads.borrow_mut();
        let thread = &mut threads[number];
        if polled.is_ready() {
            thread.is_over = true;
            drop(threads);
            drop(future);
        } else {
            thread.future = Some(future);
        }
    }

    /// Each thread that is not done, and what it waits for.
    pub(crate) fn who_waits(&self) -> String {
        let threads = self.threads.borrow();
        let waiting = threads.iter().filter(|thread| !thread.is_over);
        waiting.map(|thread| format!("{} {}", thread.name, thread.what)).collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn latest(&self) -> u32 {
        self.latest.get()
    }

    pub(crate) fn failed(&self) -> Option<Failed> {
        self.failed.borrow().clone()
    }

    pub(crate) fn take_trace(&self) -> Vec<String> {
        self.trace.as_ref().map(RefCell::take).unwrap_or_default()
    }

    /// What was chosen. Ends all threads, which refer to the world.
    pub(crate) fn end(&self) -> Vec<u16> {
        let threads = self.threads.take();
        drop(threads);
        self.story.replace(Story::again(Vec::new())).into_choices()
    }
}
