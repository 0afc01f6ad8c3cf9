// SPDX-License-Identifier: MIT OR Apache-2.0
//! statx(2): which mount a descriptor stands for.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use super::SysError;

/// The id of the mount that `fd` lies in, as the first field of its line in
/// `/proc/PID/mountinfo`. A mount keeps it when it is moved. No server is asked for it.
pub fn mount_id(fd: impl AsFd) -> Result<u64, SysError> {
    let mut answer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: an open descriptor, an empty NUL-terminated path, room for the answer.
    let done = unsafe {
        libc::statx(
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC,
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
