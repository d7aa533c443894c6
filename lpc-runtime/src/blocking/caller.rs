//! [`Connection`]: one connection of a blocking client, and how a thread that calls through it waits.
//!
//! It has no thread of its own. Of the callers that wait one holds the receive half ([`Inbox`]): it receives,
//! hands the replies of others to them, and when its own has come hands the half on. A lone caller therefore
//! sends and receives by itself: two system calls, no other thread. [`Turns`] says whose turn it is; here is
//! what a caller does with it.

use std::io;
use std::num::NonZero;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use lpc_core::calls::{Abandoned, Fetched as FromTable};
use lpc_core::form::Question;
use lpc_core::frame::{self, CallId};
use lpc_core::receive::Role;
use lpc_core::turns::{Caller, Spot, Step, Turns, Waits};
use lpc_core::{Error, Result, handshake};

use super::greeting;
use crate::body::arrived::Arrived;
use crate::body::outgoing::{Encoded, InBlock};
use crate::client::backpressure::QuotaWait;
use crate::client::reply::{self, Fetched};
use crate::client::session::{Gone, Handed, Own, Session, State};
use crate::config::Config;
use crate::connection::inbox::{Filled, Inbox};
use crate::connection::link::Link;
use crate::connection::tally::Counters;
use crate::generated::{Description, Encode, Encoder, Outcome};
use crate::home::Home;
use crate::maintenance::{self, Left, Maintained};
use crate::memory::lender::Loaned;
use crate::port::Port;
use crate::shared::{Plain, SharedMut};
use crate::spans::CallSpan;
use crate::sys::cpu;
use crate::sys::socket::{self, Wait};
use crate::sys::thread::waker;

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    session: Session<Callers>,
    home: Home,
}

pub(super) type Callers = Turns<Box<Inbox>>;

/// A request that is sent, and the receive half if its caller receives next.
type Started = (CallId, Option<Box<Inbox>>);

/// How many runnable callers are contention, at least. (Fewer on one processor go on in turns, each for as
/// long as it is let run, and then one that sends by itself and spins for its answer is faster: 3 to 8
/// threads, measured.)
const CONTENTION: usize = 16;

/// How long a caller relies at most on others that are about to run.
const RELIES: Duration = Duration::from_millis(20);

impl Connection {
    pub(super) fn new(
        stream: UnixStream,
        service: Description,
        config: &Config,
        counters: Arc<Counters>,
        home: Home,
    ) -> Result<Arc<Self>> {
        home.check()?;
        // Before the other side counts the time.
        service.check_forms()?;
        let thresholds = config.thresholds(service.methods)?;
        let greeted = greeting::greet_server(&stream, service, config)?;
        let is_trusted = config.trusts(greeted.peer.as_ref());
        let settings = config.client_settings(greeted.limits, greeted.peer.as_ref())?;
        let link = Link::new(Arc::new(stream), Wait::Sleep, settings, counters);
        let inbox = Box::new(Inbox::new(Role::Client, config.limits, is_trusted, &link));
        let callers = Turns::new(inbox, contention());
        let session = Session::new(link, service, greeted, thresholds, config, callers);
        let connection = Arc::new(Self { session, home });
        connection.link().maintained_by(maintenance::weak(&connection));
        if connection.link().limits().quick_lane {
            connection.link().offer_ring();
        }
        Ok(connection)
    }

    pub(super) fn session(&self) -> &Session<Callers> {
        &self.session
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        self.session.link()
    }

    /// Whether calls can be made. Where no caller receives, nobody has noticed if the server is gone.
    pub(super) fn is_connected(&self) -> bool {
        self.session.is_usable()
            && !(self.session.state().callers.is_free() && socket::is_hung_up(self.link().socket()))
    }

    /// Ends the connection, and with it all calls.
    pub(super) fn close(&self, reason: &Error) {
        self.session.close(reason.clone());
        // Where a caller receives, it sees the end; where none does, calls may be on their way to wait.
        if self.link().check_process().is_ok() && self.receive_what_is_there(|_| ()).is_some() {
            self.session.end(reason);
        }
    }

    pub(super) fn loan<T: Plain>(&self, len: usize, deadline: Option<Instant>) -> Result<SharedMut<[T]>> {
        let mut wait = QuotaWait::new(self.session.at_quota(), deadline);
        let mut place = None;
        loop {
            let tried = self.session.try_loan(len).map_err(|error| self.explained(error, deadline))?;
            drop(place.take());
            match tried {
                Ok(loan) => return Ok(loan),
                Err(bytes) => place = Some(self.wait_for_memory(bytes, &mut wait)?),
            }
        }
    }

