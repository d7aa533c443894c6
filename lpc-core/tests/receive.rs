//! Every rule about what a peer may say, for both roles: one by one, and with streams of chance.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::time::Duration;

use lpc_core::arena::PAGE;
use lpc_core::codec;
use lpc_core::error::{Error, ErrorKind, Progress};
use lpc_core::frame::{self, BadHeader, BlockRef, Body, CallId, Kind, MAX_LOANS, MAX_TABLE, OBJECT};
use lpc_core::limits::Limits;
use lpc_core::receive::{Incoming, MAX_FAILURE, Payload, Receiver, Role, Violation};
use proptest::prelude::*;
use proptest::sample::Index;

const CALL: u8 = Kind::Call as u8;
const REPLY: u8 = Kind::Reply as u8;
const FAILURE: u8 = Kind::Failure as u8;
const SEGMENT: u8 = Kind::Segment as u8;
const RELEASE: u8 = Kind::Release as u8;
const RETIRE: u8 = Kind::Retire as u8;
const RETURN: u8 = Kind::Return as u8;
const RESEND: u8 = Kind::Resend as u8;
const CANCEL: u8 = Kind::Cancel as u8;
const CLOSING: u8 = Kind::Closing as u8;
const AT: u8 = Kind::At as u8;

const MAPPED: u8 = 1;
const BUSY: u8 = 2;
const LOANS: u8 = 4;
const DEADLINE: u8 = 8;
const WITHOUT: u8 = 16;

const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// What the buffer has beyond twice the bytes that arrived.
const CONSTANT: usize = 64 << 10;

fn limits() -> Limits {
    Limits {
        max_message: 1 << 20,
        pool: 1 << 20,
        max_segments: 16,
        max_objects: 8,
        lent: 1 << 30,
        ..Limits::default()
    }
}

/// The kind of frame with a body that a side in this role gets.
fn bodied(role: Role) -> u8 {
    match role {
        Role::Client => REPLY,
        Role::Server => CALL,
    }
}

/// The sixteen bytes of a header, whatever they say.
fn header(len: u32, kind: u8, flags: u8, method: u16, call: u64) -> Vec<u8> {
    let mut bytes = len.to_le_bytes().to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(method.to_le_bytes());
    bytes.extend(call.to_le_bytes());
    bytes
}

/// A frame whose length is that of its body.
fn raw(kind: u8, flags: u8, call: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = header(body.len() as u32, kind, flags, 0, call);
    bytes.extend_from_slice(body);
    bytes
}

fn mapped(role: Role, segment: u32, page: u32, len: u64) -> Vec<u8> {
    raw(bodied(role), MAPPED, 1, &BlockRef { segment, page, len }.encode())
}

/// A frame with a body of its kind and a table of these loans, which says that there are so many.
fn lending(role: Role, body: &[u8], loans: &[BlockRef], count: u16) -> Vec<u8> {
    let mut bytes = body.to_vec();
    bytes.extend(loans.iter().flat_map(BlockRef::encode));
    bytes.extend(count.to_le_bytes());
    raw(bodied(role), LOANS, 1, &bytes)
}

const fn block(segment: u32, page: u32, len: u64) -> BlockRef {
    BlockRef { segment, page, len }
}

fn failure(call: u64, error: &Error) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::begin_failure(&mut bytes);
    codec::encode(&error.to_wire(), &mut bytes).expect("an error encodes");
    frame::seal(&mut bytes, CallId::new(call), Body::Inline, &[]);
    bytes
}

/// A message that was taken out of its receiver.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Call { call: u64, method: u16, body: SeenBody, loans: Vec<BlockRef> },
    Reply { call: u64, body: SeenBody, loans: Vec<BlockRef> },
    Failure { call: u64, kind: ErrorKind, progress: Progress, message: String },
    Segment { number: u32, len: u64, descriptor: Option<u32> },
    Object { number: u32, offset: u64, len: u64, descriptor: Option<u32> },
    Retire { number: u32 },
    Release { call: u64 },
    Return { segment: u32, page: u32 },
    Refuse { segment: u32 },
    Resend { call: u64 },
    Cancel { call: u64 },
    Closing { taken: u64 },
    Ring { descriptor: Option<u32> },
    Switch,
    At { cpu: u64 },
}

#[derive(Clone, Debug, PartialEq)]
enum SeenBody {
    Inline(Vec<u8>),
    Block(BlockRef),
}

