//! Files for shared memory, which the sender makes and seals, and the receiver checks.
//!
//! The seals let each side map the other's memory (memfd_create(2), fcntl(2)):
//! - `F_SEAL_SHRINK`: the file cannot be truncated, so touching a page never raises SIGBUS here;
//! - `F_SEAL_GROW`, `F_SEAL_SEAL`: it stays as it was announced;
//! - `F_SEAL_FUTURE_WRITE`: the sender's own mapping, made before, is the only writable one there ever is;
//! - `F_SEAL_WRITE`: no process can write, so that the bytes stay what they are.
//!
//! Only memory has seals. A file of another kind may be one for which a process answers, and that may be the
//! peer: what asks a filesystem takes a [`Local`], which is made only of what the kernel answers for.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{FileStat, SFlag, fstat};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};

use super::filesystem::{self, Answers};

/// What a file is for: its name in `/proc/PID/maps`.
pub(crate) const BODIES: &CStr = c"lpc";
pub(crate) const QUICK_LANE: &CStr = c"lpc-quick-lane";

/// Not executable, and not to be made so; since Linux 6.3.
const NOEXEC_SEAL: MFdFlags = MFdFlags::from_bits_retain(0x8);

/// The seals of a segment, which its owner goes on writing to.
const SEGMENT: SealFlag = SealFlag::F_SEAL_SHRINK
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_FUTURE_WRITE)
    .union(SealFlag::F_SEAL_SEAL);

/// The seals of memory that stays as it is.
const FROZEN: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_WRITE);

/// A new file of `len` zero bytes, none of which takes memory yet.
///
/// # Errors
///
/// Those of the system, by the name of the call that failed; or this process may not make files of that size
/// (`RLIMIT_FSIZE`).
pub(crate) fn create(name: &CStr, len: u64) -> io::Result<OwnedFd> {
    // First: to go over it raises a signal that ends the process (SIGXFSZ, setrlimit(2)).
    if getrlimit(Resource::RLIMIT_FSIZE).is_ok_and(|(soft, _)| len > soft) {
        let message = format!("shared memory of {len} bytes is over the limit for files (RLIMIT_FSIZE)");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let made = match memfd_create(name, flags | NOEXEC_SEAL) {
        Err(nix::Error::EINVAL) => memfd_create(name, flags),
        result => result,
    };
    let file = made.map_err(|error| named("memfd_create(2)", error.into()))?;
    let len = i64::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
    nix::unistd::ftruncate(&file, len).map_err(|error| named("ftruncate(2)", error.into()))?;
    Ok(file)
}

/// The error, with the call that failed.
pub(crate) fn named(call: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{call}: {error}"))
}

/// Seals a segment that its owner has mapped.
pub(crate) fn seal(file: BorrowedFd<'_>) -> io::Result<()> {
    fcntl(file, FcntlArg::F_ADD_SEALS(SEGMENT))?;
    Ok(())
}

/// Seals a file that no process has mapped for writing: it never changes again.
pub(crate) fn freeze(file: BorrowedFd<'_>) -> io::Result<()> {
    fcntl(file, FcntlArg::F_ADD_SEALS(FROZEN | SealFlag::F_SEAL_SEAL))?;
    Ok(())
}

/// Has memory for the first `len` bytes, so that none can be missing as they are written.
pub(crate) fn allocate(file: BorrowedFd<'_>, len: u64) -> io::Result<()> {
    let len = i64::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
    super::retry(|| nix::fcntl::fallocate(file, nix::fcntl::FallocateFlags::empty(), 0, len))
}

fn refuse<T>(message: impl Into<String>) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, message.into()))
}

/// A file about which only the kernel is asked, which answers at once.
#[derive(Clone, Copy, Debug)]
struct Local<'f>(BorrowedFd<'f>);