    pub(super) fn call<R: Outcome>(
        &self,
        method: u32,
        encode: &Encode<'_>,
        deadline: Option<Instant>,
    ) -> Result<R> {
        let methods = self.session.methods();
        if let Some(number) = methods.number(method) {
            return self.call_as(method, number, encode, deadline);
        }
        // The error says how the server's method looks, if the server says so.
        if let Some(number) = methods.unasked(method) {
            let question = Question { method: number }.encode();
            let ask = |asking: &mut Encoder<'_>| asking.push("question", &question);
            let answer: Result<Result<Vec<u8>>> = self.call_as(method, handshake::FORM, &ask, deadline);
            methods.learn(method, answer.flatten());
        }
        Err(methods.error(method))
    }

    /// Calls the server's method of this number.
    fn call_as<R: Outcome>(
        &self,
        method: u32,
        number: u16,
        encode: &Encode<'_>,
        deadline: Option<Instant>,
    ) -> Result<R> {
        let span = self.session.span(method);
        let _entered = span.enter();
        let reply = self.fetch((method, number), encode, deadline, &span);
        let result = reply.and_then(|reply| self.session.decode(reply, (method, number)));
        let result = result.map_err(|error| self.explained(error, deadline));
        span.ended(&result);
        result.map_err(|error| self.session.service().context(method, error))
    }

    /// The error of the end of a connection to a child says how that has ended.
    #[cold]
    fn explained(&self, error: Error, deadline: Option<Instant>) -> Error {
        match self.session.child_of(&error) {
            Some(child) => child.explain(error, deadline),
            None => error,
        }
    }