impl From<Incoming<'_, u32>> for Seen {
    fn from(incoming: Incoming<'_, u32>) -> Self {
        match incoming {
            Incoming::Call { call, method, payload, loans, .. } => {
                Self::Call { call: call.as_u64(), method, body: payload.into(), loans }
            }
            Incoming::Reply { call, payload, loans } => {
                Self::Reply { call: call.as_u64(), body: payload.into(), loans }
            }
            Incoming::Failure { call, error } => Self::Failure {
                call: call.as_u64(),
                kind: error.kind(),
                progress: error.progress(),
                message: error.to_string(),
            },
            Incoming::Segment { number, len, descriptor } => Self::Segment { number, len, descriptor },
            Incoming::Object { number, offset, len, descriptor } => {
                Self::Object { number, offset, len, descriptor }
            }
            Incoming::Retire { number } => Self::Retire { number },
            Incoming::Release { call } => Self::Release { call: call.as_u64() },
            Incoming::Return { segment, page } => Self::Return { segment, page },
            Incoming::Refuse { segment } => Self::Refuse { segment },
            Incoming::Resend { call } => Self::Resend { call: call.as_u64() },
            Incoming::Cancel { call } => Self::Cancel { call: call.as_u64() },
            Incoming::Closing { taken } => Self::Closing { taken },
            Incoming::Ring { descriptor } => Self::Ring { descriptor },
            Incoming::Switch => Self::Switch,
            Incoming::At { cpu } => Self::At { cpu },
        }
    }
}

impl From<Payload<'_>> for SeenBody {
    fn from(payload: Payload<'_>) -> Self {
        match payload {
            Payload::Inline(bytes) => Self::Inline(bytes.to_vec()),
            Payload::Block(block) => Self::Block(block),
        }
    }
}

/// A driver's part, and a watch on what every receiver guarantees.
struct Driver {
    receiver: Receiver<u32>,
    limits: Limits,
    arrived: usize,
    seen: Vec<Seen>,
    /// The sizes of segments and objects, by number.
    announced: BTreeMap<u32, u64>,
}

impl Driver {
    fn new(role: Role, limits: Limits) -> Self {
        Self {
            receiver: Receiver::new(role, limits),
            limits,
            arrived: 0,
            seen: Vec::new(),
            announced: BTreeMap::new(),
        }
    }

    /// Receives as many of `bytes` as there is space for and says how many.
    fn receive(&mut self, bytes: &[u8], descriptors: &[u32]) -> Result<usize, Violation> {
        self.receive_or_lose(bytes, descriptors, false)
    }

    /// The same, where the system may have lost a descriptor.
    fn receive_or_lose(&mut self, bytes: &[u8], descriptors: &[u32], lost: bool) -> Result<usize, Violation> {
        let space = self.receiver.space();
        assert!(!space.is_empty(), "there is always space");
        assert!(
            space.len() <= 2 * self.arrived + CONSTANT,
            "{} bytes of space for {} that arrived",
            space.len(),
            self.arrived
        );
        let len = bytes.len().min(space.len());
        space[..len].copy_from_slice(&bytes[..len]);
        self.arrived += len;
        self.receiver.received(len, descriptors.iter().copied(), lost)?;
        Ok(len)
    }

    /// Takes all messages that are there.
    fn drain(&mut self) -> Result<(), Violation> {
        loop {
            let has_next = self.receiver.has_next();
            let Some(incoming) = self.receiver.next()? else {
                assert!(!has_next, "a frame is there and was not given");
                return Ok(());
            };
            assert!(has_next, "a frame was given that is not there");
            let seen = Seen::from(incoming);
            match &seen {
                Seen::Segment { number, len, .. } | Seen::Object { number, len, .. } => {
                    assert_eq!(number & OBJECT != 0, matches!(seen, Seen::Object { .. }));
                    assert!(self.announced.insert(*number, *len).is_none(), "{number} is there already");
                    let sum = |objects: bool| -> u64 {
                        let of_kind = self.announced.iter().filter(|(n, _)| (*n & OBJECT != 0) == objects);
                        of_kind.map(|(_, len)| len).sum()
                    };
                    assert!(sum(false) <= self.limits.pool && sum(true) <= self.limits.lent);
                }
                Seen::Retire { number } => assert!(self.announced.remove(number).is_some()),
                Seen::Call { body, loans, .. } | Seen::Reply { body, loans, .. } => {
                    assert!(loans.len() <= MAX_LOANS);
                    if let SeenBody::Block(block) = body {
                        assert!(block.segment & OBJECT == 0, "a body in an object");
                        assert!(block.len <= self.limits.max_message);
                        self.check(block);
                    }
                    loans.iter().for_each(|loan| self.check(loan));
                }
                _ => {}
            }
            self.seen.push(seen);
        }
    }

