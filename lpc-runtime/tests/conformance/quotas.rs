//! What happens where there is no room, and that room comes back.

use std::process::Command;
use std::slice::from_ref;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use lpc::{AtQuota, ErrorKind, Progress, Shared, Threshold};

use crate::pairs::{self, AnyClient, Driver, RUNTIME, Setup, Way};
use crate::probe::asynchronous::Probe as _;
use crate::probe::blocking::Probe;
use crate::probe::{How, Implementation};
use crate::{GUARD, eventually, in_time};

const KIB: usize = 1 << 10;

/// A setup with a pool of one segment of 1 MiB.
fn narrow(setup: Setup) -> Setup {
    Setup { pool_limit: 1 << 20, threshold: Threshold::bytes(4096), ..setup }
}

#[track_caller]
fn assert_exhausted(error: &lpc::Error, knobs: &[&str]) {
    assert_eq!(
        (error.kind(), error.progress()),
        (ErrorKind::ResourceExhausted, Progress::NotSent),
        "{error:?}"
    );
    for knob in knobs {
        assert!(error.to_string().contains(knob), "{error}");
    }
}

#[test]
fn threads_whose_bodies_do_not_fit_at_once_wait_for_each_other() {
    for setup in pairs::all_with_and_without_trust() {
        let (client, _server) = narrow(setup).connect(&Implementation::new());
        let stats = client.clone();
        in_time("callers that wait", move || {
            std::thread::scope(|scope| {
                for thread in 0..8_u8 {
                    let client = &client;
                    scope.spawn(move || {
                        let body = vec![thread; 600 * KIB];
                        for _ in 0..5 {
                            assert!(client.echo(&body).unwrap() == body);
                            let loan = client.filled(700 * KIB, thread).unwrap();
                            client.turn_option(None).unwrap();
                            assert!(client.turn_all(from_ref(&loan)).unwrap()[0] == loan);
                        }
                    });
                }
            });
        });
        let stats = stats.stats();
        assert_eq!((stats.errors, stats.fallbacks), (0, 0), "{stats:?}");
        assert_eq!((stats.sent.mapping.messages, stats.sent.loans.messages), (40, 40));
    }
}

#[test]
fn tasks_whose_bodies_do_not_fit_at_once_wait_for_each_other() {
    for setup in pairs::all().into_iter().filter(|setup| setup.client == Driver::Tokio) {
        let (client, _server) = narrow(setup).connect(&Implementation::new());
        let AnyClient::Tokio(tokio) = client.clone() else { unreachable!("filtered") };
        in_time("tasks that wait", move || {
            RUNTIME.block_on(async move {
                let mut tasks = tokio::task::JoinSet::new();
                for task in 0..64_u8 {
                    let tokio = tokio.clone();
                    tasks.spawn(async move {
                        let body = vec![task; 300 * KIB];
                        for _ in 0..3 {
                            assert!(tokio.echo(&body).await.unwrap() == body);
                            let mut loan = tokio.client().loan::<u8>(300 * KIB).await.unwrap();
                            loan.fill(task);
                            let loan = loan.freeze();
                            assert!(tokio.turn_all(from_ref(&loan)).await.unwrap()[0] == loan);
                        }
                    });
                }
                while let Some(task) = tasks.join_next().await {
                    task.unwrap();
                }
            });
        });
        assert_eq!((client.stats().errors, client.stats().fallbacks), (0, 0));
    }
}

#[test]
fn a_caller_that_does_not_wait_fails_at_once_and_is_told_the_knob() {
    for setup in pairs::all() {
        let setup = Setup { at_quota: AtQuota::Fail, ..narrow(setup) };
        let (client, _server) = setup.connect(&Implementation::new());
        let kept = client.filled(600 * KIB, 1).unwrap();
        let knobs = ["pool_limit", "at_quota: Fail"];
        assert_exhausted(&client.loan::<u8>(600 * KIB).unwrap_err(), &knobs);
        assert_exhausted(&client.echo(&vec![1; 600 * KIB]).unwrap_err(), &knobs);
        let copied: Shared<[u8]> = vec![1; 600 * KIB].into();
        assert_exhausted(&client.turn_all(&[copied]).unwrap_err(), &knobs);
        // What there is room for is not refused.
        assert_eq!(client.echo(&[1; 300 * KIB]).unwrap().len(), 300 * KIB);
        assert!(client.turn_all(from_ref(&kept)).unwrap()[0] == kept);
        drop(kept);
        assert_eq!(client.echo(&[1; 600 * KIB]).unwrap().len(), 600 * KIB);
    }
}

