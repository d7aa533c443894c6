//! Values in shared memory: where they may stand, where they are, and how long they stay.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::slice::from_ref;
use std::sync::atomic::Ordering::SeqCst;

use lpc::{AtQuota, ErrorKind, Plain, Progress, Shared, SharedMut, Threshold};

use crate::pairs::{self, AnyClient, Driver, RUNTIME, Setup, Way};
use crate::probe::asynchronous::Probe as _;
use crate::probe::blocking::Probe;
use crate::probe::{
    Borrowing, CacheLine, Egg, How, Implementation, LoanRefused, Nest, Place, Point, asynchronous, blocking,
};
use crate::{eventually, in_time};

/// Values in memory of this kind.
fn shared<T: Plain + Copy>(client: &AnyClient, how: How, values: &[T]) -> Shared<[T]> {
    let mut made = match how {
        How::Loan => client.loan(values.len()).unwrap(),
        How::Zeroed => SharedMut::zeroed(values.len()),
        How::Sealed => SharedMut::sealable(values.len()).unwrap(),
        How::Vec | How::File | How::Range => return values.into(),
    };
    made.copy_from_slice(values);
    made.freeze()
}

/// Bytes in memory of this kind.
fn bytes(client: &AnyClient, how: How, values: &[u8]) -> Shared<[u8]> {
    match how {
        // They are another test's.
        How::File | How::Range if values.is_empty() => Shared::default(),
        How::File => How::file(values, 0),
        How::Range => How::file(values, 5000),
        _ => shared(client, how, values),
    }
}

