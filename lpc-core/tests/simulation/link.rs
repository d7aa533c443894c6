//! [`Link`]: how a process sends, and the memory that it sends from: the steps of `connection::link` of
//! lpc-runtime around the [`Sender`].

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Waker;

use lpc_core::Progress;
use lpc_core::arena::Arena;
use lpc_core::frame::{self, BlockRef, CallId};
use lpc_core::ledger::{Lease, Ledger, Waiting};
use lpc_core::lent::Lent;
use lpc_core::receive::Entrance;
use lpc_core::ring::{Consumer, Producer};
use lpc_core::send::{
    AfterWrite, Announced, BackPressure, Batch, MUCH, Sender, StreamPosition, WriteOutcome,
};

use super::network::{Descriptor, Pages, SLOTS, Socket, Unsent, Words};
use super::world::{MILLIS, On, Process, Time, World};

/// How long a frame waits for another one to travel with.
const SOON: Time = 5 * MILLIS;

/// How long nothing is put into shared memory after the peer had no room for it.
const REFUSED: Time = 30 * MILLIS;

/// How long a writer waits before it looks whether there is something to be read.
const SLICE: Time = 10 * MILLIS;

/// How long the peer may take nothing while something is to be sent.
const WRITE_TIMEOUT: Time = 5000 * MILLIS;

pub(crate) type Mapped = Ledger<Rc<Pages>>;

/// A block of this side's memory. Nobody may read it once this is gone.
#[derive(Debug)]
pub(crate) struct PoolBlock(Lease<Rc<Pages>>);

impl PoolBlock {
    pub(crate) fn place(&self, len: u64) -> BlockRef {
        BlockRef { segment: self.0.block().segment(), page: self.0.block().page(), len }
    }

    pub(crate) fn word(&self) -> u64 {
        self.0.segment().read(self.0.block().page()).expect("the block is in use")
    }
}

impl Drop for PoolBlock {
    fn drop(&mut self) {
        self.0.segment().clear(self.0.block().page());
    }
}

/// Why a frame was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotSent {
    Over,
    TimedOut,
}

/// What the owner of a link does for it.
pub(crate) trait Maintained {
    /// Nothing can be sent any more.
    fn send_failed(&self) {}

    /// A writer waits, and somebody should receive.
    fn meanwhile(&self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async {})
    }

    /// The connection is about to be over.
    fn closing(&self) {}
}

pub(crate) struct Link {
    pub(crate) world: Rc<World>,
    pub(crate) socket: Socket,
    pub(crate) sender: RefCell<Sender<Descriptor, Words, Words>>,
    pub(crate) ledger: Arc<Mapped>,
    pub(crate) lent: RefCell<Lent<PoolBlock>>,
    pub(crate) entrance: Arc<Entrance>,
    pub(crate) has_quick_lane: bool,
    /// The process runs on several processors.
    moves: bool,
    maintained: RefCell<Option<Weak<dyn Maintained>>>,
    is_pushed: Cell<bool>,
    is_late: Rc<Cell<bool>>,
    is_broken: Cell<bool>,
    refused_until: Cell<Time>,
    /// It never has shared memory.
    pub(crate) has_no_pool: bool,
    /// Writes that have begun or ended.
    pub(crate) writes: Rc<Cell<u32>>,
}

/// Bounds of one side's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool {
    pub(crate) bytes: u64,
    pub(crate) blocks: u32,
}

impl Link {
    pub(crate) fn new(
        world: &Rc<World>,
        process: Process,
        socket: Socket,
        pool: Pool,
        (has_quick_lane, moves): (bool, bool),
    ) -> Rc<Self> {
        let link = Rc::new(Self {
            world: Rc::clone(world),
            socket,
            sender: RefCell::default(),
            ledger: Ledger::new(Arena::new(pool.bytes, 4, pool.blocks)),
            lent: RefCell::default(),
            entrance: Arc::default(),
            has_quick_lane,
            moves,
            maintained: RefCell::default(),
            is_pushed: Cell::new(false),
            is_late: Rc::new(Cell::new(false)),
            is_broken: Cell::new(false),
            refused_until: Cell::new(0),
            has_no_pool: pool.bytes == 0,
            writes: Rc::default(),
        });
        let (is_late, late) = (Rc::clone(&link.is_late), Rc::downgrade(&link));
        let maintained = Rc::clone(world);
        world.spawn(process, format!("{process:?}'s maintenance"), async move {
            let has_work: Rc<dyn Fn() -> bool> = Rc::new(move || is_late.get());
            loop {
                maintained.wait(On::Check(Rc::clone(&has_work)), "waits for late frames", None).await;
                maintained.sleep(SOON).await;
                let Some(link) = late.upgrade() else { return };
                link.is_late.set(false);
                if link.try_flush() {
                    link.is_late.set(true);
                }
            }
        });
        link
    }