    fn check(&self, block: &BlockRef) {
        let size = self.announced.get(&block.segment);
        let end = u64::from(block.page).checked_mul(PAGE).unwrap().checked_add(block.len);
        assert!(size.zip(end).is_some_and(|(size, end)| end <= *size), "{block:?} is outside");
    }

    /// Receives all of `bytes`, the descriptors with the first of them, and takes the messages.
    fn feed(&mut self, mut bytes: &[u8], descriptors: &[u32]) -> Result<(), Violation> {
        let mut descriptors = descriptors;
        while !bytes.is_empty() {
            let len = self.receive(bytes, std::mem::take(&mut descriptors))?;
            bytes = &bytes[len..];
            self.drain()?;
        }
        Ok(())
    }

    /// Announces a segment of this many pages, as an honest peer does.
    fn segment(&mut self, pages: u64) {
        let number = (0..).find(|number| !self.announced.contains_key(number)).unwrap();
        self.feed(&frame::segment(number, pages * PAGE), &[number]).unwrap();
    }

    /// Announces an object of these many bytes, as an honest peer does.
    fn object(&mut self, len: u64) {
        let number = (OBJECT..).find(|number| !self.announced.contains_key(number)).unwrap();
        self.feed(&frame::object(number, 0, len), &[number]).unwrap();
    }

    fn retire(&mut self, number: u32) {
        self.feed(&frame::retire(number), &[]).unwrap();
    }
}

/// What comes of these bytes: the messages before a violation are fine too.
fn fed(role: Role, bytes: &[u8], descriptors: &[u32]) -> Result<Vec<Seen>, Violation> {
    let mut driver = Driver::new(role, limits());
    driver.feed(bytes, descriptors).map(|()| driver.seen)
}

fn refused(role: Role, bytes: &[u8]) -> Violation {
    fed(role, bytes, &[]).expect_err("the peer broke a rule")
}

