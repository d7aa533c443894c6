//! Calls at the end of a thread, and of the process: from destructors of thread-locals, and from atexit(3).
#![allow(unsafe_code, reason = "atexit(3)")]

use std::cell::Cell;
use std::io::Write;
use std::pin::pin;
use std::process::Command;
use std::sync::{LazyLock, Mutex, OnceLock};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Instant;

use lpc::{Context, SharedMut};

use crate::GUARD;
use crate::service::{Gate, asynchronous, blocking};

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
});

/// A client of each driver.
static CLIENTS: LazyLock<(blocking::DeskClient, asynchronous::DeskClient)> = LazyLock::new(|| {
    let blocking = blocking::DeskClient::builder().in_process(Gate::default()).unwrap();
    let asynchronous = asynchronous::DeskClient::builder().in_process(Gate::default());
    (blocking, RUNTIME.block_on(asynchronous).unwrap())
});

/// What comes of a call of each client.
fn sums() -> [u64; 2] {
    use asynchronous::Desk as _;
    let (blocking, asynchronous) = &*CLIENTS;
    // No runtime can be entered any more, but a future can be polled.
    let mut future = pin!(asynchronous.add(20, 23));
    let until = Instant::now() + GUARD;
    let second = loop {
        match future.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())) {
            Poll::Ready(sum) => break sum.unwrap(),
            Poll::Pending => assert!(Instant::now() < until, "it is not answered"),
        }
        std::thread::yield_now();
    };
    [blocking::Desk::add(blocking, 20, 22).unwrap(), second]
}

/// Calls when it is dropped.
#[derive(Default)]
struct Late(Cell<bool>);

static SEEN: Mutex<Vec<[u64; 2]>> = Mutex::new(Vec::new());

impl Drop for Late {
    fn drop(&mut self) {
        if self.0.get() {
            assert_eq!(Context::current().deadline(), None);
            assert_eq!(SharedMut::<[u8]>::for_caller(5000).len(), 5000);
            SEEN.lock().unwrap().push(sums());
        }
    }
}

thread_local! {
    static BEFORE: Late = Late::default();
    static AFTER: Late = Late::default();
}

#[test]
fn the_destructor_of_a_thread_local_calls() {
    let thread = std::thread::spawn(|| {
        // One of them is dropped after all that calls keep for their thread, whatever the order is.
        BEFORE.with(|late| late.0.set(true));
        assert_eq!(sums(), [42, 43]);
        AFTER.with(|late| late.0.set(true));
    });
    thread.join().unwrap();
    assert_eq!(*SEEN.lock().unwrap(), [[42, 43]; 2]);
}

/// Tells the other process of itself, which ends by exit(3).
const EXITS: &str = "LPC_TEST_EXITS";

static OUTPUT: OnceLock<std::fs::File> = OnceLock::new();

extern "C" fn call_at_exit() {
    let sums = sums();
    write!(OUTPUT.get().unwrap(), "at exit {sums:?}").unwrap();
}

#[test]
fn a_handler_of_atexit_calls() {
    if let Some(path) = std::env::var_os(EXITS) {
        OUTPUT.set(std::fs::File::create(path).unwrap()).unwrap();
        assert_eq!(sums(), [42, 43]);
        // SAFETY: the handler does not unwind beyond itself (that would abort), and what it uses is static.
        let result = unsafe { nix::libc::atexit(call_at_exit) };
        assert_eq!(result, 0);
        std::process::exit(0);
    }
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("output");
    let mut other = Command::new(std::env::current_exe().unwrap());
    other.args(["--exact", "exits::a_handler_of_atexit_calls", "--nocapture"]).env(EXITS, &output);
    let ended = other.output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(std::fs::read_to_string(&output).unwrap(), "at exit [42, 43]");
}
