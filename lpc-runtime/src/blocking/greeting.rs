//! The handshake on a blocking socket, in bounded time.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use lpc_core::handshake::Preamble;
use lpc_core::receive::Role;
use lpc_core::{Error, Limits, Result};

use crate::config::Config;
use crate::credentials::{Credentials, Introduction};
use crate::generated::Description;
use crate::handshake::{self, Greeted};
use crate::memory::foreign;
use crate::server::admission::Permit;
use crate::sys::socket::{self, Control, Received, Wait};

/// The client's side of it.
pub(super) fn greet_server(stream: &UnixStream, service: Description, config: &Config) -> Result<Greeted> {
    let mut peer = Timed::new(stream, config)?;
    handshake::heard(peer.write(&handshake::client_hello(service, config)))?;
    let preamble = handshake::preamble(&peer.read_preamble()?, Role::Server)?;
    let body = peer.read_body(preamble)?;
    handshake::understand_server(preamble, &body, peer.done()?, service, config)
}

/// The server's side of it. A client of another version is told our hello before it is refused.
pub(super) fn greet_client(
    stream: &UnixStream,
    hello: &[u8],
    config: &Config,
    permit: &mut Permit,
) -> Result<Limits> {
    let mut peer = Timed::new(stream, config)?;
    let preamble = peer.read_preamble()?;
    permit.greet()?;
    peer.write(hello)?;
    let preamble = handshake::preamble(&preamble, Role::Client)?;
    let limits = handshake::understand_client(preamble, &peer.read_body(preamble)?, config)?;
    permit.introduce(peer.done()?);
    Ok(limits)
}

/// A stream that has to be through with the handshake by some time.
struct Timed<'s> {
    stream: &'s UnixStream,
    config: &'s Config,
    /// `None` where that is beyond what the clock can say.
    deadline: Option<Instant>,
    introduction: Introduction,
    control: Control,
}

impl<'s> Timed<'s> {
    fn new(stream: &'s UnixStream, config: &'s Config) -> Result<Self> {
        let deadline = Instant::now().checked_add(config.handshake_timeout);
        let introduction = Introduction::begin(stream)?;
        Ok(Self { stream, config, deadline, introduction, control: Control::new() })
    }

    fn read_preamble(&mut self) -> Result<[u8; Preamble::LEN]> {
        let mut bytes = [0; Preamble::LEN];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn read_body(&mut self, preamble: Preamble) -> Result<Vec<u8>> {
        let mut body = vec![0; preamble.len];
        self.read(&mut body)?;
        Ok(body)
    }

    fn read(&mut self, mut space: &mut [u8]) -> Result<()> {
        while !space.is_empty() {
            let wait = self.wait(UnixStream::set_read_timeout)?;
            // No descriptor belongs here. The kernel would close it on this thread if it were not taken.
            let mut strays = Vec::new();
            let received = socket::receive(self.stream, space, &mut self.control, &mut strays, wait);
            foreign::close_strays(&mut strays, self.stream);
            match received {
                Ok(Received { len: 0, .. }) => return Err(handshake::hung_up()),
                Ok(Received { len, .. }) => {
                    self.introduction.received(&mut self.control);
                    space = &mut space[len..];
                }
                Err(error) => self.check(error, wait)?,
            }
        }
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let wait = self.wait(UnixStream::set_write_timeout)?;
            let written = match wait {
                Wait::Sleep => self.stream.write(bytes),
                Wait::Never => socket::send(self.stream, bytes, None, wait),
            };
            match written {
                Ok(len) => bytes = &bytes[len..],
                Err(error) => self.check(error, wait)?,
            }
        }
        Ok(())
    }

    /// `Ok` where trying again makes sense.
    fn check(&self, error: io::Error, wait: Wait) -> Result<()> {
        match (error.kind(), wait) {
            (io::ErrorKind::WouldBlock, Wait::Never) => Err(handshake::silent(self.config)),
            (io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock, _) => Ok(()),
            (io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe, _) => Err(handshake::hung_up()),
            _ => Err(Error::from(error)),
        }
    }

    /// How to wait. When the time is over, what has come until then is read all the same: it may be this
    /// process that was stopped meanwhile.
    fn wait(&self, limit: impl Fn(&UnixStream, Option<Duration>) -> io::Result<()>) -> Result<Wait> {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(Wait::Never);
        }
        limit(self.stream, left)?;
        Ok(Wait::Sleep)
    }

    /// From here on the stream waits as long as it takes. The peer, as far as it is known.
    fn done(self) -> Result<Option<Credentials>> {
        self.stream.set_read_timeout(None)?;
        self.stream.set_write_timeout(None)?;
        self.introduction.end(self.stream)
    }
}
