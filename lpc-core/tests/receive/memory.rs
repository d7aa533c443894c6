//! Segments, objects, and the blocks and loans that stand in them.

use super::*;

#[test]
fn segments_and_objects_take_any_free_slot_below_the_limit() {
    let Limits { max_segments, max_objects, .. } = limits();
    for role in ROLES {
        let mut driver = Driver::new(role, limits());
        for number in [3, 0, max_segments - 1, 1] {
            driver.feed(&frame::segment(number, PAGE), &[number]).unwrap();
        }
        for number in [max_objects - 1, 0, 3] {
            driver.feed(&frame::object(OBJECT | number, 1, 2), &[number]).unwrap();
        }
        assert_eq!(driver.seen.len(), 7);
    }
}

#[test]
fn a_slot_is_free_again_when_what_was_in_it_was_retired() {
    for role in ROLES {
        let mut driver = Driver::new(role, limits());
        for _ in 0..3 {
            driver.segment(2);
            driver.object(5000);
            driver.retire(0);
            driver.retire(OBJECT);
        }
        driver.segment(3);
        driver.feed(&mapped(role, 0, 2, PAGE), &[]).unwrap();
    }
}

#[test]
fn a_slot_in_use_takes_nothing_else() {
    for role in ROLES {
        for number in [0, 1] {
            for announcement in [&frame::segment(number, PAGE)[..], &frame::object(OBJECT | number, 0, PAGE)]
            {
                let mut driver = Driver::new(role, limits());
                driver.segment(1);
                driver.segment(1);
                driver.object(1);
                driver.object(1);
                let violation = driver.feed(announcement, &[1]).unwrap_err();
                assert!(violation.to_string().contains("it is there already"), "{violation}");
            }
        }
    }
}

/// The upper half of the number counts too.
#[test]
fn a_number_that_no_slot_has_is_refused() {
    for role in ROLES {
        for number in [1 << 32, 1 << 32 | 1, 1 << 63, 1 << 32 | u64::from(OBJECT)] {
            let mut bytes = if number as u32 & OBJECT == 0 {
                frame::segment(0, PAGE).to_vec()
            } else {
                frame::object(OBJECT, 0, PAGE).to_vec()
            };
            bytes[8..16].copy_from_slice(&number.to_le_bytes());
            let violation = fed(role, &bytes, &[1]).unwrap_err();
            assert!(violation.to_string().contains("no slot has this number"), "{violation}");
            let mut driver = Driver::new(role, limits());
            driver.segment(1);
            driver.object(1);
            let violation = driver.feed(&raw(RETIRE, 0, number, b""), &[]).unwrap_err();
            assert!(matches!(violation, Violation::Retire(n) if n == number), "{violation}");
        }
    }
}

#[test]
fn what_was_not_announced_cannot_be_retired() {
    for role in ROLES {
        for number in [0, 1, 2, u32::MAX, OBJECT, OBJECT | 1] {
            let mut driver = Driver::new(role, limits());
            for number in [1, 2, OBJECT | 1] {
                // What shares its lower bits is something else.
                let announced = number & OBJECT != 0;
                if announced {
                    driver.feed(&frame::object(number, 0, 9), &[1])
                } else {
                    driver.feed(&frame::segment(number, PAGE), &[1])
                }
                .unwrap();
            }
            driver.retire(2);
            let result = driver.feed(&frame::retire(number), &[]);
            if [1, OBJECT | 1].contains(&number) {
                result.unwrap();
                let violation = driver.feed(&frame::retire(number), &[]).unwrap_err();
                assert!(matches!(violation, Violation::Retire(_)), "twice");
            } else {
                let violation = result.unwrap_err();
                assert!(matches!(violation, Violation::Retire(n) if n == number.into()), "{violation:?}");
            }
        }
    }
    let text = |number| refused(Role::Client, &frame::retire(number)).to_string();
    assert_eq!(text(3), "segment 3 was retired, which was not announced");
    assert_eq!(text(OBJECT | 3), "object 3 was retired, which was not announced");
}

#[test]
fn an_object_is_a_range_of_bytes_any_bytes() {
    for role in ROLES {
        for (offset, len) in [(0, 1), (1, 1), (4097, 12_345), (u64::MAX - 5, 5)] {
            let seen = fed(role, &frame::object(OBJECT | 2, offset, len), &[4]).unwrap();
            assert_eq!(seen, [Seen::Object { number: OBJECT | 2, offset, len, descriptor: Some(4) }]);
        }
        for (offset, len) in [(0, 0), (7, 0), (u64::MAX, 1), (u64::MAX - 5, 6), (1 << 63, 0)] {
            let violation = fed(role, &frame::object(OBJECT, offset, len), &[1]).unwrap_err();
            assert!(violation.to_string().contains("a range of bytes"), "{offset}, {len}: {violation}");
        }
    }
}

