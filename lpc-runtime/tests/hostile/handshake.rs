//! Peers that do not say who they are, or too much.

use std::net::Shutdown;
use std::time::Duration;

use lpc::ErrorKind::{Disconnected, Protocol, TimedOut, UnknownMethod, WrongService};
use lpc_core::handshake::{ClientHello, Offer, Preamble};
use lpc_core::receive::Role;
use lpc_core::{Limits, Method};

use crate::peer::{MIB, Peer, sealed_segment, server_hello};
use crate::siege::End::{Borne, CutOff, Fails, Leaves};

attacks! { Stranger;
    silence: both, CutOff(TimedOut), |_| {};
    a_flood_of_connections_that_say_nothing: server, CutOff(TimedOut), |peer| {
        for _ in 0..8 {
            peer.also_connect();
        }
    };
    a_peer_that_hangs_up_at_once: both, Leaves(Disconnected), |peer| peer.shut_down(Shutdown::Both);
    half_a_preamble_and_silence: both, CutOff(TimedOut), |peer| peer.send(&hello(peer)[..5]);
    half_a_hello_and_silence: both, CutOff(TimedOut), |peer| {
        let hello = hello(peer);
        peer.send(&hello[..hello.len() - 5]);
    };
    half_a_hello_and_the_end: both, CutOff(Disconnected), |peer| {
        peer.send(&hello(peer)[..20]);
        peer.shut_down(Shutdown::Write);
    };
    one_byte_now_and_then: both, CutOff(TimedOut), |peer| {
        peer.dribble(hello(peer), Duration::from_millis(100));
    };
    nothing_but_noise: both, CutOff(Protocol), |peer| peer.send(&[0xa5; 10_000]);
    another_protocol: both, CutOff(Protocol), |peer| peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    the_other_role: both, CutOff(Protocol), |peer| altered(peer, 4, if peer.role() == Role::Client { b's' } else { b'c' });
    a_version_that_there_is_not: both, CutOff(Protocol), |peer| {
        let mut hello = hello(peer);
        hello[5..7].copy_from_slice(&[200, 201]);
        peer.send(&hello);
    };
    versions_the_wrong_way_round: both, CutOff(Protocol), |peer| altered(peer, 5, 9);
    a_hello_of_4_gib: both, CutOff(Protocol), |peer| announced(peer, u32::MAX);
    /// As long as one may be; the rest does not come.
    a_hello_of_a_mib_and_silence: both, CutOff(TimedOut), |peer| announced(peer, 1 << 20);
    a_hello_that_does_not_decode: both, CutOff(Protocol), |peer| {
        let mut hello = hello(peer);
        hello[Preamble::LEN..].fill(0xff);
        peer.send(&hello);
    };
    /// The name is followed by the count of methods.
    a_hello_with_2_to_the_60_methods: both, CutOff(Protocol), |peer| {
        let mut hello = hello(peer)[..Preamble::LEN + 6].to_vec();
        hello.extend([0x80; 8]);
        hello.push(0x10);
        hello.extend([0; 100]);
        let len = (hello.len() - Preamble::LEN) as u32;
        hello[8..12].copy_from_slice(&len.to_le_bytes());
        peer.send(&hello);
    };
    with_descriptors: both, CutOff(Protocol), |peer| {
        peer.send_with_copies(&hello(peer), sealed_segment(MIB), 250);
        peer.send(&[0xa5; 100]);
    };
    another_service: client, CutOff(WrongService), |peer| peer.send(&server_hello("Images", &Limits::default()));
    no_methods: client, Fails(UnknownMethod), |peer| {
        peer.send(&Offer::new("Vault", &[], &Limits::default()).encode());
    };
    methods_by_the_ten_thousand: client, Fails(UnknownMethod), |peer| {
        let methods = vec![Method::new("m"); 10_000];
        peer.send(&Offer::new("Vault", &methods, &Limits::default()).encode());
    };
    limits_of_nothing: client, Fails(lpc::ErrorKind::TooLarge), |peer| {
        let nothing = Limits { max_message: 0, pool: 0, max_segments: 0, max_objects: 0, lent: 0, ..Limits::default() };
        peer.send(&server_hello("Vault", &nothing));
    };
}

mod greeted {
    use super::*;

    attacks! { Greeted;
        a_second_hello: both, CutOff(Protocol), |peer| peer.send(&hello(peer));
        limits_without_end: server, Borne, |peer| {
            let limits = Limits { max_message: u64::MAX, pool: u64::MAX, lent: u64::MAX, ..Limits::default() };
            let limits = Limits { max_segments: u32::MAX, max_objects: u32::MAX, ..limits };
            *peer = Peer::connect_with(&peer.port(), &limits);
            peer.call("make", &crate::peer::encoded(&(100_000_u64, 7_u8)), &[]);
            peer.answer();
        };
    }
}

/// What an honest peer would say.
fn hello(peer: &Peer) -> Vec<u8> {
    match peer.role() {
        Role::Client => ClientHello::new("Vault", &Limits::default()).encode(),
        Role::Server => server_hello("Vault", &Limits::default()),
    }
}

fn altered(peer: &mut Peer, at: usize, byte: u8) {
    let mut hello = hello(peer);
    hello[at] = byte;
    peer.send(&hello);
}

/// Says that its hello has this length, whatever it has.
fn announced(peer: &mut Peer, len: u32) {
    let mut hello = hello(peer);
    hello[8..12].copy_from_slice(&len.to_le_bytes());
    peer.send(&hello);
}
