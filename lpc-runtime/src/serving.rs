//! What the servers of both drivers have in common: the service, and how its calls are answered.

use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use lpc_core::frame::{self, Body, CallId};
use lpc_core::pace::Pace;
use lpc_core::receiver::{MAX_FAILURE, Violation};
use lpc_core::{Error, ErrorKind, Limits, Progress, Result, Threshold, codec};

use crate::buffer::Buffer;
use crate::config::Config;
use crate::lane::incoming::{Arrived, Inbox};
use crate::lane::outgoing::{Encoded, InBlock};
use crate::lane::quota::Quota;
use crate::link::{Link, Settings};
use crate::service::{Description, Reply, Request};

/// A service and all that its connections share. `D` is how the driver calls it.
pub(crate) struct Served<D: ?Sized> {
    pub(crate) service: Description,
    pub(crate) max_calls: usize,
    thresholds: Box<[Threshold]>,
    /// How long each method takes.
    paces: Box<[Pace]>,
    users: Users,
    pub(crate) dispatch: Box<D>,
}

impl<D: ?Sized> Served<D> {
    pub(crate) fn new(service: Description, config: &Config, dispatch: Box<D>) -> Result<Self> {
        Ok(Self {
            service,
            max_calls: config.max_calls,
            thresholds: config.thresholds(service.methods)?,
            paces: service.methods.iter().map(|_| Pace::new()).collect(),
            users: Users { limit: config.user_pool, quotas: Mutex::default() },
            dispatch,
        })
    }

    /// What the connection to a client is made with.
    pub(crate) fn settings(&self, limits: Limits, user: u32, config: &Config) -> Settings {
        Settings { limits, quota: Some(self.users.quota(user)), idle: config.idle }
    }

    pub(crate) fn request<'a>(&self, link: &'a Link, method: u16, arguments: &'a Arrived) -> Request<'a> {
        let threshold = self.thresholds.get(usize::from(method)).copied().unwrap_or_default();
        Request::new(link, self.service, u32::from(method), arguments, threshold)
    }

    /// Whether the method is expected to take less than handing it to another thread would. One that there is not
    /// is answered at once.
    pub(crate) fn is_quick(&self, method: u16) -> bool {
        self.paces.get(usize::from(method)).is_none_or(Pace::is_quick)
    }

    pub(crate) fn took(&self, method: u16, time: Duration) {
        if let Some(pace) = self.paces.get(usize::from(method)) {
            pace.took(time);
        }
    }

    /// The error of a call whose implementation panicked.
    pub(crate) fn panicked(&self, method: u16, panic: &(dyn Any + Send)) -> Error {
        let name = self.service.method(u32::from(method));
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let text = text.map(|text| format!(": {text}")).unwrap_or_default();
        Error::new(ErrorKind::Panicked, format!("{}.{name} panicked{text}", self.service.name))
            .with_progress(Progress::Ran)
    }
}

/// What the connections of each user may have together.
#[derive(Debug)]
struct Users {
    limit: u64,
    quotas: Mutex<HashMap<u32, Weak<Quota>>>,
}

impl Users {
    fn quota(&self, user: u32) -> Arc<Quota> {
        let mut quotas = self.quotas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(quota) = quotas.get(&user).and_then(Weak::upgrade) {
            return quota;
        }
        quotas.retain(|_, quota| quota.strong_count() > 0);
        let quota = Quota::new(self.limit);
        quotas.insert(user, Arc::downgrade(&quota));
        quota
    }
}

/// The error that ends a connection after its call was answered: a peer that sends what does not decode is not to be
/// trusted with the rest.
pub(crate) fn is_fatal(answer: &Result<Reply>) -> Option<Error> {
    answer.as_ref().err().filter(|error| error.kind() == ErrorKind::Decode).cloned()
}

/// The shared memory that the calls of one connection have to do with.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    arguments: Mutex<Arguments>,
    /// The results that the client has not read yet.
    results: Mutex<HashMap<CallId, InBlock>>,
}

/// Arguments that are copied out of the client's memory.
#[derive(Debug, Default)]
struct Arguments {
    /// Bytes of the calls that run.
    copied: u64,
    /// Who reads the connection, and waits for them to be fewer.
    waiting: Option<Waker>,
}

