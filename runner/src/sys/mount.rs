// SPDX-License-Identifier: MIT OR Apache-2.0
//! The descriptor-based mount interface (Linux 5.2 and later): trees are cloned or made
//! without being attached anywhere, get their attributes, and are moved into place last.
//!
//! Constants and layouts are those of `include/uapi/linux/mount.h`. Every function here may
//! be called between fork and exec: none allocates.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::SysError;

/// Nothing below the mount changes.
pub const READ_ONLY: u64 = 0x1;
/// Set-user-id bits and file capabilities have no effect.
pub const NO_SUID: u64 = 0x2;
/// Device files cannot be opened.
pub const NO_DEV: u64 = 0x4;
/// Nothing is executed or mapped as code.
pub const NO_EXEC: u64 = 0x8;
/// Ids are mapped by the user namespace given with the change.
const IDMAP: u64 = 0x0010_0000;

const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;

/// `struct mount_attr`.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// A descriptor, or the failure of `call`.
fn descriptor(call: &'static str, result: libc::c_long) -> Result<OwnedFd, SysError> {
    if result < 0 {
        return Err(SysError::last(call));
    }
    // SAFETY: the kernel has just returned this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

/// Nothing, or the failure of `call`.
fn nothing(call: &'static str, result: libc::c_long) -> Result<(), SysError> {
    if result < 0 {
        Err(SysError::last(call))
    } else {
        Ok(())
    }
}

/// A detached clone of what `from` names, with everything mounted below it when `recursive`.
/// `from` must lie in the caller's mount namespace (before 6.15 also: not be detached).
/// See open_tree(2).
pub fn clone_tree(from: impl AsFd, recursive: bool) -> Result<OwnedFd, SysError> {
    let mut flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as libc::c_uint;
    if recursive {
        flags |= libc::AT_RECURSIVE as libc::c_uint;
    }
    // SAFETY: the descriptor is open and the path a NUL-terminated constant.
    let result = unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            from.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    };
    descriptor("open_tree", result)
}

/// A file system context, to be configured. See fsopen(2).
pub fn open_filesystem(name: &CStr) -> Result<OwnedFd, SysError> {
    // SAFETY: a NUL-terminated string.
    let result = unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) };
    descriptor("fsopen", result)
}

/// Sets `key` to `value` in a file system context. See fsconfig(2).
pub fn set_option(context: impl AsFd, key: &CStr, value: &CStr) -> Result<(), SysError> {
    // SAFETY: an open descriptor and NUL-terminated strings.
    let result = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_fd().as_raw_fd(),
            FSCONFIG_SET_STRING,
            key.as_ptr(),
            value.as_ptr(),
            0,
        )
    };
    nothing("fsconfig", result)
}

/// Sets the flag `key` in a file system context. See fsconfig(2).
pub fn set_flag(context: impl AsFd, key: &CStr) -> Result<(), SysError> {
    // SAFETY: an open descriptor, a NUL-terminated string, no value.
    let result = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_fd().as_raw_fd(),
            FSCONFIG_SET_FLAG,
            key.as_ptr(),
            std::ptr::null::<libc::c_char>(),
            0,
        )
    };
    nothing("fsconfig", result)
}

/// Makes the file system of a context and mounts it detached, with the given attributes.
/// See fsmount(2).
pub fn mount_filesystem(context: impl AsFd, attributes: u64) -> Result<OwnedFd, SysError> {
    let context = context.as_fd().as_raw_fd();
    // SAFETY: an open descriptor; the command takes neither key nor value.
    let created = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context,
            FSCONFIG_CMD_CREATE,
            std::ptr::null::<libc::c_char>(),
            std::ptr::null::<libc::c_char>(),
            0,
        )
    };
    nothing("fsconfig", created)?;
    // SAFETY: an open descriptor and two integers.
    let result = unsafe { libc::syscall(libc::SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes) };
    descriptor("fsmount", result)
}

/// The root of a mount as a directory that can be worked in.
pub fn reopen_directory(mount: impl AsFd) -> Result<OwnedFd, SysError> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: an open descriptor and a NUL-terminated string.
    let result = unsafe { libc::openat(mount.as_fd().as_raw_fd(), c".".as_ptr(), flags) };
    descriptor("openat", result.into())
}

/// Adds attributes to a mount, and to those below it when `recursive`; the propagation of a
/// changed mount becomes private, so that later mounts of the host do not appear in it.
/// See mount_setattr(2).
pub fn set_attributes(mount: impl AsFd, set: u64, recursive: bool) -> Result<(), SysError> {
    change(
        mount,
        &MountAttr {
            set,
            propagation: libc::MS_PRIVATE,
            ..Default::default()
        },
        recursive,
    )
}

/// Maps the ids of a detached mount by a user namespace. See mount_setattr(2), section
/// "ID-mapped mounts".
pub fn map_ids(mount: impl AsFd, userns: impl AsFd) -> Result<(), SysError> {
    let userns_fd = userns.as_fd().as_raw_fd() as u64;
    change(
        mount,
        &MountAttr {
            set: IDMAP,
            userns_fd,
            ..Default::default()
        },
        false,
    )
}

fn change(mount: impl AsFd, attr: &MountAttr, recursive: bool) -> Result<(), SysError> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: an open descriptor, a NUL-terminated constant, and a live struct of the size
    // that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            attr,
            size_of::<MountAttr>(),
        )
    };
    nothing("mount_setattr", result)
}

/// Moves a detached mount onto the object that `target` names. See move_mount(2).
pub fn attach(mount: impl AsFd, target: impl AsFd) -> Result<(), SysError> {
    // SAFETY: two open descriptors and NUL-terminated constants.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            target.as_fd().as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    nothing("move_mount", result)
}

/// Cuts the propagation of every mount of this namespace from and to the host.
pub fn make_private() -> Result<(), SysError> {
    for propagation in [libc::MS_SLAVE, libc::MS_PRIVATE] {
        // SAFETY: a NUL-terminated path, and null where the call reads nothing.
        let result = unsafe {
            libc::mount(
                std::ptr::null(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | propagation,
                std::ptr::null(),
            )
        };
        nothing("mount", result.into())?;
    }
    Ok(())
}

/// Makes the mount at the current directory the root and detaches the old root, stacked on
/// the same place. See pivot_root(2), "pivot_root(".", ".")".
pub fn pivot_here() -> Result<(), SysError> {
    // SAFETY: NUL-terminated constants.
    let pivoted = unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) };
    nothing("pivot_root", pivoted)?;
    // SAFETY: as above.
    let detached = unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) };
    nothing("umount2", detached.into())?;
    // SAFETY: as above.
    nothing("chdir", unsafe { libc::chdir(c"/".as_ptr()) }.into())
}
