//! The environment, where it is to be believed.
#![allow(unsafe_code)]

use std::ffi::OsString;

use nix::libc;

/// The variable's value, if it has one that is not empty, and this process believes its environment.
pub(crate) fn var(name: &str) -> Option<OsString> {
    if is_foreign() {
        return None;
    }
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Whether this process has rights that its starter has not, as a set-user-ID program has: then its
/// environment is a stranger's word (`AT_SECURE`, getauxval(3)).
pub(crate) fn is_foreign() -> bool {
    // SAFETY: it reads what the kernel has told this process at its start.
    let is_secure = unsafe { libc::getauxval(libc::AT_SECURE) };
    is_secure != 0
}