#[test]
fn objects_stay_within_the_limit_for_lent_bytes_together() {
    let lent = limits().lent;
    for role in ROLES {
        for len in [lent + 1, u64::MAX] {
            let violation = fed(role, &frame::object(OBJECT, 0, len), &[1]).unwrap_err();
            assert!(violation.to_string().contains("Limits::lent"), "{len}: {violation}");
        }
        for len in [1, u64::MAX, u64::MAX - lent + 1] {
            let mut driver = Driver::new(role, limits());
            driver.object(5);
            driver.object(lent - 5); // all of it
            driver.segment(limits().pool / PAGE); // of which the pool is no part
            let violation = driver.feed(&frame::object(OBJECT | 2, 0, len), &[1]).unwrap_err();
            assert!(violation.to_string().contains("Limits::lent"), "{len}: {violation}");
        }
        let mut driver = Driver::new(role, limits());
        for _ in 0..3 {
            driver.object(lent);
            driver.retire(OBJECT);
        }
    }
}

#[test]
fn objects_are_no_more_than_the_limit() {
    let max = limits().max_objects;
    for role in ROLES {
        for number in [max, max + 1, OBJECT - 1] {
            let violation = fed(role, &frame::object(OBJECT | number, 0, 1), &[1]).unwrap_err();
            assert!(violation.to_string().contains("Limits::max_objects"), "{violation}");
        }
    }
}

#[test]
fn segments_are_whole_pages_and_not_empty() {
    for role in ROLES {
        for len in [0, 1, PAGE - 1, PAGE + 1, 2 * PAGE - 1] {
            let violation = fed(role, &frame::segment(0, len), &[1]).unwrap_err();
            assert!(violation.to_string().contains("whole pages"), "{len}: {violation}");
        }
    }
}

#[test]
fn segments_stay_within_the_pool_limit_together() {
    let pool = limits().pool;
    for role in ROLES {
        for len in [pool + PAGE, 1 << 40, u64::MAX, u64::MAX - PAGE + 1] {
            let violation = fed(role, &frame::segment(0, len), &[1]).unwrap_err();
            assert!(violation.to_string().contains("Limits::pool"), "{len}: {violation}");
        }
        for len in [PAGE, u64::MAX, u64::MAX - pool + 1] {
            let mut driver = Driver::new(role, limits());
            driver.segment(1);
            driver.segment(pool / PAGE - 1); // all of it
            driver.object(1 << 20); // of which objects are no part
            let violation = driver.feed(&frame::segment(2, len), &[1]).unwrap_err();
            assert!(violation.to_string().contains("Limits::pool"), "{len}: {violation}");
        }
        let mut driver = Driver::new(role, limits());
        for _ in 0..3 {
            driver.segment(pool / PAGE);
            driver.retire(0);
        }
    }
}

#[test]
fn segments_are_no_more_than_the_limit() {
    let max = limits().max_segments;
    for role in ROLES {
        for number in [max, max + 1, OBJECT - 1] {
            let violation = fed(role, &frame::segment(number, PAGE), &[1]).unwrap_err();
            assert!(violation.to_string().contains("Limits::max_segments"), "{violation}");
        }
    }
}

#[test]
fn blocks_lie_inside_an_announced_segment() {
    for role in ROLES {
        for (segment, page, len) in [
            (0, 0, 0),
            (0, 0, 1),
            (0, 0, 2 * PAGE),
            (0, 1, PAGE),
            (0, 2, 0),
            (1, 0, PAGE),
            (1, 0, 1),
            (1, 1, 0),
        ] {
            let mut driver = Driver::new(role, limits());
            driver.segment(2);
            driver.segment(1);
            driver.feed(&mapped(role, segment, page, len), &[]).unwrap();
            let body = SeenBody::Block(BlockRef { segment, page, len });
            let loans = Vec::new();
            let expected = match role {
                Role::Client => Seen::Reply { call: 1, body, loans },
                Role::Server => Seen::Call { call: 1, method: 0, body, loans },
            };
            assert_eq!(driver.seen.last(), Some(&expected));
        }
    }
}

