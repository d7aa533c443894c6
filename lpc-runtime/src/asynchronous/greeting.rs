//! The handshake on tokio, in bounded time.

use std::io;
use std::time::Instant;

use lpc_core::handshake::Preamble;
use lpc_core::receive::Role;
use lpc_core::{Error, Limits, Result};
use tokio::time::timeout_at;

use super::stream::Stream;
use crate::config::Config;
use crate::credentials::Introduction;
use crate::generated::Description;
use crate::handshake::{self, Greeted};
use crate::memory::foreign;
use crate::server::admission::Permit;
use crate::sys::socket::{self, Control, Received, Wait};

/// The client's side of it.
pub(super) async fn greet_server(socket: &Stream, service: Description, config: &Config) -> Result<Greeted> {
    let mut peer = Peer::new(socket, config)?;
    handshake::heard(peer.write(&handshake::client_hello(service, config)).await)?;
    let preamble = handshake::preamble(&peer.read_preamble().await?, Role::Server)?;
    let body = peer.read(preamble.len).await?;
    handshake::understand_server(preamble, &body, peer.introduction.end(socket)?, service, config)
}

/// The server's side of it. A client of another version is told our hello before it is refused.
pub(super) async fn greet_client(
    socket: &Stream,
    hello: &[u8],
    config: &Config,
    permit: &mut Permit,
) -> Result<Limits> {
    let mut peer = Peer::new(socket, config)?;
    let preamble = peer.read_preamble().await?;
    permit.greet()?;
    peer.write(hello).await?;
    let preamble = handshake::preamble(&preamble, Role::Client)?;
    let limits = handshake::understand_client(preamble, &peer.read(preamble.len).await?, config)?;
    permit.introduce(peer.introduction.end(socket)?);
    Ok(limits)
}

/// The other end, during the handshake, which has to be through by some time.
struct Peer<'s> {
    socket: &'s Stream,
    config: &'s Config,
    /// `None` where that is beyond what the clock can say.
    deadline: Option<Instant>,
    introduction: Introduction,
    control: Control,
}

impl<'s> Peer<'s> {
    fn new(socket: &'s Stream, config: &'s Config) -> Result<Self> {
        let deadline = Instant::now().checked_add(config.handshake_timeout);
        let introduction = Introduction::begin(socket)?;
        Ok(Self { socket, config, deadline, introduction, control: Control::new() })
    }

    async fn read_preamble(&mut self) -> Result<[u8; Preamble::LEN]> {
        let bytes = self.read(Preamble::LEN).await?;
        Ok(bytes.try_into().expect("as long as was asked for"))
    }

    async fn read(&mut self, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let mut done = 0;
        while done < len {
            // The reactor need not know of it yet.
            let mut received = self.receive(&mut bytes[done..]);
            if is_to_be_waited_for(&received) {
                let ready = self.socket.readable();
                if !self.in_time(ready).await? {
                    continue;
                }
                let socket = self.socket;
                received = socket.try_read(|| self.receive(&mut bytes[done..]));
            }
            match received {
                Ok(Received { len: 0, .. }) => return Err(handshake::hung_up()),
                Ok(more) => {
                    self.introduction.received(&mut self.control);
                    done += more.len;
                }
                Err(error) => check(error)?,
            }
        }
        Ok(bytes)
    }

    fn receive(&mut self, space: &mut [u8]) -> io::Result<Received> {
        // No descriptor belongs here.
        let mut strays = Vec::new();
        let received = socket::receive(self.socket, space, &mut self.control, &mut strays, Wait::Never);
        foreign::close_strays(&mut strays, self.socket);
        received
    }

    async fn write(&self, bytes: &[u8]) -> Result<()> {
        let mut done = 0;
        let mut room = None;
        while done < bytes.len() {
            match socket::send(self.socket, &bytes[done..], None, Wait::Never) {
                Ok(more) => done += more,
                Err(error) => {
                    check(error)?;
                    let room = room.get_or_insert_with(|| self.socket.room());
                    self.in_time(room.there()).await?;
                }
            }
        }
        Ok(())
    }

    /// Waits for the socket; `false` when the time is over. What has come until then is read all the same, as
    /// it may be this process that was stopped meanwhile; to wait again is an error.
    async fn in_time(&self, ready: impl Future<Output = io::Result<()>>) -> Result<bool> {
        let Some(deadline) = self.deadline else {
            ready.await?;
            return Ok(true);
        };
        if deadline <= Instant::now() {
            return Err(handshake::silent(self.config));
        }
        match timeout_at(deadline.into(), ready).await {
            Ok(ready) => ready.map(|()| true).map_err(Error::from),
            Err(_) => Ok(false),
        }
    }
}

fn is_to_be_waited_for(received: &io::Result<Received>) -> bool {
    matches!(received, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// `Ok` where the socket has to be waited for.
fn check(error: io::Error) -> Result<()> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Ok(()),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Err(handshake::hung_up()),
        _ => Err(Error::from(error)),
    }
}
