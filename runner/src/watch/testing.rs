// SPDX-License-Identifier: MIT OR Apache-2.0
//! A place for an object of a test's own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nix::mount::{MntFlags, umount2};

/// A directory like `/run/lp-run`; what was pinned in it goes with it.
pub struct Base(tempfile::TempDir);

impl Base {
    /// A fresh one.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        Self(directory)
    }

    /// The one that tests of runs have in common, as runs have: loading an object takes seconds
    /// on an emulated machine. It goes with the last test that holds it or waits for its turn.
    pub fn shared() -> Arc<Self> {
        static LAST: Mutex<Weak<Base>> = Mutex::new(Weak::new());
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        last.upgrade().unwrap_or_else(|| {
            let fresh = Arc::new(Self::new());
            *last = Arc::downgrade(&fresh);
            fresh
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        let _ = umount2(&self.0.path().join("bpf"), MntFlags::MNT_DETACH);
    }
}

/// Where cgroup v2 is mounted.
pub fn unified() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = text.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}