impl<'f> Local<'f> {
    /// Memory, and its seals; `None` for anything else.
    fn memory(file: BorrowedFd<'f>) -> io::Result<Option<(Self, SealFlag)>> {
        match fcntl(file, FcntlArg::F_GET_SEALS) {
            Ok(seals) => Ok(Some((Self(file), SealFlag::from_bits_retain(seals)))),
            // The latter of one that is only a path (`O_PATH`).
            Err(nix::Error::EINVAL | nix::Error::EBADF) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A regular file on a filesystem of this machine.
    fn file(file: BorrowedFd<'f>) -> io::Result<Self> {
        let known = filesystem::known(file)?;
        if SFlag::from_bits_truncate(known.mode) & SFlag::S_IFMT != SFlag::S_IFREG {
            return refuse("its descriptor is no regular file");
        }
        match filesystem::answers(&known) {
            Answers::Kernel => Ok(Self(file)),
            Answers::Others => {
                refuse("its file is on a network's or a user's filesystem, where a read may never return")
            }
            Answers::Unknown => {
                let message = "its file is on a filesystem that this process does not see";
                Err(io::Error::new(io::ErrorKind::Unsupported, message))
            }
        }
    }

    fn stat(self) -> io::Result<FileStat> {
        Ok(fstat(self.0)?)
    }

    /// Whether it is made of ordinary pages. Memory of another kind (hugetlbfs) can be sealed too, but a fault
    /// on it may find none and raise SIGBUS.
    fn is_ordinary(self) -> io::Result<bool> {
        Ok(fstatfs(self.0)?.filesystem_type() == TMPFS_MAGIC)
    }
}

/// Whether a file is memory.
fn is_memory(file: impl AsFd) -> bool {
    matches!(Local::memory(file.as_fd()), Ok(Some(_)))
}

/// Whether the kernel alone answers for a file: memory, or a regular file on a filesystem of this machine.
pub(crate) fn is_local(file: impl AsFd) -> bool {
    is_memory(&file) || Local::file(file.as_fd()).is_ok()
}

/// How long memory is.
pub(crate) fn memory_len(file: BorrowedFd<'_>) -> io::Result<u64> {
    let (memory, _) = Local::memory(file)?.ok_or(io::ErrorKind::InvalidInput)?;
    u64::try_from(memory.stat()?.st_size).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Whether a descriptor from a peer may be mapped as a segment of `len` bytes: seals first, since only then
/// does the size stay what it is.
pub(crate) fn check(file: impl AsFd, len: u64) -> io::Result<()> {
    let Some((memory, seals)) = Local::memory(file.as_fd())? else {
        return refuse("its descriptor is no memfd");
    };
    if !seals.contains(SEGMENT) {
        return refuse(format!("its memfd lacks seals: {:?}", SEGMENT.difference(seals)));
    }
    if !memory.is_ordinary()? {
        return refuse("its memfd is not made of ordinary pages");
    }
    let size = memory.stat()?.st_size;
    if u64::try_from(size) != Ok(len) {
        return refuse(format!("its memfd has {size} bytes, {len} were announced"));
    }
    Ok(())
}

/// What the bytes of a file are good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Constancy {
    /// They can never change, nor can the file shrink. Pages that are not there now, of which there may be
    /// some, are zeroes, and would be made by being read where they are mapped.
    Frozen,
    /// Other processes that have the file open may change them.
    Changing,
}

/// Whether `offset..offset + len` of a file can be read, by mapping or by pread(2), and how constant it is.
/// Asks no filesystem but those of this machine, and waits for nobody.
///
/// # Errors
///
/// - [`InvalidData`](io::ErrorKind::InvalidData): it is no regular file, not open for reading, or on a
///   filesystem whose reads another process or machine may answer, when it pleases.
/// - [`Unsupported`](io::ErrorKind::Unsupported): its filesystem is not mounted where this process could see
///   it.
/// - [`UnexpectedEof`](io::ErrorKind::UnexpectedEof): it is shorter than that.
pub(crate) fn inspect(file: impl AsFd, offset: u64, len: u64) -> io::Result<Constancy> {
    let file = file.as_fd();
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    if flags.contains(OFlag::O_PATH) || flags & OFlag::O_ACCMODE == OFlag::O_WRONLY {
        return refuse("its descriptor is not open for reading");
    }
    // Before anything that depends on the size: that stays only where the seals say so.
    let (file, constancy) = match Local::memory(file)? {
        Some((memory, seals)) if seals.contains(FROZEN) && memory.is_ordinary()? => {
            (memory, Constancy::Frozen)
        }
        Some((memory, _)) => (memory, Constancy::Changing),
        None => (Local::file(file)?, Constancy::Changing),
    };
    let size = u64::try_from(file.stat()?.st_size).unwrap_or(0);
    if offset.checked_add(len).is_none_or(|end| end > size) {
        let message = format!("its file has {size} bytes, and {len} from byte {offset} on are passed");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
    }
    Ok(constancy)
}

/// The same file by a descriptor that cannot be written through, where the system gives one at once: whoever
/// holds a lease of the file has others wait as they open it (fcntl(2)), unless they do it without blocking.
pub(crate) fn without_writing(file: OwnedFd) -> OwnedFd {
    let flags = fcntl(&file, FcntlArg::F_GETFL).map_or(OFlag::empty(), OFlag::from_bits_retain);
    match flags & OFlag::O_ACCMODE {
        OFlag::O_RDONLY => file,
        _ => open_again(file.as_fd(), OFlag::O_NONBLOCK).unwrap_or(file),
    }
}

/// Another descriptor of the same file that cannot be written through, whatever `file` can.
pub(crate) fn read_only(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    open_again(file, OFlag::empty())
}

fn open_again(file: BorrowedFd<'_>, flags: OFlag) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(std::fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?.into())
}

/// Fills `into` from `offset` on. What the file does not have (any more) reads as zeroes.
pub(crate) fn read_at(file: BorrowedFd<'_>, mut into: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !into.is_empty() {
        let place = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let len = super::retry(|| nix::sys::uio::pread(file, into, place))?;
        if len == 0 {
            into.fill(0);
            return Ok(());
        }
        offset += len as u64;
        into = &mut into[len..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_could_be_written_through_is_opened_again() {
        let file = create(c"test", 10).unwrap();
        let is_writable = |file: &OwnedFd| nix::unistd::write(file, b"x").is_ok();
        assert!(is_writable(&file));
        let file = without_writing(file);
        assert!(!is_writable(&file));
        let number = file.as_raw_fd();
        assert_eq!(without_writing(file).as_raw_fd(), number, "it is passed as it is");
    }

    #[test]
    #[allow(unsafe_code, reason = "nix has neither of these commands")]
    fn nobody_waits_for_whoever_has_a_lease_of_a_file() {
        let file: OwnedFd = tempfile::tempfile().unwrap().into();
        // By default the holder of a lease that is to be broken is killed by SIGIO.
        const F_SETSIG: libc::c_int = 10;
        // SAFETY: it takes numbers, and the descriptor is open.
        let command = |command, value: libc::c_int| unsafe { libc::fcntl(file.as_raw_fd(), command, value) };
        assert_eq!(command(F_SETSIG, libc::SIGURG), 0);
        let lease = command(libc::F_SETLEASE, libc::F_WRLCK);
        assert_eq!(lease, 0);
        let number = file.as_raw_fd();
        // It would be 45 s (`/proc/sys/fs/lease-break-time`), and another descriptor.
        assert_eq!(without_writing(file).as_raw_fd(), number, "it is passed as it is");
    }

    /// Lines of all code but these tests.
    fn lines(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                lines(&path, found);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
                let name = path.file_name().unwrap().to_str().unwrap();
                found.extend(code.lines().map(|line| format!("{name}: {}", line.trim())));
            }
        }
    }

    /// A call of these waits for whoever answers for the file.
    #[test]
    fn only_what_the_kernel_answers_for_is_asked_about() {
        let mut found = Vec::new();
        lines(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        found.retain(|line| {
            let is_code = !line.contains(": //") && !line.contains(": use ");
            is_code && ["fstat(", "fstatfs(", "fstatat("].iter().any(|call| line.contains(call))
        });
        found.sort();
        let known = [
            "memfd.rs: Ok(fstat(self.0)?)",
            "memfd.rs: Ok(fstatfs(self.0)?.filesystem_type() == TMPFS_MAGIC)",
        ];
        assert_eq!(found, known, "in `Local`, and nowhere else");
    }
}
