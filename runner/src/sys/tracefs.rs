// SPDX-License-Identifier: MIT OR Apache-2.0
//! tracefs without a mount point: `fsopen(2)` gives a mount that nobody else sees and that ends
//! with its descriptor. It is needed for one thing, the ids of tracepoints.

use std::ffi::CStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use super::SysError;

const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

/// A tracefs of one's own.
pub struct Tracefs(OwnedFd);

impl Tracefs {
    /// Mounts it, detached.
    pub fn open() -> Result<Self, SysError> {
        // SAFETY: a NUL-terminated name, no other pointer.
        let context =
            unsafe { libc::syscall(libc::SYS_fsopen, c"tracefs".as_ptr(), FSOPEN_CLOEXEC) };
        let context = owned("fsopen", context)?;
        // SAFETY: this command takes no key and no value.
        let made = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                context.as_raw_fd(),
                FSCONFIG_CMD_CREATE,
                std::ptr::null::<libc::c_char>(),
                std::ptr::null::<libc::c_void>(),
                0,
            )
        };
        if made < 0 {
            return Err(SysError::last("fsconfig"));
        }
        // SAFETY: no pointer.
        let mount =
            unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) };
        owned("fsmount", mount).map(Self)
    }

    /// The id of a tracepoint, `syscalls/sys_exit_openat`, for `perf_event_open(2)`.
    pub fn tracepoint(&self, name: &str) -> Result<u64, SysError> {
        let path = format!("events/{name}/id\0");
        let path = CStr::from_bytes_with_nul(path.as_bytes()).map_err(|_| SysError {
            call: "openat",
            source: std::io::ErrorKind::InvalidInput.into(),
        })?;
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        // SAFETY: a NUL-terminated path that outlives the call.
        let file = unsafe { libc::openat(self.0.as_raw_fd(), path.as_ptr(), flags) };
        let mut text = String::new();
        File::from(owned("openat", file.into())?)
            .take(32)
            .read_to_string(&mut text)
            .map_err(|source| SysError {
                call: "read",
                source,
            })?;
        text.trim().parse().map_err(|_| SysError {
            call: "read",
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, "the id is no number"),
        })
    }
}

/// The descriptor that a call returned.
fn owned(call: &'static str, value: libc::c_long) -> Result<OwnedFd, SysError> {
    match i32::try_from(value) {
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(SysError::last(call)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_without_a_mount_point() {
        let Ok(tracefs) = Tracefs::open() else {
            eprintln!("skipped: tracefs needs root");
            return;
        };
        assert!(tracefs.tracepoint("syscalls/sys_exit_openat").unwrap() > 0);
        assert_eq!(
            tracefs.tracepoint("syscalls/no_such").unwrap_err().errno(),
            libc::ENOENT
        );
    }
}
