//! The first message of a peer is understood or refused, and says the same when it is said again.

use lpc_core::handshake::{FORM, Found, Hello, Preamble, VERSIONS};
use lpc_core::receive::Role;
use lpc_core::{Error, Limits, Method};

const METHODS: [Method; 3] = [Method::new("put"), Method::new("get"), Method::new("")];

/// A byte that chooses who is expected, then a preamble and a body.
pub fn run(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let role = if choice & 1 == 0 { Role::Server } else { Role::Client };
    let Some((preamble, body)) = data.split_first_chunk() else { return };
    let body = match Preamble::decode(preamble, role) {
        Ok(preamble) => {
            assert!((VERSIONS.0..=VERSIONS.1).contains(&preamble.version));
            &body[..preamble.len.min(body.len())]
        }
        // A preamble is soon guessed wrong, and what is behind it is of interest all the same.
        Err(_) => body,
    };
    let Ok(hello) = Hello::decode(body) else { return };
    let encoded = hello.encode(role);
    let (preamble, again) = encoded.split_first_chunk().expect("a whole preamble");
    assert_eq!(Preamble::decode(preamble, role).expect("our own").len, again.len());
    assert_eq!(Hello::decode(again).expect("our own"), hello);
    let ours = Limits::default();
    let narrow = hello.narrow(&ours);
    assert!(narrow.max_message <= ours.max_message.min(hello.max_message));
    assert!(narrow.pool <= ours.pool.min(hello.pool) && narrow.lent <= ours.lent.min(hello.lent));
    let service = if choice & 2 == 0 { hello.service.as_str() } else { "Documents" };
    match hello.resolve(service, &METHODS, &[u64::from(choice), 0, 7]) {
        Ok(found) => {
            for (method, found) in METHODS.iter().zip(found) {
                match found {
                    Found::Same(number) | Found::Different(number) => {
                        assert_eq!(hello.methods[usize::from(number)], method.name());
                    }
                    Found::Nowhere => {
                        assert!(hello.methods.iter().take(FORM.into()).all(|name| name != method.name()));
                    }
                }
            }
        }
        Err(error) => {
            assert!(hello.service != service || hello.fingerprints.len() != hello.methods.len(), "{error}");
        }
    }
    if let Some(refusal) = hello.refusal {
        let _ = Error::from(refusal).to_string();
    }
}
