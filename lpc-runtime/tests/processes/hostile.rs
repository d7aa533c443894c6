//! A peer that speaks the protocol by hand.

use std::ffi::CStr;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use lpc_core::frame::{self, BlockRef, Body, CallId, Header, Kind};
use lpc_core::handshake::{Hello, Preamble};
use lpc_core::receiver::Role;
use lpc_core::{Limits, codec};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::Serialize;

use crate::process::GUARD;

/// The seals that a segment must have.
pub fn segment_seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_FUTURE_WRITE | SealFlag::F_SEAL_SEAL
}

/// The seals of memory that nobody can write to.
pub fn frozen_seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL
}

/// It is found in `/proc/PID/maps` as lpc's own is.
const NAME: &CStr = c"lpc";

/// A memfd of zeroes.
pub fn memfd(len: u64) -> OwnedFd {
    let file = memfd_create(NAME, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
    nix::unistd::ftruncate(&file, len as i64).unwrap();
    file
}

/// A memfd that begins with these bytes.
pub fn memfd_of(bytes: &[u8], len: u64, seals: SealFlag) -> OwnedFd {
    let file = memfd(len);
    assert_eq!(nix::unistd::write(&file, bytes).unwrap(), bytes.len());
    seal(&file, seals);
    file
}

pub fn seal(file: &OwnedFd, seals: SealFlag) {
    fcntl(file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
}

pub fn encoded(value: &(impl Serialize + ?Sized)) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode(value, &mut bytes).unwrap();
    bytes
}

/// What an argument encodes as that is a loan: this one.
pub fn loan(index: u8) -> [u8; 2] {
    [1, index]
}

/// A place that begins with a segment's or object's first page.
pub const fn at_start(number: u32, len: u64) -> BlockRef {
    BlockRef { segment: number, page: 0, len }
}

pub const MIB: u64 = 1 << 20;

/// A client of a vault.
#[derive(Debug)]
pub struct Peer {
    stream: UnixStream,
    methods: Vec<String>,
    next: u64,
    /// The segments that the server announced, to be looked at by nobody.
    pub seen: usize,
}

/// What came of a call. Its fields are for the messages of tests that fail.
#[expect(dead_code, reason = "read in messages alone")]
#[derive(Debug)]
pub enum Answer {
    /// The result, or where it is, without the table of loans; and the loans.
    Reply {
        call: u64,
        is_mapped: bool,
        body: Vec<u8>,
        loans: Vec<BlockRef>,
    },
    Failure {
        call: u64,
        text: String,
    },
    Resend {
        call: u64,
    },
    HungUp,
}

impl Answer {
    /// A result that came through the socket, without its `Ok`.
    #[track_caller]
    pub fn result(self) -> Vec<u8> {
        match self {
            Self::Reply { is_mapped: false, body, .. } => {
                assert_eq!(body[0], 0, "an `Ok`");
                body[1..].to_vec()
            }
            other => panic!("{other:?}"),
        }
    }
}

impl Peer {
    pub fn connect(port: &str) -> Self {
        Self::connect_with(port, &Limits::default())
    }

    /// One that says that these are its limits.
    pub fn connect_with(port: &str, limits: &Limits) -> Self {
        let mut stream = UnixStream::connect(port).unwrap();
        stream.set_read_timeout(Some(GUARD)).unwrap();
        stream.set_write_timeout(Some(GUARD)).unwrap();
        stream.write_all(&Hello::client("Vault", limits).encode(Role::Client)).unwrap();
        let mut preamble = [0; Preamble::LEN];
        stream.read_exact(&mut preamble).unwrap();
        let preamble = Preamble::decode(&preamble, Role::Server).unwrap();
        let mut hello = vec![0; preamble.len];
        stream.read_exact(&mut hello).unwrap();
        Self { stream, methods: Hello::decode(&hello).unwrap().methods, next: 1, seen: 0 }
    }

    pub fn method(&self, name: &str) -> u16 {
        self.methods.iter().position(|method| method == name).unwrap() as u16
    }

    /// Sends bytes as they are. The server may have hung up already.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends bytes, unless that takes longer.
    pub fn send_for(&mut self, bytes: &[u8], limit: std::time::Duration) -> bool {
        self.stream.set_write_timeout(Some(limit)).unwrap();
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends bytes, and a descriptor with the first.
    pub fn send_with(&mut self, bytes: &[u8], descriptor: impl AsFd) {
        let descriptors = [descriptor.as_fd().as_raw_fd()];
        let control = [ControlMessage::ScmRights(&descriptors)];
        let socket = self.stream.as_raw_fd();
        let _ = sendmsg::<()>(socket, &[IoSlice::new(bytes)], &control, MsgFlags::MSG_NOSIGNAL, None);
    }

    pub fn segment(&mut self, number: u32, len: u64, file: impl AsFd) {
        self.send_with(&frame::segment(number, len), file);
    }

    pub fn object(&mut self, number: u32, offset: u64, len: u64, file: impl AsFd) {
        self.send_with(&frame::object(frame::OBJECT | number, offset, len), file);
    }

    /// The frame of a call.
    pub fn frame(
        &mut self,
        method: &str,
        body: &[u8],
        block: Option<BlockRef>,
        loans: &[BlockRef],
    ) -> Vec<u8> {
        let mut call = Vec::new();
        frame::begin_call(&mut call, self.method(method));
        call.extend_from_slice(body);
        frame::seal(&mut call, CallId::new(self.next), block.map_or(Body::Inline, Body::Mapped), loans);
        self.next += 1;
        call
    }

    /// A call with its arguments in the frame; its id.
    pub fn call(&mut self, method: &str, arguments: &[u8], loans: &[BlockRef]) -> u64 {
        let frame = self.frame(method, arguments, None, loans);
        self.send(&frame);
        self.next - 1
    }

    /// A call with its arguments in a block; its id.
    pub fn call_in_block(&mut self, method: &str, block: BlockRef, loans: &[BlockRef]) -> u64 {
        let frame = self.frame(method, &[], Some(block), loans);
        self.send(&frame);
        self.next - 1
    }

    /// The next answer. Segments of the server are passed over, their descriptors not received.
    pub fn answer(&mut self) -> Answer {
        loop {
            let mut header = [0; Header::LEN];
            if let Err(error) = self.stream.read_exact(&mut header) {
                assert!(error.kind() != std::io::ErrorKind::WouldBlock, "the server says nothing");
                return Answer::HungUp;
            }
            let header = Header::decode(&header).unwrap();
            let mut body = vec![0; header.len as usize];
            if self.stream.read_exact(&mut body).is_err() {
                return Answer::HungUp;
            }
            let call = header.call.as_u64();
            match header.kind {
                Kind::Reply => {
                    let loans = if header.has_loans { split_table(&mut body) } else { Vec::new() };
                    return Answer::Reply { call, is_mapped: header.is_mapped, body, loans };
                }
                Kind::Failure => {
                    return Answer::Failure { call, text: String::from_utf8_lossy(&body).into_owned() };
                }
                Kind::Resend => return Answer::Resend { call },
                Kind::Segment => self.seen += 1,
                Kind::Retire | Kind::Return | Kind::Refuse | Kind::Closing => {}
                Kind::Call | Kind::Release | Kind::Cancel => panic!("{header:?} from a server"),
            }
        }
    }

    /// Whether the server closes the connection, after whatever answers.
    pub fn is_cut_off(&mut self) -> bool {
        (0..10_000).any(|_| matches!(self.answer(), Answer::HungUp))
    }

    /// Whether the server goes on answering.
    pub fn is_content(&mut self) -> bool {
        let call = self.call("length", &encoded(&b"?"[..]), &[]);
        loop {
            match self.answer() {
                Answer::Reply { call: answered, .. } if answered == call => return true,
                Answer::HungUp => return false,
                _ => {}
            }
        }
    }
}

fn split_table(body: &mut Vec<u8>) -> Vec<BlockRef> {
    let (rest, count) = body.split_last_chunk().unwrap();
    let table = rest.len() - usize::from(u16::from_le_bytes(*count)) * BlockRef::LEN;
    let loans = rest[table..].as_chunks().0.iter().map(BlockRef::decode).collect();
    body.truncate(table);
    loans
}
