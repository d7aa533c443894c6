//! What the quick lane carries, and that all else is as without it.

use lpc::{Quick, Threshold};

use crate::pairs::{self, Driver, Setup, Way};
use crate::probe::Implementation;
use crate::probe::blocking::Probe;

/// Both drivers on each side, with the quick lane.
fn setups() -> impl Iterator<Item = Setup> {
    pairs::all().into_iter().filter(|setup| setup.quick_lane && setup.way == Way::Pair)
}

#[test]
fn small_calls_and_replies_take_it() {
    for setup in setups() {
        let (client, _server) = setup.connect(&Implementation::new());
        for len in 0..200 {
            let body = vec![len as u8; len];
            assert!(client.echo(&body).unwrap() == body, "{setup:?}");
        }
        let Quick { sent, received, .. } = client.stats().quick;
        // The first ones go before both sides have mapped the other's memory.
        assert!(sent >= 190 && received >= 190, "{:?}, {setup:?}", client.stats());
    }
}

#[test]
fn bodies_of_any_size_on_any_lane_arrive_between_small_ones() {
    for setup in setups() {
        for threshold in [Threshold::OFF, Threshold::bytes(2000), Threshold::ALWAYS] {
            let setup = Setup { threshold, ..setup.clone() };
            let (client, _server) = setup.connect(&Implementation::new());
            std::thread::scope(|scope| {
                for thread in 0..4_u8 {
                    let client = &client;
                    scope.spawn(move || {
                        for round in 0..60 {
                            let len = [3, 230, 232, 240, 3950, 3968, 4000, 70_000, 300_000][round % 9];
                            let body = vec![thread ^ round as u8; len + usize::from(thread)];
                            assert!(client.echo(&body).unwrap() == body);
                        }
                    });
                }
            });
            let stats = client.stats();
            assert_eq!((stats.calls, stats.errors), (240, 0));
            assert!(stats.quick.sent > 0 && stats.quick.received > 0, "{stats:?}, {setup:?}");
        }
    }
}

#[test]
fn where_one_side_does_not_want_it_nothing_takes_it() {
    for setup in setups() {
        for (client, server) in [(true, false), (false, true)] {
            let probe = Implementation::new();
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            Setup { quick_lane: server, ..setup.clone() }.serve_stream(theirs, probe);
            let client = Setup { quick_lane: client, ..setup.clone() }.connect_stream(ours);
            for _ in 0..20 {
                client.echo(b"small").unwrap();
            }
            assert_eq!(client.stats().quick, Quick::default());
        }
    }
}

#[test]
fn more_calls_than_the_ring_holds_are_all_answered() {
    for setup in setups() {
        let setup = Setup { max_concurrent_calls: 1, max_calls_in_flight: 2000, ..setup };
        let probe = Implementation::new();
        let (client, _server) = setup.connect(&probe);
        client.echo(b"so that both sides have the other's memory").unwrap();
        client.echo(b"and have said so").unwrap();
        std::thread::scope(|scope| {
            // While this runs, hardly anything is read, or answered.
            let waiting = scope.spawn(|| client.wait(1));
            while client.stats().calls < 3 {
                std::thread::yield_now();
            }
            let callers: Vec<_> = (0..600_u32)
                .map(|number| {
                    let client = &client;
                    scope.spawn(move || {
                        assert_eq!(client.echo(&number.to_le_bytes()).unwrap(), number.to_le_bytes());
                    })
                })
                .collect();
            while client.stats().calls < 603 {
                std::thread::yield_now();
            }
            probe.open_now(1);
            waiting.join().unwrap().unwrap();
            callers.into_iter().for_each(|caller| caller.join().unwrap());
        });
        // And it is used again.
        let before = client.stats().quick;
        for _ in 0..20 {
            client.echo(b"small").unwrap();
        }
        let after = client.stats().quick;
        assert!(
            after.sent > before.sent && after.received > before.received,
            "{before:?} {after:?} {setup:?}"
        );
    }
}

#[test]
fn a_side_that_sleeps_is_woken() {
    for setup in setups() {
        let setup = Setup { spin: std::time::Duration::ZERO, ..setup };
        let (client, _server) = setup.connect(&Implementation::new());
        for _ in 0..100 {
            client.nap(1).unwrap();
        }
        let stats = client.stats();
        assert!(stats.quick.bells > 0, "{stats:?}, {setup:?}");
        assert_eq!(stats.waits.found, 0);
        if setup.client == Driver::Blocking {
            assert!(stats.waits.slept >= 100, "{stats:?}");
        }
    }
}
