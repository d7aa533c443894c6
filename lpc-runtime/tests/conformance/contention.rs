//! Many threads of one client, of which each defers sending and receiving to others that cannot go on:
//! nobody is forgotten.

use std::io::{ErrorKind::WouldBlock, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use lpc::{ErrorKind, Threshold};

use crate::pairs::{self, AnyClient, Setup, Way};
use crate::probe::Implementation;
use crate::probe::blocking::Probe;
use crate::{GUARD, eventually};

/// What stands between a client and its server, and can stop taking what the client sends.
struct Valve {
    client: UnixStream,
    is_shut: Arc<AtomicBool>,
    /// It has stopped reading.
    has_stopped: Arc<AtomicBool>,
}

impl Valve {
    fn new(client: UnixStream, server: UnixStream) -> Self {
        let (is_shut, has_stopped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (from, to, shut) =
            (client.try_clone().unwrap(), server.try_clone().unwrap(), Arc::clone(&is_shut));
        from.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let stopped = Arc::clone(&has_stopped);
        thread::spawn(move || pass_on(from, to, &shut, &stopped));
        let to = client.try_clone().unwrap();
        thread::spawn(move || pass_on(server, to, &AtomicBool::new(false), &AtomicBool::new(false)));
        Self { client, is_shut, has_stopped }
    }

    fn shut(&self) {
        self.is_shut.store(true, SeqCst);
        eventually("the valve is shut", || self.has_stopped.load(SeqCst));
    }

    fn cut(&self) {
        self.client.shutdown(Shutdown::Both).unwrap();
    }
}

fn pass_on(mut from: UnixStream, mut to: UnixStream, is_shut: &AtomicBool, has_stopped: &AtomicBool) {
    let mut bytes = vec![0; 64 << 10];
    loop {
        if is_shut.load(SeqCst) {
            has_stopped.store(true, SeqCst);
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(len) if to.write_all(&bytes[..len]).is_ok() => {}
            Err(error) if error.kind() == WouldBlock => {}
            _ => break,
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// A client behind a valve. (Descriptors do not go through it.)
fn behind_a_valve(setup: &Setup, probe: &Arc<Implementation>) -> (AnyClient, Valve) {
    let (ours, client) = UnixStream::pair().unwrap();
    let (server, theirs) = UnixStream::pair().unwrap();
    setup.serve_stream(theirs, Arc::clone(probe));
    let valve = Valve::new(client, server);
    (setup.connect_stream(ours), valve)
}

const ROUNDS: usize = 3;

fn setups() -> impl Iterator<Item = Setup> {
    let pairs = pairs::all().into_iter().filter(|setup| setup.way == Way::Pair && !setup.quick_lane);
    let pairs = pairs.map(|setup| Setup { threshold: Threshold::OFF, max_concurrent_calls: 128, ..setup });
    // The order of the callers is up to the scheduler.
    pairs.flat_map(|setup| vec![setup; ROUNDS])
}

/// The caller that has to flush what the others have enqueued is no exception.
#[test]
fn a_server_that_reads_nothing_holds_no_contending_caller_beyond_its_deadline() {
    const CALLERS: usize = 120;
    for setup in setups() {
        let probe = Implementation::new();
        let (client, valve) = behind_a_valve(&setup, &probe);
        let (told, results) = mpsc::channel();
        for _ in 0..CALLERS {
            let (client, told) = (client.clone(), told.clone());
            thread::spawn(move || {
                client.wait_idempotent(1).unwrap();
                let began = Instant::now();
                let result = client.with_deadline(Duration::from_millis(300)).echo(&[1; 40]);
                told.send((result.map_err(|error| error.kind()), began.elapsed())).unwrap();
            });
        }
        eventually("all wait", || probe.waits.load(SeqCst) == CALLERS);
        valve.shut();
        // Until the socket is full, nearly.
        let hasty = client.with_deadline(Duration::from_millis(3));
        for len in [8 << 10; 21].into_iter().chain([40; 90]) {
            let _ = hasty.echo(&vec![1; len]);
        }
        probe.open_now(1);
        for _ in 0..CALLERS {
            let (result, time) = results.recv_timeout(GUARD).unwrap();
            assert_eq!(result, Err(ErrorKind::TimedOut));
            assert!(time < GUARD / 3, "{time:?}");
        }
        valve.cut();
    }
}

/// The receive half is free, for callers that fail as they send; one that is parked is to learn of the end.
#[test]
fn a_parked_caller_is_told_of_the_end_while_others_fail_to_send() {
    for setup in setups() {
        let probe = Implementation::new();
        let (client, valve) = behind_a_valve(&setup, &probe);
        let call = |key: usize| {
            let (told, result) = mpsc::channel();
            let client = client.clone();
            thread::spawn(move || told.send(client.wait_idempotent(key as u64)).unwrap());
            eventually("it waits", || probe.waits.load(SeqCst) == key);
            result
        };
        let (reader, sleeper) = (call(1), call(2));
        valve.shut();
        // What the socket does not take, and more than the queue has room for; behind that all wait.
        let mut callers = Vec::new();
        for len in [800 << 10, 800 << 10, 800 << 10].into_iter().chain([100; 300]) {
            let client = client.clone();
            callers.push(thread::spawn(move || client.echo(&vec![1; len]).map(drop)));
            if len > 100 {
                thread::sleep(Duration::from_millis(20));
            }
        }
        thread::sleep(Duration::from_millis(100));
        probe.open_now(1);
        reader.recv_timeout(GUARD).unwrap().unwrap();
        thread::sleep(Duration::from_millis(20));
        valve.cut();
        for thread in callers {
            thread.join().unwrap().unwrap_err();
        }
        assert!(sleeper.recv_timeout(GUARD / 3).expect("told in time").unwrap_err().is_disconnected());
        probe.open_now(2);
    }
}
