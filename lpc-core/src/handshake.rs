//! Who is there: the first message each way.
//!
//! ```text
//!  0       4      5     6     7   8            12
//!  | LPC!  | role | min | max | 0 | len        | len bytes: a Hello in the codec's format
//!  | magic | u8   | u8  | u8  |   | u32        |
//! ```
//!
//! The client speaks first, the server answers, and both go on in the highest version that both know. The preamble
//! never changes; a [`Hello`] may grow at its end, and what a newer version appends is passed over.

use serde::{Deserialize, Serialize};

use crate::codec::{self, Decoder};
use crate::error::WireError;
use crate::receive::Role;
use crate::{Error, ErrorKind, Limits, Method, Result};

/// The protocol versions that this build speaks: lowest and highest.
pub const VERSIONS: (u8, u8) = (1, 1);

/// Bytes of a hello's body at most.
pub const MAX_LEN: usize = 1 << 20;

/// The number of a method that every server has: it takes the number of another one, a `u16`, and returns the text of
/// that one's [form](crate::form::Form).
pub const FORM: u16 = u16::MAX;

/// Bytes of a client's at most.
pub const MAX_CLIENT_LEN: usize = 64 << 10;

const MAGIC: [u8; 4] = *b"LPC!";

/// What one side tells the other before the first call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The service that is served, or wanted.
    pub service: String,
    /// The names of the service's methods, in the order of their numbers on the wire. From a client: empty.
    pub methods: Vec<String>,
    /// `Limits::max_message` of the sender.
    pub max_message: u64,
    /// `Limits::pool` of the sender: what it is willing to map.
    pub pool: u64,
    /// `Limits::max_segments` of the sender.
    pub max_segments: u32,
    /// `Limits::max_objects` of the sender: how many it is willing to map.
    pub max_objects: u32,
    /// `Limits::lent` of the sender: how many bytes of objects it is willing to map.
    pub lent: u64,
    /// `Limits::quick_lane` of the sender.
    pub quick_lane: bool,
    /// For each method, in the same order, the hash of its argument and result formats; 0 where nothing is known of them.
    /// From a client: empty.
    pub fingerprints: Vec<u64>,
    /// Why the server does not take the connection, which it closes then.
    pub refusal: Option<WireError>,
}

impl Hello {
    /// What a client of `service` says.
    #[must_use]
    pub fn client(service: &str, limits: &Limits) -> Self {
        Self {
            service: service.to_owned(),
            methods: Vec::new(),
            max_message: limits.max_message,
            pool: limits.pool,
            max_segments: limits.max_segments,
            max_objects: limits.max_objects,
            lent: limits.lent,
            quick_lane: limits.quick_lane,
            fingerprints: Vec::new(),
            refusal: None,
        }
    }

    /// What a server of `service` answers, with nothing known of its methods but their names.
    #[must_use]
    pub fn server(service: &str, methods: &[Method], limits: &Limits) -> Self {
        let fingerprints = vec![0; methods.len()];
        let methods = methods.iter().map(|method| method.name().to_owned()).collect();
        Self { methods, fingerprints, ..Self::client(service, limits) }
    }

    /// The same with the fingerprints of its methods, in their order.
    #[must_use]
    pub fn with_fingerprints(self, fingerprints: Vec<u64>) -> Self {
        Self { fingerprints, ..self }
    }

