// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be seen of a path from outside of the run: whether the host has it, and which
//! symbolic links the agent has on the way. The agent chose the path and may have made the
//! links, so nothing here follows one: each is read, and the walk goes on below the view's root.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::sys::beneath::open_beneath;

/// What is asked about paths.
pub trait Sight {
    /// Whether a path exists on the host; what this kernel alone cannot say counts as there.
    fn on_host(&self, path: &Path) -> bool;
    /// Where the symbolic link at `path`, which has no other link on its way, leads to in the
    /// agent's view; `None` where there is none.
    fn link(&self, path: &Path) -> Option<PathBuf>;
}

/// The host and the view of a run.
#[derive(Debug)]
pub struct HostAndView {
    root: Option<OwnedFd>,
    /// Keeps the view's mounts together when the last process is gone before its last event was
    /// read.
    _namespace: Option<OwnedFd>,
}

impl HostAndView {
    /// The view of the process `pid`. Without one only the links of the plan are known.
    pub fn of(pid: i32) -> Self {
        Self {
            root: open_path(&format!("/proc/{pid}/root")).ok(),
            _namespace: File::open(format!("/proc/{pid}/ns/mnt"))
                .ok()
                .map(OwnedFd::from),
        }
    }
}

impl Sight for HostAndView {
    fn on_host(&self, path: &Path) -> bool {
        crate::sys::glance::exists(path)
    }

    fn link(&self, path: &Path) -> Option<PathBuf> {
        let root = self.root.as_ref()?;
        let below = path.strip_prefix("/").ok()?;
        if is_a_root(below) {
            return Some("/".into());
        }
        let name = CString::new(below.as_os_str().as_bytes()).ok()?;
        let found = open_beneath(root, &name, libc::O_PATH | libc::O_NOFOLLOW, 0).ok()?;
        nix::fcntl::readlinkat(&found, "").ok().map(PathBuf::from)
    }
}

/// Whether this is `proc/PID/root` or the like. Every process of a run has the same root, and
/// the one that asked may be gone.
fn is_a_root(below: &Path) -> bool {
    below.starts_with("proc") && below.ends_with("root") && matches!(below.iter().count(), 3 | 5)
}

fn open_path(path: &str) -> io::Result<OwnedFd> {
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(path)?;
    Ok(opened.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_host_is_asked_for_the_name_itself() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("dangling");
        symlink("/nowhere/at/all", &link).unwrap();
        let sight = HostAndView::of(0);
        assert!(sight.on_host(&link));
        assert!(!sight.on_host(&directory.path().join("nothing")));
    }

    #[test]
    fn a_link_is_read_and_never_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (link, through) = (directory.path().join("link"), directory.path().join("dir"));
        symlink("/etc/shadow", &link).unwrap();
        symlink(directory.path(), &through).unwrap();
        let sight = HostAndView {
            root: Some(open_path("/").unwrap()),
            _namespace: None,
        };
        assert_eq!(sight.link(&link), Some("/etc/shadow".into()));
        assert_eq!(sight.link(&through.join("link")), None);
        assert_eq!(sight.link(directory.path()), None);
        for process in ["self", "thread-self", "7", "7/task/8"] {
            let path = PathBuf::from(format!("/proc/{process}/root"));
            assert_eq!(sight.link(&path), Some("/".into()), "{process}");
        }
    }
}
