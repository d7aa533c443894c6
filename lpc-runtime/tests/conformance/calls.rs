//! Calls that come back.

use std::time::Duration;

use lpc::{ErrorKind, Progress, Threshold};

use crate::pairs::{self, Setup};
use crate::probe::blocking::Probe;
use crate::probe::{Implementation, ProbeError};
use crate::{GUARD, in_time};

/// Bytes that differ by place and seed.
fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed).wrapping_add((at >> 8) as u8)).collect()
}

#[test]
fn bodies_of_every_size_come_back_on_the_lane_that_the_threshold_says() {
    for threshold in [Threshold::OFF, Threshold::ALWAYS, Threshold::bytes(4096), Threshold::default()] {
        for setup in pairs::all() {
            let setup = Setup { threshold, ..setup };
            let (client, _server) = setup.connect(&Implementation::new());
            for len in
                [0, 1, 100, 4092, 4093, 4094, 4095, 4096, 4097, 16_380, 16_381, 16_384, 65_536, 1 << 20]
            {
                let before = client.stats();
                let bytes = pattern(len, len as u8);
                assert_eq!(client.echo(&bytes).unwrap(), bytes, "{len} bytes, {setup:?}");
                let after = client.stats();
                let mapped = after.sent.mapping.messages - before.sent.mapping.messages;
                let encoded = len
                    + if len < 128 {
                        1
                    } else if len < 16_384 {
                        2
                    } else {
                        3
                    };
                let expected = threshold.is_exceeded_by(encoded as u64);
                assert_eq!(mapped == 1, expected, "{len} bytes, {setup:?}");
                let received = after.received.mapping.messages - before.received.mapping.messages;
                // A result has one byte more, which says `Ok`.
                assert_eq!(
                    received == 1,
                    threshold.is_exceeded_by(encoded as u64 + 1),
                    "{len} bytes, {setup:?}"
                );
            }
        }
    }
}

#[test]
fn a_methods_own_threshold_goes_before() {
    for setup in pairs::all() {
        let (client, _server) = setup.connect(&Implementation::new());
        let bytes = pattern(100_000, 1);
        assert_eq!(client.echo_by_socket(&bytes).unwrap(), bytes);
        let stats = client.stats();
        assert_eq!((stats.sent.mapping.messages, stats.received.mapping.messages), (0, 0));
        assert_eq!(client.echo_by_mapping(b"small").unwrap(), b"small");
        let stats = client.stats();
        assert_eq!((stats.sent.mapping.messages, stats.received.mapping.messages), (1, 1));
    }
}

#[test]
fn structured_arguments_that_grow_piece_by_piece_come_back() {
    for setup in pairs::all() {
        let (client, _server) = setup.connect(&Implementation::new());
        for count in [0_u64, 10, 1000, 5000, 200_000] {
            let numbers: Vec<u64> = (0..count).map(|number| number * 0x1234_5678).collect();
            let sum = numbers.iter().fold(0_u64, |sum, number| sum.wrapping_add(*number));
            assert_eq!(client.sum(&numbers, "grüße").unwrap(), (sum, "GRÜSSE".to_owned()));
        }
    }
}

#[test]
fn errors_of_the_implementation_come_back_as_they_are() {
    for setup in pairs::all() {
        let (client, _server) = setup.connect(&Implementation::new());
        assert_eq!(client.refuse("closed"), Err(ProbeError::Refused { reason: "closed".into() }));
        let error = client.relay("the disk is full").unwrap_err();
        assert_eq!((error.kind(), error.progress()), (ErrorKind::Other, Progress::Ran));
        assert_eq!(error.to_string(), "the disk is full");
        assert_eq!(client.stats().errors, 0, "an implementation's own errors are results");
    }
}

#[test]
fn a_panic_is_an_error_for_its_caller_alone() {
    for setup in pairs::all() {
        let (client, _server) = setup.connect(&Implementation::new());
        for _ in 0..3 {
            let error = client.panic("by order").unwrap_err();
            assert!(error.is_panic() && error.may_have_run(), "{error:?}");
            assert_eq!(error.to_string(), "Probe.panic panicked: by order");
            assert_eq!(client.echo(b"still there").unwrap(), b"still there");
        }
        assert_eq!(client.stats().errors, 3);
    }
}

