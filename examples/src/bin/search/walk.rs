//! Which files there are: what `grep -r` would read, in the order of their paths.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use walkdir::WalkDir;

/// A file to be searched.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    /// Named on the command line, and so searched whatever it is; in a tree only regular files are.
    is_named: bool,
}

/// Something that cannot be read, and why.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub(crate) struct WalkError {
    path: PathBuf,
    source: io::Error,
}

/// The files in and below `root`, or `root` itself if it is no directory.
///
/// Symbolic links are followed at the root only; devices, sockets and pipes are for the root only as well.
pub(crate) fn files(root: &Path) -> Box<dyn Iterator<Item = Result<Found, WalkError>>> {
    match std::fs::metadata(root) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Box::new([Ok(Found { path: root.into(), is_named: true })].into_iter()),
        Err(source) => return Box::new([Err(WalkError { path: root.into(), source })].into_iter()),
    }
    let entries = WalkDir::new(trimmed(root)).sort_by_file_name().into_iter();
    Box::new(entries.filter_map(|entry| match entry {
        Ok(entry) if entry.file_type().is_file() => {
            Some(Ok(Found { path: entry.into_path(), is_named: false }))
        }
        Ok(_) => None,
        Err(error) => {
            let path = error.path().map_or_else(PathBuf::new, Path::to_owned);
            // Anything else is a loop of symbolic links, which are not followed.
            error.into_io_error().map(|source| Err(WalkError { path, source }))
        }
    }))
}

impl Found {
    /// Opens the file. `None` if something that is not searched has taken its place since it was found.
    pub(crate) fn open(&self) -> io::Result<Option<File>> {
        let mut options = OpenOptions::new();
        options.read(true);
        if self.is_named {
            return options.open(&self.path).map(Some);
        }
        // So that opening what was a file a moment ago does not wait for a pipe's writer or wake a device.
        options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits());
        match options.open(&self.path) {
            Ok(file) => Ok(file.metadata()?.is_file().then_some(file)),
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                // A symbolic link; a socket.
                Some(Errno::ELOOP | Errno::ENXIO) => Ok(None),
                _ => Err(error),
            },
        }
    }
}

/// The path without slashes at its end, which would be doubled in the paths below it.
fn trimmed(root: &Path) -> &Path {
    let bytes = root.as_os_str().as_bytes();
    let len = bytes.iter().rposition(|&byte| byte != b'/').map_or(1, |last| last + 1);
    Path::new(std::ffi::OsStr::from_bytes(&bytes[..len.min(bytes.len())]))
}
