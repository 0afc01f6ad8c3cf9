// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors of a child that is about to be something else: closed, marked, put in place.
//! Only system calls, so that each may stand between `clone3(2)` and `execve(2)`.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::SysError;

/// Closes every descriptor from `first` to `last`, both included.
fn close_range(first: u32, last: u32) -> Result<(), SysError> {
    // SAFETY: the callers are children that end in exec or exit and that use no descriptor of
    // the range afterwards; the call itself touches no memory.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(SysError::last("close_range")),
    }
}

/// Closes every descriptor that is not in `keep`, which is in order.
pub fn close_all_but(keep: &[RawFd]) -> Result<(), SysError> {
    let mut first: u32 = 0;
    for fd in keep.iter().filter_map(|fd| u32::try_from(*fd).ok()) {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd.saturating_add(1));
    }
    close_range(first, u32::MAX)
}

/// Makes `target` a copy of `source`, without close-on-exec.
pub fn duplicate_onto(source: BorrowedFd<'_>, target: RawFd) -> Result<(), SysError> {
    // SAFETY: dup2(2) touches no memory; the callers are children that replace their own
    // standard descriptors.
    match unsafe { libc::dup2(source.as_raw_fd(), target) } {
        -1 => Err(SysError::last("dup2")),
        _ => Ok(()),
    }
}

/// Closes one descriptor of a child that owns a copy of the parent's table.
pub fn close(fd: RawFd) {
    // SAFETY: the callers are children that never use `fd` again and never drop its owner.
    unsafe { libc::close(fd) };
}

/// The `FD_` flags of a descriptor number; an error where nothing is open there.
pub fn descriptor_flags(fd: RawFd) -> Result<i32, SysError> {
    // SAFETY: F_GETFD touches no memory.
    match unsafe { libc::fcntl(fd, libc::F_GETFD) } {
        -1 => Err(SysError::last("fcntl")),
        flags => Ok(flags),
    }
}

/// Whether the caller of lp-run left `fd` open: what he did has no close-on-exec flag, while all
/// that lp-run opens has one.
pub fn is_inherited(fd: RawFd) -> bool {
    descriptor_flags(fd).is_ok_and(|flags| flags & libc::FD_CLOEXEC == 0)
}

/// A close-on-exec copy of the descriptor with number `fd`, numbered 3 or higher; an error
/// where nothing is open there.
pub fn duplicate(fd: RawFd) -> Result<OwnedFd, SysError> {
    // SAFETY: F_DUPFD_CLOEXEC touches no memory.
    match unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) } {
        -1 => Err(SysError::last("fcntl")),
        // SAFETY: the kernel has just made this descriptor for us.
        copy => Ok(unsafe { OwnedFd::from_raw_fd(copy) }),
    }
}

/// How many bytes a pipe holds. See pipe(7).
pub fn unread(pipe: BorrowedFd<'_>) -> Result<u64, SysError> {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, into `count`.
    match unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &mut count) } {
        -1 => Err(SysError::last("ioctl FIONREAD")),
        _ => Ok(u64::try_from(count).unwrap_or(0)),
    }
}

/// Reads into `buffer`; 0 is the end.
pub fn read(fd: RawFd, buffer: &mut [u8]) -> Result<usize, SysError> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`.
    match unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) } {
        -1 => Err(SysError::last("read")),
        count => Ok(count as usize),
    }
}

/// Writes from `buffer`.
pub fn write(fd: RawFd, buffer: &[u8]) -> Result<usize, SysError> {
    // SAFETY: the kernel reads at most `buffer.len()` bytes of `buffer`.
    match unsafe { libc::write(fd, buffer.as_ptr().cast(), buffer.len()) } {
        -1 => Err(SysError::last("write")),
        count => Ok(count as usize),
    }
}