mod rules {
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
                assert!(
                    matches!(violation, Violation::Header(BadHeader::Kind(k)) if k == kind),
                    "{violation:?}"
                );
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
                    let mut receiver = Receiver::new(Role::Server, limits());
                    let mut call = Vec::new();
                    frame::begin_call(&mut call, 3);
                    call.extend_from_slice(b"abc");
                    frame::seal(&mut call, CallId::new(1), body, loans);
                    frame::set_time_left(&mut call, left);
                    let bytes = [&frame::segment(0, PAGE)[..], &call].concat();
                    receiver.space()[..bytes.len()].copy_from_slice(&bytes);
                    receiver.received(bytes.len(), [()], false).unwrap();
                    assert!(matches!(receiver.next(), Ok(Some(Incoming::Segment { .. }))));
                    let Ok(Some(Incoming::Call { time_left, payload, loans: seen, .. })) = receiver.next()
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
                let mut receiver = Receiver::new(Role::Server, limits());
                let block = BlockRef { segment: 0, page: 0, len: 3 }.encode();
                let flags = if is_mapped { MAPPED | flag } else { flag };
                let bytes = [&frame::segment(0, PAGE)[..], &raw(CALL, flags, 1, &block)].concat();
                receiver.space()[..bytes.len()].copy_from_slice(&bytes);
                receiver.received(bytes.len(), [()], false).unwrap();
                assert!(matches!(receiver.next(), Ok(Some(Incoming::Segment { .. }))));
                let Ok(Some(Incoming::Call { is_busy, payload, .. })) = receiver.next() else {
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
                for announcement in
                    [&frame::segment(number, PAGE)[..], &frame::object(OBJECT | number, 0, PAGE)]
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
                assert_eq!(
                    (body, &seen[..]),
                    (expected, &loans[..]),
                    "of more bytes than a message may have"
                );
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
                        Seen::Segment { descriptor, .. } | Seen::Object { descriptor, .. } => {
                            Some(*descriptor)
                        }
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
                        Seen::Segment { descriptor, .. } | Seen::Object { descriptor, .. } => {
                            Some(*descriptor)
                        }
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
            let cases: [(&[u8], &[u32]); 4] = [
                (&whole, &[]),
                (&whole[..18], &[]),
                (&segment, &[1]),
                (&[&segment[..], &whole].concat(), &[1]),
            ];
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
            let result =
                bytes.iter().enumerate().try_for_each(|(at, byte)| driver.feed(&[*byte], &[at as u32]));
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

    #[test]
    fn a_connection_may_end_between_frames_and_nowhere_else() {
        for role in ROLES {
            let bytes = raw(bodied(role), 0, 1, b"body");
            let mut driver = Driver::new(role, limits());
            assert!(driver.receiver.is_drained());
            for byte in &bytes[..bytes.len() - 1] {
                driver.feed(&[*byte], &[]).unwrap();
                assert!(!driver.receiver.is_drained() && !driver.receiver.has_next());
            }
            driver.feed(&bytes[bytes.len() - 1..], &[]).unwrap();
            assert!(driver.receiver.is_drained());
            assert_eq!(driver.seen.len(), 1);
        }
    }

    #[test]
    fn what_is_announced_takes_no_memory_until_it_arrives() {
        for (role, flags) in ROLES.into_iter().flat_map(|role| [(role, 0), (role, LOANS)]) {
            let mut driver = Driver::new(role, Limits { max_message: u64::MAX, ..limits() });
            driver.feed(&header(u32::MAX, bodied(role), flags, 0, 1), &[]).unwrap();
            assert!(driver.receiver.space().len() <= CONSTANT);
            // `feed` checks it for each of these.
            for _ in 0..200 {
                driver.feed(&[7; 10_000], &[]).unwrap();
            }
            assert!(driver.seen.is_empty());
        }
    }

    #[test]
    fn the_memory_of_a_large_frame_is_given_back() {
        for role in ROLES {
            let mut driver = Driver::new(role, limits());
            driver.feed(&raw(bodied(role), 0, 1, &vec![1; 1 << 20]), &[]).unwrap();
            assert_eq!(driver.seen.len(), 1);
            assert!(driver.receiver.space().len() <= CONSTANT);
            driver.feed(&raw(bodied(role), 0, 2, b"next"), &[]).unwrap();
            assert_eq!(driver.seen.len(), 2);
        }
    }

    #[test]
    fn a_violation_becomes_a_protocol_error_that_says_what_it_was() {
        let error = Error::from(refused(Role::Client, &raw(CALL, 0, 1, b"")));
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert_eq!(error.to_string(), "the peer broke the protocol: a Call frame sent to a client");
    }
}

/// One frame of a valid stream.
#[derive(Clone, Debug)]
enum Part {
    Inline { call: u64, method: u16, len: usize, loans: Vec<Place> },
    Mapped { call: u64, method: u16, place: Place, loans: Vec<Place> },
    Failure { call: u64, text: String },
    Segment { slot: Index, pages: u64 },
    Object { slot: Index, offset: u64, len: u64 },
    Retire { which: Index },
    Release { call: u64 },
    Return { segment: u32, page: u32 },
    Resend { call: u64 },
    Cancel { call: u64 },
}

/// A block in what was announced until then.
#[derive(Clone, Debug)]
struct Place {
    which: Index,
    page: Index,
    len: Index,
}

impl Place {
    /// The block that this comes to among these, if there are any.
    fn among(&self, announced: &[(u32, u64)]) -> Option<BlockRef> {
        let (segment, size) = *announced.get(self.which.index(announced.len().max(1)))?;
        let page = self.page.index((size / PAGE) as usize + 1) as u64;
        let len = self.len.index((size - page * PAGE) as usize + 1) as u64;
        Some(BlockRef { segment, page: page as u32, len })
    }
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let len =
        prop_oneof![6 => 0..200_usize, 3 => 0..5000_usize, 1 => 30_000..34_000_usize, 1 => 0..400_000_usize];
    let call = any::<u64>();
    let place = (any::<Index>(), any::<Index>(), any::<Index>()).prop_map(|(which, page, len)| Place {
        which,
        page,
        len,
    });
    let loans = prop_oneof![2 => Just(Vec::new()), 1 => proptest::collection::vec(place.clone(), 1..5)];
    let part = prop_oneof![
        4 => (call, any::<u16>(), len, loans.clone())
            .prop_map(|(call, method, len, loans)| Part::Inline { call, method, len, loans }),
        2 => (call, any::<u16>(), place, loans)
            .prop_map(|(call, method, place, loans)| Part::Mapped { call, method, place, loans }),
        1 => (call, "[a-zäß ]{0,40}").prop_map(|(call, text)| Part::Failure { call, text }),
        2 => (any::<Index>(), 1..16_u64).prop_map(|(slot, pages)| Part::Segment { slot, pages }),
        1 => (any::<Index>(), any::<u32>(), 1..100_000_u64)
            .prop_map(|(slot, offset, len)| Part::Object { slot, offset: offset.into(), len }),
        1 => any::<Index>().prop_map(|which| Part::Retire { which }),
        1 => call.prop_map(|call| Part::Release { call }),
        1 => (0..OBJECT, any::<u32>()).prop_map(|(segment, page)| Part::Return { segment, page }),
        1 => call.prop_map(|call| Part::Resend { call }),
        1 => call.prop_map(|call| Part::Cancel { call }),
    ];
    proptest::collection::vec(part, 0..24)
}

/// What a peer of a side in some role sends: its bytes, and the descriptors with the places where they belong.
#[derive(Clone, Debug, Default)]
struct Stream {
    bytes: Vec<u8>,
    descriptors: Vec<(usize, u32)>,
    messages: Vec<Seen>,
}

/// The limits of random streams: wide enough for all that [`parts`] makes.
fn wide() -> Limits {
    Limits { max_message: 1 << 20, pool: 64 << 20, ..Limits::default() }
}

impl Stream {
    fn new(role: Role, parts: Vec<Part>) -> Self {
        let mut stream = Self::default();
        let mut announced: Vec<(u32, u64)> = Vec::new();
        for part in parts {
            let free_slot = |slot: Index, first: u32| {
                let is_free = |number: &u32| announced.iter().all(|(other, _)| other != number);
                let free: Vec<u32> = (first..first + 64).filter(is_free).collect();
                *slot.get(&free)
            };
            let loans_of = |loans: &[Place]| -> Vec<BlockRef> {
                loans.iter().filter_map(|place| place.among(&announced)).collect()
            };
            match part {
                Part::Inline { call, method, len, loans } => {
                    stream.body(role, call, method, len, loans_of(&loans));
                }
                Part::Mapped { call, method, place, loans } => {
                    let segments: Vec<_> =
                        announced.iter().copied().filter(|(number, _)| number & OBJECT == 0).collect();
                    let loans = loans_of(&loans);
                    match place.among(&segments) {
                        Some(block) => {
                            let seen = SeenBody::Block(block);
                            stream.send(role, call, method, &[], Body::Mapped(block), seen, loans);
                        }
                        None => stream.body(role, call, method, 3, loans),
                    }
                }
                Part::Failure { call, text } if role == Role::Client => {
                    let error = Error::other(&text);
                    stream.bytes.extend(failure(call, &error));
                    let (kind, progress) = (error.kind(), error.progress());
                    stream.messages.push(Seen::Failure { call, kind, progress, message: text });
                }
                Part::Segment { slot, pages } => {
                    let (number, len) = (free_slot(slot, 0), pages * PAGE);
                    let descriptor = stream.descriptor();
                    announced.push((number, len));
                    stream.bytes.extend(frame::segment(number, len));
                    stream.messages.push(Seen::Segment { number, len, descriptor: Some(descriptor) });
                }
                Part::Object { slot, offset, len } => {
                    let number = free_slot(slot, OBJECT);
                    let descriptor = Some(stream.descriptor());
                    announced.push((number, len));
                    stream.bytes.extend(frame::object(number, offset, len));
                    stream.messages.push(Seen::Object { number, offset, len, descriptor });
                }
                Part::Retire { which } if !announced.is_empty() => {
                    let (number, _) = announced.swap_remove(which.index(announced.len()));
                    stream.bytes.extend(frame::retire(number));
                    stream.messages.push(Seen::Retire { number });
                }
                Part::Retire { .. } => {}
                Part::Release { call } if role == Role::Server => {
                    stream.bytes.extend(frame::release(CallId::new(call)));
                    stream.messages.push(Seen::Release { call });
                }
                Part::Return { segment, page } => {
                    stream.bytes.extend(frame::returned(segment, page));
                    stream.messages.push(Seen::Return { segment, page });
                }
                Part::Resend { call } => {
                    stream.bytes.extend(frame::resend(CallId::new(call)));
                    stream.messages.push(Seen::Resend { call });
                }
                Part::Cancel { call } if role == Role::Server => {
                    stream.bytes.extend(frame::cancel(CallId::new(call)));
                    stream.messages.push(Seen::Cancel { call });
                }
                Part::Failure { call, .. } | Part::Release { call } | Part::Cancel { call } => {
                    stream.body(role, call, 0, 0, Vec::new());
                }
            }
        }
        stream
    }