/// A nest whose loans have about `len` values each, in memory of this kind.
fn nest(client: &AnyClient, how: How, len: usize) -> Nest {
    let body = |seed: u8| {
        let values: Vec<u8> = (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect();
        bytes(client, how, &values)
    };
    let numbers = |seed: u16| {
        let values: Vec<u16> = (0..len).map(|at| (at as u16).wrapping_mul(seed)).collect();
        shared(client, how, &values)
    };
    let text = |text: &str| {
        let text = text.repeat(len / 10);
        bytes(client, how, text.as_bytes()).into_str().unwrap()
    };
    let floats: Vec<f64> = (0..len).map(|at| at as f64 / 3.0).collect();
    let colours: Vec<[u8; 3]> = (0..len).map(|at| [at as u8, (at >> 8) as u8, 7]).collect();
    let points: Vec<Point> =
        (0..len).map(|at| Point { x: at as f32, y: -(at as f32), id: at as u64 }).collect();
    let lines: Vec<CacheLine> = (0..len / 8).map(|at| CacheLine { words: [at as u64; 8] }).collect();
    let level = |inner| Nest {
        name: format!("{how:?} of {len}"),
        numbers: numbers(3),
        text: text("grüße "),
        some: Some(body(1)),
        none: None,
        pair: (shared(client, how, &floats), 77),
        list: vec![body(2), body(3), Shared::default(), body(2)],
        array: [body(4), body(5)],
        egg: Egg::Two(body(6), numbers(5)),
        eggs: vec![
            Egg::Broken,
            Egg::Whole(body(7)),
            Egg::Named { name: "egg".into(), body: body(8) },
            Egg::Broken,
        ],
        map: BTreeMap::from([(1, shared(client, how, &colours)), (9, Shared::default())]),
        boxed: Box::new(shared(client, how, &points)),
        lines: shared(client, how, &lines),
        either: if len.is_multiple_of(2) { Ok(body(9)) } else { Err(text("either ")) },
        inner,
        last: 200,
    };
    level(Some(Box::new(level(None))))
}

fn is_aligned(nest: &Nest) -> bool {
    nest.lines.as_ptr().is_aligned() && nest.inner.as_ref().is_none_or(|inner| is_aligned(inner))
}

/// A setup in which bodies and loans of some kilobytes take the mapping lane.
fn roomy(setup: Setup) -> Setup {
    Setup { threshold: Threshold::bytes(2000), ..setup }
}

/// A setup with a pool of one segment of 1 MiB, and nobody who waits for room.
fn narrow(setup: Setup) -> Setup {
    Setup { pool_limit: 1 << 20, at_quota: AtQuota::Fail, ..roomy(setup) }
}

const KIB: usize = 1 << 10;

/// Whether there is room for a loan, by what has arrived with the reply to a call.
fn has_room(client: &AnyClient, len: usize) -> bool {
    client.echo(b"").unwrap();
    client.loan::<u8>(len).is_ok()
}

#[test]
fn a_loan_stands_wherever_a_value_can_stand() {
    for setup in pairs::all_with_and_without_trust() {
        let setup = roomy(setup);
        let (client, _server) = setup.connect(&Implementation::new());
        for how in How::ALL {
            for len in [2, 801, 10_000] {
                let sent = nest(&client, how, len);
                let context = format!("{how:?} of {len}, {setup:?}");
                let received = client.turn(sent.clone()).unwrap_or_else(|error| panic!("{error}: {context}"));
                assert!(received == sent, "{context}");
                // What was received is sent on, and comes back, and is sent on.
                let again = client.turn_by_reference(&received).unwrap();
                drop(received);
                assert!(again == sent && is_aligned(&again), "{context}");
                assert!(client.turn(again).unwrap() == sent, "{context}");
            }
        }
    }
}

#[test]
fn a_loan_is_an_argument_and_a_result_by_itself() {
    for setup in pairs::all_with_and_without_trust() {
        let (client, _server) = roomy(setup).connect(&Implementation::new());
        for how in How::ALL {
            for len in [0, 1, 5000, 100_000] {
                let numbers: Vec<u16> = (0..len).map(|at| at as u16).collect();
                let numbers = shared(&client, how, &numbers);
                let text = bytes(&client, how, "ä".repeat(len).as_bytes()).into_str().unwrap();
                assert!(client.turn_bare(numbers.clone(), &text).unwrap() == (numbers, text));
                let floats = shared(&client, how, &vec![0.1; len]);
                assert!(client.turn_option(Some(floats.clone())).unwrap() == Some(floats));
                assert!(client.turn_option(None).unwrap().is_none());
                let loans: Vec<_> = (0..5).map(|fill| bytes(&client, how, &vec![fill; len])).collect();
                assert!(client.turn_all(&loans).unwrap() == loans);
                assert!(len == 0 || client.lend(how, len, 9).unwrap().iter().eq(&vec![9; len]));
            }
        }
    }
}

#[test]
fn an_empty_file_is_an_empty_loan() {
    for setup in pairs::all_with_and_without_trust() {
        let (client, _server) = setup.connect(&Implementation::new());
        for how in How::ALL {
            let empty = match how {
                How::File => How::file(b"", 0),
                How::Range => How::file(b"", 5000),
                _ => bytes(&client, how, b""),
            };
            assert!(client.turn_all(&[empty.clone(), empty]).unwrap().iter().all(|loan| loan.is_empty()));
            assert!(client.lend(how, 0, 0).unwrap().is_empty());
        }
        assert_eq!(client.echo(b"goes on").unwrap(), b"goes on");
    }
}

#[test]
fn text_that_is_not_utf8_is_refused_where_it_is_made() {
    let not_text: Shared<[u8]> = vec![0xff; 100].into();
    assert!(not_text.into_str().is_err());
    assert!(How::file(&[0xff; 100], 0).into_str().is_err());
}

/// Borrowed arguments, and loans in three kinds of memory.
fn places(client: &AnyClient, loan: &Shared<[u8]>, letters: &Shared<str>) -> Vec<Place> {
    let text = "x".repeat(10_000);
    let borrowing = Borrowing { text: &text, cow: Cow::Borrowed(&text), body: text.as_bytes() };
    client.places(&text, text.as_bytes(), borrowing, loan, letters.clone()).unwrap()
}

#[test]
fn what_a_trusted_peer_passes_is_read_where_it_is() {
    for setup in pairs::all() {
        let setup = Setup { trust: true, ..roomy(setup) };
        let (client, _server) = setup.connect(&Implementation::new());
        for how in How::ALL {
            let loan = bytes(&client, how, &[7; 10_000]);
            let letters = bytes(&client, how, &[b'x'; 10_000]).into_str().unwrap();
            let mut expected = [Place::SharedMemory; 7];
            if matches!(how, How::File | How::Range) {
                // Mapped as well, but not from a memfd.
                expected[5..].fill(Place::Elsewhere);
            }
            assert_eq!(places(&client, &loan, &letters), expected, "{how:?}, {setup:?}");
            let made = client.lend(how, 10_000, 3).unwrap();
            assert!(made.is_shared(), "{how:?}, {setup:?}");
            assert_eq!(Place::of(made.as_ptr()), expected[5], "{how:?}, {setup:?}");
        }
    }
}

#[test]
fn what_another_peer_passes_is_read_where_it_is_only_if_it_is_sealed() {
    for setup in pairs::all() {
        let (client, _server) = roomy(setup.clone()).connect(&Implementation::new());
        for how in How::ALL {
            let loan = bytes(&client, how, &[7; 10_000]);
            let letters = bytes(&client, how, &[b'x'; 10_000]).into_str().unwrap();
            let mut expected = [Place::Elsewhere; 7];
            if how == How::Sealed {
                expected[5..].fill(Place::SharedMemory);
            }
            assert_eq!(places(&client, &loan, &letters), expected, "{how:?}, {setup:?}");
            let made = client.lend(how, 10_000, 3).unwrap();
            assert_eq!(made.is_shared(), how == How::Sealed, "{how:?}, {setup:?}");
            assert_eq!(Place::of(made.as_ptr()), expected[5], "{how:?}, {setup:?}");
        }
    }
}

#[test]
fn owned_results_are_in_private_memory() {
    for setup in pairs::all_with_and_without_trust() {
        let (client, _server) = roomy(setup).connect(&Implementation::new());
        let made = client.make(100_000).unwrap();
        assert_eq!(Place::of(made.as_ptr()), Place::Elsewhere);
        let word = "word".repeat(10_000);
        let words = client.turn_words(vec![word.clone()]).unwrap();
        assert_eq!(words, [word]);
        assert_eq!(Place::of(words[0].as_ptr()), Place::Elsewhere);
    }
}

#[test]
fn loans_that_the_service_keeps_stay_as_they_are() {
    for setup in pairs::all_with_and_without_trust() {
        let setup = Setup { pool_limit: 4 << 20, ..roomy(setup) };
        let probe = Implementation::new();
        let (client, _server) = setup.connect(&probe);
        for (fill, how) in (0..).zip(How::ALL.into_iter().cycle()).take(12) {
            client.keep(bytes(&client, how, &vec![fill; 30_000 + usize::from(fill)])).unwrap();
        }
        for round in 0..2000_usize {
            let fill = round as u8;
            let loan = client.filled(1 + round * 37 % 60_000, fill).unwrap();
            match round % 4 {
                0 => assert!(client.turn_all(from_ref(&loan)).unwrap() == [loan]),
                1 => assert!(client.echo(&loan).unwrap() == *loan),
                2 => assert!(client.lend(How::Loan, loan.len(), fill).unwrap() == loan),
                _ => drop(loan),
            }
        }
        for (fill, kept) in (0..).zip(&*probe.kept.lock().unwrap()) {
            assert!(kept.iter().eq(&vec![fill; 30_000 + usize::from(fill)]), "loan {fill}, {setup:?}");
        }
    }
}

#[test]
fn results_that_the_client_keeps_stay_as_they_are() {
    for setup in pairs::all_with_and_without_trust() {
        let setup = Setup { pool_limit: 4 << 20, ..roomy(setup) };
        let (client, _server) = setup.connect(&Implementation::new());
        let kept: Vec<_> = (0..)
            .zip(How::ALL.into_iter().cycle())
            .take(12)
            .map(|(fill, how)| client.lend(how, 30_000 + usize::from(fill), fill).unwrap())
            .collect();
        for round in 0..2000_usize {
            let (len, fill) = (1 + round * 37 % 60_000, round as u8);
            match round % 3 {
                0 => assert!(client.lend(How::Loan, len, fill).unwrap().iter().all(|byte| *byte == fill)),
                1 => assert_eq!(client.make(len as u64).unwrap().len(), len),
                _ => drop(client.turn_all(&[kept[round % 12].clone()]).unwrap()),
            }
        }
        for (fill, kept) in (0..).zip(&kept) {
            assert!(kept.iter().eq(&vec![fill; 30_000 + usize::from(fill)]), "loan {fill}, {setup:?}");
        }
    }
}

#[test]
fn room_comes_back_when_the_service_drops_what_it_kept() {
    for setup in pairs::all() {
        let setup = Setup { trust: true, ..narrow(setup) };
        let probe = Implementation::new();
        let (client, _server) = setup.connect(&probe);
        for _ in 0..20 {
            for fill in 0..4 {
                client.keep(client.filled(100 * KIB, fill).unwrap()).unwrap();
            }
            assert!(client.loan::<u8>(900 * KIB).unwrap_err().is_exhausted());
            assert!(client.loan::<u8>(400 * KIB).is_ok(), "there is room for this");
            probe.forget_kept();
            eventually("room after what was kept", || has_room(&client, 900 * KIB));
        }
    }
}

/// Without trust a copy is kept, and the client has its memory back as soon as it is made.
#[test]
fn what_an_untrusting_service_keeps_takes_no_room() {
    for setup in pairs::all() {
        let probe = Implementation::new();
        let (client, _server) = narrow(setup).connect(&probe);
        for fill in 0..20 {
            eventually("room after a copy was kept", || has_room(&client, 900 * KIB));
            client.keep(client.filled(900 * KIB, fill).unwrap()).unwrap();
        }
        for (fill, kept) in (0..).zip(&*probe.kept.lock().unwrap()) {
            assert!(kept.iter().all(|byte| *byte == fill));
        }
    }
}

/// Whether the server had room in shared memory for a result of this length.
fn is_lent(client: &AnyClient, len: usize) -> bool {
    let before = client.stats().received.loans.messages;
    drop(client.lend(How::Loan, len, 1).unwrap());
    client.stats().received.loans.messages > before
}

#[test]
fn room_comes_back_when_the_client_drops_what_it_kept() {
    for setup in pairs::all() {
        let setup = Setup { trust: true, ..narrow(setup) };
        let (client, _server) = setup.connect(&Implementation::new());
        for _ in 0..20 {
            // The server may hold what was lent a moment longer than the client, until its reply is seen to.
            let lent = |fill| loop {
                let lent = client.lend(How::Loan, 100 * KIB, fill).unwrap();
                if lent.is_shared() {
                    break lent;
                }
            };
            let kept: Vec<_> = (0..4).map(lent).collect();
            assert!(!is_lent(&client, 900 * KIB), "{setup:?}");
            eventually("room beside what was kept", || is_lent(&client, 400 * KIB));
            drop(kept);
            eventually("room after what was kept", || is_lent(&client, 900 * KIB));
        }
    }
}

#[test]
fn a_loan_that_is_never_passed_gives_its_room_back() {
    for setup in pairs::all_with_and_without_trust() {
        let (client, _server) = narrow(setup).connect(&Implementation::new());
        for round in 0..100 {
            let loan = client.loan::<u64>(120_000).unwrap();
            match round % 3 {
                0 => drop(loan),
                1 => drop(loan.freeze()),
                _ => drop(loan.freeze().clone()),
            }
        }
    }
}

#[test]
fn a_loan_that_is_leaked_takes_its_own_room_and_no_other() {
    for setup in pairs::all_with_and_without_trust() {
        let setup = narrow(setup);
        let probe = Implementation::new();
        let (client, _server) = setup.connect(&probe);
        std::mem::forget(client.filled(100 * KIB, 1).unwrap());
        std::mem::forget(client.loan::<u8>(100 * KIB).unwrap());
        client.keep(client.filled(100 * KIB, 2).unwrap()).unwrap();
        probe.kept.lock().unwrap().drain(..).for_each(std::mem::forget);
        std::mem::forget(client.lend(How::Loan, 300 * KIB, 3).unwrap());
        for fill in 0..50 {
            // Its return may take a moment.
            eventually("room beside what leaked", || has_room(&client, 500 * KIB));
            let loan = client.filled(500 * KIB, fill).unwrap();
            assert!(client.turn_all(from_ref(&loan)).unwrap() == [loan]);
        }
    }
}

#[test]
fn what_the_service_kept_is_readable_after_its_client_has_gone() {
    for setup in pairs::all_with_and_without_trust() {
        let probe = Implementation::new();
        let (client, server) = roomy(setup).connect(&probe);
        for (fill, how) in (0..).zip(How::ALL) {
            client.keep(bytes(&client, how, &[fill; 50_000])).unwrap();
        }
        let unsent = client.filled(50_000, 99).unwrap();
        drop(client);
        drop(server);
        assert!(unsent.iter().all(|byte| *byte == 99));
        for (fill, kept) in (0..).zip(&*probe.kept.lock().unwrap()) {
            assert!(kept.iter().all(|byte| *byte == fill) && kept.len() == 50_000);
        }
        probe.forget_kept();
    }
}

#[test]
fn what_the_client_kept_is_readable_after_the_server_has_gone() {
    for setup in pairs::all_with_and_without_trust() {
        let setup = Setup { way: Way::Port, ..roomy(setup) };
        let (client, server) = setup.connect(&Implementation::new());
        let kept: Vec<_> =
            (0..).zip(How::ALL).map(|(fill, how)| client.lend(how, 50_000, fill).unwrap()).collect();
        drop(server);
        assert!(client.echo(b"?").unwrap_err().is_disconnected());
        for (fill, kept) in (0..).zip(&kept) {
            assert!(kept.iter().all(|byte| *byte == fill) && kept.len() == 50_000);
        }
        drop(client);
        for (fill, kept) in (0..).zip(&kept) {
            assert!(kept.iter().all(|byte| *byte == fill) && kept.len() == 50_000);
        }
    }
}

/// A client whose connection is over, and knows it: its stream was cut while a call waited.
fn cut(setup: &Setup, probe: &std::sync::Arc<Implementation>, first: impl FnOnce(&AnyClient)) -> AnyClient {
    let server = pairs::Running::new(setup, probe);
    let stream = UnixStream::connect(&server.port).unwrap();
    let cut = stream.try_clone().unwrap();
    let client = setup.connect_stream(stream);
    first(&client);
    std::thread::scope(|scope| {
        let calls = client.stats().calls;
        let waiting = scope.spawn(|| client.wait(u64::MAX));
        eventually("the call", || client.stats().calls > calls);
        cut.shutdown(std::net::Shutdown::Both).unwrap();
        assert!(waiting.join().unwrap().unwrap_err().is_disconnected());
    });
    probe.open_now(u64::MAX); // so that the server can end
    client
}

#[test]
fn a_loan_of_a_connection_that_is_over_is_readable_and_passed_over_another() {
    for setup in pairs::all_with_and_without_trust() {
        let setup = Setup { way: Way::Port, ..roomy(setup) };
        let probe = Implementation::new();
        let (mut loan, mut result) = (None, None);
        let client = cut(&setup, &probe, |client| {
            let first = client.filled(50_000, 1).unwrap();
            client.keep(first.clone()).unwrap();
            loan = Some(first);
            result = Some(client.lend(How::Loan, 50_000, 2).unwrap());
        });
        let (loan, result) = (loan.unwrap(), result.unwrap());
        let error = client.keep(loan.clone()).unwrap_err();
        assert!(error.is_disconnected() && error.progress() == Progress::NotSent, "{error:?}");
        drop(client);
        let (other, _server) = setup.connect(&Implementation::new());
        let loans = [loan, result];
        assert!(other.turn_all(&loans).unwrap() == loans);
        assert!(loans[0].iter().all(|byte| *byte == 1) && loans[1].iter().all(|byte| *byte == 2));
        assert!(probe.kept.lock().unwrap()[0].iter().all(|byte| *byte == 1));
    }
}

#[test]
fn what_the_service_kept_is_not_written_to_after_the_connection_is_over() {
    for setup in pairs::all() {
        let setup = Setup { trust: true, way: Way::Port, ..roomy(setup) };
        let probe = Implementation::new();
        let client = cut(&setup, &probe, |client| {
            client.keep(client.filled(50_000, 1).unwrap()).unwrap();
        });
        let kept = probe.kept.lock().unwrap().remove(0);
        assert!(kept.is_shared());
        // What the documentation promises.
        let loan = client.filled(50_000, 9).map(drop);
        assert!(client.echo(&[9; 50_000]).unwrap_err().is_disconnected());
        assert!(kept.iter().all(|byte| *byte == 1), "{setup:?}");
        assert_eq!(loan.unwrap_err().kind(), ErrorKind::Disconnected, "{setup:?}");
    }
}

#[test]
fn what_the_client_kept_is_not_written_to_after_the_connection_is_over() {
    for setup in pairs::all() {
        let setup = Setup { trust: true, way: Way::Port, ..roomy(setup) };
        let probe = Implementation::new();
        let mut kept = None;
        let server = pairs::Running::new(&setup, &probe);
        std::thread::scope(|scope| {
            let stream = UnixStream::connect(&server.port).unwrap();
            let cut = stream.try_clone().unwrap();
            let client = setup.connect_stream(stream);
            kept = Some(client.lend(How::Loan, 50_000, 1).unwrap());
            // Two calls run when the connection ends. The first cannot be answered; the second makes its
            // result after.
            let calls = [1, 2].map(|key| {
                let client = client.clone();
                scope.spawn(move || client.lend_after(key, 50_000, 9))
            });
            eventually("both calls", || probe.lending.load(SeqCst) == 2);
            cut.shutdown(std::net::Shutdown::Both).unwrap();
            probe.open_now(1);
            for call in calls {
                match call.join().unwrap() {
                    // It was in the ring before the client saw the end.
                    Ok(_) => assert!(setup.quick_lane, "{setup:?}"),
                    Err(error) => assert!(error.is_disconnected(), "{setup:?}: {error:?}"),
                }
            }
        });
        let kept = kept.unwrap();
        assert!(kept.is_shared());
        std::thread::sleep(std::time::Duration::from_millis(50)); // the first answer has failed by now
        probe.open_now(2);
        drop(server);
        assert!(kept.iter().all(|byte| *byte == 1), "{setup:?}");
    }
}

#[test]
fn clones_of_a_loan_are_passed_in_one_message_and_all_come_back() {
    for setup in pairs::all_with_and_without_trust() {
        let probe = Implementation::new();
        let (client, _server) = narrow(setup.clone()).connect(&probe);
        for _ in 0..10 {
            // More than half of the pool: two copies of it would be more than all.
            let loan = client.filled(600 * KIB, 4).unwrap();
            client.keep(loan.clone()).unwrap();
            let seen = client.turn_all(&vec![loan.clone(); 7]);
            assert!(seen.unwrap() == vec![loan.clone(); 7], "{setup:?}");
            drop(loan);
            probe.forget_kept();
            eventually("room after clones", || has_room(&client, 900 * KIB));
        }
    }
}

#[test]
fn one_loan_is_in_two_calls_at_once() {
    for setup in pairs::all_with_and_without_trust() {
        let probe = Implementation::new();
        let (client, _server) = narrow(setup.clone()).connect(&probe);
        let loan = client.filled(400 * KIB, 4).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        client.keep(loan.clone()).unwrap();
                    }
                });
            }
        });
        assert!(probe.kept.lock().unwrap().iter().all(|kept| *kept == loan));
        drop(loan);
        probe.forget_kept();
        eventually("room after both calls", || has_room(&client, 900 * KIB));
    }
}