#[test]
fn blocks_outside_what_was_announced_are_refused() {
    for role in ROLES {
        for (segment, page, len) in [
            (0, 0, 2 * PAGE + 1),
            (0, 1, PAGE + 1),
            (0, 2, 1),
            (0, 3, 0),
            (0, u32::MAX, 0),
            (0, u32::MAX, PAGE),
            (0, 1, u64::MAX),
            (0, 0, u64::MAX),
            (0, 1, u64::MAX - PAGE + 1), // page * 4096 + len is 2^64
            (0, u32::MAX, u64::MAX - u64::from(u32::MAX) * PAGE + 1),
            (1, 0, 1),
            (1, 0, PAGE),
            (u32::MAX, 0, 1),
            (u32::MAX, u32::MAX, u64::MAX),
        ] {
            let mut driver = Driver::new(role, limits());
            driver.segment(2);
            let violation = driver.feed(&mapped(role, segment, page, len), &[]).unwrap_err();
            assert!(
                matches!(violation, Violation::Block(block) if block == BlockRef { segment, page, len }),
                "{violation:?}"
            );
        }
    }
}

/// No byte of it is outside, and yet there is no memory that it could be in.
#[test]
fn an_empty_block_of_a_segment_that_was_not_announced_is_refused() {
    for role in ROLES {
        for segment in [0, 1, u32::MAX] {
            let violation = refused(role, &mapped(role, segment, 0, 0));
            assert!(matches!(violation, Violation::Block(_)), "{violation:?}");
        }
    }
}

#[test]
fn a_block_of_a_retired_segment_is_refused() {
    for role in ROLES {
        let mut driver = Driver::new(role, limits());
        driver.segment(2);
        driver.feed(&mapped(role, 0, 0, PAGE), &[]).unwrap();
        driver.retire(0);
        let violation = driver.feed(&mapped(role, 0, 0, PAGE), &[]).unwrap_err();
        assert!(matches!(violation, Violation::Block(_)), "{violation:?}");
        // What has its number now has a size of its own.
        let mut driver = Driver::new(role, limits());
        driver.segment(2);
        driver.retire(0);
        driver.segment(1);
        let violation = driver.feed(&mapped(role, 0, 1, PAGE), &[]).unwrap_err();
        assert!(matches!(violation, Violation::Block(_)), "{violation:?}");
    }
}

#[test]
fn a_body_in_an_object_is_refused() {
    for role in ROLES {
        let mut driver = Driver::new(role, limits());
        driver.segment(2);
        driver.object(2 * PAGE);
        let violation = driver.feed(&mapped(role, OBJECT, 0, PAGE), &[]).unwrap_err();
        assert!(matches!(violation, Violation::BodyInObject(OBJECT)), "{violation:?}");
        assert_eq!(violation.to_string(), "a body in object 0, where only loans may stand");
    }
}

#[test]
fn loans_lie_inside_announced_segments_and_objects() {
    let loans = [
        block(0, 0, 2 * PAGE),
        block(0, 1, PAGE),
        block(0, 2, 0),
        block(OBJECT | 1, 0, 2 * PAGE + 5),
        block(OBJECT | 1, 2, 5),
        block(OBJECT | 1, 0, 0),
        block(0, 0, 2 * PAGE),
    ];
    for role in ROLES {
        for place in [None, Some(block(0, 1, 7))] {
            let mut driver = Driver::new(role, Limits { max_message: 100, ..limits() });
            driver.segment(2);
            driver.feed(&frame::object(OBJECT | 1, 3, 2 * PAGE + 5), &[1]).unwrap();
            let mut bytes = Vec::new();
            match role {
                Role::Server => frame::begin_call(&mut bytes, 0),
                Role::Client => frame::begin_reply(&mut bytes),
            }
            let (body, expected) = match place {
                Some(place) => (Body::Mapped(place), SeenBody::Block(place)),
                None => {
                    bytes.extend(b"body");
                    (Body::Inline, SeenBody::Inline(b"body".to_vec()))
                }
            };
            frame::seal(&mut bytes, CallId::new(1), body, &loans);
            driver.feed(&bytes, &[]).unwrap();
            let Some(Seen::Call { body, loans: seen, .. } | Seen::Reply { body, loans: seen, .. }) =
                driver.seen.pop()
            else {
                panic!("a call or reply was sent")
            };
            assert_eq!((body, &seen[..]), (expected, &loans[..]), "of more bytes than a message may have");
        }
    }
}

#[test]
fn loans_outside_what_was_announced_are_refused() {
    let inside = block(0, 0, PAGE);
    for role in ROLES {
        for outside in [
            block(0, 0, 2 * PAGE + 1),
            block(0, 2, 1),
            block(0, 1, u64::MAX - PAGE + 1), // page * 4096 + len is 2^64
            block(1, 0, 0),
            block(2, 0, 0), // retired
            block(OBJECT, 0, 5001),
            block(OBJECT, 1, 905),
            block(OBJECT, 2, 0),
            block(OBJECT, u32::MAX, u64::MAX),
            block(OBJECT | 1, 0, 0),
            block(OBJECT | 2, 0, 0), // retired
        ] {
            let mut driver = Driver::new(role, limits());
            driver.segment(2);
            driver.object(5000);
            driver.feed(&frame::segment(2, PAGE), &[2]).unwrap();
            driver.feed(&frame::object(OBJECT | 2, 0, PAGE), &[2]).unwrap();
            driver.retire(2);
            driver.retire(OBJECT | 2);
            let bytes = lending(role, b"body", &[inside, outside, inside], 3);
            let violation = driver.feed(&bytes, &[]).unwrap_err();
            assert!(matches!(violation, Violation::Block(block) if block == outside), "{violation:?}");
        }
    }
}

