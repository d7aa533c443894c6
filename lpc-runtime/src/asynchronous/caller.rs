//! [`Connection`]: one connection of an async client, and how a task that calls through it waits.
//!
//! A call is encoded and written by the task that makes it; which task receives is for the
//! [handover](super::handover) to say.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::ops::Deref;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use lpc_core::form::Question;
use lpc_core::frame::CallId;
use lpc_core::receive::Role;
use lpc_core::{Error, ErrorKind, Progress, Result, handshake};
use tokio::runtime::Handle;

use super::call::{Call, Fetch, Queued};
use super::greeting;
use super::handover::{self, Handover};
use super::race::{Either, race};
use super::socket::AsyncLink;
use super::stream::Stream;
use super::timer::Timer;
use crate::body::outgoing::Encoded;
use crate::client::backpressure::{Quota, QuotaWait};
use crate::client::reply::{self, Fetched};
use crate::client::session::{Session, State};
use crate::config::Config;
use crate::connection::inbox::Inbox;
use crate::connection::link::Link;
use crate::connection::tally::Counters;
use crate::generated::{Description, Encoder, Outcome, SyncEncode};
use crate::maintenance::{self, Left, Maintained};
use crate::memory::lender::Loaned;
use crate::memory::pool::WaitingForRoom;
use crate::port::Port;
use crate::shared::{Plain, SharedMut};
use crate::spans::CallSpan;
use crate::sys::cpu;
use crate::sys::socket::{Wait, is_hung_up};

/// One connection, as clients hold it: it ends with them.
#[derive(Debug)]
pub(super) struct Connected(Arc<Connection>);

/// What a call has to wait for before it can be sent.
enum WaitsFor {
    /// So much is queued that the socket does not take.
    Queue,
    /// So many bytes of shared memory.
    Memory(u64),
    /// A permit for this request.
    Permit(Encoded),
}

/// One connection. Held by its task as well.
#[derive(Debug)]
pub(super) struct Connection {
    link: AsyncLink,
    session: Session<Handover>,
    timer: Timer,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.link.close();
    }
}

impl Deref for Connected {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl Connection {
    pub(super) async fn connect(
        stream: UnixStream,
        service: Description,
        config: &Config,
        counters: Arc<Counters>,
    ) -> Result<Connected> {
        // Before the other side counts the time.
        service.check_forms()?;
        let thresholds = config.thresholds(service.methods)?;
        let socket = Arc::new(Stream::new(stream)?);
        let greeted = greeting::greet_server(&socket, service, config).await?;
        let is_trusted = config.trusts(greeted.peer.as_ref());
        let settings = config.client_settings(greeted.limits, greeted.peer.as_ref())?;
        let link = Link::new(Arc::clone(&socket) as _, Wait::Never, settings, counters);
        let mut inbox = Box::new(Inbox::new(Role::Client, config.limits, is_trusted, &link));
        inbox.wait_in_runtime(link.spin());
        let async_link = AsyncLink::new(Arc::clone(&link));
        let session = Session::new(link, service, greeted, thresholds, config, Handover::default());
        let connection = Arc::new(Self { link: async_link, session, timer: Timer::here() });
        connection.session.link().maintained_by(maintenance::weak(&connection));
        if connection.session.link().limits().quick_lane {
            connection.session.link().offer_ring();
        }
        // Made here: a task that is dropped before its first turn has to end the connection too.
        let guard = EndOnDrop(Arc::clone(&connection));
        tokio::spawn(drive(guard, socket, inbox));
        Ok(Connected(connection))
    }

    pub(super) fn link(&self) -> &AsyncLink {
        &self.link
    }

    pub(super) fn session(&self) -> &Session<Handover> {
        &self.session
    }

    /// Whether calls can be made. The connection's task need not have noticed yet that the server is gone.
    pub(super) fn is_connected(&self) -> bool {
        self.session.is_usable() && !is_hung_up(self.session.link().socket())
    }

    /// Ends the connection, and with it all calls: those that wait for an answer when its task sees that.
    pub(super) fn close(&self, reason: Error) {
        self.session.close(reason);
        self.link.wake_congested();
    }

