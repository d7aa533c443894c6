//! iceoryx2's request-response: both sides poll, or each wakes the other by an event.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use iceoryx2::pending_response::PendingResponse;
use iceoryx2::port::client::Client;
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::server::Server;
use iceoryx2::prelude::{AllocationStrategy, Node, NodeBuilder, ServiceName, ZeroCopySend, ipc};
use lpc_cli::measure::{Samples, Seeds, sum, sum_of};

use crate::compare::peer::{Caller, Peer, Result};
use crate::compare::threads::check;
use crate::compare::work::{Batch, Job, Work};

/// What is asked of the service for bytes.
#[derive(Clone, Copy, Debug, Default, ZeroCopySend)]
#[repr(C)]
struct Ask {
    /// Bytes to produce; 0: the sum of those that came.
    len: u64,
    seed: u64,
}

struct Iceoryx2 {
    name: &'static str,
    wakes: bool,
}

pub(super) fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(Iceoryx2 { name: "iceoryx2 polling", wakes: false }),
        Box::new(Iceoryx2 { name: "iceoryx2 event", wakes: true }),
    ]
}

/// Calls under way at once.
const CALLS: usize = 64;

/// Times that the service is polled which is in use, for each time that the other one is.
const POLLS: u32 = 64;

fn name(place: &Path, what: &str) -> Result<ServiceName> {
    let place = place.to_str().ok_or("the temporary directory's name is not UTF-8")?;
    Ok(ServiceName::new(&format!("{place}/{what}"))?)
}

/// Sleeping and waking.
struct Events {
    listener: Listener<ipc::Service>,
    notifier: Notifier<ipc::Service>,
}

impl Events {
    fn new(node: &Node<ipc::Service>, listens: &ServiceName, notifies: &ServiceName) -> Result<Self> {
        let own = node.service_builder(listens).event().open_or_create()?;
        let other = node.service_builder(notifies).event().open_or_create()?;
        Ok(Self { listener: own.listener_builder().create()?, notifier: other.notifier_builder().create()? })
    }

    fn wait(&self) -> Result<()> {
        self.listener.blocking_wait(|_| {})?;
        Ok(())
    }

    fn wake(&self) -> Result<()> {
        self.notifier.notify()?;
        Ok(())
    }
}

impl Peer for Iceoryx2 {
    fn name(&self) -> &str {
        self.name
    }

    fn does(&self, job: Job) -> bool {
        matches!(job.work, Work::Add | Work::Add64 | Work::Upload | Work::Download)
    }

    fn polls(&self) -> bool {
        !self.wakes
    }

    fn serve(&self, place: &Path) -> Result<()> {
        let node = NodeBuilder::new().create::<ipc::Service>()?;
        let events = Events::new(&node, &name(place, "calls")?, &name(place, "answers")?)?;
        let bytes = node.service_builder(&name(place, "bytes")?).request_response::<[u8], [u8]>();
        let bytes = bytes.request_user_header::<Ask>().response_user_header::<u64>().create()?;
        let bytes = bytes
            .server_builder()
            .initial_max_slice_len(4 << 10)
            .allocation_strategy(AllocationStrategy::PowerOfTwo)
            .create()?;
        let sums = node.service_builder(&name(place, "sums")?).request_response::<[u64; 2], u64>();
        let sums = sums.max_active_requests_per_client(CALLS).create()?.server_builder().create()?;
        if self.wakes {
            loop {
                events.wait()?;
                while answer_sums(&sums)? || answer_bytes(&bytes)? {
                    events.wake()?;
                }
            }
        }
        loop {
            poll(|| answer_sums(&sums))?;
            poll(|| answer_bytes(&bytes))?;
        }
    }

    fn connect(&self, place: &Path) -> Result<Box<dyn Caller>> {
        let node = NodeBuilder::new().create::<ipc::Service>()?;
        let sums = node.service_builder(&name(place, "sums")?).request_response::<[u64; 2], u64>();
        let sums = sums.max_active_requests_per_client(CALLS).open()?.client_builder().create()?;
        let bytes = node.service_builder(&name(place, "bytes")?).request_response::<[u8], [u8]>();
        let bytes = bytes.request_user_header::<Ask>().response_user_header::<u64>().open()?;
        let bytes = bytes
            .client_builder()
            .initial_max_slice_len(4 << 10)
            .allocation_strategy(AllocationStrategy::PowerOfTwo)
            .create()?;
        let events = Events::new(&node, &name(place, "answers")?, &name(place, "calls")?)?;
        Ok(Box::new(Called { sums, bytes, events: self.wakes.then_some(events) }))
    }
}

