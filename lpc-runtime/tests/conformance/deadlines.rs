//! Calls that are cancelled, by hand or by the clock.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lpc::{Context, ErrorKind, Progress};

use crate::pairs::{self, AnyClient, Driver, RUNTIME, Running, Setup, Way};
use crate::probe::blocking::Probe;
use crate::probe::{Implementation, asynchronous};
use crate::{GUARD, eventually};

const SHORT: Duration = Duration::from_millis(30);

fn is_timed_out(error: &lpc::Error) -> bool {
    error.kind() == ErrorKind::TimedOut && error.progress() == Progress::MayHaveRun
}

/// The error of a call that was sent. On a busy machine the deadline may pass before that, and then the call
/// is made again.
fn error_once_sent(mut call: impl FnMut() -> lpc::Result<()>) -> lpc::Error {
    loop {
        let error = call().unwrap_err();
        if !error.is_timed_out() || error.may_have_run() {
            return error;
        }
    }
}

#[test]
fn a_call_ends_at_its_deadline_and_the_connection_goes_on() {
    let looks_on = |setup| Setup { spin: 10 * GUARD, ..setup };
    for setup in pairs::all().into_iter().chain(pairs::all().into_iter().map(looks_on)) {
        let probe = Implementation::new();
        let (client, _server) = setup.connect(&probe);
        let hasty = client.with_deadline(SHORT);
        for key in 0..2 {
            let error = error_once_sent(|| hasty.wait(key));
            assert!(is_timed_out(&error), "{error:?}");
            assert_eq!(error.to_string(), "Probe.wait: no reply before the deadline (with_deadline(30ms))");
            assert_eq!(client.echo(b"goes on").unwrap(), b"goes on");
        }
        for key in 0..2 {
            probe.open_now(key);
        }
        // Late replies are dropped.
        assert_eq!(hasty.with_deadline(GUARD).echo(b"goes on").unwrap(), b"goes on");
    }
}

#[test]
fn a_deadline_is_the_methods_own_or_the_clients_or_the_callers() {
    for setup in pairs::all() {
        let setup = Setup { deadline: Some(Duration::from_secs(100)), ..setup };
        let probe = Implementation::new();
        let (client, _server) = setup.connect(&probe);
        let left = client.context().unwrap().0.unwrap();
        assert!((50_000..=100_000).contains(&left), "{left} ms");
        let left = client.with_deadline(Duration::from_secs(1000)).context().unwrap().0.unwrap();
        assert!((500_000..=1_000_000).contains(&left), "{left} ms");
        assert_eq!(client.with_deadline(Duration::MAX).context().unwrap().0, None);
        let error = error_once_sent(|| client.heed_briefly(1));
        assert!(is_timed_out(&error), "{error:?}");
        assert!(error.to_string().ends_with(" (the method's deadline of 50ms)"), "{error}");
        let patient = client.with_deadline(GUARD);
        let waiting = std::thread::spawn(move || patient.heed_briefly(2));
        eventually("the call", || probe.heeding.load(SeqCst) == 2);
        std::thread::sleep(2 * SHORT);
        probe.open_now(2);
        waiting.join().unwrap().unwrap();
    }
}

#[test]
fn a_late_call_says_that_it_was_the_clients_deadline_and_that_others_were_ahead_of_it() {
    for setup in pairs::all() {
        let setup = Setup { deadline: Some(SHORT), max_concurrent_calls: 1, ..setup };
        let probe = Implementation::new();
        let (client, _server) = setup.connect(&probe);
        std::thread::scope(|scope| {
            let running = scope.spawn(|| client.with_deadline(GUARD).heed(1));
            eventually("the call", || probe.heeding.load(SeqCst) == 1);
            let error = error_once_sent(|| client.wait(2)).to_string();
            assert!(error.contains("max_concurrent_calls"), "{error}");
            assert!(error.ends_with(" (the client's deadline of 30ms)"), "{error}");
            probe.open_now(1);
            running.join().unwrap().unwrap();
        });
    }
}

/// Services that are implemented by calls of a probe.
mod outer {
    use std::sync::Mutex;

    use crate::pairs::AnyClient;
    use crate::probe::asynchronous::{Probe as _, ProbeClient};
    use crate::probe::blocking::Probe as _;

