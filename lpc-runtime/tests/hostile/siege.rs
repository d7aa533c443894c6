//! Makes an attack, and looks what became of everybody.

use std::collections::BTreeMap;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use lpc::ErrorKind;
use lpc_core::receive::Role;

use crate::log;
use crate::peer::Peer;
use crate::process::{PORT, Process, other, text};
use crate::roles::Honest;
use crate::service::Driver;
use crate::vault::{AnyVault, Knobs, Vault, in_use};

/// What a peer does that should not.
pub struct Attack {
    pub name: &'static str,
    pub stage: Stage,
    pub end: End,
    pub act: fn(&mut Peer),
}

impl Attack {
    /// Whether the other side has hung up, or does.
    fn is_cut_off(&self, peer: &mut Peer) -> bool {
        match self.stage {
            Stage::Stranger => peer.is_turned_away(),
            Stage::Greeted => peer.is_cut_off(),
        }
    }

    /// A server says why it disconnects whom, and disconnects nobody else. Of those who do not get in it
    /// names one in a second.
    fn check_log(&self, log: &[String]) {
        let closed = log::count(log, "connection closed");
        let refused = log::count(log, "connection refused");
        let attackers = rounds() * ATTACKERS;
        let is_logged = match (self.end, self.stage) {
            // These ended the stream themselves.
            (End::CutOff(ErrorKind::Disconnected), _) => closed + refused == 0,
            (End::CutOff(_), Stage::Greeted) => closed == attackers && refused == 0,
            (End::CutOff(_), Stage::Stranger) => closed + refused > 0,
            (End::Borne | End::Fails(_), _) => closed + refused == 0,
            (End::Leaves(_), _) => true,
        };
        assert!(is_logged, "after {} the log is {log:#?}", self.name);
        self.check_other_warnings(log);
    }

    /// Whatever else a peer causes to be logged, by however many frames, is said once, and counted at the end
    /// of the connection.
    fn check_other_warnings(&self, log: &[String]) {
        for (message, count) in log::others(log) {
            let most = 2 * rounds() * ATTACKERS;
            assert!(count <= most, "after {} it was said {count} times: {message}", self.name);
        }
    }
}

/// When it does it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// In place of saying who it is.
    Stranger,
    /// After that; as a server, once it has been called.
    Greeted,
}

/// How that has to end.
#[derive(Clone, Copy)]
pub enum End {
    /// The other side hangs up. If that is a client, its call fails with an error of this kind.
    CutOff(ErrorKind),
    /// It is no offence: the connection goes on as if nothing had been.
    Borne,
    /// The call fails with an error of this kind. To a server, it is no offence.
    Fails(ErrorKind),
    /// The peer hangs up when it has done its harm. A client's call fails with an error of this kind.
    Leaves(ErrorKind),
}

/// Peers that attack at once.
pub const ATTACKERS: usize = 24;

/// Honest calls to a process before it is attacked, so that it has what it keeps for use again.
const WARM: usize = 24;

/// Guards against hangs, and is the time that a process has to give back what it held.
const GUARD: Duration = Duration::from_secs(30);

/// A `Thing` that is the first loan of its frame.
pub const LOAN: [u8; 3] = [10, 1, 0];

/// What begins a `Thing` that is several.
pub const LOANS: u8 = 12;

/// Rounds of attacks.
fn rounds() -> usize {
    if std::env::var_os("LPC_LONG").is_some() { 100 } else { 1 }
}

