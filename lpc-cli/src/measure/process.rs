//! The other process.

use std::io;
use std::process::{Child, Command, ExitStatus};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Samples;
use super::usage::{cpu_time, own_cpu_time, resident_kib};

/// A child process that serves, until this is dropped.
#[derive(Debug)]
pub struct Service(Child);

impl Service {
    /// Starts this program once more, with other arguments.
    ///
    /// # Errors
    ///
    /// If the program cannot be found or started.
    pub fn start<'a>(arguments: impl IntoIterator<Item = &'a str>) -> io::Result<Self> {
        Command::new(std::env::current_exe()?).args(arguments).spawn().map(Self)
    }

    /// What has been started already.
    pub fn of(child: Child) -> Self {
        Self(child)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// The CPU time that it has used, in nanoseconds.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn cpu_time(&self) -> io::Result<u64> {
        cpu_time(self.0.id())
    }

    /// Makes calls to it, and says what they took: their times, and the CPU time of both processes for each
    /// of them, in nanoseconds.
    ///
    /// # Errors
    ///
    /// If the calls fail, or it has ended.
    pub fn observe<E: From<io::Error>>(
        &self,
        calls: impl FnOnce() -> Result<Samples, E>,
    ) -> Result<(Samples, u64), E> {
        let used = own_cpu_time()? + self.cpu_time()?;
        let samples = calls()?;
        let used = (own_cpu_time()? + self.cpu_time()?).saturating_sub(used);
        let count = samples.len() as u64;
        Ok((samples, used / count.max(1)))
    }

    /// Its resident memory, in KiB.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn resident_kib(&self) -> io::Result<u64> {
        resident_kib(self.0.id())
    }

    /// How it has ended, if it has.
    ///
    /// # Errors
    ///
    /// If it was waited for elsewhere.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }

    /// Lets it run no more, until it is [resumed](Self::resume): one that polls would take a CPU from others.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn pause(&self) -> io::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it run again.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn resume(&self) -> io::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Ends it by a signal, and waits: what runs it can still write down what it has seen, which it cannot
    /// when this is dropped. The signal is one that no library handles.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn interrupt(mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGUSR1)?;
        self.0.wait()
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let id = i32::try_from(self.0.id()).map_err(io::Error::other)?;
        Ok(kill(Pid::from_raw(id), signal)?)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