#[test]
fn one_loan_goes_to_two_servers() {
    for setup in pairs::all_with_and_without_trust() {
        let setup = roomy(setup);
        let probes = [Implementation::new(), Implementation::new()];
        let (first, _first) = setup.connect(&probes[0]);
        let (second, _second) = setup.connect(&probes[1]);
        for (fill, how) in (0..).zip(How::ALL) {
            let loan = bytes(&first, how, &[fill; 50_000]);
            for _ in 0..3 {
                first.keep(loan.clone()).unwrap();
                second.keep(loan.clone()).unwrap();
            }
            // And what came from the one goes to the other.
            second.keep(first.lend(how, 50_000, fill).unwrap()).unwrap();
        }
        drop((first, second));
        for probe in probes {
            let kept = probe.kept.lock().unwrap();
            for (fill, kept) in (0..).zip(kept.chunk_by(|a, b| a[0] == b[0])) {
                assert!(kept.iter().all(|kept| kept.iter().eq(&[fill; 50_000])));
            }
        }
    }
}

#[test]
fn loans_beyond_what_a_message_takes_go_in_line() {
    for setup in pairs::all_with_and_without_trust() {
        let setup = Setup { threshold: Threshold::bytes(100), ..setup };
        let (client, _server) = setup.connect(&Implementation::new());
        let loans: Vec<_> =
            (0..1500_usize).map(|at| client.filled(200 + at % 7, at as u8).unwrap()).collect();
        assert!(client.turn_all(&loans).unwrap() == loans, "{setup:?}");
        let stats = client.stats();
        assert_eq!((stats.sent.loans.messages, stats.received.loans.messages), (1024, 1024));
        let clones = vec![loans[0].clone(); 3000];
        assert!(client.turn_all(&clones).unwrap() == clones, "{setup:?}");
    }
}