#[test]
fn a_caller_that_waits_for_a_while_fails_after_it() {
    const WHILE: Duration = Duration::from_millis(50);
    for setup in pairs::all() {
        let setup = Setup { at_quota: AtQuota::Wait(WHILE), trust: true, ..narrow(setup) };
        let probe = Implementation::new();
        let (client, _server) = setup.connect(&probe);
        client.keep(client.filled(600 * KIB, 1).unwrap()).unwrap();
        let fails = |call: &dyn Fn() -> lpc::Error| {
            let started = Instant::now();
            assert_exhausted(&call(), &["pool_limit", "at_quota: Wait(50ms)"]);
            assert!(started.elapsed() >= WHILE);
        };
        fails(&|| client.loan::<u8>(600 * KIB).unwrap_err());
        fails(&|| client.echo(&vec![1; 600 * KIB]).unwrap_err());
        let copied: Shared<[u8]> = vec![1; 600 * KIB].into();
        fails(&|| client.turn_all(from_ref(&copied)).unwrap_err());
        assert_eq!(client.echo(&[1; 300 * KIB]).unwrap().len(), 300 * KIB);
    }
}

#[test]
fn what_is_larger_than_all_of_the_pool_is_refused_at_once() {
    for setup in pairs::all() {
        let setup = Setup { at_quota: AtQuota::Wait(Duration::MAX), ..narrow(setup) };
        let (client, _server) = setup.connect(&Implementation::new());
        let copied: Shared<[u8]> = vec![1; 1025 * KIB].into();
        let errors = [
            client.echo(&vec![1; 1025 * KIB]).unwrap_err(),
            client.loan::<u8>(1025 * KIB).unwrap_err(),
            client.loan::<u64>(usize::MAX / 4).unwrap_err(),
            client.turn_all(&[copied]).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(
                (error.kind(), error.progress()),
                (ErrorKind::TooLarge, Progress::NotSent),
                "{error:?}"
            );
            let text = error.to_string();
            assert!(text.contains("pool_limit") && text.contains("1048576"), "{text}");
        }
        // A file, or memory of its own, is in nobody's pool.
        assert!(client.turn_all(&[How::file(&[7; 1025 * KIB], 0)]).unwrap()[0].byte_len() == 1025 << 10);
    }
}

/// A caller who waits is alone: nobody else reads the connection for it.
#[test]
fn a_lone_caller_is_woken_by_what_the_service_drops_on_its_own() {
    for setup in pairs::all() {
        let setup = Setup { at_quota: AtQuota::Wait(Duration::MAX), trust: true, ..narrow(setup) };
        let probe = Implementation::new();
        let (client, _server) = setup.connect(&probe);
        for waits_for_a_body in [false, true] {
            client.keep(client.filled(900 * KIB, 1).unwrap()).unwrap();
            let waiting = std::thread::spawn({
                let client = client.clone();
                move || match waits_for_a_body {
                    true => client.echo(&vec![1; 900 * KIB]).map(drop),
                    false => client.loan::<u8>(900 * KIB).map(drop),
                }
            });
            std::thread::sleep(Duration::from_millis(20)); // let it fall asleep
            assert!(!waiting.is_finished());
            probe.forget_kept();
            in_time("room", || waiting.join().unwrap()).unwrap();
        }
    }
}

