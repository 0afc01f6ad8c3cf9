// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loading and attaching the smallest program of a type, to find out whether this host lets
//! us: `doctor`'s trials. What is attached is gone when this returns.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::SysError;
use super::bpf_load::{self, Instruction, LINK_CREATE, command, descriptor};

/// `BPF_PROG_TYPE_TRACEPOINT`.
const TRACEPOINT: u32 = 5;
/// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`.
const CGROUP_SOCK_ADDR: u32 = 18;
/// `BPF_PROG_TYPE_LSM`.
const LSM: u32 = 29;
/// `BPF_CGROUP_INET4_CONNECT`.
const INET4_CONNECT: u32 = 10;
/// `BPF_LSM_MAC`.
const LSM_MAC: u32 = 27;

const RAW_TRACEPOINT_OPEN: libc::c_long = 17;

/// Loads a program that allows everything and attaches it to a cgroup's `connect`.
pub fn cgroup_connect(cgroup: impl AsFd) -> Result<(), SysError> {
    let program = load(CGROUP_SOCK_ADDR, INET4_CONNECT, 0, 1)?;
    let attr = [
        program.as_raw_fd() as u32,
        cgroup.as_fd().as_raw_fd() as u32,
        INET4_CONNECT,
        0,
    ];
    // SAFETY: no pointer in the attribute.
    unsafe { command("bpf BPF_LINK_CREATE", LINK_CREATE, &attr) }.map(drop)
}

/// Loads a program that does nothing for the LSM hook with this BTF id and attaches it.
pub fn lsm(btf_id: u32) -> Result<(), SysError> {
    let program = load(LSM, LSM_MAC, btf_id, 0)?;
    // `name` null, then the program: the way LSM programs are attached.
    let attr = [0, 0, program.as_raw_fd() as u32, 0];
    // SAFETY: no pointer in the attribute.
    unsafe { command("bpf BPF_RAW_TRACEPOINT_OPEN", RAW_TRACEPOINT_OPEN, &attr) }.map(drop)
}

/// Loads a program that does nothing and attaches it to the tracepoint with this number.
pub fn tracepoint(id: u64) -> Result<(), SysError> {
    let program = load(TRACEPOINT, 0, 0, 0)?;
    let event = open_event(id)?;
    for (request, argument) in [(SET_BPF, program.as_raw_fd() as libc::c_ulong), (ENABLE, 0)] {
        // SAFETY: an open descriptor and an integer.
        if unsafe { libc::ioctl(event.as_raw_fd(), request, argument) } < 0 {
            return Err(SysError::last("ioctl of a perf event"));
        }
    }
    Ok(())
}

/// `PERF_EVENT_IOC_ENABLE`.
const ENABLE: libc::c_ulong = 0x2400;
/// `PERF_EVENT_IOC_SET_BPF`.
const SET_BPF: libc::c_ulong = 0x4004_2408;
/// `PERF_TYPE_TRACEPOINT`.
const TYPE_TRACEPOINT: u32 = 2;
/// `PERF_ATTR_SIZE_VER0`.
const EVENT_SIZE: u32 = 64;

/// `struct perf_event_attr`, first version.
#[repr(C)]
#[derive(Default)]
struct Event {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    rest: [u64; 5],
}

fn open_event(id: u64) -> Result<OwnedFd, SysError> {
    let event = Event {
        kind: TYPE_TRACEPOINT,
        size: EVENT_SIZE,
        config: id,
        sample_period: 1,
        ..Event::default()
    };
    let (all_processes, first_cpu, no_group, close_on_exec) = (-1, 0, -1, 8u64);
    // SAFETY: a live struct of the size that it names, and integers.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &event,
            all_processes,
            first_cpu,
            no_group,
            close_on_exec,
        )
    };
    descriptor("perf_event_open", fd)
}

/// `r0 = result; exit`.
fn load(kind: u32, attach_type: u32, btf_id: u32, result: i32) -> Result<OwnedFd, SysError> {
    let instruction = |code, immediate| Instruction {
        code,
        registers: 0,
        offset: 0,
        immediate,
    };
    let program = [instruction(0xb7, result), instruction(0x95, 0)];
    bpf_load::load(kind, attach_type, btf_id, &program)
}
