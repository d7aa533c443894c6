//! Files for shared memory, which the sender makes and seals, and the receiver checks.
//!
//! The seals let each side map the other's memory (memfd_create(2), fcntl(2)):
//! - `F_SEAL_SHRINK`: the file cannot be truncated, so touching a page never raises SIGBUS here;
//! - `F_SEAL_GROW`, `F_SEAL_SEAL`: it stays as it was announced;
//! - `F_SEAL_FUTURE_WRITE`: the sender's own mapping, made before, is the only writable one there ever is;
//! - `F_SEAL_WRITE`: no process can write, so that the bytes stay what they are.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};

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
pub(crate) fn create(name: &CStr, len: u64) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = match memfd_create(name, flags | NOEXEC_SEAL) {
        Err(nix::Error::EINVAL) => memfd_create(name, flags)?,
        result => result?,
    };
    let len = i64::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
    nix::unistd::ftruncate(&file, len)?;
    Ok(file)
}

/// Seals a segment that its owner has mapped.
pub(crate) fn seal(file: BorrowedFd<'_>) -> io::Result<()> {
    fcntl(file, FcntlArg::F_ADD_SEALS(SEGMENT))?;
    Ok(())
}

/// Seals a file that no process has mapped for writing: it never changes again.
pub(crate) fn freeze(file: BorrowedFd<'_>, len: u64) -> io::Result<()> {
    // Pages that were never written, for the reason in `inspect`. Where there is no memory for them receivers
    // copy.
    if let Ok(len) = i64::try_from(len) {
        let _ = nix::fcntl::fallocate(file, nix::fcntl::FallocateFlags::empty(), 0, len);
    }
    fcntl(file, FcntlArg::F_ADD_SEALS(FROZEN | SealFlag::F_SEAL_SEAL))?;
    Ok(())
}

fn refuse<T>(message: impl Into<String>) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, message.into()))
}

/// Whether a descriptor from a peer may be mapped as a segment of `len` bytes: seals first, since only then
/// does the size stay what it is.
pub(crate) fn check(file: impl AsFd, len: u64) -> io::Result<()> {
    let seals = match fcntl(file.as_fd(), FcntlArg::F_GET_SEALS) {
        // The latter of one that is only a path (`O_PATH`).
        Err(nix::Error::EINVAL | nix::Error::EBADF) => return refuse("its descriptor is no memfd"),
        result => SealFlag::from_bits_retain(result?),
    };
    if !seals.contains(SEGMENT) {
        return refuse(format!("its memfd lacks seals: {:?}", SEGMENT.difference(seals)));
    }
    // Memory of another kind (hugetlbfs) can be sealed too, but a fault on it may find none and raise SIGBUS.
    if fstatfs(file.as_fd())?.filesystem_type() != TMPFS_MAGIC {
        return refuse("its memfd is not made of ordinary pages");
    }
    let size = fstat(file.as_fd())?.st_size;
    if u64::try_from(size) != Ok(len) {
        return refuse(format!("its memfd has {size} bytes, {len} were announced"));
    }
    Ok(())
}

/// What the bytes of a file are good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Constancy {
    /// They can never change, nor can the file shrink, and all of them are there: reading takes no memory.
    Frozen,
    /// Other processes that have the file open may change them.
    Changing,
}

/// Whether `offset..offset + len` of a file can be read, by mapping or by pread(2), and how constant it is.
///
/// # Errors
///
/// [`InvalidData`](io::ErrorKind::InvalidData) where it is no regular file, not open for reading, or on a
/// filesystem whose reads another process or machine answers, when it pleases;
/// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) where it is shorter than that.
pub(crate) fn inspect(file: impl AsFd, offset: u64, len: u64) -> io::Result<Constancy> {
    let flags = OFlag::from_bits_retain(fcntl(file.as_fd(), FcntlArg::F_GETFL)?);
    if flags.contains(OFlag::O_PATH) || flags & OFlag::O_ACCMODE == OFlag::O_WRONLY {
        return refuse("its descriptor is not open for reading");
    }
    let stat = fstat(file.as_fd())?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return refuse("its descriptor is no regular file");
    }
    // Before anything that depends on the size: that stays only where the seals say so.
    let seals =
        fcntl(file.as_fd(), FcntlArg::F_GET_SEALS).map_or(SealFlag::empty(), SealFlag::from_bits_retain);
    let filesystem = fstatfs(file.as_fd())?.filesystem_type();
    if ELSEWHERE.contains(&(filesystem.0 as i64)) {
        return refuse("its file is on a network's or a user's filesystem, where a read may never return");
    }
    let stat = fstat(file.as_fd())?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if offset.checked_add(len).is_none_or(|end| end > size) {
        let message = format!("its file has {size} bytes, and {len} from byte {offset} on are passed");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
    }
    // A page that was never written would be made by being read, and count as the reader's.
    let allocated = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
    let is_frozen = seals.contains(FROZEN) && filesystem == TMPFS_MAGIC && allocated >= size;
    Ok(if is_frozen { Constancy::Frozen } else { Constancy::Changing })
}

/// The magic numbers (statfs(2), linux/magic.h) of filesystems that are served by a process or another
/// machine: FUSE, NFS, SMB, CIFS, SMB2, 9p, AFS, OpenAFS, Coda, Ceph.
const ELSEWHERE: [i64; 10] = [
    0x6573_5546,
    0x6969,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x0102_1997,
    0x6b41_4653,
    0x5346_414f,
    0x7375_7245,
    0x00c3_6400,
];

/// Another descriptor of the same file that cannot be written through, whatever `file` can.
pub(crate) fn read_only(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(std::fs::OpenOptions::new().read(true).open(path)?.into())
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
