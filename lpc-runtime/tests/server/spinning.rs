//! What a server's thread does while it waits for several clients.

use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use lpc_core::frame;
use tokio::runtime::Builder;

use crate::service::{ADD, Gate, asynchronous};
use crate::{GUARD, eventually, raw};

/// A client that says it runs on a CPU which this machine does not have: the server may spin for it.
fn connect(port: &Path) -> UnixStream {
    let mut stream = raw::connect(port);
    stream.write_all(&frame::at(1 << 20)).unwrap();
    stream
}

fn call(stream: &mut UnixStream, id: u64) {
    stream.write_all(&raw::call(ADD, id, &(1_u64, 2_u64))).unwrap();
    let (header, body) = raw::answer(&mut BufReader::new(&*stream));
    assert_eq!((header.call.as_u64(), &body[..]), (id, &[0, 3][..]), "`Ok(3)`");
}

/// With a spin budget that never ends, a connection that spun by itself would never sleep.
#[test]
fn one_of_a_threads_connections_spins_and_the_others_sleep() {
    let directory = tempfile::tempdir().unwrap();
    let port = directory.path().join("port");
    let server = lpc::Server::builder().spin(10 * GUARD).bind(&port).unwrap();
    let handle = server.handle();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let serving = thread::spawn(move || {
        runtime.block_on(server.serve::<asynchronous::DeskService, _>(Gate::default()))
    });

    let mut alone = connect(&port);
    for id in 1..100 {
        call(&mut alone, id);
    }
    let before = handle.stats().waits;
    // Until it says where it runs nobody spins for it.
    assert!(before.found > 80 && before.slept < 10, "{before:?}");

    let mut clients = [alone, connect(&port), connect(&port)];
    for id in 100..300 {
        clients.iter_mut().for_each(|client| call(client, id));
    }
    let waits = handle.stats().waits;
    assert!(waits.slept - before.slept > 200, "{waits:?}");
    assert!(waits.found - before.found > 50, "{waits:?}");

    // The ends of those that sleep and of the one that spins are seen.
    for left in [2, 1, 0] {
        let [first, ..] = &mut clients[2 - left..] else { unreachable!() };
        first.shutdown(std::net::Shutdown::Both).unwrap();
        eventually("a connection that has ended is gone", || handle.connections() == left);
    }
    handle.shutdown();
    serving.join().unwrap().unwrap();
}