    pub(crate) fn maintained_by(&self, maintained: Weak<dyn Maintained>) {
        self.maintained.replace(Some(maintained));
    }

    fn maintained(&self) -> Option<Rc<dyn Maintained>> {
        self.maintained.borrow().as_ref().and_then(Weak::upgrade)
    }

    /// On which processor the thread runs.
    fn cpu(&self) -> Option<u32> {
        Some(u32::from(self.moves && self.world.chance(4)))
    }

    /// A block with this word in it; `None` where there is no room, or the peer could not read it.
    pub(crate) fn alloc(&self, len: u64, word: u64) -> Option<PoolBlock> {
        if self.is_refused() {
            return None;
        }
        let make = |number, len| {
            let pages = Rc::new(Pages::default());
            let descriptor = Descriptor::Pages(Rc::clone(&pages));
            let _ = self.sender.borrow_mut().enqueue_with(&frame::segment(number, len), descriptor);
            self.world.say(|| format!("announces segment {number}"));
            Ok::<_, ()>(pages)
        };
        let lease = self.ledger.alloc(len, make).ok()?.or_else(|| {
            self.make_room(len);
            self.ledger.alloc(len, make).ok()?
        })?;
        let page = lease.block().page();
        assert!(lease.segment().read(page).is_none(), "a block is handed out twice");
        lease.segment().write(page, word);
        Some(PoolBlock(lease))
    }

    fn make_room(&self, len: u64) {
        self.ledger.make_room(len, |number, _| {
            let _ = self.sender.borrow_mut().enqueue(&frame::retire(number));
        });
    }

    /// Whether what is waited for can be had now; if not, the waker is woken when it may be.
    pub(crate) fn has_room(&self, waiting: &Waiting<Rc<Pages>>, waker: &Waker) -> bool {
        if self.is_refused() || waiting.has_room(waker) {
            return true;
        }
        self.make_room(waiting.bytes());
        waiting.has_room(waker)
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.world.now() < self.refused_until.get()
    }

    /// The peer cannot read this segment.
    pub(crate) fn refused(&self, segment: u32) {
        self.ledger.withdraw(segment);
        self.refused_until.set(self.world.now() + REFUSED);
    }

    /// Gives back segments that are not in use. How many are left.
    pub(crate) fn trim(&self) -> usize {
        let left = self.ledger.trim(|number, _| {
            let _ = self.sender.borrow_mut().enqueue(&frame::retire(number));
        });
        self.flush_soon();
        left
    }

    /// Whether blocks of its memory are in use. All segments go in which there are none.
    pub(crate) fn has_memory(&self) -> bool {
        // One that was in use since the last time stays for once.
        self.trim();
        self.trim() > 0
    }

    pub(crate) fn lend(&self, block: &Arc<PoolBlock>) {
        let place = block.place(1);
        self.lent.borrow_mut().lend((place.segment, place.page), Arc::clone(block));
    }

    /// A loan comes back, or did not go.
    pub(crate) fn returned(&self, place: (u32, u32)) {
        let returned = self.lent.borrow_mut().returned(place);
        match returned {
            Ok(block) => drop(block),
            Err(violation) => self.world.fail("violation", violation.to_string()),
        }
    }

    /// Queues a frame that goes out with the next one, or soon.
    pub(crate) fn enqueue_deferred(&self, frame: &[u8]) {
        if self.sender.borrow_mut().enqueue(frame).is_ok() || !self.is_broken.get() {
            self.is_late.set(true);
        }
    }

    /// Sends what is queued, as far as that is possible at once. Whether something is left to be tried again.
    fn try_flush(&self) -> bool {
        loop {
            let mut sender = self.sender.borrow_mut();
            sender.ring_bell();
            let Some(mut batch) = sender.begin_write() else {
                let over = sender.is_over().is_some();
                drop(sender);
                if over {
                    self.fail();
                }
                return false;
            };
            let mut outcome = WriteOutcome::All;
            while let Some(piece) = batch.piece() {
                match self.socket.send(piece.bytes, piece.descriptor) {
                    Ok(len) => drop(batch.wrote(len)),
                    Err(unsent) => {
                        outcome = outcome_of(unsent);
                        break;
                    }
                }
            }
            let after = sender.finish(batch, outcome);
            drop(sender);
            self.wake_waiting();
            match after {
                AfterWrite::GoOn => {}
                AfterWrite::Lost(announced, _) => self.not_passed(announced),
                AfterWrite::Stalled => unreachable!("no reactor"),
                AfterWrite::Retry => return true,
                AfterWrite::Over(..) => {
                    self.fail();
                    return false;
                }
            }
        }
    }

    pub(crate) fn flush_soon(&self) {
        if self.try_flush() {
            self.is_late.set(true);
        }
    }

