// SPDX-License-Identifier: MIT OR Apache-2.0
//! statx(2): whether a name exists, asked in the way that disturbs nothing, and which mount a
//! descriptor stands for.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::SysError;

/// Whether `path` names something. A symbolic link at the end counts itself; automounts are not
/// triggered and remote servers not asked for fresh attributes (statx(2)).
pub fn exists(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_STATX_DONT_SYNC;
    let mut answer = MaybeUninit::<libc::statx>::uninit();
    // SAFETY: a NUL-terminated path and room for the answer, which is not read.
    let done = unsafe {
        libc::statx(
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            libc::STATX_TYPE,
            answer.as_mut_ptr(),
        )
    };
    done == 0
}

/// The id of the mount that `fd` lies in, as the first field of its line in
/// `/proc/PID/mountinfo`. A mount keeps it when it is moved.
pub fn mount_id(fd: impl AsFd) -> Result<u64, SysError> {
    let mut answer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: an open descriptor, an empty NUL-terminated path, room for the answer.
    let done = unsafe {
        libc::statx(
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_MNT_ID,
            answer.as_mut_ptr(),
        )
    };
    if done != 0 {
        return Err(SysError::last("statx"));
    }
    // SAFETY: the kernel has filled it, and zeroes are a valid value of it too.
    Ok(unsafe { answer.assume_init() }.stx_mnt_id)
}
