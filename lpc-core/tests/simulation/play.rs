//! One run: how many callers, of what kind, what goes wrong; and what has to be true afterwards.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use lpc_core::Progress;
use lpc_core::run_queue::Bounds;

use super::client::{Callers, Client, Record};
use super::link::{Link, Pool};
use super::network::{Passes, Socket};
use super::server::Server;
use super::world::{MILLIS, On, Process, Token, World};

/// Bytes of bodies, behind the argument.
const SIZES: [&[usize]; 3] = [&[0], &[0, 0, 30, 300, 3000], &[0, 3000, 4000]];

/// What goes wrong by the story's will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Nothing,
    Shutdown,
    ServerDies,
    /// A child of the server still has its socket.
    ServerDiesAfterFork,
    ClientDies,
}

pub(crate) fn play(world: &Rc<World>) {
    let fault = match world.pick(10) {
        6 => Fault::Shutdown,
        7 => Fault::ServerDies,
        8 => Fault::ClientDies,
        9 => Fault::ServerDiesAfterFork,
        _ => Fault::Nothing,
    };
    // Without timeouts that make up for what others do late, a wake-up that is lost is found at once.
    let has_timeouts = world.pick(2) == 1;
    world.set_rough(world.pick(2) == 1);
    let (has_quick_lane, moves) = (world.pick(2) == 1, world.pick(4) == 3);
    let passes =
        [Passes::All, Passes::All, Passes::All, Passes::Some, Passes::Some, Passes::None][world.pick(6)];
    let callers = 1 + world.pick(8);
    let sizes = SIZES[world.pick(SIZES.len())];
    // Not so small that maintenance, which writes what one buffer takes at a time, would take seconds.
    let least = sizes.iter().max().map_or(0, |size| size / 10);
    let capacity = [(); 2].map(|()| [4000, 16, 40, 100, 300, 1000][world.pick(6)].max(least));
    let (max_calls, contention, is_fickle) = (1 + world.pick(5), 2 + world.pick(2), world.pick(8) == 7);
    let kind = Callers { max_calls, contention, has_timeouts, is_fickle, sizes };
    let pool = || match world.pick(3) {
        0 => Pool { bytes: 0, blocks: 0 },
        1 => Pool { bytes: 4 << 20, blocks: 2 },
        _ => Pool { bytes: 4 << 20, blocks: 100 },
    };
    let bounds = Bounds {
        running: 1 + world.pick(3),
        waiting: 1 + world.pick(4),
        copied: [1 << 20, 5000][world.pick(2)],
        held: [1 << 20, 8][world.pick(2)],
    };
    let pools = [pool(), pool()];
    let max_threads = [8, 1, 2, 3][world.pick(4)];
    let [near, far] = Socket::pair(world, capacity, passes);
    let record = Rc::new(Record::default());
    let lane = (has_quick_lane, moves);
    let ours = Link::new(world, Process::Client, near.clone(), pools[0], lane);
    let theirs = Link::new(world, Process::Server, far.clone(), pools[1], lane);
    let client = Client::new(&ours, kind, &record);
    let server = Server::new(&theirs, bounds, max_threads, &record);
    world.say(|| {
        format!(
            "{callers} callers, {kind:?}, quick lane {has_quick_lane}, {pools:?}, buffers {capacity:?}, \
             {passes:?}, {bounds:?}, {max_threads} server threads, {fault:?}"
        )
    });
    let done = Rc::new(Cell::new(0));
    let has_deadlines = world.pick(3) == 2;
    for caller in 0..callers {
        let (client, done) = (Rc::clone(&client), Rc::clone(&done));
        world.spawn(Process::Client, format!("caller {caller}"), async move {
            let token = Arc::new(Token::default());
            for turn in 0..=client.world.pick(4) {
                let argument = 1 + 10 * caller as u64 + turn as u64;
                let time = [0, 100, 1000, 3000, 20_000][client.world.pick(5)];
                let deadline =
                    (has_deadlines && client.world.pick(2) == 1).then(|| client.world.now() + time);
                client.call(argument, &token, deadline).await;
            }
            done.set(done.get() + 1);
        });
    }
    let at = 1 + world.pick(if fault == Fault::Nothing { 1 } else { 400 }) as u32;
    let cause = Rc::clone(world);
    let has_struck = Rc::new(Cell::new(false));
    let strikes = Rc::clone(&has_struck);
    let (dying, stopping) = ([near, far], Rc::clone(&server));
    let steps: Rc<dyn Fn() -> bool> = {
        let world = Rc::clone(world);
        Rc::new(move || world.steps.get() >= at)
    };
    world.spawn(Process::Fate, "fate", async move {
        if fault == Fault::Nothing {
            return;
        }
        cause.wait(On::Check(steps), "waits for its moment", Some(300 * MILLIS)).await;
        cause.say(|| format!("{fault:?}"));
        strikes.set(true);
        match fault {
            Fault::Nothing => {}
            Fault::Shutdown => stopping.shut_down(400 * MILLIS).await,
            Fault::ServerDies => {
                cause.kill(Process::Server);
                dying[1].close();
            }
            Fault::ServerDiesAfterFork => {
                cause.kill(Process::Server);
                cause.let_hang();
            }
            Fault::ClientDies => {
                cause.kill(Process::Client);
                dying[0].close();
            }
        }
    });
    world.run();
    if world.failed().is_some() {
        return;
    }
    world.set_rough(false);
    // Its socket is open, but nobody is there.
    let is_fooled = fault == Fault::ServerDiesAfterFork && has_struck.get();
    if fault != Fault::ClientDies || !has_struck.get() {
        if done.get() != callers && (!is_fooled || world.misses_deadline()) {
            world.fail("stuck", format!("nothing can be done any more, but: {}", world.who_waits()));
            return;
        }
        check_calls(world, &record, fault);
        if !is_fooled && world.failed().is_none() {
            check_client(world, &client, max_calls, contention);
        }
    }
    if fault == Fault::Nothing || fault == Fault::ClientDies || fault == Fault::Shutdown {
        client.link.close();
        world.run();
        if let Some(left) = server.leftovers() {
            world.fail("leftovers", format!("of the server: {left}; {}", world.who_waits()));
        }
        if server.link.has_memory() && world.failed().is_none() {
            world.fail("leftovers", "the server's memory is not back");
        }
    }
}

