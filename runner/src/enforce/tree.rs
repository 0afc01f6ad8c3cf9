// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making small file systems and what stands in them, through descriptors only.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

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

/// The directories above `path`, made where they are missing: `uid:gid`, 0755.
pub(super) fn make_parents(
    root: impl AsFd,
    path: &Path,
    uid: u32,
    gid: u32,
) -> Result<(), SysError> {
    let mut above = std::path::PathBuf::new();
    let parents = path.parent().unwrap_or(Path::new(""));
    for component in parents.components() {
        if let Component::Normal(name) = component {
            above.push(name);
            make_directory(&root, &text(above.as_os_str().as_bytes())?, 0o755, uid, gid)?;
        }
    }
    Ok(())
}

/// A directory, unless it is there.
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

/// A character device 0666, unless the name is taken.
pub(super) fn make_device(
    root: impl AsFd,
    path: &CStr,
    (major, minor): (u64, u64),
) -> Result<(), SysError> {
    let mode = Mode::from_bits_truncate(0o666);
    let device = stat::makedev(major, minor);
    match stat::mknodat(&root, path, SFlag::S_IFCHR, mode, device) {
        Err(nix::errno::Errno::EEXIST) => return Ok(()),
        other => other.map_err(failed("mknodat"))?,
    }
    // The umask has taken bits away.
    stat::fchmodat(&root, path, mode, stat::FchmodatFlags::FollowSymlink)
        .map_err(failed("fchmodat"))
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
