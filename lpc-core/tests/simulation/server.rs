//! [`Server`]: one connection of a blocking server, step by step as `blocking::connection` and `server::desk`
//! of lpc-runtime do it.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use lpc_core::desk::{self, Desk, Driver, Remains};
use lpc_core::frame::{self, Body, CallId};
use lpc_core::receive::{MAX_FAILURE, Role, Violation};
use lpc_core::run_queue::{Bounds, Cancelled, Cost};
use lpc_core::{Error, ErrorKind, Progress};

use super::caller::BODY;
use super::client::{Record, answer_to};
use super::inbox::{Arrived, Ended, Filled, Inbox, Message};
use super::link::{Link, Maintained, PoolBlock};
use super::world::{MILLIS, Process, Time, World};

/// After so long the watch looks whether a leader is held up by its own call.
const TICK: Time = 2 * MILLIS;

/// How often the guard looks whether the client is there.
const LOOK: Time = 50 * MILLIS;

pub(crate) struct Server {
    world: Rc<World>,
    pub(crate) link: Rc<Link>,
    desk: RefCell<Desk<Types>>,
    record: Rc<Record>,
    /// Threads that work for the connection.
    threads: Cell<usize>,
    max_threads: usize,
    /// Calls that the leader has begun to run itself, and whether the last one runs.
    began: Cell<(u32, bool)>,
    is_guarded: Cell<bool>,
    /// A thread has ended the connection, whatever it was at.
    is_broken: Cell<bool>,
    this: Weak<Self>,
}

struct Types;

impl Driver for Types {
    type Call = Call;
    type Handle = Rc<Running>;
    type Block = Box<PoolBlock>;
    type Receive = Box<Inbox>;
}

type Next = desk::Next<Types>;

struct Call {
    id: CallId,
    is_busy: bool,
    body: Arrived,
    running: Rc<Running>,
}

struct Running {
    is_cancelled: Cell<bool>,
    deadline: Option<Time>,
}

/// When an answer goes out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    Now,
    WithNext,
}

impl Server {
    pub(crate) fn new(link: &Rc<Link>, bounds: Bounds, max_threads: usize, record: &Rc<Record>) -> Rc<Self> {
        let server = Rc::new_cyclic(|this| Self {
            world: Rc::clone(&link.world),
            link: Rc::clone(link),
            desk: RefCell::new(Desk::new(bounds)),
            record: Rc::clone(record),
            threads: Cell::new(0),
            max_threads,
            began: Cell::new((0, false)),
            is_guarded: Cell::new(false),
            is_broken: Cell::new(false),
            this: Weak::clone(this),
        });
        let weak: Weak<Self> = Weak::clone(&server.this);
        link.maintained_by(weak);
        let inbox = Box::new(Inbox::new(Role::Server, link));
        assert!(server.spawn(Some(inbox)).is_ok());
        server
    }

    fn spawn(&self, inbox: Option<Box<Inbox>>) -> Result<(), Option<Box<Inbox>>> {
        if self.threads.get() >= self.max_threads {
            return Err(inbox);
        }
        let Some(this) = self.this.upgrade() else { return Err(inbox) };
        self.threads.set(self.threads.get() + 1);
        self.world.spawn(Process::Server, "a server's thread", async move {
            if let Err(Ended(reason)) = this.work(inbox).await {
                this.world.say(|| format!("ends the connection: the client {reason}"));
                this.is_broken.set(true);
                this.link.close();
            }
            this.threads.set(this.threads.get() - 1);
            if this.threads.get() == 0 {
                this.world.say(|| "was the last, and the connection is dropped".into());
                this.link.socket.close();
            }
        });
        Ok(())
    }

    async fn work(&self, inbox: Option<Box<Inbox>>) -> Result<(), Ended> {
        let inbox = match inbox {
            Some(inbox) => Some(inbox),
            None => self.help().await?,
        };
        match inbox {
            Some(inbox) => self.lead(inbox).await,
            None => Ok(()),
        }
    }

