//! The handshake: the first message each way, by which two peers learn of each other.
//!
//! ```text
//!  0       4      5     6     7   8            12
//!  | LPC!  | role | min | max | 0 | len        | len bytes: a ClientHello or a ServerHello, encoded by postcard
//!  | magic | u8   | u8  | u8  |   | u32        |
//! ```
//!
//! The client speaks first, the server answers, and both go on in the highest version that both know. The
//! preamble never changes; a hello may grow at its end, and what a newer version appends is passed over.

use serde::{Deserialize, Serialize};

use crate::control;
use crate::error::WireError;
use crate::receive::{MAX_FAILURE, Role};
use crate::{Error, ErrorKind, Limits, Method, Progress, Result};

/// The protocol versions that this build speaks: lowest and highest.
pub const VERSIONS: (u8, u8) = (2, 2);

/// Bytes of a hello's body at most.
pub const MAX_LEN: usize = 1 << 20;

/// The number of a method that every server has: it is [asked](crate::form::Question) for the
/// [form](crate::form::Answer) of another one.
pub const FORM: u16 = u16::MAX;

/// Bytes of a client's at most.
pub const MAX_CLIENT_LEN: usize = 64 << 10;

const MAGIC: [u8; 4] = *b"LPC!";

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientHello {
    /// The service that is wanted.
    pub service: String,
    /// What the client is willing to take.
    pub limits: PeerLimits,
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerHello {
    /// What can be called.
    Offer(Offer),
    /// Why it does not take the connection, which it closes then.
    Refusal(WireError),
}

/// The service that a server offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The service that is served.
    pub service: String,
    /// Its methods, in the order of their numbers on the wire.
    pub methods: Vec<OfferedMethod>,
    /// What the server is willing to take.
    pub limits: PeerLimits,
    /// How many calls of one connection it runs at once; 0 where it does not say.
    pub max_running: u32,
}

/// A method that a server has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedMethod {
    /// The method's name.
    pub name: String,
    /// The hash of its argument and result formats; 0 where nothing is known of them.
    pub fingerprint: u64,
}

/// Those of the sender's [`Limits`] that are for the other side to respect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerLimits {
    /// `Limits::max_message`.
    pub max_message: u64,
    /// `Limits::pool`: what the sender is willing to map.
    pub pool: u64,
    /// `Limits::max_segments`.
    pub max_segments: u32,
    /// `Limits::max_objects`: how many the sender is willing to map.
    pub max_objects: u32,
    /// `Limits::lent`: how many bytes of objects the sender is willing to map.
    pub lent: u64,
    /// `Limits::max_depth`.
    pub max_depth: u32,
    /// `Limits::quick_lane`.
    pub quick_lane: bool,
}

impl ClientHello {
    /// That of a client of `service`.
    #[must_use]
    pub fn new(service: &str, limits: &Limits) -> Self {
        Self { service: service.to_owned(), limits: limits.into() }
    }

    /// Preamble and body, ready to be sent.
    ///
    /// # Panics
    ///
    /// If the service's name takes more than [`MAX_CLIENT_LEN`] bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self, Role::Client, MAX_CLIENT_LEN)
    }

    /// The hello in `body`, the bytes that its preamble announced.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Protocol`] where they are none.
    pub fn decode(preamble: Preamble, body: &[u8]) -> Result<Self> {
        decode(preamble, body)
    }
}

impl ServerHello {
    /// The refusal of a server that does not take the connection for this reason.
    #[must_use]
    pub fn refusal(reason: &Error) -> Self {
        Self::Refusal(reason.to_wire().within(MAX_FAILURE as usize))
    }

    /// Preamble and body, ready to be sent.
    ///
    /// # Panics
    ///
    /// If the names of service and methods take more than [`MAX_LEN`] bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self, Role::Server, MAX_LEN)
    }

    /// The hello in `body`, the bytes that its preamble announced.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Protocol`] where they are none.
    pub fn decode(preamble: Preamble, body: &[u8]) -> Result<Self> {
        decode(preamble, body)
    }

    /// What is offered.
    ///
    /// # Errors
    ///
    /// The reason of a refusal.
    pub fn into_offer(self) -> Result<Offer> {
        match self {
            Self::Offer(offer) => Ok(offer),
            Self::Refusal(reason) => {
                let error = Error::from(reason).with_progress(Progress::NotSent);
                Err(error.with_context("the server refuses the connection"))
            }
        }
    }
}