#[test]
fn what_is_over_a_limit_is_an_error_that_names_limit_and_knob() {
    for setup in pairs::all() {
        let setup = Setup { max_message: 1 << 20, pool_limit: 8 << 20, ..setup };
        let (client, _server) = setup.connect(&Implementation::new());
        let error = client.echo(&pattern(2 << 20, 0)).unwrap_err();
        assert!(error.is_too_large() && !error.may_have_run(), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("argument `bytes` of Probe.echo") && text.contains("1048576"), "{text}");
        assert!(text.contains("max_message"), "{text}");

        let error = client.make(2 << 20).unwrap_err();
        assert!(error.is_too_large() && error.progress() == Progress::Ran, "{error:?}");
        assert!(error.to_string().contains("result of Probe.make"), "{error}");
        assert_eq!(client.make(1000).unwrap().len(), 1000);

        // The text of a failure is no message that the limit is for.
        let small = Setup { max_message: 40, ..setup.clone() };
        let (client, _small) = small.connect(&Implementation::new());
        let text = client.make(100).unwrap_err().to_string();
        assert!(text.contains("limit of 40") && text.contains("max_message"), "{text}");

        let setup = Setup { max_message: 64 << 20, pool_limit: 1 << 20, ..setup };
        let (client, _server) = setup.connect(&Implementation::new());
        let text = client.echo(&pattern(2 << 20, 0)).unwrap_err().to_string();
        assert!(text.contains("pool_limit") && text.contains("1048576"), "{text}");
        assert_eq!(client.echo(&pattern(1 << 19, 0)).unwrap(), pattern(1 << 19, 0));
    }
}

#[test]
fn the_narrower_of_both_limits_holds() {
    for setup in pairs::all() {
        let probe = Implementation::new();
        let server = pairs::Running::new(&Setup { max_message: 10_000, ..setup.clone() }, &probe);
        let client = setup.connect_port(&server);
        assert!(client.echo(&pattern(20_000, 0)).unwrap_err().is_too_large());
        assert!(client.make(20_000).unwrap_err().is_too_large());
        assert_eq!(client.echo(&pattern(9000, 0)).unwrap(), pattern(9000, 0));
    }
}

#[test]
fn a_pool_without_room_makes_large_bodies_take_the_socket() {
    for setup in pairs::all() {
        // Room for one body of 600 KiB, not for two.
        let setup = Setup { pool_limit: 1 << 20, threshold: Threshold::bytes(4096), ..setup };
        let (client, _server) = setup.connect(&Implementation::new());
        let bytes = pattern(600 << 10, 3);
        let barrier = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    for _ in 0..5 {
                        assert!(client.echo(&bytes).unwrap() == bytes);
                    }
                });
            }
        });
        let stats = client.stats();
        assert_eq!(stats.sent.mapping.messages + stats.sent.socket.messages, 40);
        assert_eq!(stats.fallbacks, stats.sent.socket.messages, "{stats:?}");
    }
}

#[test]
fn many_threads_share_one_client() {
    for setup in pairs::all() {
        let setup = Setup { threshold: Threshold::bytes(4096), ..setup };
        let (client, _server) = setup.connect(&Implementation::new());
        std::thread::scope(|scope| {
            for thread in 0..40_u8 {
                let client = client.clone();
                scope.spawn(move || {
                    for round in 0..50_usize {
                        let bytes = pattern((round * 97 + usize::from(thread) * 1009) % 9000, thread);
                        assert_eq!(client.echo(&bytes).unwrap(), bytes);
                    }
                });
            }
        });
        assert_eq!(client.stats().calls, 2000);
    }
}

#[test]
fn calls_are_answered_out_of_order() {
    for setup in pairs::all() {
        let probe = Implementation::new();
        let (client, _server) = setup.connect(&probe);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| client.wait(1));
            for _ in 0..50 {
                client.echo(b"overtakes").unwrap();
            }
            assert!(!waiting.is_finished());
            client.open(1).unwrap();
            waiting.join().unwrap().unwrap();
        });
    }
}

/// A method that always was quick may be the one that waits this time: the connection must go on all the
/// same.
#[test]
fn a_quick_method_that_waits_for_once_holds_up_nobody() {
    for setup in pairs::all() {
        let probe = Implementation::new();
        let (client, _server) = setup.connect(&probe);
        probe.open_now(0);
        for _ in 0..200 {
            client.wait(0).unwrap();
        }
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| client.wait(1));
            client.open(1).unwrap();
            waiting.join().unwrap().unwrap();
        });
    }
}

