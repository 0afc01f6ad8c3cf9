// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making small file systems and what stands in them, through descriptors only.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::AtFlags;
use nix::sys::stat::{self, Mode, SFlag};
use nix::unistd::{self, Gid, Uid};

use crate::sys::beneath::open_beneath;
use crate::sys::{SysError, mount};

/// A detached tmpfs of `size` bytes whose root is `uid:gid` with `mode`.
pub(super) fn tmpfs(
    size: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    attributes: u64,
) -> Result<OwnedFd, SysError> {
    // An empty file costs kernel memory that `size` does not count, so their number is bound
    // too: one a page, and at least as many as a small tree needs.
    let inodes = (size / 4096).max(4096);
    let context = mount::open_filesystem(c"tmpfs")?;
    let options = [
        (c"source", "lp-run".to_owned()),
        (c"size", size.to_string()),
        (c"nr_inodes", inodes.to_string()),
        (c"mode", format!("{mode:o}")),
        (c"uid", uid.to_string()),
        (c"gid", gid.to_string()),
    ];
    for (key, value) in options {
        mount::set_option(&context, key, &text(value.as_bytes())?)?;
    }
    mount::mount_filesystem(&context, attributes)
}

/// A new devpts instance, whose terminals belong to their makers' group `gid`.
pub(super) fn devpts(gid: u32) -> Result<OwnedFd, SysError> {
    let context = mount::open_filesystem(c"devpts")?;
    let options = [
        (c"source", "devpts".to_owned()),
        (c"mode", "0620".to_owned()),
        (c"ptmxmode", "0666".to_owned()),
        (c"gid", gid.to_string()),
        (c"max", "64".to_owned()),
    ];
    for (key, value) in options {
        mount::set_option(&context, key, &text(value.as_bytes())?)?;
    }
    mount::mount_filesystem(&context, mount::NO_SUID | mount::NO_EXEC)
}

/// A path below a root, without the leading slash; `.` for the root itself.
pub(super) fn relative(path: &Path) -> Result<CString, SysError> {
    let bytes = path.as_os_str().as_bytes();
    let start = bytes
        .iter()
        .position(|byte| *byte != b'/')
        .unwrap_or(bytes.len());
    match &bytes[start..] {
        [] => text(b"."),
        rest => text(rest),
    }
}

/// While it lives, what is made has the mode that was asked for: the umask takes no bit away. The
/// umask is the process's, so no thread may exist.
pub(super) struct ExactModes(Mode);

impl ExactModes {
    pub(super) fn new() -> Self {
        Self(stat::umask(Mode::empty()))
    }
}

impl Drop for ExactModes {
    fn drop(&mut self) {
        stat::umask(self.0);
    }
}

/// A tree of the run's own, in which places are made. Nobody else sees it yet.
pub(super) struct OwnTree {
    /// Owner of what is made in it, where that is not who makes it.
    owner: Option<(Uid, Gid)>,
    /// Directories that are there, so that each is asked for once.
    made: RefCell<HashSet<PathBuf>>,
}

impl OwnTree {
    pub(super) fn of((uid, gid): (u32, u32)) -> Self {
        let owner = (Uid::from_raw(uid), Gid::from_raw(gid));
        let maker = (unistd::geteuid(), unistd::getegid());
        Self {
            owner: (owner != maker).then_some(owner),
            made: RefCell::default(),
        }
    }

    /// The directories above `path`, made where they are missing: 0755.
    pub(super) fn make_parents(&self, root: impl AsFd, path: &CStr) -> Result<(), SysError> {
        let path = Path::new(OsStr::from_bytes(path.to_bytes()));
        let parents = path.parent().unwrap_or(Path::new(""));
        let mut missing: Vec<&Path> = parents
            .ancestors()
            .take_while(|above| !above.as_os_str().is_empty())
            .take_while(|above| !self.made.borrow().contains(*above))
            .collect();
        while let Some(above) = missing.pop() {
            self.make_directory(&root, &text(above.as_os_str().as_bytes())?, 0o755)?;
            self.made.borrow_mut().insert(above.to_owned());
        }
        Ok(())
    }

