// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a name exists, asked in the way that disturbs nothing.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

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