    /// A descriptor for the frame that comes next.
    fn descriptor(&mut self) -> u32 {
        let descriptor = 1000 + self.descriptors.len() as u32;
        self.descriptors.push((self.bytes.len(), descriptor));
        descriptor
    }

    fn body(&mut self, role: Role, call: u64, method: u16, len: usize, loans: Vec<BlockRef>) {
        let bytes: Vec<u8> = (0..len).map(|at| (at as u64 ^ call) as u8).collect();
        self.send(role, call, method, &bytes, Body::Inline, SeenBody::Inline(bytes.clone()), loans);
    }

    #[expect(clippy::too_many_arguments, reason = "a frame has so many parts")]
    fn send(
        &mut self,
        role: Role,
        call: u64,
        method: u16,
        bytes: &[u8],
        place: Body,
        body: SeenBody,
        loans: Vec<BlockRef>,
    ) {
        let mut frame = Vec::new();
        match role {
            Role::Server => frame::begin_call(&mut frame, method),
            Role::Client => frame::begin_reply(&mut frame),
        }
        frame.extend_from_slice(bytes);
        frame::seal(&mut frame, CallId::new(call), place, &loans);
        self.bytes.extend(frame);
        self.messages.push(match role {
            Role::Server => Seen::Call { call, method, body, loans },
            Role::Client => Seen::Reply { call, body, loans },
        });
    }

