//! System calls that fail, one at a time, under load: see [`fault`](crate::fault).

use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Stdio;
use std::sync::Barrier;
use std::thread;

use nix::errno::Errno;

use crate::fault::{CALLER, FAULT, Fault, arm, disarm, is_permitted, supervise};
use crate::process::{PORT, Process, other, say, variable, within};
use crate::rings::has_lane;
use crate::service::{DRIVERS, Driver};
use crate::vault::{AnyVault, Knobs, Vault};

/// What the connection has to be after such a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// The same connection goes on, and no call fails.
    Unharmed,
    /// The same connection goes on, and calls may have failed.
    Usable,
    /// A new connection works.
    New,
}

impl After {
    /// What came of the load meanwhile, afterwards, and afterwards through a new connection.
    fn check(self, armed: &str, again: &str, fresh: &str) {
        let is_unharmed = armed == "fine" || self != Self::Unharmed;
        let is_kept = again == "fine" || self == Self::New;
        assert!(is_unharmed && is_kept && fresh == "fine", "[{armed}], then [{again}], anew [{fresh}]");
    }
}

/// Each call with each errno that is tried. Not among them: what cannot be while a server calls and is called
/// (socketpair(2)), EAGAIN of a socket that has room, after which epoll(7) rightly reports nothing, and what
/// is a panic by the documentation, as of a `Shared` whose file cannot be read.
const FAULTS: [(&str, Errno, After); 39] = {
    use After::{New, Unharmed, Usable};
    [
        ("memfd_create", Errno::EMFILE, Usable),
        ("memfd_create", Errno::ENFILE, Usable),
        ("memfd_create", Errno::ENOMEM, Usable),
        ("ftruncate", Errno::ENOSPC, Usable),
        ("ftruncate", Errno::ENOMEM, Usable),
        ("fallocate", Errno::ENOSPC, Usable),
        ("fallocate", Errno::ENOMEM, Usable),
        ("mmap", Errno::ENOMEM, Usable),
        ("munmap", Errno::ENOMEM, New),
        ("madvise", Errno::ENOMEM, Unharmed),
        ("madvise", Errno::EINVAL, Unharmed),
        ("fcntl", Errno::EPERM, Usable),
        ("fcntl", Errno::EINVAL, New),
        ("fstat", Errno::ENOMEM, Usable),
        ("pread", Errno::EINTR, Unharmed),
        ("recvmsg", Errno::EINTR, Unharmed),
        ("recvmsg", Errno::ENOMEM, New),
        ("recvmsg", Errno::ECONNRESET, New),
        ("recv", Errno::EINTR, Unharmed),
        ("recv", Errno::ENOMEM, New),
        ("send", Errno::EINTR, Unharmed),
        ("send", Errno::ENOBUFS, Usable),
        ("send", Errno::ENOMEM, Usable),
        ("send", Errno::EPIPE, New),
        ("sendmsg", Errno::EINTR, Unharmed),
        ("sendmsg", Errno::ETOOMANYREFS, Usable),
        ("sendmsg", Errno::ENOBUFS, Usable),
        ("sendmsg", Errno::EPIPE, New),
        ("poll", Errno::EINTR, Unharmed),
        ("poll", Errno::ENOMEM, New),
        ("accept", Errno::EMFILE, New),
        ("accept", Errno::ECONNABORTED, New),
        ("accept", Errno::EINTR, New),
        ("clone", Errno::EAGAIN, Usable),
        ("epoll_wait", Errno::EINTR, Unharmed),
        ("futex", Errno::EINTR, Unharmed),
        ("sockopt", Errno::ENOMEM, New),
        ("sockopt", Errno::ENOBUFS, New),
        ("fcntl", Errno::ENOMEM, Usable),
    ]
};

/// Role: the server of a vault, where system calls fail once it is told to arm.
pub fn serve(driver: Driver) -> lpc::Result<()> {
    supervise()?;
    crate::vault::serve(driver)
}

/// Role: makes sealable memory where that is forbidden.
pub fn seal(_: Driver) -> lpc::Result<()> {
    supervise()?;
    arm();
    let error = lpc::SharedMut::<[u8]>::sealable(4096).map(drop).expect_err("it is forbidden");
    say(format_args!("{:?}: {error}", error.kind()));
    Ok(())
}

