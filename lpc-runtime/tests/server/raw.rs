//! A client by hand.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use lpc_core::frame::{self, Body, CallId, Header, Kind};
use lpc_core::handshake::{ClientHello, Preamble};
use lpc_core::receive::Role;
use lpc_core::{Limits, codec};
use serde::Serialize;

use crate::GUARD;

/// Connects, and exchanges hellos.
pub fn connect(port: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(port).unwrap();
    stream.set_read_timeout(Some(GUARD)).unwrap();
    stream.write_all(&ClientHello::new("Desk", &Limits::default()).encode()).unwrap();
    let mut preamble = [0; Preamble::LEN];
    stream.read_exact(&mut preamble).unwrap();
    let preamble = Preamble::decode(&preamble, Role::Server).unwrap();
    stream.read_exact(&mut vec![0; preamble.len]).unwrap();
    stream
}

/// The frame of a call.
pub fn call(method: u16, id: u64, arguments: &impl Serialize) -> Vec<u8> {
    let mut call = Vec::new();
    frame::begin_call(&mut call, method);
    codec::encode(arguments, &mut call).unwrap();
    frame::mark_busy(&mut call);
    frame::seal(&mut call, CallId::new(id), Body::Inline, &[]);
    call
}

/// The next frame, with its body. Whatever descriptors come along are dropped.
pub fn next(stream: &mut impl Read) -> (Header, Vec<u8>) {
    let mut header = [0; Header::LEN];
    stream.read_exact(&mut header).unwrap();
    let header = Header::decode(&header).unwrap();
    let mut body = vec![0; header.len as usize];
    stream.read_exact(&mut body).unwrap();
    (header, body)
}

/// The next frame that answers a call.
pub fn answer(stream: &mut impl Read) -> (Header, Vec<u8>) {
    loop {
        let (header, body) = next(stream);
        if matches!(header.kind, Kind::Reply | Kind::Failure) {
            return (header, body);
        }
    }
}