impl Blocks {
    /// A call has arrived, whose arguments are going to be copied: by the calls of one connection at once no more than there
    /// is shared memory, so that a client which names the same block in every call cannot have it copied any number of times.
    /// `false` where it has to wait: the waker is woken when it may be tried again.
    pub(crate) fn admit(&self, link: &Link, arguments: &Arrived, waker: impl FnOnce() -> Waker) -> bool {
        let len = arguments.copied_len();
        // Of most calls, nothing is.
        if len == 0 {
            return true;
        }
        let mut running = self.arguments();
        // One call alone is within the limit: see `Arrived`.
        if running.copied > 0 && running.copied.saturating_add(len) > link.limits().pool {
            running.waiting = Some(waker());
            return false;
        }
        running.copied += len;
        true
    }

    /// The arguments of a call are not needed any more.
    pub(crate) fn done(&self, copied_len: u64) {
        if copied_len == 0 {
            return;
        }
        let mut running = self.arguments();
        running.copied -= copied_len;
        let waiting = running.waiting.take();
        drop(running);
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    fn arguments(&self) -> std::sync::MutexGuard<'_, Arguments> {
        self.arguments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The frame that answers `call`. A result in a block stays until it is released.
    pub(crate) fn frame(&self, link: &Link, call: CallId, answer: Result<Reply>) -> Result<Answer> {
        match answer {
            Ok(Reply(mut reply)) => {
                reply.seal(call);
                reply.count(link.counters());
                link.lend(reply.loans());
                if let Some(block) = reply.take_block()
                    && self.lock().insert(call, block).is_some()
                {
                    let reason = "is called again before the result of its first was released";
                    return Err(Violation::CallState { call, reason }.into());
                }
                Ok(Answer::Reply(reply))
            }
            Err(error) => {
                link.counters().error();
                let mut frame = Buffer::take();
                frame::begin_failure(&mut frame);
                // A longer one would end the connection of a caller whose call merely failed.
                codec::encode(&error.to_wire().within(MAX_FAILURE as usize), &mut *frame)
                    .expect("numbers and a string encode");
                frame::seal(&mut frame, call, Body::Inline, &[]);
                Ok(Answer::Failure(frame))
            }
        }
    }

    /// The client has read the result of `call`.
    pub(crate) fn release(&self, call: CallId) -> Result<()> {
        let reason = "has no result to be released";
        self.lock().remove(&call).ok_or(Violation::CallState { call, reason })?;
        Ok(())
    }

    /// The client cannot read the segment in which the result of `call` is: a frame with the result in it.
    pub(crate) fn inline(&self, link: &Link, call: CallId) -> Result<Buffer> {
        let reason = "has no result to be sent again";
        let block = self.lock().remove(&call).ok_or(Violation::CallState { call, reason })?;
        link.counters().fallback();
        Ok(block.inline(call))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<CallId, InBlock>> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A frame that answers a call.
pub(crate) enum Answer {
    Reply(Encoded),
    Failure(Buffer),
}

impl std::ops::Deref for Answer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Reply(reply) => reply.frame(),
            Self::Failure(frame) => frame,
        }
    }
}

/// A reply that could not be sent.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(crate) fn broken(error: io::Error) -> Error {
    Error::new(ErrorKind::Disconnected, format!("the client does not take its replies: {error}"))
}

/// Adds to a list of what may be alive, and drops what is not, now and then.
pub(crate) fn push_weak<T>(list: &mut Vec<Weak<T>>, item: &Arc<T>) {
    if list.len() == list.capacity() {
        list.retain(|item| item.strong_count() > 0);
        // So that the next time comes after as many additions as there are items.
        list.reserve(list.len() + 1);
    }
    list.push(Arc::downgrade(item));
}

/// Says in the log where the end of the stream cut a message in two. That is nothing to the calls that run: the end may
/// be that of a server's receiving, at its shutdown.
pub(crate) fn log_cut(service: Description, inbox: &Inbox) {
    if let Err(error) = inbox.ended() {
        tracing::debug!(service = service.name, %error, "connection cut");
    }
}

/// Says in the log that a shutdown took too long.
pub(crate) fn log_cut_off(service: Description, config: &Config, connections: usize) {
    let timeout = config.shutdown_timeout;
    tracing::warn!(service = service.name, connections, ?timeout, "calls cut off (shutdown_timeout)");
}

/// Says in the log why a connection is over.
pub(crate) fn log_end(service: Description, error: &Error) {
    if error.is_disconnected() {
        tracing::debug!(service = service.name, %error, "connection ended");
    } else {
        tracing::warn!(service = service.name, %error, "connection closed");
    }
}