    /// Makes a call and waits for its reply.
    #[inline]
    fn fetch(
        &self,
        method: (u32, u16),
        encode: &Encode<'_>,
        deadline: Option<Instant>,
        span: &CallSpan,
    ) -> Result<Fetched<'_>> {
        let request = self.encode(method, encode, deadline)?;
        let (call, half) = self.start(request, deadline)?;
        span.sent(call);
        let answer = self.wait(call, half, method.0, deadline)?;
        self.session.fetched(call, answer, method.0, deadline)
    }

    #[inline]
    fn encode(&self, method: (u32, u16), encode: &Encode<'_>, deadline: Option<Instant>) -> Result<Encoded> {
        self.link().check_process()?;
        self.home.check()?;
        let mut hint = 0;
        let (mut wait, mut place) = (None, None);
        loop {
            let missing = match self.session.encode(method, encode, &mut hint)? {
                Ok(request) => return Ok(request),
                Err(bytes) => bytes,
            };
            let wait = wait.get_or_insert_with(|| QuotaWait::new(self.session.at_quota(), deadline));
            drop(place.take());
            place = Some(self.wait_for_memory(missing, wait)?);
        }
    }

    /// Sends a call. Gives the receive half as well if its caller is to receive, to be [waited](Self::wait)
    /// with.
    #[inline]
    fn start(&self, mut request: Encoded, deadline: Option<Instant>) -> Result<Started> {
        let mut state = self.admit(request.nesting(), deadline)?;
        let call = self.session.start(&mut state, &mut request, deadline);
        // It will be needed twice.
        let cpu = cpu::current();
        // Without a system call, and so under the lock.
        if request.loans().is_empty() {
            if let Some((position, has_to_wake)) = self.link().try_put(request.frame(), cpu) {
                state.calls.sent(call, position);
                let half = waits_at(cpu, state.callers.enter());
                drop(state);
                if has_to_wake {
                    self.link().wake();
                }
                return Ok((call, half));
            }
            if state.callers.defers()
                && let Some(position) = self.link().enqueue_behind(request.frame(), cpu)
            {
                state.calls.sent(call, position);
                state.callers.defer();
                return Ok((call, None));
            }
        }
        state.callers.begin_send();
        drop(state);
        Ok((call, self.send(call, request.frame(), request.loans(), cpu, deadline)?))
    }

    /// Sends the frame of a call. Gives the receive half if the caller is to receive.
    fn send(
        &self,
        call: CallId,
        frame: &[u8],
        loans: &[Loaned],
        cpu: Option<u32>,
        deadline: Option<Instant>,
    ) -> Result<Option<Box<Inbox>>> {
        self.link().lender().lend(loans);
        match self.link().send_within(frame, cpu, deadline) {
            Ok((_, position)) => {
                let mut state = self.session.state();
                // Another caller may have received the answer already.
                let is_unanswered = state.calls.sent(call, position);
                let is_pending = self.session.is_pending(&state);
                let (half, actions) = state.callers.end_send(is_unanswered && is_pending);
                drop(state);
                self.session.act(actions);
                if !is_pending {
                    self.session.fail_late();
                }
                Ok(waits_at(cpu, half))
            }
            Err(error) => {
                // Nor does the server know of what was lent with it.
                self.link().lender().take_back(loans);
                let mut state = self.session.state();
                let (error, gone) = self.session.not_sent(&mut state, call, &error);
                let actions = state.callers.abort_send();
                drop(state);
                self.session.act(actions);
                drop(gone);
                Err(error)
            }
        }
    }

    /// Sends a call again whose body the server cannot read where it stands.
    #[cold]
    fn send_again(
        &self,
        call: CallId,
        body: &InBlock,
        deadline: Option<Instant>,
    ) -> Result<Option<Box<Inbox>>> {
        self.link().counters().fallback();
        let frame = body.inline(call, deadline.map(reply::time_left)).inspect_err(|_| self.unsend(call));
        // What is lent with it has been lent.
        let sent = frame.and_then(|frame| self.send(call, &frame, &[], cpu::current(), deadline));
        sent.inspect_err(|_| self.link().lender().take_back(body.loans()))
    }

    /// The call is not sent again: the server has not taken it in.
    #[cold]
    fn unsend(&self, call: CallId) {
        let mut state = self.session.state();
        let gone = state.calls.unsent(call);
        let gone = state.woken(gone);
        let actions = state.callers.abort_send();
        drop(state);
        self.session.act(actions);
        drop(gone);
    }

    /// The calls, with a permit for one more.
    #[inline]
    fn admit(&self, nesting: u32, deadline: Option<Instant>) -> Result<MutexGuard<'_, State<Callers>>> {
        let mut state = self.session.state();
        if state.calls.admit_nested(nesting)? {
            return Ok(state);
        }
        let ticket = state.calls.queue_nested(nesting);
        self.wait_for_permit(state, ticket, deadline)
    }

    /// Waits for the answer to `call`: receives while it has the half, which it takes where no other caller
    /// does.
    fn wait(
        &self,
        call: CallId,
        mut half: Option<Box<Inbox>>,
        method: u32,
        deadline: Option<Instant>,
    ) -> Result<Result<Arrived>> {
        let mut caller = Caller::new(Waits::ForAnswer);
        loop {
            let mut state = match half.take() {
                None => self.session.state(),
                Some(half) => match self.receive_for(call, half, deadline) {
                    Ok(answer) => return Ok(answer),
                    Err(state) => state,
                },
            };
            match state.calls.fetch(call) {
                Some(FromTable::Answer(gone)) => return Ok(self.leave(state, gone).expect(ANSWERED)),
                Some(FromTable::Rejected(body)) => {
                    let actions = state.callers.send_again();
                    drop(state);
                    self.session.act(actions);
                    half = self.send_again(call, &body, deadline)?;
                    continue;
                }
                None => {}
            }
            let left = deadline.map(reply::time_left);
            if left.is_some_and(|left| left.is_zero()) {
                return self.abandon(state, call, method);
            }
            let waker = waker();
            let (step, actions) = state.callers.step(&mut caller, &waker);
            let spot = match step {
                Step::Receive(taken) => {
                    drop(state);
                    self.session.act(actions);
                    half = Some(taken);
                    continue;
                }
                Step::Park(spot) => spot,
            };
            state.calls.wait(call, spot);
            drop(state);
            self.session.act(actions);
            park(&caller, left);
            let mut state = self.session.state();
            let actions = state.callers.resume(&mut caller, spot);
            drop(state);
            self.session.act(actions);
        }
    }

    /// Receives until the caller's own answer has come, or its deadline, or the connection's end; gives the
    /// calls back where it has not come.
    #[inline]
    fn receive_for(
        &self,
        call: CallId,
        mut half: Box<Inbox>,
        deadline: Option<Instant>,
    ) -> Result<Result<Arrived>, MutexGuard<'_, State<Callers>>> {
        let mut own = Own { call: Some(call), answer: None };
        if let Err(error) = self.receive(&mut own, &mut half, deadline) {
            self.session.end(&error);
        }
        let mut state = self.session.state();
        state.callers.put_back(half);
        let Some(answer) = own.answer else { return Err(state) };
        let gone = state.calls.answer_own(call);
        self.leave(state, gone);
        Ok(answer)
    }

    /// The caller has its answer, and is gone.
    #[inline]
    fn leave(&self, mut state: MutexGuard<'_, State<Callers>>, gone: Gone<Spot>) -> Option<Result<Arrived>> {
        let Gone { answer, body, wake } = gone;
        let wake = wake.and_then(|waiter| state.callers.wake(waiter));
        let actions = state.callers.leave();
        drop(state);
        drop(body);
        if let Some(waker) = wake {
            waker.wake();
        }
        self.session.act(actions);
        answer
    }

    /// Gives a call up whose deadline has passed.
    #[cold]
    fn abandon(
        &self,
        mut state: MutexGuard<'_, State<Callers>>,
        call: CallId,
        method: u32,
    ) -> Result<Result<Arrived>> {
        let link = self.link();
        let in_flight = state.calls.len();
        let abandoned = state.calls.abandon(call, |position| reply::progress(position, link));
        match abandoned {
            Abandoned::Gone(gone) => Ok(self.leave(state, gone).expect(ANSWERED)),
            Abandoned::Cancel { progress, .. } => {
                let actions = state.callers.leave();
                drop(state);
                self.session.act(actions);
                link.send_now(&frame::cancel(call));
                // Its reply, which frees its block, may be the last thing to come for a while.
                link.watch();
                Err(self.session.timed_out(method, progress, in_flight))
            }
        }
    }

    /// Receives until the caller's own answer has come, or its deadline, and hands out those of others on the
    /// way. What arrived before has been handed out.
    #[inline]
    fn receive(&self, own: &mut Own, inbox: &mut Inbox, deadline: Option<Instant>) -> Result<()> {
        let link = self.link();
        // However much comes for others.
        while deadline.is_none_or(|deadline| deadline > Instant::now()) {
            let (socket, stall) = (link.socket(), link.stall());
            let filled = if link.flush_left() {
                inbox.fill_within(socket, stall, deadline)?
            } else {
                inbox.fill_or_wait_for_room(socket, stall, deadline)?
            };
            if filled == Filled::End {
                return Err(self.session.hung_up(inbox)?);
            }
            let handed = self.session.hand_out(inbox, own)?;
            // The end of sending may be an answer, too.
            if own.answer.is_some() || own.call.is_none() || handed == Handed::Closing {
                break;
            }
        }
        Ok(())
    }
}

