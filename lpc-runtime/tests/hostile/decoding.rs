//! Bodies that are no values, or would be enormous ones. Each other one stands in shared memory.

use lpc::ErrorKind::Decode;

use crate::peer::{MIB, Peer, at_start, encoded, memfd_of, segment_seals};
use crate::siege::End::Fails;
use crate::vault::Thing;

attacks! { Greeted;
    nothing_at_all: both, Fails(Decode), |peer| spoil(peer, b"");
    text_of_2_to_the_60_bytes: both, Fails(Decode), |peer| spoil(peer, &huge(&Thing::Text(String::new())));
    words_2_to_the_60: both, Fails(Decode), |peer| spoil(peer, &huge(&Thing::Words(Vec::new())));
    words_of_a_million_that_are_not_there: both, Fails(Decode), |peer| {
        spoil(peer, &ending(&Thing::Words(Vec::new()), &[0xc0, 0x84, 0x3d]));
    };
    entries_2_to_the_60: both, Fails(Decode), |peer| spoil(peer, &huge(&Thing::Map([].into())));
    loans_2_to_the_60: both, Fails(Decode), |peer| spoil(peer, &huge(&Thing::Loans(Vec::new())));
    elements_without_bytes_2_to_the_60: both, Fails(Decode), |peer| spoil(peer, &huge(&Thing::Units(Vec::new())));
    elements_without_bytes_2_to_the_64: both, Fails(Decode), |peer| {
        spoil(peer, &ending(&Thing::Units(Vec::new()), &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]));
    };
    nested_a_hundred_thousand_deep: both, Fails(Decode), |peer| {
        let deep = encoded(&Thing::Deep(Box::new(Thing::Nothing)))[0];
        spoil(peer, &[deep; 100_000]);
    };
    trailing_bytes: both, Fails(Decode), |peer| spoil(peer, &[0, 1]);
    a_mib_of_trailing_bytes: both, Fails(Decode), |peer| spoil(peer, &vec![0; MIB as usize - 1]);
    cut_short: both, Fails(Decode), |peer| {
        let text = encoded(&Thing::Text("some text".to_owned()));
        spoil(peer, &text[..text.len() - 1]);
    };
    text_that_is_none: both, Fails(Decode), |peer| spoil(peer, &ending(&Thing::Text("a".to_owned()), b"\xff"));
    half_a_character: both, Fails(Decode), |peer| spoil(peer, &ending(&Thing::Text("a".to_owned()), b"\xc3"));
    a_character_that_is_none: both, Fails(Decode), |peer| {
        spoil(peer, &[&encoded(&Thing::Letter('a'))[..1], &[3, 0xed, 0xa0, 0x80]].concat());
    };
    a_bool_that_is_none: both, Fails(Decode), |peer| spoil(peer, &ending(&Thing::Flag(true), &[2]));
    an_option_that_is_none: both, Fails(Decode), |peer| spoil(peer, &ending(&Thing::Maybe(None), &[2]));
    a_variant_that_there_is_not: both, Fails(Decode), |peer| spoil(peer, &[99]);
    a_variant_without_end: both, Fails(Decode), |peer| spoil(peer, &[0xff; 20]);
    a_loan_that_is_none: both, Fails(Decode), |peer| {
        let loan = encoded(&Thing::Loan(vec![0].into()))[0];
        spoil(peer, &[loan, 2, 0]);
    };
}

fn spoil(peer: &mut Peer, thing: &[u8]) {
    if peer.turn.is_multiple_of(2) {
        return peer.pass(thing, &[]);
    }
    let body = peer.body(thing);
    peer.segment(0, MIB, memfd_of(&body, MIB, segment_seals()));
    peer.pass_in(at_start(0, body.len() as u64), &[]);
}

/// A value whose last byte is replaced.
fn ending(thing: &Thing, last: &[u8]) -> Vec<u8> {
    let mut bytes = encoded(thing);
    bytes.pop();
    bytes.extend_from_slice(last);
    bytes
}

/// A value that ends with its length, which is made 2^60; some bytes follow.
fn huge(thing: &Thing) -> Vec<u8> {
    let length = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
    [&ending(thing, &length)[..], &[0; 1000]].concat()
}
