//! Every rule about what a peer may say, for both roles: one by one, and with streams of chance.
#![allow(clippy::unwrap_used, reason = "a test")]

use lpc_core::arena::PAGE;
use lpc_core::codec;
use lpc_core::error::{Error, ErrorKind, Progress};
use lpc_core::frame::{self, BadHeader, BlockRef, Body, CallId, Kind};
use lpc_core::limits::Limits;
use lpc_core::receiver::{Incoming, MAX_FAILURE, Payload, Receiver, Role, Violation};
use proptest::prelude::*;
use proptest::sample::Index;

const CALL: u8 = Kind::Call as u8;
const REPLY: u8 = Kind::Reply as u8;
const FAILURE: u8 = Kind::Failure as u8;
const SEGMENT: u8 = Kind::Segment as u8;
const RELEASE: u8 = Kind::Release as u8;

const MAPPED: u8 = 1;
const BUSY: u8 = 2;

const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// What the buffer has beyond twice the bytes that arrived.
const CONSTANT: usize = 64 << 10;

fn limits() -> Limits {
    Limits { max_message: 1 << 20, pool: 1 << 20, max_segments: 16 }
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

fn failure(call: u64, error: &Error) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::begin_failure(&mut bytes);
    codec::encode(&error.to_wire(), &mut bytes).expect("an error encodes");
    frame::seal(&mut bytes, CallId::new(call), Body::Inline);
    bytes
}

/// A message that was taken out of its receiver.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Call { call: u64, method: u16, body: SeenBody },
    Reply { call: u64, body: SeenBody },
    Failure { call: u64, kind: ErrorKind, progress: Progress, message: String },
    Segment { len: u64, descriptor: u32 },
    Release { call: u64 },
}

#[derive(Clone, Debug, PartialEq)]
enum SeenBody {
    Inline(Vec<u8>),
    Block(BlockRef),
}