/// More than a connection knows by number at once.
#[test]
fn many_sealed_loans_and_files_are_passed_in_one_message_and_in_turn() {
    for setup in pairs::all_with_and_without_trust() {
        let setup = roomy(setup);
        let (client, _server) = setup.connect(&Implementation::new());
        for how in [How::Sealed, How::Range] {
            let loans: Vec<_> = (0..100_u8).map(|fill| bytes(&client, how, &[fill; 5000])).collect();
            assert!(client.turn_all(&loans).unwrap() == loans, "{how:?}, {setup:?}");
            for loan in loans.iter().chain(&loans) {
                assert!(client.turn_all(from_ref(loan)).unwrap()[0] == *loan, "{how:?}, {setup:?}");
            }
        }
    }
}

#[test]
fn an_error_has_loans_as_a_result_has() {
    for setup in pairs::all_with_and_without_trust() {
        let (client, _server) = narrow(setup.clone()).connect(&Implementation::new());
        for how in How::ALL {
            for len in [3, 200 * KIB] {
                let loan = bytes(&client, how, &vec![7; len]);
                let error = client.refuse_with(loan.clone()).unwrap_err();
                assert!(error == LoanRefused::With { loan }, "{how:?} of {len}, {setup:?}");
            }
        }
        eventually("room after errors", || has_room(&client, 900 * KIB));
    }
}

