//! Who answers for a file: the kernel alone, or a process or machine somewhere, when it pleases.
//!
//! That must be told without asking the file's filesystem, since to ask is to wait for whoever answers
//! (`fstat`, `fstatfs`): by the kernel's own table of mounts. Only what is known to be local is; whatever
//! else there is, and will be, is not.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use nix::errno::Errno;
use nix::libc;

/// What the kernel knows of a file without asking for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// `S_IFREG` and so on.
    pub(crate) mode: u32,
    device: (u32, u32),
    /// Since Linux 5.8.
    mount: Option<u64>,
}

/// Who answers for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// This machine's kernel alone.
    Kernel,
    /// A process or another machine, perhaps.
    Others,
    /// Its mount is not one of this process's.
    Unknown,
}

/// Filesystems that keep their files in memory or on a device.
const LOCAL: [&str; 26] = [
    "bcachefs", "btrfs", "cramfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfsplus", "iso9660",
    "jfs", "minix", "msdos", "nilfs2", "ntfs3", "ramfs", "reiserfs", "romfs", "rootfs", "squashfs", "tmpfs",
    "udf", "vfat", "xfs", "zfs",
];

/// One that shows files of others, which may be anybody's.
const OVERLAY: &str = "overlay";

/// `STATX_MNT_ID`.
const MOUNT: u32 = 0x1000;

/// What is known of a file: asks no filesystem (`AT_STATX_DONT_SYNC`, statx(2)).
pub(crate) fn known(file: BorrowedFd<'_>) -> io::Result<Known> {
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    // SAFETY: it is numbers, for which all zeroes is a value.
    let mut known: libc::statx = unsafe { mem::zeroed() };
    // SAFETY: the path is an empty string, as the flag says, and the buffer is one for the result.
    let result = unsafe {
        libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, libc::STATX_TYPE | MOUNT, &raw mut known)
    };
    Errno::result(result)?;
    let mount = (known.stx_mask & MOUNT != 0).then_some(known.stx_mnt_id);
    Ok(Known { mode: known.stx_mode.into(), device: (known.stx_dev_major, known.stx_dev_minor), mount })
}

/// Who answers for a file.
pub(crate) fn answers(file: &Known) -> Answers {
    // What a block device was found to carry stays what it is: another mount of it takes a privilege that
    // peers do not have.
    static DEVICES: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];
    let (major, minor) = file.device;
    let device = (u64::from(major) << 32) | u64::from(minor);
    if major != 0 && DEVICES.iter().any(|known| known.load(Relaxed) == device) {
        return Answers::Kernel;
    }
    let Ok(mounts) = fs::read("/proc/self/mountinfo") else { return Answers::Unknown };
    let answers = answers_by(&String::from_utf8_lossy(&mounts), file);
    if answers == Answers::Kernel && major != 0 {
        let free = DEVICES.iter().find(|known| known.load(Relaxed) == 0);
        if let Some(free) = free {
            free.store(device, Relaxed);
        }
    }
    answers
}

/// A line of the table (`/proc/PID/mountinfo`, proc(5)).
struct Mount<'a> {
    id: u64,
    device: (u32, u32),
    point: &'a str,
    filesystem: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split(' ');
        let id = words.next()?.parse().ok()?;
        let (major, minor) = words.nth(1)?.split_once(':')?;
        let point = words.nth(1)?;
        let filesystem = words.skip_while(|word| *word != "-").nth(1)?;
        Some(Self { id, device: (major.parse().ok()?, minor.parse().ok()?), point, filesystem })
    }
}

fn answers_by(mounts: &str, file: &Known) -> Answers {
    let mounts = || mounts.lines().filter_map(Mount::parse);
    // A part of btrfs has a device number of its own, which no mount has.
    let by_mount = mounts().find(|mount| Some(mount.id) == file.mount);
    // The peer's mounts may be others than this process's, of the same filesystems.
    let Some(found) = by_mount.or_else(|| mounts().find(|mount| mount.device == file.device)) else {
        return Answers::Unknown;
    };
    let is_local = if found.filesystem == OVERLAY {
        // Of this process's own root it depends anyway. What any other overlay is made of cannot be told.
        mounts().rfind(|mount| mount.point == "/").is_some_and(|root| root.device == found.device)
    } else {
        LOCAL.contains(&found.filesystem)
    };
    if is_local { Answers::Kernel } else { Answers::Others }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    const MOUNTS: &str = "\
22 1 0:20 / / rw,relatime shared:1 - overlay overlay rw,lowerdir=/l,upperdir=/u
23 22 0:21 / /proc rw - proc proc rw
24 22 8:1 /data /data rw,noatime shared:2 master:3 - ext4 /dev/sda1 rw
25 22 0:30 / /home/user/mnt rw,nosuid - fuse.sshfs host: rw,user_id=1000
26 22 0:31 / /export rw - nfs4 host:/export rw
27 22 0:32 / /merged rw - overlay overlay rw,lowerdir=/home/user/mnt,upperdir=/u2
28 22 0:33 /@ /vol rw - btrfs /dev/sdb rw
29 22 0:34 / /dev/shm rw - tmpfs tmpfs rw
30 22 0:35 / /new rw - filesystemofnextyear none rw
31 22 8:2 / /ntfs rw - fuseblk /dev/sda2 rw
not a line at all
";

    fn of(device: (u32, u32), mount: Option<u64>) -> Answers {
        answers_by(MOUNTS, &Known { mode: 0, device, mount })
    }

    #[test]
    fn only_what_is_known_to_be_local_is() {
        use Answers::{Kernel, Others, Unknown};

        assert_eq!(of((8, 1), Some(24)), Kernel);
        assert_eq!(of((0, 34), Some(29)), Kernel);
        assert_eq!(of((0, 99), Some(28)), Kernel, "a part of btrfs");
        assert_eq!(of((8, 1), Some(1234)), Kernel, "a mount of the peer's, of a device that is mounted here");
        assert_eq!(of((8, 1), None), Kernel);
        assert_eq!(of((0, 20), Some(22)), Kernel, "this process's root");
        for (device, mount) in [(30, 25), (31, 26), (32, 27), (35, 30), (21, 23)] {
            assert_eq!(of((0, device), Some(mount)), Others, "mount {mount}");
        }
        assert_eq!(of((8, 2), Some(31)), Others);
        assert_eq!(of((0, 77), Some(77)), Unknown);
        assert_eq!(of((0, 77), None), Unknown);
    }

    #[test]
    fn a_file_of_this_machine_is_local_and_one_of_proc_is_not() {
        let known = known(tempfile::tempfile().unwrap().as_fd()).unwrap();
        assert_eq!(known.mode & libc::S_IFMT, libc::S_IFREG);
        assert_eq!(answers(&known), Answers::Kernel);
        let version = std::fs::File::open("/proc/version").unwrap();
        assert_eq!(answers(&super::known(version.as_fd()).unwrap()), Answers::Others);
    }
}
