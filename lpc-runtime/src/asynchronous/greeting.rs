//! The handshake on tokio, in bounded time.

use std::io;

use lpc_core::handshake::Preamble;
use lpc_core::receive::Role;
use lpc_core::{Error, Limits, Result};
use tokio::time::timeout;

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
    let greeting = async {
        let mut peer = Peer::new(socket)?;
        handshake::heard(peer.write(&handshake::client_hello(service, config)).await)?;
        let preamble = handshake::preamble(&peer.read_preamble().await?, Role::Server)?;
        let body = peer.read(preamble.len).await?;
        handshake::understand_server(preamble, &body, peer.introduction.end(socket)?, service, config)
    };
    timeout(config.handshake_timeout, greeting).await.unwrap_or_else(|_| Err(handshake::silent(config)))
}

/// The server's side of it. A client of another version is told our hello before it is refused.
pub(super) async fn greet_client(
    socket: &Stream,
    hello: &[u8],
    config: &Config,
    permit: &mut Permit,
) -> Result<Limits> {
    let greeting = async {
        let mut peer = Peer::new(socket)?;
        let preamble = peer.read_preamble().await?;
        permit.greet()?;
        peer.write(hello).await?;
        let preamble = handshake::preamble(&preamble, Role::Client)?;
        let limits = handshake::understand_client(preamble, &peer.read(preamble.len).await?, config)?;
        permit.introduce(peer.introduction.end(socket)?);
        Ok(limits)
    };
    timeout(config.handshake_timeout, greeting).await.unwrap_or_else(|_| Err(handshake::silent(config)))
}

/// The other end, during the handshake.
struct Peer<'s> {
    socket: &'s Stream,
    introduction: Introduction,
    control: Control,
}

impl<'s> Peer<'s> {
    fn new(socket: &'s Stream) -> Result<Self> {
        Ok(Self { socket, introduction: Introduction::begin(socket)?, control: Control::new() })
    }

    async fn read_preamble(&mut self) -> Result<[u8; Preamble::LEN]> {
        let bytes = self.read(Preamble::LEN).await?;
        Ok(bytes.try_into().expect("as long as was asked for"))
    }

    async fn read(&mut self, len: usize) -> Result<Vec<u8>> {
        let Self { socket, introduction, control } = self;
        let mut bytes = vec![0; len];
        let mut done = 0;
        while done < len {
            socket.readable().await?;
            // No descriptor belongs here.
            let mut strays = Vec::new();
            let received = socket
                .try_read(|| socket::receive(*socket, &mut bytes[done..], control, &mut strays, Wait::Never));
            foreign::close_strays(&mut strays, *socket);
            match received {
                Ok(Received { len: 0, .. }) => return Err(handshake::hung_up()),
                Ok(more) => {
                    introduction.received(control);
                    done += more.len;
                }
                Err(error) => check(error)?,
            }
        }
        Ok(bytes)
    }

    async fn write(&self, bytes: &[u8]) -> Result<()> {
        let mut done = 0;
        let mut room = None;
        while done < bytes.len() {
            match socket::send(self.socket, &bytes[done..], None, Wait::Never) {
                Ok(more) => done += more,
                Err(error) => {
                    check(error)?;
                    room.get_or_insert_with(|| self.socket.room()).there().await?;
                }
            }
        }
        Ok(())
    }
}

/// `Ok` where the socket has to be waited for.
fn check(error: io::Error) -> Result<()> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Ok(()),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Err(handshake::hung_up()),
        _ => Err(Error::from(error)),
    }
}
