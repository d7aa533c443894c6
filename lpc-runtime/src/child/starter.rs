//! Starts programs from a thread that lives as long as this process.
//!
//! The signal at the parent's death (`PR_SET_PDEATHSIG`, prctl(2)) comes when the *thread* ends that started
//! the child: one of the caller's may end long before the process.

use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{self, SendError, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::sys::fork::PerProcess;

type Order = Box<dyn FnOnce() + Send>;

/// A fork has not the thread.
static STARTER: PerProcess<Mutex<Option<Sender<Order>>>> = PerProcess::new(Mutex::default);

/// Starts a command there by `spawn`. Meanwhile this thread waits, and `placeholder` takes its place.
pub(super) fn spawn<M: Send + 'static, C: Send + 'static>(
    command: &mut M,
    placeholder: M,
    spawn: impl FnOnce(&mut M) -> io::Result<C> + Send + 'static,
) -> io::Result<C> {
    // Of two threads that start one each, one would end, and with it all that it has started.
    let mut starter = STARTER.get().lock().unwrap_or_else(PoisonError::into_inner);
    // Before the command is given away: where there can be no thread it stays.
    let orders = orders(&mut starter)?;
    let (sender, started) = mpsc::channel();
    let mut given = mem::replace(command, placeholder);
    let order = move || {
        // A panic is the caller's. The thread's end would be that of all that it has started.
        let child = catch_unwind(AssertUnwindSafe(|| spawn(&mut given)));
        // Whoever gave the order waits for it.
        let _ = sender.send((given, child));
    };
    let gone = || io::Error::other("the thread that starts programs has ended");
    if let Err(SendError(order)) = orders.send(Box::new(order)) {
        *starter = None;
        self::orders(&mut starter)?.send(order).map_err(|_| gone())?;
    }
    drop(starter);
    let (given, child) = started.recv().map_err(|_| gone())?;
    *command = given;
    child.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Of the thread, which is started if there is none.
fn orders(starter: &mut Option<Sender<Order>>) -> io::Result<&Sender<Order>> {
    if starter.is_none() {
        let (sender, orders) = mpsc::channel::<Order>();
        let start = move || orders.into_iter().for_each(|order| order());
        thread::Builder::new().name("lpc-starter".into()).spawn(start)?;
        *starter = Some(sender);
    }
    Ok(starter.as_ref().expect("it was started"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_its_callers_and_leaves_the_command_and_the_thread() {
        let thread = |_: &mut &str| Ok(thread::current().id());
        let mut command = "command";
        let first = spawn(&mut command, "", thread).unwrap();
        let panics = |_: &mut &str| -> io::Result<()> { resume_unwind(Box::new("no driver")) };
        let panic = catch_unwind(AssertUnwindSafe(|| spawn(&mut command, "", panics))).unwrap_err();
        assert_eq!((panic.downcast_ref(), command), (Some(&"no driver"), "command"));
        assert_eq!(spawn(&mut command, "", thread).unwrap(), first);
    }
}