    async fn lead(&self, mut inbox: Box<Inbox>) -> Result<(), Ended> {
        loop {
            let Some(message) = inbox.next()? else {
                self.flush().await?;
                if self.world.chance(16) {
                    self.world.sleep(3 * MILLIS).await;
                }
                if inbox.fill_within(None).await? == Filled::End {
                    self.hung_up();
                    return Ok(());
                }
                continue;
            };
            let has_more = inbox.has_next();
            self.world.step().await;
            if self.desk.borrow().is_over() {
                return Err(Ended("is not served any more"));
            }
            let mut held = Some(inbox);
            let led = match message {
                Message::Call { call: id, time_left, is_busy, body } => {
                    let mut desk = self.desk.borrow_mut();
                    let deadline = time_left.map(|left| self.world.now() + left);
                    let running = Rc::new(Running { is_cancelled: Cell::new(false), deadline });
                    let call = Call { id, is_busy, body, running: Rc::clone(&running) };
                    let cost = call.cost();
                    let arrived =
                        desk.arrive(id, running, cost, call).map_err(|error| self.violated(&error))?;
                    if let Some(call) = arrived {
                        let is_alone = desk.running() == 1;
                        let is_quick = self.world.chance(3);
                        if is_quick || (is_alone && !call.is_busy) {
                            held.take().into_iter().for_each(|inbox| desk.park(inbox));
                        }
                        drop(desk);
                        let flush = if has_more { Flush::WithNext } else { Flush::Now };
                        self.start(call, is_quick, flush, held).await?
                    } else if desk.may_receive(false) {
                        held
                    } else {
                        drop(desk);
                        self.flush().await?;
                        self.guard();
                        self.world.step().await;
                        held.and_then(|inbox| self.desk.borrow_mut().park_if_full(inbox))
                    }
                }
                Message::Release { call } => {
                    let block =
                        self.desk.borrow_mut().release(call).map_err(|error| self.violated(&error))?;
                    drop(block);
                    held
                }
                Message::Resend { call } => {
                    let block = self.desk.borrow_mut().resend(call).map_err(|error| self.violated(&error))?;
                    self.world.say(|| format!("sends the answer to {:#x} again, in line", call.as_u64()));
                    let frame = reply(call, block.word(), None);
                    drop(block);
                    self.send_and_help(&frame).await?;
                    held
                }
                Message::Cancel { call: id } => {
                    let found = self.desk.borrow_mut().cancel(id);
                    match found {
                        Cancelled::Waiting(call) => {
                            self.world.say(|| format!("takes call {:#x} out, which waited", id.as_u64()));
                            self.give_loans_back(&call.body);
                            drop(call);
                            self.send_and_help(&failure(id, &cancelled(Progress::NotSent))).await?;
                        }
                        Cancelled::Running(running) => running.is_cancelled.set(true),
                        Cancelled::Nothing => {}
                    }
                    held
                }
                Message::Reply { call, .. } | Message::Failure { call, .. } => {
                    return Err(self.violated(&Violation::UnknownCall(call)));
                }
                Message::Closing { .. } => unreachable!("`Receiver` lets none through to a server"),
            };
            match led {
                Some(led) => inbox = led,
                None => return Ok(()),
            }
        }
    }

    async fn send_and_help(&self, frame: &[u8]) -> Result<(), Ended> {
        self.link.send_within(frame, None).await.map_err(broken)?;
        self.have_helped(self.desk.borrow().may_start());
        Ok(())
    }

    async fn start(
        &self,
        call: Call,
        is_quick: bool,
        flush: Flush,
        inbox: Option<Box<Inbox>>,
    ) -> Result<Option<Box<Inbox>>, Ended> {
        if let Some(inbox) = inbox {
            match self.have_led(inbox) {
                Ok(()) => {
                    let next = self.run(call, Flush::Now, false).await?;
                    return self.go_on(next).await;
                }
                Err(back) => self.desk.borrow_mut().park(back),
            }
        }
        self.begin();
        let flushed = if is_quick { Ok(()) } else { self.link.flush().await.map_err(broken) };
        let next = match flushed {
            Ok(()) => self.run(call, flush, true).await,
            Err(error) => Err(error),
        };
        if next.is_err() {
            self.finish_inline();
        }
        let led = self.go_on(next?).await?;
        if led.is_none() {
            self.flush().await?;
        }
        Ok(led)
    }

    async fn go_on(&self, mut next: Next) -> Result<Option<Box<Inbox>>, Ended> {
        loop {
            let Some(call) = next.call else { return Ok(next.receive) };
            if let Some(inbox) = next.receive
                && let Err(inbox) = self.have_led(inbox)
            {
                self.world.step().await;
                self.desk.borrow_mut().park(inbox);
            }
            self.have_helped(next.has_more);
            self.flush().await?;
            next = self.run(call, Flush::Now, false).await?;
        }
    }

