//! Why nobody can connect to a port, or bind it, and what to do about that.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use lpc_core::ErrorKind;
use nix::errno::Errno;
use nix::unistd::Uid;

/// Why connect(2) failed. The system has a few codes for many reasons: what is at the path tells them apart.
pub(super) fn unconnected(path: &Path, error: Errno) -> (ErrorKind, String) {
    match error {
        Errno::ENOENT => (ErrorKind::NotFound, format!("nobody serves it: {}", missing(path))),
        Errno::ECONNREFUSED => match fs::metadata(path) {
            Ok(found) if found.file_type().is_socket() => {
                let reason = "nobody serves it: its socket is left of a server that has ended, or does not \
                              listen yet; start the server, which replaces it";
                (ErrorKind::NotFound, reason.into())
            }
            Ok(found) => (ErrorKind::InvalidInput, no_socket(&found)),
            // It was removed a moment ago.
            Err(_) => (ErrorKind::NotFound, format!("nobody serves it: {}", missing(path))),
        },
        Errno::EACCES | Errno::EPERM => (ErrorKind::PermissionDenied, forbidden(path, error)),
        Errno::ENOTDIR => (ErrorKind::InvalidInput, not_a_directory(path)),
        Errno::EPROTOTYPE => {
            let reason = "its socket is of another type (not SOCK_STREAM): a server of lpc made none like it";
            (ErrorKind::InvalidInput, reason.into())
        }
        _ => (ErrorKind::Io, error.desc().into()),
    }
}

/// Why no socket can be bound here, where that is plain to see.
pub(super) fn unbindable(path: &Path) -> Option<(ErrorKind, String)> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => None,
        Ok(found) => Some((ErrorKind::InvalidInput, no_socket(&found))),
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT) if !has_directory(path) => Some((ErrorKind::NotFound, missing(path))),
            Some(Errno::ENOTDIR) => Some((ErrorKind::InvalidInput, not_a_directory(path))),
            Some(code @ Errno::EACCES) => Some((ErrorKind::PermissionDenied, forbidden(path, code))),
            _ => None,
        },
    }
}

/// What is in the place of a socket.
pub(super) fn no_socket(found: &Metadata) -> String {
    let kind = found.file_type();
    let what = if kind.is_dir() {
        "a directory: the path of a port is that of the socket itself, such as `DIRECTORY/documents.sock`"
    } else if kind.is_file() {
        "a file, not a socket: choose another path, or remove it if nobody needs it"
    } else if kind.is_symlink() {
        "a symbolic link, not a socket: choose the path that it points to"
    } else {
        "neither a socket nor a file: choose another path"
    };
    format!("it is {what}")
}

fn has_directory(path: &Path) -> bool {
    path.parent().is_none_or(Path::exists)
}

fn missing(path: &Path) -> String {
    // The first directory that is not there.
    let missing = path.ancestors().skip(1).take_while(|directory| !directory.exists()).last();
    match missing {
        Some(directory) => format!("the directory {directory:?} does not exist"),
        None => "there is no socket; start the server, or look whether it uses another name or path".into(),
    }
}

fn not_a_directory(path: &Path) -> String {
    let file = path.ancestors().skip(1).find(|place| place.exists()).unwrap_or(path);
    format!("{file:?}, which should be a directory, is a file")
}

fn forbidden(path: &Path, error: Errno) -> String {
    let user = Uid::effective();
    let whose = |found: &Metadata| format!("of user {}, mode {:o}", found.uid(), found.mode() & 0o7777);
    // The first whose content this user may not see.
    let closed = path.ancestors().collect::<Vec<_>>().into_iter().rev().skip_while(|place| {
        !matches!(fs::symlink_metadata(place), Err(error) if error.kind() == io::ErrorKind::PermissionDenied)
    });
    if let Some(directory) = closed.map(Path::parent).next().flatten()
        && let Ok(found) = fs::metadata(directory)
    {
        let whose = whose(&found);
        return format!(
            "user {user} may not enter {directory:?} ({whose}): use a directory that both sides may"
        );
    }
    match fs::metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            let whose = whose(&found);
            format!(
                "user {user} may not write to its socket ({whose}): the server lets others in with \
                 `socket_mode` and `accept`"
            )
        }
        _ => error.desc().into(),
    }
}