/// The tests of a table's attacks, each a module of its name with a test for each victim.
macro_rules! attacks {
    ($stage:ident; $($(#[$note:meta])* $name:ident: $victims:ident, $end:expr, $act:expr;)*) => {$(
        mod $name {
            #[allow(unused_imports, reason = "not all attacks use all")]
            use super::*;
            use crate::siege::{Attack, Stage};

            $(#[$note])*
            const ATTACK: Attack = Attack { name: stringify!($name), stage: Stage::$stage, end: $end, act: $act };

            $victims!(ATTACK);
        }
    )*};
}

macro_rules! server {
    ($attack:ident) => {
        #[test]
        fn server_blocking() {
            $crate::siege::on_server(&$attack, $crate::service::Driver::Blocking);
        }

        #[test]
        fn server_tokio() {
            $crate::siege::on_server(&$attack, $crate::service::Driver::Tokio);
        }
    };
}

macro_rules! client {
    ($attack:ident) => {
        #[test]
        fn client_blocking() {
            $crate::siege::on_client(&$attack, $crate::service::Driver::Blocking);
        }

        #[test]
        fn client_tokio() {
            $crate::siege::on_client(&$attack, $crate::service::Driver::Tokio);
        }
    };
}

macro_rules! both {
    ($attack:ident) => {
        server!($attack);
        client!($attack);
    };
}

pub fn on_server(attack: &Attack, driver: Driver) {
    let server = Vault::start(driver, Knobs { is_hasty: true, is_quick: true, ..Knobs::default() });
    let honest = Honest::start(server.client(Driver::Blocking));
    let clients: Vec<_> = (0..WARM).map(|_| call_for_all(server.client(Driver::Blocking))).collect();
    drop(clients);
    let before = Holdings::settled(server.id());
    for _ in 0..rounds() {
        let mut attackers: Vec<_> = (0..ATTACKERS)
            .map(|_| match attack.stage {
                Stage::Greeted => Peer::connect(server.port()),
                Stage::Stranger => Peer::stranger(Role::Client, UnixStream::connect(server.port()).unwrap()),
            })
            .collect();
        // Not before all are connected: those who wait for that have little time.
        for (turn, peer) in attackers.iter_mut().enumerate() {
            peer.turn = turn;
            (attack.act)(peer);
        }
        for peer in &mut attackers {
            match attack.end {
                End::CutOff(_) => assert!(attack.is_cut_off(peer), "{} is no offence", attack.name),
                End::Borne | End::Fails(_) => assert!(peer.is_content(), "{} is an offence", attack.name),
                End::Leaves(_) => {}
            }
        }
        if let End::CutOff(_) = attack.end {
            // They stay, and nothing is kept of them.
            before.wait_for(server.id(), attack.name);
        }
    }
    before.wait_for(server.id(), attack.name);
    assert_eq!(honest.stop(), "served well");
    call_for_all(server.client(Driver::Blocking));
    attack.check_log(&end(server.process, &["end"]));
}

pub fn on_client(attack: &Attack, driver: Driver) {
    let server = Vault::start(Driver::Blocking, Knobs::default());
    let directory = tempfile::tempdir().unwrap();
    let port = directory.path().join("port");
    let listener = UnixListener::bind(&port).unwrap();
    let mut command = other("client", driver);
    command.env(PORT, server.port()).env("MALLOC_ARENA_MAX", "1");
    let mut client = Process::start(command.stdin(Stdio::piped()));
    let mut log = Vec::new();
    assert_eq!(client.line(), "connected");
    client.tell(&format!("warm {WARM}"));
    assert_eq!(client.line(), "warm");
    for _ in 0..WARM {
        client.tell(&format!("call {}", server.port()));
    }
    for _ in 0..WARM {
        assert_eq!(line_beside(&mut client, &mut log), "answered");
    }
    let before = Holdings::settled(client.id());
    let outcome = match attack.end {
        End::CutOff(kind) | End::Fails(kind) | End::Leaves(kind) => format!("{kind:?}"),
        End::Borne => "answered".to_owned(),
    };
    for _ in 0..rounds() {
        for _ in 0..ATTACKERS {
            client.tell(&format!("call {}", text(&port)));
        }
        let mut attackers: Vec<_> = (0..ATTACKERS)
            .map(|_| match attack.stage {
                Stage::Greeted => Peer::accept(&listener),
                Stage::Stranger => Peer::stranger(Role::Server, listener.accept().unwrap().0),
            })
            .collect();
        // Not before all are connected: those who wait for that have little time.
        for (turn, peer) in attackers.iter_mut().enumerate() {
            peer.turn = turn;
            (attack.act)(peer);
        }
        for peer in &mut attackers {
            match attack.end {
                End::CutOff(_) => assert!(attack.is_cut_off(peer), "{} is no offence", attack.name),
                End::Borne => assert!(peer.is_content(), "{} is an offence", attack.name),
                End::Fails(_) | End::Leaves(_) => {}
            }
        }
        if let End::Leaves(_) = attack.end {
            attackers.clear();
        }
        for _ in 0..ATTACKERS {
            assert_eq!(line_beside(&mut client, &mut log), outcome, "after {}", attack.name);
        }
        before.wait_for(client.id(), attack.name);
    }
    log.extend(end(client, &["end", "served well"]));
    attack.check_other_warnings(&log);
    end(server.process, &["end"]);
}

/// The next line of a process that is not in its log.
fn line_beside(process: &mut Process, log: &mut Vec<String>) -> String {
    loop {
        let line = process.line();
        if !log::has(&line) {
            return line;
        }
        log.push(line);
    }
}

/// Uses a server for all that it is there for.
fn call_for_all(client: AnyVault) -> AnyVault {
    const LEN: usize = 100_000;
    assert_eq!(client.length(&vec![1; LEN]).unwrap(), LEN as u64);
    assert!(client.make(LEN as u64, 2).unwrap() == vec![2; LEN]);
    assert_eq!(client.sum(client.loan(LEN, 1).unwrap()).unwrap(), LEN as u64);
    client
}

/// Tells a process to end, which it does with these last words. What was in its log.
pub fn end(mut process: Process, words: &[&str]) -> Vec<String> {
    process.tell(words[0]);
    let (log, rest) = log::split(process.rest());
    let (last, rest) = rest.split_last().expect("it says that it has ended");
    assert_eq!(last, "ended");
    assert_eq!(rest, &words[1..]);
    assert!(process.wait().success());
    log
}

/// What a process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings {
    descriptors: usize,
    /// Mappings of shared memory.
    shared: usize,
    /// Other mappings: files, stacks, memory of the allocator.
    mappings: usize,
    /// By name.
    threads: BTreeMap<String, usize>,
    memory: u64,
}

/// Threads of a blocking server that wait for work before they end: as many as calls of one connection run at
/// once, and who reads it.
const WORKERS: usize = 17;

/// Mappings that the allocator and the C library may split.
const SPLITS: usize = 8;

/// Memory that the allocator may not give back, because something small stands behind it: as much as a server
/// reads ahead for each attacker.
const SLACK: u64 = (ATTACKERS as u64) << 20;

impl Holdings {
    fn of(id: u32) -> Self {
        let directory = |name: &str| std::fs::read_dir(format!("/proc/{id}/{name}")).unwrap();
        let maps = std::fs::read(format!("/proc/{id}/maps")).unwrap();
        let (shared, other): (Vec<_>, Vec<_>) = maps
            .split(|byte| *byte == b'\n')
            .partition(|line| line.windows(9).any(|part| part == b"memfd:lpc"));
        let mut threads = BTreeMap::new();
        for thread in directory("task").flatten() {
            // It may have ended meanwhile.
            if let Ok(name) = std::fs::read_to_string(thread.path().join("comm")) {
                *threads.entry(name).or_default() += 1;
            }
        }
        Self {
            descriptors: directory("fd").count(),
            shared: shared.len(),
            mappings: other.len(),
            threads,
            memory: in_use(id),
        }
    }

    /// What it holds once that stays the same, and is nothing of peers that have left.
    pub fn settled(id: u32) -> Self {
        let start = Instant::now();
        let (mut last, mut same) = (Self::of(id), 0);
        while same < 10 {
            assert!(start.elapsed() < GUARD, "a process comes to no rest: {last:?}");
            std::thread::sleep(Duration::from_millis(5));
            let now = Self::of(id);
            let is_same = now.shared == 0
                && (now.descriptors, now.mappings, &now.threads)
                    == (last.descriptors, last.mappings, &last.threads);
            same = if is_same { same + 1 } else { 0 };
            last = now;
        }
        last
    }

    /// Waits until the process is back at this.
    #[track_caller]
    pub fn wait_for(&self, id: u32, after: &str) {
        let start = Instant::now();
        loop {
            let now = Self::of(id);
            if self.covers(&now) {
                return;
            }
            assert!(start.elapsed() < GUARD, "after {after} a process holds {now:?}, before it was {self:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn covers(&self, now: &Self) -> bool {
        let of = |name: &String| self.threads.get(name).copied().unwrap_or(0);
        let more: Vec<_> =
            now.threads.iter().map(|(name, count)| (name, count.saturating_sub(of(name)))).collect();
        let allowed = |name: &str| match name.trim_end() {
            "lpc-worker" => WORKERS,
            // One for all connections, and not before there is something for it to do.
            "lpc-watch" | "lpc-maintenance" => 1,
            _ => 0,
        };
        let threads: usize = more.iter().map(|(_, count)| count).sum();
        now.descriptors <= self.descriptors
            && now.shared <= self.shared
            // A thread has a stack and a page to guard it.
            && now.mappings <= self.mappings + 2 * threads + SPLITS
            && more.iter().all(|(name, count)| *count <= allowed(name))
            && now.memory <= self.memory + SLACK
    }
}