/// Polls once, and as long after that as something comes.
fn poll(mut answer: impl FnMut() -> Result<bool>) -> Result<()> {
    while answer()? {
        let mut left = POLLS;
        while left > 0 && !answer()? {
            left -= 1;
        }
    }
    Ok(())
}

/// Answers one call, if there is one.
fn answer_sums(server: &Server<ipc::Service, [u64; 2], (), u64, ()>) -> Result<bool> {
    let Some(request) = server.receive()? else { return Ok(false) };
    let [a, b] = *request;
    request.send_copy(a.wrapping_add(b))?;
    Ok(true)
}

fn answer_bytes(server: &Server<ipc::Service, [u8], Ask, [u8], u64>) -> Result<bool> {
    let Some(request) = server.receive()? else { return Ok(false) };
    let Ask { len, seed } = *request.user_header();
    let mut response = request.loan_slice_uninit(len.max(1) as usize)?;
    if len == 0 {
        *response.user_header_mut() = sum(request.payload());
    }
    response.write_from_fn(|_| seed as u8).send()?;
    Ok(true)
}

type Pending = PendingResponse<ipc::Service, [u64; 2], (), u64, ()>;

struct Called {
    sums: Client<ipc::Service, [u64; 2], (), u64, ()>,
    bytes: Client<ipc::Service, [u8], Ask, [u8], u64>,
    events: Option<Events>,
}

impl Called {
    /// Until there is an answer.
    fn wait<T>(&self, mut answer: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        loop {
            match (answer()?, &self.events) {
                (Some(answer), _) => return Ok(answer),
                (None, Some(events)) => events.wait()?,
                (None, None) => std::hint::spin_loop(),
            }
        }
    }

    fn wake(&self) -> Result<()> {
        self.events.as_ref().map_or(Ok(()), Events::wake)
    }

    fn ask_sum(&self, seed: u8) -> Result<Pending> {
        let pending = self.sums.send_copy([u64::from(seed), 2])?;
        self.wake()?;
        Ok(pending)
    }

    fn check_sum(&self, pending: &Pending, seed: u8) -> Result<()> {
        let answer = self.wait(|| Ok(pending.receive()?.map(|answer| *answer)))?;
        check(answer, u64::from(seed) + 2)
    }

    /// What the service found, or the sum of the bytes that it produced.
    fn move_bytes(&self, there: usize, back: usize, seed: u8) -> Result<u64> {
        let mut request = self.bytes.loan_slice_uninit(there.max(1))?;
        *request.user_header_mut() = Ask { len: back as u64, seed: u64::from(seed) };
        let pending = request.write_from_fn(|_| seed).send()?;
        self.wake()?;
        let answer = self.wait(|| Ok(pending.receive()?))?;
        Ok(if back == 0 { *answer.user_header() } else { sum(answer.payload()) })
    }

    /// As many calls under way as may be, answered in their order.
    fn at_once(&self, share: Duration) -> Result<Samples> {
        let mut samples = Samples::default();
        let mut pending = VecDeque::with_capacity(CALLS);
        let begin = Instant::now();
        let mut is_over = false;
        for seed in Seeds::default() {
            if !is_over {
                pending.push_back((self.ask_sum(seed)?, seed, Instant::now()));
            }
            if is_over || pending.len() == CALLS {
                let Some((first, seed, started)) = pending.pop_front() else { break };
                self.check_sum(&first, seed)?;
                samples.push(started.elapsed());
                is_over = begin.elapsed() >= share;
            }
        }
        Ok(Samples::side_by_side(vec![samples], begin.elapsed()))
    }
}

impl Caller for Called {
    fn run(&mut self, &Batch { job, share }: &Batch) -> Result<Samples> {
        let len = job.bytes();
        match job.work {
            Work::Add64 => self.at_once(share),
            Work::Upload => {
                Samples::one_by_one(share, |seed| check(self.move_bytes(len, 0, seed)?, sum_of(len, seed)))
            }
            Work::Download => {
                Samples::one_by_one(share, |seed| check(self.move_bytes(0, len, seed)?, sum_of(len, seed)))
            }
            _ => Samples::one_by_one(share, |seed| self.check_sum(&self.ask_sum(seed)?, seed)),
        }
    }
}