    pub(super) async fn loan<T: Plain>(
        &self,
        len: usize,
        deadline: Option<Instant>,
    ) -> Result<SharedMut<[T]>> {
        let mut wait = QuotaWait::new(self.session.at_quota(), deadline);
        let mut place = None;
        loop {
            let tried = match self.session.try_loan(len) {
                Ok(tried) => tried,
                Err(error) => return Err(self.explained(error, deadline).await),
            };
            drop(place.take());
            match tried {
                Ok(loan) => return Ok(loan),
                Err(bytes) => place = Some(self.wait_for_memory(bytes, &mut wait).await?),
            }
        }
    }

    pub(super) async fn call<R: Outcome>(
        &self,
        method: u32,
        encode: &SyncEncode<'_>,
        deadline: Option<Instant>,
    ) -> Result<R> {
        let methods = self.session.methods();
        if let Some(number) = methods.number(method) {
            return self.call_as(method, number, encode, deadline).await;
        }
        // The error says how the server's method looks, if the server says so.
        if let Some(number) = methods.unasked(method) {
            let question = Question { method: number }.encode();
            let ask = move |asking: &mut Encoder<'_>| asking.push("question", &question);
            let answer: Result<Result<Vec<u8>>> = self.call_as(method, handshake::FORM, &ask, deadline).await;
            methods.learn(method, answer.flatten());
        }
        Err(methods.error(method))
    }

    /// Calls the server's method of this number.
    async fn call_as<R: Outcome>(
        &self,
        method: u32,
        number: u16,
        encode: &SyncEncode<'_>,
        deadline: Option<Instant>,
    ) -> Result<R> {
        let span = self.session.span(method);
        let reply = self.fetch((method, number), encode, deadline, &span).await;
        let mut result =
            span.in_scope(|| reply.and_then(|reply| self.session.decode(reply, (method, number))));
        if let Err(error) = &mut result
            && self.session.child_of(error).is_some()
        {
            // In a box, so that the future of a call is no larger for it.
            *error = Box::pin(self.explained(error.clone(), deadline)).await;
        }
        span.ended(&result);
        result.map_err(|error| self.session.service().context(method, error))
    }

    /// The error of the end of a connection to a child says how that has ended.
    async fn explained(&self, error: Error, deadline: Option<Instant>) -> Error {
        match self.session.child_of(&error) {
            // Outside of a runtime nothing can be waited for.
            Some(child) if Handle::try_current().is_ok() => child.explain_later(error, deadline).await,
            Some(child) => child.explain_now(error),
            None => error,
        }
    }

    /// Gives a call up whose deadline has passed.
    #[cold]
    fn late(&self, mut call: Call<'_>, method: u32) -> Error {
        let in_flight = self.session.state().calls.len();
        // An answer that came too late is not told.
        let progress = call.abandon().min(Progress::MayHaveRun);
        self.session.timed_out(method, progress, in_flight)
    }

    /// Makes a call and waits for its reply, until its deadline.
    async fn fetch(
        &self,
        method: (u32, u16),
        encode: &SyncEncode<'_>,
        deadline: Option<Instant>,
        span: &CallSpan,
    ) -> Result<Fetched<'_>> {
        let mut hint = 0;
        let sent = match span.in_scope(|| self.send(method, encode, &mut hint, deadline))? {
            Ok(call) => Some(Ok(call)),
            // In a box, so that the future of a call that need not wait is small: it is moved a few times.
            Err(wait) => {
                let mut later = Box::pin(self.send_later(method, encode, wait, hint, deadline));
                self.timer.within(deadline, poll_fn(|cx| span.in_scope(|| later.as_mut().poll(cx)))).await
            }
        };
        let mut call = sent.unwrap_or_else(|| Err(self.session.timed_out(method.0, Progress::NotSent, 0)))?;
        span.sent(call.id);
        loop {
            match self.timer.within(deadline, poll_fn(|cx| span.in_scope(|| call.poll_fetch(cx)))).await {
                Some(Fetch::Answer(answer)) => {
                    return self.session.fetched(call.id, answer, method.0, deadline);
                }
                Some(Fetch::Rejected) => {
                    if self.timer.within(deadline, Box::pin(self.link.uncongested())).await.is_none() {
                        return Err(self.late(call, method.0));
                    }
                    call.send_again(deadline)?;
                }
                None => return Err(self.late(call, method.0)),
            }
        }
    }

