//! Starts programs from a thread that lives as long as this process.
//!
//! The signal at the parent's death (`PR_SET_PDEATHSIG`, prctl(2)) comes when the *thread* ends that started
//! the child: one of the caller's may end long before the process.

use std::io;
use std::mem;
use std::sync::mpsc::{self, Sender};
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
    let orders = orders()?;
    let (sender, started) = mpsc::channel();
    let mut given = mem::replace(command, placeholder);
    let order = move || {
        let child = spawn(&mut given);
        // Whoever gave the order waits for it.
        let _ = sender.send((given, child));
    };
    let gone = || io::Error::other("the thread that starts programs has ended");
    orders.send(Box::new(order)).map_err(|_| gone())?;
    let (given, child) = started.recv().map_err(|_| gone())?;
    *command = given;
    child
}

fn orders() -> io::Result<Sender<Order>> {
    let mut starter = STARTER.get().lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(orders) = &*starter {
        return Ok(orders.clone());
    }
    let (sender, orders) = mpsc::channel::<Order>();
    let start = move || orders.into_iter().for_each(|order| order());
    thread::Builder::new().name("lpc-starter".into()).spawn(start)?;
    Ok(starter.insert(sender).clone())
}