    /// Sends a frame as far as the socket takes it at once, and the rest soon.
    pub(crate) fn send_now(&self, frame: &[u8]) {
        let queued = self.sender.borrow_mut().enqueue(frame);
        if queued.is_ok() {
            self.flush_soon();
        }
    }

    /// Sends a frame, and does not wait beyond the deadline.
    pub(crate) async fn send_within(
        &self,
        frame: &[u8],
        deadline: Option<Time>,
    ) -> Result<StreamPosition, NotSent> {
        self.uncongested(deadline).await?;
        let mut sender = self.sender.borrow_mut();
        let sent = sender.tell_cpu(self.cpu()).and_then(|()| sender.send(frame));
        drop(sender);
        let Ok((position, batch)) = sent else {
            self.fail();
            return Err(NotSent::Over);
        };
        let written = self.write(batch, deadline).await;
        if written.is_err() && !self.sender.borrow().may_have_gone(position) {
            return Err(NotSent::Over);
        }
        Ok(position)
    }

    /// Puts a frame into the ring, if it goes there; whether a [bell](Self::wake) is needed.
    pub(crate) fn put(&self, frame: &[u8]) -> Option<(StreamPosition, bool)> {
        if !self.has_quick_lane {
            return None;
        }
        self.sender.borrow_mut().try_put(frame, self.cpu())
    }

    /// Leaves a frame to whoever flushes.
    pub(crate) fn leave(&self, frame: &[u8]) -> Option<StreamPosition> {
        if self.has_quick_lane {
            return None;
        }
        self.sender.borrow_mut().enqueue_behind(frame, self.cpu())
    }

    pub(crate) fn wake(&self) {
        self.sender.borrow_mut().queue_bell();
        self.flush_soon();
    }

    /// Queues a frame that somebody is about to flush.
    pub(crate) async fn push(&self, frame: &[u8]) -> Result<(), NotSent> {
        self.uncongested(None).await?;
        let mut sender = self.sender.borrow_mut();
        let queued = sender.tell_cpu(self.cpu()).and_then(|()| sender.enqueue(frame));
        let is_much = sender.queued() >= MUCH;
        drop(sender);
        match queued {
            Err(_) => {
                self.fail();
                Err(NotSent::Over)
            }
            Ok(StreamPosition::Ring(_)) => {
                let _ = self.write(None, None).await;
                Ok(())
            }
            Ok(_) if is_much => self.write(None, None).await,
            Ok(_) => {
                self.is_pushed.set(true);
                Ok(())
            }
        }
    }

    pub(crate) fn is_to_flush(&self) -> bool {
        self.is_pushed.get() || self.is_late.get() || self.is_broken.get()
    }

    pub(crate) async fn flush(&self) -> Result<(), NotSent> {
        self.world.step().await;
        self.is_pushed.set(false);
        self.sender.borrow_mut().resume();
        self.write(None, None).await
    }

    pub(crate) async fn flush_at_once(&self) {
        self.world.step().await;
        let _ = self.write(None, Some(self.world.now())).await;
    }

    /// Waits until a sender may add to the queue.
    async fn uncongested(&self, deadline: Option<Time>) -> Result<(), NotSent> {
        self.world.step().await;
        loop {
            let mut pressure = self.sender.borrow().back_pressure();
            if pressure == BackPressure::Write {
                Box::pin(self.write(None, deadline)).await?;
                pressure = self.sender.borrow().back_pressure();
            }
            if pressure == BackPressure::None {
                return Ok(());
            }
            if deadline.is_some_and(|deadline| deadline <= self.world.now()) {
                return Err(NotSent::TimedOut);
            }
            self.sender.borrow_mut().begin_waiting();
            let change = On::Change(Rc::clone(&self.writes), self.writes.get());
            self.world.wait(change, "waits for the queue to get shorter", deadline).await;
            self.sender.borrow_mut().end_waiting();
        }
    }

    /// Writes the batch, and then what is queued, unless somebody else is at it.
    async fn write(
        &self,
        mut begun: Option<Batch<'_, Descriptor>>,
        until: Option<Time>,
    ) -> Result<(), NotSent> {
        loop {
            let mut sender = self.sender.borrow_mut();
            if begun.is_none() {
                sender.ring_bell();
            }
            let Some(mut batch) = begun.take().or_else(|| sender.begin_write()) else {
                let is_over = sender.is_over().is_some();
                drop(sender);
                if is_over {
                    self.fail();
                    return Err(NotSent::Over);
                }
                return Ok(());
            };
            drop(sender);
            let outcome = self.write_batch(&mut batch, until).await;
            self.world.step().await;
            let after = self.sender.borrow_mut().finish(batch, outcome);
            self.wake_waiting();
            match after {
                AfterWrite::GoOn => {}
                AfterWrite::Lost(announced, _) => self.not_passed(announced),
                AfterWrite::Stalled => unreachable!("no reactor"),
                AfterWrite::Retry => {
                    self.is_late.set(true);
                    return Ok(());
                }
                AfterWrite::Over(..) => {
                    self.fail();
                    return Err(NotSent::Over);
                }
            }
        }
    }

