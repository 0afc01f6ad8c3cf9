// SPDX-License-Identifier: MIT OR Apache-2.0
//! Perf events of tracepoints, for BPF programs to be linked to: they run on every CPU.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use super::SysError;

// include/uapi/linux/perf_event.h
const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
const PERF_EVENT_IOC_ENABLE: libc::c_ulong = 0x2400;

/// First members of `struct perf_event_attr` (`PERF_ATTR_SIZE_VER0`).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    rest: [u64; 6],
}

/// The event of the tracepoint `id`: a program that is linked to it runs whenever it is hit.
pub fn open_tracepoint(id: u64) -> Result<OwnedFd, SysError> {
    let attributes = Attributes {
        kind: PERF_TYPE_TRACEPOINT,
        size: size_of::<Attributes>() as u32,
        config: id,
        rest: [0; 6],
    };
    // The program of a tracepoint runs wherever it is hit; the CPU is a formality.
    let (every_process, first_cpu, no_group) = (-1, 0, -1);
    // SAFETY: the structure has the size that it says and outlives the call.
    let event = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            every_process,
            first_cpu,
            no_group,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    let event = match i32::try_from(event) {
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(descriptor) if descriptor >= 0 => unsafe { OwnedFd::from_raw_fd(descriptor) },
        _ => return Err(SysError::last("perf_event_open")),
    };
    // SAFETY: the request takes no argument.
    match unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_ENABLE, 0) } {
        0 => Ok(event),
        _ => Err(SysError::last("ioctl")),
    }
}
