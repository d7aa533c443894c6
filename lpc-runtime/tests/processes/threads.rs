//! The system has no thread for maintenance: what others wait for goes out all the same, also where this side
//! calls and answers nothing more.

use std::os::unix::net::UnixListener;
use std::process::Stdio;

use lpc_core::frame::{self, Kind};
use nix::errno::Errno;

use crate::fault::{FAULT, Fault, arm, disarm, is_permitted, supervise};
use crate::hostile::{MIB, Peer, at_start, loan, sealed_segment};
use crate::process::{PORT, Process, other, say, text, variable, within};
use crate::service::{DRIVERS, Driver, RUNTIME};
use crate::vault::{AnyVault, Knobs, Thing, Vault, blocking};

/// A `Thing` that is the first loan of its frame.
const LOAN: [u8; 3] = [10, 1, 0];

fn no_thread() -> String {
    Fault { call: "clone", errno: Errno::EAGAIN, first: 1, every: 1, count: u64::MAX }.to_string()
}

/// Whether this process has the thread of maintenance.
fn has_maintenance() -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok()).any(|name| {
        // Names of threads are cut.
        "lpc-maintenance".starts_with(name.trim_end()) && name.starts_with("lpc-m")
    })
}

/// Role: a client that is lent something, and lets go of it as it has no thread and calls nothing more.
pub fn call(driver: Driver) -> lpc::Result<()> {
    supervise()?;
    let client = AnyVault::connect(driver, &variable(PORT))?;
    arm();
    let look = || match &client {
        AnyVault::Blocking(client) => blocking::Vault::look(client, Thing::Nothing),
        AnyVault::Tokio(client) => RUNTIME.block_on(client.look(Thing::Nothing)),
    };
    drop(look()?);
    say("first");
    drop(look()?);
    say("second");
    assert!(!has_maintenance());
    std::io::stdin().read_line(&mut String::new())?;
    disarm();
    Ok(())
}

#[test]
fn a_client_without_threads_asks_again_and_gives_back_what_it_was_lent() {
    if !is_permitted() {
        return;
    }
    for driver in DRIVERS {
        let directory = tempfile::tempdir().unwrap();
        let port = directory.path().join("port");
        let listener = UnixListener::bind(&port).unwrap();
        let mut command = other("client_without_threads", driver);
        command.env(PORT, text(&port)).env(FAULT, no_thread());
        let mut process = Process::start(command.stdin(Stdio::piped()).stderr(Stdio::null()));
        let mut peer = within("a client without threads", move || {
            let mut peer = Peer::accept(&listener);
            // A result that cannot be read where it stands.
            let mut lost = frame::segment(0, MIB);
            frame::mark_without_descriptor(&mut lost);
            peer.send(&lost);
            peer.pass_in(at_start(0, 100), &[]);
            peer.wait_for(Kind::Resend);
            peer.pass(&[0], &[]);
            assert!(peer.is_asked());
            peer.segment(1, MIB, sealed_segment(MIB));
            peer.pass(&LOAN, &[at_start(1, 5000)]);
            peer.wait_for(Kind::Return);
            peer
        });
        assert_eq!([process.line(), process.line()], ["first", "second"]);
        process.tell("end");
        assert_ne!(process.line(), "failed 0", "it had no thread");
        assert_eq!(process.line(), "ended");
        assert!(peer.is_cut_off());
    }
}

#[test]
fn a_server_without_threads_gives_back_what_it_was_lent() {
    if !is_permitted() {
        return;
    }
    for driver in DRIVERS {
        let knobs = Knobs { is_trusting: true, ..Knobs::default() };
        let mut vault = Vault::start_failing(driver, &no_thread(), knobs);
        let client = vault.client(Driver::Blocking);
        client.length(b"warm").unwrap();
        let mut peer = Peer::connect(vault.port());
        vault.tell("arm");
        within("a server without threads", move || {
            peer.segment(0, MIB, sealed_segment(MIB));
            peer.call("keep", &loan(0), &[at_start(0, 5000)]);
            peer.answer().result();
            // By another connection.
            client.forget().unwrap();
            peer.wait_for(Kind::Return);
        });
        vault.process.tell("disarm");
        assert_ne!(vault.process.line(), "failed 0", "it had no thread");
    }
}
