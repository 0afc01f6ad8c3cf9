// SPDX-License-Identifier: MIT OR Apache-2.0
//! The terminal calls that have no safe wrapper: the other end of a pty, the controlling
//! terminal, the window size (ioctl_tty(2)).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::SysError;

/// Opens the slave of the pty whose master is `master`, without a path (`TIOCGPTPEER`): no
/// other mount can stand in its place.
pub fn open_slave(master: BorrowedFd<'_>) -> Result<OwnedFd, SysError> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the argument is a number; the call touches no memory.
    match unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) } {
        -1 => Err(SysError::last("ioctl TIOCGPTPEER")),
        // SAFETY: the kernel has just made this descriptor for us.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

/// Makes `terminal` the controlling terminal of the calling session leader.
pub fn set_controlling(terminal: BorrowedFd<'_>) -> Result<(), SysError> {
    // SAFETY: the argument is a number; the call touches no memory.
    match unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) } {
        -1 => Err(SysError::last("ioctl TIOCSCTTY")),
        _ => Ok(()),
    }
}

/// Lets the slave of a fresh pty be opened
/// (`TIOCSPTLCK`).
pub fn unlock_slave(master: BorrowedFd<'_>) -> Result<(), SysError> {
    let unlocked: libc::c_int = 0;
    // SAFETY: the kernel reads one int.
    match unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) } {
        -1 => Err(SysError::last("ioctl TIOCSPTLCK")),
        _ => Ok(()),
    }
}

/// Gives `to` the window size of `from`; the foreground group behind `to` gets SIGWINCH.
pub fn copy_window_size(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), SysError> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the kernel writes one winsize.
    if unsafe { libc::ioctl(from.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) } == -1 {
        return Err(SysError::last("ioctl TIOCGWINSZ"));
    }
    // SAFETY: the kernel reads one winsize.
    match unsafe { libc::ioctl(to.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } {
        -1 => Err(SysError::last("ioctl TIOCSWINSZ")),
        _ => Ok(()),
    }
}