#[test]
fn a_caller_that_waits_for_room_learns_of_the_end_of_the_connection() {
    for setup in pairs::all().into_iter().filter(|setup| setup.way == Way::Port) {
        let setup = Setup { at_quota: AtQuota::Wait(Duration::MAX), trust: true, ..narrow(setup) };
        let probe = Implementation::new();
        let (client, server) = setup.connect(&probe);
        client.keep(client.filled(900 * KIB, 1).unwrap()).unwrap();
        let waiting = std::thread::spawn(move || client.loan::<u8>(900 * KIB).map(drop));
        std::thread::sleep(Duration::from_millis(20)); // let it fall asleep
        drop(server);
        let error = in_time("the end", || waiting.join().unwrap()).unwrap_err();
        assert!(error.is_disconnected() && !error.may_have_run(), "{error:?}");
    }
}

/// The most calls that the service ran at once, of many that `naps` made.
fn most_at_once(setup: &Setup, naps: impl FnOnce(AnyClient) + Send + 'static) -> u64 {
    let (client, _server) = setup.connect(&Implementation::new());
    let calls = client.clone();
    in_time("calls at the limit", move || naps(calls));
    assert_eq!(client.stats().errors, 0);
    client.most_at_once().unwrap()
}

#[test]
fn no_more_calls_are_in_flight_than_may_be_and_all_succeed() {
    for setup in pairs::all() {
        for limit in [1, 2, 5] {
            let setup = Setup { max_calls_in_flight: limit, ..setup.clone() };
            let most = most_at_once(&setup, |client| {
                std::thread::scope(|scope| {
                    for thread in 0..8_u8 {
                        let client = &client;
                        scope.spawn(move || {
                            for _ in 0..10 {
                                client.nap(1).unwrap();
                                assert_eq!(client.echo(&[thread; 5000]).unwrap(), [thread; 5000]);
                            }
                        });
                    }
                });
            });
            assert!((1..=u64::from(limit)).contains(&most), "{most}, {setup:?}");
        }
    }
}

#[test]
fn many_tasks_have_no_more_calls_in_flight_than_may_be() {
    for setup in pairs::all().into_iter().filter(|setup| setup.client == Driver::Tokio) {
        for limit in [1, 3] {
            let setup = Setup { max_calls_in_flight: limit, ..setup.clone() };
            let most = most_at_once(&setup, |client| {
                let AnyClient::Tokio(tokio) = client else { unreachable!("filtered") };
                RUNTIME.block_on(async {
                    let calls: Vec<_> = (0..64)
                        .map(|_| {
                            let tokio = tokio.clone();
                            RUNTIME.spawn(async move { tokio.nap(1).await.unwrap() })
                        })
                        .collect();
                    for call in calls {
                        call.await.unwrap();
                    }
                });
            });
            assert!((1..=u64::from(limit)).contains(&most), "{most}, {setup:?}");
        }
    }
}

#[test]
fn a_call_too_many_fails_where_nobody_waits() {
    for setup in pairs::all() {
        for at_quota in [AtQuota::Fail, AtQuota::Wait(Duration::from_millis(50))] {
            let setup = Setup { max_calls_in_flight: 2, at_quota, ..setup.clone() };
            let probe = Implementation::new();
            let (client, _server) = setup.connect(&probe);
            std::thread::scope(|scope| {
                let waiting = [scope.spawn(|| client.wait(1)), scope.spawn(|| client.wait(1))];
                eventually("both calls", || client.stats().calls == 2);
                let started = Instant::now();
                let error = client.echo(b"too many").unwrap_err();
                assert_exhausted(&error, &["max_calls_in_flight", &format!("at_quota: {at_quota:?}")]);
                if let AtQuota::Wait(time) = at_quota {
                    assert!(started.elapsed() >= time);
                }
                assert_eq!(client.stats().calls, 2);
                probe.open_now(1);
                for call in waiting {
                    call.join().unwrap().unwrap();
                }
            });
            assert_eq!(client.echo(b"goes on").unwrap(), b"goes on");
        }
    }
}

#[test]
fn a_body_is_counted_once_however_often_its_call_had_to_wait() {
    for setup in pairs::all() {
        let setup = Setup { max_calls_in_flight: 1, ..setup };
        let (client, _server) = setup.connect(&Implementation::new());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..5).for_each(|_| client.nap(1).unwrap()));
            }
        });
        let stats = client.stats();
        assert_eq!((stats.calls, stats.sent.socket.messages), (40, 40), "{setup:?}");
    }
}