/// Each call has ended, as it may.
fn check_calls(world: &World, record: &Record, fault: Fault) {
    for (argument, entry) in record.0.borrow().iter() {
        let runs = entry.runs;
        if runs > 1 {
            world.fail("twice", format!("{argument} was run {runs} times"));
        }
        match &entry.result {
            Some(Ok(())) if runs != 1 => {
                world.fail("answer", format!("{argument} was answered, and run {runs} times"));
            }
            Some(Err(error)) => {
                let progress = error.progress();
                let is_right = match progress {
                    Progress::NotSent => runs == 0,
                    Progress::Ran => runs == 1,
                    _ => true,
                };
                if !is_right {
                    world.fail(
                        "progress",
                        format!("{argument}: {progress:?}, and it was run {runs} times ({error})"),
                    );
                }
                if fault == Fault::Nothing && (error.is_disconnected() || error.is_exhausted()) {
                    world.fail("error", format!("{argument} fails though nothing has gone wrong: {error}"));
                }
            }
            _ => {}
        }
    }
}

/// All is back where it was.
fn check_client(world: &Rc<World>, client: &Rc<Client>, max_calls: usize, contention: usize) {
    let tidying = Rc::clone(client);
    world.spawn(Process::Client, "tidying up", async move {
        // Answers to calls that were given up may be on their way yet.
        for _ in 0..100 {
            tidying.receive_what_is_there().await;
            if tidying.state.borrow().calls.is_empty() && tidying.link.trim() == 0 {
                break;
            }
            tidying.world.sleep(20 * MILLIS).await;
        }
    });
    world.run();
    let has_memory = client.link.has_memory();
    let mut state = client.state.borrow_mut();
    let fail = |text: &str| world.fail("leftovers", text);
    if !state.calls.is_empty() || state.calls.has_unanswered() {
        fail("calls are left in the client's table");
    }
    if !state.callers.is_free() {
        fail("nobody has put the receive half back");
    }
    if has_memory {
        fail("the client's memory is not back");
    }
    if !client.link.lent.borrow().is_empty() {
        fail("something is still lent");
    }
    if state.calls.life().is_open() {
        let permits = (0..=max_calls).take_while(|_| matches!(state.calls.admit(), Ok(true))).count();
        if permits != max_calls {
            fail(&format!("{permits} permits are left of {max_calls}"));
        }
    }
    // As many callers as make contention, and not fewer.
    for callers in 0..contention {
        if state.callers.defers() {
            fail(&format!("{} callers run that are not there", contention - callers));
        }
        state.callers.enter_idle();
    }
    if !state.callers.defers() {
        fail("callers are counted that are not there");
    }
}