    #[lpc::service]
    pub trait Outer {
        /// Milliseconds that the probe sees are left.
        fn left(&self) -> lpc::Result<Option<u64>>;
        /// Fails as the probe does, and keeps the reason.
        fn wait(&self) -> lpc::Result<()>;
    }

    #[lpc::service]
    pub trait AsyncOuter {
        async fn left(&self) -> lpc::Result<Option<u64>>;
    }

    pub struct Via<'r> {
        pub probe: AnyClient,
        pub reason: &'r Mutex<String>,
    }

    impl Outer for Via<'static> {
        fn left(&self) -> lpc::Result<Option<u64>> {
            Ok(self.probe.context()?.0)
        }
        fn wait(&self) -> lpc::Result<()> {
            self.probe.wait(1).inspect_err(|error| *self.reason.lock().unwrap() = error.to_string())
        }
    }

    pub struct AsyncVia(pub ProbeClient);

    impl AsyncOuter for AsyncVia {
        async fn left(&self) -> lpc::Result<Option<u64>> {
            Ok(self.0.context().await?.0)
        }
    }
}

#[test]
fn a_call_made_for_another_inherits_what_is_left_of_its_time() {
    use outer::{AsyncOuter as _, AsyncOuterClient, AsyncVia, Outer as _, OuterClient, Via};
    static REASON: Mutex<String> = Mutex::new(String::new());
    const LONG: Duration = Duration::from_secs(100);
    for setup in pairs::all() {
        let implementation = Implementation::new();
        let (probe, _server) = setup.connect(&implementation);
        let over = |probe| OuterClient::builder().in_process(Via { probe, reason: &REASON }).unwrap();
        let outer = over(probe.clone());
        assert_eq!(outer.left().unwrap(), None);
        let left = outer.with_deadline(LONG).left().unwrap().unwrap();
        assert!((50_000..=100_000).contains(&left), "{left} ms");
        let left = over(probe.with_deadline(LONG)).with_deadline(10 * LONG).left().unwrap().unwrap();
        assert!((50_000..=100_000).contains(&left), "{left} ms: its own time is shorter");
        assert!(outer.with_deadline(SHORT).wait().unwrap_err().is_timed_out());
        eventually("the end of the inner call", || {
            let reason = std::mem::take(&mut *REASON.lock().unwrap());
            assert!(
                reason.is_empty()
                    || reason.contains("of the deadline of the call that this one was made for")
            );
            !reason.is_empty()
        });
        implementation.open_now(1);
        let AnyClient::Tokio(probe) = probe else { continue };
        RUNTIME.block_on(async {
            let outer = AsyncOuterClient::builder().in_process(AsyncVia(probe)).await.unwrap();
            assert_eq!(outer.left().await.unwrap(), None);
            let left = outer.with_deadline(LONG).left().await.unwrap().unwrap();
            assert!((50_000..=100_000).contains(&left), "{left} ms");
        });
    }
}

#[test]
fn an_implementation_sees_its_caller_and_outside_of_calls_nobody() {
    for setup in pairs::all() {
        let (client, _server) = setup.connect(&Implementation::new());
        let uid = nix::unistd::Uid::effective().as_raw();
        assert_eq!(client.context().unwrap(), (None, Some(uid)));
    }
    let outside = Context::current();
    assert_eq!((outside.peer(), outside.deadline(), outside.is_cancelled()), (None, None, false));
    assert!(!outside.wait_cancelled(Duration::ZERO));
}

#[test]
fn a_deadline_that_passes_cancels_at_the_server() {
    for setup in pairs::all() {
        let probe = Implementation::new();
        let (client, _server) = setup.connect(&probe);
        assert!(is_timed_out(&error_once_sent(|| client.with_deadline(SHORT).heed(1))));
        eventually("cancelled", || probe.cancelled.load(SeqCst) == 1);
    }
}

#[test]
fn a_dropped_future_cancels_at_the_server() {
    for setup in pairs::all().into_iter().filter(|setup| setup.client == Driver::Tokio) {
        let probe = Implementation::new();
        let (client, _server) = setup.connect(&probe);
        let AnyClient::Tokio(tokio) = &client else { unreachable!("filtered") };
        for round in 1..4 {
            let tokio = tokio.clone();
            let call = RUNTIME.spawn(async move { asynchronous::Probe::heed(&tokio, 1).await });
            eventually("the call", || probe.heeding.load(SeqCst) == round);
            call.abort();
            eventually("cancelled", || probe.cancelled.load(SeqCst) == round);
        }
        assert_eq!(client.echo(b"goes on").unwrap(), b"goes on");
    }
}

