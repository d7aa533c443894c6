//! System calls of this process that fail when they are told to.
//!
//! The process puts a seccomp filter on all of its threads that reports some system calls to a supervisor: a
//! thread that was there before, and is not filtered itself (seccomp_unotify(2)). It lets each go on, but for
//! those that are to fail.
#![allow(
    unsafe_code,
    reason = "nothing else makes system calls fail, and no crate that the project uses has this"
)]

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

use crate::process::{say, variable};

/// What is to fail: `call errno first every count`.
pub const FAULT: &str = "LPC_TEST_FAULT";

/// A system call that fails: from the `first` of its kind on every `every`th, `count` times.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub call: &'static str,
    pub errno: Errno,
    pub first: u64,
    pub every: u64,
    pub count: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, errno, first, every, count } = self;
        write!(f, "{call} {} {first} {every} {count}", *errno as i32)
    }
}

impl Fault {
    fn decode(text: &str) -> Self {
        let words: Vec<_> = text.split(' ').collect();
        let [call, errno, first, every, count] = words[..] else { panic!("{text}") };
        let (call, _) = CALLS.iter().find(|(name, _)| *name == call).expect("a call that can fail");
        let number = |text: &str| text.parse().expect("a number");
        Self {
            call,
            errno: Errno::from_raw(errno.parse().expect("a number")),
            first: number(first),
            every: number(every),
            count: number(count),
        }
    }

    fn numbers(&self) -> &'static [libc::c_long] {
        CALLS.iter().find(|(name, _)| *name == self.call).expect("a call that can fail").1
    }

    /// Whether the `n`th call is to fail, counted from 1.
    fn hits(&self, n: u64) -> bool {
        n >= self.first
            && (n - self.first).is_multiple_of(self.every)
            && (n - self.first) / self.every < self.count
    }
}

/// The names of calls, and their numbers.
const CALLS: [(&str, &[libc::c_long]); 21] = [
    ("memfd_create", &[libc::SYS_memfd_create]),
    ("mmap", &[libc::SYS_mmap]),
    ("munmap", &[libc::SYS_munmap]),
    ("madvise", &[libc::SYS_madvise]),
    ("ftruncate", &[libc::SYS_ftruncate]),
    ("fallocate", &[libc::SYS_fallocate]),
    ("fcntl", &[libc::SYS_fcntl]),
    // Of these those that are about seals.
    ("fcntl_seals", &[libc::SYS_fcntl]),
    ("fstat", &[libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_statx, libc::SYS_fstatfs]),
    ("pread", &[libc::SYS_pread64]),
    ("recvmsg", &[libc::SYS_recvmsg]),
    ("recv", &[libc::SYS_recvfrom]),
    ("send", &[libc::SYS_sendto]),
    ("sendmsg", &[libc::SYS_sendmsg]),
    (
        "poll",
        &[
            libc::SYS_ppoll,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_poll,
        ],
    ),
    ("accept", &[libc::SYS_accept4]),
    ("clone", &[libc::SYS_clone, libc::SYS_clone3]),
    (
        "epoll_wait",
        &[
            libc::SYS_epoll_pwait,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_epoll_wait,
        ],
    ),
    ("futex", &[libc::SYS_futex]),
    ("sockopt", &[libc::SYS_setsockopt, libc::SYS_getsockopt]),
    ("openat", &[libc::SYS_openat]),
];

/// From now on system calls count, and fail.
pub fn arm() {
    IS_ARMED.store(true, SeqCst);
}

/// Nothing fails any more. Says how many calls did.
pub fn disarm() {
    IS_ARMED.store(false, SeqCst);
    say(format_args!("failed {}", FAILED.load(SeqCst)));
}

/// Reports the calls of the fault to a supervisor, in this thread and all that it starts. The filter stays
/// for good: it is inherited by threads, and cannot be taken off. A panic is said, unless it is a caller's
/// own.
pub fn supervise() -> io::Result<()> {
    std::panic::set_hook(Box::new(|panic| {
        if thread::current().name() != Some(CALLER) {
            say(format_args!("panic: {panic}").to_string().replace('\n', " "));
        }
    }));
    let fault = Fault::decode(&variable(FAULT));
    // Made before the filter, so that it is not filtered. It waits for no lock that a thread may hold which
    // waits for it: it allocates nothing, and even the listener it gets without a futex.
    thread::spawn(move || {
        IS_READY.store(true, SeqCst);
        while LISTENER.load(SeqCst) < 0 {
            thread::sleep(Duration::from_millis(1));
        }
        answer(LISTENER.load(SeqCst), fault);
    });
    // The beginning of a thread frees memory: nobody may hold the allocator's lock then who waits for this
    // thread.
    while !IS_READY.load(SeqCst) {
        thread::sleep(Duration::from_millis(1));
    }
    LISTENER.store(install(fault.numbers())?.into_raw_fd(), SeqCst);
    Ok(())
}

