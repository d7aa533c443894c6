//! What a process uses.

use std::io;

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// The CPU time that a process has used, in user and kernel mode, by threads that have ended too, in
/// nanoseconds.
///
/// # Errors
///
/// If there is no such process.
pub fn cpu_time(process: u32) -> io::Result<u64> {
    let process = i32::try_from(process).map_err(io::Error::other)?;
    read(clock_getcpuclockid(Pid::from_raw(process))?)
}

/// The same of this process.
pub(super) fn own_cpu_time() -> io::Result<u64> {
    read(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

fn read(clock: ClockId) -> io::Result<u64> {
    let time = clock_gettime(clock)?;
    Ok(std::time::Duration::from(time).as_nanos() as u64)
}

/// The resident memory of a process, in KiB; shared memory that it has touched included.
///
/// # Errors
///
/// If there is no such process.
pub fn resident_kib(process: u32) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
    let resident = line.and_then(|kibibytes| kibibytes.trim().parse().ok());
    resident.ok_or_else(|| io::Error::other("the process has ended"))
}