#[test]
fn a_client_that_goes_cancels_all_its_calls() {
    for setup in pairs::all() {
        let probe = Implementation::new();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let stop = ours.try_clone().unwrap();
        setup.serve_stream(theirs, Arc::clone(&probe));
        let client = setup.connect_stream(ours);
        let calls: Vec<_> = (0..4)
            .map(|_| {
                let client = client.clone();
                std::thread::spawn(move || client.heed(1))
            })
            .collect();
        eventually("the calls", || probe.heeding.load(SeqCst) == 4);
        stop.shutdown(std::net::Shutdown::Both).unwrap();
        for call in calls {
            assert!(call.join().unwrap().unwrap_err().is_disconnected());
        }
        eventually("cancelled", || probe.cancelled.load(SeqCst) == 4);
    }
}

/// Also where as many calls run as may: else nobody would read of the cancellation.
#[test]
fn calls_are_cancelled_though_others_wait_behind_them() {
    for setup in pairs::all() {
        let setup = Setup { max_concurrent_calls: 2, ..setup };
        let probe = Implementation::new();
        let (client, _server) = setup.connect(&probe);
        let hasty = client.with_deadline(Duration::from_millis(100));
        let running: Vec<_> = (0..2)
            .map(|_| {
                let hasty = hasty.clone();
                std::thread::spawn(move || hasty.heed(1))
            })
            .collect();
        eventually("two calls", || probe.heeding.load(SeqCst) == 2);
        let behind: Vec<_> = (0..10)
            .map(|at| {
                let client = client.clone();
                std::thread::spawn(move || client.echo(&[at; 10]).unwrap())
            })
            .collect();
        for call in running {
            assert!(is_timed_out(&call.join().unwrap().unwrap_err()));
        }
        for (at, call) in behind.into_iter().enumerate() {
            assert_eq!(call.join().unwrap(), [at as u8; 10]);
        }
        eventually("cancelled", || probe.cancelled.load(SeqCst) == 2);
    }
}

#[test]
fn what_is_past_its_deadline_before_its_turn_does_not_run() {
    for setup in pairs::all().into_iter().filter(|setup| setup.way == Way::Port) {
        let setup = Setup { max_concurrent_calls: 1, ..setup };
        let probe = Implementation::new();
        let server = Running::new(&setup, &probe);
        let client = setup.connect_port(&server);
        let blocker = std::thread::spawn({
            let client = client.clone();
            move || client.wait_idempotent(1)
        });
        eventually("the first call", || probe.waits.load(SeqCst) == 1);
        assert!(is_timed_out(&error_once_sent(|| client.with_deadline(SHORT).heed(2))));
        eventually("both received", || (server.stats)().calls == 2);
        std::thread::sleep(2 * SHORT); // a server counts from when it received the call
        probe.open_now(1);
        blocker.join().unwrap().unwrap();
        client.echo(b"once round").unwrap();
        assert_eq!(probe.heeding.load(SeqCst), 0);
    }
}

#[test]
fn cancelled_work_that_still_runs_counts() {
    for setup in pairs::all().into_iter().filter(|setup| setup.server == Driver::Blocking) {
        let setup = Setup { max_concurrent_calls: 2, ..setup };
        let probe = Implementation::new();
        let (client, _server) = setup.connect(&probe);
        let hasty = client.with_deadline(SHORT);
        for _ in 0..6 {
            // A `fn` that does not ask.
            assert!(is_timed_out(&error_once_sent(|| hasty.wait(1))));
        }
        probe.open_now(1);
        client.nap(1).unwrap();
        assert_eq!(client.most_at_once().unwrap(), 1);
    }
}

#[test]
fn the_blocks_of_calls_past_their_deadline_come_back() {
    for setup in pairs::all() {
        let setup = Setup { pool_limit: 8 << 20, ..setup };
        let probe = Implementation::new();
        let (client, _server) = setup.connect(&probe);
        let large = vec![7; 1 << 20];
        for round in 0..60 {
            let within = Duration::from_micros(200 * (round % 10));
            match client.with_deadline(within).echo(&large) {
                Ok(reply) => assert!(reply == large),
                Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}"),
            }
        }
        assert!(client.echo(&large).unwrap() == large);
        assert_eq!(client.stats().fallbacks, 0);
    }
}

