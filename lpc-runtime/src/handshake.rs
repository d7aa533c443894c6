//! What both drivers do with a handshake's bytes, and with the peer's credentials.

use std::os::fd::AsFd;

use lpc_core::handshake::{ClientHello, Offer, Preamble, ServerHello};
use lpc_core::receive::Role;
use lpc_core::{Error, ErrorKind, Limits, Result};

use crate::client::methods::Methods;
use crate::config::Config;
use crate::credentials::Credentials;
use crate::generated::Description;
use crate::sys::socket::{self, Wait};

/// What a client learnt of its server.
#[derive(Debug)]
pub(crate) struct Greeted {
    /// The server, as far as it is known.
    pub(crate) peer: Option<Credentials>,
    /// The stub's methods at the server.
    pub(crate) methods: Methods,
    /// The limits for what is sent.
    pub(crate) limits: Limits,
    /// How many calls of this connection it runs at once, if it says so.
    pub(crate) max_running: Option<u32>,
}

/// What a client says first.
pub(crate) fn client_hello(service: Description, config: &Config) -> Vec<u8> {
    ClientHello::new(service.name, &config.limits).encode()
}

/// What a server answers.
pub(crate) fn server_hello(service: Description, config: &Config) -> Vec<u8> {
    let offer = Offer::new(service.name, service.methods, &config.limits);
    let max_running = u32::try_from(config.max_concurrent_calls).unwrap_or(u32::MAX);
    offer.with_fingerprints(&service.fingerprints()).with_max_running(max_running).encode()
}

/// What a client makes of the server's answer.
pub(crate) fn understand_server(
    preamble: Preamble,
    body: &[u8],
    peer: Option<Credentials>,
    service: Description,
    config: &Config,
) -> Result<Greeted> {
    let offer = ServerHello::decode(preamble, body)?.into_offer()?;
    let found = offer.resolve(service.name, service.methods, &service.fingerprints())?;
    Ok(Greeted {
        peer,
        methods: Methods::new(service, found),
        limits: offer.limits.narrow(&config.limits),
        max_running: Some(offer.max_running).filter(|count| *count > 0),
    })
}

/// What a server makes of a client's hello: the limits for what is sent.
pub(crate) fn understand_client(preamble: Preamble, body: &[u8], config: &Config) -> Result<Limits> {
    Ok(ClientHello::decode(preamble, body)?.limits.narrow(&config.limits))
}

/// The preamble of a peer in this role.
pub(crate) fn preamble(bytes: &[u8; Preamble::LEN], peer: Role) -> Result<Preamble> {
    Preamble::decode(bytes, peer)
}

/// What became of a client's hello. A server that refuses does so without listening, and closes: what it has
/// said can be read all the same.
pub(crate) fn heard(written: Result<()>) -> Result<()> {
    match written {
        Err(error) if error.is_disconnected() => Ok(()),
        result => result,
    }
}

/// The peer's end of the stream in the middle of its hello.
pub(crate) fn hung_up() -> Error {
    Error::new(ErrorKind::Disconnected, "the peer hung up before it said who it is")
}

/// A peer that does not say who it is.
pub(crate) fn silent(config: &Config) -> Error {
    let limit = config.handshake_timeout;
    Error::new(
        ErrorKind::TimedOut,
        format!("the peer did not say who it is within {limit:?} (handshake_timeout)"),
    )
}

/// Makes sure that the server at the other end of a port may be there.
pub(crate) fn check_server(stream: impl AsFd, config: &Config) -> Result<()> {
    config.check_peer(&Credentials::of_peer(stream)?, Role::Server)
}

/// Tells a client why it is not taken. Never waits: this is the first that is written to the stream, so there
/// is room.
pub(crate) fn refuse(stream: impl AsFd, reason: &Error) {
    // It may have left.
    let _ = socket::send(stream, &ServerHello::refusal(reason).encode(), None, Wait::Never);
}

/// The reason for which a client closes its connection after a reply that it cannot decode.
pub(crate) fn closed_for(error: &Error) -> Error {
    Error::new(ErrorKind::Disconnected, format!("the connection was closed, for an earlier reply: {error}"))
}

/// A call that the socket did not take.
pub(crate) fn disconnected(error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Disconnected, format!("the connection to the server is over: {error}"))
}
