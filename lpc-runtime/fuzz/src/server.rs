//! A server that runs, in this process, and a client that sends it anything: it answers or hangs up, and
//! nothing panics.
//!
//! To be run with `-detect_leaks=0`: threads of the server that wait for more work are taken for leaks.

use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use lpc::Shared;
use lpc_core::Limits;
use lpc_core::handshake::ClientHello;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::pieces::{Piece, pieces};

#[lpc::service]
trait Target {
    fn length(&self, bytes: &[u8]) -> lpc::Result<u64>;
    fn join(&self, texts: Vec<String>, with: &str) -> lpc::Result<String>;
    fn sum(&self, bytes: Shared<[u8]>) -> lpc::Result<u64>;
    fn both(&self, one: Shared<str>, other: Option<Shared<[u8]>>) -> lpc::Result<Shared<[u8]>>;
    #[lpc(threshold = "always")]
    fn mapped(&self, len: u8) -> lpc::Result<Vec<u8>>;
}

struct Implementation;

impl Target for Implementation {
    fn length(&self, bytes: &[u8]) -> lpc::Result<u64> {
        Ok(bytes.len() as u64)
    }
    fn join(&self, texts: Vec<String>, with: &str) -> lpc::Result<String> {
        Ok(texts.join(with))
    }
    fn sum(&self, bytes: Shared<[u8]>) -> lpc::Result<u64> {
        Ok(bytes.load()?.iter().map(|byte| u64::from(*byte)).sum())
    }
    fn both(&self, one: Shared<str>, other: Option<Shared<[u8]>>) -> lpc::Result<Shared<[u8]>> {
        let len = one.load()?.chars().count();
        other.ok_or_else(|| lpc::Error::other(format!("only {len} characters")))
    }
    fn mapped(&self, len: u8) -> lpc::Result<Vec<u8>> {
        Ok(vec![len; len.into()])
    }
}

/// Guards against hangs. Nothing takes this long.
const GUARD: Duration = Duration::from_secs(30);

/// Bytes of shared memory at most, of either side.
const POOL: u64 = 1 << 20;

/// A byte that chooses whether a good hello comes first, then pieces.
pub fn run(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let (mut ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let server = thread::spawn(move || {
        let server = lpc::blocking::Server::builder().pool_limit(POOL).max_message(POOL / 4);
        server.handshake_timeout(GUARD).serve_stream::<TargetService, _>(theirs, Implementation)
    });
    ours.set_read_timeout(Some(GUARD)).expect("a timeout");
    ours.set_write_timeout(Some(GUARD)).expect("a timeout");
    let reader = thread::spawn({
        let mut ours = ours.try_clone().expect("a descriptor");
        move || {
            let mut space = vec![0; 64 << 10];
            loop {
                match ours.read(&mut space) {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
                    Err(error) => panic!("the server does not come to an end: {error}"),
                }
            }
        }
    });
    if choice & 1 == 0 {
        let hello = ClientHello::new("Target", &Limits::default()).encode();
        ours.write_all(&hello).expect("the server reads its hello");
    }
    let mut files = Files { content: data, made: 0 };
    for piece in pieces(data) {
        // It may have hung up already.
        if send(&ours, &piece, &mut files).is_err() {
            break;
        }
    }
    let _ = ours.shutdown(std::net::Shutdown::Write);
    reader.join().expect("the reader comes to its end");
    // An error is the handshake's.
    let _ = server.join().expect("the server does not panic");
}

fn send(stream: &UnixStream, piece: &Piece<'_>, files: &mut Files<'_>) -> nix::Result<()> {
    let files: Vec<OwnedFd> = (0..piece.descriptors).map(|_| files.next(piece.is_lossy)).collect();
    let numbers: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&numbers)];
    let control = if files.is_empty() { &[] } else { &control[..] };
    let mut bytes = piece.bytes;
    while !bytes.is_empty() {
        let control = if bytes.len() == piece.bytes.len() { control } else { &[] };
        let sent =
            sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

/// What goes along.
struct Files<'a> {
    /// The bytes at the start of each.
    content: &'a [u8],
    made: usize,
}

impl Files<'_> {
    /// Mostly memory as it should be: of a segment, or that nobody can write to.
    fn next(&mut self, is_odd: bool) -> OwnedFd {
        self.made += 1;
        if is_odd && self.made.is_multiple_of(2) {
            return UnixStream::pair().expect("a pair of sockets").0.into();
        }
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = memfd_create(c"lpc", flags).expect("memory");
        let len = if self.made.is_multiple_of(3) { 4096 } else { 16384 };
        nix::unistd::ftruncate(&file, len).expect("a length");
        nix::sys::uio::pwrite(&file, &self.content[..self.content.len().min(4096)], 0).expect("content");
        let mut seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        seals |= if is_odd { SealFlag::F_SEAL_WRITE } else { SealFlag::F_SEAL_FUTURE_WRITE };
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).expect("seals");
        file
    }
}