#[test]
fn a_deadline_that_has_passed_sends_nothing() {
    for setup in pairs::all() {
        let (client, _server) = setup.connect(&Implementation::new());
        let started = Instant::now();
        // It may be over before it is looked at; never is it an answer.
        let result = client.with_deadline(Duration::ZERO).wait(1);
        assert_eq!(result.unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(started.elapsed() < GUARD);
        assert_eq!(client.echo(b"goes on").unwrap(), b"goes on");
    }
}

/// A server that reads nothing: its deadline ends a call all the same, on either lane, whoever else waits.
#[test]
fn a_server_that_reads_nothing_holds_nobody_beyond_the_deadline() {
    for setup in pairs::all().into_iter().filter(|setup| setup.way == Way::Pair) {
        let setup = Setup { max_concurrent_calls: 1, ..setup };
        let probe = Implementation::new();
        let (client, _server) = setup.connect(&probe);
        let blocker = std::thread::spawn({
            let client = client.clone();
            move || client.wait_idempotent(1)
        });
        eventually("the first call", || probe.waits.load(SeqCst) == 1);
        // More than the socket takes, and more than the server reads ahead.
        let large = vec![9; 3 << 20];
        let hasty = client.with_deadline(Duration::from_millis(150));
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let (hasty, large) = (hasty.clone(), large.clone());
                std::thread::spawn(move || hasty.echo_by_socket(&large))
            })
            .collect();
        for caller in callers {
            assert_eq!(caller.join().unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
        }
        probe.open_now(1);
        blocker.join().unwrap().unwrap();
        assert!(client.echo_by_socket(&large).unwrap() == large, "what was left half-sent is completed");
    }
}

#[test]
fn a_panic_in_a_drop_is_an_error_for_its_caller_alone() {
    for setup in pairs::all() {
        let (client, _server) = setup.connect(&Implementation::new());
        for _ in 0..3 {
            let error = client.panic_in_drop("in drop").unwrap_err();
            assert_eq!((error.kind(), error.progress()), (ErrorKind::Panicked, Progress::Ran));
            assert!(error.to_string().contains("Probe.panic_in_drop panicked: in drop"), "{error}");
            assert_eq!(client.echo(b"goes on").unwrap(), b"goes on");
        }
    }
}

#[test]
fn what_an_implementation_starts_can_learn_of_the_cancellation() {
    #[lpc::service]
    trait Starter {
        async fn start(&self) -> lpc::Result<()>;
    }
    struct Starting(Arc<tokio::sync::Notify>);
    impl Starter for Starting {
        async fn start(&self) -> lpc::Result<()> {
            let (context, seen) = (Context::current(), Arc::clone(&self.0));
            tokio::spawn(async move {
                context.cancelled().await;
                seen.notify_one();
            });
            std::future::pending().await
        }
    }
    RUNTIME.block_on(async {
        let seen = Arc::new(tokio::sync::Notify::new());
        let client = StarterClient::builder().in_process(Starting(Arc::clone(&seen))).await.unwrap();
        for deadline in [SHORT, GUARD] {
            let client = client.with_deadline(deadline);
            let call = tokio::spawn(async move { client.start().await });
            if deadline == SHORT {
                assert!(call.await.unwrap().unwrap_err().is_timed_out());
            } else {
                tokio::time::sleep(SHORT).await;
                call.abort();
            }
            tokio::time::timeout(GUARD, seen.notified()).await.unwrap();
        }
    });
}

