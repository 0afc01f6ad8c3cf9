// SPDX-License-Identifier: MIT OR Apache-2.0
//! statx(2): what a descriptor stands for, and in which mount.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use super::SysError;

/// The id of the mount that `fd` lies in, as the first field of its line in
/// `/proc/PID/mountinfo`. A mount keeps it when it is moved. No server is asked for it.
pub fn mount_id(fd: impl AsFd) -> Result<u64, SysError> {
    let answer = ask(fd, libc::AT_STATX_DONT_SYNC, libc::STATX_MNT_ID)?;
    Ok(answer.stx_mnt_id)
}

/// What fstat(2) says, and the id of the mount, in one call.
pub fn status(fd: impl AsFd) -> Result<libc::statx, SysError> {
    let mask = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID;
    ask(fd, libc::AT_STATX_SYNC_AS_STAT, mask)
}

fn ask(fd: impl AsFd, flags: i32, mask: u32) -> Result<libc::statx, SysError> {
    let mut answer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: an open descriptor, an empty NUL-terminated path, room for the answer.
    let done = unsafe {
        libc::statx(
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            mask,
            answer.as_mut_ptr(),
        )
    };
    if done != 0 {
        return Err(SysError::last("statx"));
    }
    // SAFETY: the kernel has filled it, and zeroes are a valid value of it too.
    Ok(unsafe { answer.assume_init() })
}
