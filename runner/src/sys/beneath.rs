// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opening and making things below a directory descriptor without ever leaving it: no
//! symbolic link is followed, whoever may have placed it (openat2(2)).

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::SysError;

/// Opens `path` (relative) below `directory` with `flags` (`O_PATH`, `O_DIRECTORY`, …;
/// close-on-exec is added). `mode` counts with `O_CREAT` only. Does not allocate.
pub fn open_beneath(
    directory: impl AsFd,
    path: &CStr,
    flags: i32,
    mode: u32,
) -> Result<OwnedFd, SysError> {
    let resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS;
    open(directory.as_fd(), path, flags, mode, resolve)
}

/// The same, never across the root of a mount (EXDEV).
pub fn open_within(directory: impl AsFd, path: &CStr, flags: i32) -> Result<OwnedFd, SysError> {
    let resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_XDEV;
    open(directory.as_fd(), path, flags, 0, resolve)
}

fn open(
    directory: BorrowedFd<'_>,
    path: &CStr,
    flags: i32,
    mode: u32,
    resolve: u64,
) -> Result<OwnedFd, SysError> {
    // SAFETY: all-zero is a valid `open_how`; the struct cannot be named field by field.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.mode = u64::from(mode);
    how.resolve = resolve;
    // SAFETY: an open descriptor, a NUL-terminated path, a live struct of the passed size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            directory.as_raw_fd(),
            path.as_ptr(),
            &how,
            size_of::<libc::open_how>(),
        )
    };
    if result < 0 {
        return Err(SysError::last("openat2"));
    }
    // SAFETY: the kernel has just returned this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}
