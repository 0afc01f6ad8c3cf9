// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where lp-run keeps what is its own. Root's runs have `/run/lp-run` and `/var/lib/lp-run`;
//! those of an ordinary user what the XDG base directory specification names, or the home that
//! the user database says: never a directory that others share, such as `/tmp`.

use std::path::{Path, PathBuf};

/// Runs that exist: gone after a reboot, or known by the boot they belong to.
pub fn runtime() -> PathBuf {
    if is_root() {
        return PathBuf::from("/run/lp-run");
    }
    variable("XDG_RUNTIME_DIR").map_or_else(|| state().join("run"), |base| base.join("lp-run"))
}

/// Usage records that wait for their readers.
pub fn spool() -> PathBuf {
    state().join("spool")
}

/// What is kept.
pub fn state() -> PathBuf {
    if is_root() {
        return PathBuf::from("/var/lib/lp-run");
    }
    let base = variable("XDG_STATE_HOME").unwrap_or_else(|| home().join(".local/state"));
    base.join("lp-run")
}

/// What is kept and can be made again.
pub fn cache() -> PathBuf {
    if is_root() {
        return PathBuf::from("/var/cache/lp-run");
    }
    let base = variable("XDG_CACHE_HOME").unwrap_or_else(|| home().join(".cache"));
    base.join("lp-run")
}

fn home() -> PathBuf {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid());
    let user = user.ok().flatten();
    user.map_or_else(|| PathBuf::from("/nonexistent"), |user| user.dir)
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A variable that names a directory; the specification has a relative one ignored.
fn variable(name: &str) -> Option<PathBuf> {
    let value = std::env::var_os(name)?;
    Path::new(&value)
        .is_absolute()
        .then(|| PathBuf::from(value))
}