impl From<Incoming<'_, u32>> for Seen {
    fn from(incoming: Incoming<'_, u32>) -> Self {
        match incoming {
            Incoming::Call { call, method, payload, .. } => {
                Self::Call { call: call.as_u64(), method, body: payload.into() }
            }
            Incoming::Reply { call, payload } => Self::Reply { call: call.as_u64(), body: payload.into() },
            Incoming::Failure { call, error } => Self::Failure {
                call: call.as_u64(),
                kind: error.kind(),
                progress: error.progress(),
                message: error.to_string(),
            },
            Incoming::Segment { len, descriptor } => Self::Segment { len, descriptor },
            Incoming::Release { call } => Self::Release { call: call.as_u64() },
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
    arrived: usize,
    seen: Vec<Seen>,
    segments: Vec<u64>,
}

impl Driver {
    fn new(role: Role, limits: Limits) -> Self {
        Self { receiver: Receiver::new(role, limits), arrived: 0, seen: Vec::new(), segments: Vec::new() }
    }

    /// Receives as many of `bytes` as there is space for and says how many.
    fn receive(&mut self, bytes: &[u8], descriptors: &[u32]) -> Result<usize, Violation> {
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
        self.receiver.received(len, descriptors.iter().copied())?;
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
                Seen::Segment { len, .. } => self.segments.push(*len),
                Seen::Call { body: SeenBody::Block(block), .. }
                | Seen::Reply { body: SeenBody::Block(block), .. } => {
                    let size = self.segments.get(block.segment as usize);
                    let end = u64::from(block.page).checked_mul(PAGE).unwrap().checked_add(block.len);
                    assert!(size.zip(end).is_some_and(|(size, end)| end <= *size), "{block:?} is outside");
                }
                _ => {}
            }
            self.seen.push(seen);
        }
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
        let number = self.segments.len() as u32;
        self.feed(&frame::segment(number, pages * PAGE), &[number]).unwrap();
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
    fn each_kind_of_frame_goes_one_way_and_segments_go_both() {
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
            let seen = fed(role, &frame::segment(0, PAGE), &[7]).unwrap();
            assert_eq!(seen, [Seen::Segment { len: PAGE, descriptor: 7 }]);
        }
    }

    #[test]
    fn a_wrong_direction_is_told_by_the_header_alone() {
        for (role, kind) in [(Role::Client, CALL), (Role::Server, REPLY), (Role::Server, FAILURE)] {
            let violation = refused(role, &header(1000, kind, 0, 0, 0));
            assert!(matches!(violation, Violation::Direction { .. }), "{violation:?}");
        }
    }

    #[test]
    fn a_kind_that_no_frame_has_is_refused() {
        for role in ROLES {
            for kind in [0, 6, 7, b'H', 0x80, 0xff] {
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
            (_, SEGMENT) => (frame::segment(0, PAGE).to_vec(), 0),
            (Role::Client, REPLY) => (raw(REPLY, 0, 1, &[0; BlockRef::LEN]), MAPPED),
            (Role::Client, FAILURE) => (failure(1, &Error::other("oh")), 0),
            (Role::Server, CALL) => (raw(CALL, 0, 1, &[0; BlockRef::LEN]), MAPPED | BUSY),
            (Role::Server, RELEASE) => (raw(RELEASE, 0, 1, b""), 0),
            _ => unreachable!("no such frame goes this way"),
        };
        let kinds =
            [(Role::Client, vec![REPLY, FAILURE, SEGMENT]), (Role::Server, vec![CALL, RELEASE, SEGMENT])];
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
    fn the_hint_that_other_calls_wait_arrives_on_either_lane() {
        for is_mapped in [false, true] {
            for flag in [0, BUSY] {
                let mut receiver = Receiver::new(Role::Server, limits());
                let block = BlockRef { segment: 0, page: 0, len: 3 }.encode();
                let flags = if is_mapped { MAPPED | flag } else { flag };
                let bytes = [&frame::segment(0, PAGE)[..], &raw(CALL, flags, 1, &block)].concat();
                receiver.space()[..bytes.len()].copy_from_slice(&bytes);
                receiver.received(bytes.len(), [()]).unwrap();
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
        for role in ROLES {
            for len in [0, 7, 9, 16, u32::MAX] {
                let violation = fed(role, &header(len, SEGMENT, 0, 0, 0), &[1]).unwrap_err();
                assert!(
                    matches!(
                        violation,
                        Violation::Length { kind: Kind::Segment, .. }
                            | Violation::TooLong { kind: Kind::Segment, .. }
                    ),
                    "{violation:?}"
                );
            }
            for len in [0, 1, 15, 17, 4096] {
                let violation = refused(role, &header(len, bodied(role), MAPPED, 0, 0));
                assert!(
                    matches!(violation, Violation::Length { len: l, .. } if l == u64::from(len)),
                    "{violation:?}"
                );
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
    fn segments_are_numbered_from_zero_without_gaps() {
        for role in ROLES {
            for number in [1, 2, u32::MAX] {
                let violation = fed(role, &frame::segment(number, PAGE), &[1]).unwrap_err();
                assert!(violation.to_string().contains("numbered in order"), "{violation}");
            }
            for number in [0, 1, 3] {
                let mut bytes = frame::segment(number, PAGE).to_vec();
                let mut driver = Driver::new(role, limits());
                driver.segment(1);
                driver.segment(1);
                let violation = driver.feed(&bytes, &[1]).unwrap_err();
                assert!(violation.to_string().contains("numbered in order"), "{violation}");
                // The upper half of the number counts too.
                bytes[8..16].copy_from_slice(&(1_u64 << 32 | 2).to_le_bytes());
                let mut driver = Driver::new(role, limits());
                driver.segment(1);
                driver.segment(1);
                let violation = driver.feed(&bytes, &[1]).unwrap_err();
                assert!(violation.to_string().contains("numbered in order"), "{violation}");
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
                let violation = driver.feed(&frame::segment(2, len), &[1]).unwrap_err();
                assert!(violation.to_string().contains("Limits::pool"), "{len}: {violation}");
            }
        }
    }

    #[test]
    fn segments_are_no_more_than_the_limit() {
        for role in ROLES {
            let mut driver = Driver::new(role, limits());
            for _ in 0..limits().max_segments {
                driver.segment(1);
            }
            let violation = driver.feed(&frame::segment(limits().max_segments, PAGE), &[1]).unwrap_err();
            assert!(violation.to_string().contains("Limits::max_segments"), "{violation}");
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
                let block = SeenBody::Block(BlockRef { segment, page, len });
                let expected = match role {
                    Role::Client => Seen::Reply { call: 1, body: block },
                    Role::Server => Seen::Call { call: 1, method: 0, body: block },
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
    fn a_segment_without_its_descriptor_is_refused() {
        for role in ROLES {
            let violation = refused(role, &frame::segment(0, PAGE));
            assert!(matches!(violation, Violation::MissingDescriptor), "{violation:?}");
            let mut driver = Driver::new(role, limits());
            driver.segment(1);
            let violation = driver.feed(&frame::segment(1, PAGE), &[]).unwrap_err();
            assert!(matches!(violation, Violation::MissingDescriptor), "{violation:?}");
        }
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
                assert_eq!(driver.seen, [Seen::Segment { len: PAGE, descriptor: 5 }]);
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
        let limits = Limits { max_message: u64::from(u32::MAX), ..limits() };
        for role in ROLES {
            let mut driver = Driver::new(role, limits);
            driver.feed(&header(u32::MAX, bodied(role), 0, 0, 1), &[]).unwrap();
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
    Inline { call: u64, method: u16, len: usize },
    Mapped { call: u64, method: u16, segment: Index, page: Index, len: Index },
    Failure { call: u64, text: String },
    Segment { pages: u64 },
    Release { call: u64 },
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let len =
        prop_oneof![6 => 0..200_usize, 3 => 0..5000_usize, 1 => 30_000..34_000_usize, 1 => 0..400_000_usize];
    let call = any::<u64>();
    let part = prop_oneof![
        4 => (call, any::<u16>(), len).prop_map(|(call, method, len)| Part::Inline { call, method, len }),
        2 => (call, any::<u16>(), any::<Index>(), any::<Index>(), any::<Index>()).prop_map(|(call, method, segment, page, len)| {
            Part::Mapped { call, method, segment, page, len }
        }),
        1 => (call, "[a-zäß ]{0,40}").prop_map(|(call, text)| Part::Failure { call, text }),
        2 => (1..16_u64).prop_map(|pages| Part::Segment { pages }),
        1 => call.prop_map(|call| Part::Release { call }),
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
    Limits { max_message: 1 << 20, pool: 64 << 20, max_segments: 64 }
}

impl Stream {
    fn new(role: Role, parts: Vec<Part>) -> Self {
        let mut stream = Self::default();
        let mut segments: Vec<u64> = Vec::new();
        for part in parts {
            match part {
                Part::Inline { call, method, len } => stream.body(role, call, method, len),
                Part::Mapped { call, method, segment, page, len } => {
                    if segments.is_empty() {
                        stream.body(role, call, method, 3);
                        continue;
                    }
                    let segment = segment.index(segments.len());
                    let pages = segments[segment];
                    let page = page.index(pages as usize + 1) as u64;
                    let room = (pages - page) * PAGE;
                    let len = len.index(room as usize + 1) as u64;
                    let block = BlockRef { segment: segment as u32, page: page as u32, len };
                    stream.send(role, call, method, &[], Body::Mapped(block), SeenBody::Block(block));
                }
                Part::Failure { call, text } if role == Role::Client => {
                    let error = Error::other(&text);
                    stream.bytes.extend(failure(call, &error));
                    let (kind, progress) = (error.kind(), error.progress());
                    stream.messages.push(Seen::Failure { call, kind, progress, message: text });
                }
                Part::Segment { pages } => {
                    let number = segments.len() as u32;
                    let descriptor = 1000 + number;
                    segments.push(pages);
                    stream.descriptors.push((stream.bytes.len(), descriptor));
                    stream.bytes.extend(frame::segment(number, pages * PAGE));
                    stream.messages.push(Seen::Segment { len: pages * PAGE, descriptor });
                }
                Part::Release { call } if role == Role::Server => {
                    stream.bytes.extend(frame::release(CallId::new(call)));
                    stream.messages.push(Seen::Release { call });
                }
                Part::Failure { call, .. } | Part::Release { call } => stream.body(role, call, 0, 0),
            }
        }
        stream
    }

    fn body(&mut self, role: Role, call: u64, method: u16, len: usize) {
        let bytes: Vec<u8> = (0..len).map(|at| (at as u64 ^ call) as u8).collect();
        self.send(role, call, method, &bytes, Body::Inline, SeenBody::Inline(bytes.clone()));
    }

    fn send(&mut self, role: Role, call: u64, method: u16, bytes: &[u8], body: Body, seen: SeenBody) {
        let mut frame = Vec::new();
        let message = match role {
            Role::Server => {
                frame::begin_call(&mut frame, method);
                Seen::Call { call, method, body: seen }
            }
            Role::Client => {
                frame::begin_reply(&mut frame);
                Seen::Reply { call, body: seen }
            }
        };
        frame.extend_from_slice(bytes);
        frame::seal(&mut frame, CallId::new(call), body);
        self.bytes.extend(frame);
        self.messages.push(message);
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
    let block = (0..3_u32, prop_oneof![0..4_u32, any::<u32>()], edge.clone())
        .prop_map(|(segment, page, len)| BlockRef { segment, page, len }.encode().to_vec());
    let body = prop_oneof![
        3 => block,
        2 => Just(PAGE.to_le_bytes().to_vec()),
        1 => edge.prop_map(|len| len.to_le_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..60),
        1 => Just(Vec::new()),
    ];
    let lie = prop_oneof![8 => Just(None), 1 => any::<u32>().prop_map(Some)];
    (0..7_u8, prop_oneof![0..2_u8, 0..5_u8], any::<u16>(), 0..4_u64, body, lie).prop_map(
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
        frames in proptest::collection::vec((near_frame(), 0..3_u32), 0..20),
        cut in 1..40_usize,
    ) {
        let mut driver = Driver::new(role, limits());
        let _ = frames.iter().try_for_each(|(bytes, descriptors)| {
            let descriptors: Vec<u32> = (0..*descriptors).collect();
            let (first, rest) = bytes.split_at(cut.min(bytes.len()));
            driver.feed(first, &descriptors)?;
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
        let stream = Stream::new(role, vec![Part::Inline { call, method: 0, len: 10 }]);
        let mut driver = Driver::new(other, wide());
        let violation = stream.receive(&mut driver, &[(usize::MAX, true)]).unwrap_err();
        let is_direction = matches!(violation, Violation::Direction { .. });
        prop_assert!(is_direction);
    }
}