    /// A directory, unless it is there. Needs [`ExactModes`].
    pub(super) fn make_directory(
        &self,
        root: impl AsFd,
        path: &CStr,
        mode: u32,
    ) -> Result<(), SysError> {
        match stat::mkdirat(&root, path, Mode::from_bits_truncate(mode)) {
            Err(nix::errno::Errno::EEXIST) => return Ok(()),
            other => other.map_err(failed("mkdirat"))?,
        }
        let Some((uid, gid)) = self.owner else {
            return Ok(());
        };
        let flag = AtFlags::AT_SYMLINK_NOFOLLOW;
        unistd::fchownat(&root, path, Some(uid), Some(gid), flag).map_err(failed("fchownat"))
    }
}

/// A place for a file to be mounted on, unless it is there. What stands in it is never seen.
pub(super) fn make_place(root: impl AsFd, path: &CStr) -> Result<(), SysError> {
    match stat::mknodat(root, path, SFlag::S_IFREG, Mode::S_IRUSR, 0) {
        Err(nix::errno::Errno::EEXIST) => Ok(()),
        other => other.map_err(failed("mknodat")),
    }
}

/// A directory in a tree of somebody's, unless it is there.
pub(super) fn make_directory(
    root: impl AsFd,
    path: &CStr,
    mode: u32,
    uid: u32,
    gid: u32,
) -> Result<(), SysError> {
    match stat::mkdirat(&root, path, Mode::from_bits_truncate(mode)) {
        Err(nix::errno::Errno::EEXIST) => return Ok(()),
        other => other.map_err(failed("mkdirat"))?,
    }
    let made = open_beneath(
        &root,
        path,
        libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW,
        0,
    )?;
    own(&made, mode, uid, gid)
}

/// A file with this content, in place of none.
pub(super) fn make_file(
    root: impl AsFd,
    path: &CStr,
    content: &[u8],
    mode: u32,
    uid: u32,
    gid: u32,
) -> Result<(), SysError> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NOFOLLOW;
    let made = open_beneath(&root, path, flags, 0o600)?;
    let mut rest = content;
    while !rest.is_empty() {
        let written = unistd::write(&made, rest).map_err(failed("write"))?;
        rest = &rest[written..];
    }
    own(&made, mode, uid, gid)
}

/// A symbolic link, unless the name is taken.
pub(super) fn make_link(root: impl AsFd, path: &CStr, says: &Path) -> Result<(), SysError> {
    match unistd::symlinkat(says, &root, path) {
        Err(nix::errno::Errno::EEXIST) => Ok(()),
        other => other.map_err(failed("symlinkat")),
    }
}

/// A character device 0666, unless the name is taken. Needs [`ExactModes`].
pub(super) fn make_device(
    root: impl AsFd,
    path: &CStr,
    (major, minor): (u64, u64),
) -> Result<(), SysError> {
    let mode = Mode::from_bits_truncate(0o666);
    let device = stat::makedev(major, minor);
    match stat::mknodat(root, path, SFlag::S_IFCHR, mode, device) {
        Err(nix::errno::Errno::EEXIST) => Ok(()),
        other => other.map_err(failed("mknodat")),
    }
}

fn own(made: &OwnedFd, mode: u32, uid: u32, gid: u32) -> Result<(), SysError> {
    unistd::fchownat(
        made,
        c"",
        Some(Uid::from_raw(uid)),
        Some(Gid::from_raw(gid)),
        AtFlags::AT_EMPTY_PATH,
    )
    .map_err(failed("fchown"))?;
    stat::fchmod(made, Mode::from_bits_truncate(mode)).map_err(failed("fchmod"))
}

pub(super) fn text(bytes: &[u8]) -> Result<CString, SysError> {
    CString::new(bytes).map_err(|_| SysError {
        call: "path with a NUL byte",
        source: std::io::Error::from_raw_os_error(libc::EINVAL),
    })
}

/// A `nix` error as the failure of `call`.
pub(super) fn failed(call: &'static str) -> impl Fn(nix::errno::Errno) -> SysError {
    move |errno| SysError {
        call,
        source: errno.into(),
    }
}
