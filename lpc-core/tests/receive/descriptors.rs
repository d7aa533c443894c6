//! Descriptors: one for each frame that declares one, and no other.

use super::*;

#[test]
fn a_segment_or_object_without_its_descriptor_is_refused() {
    for role in ROLES {
        for bytes in [&frame::segment(1, PAGE)[..], &frame::object(OBJECT | 1, 0, 5)] {
            let violation = refused(role, bytes);
            assert!(matches!(violation, Violation::MissingDescriptor), "{violation:?}");
            let mut driver = Driver::new(role, limits());
            driver.segment(1);
            driver.object(1);
            let violation = driver.feed(bytes, &[]).unwrap_err();
            assert!(matches!(violation, Violation::MissingDescriptor), "{violation:?}");
        }
    }
}

#[test]
fn a_lost_descriptor_is_that_of_its_frame() {
    let numbers: [u32; 4] = [0, OBJECT, 1, OBJECT | 1];
    let announcement = |number: u32| match number & OBJECT {
        0 => frame::segment(number, PAGE).to_vec(),
        _ => frame::object(number, 0, PAGE).to_vec(),
    };
    for role in ROLES {
        for lost in 0..1 << numbers.len() {
            let is_lost = |at: usize| lost & 1 << at != 0;
            for takes in [true, false] {
                let mut driver = Driver::new(role, limits());
                for (at, number) in numbers.into_iter().enumerate() {
                    // In front of each a frame without one, in the same piece.
                    let bytes = [raw(bodied(role), 0, 1, b"body"), announcement(number)].concat();
                    let own = [number];
                    let descriptors = if is_lost(at) { &[][..] } else { &own };
                    let len = driver.receive_or_lose(&bytes, descriptors, is_lost(at)).unwrap();
                    assert_eq!(len, bytes.len());
                    if takes {
                        driver.drain().unwrap();
                    }
                }
                driver.drain().unwrap();
                let seen = driver.seen.iter().filter_map(|seen| match seen {
                    Seen::Segment { descriptor, .. } | Seen::Object { descriptor, .. } => Some(*descriptor),
                    _ => None,
                });
                let expected =
                    numbers.into_iter().enumerate().map(|(at, number)| (!is_lost(at)).then_some(number));
                assert!(seen.eq(expected));
                assert_eq!(driver.announced.len(), numbers.len(), "it is announced all the same");
            }
        }
    }
}

#[test]
fn what_the_senders_system_did_not_pass_is_announced_without_it() {
    for role in ROLES {
        for number in [0, OBJECT] {
            let mut driver = Driver::new(role, limits());
            let mut bytes = match number {
                0 => frame::segment(number, PAGE).to_vec(),
                _ => frame::object(number, 0, PAGE).to_vec(),
            };
            frame::mark_without_descriptor(&mut bytes);
            // What comes behind it, in the same piece, brings its own.
            let next = frame::segment(1, PAGE);
            driver.feed(&bytes, &[]).unwrap();
            driver.feed(&next, &[7]).unwrap();
            driver.retire(number);
            driver.feed(&[&bytes[..], &raw(bodied(role), 0, 1, b"body")].concat(), &[]).unwrap();
            let descriptors: Vec<_> = driver
                .seen
                .iter()
                .filter_map(|seen| match seen {
                    Seen::Segment { descriptor, .. } | Seen::Object { descriptor, .. } => Some(*descriptor),
                    _ => None,
                })
                .collect();
            assert_eq!(descriptors, [None, Some(7), None]);
            let violation = Driver::new(role, limits()).feed(&bytes, &[7]).unwrap_err();
            assert!(matches!(violation, Violation::StrayDescriptors), "{violation:?}");
        }
    }
}

#[test]
fn a_lost_descriptor_that_no_frame_declared_is_refused() {
    for role in ROLES {
        let whole = raw(bodied(role), 0, 1, b"body");
        let segment = frame::segment(0, PAGE);
        let cases: [(&[u8], &[u32]); 4] =
            [(&whole, &[]), (&whole[..18], &[]), (&segment, &[1]), (&[&segment[..], &whole].concat(), &[1])];
        for (bytes, descriptors) in cases {
            let mut driver = Driver::new(role, limits());
            driver.receive_or_lose(bytes, descriptors, true).unwrap();
            let violation = driver.drain().unwrap_err();
            assert!(matches!(violation, Violation::StrayDescriptors), "{violation:?}");
        }
        let mut driver = Driver::new(role, limits());
        let result = (0..20).try_for_each(|_| driver.receive_or_lose(&[0], &[], true).map(drop));
        assert!(matches!(result, Err(Violation::StrayDescriptors)), "they count as descriptors do");
    }
}

