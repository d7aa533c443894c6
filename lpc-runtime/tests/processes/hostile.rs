//! A peer that speaks the protocol by hand.

use std::ffi::CStr;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use lpc_core::frame::{self, BlockRef, Body, CallId, Header, Kind};
use lpc_core::handshake::{ClientHello, Offer, Preamble, ServerHello};
use lpc_core::receive::Role;
use lpc_core::{Limits, Method, codec};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::Serialize;

use crate::process::{GUARD, text};

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

/// A memfd that is what a segment should be.
pub fn sealed_segment(len: u64) -> OwnedFd {
    memfd_of(b"", len, segment_seals())
}

/// A file of zeroes.
pub fn file_of(len: u64) -> OwnedFd {
    let file = tempfile::tempfile().unwrap();
    file.set_len(len).unwrap();
    file.into()
}

/// What a peer by hand says of itself: it takes what it can get.
fn wishes() -> Limits {
    Limits { quick_lane: true, ..Limits::default() }
}

/// A client of a vault, or a server of one.
#[derive(Debug)]
pub struct Peer {
    role: Role,
    stream: UnixStream,
    methods: Vec<String>,
    next: u64,
    /// The segments that the server announced, to be looked at by nobody.
    pub seen: usize,
    /// The call that a server has been asked last.
    asked: Asked,
    /// Connections that do nothing.
    idle: Vec<UnixStream>,
    /// Which of several peers that do the same it is.
    pub turn: usize,
}