    /// Encodes and sends a call, if nothing is to be waited for.
    fn send(
        &self,
        method: (u32, u16),
        encode: &SyncEncode<'_>,
        hint: &mut u64,
        deadline: Option<Instant>,
    ) -> Result<Result<Call<'_>, WaitsFor>> {
        self.session.link().check_process()?;
        if self.session.link().is_congested() {
            return Ok(Err(WaitsFor::Queue));
        }
        let mut request = match self.session.encode(method, encode, hint)? {
            Ok(request) => request,
            Err(bytes) => return Ok(Err(WaitsFor::Memory(bytes))),
        };
        let mut state = self.session.state();
        if !state.calls.admit_nested(request.nesting())? {
            drop(state);
            return Ok(Err(WaitsFor::Permit(request)));
        }
        self.start(state, &mut request, deadline).map(Ok)
    }

    /// The same, of a call that has to wait first.
    async fn send_later(
        &self,
        method: (u32, u16),
        encode: &SyncEncode<'_>,
        mut waits_for: WaitsFor,
        mut hint: u64,
        deadline: Option<Instant>,
    ) -> Result<Call<'_>> {
        let (mut wait, mut place) = (None, None);
        loop {
            match waits_for {
                WaitsFor::Queue => self.link.uncongested().await,
                WaitsFor::Memory(missing) => {
                    let wait = wait.get_or_insert_with(|| QuotaWait::new(self.session.at_quota(), deadline));
                    drop(place.take());
                    place = Some(self.wait_for_memory(missing, wait).await?);
                }
                WaitsFor::Permit(mut request) => {
                    drop(place);
                    self.wait_for_permit(request.nesting(), deadline).await?;
                    return self.start(self.session.state(), &mut request, deadline);
                }
            }
            match self.send(method, encode, &mut hint, deadline)? {
                Ok(call) => return Ok(call),
                Err(wait) => waits_for = wait,
            }
        }
    }

    /// Sends a call that has its permit.
    fn start(
        &self,
        mut state: std::sync::MutexGuard<'_, State<Handover>>,
        request: &mut Encoded,
        deadline: Option<Instant>,
    ) -> Result<Call<'_>> {
        let (is_alone, cpu) = (state.calls.is_empty(), cpu::current());
        let id = self.session.start(&mut state, request, deadline);
        // Without a system call, and so under the lock.
        if request.loans().is_empty()
            && let Some((position, has_to_wake)) = self.session.link().try_put(request.frame(), cpu)
        {
            state.calls.sent(id, position);
            drop(state);
            if has_to_wake {
                self.session.link().wake();
            }
            return Ok(Call::new(self, id));
        }
        drop(state);
        self.send_frame(id, request.frame(), request.loans(), cpu, is_alone)?;
        Ok(Call::new(self, id))
    }

    /// Sends the frame of a call.
    pub(super) fn send_frame(
        &self,
        id: CallId,
        frame: &[u8],
        loans: &[Loaned],
        cpu: Option<u32>,
        is_alone: bool,
    ) -> Result<()> {
        let link = self.session.link();
        link.lender().lend(loans);
        let sent = match is_alone {
            true => self.link.send_on(frame, cpu),
            // The tasks of those others may be about to call again.
            false => self.link.send_with_others(frame, cpu),
        };
        match sent {
            Ok(position) => {
                let mut state = self.session.state();
                state.calls.sent(id, position);
                let is_pending = self.session.is_pending(&state);
                drop(state);
                if !is_pending {
                    self.session.fail_late();
                }
                Ok(())
            }
            Err(error) => {
                link.lender().take_back(loans);
                let mut state = self.session.state();
                let (error, gone) = self.session.not_sent(&mut state, id, &error);
                drop(state);
                drop(gone);
                Err(error)
            }
        }
    }

    /// Waits until so much shared memory may be had. It may be gone again when the caller comes to take it.
    /// What is given keeps its place until then.
    async fn wait_for_memory(&self, bytes: u64, wait: &mut QuotaWait) -> Result<WaitingForRoom> {
        let room = self.session.link().lender().wait_for(bytes);
        self.wait_for_room(&room, bytes, wait).await.map(|()| room)
    }

    async fn wait_for_room(&self, room: &WaitingForRoom, bytes: u64, wait: &mut QuotaWait) -> Result<()> {
        let there = poll_fn(|cx| {
            let state = self.session.state();
            if let Some(reason) = state.calls.life().why_closed() {
                return Poll::Ready(Err(reason.clone().with_progress(Progress::NotSent)));
            }
            drop(state);
            if self.session.link().has_room(room, cx.waker()) { Poll::Ready(Ok(())) } else { Poll::Pending }
        });
        let mut there = pin!(there);
        if let Poll::Ready(result) = poll_fn(|cx| Poll::Ready(there.as_mut().poll(cx))).await {
            result?;
            match wait.try_again(bytes)? {
                Duration::ZERO => {}
                pause => self.timer.sleep(pause).await,
            }
            return Ok(());
        }
        let time = wait.left(Quota::Memory(bytes))?;
        match self.timer.within_time(time, there).await {
            Some(result) => result,
            // Its error, which says that time has run out; if a clock differs, the caller tries once more.
            None => wait.left(Quota::Memory(bytes)).map(drop),
        }
    }

    /// Waits for a permit.
    async fn wait_for_permit(&self, nesting: u32, deadline: Option<Instant>) -> Result<()> {
        let ticket = self.session.state().calls.queue_nested(nesting);
        let mut queued = Queued { connection: self, ticket: Some(ticket) };
        let mut wait = QuotaWait::new(self.session.at_quota(), deadline);
        loop {
            // At once it is there where it was released in between.
            let time = wait.left(Quota::Permit)?;
            if let Some(result) = self.timer.within_time(time, queued.granted()).await {
                return result;
            }
        }
    }
}

