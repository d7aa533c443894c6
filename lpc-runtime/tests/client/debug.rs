//! What a client's `Debug` shows.

use lpc_core::frame::Kind;

use crate::raw::Listener;
use crate::service::{Client, DRIVERS};

#[test]
fn it_says_service_peer_and_connection_and_nothing_of_what_was_called() {
    for driver in DRIVERS {
        let listener = Listener::bind();
        std::thread::scope(|scope| {
            let serving = scope.spawn(|| {
                let mut server = listener.accept();
                let call = server.next(&[Kind::Call]);
                server.reply(call.call, 424_242);
                server
            });
            let client = Client::connect(driver, &listener.port);
            assert_eq!(client.add(313_131, 111_111).unwrap(), 424_242);
            let server = serving.join().unwrap();
            let text = format!("{client:?}");
            assert!(text.contains("Scale") && text.contains("is_connected: true"), "{text}");
            assert!(text.contains(&format!("pid: {}", std::process::id())), "{text}");
            assert!(!text.contains("313131") && !text.contains("424242") && text.len() < 300, "{text}");
            drop(server);
            let mut turns = 0;
            while !format!("{client:?}").contains("is_connected: false") {
                turns += 1;
                assert!(turns < 60_000, "{driver:?}: a server that is gone");
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
    }
}