/// A call of the other side, as far as a server by hand looks at it.
#[derive(Debug, Default)]
pub struct Asked {
    pub call: u64,
    pub loans: Vec<BlockRef>,
    is_answered: bool,
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
        Self::connect_with(port, &wishes())
    }

    /// One that says that these are its limits.
    pub fn connect_with(port: &str, limits: &Limits) -> Self {
        let mut peer = Self::stranger(Role::Client, UnixStream::connect(port).unwrap());
        peer.stream.write_all(&ClientHello::new("Vault", limits).encode()).unwrap();
        let (preamble, body) = peer.hello();
        let offer = ServerHello::decode(preamble, &body).unwrap().into_offer().unwrap();
        peer.methods = offer.methods.into_iter().map(|method| method.name).collect();
        peer
    }

    /// A server that has greeted who connects, and has been asked something.
    pub fn accept(listener: &UnixListener) -> Self {
        let mut peer = Self::stranger(Role::Server, listener.accept().unwrap().0);
        peer.hello();
        peer.send(&server_hello("Vault", &wishes()));
        assert!(peer.is_asked(), "a client that hangs up before it calls");
        peer
    }

    /// One that has not said a word.
    pub fn stranger(role: Role, stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(GUARD)).unwrap();
        stream.set_write_timeout(Some(GUARD)).unwrap();
        let (methods, asked, idle) = (Vec::new(), Asked::default(), Vec::new());
        Self { role, stream, methods, next: 1, seen: 0, asked, idle, turn: 0 }
    }

    /// Reads the other side's.
    fn hello(&mut self) -> (Preamble, Vec<u8>) {
        let other = if self.role == Role::Client { Role::Server } else { Role::Client };
        let mut preamble = [0; Preamble::LEN];
        self.stream.read_exact(&mut preamble).unwrap();
        let preamble = Preamble::decode(&preamble, other).unwrap();
        let mut hello = vec![0; preamble.len];
        self.stream.read_exact(&mut hello).unwrap();
        (preamble, hello)
    }

    pub fn is_calling(&self) -> bool {
        self.role == Role::Client
    }

    pub fn role(&self) -> Role {
        self.role
    }

    /// The call that a server has to answer.
    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Whether a client calls; if not, it has hung up.
    pub fn is_asked(&mut self) -> bool {
        loop {
            let Some((header, mut body)) = self.receive() else { return false };
            if header.kind == Kind::Call {
                let loans = if header.has_loans() { split_table(&mut body) } else { Vec::new() };
                self.asked = Asked { call: header.call.as_u64(), loans, is_answered: false };
                return true;
            }
        }
    }

    /// The next frame, its descriptors not received.
    fn receive(&mut self) -> Option<(Header, Vec<u8>)> {
        let mut header = [0; Header::LEN];
        if let Err(error) = self.stream.read_exact(&mut header) {
            assert!(error.kind() != std::io::ErrorKind::WouldBlock, "the other side says nothing");
            return None;
        }
        let header = Header::decode(&header).unwrap();
        let mut body = vec![0; header.len as usize];
        self.stream.read_exact(&mut body).ok()?;
        Some((header, body))
    }

    /// What a client passes to the method `look`, or a server's answer to its call: in the frame, or in this
    /// block.
    pub fn thing(&mut self, thing: &[u8], block: Option<BlockRef>, loans: &[BlockRef]) -> Vec<u8> {
        match self.role {
            Role::Client => self.frame("look", thing, block, loans),
            Role::Server => {
                self.asked.is_answered = true;
                reply(self.asked.call, &self.body(thing), block, loans)
            }
        }
    }

    /// The whole of such a body.
    pub fn body(&self, thing: &[u8]) -> Vec<u8> {
        let ok: &[u8] = if self.role == Role::Server { &[0] } else { &[] };
        [ok, thing].concat()
    }

    /// Sends such a body in the frame.
    pub fn pass(&mut self, thing: &[u8], loans: &[BlockRef]) {
        let frame = self.thing(thing, None, loans);
        self.send(&frame);
    }

    /// Sends such a body in a block.
    pub fn pass_in(&mut self, block: BlockRef, loans: &[BlockRef]) {
        let frame = self.thing(&[], Some(block), loans);
        self.send(&frame);
    }

    /// Sends bytes one by one, whether anybody waits for them or not.
    pub fn dribble(&self, bytes: Vec<u8>, pause: std::time::Duration) {
        let mut stream = self.stream.try_clone().unwrap();
        std::thread::spawn(move || {
            for byte in bytes {
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
                std::thread::sleep(pause);
            }
        });
    }

    /// Ends one or both directions.
    pub fn shut_down(&self, how: std::net::Shutdown) {
        let _ = self.stream.shutdown(how);
    }

    /// Where a client is connected.
    pub fn port(&self) -> String {
        text(self.stream.peer_addr().unwrap().as_pathname().unwrap()).to_owned()
    }

    /// Holds another connection, on which it says nothing.
    pub fn also_connect(&mut self) {
        self.idle.push(UnixStream::connect(self.port()).unwrap());
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
        self.send_with_copies(bytes, descriptor, 1);
    }

    /// Sends bytes, and with the first so many copies of a descriptor.
    pub fn send_with_copies(&mut self, bytes: &[u8], descriptor: impl AsFd, count: usize) {
        let descriptors = vec![descriptor.as_fd().as_raw_fd(); count];
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
            let Some((header, mut body)) = self.receive() else { return Answer::HungUp };
            let call = header.call.as_u64();
            match header.kind {
                Kind::Reply => {
                    let loans = if header.has_loans() { split_table(&mut body) } else { Vec::new() };
                    return Answer::Reply { call, is_mapped: header.is_mapped(), body, loans };
                }
                Kind::Failure => {
                    return Answer::Failure { call, text: String::from_utf8_lossy(&body).into_owned() };
                }
                Kind::Resend => return Answer::Resend { call },
                Kind::Segment => self.seen += 1,
                Kind::Retire | Kind::Return | Kind::Refuse | Kind::Closing | Kind::At => {}
                Kind::Ring | Kind::Bell | Kind::Aside | Kind::Switch => {}
                Kind::Call | Kind::Release | Kind::Cancel => panic!("{header:?} from a server"),
            }
        }
    }

    /// Waits until a frame of this kind comes.
    #[track_caller]
    pub fn wait_for(&mut self, kind: Kind) {
        while self.receive().expect("the other side does not hang up").0.kind != kind {}
    }

    /// Whether the other side closes the connection, whatever it says first. For a stranger, who knows no
    /// frames.
    pub fn is_turned_away(&mut self) -> bool {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }

    /// Whether the other side closes the connection, after whatever answers or calls.
    pub fn is_cut_off(&mut self) -> bool {
        (0..10_000).any(|_| match self.role {
            Role::Client => matches!(self.answer(), Answer::HungUp),
            Role::Server => !self.is_asked(),
        })
    }

    /// Whether the other side closes the connection within this time, while nothing is read from it.
    pub fn is_hung_up_on(&self, limit: std::time::Duration) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut ready = [PollFd::new(self.stream.as_fd(), PollFlags::empty())];
        poll(&mut ready, PollTimeout::try_from(limit).unwrap()).unwrap() > 0
    }

    /// Whether a server goes on answering; as a server, answers until its client has no more calls.
    pub fn is_content(&mut self) -> bool {
        if self.role == Role::Server {
            loop {
                if !self.asked.is_answered {
                    self.pass(&[0], &[]);
                }
                if !self.is_asked() {
                    return true;
                }
            }
        }
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

/// The frame that answers a call.
pub fn reply(call: u64, body: &[u8], block: Option<BlockRef>, loans: &[BlockRef]) -> Vec<u8> {
    let mut reply = Vec::new();
    frame::begin_reply(&mut reply);
    reply.extend_from_slice(body);
    frame::seal(&mut reply, CallId::new(call), block.map_or(Body::Inline, Body::Mapped), loans);
    reply
}

/// What a server says first, that has the methods which these tests call.
pub fn server_hello(service: &str, limits: &Limits) -> Vec<u8> {
    const METHODS: [Method; 2] = [Method::new("look"), Method::new("length")];
    Offer::new(service, &METHODS, limits).encode()
}

fn split_table(body: &mut Vec<u8>) -> Vec<BlockRef> {
    let (rest, count) = body.split_last_chunk().unwrap();
    let table = rest.len() - usize::from(u16::from_le_bytes(*count)) * BlockRef::LEN;
    let loans = rest[table..].as_chunks().0.iter().map(BlockRef::decode).collect();
    body.truncate(table);
    loans
}