    async fn help(&self) -> Result<Option<Box<Inbox>>, Ended> {
        self.world.step().await;
        let call = self.desk.borrow_mut().start_next();
        let has_more = self.desk.borrow().may_start();
        self.go_on(Next { call, has_more, receive: None }).await
    }

    fn have_led(&self, inbox: Box<Inbox>) -> Result<(), Box<Inbox>> {
        self.spawn(Some(inbox)).map_err(|inbox| inbox.expect("given back as it was"))
    }

    fn have_helped(&self, is_needed: bool) {
        if is_needed {
            let _ = self.spawn(None);
        }
    }

    /// The leader runs a call itself, and the watch looks after a while whether that takes long.
    fn begin(&self) {
        let number = self.began.get().0 + 1;
        self.began.set((number, true));
        let (world, this) = (Rc::clone(&self.world), Weak::clone(&self.this));
        self.world.spawn(Process::Server, "the server's watch", async move {
            world.sleep(TICK).await;
            let Some(this) = this.upgrade().filter(|this| this.began.get() == (number, true)) else { return };
            let Some(inbox) = this.desk.borrow_mut().take_parked() else { return };
            world.say(|| "has another thread lead".into());
            if let Err(inbox) = this.have_led(inbox) {
                this.desk.borrow_mut().park(inbox);
                if this.desk.borrow().running() == 0 {
                    this.link.close();
                }
            }
        });
    }

    fn finish_inline(&self) {
        self.began.set((self.began.get().0, false));
    }

    fn hung_up(&self) {
        self.desk.borrow_mut().hang_up();
        if self.link.socket.is_hung_up() {
            self.world.say(|| "finds that the client is gone".into());
            self.link.close();
        } else {
            self.world.say(|| "has received all that the client sent".into());
            self.guard();
        }
    }

    /// Looks now and then whether the client is there, while nobody receives.
    fn guard(&self) {
        if self.is_guarded.replace(true) {
            return;
        }
        let (world, this) = (Rc::clone(&self.world), Weak::clone(&self.this));
        self.world.spawn(Process::Server, "the server's guard", async move {
            loop {
                world.sleep(LOOK).await;
                let Some(this) = this.upgrade() else { return };
                this.is_guarded.set(false);
                if this.link.socket.is_hung_up() {
                    this.link.close();
                    return;
                }
                if this.desk.borrow().is_idle() || this.is_guarded.replace(true) {
                    return;
                }
            }
        });
    }

    async fn flush(&self) -> Result<(), Ended> {
        if self.link.is_to_flush() { self.link.flush().await.map_err(broken) } else { Ok(()) }
    }

    async fn run(&self, call: Call, flush: Flush, is_inline: bool) -> Result<Next, Ended> {
        let (id, cost) = (call.id, call.cost());
        let result = if self.is_cancelled(&call.running) {
            Err(cancelled(Progress::NotSent))
        } else {
            self.execute(&call).await
        };
        self.give_loans_back(&call.body);
        drop(call);
        let (frame, block) = match result {
            Ok(value) => {
                let block =
                    if self.world.chance(3) { self.link.alloc(BODY, value).map(Box::new) } else { None };
                (reply(id, value, block.as_deref()), block)
            }
            Err(error) => (failure(id, &error), None),
        };
        if is_inline {
            self.finish_inline();
        }
        self.world.step().await;
        let mut desk = self.desk.borrow_mut();
        desk.answer(id, block).map_err(|error| self.violated(&error))?;
        if let Some((_, has_to_wake)) = self.link.put(&frame) {
            let next = desk.finish(id, cost);
            drop(desk);
            self.world.say(|| format!("puts the answer to {:#x} into the ring", id.as_u64()));
            if has_to_wake {
                self.world.step().await;
                self.link.wake();
            }
            return Ok(next);
        }
        drop(desk);
        if is_inline {
            self.begin();
        }
        self.world.say(|| format!("sends the answer to {:#x}", id.as_u64()));
        let sent = match flush {
            Flush::WithNext => self.link.push(&frame).await,
            Flush::Now => self.link.send_within(&frame, None).await.map(drop),
        };
        if is_inline {
            self.finish_inline();
        }
        sent.map_err(broken)?;
        self.world.step().await;
        Ok(self.desk.borrow_mut().finish(id, cost))
    }