impl Maintained for Connection {
    fn flush_deferred(&self) -> Left {
        self.link.flush_deferred();
        Left::Nothing
    }

    fn flush_without_maintenance(&self) -> bool {
        self.link.have_flushed();
        true
    }

    fn trim(&self) -> Option<Duration> {
        self.session.link().trim()
    }

    fn closed(&self) {
        let task = self.session.state().callers.end_of_task();
        if let Some(task) = task {
            task.wake();
        }
    }

    fn awaits_peer(&self) -> bool {
        self.session.awaits_server()
    }

    fn does_not_read(&self, error: io::Error) {
        self.close(reply::stopped(error));
    }

    fn send_failed(&self) {
        self.link.wake_congested();
        self.session.send_failed();
    }
}

/// The connection's task: sends what could not be sent at once, and receives.
async fn drive(guard: EndOnDrop, socket: Arc<Stream>, inbox: Box<Inbox>) {
    let connection = &*guard.0;
    let sending = async {
        let error = connection.link.resume(&socket).await;
        let service = connection.session.service().name;
        tracing::debug!(service, %error, "nothing can be sent any more");
        // The server may have closed its receiving only: what it answers still arrives.
        std::future::pending::<Infallible>().await
    };
    let error = match race(sending, handover::receive(&connection.session, &socket, inbox)).await {
        Either::Second(Err(error)) => error,
        Either::First(never) | Either::Second(Ok(never)) => match never {},
    };
    connection.end(&error);
}

impl Connection {
    fn end(&self, error: &Error) {
        self.session.end(error);
        // What the receive half holds of the server's memory is not kept for as long as somebody has the
        // client.
        let ended = self.session.state().callers.end();
        drop(ended);
    }
}

/// Fails the calls of a connection whose task is dropped with its runtime: callers may be elsewhere.
struct EndOnDrop(Arc<Connection>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        // A fork of the process takes no locks.
        if self.0.session.link().check_process().is_err() {
            return;
        }
        let message = "the runtime in which the connection was made has ended";
        self.0.end(&Error::new(ErrorKind::Disconnected, message));
    }
}

/// A stream to the server of a port, once its backlog has room.
async fn open(port: &Port, timeout: Duration) -> Result<UnixStream> {
    let opening = async {
        loop {
            if let Some(stream) = port.try_connect()? {
                return Ok(stream);
            }
            // Nothing tells when there is room.
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(timeout, opening).await.unwrap_or_else(|_| Err(port.no_room(timeout)))
}

/// Between two tries to connect to a server that does not accept.
const PAUSE: Duration = Duration::from_millis(10);

/// A new connection to the server of a port.
pub(super) async fn dial(
    port: &Port,
    service: Description,
    config: &Config,
    counters: Arc<Counters>,
) -> Result<Connected> {
    let stream = open(port, config.handshake_timeout).await?;
    let connected = match crate::handshake::check_server(&stream, config) {
        Ok(()) => Connection::connect(stream, service, config, counters).await,
        Err(error) => Err(error),
    };
    connected.map_err(|error| error.with_context(format_args!("port {}", port.describe())))
}