#[test]
fn loans_of_a_reply_that_nobody_waits_for_come_back() {
    for setup in pairs::all_with_and_without_trust().filter(|setup| setup.client == Driver::Tokio) {
        let setup = narrow(setup);
        let probe = Implementation::new();
        let (client, _server) = setup.connect(&probe);
        let AnyClient::Tokio(tokio) = &client else { unreachable!("filtered") };
        for key in 0..10 {
            let call = RUNTIME.spawn({
                let tokio = tokio.clone();
                async move { asynchronous::Probe::lend_after(&tokio, key, 600 * KIB, 1).await.map(drop) }
            });
            eventually("the call", || probe.lending.load(SeqCst) as u64 == key + 1);
            call.abort();
            assert!(RUNTIME.block_on(call).unwrap_err().is_cancelled());
            probe.open_now(key);
            eventually("room after a reply that nobody got", || is_lent(&client, 900 * KIB));
        }
    }
}

/// It waits behind another one at its server, and never runs.
#[test]
fn arguments_of_a_call_that_was_cancelled_in_time_come_back() {
    for setup in pairs::all_with_and_without_trust().filter(|setup| setup.client == Driver::Tokio) {
        let setup = Setup { max_concurrent_calls: 1, ..narrow(setup) };
        let probe = Implementation::new();
        let (client, _server) = setup.connect(&probe);
        let AnyClient::Tokio(tokio) = &client else { unreachable!("filtered") };
        let blocker = std::thread::spawn({
            let client = client.clone();
            move || client.wait_idempotent(1)
        });
        eventually("the first call", || probe.waits.load(SeqCst) == 1);
        let call = RUNTIME.spawn({
            let (tokio, loan) = (tokio.clone(), client.filled(300 * KIB, 5).unwrap());
            async move { asynchronous::Probe::keep(&tokio, loan).await }
        });
        eventually("the second call", || client.stats().calls == 2);
        call.abort();
        assert!(RUNTIME.block_on(call).unwrap_err().is_cancelled());
        // (A call would wait behind the first one.)
        eventually("room after the second call", || client.loan::<u8>(900 * KIB).is_ok());
        probe.open_now(1);
        blocker.join().unwrap().unwrap();
        client.echo(b"once round").unwrap();
        assert!(probe.kept.lock().unwrap().is_empty(), "it did not run");
    }
}