#[test]
fn a_table_of_loans_has_its_length_and_one_entry_at_least() {
    let loan = block(0, 0, 0);
    for role in ROLES {
        for (count, entries) in
            [(0, 0), (0, 1), (1, 0), (3, 2), (1025, 3), (1025, 1025), (u16::MAX, 3), (u16::MAX, 1025)]
        {
            let mut driver = Driver::new(role, limits());
            driver.segment(1);
            let bytes = lending(role, b"", &vec![loan; entries], count);
            let violation = driver.feed(&bytes, &[]).unwrap_err();
            assert!(
                matches!(violation, Violation::Loans { len, .. } if len == bytes.len() as u64 - 16),
                "{count} of {entries}: {violation:?}"
            );
        }
        // No room for the count.
        for len in [0, 1] {
            let violation = refused(role, &raw(bodied(role), LOANS, 1, &vec![0; len]));
            assert!(matches!(violation, Violation::Loans { .. }), "{violation:?}");
        }
        let mut driver = Driver::new(role, limits());
        driver.segment(1);
        driver.feed(&lending(role, b"body", &[loan; MAX_LOANS], MAX_LOANS as u16), &[]).unwrap();
        driver.feed(&lending(role, b"", &[loan], 1), &[]).unwrap();
        assert_eq!(driver.seen.len(), 3);
    }
}

#[test]
fn a_mapped_body_with_loans_is_one_block() {
    let loan = block(0, 0, 0);
    for role in ROLES {
        for len in [0, 15, 17, 32] {
            let mut driver = Driver::new(role, limits());
            driver.segment(1);
            let mut bytes = lending(role, &vec![0; len], &[loan], 1);
            bytes[5] |= MAPPED;
            let violation = driver.feed(&bytes, &[]).unwrap_err();
            assert!(matches!(violation, Violation::Length { .. }), "{len}: {violation:?}");
        }
        let most = BlockRef::LEN as u64 + MAX_TABLE;
        let violation = refused(role, &header(most as u32 + 1, bodied(role), MAPPED | LOANS, 0, 1));
        assert!(matches!(violation, Violation::TooLong { limit, .. } if limit == most), "{violation:?}");
    }
}

#[test]
fn a_table_of_loans_is_no_part_of_the_message_limit_nor_room_beyond_it() {
    let loan = block(0, 0, 0);
    let max_message = 100;
    for role in ROLES {
        let driver = || {
            let mut driver = Driver::new(role, Limits { max_message, ..limits() });
            driver.segment(1);
            driver
        };
        let full = [loan; MAX_LOANS];
        driver().feed(&lending(role, &[7; 100], &full, MAX_LOANS as u16), &[]).unwrap();
        for loans in [&full[..], &full[..1]] {
            let bytes = lending(role, &[7; 101], loans, loans.len() as u16);
            let violation = driver().feed(&bytes, &[]).unwrap_err();
            assert!(matches!(violation, Violation::TooLong { .. }), "{violation:?}");
        }
        let over = max_message + MAX_TABLE + 1;
        let violation = driver().feed(&header(over as u32, bodied(role), LOANS, 0, 1), &[]).unwrap_err();
        assert!(matches!(violation, Violation::TooLong { len, .. } if len == over), "{violation:?}");
    }
}

#[test]
fn an_object_is_never_returned() {
    for role in ROLES {
        let mut driver = Driver::new(role, limits());
        driver.object(5000);
        let violation = driver.feed(&frame::returned(OBJECT, 1), &[]).unwrap_err();
        assert!(matches!(violation, Violation::NotLent { segment: OBJECT, page: 1 }), "{violation:?}");
        assert_eq!(violation.to_string(), "page 1 of object 0 was returned, where nothing is lent");
    }
}

#[test]
fn a_block_over_the_message_limit_is_refused() {
    for role in ROLES {
        let mut driver = Driver::new(role, Limits { max_message: 5000, ..limits() });
        driver.segment(2);
        driver.feed(&mapped(role, 0, 0, 5000), &[]).unwrap();
        let violation = driver.feed(&mapped(role, 0, 0, 5001), &[]).unwrap_err();
        assert!(matches!(violation, Violation::TooLong { len: 5001, limit: 5000, .. }), "{violation:?}");
    }
}
