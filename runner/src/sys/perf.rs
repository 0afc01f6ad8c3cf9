// SPDX-License-Identifier: MIT OR Apache-2.0
//! A BPF program on a tracepoint, held by a perf event: it runs on every CPU until the
//! descriptor is closed, and nobody else can take it off.

use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use super::SysError;

// include/uapi/linux/perf_event.h
const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
const PERF_EVENT_IOC_ENABLE: libc::c_ulong = 0x2400;
const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;

// include/uapi/linux/bpf.h
const BPF_TASK_FD_QUERY: libc::c_int = 20;

/// First members of `struct perf_event_attr` (`PERF_ATTR_SIZE_VER0`).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    rest: [u64; 6],
}

/// Runs `program`, of type tracepoint, whenever the tracepoint `id` is hit.
pub fn attach_tracepoint(id: u64, program: BorrowedFd<'_>) -> Result<OwnedFd, SysError> {
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
    control(&event, PERF_EVENT_IOC_SET_BPF, program.as_raw_fd())?;
    control(&event, PERF_EVENT_IOC_ENABLE, 0)?;
    Ok(event)
}

/// Id of the program that is attached through `event`, a descriptor of this process.
pub fn attached_program(event: BorrowedFd<'_>) -> Result<u32, SysError> {
    /// `bpf_attr.task_fd_query`.
    #[repr(C)]
    #[derive(Default)]
    struct Query {
        pid: u32,
        fd: u32,
        flags: u32,
        length: u32,
        buffer: u64,
        program: u32,
        kind: u32,
        probe: [u64; 2],
    }
    let mut query = Query {
        pid: std::process::id(),
        fd: event.as_raw_fd().cast_unsigned(),
        ..Query::default()
    };
    // SAFETY: the structure has the size that is passed; with length 0 no buffer is written.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_TASK_FD_QUERY,
            &raw mut query,
            size_of::<Query>(),
        )
    };
    if done < 0 {
        Err(SysError::last("bpf"))
    } else {
        Ok(query.program)
    }
}

fn control(event: &OwnedFd, request: libc::c_ulong, value: i32) -> Result<(), SysError> {
    // SAFETY: both requests take a number, not a pointer.
    match unsafe { libc::ioctl(event.as_raw_fd(), request, value) } {
        0 => Ok(()),
        _ => Err(SysError::last("ioctl")),
    }
}
