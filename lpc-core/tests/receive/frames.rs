//! The kinds of frames: who may send which, with which flags, of which length.

use super::*;

#[test]
fn each_kind_of_frame_with_a_call_goes_one_way_and_what_is_about_memory_goes_both() {
    let body = failure(1, &Error::other("oh"));
    let frames = [
        (raw(CALL, 0, 1, b"x"), Kind::Call, Role::Server),
        (raw(RELEASE, 0, 1, b""), Kind::Release, Role::Server),
        (raw(REPLY, 0, 1, b"x"), Kind::Reply, Role::Client),
        (body, Kind::Failure, Role::Client),
    ];
    for (bytes, kind, to) in frames {
        for role in ROLES {
            let result = fed(role, &bytes, &[]);
            if role == to {
                assert_eq!(result.unwrap().len(), 1, "a {kind:?} to a {role}");
            } else {
                let violation = result.unwrap_err();
                assert!(
                    matches!(violation, Violation::Direction { kind: k, role: r } if (k, r) == (kind, role)),
                    "{violation:?}"
                );
            }
        }
    }
    for role in ROLES {
        let mut driver = Driver::new(role, limits());
        driver.feed(&frame::segment(0, PAGE), &[7]).unwrap();
        driver.feed(&frame::object(OBJECT, 5, 6), &[8]).unwrap();
        for bytes in [
            frame::retire(0),
            frame::retire(OBJECT),
            frame::returned(3, u32::MAX),
            frame::resend(CallId::new(9)),
        ] {
            driver.feed(&bytes, &[]).unwrap();
        }
        let expected = [
            Seen::Segment { number: 0, len: PAGE, descriptor: Some(7) },
            Seen::Object { number: OBJECT, offset: 5, len: 6, descriptor: Some(8) },
            Seen::Retire { number: 0 },
            Seen::Retire { number: OBJECT },
            Seen::Return { segment: 3, page: u32::MAX },
            Seen::Resend { call: 9 },
        ];
        assert_eq!(driver.seen, expected);
    }
}

#[test]
fn a_wrong_direction_is_told_by_the_header_alone() {
    let wrong = [
        (Role::Client, CALL),
        (Role::Client, RELEASE),
        (Role::Client, CANCEL),
        (Role::Server, REPLY),
        (Role::Server, FAILURE),
        (Role::Server, CLOSING),
    ];
    for (role, kind) in wrong {
        let violation = refused(role, &header(1000, kind, 0, 0, 0));
        assert!(matches!(violation, Violation::Direction { .. }), "{violation:?}");
    }
}

#[test]
fn a_kind_that_no_frame_has_is_refused() {
    for role in ROLES {
        for kind in [0, 17, 18, b'H', 0x80, 0xff] {
            let violation = refused(role, &header(0, kind, 0, 0, 0));
            assert!(matches!(violation, Violation::Header(BadHeader::Kind(k)) if k == kind), "{violation:?}");
        }
    }
}

#[test]
fn a_flag_that_its_kind_does_not_have_is_refused() {
    let of = |role: Role, kind: u8| match (role, kind) {
        (_, SEGMENT) => (frame::segment(0, PAGE).to_vec(), WITHOUT),
        (_, RETIRE) => (frame::retire(0).to_vec(), 0),
        (_, RETURN) => (frame::returned(0, 0).to_vec(), 0),
        (_, RESEND) => (frame::resend(CallId::new(1)).to_vec(), 0),
        (_, AT) => (frame::at(1).to_vec(), 0),
        (Role::Client, REPLY) => (raw(REPLY, 0, 1, &[0; BlockRef::LEN]), MAPPED | LOANS),
        (Role::Client, FAILURE) => (failure(1, &Error::other("oh")), 0),
        (Role::Server, CALL) => (raw(CALL, 0, 1, &[0; BlockRef::LEN]), MAPPED | BUSY | LOANS | DEADLINE),
        (Role::Server, RELEASE | CANCEL) => (raw(kind, 0, 1, b""), 0),
        (Role::Client, CLOSING) => (frame::closing(0).to_vec(), 0),
        _ => unreachable!("no such frame goes this way"),
    };
    let kinds = [
        (Role::Client, vec![REPLY, FAILURE, SEGMENT, RETIRE, RETURN, RESEND, CLOSING, AT]),
        (Role::Server, vec![CALL, RELEASE, SEGMENT, RETIRE, RETURN, RESEND, CANCEL, AT]),
    ];
    for (role, kinds) in kinds {
        for kind in kinds {
            let (mut bytes, known) = of(role, kind);
            for flags in 0..=u8::MAX {
                if flags & !known == 0 {
                    continue;
                }
                bytes[5] = flags;
                let violation = fed(role, &bytes, &[1]).expect_err("no such flag");
                assert!(
                    matches!(violation, Violation::Header(BadHeader::Flags(f)) if f == flags),
                    "flags {flags:#x} of kind {kind}: {violation:?}"
                );
            }
        }
    }
}

