//! A server by hand.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use lpc_core::frame::{self, Body, CallId, Header, Kind};
use lpc_core::handshake::{Offer, Preamble, ServerHello};
use lpc_core::receive::Role;
use lpc_core::{Limits, Service, codec};
use tempfile::TempDir;

use crate::GUARD;
use crate::service::ScaleService;

#[derive(Debug)]
pub struct Listener {
    pub port: PathBuf,
    listener: UnixListener,
    _directory: TempDir,
}

impl Listener {
    pub fn bind() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = directory.path().join("port");
        let listener = UnixListener::bind(&port).unwrap();
        Self { port, listener, _directory: directory }
    }

    /// A client has connected, and was greeted.
    pub fn accept(&self) -> Server {
        let mut stream = self.listener.accept().unwrap().0;
        stream.set_read_timeout(Some(GUARD)).unwrap();
        let mut preamble = [0; Preamble::LEN];
        stream.read_exact(&mut preamble).unwrap();
        let preamble = Preamble::decode(&preamble, Role::Client).unwrap();
        stream.read_exact(&mut vec![0; preamble.len]).unwrap();
        let offer = Offer::new(ScaleService::NAME, ScaleService::METHODS, &Limits::default());
        stream.write_all(&ServerHello::Offer(offer).encode()).unwrap();
        Server(stream)
    }
}

/// One connection of a server. Descriptors that come along are dropped.
#[derive(Debug)]
pub struct Server(pub UnixStream);

impl Server {
    /// The next frame of one of these kinds.
    pub fn next(&mut self, kinds: &[Kind]) -> Header {
        loop {
            let mut header = [0; Header::LEN];
            self.0.read_exact(&mut header).unwrap();
            let header = Header::decode(&header).unwrap();
            self.0.read_exact(&mut vec![0; header.len as usize]).unwrap();
            if kinds.contains(&header.kind) {
                return header;
            }
        }
    }

    pub fn send(&mut self, frame: &[u8]) {
        self.0.write_all(frame).unwrap();
    }

    /// Answers a call.
    pub fn reply(&mut self, call: CallId, result: u64) {
        let mut reply = Vec::new();
        frame::begin_reply(&mut reply);
        codec::encode(&lpc::Result::<u64>::Ok(result), &mut reply).unwrap();
        frame::seal(&mut reply, call, Body::Inline, &[]);
        self.send(&reply);
    }
}