#[test]
fn sealable_memory_that_is_forbidden_is_an_error_that_names_what_was_tried() {
    if !is_permitted() {
        return;
    }
    for (call, errno, kind) in [
        ("memfd_create", Errno::EPERM, "PermissionDenied"),
        ("memfd_create", Errno::ENOSYS, "Unsupported"),
        ("ftruncate", Errno::ENOSPC, "StorageFull"),
        ("mmap", Errno::ENOMEM, "OutOfMemory"),
    ] {
        let fault = Fault { call, errno, first: 1, every: 1, count: 100 };
        let mut command = other("seal", Driver::Blocking);
        let line = Process::start(command.env(FAULT, fault.to_string())).line();
        assert!(
            line.starts_with(&format!("{kind}: no sealable memory of 4096 bytes: {call}(2): ")),
            "{line}"
        );
        assert!(line.contains("`SharedMut::zeroed`"), "{line}");
    }
}

/// Whether the client wants the quick lane.
const IS_QUICK: &str = "LPC_TEST_IS_QUICK";

/// Role: a client of a vault, where system calls fail.
pub fn call(driver: Driver) -> lpc::Result<()> {
    supervise()?;
    let is_quick = variable(IS_QUICK) == "true";
    let connect = || AnyVault::connect_with(driver, &variable(PORT), knobs(is_quick));
    let client = connect()?;
    // Warm, so that the fault meets a connection that is in use.
    say(state(&client, is_quick));
    say(load(&client, arm));
    disarm();
    say(state(&client, is_quick));
    say(state(&connect()?, is_quick));
    Ok(())
}

fn knobs(is_quick: bool) -> Knobs {
    Knobs { is_quick, ..Knobs::default() }
}

/// What comes of the load while nothing fails, and, where that is fine, of calls that the quick lane is to
/// take or not.
fn state(client: &AnyVault, is_quick: bool) -> String {
    match load(client, || ()).as_str() {
        "fine" => match has_lane(client) {
            Ok(has_it) if has_it == is_quick => "fine".to_owned(),
            other => format!("in the quick lane: {other:?}"),
        },
        kinds => kinds.to_owned(),
    }
}

/// Threads that call at once.
const CALLERS: u64 = 3;

/// What of each size a caller calls.
const ROUNDS: u64 = 4;

/// Calls with everything that there is, from several threads, once they are there and `begin` was called.
/// Says "fine" or which kinds of errors there were; a wrong result is a panic.
fn load(client: &AnyVault, begin: impl FnOnce()) -> String {
    let barrier = Barrier::new(CALLERS as usize + 1);
    let mut kinds: Vec<String> = thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let barrier = &barrier;
                let call = move || {
                    barrier.wait();
                    let rounds = (0..ROUNDS).map(|round| calls(client, (caller * ROUNDS + round) as u8));
                    rounds.flatten().collect::<Vec<_>>()
                };
                thread::Builder::new().name(CALLER.to_owned()).spawn_scoped(scope, call).unwrap()
            })
            .collect();
        begin();
        barrier.wait();
        callers.into_iter().flat_map(|caller| caller.join().expect("no caller panics")).collect()
    });
    kinds.sort();
    kinds.dedup();
    if kinds.is_empty() { "fine".to_owned() } else { kinds.join(", ") }
}

/// One call of each sort. What was not answered, by kind.
fn calls(client: &AnyVault, fill: u8) -> Vec<String> {
    const LARGE: usize = 100_000;
    let sum = LARGE as u64 * u64::from(fill);
    let bytes = vec![fill; LARGE];
    let sealed = || {
        let mut bytes = lpc::SharedMut::<[u8]>::sealable(LARGE)?;
        bytes.fill(fill);
        client.sum(bytes.freeze())
    };
    // It can still change, so that its reader copies it.
    let file = || {
        let file = tempfile::tempfile()?;
        file.write_all_at(&bytes, 0)?;
        client.sum(lpc::Shared::from_file(&file, ..)?)
    };
    let results = [
        (client.length(&bytes[..100]), 100),
        (client.length(&bytes), LARGE as u64),
        (client.owned(bytes.clone()), LARGE as u64),
        (client.make(LARGE as u64, fill).map(|made| u64::from(made == bytes)), 1),
        (client.loan(LARGE, fill).and_then(|loan| client.sum(loan)), sum),
        (sealed(), sum),
        (file(), sum),
        (client.lend(LARGE as u64, fill).map(|lent| u64::from(*lent == *bytes)), 1),
    ];
    let mut kinds = Vec::new();
    for (result, expected) in results {
        match result {
            Ok(value) => assert_eq!(value, expected, "a wrong result"),
            Err(error) => kinds.push(format!("{:?}: {error}", error.kind())),
        }
    }
    kinds
}