#[test]
fn ends_of_calls_and_of_servers_arrive() {
    let mut server = Driver::new(Role::Server, limits());
    server.feed(&frame::cancel(CallId::new(7)), &[]).unwrap();
    assert_eq!(server.seen, [Seen::Cancel { call: 7 }]);
    let mut client = Driver::new(Role::Client, limits());
    client.feed(&frame::closing(9), &[]).unwrap();
    assert_eq!(client.seen, [Seen::Closing { taken: 9 }]);
}

#[test]
fn either_side_hears_where_the_other_runs() {
    for role in ROLES {
        let mut side = Driver::new(role, limits());
        side.feed(&frame::at(u32::MAX), &[]).unwrap();
        assert_eq!(side.seen, [Seen::At { cpu: u32::MAX.into() }]);
        assert!(fed(role, &header(1, AT, 0, 0, 0), &[]).is_err(), "an At frame has no body");
    }
}

#[test]
fn the_time_left_arrives_behind_whatever_else_a_call_has() {
    let block = block(0, 0, 3);
    for body in [Body::Inline, Body::Mapped(block)] {
        for loans in [&[][..], &[block; 2]] {
            for left in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
                let mut receiver: Receiver<()> = Receiver::new(Role::Server, limits());
                let mut call = Vec::new();
                frame::begin_call(&mut call, 3);
                call.extend_from_slice(b"abc");
                frame::seal(&mut call, CallId::new(1), body, loans);
                frame::set_time_left(&mut call, left);
                let bytes = [&frame::segment(0, PAGE)[..], &call].concat();
                receiver.space()[..bytes.len()].copy_from_slice(&bytes);
                receiver.received(bytes.len(), [()], false).unwrap();
                assert!(matches!(receiver.next(Vec::with_capacity), Ok(Some(Incoming::Segment { .. }))));
                let Ok(Some(Incoming::Call { time_left, payload, loans: seen, .. })) =
                    receiver.next(Vec::with_capacity)
                else {
                    panic!("one call was sent")
                };
                assert_eq!(time_left, Some(left.min(Duration::from_nanos(u64::MAX))));
                assert_eq!(seen, loans);
                assert_eq!(matches!(payload, Payload::Block(_)), matches!(body, Body::Mapped(_)));
            }
        }
    }
}

#[test]
fn a_call_too_short_for_its_time_left_is_refused() {
    for len in 0..8 {
        let violation = refused(Role::Server, &raw(CALL, DEADLINE, 1, &vec![0; len]));
        assert!(matches!(violation, Violation::Length { .. }), "{violation:?}");
    }
    let violation = refused(Role::Server, &raw(CALL, DEADLINE | LOANS, 1, &[0; 9]));
    assert!(matches!(violation, Violation::Loans { .. }), "{violation:?}");
    let violation = refused(Role::Server, &raw(CALL, DEADLINE | MAPPED, 1, &[0; BlockRef::LEN]));
    assert!(matches!(violation, Violation::Length { .. }), "{violation:?}");
}

#[test]
fn the_hint_that_other_calls_wait_arrives_on_either_lane() {
    for is_mapped in [false, true] {
        for flag in [0, BUSY] {
            let mut receiver: Receiver<()> = Receiver::new(Role::Server, limits());
            let block = BlockRef { segment: 0, page: 0, len: 3 }.encode();
            let flags = if is_mapped { MAPPED | flag } else { flag };
            let bytes = [&frame::segment(0, PAGE)[..], &raw(CALL, flags, 1, &block)].concat();
            receiver.space()[..bytes.len()].copy_from_slice(&bytes);
            receiver.received(bytes.len(), [()], false).unwrap();
            assert!(matches!(receiver.next(Vec::with_capacity), Ok(Some(Incoming::Segment { .. }))));
            let Ok(Some(Incoming::Call { is_busy, payload, .. })) = receiver.next(Vec::with_capacity) else {
                panic!("one call was sent")
            };
            assert_eq!(is_busy, flag == BUSY);
            assert_eq!(matches!(payload, Payload::Block(_)), is_mapped);
        }
    }
}