/// The descriptor that reports calls, never closed: they would fail.
static LISTENER: AtomicI32 = AtomicI32::new(-1);

/// Whether the supervisor looks for the listener.
static IS_READY: AtomicBool = AtomicBool::new(false);

/// Whether calls count, and fail.
static IS_ARMED: AtomicBool = AtomicBool::new(false);
/// How many calls failed.
static FAILED: AtomicU64 = AtomicU64::new(0);

/// Whether system calls of this process may be supervised; else says so, loudly, and the tests skip.
pub fn is_permitted() -> bool {
    let permitted =
        thread::spawn(|| install(&[libc::SYS_getppid]).map(drop)).join().expect("it does not panic");
    if let Err(error) = &permitted {
        eprintln!(
            "SKIPPED: seccomp user notification is not permitted here ({error}), no system call can be made to fail"
        );
    }
    permitted.is_ok()
}

/// Puts a filter on this thread that reports these calls; the descriptor that reports.
fn install(numbers: &[libc::c_long]) -> io::Result<OwnedFd> {
    let jump = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let nr = mem::offset_of!(libc::seccomp_data, nr) as u32;
    let mut program = vec![jump(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, nr, 0, 0)];
    for (at, number) in numbers.iter().enumerate() {
        let to_notify = (numbers.len() - at) as u8;
        program.push(jump(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, *number as u32, to_notify, 0));
    }
    program.push(jump(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0));
    program.push(jump(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_USER_NOTIF, 0, 0));
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: it sets a flag of this thread; its arguments are numbers.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    let (operation, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    // SAFETY: the program is as long as it says, and the kernel copies it.
    let listener = unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, &raw const program) };
    let listener = Errno::result(listener)? as RawFd;
    // SAFETY: the kernel made this descriptor for this call, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}

/// Whether the system may answer the call with these arguments so, and somebody can do something about it.
fn may_fail(call: &str, args: &[u64; 6]) -> bool {
    match call {
        // Waking never fails.
        "futex" => {
            matches!(args[1] as i32 & !libc::FUTEX_PRIVATE_FLAG, libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET)
        }
        "fcntl_seals" => matches!(args[1] as i32, libc::F_ADD_SEALS | libc::F_GET_SEALS),
        // The standard library panics where there is no memory for a thread's signal stack: only files.
        "mmap" => args[4] as i32 >= 0,
        _ => true,
    }
}

/// Lets each call go on, but for those that are to fail.
fn answer(listener: RawFd, fault: Fault) {
    let mut seen = 0;
    loop {
        // SAFETY: it is numbers, for which all zeroes is a value, and which the kernel wants to be zero.
        let mut notice: libc::seccomp_notif = unsafe { mem::zeroed() };
        // SAFETY: the kernel writes one notice, of the size that is a part of the request.
        if unsafe { libc::ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notice) } < 0 {
            // The thread has ended that was to be reported (ENOENT), or a signal came.
            match Errno::last() {
                Errno::ENOENT | Errno::EINTR => continue,
                _ => return,
            }
        }
        let is_armed = IS_ARMED.load(SeqCst);
        let counts = is_armed && may_fail(fault.call, &notice.data.args);
        seen += u64::from(counts);
        let fails = counts && fault.hits(seen);
        let response = libc::seccomp_notif_resp {
            id: notice.id,
            val: 0,
            error: if fails { -(fault.errno as i32) } else { 0 },
            flags: if fails { 0 } else { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 },
        };
        FAILED.fetch_add(fails.into(), SeqCst);
        // SAFETY: the kernel reads one response, of the size that is a part of the request.
        let _ = unsafe { libc::ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const response) };
    }
}

/// The name of threads that call, whose panics are their own.
pub const CALLER: &str = "caller";