    /// Receives the stream in pieces of these lengths, over and over, as the kernel would give them: a descriptor
    /// comes with the piece that has its byte, and a piece never goes on beyond what was sent with a descriptor.
    /// Where a piece says so, the messages are not taken before the next one.
    fn receive(&self, driver: &mut Driver, pieces: &[(usize, bool)]) -> Result<(), Violation> {
        let mut pieces = pieces.iter().cycle();
        let mut at = 0;
        let mut untaken = 0;
        while at < self.bytes.len() {
            let (len, takes) = *pieces.next().expect("there is a piece");
            let mut ahead =
                self.descriptors.iter().filter(|(place, _)| *place >= at).map(|(place, _)| *place);
            let own = ahead.next().filter(|place| *place < at.saturating_add(len));
            let end = match own {
                // Sent in one go with all that follows, up to the next that has a descriptor.
                Some(_) => ahead.next().unwrap_or(self.bytes.len()),
                None => self.bytes.len(),
            };
            let end = end.min(at.saturating_add(len));
            let room = driver.receiver.space().len();
            let end = end.min(at + room);
            let descriptors: Vec<u32> = self
                .descriptors
                .iter()
                .filter(|(place, _)| (at..end).contains(place))
                .map(|(_, number)| *number)
                .collect();
            untaken += descriptors.len();
            let received = driver.receive(&self.bytes[at..end], &descriptors)?;
            assert_eq!(received, end - at);
            at = end;
            if takes || untaken > 8 {
                driver.drain()?;
                untaken = 0;
            }
        }
        driver.drain()
    }
}

fn pieces() -> impl Strategy<Value = Vec<(usize, bool)>> {
    let len = prop_oneof![1..40_usize, 1..5000_usize, 1..100_000_usize];
    proptest::collection::vec((len, prop::bool::weighted(0.8)), 1..20)
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Client), Just(Role::Server)]
}

/// Frames that are nearly ones: fields from the edges of their ranges, bodies that fit or do not.
fn near_frame() -> impl Strategy<Value = Vec<u8>> {
    let edge = prop_oneof![0..4_u64, Just(PAGE), Just(u64::MAX), Just(1 << 20), any::<u64>()];
    let number = prop_oneof![4 => 0..3_u32, 1 => OBJECT..OBJECT + 3];
    let block = (number.clone(), prop_oneof![0..4_u32, any::<u32>()], edge.clone())
        .prop_map(|(segment, page, len)| BlockRef { segment, page, len }.encode().to_vec());
    let body = prop_oneof![
        3 => block.clone(),
        2 => Just(PAGE.to_le_bytes().to_vec()),
        2 => Just([0, PAGE].map(u64::to_le_bytes).concat()),
        1 => edge.prop_map(|len| len.to_le_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..60),
        1 => Just(Vec::new()),
    ];
    let table = (proptest::collection::vec(block, 0..4), prop_oneof![3 => 0..4_u16, 1 => any::<u16>()])
        .prop_map(|(blocks, count)| [blocks.concat(), count.to_le_bytes().to_vec()].concat());
    let body = prop_oneof![
        3 => body.clone(),
        2 => (body, table).prop_map(|(body, table)| [body, table].concat()),
    ];
    let lie = prop_oneof![8 => Just(None), 1 => any::<u32>().prop_map(Some)];
    let call = prop_oneof![3 => number.prop_map(u64::from), 1 => any::<u64>()];
    (0..10_u8, prop_oneof![0..8_u8, 0..16_u8], any::<u16>(), call, body, lie).prop_map(
        |(kind, flags, method, call, body, lie)| {
            let mut bytes = header(lie.unwrap_or(body.len() as u32), kind, flags, method, call);
            bytes.extend(body);
            bytes
        },
    )
}