#[test]
fn a_body_over_the_limit_is_refused_by_its_header_alone() {
    let limit = limits().max_message;
    for role in ROLES {
        for len in [limit as u32 + 1, u32::MAX] {
            let violation = refused(role, &header(len, bodied(role), 0, 0, 1));
            let expected = u64::from(len);
            assert!(
                matches!(violation, Violation::TooLong { len, limit: l, .. } if (len, l) == (expected, limit)),
                "{violation:?}"
            );
        }
        let seen = fed(role, &raw(bodied(role), 0, 1, &vec![3; limit as usize]), &[]).unwrap();
        assert_eq!(seen.len(), 1, "the limit itself is fine");
    }
}

#[test]
fn a_failure_has_a_bound_of_its_own_whatever_the_limit_for_messages() {
    for max_message in [100, 1 << 30] {
        let mut driver = Driver::new(Role::Client, Limits { max_message, ..limits() });
        let violation = driver.feed(&header(MAX_FAILURE as u32 + 1, FAILURE, 0, 0, 1), &[]).unwrap_err();
        assert!(matches!(violation, Violation::TooLong { limit: MAX_FAILURE, .. }), "{violation:?}");
        let mut driver = Driver::new(Role::Client, Limits { max_message, ..limits() });
        driver.feed(&header(MAX_FAILURE as u32, FAILURE, 0, 0, 1), &[]).unwrap();
    }
}

#[test]
fn frames_of_fixed_length_have_no_other() {
    let is_length = |violation: &Violation, frame_kind: u8, frame_len: u32| match violation {
        Violation::Length { kind, len } | Violation::TooLong { kind, len, .. } => {
            (*kind as u8, *len) == (frame_kind, u64::from(frame_len))
        }
        _ => false,
    };
    for role in ROLES {
        let body = bodied(role);
        for (kind, flags, call, fixed) in [
            (SEGMENT, 0, 0, 8),
            (SEGMENT, 0, u64::from(OBJECT), 16),
            (RETIRE, 0, 0, 0),
            (RETURN, 0, 0, 0),
            (RESEND, 0, 0, 0),
            (body, MAPPED, 0, 16),
        ] {
            for len in [0, 1, 7, 8, 9, 15, 16, 17, 24, 4096, u32::MAX] {
                let bytes = header(len, kind, flags, 0, call);
                let mut driver = Driver::new(role, limits());
                driver.segment(1);
                let descriptors: &[u32] = if kind == SEGMENT { &[1] } else { &[] };
                match driver.feed(&bytes, descriptors) {
                    Err(violation) if len != fixed => {
                        assert!(is_length(&violation, kind, len), "{violation:?}");
                    }
                    result => assert!(result.is_ok() == (len == fixed), "{len} for {kind}: {result:?}"),
                }
            }
        }
    }
}

#[test]
fn a_release_has_no_body() {
    for len in [1, 8, u32::MAX] {
        let violation = refused(Role::Server, &header(len, RELEASE, 0, 0, 1));
        assert!(
            matches!(violation, Violation::TooLong { kind: Kind::Release, limit: 0, .. }),
            "{violation:?}"
        );
    }
}

#[test]
fn a_failure_has_to_decode_to_its_last_byte() {
    let whole = failure(9, &Error::new(ErrorKind::Panicked, "it panicked").with_progress(Progress::Ran));
    let seen = fed(Role::Client, &whole, &[]).unwrap();
    let message = "it panicked".to_owned();
    assert_eq!(
        seen,
        [Seen::Failure { call: 9, kind: ErrorKind::Panicked, progress: Progress::Ran, message }]
    );
    let body = &whole[16..];
    let mut bodies: Vec<Vec<u8>> = (0..body.len()).map(|len| body[..len].to_vec()).collect();
    bodies.push([body, b"\0"].concat()); // a byte more
    bodies.push([body, body].concat());
    bodies.push(vec![1, 2, 2, 0xc3, 0x28]); // no UTF-8
    bodies.push(vec![1, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]); // a string of 2^64 bytes
    bodies.push(vec![0xff; 100]);
    for body in bodies {
        let violation = refused(Role::Client, &raw(FAILURE, 0, 9, &body));
        assert!(matches!(violation, Violation::Failure(_)), "{violation:?} of {body:?}");
    }
}

#[test]
fn a_violation_becomes_a_protocol_error_that_says_what_it_was() {
    let error = Error::from(refused(Role::Client, &raw(CALL, 0, 1, b"")));
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert_eq!(error.to_string(), "the peer broke the protocol: a Call frame sent to a client");
}
