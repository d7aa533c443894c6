//! The system calls that are unsafe: mappings, and what System V has.
#![allow(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io;
use std::num::ParseIntError;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::str::FromStr;

use memmap2::{Mmap, MmapMut, MmapOptions};
use nix::errno::Errno;
use nix::libc::{self, c_int, c_long};
use zerocopy::IntoBytes;

/// Memory to write to, which the process at the other end maps, too.
pub(super) fn map_to_write(file: &File, len: usize) -> io::Result<MmapMut> {
    // SAFETY: no process makes the file shorter. The other process is this same program: it only reads, and
    // only between a message that hands bytes over and its answer, when this one does not write.
    unsafe { MmapOptions::new().len(len).map_mut(file) }
}

/// Memory to read.
pub(super) fn map_to_read(file: &File, len: usize) -> io::Result<Mmap> {
    // SAFETY: no process makes the file shorter. The other process is this same program: it does not write
    // between a message that hands bytes over and its answer, which is when they are read here.
    unsafe { MmapOptions::new().len(len).map(file) }
}

/// A System V message queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queue(c_int);

/// Of every message; there must be one.
const KIND: c_long = 1;

/// A message with its kind before it, as msgsnd(2) wants it.
pub(super) struct Message(Vec<c_long>);

impl Message {
    /// With room for this many bytes.
    pub(super) fn with_room(bytes: usize) -> Self {
        let mut words = vec![0; 1 + bytes.div_ceil(size_of::<c_long>())];
        words[0] = KIND;
        Self(words)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0[1..].as_bytes()
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.0[1..].as_mut_bytes()
    }
}

impl Queue {
    pub(super) fn create() -> io::Result<Self> {
        // SAFETY: takes no memory.
        let id = unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600) };
        Ok(Self(Errno::result(id)?))
    }

    /// The message's first `len` bytes.
    pub(super) fn send(self, message: &Message, len: usize) -> io::Result<()> {
        assert!(len <= message.bytes().len(), "the message has its bytes");
        // SAFETY: the kernel reads the kind and `len` bytes behind it, which are there.
        Errno::result(unsafe { libc::msgsnd(self.0, message.0.as_ptr().cast(), len, 0) })?;
        Ok(())
    }

    /// Waits for a message, and says how long it is.
    pub(super) fn receive(self, message: &mut Message) -> io::Result<usize> {
        let room = message.bytes().len();
        // SAFETY: the kernel writes the kind and at most `room` bytes behind it, which are there; any bytes
        // are numbers.
        let len = unsafe { libc::msgrcv(self.0, message.0.as_mut_ptr().cast(), room, 0, 0) };
        Ok(Errno::result(len)?.unsigned_abs())
    }

    /// Ends all waits for its messages. It may have been removed already.
    pub(super) fn remove(self) {
        // SAFETY: this command takes no memory.
        unsafe { libc::msgctl(self.0, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Queue {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.parse().map(Self)
    }
}

/// A System V shared memory segment, attached.
pub(super) struct Segment {
    start: NonNull<u8>,
    len: usize,
}

impl Segment {
    /// A new one and its id. It goes away with the last process that has it attached.
    pub(super) fn create(len: usize) -> io::Result<(Self, c_int)> {
        // SAFETY: takes no memory.
        let id = Errno::result(unsafe { libc::shmget(libc::IPC_PRIVATE, len, 0o600) })?;
        let attached = Self::attach(id, len);
        // On Linux a removed segment can still be attached, as long as another process has it.
        // SAFETY: this command takes no memory.
        Errno::result(unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) })?;
        Ok((attached?, id))
    }

    /// One that the other process has created with this length.
    pub(super) fn attach(id: c_int, len: usize) -> io::Result<Self> {
        // SAFETY: the address is the kernel's choice, where nothing else is.
        let start = unsafe { libc::shmat(id, std::ptr::null(), 0) };
        if start.addr() == usize::MAX {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, len })
    }
}

impl Deref for Segment {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes are attached as long as `self` is. The other process is this same program: it
        // writes only when it is this one's turn to wait.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Segment {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; and the other process reads only when it is this one's turn to wait.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: what `attach` attached, and no reference into it outlives `self`.
        unsafe { libc::shmdt(self.start.as_ptr().cast()) };
    }
}