impl Offer {
    /// That of a server of `service`, with nothing known of its methods but their names.
    #[must_use]
    pub fn new(service: &str, methods: &[Method], limits: &Limits) -> Self {
        let offered = |method: &Method| OfferedMethod { name: method.name().to_owned(), fingerprint: 0 };
        Self {
            service: service.to_owned(),
            methods: methods.iter().map(offered).collect(),
            limits: limits.into(),
            max_running: 0,
        }
    }

    /// The same of a server that runs so many calls of one connection at once.
    #[must_use]
    pub fn with_max_running(self, max_running: u32) -> Self {
        Self { max_running, ..self }
    }

    /// The same with the fingerprints of its methods, in their order.
    #[must_use]
    pub fn with_fingerprints(mut self, fingerprints: &[u64]) -> Self {
        for (method, fingerprint) in self.methods.iter_mut().zip(fingerprints) {
            method.fingerprint = *fingerprint;
        }
        self
    }

    /// The hello that makes this offer: preamble and body, ready to be sent.
    ///
    /// # Panics
    ///
    /// As [`ServerHello::encode`].
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        ServerHello::Offer(self).encode()
    }

    /// For each of a client's methods how it is found at this server, by name. `fingerprints` are the
    /// client's, in the same order.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WrongService`] where the server serves another service.
    pub fn resolve(&self, service: &str, methods: &[Method], fingerprints: &[u64]) -> Result<Vec<Found>> {
        if self.service != service {
            let message = format!("it serves `{}`, not `{service}`", self.service.escape_debug());
            return Err(Error::new(ErrorKind::WrongService, message));
        }
        let find = |(method, ours): (&Method, &u64)| {
            let index = self.methods.iter().position(|offered| offered.name == method.name());
            let number = index.and_then(|index| Some((index, u16::try_from(index).ok()?)));
            match number {
                None | Some((_, FORM)) => Found::Nowhere,
                Some((index, number)) => {
                    let theirs = self.methods[index].fingerprint;
                    if *ours == theirs || *ours == 0 || theirs == 0 {
                        Found::Same(number)
                    } else {
                        Found::Different(number)
                    }
                }
            }
        };
        Ok(methods.iter().zip(fingerprints).map(find).collect())
    }
}

impl From<&Limits> for PeerLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            max_message: limits.max_message,
            pool: limits.pool,
            max_segments: limits.max_segments,
            max_objects: limits.max_objects,
            lent: limits.lent,
            max_depth: limits.max_depth,
            quick_lane: limits.quick_lane,
        }
    }
}

impl PeerLimits {
    /// The limits for what is sent to a peer that said this: the narrower of its and ours.
    #[must_use]
    pub fn narrow(&self, ours: &Limits) -> Limits {
        Limits {
            max_message: ours.max_message.min(self.max_message),
            pool: ours.pool.min(self.pool),
            max_segments: ours.max_segments.min(self.max_segments),
            max_objects: ours.max_objects.min(self.max_objects),
            lent: ours.lent.min(self.lent),
            max_depth: ours.max_depth.min(self.max_depth),
            quick_lane: ours.quick_lane && self.quick_lane,
            ..*ours
        }
    }
}

fn encode(hello: &impl Serialize, role: Role, limit: usize) -> Vec<u8> {
    let mut bytes = vec![0; Preamble::LEN];
    control::encode(hello, &mut bytes);
    let len = bytes.len() - Preamble::LEN;
    assert!(len <= limit, "the {role}'s hello takes {len} bytes, the limit is {limit}");
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..8].copy_from_slice(&[role.byte(), VERSIONS.0, VERSIONS.1, 0]);
    bytes[8..12].copy_from_slice(&(len as u32).to_le_bytes());
    bytes
}

fn decode<'b, T: Deserialize<'b>>(preamble: Preamble, body: &'b [u8]) -> Result<T> {
    let hello = if preamble.is_newer {
        control::decode_front(body).map(|(hello, _news)| hello)
    } else {
        control::decode(body)
    };
    hello.map_err(|error| {
        Error::new(ErrorKind::Protocol, "the peer's hello does not decode").with_source(error)
    })
}