/// With a signal every few milliseconds no receive sleeps to its end.
#[test]
#[allow(unsafe_code, reason = "nothing else makes a signal interrupt")]
fn signals_do_not_put_a_deadline_off() {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    extern "C" fn nothing(_: std::ffi::c_int) {}
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGURG, &action) }.unwrap();
    let probe = Implementation::new();
    let (client, _server) = pairs::all().remove(0).connect(&probe);
    let AnyClient::Blocking(client) = client else { unreachable!("the first is") };
    let caller = std::thread::spawn(move || {
        let caller = nix::sys::pthread::pthread_self();
        let is_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let signalling = std::thread::spawn({
            let is_over = Arc::clone(&is_over);
            move || {
                while !is_over.load(SeqCst) {
                    nix::sys::pthread::pthread_kill(caller, Signal::SIGURG).unwrap();
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        let result = client.with_deadline(Duration::from_millis(100)).wait(1);
        is_over.store(true, SeqCst);
        signalling.join().unwrap();
        result
    });
    eventually("the end of the call", || caller.is_finished());
    probe.open_now(1);
    assert!(is_timed_out(&caller.join().unwrap().unwrap_err()));
}

#[test]
fn the_death_of_a_client_is_noticed_though_the_server_reads_no_more() {
    for setup in pairs::all().into_iter().filter(|setup| setup.way == Way::Pair) {
        let setup = Setup { max_concurrent_calls: 1, ..setup };
        let probe = Implementation::new();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let stop = ours.try_clone().unwrap();
        setup.serve_stream(theirs, Arc::clone(&probe));
        let client = setup.connect_stream(ours);
        let mut calls = vec![std::thread::spawn({
            let client = client.clone();
            move || client.heed(1).map(drop)
        })];
        eventually("the call", || probe.heeding.load(SeqCst) == 1);
        // More than it reads ahead.
        for _ in 0..3 {
            let client = client.clone();
            calls.push(std::thread::spawn(move || client.echo_by_socket(&vec![1; 2 << 20]).map(drop)));
        }
        eventually("the other calls", || client.stats().calls >= 2);
        std::thread::sleep(SHORT);
        stop.shutdown(std::net::Shutdown::Both).unwrap();
        for call in calls {
            assert!(call.join().unwrap().unwrap_err().is_disconnected());
        }
        eventually("cancelled", || probe.cancelled.load(SeqCst) == 1);
    }
}

/// Polls a future on this thread, in no runtime.
fn outside_of_runtimes<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    assert!(tokio::runtime::Handle::try_current().is_err());
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(output) =
            future.as_mut().poll(&mut std::task::Context::from_waker(&waker))
        {
            return output;
        }
        std::thread::park();
    }
}

#[test]
fn a_call_that_is_polled_outside_of_runtimes_has_its_deadline() {
    use asynchronous::Probe as _;
    for setup in pairs::all().into_iter().filter(|setup| setup.client == Driver::Tokio) {
        let setup = Setup { max_calls_in_flight: 1, ..setup };
        let probe = Implementation::new();
        let (AnyClient::Tokio(client), _server) = setup.connect(&probe) else { unreachable!() };
        assert_eq!(outside_of_runtimes(client.with_deadline(GUARD).echo(b"in time")).unwrap(), b"in time");
        let error = error_once_sent(|| outside_of_runtimes(client.with_deadline(SHORT).wait(0)));
        assert!(is_timed_out(&error), "{error:?}");
        probe.open_now(0);
        let waiting = std::thread::scope(|scope| {
            let holding = scope.spawn(|| outside_of_runtimes(async { client.wait_idempotent(1).await }));
            eventually("the only permit is taken", || probe.waits.load(SeqCst) == 1);
            let error = outside_of_runtimes(client.with_deadline(SHORT).echo(b"?")).unwrap_err();
            assert!(error.is_timed_out() && !error.may_have_run(), "{error:?}");
            let waiting = scope.spawn(|| outside_of_runtimes(async { client.echo(b"no deadline").await }));
            probe.open_now(1);
            holding.join().unwrap().unwrap();
            waiting.join().unwrap()
        });
        assert_eq!(waiting.unwrap(), b"no deadline");
    }
}

/// The server is gone, and the next attempt at another is far away.
#[test]
fn a_call_that_waits_for_a_connection_outside_of_runtimes_has_its_deadline() {
    use asynchronous::Probe as _;
    for setup in pairs::all().into_iter().filter(|setup| setup.way == Way::Port) {
        let server = Running::new(&setup, &Implementation::new());
        let reconnect = lpc::Reconnect::default().pauses(10 * GUARD, 10 * GUARD).give_up_after(10 * GUARD);
        let connecting = asynchronous::ProbeClient::builder().reconnect(reconnect).connect(&server.port);
        let client = RUNTIME.block_on(connecting).unwrap();
        drop(server);
        let error = outside_of_runtimes(client.with_deadline(SHORT).echo(b"?")).unwrap_err();
        assert!(error.is_timed_out() && !error.may_have_run(), "{error:?}");
    }
}