/// The schedules of a fault: which of its calls fail; and whether there is a quick lane.
fn schedules(call: &'static str, errno: Errno, at: u64) -> Vec<(Fault, bool)> {
    let fault = |first, every, count| Fault { call, errno, first, every, count };
    if std::env::var_os("LPC_LONG").is_some() {
        let each = (1..=30).map(|first| fault(first, 1, 1));
        let all = each.chain((2..8).map(|every| fault(1, every, 40)));
        return all.flat_map(|fault| [(fault, false), (fault, true)]).collect();
    }
    // Another one for each, so that all together meet many places.
    let [first, one, some] = [fault(1, 1, 1), fault(2 + at % 11, 1, 1), fault(1 + at % 3, 3, 8)];
    let quick = [some, first, one][at as usize % 3];
    vec![(first, false), (one, false), (some, false), (quick, true)]
}

#[test]
fn a_server_whose_system_calls_fail_goes_on_when_they_do_not() {
    every_fault(|driver, fault, is_quick, after| {
        let mut vault = Vault::start_failing(driver, &fault.to_string(), knobs(is_quick));
        let port = vault.port().to_owned();
        let connect = || AnyVault::connect_with(driver, &port, knobs(is_quick)).unwrap();
        let client = connect();
        assert_eq!(state(&client, is_quick), "fine");
        vault.tell("arm");
        let another = port.clone();
        let (armed, client) = within("a call", move || {
            // Another connection, too, while calls fail.
            drop(AnyVault::connect_with(Driver::Blocking, &another, knobs(is_quick)));
            (load(&client, || ()), client)
        });
        vault.process.tell("disarm");
        let failed = vault.process.line();
        assert!(failed.starts_with("failed"), "{failed}");
        assert_eq!(vault.process.line(), "disarm");
        let fresh = connect();
        within("a call afterwards", move || {
            after.check(&armed, &state(&client, is_quick), &state(&fresh, is_quick));
        });
    });
}

#[test]
fn a_client_whose_system_calls_fail_goes_on_when_they_do_not() {
    // A client that does not ask for the quick lane has none.
    let vaults = DRIVERS.map(|driver| (driver, Vault::start(driver, knobs(true))));
    every_fault(|driver, fault, is_quick, after| {
        let (_, vault) = vaults.iter().find(|(server, _)| *server == driver).expect("one of each driver");
        let mut command = other("failing_client", driver);
        command.env(PORT, vault.port()).env(FAULT, fault.to_string()).env(IS_QUICK, is_quick.to_string());
        let client = Process::start(command.stderr(Stdio::null()));
        let lines = client.rest();
        let [warm, armed, failed, again, fresh, end] = &lines[..] else { panic!("it says {lines:?}") };
        assert!(failed.starts_with("failed") && warm == "fine" && end == "ended", "{lines:?}");
        after.check(armed, again, fresh);
    });
}

/// Does it for each fault and driver, with the quick lane and without. All that fail are told together.
fn every_fault(check: impl Fn(Driver, Fault, bool, After)) {
    if !is_permitted() {
        return;
    }
    let mut wrong = 0;
    for (at, (call, errno, after)) in FAULTS.into_iter().enumerate() {
        for driver in DRIVERS {
            for (fault, is_quick) in schedules(call, errno, at as u64) {
                if catch_unwind(AssertUnwindSafe(|| check(driver, fault, is_quick, after))).is_err() {
                    eprintln!("WRONG: {driver:?}, {fault:?}, quick lane {is_quick}, expected {after:?}\n");
                    wrong += 1;
                }
            }
        }
    }
    assert_eq!(wrong, 0, "faults after which it does not go on: see above");
}