    /// Preamble and body, ready to be sent.
    ///
    /// # Panics
    ///
    /// If the names of service and methods take more than [`MAX_LEN`] bytes.
    #[must_use]
    pub fn encode(&self, role: Role) -> Vec<u8> {
        let mut bytes = vec![0; Preamble::LEN];
        codec::encode(self, &mut bytes).expect("strings and numbers encode");
        let len = bytes.len() - Preamble::LEN;
        assert!(
            len <= MAX_LEN,
            "the method table of {} takes {len} bytes, the limit is {MAX_LEN}",
            self.service
        );
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&[role.byte(), VERSIONS.0, VERSIONS.1, 0]);
        bytes[8..12].copy_from_slice(&(len as u32).to_le_bytes());
        bytes
    }

    /// The hello in `body`, the bytes that its preamble announced.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Protocol`] where they are none.
    pub fn decode(body: &[u8]) -> Result<Self> {
        Decoder::new(body).next().map_err(|error| {
            Error::new(ErrorKind::Protocol, "the peer's hello does not decode").with_source(error)
        })
    }

    /// For each of a client's methods how it is found at this server, by name. `fingerprints` are the client's, in the same
    /// order.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::WrongService`] where the server serves another service.
    /// - [`ErrorKind::Protocol`] where it has not as many fingerprints as methods.
    pub fn resolve(&self, service: &str, methods: &[Method], fingerprints: &[u64]) -> Result<Vec<Found>> {
        if self.service != service {
            let message = format!("it serves `{}`, not `{service}`", self.service.escape_debug());
            return Err(Error::new(ErrorKind::WrongService, message));
        }
        if self.fingerprints.len() != self.methods.len() {
            let (fingerprints, methods) = (self.fingerprints.len(), self.methods.len());
            let message = format!("its hello has {fingerprints} fingerprints for {methods} methods");
            return Err(Error::new(ErrorKind::Protocol, message));
        }
        let find = |(method, ours): (&Method, &u64)| {
            let index = self.methods.iter().position(|name| name == method.name());
            let number = index.and_then(|index| Some((index, u16::try_from(index).ok()?)));
            match number {
                None | Some((_, FORM)) => Found::Nowhere,
                Some((index, number)) => {
                    let theirs = self.fingerprints[index];
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

    /// The limits for what is sent to a peer that said this: the narrower of its and ours.
    #[must_use]
    pub fn narrow(&self, limits: &Limits) -> Limits {
        Limits {
            max_message: limits.max_message.min(self.max_message),
            pool: limits.pool.min(self.pool),
            max_segments: limits.max_segments.min(self.max_segments),
            max_objects: limits.max_objects.min(self.max_objects),
            lent: limits.lent.min(self.lent),
            quick_lane: limits.quick_lane && self.quick_lane,
            ..*limits
        }
    }
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
    /// [`ErrorKind::Protocol`], saying what was seen, where the peer does not speak lpc, is no `peer`, speaks no
    /// version of ours, or announces a body over [`MAX_LEN`], or [`MAX_CLIENT_LEN`].
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
        Ok(Self { version, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHODS: [Method; 2] = [Method::new("put"), Method::new("get")];

    fn preamble(hello: &[u8]) -> [u8; Preamble::LEN] {
        hello[..Preamble::LEN].try_into().unwrap()
    }

    #[test]
    fn a_hello_says_the_same_on_the_other_side() {
        let hello = Hello::server("Documents", &METHODS, &Limits::default());
        let bytes = hello.encode(Role::Server);
        let read = Preamble::decode(&preamble(&bytes), Role::Server).unwrap();
        assert_eq!((read.version, read.len), (1, bytes.len() - Preamble::LEN));
        assert_eq!(Hello::decode(&bytes[Preamble::LEN..]).unwrap(), hello);
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
            quick_lane: false,
        };
        let told = Hello::client("Documents", &narrow).narrow(&wide);
        assert_eq!(told, Limits { max_blocks: 23, max_calls: 26, ..narrow }, "those two are one's own");
        assert_eq!(Hello::client("Documents", &wide).narrow(&narrow), narrow);
    }

    #[test]
    fn what_a_newer_version_appends_is_passed_over() {
        let hello = Hello::client("Documents", &Limits::default());
        let mut bytes = hello.encode(Role::Client);
        bytes.extend_from_slice(b"news");
        assert_eq!(Hello::decode(&bytes[Preamble::LEN..]).unwrap(), hello);
    }

    #[test]
    fn strangers_are_told_apart() {
        let error = |bytes: &[u8; 12], peer| Preamble::decode(bytes, peer).unwrap_err().to_string();
        assert!(error(b"HTTP/1.1 400", Role::Server).contains("HTTP/1.1 400"));
        let hello = preamble(&Hello::client("Documents", &Limits::default()).encode(Role::Client));
        assert!(error(&hello, Role::Server).contains("no server"));
        let mut newer = hello;
        newer[5..7].copy_from_slice(&[7, 9]);
        assert!(error(&newer, Role::Client).contains("lpc 7 to 9, this build 1 to 1"));
        let mut huge = hello;
        huge[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(error(&huge, Role::Client).contains("over the limit"));
    }

    #[test]
    fn methods_are_found_by_name() {
        let hello = Hello::server("Documents", &METHODS, &Limits::default());
        let wanted = [Method::new("get"), Method::new("remove"), Method::new("put")];
        let found = hello.resolve("Documents", &wanted, &[0; 3]).unwrap();
        assert_eq!(found, [Found::Same(1), Found::Nowhere, Found::Same(0)]);
        assert_eq!(hello.resolve("Images", &wanted, &[0; 3]).unwrap_err().kind(), ErrorKind::WrongService);
    }

    #[test]
    fn methods_of_other_fingerprints_are_different_unless_one_is_unknown() {
        let hello = Hello::server("Documents", &METHODS, &Limits::default()).with_fingerprints(vec![7, 0]);
        let resolve = |fingerprints| hello.resolve("Documents", &METHODS, fingerprints).unwrap();
        assert_eq!(resolve(&[7, 9]), [Found::Same(0), Found::Same(1)]);
        assert_eq!(resolve(&[8, 0]), [Found::Different(0), Found::Same(1)]);
        assert_eq!(resolve(&[0, 9]), [Found::Same(0), Found::Same(1)]);
    }

    #[test]
    fn a_server_has_as_many_fingerprints_as_methods() {
        for fingerprints in [vec![], vec![1], vec![1, 2, 3]] {
            let hello =
                Hello::server("Documents", &METHODS, &Limits::default()).with_fingerprints(fingerprints);
            assert_eq!(
                hello.resolve("Documents", &METHODS, &[0; 2]).unwrap_err().kind(),
                ErrorKind::Protocol
            );
        }
    }

    #[test]
    fn no_method_has_the_number_of_the_question_for_a_form() {
        let methods = vec!["other".to_owned(); usize::from(FORM)];
        let methods = methods.into_iter().chain(["last".to_owned()]).collect::<Vec<_>>();
        let fingerprints = vec![0; methods.len()];
        let hello = Hello { methods, fingerprints, ..Hello::client("Documents", &Limits::default()) };
        let found = hello.resolve("Documents", &[Method::new("last")], &[0]).unwrap();
        assert_eq!(found, [Found::Nowhere]);
    }
}