#[test]
fn a_service_in_process_lends_and_keeps_as_any_other() {
    let probe = blocking::ProbeClient::builder().in_process(Implementation::default()).unwrap();
    let loan = probe.client().loan::<u8>(100_000).unwrap().freeze();
    assert!(probe.turn_all(from_ref(&loan)).unwrap() == [loan]);
    RUNTIME.block_on(async {
        let builder = asynchronous::ProbeClient::builder();
        let probe = builder.in_process(Implementation::default()).await.unwrap();
        let loan = probe.client().loan::<u8>(100_000).await.unwrap().freeze();
        assert!(probe.turn_all(from_ref(&loan)).await.unwrap() == [loan]);
    });
}

/// Without a connection there is nothing to pass.
#[test]
fn a_service_that_is_called_directly_gets_the_loan_itself() {
    let service = Implementation::default();
    let loan: Shared<[u8]> = vec![1; 100_000].into();
    let at = loan.as_ptr();
    Probe::keep(&service, loan).unwrap();
    assert_eq!(service.kept.lock().unwrap()[0].as_ptr(), at);
    assert_eq!(Probe::lend(&service, How::Loan, 1000, 7).unwrap()[999], 7);
}

#[test]
fn loans_are_counted_beside_the_bodies() {
    for setup in pairs::all_with_and_without_trust() {
        let setup = Setup { way: Way::Port, ..roomy(setup) };
        let probe = Implementation::new();
        let server = pairs::Running::new(&setup, &probe);
        let client = setup.connect_port(&server);
        let loan = client.filled(50_000, 1).unwrap();
        let small: Shared<[u8]> = vec![2; 10].into();
        let sealed = bytes(&client, How::Sealed, &[3; 7000]);
        // Three loans beside a body, and a fourth in it.
        client.turn_all(&[loan.clone(), small, sealed, loan]).unwrap();
        client.echo(&[4; 10_000]).unwrap();
        let (ours, theirs) = (client.stats(), (server.stats)());
        assert_eq!((ours.calls, ours.errors, ours.fallbacks), (2, 0, 0));
        assert_eq!((ours.sent.loans.messages, ours.sent.loans.bytes), (3, 107_000));
        assert_eq!((ours.received.loans.messages, ours.received.loans.bytes), (3, 107_000));
        assert_eq!((ours.sent.socket.messages, ours.sent.mapping.messages), (1, 1));
        assert_eq!((ours.received.socket.messages, ours.received.mapping.messages), (1, 1));
        assert_eq!((ours.sent, ours.received), (theirs.received, theirs.sent), "{setup:?}");
    }
}

#[test]
fn a_client_of_many_threads_lends_and_is_lent_to() {
    for setup in pairs::all_with_and_without_trust() {
        let setup = Setup { pool_limit: 8 << 20, ..roomy(setup) };
        let (client, server) = setup.connect(&Implementation::new());
        let calls = {
            let client = client.clone();
            move || {
                std::thread::scope(|scope| {
                    for thread in 0..6_u8 {
                        let client = &client;
                        scope.spawn(move || {
                            for round in 0..60_usize {
                                let how = How::ALL[(round + usize::from(thread)) % How::ALL.len()];
                                let len = 1 + round * 997 % 50_000;
                                let loan = bytes(client, how, &vec![thread; len]);
                                assert!(client.turn_all(from_ref(&loan)).unwrap()[0] == loan);
                                assert!(client.lend(how, len, thread).unwrap() == loan);
                            }
                        });
                    }
                });
            }
        };
        in_time("calls of many threads", calls);
        drop((client, server));
    }
}
