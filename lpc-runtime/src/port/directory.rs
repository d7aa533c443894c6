//! Where ports with a name are: a directory that only this user can enter.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use lpc_core::{Error, ErrorKind, Result};
use nix::unistd::{Uid, User};

use crate::sys::environment;

pub(super) fn runtime_directory() -> Result<PathBuf> {
    let set = |name| environment::var(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let own = |path: &PathBuf| !is_of_another_user(path);
    if let Some(directory) = set("XDG_RUNTIME_DIR").filter(own) {
        return Ok(directory);
    }
    let user = Uid::effective();
    let directory = PathBuf::from(format!("/run/user/{user}"));
    if directory.is_dir() {
        return Ok(directory);
    }
    let home = set("HOME").filter(own).or_else(|| Some(User::from_uid(user).ok()??.dir).filter(own));
    let home = home.ok_or_else(|| {
        let message = "a port's name needs a runtime directory: neither XDG_RUNTIME_DIR nor HOME is a directory of this user";
        Error::new(ErrorKind::InvalidInput, message)
    })?;
    let directory = home.join(".local/state");
    DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
    Ok(directory)
}

/// Whether the directory is another user's: under `sudo -E`, the variables of the environment name those of
/// the user who called it.
fn is_of_another_user(directory: &Path) -> bool {
    fs::metadata(directory).is_ok_and(|found| found.uid() != Uid::effective().as_raw())
}

/// Creates the directory if it does not exist, but not its parents, and checks that only this user can enter
/// it.
pub(super) fn private_directory(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => result?,
    }
    let found = fs::symlink_metadata(directory)?;
    let refuse = |reason: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    if !found.is_dir() {
        return refuse(format!("{} is no directory", directory.display()));
    }
    if found.uid() != Uid::effective().as_raw() {
        return refuse(format!("{} belongs to user {}", directory.display(), found.uid()));
    }
    if found.mode() & 0o077 != 0 {
        return refuse(format!("{} has mode {:o}, not 700", directory.display(), found.mode() & 0o777));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_that_others_can_enter_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let open = directory.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
        assert!(private_directory(&open).unwrap_err().to_string().contains("mode 755"));
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&open, &link).unwrap();
        assert!(private_directory(&link).unwrap_err().to_string().contains("no directory"));
        private_directory(&directory.path().join("lpc")).unwrap();
        // A mistyped XDG_RUNTIME_DIR is not to be made.
        assert_eq!(
            private_directory(&directory.path().join("new/lpc")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
