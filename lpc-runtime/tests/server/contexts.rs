//! What an implementation waits for.

use crate::service::blocking::Desk;
use crate::service::{DRIVERS, Gate, Server};

#[test]
fn a_waker_goes_with_the_future_that_waited() {
    for driver in DRIVERS {
        let server = Server::start(driver, &Gate::default());
        let client = server.client();
        assert_eq!(client.wakers_kept().unwrap(), 0, "{driver:?}");
        drop(client);
        server.end();
    }
}