/// The receive half, if its holder is to wait with it, and on this CPU.
#[inline]
fn waits_at(cpu: Option<u32>, mut half: Option<Box<Inbox>>) -> Option<Box<Inbox>> {
    if let Some(half) = &mut half {
        half.is_at(cpu);
    }
    half
}

const ANSWERED: &str = "the call is answered";

impl Maintained for Connection {
    fn flush_deferred(&self) -> Left {
        self.link().flush_deferred()
    }

    fn trim(&self) -> Option<Duration> {
        // Without callers nobody receives, and the server's word that memory is free again lies in the
        // socket.
        let has_more = match self.receive_what_is_there(Inbox::has_memory) {
            // A caller receives. What the server has lent meanwhile is seen to the next time.
            None => true,
            Some(Ok(has_memory)) => has_memory || !self.session.state().calls.is_empty(),
            Some(Err(_)) => false,
        };
        self.link().trim_and_flush(has_more)
    }

    /// Replies of cancelled calls would keep the server from receiving.
    fn meanwhile(&self) {
        let _ = self.receive_what_is_there(|_| ());
    }

    fn awaits_peer(&self) -> bool {
        let _ = self.receive_what_is_there(|_| ());
        self.session.awaits_server()
    }

    fn does_not_read(&self, error: io::Error) {
        self.close(&reply::stopped(error));
    }

    fn send_failed(&self) {
        self.session.send_failed();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.link().close();
    }
}

/// How many runnable callers are contention: as many as there are processors, too (as it was when that was
/// first asked).
fn contention() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    let processors =
        PROCESSORS.get_or_init(|| thread::available_parallelism().map_or(CONTENTION, NonZero::get));
    CONTENTION.max(*processors)
}

/// Parks this thread until it is woken, for no longer than `left`.
pub(super) fn park(caller: &Caller, left: Option<Duration>) {
    let most = caller.relies_on_others().then_some(RELIES);
    match left.into_iter().chain(most).min() {
        Some(time) => thread::park_timeout(time),
        None => thread::park(),
    }
}

/// A new connection to the server of a port.
pub(super) fn dial(
    port: &Port,
    service: Description,
    config: &Config,
    counters: Arc<Counters>,
) -> Result<Arc<Connection>> {
    let stream = port.connect(config.handshake_timeout)?;
    let home = Home::of(port, &stream);
    let connected = crate::handshake::check_server(&stream, config)
        .and_then(|()| Connection::new(stream, service, config, counters, home));
    connected.map_err(|error| error.with_context(format_args!("port {}", port.describe())))
}