#[test]
fn a_server_without_quota_for_its_user_takes_all_bodies_through_the_socket() {
    for setup in pairs::all_with_and_without_trust() {
        let setup = Setup { user_pool_limit: 0, pool_limit: 256 << 20, way: Way::Port, ..setup };
        let (client, _server) = setup.connect(&Implementation::new());
        for fill in 0..5 {
            let body = vec![fill; 100_000];
            assert!(client.echo(&body).unwrap() == body, "{setup:?}");
        }
        let stats = client.stats();
        assert_eq!(stats.fallbacks, 5, "{stats:?}");
        assert_eq!(stats.received.socket.messages, 5, "its results as well");
        // What cannot be sent again is an error to its caller alone.
        // (The client knows that nothing can be shared, unless it has been too long since.)
        match client.turn_all(&[client.filled(100_000, 1).unwrap()]) {
            Ok(turned) => assert!(turned[0][..] == [1; 100_000]),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
                assert!(error.to_string().contains("user_pool_limit"), "{error}");
            }
        }
        let sealed = client.lend(How::Sealed, 100_000, 3).unwrap();
        assert!(client.turn_all(from_ref(&sealed)).unwrap()[0] == sealed);
    }
}

#[test]
fn connections_of_one_user_share_their_quota() {
    for setup in pairs::all().into_iter().filter(|setup| setup.way == Way::Port) {
        // Room for the arguments of one connection, whose first segment is 1 MiB, and for both quick lanes.
        let rings = if setup.quick_lane { 512 << 10 } else { 0 };
        let setup = Setup { user_pool_limit: (1 << 20) + rings, ..setup };
        let server = pairs::Running::new(&setup, &Implementation::new());
        let body = vec![1; 100_000];
        let first = setup.connect_port(&server);
        assert!(first.echo(&body).unwrap() == body);
        let second = setup.connect_port(&server);
        assert!(second.echo(&body).unwrap() == body);
        assert_eq!((first.stats().fallbacks, second.stats().fallbacks), (0, 1));
        drop(first);
        // Its quota is there for the next one.
        eventually("quota of who has gone", || {
            let next = setup.connect_port(&server);
            assert!(next.echo(&body).unwrap() == body);
            next.stats().fallbacks == 0
        });
    }
}

#[test]
fn a_caller_that_does_not_wait_has_the_room_that_has_come_back() {
    for setup in pairs::all() {
        let setup = Setup { at_quota: AtQuota::Fail, trust: true, ..narrow(setup) };
        let probe = Implementation::new();
        let (client, _server) = setup.connect(&probe);
        for _ in 0..10 {
            client.keep(client.filled(900 * KIB, 1).unwrap()).unwrap();
            probe.forget_kept();
            let started = Instant::now();
            eventually("room", || client.loan::<u8>(900 * KIB).is_ok());
            assert!(started.elapsed() < Duration::from_secs(2), "{setup:?}");
        }
    }
}

/// What a caller of a narrow pool gets, who must not wait for what never comes.
fn gets(
    setup: &Setup,
    what: impl FnOnce(&AnyClient) -> lpc::Result<usize> + Send + 'static,
) -> lpc::Result<usize> {
    let (client, server) = setup.connect(&Implementation::new());
    let result = in_time("a call that waits for nobody", move || what(&client));
    drop(server);
    result
}

/// Where nothing is out, nothing can come back: waiting is no use, and trying again neither.
#[test]
fn a_call_that_needs_more_than_there_can_be_at_once_is_not_tried_for_ever() {
    let at_quota = AtQuota::Wait(Duration::from_millis(100));
    for setup in pairs::all() {
        let setup = Setup { at_quota, ..narrow(setup) };
        // Two loans of which one fits, the other not beside it.
        let result = gets(&setup, |client| {
            let loans = [vec![1; 600 * KIB].into(), vec![2; 600 * KIB].into()];
            client.turn_all(&loans).map(|loans| loans.len())
        });
        assert!(result.is_err_and(|error| error.is_exhausted() || error.is_too_large()));
    }
}