    /// The implementation.
    async fn execute(&self, call: &Call) -> Result<u64, Error> {
        self.world.step().await;
        let argument = call.body.read(&self.world);
        self.world.say(|| format!("runs {:#x}, of {argument}", call.id.as_u64()));
        match self.record.0.borrow_mut().get_mut(&argument) {
            Some(entry) => entry.runs += 1,
            None => self.world.fail("argument", format!("{argument:#x} was never called with")),
        }
        let time = [0, 0, 0, 200, 1000, 3000, 10_000, 30_000][self.world.pick(8)];
        if time > 0 {
            self.world.sleep(time).await;
        }
        if call.body.read(&self.world) != argument {
            self.world.fail("memory", "the arguments have changed while the call ran");
        }
        if self.is_cancelled(&call.running) {
            return Err(cancelled(Progress::Ran));
        }
        if self.world.chance(8) {
            return Err(Error::other("it cannot be done"));
        }
        Ok(answer_to(argument))
    }

    fn is_cancelled(&self, running: &Running) -> bool {
        running.is_cancelled.get() || running.deadline.is_some_and(|deadline| deadline <= self.world.now())
    }

    fn give_loans_back(&self, body: &Arrived) {
        for (pages, loan) in &body.loans {
            if pages.as_ref().is_some_and(|pages| pages.read(loan.page).is_none())
                && !self.link.ledger.is_closed()
            {
                self.world.fail("memory", "a loan is read after its block was given back");
            }
            self.link.enqueue_deferred(&frame::returned(loan.segment, loan.page));
        }
    }

    /// Shuts down: receives nothing more, answers what was received, and then closes.
    pub(crate) async fn shut_down(&self, patience: Time) {
        self.world.say(|| "shuts the server down".into());
        let says_so = self.link.entrance.close();
        self.world.step().await;
        self.link.socket.stop_receiving();
        self.world.step().await;
        if says_so {
            self.link.send_now(&frame::closing(0));
        }
        self.world.sleep(patience).await;
        self.link.close();
    }

    fn violated(&self, violation: &Violation) -> Ended {
        self.world.fail("violation", violation.to_string());
        Ended("broke the protocol")
    }

    /// What is left though the connection is over and nobody runs.
    pub(crate) fn leftovers(&self) -> Option<String> {
        let mut desk = self.desk.borrow_mut();
        if !self.is_broken.get() && (!desk.is_idle() || desk.unanswered() > 0) {
            return Some(format!("{} calls run, {} are not answered", desk.running(), desk.unanswered()));
        }
        let Remains { waiting, running, .. } = desk.end();
        let is_left = !waiting.is_empty() || !running.is_empty();
        (is_left && !self.is_broken.get()).then(|| "calls are left at the desk".into())
    }
}

impl Maintained for Server {
    fn closing(&self) {
        let Remains { running, waiting, .. } = self.desk.borrow_mut().end();
        running.iter().for_each(|running| running.is_cancelled.set(true));
        drop(waiting);
    }
}

impl Call {
    fn cost(&self) -> Cost {
        Cost { held: 8, copied: if self.body.is_mapped() { BODY } else { 0 } }
    }
}

fn cancelled(progress: Progress) -> Error {
    Error::new(ErrorKind::Cancelled, "nobody waits for it").with_progress(progress)
}

fn reply(call: CallId, value: u64, block: Option<&PoolBlock>) -> Vec<u8> {
    let mut frame = Vec::new();
    frame::begin_reply(&mut frame);
    frame.extend(value.to_le_bytes());
    let body = block.map_or(Body::Inline, |block| Body::Mapped(block.place(BODY)));
    frame::seal(&mut frame, call, body, &[]);
    frame
}

fn failure(call: CallId, error: &Error) -> Vec<u8> {
    let mut frame = Vec::new();
    frame::begin_failure(&mut frame);
    error.to_wire().within(MAX_FAILURE as usize).encode(&mut frame);
    frame::seal(&mut frame, call, Body::Inline, &[]);
    frame
}

fn broken(_: super::link::NotSent) -> Ended {
    Ended("receives nothing more")
}
