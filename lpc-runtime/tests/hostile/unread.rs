//! Clients that read nothing of what they asked for: their results would stay in shared memory, and their
//! sockets never get full.

use std::time::Duration;

use crate::log;
use crate::peer::{MIB, Peer, encoded};
use crate::quick::{go_on_in, ring};
use crate::service::DRIVERS;
use crate::siege::end;
use crate::vault::{AnyVault, Knobs, Vault};

/// Guards against hangs.
const GUARD: Duration = Duration::from_secs(30);

/// Clients that do the same.
const CLIENTS: usize = 4;

#[test]
fn clients_that_read_no_result_are_disconnected_and_those_that_keep_theirs_are_not() {
    let ask: [fn(&mut Peer); 3] = [
        // A result in a block.
        |peer| _ = peer.call("make", &encoded(&(MIB, 7_u8)), &[]),
        // A loan.
        |peer| _ = peer.call("lend", &encoded(&(MIB, 7_u8)), &[]),
        // A result in a block, of which the ring tells.
        |peer| {
            let call = peer.frame("make", &encoded(&(MIB, 7_u8)), None, &[]);
            go_on_in(peer, ring(&[&call]));
        },
    ];
    for driver in DRIVERS {
        let knobs = Knobs { stall: Some(400), ..Knobs::QUICK };
        let server = Vault::start(driver, knobs);
        let honest: Vec<_> = DRIVERS
            .into_iter()
            .flat_map(|driver| [Knobs::QUICK, Knobs::default()].map(|knobs| (driver, knobs)))
            .map(|(driver, knobs)| {
                let client = AnyVault::connect_with(driver, server.port(), knobs).unwrap();
                let kept = client.lend(MIB, 1).unwrap();
                assert!(client.make(MIB, 2).unwrap() == vec![2; MIB as usize]);
                (client, kept)
            })
            .collect();
        for (way, ask) in ask.into_iter().enumerate() {
            let mut peers: Vec<_> = (0..CLIENTS).map(|_| Peer::connect(server.port())).collect();
            peers.iter_mut().for_each(ask);
            for peer in &peers {
                assert!(peer.is_hung_up_on(GUARD), "{driver:?} goes on with one that reads nothing ({way})");
            }
        }
        for (client, kept) in honest {
            assert_eq!(client.length(b"abc").unwrap(), 3);
            assert!(kept.iter().all(|byte| *byte == 1));
        }
        let log = end(server.process, &["end"]);
        assert_eq!(log::count(&log, "connection closed"), 0, "they have not broken the protocol: {log:#?}");
    }
}