#[test]
fn calls_of_one_connection_run_side_by_side_up_to_the_limit() {
    for setup in pairs::all() {
        for limit in [1, 3] {
            let setup = Setup { max_concurrent_calls: limit, ..setup.clone() };
            let (client, _server) = setup.connect(&Implementation::new());
            std::thread::scope(|scope| {
                for _ in 0..9 {
                    scope.spawn(|| client.nap(20).unwrap());
                }
            });
            assert_eq!(client.most_at_once().unwrap(), limit as u64, "{setup:?}");
        }
    }
}

#[test]
fn both_sides_count_the_same() {
    for setup in pairs::all().into_iter().filter(|setup| setup.way == pairs::Way::Port) {
        let probe = Implementation::new();
        let server = pairs::Running::new(&setup, &probe);
        let client = setup.connect_port(&server);
        client.echo(&pattern(100, 0)).unwrap();
        client.echo(&pattern(100_000, 0)).unwrap();
        client.panic("").unwrap_err();
        let (ours, theirs) = (client.stats(), (server.stats)());
        assert_eq!((ours.calls, ours.errors), (3, 1));
        assert_eq!((theirs.calls, theirs.errors), (3, 1));
        assert_eq!((ours.sent, ours.received), (theirs.received, theirs.sent));
        assert_eq!(ours.sent.mapping.bytes, 100_003);
        assert_eq!(ours.received.mapping.bytes, 100_004);
    }
}

/// Each counter has one writer at a time, whichever thread or task that is, and so none is lost.
#[test]
fn both_sides_count_the_same_however_many_call_at_once() {
    const THREADS: u64 = 8;
    const CALLS: u64 = 200;
    for setup in pairs::all().into_iter().filter(|setup| setup.way == pairs::Way::Port) {
        let server = pairs::Running::new(&setup, &Implementation::new());
        let client = setup.connect_port(&server);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for call in 0..CALLS {
                        let bytes = pattern(call as usize, 0);
                        assert_eq!(client.echo(&bytes).unwrap(), bytes);
                    }
                });
            }
        });
        let (ours, theirs) = (client.stats(), (server.stats)());
        assert_eq!((ours.calls, theirs.calls), (THREADS * CALLS, THREADS * CALLS), "{setup:?}");
        assert_eq!(ours.sent.socket.messages, THREADS * CALLS, "{setup:?}");
        assert_eq!((ours.sent, ours.received), (theirs.received, theirs.sent), "{setup:?}");
    }
}

#[test]
fn a_side_without_a_spin_budget_sleeps_at_once() {
    for setup in pairs::all().into_iter().filter(|setup| setup.way == pairs::Way::Port) {
        let setup = Setup { spin: Duration::ZERO, ..setup };
        let server = pairs::Running::new(&setup, &Implementation::new());
        let client = setup.connect_port(&server);
        for _ in 0..100 {
            client.echo(b"quick").unwrap();
        }
        for waits in [client.stats().waits, (server.stats)().waits] {
            assert_eq!((waits.found, waits.missed), (0, 0), "{setup:?}");
            assert!(waits.slept > 0, "{setup:?}");
        }
    }
}

/// However long that is: others have their turn on the same thread, and the end of the connection is seen.
#[test]
fn a_long_spin_budget_keeps_nobody_from_anything() {
    for setup in pairs::all() {
        let setup = Setup { spin: 10 * GUARD, ..setup };
        let what = format!("{setup:?}");
        in_time(&what, move || {
            let (client, server) = setup.connect(&Implementation::new());
            std::thread::scope(|scope| {
                for number in 0..4 {
                    let client = &client;
                    scope.spawn(move || {
                        for len in 0..100 {
                            assert_eq!(client.echo(&pattern(len, number)).unwrap(), pattern(len, number));
                        }
                    });
                }
            });
            drop(client);
            // It waits for its connections first, longer than this test.
            drop(server);
        });
    }
}

/// After warm-up the mapping lane neither makes nor maps anything, however many calls there are.
#[test]
fn segments_are_used_again() {
    let segments = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains("memfd:lpc")).map(str::to_owned).collect::<Vec<_>>()
    };
    for setup in pairs::all() {
        let (client, _server) = setup.connect(&Implementation::new());
        let bytes = pattern(300_000, 9);
        client.echo(&bytes).unwrap();
        let own = |lines: Vec<String>| lines.len();
        let before = own(segments());
        for _ in 0..200 {
            client.echo(&bytes).unwrap();
        }
        // Other tests of this process map and unmap meanwhile; ours would have added hundreds.
        assert!(own(segments()) < before + 150, "{setup:?}");
    }
}
