//! Many callers, few calls in flight.

use crate::service::{Client, DRIVERS, Plain, ScaleService};

#[test]
fn many_threads_with_few_permits_all_get_their_turn() {
    let directory = tempfile::tempdir().unwrap();
    let port = directory.path().join("port");
    let server = lpc::blocking::Server::bind(&port).unwrap();
    let handle = server.handle();
    let serving = std::thread::spawn(move || server.serve::<ScaleService, _>(Plain));
    for driver in DRIVERS {
        for permits in [1, 3, 20] {
            let client = Client::connect_with(driver, &port, permits);
            std::thread::scope(|scope| {
                for thread in 0..200 {
                    let client = &client;
                    scope.spawn(move || {
                        for call in 0..3 {
                            assert_eq!(client.add(thread, call).unwrap(), thread + call);
                        }
                    });
                }
            });
        }
    }
    handle.shutdown();
    serving.join().unwrap().unwrap();
}
