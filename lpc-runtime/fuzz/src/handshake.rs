//! The first message of a peer is understood or refused, and says the same when it is said again.

use lpc_core::handshake::{ClientHello, FORM, Found, Offer, PeerLimits, Preamble, ServerHello, VERSIONS};
use lpc_core::receive::Role;
use lpc_core::{Limits, Method};

const METHODS: [Method; 3] = [Method::new("put"), Method::new("get"), Method::new("")];

/// A byte that chooses who is expected, then a preamble and a body.
pub fn run(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let role = if choice & 1 == 0 { Role::Server } else { Role::Client };
    let Some((preamble, body)) = data.split_first_chunk() else { return };
    let (preamble, body) = match Preamble::decode(preamble, role) {
        Ok(preamble) => {
            assert!((VERSIONS.0..=VERSIONS.1).contains(&preamble.version));
            (preamble, &body[..preamble.len.min(body.len())])
        }
        // A preamble is soon guessed wrong, and what is behind it is of interest all the same.
        Err(_) => (Preamble { version: VERSIONS.1, is_newer: choice & 4 != 0, len: body.len() }, body),
    };
    match role {
        Role::Client => {
            let Ok(hello) = ClientHello::decode(preamble, body) else { return };
            let again = hello.encode();
            let same = ClientHello::decode(announced(&again, role), &again[Preamble::LEN..]);
            assert_eq!(same.expect("our own"), hello);
            narrow(hello.limits);
        }
        Role::Server => {
            let Ok(hello) = ServerHello::decode(preamble, body) else { return };
            let again = hello.encode();
            let same = ServerHello::decode(announced(&again, role), &again[Preamble::LEN..]);
            assert_eq!(same.expect("our own"), hello);
            match hello.into_offer() {
                Ok(offer) => resolve(&offer, choice),
                Err(refusal) => assert!(!refusal.may_have_run()),
            }
        }
    }
}

/// What one of our own announces.
fn announced(hello: &[u8], role: Role) -> Preamble {
    let (preamble, body) = hello.split_first_chunk().expect("a whole preamble");
    let preamble = Preamble::decode(preamble, role).expect("our own");
    assert_eq!((preamble.is_newer, preamble.len), (false, body.len()));
    preamble
}

fn narrow(theirs: PeerLimits) {
    let ours = Limits::default();
    let narrow = theirs.narrow(&ours);
    assert!(narrow.max_message <= ours.max_message.min(theirs.max_message));
    assert!(narrow.pool <= ours.pool.min(theirs.pool) && narrow.lent <= ours.lent.min(theirs.lent));
}

fn resolve(offer: &Offer, choice: u8) {
    narrow(offer.limits);
    let service = if choice & 2 == 0 { offer.service.as_str() } else { "Documents" };
    let Ok(found) = offer.resolve(service, &METHODS, &[u64::from(choice), 0, 7]) else {
        assert_ne!(offer.service, service);
        return;
    };
    for (method, found) in METHODS.iter().zip(found) {
        match found {
            Found::Same(number) | Found::Different(number) => {
                assert_eq!(offer.methods[usize::from(number)].name, method.name());
            }
            Found::Nowhere => {
                let mut callable = offer.methods.iter().take(FORM.into());
                assert!(callable.all(|offered| offered.name != method.name()));
            }
        }
    }
}
