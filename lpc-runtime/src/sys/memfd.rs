//! Anonymous files for shared memory: made and sealed by the sender, checked by the receiver.
//!
//! The seals are what lets each side map the other's memory (memfd_create(2), fcntl(2)):
//! - `F_SEAL_SHRINK`: the file cannot be truncated, so touching a page never raises SIGBUS here;
//! - `F_SEAL_GROW`, `F_SEAL_SEAL`: it stays as it was announced;
//! - `F_SEAL_FUTURE_WRITE`: the sender's own mapping, made before, is the only writable one there ever is.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// The name in `/proc/PID/maps`.
const NAME: &CStr = c"lpc";

/// Not executable, and not to be made so; since Linux 6.3.
const NOEXEC_SEAL: MFdFlags = MFdFlags::from_bits_retain(0x8);

const SEALS: SealFlag = SealFlag::F_SEAL_SHRINK
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_FUTURE_WRITE)
    .union(SealFlag::F_SEAL_SEAL);

/// A new file of `len` zero bytes, none of which takes memory yet.
pub(crate) fn create(len: u64) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = match memfd_create(NAME, flags | NOEXEC_SEAL) {
        Err(nix::Error::EINVAL) => memfd_create(NAME, flags)?,
        result => result?,
    };
    let len = i64::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
    nix::unistd::ftruncate(&file, len)?;
    Ok(file)
}

/// Seals a file that its owner has mapped.
pub(crate) fn seal(file: BorrowedFd<'_>) -> io::Result<()> {
    fcntl(file, FcntlArg::F_ADD_SEALS(SEALS))?;
    Ok(())
}

/// Whether a descriptor from a peer may be mapped as a segment of `len` bytes: seals first, since only then does the
/// size stay what it is.
pub(crate) fn check(file: impl AsFd, len: u64) -> io::Result<()> {
    let refuse = |message: String| Err(io::Error::new(io::ErrorKind::InvalidData, message));
    let seals = match fcntl(file.as_fd(), FcntlArg::F_GET_SEALS) {
        Err(nix::Error::EINVAL) => return refuse("its descriptor is no memfd".into()),
        result => SealFlag::from_bits_retain(result?),
    };
    if !seals.contains(SEALS) {
        return refuse(format!("its memfd lacks seals: {:?}", SEALS.difference(seals)));
    }
    // Memory of another kind (hugetlbfs) can be sealed too, but a fault on it may find none and raise SIGBUS.
    if nix::sys::statfs::fstatfs(file.as_fd())?.filesystem_type() != nix::sys::statfs::TMPFS_MAGIC {
        return refuse("its memfd is not made of ordinary pages".into());
    }
    let size = nix::sys::stat::fstat(file.as_fd())?.st_size;
    if u64::try_from(size) != Ok(len) {
        return refuse(format!("its memfd has {size} bytes, {len} were announced"));
    }
    Ok(())
}