    async fn write_batch(&self, batch: &mut Batch<'_, Descriptor>, until: Option<Time>) -> WriteOutcome {
        while let Some(piece) = batch.piece() {
            match self.socket.send(piece.bytes, piece.descriptor) {
                Ok(len) => {
                    batch.wrote(len);
                    self.world.step().await;
                }
                Err(Unsent::Full) => {
                    let socket = self.socket.clone();
                    let writable: Rc<dyn Fn() -> bool> = Rc::new(move || socket.is_writable());
                    let stalled = self.world.now() + WRITE_TIMEOUT;
                    loop {
                        let slice = self.world.now() + SLICE;
                        let end = until.map_or(slice, |until| until.min(slice));
                        let on = On::Check(Rc::clone(&writable));
                        if self.world.wait(on, "waits to write", Some(end)).await {
                            break;
                        }
                        if self.is_broken.get() {
                            return WriteOutcome::Failed;
                        }
                        if let Some(maintained) = self.maintained() {
                            maintained.meanwhile().await;
                        }
                        if until.is_some_and(|until| until <= self.world.now()) {
                            return WriteOutcome::OutOfTime;
                        }
                        if stalled <= self.world.now() {
                            self.world.say(|| "finds that the peer has stopped reading".into());
                            return WriteOutcome::Failed;
                        }
                    }
                }
                Err(unsent) => return outcome_of(unsent),
            }
        }
        WriteOutcome::All
    }

    fn wake_waiting(&self) {
        if self.sender.borrow().waiting() > 0 {
            self.writes.set(self.writes.get() + 1);
        }
    }

    fn not_passed(&self, announced: Announced) {
        self.world.say(|| format!("{announced:?} was announced without its descriptor"));
        if let Announced::Memory(segment) = announced {
            self.refused(segment);
        }
    }

    /// Gives the sending up.
    fn fail(&self) {
        if self.give_up() {
            self.world.say(|| "can send nothing more".into());
            self.socket.stop_sending();
            if let Some(maintained) = self.maintained() {
                maintained.send_failed();
            }
        }
    }

    fn give_up(&self) -> bool {
        let is_first = !self.is_broken.replace(true);
        let descriptors = self.sender.borrow_mut().give_up();
        descriptors.for_each(drop);
        self.writes.set(self.writes.get() + 1);
        is_first
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken.get()
    }

    /// The peer receives nothing more.
    pub(crate) fn stop_sending(&self, taken: u64) {
        self.sender.borrow_mut().peer_has_taken(taken);
        self.give_up();
        self.socket.stop_sending();
    }

    pub(crate) fn close(&self) {
        self.ledger.close();
        // Before the peer can see the end: what it then finds taken is all that is ever taken.
        if let Some(maintained) = self.maintained() {
            maintained.closing();
        }
        self.give_up();
        self.socket.close();
        let lent = self.lent.take();
        drop(lent);
    }

    pub(crate) fn offer_ring(&self) {
        let own = Words::new();
        let offered = self.sender.borrow_mut().offer_ring(own.clone(), Descriptor::Words(own));
        if offered.is_ok() {
            self.flush_soon();
        }
    }

    /// The peer's memory for the quick lane has come.
    pub(crate) fn take_ring(&self, peers: Words) -> Consumer<Words, Words> {
        let mut sender = self.sender.borrow_mut();
        let (own, descriptor) = match sender.take_offered() {
            Some(own) => (own, None),
            None => {
                let own = Words::new();
                (own.clone(), Some(Descriptor::Words(own)))
            }
        };
        let is_announced = descriptor.is_some();
        let producer = Producer::new(own.clone(), peers.clone(), SLOTS);
        if sender.use_ring(producer, descriptor).is_ok() && is_announced {
            self.is_pushed.set(true);
        }
        Consumer::new(own, peers, SLOTS)
    }

    /// How far a call can have got whose frame ends there.
    pub(crate) fn progress(&self, position: StreamPosition) -> Progress {
        let has_gone = self.sender.borrow().may_have_gone(position);
        if self.is_broken.get() && !has_gone { Progress::NotSent } else { Progress::MayHaveRun }
    }

    /// A reply was read, and its block is the server's again.
    pub(crate) fn release(&self, call: CallId) {
        self.enqueue_deferred(&frame::release(call));
    }
}

const fn outcome_of(unsent: Unsent) -> WriteOutcome {
    match unsent {
        Unsent::Full => WriteOutcome::OutOfTime,
        Unsent::Short => WriteOutcome::Short,
        Unsent::Broken => WriteOutcome::Failed,
    }
}