proptest! {
    #[test]
    fn a_stream_means_the_same_in_whatever_pieces_it_arrives(
        role in role(),
        parts in parts(),
        pieces in pieces(),
    ) {
        let stream = Stream::new(role, parts);
        for pieces in [&[(usize::MAX, true)][..], &pieces] {
            let mut driver = Driver::new(role, wide());
            stream.receive(&mut driver, pieces).unwrap();
            prop_assert_eq!(&driver.seen, &stream.messages);
            prop_assert!(driver.receiver.is_drained() && !driver.receiver.has_next());
        }
    }

    #[test]
    fn random_bytes_are_refused_or_waited_for(
        role in role(),
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        descriptors in proptest::collection::vec(any::<u32>(), 0..20),
    ) {
        let mut driver = Driver::new(role, limits());
        let _ = driver.feed(&bytes, &descriptors);
    }

    #[test]
    fn frames_that_are_nearly_ones_never_panic(
        role in role(),
        frames in proptest::collection::vec((near_frame(), 0..3_u32, any::<bool>()), 0..20),
        cut in 1..40_usize,
    ) {
        let mut driver = Driver::new(role, limits());
        let _ = frames.iter().try_for_each(|(bytes, descriptors, lost)| {
            let descriptors: Vec<u32> = (0..*descriptors).collect();
            let (first, rest) = bytes.split_at(cut.min(bytes.len()));
            driver.receive_or_lose(first, &descriptors, *lost)?;
            driver.drain()?;
            driver.feed(rest, &[])
        });
    }

    #[test]
    fn a_damaged_stream_never_panics(
        role in role(),
        parts in parts(),
        pieces in pieces(),
        damages in proptest::collection::vec((any::<Index>(), any::<u8>(), 0..4_u8), 1..8),
    ) {
        let mut stream = Stream::new(role, parts);
        for (at, byte, how) in damages {
            if stream.bytes.is_empty() {
                break;
            }
            let at = at.index(stream.bytes.len());
            match how {
                0 => stream.bytes[at] = byte,
                1 => stream.bytes[at] ^= 1 << (byte % 8),
                2 => stream.bytes.insert(at, byte),
                _ => drop(stream.bytes.remove(at)),
            }
        }
        let mut driver = Driver::new(role, limits());
        let _ = stream.receive(&mut driver, &pieces);
    }

    #[test]
    fn a_stream_to_the_other_role_is_refused_at_its_first_body(role in role(), call in any::<u64>()) {
        let other = if role == Role::Client { Role::Server } else { Role::Client };
        let stream = Stream::new(role, vec![Part::Inline { call, method: 0, len: 10, loans: Vec::new() }]);
        let mut driver = Driver::new(other, wide());
        let violation = stream.receive(&mut driver, &[(usize::MAX, true)]).unwrap_err();
        let is_direction = matches!(violation, Violation::Direction { .. });
        prop_assert!(is_direction);
    }
}

mod quick_lane {
    use super::*;
    use lpc_core::receive::Source;
    use lpc_core::ring::MAX_FRAME;

    /// A side whose peer sends through a ring, which it has mapped.
    fn receiver(role: Role) -> Receiver<u32> {
        let mut receiver = Receiver::new(role, Limits { quick_lane: true, ..limits() });
        through_socket(&mut receiver, &frame::ring(), &[7]);
        assert!(matches!(receiver.next(), Ok(Some(Incoming::Ring { descriptor: Some(7) }))));
        receiver.ring_is_mapped();
        receiver
    }

    /// The same, where the peer goes on in the ring.
    fn switched(role: Role) -> Receiver<u32> {
        let mut receiver = receiver(role);
        through_socket(&mut receiver, &frame::switch(), &[]);
        assert!(matches!(receiver.next(), Ok(Some(Incoming::Switch))));
        assert_eq!(receiver.source(), Source::Ring);
        receiver
    }

    fn through_socket(receiver: &mut Receiver<u32>, bytes: &[u8], descriptors: &[u32]) {
        receiver.space()[..bytes.len()].copy_from_slice(bytes);
        receiver.received(bytes.len(), descriptors.iter().copied(), false).unwrap();
    }

    fn through_ring(receiver: &mut Receiver<u32>, frame: &[u8]) {
        receiver.ring_space()[..frame.len()].copy_from_slice(frame);
        receiver.received_in_ring(frame.len());
    }

    #[test]
    fn a_descriptor_with_a_bell_is_a_stray_one() {
        let mut receiver = switched(Role::Server);
        through_socket(&mut receiver, &frame::bell(), &[9]);
        assert!(matches!(receiver.next(), Err(Violation::StrayDescriptors)));
    }