#[test]
fn an_announcement_that_is_refused_says_what_it_was() {
    let text = |bytes: &[u8]| fed(Role::Client, bytes, &[1]).unwrap_err().to_string();
    assert_eq!(
        text(&frame::segment(20, PAGE)),
        "segment 20 of 4096 bytes: more segments than Limits::max_segments"
    );
    assert_eq!(
        text(&frame::object(OBJECT | 9, 0, 5)),
        "object 9 of 5 bytes: more objects than Limits::max_objects"
    );
}

#[test]
fn descriptors_that_no_frame_declared_are_refused() {
    for role in ROLES {
        let whole = raw(bodied(role), 0, 1, b"body");
        let segment = frame::segment(0, PAGE);
        let cases: [(&[u8], &[u32]); 5] = [
            (&whole, &[1]),
            (&whole[..16], &[1]),
            (&whole[..18], &[1]),
            (&segment, &[1, 2]),
            (&[&segment[..], &whole].concat(), &[1, 2]),
        ];
        for (bytes, descriptors) in cases {
            let violation = fed(role, bytes, descriptors).unwrap_err();
            assert!(matches!(violation, Violation::StrayDescriptors), "{violation:?}");
        }
    }
}

#[test]
fn a_stray_descriptor_is_refused_at_the_latest_when_its_frame_is_over() {
    for role in ROLES {
        let whole = raw(bodied(role), 0, 1, b"body");
        for first in 1..whole.len() {
            let mut driver = Driver::new(role, limits());
            let violation = driver
                .feed(&whole[..first], &[1])
                .and_then(|()| driver.feed(&whole[first..], &[]))
                .expect_err("a stray descriptor");
            assert!(matches!(violation, Violation::StrayDescriptors), "{violation:?}");
        }
    }
}

#[test]
fn descriptors_by_the_dozen_are_refused_before_any_frame_is() {
    for role in ROLES {
        let mut driver = Driver::new(role, limits());
        let many: Vec<u32> = (0..17).collect();
        let violation = driver.receive(&frame::segment(0, PAGE), &many).unwrap_err();
        assert!(matches!(violation, Violation::StrayDescriptors), "{violation:?}");
        // One with each byte of a frame that has not begun to make sense.
        let mut driver = Driver::new(role, limits());
        let bytes = frame::segment(0, PAGE);
        let result = bytes.iter().enumerate().try_for_each(|(at, byte)| driver.feed(&[*byte], &[at as u32]));
        assert!(matches!(result, Err(Violation::StrayDescriptors)), "{result:?}");
    }
}

#[test]
fn a_descriptor_waits_for_the_rest_of_its_frame() {
    for role in ROLES {
        let bytes = frame::segment(0, PAGE);
        for first in 1..bytes.len() {
            let mut driver = Driver::new(role, limits());
            driver.feed(&bytes[..first], &[5]).unwrap();
            assert_eq!((driver.seen.len(), driver.receiver.is_drained()), (0, false));
            driver.feed(&bytes[first..], &[]).unwrap();
            assert_eq!(driver.seen, [Seen::Segment { number: 0, len: PAGE, descriptor: Some(5) }]);
            assert!(driver.receiver.is_drained());
        }
    }
}

#[test]
fn a_descriptor_may_arrive_behind_whole_frames_that_have_none() {
    for role in ROLES {
        let calls = raw(bodied(role), 0, 1, b"body").repeat(3);
        let bytes = [&calls[..], &frame::segment(0, PAGE)].concat();
        for len in calls.len() + 1..=bytes.len() {
            let mut driver = Driver::new(role, limits());
            driver.feed(&bytes[..len], &[5]).unwrap();
            driver.feed(&bytes[len..], &[]).unwrap();
            assert_eq!(driver.seen.len(), 4);
        }
    }
}
