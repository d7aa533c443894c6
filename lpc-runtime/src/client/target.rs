//! [`Target`]: what a client connects to, once and again.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::child::Program;
use crate::port::Port;

pub(crate) enum Target {
    Port(Port),
    Program(OwnProgram),
}

/// A program that is this client's to start again. One caller or task at a time does so.
#[derive(Debug)]
pub(crate) struct OwnProgram(Box<Mutex<Program>>);

impl OwnProgram {
    pub(crate) fn new(command: Command) -> Self {
        Self(Box::new(Mutex::new(Program::new(command))))
    }

    /// Not to be held while anything is waited for.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Program> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
