//! The handshake on tokio, in bounded time.

use std::io;

use lpc_core::handshake::Preamble;
use lpc_core::receive::Role;
use lpc_core::{Error, Limits, Result};
use tokio::time::timeout;

use super::stream::Stream;
use crate::config::Config;
use crate::generated::Description;
use crate::handshake::{self, Greeted};
use crate::server::admission::Permit;
use crate::sys::socket::{self, Control, Received, Wait};

/// The client's side of it.
pub(super) async fn greet_server(socket: &Stream, service: Description, config: &Config) -> Result<Greeted> {
    let greeting = async {
        handshake::heard(write(socket, &handshake::client_hello(service, config)).await)?;
        let preamble = handshake::preamble(&read_preamble(socket).await?, Role::Server)?;
        handshake::understand_server(preamble, &read(socket, preamble.len).await?, service, config)
    };
    timeout(config.handshake_timeout, greeting).await.unwrap_or_else(|_| Err(handshake::silent(config)))
}

/// The server's side of it. A client of another version is told our hello before it is refused.
pub(super) async fn greet_client(
    socket: &Stream,
    hello: &[u8],
    config: &Config,
    permit: &Permit,
) -> Result<Limits> {
    let greeting = async {
        let preamble = read_preamble(socket).await?;
        permit.greet()?;
        write(socket, hello).await?;
        let preamble = handshake::preamble(&preamble, Role::Client)?;
        handshake::understand_client(preamble, &read(socket, preamble.len).await?, config)
    };
    timeout(config.handshake_timeout, greeting).await.unwrap_or_else(|_| Err(handshake::silent(config)))
}

async fn read_preamble(socket: &Stream) -> Result<[u8; Preamble::LEN]> {
    let bytes = read(socket, Preamble::LEN).await?;
    Ok(bytes.try_into().expect("as long as was asked for"))
}

async fn read(socket: &Stream, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    let mut control = Control::new();
    while done < len {
        socket.readable().await?;
        // No descriptor belongs here: one that comes is closed at once.
        let mut strays = Vec::new();
        let received = socket
            .try_read(|| socket::receive(socket, &mut bytes[done..], &mut control, &mut strays, Wait::Never));
        match received {
            Ok(Received { len: 0, .. }) => return Err(handshake::hung_up()),
            Ok(more) => done += more.len,
            Err(error) => check(error)?,
        }
    }
    Ok(bytes)
}

async fn write(socket: &Stream, bytes: &[u8]) -> Result<()> {
    let mut done = 0;
    let mut room = None;
    while done < bytes.len() {
        match socket::send(socket, &bytes[done..], None, Wait::Never) {
            Ok(more) => done += more,
            Err(error) => {
                check(error)?;
                room.get_or_insert_with(|| socket.room()).there().await?;
            }
        }
    }
    Ok(())
}

/// `Ok` where the socket has to be waited for.
fn check(error: io::Error) -> Result<()> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Ok(()),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Err(handshake::hung_up()),
        _ => Err(Error::from(error)),
    }
}
