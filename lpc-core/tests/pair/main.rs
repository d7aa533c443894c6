//! The protocol as a whole, without a socket: see [`pair`]. Here with stories of chance; a fuzz target of
//! lpc-runtime looks for more.

#![allow(unreachable_pub, reason = "the model is a fuzz target's, too")]

#[path = "../support/pair/mod.rs"]
mod pair;

use std::collections::BTreeSet;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_the_two_do_and_whichever_lies(story in proptest::collection::vec(any::<u8>(), 0..1500)) {
        pair::play(&story);
    }
}

/// What is tested is what happens: a model that never shuts down, or never fills a ring, tests nothing.
#[test]
fn in_a_few_thousand_stories_everything_happens() {
    let mut happened = BTreeSet::new();
    let mut state = 1_u64;
    for _ in 0..4000 {
        let story: Vec<u8> = (0..1500)
            .map(|_| {
                // xorshift64*
                state ^= state >> 12;
                state ^= state << 25;
                state ^= state >> 27;
                (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
            })
            .collect();
        happened.extend(pair::play(&story));
        if happened.len() == pair::EVENTS.len() {
            return;
        }
    }
    let missing: Vec<_> = pair::EVENTS.iter().filter(|event| !happened.contains(*event)).collect();
    panic!("never happened: {missing:?}");
}