#[test]
fn a_body_that_grows_fits_where_it_would_fit_at_once() {
    for setup in pairs::all() {
        let setup = Setup { pool_limit: 4 << 20, at_quota: AtQuota::Wait(Duration::from_secs(1)), ..setup };
        let result = gets(&setup, |client| {
            let words: Vec<_> = (0..3600).map(|_| "x".repeat(1000)).collect();
            client.turn_words(words).map(|words| words.len())
        });
        assert_eq!(result.unwrap(), 3600);
    }
}

#[test]
fn idle_segments_make_room_for_a_larger_one() {
    for setup in pairs::all() {
        let setup = Setup { pool_limit: 4 << 20, at_quota: AtQuota::Fail, ..setup };
        let result = gets(&setup, |client| {
            client.echo(&[1; 100_000])?;
            client.echo(&vec![1; 3500 * KIB]).map(|bytes| bytes.len())
        });
        assert_eq!(result.unwrap(), 3500 * KIB);
        let result = gets(&setup, |client| {
            drop(client.loan::<u8>(100_000)?);
            client.loan::<u8>(3500 * KIB).map(|loan| loan.len())
        });
        assert_eq!(result.unwrap(), 3500 * KIB);
    }
}

#[test]
fn a_pool_that_is_no_number_of_pages_refuses_what_is_over_its_last_page() {
    for setup in pairs::all() {
        let setup = Setup { pool_limit: 1_000_000, at_quota: AtQuota::Fail, ..setup };
        let result = gets(&setup, |client| client.echo(&vec![1; 999_900]).map(|bytes| bytes.len()));
        assert!(result.is_err_and(|error| error.is_too_large() || error.is_exhausted()));
        let setup = Setup { pool_limit: 1000, threshold: Threshold::ALWAYS, ..setup };
        let result = gets(&setup, |client| client.echo(&[1; 500]).map(|bytes| bytes.len()));
        assert!(result.is_err_and(|error| error.is_too_large() || error.is_exhausted()));
    }
}

#[test]
fn a_server_without_quota_goes_on_taking_bodies() {
    for setup in pairs::all() {
        let setup = Setup { user_pool_limit: 0, pool_limit: 16 << 20, at_quota: AtQuota::Fail, ..setup };
        let result = gets(&setup, |client| {
            for _ in 0..100 {
                client.echo(&[1; 100_000])?;
            }
            Ok(100)
        });
        assert_eq!(result.unwrap(), 100);
    }
}

/// Segments of shared memory that this process has mapped, by inode.
fn segments() -> std::collections::BTreeSet<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let inode = |line: &str| line.split_whitespace().nth(4).unwrap().to_owned();
    maps.lines().filter(|line| line.contains("/memfd:lpc (")).map(inode).collect()
}

/// Waits until all segments but so many are unmapped.
#[track_caller]
fn unmapped(left: usize, setup: &Setup) {
    let until = Instant::now() + GUARD;
    while segments().len() != left {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let maps: Vec<_> = maps.lines().filter(|line| line.contains("/memfd:lpc (")).collect();
        assert!(Instant::now() < until, "{left} segments should be left of {maps:#?}, {setup:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What the tests below do in a process of their own, where nobody else maps anything.
const ALONE: &str = "LPC_TEST_ALONE";

/// Whether this is that process; else it is started, to run the test called `name`.
fn is_alone(name: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("quotas::{name}"), "--include-ignored"]).env(ALONE, "");
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("1 passed"), "there is no test {name}");
    false
}

fn idle_soon(setup: Setup) -> Setup {
    let threshold = Threshold::bytes(4096);
    Setup { pool_idle_timeout: Duration::from_millis(100), threshold, ..setup }
}

#[test]
fn memory_that_is_not_used_is_unmapped_on_both_sides() {
    if !is_alone("memory_that_is_not_used_is_unmapped_on_both_sides") {
        return;
    }
    for setup in pairs::all_with_and_without_trust() {
        let setup = idle_soon(setup);
        let probe = Implementation::new();
        let (client, _server) = setup.connect(&probe);
        for _ in 0..3 {
            assert_eq!(client.echo(&vec![1; 3 << 20]).unwrap().len(), 3 << 20);
            for how in How::ALL {
                client.keep(client.lend(how, 100 * KIB, 7).unwrap()).unwrap();
            }
            client.keep(client.filled(2 << 20, 1).unwrap()).unwrap();
            assert!(!segments().is_empty());
            probe.forget_kept();
            unmapped(0, &setup);
        }
    }
}

