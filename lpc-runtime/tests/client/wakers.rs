//! Wakers of tasks that wait for a client: to drop the last one of a task drops its future, which may hold
//! calls and loans of the same connection. So none is dropped, or woken, under a lock.

use std::pin::pin;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use lpc::Shared;

use crate::GUARD;
use crate::raw::{Listener, Server};
use crate::service::{Client, Driver, POOL, RUNTIME, ScaleAsyncClient};

/// What is done when the last waker of a task is dropped, or woken.
struct Task(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Task {
    fn end(&self) {
        let ends = self.0.lock().unwrap().take();
        if let Some(ends) = ends {
            ends();
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.end();
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.end();
    }
}

/// A waker of a task that has a loan, and uses the client as it ends.
fn waker(client: &ScaleAsyncClient, ended: &Arc<Mutex<u32>>) -> Waker {
    let (client, ended) = (client.clone(), Arc::clone(ended));
    let loan: Shared<[u8]> = RUNTIME.block_on(client.client().loan(10)).unwrap().freeze();
    let ends = move || {
        assert!(client.client().is_connected());
        drop(loan);
        *ended.lock().unwrap() += 1;
    };
    Waker::from(Arc::new(Task(Mutex::new(Some(Box::new(ends))))))
}

/// Polls a future that waits by two tasks, each of which then ends, and drops it. How many have ended.
fn wait_by_two(client: &ScaleAsyncClient, waits: impl Future) -> [u32; 2] {
    let ended = Arc::default();
    let _guard = RUNTIME.enter();
    let [first, second] = [waker(client, &ended), waker(client, &ended)];
    let after_first;
    {
        let mut waits = pin!(waits);
        for waker in [first, second] {
            assert!(matches!(waits.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending));
        }
        after_first = *ended.lock().unwrap();
    }
    [after_first, *ended.lock().unwrap()]
}

/// A thread that waits for its own lock does so for ever.
fn in_time(what: &str, wait: impl FnOnce() -> [u32; 2] + Send + 'static) {
    let (sender, done) = channel();
    let waiting = std::thread::spawn(move || sender.send(wait()).unwrap());
    let ended = done.recv_timeout(GUARD).unwrap_or_else(|error| panic!("{what}: {error}"));
    waiting.join().unwrap();
    assert_eq!(ended, [1, 2], "{what}");
}

/// A client of a server that answers nothing.
fn connected(calls: u32) -> (ScaleAsyncClient, Server) {
    let listener = Listener::bind();
    let port = listener.port.clone();
    let server = std::thread::spawn(move || listener.accept());
    let Client::Tokio(client) = Client::connect_with(Driver::Tokio, &port, calls) else { unreachable!() };
    (client, server.join().unwrap())
}

#[test]
fn that_waits_for_an_answer() {
    let (client, _server) = connected(16);
    in_time("an answer", move || wait_by_two(&client, client.add(1, 2)));
}

#[test]
fn that_waits_for_a_permit() {
    let (client, _server) = connected(1);
    in_time("a permit", move || {
        let mut first = pin!(client.add(1, 2));
        let _guard = RUNTIME.enter();
        assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        wait_by_two(&client, client.add(3, 4))
    });
}

#[test]
fn that_waits_for_room() {
    let (client, _server) = connected(16);
    in_time("room", move || {
        let _loan = RUNTIME.block_on(client.client().loan::<u8>(POOL * 3 / 4)).unwrap();
        wait_by_two(&client, client.client().loan::<u8>(POOL * 3 / 4))
    });
}
