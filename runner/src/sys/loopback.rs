// SPDX-License-Identifier: MIT OR Apache-2.0
//! Brings `lo` up in the calling process's network namespace (netdevice(7)).

use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::SysError;

/// Sets `IFF_UP` on `lo`; the kernel gives it 127.0.0.1 and ::1. System calls only.
pub fn bring_up() -> Result<(), SysError> {
    // SAFETY: socket(2) touches no memory.
    let socket =
        match unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) } {
            -1 => return Err(SysError::last("socket")),
            // SAFETY: the kernel has just made this descriptor for us.
            fd => unsafe { OwnedFd::from_raw_fd(fd) },
        };
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = *byte as libc::c_char;
    }
    // SAFETY: the kernel reads the name and writes the flags of one ifreq.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) } == -1 {
        return Err(SysError::last("ioctl SIOCGIFFLAGS"));
    }
    // SAFETY: SIOCGIFFLAGS has just filled this member of the union; the kernel reads one
    // ifreq.
    let status = unsafe {
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    };
    if status == 0 {
        Ok(())
    } else {
        Err(SysError::last("ioctl SIOCSIFFLAGS"))
    }
}