#[test]
fn a_loan_that_is_kept_keeps_its_segment_and_no_other() {
    if !is_alone("a_loan_that_is_kept_keeps_its_segment_and_no_other") {
        return;
    }
    for setup in pairs::all_with_and_without_trust() {
        let setup = idle_soon(setup);
        let probe = Implementation::new();
        let (client, _server) = setup.connect(&probe);
        let kept = client.filled(100 * KIB, 5).unwrap();
        client.keep(kept.clone()).unwrap();
        // Several segments in either direction.
        let many: Vec<_> = (0..6).map(|fill| client.filled(1 << 20, fill).unwrap()).collect();
        assert_eq!(client.turn_all(&many).unwrap().len(), 6);
        assert!(segments().len() >= 3);
        drop(many);
        unmapped(1, &setup);
        assert!(kept.iter().all(|byte| *byte == 5));
        assert!(client.turn_all(from_ref(&kept)).unwrap()[0] == kept);
        // Now only the service holds the loan.
        drop(kept);
        let left = if setup.trust { 1 } else { 0 };
        unmapped(left, &setup);
        assert!(probe.kept.lock().unwrap()[0].iter().all(|byte| *byte == 5));
        probe.forget_kept();
        unmapped(0, &setup);
    }
}

#[test]
fn what_a_connection_mapped_goes_with_it() {
    if !is_alone("what_a_connection_mapped_goes_with_it") {
        return;
    }
    for setup in pairs::all_with_and_without_trust() {
        let probe = Implementation::new();
        let (client, server) = Setup { threshold: Threshold::bytes(4096), ..setup }.connect(&probe);
        let result = client.lend(How::Loan, 100 * KIB, 7).unwrap();
        client.keep(client.filled(100 * KIB, 1).unwrap()).unwrap();
        client.echo(&vec![1; 100 * KIB]).unwrap();
        drop((client, server));
        assert!(result.iter().all(|byte| *byte == 7));
        drop(result);
        probe.forget_kept();
        unmapped(0, &setup);
    }
}

/// The caller of a long call has the client's receive half; the memory of the server is given back after it.
#[test]
fn memory_of_the_server_is_unmapped_after_a_long_call() {
    if !is_alone("memory_of_the_server_is_unmapped_after_a_long_call") {
        return;
    }
    for setup in pairs::all().into_iter().filter(|setup| setup.way == Way::Port) {
        let server = Setup { pool_idle_timeout: Duration::from_secs(1), ..idle_soon(setup.clone()) };
        let server = pairs::Running::new(&server, &Implementation::new());
        let client = idle_soon(setup.clone()).connect_port(&server);
        drop(client.lend(How::Loan, 100 * KIB, 7).unwrap());
        client.nap(300).unwrap();
        unmapped(0, &setup);
    }
}

#[test]
fn calls_go_on_while_memory_is_given_back() {
    static ROUNDS: AtomicUsize = AtomicUsize::new(0);
    for setup in pairs::all_with_and_without_trust() {
        let setup = Setup { pool_idle_timeout: Duration::from_millis(4), ..narrow(setup) };
        let (client, _server) = setup.connect(&Implementation::new());
        let calls = client.clone();
        in_time("calls beside maintenance", move || {
            std::thread::scope(|scope| {
                for thread in 0..3_u8 {
                    let client = &calls;
                    scope.spawn(move || {
                        for round in 0..40_usize {
                            ROUNDS.fetch_add(1, SeqCst);
                            let loan = client.filled(1 + round * 5000, thread).unwrap();
                            assert!(client.turn_all(from_ref(&loan)).unwrap()[0] == loan);
                            drop(loan);
                            std::thread::sleep(Duration::from_millis(round as u64 % 7));
                        }
                    });
                }
            });
        });
        assert_eq!(client.stats().errors, 0);
    }
    assert_eq!(ROUNDS.load(SeqCst), pairs::all_with_and_without_trust().count() * 120);
}