/// How a client's method is found at a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Under this number. As far as both know, it is the same.
    Same(u16),
    /// Under this number, with other arguments or another result.
    Different(u16),
    /// Not at all.
    Nowhere,
}

/// The fixed first bytes of a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preamble {
    /// The version in which both sides go on.
    pub version: u8,
    /// Whether the peer also speaks a version that is newer than this build: its hello may say more than is
    /// known here.
    pub is_newer: bool,
    /// Bytes of the hello's body.
    pub len: usize,
}

impl Preamble {
    /// Bytes of an encoded preamble.
    pub const LEN: usize = 12;

    /// Reads the preamble of a peer that should have this role.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Protocol`], saying what was seen, where the peer does not speak lpc, is no `peer`, speaks
    /// no version of ours, or announces a body over [`MAX_LEN`], or [`MAX_CLIENT_LEN`].
    pub fn decode(bytes: &[u8; Self::LEN], peer: Role) -> Result<Self> {
        let refuse = |message: String| Err(Error::new(ErrorKind::Protocol, message));
        let [m0, m1, m2, m3, role, min, max, _, l0, l1, l2, l3] = *bytes;
        if [m0, m1, m2, m3] != MAGIC {
            return refuse(format!(
                "it does not speak lpc: its first bytes are \"{}\"",
                bytes.escape_ascii()
            ));
        }
        if role != peer.byte() {
            return refuse(format!("it speaks lpc, but it is no {peer}"));
        }
        let version = max.min(VERSIONS.1);
        if version < min.max(VERSIONS.0) {
            let (ours_min, ours_max) = VERSIONS;
            return refuse(format!("it speaks lpc {min} to {max}, this build {ours_min} to {ours_max}"));
        }
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        // A client has no methods to tell of.
        let limit = if peer == Role::Client { MAX_CLIENT_LEN } else { MAX_LEN };
        if len > limit {
            return refuse(format!("its hello of {len} bytes is over the limit of {limit}"));
        }
        Ok(Self { version, is_newer: max > VERSIONS.1, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHODS: [Method; 2] = [Method::new("put"), Method::new("get")];

    fn preamble(hello: &[u8]) -> [u8; Preamble::LEN] {
        hello[..Preamble::LEN].try_into().unwrap()
    }

    /// What `bytes` announce, and the body that follows.
    fn split(bytes: &[u8], peer: Role) -> (Preamble, &[u8]) {
        let preamble = Preamble::decode(&preamble(bytes), peer).unwrap();
        (preamble, &bytes[Preamble::LEN..])
    }

    #[test]
    fn a_hello_says_the_same_on_the_other_side() {
        let client = ClientHello::new("Documents", &Limits::default());
        let bytes = client.encode();
        let (preamble, body) = split(&bytes, Role::Client);
        assert_eq!((preamble.version, preamble.is_newer, preamble.len), (VERSIONS.1, false, body.len()));
        assert_eq!(ClientHello::decode(preamble, body).unwrap(), client);

        let offer = Offer::new("Documents", &METHODS, &Limits::default()).with_fingerprints(&[7, u64::MAX]);
        let refusal = ServerHello::refusal(&Error::new(ErrorKind::ResourceExhausted, "no room"));
        for server in [ServerHello::Offer(offer), refusal] {
            let bytes = server.encode();
            let (preamble, body) = split(&bytes, Role::Server);
            assert_eq!(ServerHello::decode(preamble, body).unwrap(), server);
        }
    }

    #[test]
    fn a_refusal_of_any_length_is_told() {
        let reason = Error::new(ErrorKind::PermissionDenied, "no, ".repeat(1 << 20));
        let bytes = ServerHello::refusal(&reason).encode();
        let (preamble, body) = split(&bytes, Role::Server);
        let error = ServerHello::decode(preamble, body).unwrap().into_offer().unwrap_err();
        assert!(error.is_permission_denied() && !error.may_have_run());
        assert!(error.to_string().starts_with("the server refuses the connection: no, no, "));
    }

    #[test]
    fn of_two_limits_the_smaller_one_holds() {
        let wide = Limits {
            max_message: 20,
            pool: 21,
            max_segments: 22,
            max_blocks: 23,
            max_objects: 24,
            lent: 25,
            max_calls: 26,
            max_depth: 27,
            quick_lane: true,
        };
        let narrow = Limits {
            max_message: 10,
            pool: 11,
            max_segments: 12,
            max_blocks: 13,
            max_objects: 14,
            lent: 15,
            max_calls: 16,
            max_depth: 17,
            quick_lane: false,
        };
        let told = PeerLimits::from(&narrow).narrow(&wide);
        assert_eq!(told, Limits { max_blocks: 23, max_calls: 26, ..narrow }, "those two are one's own");
        assert_eq!(PeerLimits::from(&wide).narrow(&narrow), narrow);
    }

    #[test]
    fn what_a_newer_version_appends_is_passed_over() {
        let hello = ClientHello::new("Documents", &Limits::default());
        let mut bytes = hello.encode();
        bytes.extend_from_slice(b"news");
        let (preamble, body) = split(&bytes, Role::Client);
        assert_eq!(ClientHello::decode(preamble, body).unwrap_err().kind(), ErrorKind::Protocol);
        bytes[6] += 1;
        let (preamble, body) = split(&bytes, Role::Client);
        assert!(preamble.is_newer);
        assert_eq!(ClientHello::decode(preamble, body).unwrap(), hello);
    }

    #[test]
    fn a_hello_that_announces_more_than_it_has_does_not_decode() {
        let preamble = Preamble { version: VERSIONS.1, is_newer: false, len: 0 };
        // An offer of a service without a name, with as many methods as a sequence can have.
        let many = [&[0, 0][..], &[0xff; 9], &[1]].concat();
        // And one whose name is as long.
        let long = [&[0][..], &[0xff; 9], &[1]].concat();
        for body in [many, long, vec![2], vec![]] {
            let error = ServerHello::decode(preamble, &body).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol, "{body:?}");
        }
    }

    #[test]
    fn peers_that_speak_something_else_are_told_apart() {
        let error = |bytes: &[u8; 12], peer| Preamble::decode(bytes, peer).unwrap_err().to_string();
        assert!(error(b"HTTP/1.1 400", Role::Server).contains("HTTP/1.1 400"));
        let hello = preamble(&ClientHello::new("Documents", &Limits::default()).encode());
        assert!(error(&hello, Role::Server).contains("no server"));
        let mut newer = hello;
        newer[5..7].copy_from_slice(&[7, 9]);
        assert!(error(&newer, Role::Client).contains("lpc 7 to 9, this build 2 to 2"));
        let mut huge = hello;
        huge[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(error(&huge, Role::Client).contains("over the limit"));
    }

    #[test]
    fn methods_are_found_by_name() {
        let offer = Offer::new("Documents", &METHODS, &Limits::default());
        let wanted = [Method::new("get"), Method::new("remove"), Method::new("put")];
        let found = offer.resolve("Documents", &wanted, &[0; 3]).unwrap();
        assert_eq!(found, [Found::Same(1), Found::Nowhere, Found::Same(0)]);
        assert_eq!(offer.resolve("Images", &wanted, &[0; 3]).unwrap_err().kind(), ErrorKind::WrongService);
    }

    #[test]
    fn methods_of_other_fingerprints_are_different_unless_one_is_unknown() {
        let offer = Offer::new("Documents", &METHODS, &Limits::default()).with_fingerprints(&[7, 0]);
        let resolve = |fingerprints| offer.resolve("Documents", &METHODS, fingerprints).unwrap();
        assert_eq!(resolve(&[7, 9]), [Found::Same(0), Found::Same(1)]);
        assert_eq!(resolve(&[8, 0]), [Found::Different(0), Found::Same(1)]);
        assert_eq!(resolve(&[0, 9]), [Found::Same(0), Found::Same(1)]);
    }

    #[test]
    fn no_method_has_the_number_of_the_question_for_a_form() {
        let mut methods = vec![Method::new("other"); usize::from(FORM)];
        methods.push(Method::new("last"));
        let offer = Offer::new("Documents", &methods, &Limits::default());
        assert_eq!(offer.resolve("Documents", &[Method::new("last")], &[0]).unwrap(), [Found::Nowhere]);
    }
}
