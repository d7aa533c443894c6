//! The bytes of the wire, against a file: a change there is a new version of the protocol.
//!
//! `GOLDEN=overwrite cargo test -p lpc-core --test golden` writes it anew.

#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;

use lpc_core::codec::encode;
use lpc_core::form::{Answer, Question};
use lpc_core::frame::{self, BlockRef, Body, CallId, OBJECT};
use lpc_core::handshake::{ClientHello, Offer, ServerHello};
use lpc_core::{Error, ErrorKind, Limits, Method};
use serde::Serialize;

const CALL: CallId = CallId::new(0x0102_0304_0506_0708);
const BLOCK: BlockRef = BlockRef { segment: 1, page: 2, len: 3 };
const LOAN: BlockRef = BlockRef { segment: OBJECT | 4, page: 0, len: 5 };

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let sealed = |begin: fn(&mut Vec<u8>), content: &[u8], body, loans: &[BlockRef]| {
        let mut bytes = Vec::new();
        begin(&mut bytes);
        bytes.extend_from_slice(content);
        frame::seal(&mut bytes, CALL, body, loans);
        bytes
    };
    let call: fn(&mut Vec<u8>) = |bytes| frame::begin_call(bytes, 0x0a0b);
    let mut busy = sealed(call, b"ab", Body::Inline, &[]);
    frame::mark_busy(&mut busy);
    let mut hurried = sealed(call, b"ab", Body::Inline, &[LOAN]);
    frame::set_time_left(&mut hurried, std::time::Duration::from_nanos(0x0102));
    vec![
        ("call", sealed(call, b"ab", Body::Inline, &[])),
        ("busy call", busy),
        ("call with its body in a block", sealed(call, b"", Body::Mapped(BLOCK), &[])),
        ("call with loans", sealed(call, b"ab", Body::Inline, &[BLOCK, LOAN])),
        ("reply", sealed(frame::begin_reply, b"ab", Body::Inline, &[])),
        ("failure", sealed(frame::begin_failure, b"ab", Body::Inline, &[])),
        ("segment", frame::segment(1, 4096).into()),
        ("object", frame::object(OBJECT | 1, 2, 3).into()),
        ("release", frame::release(CALL).into()),
        ("retire", frame::retire(1).into()),
        ("return", frame::returned(1, 2).into()),
        ("resend", frame::resend(CALL).into()),
        ("refuse", frame::refuse(1).into()),
        ("call with a loan and the time left", hurried),
        ("cancel", frame::cancel(CALL).into()),
        ("closing", frame::closing(7).into()),
        ("at", frame::at(3).into()),
        ("ring", frame::ring().into()),
        ("bell", frame::bell().into()),
        ("aside", frame::aside().into()),
        ("switch", frame::switch().into()),
    ]
}

fn control_messages() -> Vec<(&'static str, Vec<u8>)> {
    const METHODS: [Method; 2] = [Method::new("put"), Method::new("get")];
    let limits = Limits {
        max_message: 1,
        pool: 2,
        max_segments: 3,
        max_blocks: 4,
        max_objects: 5,
        lent: 6,
        max_calls: 7,
        max_depth: 8,
        quick_lane: true,
    };
    let offer = Offer::new("Documents", &METHODS, &limits).with_fingerprints(&[u64::MAX, 1]);
    let error = Error::new(ErrorKind::PermissionDenied, "no");
    let mut failure = Vec::new();
    error.to_wire().encode(&mut failure);
    vec![
        ("hello of a client", ClientHello::new("Documents", &limits).encode()),
        ("hello of a server", offer.encode()),
        ("refusal", ServerHello::refusal(&error).encode()),
        ("bytes of a failure", failure),
        ("question for a form", Question { method: 300 }.encode()),
        ("its answer", Answer { text: "() -> ()".into() }.encode()),
    ]
}

#[derive(Serialize)]
enum Event {
    Started,
    Moved { x: i32, y: f64 },
    Renamed(String),
}

fn values() -> Vec<(&'static str, Vec<u8>)> {
    macro_rules! values {
        ($($value:expr),* $(,)?) => {
            vec![$((stringify!($value), {
                let mut bytes = Vec::new();
                encode(&$value, &mut bytes).unwrap();
                bytes
            })),*]
        };
    }
    values![
        (true, 'ß', 1.5_f32, ()),
        (u8::MAX, u16::MAX, u64::MAX, u128::MAX),
        (-1_i8, i16::MIN, i64::MIN, -1_i128),
        ("text", String::new(), [1_u8, 2, 3], vec![4_u8, 5]),
        [Some(Some(1_u8)), Some(None), None],
        BTreeMap::from([("one", 1_u32), ("two", 300)]),
        [Event::Started, Event::Moved { x: -1, y: 0.5 }, Event::Renamed("new".into())],
        Ok::<u8, Error>(1),
        Err::<u8, Error>(Error::other("full")),
    ]
}

#[test]
fn frames_messages_and_values_are_the_bytes_of_the_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/wire.txt");
    let all = [frames(), control_messages(), values()].into_iter().flatten();
    let line = |(name, bytes): (&str, Vec<u8>)| {
        let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
        format!("{name}\n    {hex}\n")
    };
    let text = all.map(line).collect::<String>();
    if std::env::var_os("GOLDEN").is_some_and(|value| value == "overwrite") {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap());
}