    /// The CPU of the next frame, which is an At.
    fn at(receiver: &mut Receiver<u32>) -> Option<u64> {
        match receiver.next().unwrap()? {
            Incoming::At { cpu } => Some(cpu),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn frames_come_in_the_order_in_which_they_were_sent_whichever_way_they_take() {
        for role in ROLES {
            let mut receiver = switched(role);
            for frame in [frame::at(1), frame::aside(), frame::at(3), frame::switch()] {
                through_ring(&mut receiver, &frame);
            }
            let later = [frame::bell(), frame::at(2), frame::at(4), frame::bell(), frame::switch()].concat();
            through_socket(&mut receiver, &later, &[]);
            for cpu in 1..=4 {
                assert!(!receiver.is_drained());
                assert_eq!(at(&mut receiver), Some(cpu));
            }
            assert!(matches!(receiver.next(), Ok(Some(Incoming::Switch))));
            assert_eq!(at(&mut receiver), None);
            through_ring(&mut receiver, &frame::at(5));
            assert_eq!(at(&mut receiver), Some(5));
            assert!(receiver.is_drained());
        }
    }

    #[test]
    fn a_frame_that_was_announced_is_waited_for() {
        let mut receiver = switched(Role::Client);
        through_ring(&mut receiver, &frame::aside());
        through_ring(&mut receiver, &frame::at(2));
        assert_eq!(at(&mut receiver), None);
        assert_eq!(receiver.source(), Source::Aside);
        assert!(receiver.is_between_frames() && !receiver.has_next() && !receiver.is_drained());
        let segment = frame::segment(0, PAGE);
        through_socket(&mut receiver, &segment[..20], &[9]);
        assert_eq!(at(&mut receiver), None);
        through_socket(&mut receiver, &segment[20..], &[]);
        let next = receiver.next().unwrap();
        assert!(matches!(next, Some(Incoming::Segment { number: 0, descriptor: Some(9), .. })), "{next:?}");
        assert_eq!(at(&mut receiver), Some(2));
    }

    #[test]
    fn bells_mean_nothing() {
        let mut receiver = switched(Role::Server);
        through_socket(&mut receiver, &frame::bell().repeat(3), &[]);
        assert_eq!(at(&mut receiver), None);
        assert!(receiver.is_drained());
        receiver.check_turn().unwrap();
    }

    #[test]
    fn there_is_space_for_any_frame_of_a_ring() {
        let mut receiver = switched(Role::Server);
        for _ in 0..3 {
            assert!(receiver.ring_space().len() >= MAX_FRAME);
            let call = raw(CALL, 0, 1, &[7; MAX_FRAME - 16]);
            through_ring(&mut receiver, &call);
            assert!(matches!(receiver.next(), Ok(Some(Incoming::Call { .. }))));
        }
    }

    #[test]
    fn a_frame_through_the_socket_while_the_ring_is_read_is_found_out() {
        let mut receiver = switched(Role::Server);
        through_socket(&mut receiver, &frame::bell(), &[]);
        through_socket(&mut receiver, &frame::at(1), &[]);
        assert!(matches!(receiver.check_turn(), Err(Violation::Quick(Kind::At, _))));
    }

    #[test]
    fn frames_where_they_do_not_belong_are_refused() {
        let in_socket = |mut receiver: Receiver<u32>, bytes: &[u8], descriptors: &[u32]| {
            through_socket(&mut receiver, bytes, descriptors);
            receiver.next().map(|_| ()).unwrap_err().to_string()
        };
        let in_ring = |frames: &[&[u8]]| {
            let mut receiver = switched(Role::Server);
            frames.iter().for_each(|frame| through_ring(&mut receiver, frame));
            receiver.next().map(|_| ()).unwrap_err().to_string()
        };
        let off = || Receiver::new(Role::Server, limits());
        let on = || Receiver::new(Role::Server, Limits { quick_lane: true, ..limits() });
        assert!(in_socket(off(), &frame::ring(), &[1]).contains("nobody asked for"));
        for frame in [frame::bell(), frame::switch()] {
            assert!(in_socket(on(), &frame, &[]).contains("without a ring"));
        }
        assert!(in_socket(receiver(Role::Server), &frame::ring(), &[1]).contains("a second time"));
        assert!(in_socket(receiver(Role::Server), &frame::aside(), &[]).contains("in the socket"));
        assert!(in_socket(on(), &frame::ring(), &[]).contains("without its descriptor"));
        for frame in [&frame::bell()[..], &frame::ring(), &frame::segment(0, PAGE)] {
            assert!(in_ring(&[frame]).contains("in the ring"));
        }
        let mut receiver = switched(Role::Server);
        through_ring(&mut receiver, &frame::aside());
        assert!(in_socket(receiver, &frame::switch(), &[]).contains("where one frame was to come"));
    }
}
